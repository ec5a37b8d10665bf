/**
 * Rows of a copy that differ, read again from the source. It is a re-sync of the table for these keys alone, and right by
 * the same argument (see "Snapshots beside the stream" in docs/architecture.md):
 *
 * - P is the end of the log; then every transaction that is open is waited for. So what is read afterwards shows every
 *   commit before P, and all that it may not show commits at P or later.
 * - Rows are written with the version of P. They win over the wrong ones, which are older (a version beyond P was not
 *   written by us: such a row is left alone, and told). They lose to every change at P or later, whether the stream has
 *   brought it already or not.
 * - A key that the source does not have gets a tombstone at P.
 * - The reading transaction stays open until all is written, so that a TRUNCATE waits, and comes after. Before the stream
 *   sweeps for one, it ends what a dead repair may have left behind (see the loop).
 * - The table is defined as the copy is made from it, and nobody can alter it while it is read. A copy that has to follow
 *   first would lack values of new columns, and what is written here would win over them.
 * - Nothing is written before what was read is on the source's disk.
 * - A table that is being copied anew is left alone: its stream may have a gap that only the new copy knows of.
 */
import { randomUUID } from 'node:crypto';
import { performance } from 'node:perf_hooks';
import type pg from 'pg';
import { noEffects } from '../../model/batch.ts';
import { parseLsn } from '../../model/position.ts';
import { schemaPolicy } from '../../model/source.ts';
import { copyName, isBeside, keyColumns, type TableSchema, tableName } from '../../model/table.ts';
import { snapshotVersion } from '../../model/version.ts';
import { ChunkWriter } from '../capture/chunk_writer.ts';
import type { CaptureContext } from '../capture/context.ts';
import { waitForOpenTransactions } from '../capture/postgresql/barrier.ts';
import { seeTables } from '../capture/postgresql/catalog.ts';
import { quoteName as quoteSourceName, withConnection } from '../capture/postgresql/connection.ts';
import { durablePosition, flushPosition } from '../capture/postgresql/durable.ts';
import { type PostgresqlOptions, readOptions } from '../capture/postgresql/options.ts';
import { clusterOf } from '../capture/postgresql/slot.ts';
import { copyRows, type Reading } from '../capture/postgresql/snapshot.ts';
import { hiddenColumns } from '../capture/postgresql/source.ts';
import { compareTable } from '../capture/postgresql/table_change.ts';
import type { Connected } from '../capture/source.ts';
import { headAt, lastRecord, loadSchemas, sealRecord } from '../load/batches.ts';
import { quoteName } from '../load/clickhouse.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { lookUpIn } from '../load/look_up.ts';
import { repairInserts } from '../load/sink.ts';
import { ownColumns } from '../load/tables.ts';
import { timeText } from '../load/time_text.ts';
import type { LookUp } from '../transform/join.ts';
import { copyLiteral, type Key, sourceLiteral } from './verify_keys.ts';
import { keyId, sourceSide } from './verify_sides.ts';

export interface RepairTask {
  context: Pick<CaptureContext, 'sink' | 'clickhouse' | 'status'>;
  connected: Connected;
  table: TableSchema;
  /** Of the copy: another one means that it was made anew meanwhile. */
  generation: number;
  /** Of the verification that found the rows. */
  verification: string;
  workflow: { id: string; runId: string; attempt: number };
  /** Counts repairs of the verification's attempt, whatever tables they are of. */
  numbers: { next: number };
  signal: AbortSignal;
}

/** How long other people's transactions are waited for: the next comparison comes, too. */
const patience = 60_000;
/** Repairs of one attempt. */
const mostRepairs = 1_000_000;

export class Repair {
  readonly #task: RepairTask;
  readonly #sink: ClickHouseSink;
  /** Of the repair under way; no two of a verification bear the same. */
  #number = 0;
  /** What the rows of the repair under way bear as the time of their commit. */
  #readAt = 0;

  constructor(task: RepairTask) {
    this.#task = task;
    this.#sink = task.context.sink('snapshot');
  }

  /** Reads rows again; answers why some were left alone, or null. Throws what a caller may try again. */
  async run(keys: Key[]): Promise<string | null> {
    const { table, connected, context } = this.#task;
    const started = performance.now();
    const record = await lastRecord(context.clickhouse('read'), connected.request.id);
    if (!record || isBeside(table)) return 'the table is being copied anew';
    const session = {
      connectionString: connected.connectionString,
      applicationName: `sluice ${connected.request.id} repair`,
    };
    // Positions and versions of another cluster, or of another timeline, would mean nothing here.
    if ((await clusterOf(session)) !== record.cluster) return 'the source is another than the copy was made from';
    return await withConnection(session, async (client) => {
      const { position, mine, foreign } = await this.#position(client, keys, record.epoch);
      if (mine.length > 0) {
        const waited = await this.#waitForOpenTransactions(client);
        if (!waited) return 'transactions of the source stay open for long';
        const id = this.#id();
        this.#readAt = Date.now() * 1000 + (this.#number % 1000);
        const done = await this.#copy(session, mine, position, record.epoch, id);
        if (typeof done === 'string') return done;
        await this.#record(record, id, position, done, performance.now() - started);
      }
      return foreign === 0
        ? null
        : `${foreign} rows of the copy bear versions of the future: not Sluice wrote them. Drop the table ` +
            `${copyName(table)} in ClickHouse, and re-sync ${tableName(table)}`;
    });
  }

