/** Tables without a key on real parts: rows that are alike are counted, whatever happens beside and between. */
import { MockActivityEnvironment } from '@temporalio/testing';
import type pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { openSource } from '../activities/capture/source.ts';
import { type TableVerification, verifyTable } from '../activities/check/verify.ts';
import { lastRecord, loadSchemas } from '../activities/load/batches.ts';
import { storeRules } from '../activities/transform/rule_store.ts';
import { behindPageHeader, parseLsn } from '../model/position.ts';
import type { Finding } from '../model/source.ts';
import { type Random, seededRandom } from '../workers/demo/random.ts';
import { capture, client, parts, spoiled, sql } from './capture_fixture.ts';
import { type CaptureHarness, openClient } from './capture_harness.ts';
import { checkRecords } from './oracle/compare.ts';
import type { Verdict } from './oracle/proxy.ts';

const sessions: pg.Client[] = [];

afterEach(async () => {
  for (const session of sessions.splice(0)) await session.end().catch(() => {});
});

async function session(): Promise<pg.Client> {
  const other = await openClient(parts.postgres.url);
  sessions.push(other);
  return other;
}

/** A table without a key, whose old rows the log has whole. */
async function make(table: string, columns: string): Promise<void> {
  await sql(`CREATE TABLE ${table} (${columns})`, `ALTER TABLE ${table} REPLICA IDENTITY FULL`);
}

async function expectEqual(harness: CaptureHarness, table: string): Promise<string[]> {
  await harness.drain(client);
  const { source, copy } = await harness.bothSides(client, table);
  expect(copy, table).toEqual(source);
  expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
  return copy;
}

/** Changes one of several rows that are alike. */
const one = (table: string, where: string) => `ctid IN (SELECT ctid FROM ${table} WHERE ${where} LIMIT 1)`;

