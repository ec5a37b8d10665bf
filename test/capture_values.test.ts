/** Values of every type at its edges: the same by snapshot and by stream, and as the source has them; else rejected. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { CaptureHarness, openClient } from './capture_harness.ts';

let parts: StartedParts<'postgres' | 'clickhouse'>;
let client: pg.Client;
let harness: CaptureHarness | undefined;

beforeAll(async () => {
  parts = await startParts(['postgres', 'clickhouse']);
  client = await openClient(parts.postgres.url);
});

afterAll(async () => {
  await harness?.close();
  await client?.end();
  await parts?.[Symbol.asyncDispose]();
});

async function start(source: string, tables: string[]): Promise<CaptureHarness> {
  await harness?.close();
  harness = new CaptureHarness({ postgres: parts.postgres.url, clickhouse: parts.clickhouse.url, source, tables });
  return harness;
}

const text = (value: string) => `E'${value.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;

/** By column: its type, and SQL values that each become a row. */
const edges: Record<string, [string, ...string[]]> = {
  small: ['smallint', '-32768', '32767'],
  medium: ['int', '-2147483648', '2147483647'],
  big: ['bigint', '-9223372036854775808', '9223372036854775807'],
  number: ['numeric(12,3)', '-999999999.999', '0.001', '100'],
  wide: ['numeric(76,10)', `-${'9'.repeat(66)}.9999999999`, '0.0000000001'],
  negative: ['numeric(5,-2)', '9999900', '-100'],
  tiny: ['numeric(3,5)', '0.00999', '-0.00001'],
  free: ['numeric', "'NaN'", '1e100', '0.10', "'-Infinity'", '-0.000'],
  single: ['real', "'NaN'", "'Infinity'", "'-0'", '1.17549435e-38', '1e-45', '3.4028235e38', '0.1'],
  double: ['float8', "'NaN'", "'-Infinity'", "'-0'", '5e-324', '1.7976931348623157e308', '0.1', '123456789.123456789'],
  yes: ['bool', 'true', 'false'],
  id: ['uuid', "'ffffffff-ffff-ffff-ffff-ffffffffffff'", "'00000000-0000-0000-0000-000000000000'"],
  words: [
    'text',
    ...[
      '',
      '\\N',
      'NULL',
      '\t\n\r\\\b\f\v\x01\x1f\x7f',
      ' both ',
      '😀漢字ä',
      `'"\``,
      '\\t',
      '\\',
      '\\x41',
      '\u2028',
      '\r',
    ].map(text),
    "repeat('x', 100000)",
    `repeat(${text('\\\t')}, 40000)`,
  ],
  short: ['varchar(20)', "''", "' '", text('ä\\')],
  fixed: ['char(5)', "''", "'a'", "' a'", "'abcde'"],
  day: ['date', "'1900-01-01'", "'2299-12-31'", "'1970-01-01'", "'1969-12-31'", "'2024-02-29'"],
  wall: [
    'timestamp',
    ...[
      "'0001-01-01 00:00:00'",
      "'9999-12-31 23:59:59.999999'",
      "'1969-12-31 23:59:59.5'",
      "'1899-12-31 23:59:59.000001'",
    ],
    ...["'1970-01-01 00:00:00.000001'", "'2024-02-29 12:00:00.1'", "'1000-06-15 12:34:56.789'"],
  ],
  moment: [
    'timestamptz',
    ...["'0001-01-01 00:00:00+00'", "'9999-12-31 23:59:59.999999+00'", "'1969-12-31 23:59:59.999999+00'"],
    ...["'2024-03-31 02:30:00+01:30'", "'1900-01-01 00:00:00.25+00'", "'1800-01-01 00:00:00+00'"],
  ],
  clock: ['time', "'24:00:00'", "'00:00:00.000001'"],
  zoned: ['timetz', "'12:00:00-15:59'"],
  span: ['interval', "'-1 year -2 mons +3 days -04:05:06.789'", "'0'"],
  doc: ['json', text('{"b": 1.0, "a":  [null, "\\n"], "b": 2}'), "'null'"],
  docb: ['jsonb', `'{"n": 12345678901234567890.123456789}'`, "'null'", text('"\\\\t"')],
  raw: ['bytea', "''", text('\\x00010208090a0b0c0d1b5c27ff'), "decode(repeat('00ff5c0a', 5000), 'hex')"],
  net: ['inet', "'10.0.0.1'", "'10.0.0.1/8'", "'::1'"],
  nets: ['cidr', "'10.0.0.0/8'"],
  mac: ['macaddr', "'08:00:2b:01:02:03'"],
  price: ['money', "'-92233720368547758.08'"],
  bits: ['bit(4)', "B'1010'"],
  varbits: ['varbit', "B''", "B'1'"],
  span_: ['int4range', "'empty'", "'(,5)'"],
  place: ['point', "'(1.5,-0)'"],
  markup: ['xml', text('<a>&lt;\t</a>')],
  number_of: ['oid', '4294967295', '0'],
  mood: ['mood', "'so so'", text('a\tb'), "''"],
  positive: ['positive', '7'],
  search: ['tsvector', "'''a b'':1A c:2'"],
  pair: ['pair', `ROW(1, ${text('a"b\\,\t')})`],
  loose: ['int[]', "'{1,2}'", "'{{1,2},{3,4}}'", "'[2:3]={1,2}'", "'{}'"],
};

