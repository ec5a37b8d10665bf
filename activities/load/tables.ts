/** The copy's table in ClickHouse, made from the source table's schema. */
import { SluiceError } from '../../model/errors.ts';
import type { JoinedTypes } from '../../model/rules.ts';
import {
  type CopyColumn,
  copiedColumns,
  copyName,
  isBeside,
  isMultiset,
  keyColumns,
  sideCopyName,
  type TableSchema,
} from '../../model/table.ts';
import { type ClickHouse, quoteName, quoteText } from './clickhouse.ts';
import { multisetColumns, multisetRows, truncateMultiset } from './multiset.ts';
import { unescapeField } from './tsv.ts';

/** Columns of Sluice's own behind the source's. */
export const ownColumns = ['_version', '_deleted', '_committed_at'] as const;

/**
 * What an acknowledged insert needs to outlive a power loss. Without it the engine detaches a part that lost its bytes,
 * and rows are gone without an error.
 */
export const durable =
  'fsync_after_insert = 1, fsync_part_directory = 1, min_rows_to_fsync_after_merge = 1, min_compressed_bytes_to_fsync_after_merge = 1';

/** Counting default values, to store columns that have few others sparsely, costs a twentieth of an insert, and spares no bytes. */
const settings = `${durable}, ratio_of_defaults_for_sparse_serialization = 1`;

/** Those that a table's copy has, in the order in which blocks hold them. */
export function ownColumnsOf(table: TableSchema): string[] {
  return isMultiset(table) ? [...ownColumns, ...multisetColumns] : [...ownColumns];
}

/** Names of all columns of the copy, in the order in which blocks hold them. */
export function copyColumns(table: TableSchema): string[] {
  return [...copiedColumns(table).map((column) => column.name), ...ownColumnsOf(table)];
}

/** One column as ClickHouse declares it; rows from before it came show its initial value. */
function declare(column: CopyColumn): string {
  const initial = column.initial === undefined ? '' : ` DEFAULT ${literal(column.initial, column.clickhouse)}`;
  return `${quoteName(column.name)} ${column.clickhouse}${initial}`;
}

/** A TSV field as a literal of a type, whatever bytes it holds. */
function literal(field: string, type: string): string {
  return `CAST(unhex('${unescapeField(field).toString('hex')}') AS ${type})`;
}

function definition(clickhouse: ClickHouse, table: TableSchema): string {
  const columns = copiedColumns(table).map((column) => `  ${declare(column)}`);
  columns.push('  `_version` UInt128', '  `_deleted` UInt8', "  `_committed_at` DateTime64(6, 'UTC')");
  if (isMultiset(table)) columns.push('  `_origin` UInt64', '  `_sign` Int8', '  `_row` UInt64');
  // A late row of the copy before must not come into this one: nothing in it would overtake that row.
  const { from } = table.copy ?? {};
  if (from !== undefined) columns.push(`  CONSTRAINT since_start CHECK _version >= toUInt128('${BigInt(from)}')`);
  const key = isMultiset(table)
    ? ['_version', '_origin', '_row', '_sign']
    : keyColumns(table).map((column) => quoteName(column.name));
  return (
    `CREATE TABLE IF NOT EXISTS ${clickhouse.name(copyName(table))} (\n${columns.join(',\n')}\n)\n` +
    `ENGINE = ReplacingMergeTree(_version, _deleted)\nORDER BY (${key.join(', ')})\nSETTINGS ${settings}` +
    (from === undefined ? '' : `\nCOMMENT ${quoteText(mark(from, copyName(table)))}`)
  );
}

/** Types of the columns of copies by name, by asset; those that are not there are left out. */
export async function columnTypes(clickhouse: ClickHouse, assets: string[]): Promise<JoinedTypes> {
  if (assets.length === 0) return {};
  const found = await clickhouse.rows<{ asset: string; name: string; type: string }>(
    'SELECT table AS asset, name, type FROM system.columns WHERE database = {database:String} AND table IN {assets:Array(String)} ORDER BY table, position',
    { params: { database: clickhouse.database, assets } },
  );
  const types: JoinedTypes = {};
  for (const { asset, name, type } of found) {
    types[asset] ??= Object.create(null) as Record<string, string>;
    types[asset][name] = type;
  }
  return types;
}