describe('changes', () => {
  it('of one of several rows that are alike leave the others', async () => {
    await make('alike', 'a int, b text');
    await sql(
      `INSERT INTO alike SELECT 1, 'x' FROM generate_series(1, 5)`,
      `INSERT INTO alike VALUES (NULL, NULL), (NULL, NULL)`,
    );
    const harness = capture(['alike']);
    await harness.begin();
    expect(await expectEqual(harness, 'alike')).toHaveLength(7);
    await sql(
      `DELETE FROM alike WHERE ${one('alike', 'a = 1')}`,
      `UPDATE alike SET b = 'y' WHERE ${one('alike', 'a = 1')}`,
      `INSERT INTO alike VALUES (1, 'x'), (NULL, NULL)`,
      `UPDATE alike SET b = b`,
      `DELETE FROM alike WHERE ${one('alike', 'a IS NULL')}`,
    );
    expect(await expectEqual(harness, 'alike')).toHaveLength(7);
    await sql('DELETE FROM alike');
    expect(await expectEqual(harness, 'alike')).toHaveLength(0);
    await sql(`INSERT INTO alike VALUES (1, 'x')`);
    expect(await expectEqual(harness, 'alike')).toHaveLength(1);
  });

  it('keep values of every kind: large ones that did not change, floats, arrays, NULL', async () => {
    await make(
      'kinds',
      `n int, f float8, g real, big text, list float8[] NOT NULL DEFAULT '{}', raw bytea, at timestamptz, d numeric(8,2)`,
    );
    await sql('ALTER TABLE kinds ALTER COLUMN big SET STORAGE EXTERNAL');
    const harness = capture(['kinds']);
    const rows = `INSERT INTO kinds SELECT n, f, g, big, list, '\\x00ff0a', '2024-01-01 00:00:00.5+00', 1.50 FROM
      (VALUES (1, 'NaN'::float8, 'NaN'::real, repeat('x', 9000), '{1.5,NULL,-0}'::float8[]), (1, 'NaN', 'NaN', repeat('x', 9000), '{1.5,NULL,-0}'),
        (2, '0', '0', NULL, '{0}'), (2, '-0', '-0', NULL, '{-0}'), (3, NULL, NULL, '', '{}'), (3, NULL, NULL, NULL, '{}'),
        (4, 'Infinity', '-Infinity', 'a', '{1.5,-2}'), (5, 1e-300, 1e-30, 'ä\t\n\\', '{}')) v (n, f, g, big, list), generate_series(1, 2)`;
    await sql(rows);
    await harness.begin();
    expect(await expectEqual(harness, 'kinds')).toHaveLength(16);
    await sql(rows, 'UPDATE kinds SET n = n + 1', `DELETE FROM kinds WHERE ${one('kinds', "f = 'NaN'")}`);
    await sql(`UPDATE kinds SET g = 0 WHERE ${one('kinds', "f = 'NaN'")}`, `UPDATE kinds SET f = -f WHERE f = 0`);
    expect(await expectEqual(harness, 'kinds')).toHaveLength(31);
    await sql('DELETE FROM kinds WHERE n % 2 = 0');
    await expectEqual(harness, 'kinds');
    await sql('DELETE FROM kinds');
    expect(await expectEqual(harness, 'kinds')).toHaveLength(0);
  });

  it('of numbers that are not equal to themselves, in the only column there is', async () => {
    await make('lonely', 'f float8');
    await sql(`INSERT INTO lonely VALUES ('NaN'), ('NaN'), ('NaN'), ('0'), ('0'), ('-0'), (NULL)`);
    const harness = capture(['lonely']);
    await harness.begin();
    await sql(`DELETE FROM lonely WHERE ${one('lonely', "f = 'NaN'")}`, `DELETE FROM lonely WHERE f::text = '-0'`);
    expect(await expectEqual(harness, 'lonely')).toHaveLength(5);
  });

  it('that are written again after a crash count once', async () => {
    await make('repeated', 'a int');
    await sql('INSERT INTO repeated VALUES (1), (1)');
    let spoil = false;
    const clickhouse = await spoiled(({ query }) => (spoil && query.includes('_batches') ? 'lost' : 'passed'));
    const harness = capture(['repeated'], { clickhouse });
    await harness.begin();
    await harness.drain(client);
    spoil = true;
    await sql('INSERT INTO repeated VALUES (1), (2)', 'UPDATE repeated SET a = 3 WHERE a = 2');
    await expect(harness.leaseEnd()).rejects.toThrow();
    spoil = false;
    const successor = capture(['repeated'], { source: harness.options.source });
    successor.takeOver(harness);
    successor.startLease(600, 2);
    expect(await expectEqual(successor, 'repeated')).toHaveLength(4);
    const read = harness.context.clickhouse('read');
    const asset = read.name(`${harness.options.source}_repeated`);
    const [count] = await read.rows<{ n: string; twice: string }>(
      `SELECT toString(count()) AS n, toString((SELECT count() FROM ${asset} FINAL)) AS twice FROM ${asset}`,
    );
    expect(Number(count!.n)).toBeGreaterThan(Number(count!.twice));
  });

  it('TRUNCATE empties the copy, also where rows stand before and behind it in one transaction', async () => {
    await make('emptied', 'a int');
    await sql('INSERT INTO emptied SELECT generate_series(1, 10)');
    const harness = capture(['emptied']);
    await harness.begin();
    for (let night = 0; night < 8; night++) {
      await sql(
        `BEGIN; INSERT INTO emptied VALUES (${night}); TRUNCATE emptied; INSERT INTO emptied SELECT i % 3 FROM generate_series(0, ${night}) i; COMMIT`,
      );
      expect(await expectEqual(harness, 'emptied')).toHaveLength(night + 1);
    }
    await sql('TRUNCATE emptied');
    expect(await expectEqual(harness, 'emptied')).toHaveLength(0);
  });
});

