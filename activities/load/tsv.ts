/** TSV as text, for the few places that look into rows; bytes are latin1 characters, so that none is lost. */
import type { TableSchema } from '../../model/table.ts';

const escaped: Record<string, string> = { '0': '\0', b: '\b', t: '\t', n: '\n', f: '\f', r: '\r', '\\': '\\' };

/** The bytes that a TSV field stands for. */
export function unescapeField(field: string): Buffer {
  return Buffer.from(
    field.replace(/\\(.)/g, (_, letter: string) => escaped[letter] ?? letter),
    'latin1',
  );
}

/** The key of a row: its key fields with tabs between them. */
export function keyOf(table: TableSchema, fields: string[]): string {
  return table.columns.flatMap((column, index) => (column.key ? [fields[index]!] : [])).join('\t');
}