/**
 * Comment of a copy that was made beside an old one, as table `side`: tells, after a crash, whether it has taken that one's place. Two
 * copies may begin at the same version, but none bears the name of another.
 */
function mark(from: string, side: string): string {
  return `rows from version ${from} on, made as ${side}`;
}

/**
 * Makes the copy's table and its view without tombstones, when they are not there. One that is there must fit; a copy
 * beside the old one has no view before it takes that one's place. Errors: `table_changed` when it has other columns.
 */
export async function createCopy(clickhouse: ClickHouse, table: TableSchema): Promise<void> {
  await clickhouse.command(definition(clickhouse, table));
  if (isBeside(table)) await expectOwn(clickhouse, table);
  const different = await copyDifference(clickhouse, table);
  if (different !== undefined) {
    const name = copyName(table);
    throw new SluiceError(
      'table_changed',
      `the copy ${name} in ClickHouse does not fit the table: ${different}`,
      `Rename or drop ${clickhouse.database}.${name}, then re-sync the table.`,
      { table: table.asset_id },
    );
  }
  if (!isBeside(table)) await clickhouse.command(`CREATE VIEW IF NOT EXISTS ${view(clickhouse, table)}`);
}

/** A table under the name of a new copy that an earlier try has made, for another beginning, holds what nobody knows. */
async function expectOwn(clickhouse: ClickHouse, table: TableSchema): Promise<void> {
  if ((await commentOf(clickhouse, copyName(table))) === mark(table.copy!.from, copyName(table))) return;
  const reason = `${copyName(table)} was made for another beginning of its table`;
  throw new SluiceError('sink_unreachable', reason, 'It is tried again, under another name.', {
    table: table.asset_id,
  });
}

function view(clickhouse: ClickHouse, table: TableSchema): string {
  if (isMultiset(table)) return `${clickhouse.name(`${table.asset_id}_current`)} AS ${multisetRows(clickhouse, table)}`;
  const names = copiedColumns(table)
    .map((column) => quoteName(column.name))
    .join(', ');
  return `${clickhouse.name(`${table.asset_id}_current`)} AS SELECT ${names} FROM ${clickhouse.name(table.asset_id)} FINAL`;
}

/** What about the copy's columns or key is not as the table needs it; undefined when all fits. */
async function copyDifference(clickhouse: ClickHouse, table: TableSchema): Promise<string | undefined> {
  const found = await columnsOf(clickhouse, copyName(table));
  const types = new Map(found.map((column) => [column.name, column]));
  for (const column of copiedColumns(table)) {
    const there = types.get(column.name);
    if (!there) return `it has no column ${column.name}`;
    if (squeeze(there.type) !== squeeze(column.clickhouse))
      return `${column.name} is ${there.type} there, and ${column.clickhouse} is needed`;
    if (Boolean(Number(there.is_in_sorting_key)) !== column.key) return `the key is another (${column.name})`;
  }
  const lacking = ownColumnsOf(table).find((name) => !types.has(name));
  if (lacking) return `it has no column ${lacking}`;
  return undefined;
}

interface FoundColumn {
  name: string;
  type: string;
  is_in_sorting_key: number;
}

function columnsOf(clickhouse: ClickHouse, table: string): Promise<FoundColumn[]> {
  return clickhouse.rows<FoundColumn>(
    'SELECT name, type, is_in_sorting_key FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position',
    { params: { database: clickhouse.database, table } },
  );
}

/**
 * Alters the copy's table and view to have the columns of the table: renames by what columns were called before, adds with
 * the value that rows from before show, drops what the table had and has no more, widens types. What is done already
 * is left out, so that it may run again after a crash. Parts are rewritten later; readers see it at once.
 */
export async function alterCopy(clickhouse: ClickHouse, table: TableSchema): Promise<void> {
  const name = copyName(table);
  const commands = alterations(table, await columnsOf(clickhouse, name));
  if (commands.length > 0) {
    await clickhouse.command(
      `ALTER TABLE ${clickhouse.name(name)} ${commands.join(', ')} SETTINGS alter_sync = 0, mutations_sync = 0`,
    );
  }
  if (!isBeside(table)) await clickhouse.command(`CREATE OR REPLACE VIEW ${view(clickhouse, table)}`);
}

