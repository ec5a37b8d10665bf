/** A lease: one run of the capture loop as an activity, fenced against its predecessors. */
import { Context } from '@temporalio/activity';
import { type AssetEffects, addEffects, type BatchRecord, noEffects } from '../../model/batch.ts';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import type { ConnectRequest, LeaseProgress, LeaseSummary } from '../../model/source.ts';
import type { TableSchema } from '../../model/table.ts';
import { lastRecord, loadSchemas, readRecords } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { activityError, type CaptureContext } from './context.ts';
import type { TableRef } from './contract.ts';
import { CaptureLoop } from './loop.ts';
import { readTables } from './postgresql/catalog.ts';
import { withConnection } from './postgresql/connection.ts';
import { MissingValues } from './postgresql/missing_values.ts';
import { PostgresStream } from './postgresql/postgres_stream.ts';
import { checkCluster, checkSlot, clusterOf, freeSlot, readSlot, replicationNames } from './postgresql/slot.ts';

/** Attempts of a lease: lease number * attemptsLimit + attempt is its place in the order of all. */
const attemptsLimit = 65_536;
/** How long a stream is kept open for the next lease: attaching anew reads the log again from the restart point. */
const keepOpen = 30_000;

interface Attached {
  /** What the stream was opened for: another one is needed when it differs. */
  key: string;
  stream: PostgresStream;
  missing: MissingValues;
  cluster: string;
  epoch: number;
  expires: NodeJS.Timeout | undefined;
}

export interface LeaseInput {
  request: ConnectRequest;
  lease: number;
  tables: TableRef[];
  seconds: number;
}

export class Leases {
  readonly #context: CaptureContext;
  /** Streams between two leases, by source. */
  readonly #kept = new Map<string, Attached>();
  /** The lease that runs for a source in this process: a successor ends it and waits. */
  readonly #running = new Map<string, { abort: AbortController; ended: Promise<void> }>();

  constructor(context: CaptureContext) {
    this.#context = context;
  }

