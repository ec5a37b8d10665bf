/** The tables of Sluice's own in ClickHouse: batch records, rejects, table schemas, snapshot chunks. */
import { createHash } from 'node:crypto';
import { type BatchRecord, streamKinds } from '../../model/batch.ts';
import type { TableSchema } from '../../model/table.ts';
import type { Reject } from '../capture/stream.ts';
import { createQuality } from '../check/scores.ts';
import { createRules } from '../transform/rule_store.ts';
import { createActions } from './actions.ts';
import { type ClickHouse, quoteName } from './clickhouse.ts';
import { createCutViews } from './cuts.ts';
import { createLineageTables } from './lineage_index.ts';
import { createOrders } from './orders.ts';
import { createSubjects } from './subjects.ts';
import { createSums } from './sums.ts';
import { durable } from './tables.ts';
import { isoTime, isoTimeOrNull } from './time_text.ts';

const tables: Record<string, string> = {
  // One insert here is the checkpoint and the audit record of a batch.
  _batches: `(
    source LowCardinality(String), lease UInt64, seq UInt64, id String, kind LowCardinality(String),
    position_from String, position_to String, inner String, cluster String, epoch UInt16,
    committed_first Nullable(DateTime64(6, 'UTC')), committed_last Nullable(DateTime64(6, 'UTC')),
    changes UInt64, assets String, truncated String, altered String, failed String, rules UInt64, applied String,
    fill_ms Float64, resolve_ms Float64, write_ms Float64,
    workflow_id String, run_id String, attempt UInt32, previous_hash String, hash String,
    recorded_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
  ) ENGINE = ReplacingMergeTree ORDER BY (source, lease, seq, id)`,
  _rejects: `(
    asset LowCardinality(String), key String, version UInt128, \`check\` LowCardinality(String), column String, reason String,
    row String, unsent String, state LowCardinality(String), batch String, committed_at DateTime64(6, 'UTC'),
    changed_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
  ) ENGINE = ReplacingMergeTree(changed_at) ORDER BY (asset, key, version, \`check\`)`,
  _schemas: `(
    asset LowCardinality(String), source LowCardinality(String), generation UInt32, since String, body String,
    recorded_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
  ) ENGINE = ReplacingMergeTree(recorded_at) ORDER BY (asset, generation)`,
  // Plans of snapshots; of several for one start the first counts: bounds of its chunks as JSON arrays of the key's texts ('' = open).
  _chunks: `(
    source LowCardinality(String), asset LowCardinality(String), generation UInt32, start String,
    plan String, chunk UInt32, lower String, upper String, planned_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
  ) ENGINE = ReplacingMergeTree ORDER BY (source, asset, generation, start, plan, chunk)`,
};

/**
 * A source that is never idle leaves two million records a day. Nearly all are of batches, so the few others are found by their
 * kind, and those of a time by that: records are in its order, as leases are. A lease of ten minutes has 15,000
 * records, so granules are small, and few of them hold what opens it. Merges make these indexes: inserts are small, and many.
 */
const indexes: Record<string, string> = {
  by_kind: 'kind TYPE set(0)',
  by_failed: 'failed TYPE set(2)',
  by_first_commit: 'committed_first TYPE minmax',
  by_last_commit: 'committed_last TYPE minmax',
  by_recorded: 'recorded_at TYPE minmax',
};

/** How many tables of Sluice's own there were when this process had made them, by database. */
const made = new Map<string, number>();

/** Makes database and tables when they are not there, or were made by an earlier version; else costs one statement. */
export async function createOwnTables(clickhouse: ClickHouse): Promise<void> {
  const { database } = clickhouse;
  if (made.has(database) && made.get(database) === (await countOwnTables(clickhouse))) return;
  await makeOwnTables(clickhouse);
  made.set(database, await countOwnTables(clickhouse));
}

async function countOwnTables(clickhouse: ClickHouse): Promise<number> {
  const [row] = await clickhouse.rows<{ tables: string }>(
    `SELECT count() AS tables FROM system.tables WHERE database = {database:String} AND startsWith(name, '_') AND NOT startsWith(name, '_next_')`,
    { params: { database: clickhouse.database } },
  );
  return Number(row!.tables);
}

