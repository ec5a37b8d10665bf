/** Verification against real engines: right copies of all types pass, every damage is found, movement is no alarm. */
import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import fc from 'fast-check';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readTableByName } from '../activities/capture/postgresql/catalog.ts';
import { quoteName } from '../activities/capture/postgresql/connection.ts';
import { RowEncoder } from '../activities/capture/postgresql/encode.ts';
import { type TableVerification, type VerifyOptions, verifyTable } from '../activities/check/verify.ts';
import { Rest } from '../activities/check/verify_rest.ts';
import {
  createVerificationTable,
  lastVerification,
  readVerification,
  storeVerification,
} from '../activities/check/verify_store.ts';
import { createOwnTables, writeRejects } from '../activities/load/batches.ts';
import { Block } from '../activities/load/block.ts';
import { ClickHouse, quoteName as quoteCopyName } from '../activities/load/clickhouse.ts';
import { copyColumns, createCopy } from '../activities/load/tables.ts';
import { parseLsn } from '../model/position.ts';
import type { TableSchema } from '../model/table.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { type SourceServer, startSource } from './source_server.ts';

let server: SourceServer;
let client: pg.Client;
let home: string;
let parts: StartedParts<'clickhouse'>;
let clickhouse: ClickHouse;
let writer: ClickHouse;
let version = 0;

beforeAll(async () => {
  home = await mkdtemp(path.join(os.tmpdir(), 'sluice-verify-'));
  [server, parts] = await Promise.all([startSource(), startParts(['clickhouse'], { home })]);
  client = await server.session();
  await client.query("CREATE TYPE public.mood AS ENUM ('sad', 'glad'); CREATE TYPE public.pair AS (a int, b text)");
  clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'verify' });
  writer = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'write' });
  await createOwnTables(clickhouse);
  await createVerificationTable(clickhouse);
}, 60_000);

afterAll(async () => {
  await Promise.allSettled([clickhouse?.close(), writer?.close(), server?.stop(), parts?.[Symbol.asyncDispose]()]);
  await rm(home, { recursive: true, force: true });
});

/** Makes a table in the source, and its empty copy. */
async function make(name: string, definition: string, rows = ''): Promise<TableSchema> {
  await client.query(`DROP TABLE IF EXISTS public.${name}; CREATE TABLE public.${name} (${definition}); ${rows}`);
  const table = await readTableByName(client, 'main', { schema: 'public', table: name });
  await clickhouse.command(`DROP TABLE IF EXISTS ${clickhouse.name(table!.asset_id)}`);
  await createCopy(clickhouse, table!);
  return table!;
}

const asText = { getTypeParser: () => (text: string) => text };

/** Writes the rows that the source has now (of a condition) into the copy, by the encoder that snapshots use. */
async function copy(table: TableSchema, where = 'true', reader = client): Promise<void> {
  const names = table.columns.map((column) => quoteName(column.name)).join(', ');
  const text = `SELECT ${names} FROM ${table.schema}."${table.table}" WHERE ${where}`;
  const { rows } = await reader.query<Texts>({ text, rowMode: 'array', types: asText } as pg.QueryArrayConfig);
  await write(table, rows);
}

/** A row as PostgreSQL prints it. */
type Texts = (string | null)[];

async function write(table: TableSchema, rows: Texts[], deleted = 0): Promise<void> {
  if (rows.length === 0) return;
  version += 1;
  const encoder = new RowEncoder(table);
  const block = new Block();
  const trailer = Buffer.from(`${version}\t${deleted}\t2026-01-01 00:00:00\t`);
  for (const row of rows) {
    block.reserve(10_000 + 3 * Buffer.byteLength(row.join('')));
    block.beginRow();
    row.forEach((text, index) => {
      const bytes = Buffer.from(text ?? '');
      const written =
        text === null ? encoder.missing(block, index) : encoder.value(block, index, bytes, 0, bytes.length);
      if (!written) throw new Error(`${encoder.refused.column}: ${encoder.refused.reason}`);
    });
    trailer.copy(block.bytes, block.length);
    block.length += trailer.length;
    block.endRow();
  }
  await insert(table, block.content());
}

async function insert(table: TableSchema, tsv: Buffer): Promise<void> {
  await writer.insertTsv(table.asset_id, copyColumns(table), [Buffer.from(tsv)], `test-${version}-${Math.random()}`);
}

/** Damages the copy: `set` are the columns that are replaced, of the rows of a condition. */
async function damage(table: TableSchema, where: string, set: Record<string, string>): Promise<void> {
  version += 1;
  const columns = copyColumns(table);
  const values: Record<string, string> = { _version: String(version), ...set };
  const name = clickhouse.name(table.asset_id);
  await clickhouse.command(
    `INSERT INTO ${name} (${columns.map(quoteCopyName).join(', ')}) SELECT ${columns
      .map((column) => values[column] ?? `_t.${quoteCopyName(column)}`)
      .join(', ')} FROM ${name} AS _t FINAL WHERE ${where}`,
  );
}

