/** A server that says nothing for long: because it works, or because there is none any more at the other end. */
import net from 'node:net';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { MissingValues } from '../activities/capture/postgresql/missing_values.ts';
import { PostgresStream } from '../activities/capture/postgresql/postgres_stream.ts';
import { isDecoding } from '../activities/capture/postgresql/slot.ts';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import type { Connected } from '../activities/capture/source.ts';
import type { ChangeBatch } from '../activities/capture/stream.ts';
import { type SourceServer, startSource } from './source_server.ts';

const silence = 300;

let server: SourceServer;

beforeAll(async () => {
  server = await startSource();
}, 60_000);

afterAll(async () => {
  await server?.stop();
});

/** A stream of the one table, by way of this port; `looks` counts what was found when it was silent. */
async function openStream(table: string, port: number) {
  await server.run(`CREATE TABLE public.${table} (id int PRIMARY KEY, v text)`);
  const request: Connected['request'] = {
    id: table,
    type: 'postgresql',
    connection_string: '${UNUSED}',
    config: { tables: [table], poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} },
  };
  const connected: Connected = { request, connectionString: server.url() };
  const source = new PostgresSource();
  const { tables } = await source.preflight(connected);
  const position = await source.prepare(connected, tables, undefined, false);
  const slot = `sluice_${table}`;
  const connectionString = server.url().replace(`:${server.port}/`, `:${port}/`);
  const looks: boolean[] = [];
  const newestRows = async () => new Map();
  const stream = await PostgresStream.open({
    ...{ connectionString, source: table, slot, publication: slot, ddlPrefix: undefined, position, tables, silence },
    ...{ epoch: 1, floors: {}, maxAge: 1_000, maxRows: 100_000, maxBytes: 8_000_000 },
    resolve: () => Promise.reject(new Error('no table was altered')),
    rootsOf: async () => [],
    missing: new MissingValues({ newestRows, floors: {} }, connectionString, table),
    isDecoding: async () => {
      const session = { connectionString: server.url(), applicationName: 'test' };
      const found = await withConnection(session, (client) => isDecoding(client, slot));
      looks.push(found);
      return found;
    },
  });
  return { stream, looks };
}

async function nextRows(stream: PostgresStream): Promise<ChangeBatch> {
  for (const until = Date.now() + 60_000; Date.now() < until; ) {
    const batch = await stream.next(1_000, new AbortController().signal);
    if (batch && batch.changes > 0) return batch;
  }
  throw new Error('no change came');
}

it('waits for a server that decodes what is of other tables', async () => {
  // What somebody has set against forgotten sessions must not end this one each time.
  await server.run(`ALTER ROLE postgres SET transaction_timeout = '200ms'`);
  const { stream, looks } = await openStream('few', server.port);
  await server.run('CREATE TABLE public.many (id int, v text)');
  await server.run(
    `BEGIN; INSERT INTO public.few VALUES (1, 'first');
     INSERT INTO public.many SELECT g, 'x' FROM generate_series(1, 1500000) g;
     INSERT INTO public.few VALUES (2, 'last'); COMMIT`,
  );
  const batch = await nextRows(stream);
  expect(batch.changes).toBe(2);
  // Else it was so quick that nothing was tried.
  expect(looks).toContain(true);
  stream.close();
});

it('notices a connection that has lost its other end', async () => {
  let cut = false;
  const proxy = net.createServer((near) => {
    const far = net.connect(server.port, '127.0.0.1');
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.on('data', (bytes) => cut || to.write(bytes));
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const { stream, looks } = await openStream('halved', (proxy.address() as net.AddressInfo).port);
  await server.run(`INSERT INTO public.halved VALUES (1, 'arrives')`);
  expect((await nextRows(stream)).changes).toBe(1);
  // Alive, and nothing to say: for longer than silence may last.
  expect(await stream.next(silence * 3, new AbortController().signal)).toBeUndefined();
  expect(looks).toEqual([]);
  cut = true;
  await expect(nextRows(stream)).rejects.toMatchObject({ kind: 'source_unreachable', message: /has been silent/ });
  stream.close();
  proxy.close();
});
