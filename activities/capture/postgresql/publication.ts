/** The publication of a source: what it sends, what it leaves out, and how tables come into it and leave it. */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { type TableSchema, tableName } from '../../../model/table.ts';
import type { TableDetails } from './catalog.ts';
import { quoteName, quoteTable, sourceError, sqlState, wasAltered } from './connection.ts';

/** Seconds that others are waited for who hold a table. */
const longestWait = 10;

export interface Publication {
  owned: boolean;
  all_tables: boolean;
  via_root: boolean;
  insert: boolean;
  update: boolean;
  delete: boolean;
  truncate: boolean;
  /** What is sent, by `schema.table`; partitions stand for their table. Both are absent before PostgreSQL 15. */
  tables: Map<string, { columns?: string[] | null; filter?: string | null }>;
  /** By oid, the relations that it names itself, with what tells their places in it from earlier ones. */
  places: Map<number, string>;
  /** Another one whenever somebody makes it anew, or has it send other operations: the log tells nobody of what was not sent. */
  version: string;
}

/** The publication as it is now, by one statement; undefined when it is not there. */
export async function readPublication(client: pg.ClientBase, name: string): Promise<Publication | undefined> {
  // As JSON, because column lists and row filters came with PostgreSQL 15.
  const { rows } = await client.query<Omit<Publication, 'tables' | 'places'> & { tables: Shown[]; places: Place[] }>(
    `SELECT pg_catalog.pg_has_role(pubowner, 'USAGE') AS owned, puballtables AS all_tables,
       pubviaroot AS via_root, pubinsert AS insert, pubupdate AS update, pubdelete AS delete, pubtruncate AS truncate, oid::text || '.' || xmin::text AS version,
       (SELECT coalesce(pg_catalog.json_agg(pg_catalog.to_jsonb(t) - 'pubname'), '[]')
         FROM pg_catalog.pg_publication_tables t WHERE t.pubname = p.pubname) AS tables,
       (SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(m.prrelid::int8, m.oid::text)), '[]')
         FROM pg_catalog.pg_publication_rel m WHERE m.prpubid = p.oid) AS places
     FROM pg_catalog.pg_publication p WHERE pubname = $1`,
    [name],
  );
  const row = rows[0];
  if (!row) return undefined;
  const shown = row.tables.map(
    ({ schemaname, tablename, attnames: columns, rowfilter: filter }) =>
      [`${schemaname}.${tablename}`, { columns, filter }] as const,
  );
  return { ...row, tables: new Map(shown), places: new Map(row.places) };
}

/** What tells that the log has sent a table's changes all the time: as long as it is the same. */
export function placeIn({ places, version }: Publication, oid: number): string {
  return `${version}/${places.get(oid) ?? ''}`;
}

interface Shown {
  schemaname: string;
  tablename: string;
  attnames?: string[] | null;
  rowfilter?: string | null;
}

type Place = [oid: number, place: string];

/** True when changes of the table are sent; of a partitioned one, which is not shown, also those of partitions to come. */
export function isPublished(
  { all_tables, tables, places }: Publication,
  { schema, table, oid }: { schema: string; table: string; oid: number },
  partitioned: boolean,
): boolean {
  return partitioned ? all_tables || places.has(oid) : tables.has(`${schema}.${table}`);
}

type Published = Pick<TableSchema, 'schema' | 'table' | 'oid' | 'partitions'>;

/** Those of the tables that the publication lacks. */
export function missingFrom<T extends Published>(publication: Publication, tables: T[]): T[] {
  if (publication.all_tables) return [];
  return tables.filter((table) => !isPublished(publication, table, table.partitions !== undefined));
}

/**
 * What the publication leaves out of a table that it is to send whole, or undefined. Nobody would notice that in the
 * stream.
 */
