/**
 * Values that PostgreSQL did not send: large ones stored out of line (TOAST) that an UPDATE left unchanged. They are
 * looked for in this order, and never replaced by a default:
 *
 * 1. the same key earlier in this batch (after a change of key: the replaced row, if its value was sent, not looked up);
 * 2. the copy's row of the same key, tombstones counted. At or above this row's version: the row is overtaken and is
 *    dropped. A tombstone, open rejects, or no row: go on. After a change of key never from the copy: its row may be
 *    from the future of this transaction. Nor a value that rules have put another one in the place of;
 * 3. the source, by the new key, once this transaction is visible there. No row there: a later change exists, and a
 *    tombstone at this row's version stands in until it comes. A value there that the copy cannot hold: the row is held back.
 *
 * The source's value may be newer than the change. Then the change that made it is still to come, and sets it again.
 */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { keyColumns, type TableSchema, withCopiedValues } from '../../../model/table.ts';
import { Block } from '../../load/block.ts';
import type { NewestRow, Sink } from '../../load/sink.ts';
import { keyOf, unescapeField } from '../../load/tsv.ts';
import type { StreamTask } from '../source.ts';
import type { ChangeBatch, Hole, HollowRow, Reject, TableChanges } from '../stream.ts';
import { connect, isOfTable, quoteName, sourceError, sourceTexts, wasAltered } from './connection.ts';
import { durablePosition } from './durable.ts';
import { RowEncoder, rowBound } from './encode.ts';
import { rowsOf } from './partitions.ts';
import { presentTable } from './present_table.ts';
import { beginSeeing } from './visibility.ts';

/** Keys that are asked for in one statement. */
const keysAtOnce = 500;

/** What is stored out of line is not smaller; the row itself, its holes counted as a byte each, is in the batch already. */
const leastWeight = 1_500;

/** Where a row's missing values come from; a number is an earlier row of the batch, `overtaken` drops the row. */
type Origin = 'copy' | 'source' | 'overtaken' | number;

/** A row's fields as TSV text (latin1, so that bytes survive), or what becomes of it instead. */
type Filled = string[] | 'overtaken' | 'gone' | 'refused';

/** A row of the source with a value that the copy cannot hold: what its reject says of it. */
type RefusedRow = Pick<Reject, 'key' | 'column' | 'reason' | 'row'>;

export class MissingValues {
  readonly #newestRows: Sink['newestRows'];
  readonly #floors: Record<string, string>;
  readonly #connectionString: string;
  readonly #applicationName: string;
  #client: pg.Client | undefined;
  /** Bytes that a row with holes had more when they were filled, a running mean: what a batch of them will weigh. */
  weight = 65_536;

  /** @param task says how to look into the copy, and from which version on its rows count. */
  constructor(task: Pick<StreamTask, 'newestRows' | 'floors'>, connectionString: string, source: string) {
    this.#newestRows = task.newestRows;
    this.#floors = task.floors;
    this.#connectionString = connectionString;
    this.#applicationName = `sluice ${source} lookup`;
  }

  /**
   * Fills all holes of a batch; rows that the copy has overtaken are dropped and counted as superseded. Answers, by asset,
   * tables that the source cannot be asked about any more, and why.
   */
  async fill(batch: ChangeBatch): Promise<Record<string, string>> {
    const failed: Record<string, string> = {};
    for (const changes of batch.tables) {
      if (changes.hollow.length === 0) continue;
      try {
        await this.#fillTable(changes);
      } catch (error) {
        const reason = whyNotRead(error);
        if (reason === undefined) throw error;
        failed[changes.table.asset_id] = reason;
      }
    }
    return failed;
  }

  async close(): Promise<void> {
    await this.#client?.end().catch(() => {});
    this.#client = undefined;
  }