function alterations(table: TableSchema, found: FoundColumn[]): string[] {
  const types = new Map(found.map((column) => [column.name, column.type]));
  const former = table.former ?? [];
  const commands: string[] = [];
  const wanted = copiedColumns(table);
  for (const column of wanted) {
    const before = former.find(
      ({ attnum, name }) => attnum === column.attnum && name !== column.name && types.has(name),
    );
    if (!types.has(column.name) && before) {
      commands.push(`RENAME COLUMN ${quoteName(before.name)} TO ${quoteName(column.name)}`);
      types.set(column.name, types.get(before.name)!);
    }
    const type = types.get(column.name);
    if (type === undefined) commands.push(`ADD COLUMN IF NOT EXISTS ${declare(column)}`);
    else if (squeeze(type) !== squeeze(column.clickhouse))
      commands.push(`MODIFY COLUMN ${quoteName(column.name)} ${column.clickhouse}`);
  }
  const kept = new Set(table.columns.map((column) => column.attnum));
  const gone = new Set(former.filter((column) => !kept.has(column.attnum)).map((column) => column.name));
  // A rule may fill a column that is called as one which is gone.
  for (const { name } of wanted) gone.delete(name);
  for (const name of gone) if (types.has(name)) commands.push(`DROP COLUMN IF EXISTS ${quoteName(name)}`);
  return commands;
}

/**
 * Puts the copy that was made as table `side` in the old one's place, for all readers at once, and drops the old one. May
 * run again after a crash.
 */
export async function replaceCopy(clickhouse: ClickHouse, table: TableSchema, side: string): Promise<void> {
  const [here, there] = [clickhouse.name(table.asset_id), clickhouse.name(side)];
  const comment = await commentOf(clickhouse, table.asset_id);
  if (comment === undefined) await clickhouse.command(`RENAME TABLE ${there} TO ${here}`);
  else if (comment !== mark(table.copy!.from, side))
    await exchange(clickhouse, here, there, clickhouse.name(`${side}_old`));
  await clickhouse.command(`CREATE OR REPLACE VIEW ${view(clickhouse, table)}`);
  await clickhouse.command(`DROP TABLE IF EXISTS ${there} SYNC`);
  await clickhouse.command(`DROP TABLE IF EXISTS ${clickhouse.name(`${side}_old`)} SYNC`);
}

/** Databases of some kinds cannot exchange (48): there the name is nobody's for a moment. */
async function exchange(clickhouse: ClickHouse, here: string, there: string, away: string): Promise<void> {
  try {
    await clickhouse.command(`EXCHANGE TABLES ${here} AND ${there}`);
  } catch (error) {
    if ((error as { cause?: { code?: unknown } }).cause?.code !== '48') throw error;
    await clickhouse.command(`RENAME TABLE ${here} TO ${away}, ${there} TO ${here}`);
  }
}

/**
 * Of these copies, which were made beside old ones, the assets of those that have taken their places. The mark tells: a table that
 * is not where it was made, or not as it was made, is no proof.
 */
export async function placedCopies(clickhouse: ClickHouse, tables: TableSchema[]): Promise<Set<string>> {
  const found = await clickhouse.rows<{ name: string; comment: string }>(
    'SELECT name, comment FROM system.tables WHERE database = {database:String} AND name IN {names:Array(String)}',
    { params: { database: clickhouse.database, names: tables.map(({ asset_id }) => asset_id) } },
  );
  const comments = new Map(found.map(({ name, comment }) => [name, comment]));
  const placed = tables.filter((table) => comments.get(table.asset_id) === mark(table.copy!.from, copyName(table)));
  return new Set(placed.map((table) => table.asset_id));
}

/** True when there is a copy under the asset's own name. */
export async function hasCopy(clickhouse: ClickHouse, assetId: string): Promise<boolean> {
  return (await commentOf(clickhouse, assetId)) !== undefined;
}

/**
 * Tables that are in the way of copies that `source` has not begun yet, by name, and what they are: copies of other sources (`c` of
 * the source `a_b` is called as `b_c` of `a` is), or tables with rows that no copy is known by.
 */