async function verify(table: TableSchema, more: Partial<VerifyOptions> = {}): Promise<TableVerification> {
  return await verifyTable({
    connectionString: server.url(),
    clickhouse,
    table,
    appliedPosition: async () => 1n << 63n,
    ...more,
  });
}

const counts = (rows: number) => ({ identical: true, source_rows: rows, copy_rows: rows, keys: [], error: null });

const everyType = `
  i2 smallint, i4 int, i8 bigint, o oid, n numeric(12,2), wide numeric(76,30), negative numeric(5,-2), small numeric(3,5), free numeric,
  f4 real, f8 double precision, b boolean, u uuid, t text, v varchar(20), c char(5), ch "char", na name, e public.mood,
  d date, ts timestamp, tz timestamptz, by bytea, j json, jb jsonb, x xml, iv interval, ip inet, ci cidr, mac macaddr,
  bits bit(4), vb varbit, m money, tv tsvector, r int4range, mr int4multirange, p point, pr public.pair, tt time, ttz timetz,
  a int[], ai int[] NOT NULL, an numeric(9,3)[] NOT NULL, at text[] NOT NULL, af float8[] NOT NULL, ab bool[] NOT NULL,
  au uuid[] NOT NULL, ad date[] NOT NULL, atz timestamptz[] NOT NULL, aby bytea[] NOT NULL, ac char(3)[] NOT NULL, ae public.mood[] NOT NULL,
  af4 real[] NOT NULL, ats timestamp[] NOT NULL, aj jsonb[] NOT NULL`;

const empties = "'{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}'";

const everyRow = `
  (1, 32767, 2147483647, 9223372036854775807, 4294967295, 9999999999.99, ${'9'.repeat(46)}.${'9'.repeat(30)}, 9999900, 0.00999, 'NaN',
   3.4028235e38, 1.7976931348623157e308, true, 'ffffffff-ffff-ffff-0000-ffffffffffff', E'\\t\\n\\\\\\r\\b\\f tab | ~ é 漢字 𝄞', 'v', 'ab', 'x', 'name', 'glad',
   '2299-12-31', '9999-12-31 23:59:59.999999', '9999-12-31 23:59:59.999999+00', '\\x00ff5c0a09', '{"a" : 1}', '{"b":1.10}', '<a>é</a>', '1 year -2 days 03:04:05.6', '1.2.3.4', '10.0.0.0/8', '08:00:2b:01:02:03',
   '1010', '101', '12.34', 'a fat cat', '[1,5)', '{[1,2),[5,7)}', '(1.5,-0)', ROW(NULL,NULL), '24:00:00', '23:59:59.999999+14',
   '{1,NULL,3}', '{1,NULL,-2147483648}', '{1.500,NULL,-0.001}', ARRAY['', NULL, 'NULL', E'a"b\\\\\\t,{}é', '1:x'], '{NaN,-0,Infinity,-Infinity,1e-320,0.1}', '{t,f,NULL}',
   '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11,NULL}', '{1900-01-01,2026-11-21}', '{2026-11-21 01:02:03.4+00,NULL}', ARRAY['\\x'::bytea, '\\x00ff'], '{a,bc,NULL}', '{glad,NULL,sad}', '{0.1,NaN,-0}', '{2026-01-01 00:00:00}', ARRAY['{"a":[1,2]}'::jsonb, NULL]),
  (2, -32768, -2147483648, -9223372036854775808, 0, -9999999999.99, -${'9'.repeat(46)}.${'9'.repeat(30)}, -9999900, -0.00999, 1e-40,
   -1.1754944e-38, 5e-324, false, '00000000-0000-0000-0000-000000000000', '', '', '', '', '', 'sad',
   '1900-01-01', '0001-01-01 00:00:00', '0001-01-01 00:00:00+00', '', '[]', '[]', '', '0', '::1', '::/0', '00:00:00:00:00:00',
   '0000', '', '0', '', 'empty', '{}', '(Infinity,NaN)', ROW(1,''), '00:00', '00:00-12', '{}', ${empties}),
  (3, ${'NULL, '.repeat(40)} NULL, ${empties}),
  (4, 0, 0, 0, 1, 0, 0, 0, 0, 'Infinity', '-0', '-0', NULL, '12345678-9abc-def0-1234-56789abcdef0', E'\\\\N', 'NULL', '     ', ' ', '~', 'sad',
   '1970-01-01', '1969-12-31 23:59:59.999999', '1970-01-01 00:00:00.000001+00', '\\x5c4e', 'null', 'null', '<b/>', '-1 mon', '1.2.3.4/16', '::1/128', 'ff:ff:ff:ff:ff:ff',
   '1111', '1', '-92233720368547758.08', '''a'':1', '(,)', '{(,)}', '(0,0)', ROW(NULL,'(,)'), '12:00', '12:00+00', '[0:1]={1,2}', ${empties}),
  (5, 1, 1, 1, 1, 1.10, 1.10, 1200, 0.00001, 123.4500, 'NaN', 'NaN', NULL, NULL, '~', '-1', 'a', NULL, NULL, NULL,
   '2000-01-01', '2000-01-01 12:00', '1899-12-31 23:59:59.5+00', '\\x00', '1', '1', NULL, '178000000 years', NULL, NULL, NULL,
   NULL, NULL, NULL, NULL, NULL, NULL, NULL, ROW(2147483647,NULL), NULL, NULL, '{{1,2},{3,4}}', ${empties})`;

