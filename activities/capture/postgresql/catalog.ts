/** What the source's catalog says about its tables: read by preflight, chunks, the stream and verify. */
import type pg from 'pg';
import { tableAssetId } from '../../../model/asset.ts';
import { isGlob, isMatched, isNamed } from '../../../model/glob.ts';
import { type Column, isMultiset, type LeftOut, type TableSchema, tableName } from '../../../model/table.ts';
import { faultOf, initialOf, type Leaf, leavesSql, partitionOf } from './partitions.ts';
import { mapColumn, type TypeFacts } from './type_mapping.ts';

/** A relation of the source, of whatever kind; system schemas are never among them. */
export interface Relation {
  oid: number;
  schema: string;
  table: string;
  /** pg_class.relkind: `r` table · `p` partitioned · `v` view · `m` materialized view · `f` foreign table. */
  kind: string;
  /** pg_class.relpersistence: `p` permanent · `u` unlogged · `t` temporary. */
  persistence: string;
  /** The partitioned table that it is a partition of. */
  parent?: number | null;
}

/** A table with what preflight wants to know beside its schema. */
export interface TableDetails extends TableSchema {
  kind: string;
  persistence: string;
  /** `nothing`, or an index identity whose index is gone, has no key at all. */
  replicaIdentity: 'default' | 'index' | 'full' | 'nothing';
  /** The key's constraint is checked late: rows may share a key inside a transaction. */
  keyDeferrable: boolean;
  /** Key columns that the stream does not carry, because they are generated. */
  unsentKeyColumns: string[];
  /** All names, those of left out columns too. */
  columnNames: string[];
  leftOut: LeftOut[];
  lastAttnum: number;
  /** By attnum, for columns that were added with a default: what rows from before show, as the source's text; null = not all the same. */
  initial: Map<number, string | null>;
  /** Of a partitioned table: the partitions that hold its rows. */
  leaves?: Leaf[];
}

export interface ReadOptions {
  /** Names, `schema.name` or globs (`*`, `?`); none = every table of `public` with a usable key. */
  tables?: string[];
  /** Columns to leave out, by table name as people write it (`accounts`, `sales.orders`). Key columns stay. */
  excludeColumns?: Record<string, string[]>;
  /** Of those, columns that are read all the same, for rules; by `schema.table`. */
  readable?: Record<string, string[]>;
  /** Asset ids that stand in for the usual ones, by table name as people write it. */
  assetIds?: Record<string, string>;
}

/**
 * Schemas of all tables that `options.tables` means and that can be copied (ordinary, permanent, with a usable key),
 * ordered by name. Others, and names that mean no table, are left out: preflight says why.
 */
export async function readTables(
  client: pg.ClientBase,
  source: string,
  options: ReadOptions = {},
): Promise<TableSchema[]> {
  const { found } = matchPatterns(await listRelations(client), options.tables ?? []);
  const details = await readDetails(
    client,
    source,
    found.map((relation) => relation.oid),
    options,
  );
  return details.filter(isCapturable).map(schemaOf);
}

/** The table with this OID, usable or not, or undefined when it is gone. */
export async function readTableByOid(
  client: pg.ClientBase,
  source: string,
  oid: number,
  options: ReadOptions = {},
): Promise<TableSchema | undefined> {
  const [table] = await readDetails(client, source, [oid], options);
  return table && schemaOf(table);
}

/** The table of exactly this name, usable or not, or undefined when there is none. */
export async function readTableByName(
  client: pg.ClientBase,
  source: string,
  name: { schema: string; table: string },
  options: ReadOptions = {},
): Promise<TableSchema | undefined> {
  const { rows } = await client.query<{ oid: number }>(
    `SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`,
    [name.schema, name.table],
  );
  return rows[0] && readTableByOid(client, source, rows[0].oid, options);
}

/** Names and globs as relations of the source; `unmatched` are those that mean none. */
export async function expandPatterns(
  client: pg.ClientBase,
  patterns: string[],
): Promise<{ found: Relation[]; unmatched: string[] }> {
  return matchPatterns(await listRelations(client), patterns);
}

