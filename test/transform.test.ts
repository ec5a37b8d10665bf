/**
 * Values on their way through rules: PostgreSQL's own text decoded, through an expression, encoded, inserted into
 * ClickHouse and read back. What cannot be kept exactly must be refused, never altered.
 */
import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { connect } from '../activities/capture/postgresql/connection.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { decoderFor } from '../activities/transform/decode.ts';
import { encoderFor } from '../activities/transform/encode.ts';
import { compileExpression } from '../activities/transform/expression.ts';
import { beginEvaluation } from '../activities/transform/jinja/limits.ts';
import { toRepr } from '../activities/transform/jinja/text.ts';
import type { Value } from '../activities/transform/jinja/values.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';

let parts: StartedParts<'postgres' | 'clickhouse'>;
let source: pg.Client;
let clickhouse: ClickHouse;

beforeAll(async () => {
  parts = await startParts(['postgres', 'clickhouse']);
  source = await connect({ connectionString: parts.postgres.url, applicationName: 'test' });
  clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'transform', role: 'write' });
  await clickhouse.command('CREATE DATABASE IF NOT EXISTS transform');
}, 180_000);

afterAll(async () => {
  await source?.end();
  await clickhouse?.close();
  await parts?.[Symbol.asyncDispose]();
});

/** PostgreSQL's text of a value, and its type as PostgreSQL prints it. */
async function fromSource(literal: string): Promise<{ text: string | null; type: string }> {
  const { rows } = await source.query({
    text: `SELECT v::text, pg_catalog.format_type(pg_catalog.pg_typeof(v), null) AS bare FROM (SELECT ${literal} AS v) x`,
  });
  return { text: rows[0].v, type: rows[0].bare };
}

function decode(text: string, type: string): Value {
  const bytes = Buffer.from(`<${text}>`);
  return decoderFor(type)(bytes, 1, bytes.length - 1);
}

describe('values of PostgreSQL', () => {
  it.each([
    ['1::smallint', '1'],
    ["'-9223372036854775808'::bigint", '-9223372036854775808'],
    ['9007199254740993::bigint', '9007199254740993'],
    ['4294967295::oid', '4294967295'],
    ['0.1::real', '0.1'],
    ["'1e-310'::double precision", '1e-310'],
    ["'Infinity'::double precision", 'inf'],
    ["'NaN'::double precision", 'nan'],
    ["'-0'::double precision", '-0.0'],
    ['1.50::numeric(12,2)', "Decimal('1.50')"],
    ['-0.05::numeric(12,2)', "Decimal('-0.05')"],
    ['123456789012345678901234567890.123456789::numeric', "Decimal('123456789012345678901234567890.123456789')"],
    ['0.00000000000000000001::numeric', "Decimal('0.00000000000000000001')"],
    ['1234567890123456::numeric', "Decimal('1234567890123456')"],
    ["'NaN'::numeric", 'nan'],
    ["'-Infinity'::numeric", '-inf'],
    ['true', 'True'],
    ['false', 'False'],
    ["'it''s é 😀'::text", '"it\'s é 😀"'],
    ["E'a\\tb\\nc\\\\d'::varchar(20)", "'a\\tb\\nc\\\\d'"],
    ["'2024-02-29'::date", 'datetime.date(2024, 2, 29)'],
    ["'0001-01-01'::date", 'datetime.date(1, 1, 1)'],
    ["'2024-02-29 23:59:59.123456'::timestamp", 'datetime.datetime(2024, 2, 29, 23, 59, 59, 123456)'],
    [
      "'2024-02-29 23:59:59.5+02'::timestamptz",
      'datetime.datetime(2024, 2, 29, 21, 59, 59, 500000, tzinfo=datetime.timezone.utc)',
    ],
    ["'2024-02-29 00:00'::timestamp(0)", 'datetime.datetime(2024, 2, 29, 0, 0)'],
    [
      '\'{"b": 1.50, "a": [12345678901234567890, null, true, "x"]}\'::jsonb',
      "{'a': [12345678901234567890, None, True, 'x'], 'b': 1.5}",
    ],
    ['\'{"b" :1, "b": 2}\'::json', "{'b': 2}"],
    [
      "ARRAY['a', NULL, 'b\"c', '', 'NULL', 'x,y', E'\\\\\\\\']::text[]",
      "['a', None, 'b\"c', '', 'NULL', 'x,y', '\\\\\\\\']",
    ],
    ["'{{1,2},{3,NULL}}'::integer[]", '[[1, 2], [3, None]]'],
    ["'[2:3]={1,2}'::integer[]", '[1, 2]'],
    ["'{}'::text[]", '[]'],
    ['ARRAY[1.50, 2]::numeric(5,2)[]', "[Decimal('1.50'), Decimal('2.00')]"],
    ["ARRAY['2024-01-01'::date]", '[datetime.date(2024, 1, 1)]'],
    ["'6ba7b810-9dad-11d1-80b4-00c04fd430c8'::uuid", "'6ba7b810-9dad-11d1-80b4-00c04fd430c8'"],
    ["'12:30:00'::time", "'12:30:00'"],
    ["'1 day 02:00'::interval", "'1 day 02:00:00'"],
    ["'\\xdead'::bytea", "'\\\\xdead'"],
    ["'10.0.0.0/8'::inet", "'10.0.0.0/8'"],
  ])('%s', async (literal, repr) => {
    const { text, type } = await fromSource(literal);
    beginEvaluation();
    expect(toRepr(decode(text!, type))).toBe(repr);
  });

  it.each([
    "'infinity'::date",
    "'12024-01-01'::date",
    "'2024-01-01 BC'::date",
    "'infinity'::timestamp",
    "'12024-01-01'::timestamptz",
    "'0044-03-15 BC'::timestamp",
  ])('%s is outside of what expressions can hold', async (literal) => {
    const { text, type } = await fromSource(literal);
    expect(() => decode(text!, type)).toThrow('outside of the years 1 … 9999');
  });

  it('say what they are when a type is declared with its limits', () => {
    const of = (type: string) => compileExpression('{{ v }}', [{ name: 'v', type }]).inferType();
    expect(of('numeric(5,-2)')).toBe('Decimal(7, 0)');
    expect(of('numeric(3,5)')).toBe('Decimal(5, 5)');
    expect(of('timestamp(3) with time zone')).toBe("DateTime64(6, 'UTC')");
    expect(of('character varying(10)')).toBe('String');
    expect(of('some_extension_type')).toBe('String');
  });
});

