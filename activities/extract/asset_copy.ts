/** The copy that a deployment of assets fills: its table, and the versions of its rows. */
import type { Column, TableSchema } from '../../model/table.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';

/** With the type of PostgreSQL whose texts its values have: as which rules see them. */
const types: [name: string, type: string, seenAs: string][] = [
  ['id', 'String', 'text'],
  ['name', 'Nullable(String)', 'text'],
  ['kind', 'LowCardinality(Nullable(String))', 'text'],
  ['value', 'Nullable(Decimal(38, 10))', 'numeric(38,10)'],
  ['updated_at', "Nullable(DateTime64(9, 'UTC'))", 'timestamp with time zone'],
];

/** The copy of a deployment; its table bears the deployment's name. */
export function assetTable(deployment: string): TableSchema {
  return { asset_id: deployment, schema: '', table: deployment, oid: 0, relfilenode: 0, identity: 'full', columns };
}

const columns: Column[] = types.map(([name, clickhouse, type], index) => ({
  attnum: index + 1,
  name,
  type,
  typeOid: 0,
  typmod: -1,
  notNull: name === 'id',
  key: name === 'id',
  encoding: 'text',
  clickhouse,
}));

/** Bits of a version that count rows; above them the run's start in milliseconds, above those the asset's own instant. */
const rowBits = 22n;

/** Columns of the copy that a file's columns go into, in the file's order. */
export const loadedColumns = ['id', 'name', 'kind', 'value', 'updated_at', '_deleted', '_version'] as const;

/**
 * The part of a version below the asset's `updated_at` (64 bits of nanoseconds): of two reads of one asset with the same
 * instant, that of the later run stands, and in a run the later row. `started`: milliseconds since 1970.
 */
function runVersion(started: number, row: number): bigint {
  return (BigInt(started) << rowBits) + BigInt(Math.min(row, 2 ** Number(rowBits) - 1));
}

/** The whole version of a row. */
export function assetVersion(updated: bigint, started: number, row: number): bigint {
  return (updated << 64n) + runVersion(started, row);
}

/** What a version says: the asset's own instant in nanoseconds since 1970, and when its run started, in milliseconds. */
export function explainAssetVersion(version: bigint): { updated: bigint; started: number } {
  return { updated: version >> 64n, started: Number((version & (2n ** 64n - 1n)) >> rowBits) };
}

/** Makes the copy's table. Files do not hold when a row was committed: that is when the asset was updated. */
export async function makeAssetCopy(sink: ClickHouseSink, table: TableSchema): Promise<void> {
  const { clickhouse } = sink;
  const { targets, ...bare } = table;
  await sink.createCopy(bare);
  // Rows from before have NULL there, until they are pulled again.
  if (targets) await sink.alterCopy(table);
  await clickhouse.command(
    `ALTER TABLE ${clickhouse.name(table.asset_id)} MODIFY COLUMN _committed_at DateTime64(6, 'UTC') DEFAULT assumeNotNull(updated_at)`,
  );
}
