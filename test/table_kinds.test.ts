import { describe, expect, it } from 'vitest';
import { quoteName, quoteTable } from '../activities/capture/postgresql/connection.ts';
import { openSource } from '../activities/capture/source.ts';
import { loadSchemas } from '../activities/load/batches.ts';
import { capture, client, parts } from './capture_fixture.ts';
import type { CaptureHarness } from './capture_harness.ts';

const sql = (text: string, values: unknown[] = []) => client.query(text, values);

/** Preflight has nothing against these tables, and finds exactly them. */
async function expectUsable(harness: CaptureHarness): Promise<void> {
  const { request } = harness;
  const source = await openSource('postgresql');
  const { findings, tables } = await source.preflight({ request, connectionString: parts.postgres.url });
  expect(findings.filter((finding) => finding.blocking)).toEqual([]);
  expect(tables.map(({ table }) => table).sort()).toEqual([...harness.options.tables].sort());
}

async function expectEqual(harness: CaptureHarness, table: string): Promise<string[]> {
  await harness.drain(client);
  const { source, copy } = await harness.bothSides(client, table);
  expect(copy, table).toEqual(source);
  return copy;
}

/** Names that have broken programs which paste names into statements, paths and formats. */
const hostileNames = [
  'say "hi"',
  "it's",
  'back\\slash',
  'tick`s',
  'dot.ted.name',
  'with space ',
  'new\nline',
  'tab\tbed',
  'select',
  'Mixed Case',
  'mixed case',
  '😀',
  '$1',
  '%s {x:String}',
  '--',
  '/* c */',
  'a,b)',
  '__proto__',
  'constructor',
  'n'.repeat(63),
];

