/** The two sides of a comparison: the same questions, asked of PostgreSQL and of ClickHouse. */
import type pg from 'pg';
import { type Column, isMultiset, keyColumns, type TableSchema, withCopiedValues } from '../../model/table.ts';
import {
  quoteName as quoteSourceName,
  quoteTable,
  sourceError,
  sourceTexts,
} from '../capture/postgresql/connection.ts';
import { rowsOf } from '../capture/postgresql/partitions.ts';
import { type ClickHouse, quoteName as quoteCopyName } from '../load/clickhouse.ts';
import type { LookUp } from '../transform/join.ts';
import { type Doubt, filterOf, type RowFilter } from './verify_filter.ts';
import {
  copyKeyText,
  copyLiteral,
  type Key,
  keyKind,
  readKeyText,
  sourceKeyText,
  sourceLiteral,
} from './verify_keys.ts';
import { copyRecord, sourceRecord } from './verify_values.ts';

/** The rows with keys after `after` and up to `upto`; absent = open. */
export interface Range {
  after?: Key;
  upto?: Key;
}

/** Part of a table: a range, or the rows whose key's hash falls into some of `of` buckets. */
export type Part = Range | { buckets: number[]; of: number };

/** Number of rows, and sum of 60 bits of each row's digest. */
export interface Checksum {
  rows: number;
  sum: string;
}

/** A row as one side shows it. */
export interface SeenRow {
  key: Key;
  /** MD5 of the row, hexadecimal. */
  digest: string;
  /** Changes when the row is written again, even with the same values: xmin, or the copy's version. */
  mark: string;
  /** Why it is not certain that the copy has the row. */
  doubt?: Doubt | undefined;
}

/** Rows that are alike. */
export interface SeenCount {
  rows: number;
  /** Changes when one of them is written again, even with the same values; '' where that is not known. */
  mark: string;
}

/** Rows by the `keyId` of their key. */
export type SeenRows = Map<string, SeenRow>;

type Answer = Record<string, string>;

/** What differs between the dialects. */
interface Dialect {
  run(sql: string): Promise<Answer[]>;
  from: string;
  keys: Column[];
  name(column: Column): string;
  keyText(column: Column): string;
  literal(column: Column, text: string): string | undefined;
  /** The MD5 of these columns of the row, as hexadecimal text. */
  digest(columns: Column[]): string;
  columns: Column[];
  /** 60 bits of it as a number that can be summed without overflow. */
  number: string;
  /** 28 bits of the MD5 of the key. */
  hash: string;
  mark: string;
  /** Of rows that are alike, an aggregate; see SeenCount. */
  marks: string;
  /** A value as people read it. */
  shown(column: Column): string;
  /** Types as text, since drivers read numbers each in their own way. */
  text(x: string): string;
  /** How a list of tuples stands behind IN. */
  list(tuples: string[]): string;
  /** True for the error of a literal that is no value of its type, e.g. no label of an enum. */
  isBadValue(error: unknown): boolean;
  /** Whether a comparison of tuples needs a condition on the first column beside it to use the index. */
  helpTuples: boolean;
  /** Rows that count, where not all do. */
  filter?: RowFilter;
}

/** Rows of a key are identified by this. */
export function keyId(key: Key): string {
  return key.join(',');
}

/** Keys of one look-up: enough to be quick, few enough for a statement's size. */
const lookupKeys = 500;
const lookupBytes = 60_000;
/** Buckets whose rows are read together, where each row is looked at. */
const bucketsAtOnce = 10;

export class Side {
  readonly #dialect: Dialect;

  constructor(dialect: Dialect) {
    this.#dialect = dialect;
  }

  async checksum(part: Part): Promise<Checksum> {
    const { number, text, filter } = this.#dialect;
    if (filter) return sumOf((await this.rows(part)).values());
    const [row] = await this.#select(`${text('count(*)')} AS _n, ${text(`sum(${number})`)} AS _s`, this.#where(part));
    return readChecksum(row);
  }