  async #fillTable(changes: TableChanges): Promise<void> {
    const rows = new TableRows(changes.table, changes.block);
    const bases = earlierRows(rows, changes);
    // A key that changed is never looked for in the copy, and none is beside a row that this batch holds back.
    const sought = changes.hollow.filter((row) => row.replaced < 0).map((row) => rows.key(row.row));
    const copied =
      changes.rejects.length > 0 ? new Map<string, NewestRow>() : await this.#newestRows(changes.table, unique(sought));
    const plan = new Map<number, Origin>();
    const floor = BigInt(this.#floors[changes.table.asset_id] ?? 0);
    const kept = new Set(withCopiedValues(changes.table).columns);
    const isKept = (hole: Hole) => kept.has(changes.table.columns[hole.column]!);
    for (const row of changes.hollow)
      plan.set(row.row, originOf(row, bases.get(row.row)!, { rows, copied, plan, floor, isKept }));
    const asked = changes.hollow.filter((row) => plan.get(row.row) === 'source');
    const { found, refused } = await this.#readSource(changes.table, rows, asked);
    const filled = new Map<number, Filled>();
    for (const row of changes.hollow) {
      const origin = plan.get(row.row)!;
      let values: Filled | undefined;
      if (typeof origin === 'number') values = filled.get(origin) ?? rows.fields(origin);
      else if (origin === 'copy') values = copied.get(rows.key(row.row))!.fields;
      else if (origin === 'source') values = refused.has(rows.key(row.row)) ? 'refused' : found.get(rows.key(row.row));
      filled.set(row.row, fillRow(row, rows, values, origin));
    }
    for (const row of changes.hollow)
      if (filled.get(row.row) === 'refused') holdBack(changes, rows, row, refused.get(rows.key(row.row))!);
    const [bytes, hollow] = [changes.block.length, changes.hollow.length];
    rebuild(changes, rows, filled);
    const grown = (changes.block.length - bytes) / hollow;
    this.weight = Math.max(leastWeight, (this.weight + grown) / 2, grown);
  }

  /** Rows of the source by key, encoded as TSV fields, read when all their transactions are visible there. */
  async #readSource(
    table: TableSchema,
    rows: TableRows,
    asked: HollowRow[],
  ): Promise<{ found: Map<string, string[]>; refused: Map<string, RefusedRow> }> {
    const found = new Map<string, string[]>();
    const refused = new Map<string, RefusedRow>();
    if (asked.length === 0) return { found, refused };
    /** By key, columns that are missing: what else the row shows now belongs to later changes. */
    const wanted = new Map<string, Set<number>>();
    for (const row of asked) {
      const key = rows.key(row.row);
      const columns = wanted.get(key) ?? new Set();
      for (const hole of row.holes) columns.add(hole.column);
      wanted.set(key, columns);
    }
    const client = await this.#source();
    try {
      await beginSeeing(client, unique(asked.map((row) => row.xid)), rowsOf(table));
      const present = await presentTable(client, table);
      await readRowsByKey(client, { table, present, wanted, refused }, [...wanted.keys()], found);
      await client.query('COMMIT');
      await durablePosition(client);
      return { found, refused };
    } catch (error) {
      await this.close();
      throw sourceError(error);
    }
  }

  async #source(): Promise<pg.Client> {
    this.#client ??= await connect({
      connectionString: this.#connectionString,
      applicationName: this.#applicationName,
    });
    return this.#client;
  }
}

/** What keeps a lookup from one table alone; undefined for an error that is not the table's. */
function whyNotRead(error: unknown): string | undefined {
  if (wasAltered(error) || (error instanceof SluiceError && error.kind === 'table_changed'))
    return 'it was altered before values that the stream left out could be looked up';
  if (!isOfTable(error)) return undefined;
  return `values that the stream left out cannot be looked up: ${(error as Error).message}`;
}

function unique<T>(values: T[]): T[] {
  return [...new Set(values)];
}

/** The source's text of a TSV key field: hex for bytea, a zone for timestamptz. */
function sourceText(field: string, encoding: string): string {
  const raw = unescapeField(field);
  if (encoding === 'bytea') return `\\x${raw.toString('hex')}`;
  return encoding === 'timestamptz' ? `${raw.toString('utf8')}+00` : raw.toString('utf8');
}

interface Lookup {
  table: TableSchema;
  /** The columns that the table has now, under their names of now. */
  present: TableSchema;
  /** By key, the columns that are needed; absent = all. */
  wanted?: Map<string, Set<number>>;
  /** Rows go here that have a needed value which the copy cannot hold; else they are left out. */
  refused?: Map<string, RefusedRow>;
}

/** Reads rows of the source by key (each as `keyOf` has it) into `found`: their TSV fields, empty where they are not needed. */
export async function readRowsByKey(
  client: pg.Client,
  lookup: Lookup,
  keys: string[],
  found: Map<string, string[]>,
): Promise<void> {
  for (let from = 0; from < keys.length; from += keysAtOnce)
    await readKeys(client, lookup, keys.slice(from, from + keysAtOnce), found);
}

