/** TSV as text, for the few places that look into rows; bytes are latin1 characters, so that none is lost. */
import { keyColumns, type TableSchema } from '../../model/table.ts';

const backslash = 0x5c;

/** Letters behind a backslash, and the bytes that they stand for: in TSV, and in COPY's text, which has a v and no 0. */
const escaped: Record<number, number> = { 48: 0x00, 98: 0x08, 102: 0x0c, 110: 0x0a, 114: 0x0d, 116: 0x09, 118: 0x0b };

/** The bytes that the field in `bytes[start, end)` stands for. */
export function unescapeBytes(bytes: Buffer, start: number, end: number): Buffer {
  const plain = Buffer.allocUnsafe(end - start);
  let length = 0;
  for (let at = start; at < end; at++) {
    let byte = bytes[at]!;
    if (byte === backslash) {
      byte = bytes[++at]!;
      byte = escaped[byte] ?? byte;
    }
    plain[length++] = byte;
  }
  return plain.subarray(0, length);
}

/** The bytes that a TSV field stands for. */
export function unescapeField(field: string): Buffer {
  const bytes = Buffer.from(field, 'latin1');
  return unescapeBytes(bytes, 0, bytes.length);
}

/** Places of the key's columns, by table: rows are many. */
const keyPlaces = new WeakMap<TableSchema, number[]>();

/** The key of a row: its key fields, in the order of `keyColumns`, with tabs between them. */
export function keyOf(table: TableSchema, fields: string[]): string {
  let places = keyPlaces.get(table);
  if (!places) {
    places = keyColumns(table).map((column) => table.columns.indexOf(column));
    keyPlaces.set(table, places);
  }
  return places.map((place) => fields[place]!).join('\t');
}
