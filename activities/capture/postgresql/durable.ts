/** What was read may be a commit that is not on the source's disk yet: a crash there would take it back. */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { compareLsn } from '../../../model/position.ts';

/**
 * The position behind everything that any session could see before the call, once all before it is on disk: then the
 * stream is sure to bring it, and to pass the position. `client` must not be in a transaction. Errors:
 * `source_unreachable` after 30 s.
 */
export async function durablePosition(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS lsn');
  const { lsn } = rows[0]!;
  if (compareLsn(await flushPosition(client), lsn) >= 0) return lsn;
  // The server may leave the last page for long. A commit of our own takes all before it to disk.
  await client.query(
    `BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_catalog.pg_logical_emit_message(true, 'sluice', 'flush'); COMMIT`,
  );
  const until = performance.now() + 30_000;
  while (compareLsn(await flushPosition(client), lsn) < 0) {
    if (performance.now() > until)
      throw new SluiceError('source_unreachable', 'the source does not flush its log', 'It is tried again.');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return lsn;
}

/** The position up to which everything is on disk. */
export async function flushPosition(client: pg.ClientBase): Promise<string> {
  const { rows } = await client.query<{ lsn: string }>('SELECT pg_catalog.pg_current_wal_flush_lsn()::text AS lsn');
  return rows[0]!.lsn;
}
