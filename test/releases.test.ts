/** Rows that were held back and came into their copy after all: which record, rules and run each of them names. */
import { setTimeout as sleep } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import { type VerifyOptions, verifyTable } from '../activities/check/verify.ts';
import { type AuditResult, auditSource } from '../activities/lineage/audit.ts';
import { batchOf, rowVersions } from '../activities/lineage/row_versions.ts';
import { lastRecord, loadSchemas, readRecords } from '../activities/load/batches.ts';
import { overtaken, takeBack } from '../activities/load/overtaken.ts';
import { readRejects } from '../activities/load/rejects.ts';
import { rowMark } from '../activities/load/releases.ts';
import { LateRows } from '../activities/transform/late_rows.ts';
import { storeRules } from '../activities/transform/rule_store.ts';
import { settleRejects } from '../activities/transform/settle_rejects.ts';
import { listRejects } from '../api/control/rejects.ts';
import { behindPageHeader, parseLsn } from '../model/position.ts';
import type { SettleAnswer, SettleRequest } from '../model/rejects.ts';
import type { RuleInput } from '../model/rules.ts';
import type { TableSchema } from '../model/table.ts';
import { capture, client, parts, spoiled, sql } from './capture_fixture.ts';
import type { CaptureHarness } from './capture_harness.ts';

const reader = new PostgresSource();
const passed = (position: string, target: string) => reader.passed(position, target);
const run = { id: 'rejects/one', runId: 'run-1', attempt: 2 };

/** A rule that fails on notes without a dash, and what it is mended to. */
const broken: RuleInput = {
  rule_id: 'part',
  rule_type: 'map',
  source_fields: ['note'],
  target_field: 'part',
  expression: '{{ note.split("-")[1] + "!" }}',
  apply_to: 'new',
};
const mended: RuleInput = { ...broken, expression: '{{ note ~ "!" }}' };

/** Makes these the rules that are in force. */
async function declare(harness: CaptureHarness, version: number, rules: RuleInput[]): Promise<void> {
  const set = { version, rules: rules.map((rule) => ({ ...rule, version })), checks: [] };
  await storeRules(harness.context.clickhouse('write'), set, { by: 'test', change: 'declared' });
}

async function schemaOf(harness: CaptureHarness, table = 0): Promise<TableSchema> {
  const schemas = await loadSchemas(harness.context.clickhouse('read'), harness.options.source);
  return schemas.get(harness.tables[table]!.asset_id)!;
}

/** A table under the broken rule that streams; then its rule is mended, and the stream goes by that. */
async function mendedLate(name: string, rows: string, later: string, clickhouse?: string): Promise<CaptureHarness> {
  const source = `rel_${name}`;
  const harness = capture([name], { source, database: source, ...(clickhouse && { clickhouse }) });
  await harness.context.sink('write').createOwnTables();
  await declare(harness, 1, [broken]);
  await sql(`CREATE TABLE ${name} (id int PRIMARY KEY, note text)`, `INSERT INTO ${name} ${rows}`);
  await harness.begin();
  await sql(later);
  await harness.drain(client);
  await declare(harness, 2, [mended]);
  for (let probe = 1; (await schemaOf(harness)).rules!.version < 2; probe++) {
    await sql(`INSERT INTO ${name} VALUES (${probe + 10_000}, 'pro-be')`);
    await sleep(200);
  }
  await harness.drain(client);
  return harness;
}

async function openVersions(harness: CaptureHarness): Promise<string[]> {
  const asset = harness.tables[0]!.asset_id;
  const open = await readRejects(harness.context.clickhouse('read'), { asset, states: ['open'] }, 1000);
  return open.map(({ version }) => version);
}

async function release(harness: CaptureHarness, by = run): Promise<SettleAnswer> {
  const request = {
    asset: harness.tables[0]!.asset_id,
    action: 'release' as const,
    versions: await openVersions(harness),
  };
  return await settleRejects(harness.context.clickhouse('write'), request, by);
}

/** The newest version of a row, and the record that it names. */
async function trace(harness: CaptureHarness, key: string) {
  const clickhouse = harness.context.clickhouse('read');
  const table = await schemaOf(harness);
  const [row] = await rowVersions(clickhouse, table, key);
  return { row, batch: row && (await batchOf(clickhouse, { id: harness.options.source, reader }, table, row)) };
}