/** Everything that rows can be selected from, outside of system schemas and of temporary ones of other sessions. */
export async function listRelations(client: pg.ClientBase): Promise<Relation[]> {
  const { rows } = await client.query<Relation>(
    `SELECT c.oid, n.nspname AS schema, c.relname AS "table", c.relkind AS kind, c.relpersistence AS persistence,
       (SELECT h.inhparent FROM pg_catalog.pg_inherits h WHERE h.inhrelid = c.oid AND c.relispartition) AS parent
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
     ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C"`,
  );
  return rows;
}

/**
 * A glob takes ordinary tables only, a plain name whatever bears it (so that preflight can say what is wrong with it). A
 * partition comes with the table that it is part of: a glob leaves it out where that one is found, or among `beside`, the
 * names of tables that are captured already. No patterns = every ordinary table of `public`.
 */
export function matchPatterns(
  relations: Relation[],
  patterns: string[],
  beside: string[] = [],
): { found: Relation[]; unmatched: string[] } {
  const found = new Set<Relation>();
  const byName = new Set<Relation>();
  const unmatched: string[] = [];
  for (const pattern of patterns.length > 0 ? patterns : ['public.*']) {
    const named = relations.filter((relation) => isNamed(pattern, relation));
    const matches =
      named.length > 0 || !isGlob(pattern)
        ? named
        : relations.filter((relation) => isOrdinary(relation) && isMatched(pattern, relation));
    for (const relation of matches) found.add(relation);
    if (matches === named) for (const relation of named) byName.add(relation);
    if (matches.length === 0 && patterns.length > 0) unmatched.push(pattern);
  }
  const captured = new Set([
    ...found,
    ...relations.filter((relation) => beside.some((name) => isNamed(name, relation))),
  ]);
  const wholeOf = wholesAmong(relations, captured);
  const isWanted = (relation: Relation) => found.has(relation) && (byName.has(relation) || !wholeOf(relation));
  return { found: relations.filter(isWanted), unmatched };
}

/** Answers of a relation which one among `captured` it is a partition of, at whatever depth. */
export function wholesAmong(
  relations: Relation[],
  captured: Set<Relation>,
): (relation: Relation) => Relation | undefined {
  const byOid = new Map(relations.map((relation) => [relation.oid, relation]));
  return (relation) => {
    let above: Relation | undefined = relation;
    while (above?.parent) {
      above = byOid.get(above.parent);
      if (above && captured.has(above)) return above;
    }
    return undefined;
  };
}

/** A table whose changes are in the log, partitioned or not. */
export function isOrdinary(relation: Pick<Relation, 'kind' | 'persistence'>): boolean {
  return (relation.kind === 'r' || relation.kind === 'p') && relation.persistence === 'p';
}

/** True when changes of the table say which of its rows they mean, at any moment: by a key, or by all their values. */
export function isCapturable(table: TableDetails): boolean {
  return (
    isOrdinary(table) &&
    table.replicaIdentity !== 'nothing' &&
    !table.keyDeferrable &&
    table.unsentKeyColumns.length === 0 &&
    (!isMultiset(table) || (table.replicaIdentity === 'full' && table.columns.length > 0)) &&
    leafFault(table) === undefined
  );
}

/** Why a table's partitions keep it from being captured. */
export function leafFault({ leaves, columns }: Pick<TableDetails, 'leaves' | 'columns'>): ReturnType<typeof faultOf> {
  return faultOf(
    leaves,
    columns.flatMap((column) => (column.key ? [column.name] : [])),
  );
}

/** Only what TableSchema declares: this is what travels and is stored. */
export function schemaOf(details: TableDetails): TableSchema {
  const { asset_id, schema, table, oid, relfilenode, identity, columns, leftOut, lastAttnum, leaves } = details;
  const keyOrder = details.keyOrder && { keyOrder: details.keyOrder };
  const keyConstraint = details.keyConstraint && { keyConstraint: details.keyConstraint };
  const partitions = leaves && { partitions: leaves.map(partitionOf) };
  return {
    asset_id,
    schema,
    table,
    oid,
    relfilenode,
    identity,
    columns,
    leftOut,
    ...keyOrder,
    ...keyConstraint,
    lastAttnum,
    ...partitions,
  };
}

/** What the catalog says to the name of a captured table. */
export interface Seen {
  /** What bears the name now. */
  named: TableDetails | undefined;
  /** What the table of before is called now, as people write it; undefined when it is gone, or still bears its name. */
  movedTo: string | undefined;
}