describe('a right copy', () => {
  it('is identical for every type and its extremes', async () => {
    const table = await make(
      'kinds',
      `id int PRIMARY KEY, ${everyType}`,
      `INSERT INTO public.kinds VALUES ${everyRow}`,
    );
    await copy(table);
    expect(await verify(table)).toMatchObject(counts(5));
  });

  it('is identical for domains, and arrays of them', async () => {
    const bases = [
      'bool',
      'uuid',
      'date',
      'timestamp',
      'timestamptz',
      'bytea',
      'int',
      'numeric(9,2)',
      'float8',
      'text',
    ];
    for (const [number, base] of bases.entries()) await client.query(`CREATE DOMAIN public.own_${number} AS ${base}`);
    const columns = bases.map(
      (_, number) => `d${number} public.own_${number}, a${number} public.own_${number}[] NOT NULL`,
    );
    const texts = [
      [
        'true',
        'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
        '2024-02-29',
        '2024-02-29 01:02:03.4',
        '2024-02-29 01:02:03.4+00',
      ],
      ['\\x00ff', '7', '1.50', 'NaN', "it''s"],
    ].flat();
    const some = texts.map((text) => `'${text}', '{"${text}",NULL}'`).join(', ');
    const none = texts.map(() => `NULL, '{}'`).join(', ');
    const rows = `INSERT INTO public.domains VALUES (1, ${some}), (2, ${none})`;
    const table = await make('domains', `id int PRIMARY KEY, ${columns.join(', ')}`, rows);
    await copy(table);
    expect(await verify(table)).toMatchObject(counts(2));
    await damage(table, 'id = 1', { d0: 'false', d2: 'NULL' });
    expect(await verify(table)).toMatchObject({ different: 1, keys: [{ columns: ['d0', 'd2'] }] });
  });

  it('is identical where a filter came later than rows, and not where it did not', async () => {
    const rows = 'INSERT INTO public.filtered SELECT g, g FROM generate_series(1, 100) g';
    const plain = await make('filtered', 'id int PRIMARY KEY, v int', rows);
    const withRules = (...rules: object[]): TableSchema => ({
      ...plain,
      rules: {
        version: 1,
        rules: rules.map((rule, i) => ({ rule_id: `r${i}`, version: 1, ...rule })),
        checks: [],
      } as never,
    });
    const small = { rule_type: 'filter', expression: '{{ v <= 90 }}' };
    const odd = { rule_type: 'filter', expression: '{{ v % 2 == 1 }}', apply_to: 'new' };
    const lately = withRules(small, odd);
    // Rows of before the second rule, and of after it.
    await copy(plain, 'v <= 60 OR (v <= 90 AND v % 2 = 1)');
    for (const partRows of [10, 1_000])
      expect(await verify(lately, { partRows })).toMatchObject({ identical: true, keys: [], different: 0, extra: 0 });
    expect(await verify(withRules(small, { ...odd, apply_to: undefined }))).toMatchObject({
      identical: false,
      extra: 30,
    });
    // What it does not excuse: another value, a row that must be there, and one that no rule ever let in.
    await damage(plain, 'id IN (2, 3)', { v: '77' });
    await damage(plain, 'id = 5', { _deleted: '1' });
    await copy(plain, 'v = 95');
    const found = await verify(lately);
    expect(found).toMatchObject({ identical: false, different: 2, missing: 1, extra: 1 });
  });

  it('is identical whatever the names are', async () => {
    const odd = ['e', 'u', 't', '_r', '_n', '_k0', "it's", 'a.b', 'back`tick', '100%', 'SELECT', 'Ünï \\ code'];
    const columns = odd.map((name) => `"${name}" int`).join(', ');
    const values = odd.map((_, index) => index + 1).join(', ');
    const rows = `INSERT INTO public.odd VALUES (1, '{a}', ${values})`;
    const table = await make('odd', `"k""e'y" int PRIMARY KEY, arr text[] NOT NULL, ${columns}`, rows);
    await copy(table);
    expect(await verify(table)).toMatchObject(counts(1));
    await damage(table, '1', { e: '77', _n: '77', 'back`tick': 'NULL' });
    const keys = [{ problem: 'different', key: { 'k"e\'y': 1 }, columns: ['e', '_n', 'back`tick'] }];
    expect(await verify(table)).toMatchObject({ identical: false, different: 1, keys });
  });

  it('is identical for partitions, and without the rows of inheriting tables', async () => {
    await client.query(`CREATE TABLE public.parts (id int PRIMARY KEY, v text) PARTITION BY RANGE (id);
      CREATE TABLE public.parts_1 PARTITION OF public.parts FOR VALUES FROM (0) TO (50);
      CREATE TABLE public.parts_2 PARTITION OF public.parts FOR VALUES FROM (50) TO (1000);
      INSERT INTO public.parts SELECT g, 'v' || g FROM generate_series(1, 100) g`);
    const parts = (await readTableByName(client, 'main', { schema: 'public', table: 'parts' }))!;
    await createCopy(clickhouse, parts);
    await copy(parts);
    expect(await verify(parts, { partRows: 30 })).toMatchObject(counts(100));
    const parent = await make('parent', 'id int PRIMARY KEY, v text', "INSERT INTO public.parent VALUES (1, 'own')");
    await copy(parent);
    await client.query('CREATE TABLE public.heir () INHERITS (public.parent)');
    await client.query("INSERT INTO public.heir VALUES (2, 'heir')");
    expect(await verify(parent)).toMatchObject(counts(1));
    await client.query('DROP TABLE public.heir');
  });

  it('is identical when the source has another encoding', async () => {
    await server.run("CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'");
    const latin = await server.session('postgres', 'latin');
    await latin.query('CREATE TABLE public.latin (id text PRIMARY KEY, v text)');
    await latin.query("INSERT INTO public.latin VALUES ('é', 'ÿ~ü'), ('e', '')");
    const table = (await readTableByName(latin, 'main', { schema: 'public', table: 'latin' }))!;
    await createCopy(clickhouse, table);
    await copy(table, 'true', latin);
    const connectionString = server.url('postgres', 'latin');
    expect(await verify(table, { connectionString })).toMatchObject(counts(2));
    await damage(table, "id = 'e'", { v: 'NULL' });
    await damage(table, "id = 'é'", { v: "'ÿ~u'" });
    expect(await verify(table, { connectionString })).toMatchObject({ different: 2 });
    await latin.end();
  });

  it('is identical when both are empty', async () => {
    expect(await verify(await make('empty_numbers', 'id int PRIMARY KEY'))).toMatchObject(counts(0));
    expect(await verify(await make('empty_texts', 'id text PRIMARY KEY'))).toMatchObject(counts(0));
  });
});

