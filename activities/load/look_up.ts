/** Looking up rows of a copy by values of some of its columns: for rules that join. */
import { keyId, type LookedUp, type LookUp } from '../transform/join.ts';
import { type ClickHouse, lengthOf, quoteName } from './clickhouse.ts';
import { keyLists } from './key_lists.ts';
import { multisetRows } from './multiset.ts';
import { columnTypes } from './tables.ts';

/** Looks up one row of each key. Errors: those of the sink; text that is no UTF-8 comes with marks in its place. */
export function lookUpIn(clickhouse: ClickHouse): LookUp {
  return async (what, keys) => {
    const { keys: names, fields } = what;
    const found = new Map<string, string[]>();
    const by = names.map(quoteName).join(', ');
    const columns = [...names, ...fields].map((name) => `_r.${quoteName(name)}`).join(', ');
    const { rows, first, types } = await rowsOf(clickhouse, what);
    for (const list of keyLists(keys, types)) {
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