describe('a snapshot', () => {
  it('sees some of the transactions that the stream brings, and each counts once', async () => {
    await make('seen', 'a int, b text');
    await sql(`INSERT INTO seen SELECT i % 4, 'old' FROM generate_series(1, 20) i`);
    const harness = capture(['seen']);
    await harness.prepare();
    harness.startLease();
    // Behind the start, and before the snapshot.
    await sql(
      `INSERT INTO seen VALUES (1, 'between')`,
      `UPDATE seen SET b = 'changed' WHERE a = 2`,
      'DELETE FROM seen WHERE a = 3',
    );
    await harness.plan('seen');
    const [long, early] = [await session(), await session()];
    await long.query(`BEGIN; INSERT INTO seen VALUES (9, 'open'); DELETE FROM seen WHERE a = 1`);
    await early.query(`BEGIN; INSERT INTO seen VALUES (8, 'prepared')`);
    await early.query(`PREPARE TRANSACTION 'keyless'`);
    // Begun and committed later than the open ones, and seen.
    await sql(`INSERT INTO seen VALUES (7, 'late'), (7, 'late')`);
    await harness.copyChunk('seen', 0);
    await sql(`DELETE FROM seen WHERE ${one('seen', 'a = 7')}`);
    await long.query('COMMIT');
    await sql(`COMMIT PREPARED 'keyless'`);
    await harness.finish('seen');
    const rows = await expectEqual(harness, 'seen');
    expect(rows.length).toBeGreaterThan(10);
    await sql('DELETE FROM seen');
    expect(await expectEqual(harness, 'seen')).toHaveLength(0);
  });

  it('does not see a commit that is in the log before others can see it, and the stream brings that', async () => {
    await make('hidden', 'a int');
    await sql('INSERT INTO hidden VALUES (1)');
    const harness = capture(['hidden']);
    await harness.prepare();
    harness.startLease();
    await harness.plan('hidden');
    await sql(
      `SET synchronous_commit = local`,
      `ALTER SYSTEM SET synchronous_standby_names = 'nobody'`,
      'SELECT pg_reload_conf()',
    );
    try {
      const waiting = await session();
      await expect
        .poll(async () => (await waiting.query('SHOW synchronous_standby_names')).rows)
        .toEqual([{ synchronous_standby_names: 'nobody' }]);
      const { rows } = await waiting.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      const commit = waiting.query('INSERT INTO hidden VALUES (1), (2)');
      const isWaiting = async () =>
        (await client.query('SELECT wait_event FROM pg_stat_activity WHERE pid = $1', [rows[0]!.pid])).rows;
      await expect.poll(isWaiting).toEqual([{ wait_event: 'SyncRep' }]);
      // Its commit stands in the log before the end of this one, which is seen.
      await sql('INSERT INTO hidden VALUES (3)');
      await harness.copyChunk('hidden', 0);
      await sql(`SELECT pg_cancel_backend(${rows[0]!.pid})`);
      await commit;
    } finally {
      await sql('ALTER SYSTEM RESET synchronous_standby_names', 'SELECT pg_reload_conf()', 'RESET synchronous_commit');
    }
    await harness.finish('hidden');
    expect(await expectEqual(harness, 'hidden')).toHaveLength(4);
  });

  it('waits for the stream where a column is new: what was written into that before is no less seen', async () => {
    await make('widened', 'a int');
    await sql('INSERT INTO widened VALUES (1), (1), (2)');
    const harness = capture(['widened']);
    await harness.prepare();
    await harness.plan('widened');
    await sql('ALTER TABLE widened ADD COLUMN b jsonb', `UPDATE widened SET b = '{"a": 1}'`);
    await expect(harness.copyChunk('widened', 0)).rejects.toMatchObject({
      message: expect.stringContaining('column b'),
    });
    harness.startLease();
    await harness.drain(client);
    await harness.copyChunk('widened', 0);
    await harness.finish('widened');
    expect(await expectEqual(harness, 'widened')).toHaveLength(3);
    await sql('DELETE FROM widened WHERE a = 1');
    expect(await expectEqual(harness, 'widened')).toHaveLength(1);
  });

  it('keeps its rows when it saw the TRUNCATE that the stream brings, and loses them when it did not', async () => {
    await make('cleared', 'a int');
    await sql('INSERT INTO cleared SELECT generate_series(1, 10)');
    const harness = capture(['cleared']);
    await harness.prepare();
    await sql('INSERT INTO cleared VALUES (11)', 'TRUNCATE cleared', 'INSERT INTO cleared VALUES (12), (12)');
    await harness.plan('cleared');
    await harness.copyChunk('cleared', 0);
    await harness.finish('cleared');
    harness.startLease();
    expect(await expectEqual(harness, 'cleared')).toHaveLength(2);
    await harness.stop();
    await sql('TRUNCATE cleared', 'INSERT INTO cleared VALUES (13)');
    await harness.addTable('cleared', 2);
    await sql('INSERT INTO cleared VALUES (14)');
    await harness.plan('cleared');
    await harness.copyChunk('cleared', 0);
    await sql('TRUNCATE cleared', 'INSERT INTO cleared VALUES (15)');
    harness.startLease();
    await harness.finish('cleared');
    expect(await expectEqual(harness, 'cleared')).toHaveLength(1);
  });

  it('may be read again and again, by workers that die and by two at once: one reading counts', async () => {
    await make('again', 'a int, b text');
    await sql(`INSERT INTO again SELECT i % 100, repeat('x', 100) FROM generate_series(1, 30000) i`);
    let spoil: { query: string; verdict: Verdict } | undefined;
    const clickhouse = await spoiled(({ query }) => (spoil && query.includes(spoil.query) ? spoil.verdict : 'passed'));
    const harness = capture(['again'], { clickhouse });
    await harness.prepare();
    harness.startLease();
    await harness.plan('again');
    const dies = async (query: string, verdict: Verdict) => {
      spoil = { query, verdict };
      await expect(harness.copyChunk('again', 0)).rejects.toThrow();
      spoil = undefined;
    };
    // Behind its rows, but before it is complete.
    await dies('_sign, _deleted, _committed_at) SELECT', 'lost');
    expect(await harness.bothSides(client, 'again')).toMatchObject({ copy: [] });
    await sql('DELETE FROM again WHERE a < 50', `INSERT INTO again VALUES (1, 'new')`);
    // Complete, and never told so.
    await dies('_sign, _deleted, _committed_at) SELECT', 'unanswered');
    await sql('DELETE FROM again WHERE a < 60', `INSERT INTO again VALUES (2, 'new')`);
    const cancelled = new MockActivityEnvironment();
    const reading = harness.copyChunk('again', 0, cancelled);
    setTimeout(() => cancelled.cancel(), 100);
    await reading.catch(() => {});
    await sql('DELETE FROM again WHERE a < 70', `INSERT INTO again VALUES (2, 'new')`);
    const another = new MockActivityEnvironment({ attempt: 2 });
    // Both may be complete, and one of them comes too late to record it.
    const two = await Promise.allSettled([harness.copyChunk('again', 0), harness.copyChunk('again', 0, another)]);
    expect(two.map(({ status }) => status)).toContain('fulfilled');
    await harness.copyChunk('again', 0);
    await harness.finish('again');
    expect((await expectEqual(harness, 'again')).length).toBe(9001);
    await sql('UPDATE again SET a = 0');
    await expectEqual(harness, 'again');
  });
});