function releases(harness: CaptureHarness): ReturnType<typeof readRecords> {
  const clickhouse = harness.context.clickhouse('read');
  return readRecords(clickhouse, `source = {source:String} AND kind = 'release'`, { source: harness.options.source });
}

function audit(harness: CaptureHarness): Promise<AuditResult> {
  return auditSource(harness.context.clickhouse('read'), harness.options.source, passed);
}

it('a row that people released names the release: its rules, its run, and its own place in the source', async () => {
  const harness = await mendedLate(
    'held',
    `VALUES (1, 'a-b'), (2, 'none'), (3, 'a-c')`,
    `INSERT INTO held VALUES (4, 'none'), (5, 'a-d')`,
  );
  const asset = harness.tables[0]!.asset_id;
  const rejecting = (await harness.records()).find((record) => record.assets[asset]?.rejected);
  expect((await trace(harness, '4')).row).toBeUndefined();
  expect(await release(harness)).toMatchObject({ released: 2, still_open: 0 });
  const [record, ...others] = await releases(harness);
  expect(others).toEqual([]);
  expect(record).toMatchObject({
    id: expect.stringMatching(new RegExp(`^${harness.options.source}/release/${asset}/\\d+-`)),
    changes: 0,
    assets: { [asset]: { effects: 2, written: 2, rejected: 0, inserts: 0 } },
    rules: 2,
    applied: { [asset]: { part: { in: 2, out: 2, errors: 0 } } },
    workflow_id: run.id,
    run_id: run.runId,
    attempt: run.attempt,
  });
  const streamed = await trace(harness, '4');
  expect(streamed.batch).toMatchObject({ id: record!.id, kind: 'release', rules: 2 });
  const { position } = reader.placeOf(streamed.row!.version);
  expect(passed(position, rejecting!.position_from) && passed(rejecting!.position_to, position)).toBe(true);
  expect(streamed.row!.committed_at).toBe(rejecting!.committed_first);
  // All rows of a snapshot bear one version: only the key tells which of them was held back.
  expect((await trace(harness, '2')).batch).toMatchObject({ id: record!.id });
  for (const key of ['1', '3']) expect((await trace(harness, key)).batch).toMatchObject({ kind: 'chunk', rules: 1 });
  expect((await trace(harness, '5')).batch).toMatchObject({ id: rejecting!.id, rules: 1 });
  // A later change is of the stream again.
  await sql(`UPDATE held SET note = 'z' WHERE id = 4`);
  await harness.drain(client);
  expect((await trace(harness, '4')).batch).toMatchObject({ kind: 'rows', rules: 2 });
  expect(await audit(harness)).toMatchObject({ faults: [], released: 2 });
  const stored = await readRejects(harness.context.clickhouse('read'), { asset, states: ['released'] }, 10);
  expect(stored.map(({ batch }) => batch)).toEqual([record!.id, record!.id]);
}, 90_000);

it('a release that dies at any step and comes again is recorded once, and names nothing wrong meanwhile', async () => {
  let lost: '_batches' | '_rejects' | undefined;
  const clickhouse = await spoiled(({ query }) => (lost !== undefined && query.includes(lost) ? 'lost' : 'passed'));
  const harness = await mendedLate(
    'dies',
    `VALUES (1, 'a-b')`,
    `INSERT INTO dies VALUES (2, 'none'), (3, 'none')`,
    clickhouse,
  );
  const asset = harness.tables[0]!.asset_id;
  await harness.stop();
  const effects = (await audit(harness)).effects;
  lost = '_batches';
  await expect(release(harness)).rejects.toThrow();
  // In the copy already, and no record tells: certainly not the batch that held it back wrote it.
  const unsaid = await trace(harness, '2');
  expect([unsaid.row === undefined, unsaid.batch]).toEqual([false, undefined]);
  lost = '_rejects';
  await expect(release(harness)).rejects.toThrow();
  expect((await trace(harness, '2')).batch).toMatchObject({ kind: 'release', attempt: 2 });
  lost = undefined;
  // Another one came open meanwhile, so that it is not the same rows that are released.
  const [{ changed_at: _, ...reject } = undefined as never] = await readRejects(
    harness.context.clickhouse('read'),
    { asset, states: ['open'] },
    1,
  );
  const later = { ...reject, key: '{"id":"9"}', row: '{"id":"9","note":"more"}' };
  await harness.context.clickhouse('write').insertObjects('_rejects', [later]);
  expect(await release(harness, { ...run, attempt: 3 })).toMatchObject({ released: 3 });
  expect(await openVersions(harness)).toEqual([]);
  expect((await trace(harness, '2')).batch).toMatchObject({ attempt: 2 });
  expect((await trace(harness, '3')).batch).toMatchObject({ attempt: 2 });
  expect((await trace(harness, '9')).batch).toMatchObject({ attempt: 3 });
  const written = (await releases(harness)).map((record) => record.assets[asset]!.written);
  expect(written.sort()).toEqual([1, 2]);
  expect(await audit(harness)).toMatchObject({ faults: [], released: 3, effects });
}, 90_000);

