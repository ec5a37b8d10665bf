/** PostgreSQL as a source: the parts of this folder behind the interface of ../source.ts. */
import pg from 'pg';
import type { LogState } from '../../../model/log.ts';
import { behindPageHeader, formatLsn, parseLsn } from '../../../model/position.ts';
import { type Finding, schemaPolicy } from '../../../model/source.ts';
import { type TableSchema, tableName } from '../../../model/table.ts';
import { explainVersion, snapshotVersion } from '../../../model/version.ts';
import type { TableName, TableRef } from '../contract.ts';
import type { FoundTables } from '../new_tables.ts';
import type {
  Chunk,
  ChunkRead,
  ChunkTask,
  Connected,
  Look,
  NamedTable,
  Source,
  StreamTask,
  VersionPlace,
} from '../source.ts';
import type { ChangeStream } from '../stream.ts';
import { waitForOpenTransactions } from './barrier.ts';
import { type ReadOptions, readTables, seeTables } from './catalog.ts';
import { type ConnectOptions, withConnection } from './connection.ts';
import { ddlTriggerOf, dropDdlTrigger, hasDdlTrigger, makeDdlTrigger } from './ddl_trigger.ts';
import { durablePosition, flushPosition } from './durable.ts';
import { logState } from './log_state.ts';
import { look } from './look.ts';
import { MissingValues } from './missing_values.ts';
import { findTables } from './new_tables.ts';
import { readOptions } from './options.ts';
import { relationsOf, rootsOf } from './partitions.ts';
import { PostgresStream } from './postgres_stream.ts';
import { preflight } from './preflight.ts';
import { missingFrom, placeIn, publish, readPublication, unpublish } from './publication.ts';
import {
  checkPosition,
  clusterOf,
  dropReplication,
  expectUnread,
  freeSlot,
  isDecoding,
  keepThroughFailover,
  makeSlot,
} from './slot.ts';
import { copyChunkRows, planChunks } from './snapshot.ts';
import { type CompareOptions, compareTable } from './table_change.ts';
import { atOneMoment, beginSeeing } from './visibility.ts';

/** Bytes of TSV after which a batch is cut. */
const batchBytes = 8 * 1024 * 1024;

export class PostgresSource implements Source {
  samePlace(a: string, b: string): boolean {
    const place = (text: string) => {
      const { host, port, database } = new pg.Client({ connectionString: text });
      return `${host}:${port}/${database}`;
    };
    return place(a) === place(b);
  }

  preflight(connected: Connected, beside?: string[]): Promise<{ findings: Finding[]; tables: TableSchema[] }> {
    const { id, config } = connected.request;
    return withConnection(session(connected), (client) => preflight(client, id, config, beside));
  }

  readTables(connected: Connected, tables: TableRef[]): Promise<TableSchema[]> {
    const { id } = connected.request;
    const wanted = { ...reading(connected), tables: tables.map(({ schema, table }) => `${schema}.${table}`) };
    return withConnection(session(connected), (client) => atOneMoment(client, () => readTables(client, id, wanted)));
  }

  look(connected: Connected, tables: NamedTable[]): Promise<Look> {
    const { id } = connected.request;
    const how = {
      ...reading(connected, tables),
      ...comparisonOf(connected),
      publication: names(connected).publication,
    };
    return withConnection(session(connected), (client) => look(client, id, tables, how));
  }

  findTables(connected: Connected, known: TableName[], except: string[]): Promise<FoundTables> {
    const { id, config } = connected.request;
    return withConnection(session(connected), (client) => findTables(client, id, config, known, except));
  }

  identity(connected: Connected): Promise<string> {
    return clusterOf(session(connected));
  }

  publishedAs(connected: Connected, tables: TableSchema[]): Promise<Map<string, string>> {
    return withConnection(session(connected), async (client) => {
      const publication = await readPublication(client, names(connected).publication);
      if (!publication) return new Map();
      const missing = new Set(missingFrom(publication, tables));
      const sent = tables.filter((table) => !missing.has(table));
      return new Map(sent.map(({ asset_id, oid }) => [asset_id, placeIn(publication, oid)]));
    });
  }

  prepare(connected: Connected, tables: TableSchema[], resume: string | undefined, known: boolean): Promise<string> {
    const { slot, publication, failover, ddlTrigger } = names(connected);
    return withConnection(session(connected), async (client) => {
      if (resume === undefined && !known) await expectUnread(client, slot, connected.request.id);
      // The publication first: a slot made before it would bring rows in which it does not exist yet.
      await publish(client, publication, tables, connected.request.id);
      if (ddlTrigger) await makeDdlTrigger(client, connected.request.id);
      // What this role may not drop, nobody listens to.
      else await dropDdlTrigger(client, connected.request.id).catch(() => {});
      if (resume === undefined)
        return makeSlot(client, slot, known || slot === `sluice_${connected.request.id}`, failover);
      await checkPosition(client, slot, connected.request.id, resume);
      // Where nothing is said, the slot stays as people may have made it.
      if (connected.request.config.options.failover !== undefined)
        await keepThroughFailover(session(connected), client, slot, failover);
      return resume;
    });
  }

  startPosition(connected: Connected): Promise<string> {
    return withConnection(session(connected), flushPosition);
  }

  release(connected: Connected, tables: TableRef[]): Promise<void> {
    return withConnection(session(connected), (client) => unpublish(client, names(connected).publication, tables));
  }