/** Makes the database of the copies when it is not there. */
export async function makeDatabase(clickhouse: ClickHouse): Promise<void> {
  await clickhouse.command(`CREATE DATABASE IF NOT EXISTS ${quoteName(clickhouse.database)}`);
}

async function makeOwnTables(clickhouse: ClickHouse): Promise<void> {
  await makeDatabase(clickhouse);
  for (const [name, definition] of Object.entries(tables)) {
    await clickhouse.command(
      `CREATE TABLE IF NOT EXISTS ${clickhouse.name(name)} ${definition} SETTINGS ${durable}, index_granularity = 1024`,
    );
  }
  for (const column of laterColumns)
    await clickhouse.command(
      `ALTER TABLE ${clickhouse.name(column.table)} ADD COLUMN IF NOT EXISTS ${column.definition}`,
    );
  await makeIndexes(clickhouse);
  await createSums(clickhouse);
  await createSubjects(clickhouse);
  await createRules(clickhouse);
  await createLineageTables(clickhouse);
  await createActions(clickhouse);
  await createOrders(clickhouse);
  await createQuality(clickhouse);
  await createCutViews(clickhouse);
}

/** Makes the indexes of `_batches`; of what was recorded before there were any, in the background. */
async function makeIndexes(clickhouse: ClickHouse): Promise<void> {
  const rows = await clickhouse.rows<{ name: string }>(
    `SELECT name FROM system.data_skipping_indices WHERE database = {database:String} AND table = '_batches'`,
    { params: { database: clickhouse.database } },
  );
  const missing = Object.entries(indexes).filter(([name]) => !rows.some((row) => row.name === name));
  if (missing.length === 0) return;
  const alter = (changes: string[]) =>
    clickhouse.command(`ALTER TABLE ${clickhouse.name('_batches')} ${changes.join(', ')}`);
  await alter(missing.map(([name, definition]) => `ADD INDEX IF NOT EXISTS ${name} ${definition} GRANULARITY 1`));
  await alter(missing.map(([name]) => `MATERIALIZE INDEX ${name}`));
}

/** Columns that tables made by earlier versions do not have. */
const laterColumns = [
  { table: '_batches', definition: 'altered String AFTER truncated' },
  { table: '_schemas', definition: 'since String AFTER generation' },
  { table: '_batches', definition: 'applied String AFTER rules' },
  { table: '_rejects', definition: 'unsent String AFTER row' },
];

/** What a hash covers, in this order. */
const sealed = [
  'id', 'source', 'kind', 'lease', 'seq', 'position_from', 'position_to', 'inner', 'cluster', 'epoch',
  'committed_first', 'committed_last', 'changes', 'assets', 'truncated', 'failed', 'rules', 'durations',
  'workflow_id', 'run_id', 'attempt', 'previous_hash',
] as const satisfies (keyof BatchRecord)[]; // biome-ignore format: a list

/** The hash of a record, as it is made and as it is checked. */
export function recordHash(record: Omit<BatchRecord, 'hash'>): string {
  const content = Object.fromEntries<unknown>(sealed.map((field) => [field, record[field]]));
  // Most records have none, and those that were made before there were any.
  if (Object.keys(record.altered ?? {}).length > 0) content.altered = record.altered;
  if (Object.keys(record.applied ?? {}).length > 0) content.applied = record.applied;
  return createHash('sha256').update(JSON.stringify(content)).digest('hex');
}

/** Seals a record: its hash covers all of it and the hash before. */
export function sealRecord(record: Omit<BatchRecord, 'hash'>): BatchRecord {
  return { ...record, hash: recordHash(record) };
}

/** What a snapshot's record holds of its chunks' records, so that none of them can be changed or taken away unseen. */
export function chunksDigest(chunks: Pick<BatchRecord, 'hash'>[]): string {
  return createHash('sha256')
    .update(chunks.map((chunk) => chunk.hash).join('\n'))
    .digest('hex');
}