/** Looks at tables by their names, and at those of before by their OIDs; answers what was seen of each. */
export async function seeTables(
  client: pg.ClientBase,
  source: string,
  tables: { schema: string; table: string; oid?: number }[],
  options: ReadOptions = {},
): Promise<(table: { schema: string; table: string; oid?: number }) => Seen> {
  const { rows } = await client.query<Pick<Relation, 'oid' | 'schema' | 'table'>>(
    `SELECT c.oid, n.nspname AS schema, c.relname AS "table"
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY($3::pg_catalog.oid[]) OR (n.nspname, c.relname) IN
       (SELECT * FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.name[]), pg_catalog.unnest($2::pg_catalog.name[])))`,
    [
      tables.map((table) => table.schema),
      tables.map((table) => table.table),
      tables.flatMap((table) => table.oid ?? []),
    ],
  );
  const oids = rows.map((row) => row.oid);
  const details = await readDetails(client, source, oids, options);
  const byName = new Map(details.map((table) => [`${table.schema}.${table.table}`, table]));
  const byOid = new Map(details.map((table) => [table.oid, tableName(table)]));
  return (table) => {
    const named = byName.get(`${table.schema}.${table.table}`);
    const moved = table.oid !== undefined && named?.oid !== table.oid;
    return { named, movedTo: moved ? byOid.get(table.oid!) : undefined };
  };
}

interface ColumnRow extends Relation {
  relfilenode: number | null;
  identity: 'd' | 'i' | 'f' | 'n';
  key: string | null;
  key_count: number | null;
  immediate: boolean | null;
  key_constraint: number | null;
  attnum: number | null;
  name: string;
  type_oid: number;
  typmod: number;
  type: string;
  dimensions: number;
  generated: string;
  changed_by: string;
  not_null: boolean;
  last_attnum: number;
  initial: string | null;
  /** In the first row of a partitioned table; null when it has none. */
  leaves: Leaf[] | null;
}

/**
 * One statement, so that columns, key and name are of one moment, and none of the functions that look past it. The key is the replica identity's index; under FULL
 * the primary key. A NOT NULL that is not validated (PostgreSQL 18) promises nothing about old rows.
 */
const columnsSql = `WITH RECURSIVE ${leavesSql}
SELECT c.oid, n.nspname AS schema, c.relname AS "table", c.relkind AS kind, c.relpersistence AS persistence,
  NULLIF(c.relfilenode, 0) AS relfilenode, c.relreplident AS identity,
  i.indkey::pg_catalog.text AS key, i.indnkeyatts AS key_count, i.indimmediate AS immediate,
  (SELECT k.oid FROM pg_catalog.pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p' AND c.relreplident = 'f') AS key_constraint,
  a.attnum, a.attname AS name, a.atttypid AS type_oid, a.atttypmod AS typmod,
  pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, a.attndims AS dimensions, a.attgenerated AS generated,
  a.xmin::pg_catalog.text AS changed_by, c.relnatts AS last_attnum,
  CASE WHEN a.atthasmissing THEN (a.attmissingval::pg_catalog.text::pg_catalog.text[])[1] END AS initial,
  a.attnotnull AND NOT EXISTS (
    SELECT FROM pg_catalog.pg_constraint k
    WHERE k.conrelid = c.oid AND k.contype = 'n' AND k.conkey = ARRAY[a.attnum] AND NOT k.convalidated
  ) AS not_null,
  CASE pg_catalog.row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum) WHEN 1 THEN (SELECT l.leaves FROM leaves l WHERE l.root = c.oid) END AS leaves
FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisvalid
  AND CASE c.relreplident WHEN 'n' THEN false WHEN 'i' THEN i.indisreplident ELSE i.indisprimary END
LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.oid = ANY($1::pg_catalog.oid[]) AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
ORDER BY n.nspname COLLATE "C", c.relname COLLATE "C", a.attnum`;

/** Schemas and details of these tables, ordered by name; OIDs that are gone are left out. */
export async function readDetails(
  client: pg.ClientBase,
  source: string,
  oids: number[],
  options: ReadOptions = {},
): Promise<TableDetails[]> {
  if (oids.length === 0) return [];
  const { rows } = await client.query<ColumnRow>(columnsSql, [oids]);
  const types = await readTypes(client, [...new Set(rows.map((row) => row.type_oid).filter(Boolean))]);
  const byTable = new Map<number, ColumnRow[]>();
  for (const row of rows) byTable.get(row.oid)?.push(row) ?? byTable.set(row.oid, [row]);
  return [...byTable.values()].map((table) => describeTable(source, table, types, options));
}

