/** Sessions with the source that are cut at any moment of their beginning: it passes, and is never a case of its own. */
import { createServer, connect as dial, type Server, type Socket } from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresStream } from '../activities/capture/postgresql/postgres_stream.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { openClient } from './capture_harness.ts';

let parts: StartedParts<'postgres'>;
let between: Server;
let url: URL;
/** Answers of the server that a session still gets before it is cut. */
let left = 0;
const sockets = new Set<Socket>();

beforeAll(async () => {
  parts = await startParts(['postgres']);
  url = new URL(parts.postgres.url);
  const [host, port] = [url.hostname, Number(url.port)];
  between = createServer((near) => {
    const far = dial(port, host);
    for (const socket of [near, far]) {
      sockets.add(socket);
      socket.on('error', () => {});
    }
    near.pipe(far);
    far.on('data', (bytes) => {
      if (left-- > 0) near.write(bytes);
      else for (const socket of [near, far]) socket.destroy();
    });
  });
  await new Promise<void>((resolve) => between.listen(0, '127.0.0.1', resolve));
  url.port = String((between.address() as { port: number }).port);
});

afterAll(async () => {
  for (const socket of sockets) socket.destroy();
  between?.close();
  await parts?.[Symbol.asyncDispose]();
});

it('passes, wherever the opening of a stream was', async () => {
  const client = await openClient(parts.postgres.url);
  const { rows } = await client.query<{ lsn: string }>(
    "SELECT lsn::text FROM pg_create_logical_replication_slot('cut', 'pgoutput')",
  );
  await client.query('CREATE PUBLICATION cut');
  await client.query('ALTER SYSTEM SET wal_sender_timeout = 5000');
  await client.query('SELECT pg_reload_conf()');
  const options = { source: 'cut', slot: 'cut', publication: 'cut', position: rows[0]!.lsn, tables: [], floors: {} };
  const missing = { close: async () => {} };
  const errors: unknown[] = [];
  for (let answers = 0; answers < 40; answers++) {
    left = answers;
    const opening = PostgresStream.open({ ...options, connectionString: String(url), epoch: 1, missing } as never);
    const stream = await opening.catch((error: unknown) => void errors.push(error));
    if (!stream) continue;
    stream.close();
    break;
  }
  await client.end();
  expect(errors.length).toBeGreaterThan(2);
  for (const error of errors) expect(error).toMatchObject({ kind: 'source_unreachable', transient: true });
});