export function leftOutOf(
  publication: Publication | undefined,
  name: string,
  table: Pick<TableDetails, 'schema' | 'table' | 'oid' | 'columns' | 'leaves'>,
): string | undefined {
  if (!publication || !(publication.insert && publication.update && publication.delete && publication.truncate))
    return `the publication ${name} is gone, or leaves out operations`;
  const { columns, leaves } = table;
  if (!isPublished(publication, table, leaves !== undefined)) return `it was taken out of the publication ${name}`;
  if (leaves && publication.via_root)
    return `the publication ${name} sends its changes without saying of which partition`;
  for (const part of leaves ?? [table]) {
    const sent = publication.tables.get(`${part.schema}.${part.table}`);
    const missing = columns.find((column) => sent?.columns && !sent.columns.includes(column.name));
    if (sent?.filter) return `the publication ${name} sends only some of its rows`;
    if (missing) return `the publication ${name} does not send column ${missing.name}`;
  }
  return undefined;
}

/**
 * Makes the publication when it is not there, and adds the tables that it lacks. Errors: `table_unusable` for one that the
 * role does not own; `source_unreachable` where tables change meanwhile.
 */
export async function publish(client: pg.Client, name: string, tables: Published[], source: string): Promise<void> {
  const publication = await readPublication(client, name);
  const missing = publication ? missingFrom(publication, tables) : tables;
  if (publication && missing.length === 0) return;
  const list = missing.map(quoteTable).join(', ');
  try {
    await withoutLongWait(
      client,
      publication
        ? `ALTER PUBLICATION ${quoteName(name)} ADD TABLE ${list}`
        : `CREATE PUBLICATION ${quoteName(name)} FOR TABLE ${list} WITH (publish = 'insert, update, delete, truncate', publish_via_partition_root = false)`,
    );
  } catch (error) {
    const held = await heldBySomebody(client, error, missing, source);
    throw held ?? (publication && (await notOwned(client, error, missing, source))) ?? addedMeanwhile(error) ?? error;
  }
}

/**
 * Whoever publishes a table waits for who builds an index on it, or vacuums it by hand: for hours, perhaps, and all tables with it.
 */
async function withoutLongWait(client: pg.Client, statement: string): Promise<void> {
  await client.query(`SET lock_timeout = '${longestWait}s'`);
  try {
    await client.query(statement);
  } finally {
    await client.query('SET lock_timeout = 0').catch(() => {});
  }
}

/** The first of the tables that somebody holds for long: it stops alone. */
async function heldBySomebody(
  client: pg.Client,
  error: unknown,
  tables: Pick<Published, 'schema' | 'table' | 'oid'>[],
  source: string,
): Promise<SluiceError | undefined> {
  if (sqlState(error) !== '55P03') return undefined;
  const { rows } = await client.query<{ oid: number; pid: number }>(
    `SELECT relation AS oid, pid FROM pg_catalog.pg_locks
     WHERE relation = ANY($1::pg_catalog.oid[]) AND granted AND pid <> pg_catalog.pg_backend_pid()
       AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
       AND mode NOT IN ('AccessShareLock', 'RowShareLock', 'RowExclusiveLock')`,
    [tables.map(({ oid }) => oid)],
  );
  const table = tables.find(({ oid }) => oid === rows[0]?.oid);
  if (!table) return undefined;
  const reason = `the publication could not be altered for the table ${tableName(table)} within ${longestWait} s: session ${rows[0]!.pid} holds it`;
  const remedy = `When that has ended (SELECT query FROM pg_stat_activity WHERE pid = ${rows[0]!.pid}): sluice sources resync ${source} ${tableName(table)}`;
  return new SluiceError('table_unusable', reason, remedy, { source, table: tableName(table) }, error);
}

/** Tables that were dropped, made again or added since they were looked at: they are looked at again. */
function addedMeanwhile(error: unknown): SluiceError | undefined {
  if (!wasAltered(error) && sqlState(error) !== '42710') return undefined;
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
  if (sqlState(error) !== '42501') return undefined;
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
    const statement = `ALTER PUBLICATION ${quoteName(publication)} DROP TABLE ${quoteTable(table)}`;
    await withoutLongWait(client, statement).catch((error) => {
      // Dropped, or taken out, by somebody else meanwhile.
      if (wasAltered(error)) return;
      if (sqlState(error) !== '55P03') throw error;
      const reason = `somebody held the table ${tableName(table)} for more than ${longestWait} s`;
      throw new SluiceError(
        'table_unusable',
        reason,
        `When it is free: ${statement};`,
        { table: tableName(table) },
        error,
      );
    });
  }
}