  /** Runs one lease; see CaptureActivities.captureLease. */
  async run(input: LeaseInput): Promise<LeaseSummary> {
    const source = input.request.id;
    const activity = Context.current();
    const abort = new AbortController();
    const cancelled = () => abort.abort();
    activity.cancellationSignal.addEventListener('abort', cancelled);
    if (activity.cancellationSignal.aborted) abort.abort();
    let progress: (() => LeaseProgress) | undefined;
    // Before the loop runs there is nothing to tell, but the attempt lives.
    const heartbeat = setInterval(() => activity.heartbeat(progress?.() ?? activity.info.heartbeatDetails), 1_000);
    let ended = () => {};
    try {
      await this.#endPredecessor(source);
      this.#running.set(source, { abort, ended: new Promise((resolve) => (ended = resolve)) });
      return await this.#lease(input, activity, abort, (live) => {
        progress = live;
      });
    } catch (error) {
      throw activityError(error, { source });
    } finally {
      clearInterval(heartbeat);
      activity.cancellationSignal.removeEventListener('abort', cancelled);
      if (this.#running.get(source)?.abort === abort) this.#running.delete(source);
      ended();
    }
  }

  /** Closes all kept streams, e.g. when the worker ends. */
  close(): void {
    for (const source of this.#kept.keys()) this.#discard(source);
  }

  async #lease(
    input: LeaseInput,
    activity: Context,
    abort: AbortController,
    live: (progress: () => LeaseProgress) => void,
  ): Promise<LeaseSummary> {
    const { request, tables } = input;
    const source = request.id;
    const write = this.#context.clickhouse('write');
    const lease = input.lease * attemptsLimit + activity.info.attempt;
    await endInserts(write, source, lease);
    await refuseDamage(write, source);
    const predecessors = await this.#predecessors(source, input.lease, lease);
    const { attached, position, failed } = await this.#attach(input, write);
    for (const record of predecessors) Object.assign(failed, ofTables(record.failed, tables));
    const loop = new CaptureLoop({
      source,
      stream: attached.stream,
      clickhouse: write,
      lease,
      cluster: attached.cluster,
      epoch: attached.epoch,
      position,
      workflow: {
        id: activity.info.workflowExecution?.workflowId ?? '',
        runId: activity.info.workflowExecution?.runId ?? '',
        attempt: activity.info.attempt,
      },
      signal: abort.signal,
      duration: input.seconds * 1000,
      failed,
    });
    live(() => loop.progress());
    let ended: LeaseSummary['ended'] | undefined;
    try {
      ended = await loop.run();
    } finally {
      // A stream that a lease left in order waits for the next one; any other may hold what nobody will write.
      if (ended === 'time' || ended === 'summary_full') this.#keep(source, attached);
      else closeAttached(attached);
    }
    return summarize(ended, input.lease, loop, predecessors, position);
  }

  /** What attempts of this lease recorded that died before they could say so. */
  async #predecessors(source: string, number: number, lease: number) {
    const first = number * attemptsLimit;
    if (lease <= first + 1) return [];
    const where = 'source = {source:String} AND lease >= {first:UInt64} AND lease < {lease:UInt64}';
    return readRecords(this.#context.clickhouse('read'), where, { source, first, lease });
  }

  /** The kept stream when it goes on exactly where the records end, else a new one. */
  async #attach(
    { request, tables }: LeaseInput,
    write: ClickHouse,
  ): Promise<{ attached: Attached; position: string; failed: Record<string, ErrorReport> }> {
    const source = request.id;
    const connectionString = this.#context.connectionString(request);
    const names = replicationNames(request);
    const { schemas, failed } = await this.#knownTables(request, tables, connectionString);
    const key = JSON.stringify([schemas, names, request]);
    const kept = this.#take(source);
    const record = await lastRecord(write, source);
    if (!record) throw noBeginning(source);
    if (kept?.key === key && kept.stream.continuesAt(record.position_to)) {
      return { attached: kept, position: record.position_to, failed };
    }
    if (kept) closeAttached(kept);
    return { ...(await this.#open(request, connectionString, key, schemas)), failed };
  }

  async #open(
    request: ConnectRequest,
    connectionString: string,
    key: string,
    schemas: TableSchema[],
  ): Promise<{ attached: Attached; position: string }> {
    const source = request.id;
    const names = replicationNames(request);
    const record = await this.#takeSlot(request, connectionString);
    const { position_to: position, cluster, epoch } = record;
    const missing = new MissingValues(this.#context.clickhouse('write'), connectionString, source);
    const stream = await PostgresStream.open({
      connectionString,
      source,
      ...names,
      position,
      epoch,
      tables: schemas,
      excluded: excludedColumns(request, schemas),
      maxAge: request.config.poll_interval * 1000,
      maxRows: this.#context.settings.bufferSize,
      maxBytes: 8 * 1024 * 1024,
      fill: (batch) => missing.fill(batch),
    });
    return { attached: { key, stream, missing, cluster, epoch, expires: undefined }, position };
  }

  /** Ends whoever reads the slot, and answers the last record once nobody else can add one that counts. */
  async #takeSlot(request: ConnectRequest, connectionString: string): Promise<BatchRecord> {
    const { slot } = replicationNames(request);
    const session = { connectionString, applicationName: `sluice ${request.id}` };
    const cluster = await clusterOf(session);
    return withConnection(session, async (client) => {
      await freeSlot(client, slot);
      const record = await lastRecord(this.#context.clickhouse('write'), request.id);
      if (!record) throw noBeginning(request.id);
      checkCluster(cluster, record.cluster, request.id);
      checkSlot(await readSlot(client, slot), slot, request.id, record.position_to);
      return record;
    });
  }

  /** Schemas that the copies were made from; a table that is another one by now has failed. */
  async #knownTables(
    request: ConnectRequest,
    tables: TableRef[],
    connectionString: string,
  ): Promise<{ schemas: TableSchema[]; failed: Record<string, ErrorReport> }> {
    const saved = await loadSchemas(this.#context.clickhouse('write'), request.id);
    const now = await withConnection({ connectionString, applicationName: `sluice ${request.id}` }, (client) =>
      readTables(client, request.id, {
        tables: tables.map(({ schema, table }) => `${schema}.${table}`),
        excludeColumns: request.config.exclude_columns,
        assetIds: request.config.options.asset_ids as Record<string, string> | undefined,
      }),
    );
    const current = new Map(now.map((table) => [table.asset_id, table]));
    const schemas: TableSchema[] = [];
    const failed: Record<string, ErrorReport> = {};
    for (const { asset_id, table } of tables) {
      const schema = saved.get(asset_id);
      const reason = schema
        ? tableDifference(schema, current.get(asset_id))
        : 'what its copy was made from is not stored';
      if (schema && reason === undefined) schemas.push(schema);
      else {
        const remedy = `Make its copy anew: sluice sources resync ${request.id} ${table}`;
        failed[asset_id] = { kind: 'table_changed', reason: `the table was changed in the source: ${reason}`, remedy };
      }
    }
    return { schemas, failed };
  }

  async #endPredecessor(source: string): Promise<void> {
    const running = this.#running.get(source);
    if (!running) return;
    running.abort.abort();
    await running.ended;
  }

  #take(source: string): Attached | undefined {
    const kept = this.#kept.get(source);
    this.#kept.delete(source);
    clearTimeout(kept?.expires);
    return kept;
  }

  #keep(source: string, attached: Attached): void {
    this.#discard(source);
    attached.expires = setTimeout(() => this.#discard(source), keepOpen);
    attached.expires.unref();
    this.#kept.set(source, attached);
  }

  #discard(source: string): void {
    const kept = this.#take(source);
    if (kept) closeAttached(kept);
  }
}