/** Kinds of keys: the key of the g-th row in the source, and one that is not there, in ClickHouse. */
const keyTypes: { type: string; key: string; foreign?: string; shown?: unknown }[] = [
  { type: 'smallint', key: 'g - 50', foreign: 'toInt16(-32768)', shown: -32768 },
  {
    type: 'bigint',
    key: '9007199254740990 + g',
    foreign: 'toInt64(-9223372036854775808)',
    shown: '-9223372036854775808',
  },
  { type: 'oid', key: '4294967295 - g', foreign: 'toUInt32(7)', shown: 7 },
  {
    type: 'uuid',
    key: 'md5(g::text)::uuid',
    foreign: "toUUID('ffffffff-0000-0000-0000-000000000001')",
    shown: 'ffffffff-0000-0000-0000-000000000001',
  },
  {
    type: 'text',
    key: "(ARRAY['a','A','é','Z','','~'])[1 + g % 6] || g || E'\\t\\'\\\\'",
    foreign: "'Ä\\\\\\'x'",
    shown: "Ä\\'x",
  },
  { type: 'text COLLATE "en-x-icu"', key: "(ARRAY['a','A','é','Z'])[1 + g % 4] || g", foreign: "'ä'", shown: 'ä' },
  { type: 'char(8)', key: "'c' || g", foreign: "'x       '", shown: 'x       ' },
  { type: 'public.mood', key: "(ARRAY['sad','glad'])[g]::public.mood", foreign: "'mad'", shown: 'mad' },
  {
    type: 'timestamptz',
    key: "timestamptz '1999-12-31 23:59:59.9+00' + g * interval '1.05 s'",
    foreign: "toDateTime64('2030-01-01 00:00:00.5', 6, 'UTC')",
    shown: '2030-01-01 00:00:00.5',
  },
  {
    type: 'timestamp',
    key: "timestamp '0001-01-01' + g * interval '1000 days'",
    foreign: "toDateTime64('2200-01-01 00:00:00', 6, 'UTC')",
    shown: '2200-01-01 00:00:00',
  },
  { type: 'date', key: "date '1900-01-01' + g", foreign: "toDate32('2299-12-31')", shown: '2299-12-31' },
  { type: 'numeric(10,2)', key: 'g * 0.25 - 10', foreign: 'toDecimal64(12345.5, 2)', shown: '12345.5' },
  { type: 'numeric', key: '(g * 0.50)', foreign: "'-1.000'", shown: '-1.000' },
  { type: 'double precision', key: 'g * 1e20 / 3', foreign: 'toFloat64(-0.1)', shown: '-0.1' },
  { type: 'real', key: 'g * 0.1', foreign: 'toFloat32(-0.1)', shown: '-0.1' },
  { type: 'boolean', key: 'g = 1' },
  { type: 'bytea', key: "decode(md5(g::text), 'hex')", foreign: "unhex('00ff')", shown: '\\x00ff' },
  { type: 'inet', key: "('10.0.0.' || g)::inet", foreign: "'1.2.3.4/31'", shown: '1.2.3.4/31' },
  { type: 'int[]', key: 'ARRAY[g, NULL]', foreign: "'{1}'", shown: '{1}' },
];

