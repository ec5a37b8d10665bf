/** Looking up rows of a copy by values of some of its columns: for rules that join. */
import { keyId, type LookUp } from '../transform/join.ts';
import { type ClickHouse, quoteName } from './clickhouse.ts';

/** Keys that are asked for in one statement. */
const keysAtOnce = 500;

/** Looks up the newest row of each key. Errors: those of the sink; text that is no UTF-8 comes with marks in its place. */
export function lookUpIn(clickhouse: ClickHouse): LookUp {
  return async ({ asset, keys: names, fields }, keys) => {
    const found = new Map<string, string[]>();
    const by = names.map(quoteName).join(', ');
    const columns = [...names, ...fields].map((name) => `_r.${quoteName(name)}`).join(', ');
    for (let from = 0; from < keys.length; from += keysAtOnce) {
      const list = keys.slice(from, from + keysAtOnce).map(tuple);
      const answer = await clickhouse.tsv(
        `SELECT ${columns} FROM ${clickhouse.name(asset)} AS _r FINAL WHERE (${by}) IN (${list.join(', ')})
         ORDER BY _r._version DESC LIMIT 1 BY ${by}`,
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

/** TSV's escapes are those of a literal, but for the quote. */
function tuple(key: string[]): string {
  return `(${key.map((field) => `'${field.replaceAll("'", "\\'")}'`).join(', ')})`;
}
