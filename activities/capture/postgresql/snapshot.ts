/**
 * The snapshot of a table, in chunks by key: read at any time after the barrier, beside the stream, again after a crash,
 * by any worker. Every row carries the version of the table's start position, so whatever the stream brings wins.
 */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { isMultiset, keyColumns, type TableSchema, tableName } from '../../../model/table.ts';
import type { Chunk, ChunkRead, ChunkTask, ReadView } from '../source.ts';
import { ChunkReader } from './chunk_reader.ts';
import { type ConnectOptions, quoteName, quoteText, wasAltered, withConnection } from './connection.ts';
import { rowsOf } from './partitions.ts';
import { presentTable, tableChanged } from './present_table.ts';

/** Rows of a chunk. Small enough to be read again without regret, large enough to cost little besides its rows. */
export const chunkRows = 200_000;

/** Bounds of a chunk: the key's texts, `lower` exclusive and `upper` inclusive; null is open. */
interface Bounds {
  lower: string[] | null;
  upper: string[] | null;
}

function parseBounds({ lower, upper }: Chunk): Bounds {
  const parse = (text: string) => (text === '' ? null : (JSON.parse(text) as string[]));
  return { lower: parse(lower), upper: parse(upper) };
}

/**
 * Walks the key's index and cuts it every `chunkRows` rows. Rows that come later fall into a chunk all the same: the
 * first and the last are open. A table without a key is one chunk. Errors: `table_changed`.
 */
export async function planChunks(
  client: pg.Client,
  known: TableSchema,
  publication: string,
  planned: (chunks: number) => void,
): Promise<Chunk[]> {
  const table = await presentTable(client, known, publication);
  if (isMultiset(table)) return [{ lower: '', upper: '' }];
  const chunks: Chunk[] = [];
  const text = (bound: string[] | null) => (bound === null ? '' : JSON.stringify(bound));
  let lower: string[] | null = null;
  for (;;) {
    const upper: string[] | null = await boundBehind(client, table, lower);
    chunks.push({ lower: text(lower), upper: text(upper) });
    if (upper === null) return chunks;
    lower = upper;
    planned(chunks.length);
  }
}

/** The key of the last row of the chunk that begins behind `lower`, or null when the table ends before. */
async function boundBehind(client: pg.Client, table: TableSchema, lower: string[] | null): Promise<string[] | null> {
  const key = keyColumns(table).map((column) => quoteName(column.name));
  try {
    const behind = lower ? `WHERE ${range(table, { lower, upper: null })}` : '';
    // The key's text is made of one row only: outside of the OFFSET.
    const { rows } = (await client.query({
      text:
        `SELECT ${key.map((name) => `bound.${name}::text`).join(', ')} FROM (SELECT ${key.join(', ')} ` +
        `FROM ${rowsOf(table)} ${behind} ORDER BY ${key.join(', ')} OFFSET ${chunkRows - 1} LIMIT 1) AS bound`,
      rowMode: 'array',
    })) as { rows: string[][] };
    return rows[0] ?? null;
  } catch (error) {
    throw wasAltered(error) ? tableChanged(table, 'was altered while its chunks were planned') : error;
  }
}

/** A condition for the rows of a chunk; row comparison, so that a composite key uses its index. */
function range(table: TableSchema, { lower, upper }: Bounds): string {
  const key = keyColumns(table);
  const names = `(${key.map((column) => quoteName(column.name)).join(', ')})`;
  const values = (bound: string[]) => `(${bound.map((text, i) => `${quoteText(text)}::${key[i]!.type}`).join(', ')})`;
  const conditions = [];
  if (lower) conditions.push(`${names} > ${values(lower)}`);
  if (upper) conditions.push(`${names} <= ${values(upper)}`);
  return conditions.join(' AND ');
}

/**
 * Reads one chunk and has it written. Its reading transaction stays open until the last insert is acknowledged (a
 * TRUNCATE has to wait for it), and nothing is inserted before what it read is on the source's disk: a crash there could
 * take back a commit that was read. Errors: `table_changed`, as `connect`.
 */
export async function copyChunkRows(
  session: ConnectOptions,
  publication: string,
  { chunk, ...task }: ChunkTask,
): Promise<ChunkRead> {
  let view: ReadView | undefined;
  const rows = async ({ client, present }: Reading) => {
    if (isMultiset(present)) {
      await expectNoNewColumn(client, task.table);
      view = await readView(client);
    }
    return range(present, parseBounds(chunk));
  };
  const read = await copyRows(session, publication, { ...task, rows });
  return { ...read, ...(view && { view }) };
}

/**
 * A reading of a table without a key stands for all transactions that it sees. What they wrote into a column that the copy does not
 * know yet would be lost, so the stream must have brought that column first. Errors: `source_unreachable`.
 */
async function expectNoNewColumn(client: pg.Client, table: TableSchema): Promise<void> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT attname AS name FROM pg_catalog.pg_attribute
     WHERE attrelid = $1 AND attnum > $2 AND NOT attisdropped ORDER BY attnum LIMIT 1`,
    [table.oid, table.lastAttnum ?? Math.max(...table.columns.map(({ attnum }) => attnum))],
  );
  if (!rows[0]) return;
  const reason = `${tableName(table)} has a new column ${rows[0].name}, which the stream has not brought yet`;
  const remedy = 'It is tried again.';
  throw new SluiceError('source_unreachable', reason, remedy, { table: tableName(table) });
}

/**
 * What the reading transaction sees. The position is taken behind its snapshot: what that shows stands in the log before
 * it. That the log has a commit before others can see it is no matter: such a transaction is an open one.
 */
async function readView(client: pg.Client): Promise<ReadView> {
  const { rows } = await client.query<{ position: string; unseen: string[] }>(
    `SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS position,
       ARRAY(SELECT x::text FROM pg_catalog.pg_snapshot_xip(s) x) || pg_catalog.pg_snapshot_xmax(s)::text AS unseen
     FROM pg_catalog.pg_current_snapshot() s`,
  );
  return rows[0]!;
}

/** What a reading transaction has to hand when the rows to be read are chosen. */
export interface Reading {
  /** In the reading transaction. */
  client: pg.Client;
  /** Beside it. */
  watcher: pg.Client;
  /** The table as it is called now. */
  present: TableSchema;
}

export interface ReadTask extends Omit<ChunkTask, 'chunk'> {
  /** Condition of the rows to be read ('' = all), or undefined for none. */
  rows: (reading: Reading) => Promise<string | undefined>;
}

/** Like `copyChunkRows`, with rows that are chosen in the reading transaction itself. */
export async function copyRows(
  session: ConnectOptions,
  publication: string,
  task: ReadTask,
): Promise<{ rows: number; bytes: number; rejected: number }> {
  return withConnection(session, (watcher) =>
    withConnection({ ...session, bulk: true }, async (client) => {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await client.query(`LOCK TABLE ${rowsOf(task.table)} IN ACCESS SHARE MODE`);
      const present = await presentTable(client, task.table, publication);
      const condition = await task.rows({ client, watcher, present });
      if (condition === undefined) return { rows: 0, bytes: 0, rejected: 0 };
      return new ChunkReader(client, watcher, task, present).run(condition);
    }),
  ).catch((error: unknown) => {
    throw wasAltered(error) ? tableChanged(task.table, 'was altered while it was read') : error;
  });
}