describe('a damaged copy', () => {
  it('is seen in every column, which is named', async () => {
    const rows = `INSERT INTO public.kinds VALUES ${everyRow}`;
    const table = await make('kinds', `id int PRIMARY KEY, ${everyType}`, rows);
    const columns = table.columns.filter((column) => !column.key);
    const names = columns.map((column) => `"${column.name}"`).join(', ');
    await client.query(
      `INSERT INTO public.kinds SELECT _n, ${names} FROM public.kinds, generate_series(101, 300) _n WHERE id = 1`,
    );
    await copy(table);
    const expected = new Map<number, string>();
    for (const [index, column] of columns.entries()) {
      const other = `(SELECT _o.\`${column.name}\` FROM ${clickhouse.name(table.asset_id)} AS _o FINAL WHERE _o.id = 2)`;
      const damages =
        column.clickhouse.includes('Nullable(') && column.encoding !== 'array' ? [other, 'NULL'] : [other];
      for (const [offset, value] of damages.entries()) {
        const id = 101 + index + offset * 100;
        await damage(table, `id = ${id}`, { [column.name]: value });
        expected.set(id, column.name);
      }
    }
    const { keys } = await verify(table);
    expect(new Map(keys.map(({ key, columns }) => [key.id, columns?.join()]))).toEqual(expected);
  }, 60_000);

  for (const { type, key, foreign, shown } of keyTypes) {
    it(`is seen through keys of ${type}`, async () => {
      const rows = type === 'boolean' || type === 'public.mood' ? 2 : 100;
      const fill = `INSERT INTO public.keyed SELECT g, ${key}, 'v' || g FROM generate_series(1, ${rows}) g`;
      const table = await make('keyed', `n int, id ${type} PRIMARY KEY, v text`, fill);
      await copy(table);
      expect(await verify(table, { partRows: 7 })).toMatchObject(counts(rows));
      await damage(table, 'n = 1', { v: "'x'" });
      await damage(table, 'n = 2', { _deleted: '1' });
      if (foreign) await damage(table, 'n = 1', { id: foreign, n: '0' });
      const result = await verify(table, { partRows: 7 });
      const found = { missing: 1, different: 1, extra: foreign ? 1 : 0, moving: 0, source_rows: rows };
      expect(result).toMatchObject({ identical: false, ...found });
      expect(result.keys.find(({ problem }) => problem === 'different')?.columns).toEqual(['v']);
      const named = new Map(result.keys.map((one) => [one.problem, one.key.id]));
      if (foreign) expect(named.get('extra')).toEqual(shown);
      expect(await rowNumber(named.get('different'))).toBe(1);
      expect(await rowNumber(named.get('missing'))).toBe(2);
    });
  }

  it('is seen however it is damaged', async () => {
    const seed = Number(process.env.SLUICE_TEST_SEED ?? Date.now() % 1_000_000);
    console.log(`seed ${seed}`);
    const definition = 'a int, b int, f float8, t text, n numeric(20,4), at timestamptz, tags text[] NOT NULL';
    const fill = (name: string) =>
      `INSERT INTO public.${name} SELECT g % 7, g, g / 3.0, 'text ' || g, g * 1.5, timestamptz '2026-01-01' + g * interval '1.5 s', ARRAY['x', NULL, g::text] FROM generate_series(1, 300) g`;
    const byRange = await make('ranged', `${definition}, PRIMARY KEY (a, b)`, fill('ranged'));
    const byHash = await make('hashed', `${definition}, PRIMARY KEY (a, b, t)`, fill('hashed'));
    await copy(byRange);
    await copy(byHash);
    const change: Record<string, string> = {
      f: 'reinterpretAsFloat64(bitXor(reinterpretAsUInt64(assumeNotNull(f)), 1))',
      n: "n + toDecimal64('0.0001', 4)",
      at: 'at + toIntervalMicrosecond(1)',
      tags: 'arrayPushBack(tags, NULL)',
    };
    const damages = fc.uniqueArray(
      fc.record({
        row: fc.integer({ min: 1, max: 300 }),
        how: fc.constantFrom('f', 'n', 'at', 'tags', 'null', 'drop', 'move'),
      }),
      { selector: ({ row }) => row, maxLength: 6 },
    );
    await fc.assert(
      fc.asyncProperty(
        damages,
        fc.constantFrom(byRange, byHash),
        fc.integer({ min: 20, max: 400 }),
        async (list, table, partRows) => {
          await copy(table);
          await damage(table, 'b > 1000', { _deleted: '1' });
          const expected: string[] = [];
          for (const { row, how } of list) {
            const name = (problem: string, b: number) => expected.push(`${problem} ${row % 7} ${b}`);
            if (how === 'drop') await damage(table, `b = ${row}`, { _deleted: '1' });
            else if (how === 'null') await damage(table, `b = ${row}`, { at: 'NULL' });
            else if (how === 'move') await damage(table, `b = ${row}`, { b: String(row + 1000) });
            else await damage(table, `b = ${row}`, { [how]: change[how]! });
            if (how === 'move') name('extra', row + 1000);
            else name(how === 'drop' ? 'missing' : 'different', row);
          }
          const result = await verify(table, { partRows });
          expect(result.keys.map(({ problem, key }) => `${problem} ${key.a} ${key.b}`).sort()).toEqual(expected.sort());
          expect(result.identical).toBe(list.length === 0);
        },
      ),
      { seed, numRuns: 12 },
    );
  }, 120_000);

  it('is told from a row that an older write brought back', async () => {
    const table = await make('late', 'id int PRIMARY KEY, v text', "INSERT INTO public.late VALUES (1, 'new')");
    await copy(table);
    version -= 2;
    await write(table, [
      ['1', 'old'],
      ['2', 'old'],
    ]);
    expect(await verify(table)).toMatchObject({ extra: 1, different: 0, keys: [{ problem: 'extra', key: { id: 2 } }] });
  });

  it('is compared in bounded parts, and not row by row for ever', async () => {
    const table = await make(
      'flood',
      'id int PRIMARY KEY, v text',
      "INSERT INTO public.flood VALUES (1, 'a'), (30000, 'b')",
    );
    const rows = Array.from({ length: 30_000 }, (_, index) => [String(index), 'x']);
    await write(table, rows);
    const result = await verify(table, { partRows: 2000 });
    expect(result).toMatchObject({ identical: false, at_least: true, source_rows: 2, copy_rows: 30_000 });
    expect(result.extra).toBeGreaterThanOrEqual(9999);
    expect(result.keys).toHaveLength(100);
  }, 60_000);

  it('counts rows apart whose change is held back', async () => {
    const table = await make(
      'held',
      'at timestamptz, id text, v text, PRIMARY KEY (at, id)',
      "INSERT INTO public.held SELECT '2026-01-01 10:00:00.50+00', g, 'v' FROM generate_series(1, 4) g",
    );
    await copy(table, "id IN ('1', '2', '3')");
    await damage(table, "id = '1'", { v: "'x'" });
    await damage(table, "id = '2'", { v: "'x'" });
    const reject = (id: string, at: number) => ({
      key: JSON.stringify({ at: '2026-01-01 10:00:00.5+00', id }),
      version: String(at),
      column: 'v',
      reason: 'r',
      row: '{}',
      committed_at: '2026-01-01 00:00:00',
    });
    // 1: the change after the copy's is held back · 2: one before it was · 4: the row was never written.
    await writeRejects(clickhouse, table.asset_id, 'b', [reject('1', 1e6), reject('2', 1), reject('4', 1e6)]);
    expect(await verify(table)).toMatchObject({ identical: false, rejected: 2, different: 1, missing: 0 });
    await copy(table, "id = '2'");
    expect(await verify(table)).toMatchObject({ identical: true, rejected: 2, different: 0, missing: 0 });
  });

  /** Which row of `keyed` has a key that is shown so. */
  async function rowNumber(id: unknown): Promise<number> {
    const type = (
      await client.query(
        "SELECT format_type(atttypid, atttypmod) AS type FROM pg_attribute WHERE attrelid = 'public.keyed'::regclass AND attname = 'id'",
      )
    ).rows[0].type;
    const { rows } = await client.query(`SELECT n FROM public.keyed WHERE id = ($1::text)::${type}`, [String(id)]);
    return rows[0]?.n;
  }
});

