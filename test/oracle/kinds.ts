/** Tables of every type, and of a key that is only looked at when a transaction ends. */
import type { Random } from '../../workers/demo/random.ts';
import type { OracleTable } from './oracle_table.ts';
import { literal, maybeNull, nastyText, range } from './random_values.ts';

/** By column: its type, and values as literals. Arrays may be NULL, so that copies hold their text. */
const columns: Record<string, { type: string; values: string[] }> = {
  small: { type: 'smallint', values: ['-32768', '32767', '0'] },
  large: { type: 'bigint', values: ['-9223372036854775808', '9223372036854775807', '7'] },
  number: { type: 'oid', values: ['0', '4294967295'] },
  amount: { type: 'numeric(30,10)', values: ['12345678901234567890.0123456789', '-0.0000000001', '100'] },
  free: {
    type: 'numeric',
    values: ["'NaN'", "'Infinity'", '1e-40', '1.10', '-12345678901234567890123456789012345678901234567890'],
  },
  coarse: { type: 'numeric(5,-2)', values: ['1200', '-9999900', '0'] },
  single: { type: 'real', values: ['0.1', "'NaN'", "'-Infinity'", '3.4028235e38', '-0'] },
  double: { type: 'float8', values: ['0.1', "'NaN'", "'Infinity'", '5e-324', '-1.7976931348623157e308'] },
  yes: { type: 'bool', values: ['true', 'false'] },
  day: { type: 'date', values: ["'1900-01-01'", "'2299-12-31'", "'2024-02-29'", "'1969-12-31'"] },
  moment: {
    type: 'timestamp',
    values: ["'0001-01-01 00:00:00.000001'", "'9999-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.5'"],
  },
  instant: {
    type: 'timestamptz',
    values: ["'2024-03-31 02:30:00+02'", "'0001-01-01 00:00:00+00'", "'1999-12-31 23:59:59.999999+14'"],
  },
  clock: { type: 'time', values: ["'00:00'", "'24:00:00'", "'12:34:56.789012'"] },
  zoned: { type: 'timetz', values: ["'00:00-12'", "'23:59:59.999999+14'"] },
  lasting: { type: 'interval', values: ["'1 year -2 days 03:04:05.6'", "'-1 mon'", "'178000000 years'"] },
  id2: { type: 'uuid', values: ["'ffffffff-ffff-ffff-0000-ffffffffffff'", "'00000000-0000-0000-0000-000000000000'"] },
  bytes: { type: 'bytea', values: ["'\\x'", "'\\x00ff5c0a0927'"] },
  padded: { type: 'char(5)', values: ["'a'", "'abcde'", "''"] },
  one: { type: '"char"', values: ["'a'", "''", "'\\'"] },
  named: { type: 'name', values: ["'name'", "''"] },
  loose: { type: 'json', values: [`'{"a" : 1,"a":2}'`, "'null'"] },
  tight: { type: 'jsonb', values: [`'{"b":1.10, "a":[null]}'`, "'[]'", "'1'"] },
  tagged: { type: 'xml', values: ["'<a>&lt;é</a>'", "''"] },
  network: { type: 'inet', values: ["'10.0.0.1'", "'10.0.0.0/8'", "'::1/64'"] },
  block: { type: 'cidr', values: ["'10.0.0.0/8'", "'::/0'"] },
  card: { type: 'macaddr', values: ["'08:00:2b:01:02:03'"] },
  bits: { type: 'varbit', values: ["B''", "B'101'"] },
  price: { type: 'money', values: ["'12.34'", "'-92233720368547758.08'"] },
  words: { type: 'tsvector', values: ["'a fat cat'", "''"] },
  span: { type: 'int4range', values: ["'[1,5)'", "'empty'", "'(,)'"] },
  spot: { type: 'point', values: ["'(1.5,-0)'", "'(Infinity,NaN)'"] },
  mood: { type: 'oracle_mood', values: ["'sad'", "'glad'", "'it''s'"] },
  pair: { type: 'oracle_pair', values: ["ROW(1, 'a,\"b')", 'ROW(NULL, NULL)', "ROW(2, '')"] },
  even: { type: 'oracle_even', values: ['2', '-4'] },
  list: { type: 'int[]', values: ["'{1,NULL,3}'", "'{}'", "'[0:1]={1,2}'", "'{{1,2},{3,4}}'"] },
  texts: { type: 'text[]', values: ["ARRAY['', NULL, 'NULL', E'a\"b\\\\\\t,{}é']", "'{}'"] },
  ids: { type: 'uuid[]', values: ["'{ffffffff-ffff-ffff-0000-ffffffffffff,NULL}'"] },
};