  /** One pass over the table: the checksum of every bucket that is not empty. */
  async bucketChecksums(of: number): Promise<Map<number, Checksum>> {
    const { number, text, hash, filter } = this.#dialect;
    if (filter) return this.#filteredChecksums(of);
    const bucket = `${hash} % ${of}`;
    const rows = await this.#select(
      `${text(bucket)} AS _b, ${text('count(*)')} AS _n, ${text(`sum(${number})`)} AS _s`,
      `true GROUP BY ${bucket}`,
    );
    return new Map(rows.map((row) => [Number(row._b), readChecksum(row)]));
  }

  /** Some buckets at once, so that not all rows are in memory: each look reads the whole table. */
  async #filteredChecksums(of: number): Promise<Map<number, Checksum>> {
    const sums = new Map<number, Checksum>();
    for (let first = 0; first < of; first += bucketsAtOnce) {
      const buckets = Array.from({ length: Math.min(bucketsAtOnce, of - first) }, (_, place) => first + place);
      const where = this.#where({ of, buckets });
      const bucket = `${this.#dialect.text(`${this.#dialect.hash} % ${of}`)} AS _b`;
      const rows = await this.#select(`${this.#keyTexts()}, ${this.#digestAndMark()}, ${bucket}`, where);
      for (const number of buckets) {
        const mine = rows.filter((row) => Number(row._b) === number);
        if (mine.length > 0) sums.set(number, sumOf((await this.#readRows(mine)).values()));
      }
    }
    return sums;
  }

  /** The rows of a part, by `keyId`. */
  async rows(part: Part): Promise<SeenRows> {
    return this.#readRows(await this.#select(`${this.#keyTexts()}, ${this.#digestAndMark()}`, this.#where(part)));
  }

  /** The rows with these keys, by `keyId`; keys without a row are left out. */
  async lookup(keys: Key[]): Promise<SeenRows> {
    const found: SeenRows = new Map();
    for (const some of cut(keys)) {
      const rows = await this.#readRows(await this.#find(some, this.#digestAndMark()));
      for (const key of some) {
        const row = rows.get(keyId(key));
        if (row) found.set(keyId(key), row);
      }
    }
    return found;
  }

  /** Per key that has a row: the digest of each column by itself, in the table's order. */
  async columnDigests(keys: Key[]): Promise<Map<string, string[]>> {
    const { columns, digest } = this.#dialect;
    const digests = columns.map((column, index) => `${digest([column])} AS _c${index}`).join(', ');
    const found = new Map<string, string[]>();
    for (const some of cut(keys)) {
      for (const row of await this.#find(some, digests)) {
        found.set(
          keyId(this.#readKey(row)),
          columns.map((_, index) => row[`_c${index}`]!),
        );
      }
    }
    return found;
  }

  /** How many rows a part has of each kind, by their digest. */
  async counts(part: Part): Promise<Map<string, SeenCount>> {
    return await this.#counts(this.#where(part));
  }

  /** How many rows there are with these digests; those without a row are left out. */
  async countsOf(digests: string[]): Promise<Map<string, SeenCount>> {
    return digests.length === 0 ? new Map() : await this.#counts(this.#isOneOf(digests));
  }

  async #counts(where: string): Promise<Map<string, SeenCount>> {
    const { digest, columns, marks, text } = this.#dialect;
    const own = digest(columns);
    const rows = await this.#select(
      `${own} AS _d, ${text('count(*)')} AS _n, ${marks} AS _m`,
      `${where} GROUP BY ${own}`,
    );
    return new Map(rows.map((row) => [row._d!, { rows: Number(row._n), mark: row._m! }]));
  }

  /** The values of rows with these digests, by column, as texts. */
  async texts(digests: string[]): Promise<Map<string, (string | null)[]>> {
    if (digests.length === 0) return new Map();
    const { digest, columns, shown } = this.#dialect;
    const own = digest(columns);
    const values = columns.map((column, index) => `min(${shown(column)}) AS _c${index}`);
    const rows = await this.#select(
      `${[`${own} AS _d`, ...values].join(', ')}`,
      `${this.#isOneOf(digests)} GROUP BY ${own}`,
    );
    return new Map(rows.map((row) => [row._d!, columns.map((_, index) => row[`_c${index}`] ?? null)]));
  }

  #isOneOf(digests: string[]): string {
    const { digest, columns } = this.#dialect;
    return `${digest(columns)} IN (${digests.map((one) => `'${one}'`).join(', ')})`;
  }

  /** Asks for rows with these keys; others may come too. A key that cannot even be said as a value has no row there. */
  async #find(keys: Key[], what: string): Promise<Answer[]> {
    const { keys: columns, name, list, isBadValue } = this.#dialect;
    const tuples = keys.map((key) => this.#tuple(key)).filter((tuple) => tuple !== undefined);
    if (tuples.length === 0) return [];
    try {
      const where = `(${columns.map(name).join(', ')}) IN (${list(tuples)})`;
      return await this.#select(`${this.#keyTexts()}, ${what}`, where);
    } catch (error) {
      if (!isBadValue(error)) throw error;
      if (keys.length === 1) return [];
      const middle = keys.length >> 1;
      return [...(await this.#find(keys.slice(0, middle), what)), ...(await this.#find(keys.slice(middle), what))];
    }
  }

  /** The key at which a part of `rows` rows behind `after` ends, or undefined when there are fewer. */
  async boundary(part: Range, rows: number): Promise<Key | undefined> {
    const { keys, name } = this.#dialect;
    const order = `ORDER BY ${keys.map(name).join(', ')} LIMIT 1 OFFSET ${rows - 1}`;
    const [row] = await this.#select(this.#keyTexts(), `${this.#where(part)} ${order}`);
    return row && this.#readKey(row);
  }

  async #select(what: string, rest: string): Promise<Answer[]> {
    return await this.#dialect.run(`SELECT ${what} FROM ${this.#dialect.from} WHERE ${rest}`);
  }

  #digestAndMark(): string {
    const { digest, columns, mark, filter, name } = this.#dialect;
    return `${digest(columns)} AS _d, ${mark} AS _m${filter?.select(name) ?? ''}`;
  }

  async #readRows(rows: Answer[]): Promise<SeenRows> {
    const { filter } = this.#dialect;
    const judged = filter ? await filter.judge(rows) : rows.map((row) => ({ row, doubt: undefined }));
    return new Map(
      judged.map(({ row, doubt }) => {
        const key = this.#readKey(row);
        return [keyId(key), { key, digest: row._d!, mark: row._m!, doubt }];
      }),
    );
  }

  #keyTexts(): string {
    return this.#dialect.keys.map((column, index) => `${this.#dialect.keyText(column)} AS _k${index}`).join(', ');
  }

  #readKey(row: Answer): Key {
    return this.#dialect.keys.map((column, index) => readKeyText(column, row[`_k${index}`]!));
  }

  #tuple(key: Key): string | undefined {
    const literals = this.#dialect.keys.map((column, index) => this.#dialect.literal(column, key[index]!));
    return literals.includes(undefined) ? undefined : `(${literals.join(', ')})`;
  }

  #where(part: Part): string {
    if ('of' in part) {
      return part.of === 1 ? 'true' : `${this.#dialect.hash} % ${part.of} IN (${part.buckets.join(', ')})`;
    }
    const conditions = [this.#bound('>', part.after), this.#bound('<=', part.upto)].filter(Boolean);
    return conditions.join(' AND ') || 'true';
  }

  /** Only integer keys have bounds: they are in the same order everywhere. */
  #bound(operator: '>' | '<=', key: Key | undefined): string | undefined {
    if (!key) return undefined;
    const { keys, name, helpTuples } = this.#dialect;
    const tuple = `(${keys.map(name).join(', ')}) ${operator} ${this.#tuple(key)}`;
    if (!helpTuples || keys.length === 1) return tuple;
    const first = this.#dialect.literal(keys[0]!, key[0]!);
    return `${tuple} AND ${name(keys[0]!)} ${operator === '>' ? '>=' : '<='} ${first}`;
  }
}