function describeTable(source: string, rows: ColumnRow[], types: Types, options: ReadOptions): TableDetails {
  const first = rows[0]!;
  const { schema, table } = first;
  const all = rows.filter((row) => row.attnum !== null);
  const generated = new Set(all.flatMap((row) => (row.generated === '' ? [] : [row.attnum])));
  const indexed = (first.key ?? '')
    .split(' ')
    .filter(Boolean)
    .map(Number)
    .slice(0, first.key_count ?? 0);
  // Under FULL a key that cannot be used is none: the whole old row is sent.
  const unusable = first.immediate === false || indexed.some((attnum) => generated.has(attnum));
  const index = first.identity === 'f' && unusable ? [] : indexed;
  const keys = new Set(index);
  const excluded = new Set(byTableName(options.excludeColumns, schema, table));
  const readable = new Set(options.readable?.[`${schema}.${table}`]?.filter((name) => excluded.has(name)));
  const isKey = (row: ColumnRow) => keys.has(row.attnum!);
  const sent = all.filter(
    (row) => row.generated === '' && (isKey(row) || !excluded.has(row.name) || readable.has(row.name)),
  );
  const leftOut = all.filter((row) => !sent.includes(row));
  const identity = ({ d: 'default', i: 'index', f: 'full', n: 'nothing' } as const)[first.identity];
  return {
    asset_id: byTableName(options.assetIds, schema, table) ?? tableAssetId(source, schema, table),
    schema,
    table,
    oid: first.oid,
    relfilenode: first.relfilenode ?? 0,
    identity: identity === 'nothing' ? 'default' : identity,
    columns: sent.map((row) => ({
      ...describeColumn(row, isKey(row), types),
      ...(!isKey(row) && readable.has(row.name) && { hidden: true as const }),
    })),
    kind: first.kind,
    persistence: first.persistence,
    replicaIdentity: identity,
    keyDeferrable: index.length > 0 && first.immediate === false,
    unsentKeyColumns: all.filter((row) => isKey(row) && row.generated !== '').map((row) => row.name),
    columnNames: all.map((row) => row.name),
    leftOut: leftOut.map(({ attnum, name, generated }) => {
      return { attnum: attnum!, name, why: generated === '' ? 'excluded' : 'generated' };
    }),
    ...(index.some((attnum, place) => attnum < (index[place - 1] ?? 0)) && { keyOrder: index }),
    ...(index.length > 0 && first.key_constraint !== null && { keyConstraint: first.key_constraint }),
    lastAttnum: first.last_attnum,
    ...describeInitial(first, sent),
  };
}

/** What rows from before show in columns that were added; and the leaves, which say it for a partitioned table. */
function describeInitial(first: ColumnRow, columns: ColumnRow[]): Pick<TableDetails, 'initial' | 'leaves'> {
  const leaves = first.kind === 'p' ? (first.leaves ?? []) : undefined;
  const initial = new Map<number, string | null>();
  for (const { attnum, name, initial: own } of columns) {
    const value = leaves ? initialOf(leaves, name) : (own ?? undefined);
    if (value !== undefined) initial.set(attnum!, value);
  }
  return { initial, ...(leaves && { leaves }) };
}

function describeColumn(row: ColumnRow, key: boolean, types: Types): Column {
  const resolved = resolveType(types, row);
  // ClickHouse takes `a.b` and `a.c` for parts of one Nested, and wants arrays of one length in both.
  const asArray = row.not_null && !row.name.includes('.');
  return {
    attnum: row.attnum!,
    name: row.name,
    type: resolved.text,
    typeOid: row.type_oid,
    typmod: row.typmod,
    notNull: row.not_null,
    key,
    changedBy: row.changed_by,
    ...(resolved.labels && { labels: resolved.labels }),
    ...mapColumn(resolved.facts, { key, notNull: asArray }),
  };
}

/** The value for a table in a map that people wrote by table names: `orders` and `public.orders` are the same. */
export function byTableName<T>(values: Record<string, T> | undefined, schema: string, table: string): T | undefined {
  if (!values) return undefined;
  for (const name of schema === 'public' ? [table, `public.${table}`] : [`${schema}.${table}`]) {
    if (Object.hasOwn(values, name)) return values[name];
  }
  return undefined;
}

