/** Assets from API to copy on real parts: the flow, its files, its faults, kills of the worker, backfills. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { createHash, randomUUID } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Client, WorkflowHandle } from '@temporalio/client';
import { parse } from 'csv-parse/sync';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { assetTable } from '../activities/extract/asset_copy.ts';
import { firingBefore } from '../activities/extract/schedule_times.ts';
import { auditSource } from '../activities/lineage/audit.ts';
import { assetBatchOf, rowVersions } from '../activities/lineage/row_versions.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { storeRules } from '../activities/transform/rule_store.ts';
import { searchAttributes } from '../flows/searchAttributes.ts';
import { type BackfillRequest, backfillWorkflowId, runWorkflowId, scheduledWorkflowId } from '../model/deployment.ts';
import type { ExtractAnswer, ExtractRequest } from '../model/extract.ts';
import { flowNames } from '../model/messages.ts';
import type { DeclaredRules, Rule } from '../model/rules.ts';
import { nodeArguments } from '../workers/child.ts';
import { type AssetApi, startAssetApi } from '../workers/demo/asset_api.ts';
import type { Asset } from '../workers/demo/asset_market.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { findTemporal } from '../workers/embedded/temporal_binary.ts';
import { projectFolder } from '../workers/settings.ts';
import { connectTemporal } from '../workers/temporal_client.ts';
import { recordHistory } from './histories.ts';

const taskQueue = 'extract';
let parts: StartedParts<'clickhouse' | 'temporal'>;
let client: Client;
let clickhouse: ClickHouse;
let api: AssetApi;
let worker: ChildProcess;

beforeAll(async () => {
  parts = await startParts(['clickhouse', 'temporal']);
  client = await connectTemporal({ temporalAddress: parts.temporal.url, temporalNamespace: 'default' });
  clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'read' });
  api = await startAssetApi({ seed: '4', rate: 5 });
  worker = await startWorker();
}, 120_000);

afterAll(async () => {
  worker?.kill('SIGKILL');
  await api?.close();
  await clickhouse?.close();
  await client?.connection.close();
  await parts?.[Symbol.asyncDispose]();
}, 60_000);

async function startWorker(): Promise<ChildProcess> {
  const child = spawn(process.execPath, nodeArguments('workers/worker.ts'), {
    cwd: projectFolder,
    env: {
      ...process.env,
      SLUICE_HOME: parts.home,
      TEMPORAL_ADDRESS: parts.temporal.url,
      TEMPORAL_TASK_QUEUE: taskQueue,
      CLICKHOUSE_URL: parts.clickhouse.url,
      ASSET_API_URL: api.url,
      SLUICE_SECRET_KEY: 'test',
    },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const log: string[] = [];
  createInterface({ input: child.stderr! }).on('line', (line) => log.push(line));
  await new Promise<void>((resolve, reject) => {
    createInterface({ input: child.stdout! }).once('line', () => resolve());
    child.once('exit', () => reject(new Error(`the worker ended: ${log.join('\n')}`)));
  });
  return child;
}

async function killWorker(): Promise<void> {
  const gone = new Promise((resolve) => worker.once('exit', resolve));
  worker.kill('SIGKILL');
  await gone;
}

function requestOf(deployment: string): ExtractRequest {
  return { deployment, api_url: '${ASSET_API_URL}', page_size: 100 };
}

async function start(request: ExtractRequest) {
  const workflowId = runWorkflowId(request?.deployment ?? 'wrong', request?.to ?? new Date().toISOString());
  return await client.workflow.start(flowNames.extractAssets, { taskQueue, workflowId, args: [request] });
}

async function run(request: ExtractRequest): Promise<ExtractAnswer> {
  return (await (await start(request)).result()) as ExtractAnswer;
}

async function setFaults(...faults: object[]): Promise<void> {
  await fetch(`${api.url}/faults`, { method: 'DELETE' });
  if (faults.length > 0) await post('/faults', faults);
}

async function post(route: string, body: unknown): Promise<void> {
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch(`${api.url}${route}`, { method: 'POST', headers, body: JSON.stringify(body) });
  expect(answer.ok).toBe(true);
}

/** Keeps the history of a run for test/replay.test.ts, when it is asked for by RECORD_HISTORIES=1. */
async function record(workflowId: string, name: string): Promise<void> {
  if (!process.env.RECORD_HISTORIES) return;
  const program = await findTemporal(() => {});
  const cli = async (...args: string[]) => {
    const { stdout, stderr } = await promisify(execFile)(program, [...args, '--address', parts.temporal.url]);
    return { stdout, stderr, code: 0 };
  };
  await recordHistory({ cli }, workflowId, name);
}

