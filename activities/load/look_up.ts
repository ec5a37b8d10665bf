/** Looking up rows of a copy by values of some of its columns: for rules that join. */
import { keyId, type LookedUp, type LookUp } from '../transform/join.ts';
import { type ClickHouse, quoteName } from './clickhouse.ts';
import { multisetRows } from './multiset.ts';
import { columnTypes } from './tables.ts';

/** Keys that are asked for in one statement. */
const keysAtOnce = 500;

/** Looks up one row of each key. Errors: those of the sink; text that is no UTF-8 comes with marks in its place. */
export function lookUpIn(clickhouse: ClickHouse): LookUp {
  return async (what, keys) => {
    const { keys: names, fields } = what;
    const found = new Map<string, string[]>();
    const by = names.map(quoteName).join(', ');
    const columns = [...names, ...fields].map((name) => `_r.${quoteName(name)}`).join(', ');
    const { rows, first } = await rowsOf(clickhouse, what);
    for (let from = 0; from < keys.length; from += keysAtOnce) {
      const list = keys.slice(from, from + keysAtOnce).map(tuple);
      const answer = await clickhouse.tsv(
        `SELECT ${columns} FROM ${rows} WHERE (${by}) IN (${list.join(', ')}) ORDER BY ${first} LIMIT 1 BY ${by}`,
      );
      for (const line of answer.toString('utf8').split('\n')) {
        if (line === '') continue;
        const row = line.split('\t');
        found.set(keyId(row.slice(0, names.length)), row.slice(names.length));
      }
    }
    return found;
  };
}

/**
 * Where the rows of a copy are, and which of several of one key comes first: the newest. A copy without a key holds what happened,
 * and its rows bear no version: there it is the first by its values, which is the same one each time.
 */
async function rowsOf(clickhouse: ClickHouse, { asset, keys, fields }: LookedUp) {
  const { [asset]: types = {} } = await columnTypes(clickhouse, [asset]);
  if (!('_sign' in types)) return { rows: `${clickhouse.name(asset)} AS _r FINAL`, first: '_r._version DESC' };
  const columns = [...new Set([...keys, ...fields])].map((name) => ({ name }));
  return {
    rows: `(${multisetRows(clickhouse, { asset_id: asset, columns })}) AS _r`,
    first: fields.map((name) => `_r.${quoteName(name)}`).join(', '),
  };
}

/** TSV's escapes are those of a literal, but for the quote. */
function tuple(key: string[]): string {
  return `(${key.map((field) => `'${field.replaceAll("'", "\\'")}'`).join(', ')})`;
}