  #id(): string {
    const { connected, table, verification, workflow, numbers } = this.#task;
    this.#number = (workflow.attempt - 1) * mostRepairs + numbers.next++;
    return `${connected.request.id}/repair/${table.asset_id}/${verification}/${this.#number}`;
  }

  #queryId(what: string): string {
    const { connected, table } = this.#task;
    return `${repairInserts(connected.request.id, table.asset_id)}${what}-${randomUUID()}`;
  }

  /** P, and the keys whose rows in the copy are older than that. The rest bears versions that nobody can have written. */
  async #position(
    client: pg.Client,
    keys: Key[],
    epoch: number,
  ): Promise<{ position: string; mine: Key[]; foreign: number }> {
    const versions = await this.#newestVersions(keys);
    for (let moved = false; ; moved = true) {
      const position = await flushPosition(client);
      const version = snapshotVersion(epoch, parseLsn(position));
      const mine = keys.filter((key) => (versions.get(keyId(key)) ?? 0n) < version);
      if (mine.length === keys.length || moved) return { position, mine, foreign: keys.length - mine.length };
      // A row may be as young as the end of the log, when nothing was written since: a message moves that.
      await client.query(
        `BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_catalog.pg_logical_emit_message(true, 'sluice', 'repair'); COMMIT`,
      );
    }
  }

  /** Highest version of any row of each key, tombstones too. */
  async #newestVersions(keys: Key[]): Promise<Map<string, bigint>> {
    const { clickhouse } = this.#sink;
    const columns = keyColumns(this.#task.table);
    const names = columns.map((column) => `_r.${quoteName(column.name)}`).join(', ');
    const versions = new Map<string, bigint>();
    // Asked one by one in a single statement: what the copy prints of a key need not be what it was asked by.
    for (let from = 0; from < keys.length; from += 100) {
      const some = keys.slice(from, from + 100);
      const each = some.map(
        (key, index) =>
          `SELECT ${index} AS n, toString(max(_r._version)) AS version FROM ${clickhouse.name(copyName(this.#task.table))} AS _r WHERE (${names}) IN (${this.#copyTuple(key)})`,
      );
      const rows = await clickhouse.rows<{ n: number; version: string }>(each.join(' UNION ALL '));
      for (const { n, version } of rows) versions.set(keyId(some[n]!), BigInt(version));
    }
    return versions;
  }

  async #waitForOpenTransactions(client: pg.Client): Promise<boolean> {
    const late = AbortSignal.timeout(patience);
    const signal = AbortSignal.any([this.#task.signal, late]);
    try {
      await waitForOpenTransactions(client, signal);
      return true;
    } catch (error) {
      if (late.aborted && !this.#task.signal.aborted) return false;
      throw error;
    }
  }

  /** Writes rows and tombstones; a text says why the table must be left alone. */
  async #copy(
    session: { connectionString: string; applicationName: string },
    keys: Key[],
    position: string,
    epoch: number,
    id: string,
  ): Promise<{ rows: number; bytes: number; rejected: number; tombstones: number } | string> {
    const { table, signal } = this.#task;
    const { publication } = this.#options();
    let refused: string | undefined;
    let tombstones = 0;
    let writer: ChunkWriter | undefined;
    const read = await copyRows(session, publication, {
      table,
      startPosition: position,
      epoch,
      readAt: this.#readAt,
      signal,
      progress: () => {},
      rows: async (reading) => {
        const there = await presentKeys(reading, table, keys, lookUpIn(this.#sink.clickhouse));
        await durablePosition(reading.watcher);
        refused = await this.#whyNot(reading.client);
        if (refused !== undefined) return undefined;
        const gone = keys.filter((key) => !there.has(keyId(key)));
        await this.#tombstones(gone, String(snapshotVersion(epoch, parseLsn(position))));
        tombstones = gone.length;
        return conditionOf(
          reading.present,
          keys.filter((key) => there.has(keyId(key))),
        );
      },
      target: (columns) => {
        const ids = { batch: id, insert: (number: number) => this.#queryId(`${number}`) };
        writer = new ChunkWriter(this.#sink, table, columns, ids, 'tombstone');
        return writer;
      },
    });
    return refused ?? { ...read, rejected: read.rejected + (writer?.staged.rejected ?? 0), tombstones };
  }

  /**
   * Why nothing must be written, or undefined while the stream brings the table's changes into this very copy, and the
   * table is defined as that is. `client` is in the reading transaction: its lock keeps the table as it is. No other session
   * may be asked, since it could wait behind somebody who waits for that lock.
   */
  async #whyNot(client: pg.Client): Promise<string | undefined> {
    const { context, connected, table, generation } = this.#task;
    const { id, config } = connected.request;
    const { status, tables } = await context.status(id);
    const now = tables.find((known) => known.asset_id === table.asset_id);
    const streams = status !== 'failed' && now?.status === 'streaming' && now.generation === generation;
    if (!streams) return 'the table is being copied anew, or does not stream';
    const readable = hiddenColumns([table]);
    const reading = { excludeColumns: config.exclude_columns, assetIds: this.#options().assetIds, readable };
    const see = await seeTables(client, id, [table], reading);
    const change = compareTable(table, see(table), { source: id, ignoreNew: schemaPolicy(config) === 'ignore' });
    const same = change.do === 'nothing' || (change.do === 'alter' && change.what.length === 0);
    if (!same) return 'the table was altered, and its copy has yet to follow';
    // Rules that were taken over in place, a mask among them, would be undone for these rows.
    const made = (await loadSchemas(context.clickhouse('read'), id, table.asset_id)).get(table.asset_id);
    return made && rulesOf(made) === rulesOf(table) ? undefined : 'other rules are in force for the table';
  }

  #options(): PostgresqlOptions {
    const { id, config } = this.#task.connected.request;
    return readOptions(id, config.options);
  }

  /** Written from the copy itself: a key that is not in it needs no tombstone. */
  async #tombstones(keys: Key[], version: string): Promise<void> {
    if (keys.length === 0) return;
    const { clickhouse } = this.#sink;
    const { table } = this.#task;
    const name = clickhouse.name(copyName(table));
    const names = keyColumns(table).map((column) => quoteName(column.name));
    const tuples = keys.map((key) => this.#copyTuple(key)).join(', ');
    await clickhouse.command(
      `INSERT INTO ${name} (${[...names, ...ownColumns].join(', ')}) SELECT ${names.join(', ')}, toUInt128('${version}'), 1, toDateTime64({now:String}, 6, 'UTC')
       FROM ${name} FINAL WHERE (${names.join(', ')}) IN (${tuples}) AND _version < toUInt128('${version}')
       SETTINGS optimize_move_to_prewhere = 0, optimize_move_to_prewhere_if_final = 0`,
      { params: { now: timeText(this.#readAt) }, queryId: this.#queryId('tombstones') },
    );
  }

  #copyTuple(key: Key): string {
    const columns = keyColumns(this.#task.table);
    return `(${columns.map((column, index) => copyLiteral(column, key[index]!)).join(', ')})`;
  }

  async #record(
    last: NonNullable<Awaited<ReturnType<typeof lastRecord>>>,
    id: string,
    position: string,
    done: { rows: number; bytes: number; rejected: number; tombstones: number },
    milliseconds: number,
  ): Promise<void> {
    const { rows, bytes, rejected, tombstones } = done;
    const { connected, table, workflow } = this.#task;
    const effects = rows + rejected + tombstones;
    const account = {
      ...noEffects(),
      inserts: rows + rejected,
      deletes: tombstones,
      effects,
      written: rows + tombstones,
      rejected,
      bytes,
    };
    await this.#sink.record(
      sealRecord({
        id,
        source: connected.request.id,
        kind: 'repair',
        lease: last.lease,
        seq: this.#number,
        position_from: position,
        position_to: position,
        inner: timeText(this.#readAt),
        cluster: last.cluster,
        epoch: last.epoch,
        committed_first: null,
        committed_last: null,
        changes: effects,
        assets: { [table.asset_id]: account },
        truncated: {},
        failed: {},
        rules: 0,
        durations: { fill: 0, resolve: 0, write: Math.round(milliseconds) },
        workflow_id: workflow.id,
        run_id: workflow.runId,
        attempt: workflow.attempt,
        previous_hash: headAt(last),
      }),
    );
  }
}

function rulesOf({ rules, targets, joined }: TableSchema): string {
  return JSON.stringify([rules, targets, joined]);
}

/** Those of the keys that the source has a row for, in the reading transaction. */
async function presentKeys(
  { client, present }: Reading,
  table: TableSchema,
  keys: Key[],
  lookUp: LookUp,
): Promise<Set<string>> {
  // A key that is no value of its type ends a statement, and must not end the transaction.
  const query = async (sql: string) => {
    await client.query('SAVEPOINT look');
    try {
      return await client.query(sql);
    } catch (error) {
      await client.query('ROLLBACK TO look');
      throw error;
    }
  };
  const side = sourceSide({ query } as unknown as pg.ClientBase, { ...table, columns: present.columns }, lookUp);
  return new Set((await side.lookup(keys)).keys());
}

function conditionOf(present: TableSchema, keys: Key[]): string | undefined {
  if (keys.length === 0) return undefined;
  const columns = keyColumns(present);
  const names = columns.map((column) => quoteSourceName(column.name)).join(', ');
  const tuples = keys.map(
    (key) => `(${columns.map((column, index) => sourceLiteral(column, key[index]!)).join(', ')})`,
  );
  return `(${names}) IN (VALUES ${tuples.join(', ')})`;
}