/** The same sum as the databases make: of the first 60 bits of each digest. */
function sumOf(rows: Iterable<SeenRow>): Checksum {
  let count = 0;
  let sum = 0n;
  for (const { digest, doubt } of rows) {
    if (doubt === 'gone') continue;
    count += 1;
    sum += BigInt(`0x${digest.slice(0, 15)}`);
  }
  return { rows: count, sum: String(sum) };
}

function readChecksum(row: Answer | undefined): Checksum {
  return { rows: Number(row?._n ?? 0), sum: row?._s ?? '0' };
}

function* cut(keys: Key[]): Generator<Key[]> {
  let some: Key[] = [];
  let size = 0;
  for (const key of keys) {
    const bytes = keyId(key).length;
    if (some.length >= lookupKeys || (size > 0 && size + bytes > lookupBytes)) {
      yield some;
      some = [];
      size = 0;
    }
    some.push(key);
    size += bytes;
  }
  if (some.length > 0) yield some;
}

/** PostgreSQL's side. */
export function sourceSide(client: pg.ClientBase, table: TableSchema, lookUp: LookUp): Side {
  const name = (column: Column): string => `_r.${quoteSourceName(column.name)}`;
  const keys = tellingColumns(table);
  const digest = (columns: Column[]): string => `md5(${sourceRecord(columns, name)})`;
  return new Side({
    run: async (sql) => {
      try {
        return (await client.query<Answer>({ text: sql, types: sourceTexts })).rows;
      } catch (error) {
        throw sourceError(error);
      }
    },
    from: `${rowsOf(table)} AS _r`,
    keys,
    name,
    keyText: (column) => sourceKeyText(column, name(column)),
    literal: sourceLiteral,
    digest,
    columns: withCopiedValues(table).columns,
    number: `('x' || left(${digest(withCopiedValues(table).columns)}, 15))::bit(60)::bigint`,
    hash: `('x' || left(${digest(keys)}, 7))::bit(28)::int`,
    mark: '_r.xmin::text',
    marks: `sum(hashtextextended(concat(_r.tableoid, _r.ctid, _r.xmin), 0)::numeric)::text`,
    // concat() uses the type's output function; a composite of NULLs "IS NULL", and still is a value.
    shown: (column) => `CASE WHEN ${name(column)} IS DISTINCT FROM NULL THEN concat(${name(column)}) END`,
    text: (x) => `coalesce((${x})::text, '0')`,
    // A list of tuples is planned as a chain of ORs, a list of VALUES as a join with the index.
    list: (tuples) => `VALUES ${tuples.join(', ')}`,
    isBadValue: (error) => String(((error as Error).cause as { code?: unknown })?.code).startsWith('22'),
    helpTuples: false,
    filter: filterOf(table, lookUp),
  });
}

