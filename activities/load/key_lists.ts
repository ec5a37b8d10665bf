/** Many keys in a statement. */
import { quoteText } from './clickhouse.ts';

/** Bytes of keys in one statement: 20,000 UUIDs. The embedded engine reads no statement above 1 MiB, whatever it is told. */
const bytesAtOnce = 900 * 1024;

/** Characters of a key as TSV, at most: then it fits into a statement, whatever it holds. */
export const longestKey = 256 * 1024;

/**
 * Subqueries that answer keys (each as TSV fields) as columns of these types, as many at once as a statement may hold. A list of tuples
 * takes ClickHouse a hundred times as long to read. No key may be longer than `longestKey`.
 */
export function* keyLists(keys: Iterable<readonly string[]>, types: readonly string[]): Generator<string> {
  const structure = quoteText(types.map((type, i) => `k${i} ${type}`).join(', '));
  const list = (lines: string) => `SELECT * FROM format(TabSeparated, ${structure}, ${quoteText(lines)})`;
  let lines = '';
  let bytes = 0;
  for (const key of keys) {
    const line = `${key.join('\t')}\n`;
    const size = Buffer.byteLength(quoteText(line));
    if (bytes + size > bytesAtOnce && bytes > 0) {
      yield list(lines);
      lines = '';
      bytes = 0;
    }
    lines += line;
    bytes += size;
  }
  if (bytes > 0) yield list(lines);
}