/** Writes into the source for as long as it is told, and applies the same changes to the copy some time later. */
class Mover {
  readonly table: TableSchema;
  readonly #queue: { rows: Texts[]; deleted: Texts[]; lsn: bigint; at: number }[] = [];
  #stop = false;
  changes = 0;
  applied = 0n;

  constructor(table: TableSchema) {
    this.table = table;
  }

  async write(keys: string[], pause = 3): Promise<void> {
    const session = await server.session();
    for (let step = 0; !this.#stop; step++) {
      await sleep(pause);
      const pick = () => keys[Math.floor(Math.random() * keys.length)]!;
      const name = `public.${this.table.table}`;
      const sql = [
        `UPDATE ${name} SET n = n + 1 WHERE id = $1 RETURNING *`,
        `DELETE FROM ${name} WHERE id = $1 RETURNING *`,
        `INSERT INTO ${name} VALUES ($1, 0, 'again') ON CONFLICT (id) DO UPDATE SET v = 'taken' RETURNING *`,
      ][step % 3]!;
      const { rows } = await session.query<Texts>({
        text: sql,
        values: [pick()],
        rowMode: 'array',
        types: asText,
      } as pg.QueryArrayConfig);
      const position = await session.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn');
      const deleting = step % 3 === 1;
      const lsn = parseLsn(position.rows[0]!.lsn);
      this.#queue.push({ rows: deleting ? [] : rows, deleted: deleting ? rows : [], lsn, at: performance.now() });
      this.changes += rows.length;
    }
  }