it('a row that waited for another one names the release by its lease', async () => {
  const source = 'rel_late';
  const harness = capture(['waits', 'owners'], { source, database: source });
  await harness.context.sink('write').createOwnTables();
  const parameters = { asset: `${source}_owners`, on: { owner: 'id' }, fields: ['name'] };
  const join: RuleInput = {
    rule_id: 'owner',
    rule_type: 'join',
    assets: [`${source}_waits`],
    target_field: 'owner_name',
    parameters,
  };
  await sql(
    'CREATE TABLE owners (id int PRIMARY KEY, name text)',
    'CREATE TABLE waits (version numeric(10,2) PRIMARY KEY, owner int)',
    'INSERT INTO waits VALUES (1.50, 7), (2, NULL)',
  );
  await declare(harness, 1, [join]);
  await harness.begin();
  await sql('INSERT INTO waits VALUES (3, 7)');
  await harness.drain(client);
  expect((await openVersions(harness)).length).toBe(2);
  await sql(`INSERT INTO owners VALUES (7, 'seven')`);
  await expect.poll(() => openVersions(harness), { timeout: 20_000 }).toEqual([]);
  for (const key of ['1.5', '3'])
    expect((await trace(harness, key)).batch).toMatchObject({ kind: 'release', rules: 1, attempt: 1 });
  expect((await trace(harness, '2')).batch).toMatchObject({ kind: 'chunk' });
  const lease = (await harness.records()).findLast((record) => record.kind === 'begin')!;
  for (const record of await releases(harness))
    expect([record.run_id, record.workflow_id]).toEqual([lease.run_id, lease.workflow_id]);
  // Two leases that look at the same time do no harm.
  await sql('INSERT INTO waits VALUES (4, 8)');
  await harness.drain(client);
  await harness.stop();
  await harness.context
    .clickhouse('write')
    .command(`INSERT INTO \`${source}\`.\`${source}_owners\` VALUES (8, 'eight', 1, 0, now64(6))`);
  const table = await schemaOf(harness);
  const looks = [1, 2].map(
    (attempt) => new LateRows(harness.context.clickhouse('snapshot'), { id: 'w', runId: 'r', attempt }),
  );
  const looked = await Promise.allSettled(looks.map((late) => late.look([table])));
  expect(looked.map(({ status }) => status)).toContain('fulfilled');
  expect((await trace(harness, '4')).batch).toMatchObject({ kind: 'release', workflow_id: 'w' });
  expect(await audit(harness)).toMatchObject({ faults: [], released: 3 });
}, 90_000);

