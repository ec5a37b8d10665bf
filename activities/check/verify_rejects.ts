/** Rows that are held back: they are no difference that anybody needs to be told of as one. */
import { keyColumns, type TableSchema } from '../../model/table.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { keyTextOfOutput } from './verify_keys.ts';
import { keyId } from './verify_sides.ts';

/** More open rejects than that are not told apart from differences. */
const limit = 100_000;

/** Versions of open rejects by the `keyId` of their row. */
export async function openRejects(clickhouse: ClickHouse, table: TableSchema): Promise<Map<string, bigint>> {
  const [there] = await clickhouse.rows(
    'SELECT 1 FROM system.tables WHERE database = {database:String} AND name = {name:String}',
    { params: { database: clickhouse.database, name: '_rejects' } },
  );
  if (!there) return new Map();
  const rows = await clickhouse.rows<{ key: string; newest: string }>(
    `SELECT key, toString(max(version)) AS newest FROM ${clickhouse.name('_rejects')} FINAL
     WHERE asset = {asset:String} AND state = 'open' GROUP BY key LIMIT ${limit}`,
    { params: { asset: table.asset_id } },
  );
  return new Map(rows.map((row) => [rejectKeyId(table, row.key), BigInt(row.newest)]));
}

/** The `keyId` of a reject's row; its key is a JSON object of the texts that the source printed. */
export function rejectKeyId(table: TableSchema, json: string): string {
  const texts = JSON.parse(json) as Record<string, string | null>;
  return keyId(keyColumns(table).map((column) => keyTextOfOutput(column, texts[column.name] ?? '')));
}
