/** Capture on real parts, case by case: what has broken systems of this kind, and what must be refused. */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { sealRecord, writeRecord } from '../activities/load/batches.ts';
import type { BatchRecord } from '../model/batch.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { CaptureHarness, type HarnessOptions, openClient } from './capture_harness.ts';
import { checkRecords } from './oracle/compare.ts';
import { ClickHouseProxy, type Insert, type Verdict } from './oracle/proxy.ts';

let parts: StartedParts<'postgres' | 'clickhouse'>;
let client: pg.Client;
let number = 0;
const harnesses: CaptureHarness[] = [];
const proxies: ClickHouseProxy[] = [];

beforeAll(async () => {
  parts = await startParts(['postgres', 'clickhouse']);
  client = await openClient(parts.postgres.url);
});

afterEach(async () => {
  for (const harness of harnesses.splice(0)) await harness.close();
  for (const proxy of proxies.splice(0)) await proxy.close();
});

afterAll(async () => {
  await client?.end().catch(() => {});
  await parts?.[Symbol.asyncDispose]();
});

/** A source of its own for these tables. */
function capture(tables: string[], more: Partial<HarnessOptions> = {}): CaptureHarness {
  const options = { postgres: parts.postgres.url, clickhouse: parts.clickhouse.url, source: `s${++number}`, tables };
  const harness = new CaptureHarness({ ...options, ...more });
  harnesses.push(harness);
  return harness;
}

/** Another process for the same source: what it has in memory it shares with nobody. */
function anotherWorker(harness: CaptureHarness): CaptureHarness {
  const other = capture(harness.options.tables, harness.options);
  other.takeOver(harness);
  return other;
}

/** ClickHouse behind a proxy that spoils the inserts which `decide` names. */
async function spoiled(decide: (insert: Insert) => Verdict): Promise<string> {
  const proxy = await ClickHouseProxy.start(parts.clickhouse.url, decide);
  proxies.push(proxy);
  return proxy.url;
}

async function sql(...statements: string[]): Promise<void> {
  for (const statement of statements) await client.query(statement);
}

/** A table whose column `big` is stored out of line, and sent only when it was changed. */
async function makeLarge(name: string, key = 'id int PRIMARY KEY', ...more: string[]): Promise<void> {
  await sql(
    `CREATE TABLE ${name} (${key}, big text, n int DEFAULT 0)`,
    `ALTER TABLE ${name} ALTER COLUMN big SET STORAGE EXTERNAL`,
    ...more,
  );
}

const large = (letter: string) => `repeat('${letter}', 3000)`;

/** Waits until all has arrived; then every copy must equal its table. */
async function expectEqual(harness: CaptureHarness, ...tables: string[]): Promise<void> {
  await harness.drain(client);
  for (const table of tables.length > 0 ? tables : harness.options.tables) {
    const { source, copy } = await harness.bothSides(client, table);
    expect(copy, table).toEqual(source);
  }
}

