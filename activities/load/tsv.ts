/** TSV as text, for the few places that look into rows; bytes are latin1 characters, so that none is lost. */
import { keyColumns, type TableSchema } from '../../model/table.ts';

const escaped: Record<string, string> = { '0': '\0', b: '\b', t: '\t', n: '\n', f: '\f', r: '\r', '\\': '\\' };

/** The bytes that a TSV field stands for. */
export function unescapeField(field: string): Buffer {
  return Buffer.from(
    field.replace(/\\(.)/g, (_, letter: string) => escaped[letter] ?? letter),
    'latin1',
  );
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