  /** Applies what is older than `delay` milliseconds: the last effect of each key. */
  async apply(delay: number): Promise<void> {
    while (!this.#stop || this.#queue.length > 0) {
      await sleep(10);
      const rows = new Map<string, Texts>();
      const deleted = new Map<string, Texts>();
      let lsn = 0n;
      for (let next = this.#queue[0]; next && performance.now() - next.at >= delay; next = this.#queue[0]) {
        for (const [from, to] of [
          [deleted, rows],
          [rows, deleted],
        ] as const) {
          for (const row of to === rows ? next.rows : next.deleted) {
            from.delete(row[0]!);
            to.set(row[0]!, row);
          }
        }
        lsn = this.#queue.shift()!.lsn;
      }
      await write(this.table, [...rows.values()]);
      await write(this.table, [...deleted.values()], 1);
      if (lsn > 0n) this.applied = lsn;
    }
  }

  stop(): void {
    this.#stop = true;
  }
}

describe('a comparison at a low rate', () => {
  it('takes its share of the time, and no more', async () => {
    const rest = new Rest(0.2);
    let worked = 0;
    const began = performance.now();
    for (let part = 0; part < 5; part += 1) {
      const start = performance.now();
      while (performance.now() - start < 20);
      worked += performance.now() - start;
      await rest.take();
    }
    expect(performance.now() - began).toBeGreaterThan(worked * 4.5);
    const ended = AbortSignal.timeout(50);
    const given = new Rest(0.000_01, ended);
    await sleep(5);
    await expect(given.take()).rejects.toThrow();
  });

  it('goes on where an earlier one ended, and finds the same', async () => {
    const table = await make(
      'resumed',
      'id int PRIMARY KEY, v int',
      'INSERT INTO public.resumed SELECT g, g FROM generate_series(1, 5000) g',
    );
    await copy(table);
    await damage(table, 'id IN (10, 4000)', { v: '0' });
    const whole = await verify(table, { partRows: 500, share: 0.9 });
    expect(whole).toMatchObject({ different: 2, source_rows: 5000, copy_rows: 5000 });
    let reached: { after: string[]; found: string } | undefined;
    const ending = new AbortController();
    const first = verify(table, {
      partRows: 500,
      share: 0.9,
      signal: ending.signal,
      onReached: async (after, found) => {
        reached = { after, found: JSON.stringify(found) };
        if (Number(after[0]) >= 2000) ending.abort();
      },
    });
    await expect(first).rejects.toThrow();
    expect(reached?.after).toEqual(['2000']);
    const { after, found } = reached!;
    const rest = await verify(table, { partRows: 500, after, found: JSON.parse(found) });
    const untimed = { duration_ms: 0, compared_at: '' };
    expect({ ...rest, ...untimed }).toEqual({ ...whole, ...untimed });
  });
});