describe('changes', () => {
  it('copies a table while it changes, and inserts, updates, deletes and truncates in order', async () => {
    await sql(
      'CREATE TABLE basic (id int PRIMARY KEY, v text)',
      `INSERT INTO basic SELECT g, 'old' FROM generate_series(1, 100) g`,
    );
    const harness = capture(['basic']);
    await harness.prepare();
    harness.startLease();
    expect(await harness.plan('basic', [['30'], ['60']])).toBe(3);
    await harness.copyChunk('basic', 2);
    await sql(
      `UPDATE basic SET v = 'changed beside' WHERE id % 3 = 0`,
      'DELETE FROM basic WHERE id % 5 = 0',
      `INSERT INTO basic VALUES (200, 'new'), (0, '')`,
      'UPDATE basic SET id = id + 1000 WHERE id % 7 = 0',
    );
    await harness.copyChunk('basic', 0);
    await sql(`INSERT INTO basic VALUES (35, 'again')`);
    await harness.copyChunk('basic', 1);
    const { rows } = await harness.finish('basic');
    expect(rows).toBeGreaterThan(50);
    await expectEqual(harness);
    await sql(
      'BEGIN',
      `INSERT INTO basic VALUES (5000, 'before')`,
      'TRUNCATE basic',
      `INSERT INTO basic VALUES (1, 'after')`,
      'COMMIT',
    );
    await expectEqual(harness);
    expect((await harness.bothSides(client, 'basic')).copy).toHaveLength(1);
    await sql('TRUNCATE basic');
    await expectEqual(harness);
  });

  it('follows changes of keys: chains, swaps by way of a third key, shifts', async () => {
    await sql(
      'CREATE TABLE keys (id int PRIMARY KEY, v text)',
      `INSERT INTO keys SELECT g, 'row ' || g FROM generate_series(1, 9) g`,
    );
    const harness = capture(['keys']);
    await harness.begin();
    await sql(
      'BEGIN',
      'UPDATE keys SET id = -1 WHERE id = 1',
      'UPDATE keys SET id = 1 WHERE id = 2',
      'UPDATE keys SET id = 2 WHERE id = -1',
      'COMMIT',
      'UPDATE keys SET id = 30 WHERE id = 3',
      'UPDATE keys SET id = 31 WHERE id = 30',
      'BEGIN',
      'UPDATE keys SET id = id + 1000',
      'UPDATE keys SET id = id - 999',
      'COMMIT',
      'DELETE FROM keys WHERE id = 2',
      `INSERT INTO keys VALUES (2, 'new two')`,
    );
    await expectEqual(harness);
  });

  it('leaves out what was rolled back, and keeps two tables of one transaction, COPY and savepoints right', async () => {
    await sql('CREATE TABLE one (id int PRIMARY KEY, v text)', 'CREATE TABLE two (id int PRIMARY KEY, v text)');
    const harness = capture(['one', 'two'], { bufferSize: 100 });
    await harness.begin();
    await sql(
      'BEGIN',
      `INSERT INTO one VALUES (1, 'a')`,
      'SAVEPOINT s',
      `INSERT INTO two VALUES (1, 'gone')`,
      `UPDATE one SET v = 'gone'`,
      'ROLLBACK TO s',
      `INSERT INTO two VALUES (2, 'b')`,
      'SAVEPOINT t',
      `UPDATE two SET v = 'c'`,
      'RELEASE t',
      'COMMIT',
      'BEGIN',
      `INSERT INTO one VALUES (9, 'gone')`,
      'ROLLBACK',
      // Many rows in one record of the log; more than a batch.
      `COPY one FROM PROGRAM 'seq 100 1900 | sed "s/.*/&\\t&/"'`,
      'UPDATE one SET v = v || v WHERE id >= 100',
    );
    await expectEqual(harness);
  });

  it('records and acknowledges the position of an idle source and of empty transactions', async () => {
    await sql('CREATE TABLE idle (id int PRIMARY KEY)', 'CREATE TABLE other (id int)');
    const harness = capture(['idle']);
    await harness.begin();
    for (let i = 0; i < 3; i++) {
      await sql(`INSERT INTO other VALUES (${i})`, 'BEGIN', 'SELECT pg_current_xact_id()', 'COMMIT');
      await harness.drain(client);
    }
    await sql('BEGIN', 'INSERT INTO idle VALUES (1)', 'TRUNCATE idle', 'COMMIT');
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    await expectEqual(harness);
    await expect
      .poll(async () => {
        const slot = await client.query(
          'SELECT confirmed_flush_lsn >= $2::pg_lsn AS passed FROM pg_replication_slots WHERE slot_name = $1',
          [`sluice_${harness.options.source}`, rows[0]!.lsn],
        );
        return slot.rows[0].passed;
      })
      .toBe(true);
    await harness.stop();
    const records = await harness.records();
    expect(records.filter((record) => record.kind === 'idle').length).toBeGreaterThan(0);
    expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
  });

  it('cuts a transaction that is larger than a batch, and resumes before it', async () => {
    await sql('CREATE TABLE bulk (id int PRIMARY KEY, v text)');
    const harness = capture(['bulk'], { bufferSize: 1000 });
    await harness.begin();
    const memory = process.memoryUsage().rss;
    await sql(
      'BEGIN',
      `INSERT INTO bulk SELECT g, repeat(md5(g::text), 10) FROM generate_series(1, 50000) g`,
      `UPDATE bulk SET v = 'short' WHERE id <= 100`,
      'COMMIT',
    );
    await harness.drain(client);
    expect(process.memoryUsage().rss - memory).toBeLessThan(200_000_000);
    const records = (await harness.records()).filter((record) => record.kind === 'rows');
    const inside = records.filter((record) => record.inner !== '');
    expect(inside.length).toBeGreaterThan(20);
    for (const record of inside) {
      expect(record.position_to).toBe(record.position_from);
      expect(record.inner).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
      expect(record.changes).toBeLessThanOrEqual(2000);
    }
    expect(records.reduce((sum, record) => sum + record.changes, 0)).toBe(50_100);
    await expectEqual(harness);
    expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
  });
});