/** Writes a record; when this returns, the batch has happened. */
export async function writeRecord(clickhouse: ClickHouse, record: BatchRecord): Promise<void> {
  const { durations, assets, truncated, altered, failed, applied, ...rest } = record;
  await clickhouse.insertObjects(
    '_batches',
    [
      {
        ...rest,
        assets: JSON.stringify(assets),
        truncated: JSON.stringify(truncated),
        altered: altered ? JSON.stringify(altered) : '',
        applied: applied ? JSON.stringify(applied) : '',
        failed: JSON.stringify(failed),
        fill_ms: durations.fill,
        resolve_ms: durations.resolve,
        write_ms: durations.write,
      },
    ],
    `${record.id}/record`,
  );
}

type Row = Omit<BatchRecord, 'durations' | 'assets' | 'truncated' | 'altered' | 'failed' | 'applied'> & {
  assets: string;
  truncated: string;
  altered: string;
  failed: string;
  applied: string;
  fill_ms: number;
  resolve_ms: number;
  write_ms: number;
  recorded_at: string;
};

/** Records by a condition (trusted SQL with parameters), in order of leases. */
export async function readRecords(
  clickhouse: ClickHouse,
  where: string,
  params: Record<string, unknown>,
  order = 'source, lease, seq',
  limit = 100_000,
): Promise<(BatchRecord & { recorded_at: string })[]> {
  const rows = await clickhouse.rows<Row>(
    `SELECT * FROM ${clickhouse.name('_batches')} FINAL WHERE ${where} ORDER BY ${order} LIMIT ${limit}`,
    { params },
  );
  return rows.map(({ fill_ms, resolve_ms, write_ms, assets, truncated, altered, failed, applied, ...rest }) => ({
    ...rest,
    lease: Number(rest.lease),
    seq: Number(rest.seq),
    changes: Number(rest.changes),
    rules: Number(rest.rules),
    attempt: Number(rest.attempt),
    epoch: Number(rest.epoch),
    committed_first: isoTimeOrNull(rest.committed_first),
    committed_last: isoTimeOrNull(rest.committed_last),
    recorded_at: isoTime(rest.recorded_at),
    assets: JSON.parse(assets),
    truncated: JSON.parse(truncated),
    ...(altered !== '' && { altered: JSON.parse(altered) }),
    ...(applied !== '' && { applied: JSON.parse(applied) }),
    failed: JSON.parse(failed),
    durations: { fill: fill_ms, resolve: resolve_ms, write: write_ms },
  }));
}

/** The last record of a source's stream since it was connected, or undefined when there is none. */
export async function lastRecord(clickhouse: ClickHouse, source: string): Promise<BatchRecord | undefined> {
  const kinds = ['removed', ...streamKinds].map((kind) => `'${kind}'`).join(', ');
  const [record] = await readRecords(
    clickhouse,
    `${ofLastLease(clickhouse)} AND kind IN (${kinds})`,
    { source },
    'lease DESC, seq DESC',
    1,
  );
  return record?.kind === 'removed' ? undefined : record;
}

/** The last record of a source's stream, also when the source was removed since: leases and epochs go on from it. */
export async function lastRecordEver(clickhouse: ClickHouse, source: string): Promise<BatchRecord | undefined> {
  const [record] = await readRecords(clickhouse, ofLastLease(clickhouse), { source }, 'lease DESC, seq DESC', 1);
  return record;
}

/** See Sink.newestLease. */
export async function newestLease(clickhouse: ClickHouse, source: string): Promise<number> {
  const [newest] = await clickhouse.rows<{ lease: string }>(highestLease(clickhouse), { params: { source } });
  return Number(newest?.lease ?? 0);
}

/**
 * What the next record of a source's stream follows from: the hash of the last one that is not idle, also when the source
 * was removed since; '' when there is none.
 */
export async function chainHead(clickhouse: ClickHouse, source: string): Promise<string> {
  const kinds = ['removed', ...streamKinds].map((kind) => `'${kind}'`).join(', ');
  const [record] = await readRecords(
    clickhouse,
    `${ofLastLease(clickhouse)} AND kind IN (${kinds})`,
    { source },
    'lease DESC, seq DESC',
    1,
  );
  return record ? headAt(record) : '';
}

/** What follows a record in the chain holds this as its `previous_hash`: idle records replace each other. */
export function headAt(record: BatchRecord): string {
  return record.kind === 'idle' ? record.previous_hash : record.hash;
}