const names = Object.keys(columns);
const someValue = (random: Random, name: string) => maybeNull(random, random.pick(columns[name]!.values));

/** What exists already stays: the table is made more than once. */
const once = (statement: string) =>
  `DO $$ BEGIN ${statement}; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$`;

export const kinds: OracleTable = {
  name: 'kinds',
  create: [
    once("CREATE TYPE oracle_mood AS ENUM ('sad', 'glad', 'it''s')"),
    once('CREATE TYPE oracle_pair AS (n int, t text)'),
    once('CREATE DOMAIN oracle_even AS int CHECK (VALUE % 2 = 0)'),
    `CREATE TABLE kinds (id int PRIMARY KEY, ${names.map((name) => `${name} ${columns[name]!.type}`).join(', ')}, note text)`,
    'ALTER TABLE kinds ALTER COLUMN texts SET STORAGE EXTERNAL, ALTER COLUMN note SET STORAGE EXTERNAL',
  ],
  key: ['id'],
  change(random) {
    const some = names.filter(() => random.chance(0.2));
    const set = some.length > 0 ? some : [random.pick(names)];
    const large = () =>
      random.chance(0.3) ? `repeat(${literal(nastyText(random, 3))}, 2000)` : literal(nastyText(random));
    const row = () => `${random.between(1, 30)}, ${set.map((name) => someValue(random, name)).join(', ')}, ${large()}`;
    return random.pick([
      () =>
        `INSERT INTO kinds (id, ${set.join(', ')}, note) VALUES (${row()}) ON CONFLICT (id) DO UPDATE SET note = excluded.note`,
      () => `INSERT INTO kinds (id, ${set.join(', ')}, note) VALUES (${row()}) ON CONFLICT DO NOTHING`,
      () =>
        `UPDATE kinds SET ${set.map((name) => `${name} = ${someValue(random, name)}`).join(', ')} WHERE ${range(random, 'id', 30)}`,
      () => `UPDATE kinds SET id = ${random.between(1, 30)} WHERE id = ${random.between(1, 30)}`,
      () => `DELETE FROM kinds WHERE ${range(random, 'id', 30)}`,
    ])();
  },
};

/** Keys that trade places within a statement: the log knows the rows by their whole old values only. */
export const swapped: OracleTable = {
  name: 'swapped',
  create: [
    'CREATE TABLE swapped (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)',
    'ALTER TABLE swapped REPLICA IDENTITY FULL',
  ],
  key: [],
  change(random) {
    const [a, b, c] = [random.between(1, 12), random.between(1, 12), random.between(1, 12)];
    const text = () => literal(random.pick(['x', 'y', '']));
    return random.pick([
      () => `INSERT INTO swapped SELECT ${a}, ${text()} WHERE NOT EXISTS (SELECT FROM swapped WHERE id = ${a})`,
      () => `UPDATE swapped SET id = CASE id WHEN ${a} THEN ${b} ELSE ${a} END WHERE id IN (${a}, ${b})`,
      () =>
        `UPDATE swapped SET id = CASE id WHEN ${a} THEN ${b} WHEN ${b} THEN ${c} ELSE ${a} END WHERE id IN (${a}, ${b}, ${c})`,
      () => `UPDATE swapped SET id = 13 - id`,
      () => `UPDATE swapped SET v = ${text()} WHERE id = ${a}`,
      () => `DELETE FROM swapped WHERE id = ${a}`,
    ])();
  },
};