function noBeginning(source: string): SluiceError {
  const remedy = `Make the copies anew: sluice sources resync ${source}`;
  return new SluiceError('slot_lost', 'there is no record of where the stream begins', remedy, { source });
}

function closeAttached(attached: Attached): void {
  attached.stream.close();
  attached.missing.close().catch(() => {});
}

/** By asset id, the columns that are left out. */
function excludedColumns(request: ConnectRequest, schemas: TableSchema[]): Record<string, string[]> {
  const excluded: Record<string, string[]> = {};
  for (const { asset_id, schema, table } of schemas) {
    const { exclude_columns } = request.config;
    excluded[asset_id] =
      exclude_columns[`${schema}.${table}`] ?? (schema === 'public' ? exclude_columns[table] : undefined) ?? [];
  }
  return excluded;
}

/** How a table differs from what its copy was made from, or undefined. */
export function tableDifference(known: TableSchema, now: TableSchema | undefined): string | undefined {
  if (!now) return 'it is gone, or has no usable key any more';
  if (now.oid !== known.oid) return 'it was dropped and made again';
  if (now.identity !== known.identity) return `its replica identity was ${known.identity} and is ${now.identity}`;
  const columns = new Map(now.columns.map((column) => [column.attnum, column]));
  for (const column of known.columns) {
    const found = columns.get(column.attnum);
    if (!found) return `column ${column.name} is gone`;
    if (found.name !== column.name) return `column ${column.name} is called ${found.name}`;
    if (found.typeOid !== column.typeOid || found.typmod !== column.typmod)
      return `column ${column.name} was ${column.type} and is ${found.type}`;
    if (found.key !== column.key) return `its key is another (${column.name})`;
    columns.delete(column.attnum);
  }
  for (const column of columns.values()) return `column ${column.name} is new`;
  return undefined;
}

/**
 * Ends inserts of earlier leases that may still run on a server, never those of snapshots; an embedded engine runs them
 * one after the other anyway.
 */
async function endInserts(write: ClickHouse, source: string, lease: number): Promise<void> {
  try {
    await write.command(
      `KILL QUERY WHERE startsWith(query_id, {prefix:String}) AND toUInt64OrNull(splitByChar('/', query_id)[2]) < {lease:UInt64} SYNC`,
      { params: { prefix: `${source}/`, lease } },
    );
  } catch (error) {
    // Without the right to kill, versions still keep the copy right; only the fence is weaker.
    if (!(error instanceof SluiceError) || error.transient) throw error;
  }
}

/** A part that ClickHouse found broken at its start may have held acknowledged rows. */
async function refuseDamage(write: ClickHouse, source: string): Promise<void> {
  const rows = await write.rows<{ name: string; parts: string }>(
    `SELECT table AS name, count() AS parts FROM system.detached_parts
     WHERE database = {database:String} AND startsWith(table, {source:String}) AND startsWith(reason, 'broken') GROUP BY table`,
    { params: { database: write.database, source } },
  );
  const damaged = rows[0];
  if (!damaged) return;
  throw new SluiceError(
    'sink_damaged',
    `ClickHouse detached ${damaged.parts} broken parts of ${damaged.name}`,
    `Drop the detached parts (ALTER TABLE … DROP DETACHED PART), then: sluice sources resync ${source}`,
    { source, table: damaged.name },
  );
}

/** The failures that concern these tables. */
function ofTables(failed: Record<string, ErrorReport>, tables: TableRef[]): Record<string, ErrorReport> {
  const asked = new Set(tables.map((table) => table.asset_id));
  return Object.fromEntries(Object.entries(failed).filter(([asset]) => asked.has(asset)));
}

function summarize(
  ended: LeaseSummary['ended'],
  lease: number,
  loop: CaptureLoop,
  predecessors: Awaited<ReturnType<typeof readRecords>>,
  position: string,
): LeaseSummary {
  const assets: Record<string, AssetEffects> = { ...loop.assets };
  const { failed } = loop;
  const earlier = predecessors.filter((record) => record.kind === 'rows' || record.kind === 'truncate');
  let changes = loop.changes;
  for (const record of earlier) {
    changes += record.changes;
    for (const [asset, effects] of Object.entries(record.assets)) {
      assets[asset] ??= noEffects();
      addEffects(assets[asset], effects);
    }
  }
  const first = earlier[0] ?? loop.first;
  const last = loop.last ?? earlier.at(-1);
  return {
    ended: Object.keys(failed).length > 0 ? 'table_failed' : ended,
    lease,
    position_from: predecessors[0]?.position_from ?? position,
    position_to: loop.progress().position,
    batches: loop.batches + earlier.length,
    changes,
    assets,
    first: first
      ? {
          id: first.id,
          position_from: first.position_from,
          position_to: first.position_to,
          committed_first: first.committed_first,
        }
      : null,
    last: last
      ? {
          id: last.id,
          position_from: last.position_from,
          position_to: last.position_to,
          committed_last: last.committed_last,
        }
      : null,
    hash: loop.hash,
    failed,
  };
}