/** What tells rows apart: the key, or else all values. */
function tellingColumns(table: TableSchema): Column[] {
  return isMultiset(table) ? table.columns : keyColumns(table);
}

/** ClickHouse's side: the copy without its tombstones, or the rows that it comes to. */
export function copySide(clickhouse: ClickHouse, table: TableSchema, signal: AbortSignal | undefined): Side {
  const name = (column: Column): string => `_r.${quoteCopyName(column.name)}`;
  const keys = tellingColumns(table);
  const digest = (columns: Column[]): string => `MD5(${copyRecord(columns, name)})`;
  /** The first bytes of an MD5, most significant first, as ClickHouse reads numbers: least significant first. */
  const head = (columns: Column[], bytes: number): string => `reverse(substring(${digest(columns)}, 1, ${bytes}))`;
  return new Side({
    run: async (sql) => {
      return await clickhouse.rows<Answer>(sql, {
        signal,
        settings: { output_format_decimal_trailing_zeros: 0, date_time_output_format: 'simple' },
      });
    },
    from: isMultiset(table)
      ? `${clickhouse.name(`${table.asset_id}_current`)} AS _r`
      : `${clickhouse.name(table.asset_id)} AS _r FINAL`,
    keys,
    name,
    keyText: (column) => copyKeyText(column, name(column)),
    literal: copyLiteral,
    digest: (columns) => `lower(hex(${digest(columns)}))`,
    columns: withCopiedValues(table).columns,
    number: `toUInt128(bitShiftRight(reinterpretAsUInt64(${head(withCopiedValues(table).columns, 8)}), 4))`,
    hash: `bitShiftRight(reinterpretAsUInt32(${head(keys, 4)}), 4)`,
    mark: 'toString(_r._version)',
    marks: `''`,
    shown: (column) =>
      column.encoding === 'bytea' ? `concat('\\\\x', lower(hex(${name(column)})))` : `toString(${name(column)})`,
    text: (x) => `toString(${x})`,
    list: (tuples) => tuples.join(', '),
    isBadValue: () => false,
    helpTuples: true,
  });
}

/** How a table can be divided: by ranges of its key, or by a hash of it. */
export interface Facts {
  /** The planner's estimate of rows; -1 when unknown. */
  estimate: number;
  /** Both databases sort the key alike, and the source has an index in that order. */
  ranges: boolean;
}

/**
 * Only integers are sorted alike everywhere: text depends on collations, enums on positions, and ClickHouse sorts UUIDs
 * by their second half. Undefined when the table is gone or another one.
 */
export async function sourceFacts(client: pg.ClientBase, table: TableSchema): Promise<Facts | undefined> {
  const keys = keyColumns(table);
  try {
    const { rows } = await client.query<{ estimate: number; indexed: boolean }>(
      `SELECT c.reltuples::float8 AS estimate,
         EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisvalid AND i.indisunique
           AND i.indpred IS NULL AND i.indkey::text = $2) AS indexed
       FROM pg_class c WHERE c.oid = to_regclass($1)`,
      [quoteTable(table), keys.map((column) => column.attnum).join(' ')],
    );
    const [row] = rows;
    if (!row) return undefined;
    const integers = keys.every((column) => keyKind(column) === 'integer');
    return { estimate: row.estimate, ranges: integers && row.indexed };
  } catch (error) {
    throw sourceError(error);
  }
}
