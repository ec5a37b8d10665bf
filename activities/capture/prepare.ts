/** Making a source ready: copies, publication, slot, start positions; and taking it apart again. */
import type pg from 'pg';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import type { ConnectRequest } from '../../model/source.ts';
import { type TableSchema, tableName } from '../../model/table.ts';
import {
  createOwnTables,
  lastRecord,
  lastRecordEver,
  readRecords,
  saveSchema,
  sealRecord,
  writeRecord,
} from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { copyDifference, createCopy, dropCopy } from '../load/tables.ts';
import type { CaptureContext } from './context.ts';
import type { PreparedSource, TableRef } from './contract.ts';
import { readTables } from './postgresql/catalog.ts';
import { connect, withConnection } from './postgresql/connection.ts';
import {
  checkCluster,
  checkSlot,
  clusterOf,
  createSlot,
  dropReplication,
  flushPosition,
  freeSlot,
  publish,
  readSlot,
  replicationNames,
  unpublish,
} from './postgresql/slot.ts';

/** Leases are numbered in the upper bits, attempts in the lower 16. */
const attemptsLimit = 65_536;

/** See CaptureActivities.prepareSource. */
export async function prepareSource(
  context: CaptureContext,
  input: { request: ConnectRequest; tables: TableRef[] },
): Promise<PreparedSource> {
  const { request, tables } = input;
  const clickhouse = context.clickhouse('write');
  await createOwnTables(clickhouse);
  const session = { connectionString: context.connectionString(request), applicationName: `sluice ${request.id}` };
  const cluster = await clusterOf(session);
  const client = await connect(session);
  try {
    const schemas = await schemasOf(client, request, tables);
    const known = await recordedSnapshots(clickhouse, request.id, tables);
    for (const table of tables) {
      const schema = schemas.get(table.asset_id)!;
      if (!known.has(table.asset_id) && table.start_position === '')
        await makeCopy(clickhouse, schema, table.generation);
    }
    await publish(client, replicationNames(request).publication, [...schemas.values()]);
    const begun = await beginStream(client, clickhouse, input, cluster);
    const prepared: PreparedSource['tables'] = [];
    for (const table of tables) {
      const done = begun.fresh ? undefined : known.get(table.asset_id);
      if (done) prepared.push({ ...table, ...done, snapshot_done: true });
      else if (table.start_position !== '' && !begun.fresh) prepared.push({ ...table, snapshot_done: false });
      else {
        await saveSchema(clickhouse, request.id, schemas.get(table.asset_id)!, table.generation);
        prepared.push({
          ...table,
          start_position: begun.fresh ? begun.position : await flushPosition(client),
          snapshot_done: false,
        });
      }
    }
    return { position: begun.position, last_lease: begun.lastLease, tables: prepared };
  } catch (error) {
    throw asSluiceError(error, { source: request.id });
  } finally {
    await client.end().catch(() => {});
  }
}

/** Schemas by asset id. Errors: `table_missing`. */
async function schemasOf(
  client: pg.Client,
  request: ConnectRequest,
  tables: TableRef[],
): Promise<Map<string, TableSchema>> {
  const found = await readTables(client, request.id, {
    tables: tables.map(({ schema, table }) => `${schema}.${table}`),
    excludeColumns: request.config.exclude_columns,
    assetIds: request.config.options.asset_ids as Record<string, string> | undefined,
  });
  const schemas = new Map(found.map((schema) => [schema.asset_id, schema]));
  for (const table of tables) {
    if (schemas.has(table.asset_id)) continue;
    throw new SluiceError(
      'table_missing',
      `the table ${tableName(table)} is not in the source, or has no usable key any more`,
      `Take it out: sluice sources remove-tables ${request.id} ${tableName(table)}`,
      { source: request.id, table: tableName(table) },
    );
  }
  return schemas;
}

/** A table that is copied anew after it changed needs another table; one that is there and fits is kept. */
async function makeCopy(clickhouse: ClickHouse, schema: TableSchema, generation: number): Promise<void> {
  if (generation > 1) {
    const there = await clickhouse.rows(
      'SELECT 1 FROM system.tables WHERE database = {database:String} AND name = {table:String}',
      {
        params: { database: clickhouse.database, table: schema.asset_id },
      },
    );
    if (there.length > 0 && (await copyDifference(clickhouse, schema)) !== undefined)
      await dropCopy(clickhouse, schema.asset_id);
  }
  await createCopy(clickhouse, schema);
}