/** All assets as the API has them now. */
async function truth(): Promise<Asset[]> {
  const items: Asset[] = [];
  for (let page: number | null = 1; page !== null; ) {
    const answer = await fetch(`${api.url}/assets?page=${page}&page_size=1000`);
    const read = (await answer.json()) as { items: Asset[]; next_page: number | null };
    items.push(...read.items);
    page = read.next_page;
  }
  return items;
}

interface CopyRow {
  id: string;
  name: string | null;
  kind: string | null;
  value: string | null;
  updated_at: string;
}

async function copyOf(deployment: string): Promise<CopyRow[]> {
  return await clickhouse.rows<CopyRow>(
    `SELECT id, name, kind, toString(value) AS value, concat(replaceOne(toString(updated_at), ' ', 'T'), 'Z') AS updated_at
     FROM ${clickhouse.name(deployment)} FINAL ORDER BY id`,
  );
}

/** The copy has what the API has, and nothing else. */
async function expectIdentical(deployment: string): Promise<void> {
  const expected = (await truth())
    .filter((asset) => !asset.deleted)
    .map(({ deleted: _, value, updated_at, ...asset }) => {
      const time = updated_at.replace('Z', '000000Z');
      return { ...asset, value: value === null ? null : String(value), updated_at: time };
    })
    .sort((a, b) => (a.id < b.id ? -1 : 1));
  expect(await copyOf(deployment)).toEqual(expected);
}

function folderOf(deployment: string): string {
  return path.join(parts.home, 'asset_data', deployment);
}

/** Every file is whole, is what its manifest says, and no draft is left. */
function checkFiles(deployment: string): { files: number; rows: Record<string, string>[] } {
  const folder = folderOf(deployment);
  const names = existsSync(folder) ? readdirSync(folder) : [];
  expect(names.filter((name) => name.startsWith('.'))).toEqual([]);
  const rows: Record<string, string>[] = [];
  const listed = new Set<string>();
  for (const name of names.filter((one) => one.endsWith('.manifest.json'))) {
    const manifest = JSON.parse(readFileSync(path.join(folder, name), 'utf8'));
    for (const file of manifest.files) {
      listed.add(file.file);
      const bytes = readFileSync(path.join(folder, file.file));
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(file.sha256);
      const read = parse<Record<string, string>>(bytes, { columns: true, record_delimiter: '\n' });
      expect(read.length).toBe(file.rows);
      rows.push(...read);
    }
  }
  expect(names.filter((name) => name.endsWith('.csv')).sort()).toEqual([...listed].sort());
  return { files: listed.size, rows };
}

/** The last finished run of a deployment. */
async function newest(deployment: string): Promise<{ id: string }> {
  const [row] = await clickhouse.rows<{ id: string }>(
    `SELECT workflow_id AS id FROM ${clickhouse.name('_batches')} FINAL
     WHERE source = {deployment:String} AND kind = 'extract' ORDER BY recorded_at DESC LIMIT 1`,
    { params: { deployment } },
  );
  return row!;
}

async function versionsOf(deployment: string): Promise<Map<string, string>> {
  const rows = await clickhouse.rows<{ id: string; version: string }>(
    `SELECT id, toString(_version) AS version FROM ${clickhouse.name(deployment)} FINAL`,
  );
  return new Map(rows.map(({ id, version }) => [id, version]));
}

/** Rows that changed since `before` lead to the batch of the run after it, the others to that of the run before. */
async function expectTraced(deployment: string, before: Map<string, string>): Promise<void> {
  const [first, second] = await clickhouse.rows<{ id: string }>(
    `SELECT id FROM ${clickhouse.name('_batches')} FINAL WHERE source = {deployment:String} AND kind = 'rows' ORDER BY lease`,
    { params: { deployment } },
  );
  const after = await versionsOf(deployment);
  const changed = [...after.keys()].filter((id) => after.get(id) !== before.get(id));
  const same = [...after.keys()].filter((id) => after.get(id) === before.get(id)).slice(0, 20);
  expect(changed.length).toBeGreaterThan(0);
  for (const id of [...changed.slice(0, 20), ...same]) {
    const [row] = await rowVersions(clickhouse, assetTable(deployment), id);
    const batch = await assetBatchOf(clickhouse, deployment, row!);
    expect([id, batch?.id]).toEqual([id, (changed.includes(id) ? second : first)?.id]);
  }
}

