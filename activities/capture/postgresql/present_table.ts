/** A table as it is at the moment of reading, for a copy that was made from an earlier definition of it. */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { type TableSchema, tableName } from '../../../model/table.ts';

/**
 * Sees that the table is still the one that the copy was made from, and answers it with those of its columns that are
 * there, under their names of now. `publication`: it must still be in it. A column that was added, dropped or renamed since does no harm: the stream will say
 * so, and the copy follows then. Errors: `table_changed`.
 */
export async function presentTable(
  client: pg.ClientBase,
  table: TableSchema,
  publication?: string,
): Promise<TableSchema> {
  const { rows } = await client.query<{ oid: number; columns: PresentColumn[] | null; published: boolean }>(
    `SELECT c.oid::int8::float8 AS oid,
       (SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_array(a.attnum, a.attname, a.atttypid::int8, a.atttypmod))
        FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped) AS columns,
       CASE c.relkind WHEN 'p' THEN EXISTS (
         SELECT FROM pg_catalog.pg_publication p WHERE p.pubname = $3 AND (p.puballtables OR EXISTS (
           SELECT FROM pg_catalog.pg_publication_rel m WHERE m.prpubid = p.oid AND m.prrelid = c.oid)))
       ELSE EXISTS (
         SELECT FROM pg_catalog.pg_publication_tables p WHERE p.pubname = $3 AND p.schemaname = $1 AND p.tablename = $2)
       END AS published
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relname = $2`,
    [table.schema, table.table, publication ?? ''],
  );
  const found = rows[0];
  if (!found) throw tableChanged(table, 'is gone');
  if (found.oid !== table.oid) throw tableChanged(table, 'was made anew');
  if (publication !== undefined && !found.published) throw tableChanged(table, 'was taken out of the publication');
  const present = new Map((found.columns ?? []).map((column) => [column[0], column]));
  const columns = table.columns.flatMap((column) => {
    const [, name, typeOid, typmod] = present.get(column.attnum) ?? [];
    if (name === undefined && !column.key) return [];
    if (name === undefined || typeOid !== column.typeOid || typmod !== column.typmod)
      throw tableChanged(table, `has another column ${column.name} now`);
    return [{ ...column, name }];
  });
  return { ...table, columns };
}

/** attnum, name, type and its modifier. */
type PresentColumn = [number, string, number, number];

/** A table that must not be read for its copy any more. */
export function tableChanged(table: TableSchema, what: string): SluiceError {
  const name = tableName(table);
  const remedy = 'Make its copy anew: sluice sources resync.';
  return new SluiceError('table_changed', `the table ${name} ${what}`, remedy, { table: name });
}