describe('a copy that moves', () => {
  for (const type of ['bigint', 'uuid']) {
    it(`is identical, however late it is (keys of ${type})`, async () => {
      const key = type === 'bigint' ? 'g' : 'md5(g::text)::uuid';
      const fill = `INSERT INTO public.moving SELECT ${key}, g, 'v' || g FROM generate_series(1, 2000) g`;
      const table = await make('moving', `id ${type} PRIMARY KEY, n int, v text`, fill);
      await copy(table);
      const keys = (await client.query('SELECT id::text AS id FROM public.moving')).rows.map((row) => row.id as string);
      const mover = new Mover(table);
      const both = Promise.all([mover.write(keys), mover.apply(150)]);
      try {
        const options = { appliedPosition: async () => mover.applied, partRows: 300 };
        for (let round = 0; round < 3; round++) {
          expect(await verify(table, options)).toMatchObject({ identical: true, keys: [], error: null });
        }
        expect(mover.changes).toBeGreaterThan(50);
        // Damage beside the movement is still found, and nothing else.
        await client.query(`INSERT INTO public.moving SELECT $1::text::${type}, 0, 'still'`, [
          type === 'bigint' ? '5000' : 'ffffffff-ffff-ffff-ffff-ffffffffffff',
        ]);
        expect(await verify(table, options)).toMatchObject({
          identical: false,
          missing: 1,
          extra: 0,
          different: 0,
          moving: 0,
        });
      } finally {
        mover.stop();
        await both;
      }
    }, 60_000);
  }

  it('gives no alarm for a few rows that never rest', async () => {
    const fill = "INSERT INTO public.hot SELECT g, 0, 'v' FROM generate_series(1, 50) g";
    const table = await make('hot', 'id int PRIMARY KEY, n int, v text', fill);
    await copy(table);
    const mover = new Mover(table);
    const both = Promise.all([mover.write(['1', '2', '3'], 0), mover.apply(20)]);
    try {
      for (let round = 0; round < 6; round++) {
        const result = await verify(table, { appliedPosition: async () => mover.applied });
        expect(result).toMatchObject({ missing: 0, extra: 0, different: 0, error: null });
      }
    } finally {
      mover.stop();
      await both;
    }
    expect(await verify(table)).toMatchObject({ identical: true });
  }, 60_000);

  it('that does not catch up is not identical, and says why', async () => {
    const table = await make('behind', 'id int PRIMARY KEY', 'INSERT INTO public.behind VALUES (1)');
    const behind = { appliedPosition: async () => 16n, patience: 0.2 };
    const result = await verify(table, behind);
    expect(result).toMatchObject({ identical: false, error: { kind: 'conflict' }, keys: [] });
    expect(result.error?.reason).toContain('stands at 0/10');
    // What is equal is equal, whatever position is recorded.
    await copy(table);
    expect(await verify(table, behind)).toMatchObject(counts(1));
  });

  it('is waited for no longer than the caller wants', async () => {
    const table = await make('aborted', 'id int PRIMARY KEY', 'INSERT INTO public.aborted VALUES (1)');
    const signal = AbortSignal.timeout(100);
    await expect(verify(table, { appliedPosition: async () => 0n, signal })).rejects.toThrow();
  });

  it('is given up at once, even while the source reads a large table', async () => {
    const table = await make(
      'large',
      'id text PRIMARY KEY',
      'INSERT INTO public.large SELECT g FROM generate_series(1, 300000) g',
    );
    const controller = new AbortController();
    setTimeout(() => controller.abort(new Error('enough')), 150);
    await expect(verify(table, { signal: controller.signal })).rejects.toThrow('enough');
    // The statement would run for seconds: the server needs but a moment to hear that it is to end.
    const active = "SELECT state FROM pg_stat_activity WHERE application_name = 'sluice verify' AND state = 'active'";
    await expect.poll(async () => (await client.query(active)).rows, { timeout: 1000 }).toEqual([]);
  });

  it('of a table that is gone is an error with a remedy', async () => {
    const table = await make('gone', 'id int PRIMARY KEY');
    await client.query('DROP TABLE public.gone');
    await expect(verify(table)).rejects.toMatchObject({ kind: 'table_missing' });
  });
});

describe('results', () => {
  it('are kept, the newest first', async () => {
    const table = await make('kept', 'id int PRIMARY KEY', 'INSERT INTO public.kept VALUES (1)');
    const tables = [await verify(table)];
    const running = {
      id: 'v1',
      source: 'main',
      started_at: '2026-11-21T01:02:03.456789Z',
      finished_at: null,
      status: 'running',
      identical: false,
      tables: [],
      error: null,
    } as const;
    await storeVerification(clickhouse, { ...running, tables: [] });
    expect(await lastVerification(clickhouse, 'main')).toEqual(running);
    const finished = { ...running, status: 'finished' as const, finished_at: '2026-11-21T01:02:04.000000Z', tables };
    await storeVerification(clickhouse, finished);
    expect(await lastVerification(clickhouse, 'main')).toEqual(finished);
    expect(await readVerification(clickhouse, 'v1')).toEqual(finished);
    expect(await lastVerification(clickhouse, 'other')).toBeUndefined();
    expect(tables[0]).toMatchObject({ missing: 1, keys: [{ problem: 'missing', key: { id: 1 } }] });
  });
});
