/**
 * Partitioned tables: one copy of all partitions. The log has their changes under the names of the partitions that hold
 * rows (the leaves); here stands which those are, and what follows when they come and go.
 *
 * - A leaf that was made as a partition (CREATE TABLE … PARTITION OF) was empty then, and the stream has sent all its
 *   rows since: it joins, and nothing else is to be done.
 * - One that was attached may have had rows, one that was detached or dropped takes rows away, and so does TRUNCATE of some
 *   leaves. PostgreSQL sends nothing that would say which: the table is copied anew, beside the old copy.
 *
 * So rows of a copy are those of known leaves only: chunks read no other ones, and the stream writes nothing of a leaf that
 * is not stored as known yet. A leaf that came and went unseen has left nothing.
 */
import type pg from 'pg';
import type { Partition, TableSchema } from '../../../model/table.ts';
import { quoteName, quoteTable } from './connection.ts';

/** A leaf as the catalog shows it. */
export interface Leaf extends Partition {
  schema: string;
  table: string;
  /** pg_class.relkind and relpersistence. */
  kind: string;
  persistence: string;
  /** True when it was made as a partition, and so was all that stands between it and the root: it was empty then. */
  born: boolean;
  /** pg_class.relreplident. */
  identity: 'd' | 'i' | 'f' | 'n';
  /** Names of the columns that UPDATE and DELETE carry of an old row; under FULL all do. */
  key: string[];
  /** By name, for columns that were added with a default: what rows from before show, as the source's text. */
  initial: Record<string, string>;
}

/**
 * Parts of a WITH RECURSIVE: `leaves` has for each partitioned table among $1 its leaves as JSON. By plain joins, and not
 * by PostgreSQL's functions over partitions, which look past the statement's snapshot.
 *
 * A partition's columns are inherited from the moment on in which they are made; attaching and detaching write all of them
 * anew. So one that still is as old as the table's system columns, which nothing ever alters, proves how it was made.
 */
export const leavesSql = `
tree AS (
  SELECT c.oid AS root, c.oid AS relation, '' AS joined, true AS born
  FROM pg_catalog.pg_class c WHERE c.oid = ANY($1::pg_catalog.oid[]) AND c.relkind = 'p'
  UNION ALL
  SELECT t.root, h.inhrelid, t.joined || ' ' || h.xmin::pg_catalog.text, t.born AND EXISTS (
    SELECT FROM pg_catalog.pg_attribute s JOIN pg_catalog.pg_attribute a ON a.attrelid = s.attrelid
    WHERE s.attrelid = h.inhrelid AND s.attnum = -1 AND a.attnum > 0 AND a.attinhcount > 0
      AND a.xmin = s.xmin AND a.cmin = s.cmin AND a.xmax::pg_catalog.text = '0' AND s.xmax::pg_catalog.text = '0')
  FROM tree t JOIN pg_catalog.pg_inherits h ON h.inhparent = t.relation AND NOT h.inhdetachpending
), leaves AS (
  SELECT t.root, pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(
    'oid', l.oid::int8, 'relfilenode', l.relfilenode::int8, 'joined', pg_catalog.ltrim(t.joined), 'born', t.born,
    'schema', n.nspname, 'table', l.relname, 'kind', l.relkind, 'persistence', l.relpersistence, 'identity', l.relreplident,
    'key', (
      SELECT COALESCE(pg_catalog.jsonb_agg(a.attname), '[]') FROM pg_catalog.pg_index i
      JOIN pg_catalog.pg_attribute a ON a.attrelid = l.oid AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1])
      WHERE i.indrelid = l.oid AND i.indisvalid AND i.indimmediate
        AND CASE l.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END),
    'initial', (
      SELECT COALESCE(pg_catalog.jsonb_object_agg(a.attname, (a.attmissingval::pg_catalog.text::pg_catalog.text[])[1]), '{}')
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = l.oid AND a.atthasmissing AND NOT a.attisdropped)
  ) ORDER BY l.oid) AS leaves
  FROM tree t JOIN pg_catalog.pg_class l ON l.oid = t.relation JOIN pg_catalog.pg_namespace n ON n.oid = l.relnamespace
  WHERE l.relkind <> 'p' GROUP BY t.root
)`;

/** What is kept of a leaf. */
export function partitionOf({ oid, relfilenode, joined }: Leaf): Partition {
  return { oid, relfilenode, joined };
}

/** The relations in whose names the log has a table's changes: itself, or its leaves. */
export function relationsOf(table: TableSchema): number[] {
  return table.partitions ? table.partitions.map((leaf) => leaf.oid) : [table.oid];
}

/** A table's rows, as they stand behind FROM and LOCK TABLE: those of its partitions, but not of tables that inherit. */
export function rowsOf(table: Pick<TableSchema, 'schema' | 'table' | 'partitions'>): string {
  return table.partitions ? quoteTable(table) : `ONLY ${quoteTable(table)}`;
}