interface TypeRow {
  oid: number;
  typtype: string;
  base: number;
  base_typmod: number;
  base_text: string;
  dimensions: number;
  element: number;
  is_array: boolean;
  delimiter: string;
  labels: string[] | null;
  /** Types that its values are made of. */
  parts: number[];
}
type Types = ReadonlyMap<number, TypeRow>;

/** The types that the values of type `t` are made of. */
const typeParts = `CASE t.typtype
  WHEN 'd' THEN ARRAY[t.typbasetype]
  WHEN 'c' THEN ARRAY(SELECT a.atttypid FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
  WHEN 'r' THEN ARRAY(SELECT r.rngsubtype FROM pg_catalog.pg_range r WHERE r.rngtypid = t.oid)
  WHEN 'm' THEN ARRAY(SELECT r.rngtypid FROM pg_catalog.pg_range r WHERE r.rngmultitypid = t.oid)
  ELSE pg_catalog.array_remove(ARRAY[t.typelem], 0::pg_catalog.oid) END`;

/** These types with all that they rest on: bases of domains, elements of arrays, attributes, subtypes of ranges. */
async function readTypes(client: pg.ClientBase, oids: number[]): Promise<Types> {
  const { rows } = await client.query<TypeRow>(
    `WITH RECURSIVE used AS (
       SELECT pg_catalog.unnest($1::pg_catalog.oid[]) AS oid
       UNION
       SELECT part FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid
       CROSS JOIN LATERAL pg_catalog.unnest(${typeParts}) AS part
     )
     SELECT t.oid, t.typtype, t.typbasetype AS base, t.typtypmod AS base_typmod,
       pg_catalog.format_type(t.typbasetype, t.typtypmod) AS base_text, t.typndims AS dimensions, t.typelem AS element,
       EXISTS (SELECT FROM pg_catalog.pg_type e WHERE e.oid = t.typelem AND e.typarray = t.oid) AS is_array,
       t.typdelim AS delimiter,
       CASE t.typtype
         WHEN 'e' THEN (SELECT pg_catalog.array_agg(e.oid || '=' || e.enumlabel ORDER BY e.oid) FROM pg_catalog.pg_enum e WHERE e.enumtypid = t.oid)
         WHEN 'c' THEN (SELECT ARRAY[pg_catalog.string_agg(a.attnum || '=' || a.atttypid, ',' ORDER BY a.attnum)]
                        FROM pg_catalog.pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped)
       END AS labels, pg_catalog.to_json(${typeParts}::pg_catalog.int8[]) AS parts
     FROM used JOIN pg_catalog.pg_type t ON t.oid = used.oid`,
    [oids],
  );
  return new Map(rows.map((row) => [row.oid, row]));
}

interface ResolvedType {
  facts: TypeFacts;
  text: string;
  labels: string[] | undefined;
}

/** Follows domains to their base, and the element of an array likewise. */
function resolveType(
  types: Types,
  use: { type_oid: number; typmod: number; dimensions: number; type: string },
): ResolvedType {
  let { type_oid: oid, typmod, dimensions, type: text } = use;
  let type = types.get(oid);
  while (type?.typtype === 'd') {
    ({ base: oid, base_typmod: typmod, dimensions, base_text: text } = type);
    type = types.get(oid);
  }
  const facts: TypeFacts = { oid, typmod, typtype: type?.typtype ?? 'b', dimensions };
  const labels = labelsWithin(types, oid);
  if (type?.is_array) {
    const { facts: element } = resolveType(types, { type_oid: type.element, typmod, dimensions: 0, type: '' });
    // An array of a domain over arrays is an array in an array: nothing that ClickHouse's Array could hold.
    if (element.element) facts.dimensions = 2;
    facts.element = { ...element, delimiter: types.get(type.element)?.delimiter ?? ',' };
  }
  return { facts, text, labels: labels.length > 0 ? labels : undefined };
}

/** What texts of a type's values are put together from, at any depth, and anybody may rename without a change of a row. */
function labelsWithin(types: Types, oid: number): string[] {
  const type = types.get(oid);
  if (!type) return [];
  return [...(type.labels ?? []), ...type.parts.flatMap((part) => labelsWithin(types, part))];
}
