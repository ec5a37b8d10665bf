/** What Sluice knows of a source table: enough to read it, to make its copy, and to notice that it has changed. */
import type { DeclaredRules, JoinedTypes } from './rules.ts';

/**
 * How a value's text from PostgreSQL becomes ClickHouse's TSV:
 * `plain` bytes as they are · `text` escaped · `date` and `timestamp` range-checked · `timestamptz` the same, without
 * its zone (always UTC) · `numeric` refuses NaN and infinities · `bytea` hex decoded · `array` one dimension, rewritten.
 */
export type Encoding = 'plain' | 'text' | 'date' | 'timestamp' | 'timestamptz' | 'numeric' | 'bytea' | 'array';

export interface Column {
  /** Position in pg_attribute: survives renames, tells a re-added name from the old one. */
  attnum: number;
  name: string;
  /** The type as PostgreSQL prints it, e.g. `numeric(12,2)`, `text[]`; domains are resolved to their base type. */
  type: string;
  /** Of the column as Relation messages show it (a domain's own oid, not its base's). */
  typeOid: number;
  typmod: number;
  notNull: boolean;
  /** Part of the copy's key. */
  key: boolean;
  encoding: Encoding;
  /** For arrays: the encoding of an element. */
  element?: Exclude<Encoding, 'array'>;
  /** ClickHouse type of the column in the copy, e.g. `Nullable(Decimal(12, 2))`. */
  clickhouse: string;
  /** Who last changed its definition: with a rewrite of the table, its values may be others without any change sent. */
  changedBy?: string;
  /** What values of an enum (by oid) or composite type are called: renaming changes all rows' texts, and sends nothing. */
  labels?: string[];
  /** Excluded from the copy, and read by its rules: it comes with rows, and is stored nowhere. */
  hidden?: true;
  /** Of a column that the copy got later: what rows from before have in it, as a TSV field (bytes as latin1); absent = NULL. */
  initial?: string;
}

/** A column of the copy that rules fill. */
export interface Target {
  name: string;
  /** Type of the column in the copy. */
  clickhouse: string;
  /** It takes the place of a column of the table. */
  replaces: boolean;
}

/** A column that is not copied, and why: by configuration, because the source computes it, or by policy. */
export interface LeftOut {
  attnum: number;
  name: string;
  why: 'excluded' | 'generated' | 'ignored';
}

/** A column as it was before it was altered or dropped. */
export type FormerColumn = Pick<Column, 'attnum' | 'name' | 'typeOid' | 'typmod'>;

/** A partition that holds rows of a partitioned table. */
export interface Partition {
  oid: number;
  relfilenode: number;
  /** How it came into its place, by transaction: it is another one when it was detached and attached again. */
  joined: string;
}

export interface TableSchema {
  asset_id: string;
  schema: string;
  table: string;
  oid: number;
  /** Changes with rewrites (VACUUM FULL, TRUNCATE, some ALTERs): tells a chunk that its rows moved. */
  relfilenode: number;
  /** Tells its publishing, since when the log sends its changes, from any earlier one; empty or absent = nothing tells. */
  published?: string;
  /** What UPDATE and DELETE carry of the old row. */
  identity: 'default' | 'index' | 'full';
  /** In attnum order; generated and excluded columns are left out. */
  columns: Column[];
  leftOut?: LeftOut[];
  /** The key's attnums in the order of its index, where that is not the order of the columns. */
  keyOrder?: number[];
  /** Under FULL, the primary key's constraint: while it is gone, rows may share a key, and the log does not say so. */
  keyConstraint?: number;
  /** Of a partitioned table, by oid: the partitions that its copy has rows of. `oid` is that of the table itself. */
  partitions?: Partition[];
  /** Highest attnum that was ever given when this was read: a column with a higher one is new. */
  lastAttnum?: number;
  /** Columns that this copy had, as they were. Rows from before may come again; their names are not used for others. */
  former?: FormerColumn[];
  /** Commit position of the change that altered the copy last; rows up to it may come again in the shape of before. */
  alteredAt?: string;
  /**
   * Of a copy that was made beside an old one: its table, which bears the asset's id once it has taken that one's place,
   * and the lowest version that its rows may have. One object for all schemas of a copy, so that all move at once.
   */
  copy?: { name: string; from: string };
  /** Rules and checks that its rows pass on their way into this copy. Absent = none. */
  rules?: DeclaredRules;
  /** What the rules fill. */
  targets?: Target[];
  /** The copies that its rules join with, as they were. */
  joined?: JoinedTypes;
}

/** What a copy has of a column, as ClickHouse declares it. */
export type CopyColumn = Pick<Column, 'name' | 'clickhouse' | 'key' | 'initial'> & { attnum?: number };

/** Columns of the copy: those of the table, some of them filled by rules instead, and behind them what only rules fill. */
export function copiedColumns(table: Pick<TableSchema, 'columns' | 'targets'>): CopyColumn[] {
  const { targets = [] } = table;
  const columns = table.columns.filter((column) => !column.hidden);
  if (targets.length === 0) return columns;
  const filled = new Map(targets.map((target) => [target.name, target]));
  const there = columns.map((column) => {
    const target = filled.get(column.name);
    return target ? { name: target.name, clickhouse: target.clickhouse, key: false, attnum: column.attnum } : column;
  });
  const names = new Set(columns.map((column) => column.name));
  const more = targets.filter((target) => !names.has(target.name));
  return [...there, ...more.map(({ name, clickhouse }) => ({ name, clickhouse, key: false }))];
}

/** The table with those columns alone whose values stand in its copy as they are in the source. */
export function withCopiedValues<Table extends Pick<TableSchema, 'columns' | 'targets'>>(table: Table): Table {
  const filled = new Set(table.targets?.map((target) => target.name));
  const columns = table.columns.filter((column) => !column.hidden && !filled.has(column.name));
  return columns.length === table.columns.length ? table : { ...table, columns };
}

/** The table in ClickHouse that rows go into. */
export function copyName(table: Pick<TableSchema, 'asset_id' | 'copy'>): string {
  return table.copy?.name ?? table.asset_id;
}

/** True while the copy is made anew, and readers still see the old one. */
export function isBeside(table: Pick<TableSchema, 'asset_id' | 'copy'>): boolean {
  return copyName(table) !== table.asset_id;
}

/** Name of a copy that is made beside the old one. No asset's id begins so. */
export function sideCopyName(assetId: string, generation: number): string {
  return `_next_${assetId}_${generation}`;
}

/**
 * The key's columns in the order of its index: whoever reads a range of keys needs that. A copy is made from one order
 * for as long as it lives.
 */
export function keyColumns(table: Pick<TableSchema, 'columns' | 'keyOrder'>): Column[] {
  const columns = table.columns.filter((column) => column.key);
  const { keyOrder } = table;
  return keyOrder ? columns.sort((a, b) => keyOrder.indexOf(a.attnum) - keyOrder.indexOf(b.attnum)) : columns;
}

/**
 * True for a table without a key, which has REPLICA IDENTITY FULL: its rows are told apart by nothing but their values, and
 * equal ones are counted.
 */
export function isMultiset(table: Pick<TableSchema, 'columns'>): boolean {
  return !table.columns.some((column) => column.key);
}

/** `schema.table`, without the schema when it is `public`: how people write and read a table's name. */
export function tableName(table: { schema: string; table: string }): string {
  return table.schema === 'public' ? table.table : `${table.schema}.${table.table}`;
}
