/** PostgreSQL through the suite of all sources. */
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import type { Connected } from '../activities/capture/source.ts';
import { startParts } from '../workers/embedded/start_parts.ts';
import { openClient } from './capture_harness.ts';
import { sourceConformance } from './conformance/source.ts';

sourceConformance('postgresql', async () => {
  const parts = await startParts(['postgres']);
  const source = new PostgresSource();
  const connected: Connected = {
    request: {
      id: 'conform',
      type: 'postgresql',
      connection_string: '${UNUSED}',
      config: { tables: ['t'], poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} },
    },
    connectionString: parts.postgres.url,
  };
  let client = await openClient(parts.postgres.url);
  await client.query('CREATE TABLE t (id bigint PRIMARY KEY, note text)');
  const { tables } = await source.preflight(connected);
  return {
    source,
    connected,
    table: tables[0]!,
    change: async (changes) => {
      await client.query('BEGIN');
      for (const change of changes) {
        if ('from' in change) await client.query('UPDATE t SET id = $2 WHERE id = $1', [change.from, change.to]);
        else if (change.note === null) await client.query('DELETE FROM t WHERE id = $1', [change.id]);
        else
          await client.query('INSERT INTO t VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET note = excluded.note', [
            change.id,
            change.note,
          ]);
      }
      await client.query('COMMIT');
    },
    truncate: async () => {
      await client.query('TRUNCATE t');
    },
    rows: async () => {
      const { rows } = await client.query<{ id: string; note: string }>('SELECT id::text, note FROM t');
      return new Map(rows.map((row) => [row.id, row.note]));
    },
    acknowledged: async () => {
      const { rows } = await client.query<{ lsn: string }>(
        "SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots WHERE slot_name = 'sluice_conform'",
      );
      return rows[0]!.lsn;
    },
    disturb: async () => {
      await parts.postgres.kill();
      await parts.postgres.restart();
      client = await openClient(parts.postgres.url);
    },
    close: async () => {
      await client.end();
      await parts[Symbol.asyncDispose]();
    },
  };
});