/** Evaluates, encodes, inserts into a column of the type, and reads back as ClickHouse prints it. */
async function through(expression: string, type: string): Promise<string> {
  const value = compileExpression(`{{ ${expression} }}`, []).evaluate([]);
  const field = encoderFor(type)(value);
  await clickhouse.command('DROP TABLE IF EXISTS transform.v');
  await clickhouse.command(`CREATE TABLE transform.v (v ${type}) ENGINE = MergeTree ORDER BY tuple()`);
  await clickhouse.insertTsv('v', ['v'], [Buffer.from(`${field}\n`)], randomUUID());
  const { rows } = await clickhouse.table('SELECT toString(v) FROM transform.v');
  return (rows as string[][])[0]![0]!;
}

describe('results in columns of ClickHouse', () => {
  it.each([
    ["'a\\tb\\nc\\\\d\\0é😀'", 'String', 'a\tb\nc\\d\0é😀'],
    ["'abc'", 'FixedString(3)', 'abc'],
    ['42', 'String', '42'],
    ['1.50 | decimal', 'String', '1.5'],
    ['true', 'String', 'True'],
    ["{'b': [1, 2.50, none, 'x'], 'a': '\"'}", 'String', '{"b":[1,2.5,null,"x"],"a":"\\""}'],
    ['127', 'Int8', '127'],
    ['-(2 ** 63)', 'Int64', '-9223372036854775808'],
    ['2 ** 64 - 1', 'UInt64', '18446744073709551615'],
    ['2 ** 255 - 1', 'Int256', String(2n ** 255n - 1n)],
    ["'17'", 'Int32', '17'],
    ["'17.00' | decimal", 'Int32', '17'],
    ['0.1', 'Float64', '0.1'],
    ['1e300', 'Float64', '1e300'],
    ["'nan' | float", 'Float64', 'nan'],
    ["'inf' | float", 'Float64', 'inf'],
    ["'-inf' | float", 'Float32', '-inf'],
    ['3.4e38', 'Float32', '3.4e38'],
    ['1e-300', 'Float32', '0'],
    ['1 / 3', 'Float64', '0.3333333333333333'],
    ["'1.25' | decimal", 'Decimal(12, 2)', '1.25'],
    ["'1.2500' | decimal", 'Decimal(12, 2)', '1.25'],
    ['7', 'Decimal(76, 38)', '7'],
    [`'${'9'.repeat(38)}.${'9'.repeat(38)}' | decimal`, 'Decimal(76, 38)', `${'9'.repeat(38)}.${'9'.repeat(38)}`],
    ["('10' | decimal) / 3", 'Decimal(76, 38)', '3.333333333333333333333333333'],
    ['0.1', 'Decimal(5, 1)', '0.1'],
    ['true', 'Bool', 'true'],
    ['0', 'Bool', 'false'],
    ["'6BA7B810-9dad-11d1-80b4-00c04fd430c8'", 'UUID', '6ba7b810-9dad-11d1-80b4-00c04fd430c8'],
    ["'1900-01-01' | to_date", 'Date32', '1900-01-01'],
    ["'2299-12-31'", 'Date32', '2299-12-31'],
    ["'2149-06-06'", 'Date', '2149-06-06'],
    ["'2024-02-29T12:30:45.123456+02:00' | to_datetime", "DateTime64(6, 'UTC')", '2024-02-29 10:30:45.123456'],
    ["'0001-01-01' | to_datetime", "DateTime64(6, 'UTC')", '0001-01-01 00:00:00.000000'],
    ["'9999-12-31 23:59:59.999999'", "DateTime64(6, 'UTC')", '9999-12-31 23:59:59.999999'],
    ["'2024-02-29' | to_date", "DateTime64(3, 'UTC')", '2024-02-29 00:00:00.000'],
    ["'2106-02-06 00:00:00'", "DateTime('UTC')", '2106-02-06 00:00:00'],
    ['[1, none, 3]', 'Array(Nullable(Int64))', '[1,NULL,3]'],
    ["['a', \"it's\", 'b\\\\c', 'd\\te\\nf', 'é😀']", 'Array(String)', "['a','it\\'s','b\\\\c','d\\te\\nf','é😀']"],
    ["[['1.50' | decimal], []]", 'Array(Array(Decimal(5, 2)))', '[[1.5],[]]'],
    ["['2024-02-29' | to_date]", 'Array(Date32)', "['2024-02-29']"],
    ['[true, false]', 'Array(Bool)', '[true,false]'],
    ["'x'", 'LowCardinality(Nullable(String))', 'x'],
  ])('%s in %s', async (expression, type, shown) => {
    expect(await through(expression, type)).toBe(shown);
  });

  it('NULL', async () => {
    expect(await through('none', 'Nullable(String)')).toBeNull();
    expect(await through('none', 'Nullable(Int64)')).toBeNull();
    expect(() => encoderFor('Int64')(null)).toThrow('NULL does not fit');
    expect(() => encoderFor('Array(String)')([null])).toThrow('NULL does not fit');
  });

  it.each([
    ['128', 'Int8', 'does not fit into Int8'],
    ['-1', 'UInt64', 'does not fit into UInt64'],
    ['2 ** 63', 'Int64', 'does not fit into Int64'],
    ['1.5', 'Int64', 'use the filter round or int'],
    ["'x'", 'Int64', 'is no number for Int64'],
    ["'1.255' | decimal", 'Decimal(12, 2)', 'more than 2 places'],
    ["'12345678901.00' | decimal", 'Decimal(12, 2)', 'does not fit into Decimal(12, 2)'],
    ['10 ** 80', 'Decimal(76, 38)', 'does not fit'],
    ["'nan' | float", 'Decimal(5, 2)', 'has no decimal'],
    ['1e300', 'Float32', 'does not fit into Float32'],
    ['10 ** 40', 'Float32', 'does not fit into Float32'],
    ['10 ** 400', 'Float64', 'does not fit into Float64'],
    ["'-1e400'", 'Float64', 'does not fit into Float64'],
    ["'1e400' | decimal", 'Float64', 'does not fit into Float64'],
    ['[10 ** 400]', 'Array(Float64)', 'does not fit into Float64'],
    ["'abcd'", 'FixedString(3)', 'does not fit into FixedString(3)'],
    ["'yes'", 'Bool', 'does not fit into Bool'],
    ['2', 'Bool', 'does not fit into Bool'],
    ["'x'", 'UUID', 'does not fit into UUID'],
    ["'1899-12-31'", 'Date32', 'outside of 1900-01-01'],
    ["'2300-01-01'", 'Date32', 'outside of 1900-01-01'],
    ["'1969-12-31'", 'Date', 'outside of 1970-01-01'],
    ["'2024-01-01 10:00'", 'Date32', 'use the filter to_date'],
    ["'2024-01-01 10:00:00.5'", 'DateTime', 'smaller parts of a second'],
    ["'1969-01-01 10:00:00'", 'DateTime', 'outside of 1970-01-01'],
    ["'2024-01-01 10:00:00.000001'", 'DateTime64(3)', 'smaller parts of a second'],
    ['5', 'DateTime64(6)', 'does not fit into DateTime64(6)'],
    ["'x'", 'Array(String)', 'does not fit into Array'],
    ['[300]', 'Array(UInt8)', 'does not fit into UInt8'],
  ])('%s is refused in %s', (expression, type, reason) => {
    const value = compileExpression(`{{ ${expression} }}`, []).evaluate([]);
    expect(() => encoderFor(type)(value)).toThrow(reason);
  });

  it.each([
    'Strin',
    'Map(String, String)',
    'Decimal(77, 2)',
    'DateTime64(10)',
    'Nested(a String)',
    'Int7',
    'Array(Foo)',
    "DateTime64(10, 'UTC')",
    'DateTime64()',
    '',
  ])('the type %j is none that rules can fill', (type) => {
    expect(() => encoderFor(type)).toThrow(/cannot fill a column of type/);
  });

  it.each(["DateTime('Europe/Berlin')", "Nullable(DateTime64(3, 'America/New_York'))", "Array(DateTime64(6,'utc'))"])(
    'the type %s would show moments in another time zone',
    (type) => {
      expect(() => encoderFor(type)).toThrow(/cannot fill a column of type .*: moments are in UTC/);
    },
  );
});