it('settles only the rows that are named, and writes what stays open at once', async () => {
  let inserts = 0;
  const clickhouse = await spoiled(({ query }) => {
    if (query.includes('_rejects')) inserts += 1;
    return 'passed';
  });
  const harness = capture(['many'], { source: 'rel_many', database: 'rel_many', clickhouse });
  await harness.context.sink('write').createOwnTables();
  await declare(harness, 1, [broken]);
  await sql(
    'CREATE TABLE many (id int PRIMARY KEY, note text)',
    `INSERT INTO many SELECT i, 'none' FROM generate_series(1, 300) i`,
  );
  await harness.begin();
  await harness.drain(client);
  const asset = harness.tables[0]!.asset_id;
  const read = harness.context.clickhouse('read');
  const open = await readRejects(read, { asset, states: ['open'] }, 1000);
  expect([open.length, new Set(open.map(({ version }) => version)).size]).toEqual([300, 1]);
  inserts = 0;
  expect(await release(harness)).toMatchObject({ released: 0, still_open: 300 });
  expect(inserts).toBe(1);
  const [one] = open;
  const request = { asset, action: 'discard' as const, versions: [one!.version], rows: [rowMark(one!)] };
  const settle = (more: object) =>
    settleRejects(harness.context.clickhouse('write'), { ...request, ...more } as SettleRequest, run);
  expect(await settle({ rule: 'other' })).toMatchObject({ discarded: 0 });
  expect(await settle({})).toMatchObject({ discarded: 1 });
  expect((await readRejects(read, { asset, states: ['discarded'] }, 10)).map(({ key }) => key)).toEqual([one!.key]);
  // What was asked before rows were named means all with these versions.
  expect(await settle({ rows: undefined })).toMatchObject({ discarded: 299 });
}, 90_000);

/** A table whose keys are of many types, under the broken rule, with rows 1 to 8 held back from the stream. */
async function heldRows(name: string): Promise<CaptureHarness> {
  const harness = capture([name], { source: `rel_${name}`, database: `rel_${name}` });
  await harness.context.sink('write').createOwnTables();
  await declare(harness, 1, [broken]);
  await sql(
    `CREATE TABLE ${name} (id int, t text, b bytea, at timestamptz, n numeric(8,2), u uuid, ok bool, note text,
       PRIMARY KEY (id, t, b, at, n, u, ok))`,
  );
  await harness.begin();
  await sql(
    `INSERT INTO ${name} SELECT i, E'ä\\t''\\\\' || i, '\\x00ff5c09', timestamptz '2024-01-01' + i * interval '0.25 s', i / 4.0,
       md5(i::text)::uuid, i % 2 = 0, 'none' FROM generate_series(1, 8) i`,
  );
  await harness.drain(client);
  return harness;
}

async function listed(harness: CaptureHarness, state: 'open' | 'superseded' | 'discarded'): Promise<number[]> {
  const control = { clickhouse: harness.context.clickhouse('read') } as Parameters<typeof listRejects>[0];
  const { items } = await listRejects(control, { asset: harness.tables[0]!.asset_id, state });
  expect(items.every((item) => item.state === state)).toBe(true);
  return items.map(({ key }) => Number(key.id)).sort();
}

async function notes(harness: CaptureHarness): Promise<string[]> {
  const clickhouse = harness.context.clickhouse('read');
  const name = clickhouse.name(harness.tables[0]!.asset_id);
  const { rows } = await clickhouse.table(`SELECT id, note FROM ${name} FINAL ORDER BY id`);
  return rows.map(([id, note]) => `${id} ${note}`);
}

async function verify(harness: CaptureHarness, more: Partial<VerifyOptions> = {}) {
  const { context, request } = harness;
  return await verifyTable({
    connectionString: parts.postgres.url,
    clickhouse: context.clickhouse('verify'),
    table: await schemaOf(harness),
    appliedPosition: async () => {
      const record = await lastRecord(context.clickhouse('read'), request.id);
      return record ? behindPageHeader(parseLsn(record.position_to)) : 0n;
    },
    ...more,
  });
}

