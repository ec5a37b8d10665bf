/** Snapshots of tables as activities: plan, chunks, end. Resumable by chunk; chunks run in parallel, on any worker. */
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import { Context } from '@temporalio/activity';
import { type AppliedRules, type BatchRecord, noEffects } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import type { ConnectRequest } from '../../model/source.ts';
import { isBeside, isMultiset, type TableSchema } from '../../model/table.ts';
import { scoresOf, storeScores } from '../check/scores.ts';
import { chunksDigest, lastRecord, loadSchemas, readRecords, sealRecord, writeRecord } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { newReading } from '../load/multiset.ts';
import { repairInserts } from '../load/sink.ts';
import { timeText } from '../load/time_text.ts';
import { ChunkWriter } from './chunk_writer.ts';
import { activityError, type CaptureContext } from './context.ts';
import type { SnapshotPlan, TableRef } from './contract.ts';
import { type Chunk, openSource } from './source.ts';

interface SnapshotInput {
  request: ConnectRequest;
  table: TableRef;
}

/** What a table's copy was made from. Errors: `table_changed` when nothing is stored. */
export async function knownSchema(clickhouse: ClickHouse, source: string, table: TableRef): Promise<TableSchema> {
  const schema = (await loadSchemas(clickhouse, source, table.asset_id)).get(table.asset_id);
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
  try {
    const source = await openSource(request.type);
    const schema = await knownSchema(clickhouse, request.id, table);
    const planned = await readPlan(clickhouse, request.id, table);
    if (planned.length > 0) return { chunks: planned.length, estimated_rows: -1 };
    const { chunks, estimatedRows } = await source.planChunks(
      context.connected(request),
      schema,
      activity.cancellationSignal,
      (text) => activity.heartbeat(text),
    );
    const plan = randomUUID();
    const { asset_id: asset, generation, start_position: start } = table;
    await clickhouse.insertObjects(
      '_chunks',
      chunks.map((chunk, index) => ({ source: request.id, asset, generation, start, plan, chunk: index, ...chunk })),
    );
    // A predecessor that lives on may have planned too: the first plan counts, for everybody.
    return { chunks: (await readPlan(clickhouse, request.id, table)).length, estimated_rows: estimatedRows };
  } catch (error) {
    throw activityError(error, { source: request.id, table: table.table });
  }
}

/** `planned_at`: microseconds since 1970, the same for all chunks of a plan. */
interface PlannedChunk extends Chunk {
  planned_at: string;
}

/** The chunks of the first plan for this start of the table, in order; none when nothing is planned yet. */
async function readPlan(clickhouse: ClickHouse, source: string, table: TableRef): Promise<PlannedChunk[]> {
  const where =
    'source = {source:String} AND asset = {asset:String} AND generation = {generation:UInt32} AND start = {start:String}';
  const name = clickhouse.name('_chunks');
  const { asset_id: asset, generation, start_position: start } = table;
  return clickhouse.rows<PlannedChunk>(
    `SELECT lower, upper, toUnixTimestamp64Micro(min(planned_at) OVER ()) AS planned_at FROM ${name} FINAL
     WHERE ${where} AND plan = (SELECT argMin(plan, (planned_at, plan)) FROM ${name} FINAL WHERE ${where}) ORDER BY chunk`,
    { params: { source, asset, generation, start } },
  );
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
  const sink = context.sink('snapshot');
  const { clickhouse } = sink;
  const id = `${snapshotId(request.id, table)}/${chunk}`;
  const done = await recordedChunk(clickhouse, request.id, id, table);
  if (done) return done;
  const record = await streamRecord(clickhouse, request.id);
  const schema = await knownSchema(clickhouse, request.id, table);
  const startedAt = performance.now();
  let rowsSoFar = 0;
  const heartbeat = setInterval(() => activity.heartbeat({ rows: rowsSoFar }), 1_000);
  try {
    const source = await openSource(request.type);
    const planned = await chunkOf(clickhouse, request.id, table, chunk);
    // The same for every attempt, and for no other chunk: a row tells by it which chunk it came with.
    const readAt = Number(planned.planned_at) + chunk;
    const origin = isMultiset(schema) ? newReading() : undefined;
    let writer: ChunkWriter | undefined;
    const copied = await source.copyChunk(context.connected(request), {
      table: schema,
      chunk: planned,
      readAt,
      origin,
      startPosition: table.start_position,
      epoch: record.epoch,
      signal: activity.cancellationSignal,
      progress: (read) => {
        rowsSoFar = read;
      },
      target: (columns) => {
        const insert = (number: number) => `${id}/${activity.info.attempt}/${number}`;
        writer = new ChunkWriter(sink, schema, columns, { batch: id, insert });
        return writer;
      },
    });
    const { rows, bytes, view } = copied;
    if (origin !== undefined && view) {
      const version = source.snapshotVersion(record.epoch, view.position);
      await sink.completeReading(
        schema,
        { origin, version, unseen: view.unseen },
        timeText(readAt),
        `${id}/complete/${origin}`,
      );
    }
    const effects = chunkEffects(copied, writer);
    const staged = writer?.takeCounts();
    const applied = staged && { [table.asset_id]: Object.fromEntries(staged.counts) };
    const durations = { fill: 0, resolve: 0, write: Math.round(performance.now() - startedAt) };
    // The snapshot's end seals the chunks' records: what a second attempt has recorded meanwhile must stay.
    const recorded = await recordedChunk(clickhouse, request.id, id, table);
    if (recorded) return recorded;
    await recordSnapshot(
      clickhouse,
      activity,
      { request, table },
      {
        kind: 'chunk',
        stream: record,
        id,
        chunk,
        to: table.start_position,
        inner: timeText(readAt),
        effects,
        durations,
        rules: schema.rules?.version ?? 0,
        ...(applied && { applied }),
      },
    );
    if (staged) await storeScores(clickhouse, [scoresOf(table.asset_id, id, readAt, staged)]);
    return { rows, bytes };
  } catch (error) {
    const cause = (await isOutdated(clickhouse, request.id, schema, error)) ? alteredMeanwhile(table, error) : error;
    throw activityError(cause, { source: request.id, table: table.table });
  } finally {
    clearInterval(heartbeat);
  }
}