describe('other definitions', () => {
  it('columns that come, are renamed, or go, are followed in their place', async () => {
    await make('altered', 'a int, b text, c varchar(5), d numeric(6,2)');
    await sql(`INSERT INTO altered SELECT i % 3, 'x', 'c', 1.5 FROM generate_series(1, 30) i`);
    const harness = capture(['altered']);
    await harness.begin();
    const steps = async (...statements: string[]) => {
      await sql(...statements);
      await harness.drain(client);
    };
    await steps(
      `ALTER TABLE altered ADD COLUMN e int DEFAULT 7, ADD COLUMN f text`,
      `DELETE FROM altered WHERE ${one('altered', 'a = 1')}`,
      `UPDATE altered SET e = 8 WHERE ${one('altered', 'a = 1')}`,
      `INSERT INTO altered VALUES (1, 'x', 'c', 1.5)`,
    );
    await steps(
      'ALTER TABLE altered RENAME COLUMN b TO g',
      `UPDATE altered SET g = 'y' WHERE ${one('altered', 'a = 2')}`,
    );
    await steps('ALTER TABLE altered DROP COLUMN g', `DELETE FROM altered WHERE ${one('altered', 'a = 2')}`);
    await steps(
      'ALTER TABLE altered ALTER COLUMN c TYPE text, ALTER COLUMN d TYPE numeric(12,2)',
      `DELETE FROM altered WHERE ${one('altered', 'a = 0')}`,
      `INSERT INTO altered VALUES (5, 'longer than before', 1234567.89)`,
    );
    expect(await expectEqual(harness, 'altered')).toHaveLength(29);
    await sql('DELETE FROM altered WHERE a < 2');
    await expectEqual(harness, 'altered');
    expect((await harness.stop())!.failed).toEqual({});
  });

  it('need a copy made anew when a key comes or goes, or when rows were held back for a column that goes', async () => {
    await make('keyed', 'a int, day date');
    await sql(
      `INSERT INTO keyed SELECT i, '2024-01-01' FROM generate_series(1, 30) i`,
      `INSERT INTO keyed VALUES (31, '0044-03-15 BC')`,
    );
    const harness = capture(['keyed']);
    await harness.begin();
    await harness.drain(client);
    const anew = async (why: RegExp, ...statements: string[]) => {
      await sql(...statements);
      // The next lease looks at once.
      await harness.stop();
      harness.startLease();
      const { failed } = await harness.leaseEnd();
      expect(Object.values(failed)[0]).toMatchObject({ kind: 'table_changed', reason: expect.stringMatching(why) });
      await harness.resync('keyed');
      await expectEqual(harness, 'keyed');
    };
    await anew(/column day was dropped/, 'ALTER TABLE keyed DROP COLUMN day', 'INSERT INTO keyed VALUES (40)');
    await anew(/its key is another/, 'ALTER TABLE keyed ADD PRIMARY KEY (a)');
    await sql('UPDATE keyed SET a = a + 100');
    await anew(/its key is another/, 'ALTER TABLE keyed DROP CONSTRAINT keyed_pkey, ALTER a DROP NOT NULL');
    await sql('INSERT INTO keyed VALUES (101), (NULL)');
    expect(await expectEqual(harness, 'keyed')).toHaveLength(34);
  }, 120_000);

  it('fail the table alone when the log has not its whole old rows any more, until it has them again', async () => {
    await make('poorer', 'a int');
    await sql('CREATE TABLE beside (id int PRIMARY KEY)', 'INSERT INTO poorer VALUES (1), (1)');
    const harness = capture(['poorer', 'beside']);
    await harness.begin();
    await harness.drain(client);
    await sql(
      'ALTER TABLE poorer REPLICA IDENTITY DEFAULT',
      'INSERT INTO poorer VALUES (2)',
      'INSERT INTO beside VALUES (1)',
    );
    const { failed } = await harness.leaseEnd();
    expect(failed).toEqual({
      [`${harness.options.source}_poorer`]: {
        kind: 'table_missing',
        reason: expect.stringContaining('which of its rows they mean'),
        remedy: expect.stringContaining('ALTER TABLE "public"."poorer" REPLICA IDENTITY FULL;'),
      },
    });
    harness.dropTable('poorer');
    harness.startLease(600, 1, ['poorer']);
    await expectEqual(harness, 'beside');
    await sql('ALTER TABLE poorer REPLICA IDENTITY FULL', 'DELETE FROM poorer WHERE a = 1');
    await harness.stop();
    harness.startLease(600, 1, ['poorer']);
    expect((await harness.leaseEnd()).returned).toEqual([`${harness.options.source}_poorer`]);
    await harness.resync('poorer');
    await sql('INSERT INTO poorer VALUES (2)');
    expect(await expectEqual(harness, 'poorer')).toHaveLength(2);
  }, 60_000);
});

