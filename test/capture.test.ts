/** Capture on real parts, case by case: what has broken systems of this kind, and what must be refused. */

import { CancelledFailure } from '@temporalio/common';
import { MockActivityEnvironment } from '@temporalio/testing';
import { describe, expect, it } from 'vitest';
import { sourceError } from '../activities/capture/postgresql/connection.ts';
import { sealRecord, writeRecord } from '../activities/load/batches.ts';
import type { BatchRecord } from '../model/batch.ts';
import type { ErrorReport } from '../model/errors.ts';
import {
  anotherWorker,
  capture,
  client,
  expectEqual,
  parts,
  proxies,
  reconnect,
  spoiled,
  sql,
  unreadSlot,
} from './capture_fixture.ts';
import { type CaptureHarness, openClient } from './capture_harness.ts';
import { checkRecords } from './oracle/compare.ts';

/** A table whose column `big` is stored out of line, and sent only when it was changed. */
async function makeLarge(name: string, key = 'id int PRIMARY KEY', ...more: string[]): Promise<void> {
  await sql(
    `CREATE TABLE ${name} (${key}, big text, n int DEFAULT 0)`,
    `ALTER TABLE ${name} ALTER COLUMN big SET STORAGE EXTERNAL`,
    ...more,
  );
}

const large = (letter: string) => `repeat('${letter}', 3000)`;

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

describe('snapshots', () => {
  it('sees what an open transaction changes while a table is added', async () => {
    await sql('CREATE TABLE first_one (id int PRIMARY KEY)', 'CREATE TABLE added (id int PRIMARY KEY, v text)');
    await sql(`INSERT INTO added VALUES (1, 'old'), (2, 'old')`);
    const harness = capture(['first_one']);
    await harness.begin();
    const other = await openClient(parts.postgres.url);
    try {
      await other.query('BEGIN');
      await other.query(`UPDATE added SET v = 'open' WHERE id = 1`);
      await other.query(`INSERT INTO added VALUES (3, 'open')`);
      await harness.stop();
      // ALTER PUBLICATION does not wait for it, and neither does the start position.
      await harness.addTable('added');
      harness.startLease();
      let done = false;
      const snapshot = harness.snapshot('added').finally(() => {
        done = true;
      });
      await new Promise((resolve) => setTimeout(resolve, 500));
      expect(done).toBe(false);
      await other.query('DELETE FROM added WHERE id = 2');
      await other.query('COMMIT');
      await snapshot;
      await expectEqual(harness, 'first_one', 'added');
    } finally {
      await other.end();
    }
  });

  it('does not bring rows back that a TRUNCATE took away while chunks were under way', async () => {
    await sql(
      'CREATE TABLE emptied (id int PRIMARY KEY, v text)',
      `INSERT INTO emptied SELECT g, 'old' FROM generate_series(1, 40) g`,
    );
    // The chunk's rows reach ClickHouse late: after the sweep, when its reader has long been cut off.
    let late = false;
    const clickhouse = await spoiled(({ query }) => (late && query.includes('emptied') ? 'late' : 'passed'));
    const harness = capture(['emptied'], { clickhouse });
    await harness.prepare();
    harness.startLease();
    await harness.plan('emptied', [['20']]);
    await harness.copyChunk('emptied', 0);
    late = true;
    await expect(harness.copyChunk('emptied', 1)).rejects.toThrow();
    late = false;
    await sql('TRUNCATE emptied', `INSERT INTO emptied VALUES (5, 'new'), (25, 'new')`);
    await harness.drain(client);
    for (const proxy of proxies) await proxy.settled();
    await harness.copyChunk('emptied', 1);
    await harness.finish('emptied');
    await expectEqual(harness);
  });

  it('makes a copy anew beside the stream, and takes out what left the source meanwhile', async () => {
    await sql(
      'CREATE TABLE renewed (id int PRIMARY KEY, v text)',
      `INSERT INTO renewed SELECT g, 'old' FROM generate_series(1, 9) g`,
    );
    const harness = capture(['renewed']);
    await harness.begin();
    await harness.stop();
    const clickhouse = harness.context.clickhouse('write');
    const name = clickhouse.name(`${harness.options.source}_renewed`);
    // The copy is damaged: one row too many, one too few.
    await clickhouse.command(
      `INSERT INTO ${name} SELECT 77, 'never was', _version, 0, _committed_at FROM ${name} LIMIT 1`,
    );
    await clickhouse.command(`DELETE FROM ${name} WHERE id = 3`);
    await harness.addTable('renewed', 2);
    harness.startLease();
    await sql('DELETE FROM renewed WHERE id = 1', `UPDATE renewed SET v = 'new' WHERE id = 2`);
    await harness.snapshot('renewed');
    await expectEqual(harness);
  });

  it('stays in the old one’s stead when it was being made ready and that broke off between its table and its record', async () => {
    await sql(
      'CREATE TABLE halfway (id int PRIMARY KEY, v text)',
      `INSERT INTO halfway SELECT g, repeat('x', 100) FROM generate_series(1, 1000) g`,
    );
    let spoil = false;
    const clickhouse = await spoiled(({ query }) => (spoil && query.includes('_schemas') ? 'lost' : 'passed'));
    const harness = capture(['halfway'], { clickhouse });
    await harness.begin();
    await harness.stop();
    spoil = true;
    await expect(harness.addTable('halfway', 2)).rejects.toThrow();
    spoil = false;
    // The source goes on: the next try begins elsewhere in its log.
    await sql(`UPDATE halfway SET v = 'new' WHERE id % 3 = 0`);
    await harness.prepare();
    await harness.plan('halfway', [['300'], ['600']]);
    await harness.copyChunk('halfway', 1);
    const before = (await harness.records()).length;
    harness.startLease();
    await sql('DELETE FROM halfway WHERE id > 990');
    await expect.poll(async () => (await harness.records()).length).toBeGreaterThan(before + 1);
    // Until the new copy is complete, readers see the old one.
    const copy = harness.context.clickhouse('read');
    const seen = await copy.rows(`SELECT count() AS rows FROM ${copy.name(`${harness.options.source}_halfway`)} FINAL`);
    expect(seen).toEqual([{ rows: '1000' }]);
    await harness.copyChunk('halfway', 0);
    await harness.copyChunk('halfway', 2);
    await harness.finish('halfway');
    await expectEqual(harness);
  });

  it('answers for a chunk that is recorded, and gives up at once when it is cancelled', async () => {
    await sql(
      'CREATE TABLE chunked (id int PRIMARY KEY, v text)',
      `INSERT INTO chunked SELECT g, repeat('x', 500) FROM generate_series(1, 1000) g`,
    );
    const harness = capture(['chunked']);
    await harness.prepare();
    expect(await harness.plan('chunked', [['500']])).toBe(2);
    const environment = new MockActivityEnvironment();
    environment.cancel();
    await expect(harness.copyChunk('chunked', 0, environment)).rejects.toBeInstanceOf(CancelledFailure);
    expect((await harness.copyChunk('chunked', 0)).rows).toBe(500);
    await sql('DELETE FROM chunked WHERE id < 100');
    // Not read again: what was deleted comes with the stream.
    expect((await harness.copyChunk('chunked', 0)).rows).toBe(500);
    await harness.copyChunk('chunked', 1);
    await harness.finish('chunked');
    harness.startLease();
    await expectEqual(harness);
  });
});

