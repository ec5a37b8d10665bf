/** Rows that were held back, on their way into the copy after all: encoded as their table is now, and put through its rules. */
import { addCounts, type RuleCounts } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
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
 * Each row as it goes into the copy: a block of one row at its own version, so that every later change of its key wins. A
 * filter that does not let it through makes a tombstone of it. Or why it is still held back; or SluiceError `rule_failed` where
 * a rule or check says stop. What joins need is looked up once for all of them. What rules and checks did to rows that go into
 * the copy is added to `applied`.
 */
export async function restage(
  table: TableSchema,
  held: readonly HeldRow[],
  lookUp: LookUp,
  applied: Record<string, RuleCounts> = {},
): Promise<(Block | Reject | SluiceError)[]> {
  const encoder = new HeldEncoder(table);
  const encoded = held.map((row) => encoder.encode(row));
  if (!table.rules) return encoded;
  const stage = new TableStage(table);
  await stage.lookUp(
    encoded.filter((one) => one instanceof Block),
    lookUp,
  );
  const passed: (Block | Reject | SluiceError)[] = [];
  for (const one of encoded) passed.push(one instanceof Block ? await pass(stage, one, applied) : one);
  return passed;
}

async function pass(
  stage: TableStage,
  block: Block,
  applied: Record<string, RuleCounts>,
): Promise<Block | Reject | SluiceError> {
  const rejects: Reject[] = [];
  try {
    await stage.apply(block, rejects, 'tombstone');
  } catch (error) {
    if (error instanceof SluiceError) return error;
    throw error;
  }
  const { counts } = stage.takeCounts();
  if (rejects[0]) return rejects[0];
  addCounts(applied, counts);
  return block;
}

/** Writes rows; columns that came later than a row have what rows of before show in them. */
class HeldEncoder {
  readonly #table: TableSchema;
  readonly #encoder: RowEncoder;
  /** Attnums by the names that columns have and had: no name is used again for another column. */
  readonly #attnums: ReadonlyMap<string, number>;

  constructor(table: TableSchema) {
    this.#table = table;
    this.#encoder = new RowEncoder(table);
    const { columns, former = [] } = table;
    this.#attnums = new Map([...former, ...columns].map(({ name, attnum }) => [name, attnum]));
  }

  /** The row; or why the copy's types cannot hold it. */
  encode(held: HeldRow): Block | Reject {
    const { row, version, committed_at } = held;
    const { columns } = this.#table;
    const block = new Block(4096);
    const texts = this.#textsOf(row);
    block.reserve(rowBound(Buffer.byteLength(row), columns.length));
    block.beginRow();
    for (const [index, column] of columns.entries()) {
      const refused = this.#write(block, index, texts.get(column.attnum), held);
      if (refused) return { ...held, check: undefined, ...refused };
    }
    append(block, `${BigInt(version)}\t0\t${committed_at}\n`);
    block.rows++;
    return block;
  }

  /** Writes one value; answers why that does not go. */
  #write(block: Block, index: number, text: string | null | undefined, held: HeldRow) {
    const encoder = this.#encoder;
    const column = this.#table.columns[index]!;
    if (text === undefined) {
      const reason = this.#whyLacking(held, column);
      if (reason !== undefined) return { column: column.name, reason };
      if (column.initial === undefined) encoder.absent(block, index);
      else append(block, `${column.initial}\t`);
    } else if (text === null ? !encoder.missing(block, index) : !encoder.text(block, index, text)) {
      const { column: refused, reason } = encoder.refused;
      return { column: refused, reason };
    }
    return undefined;
  }

  /** The row's texts by the attnums of their columns, which may have had other names then. */
  #textsOf(row: string): Map<number, string | null> {
    const texts = new Map<number, string | null>();
    for (const [name, text] of Object.entries(JSON.parse(row) as Record<string, string | null>)) {
      const attnum = this.#attnums.get(name);
      if (attnum !== undefined) texts.set(attnum, text);
    }
    return texts;
  }

  /** Why the value of a column that the row lacks cannot be had; undefined for a column that came later than the row. */
  #whyLacking({ unsent }: HeldRow, { name, attnum, hidden, initial }: Column): string | undefined {
    if (hidden) return `${name} is excluded, and stored nowhere: change the row in the source, or re-sync the table`;
    const isUnsent = unsent ? unsent.some((one) => this.#attnums.get(one) === attnum) : initial === undefined;
    return isUnsent ? 'the source did not send its value: change the row there' : undefined;
  }
}

function append(block: Block, text: string): void {
  block.reserve(text.length);
  block.length += block.bytes.write(text, block.length, 'latin1');
}
