/**
 * Slots are made while other transactions run, and change tables. What such a transaction commits after the server has begun to make the
 * slot, and before it has waited for all that ran then, PostgreSQL's decoding never learns: see activities/capture/postgresql/slot.ts.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { CaptureHarness, openClient } from './capture_harness.ts';
import { type SourceServer, startSource } from './source_server.ts';

let parts: StartedParts<'clickhouse'>;
let server: SourceServer;
let client: pg.Client;
let number = 0;
let harness: CaptureHarness | undefined;

beforeAll(async () => {
  [parts, server] = await Promise.all([startParts(['clickhouse']), startSource()]);
  client = await openClient(server.url());
  await client.query('CREATE TABLE other (id int)');
}, 60_000);

afterEach(async () => {
  await harness?.close();
});

afterAll(async () => {
  await client?.end().catch(() => {});
  await server?.stop();
  await parts?.[Symbol.asyncDispose]();
});

/** Returns when the session that makes the slot waits for the transaction of `holder`. */
async function waitsFor(holder: pg.Client): Promise<void> {
  const { rows } = await holder.query('SELECT pg_backend_pid() AS pid');
  const waiting = `SELECT FROM pg_stat_activity
    WHERE query LIKE '%pg_create_logical_replication_slot%' AND $1 = ANY(pg_blocking_pids(pid))`;
  await expect.poll(async () => (await client.query(waiting, [rows[0].pid])).rowCount).toBe(1);
}

async function writing(): Promise<pg.Client> {
  const session = await openClient(server.url());
  await session.query('BEGIN');
  await session.query('INSERT INTO other VALUES (1)');
  return session;
}

/**
 * Makes a source ready while `change` is committed at the worst moment, and `write` is done by a transaction that begins
 * before the slot is made, and ends behind it.
 */
async function prepareWhile(change: string, write: string, role?: string): Promise<CaptureHarness> {
  const table = `t${++number}`;
  await client.query(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`);
  await client.query(`INSERT INTO ${table} VALUES (1, 'one'), (2, 'two')`);
  if (role) await client.query(`ALTER TABLE ${table} OWNER TO ${role}`);
  const places = { postgres: server.url(role), clickhouse: parts.clickhouse.url };
  harness = new CaptureHarness({ ...places, source: `n${number}`, tables: [table] });
  const first = await writing();
  const prepared = harness.prepare();
  prepared.catch(() => {});
  await waitsFor(first);
  const second = await writing();
  await client.query(change.replaceAll('$t', table));
  await first.query('COMMIT');
  await waitsFor(second);
  const third = await writing();
  await third.query(write.replaceAll('$t', table));
  await second.query('COMMIT');
  // Whoever waits for all that runs needs this one to end.
  const ended = sleep(500).then(() => third.query('COMMIT'));
  try {
    await prepared;
    return harness;
  } finally {
    await ended;
    await Promise.all([first, second, third].map((session) => session.end()));
  }
}

describe('a slot that is made while', () => {
  it.each([
    ['a table is emptied', 'TRUNCATE $t', `INSERT INTO $t VALUES (7, 'seven')`],
    ['a column is added', 'ALTER TABLE $t ADD COLUMN w int', `INSERT INTO $t VALUES (7, 'seven', 7)`],
    ['a column is renamed', 'ALTER TABLE $t RENAME COLUMN v TO w', `INSERT INTO $t (id, w) VALUES (7, 'seven')`],
    ['a type is changed', 'ALTER TABLE $t ALTER COLUMN id TYPE bigint', `INSERT INTO $t VALUES (7000000000, 'seven')`],
  ])('%s brings all of it', async (_, change, write) => {
    const made = await prepareWhile(change, write);
    const { table } = made.tables[0]!;
    made.startLease();
    await made.snapshot(table);
    await client.query(write.replaceAll('$t', table).replaceAll('7', '8'));
    await made.drain(client);
    const { source, copy } = await made.bothSides(client, table);
    expect(source.length).toBeGreaterThan(1);
    expect(copy).toEqual(source);
  });

  it('a table is altered needs temporary tables, and says so', async () => {
    await server.run(`CREATE ROLE modest LOGIN REPLICATION PASSWORD 'secret'`);
    await server.run('REVOKE TEMPORARY ON DATABASE postgres FROM PUBLIC; GRANT CREATE ON DATABASE postgres TO modest');
    const prepared = prepareWhile('TRUNCATE $t', `INSERT INTO $t VALUES (7, 'seven')`, 'modest');
    await expect(prepared).rejects.toMatchObject({ transient: true, remedy: expect.stringMatching(/GRANT TEMPORARY/) });
    await harness!.begin();
    await harness!.drain(client);
    const { source, copy } = await harness!.bothSides(client, harness!.tables[0]!.table);
    expect(copy).toEqual(source);
  });
});