async function readKeys(
  client: pg.Client,
  { table, present, wanted, refused }: Lookup,
  keys: string[],
  found: Map<string, string[]>,
): Promise<void> {
  const key = keyColumns(present);
  const names = key.map((column) => quoteName(column.name)).join(', ');
  const params = keys.flatMap((one) => one.split('\t').map((field, i) => sourceText(field, key[i]!.encoding)));
  const types = key.map((column) => column.type);
  const list = keys.map((_, k) => `(${key.map((_column, i) => `$${k * key.length + i + 1}::${types[i]}`).join(', ')})`);
  const { rows } = await client.query({
    // The types' own output, as the stream has it: a cast to text says true for t, and cuts blanks.
    text: `SELECT ${present.columns.map((column) => quoteName(column.name)).join(', ')} FROM ${rowsOf(table)} WHERE (${names}) IN (${list.join(', ')})`,
    values: params,
    rowMode: 'array',
    types: sourceTexts,
  });
  const encoder = new RowEncoder(table);
  const places = table.columns.map(({ attnum }) => present.columns.findIndex((column) => column.attnum === attnum));
  for (const row of rows as (string | null)[][]) {
    const texts = places.map((place) => row[place]);
    const keyFields = encodeFields(encoder, texts, (column) => table.columns[column]!.key);
    if (!keyFields) continue;
    const id = keyOf(table, keyFields);
    const columns = wanted?.get(id);
    const fields = encodeFields(
      encoder,
      texts,
      (column) => !columns || columns.has(column) || table.columns[column]!.key,
    );
    if (fields) found.set(id, fields);
    else refused?.set(id, refusedRow(table, texts, encoder));
  }
}

function refusedRow(table: TableSchema, texts: (string | null | undefined)[], { refused }: RowEncoder): RefusedRow {
  const row: Record<string, string | null> = Object.create(null);
  const key: Record<string, string | null> = Object.create(null);
  for (const [index, { name, key: isKey, hidden }] of table.columns.entries()) {
    const text = texts[index];
    if (hidden || text === undefined) continue;
    row[name] = text;
    if (isKey) key[name] = text;
  }
  return { column: refused.column, reason: refused.reason, key: JSON.stringify(key), row: JSON.stringify(row) };
}

/** Among the rejects, as if its values had come with it. */
function holdBack(changes: TableChanges, rows: TableRows, hollow: HollowRow, refused: RefusedRow): void {
  const committed_at = rows.fields(hollow.row)[changes.table.columns.length + 2]!;
  changes.effects.rejected++;
  changes.rejects.push({ ...refused, version: hollow.version, committed_at });
}

/**
 * The TSV fields of the needed columns, others empty; undefined when one of them cannot be held. An undefined text stands for a
 * value that the source does not have any more: the copy will drop its column.
 */
function encodeFields(
  encoder: RowEncoder,
  row: (string | null | undefined)[],
  isNeeded: (column: number) => boolean,
): string[] | undefined {
  const block = new Block(1024);
  const texts = row.map((text, column) => (!isNeeded(column) ? undefined : text == null ? text : Buffer.from(text)));
  block.reserve(
    rowBound(
      texts.reduce((sum, text) => sum + (text?.length ?? 0), 0),
      row.length,
    ),
  );
  block.beginRow();
  for (const [column, text] of texts.entries()) {
    if (text === undefined) encoder.absent(block, column);
    else if (text === null ? !encoder.missing(block, column) : !encoder.value(block, column, text, 0, text.length))
      return undefined;
  }
  return block.bytes.toString('latin1', 0, block.length - 1).split('\t');
}

/** The rows of a block as text fields, split when they are asked for. */
class TableRows {
  readonly table: TableSchema;
  readonly #block: Block;
  readonly #fields = new Map<number, string[]>();

  constructor(table: TableSchema, block: Block) {
    this.table = table;
    this.#block = block;
  }

  fields(row: number): string[] {
    const known = this.#fields.get(row);
    if (known) return known;
    const end = row + 1 < this.#block.rows ? this.#block.starts[row + 1]! : this.#block.length;
    const fields = this.#block.bytes.toString('latin1', this.#block.starts[row], end - 1).split('\t');
    this.#fields.set(row, fields);
    return fields;
  }

  key(row: number): string {
    return keyOf(this.table, this.fields(row));
  }

  isTombstone(row: number): boolean {
    return this.fields(row)[this.table.columns.length + 1] === '1';
  }
}