/** Arrays that are never NULL become arrays of ClickHouse: type, SQL value, and what is expected there. */
const arrays: Record<string, [string, ...[string, unknown][]]> = {
  ints: ['int[]', ["'{}'", []], ["'{1,NULL,-2147483648}'", [1, null, -2147483648]]],
  texts: [
    'text[]',
    [
      `ARRAY['', NULL, 'NULL', 'a,b', '{}', '"', ${text('\\')}, ${text('\t\n\r\b\f')}, '''', ' ', '😀']`,
      ['', null, 'NULL', 'a,b', '{}', '"', '\\', '\t\n\r\b\f', "'", ' ', '😀'],
    ],
    ["ARRAY[repeat('y', 5000)]", ['y'.repeat(5000)]],
  ],
  days: ['date[]', ["'{1900-01-01,2299-12-31,NULL}'", ['1900-01-01', '2299-12-31', null]]],
  bools: ['bool[]', ["'{t,f,NULL}'", [true, false, null]]],
  uuids: ['uuid[]', ["'{ffffffff-ffff-ffff-ffff-ffffffffffff}'", ['ffffffff-ffff-ffff-ffff-ffffffffffff']]],
  moments: ['timestamptz[]', ["'{2024-01-01 00:00:00+02,NULL}'", ['2023-12-31 22:00:00.000000', null]]],
  walls: ['timestamp[]', ["'{1969-12-31 23:59:59.5}'", ['1969-12-31 23:59:59.500000']]],
  numbers: ['numeric(10,2)[]', ["'{1.50,-99999999.99,NULL}'", ['1.5', '-99999999.99', null]]],
  doubles: ['float8[]', ["'{0.1,5e-324}'", [0.1, 5e-324]]],
  raws: ['bytea[]', [`ARRAY['\\x41'::bytea, ''::bytea]`, ['A', '']]],
  moods: ['mood[]', [`'{"so so",""}'`, ['so so', '']]],
};

const own = '_version, _deleted, _committed_at';

