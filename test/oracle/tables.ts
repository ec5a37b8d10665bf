/** The tables of the oracle: shapes that have broken systems of this kind, and random statements that change them. */
import type { Random } from '../../workers/demo/random.ts';
import { kinds, swapped } from './kinds.ts';
import type { OracleTable } from './oracle_table.ts';
import { largeText, literal, maybeNull, nastyText, range } from './random_values.ts';

const external = (table: string, ...columns: string[]) =>
  columns.map((column) => `ALTER TABLE ${table} ALTER COLUMN ${column} SET STORAGE EXTERNAL`);

const plain: OracleTable = {
  name: 'plain',
  create: [
    `CREATE TABLE plain (gone int, id bigint PRIMARY KEY, n int, t text, at timestamptz, amount numeric(12,2), f float8, yes bool,
       stored int GENERATED ALWAYS AS (n + 1) STORED, virtual int GENERATED ALWAYS AS (n + 2) VIRTUAL)`,
    'ALTER TABLE plain DROP COLUMN gone',
  ],
  key: ['id'],
  change(random) {
    const id = random.between(1, 80);
    const row = () =>
      `(${random.between(1, 80)}, ${maybeNull(random, String(random.between(-9, 9)))}, ${literal(nastyText(random))}, ` +
      `${maybeNull(random, `timestamptz '2000-01-01 UTC' + ${random.between(-1e9, 1e9)} * interval '1.234567 s'`)}, ` +
      `${maybeNull(random, (random.between(-1e9, 1e9) / 100).toFixed(2))}, ${random.next() * 10 ** random.between(-20, 20)}, ${random.pick(['true', 'false', 'NULL'])})`;
    const bulk = random.between(1000, 1400);
    return random.pick([
      () => `INSERT INTO plain VALUES ${row()} ON CONFLICT (id) DO UPDATE SET n = excluded.n, t = excluded.t`,
      () => `INSERT INTO plain VALUES ${row()} ON CONFLICT DO NOTHING`,
      () =>
        `UPDATE plain SET n = n + 1, t = ${maybeNull(random, literal(nastyText(random)))} WHERE ${range(random, 'id', 80)}`,
      () => `DELETE FROM plain WHERE ${range(random, 'id', 80)}`,
      () => `UPDATE plain SET id = ${random.between(1, 80)} WHERE id = ${id}`,
      () => `DELETE FROM plain WHERE id >= 1000 AND id % 7 = ${random.between(0, 6)}`,
      // Many rows in one record of the log.
      () => `COPY plain (id, t) FROM PROGRAM 'seq ${bulk} ${bulk + random.between(1, 300)} | sed "s/.*/&\\tcopied &/"'`,
      () =>
        `INSERT INTO plain (id, n) SELECT g, ${bulk} FROM generate_series(${bulk}, ${bulk + random.between(1, 700)}) g ON CONFLICT (id) DO UPDATE SET n = excluded.n`,
      () => `UPDATE plain SET n = ${random.between(1, 99)} WHERE id >= 1000`,
    ])();
  },
};

const nastyKeys = [
  '',
  ' ',
  'a',
  'A',
  'ä',
  '\t',
  '\n',
  '\\',
  '\\N',
  "'",
  '"',
  '\r\n',
  'a\tb',
  '\\t',
  '😀',
  '\v',
  '\b\f',
  '{}',
];

const nasty: OracleTable = {
  name: "nasty table's",
  create: [
    `CREATE TABLE "nasty table's" ("the name" text, part int, note text, raw bytea, big text, PRIMARY KEY ("the name", part))`,
    ...external(`"nasty table's"`, 'big'),
  ],
  key: ['the name', 'part'],
  change(random) {
    const key = () => `"the name" = ${literal(random.pick(nastyKeys))}`;
    const row = `(${literal(random.pick(nastyKeys))}, ${random.between(1, 2)}, ${maybeNull(random, literal(nastyText(random, 9)))}, ${maybeNull(random, `'\\x${random.hex(random.between(0, 9))}'`)})`;
    return random.pick([
      () =>
        `INSERT INTO "nasty table's" VALUES ${row} ON CONFLICT ("the name", part) DO UPDATE SET note = excluded.note, raw = excluded.raw`,
      () => `UPDATE "nasty table's" SET note = ${maybeNull(random, literal(nastyText(random, 9)))} WHERE ${key()}`,
      () => `UPDATE "nasty table's" SET big = ${largeText(random)} WHERE ${key()}`,
      () => `UPDATE "nasty table's" SET "the name" = ${literal(random.pick(nastyKeys))} WHERE ${key()} AND part = 1`,
      () => `DELETE FROM "nasty table's" WHERE ${key()}`,
    ])();
  },
};

