/** What was read may be a commit that is not on the source's disk yet: a crash there would take it back. */
import type pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { compareLsn } from '../../../model/position.ts';
import { flushPosition } from './slot.ts';

/**
 * Returns when everything that any session could see before the call is on disk, so that the stream is sure to bring
 * it. `client` must not be in a transaction. Errors: `source_unreachable` after 30 s.
 */
export async function waitUntilDurable(client: pg.Client): Promise<void> {
  const { rows } = await client.query<{ lsn: string }>(
    'SELECT pg_catalog.pg_current_wal_insert_lsn()::text AS lsn',
  );
  if (compareLsn(await flushPosition(client), rows[0]!.lsn) >= 0) return;
  // The server may leave the last page for 15 s. A commit of our own takes all before it to disk.
  await client.query(
    `BEGIN; SET LOCAL synchronous_commit = local; SELECT pg_catalog.pg_logical_emit_message(true, 'sluice', 'flush'); COMMIT`,
  );
  const until = performance.now() + 30_000;
  while (compareLsn(await flushPosition(client), rows[0]!.lsn) < 0) {
    if (performance.now() > until)
      throw new SluiceError('source_unreachable', 'the source does not flush its log', 'It is tried again.');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