/** Every lease begins with a record, so only the last one's few need to be read and merged, not all there ever were. */
function ofLastLease(clickhouse: ClickHouse): string {
  return `source = {source:String} AND lease = (${highestLease(clickhouse)})`;
}

/** Read from the end: max() would look at all that there are. */
export function highestLease(clickhouse: ClickHouse): string {
  return `SELECT lease FROM ${clickhouse.name('_batches')} WHERE source = {source:String} ORDER BY lease DESC LIMIT 1`;
}

/** Keeps rejected rows; writing them again changes nothing. */
export async function writeRejects(
  clickhouse: ClickHouse,
  asset: string,
  batch: string,
  rejects: Reject[],
): Promise<void> {
  await clickhouse.insertObjects(
    '_rejects',
    rejects.map(({ key, version, check = 'type', column, reason, row, unsent = [], committed_at }) => {
      const lacks = JSON.stringify(unsent);
      return { asset, key, version, check, column, reason, row, unsent: lacks, state: 'open', batch, committed_at };
    }),
    `${batch}/${asset}/rejects`,
  );
}

/** Marks open rejects below a version as superseded: the table was truncated, or copied anew. */
export async function supersedeRejects(clickhouse: ClickHouse, asset: string, version: string): Promise<void> {
  const name = clickhouse.name('_rejects');
  await clickhouse.command(
    `INSERT INTO ${name} (asset, key, version, check, column, reason, row, unsent, state, batch, committed_at)
     SELECT asset, key, version, check, column, reason, row, unsent, 'superseded', batch, committed_at FROM ${name} FINAL
     WHERE asset = {asset:String} AND state = 'open' AND version < toUInt128('${BigInt(version)}')`,
    { params: { asset } },
  );
}

/** Stores what the copy of a table is made from. */
export async function saveSchema(
  clickhouse: ClickHouse,
  source: string,
  table: TableSchema,
  generation: number,
): Promise<void> {
  const since = table.alteredAt ?? '';
  await clickhouse.insertObjects('_schemas', [
    { asset: table.asset_id, source, generation, since, body: JSON.stringify(table) },
  ]);
}

/** What the copies of a source are made from, by asset id; with `asset` that one alone. */
export async function loadSchemas(
  clickhouse: ClickHouse,
  source: string,
  asset?: string,
): Promise<Map<string, TableSchema>> {
  const saved = await loadSaved(clickhouse, source, asset);
  return new Map([...saved].map(([asset, { schema }]) => [asset, schema]));
}

/** What copies are made from, with their highest generations, by asset id. */
export type SavedSchemas = Map<string, { schema: TableSchema; generation: number }>;

/** What the copies of a source are made from; with `asset` that one alone. */
export async function loadSaved(clickhouse: ClickHouse, source: string, asset?: string): Promise<SavedSchemas> {
  const one = asset === undefined ? '' : ' AND asset = {asset:String}';
  const rows = await clickhouse.rows<{ asset: string; generation: number; body: string }>(
    `SELECT asset, generation, body FROM ${clickhouse.name('_schemas')} FINAL
     WHERE source = {source:String}${one} ORDER BY generation DESC LIMIT 1 BY asset`,
    { params: { source, ...(asset !== undefined && { asset }) } },
  );
  return new Map(
    rows.map(({ asset, generation, body }) => {
      return [asset, { schema: JSON.parse(body) as TableSchema, generation: Number(generation) }];
    }),
  );
}

/** What all copies are made from whose tables are there, by asset id; with `asset` that one alone. */
export async function loadKnownSchemas(clickhouse: ClickHouse, asset?: string): Promise<Map<string, TableSchema>> {
  const one = asset === undefined ? '' : 'AND asset = {asset:String}';
  const rows = await clickhouse.rows<{ asset: string; body: string }>(
    `SELECT asset, body FROM ${clickhouse.name('_schemas')} FINAL
     WHERE asset IN (SELECT name FROM system.tables WHERE database = {database:String}) ${one}
     ORDER BY asset, generation DESC LIMIT 1 BY asset`,
    { params: { database: clickhouse.database, ...(asset !== undefined && { asset }) } },
  );
  return new Map(rows.map(({ asset, body }) => [asset, JSON.parse(body) as TableSchema]));
}
