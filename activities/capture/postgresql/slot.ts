/** Publication and replication slot of a source: made in the order that loses nothing, looked at before they are trusted. */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { compareLsn } from '../../../model/position.ts';
import { type TableSchema, tableName } from '../../../model/table.ts';
import type { TableDetails } from './catalog.ts';
import { type ConnectOptions, quoteName, quoteTable, sourceError, wasAltered, withConnection } from './connection.ts';

export interface Names {
  slot: string;
  publication: string;
}

/** Which cluster answers: `system identifier/timeline`. Positions mean nothing in another one. Errors: as `connect`. */
export async function clusterOf(options: Omit<ConnectOptions, 'replication'>): Promise<string> {
  return withConnection({ ...options, replication: true }, async (client) => {
    const { rows } = await client.query<{ systemid: string; timeline: number }>('IDENTIFY_SYSTEM');
    return `${rows[0]!.systemid}/${rows[0]!.timeline}`;
  });
}

type Published = Pick<TableSchema, 'schema' | 'table' | 'oid' | 'partitions'>;

/** Makes the publication when it is not there, and adds the tables that it lacks. Errors: `table_unusable` for one that the role does not own. */
export async function publish(
  client: pg.Client,
  publication: string,
  tables: Published[],
  source: string,
): Promise<void> {
  const missing = await readMissing(client, publication, tables);
  if (missing?.length === 0) return;
  const list = (missing ?? tables).map(quoteTable).join(', ');
  try {
    await client.query(
      missing
        ? `ALTER PUBLICATION ${quoteName(publication)} ADD TABLE ${list}`
        : `CREATE PUBLICATION ${quoteName(publication)} FOR TABLE ${list} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)`,
    );
  } catch (error) {
    throw (missing && (await notOwned(client, error, missing, source))) ?? addedMeanwhile(error) ?? error;
  }
}

/** Tables that the publication lacks; undefined when it is not there. */
export async function readMissing<T extends Published>(
  client: pg.Client,
  publication: string,
  tables: T[],
): Promise<T[] | undefined> {
  const found = await client.query<{ puballtables: boolean }>(
    'SELECT puballtables FROM pg_catalog.pg_publication WHERE pubname = $1',
    [publication],
  );
  if (!found.rows[0]) return undefined;
  if (found.rows[0].puballtables) return [];
  const { rows } = await client.query<{ schema: string; table: string }>(
    'SELECT schemaname AS schema, tablename AS "table" FROM pg_catalog.pg_publication_tables WHERE pubname = $1',
    [publication],
  );
  const there = new Set(rows.map(quoteTable));
  const own = await readPlaces(client, publication);
  // Partitions that are there by themselves are not those to come.
  return tables.filter((table) => !(table.partitions ? own.has(table.oid) : there.has(quoteTable(table))));
}

/** Tables that were dropped, made again or added since they were looked at: they are looked at again. */
function addedMeanwhile(error: unknown): SluiceError | undefined {
  if (!wasAltered(error) && (error as { code?: unknown }).code !== '42710') return undefined;
  const reason = `a table changed while it was published: ${sourceError(error).message}`;
  return new SluiceError('source_unreachable', reason, 'It is tried again.', {}, error);
}

/** The first table that only its owner may add: it stops alone. */
async function notOwned(
  client: pg.Client,
  error: unknown,
  tables: Published[],
  source: string,
): Promise<SluiceError | undefined> {
  if ((error as { code?: unknown }).code !== '42501') return undefined;
  const { rows } = await client.query<{ oid: number; owner: string }>(
    `SELECT oid, pg_catalog.pg_get_userbyid(relowner) AS owner FROM pg_catalog.pg_class
     WHERE oid = ANY($1::pg_catalog.oid[]) AND NOT pg_catalog.pg_has_role(relowner, 'USAGE')`,
    [tables.map(({ oid }) => oid)],
  );
  const table = tables.find(({ oid }) => oid === rows[0]?.oid);
  if (!table) return undefined;
  const reason = `the table ${tableName(table)} cannot be published: it belongs to ${rows[0]!.owner} now`;
  const remedy = `Run GRANT ${quoteName(rows[0]!.owner)} to the role of the source, or have the owner add the table to its publication; then: sluice sources resync ${source} ${tableName(table)}`;
  return new SluiceError('table_unusable', reason, remedy, { source, table: tableName(table) }, error);
}

