/** The copy's table in ClickHouse, made from the source table's schema. */
import { SluiceError } from '../../model/errors.ts';
import { keyColumns, type TableSchema } from '../../model/table.ts';
import { type ClickHouse, quoteName } from './clickhouse.ts';

/** Columns of Sluice's own behind the source's. */
export const ownColumns = ['_version', '_deleted', '_committed_at'] as const;

/**
 * What an acknowledged insert needs to outlive a power loss. Without it the engine detaches a part that lost its bytes,
 * and rows are gone without an error.
 */
export const durable =
  'fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1';

/** Names of all columns of the copy, in the order in which blocks hold them. */
export function copyColumns(table: TableSchema): string[] {
  return [...table.columns.map((column) => column.name), ...ownColumns];
}

function definition(clickhouse: ClickHouse, table: TableSchema): string {
  const columns = table.columns.map((column) => `  ${quoteName(column.name)} ${column.clickhouse}`);
  columns.push('  `_version` UInt128', '  `_deleted` UInt8', "  `_committed_at` DateTime64(6, 'UTC')");
  const key = keyColumns(table).map((column) => quoteName(column.name));
  return (
    `CREATE TABLE IF NOT EXISTS ${clickhouse.name(table.asset_id)} (\n${columns.join(',\n')}\n)\n` +
    `ENGINE = ReplacingMergeTree(_version, _deleted)\nORDER BY (${key.join(', ')})\nSETTINGS ${durable}`
  );
}

/**
 * Makes the copy's table and its view without tombstones, when they are not there. One that is there must fit.
 * Errors: `table_changed` when it has other columns.
 */
export async function createCopy(clickhouse: ClickHouse, table: TableSchema): Promise<void> {
  await clickhouse.command(definition(clickhouse, table));
  const different = await copyDifference(clickhouse, table);
  if (different !== undefined) {
    throw new SluiceError(
      'table_changed',
      `the copy ${table.asset_id} in ClickHouse does not fit the table: ${different}`,
      `Rename or drop ${clickhouse.database}.${table.asset_id}, then re-sync the table.`,
      { table: table.asset_id },
    );
  }
  const names = table.columns.map((column) => quoteName(column.name)).join(', ');
  await clickhouse.command(
    `CREATE VIEW IF NOT EXISTS ${clickhouse.name(`${table.asset_id}_current`)} AS SELECT ${names} FROM ${clickhouse.name(table.asset_id)} FINAL`,
  );
}

/**
 * What about the copy's columns or key is not as the table needs it; undefined when all fits. `exactly`: columns that the
 * table has no more are a difference too.
 */
export async function copyDifference(
  clickhouse: ClickHouse,
  table: TableSchema,
  exactly = false,
): Promise<string | undefined> {
  const found = await clickhouse.rows<{ name: string; type: string; is_in_sorting_key: number; default_kind: string }>(
    'SELECT name, type, is_in_sorting_key, default_kind FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position',
    { params: { database: clickhouse.database, table: table.asset_id } },
  );
  const types = new Map(found.map((column) => [column.name, column]));
  for (const column of table.columns) {
    const there = types.get(column.name);
    if (!there) return `it has no column ${column.name}`;
    if (squeeze(there.type) !== squeeze(column.clickhouse))
      return `${column.name} is ${there.type} there, and ${column.clickhouse} is needed`;
    if (Boolean(Number(there.is_in_sorting_key)) !== column.key) return `the key is another (${column.name})`;
    types.delete(column.name);
  }
  for (const own of ownColumns) types.delete(own);
  for (const { name, default_kind } of exactly ? types.values() : [])
    if (default_kind === '') return `its column ${name} is not in the table`;
  return undefined;
}

function squeeze(type: string): string {
  return type.replaceAll(' ', '');
}

/** Drops the copy and its view. */
export async function dropCopy(clickhouse: ClickHouse, assetId: string): Promise<void> {
  await clickhouse.command(`DROP VIEW IF EXISTS ${clickhouse.name(`${assetId}_current`)}`);
  await clickhouse.command(`DROP TABLE IF EXISTS ${clickhouse.name(assetId)} SYNC`);
}

/**
 * Writes a tombstone with version `version` for every key whose row is older: what a TRUNCATE or the end of a snapshot
 * means. Never a DELETE: parts that arrive late would bring rows back. Returns when it is durable.
 */
export async function sweepBelow(
  clickhouse: ClickHouse,
  table: TableSchema,
  version: string,
  committedAt: string,
  queryId: string,
): Promise<void> {
  const key = keyColumns(table).map((column) => quoteName(column.name));
  const name = clickhouse.name(table.asset_id);
  // Under FINAL a condition on the version must be a WHERE: PREWHERE would show superseded rows.
  await clickhouse.command(
    `INSERT INTO ${name} (${[...key, ...ownColumns].join(', ')}) ` +
      `SELECT ${key.join(', ')}, toUInt128('${BigInt(version)}'), 1, toDateTime64({committed:String}, 6, 'UTC') ` +
      `FROM ${name} FINAL WHERE _version < toUInt128('${BigInt(version)}') SETTINGS optimize_move_to_prewhere = 0, optimize_move_to_prewhere_if_final = 0`,
    { params: { committed: committedAt }, queryId },
  );
}
