/**
 * What a transaction sees: catalogs as of one moment; and what the stream brings, since a commit is in the log a little before
 * other sessions can see it.
 */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';

/** Runs reads of the catalog that must be of one moment. */
export async function atOneMoment<T>(client: pg.ClientBase, read: () => Promise<T>): Promise<T> {
  await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const found = await read();
  await client.query('COMMIT');
  return found;
}

/**
 * Begins a read-only transaction that sees all of these transactions, and in which `rows` (as behind LOCK TABLE) are of a table that is not altered. Errors:
 * `source_unreachable` when they stay hidden.
 */
export async function beginSeeing(client: pg.Client, xids: number[], rows?: string): Promise<void> {
  for (let tries = 0; tries < 3000; tries++) {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
    // Before the snapshot is taken: what it shows of the table is then how the table is.
    if (rows !== undefined) await client.query(`LOCK TABLE ${rows} IN ACCESS SHARE MODE`);
    // The log has the lower 32 bits of a transaction id; the whole one is the nearest to the newest there is.
    const { rows: answer } = await client.query<{ seen: boolean }>(
      `SELECT pg_catalog.bool_and(pg_catalog.pg_visible_in_snapshot(
         (newest + ((x - newest + 2147483648) & 4294967295) - 2147483648)::text::pg_catalog.xid8, pg_catalog.pg_current_snapshot())) AS seen
       FROM pg_catalog.unnest($1::int8[]) x, (SELECT pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())::text::int8 AS newest) s`,
      [xids],
    );
    if (answer[0]!.seen) return;
    await client.query('ROLLBACK');
    await new Promise((resolve) => setTimeout(resolve, Math.min(10 + tries, 200)));
  }
  throw new SluiceError(
    'source_unreachable',
    'a committed transaction stays invisible (a synchronous standby is missing?)',
    'It is tried again.',
  );
}
