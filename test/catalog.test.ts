/** The catalog as a real PostgreSQL shows it: keys, types, left out columns, patterns, many tables. */
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import {
  expandPatterns,
  readTableByName,
  readTableByOid,
  readTables,
} from '../activities/capture/postgresql/catalog.ts';
import { quickest } from '../bench/measure/quickest.ts';
import { keyColumns, type TableSchema } from '../model/table.ts';
import { type SourceServer, startSource } from './source_server.ts';

let server: SourceServer;
let client: pg.Client;

beforeAll(async () => {
  server = await startSource();
  client = await server.session();
  await client.query(schema);
}, 60_000);
afterAll(() => server?.stop());

const schema = `
CREATE SCHEMA sales;
CREATE TYPE public.mood AS ENUM ('sad', 'glad');
CREATE TYPE public.pair AS (a int, b text);
CREATE DOMAIN public.price AS numeric(12,2);
CREATE DOMAIN public.net_price AS public.price CHECK (VALUE > 0);
CREATE DOMAIN public.ints AS int[];
CREATE DOMAIN public.feeling AS public.mood;
CREATE TABLE public.kinds (
  id bigint PRIMARY KEY, price public.net_price, numbers public.ints NOT NULL, feeling public.feeling,
  prices public.price[] NOT NULL, nested public.ints[] NOT NULL, moods public.mood[] NOT NULL, maybe text[],
  grid int[][] NOT NULL, boxes box[] NOT NULL, vector int2vector NOT NULL, pair public.pair, span int4range,
  letter "char", at timestamptz(3), gone int, "we""ird" text, "a.b" int[] NOT NULL,
  computed int GENERATED ALWAYS AS (1) VIRTUAL, stored int GENERATED ALWAYS AS (id * 2) STORED, last uuid
);
ALTER TABLE public.kinds DROP COLUMN gone;
CREATE TABLE public.keyless (a int);
CREATE TABLE public.deferred (a int PRIMARY KEY DEFERRABLE);
CREATE TABLE public.nothing (a int PRIMARY KEY);
ALTER TABLE public.nothing REPLICA IDENTITY NOTHING;
CREATE TABLE public.by_index (a int NOT NULL UNIQUE, b int PRIMARY KEY);
ALTER TABLE public.by_index REPLICA IDENTITY USING INDEX by_index_a_key;
CREATE TABLE public.index_gone (a int PRIMARY KEY, b int NOT NULL UNIQUE);
ALTER TABLE public.index_gone REPLICA IDENTITY USING INDEX index_gone_b_key;
ALTER TABLE public.index_gone DROP CONSTRAINT index_gone_b_key;
CREATE TABLE public.whole (a int PRIMARY KEY, b text);
ALTER TABLE public.whole REPLICA IDENTITY FULL;
CREATE TABLE public."Mixed.Case" (id int PRIMARY KEY);
CREATE TABLE public.unproven (a int PRIMARY KEY, b int[]);
INSERT INTO public.unproven VALUES (1, NULL);
ALTER TABLE public.unproven ADD CONSTRAINT b_there NOT NULL b NOT VALID;
CREATE TABLE public.periods (r int4range, valid tstzrange, x text, PRIMARY KEY (r, valid WITHOUT OVERLAPS));
CREATE TABLE sales.orders (a int, b int, c int, PRIMARY KEY (b, a) INCLUDE (c));
CREATE VIEW public.looks AS SELECT 1 AS a;
CREATE UNLOGGED TABLE public.fleeting (a int PRIMARY KEY);
CREATE TABLE public.split (a int PRIMARY KEY) PARTITION BY LIST (a);
CREATE TABLE public.split_1 PARTITION OF public.split FOR VALUES IN (1);
CREATE TEMPORARY TABLE passing (a int PRIMARY KEY);
`;

async function table(name: string, schema = 'public'): Promise<TableSchema> {
  const found = await readTableByName(client, 'main', { schema, table: name });
  return found!;
}
const keyOf = async (name: string, schema?: string) => keyColumns(await table(name, schema)).map(({ name }) => name);
const names = (list: { schema: string; table: string }[]) => list.map(({ schema, table }) => `${schema}.${table}`);