  remove(connected: Connected): Promise<void> {
    return withConnection(session(connected), async (client) => {
      // First what costs the source at each statement; and the slot goes even where that cannot.
      const [trigger] = await Promise.allSettled([dropDdlTrigger(client, connected.request.id)]);
      await dropReplication(client, names(connected));
      if (trigger.status === 'rejected') throw trigger.reason;
    });
  }

  claim(connected: Connected): Promise<void> {
    return withConnection(session(connected), (client) => freeSlot(client, names(connected).slot));
  }

  checkLog(connected: Connected, position: string): Promise<void> {
    const { slot } = names(connected);
    return withConnection(session(connected), (client) => checkPosition(client, slot, connected.request.id, position));
  }

  logState(connected: Connected): Promise<LogState> {
    const { slot, logBudget } = names(connected);
    return withConnection(session(connected), (client) => logState(client, slot, logBudget));
  }

  async openStream(connected: Connected, task: StreamTask): Promise<ChangeStream> {
    const { id, config } = connected.request;
    const { slot, publication, ddlTrigger } = names(connected);
    const missing = new MissingValues(task, connected.connectionString, id);
    const tellsOfDdl = ddlTrigger && (await withConnection(session(connected), (client) => hasDdlTrigger(client, id)));
    return PostgresStream.open({
      connectionString: connected.connectionString,
      source: id,
      slot,
      publication,
      ddlPrefix: tellsOfDdl ? ddlTriggerOf(id) : undefined,
      position: task.position,
      epoch: task.epoch,
      tables: task.tables,
      floors: task.floors,
      resolve: (known, relation, xid) =>
        withConnection(session(connected), async (client) => {
          await beginSeeing(client, [xid]);
          const see = await seeTables(client, id, [known], reading(connected, [known]));
          return compareTable(known, see(known), { ...comparisonOf(connected), relation });
        }),
      rootsOf: (relation, xid) =>
        withConnection(session(connected), async (client) => {
          await beginSeeing(client, [xid]);
          return rootsOf(client, relation);
        }),
      maxAge: config.poll_interval * 1000,
      maxRows: task.maxRows,
      maxBytes: batchBytes,
      missing,
      isDecoding: () => withConnection(session(connected), (client) => isDecoding(client, slot)),
    });
  }

  planChunks(
    connected: Connected,
    table: TableSchema,
    signal: AbortSignal,
    progress: (text: string) => void,
  ): Promise<{ chunks: Chunk[]; estimatedRows: number }> {
    return withConnection(session(connected, 'snapshot'), async (client) => {
      await waitForOpenTransactions(client, signal, () =>
        progress(`${tableName(table)}: waiting for open transactions to end`),
      );
      const chunks = await planChunks(client, table, names(connected).publication, (count) =>
        progress(`${tableName(table)}: ${count} chunks planned`),
      );
      const { rows } = await client.query<{ rows: number }>(
        'SELECT CASE WHEN pg_catalog.min(reltuples) >= 0 THEN pg_catalog.sum(reltuples) ELSE -1 END::float8 AS rows FROM pg_catalog.pg_class WHERE oid = ANY($1)',
        [relationsOf(table)],
      );
      return { chunks, estimatedRows: rows[0]?.rows ?? -1 };
    });
  }

  copyChunk(connected: Connected, task: ChunkTask): Promise<ChunkRead> {
    return copyChunkRows(session(connected, 'snapshot'), names(connected).publication, task);
  }

  completePosition(connected: Connected): Promise<string> {
    return withConnection(session(connected, 'snapshot'), durablePosition);
  }

  passed(position: string, target: string): boolean {
    return position !== '' && behindPageHeader(parseLsn(position)) >= parseLsn(target);
  }

  placeOf(version: string): VersionPlace {
    const { epoch, commitLsn, changeLsn, fromSnapshot } = explainVersion(BigInt(version));
    return { epoch, position: formatLsn(commitLsn), change: formatLsn(changeLsn), fromSnapshot };
  }

  snapshotVersion(epoch: number, position: string): string {
    return String(snapshotVersion(epoch, parseLsn(position)));
  }
}

function session({ request, connectionString }: Connected, purpose = ''): ConnectOptions {
  return { connectionString, applicationName: `sluice ${request.id} ${purpose}`.trim() };
}

/** How the catalog is read for this source. `known`: tables whose hidden columns are read as such. */
function reading(connected: Connected, known: NamedTable[] = []): ReadOptions {
  const readable = { ...connected.readable, ...hiddenColumns(known) };
  return { excludeColumns: connected.request.config.exclude_columns, assetIds: names(connected).assetIds, readable };
}

/** Columns that come with rows and are stored nowhere, by `schema.table`. */
export function hiddenColumns(tables: NamedTable[]): Record<string, string[]> {
  const hidden = tables.map(({ schema, table, columns = [] }) => {
    return [`${schema}.${table}`, columns.filter((column) => column.hidden).map((column) => column.name)] as const;
  });
  return Object.fromEntries(hidden.filter(([, names]) => names.length > 0));
}

function comparisonOf({ request }: Connected): CompareOptions {
  return { source: request.id, ignoreNew: schemaPolicy(request.config) === 'ignore' };
}

function names({ request }: Connected): ReturnType<typeof readOptions> {
  return readOptions(request.id, request.config.options);
}
