/** What preflight looks at: read once, in a few statements, and changed by none. */
import type pg from 'pg';
import type { CaptureConfig } from '../../../model/source.ts';
import {
  isCapturable,
  listRelations,
  matchPatterns,
  type Relation,
  readDetails,
  type TableDetails,
} from './catalog.ts';
import { type PostgresqlOptions, readOptions } from './options.ts';
import { type Publication, readPublication } from './publication.ts';

export interface ServerFacts {
  version: number;
  version_text: string;
  database: string;
  wal_level: string;
  standby: boolean;
  read_only: boolean;
  block_size: number;
  encoding: string;
  /** False for encodings that PostgreSQL cannot turn into UTF-8, and for SQL_ASCII, whose text is in none. */
  convertible: boolean;
  fsync: boolean;
  max_replication_slots: number;
  max_wal_senders: number;
  slots: number;
  walsenders: number;
  /** Milliseconds; 0 = never. */
  /** Megabytes; -1 = without limit. */
  max_slot_wal_keep_size: number;
  /** As set, or 0 where the server does not know it or it is off. */
  idle_replication_slot_timeout: string;
  role: string;
  superuser: boolean;
  may_replicate: boolean;
  may_create: boolean;
}

/** A row of pg_replication_slots; keys that a version does not know are absent. */
export interface SlotFacts {
  slot_type: string;
  plugin: string | null;
  database: string | null;
  active: boolean;
  temporary: boolean;
  wal_status: string | null;
  invalidation_reason?: string | null;
}

export interface TableAccess {
  oid: number;
  owner: string;
  owned: boolean;
  schema_usage: boolean;
  /** On the whole table: grants on columns do not let a reader lock it. */
  may_select: boolean;
  /** Columns of an extension's type, which an empty search_path leaves without operators to compare them. */
  incomparable: string[];
  row_security: boolean;
  children: boolean;
  /** A unique index that could be the replica identity. */
  candidate: string | null;
}

export interface ExaminedTable extends TableDetails {
  access: TableAccess;
}

export interface Facts {
  source: string;
  config: CaptureConfig;
  options: PostgresqlOptions;
  server: ServerFacts;
  slot: SlotFacts | undefined;
  publication: Publication | undefined;
  relations: Relation[];
  /** Names of tables that are captured already. */
  beside: string[];
  /** Names and globs that mean no table. */
  unmatched: string[];
  /** True when the request names no tables: then those without a usable key are left out, not refused. */
  implicit: boolean;
  tables: ExaminedTable[];
  /** Tables of `public` without a usable key, when no tables are named. */
  leftOut: ExaminedTable[];
}

/** Reads all facts. Errors: `configuration` for bad options, else as any query. */
export async function readFacts(
  client: pg.ClientBase,
  source: string,
  config: CaptureConfig,
  beside: string[],
): Promise<Facts> {
  const options = readOptions(source, config.options);
  const server = await readServer(client);
  const slot = await readSlot(client, options.slot);
  const publication = await readPublication(client, options.publication);
  const relations = await listRelations(client);
  const patterns = config.tables ?? [];
  const { found, unmatched } = matchPatterns(relations, patterns, beside);
  const oids = found.map((relation) => relation.oid);
  const details = await readDetails(client, source, oids, {
    excludeColumns: config.exclude_columns,
    assetIds: options.assetIds,
  });
  const access = await readAccess(client, oids);
  const examined = details.flatMap((table) => {
    const rights = access.get(table.oid);
    return rights ? [{ ...table, access: rights }] : [];
  });
  const implicit = patterns.length === 0;
  return {
    source,
    config,
    options,
    server,
    slot,
    publication,
    relations,
    beside,
    unmatched,
    implicit,
    tables: examined.filter((table) => !implicit || isCapturable(table)),
    leftOut: examined.filter((table) => implicit && !isCapturable(table)),
  };
}

