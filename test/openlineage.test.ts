/** What a collector of OpenLineage hears of captures, snapshots and deployments, while it is away at times, and workers die. */
import { once } from 'node:events';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { readTransport } from '../activities/lineage/openlineage/transport.ts';
import { type Control, openControl } from '../api/control/control.ts';
import { deploy } from '../api/control/deploy.ts';
import { runDeployment } from '../api/control/deployment_runs.ts';
import { connectSource, getSource, orderSource } from '../api/control/sources.ts';
import { type AssetApi, startAssetApi } from '../workers/demo/asset_api.ts';
import { readDeployments } from '../workers/deployment_files.ts';
import { readSettings } from '../workers/settings.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';
import { type Judge, openLineageJudge, type ShapedEvent } from './openlineage_shape.ts';

let stack: ControlStack;
let control: Control;
let assets: AssetApi;
let collector: Server;
let judge: Judge;
let away = true;
const heard: ShapedEvent[] = [];
const keys = new Set<string | undefined>();
const folder = mkdtempSync(path.join(tmpdir(), 'sluice-openlineage-'));

beforeAll(async () => {
  judge = await openLineageJudge();
  assets = await startAssetApi({ rate: 0 });
  collector = createServer((request, response) => {
    let body = '';
    request.on('data', (bytes) => {
      body += bytes;
    });
    request.on('end', () => {
      const right = request.method === 'POST' && request.url === '/api/v1/lineage';
      if (right && !away) heard.push(JSON.parse(body));
      keys.add(request.headers.authorization);
      response.writeHead(!right ? 404 : away ? 503 : 201).end();
    });
  }).listen(0, '127.0.0.1');
  await once(collector, 'listening');
  const { port } = collector.address() as AddressInfo;
  const shared = {
    OPENLINEAGE_URL: `http://127.0.0.1:${port}`,
    OPENLINEAGE_API_KEY: 'collector-key',
    ASSET_API_URL: assets.url,
  };
  stack = await startControlStack({}, () => shared);
  control = openControl(readSettings(stack.environment));
}, 120_000);

afterAll(async () => {
  await control?.[Symbol.asyncDispose]();
  await stack?.[Symbol.asyncDispose]();
  await assets?.close();
  collector?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

function sql(text: string): Promise<unknown> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, (client) => client.query(text));
}

const streams = () =>
  until(
    () => getSource(control, 'shop'),
    (source) => source.status === 'streaming' && source.tables.every((table) => table.status === 'streaming'),
    60,
  );
const of = (job: string) => heard.filter((one) => one.job.name === job);
const types = (events: ShapedEvent[]) => events.map((one) => one.eventType);

it('hears runs begin and end, with datasets, columns and counts; late rather than never', async () => {
  await sql(`CREATE TABLE public.orders (id int PRIMARY KEY, note text);
    INSERT INTO public.orders SELECT i, 'n' FROM generate_series(1, 500) i`);
  const config = {
    tables: ['orders'],
    poll_interval: 0.05,
    mode: 'copy' as const,
    exclude_columns: {},
    options: { verify: 'off' as never },
  };
  await connectSource(control, { id: 'shop', type: 'postgresql', connection_string: stack.parts.postgres.url, config });
  await orderSource(control, 'shop', 'start');
  // Nobody collects, and nobody minds.
  await streams();
  expect(heard).toEqual([]);
  away = false;
  await until(
    () => of('snapshot.shop_orders').at(-1)?.eventType,
    (type) => type === 'COMPLETE',
    90,
  );
  const [begun] = of('capture.shop');
  expect(begun?.eventType).toBe('START');

  const snapshot = of('snapshot.shop_orders').at(-1)!;
  const { hostname, port, pathname } = new URL(stack.parts.postgres.url);
  const source = { namespace: `postgres://${hostname}:${port}`, name: `${pathname.slice(1)}.public.orders` };
  expect(snapshot.inputs).toMatchObject([source]);
  expect(snapshot.inputs[0]?.inputFacets?.dataQualityAssertions?.assertions[0]).toMatchObject({ success: true });
  const clickhouse = new URL(stack.parts.clickhouse.url);
  const [copy] = snapshot.outputs;
  expect(copy).toMatchObject({
    namespace: `clickhouse://${clickhouse.hostname}:${clickhouse.port}`,
    name: 'sluice.shop_orders',
  });
  expect(copy?.outputFacets?.outputStatistics?.rowCount).toBe(500);
  expect(copy?.facets?.schema?.fields.map((field) => field.name)).toEqual(['id', 'note']);
  expect(copy?.facets?.columnLineage?.fields.note?.inputFields).toEqual([
    { ...source, field: 'note', transformations: [{ type: 'DIRECT', subtype: 'IDENTITY', masking: false }] },
  ]);

  await sql(`UPDATE public.orders SET note = 'changed' WHERE id <= 30`);
  await until(
    () => getSource(control, 'shop'),
    (one) => (one.changes_total ?? 0) >= 30,
  );
  await orderSource(control, 'shop', 'pause');
  const ended = await until(
    () =>
      of('capture.shop')
        .filter((one) => one.eventType === 'ABORT')
        .at(-1),
    Boolean,
  );
  expect(ended?.outputs[0]?.outputFacets?.outputStatistics?.rowCount).toBe(30);

  writeFileSync(
    path.join(folder, 'assets.yaml'),
    'name: assets\nflow: extractAssets\nparameters: { api_url: "${ASSET_API_URL}" }\n',
  );
  await deploy(control, readDeployments(folder));
  await runDeployment(control, 'assets', {});
  await until(
    () => types(of('extract.assets')),
    (all) => all.includes('COMPLETE'),
    40,
  );
  const extract = of('extract.assets').at(-1)!;
  expect(extract.inputs[0]).toMatchObject({ namespace: assets.url, name: '/assets' });
  expect(extract.outputs.map((one) => one.name).at(-1)).toBe('sluice.assets');
  const rows = await control.clickhouse.rows<{ rows: string }>('SELECT toString(count()) AS rows FROM sluice.assets');
  expect(extract.outputs.at(-1)?.outputFacets?.outputStatistics?.rowCount).toBe(Number(rows[0]?.rows));
}, 150_000);

