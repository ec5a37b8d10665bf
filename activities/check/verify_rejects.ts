/** Rows that are held back: they are no difference that anybody needs to be told of as one. */
import { SluiceError } from '../../model/errors.ts';
import { type TableSchema, tableName } from '../../model/table.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { overtaken, rejectKeyId } from '../load/overtaken.ts';

/** Rows held back of one table that memory has room for. */
const limit = 1_000_000;

/**
 * Versions of changes that are not in the copy, by the `keyId` of their row: they are held back, or somebody has discarded
 * them. That holds until the row changes again. Errors: `conflict` when they are far too many.
 */
export async function heldVersions(clickhouse: ClickHouse, table: TableSchema): Promise<Map<string, bigint>> {
  const [there] = await clickhouse.rows(
    'SELECT 1 FROM system.tables WHERE database = {database:String} AND name = {name:String}',
    { params: { database: clickhouse.database, name: '_rejects' } },
  );
  if (!there) return new Map();
  const held = await clickhouse.rows<{ key: string; version: string }>(
    `SELECT key, toString(max(r.version)) AS version FROM ${clickhouse.name('_rejects')} AS r FINAL
     WHERE asset = {asset:String} AND state IN ('open', 'discarded') GROUP BY key LIMIT ${limit}`,
    { params: { asset: table.asset_id } },
  );
  if (held.length === limit) {
    const reason = `${limit} rows of the table ${tableName(table)} are held back, or more: too many to tell them from differences`;
    const remedy = `Release or discard them (sluice rejects list --asset ${table.asset_id}), then compare again.`;
    throw new SluiceError('conflict', reason, remedy, { table: tableName(table) });
  }
  const past = await overtaken(clickhouse, table, held);
  return new Map(
    held.filter((one) => !past.has(one)).map(({ key, version }) => [rejectKeyId(table, key), BigInt(version)]),
  );
}
