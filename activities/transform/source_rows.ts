/**
 * Rows of a source by key, as they are there now, for rules that are only tried: what a copy has been given by rules in force,
 * or leaves out, cannot be had from the copy. Reads only, in one short transaction.
 */
import type pg from 'pg';
import type { ConnectRequest } from '../../model/source.ts';
import type { Column, TableSchema } from '../../model/table.ts';
import { schemaOf, seeTables } from '../capture/postgresql/catalog.ts';
import { wasAltered, withConnection } from '../capture/postgresql/connection.ts';
import { readRowsByKey } from '../capture/postgresql/missing_values.ts';
import { readOptions } from '../capture/postgresql/options.ts';
import { rowsOf } from '../capture/postgresql/partitions.ts';
import { presentTable, tableChanged } from '../capture/postgresql/present_table.ts';
import { unescapeField } from '../load/tsv.ts';

/** Which rows are wanted, and which columns that the copy does not know. */
export interface WantedRows {
  /** What the copy is made from. */
  table: TableSchema;
  /** Names of excluded columns that are read too. */
  excluded: readonly string[];
  /** Key fields as TSV, as `keyOf` has them. */
  keys: string[];
}

export interface SourceRows {
  /** What the fields of rows are. */
  columns: Column[];
  /** By `plainKey`: TSV fields (latin1). Keys that the source does not have are missing. */
  rows: Map<string, string[]>;
}

/** Milliseconds for each statement, waiting for locks included: somebody waits for the answer. */
const patience = 10_000;

/** Reads rows. Errors: `source_unreachable`, `source_refused`, `table_changed` when the table is not what the copy is made from. */
export async function readSourceRows(
  { request, connectionString }: { request: ConnectRequest; connectionString: string },
  { table, excluded, keys }: WantedRows,
): Promise<SourceRows> {
  const session = { connectionString, applicationName: `sluice ${request.id} preview` };
  return await withConnection(session, async (client) => {
    await client.query(`SET statement_timeout = ${patience}; SET lock_timeout = ${patience}`);
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    await lock(client, table);
    const wanted = await withExcluded(client, request, table, excluded);
    const rows = new Map<string, string[]>();
    await readRowsByKey(client, { table: wanted, present: await presentTable(client, wanted) }, keys, rows);
    await client.query('COMMIT');
    return { columns: wanted.columns, rows: new Map([...rows].map(([key, fields]) => [plainKey(key), fields])) };
  });
}

/** One name for a key, however its TSV fields are escaped: ClickHouse puts a backslash before a quote, and nothing asks for it. */
export function plainKey(key: string): string {
  return JSON.stringify(key.split('\t').map((field) => unescapeField(field).toString('latin1')));
}

/** Before the snapshot is taken: what it shows of the table is then how the table is. */
async function lock(client: pg.ClientBase, table: TableSchema): Promise<void> {
  try {
    await client.query(`LOCK TABLE ${rowsOf(table)} IN ACCESS SHARE MODE`);
  } catch (error) {
    throw wasAltered(error) ? tableChanged(table, 'is gone') : error;
  }
}

/** The table with excluded columns that it is not read with yet. */
async function withExcluded(
  client: pg.ClientBase,
  { id, config }: ConnectRequest,
  table: TableSchema,
  names: readonly string[],
): Promise<TableSchema> {
  if (names.length === 0) return table;
  const see = await seeTables(client, id, [table], {
    excludeColumns: config.exclude_columns,
    assetIds: readOptions(id, config.options).assetIds,
    readable: { [`${table.schema}.${table.table}`]: [...names] },
  });
  const { named } = see(table);
  const found = named ? schemaOf(named).columns.filter((column) => column.hidden && names.includes(column.name)) : [];
  if (found.length < names.length) throw tableChanged(table, 'has other columns now');
  return { ...table, columns: [...table.columns, ...found] };
}
