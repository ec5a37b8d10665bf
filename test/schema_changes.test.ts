import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { SluiceError } from '../model/errors.ts';
import type { LeaseSummary } from '../model/source.ts';
import { anotherWorker, capture, captureForAll, client, parts, spoiled, sql } from './capture_fixture.ts';
import type { CaptureHarness } from './capture_harness.ts';
import { checkRecords } from './oracle/compare.ts';

let number = 0;

const assetOf = (harness: CaptureHarness, table: string) => `${harness.options.source}_${table}`;

/** Names of the copy's columns, those of Sluice's own left out. */
async function copyColumns(harness: CaptureHarness, asset: string): Promise<string[]> {
  const clickhouse = harness.context.clickhouse('read');
  const rows = await clickhouse.rows<{ name: string }>(
    `SELECT name FROM system.columns WHERE database = {database:String} AND table = {asset:String} AND NOT startsWith(name, '_')`,
    { params: { database: clickhouse.database, asset } },
  );
  return rows.map((row) => row.name).sort();
}

async function sourceColumns(table: string): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute
     WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`,
    [table],
  );
  return rows.map((row) => row.name).sort();
}

/** Waits until copies have the columns of their tables, then all rows must be the same, in the view too. */
async function expectEqual(harness: CaptureHarness, ...tables: string[]): Promise<void> {
  await harness.drain(client);
  for (const table of tables.length > 0 ? tables : harness.options.tables) {
    const asset = assetOf(harness, table);
    const wanted = await sourceColumns(table);
    await expect.poll(() => copyColumns(harness, asset), { timeout: 20_000, message: table }).toEqual(wanted);
    await harness.drain(client);
    const { source, copy } = await harness.bothSides(client, table);
    expect(copy, table).toEqual(source);
    expect(await copyColumns(harness, `${asset}_current`), `view of ${table}`).toEqual(wanted);
    const clickhouse = harness.context.clickhouse('read');
    const [count] = await clickhouse.rows<{ n: string }>(
      `SELECT count() AS n FROM ${clickhouse.name(`${asset}_current`)}`,
    );
    expect(Number(count!.n)).toBe(source.length);
  }
  expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
}

/** What was altered, as records tell. */
async function altered(harness: CaptureHarness, table: string): Promise<string[]> {
  const records = await harness.records();
  return records.flatMap((record) => record.altered?.[assetOf(harness, table)] ?? []);
}

/** The lease ends because this table, and no other, is defined otherwise. */
async function changedAlone(harness: CaptureHarness, table: string): Promise<LeaseSummary['failed'][string]> {
  const { ended, failed } = await harness.leaseEnd();
  expect(ended).toBe('table_failed');
  expect(Object.keys(failed)).toEqual([assetOf(harness, table)]);
  const report = failed[assetOf(harness, table)]!;
  expect(report.kind).toBe('table_changed');
  return report;
}

/** A table with a few rows, one of them too large to be sent with each change. */
async function makeTable(table: string): Promise<void> {
  await sql(
    `CREATE TABLE ${table} (id int PRIMARY KEY, v varchar(20), n int NOT NULL DEFAULT 0, d numeric(8,2), big text)`,
    `ALTER TABLE ${table} ALTER COLUMN big SET STORAGE EXTERNAL`,
    `INSERT INTO ${table} SELECT g, 'old ' || g, g, g / 4.0, repeat(g::text, 3000) FROM generate_series(1, 9) g`,
  );
}

/** A source with a table, and a neighbour that must not be disturbed. */
async function makeTables(): Promise<{ harness: CaptureHarness; table: string; neighbour: string }> {
  const table = `altered_${++number}`;
  const neighbour = `neighbour_${number}`;
  await makeTable(table);
  await sql(`CREATE TABLE ${neighbour} (id int PRIMARY KEY, v text)`);
  return { harness: capture([table, neighbour]), table, neighbour };
}

/** One source for all tests of a block, each with a table of its own: they run one after the other. */
function shared(name: string, count: number) {
  const tables = Array.from({ length: count }, (_, i) => `${name}_${i}`);
  const neighbour = `${name}_neighbour`;
  let harness: CaptureHarness;
  let rows = 0;
  beforeAll(async () => {
    for (const table of tables) await makeTable(table);
    await sql(`CREATE TABLE ${neighbour} (id int PRIMARY KEY, v text)`);
    harness = captureForAll([...tables, neighbour]);
    await harness.begin();
    await harness.drain(client);
  });
  afterAll(() => harness?.close());
  return {
    neighbour,
    harness: () => harness,
    table: () => tables.shift()!,
    /** The values of a new row of the neighbour. */
    row: () => `(${++rows}, 'row ${rows}')`,
  };
}

describe('changes that the copy follows in their place', () => {
  const cases: Record<string, { alter: (t: string) => string[]; after: (t: string) => string[]; what: string[] }> = {
    'a column is added, NULL in old rows': {
      alter: (t) => [`ALTER TABLE ${t} ADD COLUMN more text`],
      after: (t) => [`UPDATE ${t} SET more = 'x' WHERE id = 2`],
      what: ['column more was added'],
    },
    'a column is added with a default, which is another one later': {
      alter: (t) => [
        `ALTER TABLE ${t} ADD COLUMN more int NOT NULL DEFAULT 7`,
        `ALTER TABLE ${t} ALTER COLUMN more SET DEFAULT 8`,
      ],
      after: (t) => [`INSERT INTO ${t} (id) VALUES (30)`, `UPDATE ${t} SET more = NULL WHERE false`],
      what: ['column more was added'],
    },
    'several columns are added at once, of all kinds of types': {
      alter: (t) => [
        `ALTER TABLE ${t} ADD COLUMN a1 bigint DEFAULT -9223372036854775808, ADD COLUMN a2 text DEFAULT E'tab\\t''quote'' \\\\ ä😀\\n',
           ADD COLUMN a3 numeric(30,10) DEFAULT 12345678901234567890.0123456789, ADD COLUMN a4 timestamptz DEFAULT '2024-02-29 12:34:56.789012+02',
           ADD COLUMN a5 bytea DEFAULT '\\x00ff275c0a', ADD COLUMN a6 int[] NOT NULL DEFAULT '{1,NULL,3}', ADD COLUMN a7 boolean DEFAULT true,
           ADD COLUMN a8 date DEFAULT '1900-01-01', ADD COLUMN a9 double precision DEFAULT 'NaN', ADD COLUMN b1 uuid DEFAULT '00000000-0000-4000-8000-000000000001',
           ADD COLUMN b2 jsonb DEFAULT '{"a": [1, "x"]}', ADD COLUMN b3 timestamp DEFAULT '0001-01-01 00:00:00', ADD COLUMN b4 real DEFAULT 1.1,
           ADD COLUMN b5 smallint, ADD COLUMN b6 text[] DEFAULT '{}', ADD COLUMN b7 interval DEFAULT '1 day -00:00:01', ADD COLUMN "b 8.x""y" text DEFAULT ''`,
      ],
      after: (t) => [
        `UPDATE ${t} SET a1 = 1, a2 = NULL, a6 = '{}' WHERE id = 3`,
        `UPDATE ${t} SET big = 'short' WHERE id = 4`,
      ],
      what: [
        'a1',
        'a2',
        'a3',
        'a4',
        'a5',
        'a6',
        'a7',
        'a8',
        'a9',
        'b1',
        'b2',
        'b3',
        'b4',
        'b5',
        'b6',
        'b7',
        'b 8.x"y',
      ].map((name) => `column ${name} was added`),
    },
    'a column is dropped': {
      alter: (t) => [`ALTER TABLE ${t} DROP COLUMN v`],
      after: (t) => [`UPDATE ${t} SET n = 50 WHERE id = 5`],
      what: ['column v was dropped'],
    },
    'a column is renamed': {
      alter: (t) => [`ALTER TABLE ${t} RENAME COLUMN v TO w`],
      after: (t) => [`UPDATE ${t} SET w = 'renamed' WHERE id = 5`, `UPDATE ${t} SET n = 60 WHERE id = 6`],
      what: ['column v is called w'],
    },
    'types become wider without a rewrite': {
      alter: (t) => [`ALTER TABLE ${t} ALTER COLUMN v TYPE text`, `ALTER TABLE ${t} ALTER COLUMN d TYPE numeric(30,2)`],
      after: (t) => [`UPDATE ${t} SET v = repeat('long', 20), d = 1234567890123456789012345678.99 WHERE id = 5`],
      what: ['column v is text instead of character varying(20)', 'column d is numeric(30,2) instead of numeric(8,2)'],
    },
    'the whole old row is sent from now on': {
      alter: (t) => [`ALTER TABLE ${t} REPLICA IDENTITY FULL`],
      after: (t) => [
        `UPDATE ${t} SET n = 50 WHERE id = 5`,
        `UPDATE ${t} SET id = 60 WHERE id = 6`,
        `DELETE FROM ${t} WHERE id = 7`,
      ],
      what: ['its replica identity is full'],
    },
    'everything at once': {
      alter: (t) => [
        `ALTER TABLE ${t} ADD COLUMN more int DEFAULT 1, DROP COLUMN v, ALTER COLUMN d TYPE numeric(12,2)`,
        `ALTER TABLE ${t} RENAME COLUMN n TO m`,
        `ALTER TABLE ${t} ADD COLUMN g int GENERATED ALWAYS AS (id + 1) VIRTUAL`,
      ],
      after: (t) => [`UPDATE ${t} SET m = 50, d = 9999999999.99 WHERE id = 5`],
      what: [
        'column n is called m',
        'column d is numeric(12,2) instead of numeric(8,2)',
        'column more was added',
        'column v was dropped',
      ],
    },
  };
  const source = shared('followed', Object.keys(cases).length);
  for (const [what, { alter, after, what: told }] of Object.entries(cases)) {
    it(`${what}`, async () => {
      const { neighbour, row } = source;
      const harness = source.harness();
      const table = source.table();
      await sql(
        'BEGIN',
        `INSERT INTO ${neighbour} VALUES ${row()}`,
        `UPDATE ${table} SET n = n + 100 WHERE id IN (1, 5)`,
        `INSERT INTO ${table} (id, v) VALUES (20, 'before')`,
        ...alter(table),
        `INSERT INTO ${table} (id) VALUES (21)`,
        `INSERT INTO ${neighbour} VALUES ${row()}`,
        'COMMIT',
        ...after(table),
        `DELETE FROM ${table} WHERE id = 8`,
        `UPDATE ${table} SET id = 90 WHERE id = 9`,
      );
      await expectEqual(harness, table, neighbour);
      expect((await altered(harness, table)).sort()).toEqual([...told].sort());
      // No lease ended for it.
      expect((await harness.records()).filter((record) => record.kind === 'begin')).toHaveLength(2);
    });
  }

  it('and the next lease has nothing to find out', async () => {
    const harness = source.harness();
    await harness.stop();
    const before = (await harness.records()).filter((record) => record.altered).length;
    harness.startLease();
    const { rows } = await client.query<{ name: string }>(
      "SELECT tablename AS name FROM pg_tables WHERE tablename ~ '^followed_[0-9]'",
    );
    for (const { name } of rows) await sql(`UPDATE ${name} SET id = id + 1000`);
    await expectEqual(harness);
    expect((await harness.records()).filter((record) => record.altered)).toHaveLength(before);
  });
});

describe('many changes', () => {
  it('several in one transaction, with rows between, and values that the source leaves out', async () => {
    const { harness, table, neighbour } = await makeTables();
    await harness.begin();
    await sql(
      'BEGIN',
      `UPDATE ${table} SET n = 10 WHERE id = 1`,
      `ALTER TABLE ${table} ADD COLUMN a int DEFAULT 1`,
      `UPDATE ${table} SET n = 20 WHERE id <= 2`,
      `ALTER TABLE ${table} RENAME COLUMN big TO huge`,
      `INSERT INTO ${neighbour} VALUES (1, 'between')`,
      `UPDATE ${table} SET a = 30 WHERE id <= 3`,
      `ALTER TABLE ${table} ALTER COLUMN v TYPE varchar(40), DROP COLUMN d`,
      `UPDATE ${table} SET v = repeat('w', 40) WHERE id <= 4`,
      'COMMIT',
      `UPDATE ${table} SET id = id + 100 WHERE id <= 5`,
    );
    await expectEqual(harness);
    expect((await altered(harness, table)).sort()).toEqual([
      'column a was added',
      'column big is called huge',
      'column d was dropped',
      'column v is character varying(40) instead of character varying(20)',
    ]);
  });

  it('all made while nobody read: the catalog is far ahead of the stream', async () => {
    const { harness, table } = await makeTables();
    await harness.begin();
    await harness.stop();
    await sql(
      `UPDATE ${table} SET n = 10 WHERE id = 1`,
      `ALTER TABLE ${table} ADD COLUMN a int DEFAULT 1`,
      `UPDATE ${table} SET a = 11 WHERE id <= 2`,
      `ALTER TABLE ${table} ADD COLUMN b text DEFAULT 'b'`,
      `UPDATE ${table} SET b = 'changed' WHERE id <= 3`,
      `ALTER TABLE ${table} DROP COLUMN v`,
      `UPDATE ${table} SET n = 40 WHERE id <= 4`,
      `ALTER TABLE ${table} RENAME COLUMN a TO c`,
      `UPDATE ${table} SET c = NULL WHERE id = 5`,
    );
    harness.startLease();
    // A column that came and was renamed before anybody looked: only a new copy is sure to be right.
    await changedAlone(harness, table);
    await harness.resync(table);
    await expectEqual(harness);
    await harness.stop();
    await sql(
      `ALTER TABLE ${table} ADD COLUMN e int DEFAULT 5`,
      `UPDATE ${table} SET e = 6 WHERE id <= 2`,
      `ALTER TABLE ${table} ADD COLUMN f int DEFAULT 7`,
      `UPDATE ${table} SET f = 8 WHERE id <= 3`,
      `ALTER TABLE ${table} DROP COLUMN b`,
      `INSERT INTO ${table} (id) VALUES (70)`,
    );
    harness.startLease();
    await expectEqual(harness);
  });

  it('without a row behind them: the catalog is looked at while streaming', async () => {
    const { harness, table, neighbour } = await makeTables();
    await harness.begin();
    await sql(
      `ALTER TABLE ${table} ADD COLUMN a int DEFAULT 1, DROP COLUMN v`,
      `ALTER TABLE ${table} RENAME COLUMN n TO m`,
      `INSERT INTO ${neighbour} VALUES (1, 'goes on')`,
    );
    await expectEqual(harness);
    // Told once it is done: the copy may show it a moment before.
    await expect
      .poll(async () => (await altered(harness, table)).sort())
      .toEqual(['column a was added', 'column n is called m', 'column v was dropped']);
    await sql(`UPDATE ${table} SET a = 2, m = 3 WHERE id = 1`, `ALTER TABLE ${table} DROP COLUMN a`);
    await expectEqual(harness);
  });

  it('while its snapshot is taken, chunk by chunk', async () => {
    const { harness, table, neighbour } = await makeTables();
    await harness.prepare();
    harness.startLease();
    await harness.snapshot(neighbour);
    expect(await harness.plan(table, [['3'], ['6']])).toBe(3);
    await harness.copyChunk(table, 1);
    await sql(
      `ALTER TABLE ${table} ADD COLUMN a int DEFAULT 1`,
      `UPDATE ${table} SET a = 11 WHERE id IN (1, 4, 8)`,
      `ALTER TABLE ${table} DROP COLUMN d`,
      `ALTER TABLE ${table} RENAME COLUMN v TO w`,
    );
    // The stream does not know yet, or knows already: both may be.
    await harness.copyChunk(table, 0);
    await sql(`UPDATE ${table} SET w = 'changed' WHERE id IN (2, 5)`);
    await harness.drain(client);
    await harness.copyChunk(table, 2);
    await harness.finish(table);
    await expectEqual(harness);
    await sql(`UPDATE ${table} SET n = n + 1`);
    await expectEqual(harness);
  });

  it('to and fro: what comes back under its old name has its new values only', async () => {
    const { harness, table } = await makeTables();
    await harness.begin();
    await sql(
      `ALTER TABLE ${table} DROP COLUMN v`,
      `UPDATE ${table} SET n = 1 WHERE id = 1`,
      `ALTER TABLE ${table} ADD COLUMN v varchar(20) DEFAULT 'anew'`,
      `UPDATE ${table} SET n = 2 WHERE id = 2`,
    );
    await changedAlone(harness, table);
    await harness.resync(table);
    await expectEqual(harness);
    // A name that goes to another column, and one that goes there and back.
    await sql(`ALTER TABLE ${table} RENAME COLUMN v TO w`, `UPDATE ${table} SET w = 'w' WHERE id = 3`);
    await harness.drain(client);
    await sql(`ALTER TABLE ${table} RENAME COLUMN w TO v`, `UPDATE ${table} SET v = 'v' WHERE id = 4`);
    await expectEqual(harness);
    await sql(
      'BEGIN',
      `ALTER TABLE ${table} RENAME COLUMN n TO tmp`,
      `ALTER TABLE ${table} RENAME COLUMN d TO n`,
      `ALTER TABLE ${table} RENAME COLUMN tmp TO d`,
      `UPDATE ${table} SET n = 4 WHERE id = 4`,
      'COMMIT',
    );
    await changedAlone(harness, table);
    await harness.resync(table);
    await expectEqual(harness);
  });
});

describe('changes that need a copy made anew', () => {
  const cases: Record<string, { alter: (t: string) => string[]; reason: RegExp }> = {
    'a wider type that rewrites': {
      alter: (t) => [`ALTER TABLE ${t} ALTER COLUMN n TYPE bigint`],
      reason: /n was integer and is bigint/,
    },
    'a narrower type': { alter: (t) => [`ALTER TABLE ${t} ALTER COLUMN v TYPE varchar(15)`], reason: /column v/ },
    'another scale': { alter: (t) => [`ALTER TABLE ${t} ALTER COLUMN d TYPE numeric(12,4)`], reason: /column d/ },
    'the same type with other values': {
      alter: (t) => [`ALTER TABLE ${t} ALTER COLUMN v TYPE varchar(20) USING upper(v)`],
      reason: /rewritten/,
    },
    'a column whose default is another one in each row': {
      alter: (t) => [`ALTER TABLE ${t} ADD COLUMN at timestamptz DEFAULT clock_timestamp()`],
      reason: /at is new, and the table was rewritten/,
    },
    'a column that is numbered': { alter: (t) => [`ALTER TABLE ${t} ADD COLUMN s serial`], reason: /rewritten/ },
    'another key': {
      alter: (t) => [`ALTER TABLE ${t} DROP CONSTRAINT ${t}_pkey, ADD PRIMARY KEY (n)`],
      reason: /key/,
    },
    'a key column renamed': {
      alter: (t) => [`ALTER TABLE ${t} RENAME COLUMN id TO ident`],
      reason: /key column id is called ident/,
    },
    'another replica identity': {
      alter: (t) => [`CREATE UNIQUE INDEX ${t}_n ON ${t} (n)`, `ALTER TABLE ${t} REPLICA IDENTITY USING INDEX ${t}_n`],
      reason: /key/,
    },
    'dropped and made again': {
      alter: (t) => [
        `DROP TABLE ${t}`,
        `CREATE TABLE ${t} (id int PRIMARY KEY, n int, z text)`,
        `INSERT INTO ${t} VALUES (3, 3, 'z')`,
      ],
      reason: /dropped and made again/,
    },
    'swapped by renaming': {
      alter: (t) => [
        `CREATE TABLE ${t}_new (LIKE ${t} INCLUDING ALL)`,
        `INSERT INTO ${t}_new (id, v, n) SELECT id + 1, 'swapped', n FROM ${t}`,
        `ALTER TABLE ${t} RENAME TO ${t}_old`,
        `ALTER TABLE ${t}_new RENAME TO ${t}`,
      ],
      reason: /another table bears its name/,
    },
  };
  const source = shared('renewed', Object.keys(cases).length);
  for (const [what, { alter, reason }] of Object.entries(cases)) {
    it(`${what}`, async () => {
      const { neighbour, row } = source;
      const harness = source.harness();
      const table = source.table();
      await sql(
        `INSERT INTO ${neighbour} VALUES ${row()}`,
        `UPDATE ${table} SET n = n + 100 WHERE id = 5`,
        'BEGIN',
        ...alter(table),
        `UPDATE ${table} SET n = 6 WHERE n = 6`,
        `INSERT INTO ${neighbour} VALUES ${row()}`,
        'COMMIT',
      );
      const report = await changedAlone(harness, table);
      expect(report.reason).toMatch(reason);
      expect(report.remedy).toMatch(/Nothing is to be done/);
      await harness.resync(table);
      await sql(`UPDATE ${table} SET n = n + 1000`, `INSERT INTO ${neighbour} VALUES ${row()}`);
      await expectEqual(harness, table, neighbour);
      // Nothing is left beside it.
      const clickhouse = harness.context.clickhouse('read');
      const left = await clickhouse.rows(
        `SELECT name FROM system.tables WHERE database = '${clickhouse.database}' AND startsWith(name, '_next')`,
      );
      expect(left).toEqual([]);
    });
  }

  it('values of a type that are called otherwise, which sends nothing; added ones do no harm', async () => {
    await sql(
      `CREATE TYPE mood AS ENUM ('good', 'bad')`,
      'CREATE TYPE pair AS (a int, b int)',
      'CREATE TABLE moods (id int PRIMARY KEY, m mood, many mood[], p pair, list text[] NOT NULL)',
      `INSERT INTO moods VALUES (1, 'bad', '{bad,good}', ROW(1, 2), '{a}')`,
    );
    const harness = capture(['moods']);
    await harness.begin();
    await sql(
      `ALTER TYPE mood ADD VALUE 'so so' BEFORE 'bad'`,
      `INSERT INTO moods VALUES (2, 'so so', NULL, NULL, '{}')`,
    );
    await expectEqual(harness);
    for (const [i, statement] of [
      `ALTER TYPE mood RENAME VALUE 'bad' TO 'poor'`,
      'ALTER TYPE pair ADD ATTRIBUTE c int',
      'ALTER TABLE moods ALTER COLUMN list DROP NOT NULL',
    ].entries()) {
      // Found while streaming, at the latest ten seconds later, and before each lease.
      if (i > 0) await harness.stop();
      await sql(statement);
      if (i > 0) harness.startLease();
      await changedAlone(harness, 'moods');
      await harness.resync('moods');
      await sql('UPDATE moods SET id = id + 10');
      await expectEqual(harness);
    }
    await sql('INSERT INTO moods VALUES (99, NULL, NULL, NULL, NULL)');
    await expectEqual(harness);
  });

  it('and readers see the old copy or the new one, each complete, whenever they look', async () => {
    await sql(
      'CREATE TABLE watched (id int PRIMARY KEY, v int)',
      'INSERT INTO watched SELECT g, 1 FROM generate_series(1, 2000) g',
    );
    const harness = capture(['watched']);
    await harness.begin();
    await harness.drain(client);
    const clickhouse = harness.context.clickhouse('read');
    const name = clickhouse.name(assetOf(harness, 'watched'));
    const seen = new Set<string>();
    let looking = true;
    const reader = (async () => {
      while (looking) {
        const [row] = await clickhouse.rows<{ seen: string }>(
          `SELECT concat(toString(count()), '/', toString(sum(v)), '/', any(toTypeName(v))) AS seen FROM ${name} FINAL`,
        );
        seen.add(row!.seen);
      }
    })();
    await sql('ALTER TABLE watched ALTER COLUMN v TYPE bigint USING v * 2');
    await changedAlone(harness, 'watched');
    await harness.addTable('watched', 2, true);
    harness.startLease();
    const cuts = Array.from({ length: 9 }, (_, i) => [String((i + 1) * 200)]);
    const chunks = await harness.plan('watched', cuts);
    for (let chunk = 0; chunk < chunks; chunk++) {
      await harness.copyChunk('watched', chunk);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    await harness.finish('watched');
    await expectEqual(harness);
    looking = false;
    await reader;
    expect([...seen].sort()).toEqual(['2000/2000/Nullable(Int32)', '2000/4000/Nullable(Int64)']);
  });
});

describe('tables that go', () => {
  it('fail alone when they are dropped, and are copied by themselves when they are made again', async () => {
    const { harness, table, neighbour } = await makeTables();
    await harness.begin();
    await sql(`DROP TABLE ${table}`, `INSERT INTO ${neighbour} VALUES (1, 'goes on')`);
    const { ended, failed } = await harness.leaseEnd();
    expect(ended).toBe('table_failed');
    expect(failed[assetOf(harness, table)]).toMatchObject({ kind: 'table_missing' });
    expect(failed[assetOf(harness, table)]!.reason).toContain('it is gone');
    expect(failed[assetOf(harness, table)]!.remedy).toContain(`remove-tables ${harness.options.source} ${table}`);
    harness.dropTable(table);
    harness.startLease(600, 1, [table]);
    await sql(`INSERT INTO ${neighbour} VALUES (2, 'and on')`);
    await expectEqual(harness, neighbour);
    await sql(`CREATE TABLE ${table} (id int PRIMARY KEY, other text)`, `INSERT INTO ${table} VALUES (1, 'again')`);
    const again = await harness.leaseEnd();
    expect(again).toMatchObject({ ended: 'table_returned', returned: [assetOf(harness, table)], failed: {} });
    await harness.resync(table);
    await sql(`INSERT INTO ${table} VALUES (2, 'more')`);
    await expectEqual(harness);
  });

  it('fail alone when they are renamed, and say what they are called', async () => {
    const { harness, table, neighbour } = await makeTables();
    await harness.begin();
    await sql(
      `ALTER TABLE ${table} RENAME TO ${table}_away`,
      `INSERT INTO ${table}_away (id) VALUES (50)`,
      `INSERT INTO ${neighbour} VALUES (1, 'goes on')`,
    );
    const { failed } = await harness.leaseEnd();
    expect(failed[assetOf(harness, table)]).toMatchObject({ kind: 'table_missing' });
    expect(failed[assetOf(harness, table)]!.reason).toContain(`it is called ${table}_away now`);
    harness.dropTable(table);
    harness.startLease();
    await expectEqual(harness, neighbour);
  });
});

describe('crashes and replays', () => {
  /** What of a change fails, and whether it was done before. */
  for (const [what, done] of [
    ['alterCopy', false],
    ['alterCopy', true],
    ['record', false],
    ['record', true],
    ['write', true],
  ] as const) {
    it(`a change goes on where it was left: ${what} ${done ? 'was done, then failed' : 'failed'}`, async () => {
      const { harness, table } = await makeTables();
      let spoil = false;
      const usual = harness.context.sink.bind(harness.context);
      harness.context.sink = (role) => {
        const sink = usual(role);
        const call = sink[what].bind(sink) as (...args: unknown[]) => Promise<unknown>;
        const faulty = async (...args: unknown[]) => {
          if (!spoil || (what === 'record' && (args[0] as { kind: string }).kind !== 'schema')) return call(...args);
          if (done) await call(...args);
          spoil = false;
          throw new SluiceError('sink_unreachable', 'scripted', 'It is tried again.');
        };
        return Object.assign(sink, { [what]: faulty });
      };
      await harness.begin();
      await harness.drain(client);
      spoil = true;
      await sql(
        'BEGIN',
        `UPDATE ${table} SET n = 10, v = 'before' WHERE id = 1`,
        `INSERT INTO ${table} (id, v) VALUES (20, 'before')`,
        `ALTER TABLE ${table} ADD COLUMN a int DEFAULT 1, DROP COLUMN d`,
        `ALTER TABLE ${table} RENAME COLUMN v TO w`,
        `UPDATE ${table} SET a = 2 WHERE id = 2`,
        `DELETE FROM ${table} WHERE id = 20`,
        `INSERT INTO ${table} (id, w) VALUES (21, 'behind')`,
        'COMMIT',
      );
      await expect(harness.leaseEnd()).rejects.toThrow('scripted');
      // More rows, and more changes, before anybody goes on.
      await sql(`UPDATE ${table} SET w = 'later' WHERE id = 3`, `ALTER TABLE ${table} ADD COLUMN b int DEFAULT 3`);
      const other = anotherWorker(harness);
      other.startLease(600, 2);
      await sql(`UPDATE ${table} SET b = 4 WHERE id = 4`);
      await expectEqual(other);
    });
  }

  it('rows of before come again in their old shape when a large transaction is read again', async () => {
    const { harness, table } = await makeTables();
    let lose = false;
    const clickhouse = await spoiled(({ query }) => (lose && query.includes('_batches') ? 'lost' : 'passed'));
    const small = capture(harness.options.tables, { clickhouse, bufferSize: 10 });
    await small.begin();
    await small.drain(client);
    // The record of the batch behind the change is lost: all is read again from the beginning of the transaction.
    const changed = (async () => {
      while (!(await small.records()).some((record) => record.kind === 'schema')) await sleep(5);
      lose = true;
    })();
    const before = Array.from(
      { length: 40 },
      (_, i) => `INSERT INTO ${table} (id, v, d) VALUES (${100 + i}, 'row ${i}', ${i})`,
    );
    const behind = Array.from(
      { length: 400 },
      (_, i) => `INSERT INTO ${table} (id, w, a) VALUES (${1000 + i}, 'new ${i}', ${i})`,
    );
    await sql(
      'BEGIN',
      ...before,
      `UPDATE ${table} SET n = 5 WHERE id < 5`,
      `ALTER TABLE ${table} ADD COLUMN a int DEFAULT 77, DROP COLUMN d`,
      `ALTER TABLE ${table} RENAME COLUMN v TO w`,
      ...behind,
      `UPDATE ${table} SET n = 6 WHERE id < 3`,
      'COMMIT',
    );
    await changed;
    await sql(`UPDATE ${table} SET n = 7 WHERE id = 2`);
    await expect(small.leaseEnd()).rejects.toThrow();
    lose = false;
    const other = anotherWorker(small, { clickhouse: parts.clickhouse.url });
    other.startLease(600, 2);
    await expectEqual(other);
    expect(new Set(await altered(other, table))).toEqual(
      new Set(['column a was added', 'column d was dropped', 'column v is called w']),
    );
  });

  it('a copy that has taken the old one’s place does not do so twice', async () => {
    const { harness, table } = await makeTables();
    await harness.begin();
    await sql(`ALTER TABLE ${table} ALTER COLUMN n TYPE bigint`, `UPDATE ${table} SET n = 1 WHERE id = 1`);
    await changedAlone(harness, table);
    const usual = harness.context.sink.bind(harness.context);
    let spoil = true;
    harness.context.sink = (role) => {
      const sink = usual(role);
      const replace = sink.replaceCopy.bind(sink);
      return Object.assign(sink, {
        replaceCopy: async (schema: Parameters<typeof replace>[0]) => {
          await replace(schema);
          if (spoil) throw new SluiceError('sink_unreachable', 'scripted', 'It is tried again.');
        },
      });
    };
    await harness.resync(table);
    await expect(harness.leaseEnd()).rejects.toThrow('scripted');
    spoil = false;
    await sql(`UPDATE ${table} SET n = 2 WHERE id = 2`);
    const other = anotherWorker(harness);
    other.startLease(600, 2);
    await expectEqual(other);
  });
});

describe('flows that lose their state', () => {
  it('begin a table anew whose last re-sync nobody finished', async () => {
    const { harness, table, neighbour } = await makeTables();
    await harness.begin();
    await harness.drain(client);
    await harness.stop();
    // Asked for by somebody: no record says that the table failed.
    await harness.addTable(table, 2);
    harness.startLease();
    await sql(`UPDATE ${table} SET n = 77 WHERE id = 1`);
    await harness.drain(client, 3_000).catch(() => {});
    await harness.stop();
    const other = capture(harness.options.tables, harness.options);
    const prepared = await other.prepare();
    expect(prepared.tables.find((one) => one.table === table)).toMatchObject({ snapshot_done: false, generation: 3 });
    other.startLease();
    await other.snapshot(table);
    await other.snapshot(neighbour);
    await expectEqual(other);
  });
});

describe('policies', () => {
  it('ignore: new columns are left out, until somebody re-syncs; all else is followed', async () => {
    const { harness, table } = await makeTables();
    const kept = capture(harness.options.tables, { sourceOptions: { schema_changes: 'ignore' } });
    await kept.begin();
    const columns = async () => copyColumns(kept, assetOf(kept, table));
    await sql(
      `ALTER TABLE ${table} ADD COLUMN secret text DEFAULT 'x'`,
      `UPDATE ${table} SET secret = 'y', n = 50 WHERE id = 5`,
      `ALTER TABLE ${table} RENAME COLUMN v TO w`,
      `UPDATE ${table} SET secret = 'z', w = 'w' WHERE id = 6`,
    );
    await kept.drain(client);
    await sql(
      `ALTER TABLE ${table} RENAME COLUMN secret TO secret2`,
      `UPDATE ${table} SET secret2 = 'z', w = 'w7' WHERE id = 7`,
    );
    await kept.drain(client);
    await expect.poll(columns).toEqual(['big', 'd', 'id', 'n', 'w']);
    const same = async () => {
      await kept.drain(client);
      const { source, copy } = await kept.bothSides(client, table);
      expect(copy).toEqual(source);
    };
    await same();
    // Copied anew by itself, it still has no column that nobody asked for.
    await sql(
      `ALTER TABLE ${table} ALTER COLUMN n TYPE bigint, ADD COLUMN third int`,
      `UPDATE ${table} SET n = 8 WHERE id = 8`,
    );
    await changedAlone(kept, table);
    await kept.resync(table);
    await kept.drain(client);
    expect(await columns()).toEqual(['big', 'd', 'id', 'n', 'w']);
    await sql(`UPDATE ${table} SET n = n + 1, third = 3`);
    await same();
    await kept.stop();
    await kept.resync(table, false);
    await expectEqual(kept, table);
  });

  for (const policy of ['approve', 'stop'] as const) {
    it(`${policy}: the table waits alone, with the command that lets it go on`, async () => {
      const { harness, table, neighbour } = await makeTables();
      const kept = capture(harness.options.tables, { sourceOptions: { schema_changes: policy } });
      await kept.begin();
      await sql(
        // Harmless: nothing about the copy changes.
        `ALTER TABLE ${table} ALTER COLUMN n SET STATISTICS 10`,
        `ALTER TABLE ${table} ADD COLUMN g int GENERATED ALWAYS AS (id + 1) VIRTUAL`,
        `UPDATE ${table} SET n = 1 WHERE id = 1`,
        `ALTER TABLE ${neighbour} ADD COLUMN more int`,
        `INSERT INTO ${neighbour} VALUES (1, 'x', 1)`,
      );
      const report = await changedAlone(kept, neighbour);
      expect(report.reason).toContain('column more was added');
      const command = policy === 'approve' ? 'approve' : 'resync';
      expect(report.remedy).toContain(`sluice sources ${command} ${kept.options.source} ${neighbour}`);
      kept.dropTable(neighbour);
      kept.startLease();
      await sql(`UPDATE ${table} SET n = 2 WHERE id = 2`);
      await expectEqual(kept, table);
      await kept.stop();
      await kept.resync(neighbour, false);
      await expectEqual(kept);
    });
  }
});

describe('columns that are not copied', () => {
  it('stay out when they are renamed: the table waits for somebody to say what is meant', async () => {
    const { harness, table, neighbour } = await makeTables();
    const careful = capture(harness.options.tables, { excludeColumns: { [table]: ['v', 'later'] } });
    await careful.begin();
    await sql(
      `ALTER TABLE ${table} ADD COLUMN later text DEFAULT 'secret'`,
      `ALTER TABLE ${table} ADD COLUMN g int GENERATED ALWAYS AS (id + 1) VIRTUAL, ADD COLUMN more int DEFAULT 3`,
      `UPDATE ${table} SET later = 'still secret', v = 'secret too' WHERE id = 1`,
    );
    await careful.drain(client);
    await expect.poll(() => copyColumns(careful, assetOf(careful, table))).toEqual(['big', 'd', 'id', 'more', 'n']);
    const { source, copy } = await careful.bothSides(client, table);
    expect(copy).toEqual(source);
    await sql(`ALTER TABLE ${table} RENAME COLUMN v TO visible`, `UPDATE ${table} SET n = 9 WHERE id = 9`);
    const { failed } = await careful.leaseEnd();
    expect(failed[assetOf(careful, table)]).toMatchObject({ kind: 'table_unusable' });
    expect(failed[assetOf(careful, table)]!.reason).toContain('v, which is not to be copied, is called visible');
    careful.dropTable(table);
    careful.startLease();
    await sql(`INSERT INTO ${neighbour} VALUES (1, 'goes on')`);
    await expectEqual(careful, neighbour);
  });
});

it('a key that is dropped and made again under FULL makes the copy anew: rows may have shared it meanwhile', async () => {
  const { harness, table } = await makeTables();
  await sql(`ALTER TABLE ${table} REPLICA IDENTITY FULL`);
  await harness.begin();
  await harness.drain(client);
  await sql(
    'BEGIN',
    `ALTER TABLE ${table} DROP CONSTRAINT ${table}_pkey`,
    `INSERT INTO ${table} (id, v) VALUES (1, 'second')`,
    `DELETE FROM ${table} WHERE id = 1 AND v LIKE 'old%'`,
    `ALTER TABLE ${table} ADD PRIMARY KEY (id)`,
    'COMMIT',
  );
  expect((await changedAlone(harness, table)).reason).toContain('its key was dropped and made again');
  await harness.resync(table);
  await expectEqual(harness);
});