describe('altered tables', () => {
  const alterations: Record<string, string[]> = {
    'a new column': ['ALTER TABLE altered ADD COLUMN more int DEFAULT 7'],
    'another type': ['ALTER TABLE altered ALTER COLUMN v TYPE varchar(10)'],
    'a rewrite to another type': ['ALTER TABLE altered ALTER COLUMN n TYPE bigint'],
    'a column renamed': ['ALTER TABLE altered RENAME COLUMN v TO w'],
    'a column dropped': ['ALTER TABLE altered DROP COLUMN v'],
    'dropped and made again': ['DROP TABLE altered', 'CREATE TABLE altered (id int PRIMARY KEY, v text, n int)'],
    'another identity': ['ALTER TABLE altered REPLICA IDENTITY FULL'],
    'another key': ['ALTER TABLE altered DROP CONSTRAINT altered_pkey', 'ALTER TABLE altered ADD PRIMARY KEY (n)'],
    renamed: ['ALTER TABLE altered RENAME TO altered_away'],
  };
  for (const [what, statements] of Object.entries(alterations)) {
    it(`stops a table alone that has ${what}, with reason and remedy`, async () => {
      await sql(
        'DROP TABLE IF EXISTS altered, altered_away, neighbour',
        'CREATE TABLE altered (id int PRIMARY KEY, v text, n int NOT NULL DEFAULT 0)',
        'CREATE TABLE neighbour (id int PRIMARY KEY, v text)',
      );
      const harness = capture(['altered', 'neighbour'], { sourceOptions: { schema_changes: 'stop' } });
      await harness.begin();
      await sql(`INSERT INTO altered (id, v, n) VALUES (1, 'a', 1)`, `INSERT INTO neighbour VALUES (1, 'a')`);
      await expectEqual(harness);
      await sql(...statements);
      const table = what === 'renamed' ? 'altered_away' : 'altered';
      await sql(
        'BEGIN',
        `INSERT INTO neighbour VALUES (2, 'same transaction, before')`,
        `INSERT INTO ${table} (id, n) VALUES (2, 2)`,
        `INSERT INTO neighbour VALUES (3, 'same transaction, behind')`,
        'COMMIT',
        `INSERT INTO neighbour VALUES (4, 'later')`,
      );
      if (what === 'dropped and made again') await harness.stop();
      else {
        const { ended, failed } = await harness.leaseEnd();
        expect(ended).toBe('table_failed');
        expectFailed(failed, harness);
      }
      // The flow goes on without it; a flow that does not know yet is told at once.
      harness.startLease();
      expectFailed((await harness.leaseEnd()).failed, harness);
      harness.dropTable('altered');
      harness.startLease();
      await expectEqual(harness, 'neighbour');
      await harness.stop();
      // The remedy: its copy is made anew.
      if (what === 'renamed') return;
      await harness.addTable('altered', 2);
      harness.startLease();
      await harness.snapshot('altered');
      await sql(`UPDATE altered SET n = n + 10`, 'INSERT INTO altered (id, n) VALUES (50, 50)');
      await expectEqual(harness, 'altered', 'neighbour');
    });
  }

  it('notices that the publication does not send a table any more, or only parts of it', async () => {
    const tables = ['sent', 'taken_out', 'filtered', 'fewer_columns'];
    for (const table of tables) await sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`);
    const harness = capture(tables);
    const publication = `sluice_${harness.options.source}`;
    await harness.begin();
    await expectEqual(harness);
    await sql(
      `ALTER PUBLICATION ${publication} SET TABLE sent, filtered WHERE (id > 5), fewer_columns (id)`,
      ...tables.map((table) => `INSERT INTO ${table} VALUES (1, 'not sent'), (9, 'sent')`),
    );
    await harness.stop().catch(() => {});
    harness.startLease();
    const { failed } = await harness.leaseEnd();
    const asset = (table: string) => `${harness.options.source}_${table}`;
    expect(Object.keys(failed).sort()).toEqual(['fewer_columns', 'filtered', 'taken_out'].map(asset));
    expect(failed[asset('taken_out')]!.reason).toContain('taken out of the publication');
    expect(failed[asset('filtered')]!.reason).toContain('some of its rows');
    expect(failed[asset('fewer_columns')]!.reason).toMatch(/column v|columns?/);
    for (const table of tables.slice(1)) harness.dropTable(table);
    harness.startLease();
    await expectEqual(harness, 'sent');
    await harness.stop();
    await sql(`ALTER PUBLICATION ${publication} SET (publish = 'insert')`, `UPDATE sent SET v = 'not sent'`);
    harness.startLease();
    expect(Object.keys((await harness.leaseEnd()).failed)).toEqual([asset('sent')]);
  });

  it('notices values that were changed without any change sent, and no less harmless rewrites', async () => {
    await sql(
      `CREATE TYPE feeling AS ENUM ('good', 'bad')`,
      'CREATE TYPE point_pair AS (a int, b int)',
      'CREATE TYPE felt AS (f feeling, n int)',
      'CREATE TYPE moods AS RANGE (subtype = feeling)',
      'CREATE TABLE upper_case (id int PRIMARY KEY, v text)',
      'CREATE TABLE feelings (id int PRIMARY KEY, f feeling, many feeling[])',
      'CREATE TABLE pairs (id int PRIMARY KEY, p point_pair)',
      'CREATE TABLE compact (id int PRIMARY KEY, f feeling)',
      'CREATE TABLE nested (id int PRIMARY KEY, f felt[], r moods)',
    );
    for (const table of ['upper_case', 'feelings', 'pairs', 'compact', 'nested'])
      await sql(`INSERT INTO ${table} (id) VALUES (1)`);
    await sql(
      `UPDATE upper_case SET v = 'a'`,
      `UPDATE feelings SET f = 'bad', many = '{bad}'`,
      'UPDATE pairs SET p = ROW(1, 2)',
      `UPDATE nested SET f = '{"(bad,1)"}', r = '[bad,bad]'`,
    );
    const harness = capture(['upper_case', 'feelings', 'pairs', 'compact', 'nested']);
    await harness.begin();
    // Harmless: rows move, statistics and labels are added.
    await sql(
      'VACUUM FULL compact',
      'TRUNCATE compact',
      `ALTER TYPE feeling ADD VALUE 'so so' BEFORE 'bad'`,
      'ANALYZE upper_case',
      `INSERT INTO compact VALUES (2, 'so so')`,
      'ALTER TABLE upper_case ALTER COLUMN v SET STATISTICS 50',
      `INSERT INTO upper_case VALUES (3, 'c')`,
    );
    await expectEqual(harness);
    // The same type as before, but every value another: seen at the next change, or the next lease.
    await sql(
      'ALTER TABLE upper_case ALTER COLUMN v TYPE text USING upper(v)',
      `INSERT INTO upper_case VALUES (4, 'd')`,
    );
    const { failed } = await harness.leaseEnd();
    expect(Object.keys(failed)).toEqual([`${harness.options.source}_upper_case`]);
    harness.dropTable('upper_case');
    await sql(`ALTER TYPE feeling RENAME VALUE 'bad' TO 'poor'`, 'ALTER TYPE point_pair ADD ATTRIBUTE c int');
    harness.startLease();
    const next = (await harness.leaseEnd()).failed;
    expect(Object.keys(next).sort()).toEqual(
      ['compact', 'feelings', 'nested', 'pairs'].map((table) => `${harness.options.source}_${table}`),
    );
    for (const table of ['compact', 'feelings', 'nested', 'pairs']) harness.dropTable(table);
    for (const table of ['compact', 'feelings', 'nested', 'pairs', 'upper_case']) await harness.addTable(table, 2);
    harness.startLease();
    for (const table of harness.options.tables) await harness.snapshot(table);
    await expectEqual(harness);
  });

  function expectFailed(failed: Record<string, ErrorReport>, harness: CaptureHarness): void {
    expect(Object.keys(failed)).toEqual([`${harness.options.source}_altered`]);
    const [report] = Object.values(failed);
    expect(report!.kind).toMatch(/^table_(changed|missing)$/);
    expect(report!.reason).toMatch(/column|identity|key|gone|called|made again/);
    expect(report!.remedy).toMatch(
      new RegExp(`sluice sources (resync|remove-tables|add-tables) ${harness.options.source} altered`),
    );
  }
});

describe('crashes and successors', () => {
  it('leave nothing to do for an attempt that slept until its successor had begun', async () => {
    await sql('DROP TABLE IF EXISTS slept', 'CREATE TABLE slept (id int PRIMARY KEY)');
    const harness = capture(['slept']);
    await harness.begin();
    await harness.drain(client);
    await harness.stop();
    const [late, successor] = [anotherWorker(harness), anotherWorker(harness)];
    successor.startLease(600, 3);
    await sql('INSERT INTO slept VALUES (1)');
    await successor.drain(client);
    late.startLease(600, 2);
    await expect(late.leaseEnd()).rejects.toMatchObject({ kind: 'slot_in_use' });
    // The successor was not disturbed: its session is the one that goes on.
    await sql('INSERT INTO slept VALUES (2)');
    await expectEqual(successor);
    expect(await successor.stop()).toMatchObject({ ended: 'cancelled', changes: 2 });
    expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
  });

  for (const [what, table, verdict] of [
    ['before its rows', 'steps', 'lost'],
    ['between rows and record', '_batches', 'lost'],
    ['between record and acknowledgement', '_batches', 'unanswered'],
    ['behind rows whose answer was lost', 'steps', 'unanswered'],
  ] as const) {
    it(`loses and doubles nothing when it dies ${what}`, async () => {
      await sql('DROP TABLE IF EXISTS steps', 'CREATE TABLE steps (id int PRIMARY KEY, v text)');
      let spoil = false;
      const clickhouse = await spoiled(({ query }) => (spoil && query.includes(table) ? verdict : 'passed'));
      const harness = capture(['steps'], { clickhouse });
      await harness.begin();
      await harness.drain(client);
      spoil = true;
      await sql(
        'BEGIN',
        `INSERT INTO steps SELECT g, 'first' FROM generate_series(1, 50) g`,
        'UPDATE steps SET id = id + 100 WHERE id <= 20',
        'COMMIT',
      );
      await expect(harness.leaseEnd()).rejects.toThrow();
      spoil = false;
      const dead = await harness.records();
      const recorded = dead.reduce((sum, record) => sum + record.changes, 0);
      expect(recorded).toBe(verdict === 'unanswered' && table === '_batches' ? 70 : 0);
      await sql('DELETE FROM steps WHERE id > 110', `INSERT INTO steps VALUES (1, 'again')`);
      const successor = anotherWorker(harness);
      successor.startLease(600, 2);
      await expectEqual(successor);
      const summary = await successor.stop();
      // What the dead attempt recorded is reported by the one that follows.
      const { lease } = dead.at(-1)!;
      const { position_from } = dead.find((record) => record.lease === lease)!;
      expect(summary).toMatchObject({ changes: 81, position_from });
      const sums = Object.values(summary!.assets)[0]!;
      expect(sums).toMatchObject({ inserts: 51, updates: 20, deletes: 10 });
      expect(sums.effects).toBe(101);
      expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
    });
  }

  it('ends inserts of earlier leases, and no others', async () => {
    await sql('CREATE TABLE slow (id int PRIMARY KEY)');
    const harness = capture(['slow']);
    await harness.prepare();
    const { source } = harness.options;
    const clickhouse = harness.context.clickhouse('read');
    const insert = (queryId: string) =>
      clickhouse.command(
        `INSERT INTO ${clickhouse.name('_chunks')} (source, lower) SELECT 'slow', toString(sleepEachRow(0.3)) FROM numbers(10) SETTINGS max_block_size = 1`,
        { queryId },
      );
    const earlier = insert(`${source}/3/0/slow`);
    const others = [
      insert(`${source}/snapshot/${source}_slow/1/0/1/0`),
      insert(`${source}/70000/0/slow`),
      insert('s/3/0/slow'),
    ];
    const ended = expect(earlier).rejects.toMatchObject({ kind: 'sink_unreachable', transient: true });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await harness.context.sink('write').endInserts([`${source}/`], 65_536);
    await ended;
    await Promise.all(others);
  });

  it('tells a broken pipe from an error of the server', () => {
    const broken = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    expect(sourceError(broken)).toMatchObject({ kind: 'source_unreachable', transient: true });
    const own = Object.assign(new Error('division by zero'), { code: '22012' });
    expect(sourceError(own)).toMatchObject({ kind: 'unexpected', transient: false });
  });

  it('lets a second lease end the first, wherever that runs', async () => {
    await sql('CREATE TABLE fenced (id int PRIMARY KEY, v text)');
    const harness = capture(['fenced']);
    await harness.begin();
    await sql(`INSERT INTO fenced SELECT g, 'x' FROM generate_series(1, 100) g`);
    await harness.drain(client);
    const other = anotherWorker(harness);
    other.startLease();
    await expect(harness.leaseEnd()).rejects.toMatchObject({ kind: 'source_unreachable', transient: true });
    await sql(`UPDATE fenced SET v = 'y'`);
    await expectEqual(other);
    // In one process the first ends in order, and the second takes its place.
    other.startLease();
    await sql(`UPDATE fenced SET v = 'z'`);
    await expectEqual(other);
    expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
  });

  it('ignores what a predecessor writes and records when nobody believes it alive any more', async () => {
    await sql('CREATE TABLE undead (id int PRIMARY KEY, v text)', `INSERT INTO undead VALUES (1, 'a'), (2, 'a')`);
    let late = false;
    const clickhouse = await spoiled(({ query }) => (late && query.startsWith('INSERT') ? 'late' : 'passed'));
    const harness = capture(['undead'], { clickhouse });
    await harness.begin();
    await harness.drain(client);
    late = true;
    await sql(`UPDATE undead SET v = 'b'`);
    await expect(harness.leaseEnd()).rejects.toThrow();
    const other = capture(['undead'], { source: harness.options.source });
    other.takeOver(harness);
    other.startLease();
    await sql(`UPDATE undead SET v = 'c' WHERE id = 1`, 'DELETE FROM undead WHERE id = 2');
    await expectEqual(other);
    for (const proxy of proxies) await proxy.settled();
    await expectEqual(other);
    expect(await checkRecords(other.context.clickhouse('read'), other.options.source)).toEqual([]);
  });

  it('hands the stream to the next lease, and goes on where it was', async () => {
    await sql('CREATE TABLE relay (id int PRIMARY KEY, v text)');
    const harness = capture(['relay']);
    await harness.begin();
    for (let i = 0; i < 3; i++) {
      await harness.stop();
      harness.startLease(0.2);
      await sql(`INSERT INTO relay SELECT g, 'x' FROM generate_series(${i * 100}, ${i * 100 + 50}) g`);
      expect((await harness.leaseEnd()).ended).toBe('time');
    }
    harness.startLease();
    await expectEqual(harness);
    expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
  });
});

describe('refusals', () => {
  async function stopped(table: string): Promise<{ harness: CaptureHarness; slot: string }> {
    await sql(`CREATE TABLE ${table} (id int PRIMARY KEY)`, `INSERT INTO ${table} VALUES (1)`);
    const harness = capture([table]);
    await harness.begin();
    await harness.drain(client);
    await harness.stop();
    return { harness, slot: await unreadSlot(harness) };
  }

  /** Both the lease and the making ready refuse, each with a remedy. */
  async function expectRefused(harness: CaptureHarness, kind: string): Promise<void> {
    const refusal = { kind, transient: false, remedy: expect.stringContaining('resync') };
    harness.startLease();
    await expect(harness.leaseEnd()).rejects.toMatchObject(refusal);
    await expect(harness.prepare()).rejects.toMatchObject(refusal);
  }

  it('refuses a slot that was confirmed past the records', async () => {
    const { harness, slot } = await stopped('ahead');
    await sql('INSERT INTO ahead VALUES (2)', 'SELECT pg_current_wal_flush_lsn()');
    await client.query(`SELECT pg_replication_slot_advance($1, pg_current_wal_flush_lsn())`, [slot]);
    await expectRefused(harness, 'slot_ahead');
  });

  it('refuses a slot that is gone, or was made again', async () => {
    const { harness, slot } = await stopped('dropped');
    await client.query('SELECT pg_drop_replication_slot($1)', [slot]);
    await expectRefused(harness, 'slot_lost');
    await sql('INSERT INTO dropped VALUES (2)');
    await client.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot]);
    await expectRefused(harness, 'slot_ahead');
  });

  it('refuses another cluster than the copies were made from', async () => {
    const { harness } = await stopped('moved_away');
    const last = (await harness.records()).at(-1)!;
    const { hash: _, recorded_at: __, ...record } = last;
    const elsewhere = sealRecord({
      ...record,
      id: 'elsewhere',
      lease: record.lease + 1,
      seq: 0,
      kind: 'begin',
      cluster: '1/1',
    } as Omit<BatchRecord, 'hash'>);
    await writeRecord(harness.context.clickhouse('write'), elsewhere);
    await expectRefused(harness, 'source_replaced');
  });
});

describe('a source that crashes', () => {
  it('copies nothing that the crash takes back', async () => {
    await makeLarge('phantom');
    await sql(`INSERT INTO phantom SELECT g, ${large('p')} || g FROM generate_series(1, 5) g`);
    const harness = capture(['phantom']);
    await harness.begin();
    await harness.drain(client);
    await harness.stop();
    // Commits that do not wait stay in memory for ten seconds.
    await sql(`ALTER SYSTEM SET wal_writer_delay = '10s'`, 'SELECT pg_reload_conf()');
    await new Promise((resolve) => setTimeout(resolve, 500));
    await sql('UPDATE phantom SET id = 10 WHERE id = 1', 'UPDATE phantom SET id = 20 WHERE id = 2');
    await sql(
      'SET synchronous_commit = off',
      `UPDATE phantom SET big = 'PHANTOM' WHERE id = 10`,
      'DELETE FROM phantom WHERE id = 20',
    );
    // The values that it lacks are looked up in the source, which shows what is not on disk.
    const before = (await harness.records()).length;
    harness.startLease();
    await expect
      .poll(async () => (await harness.records()).slice(before).some((record) => record.changes > 0), {
        timeout: 20_000,
      })
      .toBe(true);
    await parts.postgres.kill();
    await harness.leaseEnd().catch(() => {});
    await parts.postgres.restart();
    await reconnect();
    await sql('ALTER SYSTEM RESET wal_writer_delay', 'SELECT pg_reload_conf()');
    harness.startLease();
    await expectEqual(harness);
  });
});