describe('rows that ClickHouse cannot hold', () => {
  it('are held back wherever they come and go, and leave the others right', async () => {
    await make('held', 'a int, day date');
    await sql(`INSERT INTO held VALUES (1, 'infinity'), (1, 'infinity'), (2, '2024-01-01'), (2, '2024-01-01')`);
    const harness = capture(['held']);
    await harness.begin();
    await sql(
      `INSERT INTO held VALUES (1, 'infinity'), (3, '0044-03-15 BC')`,
      `UPDATE held SET day = '2024-01-01' WHERE ${one('held', 'a = 1')}`,
      `UPDATE held SET day = 'infinity' WHERE ${one('held', 'a = 2')}`,
      `UPDATE held SET a = 4 WHERE a = 3`,
      `DELETE FROM held WHERE ${one('held', `a = 1 AND day = 'infinity'`)}`,
    );
    await harness.drain(client);
    const { source, copy } = await harness.bothSides(client, 'held');
    expect(copy).toEqual(source.filter((row) => row.includes('2024')));
    expect(copy).toHaveLength(2);
    const clickhouse = harness.context.clickhouse('read');
    const rejects = await clickhouse.rows<{ key: string }>(
      `SELECT DISTINCT key FROM ${clickhouse.name('_rejects')} FINAL WHERE asset = '${harness.options.source}_held'`,
    );
    // One name for equal rows: (1, infinity), (2, infinity), (3, BC), (4, BC).
    expect(rejects).toHaveLength(4);
    expect(await checkRecords(clickhouse, harness.options.source)).toEqual([]);
    await sql(`DELETE FROM held WHERE day <> '2024-01-01'`);
    expect(await expectEqual(harness, 'held')).toHaveLength(2);
  });
});

