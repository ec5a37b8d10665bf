/** The copy that a deployment of assets fills: its table, and how rows of CSV files become its rows. */
import type { Column, TableSchema } from '../../model/table.ts';
import { type ClickHouse, quoteName, quoteText } from '../load/clickhouse.ts';
import { copyColumns } from '../load/tables.ts';

const types: [name: string, type: string][] = [
  ['id', 'String'],
  ['name', 'Nullable(String)'],
  ['kind', 'LowCardinality(Nullable(String))'],
  ['value', 'Nullable(Decimal(38, 10))'],
  ['updated_at', "Nullable(DateTime64(9, 'UTC'))"],
];

/** The copy of a deployment; its table bears the deployment's name. */
export function assetTable(deployment: string): TableSchema {
  return { asset_id: deployment, schema: '', table: deployment, oid: 0, relfilenode: 0, identity: 'full', columns };
}

const columns: Column[] = types.map(([name, clickhouse], index) => ({
  attnum: index + 1,
  name,
  type: 'text',
  typeOid: 0,
  typmod: -1,
  notNull: name === 'id',
  key: name === 'id',
  encoding: 'text',
  clickhouse,
}));

/** Bits of a version that count rows; above them the run's start in milliseconds, above those the asset's own instant. */
const rowBits = 22n;

/**
 * The part of a version below the asset's `updated_at` (64 bits of nanoseconds): of two reads of one asset with the same
 * instant, that of the later run stands, and in a run the later row. `started`: milliseconds since 1970.
 */
export function runVersion(started: number, row: number): bigint {
  const most = (1n << rowBits) - 1n;
  const index = BigInt(row);
  return (BigInt(started) << rowBits) + (index > most ? most : index);
}

/** The whole version of a row. */
export function assetVersion(updated: bigint, started: number, row: number): bigint {
  return (updated << 64n) + runVersion(started, row);
}

/** The INSERT that takes rows of a file as they are; `row` is the number of the first one. */
export function insertCsvSql(clickhouse: ClickHouse, table: TableSchema, started: number, row: number): string {
  const structure =
    "id String, name Nullable(String), kind Nullable(String), value Nullable(Decimal(38, 10)), updated_at DateTime64(9, 'UTC'), deleted Bool";
  const version = `bitShiftLeft(toUInt128(toUnixTimestamp64Nano(updated_at)), 64) + toUInt128('${runVersion(started, row)}') + rowNumberInAllBlocks()`;
  return (
    `INSERT INTO ${clickhouse.name(table.asset_id)} (${copyColumns(table).map(quoteName).join(', ')}) ` +
    `SELECT id, name, kind, value, updated_at, ${version}, deleted, toDateTime64(updated_at, 6, 'UTC') ` +
    `FROM input(${quoteText(structure)}) FORMAT CSV`
  );
}

/** What the CSV of `csvLine` needs to be read as it is meant. */
export const csvSettings = {
  date_time_input_format: 'best_effort',
  input_format_csv_empty_as_default: 0,
  input_format_csv_trim_whitespaces: 0,
  input_format_csv_use_best_effort_in_schema_inference: 0,
  format_csv_null_representation: '\\N',
  // Row numbers follow the file.
  input_format_parallel_parsing: 0,
  max_insert_threads: 1,
} as const;