/** Finished snapshots since the source was connected: a flow that lost its state goes on from them. */
async function recordedSnapshots(
  clickhouse: ClickHouse,
  source: string,
  tables: TableRef[],
): Promise<Map<string, Pick<TableRef, 'start_position' | 'generation'>>> {
  const records = await readRecords(
    clickhouse,
    `source = {source:String} AND kind IN ('snapshot', 'removed')`,
    { source },
    'lease, seq, recorded_at',
  );
  const found = new Map<string, Pick<TableRef, 'start_position' | 'generation'>>();
  const asked = new Map(tables.map((table) => [table.asset_id, table.generation]));
  for (const record of records) {
    if (record.kind === 'removed') found.clear();
    for (const asset of Object.keys(record.assets)) {
      const generation = Number(record.id.split('/').at(-1));
      if (generation >= (asked.get(asset) ?? Number.POSITIVE_INFINITY))
        found.set(asset, { start_position: record.position_from, generation });
    }
  }
  return found;
}

/**
 * Where the stream begins: at the last record when the slot still has everything behind it. A new slot is made only for
 * a source none of whose tables has a start position yet; else a lost slot is an error, since changes are missing.
 */
async function beginStream(
  client: pg.Client,
  clickhouse: ClickHouse,
  { request, tables }: { request: ConnectRequest; tables: TableRef[] },
  cluster: string,
): Promise<{ fresh: boolean; position: string; lastLease: number }> {
  const { slot } = replicationNames(request);
  const source = request.id;
  const record = await lastRecord(clickhouse, source);
  const found = await readSlot(client, slot);
  const started = tables.some((table) => table.start_position !== '');
  try {
    if (record) {
      checkCluster(cluster, record.cluster, source);
      checkSlot(found, slot, source, record.position_to);
      return { fresh: false, position: record.position_to, lastLease: Math.floor(record.lease / attemptsLimit) };
    }
  } catch (error) {
    if (started) throw error;
  }
  const before = await lastRecordEver(clickhouse, source);
  const position = await makeSlot(client, slot, before === undefined);
  const lease = Math.floor((before?.lease ?? 0) / attemptsLimit) + 1;
  const epoch = before === undefined ? 1 : before.cluster === cluster ? before.epoch : before.epoch + 1;
  await writeRecord(clickhouse, markRecord('begin', source, lease * attemptsLimit, position, cluster, epoch));
  return { fresh: true, position, lastLease: lease };
}

/** A slot without a record is one whose making was not recorded any more: nothing was read from it, so it is used. */
async function makeSlot(client: pg.Client, slot: string, neverRecorded: boolean): Promise<string> {
  const found = await readSlot(client, slot);
  if (found && !found.invalid && neverRecorded) return found.confirmed;
  if (found) {
    await freeSlot(client, slot);
    await client.query('SELECT pg_catalog.pg_drop_replication_slot($1)', [slot]);
  }
  return createSlot(client, slot);
}

/** A record that no batch stands behind. */
function markRecord(
  kind: 'begin' | 'removed',
  source: string,
  lease: number,
  position: string,
  cluster: string,
  epoch: number,
) {
  return sealRecord({
    id: `${source}/${lease}/0`,
    source,
    kind,
    lease,
    seq: 0,
    position_from: position,
    position_to: position,
    inner: '',
    cluster,
    epoch,
    committed_first: null,
    committed_last: null,
    changes: 0,
    assets: {},
    truncated: {},
    failed: {},
    rules: 0,
    durations: { fill: 0, resolve: 0, write: 0 },
    workflow_id: '',
    run_id: '',
    attempt: 0,
    previous_hash: '',
  });
}

/** See CaptureActivities.releaseTables. */
export async function releaseTables(
  context: CaptureContext,
  { request, tables }: { request: ConnectRequest; tables: TableRef[] },
): Promise<void> {
  await withConnection(
    { connectionString: context.connectionString(request), applicationName: `sluice ${request.id}` },
    (client) => unpublish(client, replicationNames(request).publication, tables),
  );
}

/** See CaptureActivities.removeSource. */
export async function removeSource(
  context: CaptureContext,
  input: { request: ConnectRequest; tables: TableRef[]; drop_copies: boolean; force: boolean },
): Promise<void> {
  const { request, tables, drop_copies, force } = input;
  const source = request.id;
  try {
    await withConnection(
      { connectionString: context.connectionString(request), applicationName: `sluice ${source}` },
      (client) => dropReplication(client, replicationNames(request)),
    );
  } catch (error) {
    if (!force) {
      const { message } = asSluiceError(error);
      const remedy =
        'Its slot would go on keeping log there. Ask again when it answers, or with force to leave the slot behind.';
      throw new SluiceError(
        'conflict',
        `the source does not let go of its slot: ${message}`,
        remedy,
        { source },
        error,
      );
    }
  }
  const clickhouse = context.clickhouse('write');
  await createOwnTables(clickhouse);
  const last = await lastRecordEver(clickhouse, source);
  if (last) {
    const lease = (Math.floor(last.lease / attemptsLimit) + 1) * attemptsLimit;
    await writeRecord(clickhouse, markRecord('removed', source, lease, last.position_to, last.cluster, last.epoch));
  }
  if (drop_copies) for (const table of tables) await dropCopy(clickhouse, table.asset_id);
}
