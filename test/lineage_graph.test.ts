/**
 * The graph of assets through the random life of sources and a deployment: it follows every definition, and what is made anew from
 * Temporal's histories equals what was noted while all of it happened.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { stretchesOf } from '../activities/lineage/happenings.ts';
import { rebuildLineage } from '../activities/lineage/rebuild.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { readHappenings } from '../activities/load/lineage_index.ts';
import { type Control, openControl } from '../api/control/control.ts';
import { deploy } from '../api/control/deploy.ts';
import { runDeployment } from '../api/control/deployment_runs.ts';
import { indexedStretches } from '../api/control/lineage.ts';
import type { FlowAnswer, ImpactAnswer, WalkAnswer } from '../api/control/lineage_shapes.ts';
import { connectSource, deleteSource, getSource, orderSource } from '../api/control/sources.ts';
import { update } from '../api/control/temporal.ts';
import { captureMessages, captureWorkflowId, catalogWorkflowId } from '../model/messages.ts';
import type { CaptureStatus } from '../model/source.ts';
import { nodeArguments } from '../workers/child.ts';
import { type AssetApi, startAssetApi } from '../workers/demo/asset_api.ts';
import { seededRandom } from '../workers/demo/random.ts';
import { readDeployments } from '../workers/deployment_files.ts';
import { projectFolder, readSettings } from '../workers/settings.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

const seed = process.env.LINEAGE_SEED ?? String(Math.floor(Math.random() * 1e9));
const random = seededRandom(seed);
const folder = mkdtempSync(path.join(tmpdir(), 'sluice-lineage-'));
let stack: ControlStack;
let control: Control;
let clickhouse: ClickHouse;
let assets: AssetApi;

beforeAll(async () => {
  console.log(`LINEAGE_SEED=${seed}`);
  assets = await startAssetApi({ rate: 0 });
  stack = await startControlStack({}, () => ({ ASSET_API_URL: assets.url }));
  control = openControl(readSettings(stack.environment));
  clickhouse = new ClickHouse({ url: stack.parts.clickhouse.url, database: 'sluice', role: 'write' });
}, 120_000);

afterAll(async () => {
  await clickhouse?.close();
  await control?.[Symbol.asyncDispose]();
  await stack?.[Symbol.asyncDispose]();
  await assets?.close();
  rmSync(folder, { recursive: true, force: true });
}, 60_000);

function sql(text: string): Promise<unknown> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, (client) => client.query(`SET search_path = public; ${text}`));
}

async function get<Answer>(call: string, status = 200): Promise<Answer> {
  const answer = await fetch(`${stack.api}/api/v1/lineage/${call}`);
  expect([call, answer.status]).toEqual([call, status]);
  return (await answer.json()) as Answer;
}

async function sluice(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const file = path.join(projectFolder, 'cli', 'main.ts');
  const child = spawn(process.execPath, nodeArguments(file, ...args), { env: stack.environment });
  const ran = { code: null as number | null, out: '', err: '' };
  child.stdout.on('data', (bytes) => {
    ran.out += bytes;
  });
  child.stderr.on('data', (bytes) => {
    ran.err += bytes;
  });
  return await new Promise((resolve) => child.once('close', (code) => resolve({ ...ran, code })));
}

async function connect(id: string, tables: string[], more: object = {}): Promise<void> {
  await connectSource(control, {
    id,
    type: 'postgresql',
    connection_string: '${DATABASE_URL}',
    config: {
      tables,
      poll_interval: 0.05,
      mode: 'copy',
      exclude_columns: {},
      options: { verify: 'off', ...more } as object,
    },
  });
  await orderSource(control, id, 'start');
}

async function streams(id: string): Promise<void> {
  await until(
    () => getSource(control, id),
    (source) => source.status === 'streaming' && source.tables.every((table) => table.status === 'streaming'),
    60,
  );
}

/** Columns of each copy, as the graph has them now. */
async function copies(): Promise<Record<string, string[]>> {
  const { assets: nodes } = await get<FlowAnswer>('flow');
  return Object.fromEntries(nodes.filter((node) => node.type === 'copy').map((node) => [node.asset_id, node.columns]));
}

