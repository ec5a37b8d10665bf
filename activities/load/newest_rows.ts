/** Looking up rows of a copy by key. */
import { copyName, keyColumns, type TableSchema, withCopiedValues } from '../../model/table.ts';
import { type ClickHouse, quoteName } from './clickhouse.ts';
import type { NewestRow } from './sink.ts';
import { keyOf, unescapeField } from './tsv.ts';

/** Keys that are asked for in one statement. */
const keysAtOnce = 500;

/** See Sink.newestRows. */
export async function newestRows(
  clickhouse: ClickHouse,
  table: TableSchema,
  keys: string[],
): Promise<Map<string, NewestRow>> {
  const found = new Map<string, NewestRow>();
  if (keys.length === 0 || (await hasRejects(clickhouse, table))) return found;
  const key = keyColumns(table).map((column) => quoteName(column.name));
  // A value that a rule has put in its place is not the source's.
  const copied = new Set(withCopiedValues(table).columns);
  const columns = table.columns.map((column) => (copied.has(column) ? quoteName(column.name) : "''"));
  for (let from = 0; from < keys.length; from += keysAtOnce) {
    const list = keys.slice(from, from + keysAtOnce).map((one) => keyLiteral(table, one));
    // Not FINAL: that would leave tombstones out.
    const answer = await clickhouse.tsv(
      `SELECT ${columns.join(', ')}, _version, _deleted FROM ${clickhouse.name(copyName(table))}
       WHERE (${key.join(', ')}) IN (${list.join(', ')}) ORDER BY _version DESC LIMIT 1 BY ${key.join(', ')}
       SETTINGS output_format_decimal_trailing_zeros = 1`,
    );
    for (const line of answer.toString('latin1').split('\n')) {
      if (line === '') continue;
      const fields = line.split('\t');
      const deleted = fields.pop() === '1';
      const version = fields.pop()!;
      found.set(keyOf(table, fields), { fields, version, deleted });
    }
  }
  return found;
}

/** True when the copy may lack a change for good, or for now: its rows are then not what the source had. */
async function hasRejects(clickhouse: ClickHouse, table: TableSchema): Promise<boolean> {
  const rows = await clickhouse.rows(
    `SELECT 1 FROM ${clickhouse.name('_rejects')} FINAL WHERE asset = {asset:String} AND state IN ('open', 'discarded') LIMIT 1`,
    { params: { asset: table.asset_id } },
  );
  return rows.length > 0;
}

/** A key's TSV fields as a tuple of literals; their types follow from the columns that they are compared with. */
function keyLiteral(table: TableSchema, key: string): string {
  const columns = keyColumns(table);
  const literals = key.split('\t').map((field, i) => {
    if (columns[i]!.encoding === 'bytea') return `unhex('${unescapeField(field).toString('hex')}')`;
    return `'${Buffer.from(field, 'latin1').toString('utf8').replaceAll("'", "\\'")}'`;
  });
  return `(${literals.join(', ')})`;
}