it('hears of workers that die, and that what they did was given up', async () => {
  await orderSource(control, 'shop', 'resume');
  await streams();
  const running = () => of('capture.shop').at(-1);
  const lost = await until(running, (one) => one?.eventType === 'START');
  stack.worker.kill('SIGKILL');
  stack.worker = await stack.startWorker();
  const end = () => heard.filter((one) => one.run.runId === lost!.run.runId && one.eventType === 'ABORT').length;
  await until(end, (count) => count === 1, 60);
  const next = await until(
    () => of('capture.shop').find((one) => one.eventType === 'START' && one.eventTime > lost!.eventTime),
    Boolean,
    60,
  );
  expect(next!.run.runId).not.toBe(lost!.run.runId);
}, 150_000);

it('was only told what is right, and nothing secret', () => {
  expect(heard.length).toBeGreaterThan(8);
  console.log(
    `${heard.length} events, ${process.env.OPENLINEAGE_SPEC ? 'by the published schemas too' : 'by their shapes'}`,
  );
  for (const event of heard)
    expect([event.job.name, event.eventType, judge(event)]).toEqual([event.job.name, event.eventType, []]);
  const text = JSON.stringify(heard);
  expect(text).not.toContain(new URL(stack.parts.postgres.url).password);
  expect(text).not.toContain('collector-key');
  expect(keys).toEqual(new Set(['Bearer collector-key']));
  const [one] = heard;
  const wrong = [
    { ...one, eventType: 'BEGIN' },
    { ...one, eventTime: 'now' },
    { ...one, run: {} },
    { ...one, schemaURL: undefined },
  ];
  for (const event of wrong) expect(judge(event)).not.toEqual([]);
  // Each run begins once, and ends at most once. An event whose answer was lost is sent again, as it was.
  const told = [...new Set(heard.map((one) => JSON.stringify(one)))].map((text) => JSON.parse(text) as ShapedEvent);
  const ids = new Set(told.map((one) => one.run.runId));
  const runs = [...ids].map((id) => told.filter((one) => one.run.runId === id));
  for (const events of runs) {
    expect(types(events).filter((type) => type === 'START')).toHaveLength(1);
    expect(types(events).filter((type) => ['COMPLETE', 'FAIL', 'ABORT'].includes(type)).length).toBeLessThanOrEqual(1);
  }
});

it('is a file, where that is wanted; two places at once are refused', async () => {
  const file = path.join(folder, 'events.ndjson');
  const transport = readTransport({ OPENLINEAGE_FILE: file });
  await transport?.deliver(heard[0] as never);
  await transport?.deliver(heard[1] as never);
  expect(
    readFileSync(file, 'utf8')
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line)),
  ).toEqual(heard.slice(0, 2));
  expect(readTransport({})).toBeUndefined();
  expect(() => readTransport({ OPENLINEAGE_FILE: file, OPENLINEAGE_URL: 'http://127.0.0.1' })).toThrow('two places');
  expect(() => readTransport({ OPENLINEAGE_URL: 'ftp://127.0.0.1' })).toThrow('no http(s) address');
});