it('a row that was changed or deleted since is of the past: its reject is not open, and never comes into the copy', async () => {
  const harness = await heldRows('later');
  expect(await listed(harness, 'open')).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
  await sql(
    `UPDATE later SET note = 'new-er' WHERE id IN (1, 2)`,
    'DELETE FROM later WHERE id IN (3, 4)',
    `UPDATE later SET note = 'nothing' WHERE id = 5`,
  );
  await harness.drain(client);
  expect(await listed(harness, 'open')).toEqual([5, 5, 6, 7, 8]);
  expect(await listed(harness, 'superseded')).toEqual([1, 2, 3, 4]);
  expect(await verify(harness)).toMatchObject({ identical: true, rejected: 4, missing: 0 });
  await declare(harness, 2, [mended]);
  await sql(`INSERT INTO later SELECT 9, t, b, at, n, u, ok, 'pro-be' FROM later WHERE id = 8`);
  for (; (await schemaOf(harness)).rules!.version < 2; ) {
    await sql(`UPDATE later SET note = 'pro-be' WHERE id = 9`);
    await sleep(200);
  }
  await harness.drain(client);
  const clickhouse = harness.context.clickhouse('write');
  const asset = harness.tables[0]!.asset_id;
  const open = await readRejects(clickhouse, { asset, states: ['open'] }, 100);
  expect(await release(harness)).toMatchObject({ released: 5, superseded: 4, still_open: 0 });
  const there = ['1 new-er', '2 new-er', '5 nothing', '6 none', '7 none', '8 none', '9 pro-be'];
  expect(await notes(harness)).toEqual(there);
  expect(await verify(harness)).toMatchObject({ identical: true, rejected: 0 });
  expect([await listed(harness, 'open'), await listed(harness, 'superseded')]).toEqual([[], [1, 2, 3, 4]]);
  // What a truncate has overtaken goes again, and nothing else.
  const table = await schemaOf(harness);
  const some = open.filter(({ key }) => /"id":"[16]"/.test(key));
  await takeBack(clickhouse, table, some);
  expect(await notes(harness)).toEqual(there.filter((row) => row !== '6 none'));
  expect((await overtaken(clickhouse, table, some)).size).toBe(2);
  expect(await audit(harness)).toMatchObject({ faults: [], released: 5 });
}, 90_000);

it('a row that somebody discarded is no difference, until it changes', async () => {
  const harness = await heldRows('gone');
  const clickhouse = harness.context.clickhouse('write');
  const asset = harness.tables[0]!.asset_id;
  const request = { asset, action: 'discard' as const, versions: await openVersions(harness) };
  expect(await settleRejects(clickhouse, request, run)).toMatchObject({ discarded: 8 });
  const repaired: unknown[] = [];
  const repair = async (keys: unknown[]) => {
    repaired.push(...keys);
    return null;
  };
  expect(await verify(harness, { repair })).toMatchObject({ identical: true, rejected: 8, missing: 0 });
  await sql(
    `UPDATE gone SET note = 'new-er' WHERE id = 1`,
    `UPDATE gone SET note = 'nothing' WHERE id = 2`,
    'DELETE FROM gone WHERE id = 3',
  );
  await harness.drain(client);
  expect(await verify(harness, { repair })).toMatchObject({ identical: true, rejected: 6, missing: 0 });
  expect([await listed(harness, 'open'), await listed(harness, 'discarded')]).toEqual([[2], [1, 2, 3, 4, 5, 6, 7, 8]]);
  // What is lost after that is a difference as any other.
  const name = clickhouse.name(asset);
  await clickhouse.command(`ALTER TABLE ${name} DELETE WHERE id = 1 SETTINGS mutations_sync = 2`);
  await clickhouse.command(`INSERT INTO ${name} (id, t, b, at, n, u, ok, _version, _deleted, _committed_at)
    SELECT 4, 'other', b, at, n, u, ok, _version, 0, _committed_at FROM ${name} WHERE id = 3`);
  expect(await verify(harness)).toMatchObject({ identical: false, extra: 1 });
  expect(repaired).toEqual([]);
}, 90_000);

it('what stands in the copy beside a row that somebody discarded fills no value that the source left out', async () => {
  await sql(
    'CREATE TABLE hollow_discarded (id int PRIMARY KEY, day date, n int, big text)',
    'ALTER TABLE hollow_discarded ALTER COLUMN big SET STORAGE EXTERNAL',
    "INSERT INTO hollow_discarded VALUES (1, '2024-01-01', 1, repeat('a', 5000))",
  );
  const harness = capture(['hollow_discarded']);
  await harness.begin();
  await harness.drain(client);
  await sql("UPDATE hollow_discarded SET day = 'infinity', big = repeat('b', 5000)");
  await harness.drain(client);
  const asset = harness.tables[0]!.asset_id;
  const request = { asset, action: 'discard' as const, versions: await openVersions(harness) };
  expect(await settleRejects(harness.context.clickhouse('write'), request, run)).toMatchObject({ discarded: 1 });
  await sql("UPDATE hollow_discarded SET day = '2024-01-02', n = 2");
  await harness.drain(client);
  const { source, copy } = await harness.bothSides(client, 'hollow_discarded');
  expect(copy).toEqual(source);
}, 60_000);
