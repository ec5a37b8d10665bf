/** Looking up rows of a copy by values of some of its columns: for rules that join. */
import { keyId, type LookedUp, type LookUp } from '../transform/join.ts';
import { type ClickHouse, lengthOf, quoteName, quoteText } from './clickhouse.ts';
import { multisetRows } from './multiset.ts';
import { columnTypes } from './tables.ts';

/** Bytes of keys in one statement: 20,000 UUIDs. The embedded engine reads no statement above 1 MiB, whatever it is told. */
const bytesAtOnce = 900 * 1024;

/** Looks up one row of each key. Errors: those of the sink; text that is no UTF-8 comes with marks in its place. */
export function lookUpIn(clickhouse: ClickHouse): LookUp {
  return async (what, keys) => {
    const { keys: names, fields } = what;
    const found = new Map<string, string[]>();
    const by = names.map(quoteName).join(', ');
    const columns = [...names, ...fields].map((name) => `_r.${quoteName(name)}`).join(', ');
    const { rows, first, types } = await rowsOf(clickhouse, what);
    const structure = quoteText(types.map((type, i) => `k${i} ${type}`).join(', '));
    for (const lines of pieces(keys)) {
      // A list of tuples takes ClickHouse a hundred times as long to read.
      const list = `SELECT * FROM format(TabSeparated, ${structure}, ${lines})`;
      const sql = `SELECT ${columns} FROM ${rows} WHERE (${by}) IN (${list}) ORDER BY ${first} LIMIT 1 BY ${by}`;
      const answer = await clickhouse.tsv(sql, { settings: lengthOf(sql) });
      for (const line of answer.toString('utf8').split('\n')) {
        if (line === '') continue;
        const row = line.split('\t');
        found.set(keyId(row.slice(0, names.length)), row.slice(names.length));
      }
    }
    return found;
  };
}

/** The keys as literals of TSV, as many at once as a statement may hold. No key is longer than that (`longestKey`). */
function* pieces(keys: readonly string[][]): Generator<string> {
  let lines = '';
  let bytes = 0;
  for (const key of keys) {
    const line = `${key.join('\t')}\n`;
    const size = Buffer.byteLength(quoteText(line));
    if (bytes + size > bytesAtOnce && bytes > 0) {
      yield quoteText(lines);
      lines = '';
      bytes = 0;
    }
    lines += line;
    bytes += size;
  }
  if (bytes > 0) yield quoteText(lines);
}

/**
 * Where the rows of a copy are, the types of their keys, and which of several of one key comes first: the newest. A copy without a key
 * holds what happened, and its rows bear no version: there it is the first by its values, which is the same one each time.
 */
async function rowsOf(clickhouse: ClickHouse, { asset, keys, fields }: LookedUp) {
  const { [asset]: declared = {} } = await columnTypes(clickhouse, [asset]);
  const types = keys.map((name) => declared[name] ?? 'String');
  if (!('_sign' in declared)) {
    return { rows: `${clickhouse.name(asset)} AS _r FINAL`, types, first: '_r._version DESC' };
  }
  const columns = [...new Set([...keys, ...fields])].map((name) => ({ name }));
  return {
    rows: `(${multisetRows(clickhouse, { asset_id: asset, columns })}) AS _r`,
    types,
    first: fields.map((name) => `_r.${quoteName(name)}`).join(', '),
  };
}