async function until(holds: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 20_000;
  while (!(await holds())) {
    if (Date.now() > end) throw new Error('not within 20 s');
    await sleep(50);
  }
}

/** What the activity under way of a run last told of itself. */
async function heartbeatOf(run: WorkflowHandle): Promise<string> {
  const [activity] = (await run.describe()).raw.pendingActivities ?? [];
  return Buffer.from(activity?.heartbeatDetails?.payloads?.[0]?.data ?? []).toString();
}

const dayMs = 86_400_000;
const dateOf = (days: number) => new Date(Math.floor(Date.now() / dayMs + days) * dayMs).toISOString();

describe('a run of extractAssets', () => {
  it('pulls all, then only what has changed, into files and a copy', async () => {
    const first = await run(requestOf('plain'));
    expect(first).toMatchObject({ from: '', files: 1, rejected: 0 });
    expect(first.rows).toBeGreaterThan(1_000);
    const before = await versionsOf('plain');
    const second = await run(requestOf('plain'));
    await expectTraced('plain', before);
    expect(second.from).toBe(first.position);
    expect(second.rows).toBeLessThan(500);
    await post('/changes', { per_second: 0 });
    const third = await run(requestOf('plain'));
    await expectIdentical('plain');
    await record((await newest('plain')).id, 'extract');
    const { rows } = checkFiles('plain');
    const named = rows.map((row) => `${row.id} ${row.updated_at}`);
    expect(new Set(named).size).toBe(named.length);
    expect(rows.length).toBe(first.rows + second.rows + third.rows);
    // Nothing changes any more: a run leaves no file, and the API is asked whether anything has.
    const idle = await run(requestOf('plain'));
    expect(idle).toMatchObject({ files: 0, rows: 0 });
    expect(checkFiles('plain').rows.length).toBe(rows.length);
  });

  it('waits for another one over the same interval, unless that one is dead', async () => {
    const request = { ...requestOf('beside'), from: dateOf(-3), to: dateOf(-2) };
    const begin = (workflowId: string) =>
      client.workflow.start(flowNames.extractAssets, { taskQueue, workflowId, args: [request] });
    const base = `${request.from}_${request.to}`.replace(/[-:]|\.\d+/g, '');
    mkdirSync(folderOf('beside'), { recursive: true });
    const claim = path.join(folderOf('beside'), `.${base}.claim.draft`);
    writeFileSync(claim, 'beside/-other');
    const runs = await Promise.all(['beside/-first', 'beside/-second'].map(begin));
    for (const run of runs) await until(async () => /waits for beside..other/.test(await heartbeatOf(run)));
    // It shows no life any more: both find it so, and one of them is next.
    utimesSync(claim, new Date(), new Date(Date.now() - 120_000));
    const [one, other] = (await Promise.all(runs.map((run) => run.result()))) as ExtractAnswer[];
    expect(one!.rows).toBeGreaterThan(0);
    expect(other).toMatchObject({ from: request.from, to: request.to, files: 1, rows: one!.rows });
    expect(checkFiles('beside').rows.length).toBe(one!.rows);
    const manifest = JSON.parse(readFileSync(path.join(folderOf('beside'), `${base}.manifest.json`), 'utf8'));
    expect(manifest).toMatchObject({ complete: true, workflow: { id: expect.stringMatching(/first|second/) } });
  });

  it('survives what the API does on a bad day', async () => {
    await post('/changes', { per_second: 20 });
    const bad = [
      { kind: 'rate_limit', count: 1, retry_after: 1 },
      { kind: 'rate_limit', count: 1, retry_after: 1, retry_after_form: 'date' },
      { kind: 'server_error', count: 1 },
      { kind: 'slow', count: 1, delay_ms: 500 },
      { kind: 'cut', count: 1 },
      { kind: 'broken_json', count: 1 },
      { kind: 'page_size', count: 5 },
      { kind: 'repeat', count: 3 },
      { kind: 'reorder', count: 5 },
    ];
    await setFaults(...bad);
    const first = await run(requestOf('faults'));
    await setFaults({ kind: 'clock_behind', count: 3, behind_ms: 20_000 });
    const behind = await run(requestOf('faults'));
    // What the API has not shown yet is pulled by the next run.
    const shown = Date.parse(behind.to) - 20_000;
    expect(Date.parse(behind.position)).toBeLessThanOrEqual(Math.max(Date.parse(first.position), shown));
    await setFaults();
    await post('/changes', { per_second: 0 });
    await run(requestOf('faults'));
    await expectIdentical('faults');
    checkFiles('faults');
  });

  it('goes on after kill -9 at any moment, with no half file', { timeout: 120_000 }, async () => {
    await post('/changes', { per_second: 20 });
    for (const wait of [300, 2_800]) {
      await setFaults({ kind: 'slow', probability: 0.3, delay_ms: 300, seed: wait });
      const handle = await start({ ...requestOf('killed'), page_size: 20 });
      await sleep(wait);
      await killWorker();
      worker = await startWorker();
      await handle.result();
    }
    await setFaults();
    await post('/changes', { per_second: 0 });
    await run(requestOf('killed'));
    await expectIdentical('killed');
    checkFiles('killed');
  });

  it('holds back rows that the copy cannot have, with file and line', async () => {
    const items = [
      { id: 'A1', name: 'right', kind: 'x', value: 1.5, updated_at: '2026-01-01T00:00:00Z', deleted: false },
      { id: 'A2', name: 'two\nlines', kind: 'x', value: 'much', updated_at: '2026-01-02T00:00:00Z', deleted: false },
      { id: null, name: 'no id', kind: 'x', value: 2, updated_at: '2026-01-03T00:00:00Z', deleted: false },
      { id: 'A4', name: '\\N', kind: null, value: 1e-7, updated_at: '2026-01-04T00:00:00.123456789+02:00' },
      { id: 'A5', name: 'when?', kind: 'x', value: 2, updated_at: 'yesterday', deleted: false },
    ];
    const { createServer } = await import('node:http');
    const server = createServer((_request, response) => response.end(JSON.stringify({ items, next_page: null })));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as { port: number };
    // An address that is not the worker's own is not asked at all.
    const foreign = { ...requestOf('rows'), api_url: `http://127.0.0.1:${port}` };
    await expect(run(foreign)).rejects.toMatchObject({ cause: { cause: { type: 'configuration' } } });
    await killWorker();
    process.env.SLUICE_OUTGOING_HOSTS = '127.0.0.1';
    worker = await startWorker();
    delete process.env.SLUICE_OUTGOING_HOSTS;
    const answer = await run(foreign);
    // Pulled again, what is held back is the same, and not once more.
    await run({ ...foreign, from: '2026-01-01T00:00:00Z', to: dateOf(-1) });
    server.close();
    expect(answer).toMatchObject({ files: 1, rows: 5, rejected: 3 });
    const rows = await copyOf('rows');
    expect(rows).toEqual([
      { id: 'A1', name: 'right', kind: 'x', value: '1.5', updated_at: '2026-01-01T00:00:00.000000000Z' },
      { id: 'A4', name: '\\N', kind: null, value: '0.0000001', updated_at: '2026-01-03T22:00:00.123456789Z' },
    ]);
    const rejects = await clickhouse.rows<{ reason: string; column: string }>(
      `SELECT reason, column FROM ${clickhouse.name('_rejects')} FINAL WHERE asset = 'rows' ORDER BY reason`,
    );
    const lines = rejects.map((reject) => /_1\.csv:(\d+): (.*)$/.exec(reject.reason)?.slice(1, 3).join(' '));
    expect(lines).toEqual([
      expect.stringMatching(/^2 updated_at is no instant/),
      expect.stringMatching(/^4 value is no number/),
      expect.stringMatching(/^6 the id is missing/),
    ]);
  });

  it('beside many others that begin in the same moment keeps its own records', { timeout: 120_000 }, async () => {
    const ends = [...Array(40).keys()].map((index) => new Date(Date.parse(dateOf(-40)) + index * 60_000).toISOString());
    const all = ends.map((to) => {
      const from = new Date(Date.parse(to) - 60_000).toISOString();
      return run({ ...requestOf('crowd'), from, to });
    });
    await Promise.all(all);
    const [found] = await clickhouse.rows<{ ends: number; moments: number }>(
      `SELECT toUInt32(uniqExact(position_to)) AS ends, toUInt32(uniqExact(lease)) AS moments
       FROM ${clickhouse.name('_batches')} FINAL WHERE source = 'crowd' AND kind = 'extract'`,
    );
    expect(found!.ends).toBe(ends.length);
    // Else this has shown nothing.
    expect(found!.moments).toBeLessThan(ends.length);
    const { faults, records } = await auditSource(clickhouse, 'crowd', (a, b) => a >= b);
    expect({ faults, records }).toEqual({ faults: [], records: ends.length });
  });

  it('refuses wrong input at once, and shows a right one', async () => {
    for (const input of [
      undefined,
      {},
      { deployment: 'X' },
      { ...requestOf('a'), pages: 3 },
      { ...requestOf('a'), from: 'x', to: 'y' },
    ]) {
      await expect(run(input as never as ExtractRequest)).rejects.toMatchObject({
        cause: { type: 'configuration', message: expect.stringContaining('Right is e.g.') },
      });
    }
  });
});