function uuidOf(number: number): string {
  return `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`;
}

const uuids: OracleTable = {
  name: 'uuids',
  create: [`CREATE TABLE uuids (id uuid PRIMARY KEY, doc jsonb, numbers int[] NOT NULL DEFAULT '{}')`],
  key: ['id'],
  change(random) {
    const id = () => uuidOf(random.between(1, 40));
    const numbers = `'{${Array.from({ length: random.between(0, 5) }, () => (random.chance(0.2) ? 'NULL' : random.between(-99, 99))).join(',')}}'`;
    const doc = maybeNull(
      random,
      `jsonb_build_object('k', ${literal(nastyText(random))}, 'n', ${random.between(0, 9)})`,
    );
    return random.pick([
      () =>
        `INSERT INTO uuids VALUES ('${id()}', ${doc}, ${numbers}) ON CONFLICT (id) DO UPDATE SET doc = excluded.doc`,
      () => `UPDATE uuids SET numbers = ${numbers} WHERE id IN ('${id()}', '${id()}', '${id()}')`,
      () => `UPDATE uuids SET id = '${id()}' WHERE id = '${id()}'`,
      () => `DELETE FROM uuids WHERE id = '${id()}'`,
    ])();
  },
};

/** Changes of a table with an integer key, a counter and large columns, which most statements leave alone. */
function changeOfLarge(table: string, key: string, most: number, moves: number, other = ''): OracleTable['change'] {
  return (random) => {
    const id = () => random.between(1, most);
    const [one, two] = [id(), id()];
    const insert = () =>
      `INSERT INTO ${table} (${key}, big, other, n) VALUES (${one}, ${maybeNull(random, largeText(random))}, ${maybeNull(random, literal(nastyText(random)))}, 0)`;
    const kinds = [
      () => `${insert()} ON CONFLICT (${key}) DO UPDATE SET n = ${table}.n + 1`,
      () => `${insert()} ON CONFLICT (${key}) DO UPDATE SET big = excluded.big`,
      () => `UPDATE ${table} SET n = n + 1 WHERE ${range(random, key, most)}`,
      () => `UPDATE ${table} SET n = n + 1, other = ${literal(nastyText(random))} WHERE ${range(random, key, most)}`,
      () => `UPDATE ${table} SET n = n + 1 WHERE ${range(random, key, most)}`,
      () => `UPDATE ${table} SET big = ${maybeNull(random, largeText(random))} WHERE ${key} = ${one}`,
      () => `DELETE FROM ${table} WHERE ${key} = ${one}`,
    ];
    for (let i = 0; i < moves; i++) {
      kinds.push(() => `UPDATE ${table} SET ${key} = ${two}, n = n + 1 WHERE ${key} = ${one}`);
      // Two rows change places by way of a third key.
      kinds.push(
        () =>
          `UPDATE ${table} SET ${key} = -1 WHERE ${key} = ${one}; UPDATE ${table} SET ${key} = ${one} WHERE ${key} = ${two}; UPDATE ${table} SET ${key} = ${two} WHERE ${key} = -1`,
      );
      // All move up by one, from the top.
      kinds.push(
        () =>
          `UPDATE ${table} SET ${key} = ${key} + 1000 WHERE ${range(random, key, most)}; UPDATE ${table} SET ${key} = ${key} - 999 WHERE ${key} > 1000`,
      );
    }
    if (other !== '') kinds.push(() => `UPDATE ${table} SET ${other} = ${other} + 1000 WHERE ${key} = ${one}`);
    return random.pick(kinds)();
  };
}