describe('values that the source does not send', () => {
  it('keeps them: plainly, twice in a batch, across batches, after NULL was set', async () => {
    await makeLarge('toast');
    await sql(`INSERT INTO toast SELECT g, ${large('s')} || g FROM generate_series(1, 6) g`);
    const harness = capture(['toast']);
    await harness.begin();
    await sql('UPDATE toast SET n = 1 WHERE id = 1');
    await expectEqual(harness);
    await sql(
      'BEGIN',
      'UPDATE toast SET n = 2 WHERE id <= 3',
      'UPDATE toast SET n = 3 WHERE id <= 2',
      `UPDATE toast SET big = ${large('x')} WHERE id = 2`,
      'UPDATE toast SET n = 4 WHERE id = 2',
      'UPDATE toast SET big = NULL WHERE id = 3',
      'UPDATE toast SET n = 5 WHERE id = 3',
      'COMMIT',
      'UPDATE toast SET n = 6',
      'DELETE FROM toast WHERE id = 4',
      `INSERT INTO toast VALUES (4, ${large('y')}, 0)`,
      'UPDATE toast SET n = 7 WHERE id = 4',
    );
    await expectEqual(harness);
  });

  it('follows a row through changes of its key, in one batch and over many', async () => {
    await makeLarge('moved');
    await sql(`INSERT INTO moved SELECT g, ${large('m')} || g FROM generate_series(1, 8) g`);
    for (const bufferSize of [1, 100_000]) {
      const harness = capture(['moved'], { bufferSize });
      await harness.begin();
      await harness.stop();
      // All of it is read when it is over, so that looking into the source shows the end only.
      await sql(
        'UPDATE moved SET id = 10 WHERE id = 1',
        'UPDATE moved SET id = 11 WHERE id = 10',
        'UPDATE moved SET n = n + 1 WHERE id = 11',
        // Another row takes the place that it has left.
        'UPDATE moved SET id = 10 WHERE id = 2',
        'BEGIN',
        'UPDATE moved SET id = -1 WHERE id = 3',
        'UPDATE moved SET id = 3 WHERE id = 4',
        'UPDATE moved SET id = 4 WHERE id = -1',
        'COMMIT',
        'UPDATE moved SET id = 20 WHERE id = 5',
        'DELETE FROM moved WHERE id = 20',
        'UPDATE moved SET n = 5 WHERE id = 6',
        'UPDATE moved SET id = 60 WHERE id = 6',
        `UPDATE moved SET big = ${large('z')} WHERE id = 7`,
        'UPDATE moved SET id = 70 WHERE id = 7',
        'UPDATE moved SET n = 8, id = 80 WHERE id = 8',
      );
      harness.startLease();
      await expectEqual(harness);
      await sql('DELETE FROM moved', `INSERT INTO moved SELECT g, ${large('n')} || g FROM generate_series(1, 8) g`);
      await expectEqual(harness);
    }
  });

  it('keeps them where the whole old row is sent, and where another index is the identity', async () => {
    await makeLarge('whole_row', 'id int PRIMARY KEY', 'ALTER TABLE whole_row REPLICA IDENTITY FULL');
    await makeLarge(
      'by_index',
      'id serial PRIMARY KEY, code int NOT NULL',
      'CREATE UNIQUE INDEX by_index_code ON by_index (code)',
      'ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code',
    );
    await sql(
      `INSERT INTO whole_row SELECT g, ${large('w')} || g FROM generate_series(1, 4) g`,
      `INSERT INTO by_index (code, big) SELECT g, ${large('i')} || g FROM generate_series(1, 4) g`,
    );
    const harness = capture(['whole_row', 'by_index']);
    await harness.begin();
    for (const [table, key] of [
      ['whole_row', 'id'],
      ['by_index', 'code'],
    ]) {
      await sql(
        `UPDATE ${table} SET n = 1 WHERE ${key} = 1`,
        `UPDATE ${table} SET ${key} = 20 WHERE ${key} = 2`,
        `UPDATE ${table} SET ${key} = 21, n = 2 WHERE ${key} = 20`,
        `DELETE FROM ${table} WHERE ${key} = 3`,
        `UPDATE ${table} SET big = NULL WHERE ${key} = 4`,
        `UPDATE ${table} SET n = 4 WHERE ${key} = 4`,
      );
    }
    await sql('UPDATE by_index SET id = 500 WHERE code = 1');
    await expectEqual(harness);
  });

  it('finds rows whose key has several texts: padded, true or t, with and without a network', async () => {
    await makeLarge(
      'odd_keys',
      'code char(5), yes bool, address inet, "at" timestamptz, raw bytea, PRIMARY KEY (code, yes, address, "at", raw)',
    );
    const key = (code: string, yes: boolean) =>
      `'${code}', ${yes}, '10.0.0.1', '2024-01-01 00:00:00.5+00', '\\x005c0a'`;
    await sql(`INSERT INTO odd_keys VALUES (${key('a', true)}, ${large('o')}), (${key('b', false)}, ${large('p')})`);
    const harness = capture(['odd_keys']);
    await harness.begin();
    await sql(
      'UPDATE odd_keys SET n = 1',
      `UPDATE odd_keys SET code = 'c' WHERE code = 'a'`,
      `UPDATE odd_keys SET yes = true, n = 2 WHERE code = 'b'`,
    );
    await expectEqual(harness);
  });

  it('does not write anew what was written before a crash, and does not mix it with what came later', async () => {
    await makeLarge('replayed');
    await sql(`INSERT INTO replayed SELECT g, ${large('r')} || g FROM generate_series(1, 4) g`);
    let lose = false;
    const clickhouse = await spoiled(({ query }) => (lose && query.includes('_batches') ? 'lost' : 'passed'));
    const harness = capture(['replayed'], { clickhouse, bufferSize: 2 });
    await harness.begin();
    lose = true;
    await sql(
      'UPDATE replayed SET n = 1',
      `UPDATE replayed SET big = ${large('q')} WHERE id = 1`,
      'UPDATE replayed SET n = 2',
    );
    await expect(harness.leaseEnd()).rejects.toThrow();
    await sql(
      'UPDATE replayed SET n = 3 WHERE id < 3',
      'UPDATE replayed SET id = 40 WHERE id = 4',
      'DELETE FROM replayed WHERE id = 3',
    );
    lose = false;
    harness.startLease(600, 2);
    await expectEqual(harness);
  });
});