describe('values', () => {
  it('has the same of every type from snapshot and stream, as the source has it', async () => {
    await client.query(`CREATE TYPE mood AS ENUM ('so so', ${text('a\tb')}, '')`);
    await client.query('CREATE DOMAIN positive AS int CHECK (VALUE > 0)');
    await client.query('CREATE TYPE pair AS (a int, b text)');
    const columns = [
      ...Object.entries(edges).map(([column, [type]]) => `${column} ${type}`),
      ...Object.entries(arrays).map(([column, [type]]) => `${column} ${type} NOT NULL DEFAULT '{}'`),
    ];
    const statements: string[] = [];
    const add = (column: string, value: string) =>
      statements.push(`INSERT INTO TABLE_ (pk, ${column}) VALUES (${statements.length}, ${value})`);
    for (const [column, [, ...values]] of Object.entries(edges)) for (const value of values) add(column, value);
    const expected: Record<string, unknown[]> = {};
    for (const [column, [, ...values]] of Object.entries(arrays) as [string, [string, ...[string, unknown][]]][]) {
      for (const [value] of values) add(column, value);
      expected[column] = values.map(([, wanted]) => wanted);
    }
    for (const table of ['by_snapshot', 'by_stream'])
      await client.query(`CREATE TABLE ${table} (pk int PRIMARY KEY, ${columns.join(', ')})`);
    const insert = async (table: string) => {
      for (const statement of statements) await client.query(statement.replace('TABLE_', table));
    };

    await insert('by_snapshot');
    const harness = await start('edges', ['by_snapshot', 'by_stream']);
    await harness.begin();
    await insert('by_stream');
    await harness.drain(client);

    const clickhouse = harness.context.clickhouse('read');
    const name = (table: string) => clickhouse.name(`edges_${table}`);
    expect(await clickhouse.rows(`SELECT column, reason FROM ${clickhouse.name('_rejects')}`)).toEqual([]);
    const read = async (table: string) =>
      (await clickhouse.tsv(`SELECT * EXCEPT (${own}) FROM ${name(table)} FINAL ORDER BY pk`))
        .toString('latin1')
        .split('\n');
    const [snapshot, stream] = [await read('by_snapshot'), await read('by_stream')];
    expect(snapshot).toEqual(stream);
    expect(stream).toHaveLength(statements.length + 1);

    // What is no array is compared with the source by the text that both write.
    const { source, copy } = await harness.bothSides(client, 'by_stream');
    const scalars = (rows: string[]) =>
      rows.map((row) => (JSON.parse(row) as unknown[]).slice(0, Object.keys(edges).length + 1));
    expect(scalars(copy)).toEqual(scalars(source));
    for (const [column, wanted] of Object.entries(expected)) {
      const texts = /moments|walls|days/.test(column) ? `arrayMap(x -> toString(x), ${column})` : column;
      const rows = await clickhouse.rows<{ v: unknown }>(
        `SELECT ${texts} AS v FROM ${name('by_stream')} FINAL WHERE pk >= ${statements.findIndex((one) => one.includes(`(pk, ${column})`))} ORDER BY pk LIMIT ${wanted.length}`,
      );
      expect(
        rows.map((row) => row.v),
        column,
      ).toEqual(wanted);
    }
  });

  it('holds back what a copy cannot hold, with its reason, and takes the next good change', async () => {
    const bad: [string, string, string][] = [
      ['day', "'infinity'", 'date'],
      ['day', "'1899-12-31'", 'date'],
      ['day', "'2300-01-01'", 'date'],
      ['day', "'0044-03-15 BC'", 'date'],
      ['wall', "'-infinity'", 'timestamp'],
      ['wall', "'10000-01-01'", 'timestamp'],
      ['moment', "'0044-03-15 BC'", 'timestamp'],
      ['number', "'NaN'", 'NaN'],
      ['ints', "'{{1},{2}}'", 'dimensions'],
      ['ints', "'[0:1]={1,2}'", 'bound'],
      ['days', "'{infinity}'", 'date'],
    ];
    const make = (table: string) =>
      client.query(
        `CREATE TABLE ${table} (pk int PRIMARY KEY, day date, wall timestamp, moment timestamptz, number numeric(9,2),
           ints int[] NOT NULL DEFAULT '{}', days date[] NOT NULL DEFAULT '{}', v text)`,
      );
    await make('held_stream');
    await make('held_snapshot');
    const insert = async (table: string) => {
      for (const [row, [column, value]] of bad.entries())
        await client.query(`INSERT INTO ${table} (pk, ${column}, v) VALUES (${row}, ${value}, 'held')`);
      await client.query(`INSERT INTO ${table} (pk, v) VALUES (100, 'good'), (101, 'good')`);
    };
    await insert('held_snapshot');
    const harness = await start('held', ['held_stream', 'held_snapshot']);
    await harness.begin();
    // Both tables in one transaction, so that both have rejects in one batch.
    await client.query('BEGIN');
    await insert('held_stream');
    await client.query(`UPDATE held_snapshot SET day = 'infinity' WHERE pk = 100`);
    await client.query('COMMIT');
    await harness.drain(client);

    const clickhouse = harness.context.clickhouse('read');
    const rejects = await clickhouse.rows<{
      asset: string;
      key: string;
      column: string;
      reason: string;
      state: string;
    }>(
      `SELECT asset, key, column, reason, state FROM ${clickhouse.name('_rejects')} FINAL ORDER BY asset, toInt32(JSONExtractString(key, 'pk'))`,
    );
    for (const table of ['held_stream', 'held_snapshot']) {
      const of = rejects.filter((reject) => reject.asset === `held_${table}`);
      expect(of.slice(0, bad.length).map(({ key, column }) => [key, column])).toEqual(
        bad.map(([column], row) => [JSON.stringify({ pk: String(row) }), column]),
      );
      for (const [row, [, , reason]] of bad.entries()) expect(of[row]!.reason).toContain(reason);
      const { copy } = await harness.bothSides(client, table);
      expect(copy).toHaveLength(2);
    }
    // A row that was copied once and is held back now keeps its last good value in the copy.
    expect(rejects.filter((reject) => reject.asset === 'held_held_snapshot')).toHaveLength(bad.length + 1);
    const account = (await harness.records()).flatMap((record) => Object.values(record.assets));
    expect(account.reduce((sum, effects) => sum + effects.rejected, 0)).toBe(bad.length + 1);

    for (const table of ['held_stream', 'held_snapshot'])
      await client.query(
        `UPDATE ${table} SET day = NULL, wall = NULL, moment = NULL, number = NULL, ints = '{}', days = '{}', v = 'good again'`,
      );
    await harness.drain(client);
    for (const table of ['held_stream', 'held_snapshot']) {
      const { source, copy } = await harness.bothSides(client, table);
      expect(copy).toEqual(source);
    }
  });
});