/** What a chunk did: all its rows were read, and some of them written. */
function chunkEffects(copied: { rows: number; bytes: number; rejected: number }, writer: ChunkWriter | undefined) {
  const { filtered, rejected: held } = writer?.staged ?? { filtered: 0, rejected: 0 };
  const rejected = copied.rejected + held;
  const read = copied.rows + rejected + filtered;
  const effects = { ...noEffects(), inserts: read, effects: read, written: copied.rows, rejected, bytes: copied.bytes };
  return filtered > 0 ? { ...effects, filtered } : effects;
}

/** True when rows were refused because the stream has altered the copy since this schema of it was read. */
async function isOutdated(
  clickhouse: ClickHouse,
  source: string,
  schema: TableSchema,
  error: unknown,
): Promise<boolean> {
  if (!(error instanceof SluiceError) || error.kind !== 'rows_refused') return false;
  const now = (await loadSchemas(clickhouse, source, schema.asset_id)).get(schema.asset_id);
  return JSON.stringify(now) !== JSON.stringify(schema);
}

function alteredMeanwhile(table: TableRef, cause: unknown): SluiceError {
  const reason = `the copy ${table.asset_id} was altered while a chunk was written`;
  return new SluiceError('sink_unreachable', reason, 'It is tried again.', {}, cause);
}

async function streamRecord(clickhouse: ClickHouse, source: string): Promise<BatchRecord> {
  const record = await lastRecord(clickhouse, source);
  if (record) return record;
  throw new SluiceError(
    'slot_lost',
    'there is no record of where the stream begins',
    `Start it again: sluice sources start ${source}`,
    { source },
  );
}

/** What a chunk did that is recorded already, of this start of the table: an earlier one says nothing. */
export async function recordedChunk(
  clickhouse: ClickHouse,
  source: string,
  id: string,
  table: Pick<TableRef, 'asset_id' | 'start_position'>,
): Promise<{ rows: number; bytes: number } | undefined> {
  const where = `source = {source:String} AND kind = 'chunk' AND id = {id:String} AND position_from = {start:String}`;
  const [done] = await readRecords(clickhouse, where, { source, id, start: table.start_position });
  const effects = done?.assets[table.asset_id];
  return done && { rows: effects?.written ?? 0, bytes: effects?.bytes ?? 0 };
}

async function chunkOf(clickhouse: ClickHouse, source: string, table: TableRef, chunk: number): Promise<PlannedChunk> {
  const found = (await readPlan(clickhouse, source, table))[chunk];
  if (found) return found;
  throw new SluiceError('unexpected', `chunk ${chunk} was never planned`, 'Re-sync the table.', {
    source,
    table: table.table,
  });
}