const serverSql = `
SELECT pg_catalog.current_setting('server_version_num')::int AS version,
  pg_catalog.current_setting('server_version') AS version_text,
  pg_catalog.current_database() AS database,
  pg_catalog.current_setting('wal_level') AS wal_level,
  pg_catalog.pg_is_in_recovery() AS standby,
  pg_catalog.current_setting('default_transaction_read_only')::bool AS read_only,
  pg_catalog.current_setting('block_size')::int AS block_size,
  pg_catalog.current_setting('server_encoding') AS encoding,
  pg_catalog.current_setting('server_encoding') = 'UTF8' OR EXISTS (
    SELECT FROM pg_catalog.pg_conversion
    WHERE conforencoding = pg_catalog.pg_char_to_encoding(pg_catalog.current_setting('server_encoding'))
      AND contoencoding = pg_catalog.pg_char_to_encoding('UTF8') AND condefault
      AND pg_catalog.current_setting('server_encoding') <> 'SQL_ASCII'
  ) AS convertible,
  pg_catalog.current_setting('fsync')::bool AS fsync,
  pg_catalog.current_setting('max_replication_slots')::int AS max_replication_slots,
  pg_catalog.current_setting('max_wal_senders')::int AS max_wal_senders,
  (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_replication_slots) AS slots,
  (SELECT pg_catalog.count(*)::int FROM pg_catalog.pg_stat_replication) AS walsenders,
  (SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size') AS max_slot_wal_keep_size,
  COALESCE(pg_catalog.current_setting('idle_replication_slot_timeout', true), '0') AS idle_replication_slot_timeout,
  r.rolname AS role, r.rolsuper AS superuser,
  r.rolsuper OR r.rolreplication OR EXISTS (
    SELECT FROM pg_catalog.pg_roles m
    WHERE m.rolname = 'rds_replication' AND pg_catalog.pg_has_role(m.oid, 'MEMBER')
  ) AS may_replicate,
  pg_catalog.has_database_privilege(pg_catalog.current_database(), 'CREATE') AS may_create
FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER`;

async function readServer(client: pg.ClientBase): Promise<ServerFacts> {
  const { rows } = await client.query<ServerFacts>(serverSql);
  return rows[0]!;
}

async function readSlot(client: pg.ClientBase, name: string): Promise<SlotFacts | undefined> {
  const { rows } = await client.query<{ slot: SlotFacts }>(
    'SELECT pg_catalog.to_jsonb(s) AS slot FROM pg_catalog.pg_replication_slots s WHERE slot_name = $1',
    [name],
  );
  return rows[0]?.slot;
}

const accessSql = `
SELECT c.oid, pg_catalog.pg_get_userbyid(c.relowner) AS owner, pg_catalog.pg_has_role(c.relowner, 'USAGE') AS owned,
  pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE') AS schema_usage,
  pg_catalog.has_table_privilege(c.oid, 'SELECT') AS may_select,
  ARRAY(
    SELECT a.attname::text FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type t ON t.oid = a.atttypid
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND t.typtype = 'b' AND t.typelem = 0
      AND t.typnamespace <> 'pg_catalog'::pg_catalog.regnamespace AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_cast k
        WHERE k.castsource = t.oid AND k.casttarget = 'pg_catalog.text'::pg_catalog.regtype AND k.castmethod = 'b'
      )
  ) AS incomparable,
  pg_catalog.row_security_active(c.oid) AS row_security,
  c.relkind = 'r' AND EXISTS (SELECT FROM pg_catalog.pg_inherits h WHERE h.inhparent = c.oid) AS children,
  (
    SELECT x.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid
    WHERE i.indrelid = c.oid AND i.indisunique AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL
      AND i.indexprs IS NULL AND NOT EXISTS (
        SELECT FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = c.oid AND a.attnum = ANY(i.indkey) AND (NOT a.attnotnull OR a.attgenerated <> '')
      )
    ORDER BY x.relname LIMIT 1
  ) AS candidate
FROM pg_catalog.pg_class c WHERE c.oid = ANY($1::pg_catalog.oid[])`;

async function readAccess(client: pg.ClientBase, oids: number[]): Promise<Map<number, TableAccess>> {
  const { rows } = await client.query<TableAccess>(accessSql, [oids]);
  return new Map(rows.map((row) => [row.oid, row]));
}