const large: OracleTable = {
  name: 'large',
  create: ['CREATE TABLE large (id bigint PRIMARY KEY, big text, other text, n int)', ...external('large', 'big')],
  key: ['id'],
  change: changeOfLarge('large', 'id', 30, 0),
};

const moving: OracleTable = {
  name: 'moving',
  create: ['CREATE TABLE moving (id int PRIMARY KEY, big text, other text, n int)', ...external('moving', 'big')],
  key: ['id'],
  change: changeOfLarge('moving', 'id', 12, 2),
};

const whole: OracleTable = {
  name: 'whole',
  create: [
    'CREATE TABLE whole (id int PRIMARY KEY, big text, other text, n int)',
    'ALTER TABLE whole REPLICA IDENTITY FULL',
    ...external('whole', 'big'),
  ],
  key: ['id'],
  change: changeOfLarge('whole', 'id', 12, 1),
};

const indexed: OracleTable = {
  name: 'indexed',
  create: [
    'CREATE TABLE indexed (id serial PRIMARY KEY, code int NOT NULL, big text, other text, n int)',
    'CREATE UNIQUE INDEX indexed_code ON indexed (code)',
    'ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_code',
    ...external('indexed', 'big'),
  ],
  key: ['code'],
  change: changeOfLarge('indexed', 'code', 12, 1, 'id'),
};

/** Keys whose text depends on how one asks: padded, t or true, with or without the length of the network. */
const odd: OracleTable = {
  name: 'odd',
  create: [
    'CREATE TABLE odd (code char(6), yes bool, address inet, big text, n int, PRIMARY KEY (address, code, yes))',
    ...external('odd', 'big'),
  ],
  key: ['address', 'code', 'yes'],
  change(random) {
    const code = () => literal(random.pick(['a', 'b', 'ab', 'abcdef', '\\']));
    const yes = random.pick(['true', 'false']);
    const address = random.pick(['10.0.0.1', '10.0.0.0/8', '::1']);
    const key = `code = ${code()}`;
    return random.pick([
      () =>
        `INSERT INTO odd VALUES (${code()}, ${yes}, '${address}', ${largeText(random)}, 0) ON CONFLICT (code, yes, address) DO UPDATE SET n = odd.n + 1`,
      () => `UPDATE odd SET n = n + 1 WHERE ${key}`,
      () => `UPDATE odd SET code = ${code()}, n = n + 1 WHERE ${key} AND yes = ${yes} AND address = '${address}'`,
      () => `DELETE FROM odd WHERE ${key} AND yes = ${yes}`,
    ])();
  },
};

/** Values that the copy's types cannot hold come and go. */
const limits: OracleTable = {
  name: 'limits',
  create: [
    'CREATE TABLE limits (id int PRIMARY KEY, day date, amount numeric(8,2), at timestamp, big text)',
    ...external('limits', 'big'),
  ],
  key: ['id'],
  unrepresentable: `day < '1900-01-01' OR day > '2299-12-31' OR amount = 'NaN' OR at IN ('infinity', '-infinity')`,
  change(random) {
    const id = random.between(1, 20);
    const day = random.pick([
      '1900-01-01',
      '2299-12-31',
      '2024-02-29',
      '1899-12-31',
      'infinity',
      '0044-03-15 BC',
      '2300-01-01',
    ]);
    const amount = random.pick(['0', '-0.01', '999999.99', 'NaN', '1.5']);
    const at = random.pick([
      '0001-01-01 00:00:00',
      '9999-12-31 23:59:59.999999',
      '1969-12-31 23:59:59.5',
      '-infinity',
      '2024-01-01',
    ]);
    return random.pick([
      () =>
        `INSERT INTO limits VALUES (${id}, '${day}', '${amount}', '${at}', ${largeText(random)}) ON CONFLICT (id) DO UPDATE SET day = excluded.day`,
      () => `UPDATE limits SET amount = '${amount}' WHERE ${range(random, 'id', 20)}`,
      () => `UPDATE limits SET day = '2024-01-01', amount = 1, at = '2024-01-01' WHERE ${range(random, 'id', 20)}`,
      () => `UPDATE limits SET at = '${at}' WHERE id = ${id}`,
      () => `UPDATE limits SET id = ${random.between(1, 20)} WHERE id = ${id}`,
      () => `DELETE FROM limits WHERE id = ${id}`,
    ])();
  },
};

