/** A PostgreSQL for one test file that can be restarted with other settings and asked as other roles. */
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import type pg from 'pg';
import { connect } from '../activities/capture/postgresql/connection.ts';
import { freePort } from '../workers/embedded/free_port.ts';
import { type RunningPostgresql, startPostgresql } from '../workers/embedded/postgresql.ts';

/** Password of all roles that tests make. */
const rolePassword = 'secret';

/** Starts a server in a folder of its own; settings are `name=value`. Its superuser for tests is `postgres`. */
export async function startSource(...settings: string[]): Promise<SourceServer> {
  const home = await mkdtemp(path.join(os.tmpdir(), 'sluice-source-'));
  const server = new SourceServer(home, await freePort());
  await server.start(...settings);
  return server;
}

export class SourceServer {
  readonly #home: string;
  readonly port: number;
  #running: RunningPostgresql | undefined;
  readonly #sessions = new Set<pg.Client>();

  constructor(home: string, port: number) {
    this.#home = home;
    this.port = port;
  }

  async start(...settings: string[]): Promise<void> {
    const { port } = this;
    this.#running = await startPostgresql({ home: this.#home, port, database: 'postgres', durable: false, settings });
    const client = await connect({ connectionString: this.#running.url, applicationName: 'test' });
    await client.query(`DO $$ BEGIN
      IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'postgres') THEN
        CREATE ROLE postgres SUPERUSER LOGIN PASSWORD '${rolePassword}';
      END IF;
    END $$`);
    await client.end();
  }

  /** Connection string for a role and a database. */
  url(role = 'postgres', database = 'postgres'): string {
    return `postgresql://${role}:${rolePassword}@127.0.0.1:${this.port}/${database}`;
  }

  /** A session with pinned settings; ended by `stop` if nobody did before. */
  async session(role?: string, database?: string): Promise<pg.Client> {
    const client = await connect({ connectionString: this.url(role, database), applicationName: 'test' });
    this.#sessions.add(client);
    return client;
  }

  /** Runs statements in a session of their own, as superuser by default. */
  async run(sql: string, database?: string, role?: string): Promise<pg.QueryResult> {
    const client = await this.session(role, database);
    try {
      return await client.query(sql);
    } finally {
      this.#sessions.delete(client);
      await client.end();
    }
  }

  /** Same data and port, these settings instead of those before. */
  async restart(...settings: string[]): Promise<void> {
    await this.#end();
    await this.start(...settings);
  }

  /** A standby of this server, which is restarted for it with its settings; the standby's slot here is `standby`. */
  async standby(settings: string[] = []): Promise<SourceServer> {
    await this.run(`SELECT pg_create_physical_replication_slot('standby', true)`);
    await this.#end();
    const home = await mkdtemp(path.join(os.tmpdir(), 'sluice-source-'));
    await promisify(execFile)('cp', ['-a', `${this.#home}/.`, home]);
    const data = path.join(home, 'postgresql');
    await writeFile(path.join(data, 'standby.signal'), '');
    // Slots are a server's own: those of before come by way of their synchronisation.
    const slots = path.join(data, 'pg_replslot');
    for (const slot of await readdir(slots)) await rm(path.join(slots, slot), { recursive: true });
    await this.start(...settings);
    const other = new SourceServer(home, await freePort());
    const primary = `host=127.0.0.1 port=${this.port} user=postgres password=${rolePassword} dbname=postgres`;
    const following = ['primary_slot_name=standby', 'hot_standby_feedback=on', 'sync_replication_slots=on'];
    await other.start(...settings, `primary_conninfo=${primary}`, ...following);
    return other;
  }

  /** Stops, and starts again; answers what sets the server back to how it was between. */
  async saveState(...settings: string[]): Promise<() => Promise<void>> {
    await this.#end();
    const saved = await mkdtemp(path.join(os.tmpdir(), 'sluice-source-'));
    const copy = (from: string, to: string) => promisify(execFile)('cp', ['-a', `${from}/.`, to]);
    await copy(this.#home, saved);
    await this.start(...settings);
    return async () => {
      await this.#end();
      await rm(this.#home, { recursive: true });
      await mkdir(this.#home);
      await copy(saved, this.#home);
      await rm(saved, { recursive: true });
      await this.start(...settings);
    };
  }

  async stop(): Promise<void> {
    await this.#end();
    await rm(this.#home, { recursive: true, force: true });
  }

  async #end(): Promise<void> {
    await Promise.allSettled([...this.#sessions].map((client) => client.end()));
    this.#sessions.clear();
    await this.#running?.child.stop('SIGINT');
  }
}
