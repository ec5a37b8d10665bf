/** The barrier before a snapshot: chunks must not be read before everything that the stream leaves out is visible. */
import type pg from 'pg';

/**
 * Waits until every transaction that was open when this was called has ended, committed visibly or not. What a chunk
 * reads after it includes everything that the stream before the start position would have brought.
 */
export async function waitForOpenTransactions(
  client: pg.Client,
  signal?: AbortSignal,
  waiting?: () => void,
): Promise<void> {
  await client.query('BEGIN');
  const { rows } = await client.query<{ id: string }>('SELECT pg_catalog.pg_current_xact_id()::text AS id');
  await client.query('ROLLBACK');
  const barrier = rows[0]!.id;
  for (;;) {
    const passed = await client.query<{ passed: boolean }>(
      `SELECT pg_catalog.pg_snapshot_xmin(pg_catalog.pg_current_snapshot()) >= $1::pg_catalog.xid8 AS passed`,
      [barrier],
    );
    if (passed.rows[0]!.passed) return;
    signal?.throwIfAborted();
    waiting?.();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}
