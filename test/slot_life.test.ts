/**
 * What may befall a source's log and its slot, on real servers: each ends in recovery, or in a state with reason and
 * remedy that works. The role is no superuser, and the server's limits are tight.
 */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { openSource } from '../activities/capture/source.ts';
import { addSample, type LogSample, type LogState, logFigures } from '../model/log.ts';
import { compareLsn } from '../model/position.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { CaptureHarness, type HarnessOptions, openClient } from './capture_harness.ts';
import { type SourceServer, startSource } from './source_server.ts';

const settings = ['max_slot_wal_keep_size=48MB', 'max_wal_size=64MB', 'wal_sender_timeout=1s'];
const role = 'capture';
const database = 'shop';

let parts: StartedParts<'clickhouse'>;
let server: SourceServer;
let client: pg.Client;
let number = 0;
const harnesses: CaptureHarness[] = [];

beforeAll(async () => {
  [parts, server] = await Promise.all([startParts(['clickhouse']), startSource(...settings)]);
  await server.run(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'secret'`);
  await server.run(`CREATE DATABASE ${database} OWNER ${role}`);
  await server.run('CREATE DATABASE neighbour');
  await server.run(`ALTER SCHEMA public OWNER TO ${role}`, database);
  client = await openClient(server.url(role, database));
}, 60_000);

afterEach(async () => {
  for (const harness of harnesses.splice(0)) await harness.close();
});

afterAll(async () => {
  await client?.end().catch(() => {});
  await server?.stop();
  await parts?.[Symbol.asyncDispose]();
});

async function sql(...statements: string[]): Promise<void> {
  for (const statement of statements) await client.query(statement);
}

function capture(tables: string[], more: Partial<HarnessOptions> = {}): CaptureHarness {
  const options = { postgres: server.url(role, database), clickhouse: parts.clickhouse.url, tables };
  const harness = new CaptureHarness({ ...options, source: `l${++number}`, ...more });
  harnesses.push(harness);
  return harness;
}

/** A source of one table that streams, with some rows. */
async function streaming(table: string, more: Partial<HarnessOptions> = {}): Promise<CaptureHarness> {
  await sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`, `INSERT INTO ${table} VALUES (1, 'a'), (2, 'b')`);
  const harness = capture([table], more);
  await harness.begin();
  await expectEqual(harness);
  return harness;
}

async function expectEqual(harness: CaptureHarness): Promise<void> {
  await harness.drain(client);
  for (const { table } of harness.tables) {
    const { source, copy } = await harness.bothSides(client, table);
    expect(copy, table).toEqual(source);
  }
}

const slotOf = (harness: CaptureHarness) => `sluice_${harness.options.source}`;

async function slot(harness: CaptureHarness): Promise<Record<string, unknown> | undefined> {
  const { rows } = await client.query(
    `SELECT *, confirmed_flush_lsn::text AS confirmed, pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::float8 AS kept
     FROM pg_replication_slots WHERE slot_name = $1`,
    [slotOf(harness)],
  );
  return rows[0];
}

async function stopped(harness: CaptureHarness): Promise<void> {
  await harness.stop();
  await expect.poll(async () => (await slot(harness))?.active, { timeout: 10_000 }).toBe(false);
}

async function logOf({ context, request }: CaptureHarness): Promise<LogState> {
  const source = await openSource(request.type);
  return await source.logState(context.connected(request));
}

/** Log of a neighbour, which nobody here asked for. */
async function writeLog(megabytes: number): Promise<void> {
  await server.run(
    `CREATE TABLE IF NOT EXISTS public.noise (v text);
     INSERT INTO public.noise SELECT repeat(md5(i::text), 32) FROM generate_series(1, ${megabytes * 1000}) i;
     TRUNCATE public.noise`,
    'neighbour',
  );
}

/** The lease and the making ready refuse with a remedy; the remedy heals, and nothing is missing. */
async function expectLostAndHealed(harness: CaptureHarness, kind: string, reason: RegExp): Promise<void> {
  const refusal = { kind, transient: false, remedy: expect.stringMatching(/sluice sources resync l\d+$/) };
  harness.startLease();
  const error = await harness.leaseEnd().then(
    () => undefined,
    (thrown) => thrown,
  );
  expect(error).toMatchObject(refusal);
  expect(error.message).toMatch(reason);
  await expect(harness.prepare()).rejects.toMatchObject(refusal);
  await harness.resyncAll();
  await expectEqual(harness);
  await sql(`INSERT INTO ${harness.tables[0]!.table} VALUES (900, 'behind')`);
  await expectEqual(harness);
}

describe('a role that is no superuser', () => {
  it('is enough to capture, to take over from another worker, and to leave nothing behind', async () => {
    const harness = await streaming('modest');
    const { rows } = await client.query('SELECT rolsuper FROM pg_roles WHERE rolname = current_user');
    expect(rows).toEqual([{ rolsuper: false }]);
    // Nobody told the first worker: the session that reads the slot has to be ended.
    const other = capture(['modest'], { source: harness.options.source });
    other.takeOver(harness);
    other.startLease();
    await expect(harness.leaseEnd()).rejects.toMatchObject({ transient: true });
    await sql(`UPDATE modest SET v = 'later'`, 'DELETE FROM modest WHERE id = 1');
    await expectEqual(other);
    await other.stop();
    const source = await openSource(other.request.type);
    await source.remove(other.context.connected(other.request));
    expect(await slot(other)).toBeUndefined();
    expect((await client.query('SELECT FROM pg_publication')).rowCount).toBe(0);
  });
});

describe('a table that the role may not read any more', () => {
  it('stops alone when its values have to be looked up, and a re-sync heals', async () => {
    await sql('CREATE TABLE readable (id int PRIMARY KEY, v text)', `INSERT INTO readable VALUES (1, 'a')`);
    await sql(
      'CREATE TABLE forbidden (id int PRIMARY KEY, v text)',
      'ALTER TABLE forbidden ALTER COLUMN v SET STORAGE EXTERNAL',
      `INSERT INTO forbidden SELECT g, repeat('x', 10000) || g FROM generate_series(1, 3) g`,
    );
    const harness = capture(['readable', 'forbidden']);
    await harness.begin();
    await expectEqual(harness);
    await sql(`REVOKE SELECT ON forbidden FROM ${role}`);
    // The value is not sent, and a key that changed has no row in the copy to take it from.
    await server.run('UPDATE public.forbidden SET id = 30 WHERE id = 3', database);
    const { ended, failed } = await harness.leaseEnd();
    expect(ended).toBe('table_failed');
    expect(Object.values(failed)).toEqual([
      expect.objectContaining({ reason: expect.stringMatching(/forbidden.*permission denied/) }),
    ]);
    harness.dropTable('forbidden');
    harness.startLease();
    await sql(`INSERT INTO readable VALUES (2, 'goes on')`);
    await expectEqual(harness);
    await harness.stop();
    await sql(`GRANT SELECT ON forbidden TO ${role}`);
    await harness.resync('forbidden', false);
    await expectEqual(harness);
  });
});

describe('an idle source', () => {
  it('is not written to, and lets the log of its neighbours go', async () => {
    const harness = await streaming('quiet');
    const end = async () => (await client.query('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows[0].lsn;
    const before = await end();
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    const { rows } = await client.query('SELECT pg_wal_lsn_diff($1, $2)::int AS written', [await end(), before]);
    expect(rows[0].written).toBeLessThan(20_000);
    // More than the server would keep for a slot that stands still.
    for (let round = 0; round < 2; round++) {
      await writeLog(30);
      const position = await end();
      await expect
        .poll(
          async () => {
            await server.run('CHECKPOINT');
            const { rows } = await client.query('SELECT $1::pg_lsn >= $2::pg_lsn AS passed', [
              (await slot(harness))!.confirmed,
              position,
            ]);
            return rows[0].passed && Number((await slot(harness))!.kept) < 2_000_000;
          },
          { timeout: 20_000, interval: 500 },
        )
        .toBe(true);
    }
    await sql(`INSERT INTO quiet VALUES (3, 'after')`);
    await expectEqual(harness);
  });
});

describe('a sink that is slow', () => {
  it('costs no connection, however short the patience of the server is', async () => {
    const harness = await streaming('patient', { bufferSize: 1000 });
    const { active_pid: before } = (await slot(harness))!;
    parts.clickhouse.signal('SIGSTOP');
    try {
      // More than is read ahead: the socket stands still, and nobody answers the server's questions.
      await sql(`INSERT INTO patient SELECT g, 'x' FROM generate_series(10, 20000) g`);
      await new Promise((resolve) => setTimeout(resolve, 4_000));
    } finally {
      parts.clickhouse.signal('SIGCONT');
    }
    await expectEqual(harness);
    expect((await slot(harness))!.active_pid).toBe(before);
  });
});

describe('a slot', () => {
  it('that is dropped stops the source with a remedy, and the remedy heals', async () => {
    const harness = await streaming('dropped');
    await stopped(harness);
    await sql(`SELECT pg_drop_replication_slot('${slotOf(harness)}')`, `UPDATE dropped SET v = 'unseen'`);
    expect((await logOf(harness)).danger).toMatch(/is gone$/);
    await expectLostAndHealed(harness, 'slot_lost', /is gone/);
  });

  it('that is dropped while it is read stops the source as well', async () => {
    const harness = await streaming('torn');
    const { active_pid } = (await slot(harness))!;
    await sql(
      `SELECT pg_terminate_backend(${active_pid}, 5000)`,
      `SELECT pg_drop_replication_slot('${slotOf(harness)}')`,
    );
    await expect(harness.leaseEnd()).rejects.toMatchObject({ transient: true });
    await sql('DELETE FROM torn WHERE id = 1');
    await expectLostAndHealed(harness, 'slot_lost', /is gone/);
  });

  it('that was made again by somebody else is not trusted', async () => {
    const harness = await streaming('remade');
    await stopped(harness);
    await sql(
      `SELECT pg_drop_replication_slot('${slotOf(harness)}')`,
      `UPDATE remade SET v = 'unseen'`,
      `SELECT pg_create_logical_replication_slot('${slotOf(harness)}', 'pgoutput')`,
    );
    await expectLostAndHealed(harness, 'slot_ahead', /past the last recorded batch/);
  });

  it('is made anew with all copies where it was lost, however whole it looks', async () => {
    const harness = await streaming('renewed');
    await stopped(harness);
    await sql(`INSERT INTO renewed VALUES (3, 'unread')`);
    const { rows } = await client.query('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    await harness.resyncAll(true);
    const began = (await harness.records()).findLast(({ kind }) => kind === 'begin')!;
    expect(compareLsn(began.position_from, rows[0].lsn)).toBeGreaterThanOrEqual(0);
    await expectEqual(harness);
    // One that lost its state goes on from what is recorded.
    await stopped(harness);
    const lost = capture(['renewed'], { source: harness.options.source });
    expect((await lost.prepare()).tables).toMatchObject([{ generation: 2, snapshot_done: false }]);
  });

  it('that another installation reads is left alone, and so is its publication', async () => {
    const harness = await streaming('shared');
    await sql('CREATE TABLE unshared (id int PRIMARY KEY)');
    const { active_pid } = (await slot(harness))!;
    const database = `elsewhere_${harness.options.source}`;
    const second = capture(['unshared'], { source: harness.options.source, database });
    await expect(second.prepare()).rejects.toMatchObject({
      kind: 'conflict',
      remedy: expect.stringMatching(/another id/),
    });
    await sql(`INSERT INTO shared VALUES (3, 'goes on')`);
    await expectEqual(harness);
    expect((await slot(harness))!.active_pid).toBe(active_pid);
    const { rows } = await client.query('SELECT tablename FROM pg_publication_tables WHERE pubname = $1', [
      slotOf(harness),
    ]);
    expect(rows).toEqual([{ tablename: 'shared' }]);
  });

  it('that keeps more and more is told beforehand, and stops the source when the server gives it up', async () => {
    const harness = await streaming('kept');
    await stopped(harness);
    let samples: LogSample[] = [];
    let state = await logOf(harness);
    expect(state).toMatchObject({ danger: null });
    expect(logFigures(state, samples, false).warning).toBeNull();
    // The kept log grows, and so does what is foretold.
    for (let look = 0; look < 3; look++) {
      samples = addSample(samples, state);
      await new Promise((resolve) => setTimeout(resolve, 3_600));
      await writeLog(3);
      state = await logOf(harness);
    }
    samples = addSample(samples, state);
    const { kept } = (await slot(harness))!;
    expect(Math.abs(state.retained_bytes - Number(kept))).toBeLessThan(1_000_000);
    expect(state.limit_bytes! / 2 ** 20).toBeGreaterThan(40);
    expect(state.limit_bytes! / 2 ** 20).toBeLessThan(80);
    const { growth_bytes_per_second, limit_in_seconds, warning } = logFigures(state, samples, false);
    expect(growth_bytes_per_second).toBeGreaterThan(100_000);
    const foretold = (limit_in_seconds! * growth_bytes_per_second! + state.retained_bytes) / state.limit_bytes!;
    expect(Math.abs(foretold - 1)).toBeLessThan(0.05);
    expect(warning).toMatchObject({ kind: 'log_kept', reason: expect.stringMatching(/which is reached in \d/) });
    expect(warning!.remedy).toContain('sluice sources start');

    await sql(`UPDATE kept SET v = 'unseen'`, 'DELETE FROM kept WHERE id = 2');
    for (let round = 0; round < 4; round++) await writeLog(24);
    await server.run('CHECKPOINT');
    await expect.poll(async () => (await slot(harness))?.wal_status, { timeout: 10_000 }).toBe('lost');
    state = await logOf(harness);
    expect(logFigures(state, samples, false).warning!.reason).toMatch(/was invalidated: wal_removed; /);
    await expectLostAndHealed(harness, 'slot_lost', /was invalidated: wal_removed/);
  });
});

describe('a server', () => {
  it('that was set back to an earlier state stops the source, and the remedy heals', async () => {
    const harness = await streaming('set_back');
    await stopped(harness);
    await client.end();
    const setBack = await server.saveState(...settings);
    client = await openClient(server.url(role, database));
    await sql(
      `INSERT INTO set_back SELECT g, 'lost' FROM generate_series(3, 2000) g`,
      `UPDATE set_back SET v = 'lost'`,
    );
    harness.startLease();
    await expectEqual(harness);
    await stopped(harness);
    await client.end();
    await setBack();
    client = await openClient(server.url(role, database));
    // The same cluster and timeline, and its slot is where it was.
    await sql(`UPDATE set_back SET v = 'kept' WHERE id = 1`);
    await expectLostAndHealed(harness, 'source_replaced', /was set back to an earlier state/);
    // Positions begin again behind those of the copy's rows.
    await sql(`UPDATE set_back SET v = 'newest'`, 'DELETE FROM set_back WHERE id = 2');
    await expectEqual(harness);
    expect((await harness.records()).at(-1)!.epoch).toBe(2);
  });
});

describe('a failover', () => {
  it('keeps the slot, and says what it may have lost; the remedy heals', async () => {
    const harness = await streaming('primary_rows', { sourceOptions: { failover: true } });
    expect((await slot(harness))!.failover).toBe(true);
    await stopped(harness);
    await client.end();
    const primary = server;
    const standby = await primary.standby(settings);
    client = await openClient(primary.url(role, database));
    try {
      harness.startLease();
      await sql(`INSERT INTO primary_rows VALUES (3, 'both')`);
      await expectEqual(harness);
      const synced = `SELECT count(*)::int AS n FROM pg_replication_slots WHERE slot_name = '${slotOf(harness)}' AND synced AND NOT temporary AND invalidation_reason IS NULL`;
      await expect
        .poll(
          async () => {
            // A standby takes a slot over once it needs nothing that the standby has not.
            await sql(`UPDATE primary_rows SET v = v || '.'`);
            await primary.run('CHECKPOINT');
            return (await standby.run(synced)).rows[0].n;
          },
          { timeout: 60_000, interval: 500 },
        )
        .toBe(1);
      await standby.run('SELECT pg_promote()');
      // The old primary does not know yet: what it takes now is lost.
      await sql(
        `INSERT INTO primary_rows VALUES (4, 'only there')`,
        `UPDATE primary_rows SET v = 'only there' WHERE id = 1`,
      );
      await expectEqual(harness);
      await stopped(harness);
      await client.end();
      client = await openClient(standby.url(role, database));
      expect(await slot(harness)).toMatchObject({ failover: true, plugin: 'pgoutput' });
      await sql(`INSERT INTO primary_rows VALUES (5, 'new')`);
      process.env.SLUICE_TEST_DATABASE_URL = standby.url(role, database);
      await expectLostAndHealed(harness, 'source_replaced', /it was restored, or failed over/);
      const records = await harness.records();
      expect(records.at(-1)!.epoch).toBe(2);
      expect((await slot(harness))!.failover).toBe(true);
    } finally {
      await harness.close();
      await client.end().catch(() => {});
      await standby.stop();
      client = await openClient(primary.url(role, database));
    }
  });
});