describe('names', () => {
  it('of tables and columns may be anything, also where they differ in case only', async () => {
    const harness = capture(hostileNames);
    // As a name of a table this one would be too long for a file of ClickHouse, which preflight says.
    const columns = [...hostileNames, '名'.repeat(21)];
    const values = columns.map((_, place) => `$${place + 1}`).join(', ');
    for (const [index, name] of hostileNames.entries()) {
      const key = [columns[index]!, columns[index + 1]!].map(quoteName).join(', ');
      await sql(
        `CREATE TABLE ${quoteName(name)} (${columns.map((one) => `${quoteName(one)} text`).join(', ')}, PRIMARY KEY (${key}))`,
      );
      for (const row of ['a', 'b', 'c'])
        await sql(
          `INSERT INTO ${quoteName(name)} VALUES (${values})`,
          columns.map((value) => row + value),
        );
    }
    await expectUsable(harness);
    await harness.begin();
    for (const [index, name] of hostileNames.entries()) {
      const table = quoteName(name);
      const [key, other] = [columns[index]!, columns[(index + 5) % columns.length]!];
      await sql(`DELETE FROM ${table} WHERE ${quoteName(key)} = $1`, [`a${key}`]);
      await sql(`UPDATE ${table} SET ${quoteName(other)} = $2 WHERE ${quoteName(key)} = $1`, [`b${key}`, "o'th\\er"]);
      await sql(`UPDATE ${table} SET ${quoteName(key)} = $2 WHERE ${quoteName(key)} = $1`, [`c${key}`, 'k"e`y\n']);
      await sql(`ALTER TABLE ${table} ADD COLUMN ${quoteName('add"e`d\\ \'n')} int DEFAULT 5`);
      await sql(
        `INSERT INTO ${table} VALUES (${values})`,
        columns.map((value) => `d${value}`),
      );
    }
    for (const name of hostileNames) {
      const rows = await expectEqual(harness, name);
      expect(rows, name).toHaveLength(3);
      expect(JSON.parse(rows[0]!)).toHaveLength(columns.length + 1);
    }
  });

  it('of schemas may be anything too', async () => {
    const schema = `Sch"e'ma.\\😀`;
    await sql(`CREATE SCHEMA ${quoteName(schema)}`);
    const harness = capture(['t.a"b'], { schema });
    const table = quoteTable({ schema, table: 't.a"b' });
    await sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v text); INSERT INTO ${table} VALUES (1, 'a'), (2, 'b')`);
    await expectUsable(harness);
    await harness.begin();
    await sql(`UPDATE ${table} SET v = 'c' WHERE id = 2; DELETE FROM ${table} WHERE id = 1`);
    expect(await expectEqual(harness, 't.a"b')).toHaveLength(1);
  });
});

describe('shapes', () => {
  it('of five hundred columns are copied, and widened', async () => {
    const harness = capture(['wide']);
    const kinds = ['int', 'text', 'numeric(12,2)', 'timestamptz', 'bool'];
    const columns = Array.from({ length: 500 }, (_, index) => `c${index} ${kinds[index % kinds.length]}`);
    await sql(`CREATE TABLE wide (id int PRIMARY KEY, ${columns.join(', ')})`);
    const values = ['i', `'text ' || i`, 'i / 8.0', `'2026-01-01Z'::timestamptz + i * interval '1h'`, 'i % 2 = 0'];
    const row = columns.map((_, index) => (index % 7 === 6 ? 'NULL' : values[index % kinds.length])).join(', ');
    await sql(`INSERT INTO wide SELECT i, ${row} FROM generate_series(1, 2000) AS i`);
    await expectUsable(harness);
    await harness.begin();
    await sql(`UPDATE wide SET c1 = 'other', c497 = 5.25 WHERE id % 2 = 0`);
    await sql('ALTER TABLE wide ADD COLUMN last text');
    await sql(`INSERT INTO wide SELECT i, ${row}, 'last' FROM generate_series(2001, 2100) AS i`);
    expect(await expectEqual(harness, 'wide')).toHaveLength(2100);
  });

  it('without rows, without other columns than the key, and with generated and identity columns are copied', async () => {
    const tables = ['empty', 'only_key', 'computed', 'by_identity', 'only_computed'];
    const harness = capture(tables);
    await sql('CREATE TABLE empty (id int PRIMARY KEY, v text)');
    await sql('CREATE TABLE only_key (a int, b text, PRIMARY KEY (b, a))');
    await sql(`CREATE TABLE computed (twice int GENERATED ALWAYS AS (n * 2) STORED, id int PRIMARY KEY, n int,
      upper text GENERATED ALWAYS AS (upper(v)) VIRTUAL, v text, sum int GENERATED ALWAYS AS (n + id) STORED)`);
    await sql('CREATE TABLE only_computed (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED)');
    await sql(
      'CREATE TABLE by_identity (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, n int GENERATED BY DEFAULT AS IDENTITY)',
    );
    const fill = async (from: number) => {
      await sql(`INSERT INTO only_key SELECT i, 'key ' || i FROM generate_series(${from}, ${from} + 9) AS i`);
      await sql(
        `INSERT INTO computed (id, n, v) SELECT i, i * 3, 'v' || i FROM generate_series(${from}, ${from} + 9) AS i`,
      );
      await sql(`INSERT INTO only_computed SELECT i FROM generate_series(${from}, ${from} + 9) AS i`);
      await sql(`INSERT INTO by_identity (v) SELECT 'v' || i FROM generate_series(${from}, ${from} + 9) AS i`);
    };
    await fill(1);
    await expectUsable(harness);
    await harness.begin();
    expect(await expectEqual(harness, 'empty')).toEqual([]);
    await fill(101);
    await sql(
      `UPDATE computed SET n = n + 1, v = 'new' WHERE id % 3 = 0; UPDATE computed SET id = id + 1000 WHERE id = 5`,
    );
    await sql(`UPDATE only_key SET a = a + 1000 WHERE a = 3; DELETE FROM only_key WHERE a = 4`);
    await sql(
      `UPDATE only_computed SET id = 3000 WHERE id = 3; UPDATE by_identity SET v = 'x', n = DEFAULT WHERE id = 4`,
    );
    await sql(`INSERT INTO empty VALUES (1, 'first')`);
    const sizes = [1, 19, 20, 20, 20];
    for (const [index, table] of tables.entries())
      expect(await expectEqual(harness, table)).toHaveLength(sizes[index]!);
    // What the source computes is in no copy.
    const { columns } = (await loadSchemas(harness.context.clickhouse('read'), harness.options.source)).get(
      `${harness.options.source}_computed`,
    )!;
    expect(columns.map(({ name }) => name)).toEqual(['id', 'n', 'v']);
  });
});

describe('keys', () => {
  it('whose index has another order than the table are cut and read by the index', async () => {
    const harness = capture(['backwards']);
    await sql('CREATE TABLE backwards (a int, v text, b text, PRIMARY KEY (b, a))');
    await sql(
      `INSERT INTO backwards SELECT i % 1000, 'v' || i, lpad((i / 1000)::text, 8, '0') FROM generate_series(0, 899999) AS i`,
    );
    await sql('VACUUM ANALYZE backwards');
    await harness.prepare();
    const scans = async () => {
      const { rows } = await sql(
        `SELECT seq_scan::int AS seq, idx_scan::int AS idx FROM pg_stat_user_tables WHERE relname = 'backwards'`,
      );
      return rows[0] as { seq: number; idx: number };
    };
    const before = await scans();
    harness.startLease();
    const chunks = await harness.plan('backwards');
    expect(chunks).toBe(5);
    for (const chunk of [1, 4, 0, 3, 2]) await harness.copyChunk('backwards', chunk);
    await harness.finish('backwards');
    // Sessions tell of their scans when they end.
    await expect.poll(async () => (await scans()).idx - before.idx, { timeout: 10_000 }).toBeGreaterThanOrEqual(10);
    expect((await scans()).seq).toBe(before.seq);
    await sql(`UPDATE backwards SET v = 'new' WHERE a = 7; DELETE FROM backwards WHERE b = '00000500' AND a < 10`);
    await sql(`UPDATE backwards SET b = 'moved' WHERE b = '00000100' AND a BETWEEN 20 AND 30`);
    await harness.drain(client);
    const { rows } = await sql(
      `SELECT count(*) || ' ' || sum(a) || ' ' || sum(length(v)) || ' ' || sum(length(b)) AS sum FROM backwards`,
    );
    const clickhouse = harness.context.clickhouse('read');
    const name = clickhouse.name(`${harness.options.source}_backwards`);
    const copied = await clickhouse.rows<{ sum: string }>(
      `SELECT concat(toString(count()), ' ', toString(sum(a)), ' ', toString(sum(length(v))), ' ', toString(sum(length(b)))) AS sum FROM ${name} FINAL`,
    );
    expect(copied[0]!.sum).toBe(rows[0].sum);
    const [order] = await clickhouse.rows<{ key: string }>(
      `SELECT sorting_key AS key FROM system.tables WHERE database = {database:String} AND name = {name:String}`,
      { params: { database: clickhouse.database, name: `${harness.options.source}_backwards` } },
    );
    expect(order!.key).toBe('b, a');
  });
});
