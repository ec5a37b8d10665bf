/** A row that was held back, on its way into the copy after all: encoded as its table is now, and put through its rules. */
import type { TableSchema } from '../../model/table.ts';
import { RowEncoder, rowBound } from '../capture/postgresql/encode.ts';
import type { Reject } from '../capture/stream.ts';
import { Block } from '../load/block.ts';
import type { LookUp } from './join.ts';
import { TableStage } from './stage.ts';

/** What of a reject tells the row. */
export type HeldRow = Pick<Reject, 'key' | 'version' | 'row' | 'committed_at'>;

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

/** Writes the row; answers why the copy's types cannot hold it. Columns that came later have their frozen default. */
function encode(table: TableSchema, { row, version, committed_at }: HeldRow, block: Block) {
  const encoder = new RowEncoder(table);
  const texts = JSON.parse(row) as Record<string, string | null>;
  block.reserve(rowBound(Buffer.byteLength(row), table.columns.length));
  block.beginRow();
  for (const [index, { name, initial }] of table.columns.entries()) {
    const text = texts[name];
    if (text === undefined && initial === undefined)
      return { check: undefined, column: name, reason: 'the source did not send its value: change the row there' };
    if (text === undefined) append(block, `${initial}\t`);
    else if (text === null ? !encoder.missing(block, index) : !value(encoder, block, index, text)) {
      const { column, reason } = encoder.refused;
      return { check: undefined, column, reason };
    }
  }
  append(block, `${BigInt(version)}\t0\t${committed_at}\n`);
  block.rows++;
  return undefined;
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