describe('a backfill', () => {
  const schedule = 'daily';
  let lastBackfill = '';
  const runsOf = async (deployment: string) => {
    const rows = await clickhouse.rows<{ f: string; t: string; id: string }>(
      `SELECT position_from AS f, position_to AS t, workflow_id AS id FROM ${clickhouse.name('_batches')} FINAL
       WHERE source = {deployment:String} AND kind = 'extract' ORDER BY recorded_at`,
      { params: { deployment } },
    );
    return rows;
  };

  const deploy = async (
    name: string,
    every: '1d' | '1h' = '1d',
    { startAt, ...more }: { startAt?: Date; [option: string]: unknown } = {},
  ) => {
    await client.schedule.create({
      scheduleId: name,
      spec: { intervals: [{ every }], startAt },
      action: {
        type: 'startWorkflow',
        workflowType: flowNames.extractAssets,
        args: [requestOf(name)],
        taskQueue,
        workflowId: scheduledWorkflowId(name),
        ...more,
      },
      policies: { overlap: 'BUFFER_ALL', catchupWindow: '1h' },
      state: { paused: true },
    });
  };

  const runBackfill = async (request: BackfillRequest) => {
    lastBackfill = backfillWorkflowId(`${schedule}/${randomUUID()}`);
    const options = { taskQueue, workflowId: lastBackfill, args: [request] };
    return (await (await client.workflow.start(flowNames.backfill, options)).result()) as Record<string, number>;
  };

  const statusOf = async (workflowId: string) => {
    const handle = client.workflow.getHandle(workflowId);
    return await handle.describe().then(
      ({ status }) => status.name,
      () => 'none',
    );
  };

  it('runs each interval once, in order; only-missing runs the gaps', { timeout: 90_000 }, async () => {
    await deploy(schedule);
    const [from, middle, to] = [dateOf(-31), dateOf(-25), dateOf(-20)] as [string, string, string];
    expect(await runBackfill({ deployment: schedule, from, to: middle })).toMatchObject({ intervals: 6, skipped: 0 });
    // A date means its midnight in UTC.
    const last = dateOf(-20).slice(0, 10);
    expect(await runBackfill({ deployment: schedule, from: dateOf(-22), to: last })).toMatchObject({ intervals: 2 });
    const gaps = await runBackfill({ deployment: schedule, from, to, only_missing: true });
    await record(lastBackfill, 'backfill');
    expect(gaps).toMatchObject({ intervals: 3, skipped: 8 });
    const runs = await runsOf(schedule);
    const ends = runs.map((one) => one.t);
    expect(new Set(ends).size).toBe(ends.length);
    const expected = [...Array(6).keys()].map((index) => [dateOf(-31 + index), dateOf(-30 + index)]);
    expect(runs.slice(0, 6).map((one) => [one.f, one.t])).toEqual(expected);
    expect(runs.slice(8).map((one) => one.t)).toEqual([dateOf(-24), dateOf(-23), dateOf(-22)]);
    for (const one of runs) expect(one.id).toBe(runWorkflowId(schedule, one.t));
    // The kept position is what scheduled runs go on from: a backfill leaves it alone.
    const first = await run(requestOf(schedule));
    expect(first.from).toBe('');
    await expectIdentical(schedule);
  });

  it('starts its runs as the schedule does: on its task queue, with its tags and memo', async () => {
    const tags = [{ key: searchAttributes.tags, value: ['nightly', 'prices'] }];
    const memo = { sluice_deployment: { name: 'elsewhere' } };
    await deploy('elsewhere', '1d', { taskQueue: 'elsewhere', typedSearchAttributes: tags, memo });
    const ended = runBackfill({ deployment: 'elsewhere', from: dateOf(-3), to: dateOf(-1) }).catch(() => 'ended');
    const one = runWorkflowId('elsewhere', dateOf(-2));
    await until(async () => (await statusOf(one)) === 'RUNNING');
    const handle = client.workflow.getHandle(one);
    const described = await handle.describe();
    expect(described).toMatchObject({ type: flowNames.extractAssets, taskQueue: 'elsewhere', memo });
    expect(described.typedSearchAttributes.get(searchAttributes.tags)).toEqual(['nightly', 'prices']);
    expect(described.typedSearchAttributes.get(searchAttributes.deployment)).toBe('elsewhere');
    expect(described.typedSearchAttributes.get(searchAttributes.flow)).toBe('extractAssets');
    await handle.terminate();
    expect(await ended).toBe('ended');
  });

  it('goes on as new after a hundred intervals, and runs each once, in order', { timeout: 150_000 }, async () => {
    const hour = 3_600_000;
    await deploy('long', '1h');
    const begin = Date.parse(dateOf(-60));
    const times = [...Array(106).keys()].map((index) => new Date(begin + index * hour).toISOString());
    const request = { deployment: 'long', from: times[0]!, to: times.at(-1)! };
    expect(await runBackfill(request)).toMatchObject({ intervals: 105, skipped: 0 });
    const ran = (await runsOf('long')).map((one) => [one.f, one.t]);
    expect(ran).toEqual(times.slice(1).map((to, index) => [times[index], to]));
    const { historyLength } = await client.workflow.getHandle(lastBackfill).describe();
    expect(historyLength).toBeLessThan(200);
    expect(await runBackfill({ ...request, only_missing: true })).toMatchObject({ intervals: 0, skipped: 105 });
  });

  it('that is cut in the midst of an interval leaves that interval to be run', { timeout: 60_000 }, async () => {
    await deploy('cut');
    const noon = new Date(Date.parse(dateOf(-9)) + dayMs / 2).toISOString();
    const run = (request: object) => runBackfill({ deployment: 'cut', from: noon, to: dateOf(-7), ...request });
    expect(await run({})).toMatchObject({ intervals: 2, skipped: 0 });
    expect(await run({ only_missing: true })).toMatchObject({ intervals: 0, skipped: 2 });
    expect(await run({ from: dateOf(-9), only_missing: true })).toMatchObject({ intervals: 1, skipped: 1 });
    expect((await runsOf('cut')).at(-1)).toMatchObject({ f: dateOf(-9), t: dateOf(-8) });
    expect(await run({ from: dateOf(-9), only_missing: true })).toMatchObject({ intervals: 0, skipped: 2 });
  });

  it('leaves out what runs have pulled together, whatever their intervals were', { timeout: 60_000 }, async () => {
    await deploy('joined', '1h');
    const at = (hours: number) => new Date(Date.parse(dateOf(-9)) + hours * 3_600_000).toISOString();
    const missing = (from: number, to: number) =>
      runBackfill({ deployment: 'joined', from: at(from), to: at(to), only_missing: true });
    const pulled = [[2.1, 4], [4, 6.5], [6.5, 7]] as const; // biome-ignore format: one line
    for (const [from, to] of pulled) await run({ ...requestOf('joined'), from: at(from), to: at(to) });
    expect(await missing(3, 7)).toMatchObject({ intervals: 0, skipped: 4 });
    expect(await missing(2, 8)).toMatchObject({ intervals: 2, skipped: 4 });
    expect((await runsOf('joined')).slice(3).map((one) => [one.f, one.t])).toEqual([
      [at(2), at(3)],
      [at(7), at(8)],
    ]);
    // The first run of all pulls from the beginning of time.
    const first = await run(requestOf('joined'));
    expect(first.from).toBe('');
    expect(await missing(0, 12)).toMatchObject({ intervals: 0, skipped: 12 });
  });

  it('says so when another one runs the same interval', { timeout: 60_000 }, async () => {
    await deploy('twice');
    await setFaults({ kind: 'slow', count: 1, delay_ms: 4_000 });
    const request = { deployment: 'twice', from: dateOf(-3), to: dateOf(-2) };
    const first = runBackfill(request);
    await until(async () => (await statusOf(runWorkflowId('twice', dateOf(-2)))) === 'RUNNING');
    await expect(runBackfill({ ...request, to: dateOf(-1) })).rejects.toMatchObject({
      cause: { type: 'conflict', message: expect.stringContaining('is being run already') },
    });
    expect(await first).toMatchObject({ intervals: 1 });
    await setFaults();
  });

  it('of the schedule itself means the schedule’s intervals', { timeout: 90_000 }, async () => {
    await deploy('from_ui');
    const handle = client.schedule.getHandle('from_ui');
    // Strictly before the first one: the start is exclusive.
    const range = { start: new Date(Date.parse(dateOf(-10)) - 1000), end: new Date(dateOf(-5)) };
    await handle.backfill({ ...range, overlap: 'BUFFER_ALL' });
    const deadline = Date.now() + 60_000;
    while ((await clickhouseHas('from_ui')) < 6 && Date.now() < deadline) await sleep(300);
    const runs = await runsOf('from_ui');
    expect(runs.map((one) => [one.f, one.t])).toEqual(
      [...Array(6).keys()].map((index) => [dateOf(-11 + index), dateOf(-10 + index)]),
    );
    for (const one of runs) expect(one.id).toBe(`from_ui/-${one.t.replace('.000', '')}`);
    await handle.trigger();
    while ((await clickhouseHas('from_ui')) < 7 && Date.now() < deadline) await sleep(300);
    expect((await runsOf('from_ui')).at(-1)?.f).toBe('');
    await expectIdentical('from_ui');
  });

  it('of the schedule itself goes on from the kept position where it is next in turn', {
    timeout: 90_000,
  }, async () => {
    await deploy('in_turn', '1d', { startAt: new Date(dateOf(-10)) });
    const handle = client.schedule.getHandle('in_turn');
    const again = async (from: number, to: number, runs: number) => {
      const range = { start: new Date(Date.parse(dateOf(from)) - 1000), end: new Date(dateOf(to)) };
      await handle.backfill({ ...range, overlap: 'BUFFER_ALL' });
      await until(async () => (await clickhouseHas('in_turn')) >= runs);
    };
    // Nothing was due before the first one.
    await again(-10, -8, 3);
    await again(-5, -5, 4);
    await again(-7, -6, 6);
    await handle.trigger();
    await until(async () => (await clickhouseHas('in_turn')) >= 7);
    const pulled = (await runsOf('in_turn')).map((one) => [one.f, one.t]);
    expect(pulled.slice(0, 6)).toEqual([
      ['', dateOf(-10)],
      [dateOf(-10), dateOf(-9)],
      [dateOf(-9), dateOf(-8)],
      [dateOf(-6), dateOf(-5)],
      [dateOf(-8), dateOf(-7)],
      [dateOf(-7), dateOf(-6)],
    ]);
    // That of day -5 has left the position where it was.
    expect(pulled[6]?.[0]).toBe(dateOf(-6));
    await expectIdentical('in_turn');
  });

  it('knows the times of a schedule as Temporal does, also behind a weekend', async () => {
    const action = { type: 'startWorkflow', workflowType: flowNames.extractAssets, args: [], taskQueue } as const;
    const spec = { cronExpressions: ['* * * * 1-5'] };
    await client.schedule.create({ scheduleId: 'workdays', spec, action, state: { paused: true } });
    const last = async (time: string) => await firingBefore(client, 'workdays', BigInt(Date.parse(time)) * 1_000_000n);
    expect(await last('2026-03-02T00:00:00Z')).toBe('2026-02-27T23:59:00.000Z');
    expect(await last('2026-03-02T00:00:00.001Z')).toBe('2026-03-02T00:00:00.000Z');
    expect(await last('2026-03-03T12:00:00Z')).toBe('2026-03-03T11:59:00.000Z');
    await client.schedule.getHandle('workdays').delete();
  });

  it('is compared with the API, also while both move', { timeout: 60_000 }, async () => {
    await deploy('compared');
    const name = clickhouse.name('compared');
    const verify = async () => {
      const options = { taskQueue, workflowId: `verify/${Math.random()}`, args: [{ source: 'compared' }] };
      const answer = await (await client.workflow.start(flowNames.verifyCopy, options)).result();
      const [row] = await clickhouse.rows<{ result: string }>(
        `SELECT result FROM ${clickhouse.name('_verifications')} FINAL WHERE id = {id:String}`,
        { params: { id: (answer as { id: string }).id } },
      );
      return { ...(answer as object), ...JSON.parse(row!.result).tables[0] };
    };
    await run(requestOf('compared'));
    await post('/changes', { per_second: 50 });
    expect(await verify()).toMatchObject({ identical: true, missing: 0, extra: 0, different: 0 });
    await post('/changes', { per_second: 0 });
    await run(requestOf('compared'));
    const rows = await copyOf('compared');
    expect(await verify()).toMatchObject({ identical: true, source_rows: rows.length, copy_rows: rows.length });
    const [lost, bent] = [rows[3]!.id, rows[700]!.id];
    const writer = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'write' });
    // Held back once, and mended in the API since: that says nothing of what is lost now.
    await writer.insertObjects('_rejects', [
      {
        asset: 'compared',
        key: JSON.stringify({ id: lost }),
        version: '1',
        column: 'value',
        reason: 'x',
        row: '{}',
        state: 'open',
      },
    ]);
    await writer.command(`ALTER TABLE ${name} DELETE WHERE id = '${lost}' SETTINGS mutations_sync = 1`);
    await writer.command(
      `INSERT INTO ${name} SELECT * REPLACE ('other' AS name, _version + 1 AS _version) FROM ${name} FINAL WHERE id = '${bent}'`,
    );
    await writer.command(
      `INSERT INTO ${name} (id, updated_at, _version) SELECT 'AST999999', updated_at, _version FROM ${name} FINAL WHERE id = '${bent}'`,
    );
    await writer.close();
    const different = await verify();
    expect(different).toMatchObject({ identical: false, missing: 1, extra: 1, different: 1 });
    expect(different.keys).toEqual(
      expect.arrayContaining([
        { problem: 'missing', key: { id: lost } },
        { problem: 'different', key: { id: bent }, columns: ['name'] },
        { problem: 'extra', key: { id: 'AST999999' } },
      ]),
    );
  });

  async function clickhouseHas(deployment: string): Promise<number> {
    return (await runsOf(deployment).catch(() => [])).length;
  }
});