/** Waits until the graph has these copies, with these columns and no others. */
async function expectCopies(wanted: Record<string, string[]>): Promise<void> {
  const sorted = (of: Record<string, string[]>) => JSON.stringify(Object.entries(of).sort());
  await until(copies, (found) => sorted(found) === sorted(wanted), 40);
}

describe('lineage', () => {
  it('follows a random life of sources and a deployment, and is the same when it is made anew', async () => {
    const wanted: Record<string, string[]> = {};
    const columns = new Map<string, string[]>();
    for (const name of ['one', 'two', 'three', 'four']) {
      await sql(`CREATE TABLE ${name} (id int PRIMARY KEY, a text); INSERT INTO ${name} VALUES (1, 'x')`);
      columns.set(name, ['id', 'a']);
    }
    const captured = new Set(['one', 'two']);
    /** Columns that a rule fills, by table. */
    const ruled = new Map<string, string[]>();
    const want = () => {
      for (const name of columns.keys()) delete wanted[`clickhouse_shop_${name}`];
      for (const name of captured)
        wanted[`clickhouse_shop_${name}`] = [...columns.get(name)!, ...(ruled.get(name) ?? [])];
    };
    await connect('shop', [...captured]);
    want();
    await streams('shop');
    await expectCopies(wanted);

    writeFileSync(
      path.join(folder, 'assets.yaml'),
      `name: assets\nflow: extractAssets\nparameters: { api_url: "\${ASSET_API_URL}", page_size: 500 }\n`,
    );
    await deploy(control, readDeployments(folder));
    await runDeployment(control, 'assets', {});
    wanted.clickhouse_assets = ['id', 'name', 'kind', 'value', 'updated_at'];
    await expectCopies(wanted);

    const steps = {
      add: async () => {
        const name = random.pick([...columns.keys()]);
        if (captured.has(name)) return;
        captured.add(name);
        await orderSource(control, 'shop', 'addTables', [name]);
      },
      remove: async () => {
        if (captured.size < 2) return;
        const name = random.pick([...captured]);
        captured.delete(name);
        await orderSource(control, 'shop', 'removeTables', [name]);
      },
      resync: async () => void (await orderSource(control, 'shop', 'resync', [random.pick([...captured])])),
      alter: async () => {
        const name = random.pick([...captured]);
        const known = columns.get(name)!;
        const extra = `b${known.length}_${random.between(1, 999)}`;
        const drops = known.length > 2 && random.chance(0.4);
        await sql(
          drops
            ? `ALTER TABLE ${name} DROP COLUMN ${known.at(-1)}`
            : `ALTER TABLE ${name} ADD COLUMN ${extra} int; INSERT INTO ${name} VALUES (${random.between(2, 1e8)})`,
        );
        columns.set(name, drops ? known.slice(0, -1) : [...known, extra]);
      },
      pause: async () => {
        await orderSource(control, 'shop', 'pause');
        await orderSource(control, 'shop', 'resume');
      },
      rule: async () => {
        const name = random.pick([...captured]);
        const rule_id = `upper_${name}`;
        if (ruled.delete(name)) return void (await update(control, catalogWorkflowId, 'removeRule', { rule_id }));
        const expression = '{{ a | upper }}';
        const rule = { rule_id, rule_type: 'map', assets: [`shop_${name}`], expression, target_field: 'up' };
        await update(control, catalogWorkflowId, 'putRule', { rule });
        ruled.set(name, ['up']);
      },
      run: async () => void (await runDeployment(control, 'assets', {})),
    };
    for (const name of ['alter', 'remove', 'add', 'rule', 'resync', 'alter', 'pause', 'rule', 'run'] as const)
      await take(name);
    for (let step = 0; step < 4; step++)
      await take(random.pick(['alter', 'remove', 'add', 'resync', 'pause', 'rule'] as const));

    async function take(name: keyof typeof steps): Promise<void> {
      await steps[name]();
      want();
      await streams('shop');
      await expectCopies(wanted);
      const { edges } = await get<FlowAnswer>('flow');
      const made = edges.filter((edge) => edge.via.startsWith('upper_'));
      const there = [...captured].filter((one) => ruled.has(one));
      expect(made.map(({ from, columns: pairs }) => [from, pairs]).sort()).toEqual(
        there.map((one) => [`shop_${one}`, [{ from: 'a', to: 'up' }]]).sort(),
      );
    }

    await sql('CREATE TABLE goes (id int PRIMARY KEY)');
    await connect('gone', ['goes']);
    await expectCopies({ ...wanted, clickhouse_gone_goes: ['id'] });
    await deleteSource(control, 'gone', { dropCopies: true, force: false });
    await expectCopies(wanted);
    await orderSource(control, 'shop', 'pause');

    const live = await indexedStretches(control);
    expect(live.filter((stretch) => stretch.owner === 'gone').map((stretch) => stretch.until === null)).toEqual([
      false,
    ]);
    for (const { since, until: end } of live) expect([since, end === null || end > since]).toEqual([since, true]);
    expect(live.every((stretch) => /^(capture|assets)\//.test(stretch.workflow_id) && stretch.run_id !== '')).toBe(
      true,
    );
    // Nothing is missing, and nothing was noted that did not happen.
    expect(await rebuildLineage(control.temporal, clickhouse)).toMatchObject({ added: 0, dropped: 0, kept: 0 });
    await clickhouse.command('TRUNCATE TABLE sluice._lineage');
    expect(await indexedStretches(control)).toEqual([]);
    const rebuilt = await rebuildLineage(control.temporal, clickhouse);
    expect(rebuilt.added).toBe(rebuilt.happenings);
    expect([seed, await indexedStretches(control)]).toEqual([seed, live]);

    // What no history tells is taken back, and what is from histories that are gone stays.
    const [some] = await readHappenings(clickhouse);
    const other = { ...some, asset: 'shop_never', gone: 0 };
    await clickhouse.insertObjects('_lineage', [
      other,
      { ...other, asset: 'old_one', told_run: 'gone', kind: 'begun' },
    ]);
    expect(await rebuildLineage(control.temporal, clickhouse)).toMatchObject({ added: 0, dropped: 1, kept: 1 });
    expect(stretchesOf(await readHappenings(clickhouse))).toEqual(live);
  }, 170_000);

  it('is asked by the command line', async () => {
    const up = await sluice('lineage', 'clickhouse_assets', '--upstream');
    expect(up.out).toMatch(/^clickhouse_assets is made from\n.*\n *1 +csv_assets +csv\n *2 +api_assets +api\n/);
    expect((await sluice('lineage', 'api_assets', '--downstream', '--depth', '1', '--json')).out).not.toContain(
      'clickhouse_',
    );
    const impact = await sluice('lineage', 'api_assets', '--impact', '--column', 'value');
    expect(impact.out).toContain('a change of api_assets reaches 2');
    expect(impact.out).toContain('longest chain: api_assets → csv_assets → clickhouse_assets');
    expect((await sluice('lineage', 'csv_assets', '--mermaid')).out).toMatch(/^flowchart LR\n(.*\n){3}.*"extract"/);
    const missing = await sluice('lineage', 'csv_asset');
    expect([missing.code, missing.err]).toEqual([1, expect.stringContaining('Did you mean csv_assets?')]);
    expect((await sluice('lineage', 'csv_assets', '--depth', 'x')).code).toBe(2);
    const rebuilt = JSON.parse((await sluice('lineage-rebuild', '--json')).out);
    expect(rebuilt).toMatchObject({ added: 0, dropped: 0 });
  }, 90_000);

  it('is asked by REST', async () => {
    const up = await get<WalkAnswer>('asset/clickhouse_assets/upstream');
    expect(up.assets).toEqual([
      { asset_id: 'csv_assets', type: 'csv', depth: 1 },
      { asset_id: 'api_assets', type: 'api', depth: 2 },
    ]);
    expect(up.edges.map(({ from, to, via }) => [from, to, via])).toEqual([
      ['api_assets', 'csv_assets', 'extract'],
      ['csv_assets', 'clickhouse_assets', 'load'],
    ]);
    expect(await get<WalkAnswer>('asset/assets/upstream')).toEqual(up);
    expect((await get<WalkAnswer>('asset/api_assets/downstream?max_depth=1')).assets).toHaveLength(1);
    expect((await get<WalkAnswer>('asset/assets/upstream?max_depth=0')).edges).toEqual([]);
    const impact = await get<ImpactAnswer>('impact/api_assets?column=kind');
    expect(impact).toMatchObject({
      asset_id: 'api_assets',
      total_affected: 2,
      critical_path: ['api_assets', 'csv_assets', 'clickhouse_assets'],
    });
    expect(impact.affected[1]).toEqual({
      asset_id: 'clickhouse_assets',
      type: 'copy',
      depth: 2,
      columns: ['kind'],
      sources_of_record: ['api_assets'],
    });
    const deleted = await get<ImpactAnswer>('impact/api_assets?column=deleted');
    expect(deleted.affected[1]?.columns).toEqual(['id', 'name', 'kind', 'value', 'updated_at']);
    const missing = await get<{ remedy: string; kind: string }>('asset/clickhouse_asset/upstream', 404);
    expect(missing).toMatchObject({ kind: 'not_found', remedy: 'Did you mean clickhouse_assets?' });
    expect(await get<{ remedy: string }>('impact/api_assets?column=knd', 404)).toMatchObject({
      remedy: 'Did you mean kind?',
    });
    await get('asset/assets/upstream?max_depth=-1', 422);
    for (const [format, begins] of [
      ['dot', 'digraph lineage {'],
      ['mermaid', 'flowchart LR'],
    ]) {
      const answer = await fetch(`${stack.api}/api/v1/lineage/flow?format=${format}`);
      expect(await answer.text()).toMatch(new RegExp(`^${begins}`));
    }
    const flow = await get<FlowAnswer>('flow');
    const load = flow.edges.find((edge) => edge.to === 'clickhouse_assets');
    expect(load?.definition).toMatchObject({ version: 1, generation: 1 });
    expect(load?.definition?.workflow?.id).toMatch(/^assets\//);
  });
});

describe('a change that somebody has to agree with', () => {
  it('is shown with what it reaches', async () => {
    await sql('CREATE TABLE careful (id int PRIMARY KEY, v int); INSERT INTO careful VALUES (1, 1)');
    await connect('wary', ['careful'], { schema_changes: 'approve' });
    await streams('wary');
    await sql('ALTER TABLE careful ADD COLUMN w int; INSERT INTO careful VALUES (2, 2, 2)');
    const waiting = await until(
      () => getSource(control, 'wary'),
      (source) => source.tables.some((table) => table.error?.kind === 'table_changed'),
      30,
    );
    expect(waiting.tables).toMatchObject([{ affects: ['clickhouse_wary_careful'] }]);
    // Temporal UI shows what the query answers: whoever sends the update from there has read it.
    const flow = control.temporal.workflow.getHandle(captureWorkflowId('wary'));
    const { currentDetails } = await flow.query<{ currentDetails: string }>('__temporal_workflow_metadata');
    expect(currentDetails).toContain('**It reaches** `clickhouse_wary_careful`.');
    const { tables } = await flow.query<CaptureStatus>(captureMessages.status);
    expect(tables[0]?.error?.affects).toEqual(['clickhouse_wary_careful']);
    await orderSource(control, 'wary', 'approveSchema', ['careful']);
    await streams('wary');
    expect((await getSource(control, 'wary')).tables[0]).not.toHaveProperty('affects');
  }, 120_000);
});