/** By oid, the relations that the publication names itself, with what tells their places in it from earlier ones. */
export async function readPlaces(client: pg.Client, publication: string): Promise<Map<number, string>> {
  const { rows } = await client.query<{ oid: number; place: string }>(
    `SELECT m.prrelid AS oid, m.oid::pg_catalog.text AS place FROM pg_catalog.pg_publication_rel m
     JOIN pg_catalog.pg_publication p ON p.oid = m.prpubid WHERE p.pubname = $1`,
    [publication],
  );
  return new Map(rows.map((row) => [row.oid, row.place]));
}

/**
 * Reads the publication; answers what it leaves out of a table that it is to send whole, or undefined. Nobody would notice
 * that in the stream.
 */
export async function readUnsent(
  client: pg.Client,
  publication: string,
): Promise<(table: Pick<TableDetails, 'schema' | 'table' | 'oid' | 'columns' | 'leaves'>) => string | undefined> {
  const { rows } = await client.query<{
    whole: boolean;
    via_root: boolean;
    name: string | null;
    columns: string[] | null;
    filter: string | null;
  }>(
    `SELECT p.puballtables AS whole, p.pubviaroot AS via_root, t.schemaname || '.' || t.tablename AS name, pg_catalog.to_jsonb(t)->'attnames' AS columns,
       pg_catalog.to_jsonb(t)->>'rowfilter' AS filter
     FROM pg_catalog.pg_publication p LEFT JOIN pg_catalog.pg_publication_tables t ON t.pubname = p.pubname
     WHERE p.pubname = $1 AND p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate`,
    [publication],
  );
  const published = new Map(rows.map((row) => [row.name, row]));
  const places = await readPlaces(client, publication);
  return ({ schema, table, oid, columns, leaves }) => {
    if (rows.length === 0) return `the publication ${publication} is gone, or leaves out operations`;
    // The view shows a partitioned table as its partitions.
    const isThere = leaves ? rows[0]!.whole || places.has(oid) : published.has(`${schema}.${table}`);
    if (!isThere) return `it was taken out of the publication ${publication}`;
    if (leaves && rows[0]!.via_root)
      return `the publication ${publication} sends its changes without saying of which partition`;
    for (const part of leaves ?? [{ schema, table }]) {
      const found = published.get(`${part.schema}.${part.table}`);
      const missing = columns.find((column) => found?.columns && !found.columns.includes(column.name));
      if (found?.filter) return `the publication ${publication} sends only some of its rows`;
      if (missing) return `the publication ${publication} does not send column ${missing.name}`;
    }
    return undefined;
  };
}

/** Takes tables out of the publication; those that are gone, or not in it, are no error. */
export async function unpublish(
  client: pg.Client,
  publication: string,
  tables: { schema: string; table: string }[],
): Promise<void> {
  const { rows } = await client.query<{ schema: string; table: string }>(
    `SELECT n.nspname AS schema, c.relname AS "table" FROM pg_catalog.pg_publication p
     JOIN pg_catalog.pg_publication_rel m ON m.prpubid = p.oid JOIN pg_catalog.pg_class c ON c.oid = m.prrelid
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1`,
    [publication],
  );
  const there = new Set(rows.map(quoteTable));
  for (const table of tables.filter((one) => there.has(quoteTable(one)))) {
    await client
      .query(`ALTER PUBLICATION ${quoteName(publication)} DROP TABLE ${quoteTable(table)}`)
      // Dropped, or taken out, by somebody else meanwhile.
      .catch((error) => (wasAltered(error) ? undefined : Promise.reject(error)));
  }
}

export interface Slot {
  confirmed: string;
  active_pid: number | null;
  /** Why the slot is not one that Sluice could have made, or null. */
  foreign: string | null;
  /** Why the server gave the slot up, or null. */
  invalid: string | null;
  /** The log that the slot needs may be removed at any moment. */
  unreserved: boolean;
  /** Bytes of log that the slot keeps. */
  retained: number;
  /** Bytes of log that may be written before the slot is given up; null = no limit. */
  room: number | null;
  /** Standbys keep the slot too. */
  failover: boolean;
}

/** The slot as the server has it, or undefined when there is none. */
export async function readSlot(client: pg.Client, slot: string): Promise<Slot | undefined> {
  const { rows } = await client.query<Record<string, string | number | boolean | null>>(
    `SELECT coalesce(confirmed_flush_lsn, '0/0')::text AS confirmed, active_pid, wal_status, slot_type, plugin, database, temporary,
       database IS NOT DISTINCT FROM pg_catalog.current_database() AS here, safe_wal_size::float8 AS room,
       pg_catalog.to_jsonb(s)->>'invalidation_reason' AS reason, pg_catalog.to_jsonb(s)->>'failover' AS failover,
       coalesce(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn), 0)::float8 AS retained
     FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1`,
    [slot],
  );
  const row = rows[0];
  if (!row) return undefined;
  const ours = row.slot_type === 'logical' && row.plugin === 'pgoutput' && row.here === true && row.temporary === false;
  const what = `${row.slot_type}, ${row.plugin ?? 'no plugin'}, database ${row.database ?? 'none'}`;
  return {
    confirmed: String(row.confirmed),
    active_pid: row.active_pid as number | null,
    foreign: ours ? null : `${what}${row.temporary ? ', temporary' : ''}`,
    invalid: row.wal_status === 'lost' ? String(row.reason ?? 'its log is gone') : null,
    unreserved: row.wal_status === 'unreserved',
    retained: Number(row.retained),
    room: row.room as number | null,
    failover: row.failover === 'true',
  };
}