/** Keys of partitions, each with its range; all others go where the rest is, if that is there. */
const ranges = { a: [1, 7], b: [7, 13], c: [13, 19], d: [19, 26] } as const;

/** Makes a partition, whole or divided further, with rows of this transaction or without. */
function partition(random: Random, name: keyof typeof ranges): string[] {
  const [from, to] = ranges[name];
  const make = `CREATE TABLE split_${name} PARTITION OF split FOR VALUES FROM (${from}) TO (${to})`;
  const divided = [
    `${make} PARTITION BY RANGE (id)`,
    `CREATE TABLE split_${name}_1 PARTITION OF split_${name} FOR VALUES FROM (${from}) TO (${from + 3})`,
    `CREATE TABLE split_${name}_2 PARTITION OF split_${name} FOR VALUES FROM (${from + 3}) TO (${to})`,
  ];
  return random.chance(0.3) ? divided : [make];
}

/** Makes a table of its own, fills it and attaches it; its columns stand elsewhere than those of the whole. */
function attachment(random: Random, name: keyof typeof ranges): string[] {
  const [from, to] = ranges[name];
  return [
    random.pick([
      `CREATE TABLE split_${name} (zero int, LIKE split)`,
      `CREATE TABLE split_${name} (n int, big text, zero int, id int NOT NULL, other text)`,
    ]),
    `ALTER TABLE split_${name} DROP COLUMN zero`,
    `INSERT INTO split_${name} (id, n, big) SELECT g, -1, ${largeText(random)} FROM generate_series(${from}, ${random.between(from, to - 1)}) g`,
    `ALTER TABLE split ATTACH PARTITION split_${name} FOR VALUES FROM (${from}) TO (${to})`,
  ];
}

/** Rows move between partitions of several shapes, which come and go. */
const split: OracleTable = {
  name: 'split',
  create: [
    'CREATE TABLE split (id int PRIMARY KEY, big text, other text, n int) PARTITION BY RANGE (id)',
    ...external('split', 'big'),
    'CREATE TABLE split_a PARTITION OF split FOR VALUES FROM (1) TO (7)',
    'CREATE TABLE split_b PARTITION OF split FOR VALUES FROM (7) TO (13) PARTITION BY RANGE (id)',
    'CREATE TABLE split_b_1 PARTITION OF split_b FOR VALUES FROM (7) TO (10)',
    'CREATE TABLE split_b_2 PARTITION OF split_b DEFAULT',
    'CREATE TABLE split_c (n int, big text, zero int, id int NOT NULL, other text)',
    'ALTER TABLE split_c DROP COLUMN zero',
    'ALTER TABLE split ATTACH PARTITION split_c FOR VALUES FROM (13) TO (19)',
    'CREATE TABLE split_rest PARTITION OF split DEFAULT',
  ],
  key: ['id'],
  change: changeOfLarge('split', 'id', 24, 2),
  repartition(random) {
    const name = random.pick(['a', 'b', 'c', 'd'] as const);
    const [from, to] = ranges[name];
    const leaf = `split_${name}`;
    const gone = [`DROP TABLE IF EXISTS ${leaf}`, `DELETE FROM split WHERE id >= ${from} AND id < ${to}`];
    const rows = random.chance(0.5)
      ? [`INSERT INTO split (id, n) SELECT g, -2 FROM generate_series(${from}, ${to - 1}) g ON CONFLICT DO NOTHING`]
      : [];
    return random.pick([
      () => [...gone, ...partition(random, name), ...rows],
      () => [...gone, ...partition(random, name), ...rows],
      () => [...gone, ...attachment(random, name), ...rows],
      () => [
        `ALTER TABLE split DETACH PARTITION ${leaf}`,
        `DELETE FROM ${leaf} WHERE id % 2 = 0`,
        `ALTER TABLE split ATTACH PARTITION ${leaf} FOR VALUES FROM (${from}) TO (${to})`,
      ],
      () => [`ALTER TABLE split DETACH PARTITION ${leaf}`, `DROP TABLE ${leaf}`],
      () => [`TRUNCATE ${leaf}`, ...rows],
      () => [`ALTER TABLE ${leaf} REPLICA IDENTITY ${random.pick(['FULL', 'DEFAULT'])}`, ...rows],
      () => [
        `UPDATE split SET id = id + ${random.between(1, 8)} WHERE id = ${random.between(1, 24)}`,
        'TRUNCATE split',
        ...rows,
      ],
    ])();
  },
};

