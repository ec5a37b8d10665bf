/** A row that was held back, on its way into the copy after all: encoded as its table is now, and put through its rules. */
import type { Column, TableSchema } from '../../model/table.ts';
import { RowEncoder, rowBound } from '../capture/postgresql/encode.ts';
import type { Reject } from '../capture/stream.ts';
import { Block } from '../load/block.ts';
import type { LookUp } from './join.ts';
import { TableStage } from './stage.ts';

/** What of a reject tells the row. */
export type HeldRow = Pick<Reject, 'key' | 'version' | 'row' | 'committed_at'> & {
  /** Names of columns whose values the source did not send with it; absent = that is not known. */
  unsent?: string[];
};

/**
 * The row as it goes into the copy: a block of one row at its own version, so that every later change of its key wins. A
 * filter that does not let it through makes a tombstone of it. Or why it is still held back. Throws SluiceError `rule_failed`
 * where a rule or check says stop.
 */
export async function restage(table: TableSchema, held: HeldRow, lookUp: LookUp): Promise<Block | Reject> {
  const block = new Block(4096);
  const encoded = encode(table, held, block);
  if (encoded !== undefined) return { ...held, ...encoded };
  if (!table.rules) return block;
  const rejects: Reject[] = [];
  const stage = new TableStage(table);
  await stage.lookUp(block, lookUp);
  stage.apply(block, rejects, 'tombstone');
  return rejects[0] ?? block;
}

/** Writes the row; answers why the copy's types cannot hold it. Columns that came later have what rows of before show in them. */
function encode(table: TableSchema, held: HeldRow, block: Block) {
  const encoder = new RowEncoder(table);
  const { row, version, committed_at } = held;
  const texts = textsOf(table, row);
  block.reserve(rowBound(Buffer.byteLength(row), table.columns.length));
  block.beginRow();
  for (const [index, column] of table.columns.entries()) {
    const text = texts.get(column.attnum);
    if (text === undefined) {
      const reason = whyLacking(table, held, column);
      if (reason !== undefined) return { check: undefined, column: column.name, reason };
      if (column.initial === undefined) encoder.absent(block, index);
      else append(block, `${column.initial}\t`);
    } else if (text === null ? !encoder.missing(block, index) : !value(encoder, block, index, text)) {
      const { column: refused, reason } = encoder.refused;
      return { check: undefined, column: refused, reason };
    }
  }
  append(block, `${BigInt(version)}\t0\t${committed_at}\n`);
  block.rows++;
  return undefined;
}

/** The row's texts by the attnums of their columns, which may have had other names then. */
function textsOf(table: TableSchema, row: string): Map<number, string | null> {
  const attnums = attnumsOf(table);
  const texts = new Map<number, string | null>();
  for (const [name, text] of Object.entries(JSON.parse(row) as Record<string, string | null>)) {
    const attnum = attnums.get(name);
    if (attnum !== undefined) texts.set(attnum, text);
  }
  return texts;
}

/** Attnums by the names that columns have and had: no name is used again for another column. */
function attnumsOf({ columns, former = [] }: TableSchema): Map<string, number> {
  return new Map([...former, ...columns].map(({ name, attnum }) => [name, attnum]));
}

/** Why the value of a column that the row lacks cannot be had; undefined for a column that came later than the row. */
function whyLacking(table: TableSchema, { unsent }: HeldRow, column: Column): string | undefined {
  const { name, attnum, hidden, initial } = column;
  if (hidden) return `${name} is excluded, and stored nowhere: change the row in the source, or re-sync the table`;
  const attnums = attnumsOf(table);
  const isUnsent = unsent ? unsent.some((one) => attnums.get(one) === attnum) : initial === undefined;
  return isUnsent ? 'the source did not send its value: change the row there' : undefined;
}

function value(encoder: RowEncoder, block: Block, index: number, text: string): boolean {
  const bytes = Buffer.from(text);
  block.reserve(rowBound(bytes.length, 1));
  return encoder.value(block, index, bytes, 0, bytes.length);
}

function append(block: Block, text: string): void {
  block.reserve(text.length);
  block.length += block.bytes.write(text, block.length, 'latin1');
}