/** Makes the slot; answers where its stream begins. The publication must be there already: made later, rows are missing. */
async function createSlot(client: pg.Client, slot: string, failover: boolean): Promise<string> {
  const { rows } = await client.query<{ lsn: string }>(
    `SELECT lsn::text FROM pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', false${failover ? ', false, true' : ''})`,
    [slot],
  );
  return rows[0]!.lsn;
}

/** Has standbys keep the slot too, when it was made without. Nobody may read it meanwhile. */
export async function keepThroughFailover(session: ConnectOptions, client: pg.Client, slot: string): Promise<void> {
  if ((await readSlot(client, slot))?.failover !== false) return;
  await freeSlot(client, slot);
  await withConnection({ ...session, replication: true }, async (sender) => {
    await sender.query(`ALTER_REPLICATION_SLOT ${quoteName(slot)} (FAILOVER true)`);
  });
}

/** Ends whoever reads the slot: a lease's predecessor that still lives must not read, or acknowledge, any more. */
export async function freeSlot(client: pg.Client, slot: string): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const found = await readSlot(client, slot);
    if (!found?.active_pid || found.foreign) return;
    await client.query('SELECT pg_catalog.pg_terminate_backend($1)', [found.active_pid]);
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new SluiceError('slot_in_use', `the slot ${slot} is still read by another session`, 'It is tried again.');
}

/** Refuses to go on where the server would skip changes in silence. */
export function checkSlot(slot: Slot | undefined, name: string, source: string, position: string): void {
  const remedy = `Make the copies anew: sluice sources resync ${source}`;
  const place = { source, position };
  if (!slot) throw new SluiceError('slot_lost', `the replication slot ${name} is gone`, remedy, place);
  if (slot.foreign) {
    const reason = `the replication slot ${name} is another's now (${slot.foreign})`;
    throw new SluiceError('slot_lost', reason, `Drop it: SELECT pg_drop_replication_slot('${name}'). ${remedy}`, place);
  }
  if (slot.invalid)
    throw new SluiceError('slot_lost', `the replication slot ${name} was invalidated: ${slot.invalid}`, remedy, place);
  if (compareLsn(slot.confirmed, position) > 0) {
    const reason = `the slot ${name} was confirmed up to ${slot.confirmed}, past the last recorded batch`;
    throw new SluiceError('slot_ahead', reason, remedy, place);
  }
}

/**
 * Makes the slot anew. One that is there begins before the publication that was just made, perhaps, and its reader may
 * be somebody else: it is replaced only when it is `ours`.
 */
export async function makeSlot(client: pg.Client, slot: string, ours: boolean, failover: boolean): Promise<string> {
  const found = await readSlot(client, slot);
  if (found) {
    if (!ours || found.foreign) {
      throw new SluiceError(
        'conflict',
        `the replication slot ${slot} is there already, and Sluice did not make it${found.foreign ? ` (${found.foreign})` : ''}`,
        `Name another one (options.slot), or drop it: SELECT pg_drop_replication_slot('${slot}')`,
      );
    }
    await freeSlot(client, slot);
    await client.query('SELECT pg_catalog.pg_drop_replication_slot($1)', [slot]);
  }
  return createSlot(client, slot, failover);
}

/** Drops slot and publication; what is not there is no error. */
export async function dropReplication(client: pg.Client, names: Names): Promise<void> {
  await freeSlot(client, names.slot);
  const slot = await readSlot(client, names.slot);
  // Somebody else may have made one of this name since.
  if (slot && !slot.foreign) await client.query('SELECT pg_catalog.pg_drop_replication_slot($1)', [names.slot]);
  await client.query(`DROP PUBLICATION IF EXISTS ${quoteName(names.publication)}`);
}

/** The position up to which everything is on disk. */
export async function flushPosition(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_catalog.pg_current_wal_flush_lsn()::text AS lsn');
  return rows[0]!.lsn;
}
