/** Snapshots of tables as activities: plan, chunks, end. Resumable by chunk; chunks run in parallel, on any worker. */
import { performance } from 'node:perf_hooks';
import { Context } from '@temporalio/activity';
import { noEffects } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import { parseLsn } from '../../model/position.ts';
import type { ConnectRequest } from '../../model/source.ts';
import type { TableSchema } from '../../model/table.ts';
import { snapshotVersion } from '../../model/version.ts';
import { lastRecord, loadSchemas, readRecords, sealRecord, writeRecord, writeRejects } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { copyColumns, sweepBelow } from '../load/tables.ts';
import { activityError, type CaptureContext } from './context.ts';
import type { SnapshotPlan, TableRef } from './contract.ts';
import { connect, withConnection } from './postgresql/connection.ts';
import { timeText } from './postgresql/postgres_stream.ts';
import { replicationNames, waitForOpenTransactions } from './postgresql/slot.ts';
import { type ChunkBounds, copyChunkRows, planChunks } from './postgresql/snapshot.ts';

interface SnapshotInput {
  request: ConnectRequest;
  table: TableRef;
}

/** What a table's copy was made from. Errors: `table_changed` when nothing is stored. */
export async function knownSchema(clickhouse: ClickHouse, source: string, table: TableRef): Promise<TableSchema> {
  const schema = (await loadSchemas(clickhouse, source)).get(table.asset_id);
  if (schema) return schema;
  const remedy = `Make its copy anew: sluice sources resync ${source} ${table.table}`;
  throw new SluiceError('table_changed', 'what its copy was made from is not stored', remedy, {
    source,
    table: table.table,
  });
}

/** See CaptureActivities.planSnapshot. */
export async function planSnapshot(context: CaptureContext, { request, table }: SnapshotInput): Promise<SnapshotPlan> {
  const activity = Context.current();
  const clickhouse = context.clickhouse('snapshot');
  const schema = await knownSchema(clickhouse, request.id, table);
  const client = await connect({
    connectionString: context.connectionString(request),
    applicationName: `sluice ${request.id} snapshot`,
  });
  try {
    await waitForOpenTransactions(client, activity.cancellationSignal, () =>
      activity.heartbeat('waiting for open transactions to end'),
    );
    const bounds = await planChunks(client, schema, (chunks) => activity.heartbeat(`${chunks} chunks planned`));
    await clickhouse.insertObjects(
      '_chunks',
      bounds.map(({ lower, upper }, chunk) => {
        const text = (bound: string[] | null) => (bound === null ? '' : JSON.stringify(bound));
        return {
          source: request.id,
          asset: table.asset_id,
          generation: table.generation,
          chunk,
          lower: text(lower),
          upper: text(upper),
        };
      }),
    );
    const { rows } = await client.query<{ rows: number }>(
      'SELECT reltuples::float8 AS rows FROM pg_catalog.pg_class WHERE oid = $1',
      [schema.oid],
    );
    return { chunks: bounds.length, estimated_rows: rows[0]?.rows ?? -1 };
  } catch (error) {
    throw activityError(error, { source: request.id, table: table.table });
  } finally {
    await client.end().catch(() => {});
  }
}

function snapshotId(source: string, table: TableRef): string {
  return `${source}/snapshot/${table.asset_id}/${table.generation}`;
}

/** See CaptureActivities.copyChunk. */
export async function copyChunk(
  context: CaptureContext,
  { request, table, chunk }: SnapshotInput & { chunk: number },
): Promise<{ rows: number; bytes: number }> {
  const activity = Context.current();
  const clickhouse = context.clickhouse('snapshot');
  const id = `${snapshotId(request.id, table)}/${chunk}`;
  const [done] = await readRecords(clickhouse, 'source = {source:String} AND id = {id:String}', {
    source: request.id,
    id,
  });
  if (done) return { rows: done.assets[table.asset_id]?.written ?? 0, bytes: done.assets[table.asset_id]?.bytes ?? 0 };
  const record = await streamRecord(clickhouse, request.id);
  const schema = await knownSchema(clickhouse, request.id, table);
  const startedAt = performance.now();
  let rowsSoFar = 0;
  const heartbeat = setInterval(() => activity.heartbeat({ rows: rowsSoFar }), 1_000);
  try {
    const { rows, bytes, rejected } = await copyChunkRows({
      connectionString: context.connectionString(request),
      source: request.id,
      publication: replicationNames(request).publication,
      table: schema,
      bounds: await chunkBounds(clickhouse, request.id, table, chunk),
      startPosition: table.start_position,
      epoch: record.epoch,
      signal: activity.cancellationSignal,
      progress: (read) => {
        rowsSoFar = read;
      },
      write: async (block, rejects, part) => {
        if (rejects.length > 0) await writeRejects(clickhouse, table.asset_id, id, rejects);
        if (block.rows === 0) return;
        const queryId = `${id}/${activity.info.attempt}/${part}`;
        const written = await clickhouse.insertTsv(table.asset_id, copyColumns(schema), [block.content()], queryId);
        if (!(written >= block.rows)) {
          const reason = `${block.rows} rows were sent to ${table.asset_id} and ClickHouse confirmed ${written}`;
          throw new SluiceError('conservation', reason, 'Look at ClickHouse’s log.', {
            source: request.id,
            table: table.table,
          });
        }
      },
    });
    const effects = {
      ...noEffects(),
      inserts: rows + rejected,
      effects: rows + rejected,
      written: rows,
      rejected,
      bytes,
    };
    const durations = { fill: 0, resolve: 0, write: Math.round(performance.now() - startedAt) };
    await recordSnapshot(
      clickhouse,
      activity,
      { request, table },
      { kind: 'chunk', id, chunk, to: table.start_position, effects, durations },
    );
    return { rows, bytes };
  } catch (error) {
    throw activityError(error, { source: request.id, table: table.table });
  } finally {
    clearInterval(heartbeat);
  }
}