describe('partitions', () => {
  it('of a table without a key are one copy, and each needs the whole old row', async () => {
    await sql(
      'CREATE TABLE parted (a int, b text) PARTITION BY RANGE (a)',
      'CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (10)',
      'CREATE TABLE parted_high (b text, a int)',
      'ALTER TABLE parted ATTACH PARTITION parted_high FOR VALUES FROM (10) TO (20)',
    );
    const refused = async () => (await findings(['parted'])).filter(({ blocking }) => blocking);
    for (const wanted of ['parted', 'parted_low', 'parted_high']) {
      const [finding] = await refused();
      const remedy = `ALTER TABLE "public"."${wanted}" REPLICA IDENTITY FULL;`;
      expect(finding?.remedy).toContain(remedy);
      await sql(remedy);
    }
    expect(await refused()).toEqual([]);
    await sql(`INSERT INTO parted SELECT i % 20, 'x' FROM generate_series(1, 100) i`);
    const harness = capture(['parted']);
    await harness.begin();
    await sql(
      'UPDATE parted SET a = (a + 7) % 20',
      `DELETE FROM parted WHERE ${one('parted', 'a = 3')}`,
      'INSERT INTO parted VALUES (3), (3)',
    );
    expect((await expectEqual(harness, 'parted')).length).toBeGreaterThan(90);
    await sql('TRUNCATE parted', 'INSERT INTO parted VALUES (3), (13)');
    expect(await expectEqual(harness, 'parted')).toHaveLength(2);
  });
});

async function findings(tables: string[]): Promise<Finding[]> {
  const { request } = capture(tables);
  const source = await openSource('postgresql');
  return (await source.preflight({ request, connectionString: parts.postgres.url })).findings;
}

describe('preflight', () => {
  it('says what to run, and what the copy will be', async () => {
    await sql(
      'CREATE TABLE bare (a int)',
      'CREATE TABLE late (a int PRIMARY KEY DEFERRABLE)',
      'CREATE TABLE own_names (_row int)',
      'CREATE TABLE hollow ()',
    );
    const [refused] = (await findings(['bare'])).filter(({ blocking }) => blocking);
    expect(refused).toMatchObject({ code: 'no_key', table: 'public.bare' });
    const remedy = 'ALTER TABLE "public"."bare" REPLICA IDENTITY FULL;';
    expect(refused!.remedy).toContain(remedy);
    await sql(remedy, ...['late', 'own_names', 'hollow'].map((table) => `ALTER TABLE ${table} REPLICA IDENTITY FULL`));
    const codes = async (table: string) =>
      (await findings([table]))
        .filter(({ code }) => code !== 'durability')
        .map(({ code, blocking }) => `${code} ${blocking}`);
    expect(await codes('bare')).toContain('counted_rows false');
    expect(await codes('late')).toContain('counted_rows false');
    expect(await codes('own_names')).toContain('column_name true');
    expect(await codes('hollow')).toContain('no_columns true');
  });
});

async function verify(harness: CaptureHarness, table: string): Promise<TableVerification> {
  const clickhouse = harness.context.clickhouse('verify');
  const asset = `${harness.options.source}_${table}`;
  const schema = (await loadSchemas(clickhouse, harness.options.source)).get(asset)!;
  return await verifyTable({
    connectionString: parts.postgres.url,
    clickhouse,
    table: schema,
    appliedPosition: async () => {
      const record = await lastRecord(clickhouse, harness.options.source);
      return record ? behindPageHeader(parseLsn(record.position_to)) : 0n;
    },
    partRows: 50,
  });
}