async function recordSnapshot(
  clickhouse: ClickHouse,
  activity: Context,
  { request, table }: SnapshotInput,
  done: {
    kind: 'chunk' | 'snapshot';
    /** The stream's record as of which this was done: rows bear its epoch. */
    stream: BatchRecord;
    id: string;
    chunk: number;
    to: string;
    inner?: string;
    previous?: string;
    effects: ReturnType<typeof noEffects>;
    durations: { fill: number; resolve: number; write: number };
    rules?: number;
    applied?: AppliedRules;
  },
): Promise<void> {
  const { lease, cluster, epoch } = done.stream;
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
      inner: done.inner ?? '',
      cluster,
      epoch,
      committed_first: null,
      committed_last: null,
      changes: done.kind === 'chunk' ? done.effects.effects : 0,
      assets: { [table.asset_id]: done.effects },
      truncated: {},
      failed: {},
      rules: done.rules ?? 0,
      ...(done.applied && { applied: done.applied }),
      durations: done.durations,
      workflow_id: activity.info.workflowExecution?.workflowId ?? '',
      run_id: activity.info.workflowExecution?.runId ?? '',
      attempt: activity.info.attempt,
      previous_hash: done.previous ?? '',
    }),
  );
}

/** See CaptureActivities.finishSnapshot. */
export async function finishSnapshot(
  context: CaptureContext,
  { request, table }: SnapshotInput,
): Promise<{ complete_at: string; rows: number }> {
  const activity = Context.current();
  const sink = context.sink('snapshot');
  const { clickhouse } = sink;
  try {
    const source = await openSource(request.type);
    const schema = await knownSchema(clickhouse, request.id, table);
    const id = snapshotId(request.id, table);
    // Inserts that a dead worker left behind, of chunks and repairs, must not come after the sweep.
    await sink.endInserts([`${id}/`, repairInserts(request.id, table.asset_id)]);
    const stream = await streamRecord(clickhouse, request.id);
    const start = source.snapshotVersion(stream.epoch, table.start_position);
    const now = timeText(Date.now() * 1000);
    // What an earlier copy had and the source does not any more. One that was made beside it never had it.
    // Rejects first: a release that still finds its own open has written the row by then.
    await sink.supersedeRejects(table.asset_id, start);
    if (!isBeside(schema)) await sink.sweepBelow(schema, start, now, `${id}/sweep`);
    // Chunks may have been written after a TRUNCATE that the stream brought meanwhile; a multiset counts from that on anyway.
    const truncate = await lastTruncate(clickhouse, request.id, table.asset_id);
    if (truncate > BigInt(start)) {
      await sink.supersedeRejects(table.asset_id, String(truncate));
      if (!isMultiset(schema)) await sink.sweepBelow(schema, String(truncate), now, `${id}/sweep`);
    }
    const complete = await source.completePosition(context.connected(request));
    const chunks = await recordedChunks(clickhouse, request.id, id, table);
    const rows = chunks.reduce((sum, record) => sum + (record.assets[table.asset_id]?.written ?? 0), 0);
    const done = {
      kind: 'snapshot',
      stream,
      id,
      chunk: 0,
      to: complete,
      previous: chunksDigest(chunks),
      effects: noEffects(),
      durations: { fill: 0, resolve: 0, write: 0 },
    } as const;
    await recordSnapshot(clickhouse, activity, { request, table }, done);
    return { complete_at: complete, rows };
  } catch (error) {
    throw activityError(error, { source: request.id, table: table.table });
  }
}

/** The records of a snapshot's chunks, in order. */
async function recordedChunks(clickhouse: ClickHouse, source: string, id: string, table: TableRef) {
  const where = `source = {source:String} AND kind = 'chunk' AND startsWith(id, {id:String}) AND position_from = {start:String}`;
  return readRecords(clickhouse, where, { source, id: `${id}/`, start: table.start_position }, 'seq, lease');
}

/**
 * Records that the stream has passed the end of a table's snapshot: from here on its copy is complete. Again changes
 * nothing; a snapshot that was given up meanwhile is left alone.
 */
export async function recordComplete(clickhouse: ClickHouse, source: string, table: TableRef, at: BatchRecord) {
  const id = snapshotId(source, table);
  const where = `source = {source:String} AND kind IN ('snapshot', 'complete') AND id IN ({id:String}, {done:String}) AND position_from = {start:String}`;
  const params = { source, id, done: `${id}/complete`, start: table.start_position };
  const found = await readRecords(clickhouse, where, params);
  const snapshot = found.findLast((record) => record.kind === 'snapshot');
  const recorded = found.findLast((record) => record.kind === 'complete');
  if (!snapshot || recorded?.previous_hash === snapshot.hash) return;
  const { recorded_at: _, hash, ...record } = snapshot;
  const { position_to, cluster, epoch } = at;
  // Records are read in the order of leases, and this one stands behind the snapshot's.
  const lease = Math.max(snapshot.lease, at.lease);
  const done = { kind: 'complete', id: `${id}/complete`, lease, position_to, cluster, epoch } as const;
  await writeRecord(clickhouse, sealRecord({ ...record, ...done, previous_hash: hash }));
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
