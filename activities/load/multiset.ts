/**
 * Copies of tables without a key. Their rows are told apart by nothing but their values, so that nothing can be replaced:
 * the copy is what happened, and rows are counted. Every row has a sign: an INSERT is +1, a DELETE is -1 with the old
 * values, an UPDATE is both. What was written twice is one row all the same, by `_version`, `_origin`, `_row` and `_sign`.
 *
 * The first rows come from one reading of the table. Its snapshot saw some of the transactions that the stream brings
 * too, and not others. They are not left out of the stream, which may have brought them long before: whoever reads the
 * copy leaves them out. Rows with sign 0 say which:
 *
 * - of a reading that is complete: at the version of the position up to which its snapshot can have seen commits, one row
 *   for each transaction that was open then, and one for the first that had not begun, which is the highest. Of several
 *   readings any one will do, since each is complete by itself. So one that died is in nobody's way.
 * - of a TRUNCATE: nothing below its version counts, unless the snapshot has seen it.
 */
import { randomBytes } from 'node:crypto';
import { copyName, type TableSchema } from '../../model/table.ts';
import { type ClickHouse, quoteName } from './clickhouse.ts';

/**
 * `_origin`: the transaction (32 bits) that a streamed row came with, or the reading of a row of the snapshot. `_row`: number
 * within the reading; of a row with sign 0 a transaction.
 */
export const multisetColumns = ['_origin', '_sign', '_row'] as const;

/** One reading of a whole table by one snapshot. */
export interface Reading {
  /** As in `newReading`. */
  origin: string;
  /** Version that is above those of all transactions that the snapshot can have seen; decimal text. */
  version: string;
  /** Transactions (64 bits, decimal text) that were open when it was taken, and the first that had not begun. */
  unseen: string[];
}

/** Origins of readings begin here: those below are transactions. */
const firstReading = 2 ** 32;

/** A number that no other reading has. */
export function newReading(): string {
  return String((randomBytes(8).readBigUInt64BE() >> 1n) | (1n << 62n));
}

/** Says that all rows of a reading are written. From here on the copy shows rows. Again changes nothing. */
export async function completeReading(
  clickhouse: ClickHouse,
  table: TableSchema,
  { origin, version, unseen }: Reading,
  { committedAt, queryId }: { committedAt: string; queryId: string },
): Promise<void> {
  const rows = unseen.map((xid) => marker(version, origin, xid));
  await insertMarkers(clickhouse, table, rows, committedAt, queryId);
}

/** Nothing below `version` counts any more. */
export async function truncateMultiset(
  clickhouse: ClickHouse,
  table: TableSchema,
  at: { version: string; committedAt: string; queryId: string; xid: number },
): Promise<void> {
  await insertMarkers(clickhouse, table, [marker(at.version, String(at.xid), '0')], at.committedAt, at.queryId);
}

function marker(version: string, origin: string, row: string): string {
  return `(toUInt128('${BigInt(version)}'), ${BigInt(origin)}, ${BigInt(row)}, 0, 0, toDateTime64({committed:String}, 6, 'UTC'))`;
}

/** One statement, and so one block: all of them are there, or none. */
async function insertMarkers(
  clickhouse: ClickHouse,
  table: TableSchema,
  rows: string[],
  committedAt: string,
  queryId: string,
): Promise<void> {
  await clickhouse.command(
    `INSERT INTO ${clickhouse.name(copyName(table))} (_version, _origin, _row, _sign, _deleted, _committed_at) ` +
      `SELECT t.1, t.2, t.3, t.4, t.5, t.6 FROM (SELECT arrayJoin([${rows.join(', ')}]) AS t)`,
    { params: { committed: committedAt }, queryId },
  );
}

/**
 * A SELECT of the rows that the table has, each as often as there, with these columns of them. Shows nothing before a reading is
 * complete.
 *
 * Transactions are compared by their lower 32 bits, as the log has them: between a table's start and the end of its
 * reading there are fewer than 2^31 of them.
 */
export function multisetRows(
  clickhouse: ClickHouse,
  table: Pick<TableSchema, 'asset_id' | 'copy'> & { columns: readonly { name: string }[] },
): string {
  const copy = clickhouse.name(copyName(table));
  // Names with the table before them are never taken for those of answers, whatever columns are called.
  const reading = `(SELECT max((_m._version, _m._origin)) FROM ${copy} AS _m WHERE _m._sign = 0 AND _m._origin >= ${firstReading})`;
  const unseen = `(SELECT groupArray(_m._row) FROM ${copy} AS _m WHERE _m._sign = 0 AND (_m._version, _m._origin) = ${reading})`;
  const seen = (row: string) =>
    `(${row}._origin > 0 AND ${row}._version < ${reading}.1 ` +
    `AND bitAnd(arrayMax(arrayPushBack(${unseen}, 0)) - ${row}._origin, ${2 ** 32 - 1}) BETWEEN 1 AND ${2 ** 31 - 1} ` +
    `AND NOT has(arrayMap(x -> bitAnd(x, ${2 ** 32 - 1}), ${unseen}), ${row}._origin))`;
  const streamed = (row: string) => `${row}._origin < ${firstReading} AND NOT ${seen(row)}`;
  const since = `(SELECT max(_m._version) FROM ${copy} AS _m WHERE _m._sign = 0 AND ${streamed('_m')})`;
  const columns = table.columns.map((column) => quoteName(column.name));
  // Numbers are grouped by their bits: two that are not equal to themselves are alike, and the two zeros are not.
  return (
    `SELECT ${columns.join(', ')} FROM (` +
    `SELECT ${columns.map((name) => `_r.${name} AS ${name}`).join(', ')}, sum(_r._sign) AS _sign FROM ${copy} AS _r FINAL ` +
    `WHERE _r._sign != 0 AND ${reading}.2 != 0 AND _r._version >= ${since} ` +
    `AND (_r._origin = ${reading}.2 OR (${streamed('_r')})) ` +
    `GROUP BY ${columns.map((name) => `_r.${name}`).join(', ')} HAVING _sign > 0) ARRAY JOIN range(toUInt64(_sign)) AS _row`
  );
}