describe('comparing', () => {
  it('finds rows that are too many or too few, says which and how many, and tells those that are held back', async () => {
    await make('judged', 'a int, b text, day date');
    await sql(
      `INSERT INTO judged SELECT i % 7, 'x', NULL FROM generate_series(1, 700) i`,
      `INSERT INTO judged VALUES (NULL, NULL, NULL), (8, 'held', 'infinity'), (8, 'held', 'infinity')`,
    );
    const harness = capture(['judged']);
    await harness.begin();
    await harness.drain(client);
    const held = { problem: 'rejected', key: { a: 8, b: 'held', day: 'infinity' }, source_rows: 2, copy_rows: 0 };
    const counts = { source_rows: 703, copy_rows: 701, missing: 0, extra: 0, moving: 0, rejected: 2, error: null };
    expect(await verify(harness, 'judged')).toMatchObject({ identical: true, ...counts, keys: [held] });
    const clickhouse = harness.context.clickhouse('write');
    const name = clickhouse.name(`${harness.options.source}_judged`);
    const damages = ["1, 'x', -1", 'NULL, NULL, -1', "2, 'not there', 1", "3, 'x', 1"];
    const rows = damages.map((damage, row) => `(${damage}, ${2n ** 126n}, 3, ${row})`);
    await clickhouse.command(`INSERT INTO ${name} (a, b, _sign, _version, _origin, _row) VALUES ${rows.join(', ')}`);
    const found = await verify(harness, 'judged');
    expect(found).toMatchObject({ identical: false, missing: 2, extra: 2, rejected: 2, copy_rows: 701 });
    expect(found.keys).toHaveLength(5);
    expect(found.keys).toEqual(
      expect.arrayContaining([
        held,
        { problem: 'missing', key: { a: 1, b: 'x', day: null }, source_rows: 100, copy_rows: 99 },
        { problem: 'missing', key: { a: null, b: null, day: null }, source_rows: 1, copy_rows: 0 },
        { problem: 'extra', key: { a: 2, b: 'not there', day: null }, source_rows: 0, copy_rows: 1 },
        { problem: 'extra', key: { a: 3, b: 'x', day: null }, source_rows: 100, copy_rows: 101 },
      ]),
    );
  });

  it('is right for values of all kinds', async () => {
    await make(
      'every',
      `i2 smallint, o oid, n numeric(12,2), free numeric, f4 real, f8 double precision, b boolean, u uuid, c char(5), d date, ts timestamp,
       tz timestamptz, by bytea, j json, jb jsonb, iv interval, ip inet, m money, r int4range, a int[], ai int[] NOT NULL, af float8[] NOT NULL,
       at text[] NOT NULL, ab bool[] NOT NULL`,
    );
    const row = `(1, 2, 3.40, 'NaN', 'NaN', '-0', true, 'ffffffff-ffff-ffff-0000-ffffffffffff', 'ab', '2299-12-31', '9999-12-31 23:59:59.999999',
      '2024-02-29 12:00+03', '\\x00ff5c0a09', '{"a" : 1}', '{"b":1.10}', '1 year -2 days', '10.0.0.0/8', 1.5, '[1,5)', '{{1,2},{3,4}}', '{1,NULL}', '{NaN,-0,1e300}',
      E'{"a\\tb",NULL,"{}"}', '{t,f}')`;
    const empty = `(${'NULL, '.repeat(20)}'{}', '{}', '{}', '{}')`;
    await sql(`INSERT INTO every VALUES ${row}, ${row}, ${empty}, ${empty}, ${empty}`);
    const harness = capture(['every']);
    await harness.begin();
    const identical = async (rows: number) => {
      await harness.drain(client);
      expect(await verify(harness, 'every')).toMatchObject({
        identical: true,
        source_rows: rows,
        copy_rows: rows,
        keys: [],
        error: null,
      });
    };
    await identical(5);
    await sql(
      `INSERT INTO every VALUES ${row}, ${empty}`,
      'UPDATE every SET i2 = 7',
      `DELETE FROM every WHERE ${one('every', 'b')}`,
    );
    await identical(6);
    await sql(`DELETE FROM every WHERE ${one('every', 'b IS NULL')}`, 'UPDATE every SET u = NULL WHERE b');
    await identical(5);
    await sql('DELETE FROM every');
    await identical(0);
  });

  it('finds nothing while both sides move', async () => {
    await make('restless', 'a int, f float8, big text');
    const harness = capture(['restless']);
    await harness.begin();
    const random = seededRandom('restless');
    let over = false;
    const other = await session();
    const done = (async () => {
      while (!over) await transaction(other, random, 'restless');
    })();
    for (let look = 0; look < 5; look++) {
      const found = await verify(harness, 'restless');
      expect(found).toMatchObject({ missing: 0, extra: 0, rejected: 0, error: null });
    }
    over = true;
    await done;
    await harness.drain(client);
    expect(await verify(harness, 'restless')).toMatchObject({ identical: true, moving: 0 });
  }, 60_000);
});