async function streamRecord(clickhouse: ClickHouse, source: string) {
  const record = await lastRecord(clickhouse, source);
  if (record) return record;
  throw new SluiceError(
    'slot_lost',
    'there is no record of where the stream begins',
    `Start it again: sluice sources start ${source}`,
    { source },
  );
}

async function chunkBounds(
  clickhouse: ClickHouse,
  source: string,
  table: TableRef,
  chunk: number,
): Promise<ChunkBounds> {
  const rows = await clickhouse.rows<{ lower: string; upper: string }>(
    `SELECT lower, upper FROM ${clickhouse.name('_chunks')} FINAL
     WHERE source = {source:String} AND asset = {asset:String} AND generation = {generation:UInt32} AND chunk = {chunk:UInt32}`,
    { params: { source, asset: table.asset_id, generation: table.generation, chunk } },
  );
  const bounds = rows[0];
  if (!bounds)
    throw new SluiceError('unexpected', `chunk ${chunk} was never planned`, 'Re-sync the table.', {
      source,
      table: table.table,
    });
  const parse = (text: string) => (text === '' ? null : (JSON.parse(text) as string[]));
  return { lower: parse(bounds.lower), upper: parse(bounds.upper) };
}

async function recordSnapshot(
  clickhouse: ClickHouse,
  activity: Context,
  { request, table }: SnapshotInput,
  done: {
    kind: 'chunk' | 'snapshot';
    id: string;
    chunk: number;
    to: string;
    effects: ReturnType<typeof noEffects>;
    durations: { fill: number; resolve: number; write: number };
  },
): Promise<void> {
  const { lease, cluster, epoch } = await streamRecord(clickhouse, request.id);
  await writeRecord(
    clickhouse,
    sealRecord({
      id: done.id,
      source: request.id,
      kind: done.kind,
      lease,
      seq: done.chunk,
      position_from: table.start_position,
      position_to: done.to,
      inner: '',
      cluster,
      epoch,
      committed_first: null,
      committed_last: null,
      changes: done.kind === 'chunk' ? done.effects.effects : 0,
      assets: { [table.asset_id]: done.effects },
      truncated: {},
      failed: {},
      rules: 0,
      durations: done.durations,
      workflow_id: activity.info.workflowExecution?.workflowId ?? '',
      run_id: activity.info.workflowExecution?.runId ?? '',
      attempt: activity.info.attempt,
      previous_hash: '',
    }),
  );
}

/** See CaptureActivities.finishSnapshot. */
export async function finishSnapshot(
  context: CaptureContext,
  { request, table }: SnapshotInput,
): Promise<{ complete_at: string; rows: number }> {
  const activity = Context.current();
  const clickhouse = context.clickhouse('snapshot');
  const source = request.id;
  const schema = await knownSchema(clickhouse, source, table);
  const id = snapshotId(source, table);
  await endChunkInserts(clickhouse, id);
  const { epoch } = await streamRecord(clickhouse, source);
  const start = String(snapshotVersion(epoch, parseLsn(table.start_position)));
  const now = timeText(Date.now() * 1000);
  // What an earlier copy had and the source does not any more.
  await sweepBelow(clickhouse, schema, start, now, `${id}/sweep`);
  // Chunks may have been written after a TRUNCATE that the stream brought meanwhile.
  const truncate = await lastTruncate(clickhouse, source, table.asset_id);
  if (truncate > BigInt(start)) await sweepBelow(clickhouse, schema, String(truncate), now, `${id}/sweep`);
  const complete = await withConnection(
    { connectionString: context.connectionString(request), applicationName: `sluice ${source} snapshot` },
    async (client) => {
      const { rows } = await client.query<{ lsn: string }>(
        'SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS lsn',
      );
      // Something behind that position, so that an idle source passes it.
      await client.query(`SELECT pg_catalog.pg_logical_emit_message(false, 'sluice', 'snapshot')`);
      return rows[0]!.lsn;
    },
  );
  const chunks = await readRecords(
    clickhouse,
    `source = {source:String} AND kind = 'chunk' AND startsWith(id, {id:String})`,
    {
      source,
      id: `${id}/`,
    },
  );
  const rows = chunks.reduce((sum, record) => sum + (record.assets[table.asset_id]?.written ?? 0), 0);
  const durations = { fill: 0, resolve: 0, write: 0 };
  const effects = noEffects();
  await recordSnapshot(
    clickhouse,
    activity,
    { request, table },
    { kind: 'snapshot', id, chunk: 0, to: complete, effects, durations },
  );
  return { complete_at: complete, rows };
}

/** Ends inserts of chunks that a dead worker left behind: they must not come after the sweep. */
async function endChunkInserts(clickhouse: ClickHouse, id: string): Promise<void> {
  try {
    await clickhouse.command('KILL QUERY WHERE startsWith(query_id, {prefix:String}) SYNC', {
      params: { prefix: `${id}/` },
    });
  } catch (error) {
    if (!(error instanceof SluiceError) || error.transient) throw error;
  }
}

/** Version of the newest TRUNCATE of an asset that the stream has brought, or 0. */
async function lastTruncate(clickhouse: ClickHouse, source: string, asset: string): Promise<bigint> {
  const records = await readRecords(
    clickhouse,
    `source = {source:String} AND kind = 'truncate' AND JSONHas(truncated, {asset:String})`,
    { source, asset },
    'lease DESC, seq DESC',
    1,
  );
  return BigInt(records[0]?.truncated[asset] ?? 0);
}