export async function tablesOfOthers(clickhouse: ClickHouse, source: string): Promise<Map<string, string>> {
  const rows = await clickhouse.rows<{ name: string; owner: string }>(
    `SELECT t.name AS name, s.owner AS owner FROM system.tables AS t
     LEFT JOIN (
       SELECT asset, argMax(source, source = {source:String}) AS owner FROM ${clickhouse.name('_schemas')} GROUP BY asset
     ) AS s ON s.asset = t.name
     WHERE t.database = {database:String} AND s.owner != {source:String} AND (s.owner != '' OR t.total_rows > 0)`,
    { params: { source, database: clickhouse.database } },
  );
  return new Map(
    rows.map(({ name, owner }) => [
      name,
      owner === '' ? 'holds rows that this source has not written' : `is a copy of the source ${owner}`,
    ]),
  );
}

/** The comment of a table; undefined when it is not there. */
async function commentOf(clickhouse: ClickHouse, table: string): Promise<string | undefined> {
  const [found] = await clickhouse.rows<{ comment: string }>(
    'SELECT comment FROM system.tables WHERE database = {database:String} AND name = {table:String}',
    { params: { database: clickhouse.database, table } },
  );
  return found?.comment;
}

function squeeze(type: string): string {
  return type.replaceAll(' ', '');
}

/** Drops the copy and its view, and what was made beside it. */
export async function dropCopy(clickhouse: ClickHouse, assetId: string): Promise<void> {
  await clickhouse.command(`DROP VIEW IF EXISTS ${clickhouse.name(`${assetId}_current`)}`);
  await clickhouse.command(`DROP TABLE IF EXISTS ${clickhouse.name(assetId)} SYNC`);
  await dropSideCopies(clickhouse, assetId);
}

/** The highest generation of the copies that were made beside this asset's and never took its place; 0 when there is none. */
export async function highestSideCopy(clickhouse: ClickHouse, assetId: string): Promise<number> {
  return Math.max(0, ...(await findSideCopies(clickhouse, assetId)).map(({ generation }) => generation));
}

/** Drops copies that were made beside this asset's and never took its place; `below`: those of earlier generations. */
export async function dropSideCopies(
  clickhouse: ClickHouse,
  assetId: string,
  below = Number.POSITIVE_INFINITY,
): Promise<void> {
  for (const { name, generation } of await findSideCopies(clickhouse, assetId))
    if (generation < below) await clickhouse.command(`DROP TABLE IF EXISTS ${clickhouse.name(name)} SYNC`);
}

async function findSideCopies(
  clickhouse: ClickHouse,
  assetId: string,
): Promise<{ name: string; generation: number }[]> {
  const prefix = sideCopyName(assetId, 0).slice(0, -1);
  const found = await clickhouse.rows<{ name: string }>(
    'SELECT name FROM system.tables WHERE database = {database:String} AND startsWith(name, {prefix:String})',
    { params: { database: clickhouse.database, prefix } },
  );
  return found.flatMap(({ name }) => {
    const generation = name.slice(prefix.length);
    return /^\d+$/.test(generation) ? [{ name, generation: Number(generation) }] : [];
  });
}

/**
 * Writes a tombstone with version `version` for every key whose row is older: what a TRUNCATE or the end of a snapshot
 * means. Never a DELETE: parts that arrive late would bring rows back. Returns when it is durable. `xid`: transaction of
 * the TRUNCATE.
 */
export async function sweepBelow(
  clickhouse: ClickHouse,
  table: TableSchema,
  version: string,
  committedAt: string,
  queryId: string,
  xid = 0,
): Promise<void> {
  if (isMultiset(table)) return truncateMultiset(clickhouse, table, { version, committedAt, queryId, xid });
  const key = keyColumns(table).map((column) => quoteName(column.name));
  const name = clickhouse.name(copyName(table));
  // Most often there is nothing below, and one column without FINAL shows it.
  const older = await clickhouse.rows(`SELECT 1 FROM ${name} WHERE _version < toUInt128('${BigInt(version)}') LIMIT 1`);
  if (older.length === 0) return;
  // Under FINAL a condition on the version must be a WHERE: PREWHERE would show superseded rows.
  await clickhouse.command(
    `INSERT INTO ${name} (${[...key, ...ownColumns].join(', ')}) ` +
      `SELECT ${key.join(', ')}, toUInt128('${BigInt(version)}'), 1, toDateTime64({committed:String}, 6, 'UTC') ` +
      `FROM ${name} FINAL WHERE _version < toUInt128('${BigInt(version)}') SETTINGS optimize_move_to_prewhere = 0, optimize_move_to_prewhere_if_final = 0`,
    { params: { committed: committedAt }, queryId, long: true },
  );
}