describe('rules', () => {
  it('that would be for the table stop it alone: a mask is never passed over', async () => {
    await make('masked', 'a int, email text');
    const harness = capture(['masked']);
    const clickhouse = harness.context.clickhouse('write');
    await harness.context.sink('write').createOwnTables();
    const mask = {
      rule_id: 'mask',
      name: 'mask',
      rule_type: 'map' as const,
      source_fields: ['email'],
      target_field: 'email',
      expression: '***',
      version: 1,
    };
    const declare = (version: number, assets: string[], severity: 'warn' | 'reject' = 'warn') => {
      const rules = [{ ...mask, ...(assets.length > 0 && { assets }) }];
      const check = {
        rule_id: 'there',
        asset: harness.tables[0]!.asset_id,
        field: 'email',
        rule_type: 'not_null' as const,
      };
      const checks = [{ ...check, parameters: {}, severity, version: 1 }];
      return storeRules(clickhouse, { version, rules, checks }, { by: 'test', change: 'declared' });
    };
    await declare(1, []);
    await expect(harness.prepare()).rejects.toMatchObject({
      kind: 'rule_failed',
      message: expect.stringContaining('without a key'),
      place: { table: 'masked' },
    });
    await declare(2, ['another'], 'reject');
    await expect(harness.prepare()).rejects.toMatchObject({ remedy: expect.stringContaining('severity: warn') });
    await declare(3, ['another']);
    await harness.begin();
    await sql(`INSERT INTO masked VALUES (1, 'a@b.c')`);
    expect(await expectEqual(harness, 'masked')).toHaveLength(1);
  });
});

describe('any workload', () => {
  const seed = process.env.KEYLESS_SEED ?? String(Math.floor(Math.random() * 1e6));

  it(`leaves the copy equal (KEYLESS_SEED=${seed})`, async () => {
    const random = seededRandom(seed);
    await make('random', 'a int, f float8, big text');
    await sql('ALTER TABLE random ALTER COLUMN big SET STORAGE EXTERNAL');
    const harness = capture(['random'], { bufferSize: 50 });
    const work = await Promise.all([session(), session(), session()]);
    let over = false;
    const done = work.map(async (other) => {
      while (!over) await transaction(other, random);
    });
    for (let generation = 1; generation <= 3; generation++) {
      await harness.addTable('random', generation);
      harness.startLease();
      await pause(random.between(0, 300));
      await harness.plan('random');
      await pause(random.between(0, 300));
      const dead = new MockActivityEnvironment();
      const died = harness.copyChunk('random', 0, dead).catch(() => {});
      setTimeout(() => dead.cancel(), random.between(0, 60));
      await died;
      await harness.copyChunk('random', 0);
      await pause(random.between(0, 300));
      await harness.finish('random');
      await pause(random.between(0, 300));
      if (generation < 3) await harness.stop();
    }
    over = true;
    await Promise.all(done);
    await expectEqual(harness, 'random');
  }, 60_000);
});

const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Some changes of a few rows that are often alike, committed or not, now or after a while. */
async function transaction(other: pg.Client, random: Random, table = 'random'): Promise<void> {
  const value = () => random.pick(['NULL', '0', '1', '2']);
  const float = () => random.pick([`'NaN'`, `'-0'`, '0', 'NULL']);
  const big = () => random.pick(['NULL', `'x'`, `repeat('y', 3000)`]);
  const some = () =>
    `ctid IN (SELECT ctid FROM ${table} WHERE a IS NOT DISTINCT FROM ${value()} LIMIT ${random.between(1, 9)})`;
  await other.query('BEGIN');
  try {
    for (let steps = random.between(1, 5); steps > 0; steps--) {
      await other.query(
        random.pick([
          () =>
            `INSERT INTO ${table} SELECT ${value()}, ${float()}, ${big()} FROM generate_series(1, ${random.between(1, 20)})`,
          () => `UPDATE ${table} SET a = ${value()} WHERE ${some()}`,
          () => `UPDATE ${table} SET f = ${float()} WHERE ${some()}`,
          () => `DELETE FROM ${table} WHERE ${some()}`,
          () => (random.chance(0.1) ? `TRUNCATE ${table}` : `UPDATE ${table} SET big = ${big()} WHERE ${some()}`),
        ])(),
      );
      if (random.chance(0.1)) await pause(random.between(0, 200));
    }
    await other.query(random.chance(0.9) ? 'COMMIT' : 'ROLLBACK');
  } catch {
    // Deadlocks are part of it.
    await other.query('ROLLBACK');
  }
}