/** For each hollow row the last earlier row of its key (after a change of key: of the key before) in this batch, or -1. */
function earlierRows(rows: TableRows, { hollow, rejects }: TableChanges): Map<number, number> {
  const bases = new Map<number, number>();
  const hollowRows = new Map(hollow.map((row) => [row.row, row]));
  const newest = new Map<string, number>();
  let beforeLast = -1;
  for (let row = 0; row <= hollow.at(-1)!.row; row++) {
    const key = rows.key(row);
    const before = newest.get(key) ?? -1;
    const hole = hollowRows.get(row);
    if (hole) {
      // The replaced key's tombstone stands right before: its base is what stood before that.
      const base = hole.replaced >= 0 ? beforeLast : before;
      // A rejected row of this key may stand between: then no earlier row is a base.
      bases.set(row, rejects.length > 0 || (base >= 0 && rows.isTombstone(base)) ? -1 : base);
    }
    beforeLast = before;
    newest.set(key, row);
  }
  return bases;
}

/** Decides for one row, earlier ones being decided. */
function originOf(
  row: HollowRow,
  base: number,
  {
    rows,
    copied,
    plan,
    floor,
    isKept,
  }: {
    rows: TableRows;
    copied: Map<string, NewestRow>;
    plan: Map<number, Origin>;
    floor: bigint;
    /** False for a value that the copy has not as it is in the source. */
    isKept: (hole: Hole) => boolean;
  },
): Origin {
  // An overtaken base says nothing of what the copy has for this row: look there.
  if (base >= 0 && plan.get(base) !== 'overtaken' && (row.replaced < 0 || wasSent(base, plan))) return base;
  const copy = row.replaced < 0 ? copied.get(rows.key(row.row)) : undefined;
  if (!copy || copy.deleted) return copy && BigInt(copy.version) >= BigInt(row.version) ? 'overtaken' : 'source';
  if (BigInt(copy.version) >= BigInt(row.version)) return 'overtaken';
  // A row from before the table's start: changes may have been missed since.
  return BigInt(copy.version) >= floor && row.holes.every(isKept) ? 'copy' : 'source';
}

/**
 * True when all values of a row were sent, with it or with a row of this batch that it follows. What was looked up for a
 * key may be that of a later row of the same key: it must not move on to another key.
 */
function wasSent(row: number, plan: Map<number, Origin>): boolean {
  let origin = plan.get(row);
  while (typeof origin === 'number') origin = plan.get(origin);
  return origin === undefined;
}

function fillRow(row: HollowRow, rows: TableRows, values: Filled | undefined, origin: Origin): Filled {
  if (origin === 'overtaken') return 'overtaken';
  // The source has no such row any more, or the row that this one follows had none: a later change says why.
  if (values === 'refused') return 'refused';
  if (values === undefined || values === 'gone' || values === 'overtaken') return 'gone';
  const fields = rows.fields(row.row).slice();
  for (const hole of row.holes) fields[hole.column] = values[hole.column]!;
  return fields;
}

/** Writes the block anew: filled rows with their values, overtaken and refused ones left out, vanished ones as tombstones. */
function rebuild(changes: TableChanges, rows: TableRows, filled: Map<number, Filled>): void {
  const { table, block, effects } = changes;
  const rebuilt = new Block(block.length + 1024);
  const append = (line: Buffer): void => {
    rebuilt.reserve(line.length);
    rebuilt.beginRow();
    line.copy(rebuilt.bytes, rebuilt.length);
    rebuilt.length += line.length;
    rebuilt.rows++;
  };
  for (let row = 0; row < block.rows; row++) {
    const end = row + 1 < block.rows ? block.starts[row + 1]! : block.length;
    const fields = filled.get(row);
    if (fields === undefined) append(block.bytes.subarray(block.starts[row], end));
    else if (fields === 'overtaken') effects.superseded++;
    else if (fields !== 'refused')
      append(
        Buffer.from(`${(fields === 'gone' ? tombstone(table, rows.fields(row)) : fields).join('\t')}\n`, 'latin1'),
      );
  }
  block.bytes = rebuilt.bytes;
  block.starts = rebuilt.starts;
  block.length = rebuilt.length;
  block.rows = rebuilt.rows;
  changes.hollow = [];
}

function tombstone(table: TableSchema, fields: string[]): string[] {
  const values = table.columns.map((column, index) => {
    if (column.key) return fields[index]!;
    return column.clickhouse.startsWith('Array(') ? '[]' : '\\N';
  });
  return [...values, fields[table.columns.length]!, '1', fields[table.columns.length + 2]!];
}
