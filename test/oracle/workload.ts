/** Sessions that change the source at random: transactions of any size, savepoints, rollbacks, truncates, lost connections. */
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { type Random, seededRandom } from '../../workers/demo/random.ts';
import { endClient } from './compare.ts';
import type { OracleTable } from './oracle_table.ts';

export interface WorkloadOptions {
  /** Asked at each connect: the server may have been started anew. */
  url: () => string;
  tables: OracleTable[];
  seed: string;
  sessions: number;
  /** Asked before each transaction: true when none may begin for now. */
  waits: () => boolean;
}

function quoted(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

export class Workload {
  readonly #options: WorkloadOptions;
  readonly #sessions: Promise<void>[] = [];
  #running = false;
  #ended = false;
  /** Sessions that are inside of a transaction. */
  #busy = 0;
  committed = 0;
  rolledBack = 0;
  failed = 0;

  constructor(options: WorkloadOptions) {
    this.#options = options;
    for (let i = 0; i < options.sessions; i++) this.#sessions.push(this.#session(i));
  }

  resume(): void {
    this.#running = true;
  }

  /** Resolves when no transaction is open; none begins before `resume`. */
  async pause(): Promise<void> {
    this.#running = false;
    while (this.#busy > 0) await sleep(10);
    const random = seededRandom(`${this.#options.seed}/pause`);
    await sleep(600);
    for (let tries = 0; tries < 100; tries++) {
      try {
        const client = await this.#connect(random);
        return await endClient(client);
      } catch {
        await sleep(100);
      }
    }
    throw new Error('the source does not come back');
  }

  async end(): Promise<void> {
    this.#ended = true;
    await Promise.all(this.#sessions);
  }

  async #session(number: number): Promise<void> {
    const random = seededRandom(`${this.#options.seed}/session/${number}`);
    let client: pg.Client | undefined;
    while (!this.#ended) {
      if (!this.#running || this.#options.waits()) {
        await sleep(10);
        continue;
      }
      this.#busy++;
      try {
        client ??= await this.#connect(random);
        await this.#transaction(client, random);
      } catch {
        // The connection is gone, and with it the transaction: nobody knows whether it was committed.
        await endClient(client);
        client = undefined;
        await sleep(50);
      } finally {
        this.#busy--;
      }
      await sleep(random.chance(0.3) ? random.between(0, 40) : 0);
    }
    await endClient(client);
  }

  async #connect(random: Random): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: this.#options.url(), connectionTimeoutMillis: 5_000 });
    client.on('error', () => {});
    await client.connect();
    await client.query("SET lock_timeout = '1s'; SET statement_timeout = '10s'; SET deadlock_timeout = '100ms'");
    // A crash takes back what such a session committed: nobody may have copied it before it was safe.
    if (random.chance(0.3)) await client.query('SET synchronous_commit = off');
    await this.#settle(client, random);
    return client;
  }

  /** Errors of statements roll back; errors of the connection are thrown. */
  async #transaction(client: pg.Client, random: Random): Promise<void> {
    const { tables } = this.#options;
    const steps = random.chance(0.06) ? random.between(20, 120) : random.between(1, 5);
    const few = random.chance(0.5) ? [random.pick(tables)] : tables;
    await client.query('BEGIN');
    let savepoints = 0;
    let truncates = false;
    for (let step = 0; step < steps; step++) {
      if (random.chance(0.12)) {
        await client.query(`SAVEPOINT s${savepoints++}`);
        continue;
      }
      if (savepoints > 0 && random.chance(0.1)) {
        const to = random.between(0, savepoints - 1);
        await client.query(random.chance(0.7) ? `ROLLBACK TO s${to}` : `RELEASE s${to}`);
        savepoints = to;
        continue;
      }
      if (random.chance(0.01)) await client.query(`SELECT pg_logical_emit_message(true, 'other', 'x')`);
      const truncated = [random.pick(tables), ...(random.chance(0.3) ? [random.pick(tables)] : [])];
      const statement = random.chance(0.004)
        ? `TRUNCATE ${truncated.map((table) => quoted(table.name)).join(', ')}`
        : random.pick(few).change(random);
      truncates ||= statement.startsWith('TRUNCATE');
      const failed = await this.#attempt(client, statement);
      if (!failed) continue;
      if (savepoints === 0) break;
      await client.query(`ROLLBACK TO s${--savepoints}`);
    }
    // A table that is emptied in a prepared transaction has another file than the log knew for long.
    if (random.chance(truncates ? 0.5 : 0.05)) await this.#commitInTwo(client, random);
    const { command } = await client.query(random.chance(0.9) ? 'COMMIT' : 'ROLLBACK');
    if (command === 'COMMIT') this.committed++;
    else this.rolledBack++;
  }

  /** In two phases; what the first one leaves behind when the connection is lost, `#settle` ends. */
  async #commitInTwo(client: pg.Client, random: Random): Promise<void> {
    const name = `'oracle ${random.hex(8)}'`;
    const { command } = await client.query(`PREPARE TRANSACTION ${name}`);
    if (command.startsWith('PREPARE')) {
      await sleep(random.between(0, 300));
      await client.query(`${random.chance(0.8) ? 'COMMIT' : 'ROLLBACK'} PREPARED ${name}`);
    }
    await client.query('BEGIN');
  }

  /** Ends transactions that were prepared and then forgotten: their locks would stay. */
  async #settle(client: pg.Client, random: Random): Promise<void> {
    const { rows } = await client.query<{ gid: string }>(
      "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND prepared < now() - interval '0.5 s'",
    );
    for (const { gid } of rows)
      await client.query(`${random.chance(0.5) ? 'COMMIT' : 'ROLLBACK'} PREPARED '${gid}'`).catch(() => {});
  }

  /** True when the statement failed and the session goes on. */
  async #attempt(client: pg.Client, statement: string): Promise<boolean> {
    try {
      await client.query(statement);
      return false;
    } catch (error) {
      const code = (error as { code?: string }).code ?? '';
      // Taken keys, deadlocks, waits that were too long, keys that are looked at later: all else must not happen.
      if (!/^(23|40|55006|55P03|57014)/.test(code)) {
        if (/^[0-9A-Z]{5}$/.test(code) && !/^(57|08)/.test(code)) {
          this.failed++;
          console.error(`the statement failed: ${String(error)}\n  ${statement.slice(0, 300)}`);
          return true;
        }
        throw error;
      }
      return true;
    }
  }
}