/** A condition for rows of the leaves that are known; '' for a table that is not partitioned. */
export function ofKnownLeaves({ partitions }: TableSchema): string {
  return partitions ? `tableoid = ANY ('{${partitions.map((leaf) => leaf.oid).join(',')}}'::pg_catalog.oid[])` : '';
}

/** Why a partitioned table cannot be captured, and what to do about it. */
export interface LeafFault {
  code: string;
  reason: string;
  remedy: string;
}

/** What is wrong with the leaves of a table whose copy has this key: the first that the log says too little of. */
export function faultOf(leaves: Leaf[] | undefined, key: string[]): LeafFault | undefined {
  for (const leaf of leaves ?? []) {
    const name = quoteTable(leaf);
    if (leaf.kind === 'f')
      return {
        code: 'partition_foreign',
        reason: `its partition ${leaf.table} is a foreign table, whose changes are in the log of another server`,
        remedy: `Detach it, or name the other partitions instead of the whole table: DETACH PARTITION ${name}.`,
      };
    if (leaf.persistence !== 'p')
      return {
        code: 'partition_unlogged',
        reason: `its partition ${leaf.table} is unlogged: its changes are not in the log`,
        remedy: `Run ALTER TABLE ${name} SET LOGGED;`,
      };
    if (leaf.identity !== 'f' && key.length === 0)
      return {
        code: 'partition_identity',
        reason: `the table has no key, and its partition ${leaf.table} has not REPLICA IDENTITY FULL`,
        remedy: `Run ALTER TABLE ${name} REPLICA IDENTITY FULL;`,
      };
    if (leaf.identity !== 'f' && [...leaf.key].sort().join('\t') !== [...key].sort().join('\t'))
      return {
        code: 'partition_identity',
        reason: `UPDATE and DELETE of its partition ${leaf.table} send ${leaf.key.join(', ') || 'nothing'} of the old row, and the key is ${key.join(', ')}`,
        remedy: `Run ALTER TABLE ${name} REPLICA IDENTITY FULL; or USING INDEX with the partition's index over ${key.map(quoteName).join(', ')};`,
      };
  }
  return undefined;
}

/**
 * What rows from before show in a column that was added with a default. Each leaf keeps it by itself; null when they differ,
 * undefined when there is none.
 */
export function initialOf(leaves: Leaf[], column: string): string | null | undefined {
  const values = new Set(leaves.flatMap(({ initial }) => (Object.hasOwn(initial, column) ? [initial[column]!] : [])));
  return values.size > 1 ? null : [...values][0];
}

/** How the leaves of now differ from those that a copy was made from. */
export type LeafChange = { do: 'resync'; reason: string } | { do: 'follow'; partitions: Partition[] };

/**
 * Compares leaves. `joining`: of new ones only that with this oid is taken in, the others later; without it all are. An
 * oid whose place in the tree is another was detached, and attached again: what happened meanwhile is not known.
 */
export function compareLeaves(known: Partition[], now: Leaf[], joining?: number): LeafChange {
  const present = new Map(now.map((leaf) => [leaf.oid, leaf]));
  const before = new Map(known.map((leaf) => [leaf.oid, leaf]));
  const gone = known.filter(({ oid, joined }) => present.get(oid)?.joined !== joined);
  if (gone.length > 0) return { do: 'resync', reason: goneReason(gone, present) };
  const fresh = now.filter((leaf) => !before.has(leaf.oid));
  const attached = fresh.find((leaf) => !leaf.born);
  if (attached) return { do: 'resync', reason: `the partition ${attached.table} was attached, and may have had rows` };
  const taken = now.filter((leaf) => before.has(leaf.oid) || joining === undefined || leaf.oid === joining);
  return { do: 'follow', partitions: taken.map(partitionOf) };
}

function goneReason(gone: Partition[], present: Map<number, Leaf>): string {
  const again = gone.map(({ oid }) => present.get(oid)).find((leaf) => leaf !== undefined);
  if (again) return `the partition ${again.table} was detached, and attached again`;
  return gone.length === 1
    ? 'a partition was detached or dropped'
    : `${gone.length} partitions were detached or dropped`;
}

/** The partitioned tables that a relation is part of, the nearest first; none when it is no partition, or is gone. */
export async function rootsOf(client: pg.ClientBase, oid: number): Promise<number[]> {
  const { rows } = await client.query<{ oid: number }>(
    `WITH RECURSIVE up AS (
       SELECT h.inhparent AS oid, 1 AS level FROM pg_catalog.pg_inherits h JOIN pg_catalog.pg_class c ON c.oid = h.inhrelid
       WHERE h.inhrelid = $1 AND c.relispartition AND NOT h.inhdetachpending
       UNION ALL
       SELECT h.inhparent, up.level + 1 FROM up JOIN pg_catalog.pg_inherits h ON h.inhrelid = up.oid
       WHERE NOT h.inhdetachpending
     ) SELECT oid FROM up ORDER BY level`,
    [oid],
  );
  return rows.map((row) => row.oid);
}