/** One of several rows that are alike, or some. */
function someOf(random: Random, table: string, condition: string): string {
  return `ctid IN (SELECT ctid FROM ${table} WHERE ${condition} LIMIT ${random.chance(0.6) ? 1 : random.between(1, 9)})`;
}

/** Rows without a key: many are alike, and one of them is changed or goes. */
const alike: OracleTable = {
  name: 'alike',
  create: [
    'CREATE TABLE alike (a int, f float8, note text, big text)',
    'ALTER TABLE alike REPLICA IDENTITY FULL',
    ...external('alike', 'big'),
  ],
  key: [],
  change(random) {
    const a = () => random.pick(['NULL', '1', '2', '3']);
    const some = () => someOf(random, 'alike', `a IS NOT DISTINCT FROM ${a()}`);
    const big = () => random.pick(['NULL', "'x'", "repeat('y', 2500)", largeText(random)]);
    const float = () => random.pick(['NULL', '0', "'NaN'", '1e300']);
    return random.pick([
      () =>
        `INSERT INTO alike VALUES (${a()}, ${float()}, ${maybeNull(random, literal(nastyText(random, 2)))}, ${big()})`,
      () =>
        `INSERT INTO alike SELECT ${a()}, ${float()}, 'many', NULL FROM generate_series(1, ${random.between(1, 200)})`,
      () => `UPDATE alike SET a = ${a()} WHERE ${some()}`,
      () => `UPDATE alike SET f = ${float()}, note = ${literal(nastyText(random, 1))} WHERE ${some()}`,
      () => `UPDATE alike SET big = ${big()} WHERE ${some()}`,
      () => `DELETE FROM alike WHERE ${some()}`,
      () => `DELETE FROM alike WHERE ${someOf(random, 'alike', "note = 'many'")}`,
      () => (random.chance(0.1) ? 'TRUNCATE alike' : `DELETE FROM alike WHERE a = 3`),
    ])();
  },
};

/** The same, with values that the copy's types cannot hold. */
const alikeLimits: OracleTable = {
  name: 'alike_limits',
  create: [
    'CREATE TABLE alike_limits (n int, day date, amount numeric(8,2))',
    'ALTER TABLE alike_limits REPLICA IDENTITY FULL',
  ],
  key: [],
  unrepresentable: `day < '1900-01-01' OR day > '2299-12-31' OR amount = 'NaN'`,
  change(random) {
    const n = () => random.between(1, 3);
    const day = () => random.pick(["'2024-02-29'", "'infinity'", "'0044-03-15 BC'", 'NULL']);
    const amount = () => random.pick(['1.5', "'NaN'", 'NULL']);
    const some = () => someOf(random, 'alike_limits', `n = ${n()}`);
    return random.pick([
      () =>
        `INSERT INTO alike_limits SELECT ${n()}, ${day()}, ${amount()} FROM generate_series(1, ${random.between(1, 4)})`,
      () => `UPDATE alike_limits SET day = ${day()} WHERE ${some()}`,
      () => `UPDATE alike_limits SET amount = ${amount()}, n = ${n()} WHERE ${some()}`,
      () => `DELETE FROM alike_limits WHERE ${some()}`,
    ])();
  },
};

export const oracleTables: OracleTable[] = [
  ...[plain, nasty, uuids, large, moving, whole, indexed, odd, limits, split],
  ...[alike, alikeLimits, kinds, swapped],
];