describe('rules and checks of a deployment', () => {
  it('add columns to its copy, and hold rows back with their file; the kept position goes on', async () => {
    const writer = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'write' });
    const declare = async (version: number, set: Partial<DeclaredRules>) =>
      await storeRules(writer, { version, rules: [], checks: [], ...set }, { by: 'test', change: 'declared' });
    const map = (target_field: string, expression: string): Rule => ({
      rule_id: target_field,
      rule_type: 'map',
      assets: ['ruled'],
      target_field,
      expression,
      version: 1,
    });
    // Own tables are there from the first run on.
    await run(requestOf('before_rules'));
    const all = (await truth()).filter((asset) => !asset.deleted);
    const values = all.map((asset) => Number(asset.value)).sort((a, b) => a - b);
    const most = values[Math.floor(values.length / 2)]!;
    const range = { rule_id: 'cheap', asset: 'ruled', field: 'value', rule_type: 'range', severity: 'reject' } as const;
    try {
      await declare(1, {
        rules: [
          map('label', '{{ name.upper() }}/{{ kind }}'),
          map('double', '{{ value * 2 }}'),
          map('year', '{{ updated_at.year }}'),
        ],
        checks: [{ ...range, parameters: { max: most }, version: 1 }],
      });
      await run(requestOf('ruled'));
      const now = new Map((await truth()).map((asset) => [asset.id, asset]));
      const rows = await clickhouse.rows<Record<string, string>>(
        `SELECT id, name, kind, toString(value) AS value, label, toString(double) AS double, toString(year) AS year,
           toString(toYear(updated_at)) AS at FROM ${clickhouse.name('ruled')} FINAL`,
      );
      expect(rows.length).toBeGreaterThan(10);
      for (const { name, kind, value, label, double, year, at } of rows) {
        expect([label, Number(double), year]).toEqual([`${name!.toUpperCase()}/${kind}`, Number(value) * 2, at]);
        expect(Number(value)).toBeLessThanOrEqual(most);
      }
      const held = await clickhouse.rows<Record<string, string>>(
        `SELECT key, \`check\`, reason, row FROM ${clickhouse.name('_rejects')} FINAL WHERE asset = 'ruled' AND state = 'open'`,
      );
      expect(held.length).toBeGreaterThan(10);
      expect(held[0]).toMatchObject({ check: 'cheap', reason: expect.stringMatching(/_\d+\.csv:\d+: /) });
      // Everything is in the one or the other, but for what changed meanwhile.
      const found = new Set([
        ...rows.map(({ id }) => id),
        ...held.map(({ key }) => (JSON.parse(key!) as { id: string }).id),
      ]);
      const missing = all.filter(
        ({ id }) => !found.has(id) && now.get(id)?.updated_at === all.find((one) => one.id === id)?.updated_at,
      );
      expect(missing).toEqual([]);
      await declare(2, {
        rules: [
          { rule_id: 'some', rule_type: 'filter', assets: ['filtered'], expression: '{{ value > 1 }}', version: 1 },
        ],
      });
      await expect(run(requestOf('filtered'))).rejects.toMatchObject({
        cause: { cause: { message: expect.stringMatching(/only add columns/) } },
      });
    } finally {
      await declare(3, {});
      await writer.close();
    }
  }, 90_000);
});