describe('readTables', () => {
  it('takes every ordinary table of public with a usable key', async () => {
    expect(names(await readTables(client, 'main'))).toEqual([
      'public.Mixed.Case',
      'public.by_index',
      'public.kinds',
      'public.periods',
      'public.split',
      'public.unproven',
      'public.whole',
    ]);
  });

  it('leaves out what cannot be copied, even when named', async () => {
    const tables = ['keyless', 'deferred', 'nothing', 'index_gone', 'looks', 'fleeting', 'none', 'sales.orders'];
    expect(names(await readTables(client, 'main', { tables }))).toEqual(['sales.orders']);
  });

  it('maps each column', async () => {
    const { columns } = await table('kinds');
    expect(
      columns.map(({ name, type, encoding, element, clickhouse }) => [name, type, encoding, element, clickhouse]),
    ).toEqual([
      ['id', 'bigint', 'plain', undefined, 'Int64'],
      ['price', 'numeric(12,2)', 'numeric', undefined, 'Nullable(Decimal(12, 2))'],
      ['numbers', 'integer[]', 'array', 'plain', 'Array(Nullable(Int32))'],
      ['feeling', 'public.mood', 'text', undefined, 'LowCardinality(Nullable(String))'],
      ['prices', 'public.price[]', 'array', 'numeric', 'Array(Nullable(Decimal(12, 2)))'],
      ['nested', 'public.ints[]', 'text', undefined, 'Nullable(String)'],
      ['moods', 'public.mood[]', 'array', 'text', 'Array(LowCardinality(Nullable(String)))'],
      ['maybe', 'text[]', 'text', undefined, 'Nullable(String)'],
      ['grid', 'integer[]', 'text', undefined, 'Nullable(String)'],
      ['boxes', 'box[]', 'text', undefined, 'Nullable(String)'],
      ['vector', 'int2vector', 'text', undefined, 'Nullable(String)'],
      ['pair', 'public.pair', 'text', undefined, 'Nullable(String)'],
      ['span', 'int4range', 'text', undefined, 'Nullable(String)'],
      ['letter', '"char"', 'text', undefined, 'Nullable(String)'],
      ['at', 'timestamp(3) with time zone', 'timestamptz', undefined, "Nullable(DateTime64(6, 'UTC'))"],
      ['we"ird', 'text', 'text', undefined, 'Nullable(String)'],
      ['a.b', 'integer[]', 'text', undefined, 'Nullable(String)'],
      ['last', 'uuid', 'plain', undefined, 'Nullable(UUID)'],
    ]);
  });

  it('keeps attribute numbers, and the oid of a domain as the stream shows it', async () => {
    const { columns } = await table('kinds');
    const { rows } = await client.query<{ oid: number }>("SELECT 'public.net_price'::regtype::oid AS oid");
    expect(columns[1]).toMatchObject({ attnum: 2, typeOid: rows[0]!.oid, typmod: -1 });
    expect(columns.find(({ name }) => name === 'we"ird')!.attnum).toBe(17);
    expect(columns.find(({ name }) => name === 'at')).toMatchObject({ typeOid: 1184, typmod: 3 });
  });

  it('reads six hundred tables in a second', async () => {
    await client.query(`DO $$ BEGIN FOR i IN 1..600 LOOP
      EXECUTE format('CREATE TABLE sales.many_%s (id bigint PRIMARY KEY, a text, b numeric(10,2), c jsonb)', i);
    END LOOP; END $$`);
    const read = () => readTables(client, 'main', { tables: ['sales.many_*'] });
    expect(await read()).toHaveLength(600);
    expect(await quickest(3, 1_000, read)).toBeLessThan(1_000);
  });
});

describe('keys', () => {
  it('are those of the replica identity', async () => {
    expect(await keyOf('by_index')).toEqual(['a']);
    expect(await table('by_index')).toMatchObject({ identity: 'index' });
    expect(await keyOf('whole')).toEqual(['a']);
    expect(await table('whole')).toMatchObject({ identity: 'full' });
    expect(await keyOf('index_gone')).toEqual([]);
    expect(await keyOf('nothing')).toEqual([]);
  });

  it('are in the order of the index, and without included columns', async () => {
    expect(await keyOf('orders', 'sales')).toEqual(['b', 'a']);
  });

  it('may be periods', async () => {
    expect(await keyOf('periods')).toEqual(['r', 'valid']);
  });
});

describe('readTableByOid', () => {
  it('finds the table after a rename, and tells a rewrite', async () => {
    await client.query('CREATE TABLE public.before (id int PRIMARY KEY)');
    const before = await table('before');
    expect(before.asset_id).toBe('main_before');
    await client.query('ALTER TABLE public.before RENAME TO after');
    await client.query('VACUUM FULL public.after');
    const after = await readTableByOid(client, 'main', before.oid);
    expect(after).toMatchObject({ oid: before.oid, table: 'after', asset_id: 'main_after' });
    expect(after!.relfilenode).not.toBe(before.relfilenode);
    await client.query('DROP TABLE public.after');
    expect(await readTableByOid(client, 'main', before.oid)).toBeUndefined();
  });
});

describe('options', () => {
  it('leave out columns, but never those of the key', async () => {
    const options = {
      tables: ['whole', 'sales.orders'],
      excludeColumns: { 'public.whole': ['b', 'a'], orders: ['c'] },
    };
    const [whole, orders] = await readTables(client, 'main', options);
    expect(whole!.columns.map(({ name }) => name)).toEqual(['a']);
    expect(orders!.columns.map(({ name }) => name)).toEqual(['a', 'b', 'c']);
  });

  it('give other asset ids', async () => {
    const options = { tables: ['whole', 'sales.orders'], assetIds: { 'sales.orders': 'shop' } };
    const tables = await readTables(client, 'main', options);
    expect(tables.map(({ asset_id }) => asset_id)).toEqual(['main_whole', 'shop']);
  });

  it('do not mistake an old NOT NULL promise for a kept one', async () => {
    expect((await table('unproven')).columns[1]).toMatchObject({ notNull: false, clickhouse: 'Nullable(String)' });
  });
});

describe('expandPatterns', () => {
  it.each([
    [['kinds'], ['public.kinds']],
    [['public.kinds', 'kinds'], ['public.kinds']],
    [['Mixed.Case'], ['public.Mixed.Case']],
    [['mixed.case'], []],
    [
      ['by_*', 'w?ole'],
      ['public.by_index', 'public.whole'],
    ],
    [['*.orders'], ['sales.orders']],
    [['s*s.o*r*s'], ['sales.orders']],
    [
      ['looks', 'split*'],
      ['public.looks', 'public.split'],
    ],
    [['pg_class', 'pg_catalog.pg_class', 'pg_*.*', 'passing', 'information_schema.*'], []],
    [['public.*x'], ['public.by_index']],
    [[`${'*a'.repeat(50)}`], []],
  ])('%j means %j', async (patterns, expected) => {
    const { found, unmatched } = await expandPatterns(client, patterns);
    expect(names(found)).toEqual(expected);
    if (expected.length === 0) expect(unmatched).toEqual(patterns);
  });
});
