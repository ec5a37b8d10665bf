import { describe, expect, it } from 'vitest';
import { migrateRows } from './migration.ts';
import { readSchema, type Schema } from './schema.ts';
import { ShapeError } from './shape_error.ts';

const schema = (...fields: object[]): Schema => readSchema({ fields });

/** One value from type to type; what does not fit is told as a text. */
function move(from: string, to: string, value: unknown, more: object = {}): unknown {
  try {
    const [row] = migrateRows(
      [{ a: value }],
      schema({ name: 'a', type: from }),
      schema({ name: 'a', type: to, ...more }),
    );
    return row!.a;
  } catch (error) {
    if (error instanceof ShapeError) return `no: ${error.issues[0]!.detail}`;
    throw error;
  }
}

function issues(rows: unknown[], from: Schema, to: Schema): [string, string][] {
  try {
    migrateRows(rows, from, to, '/rows');
  } catch (error) {
    if (error instanceof ShapeError) return error.issues.map(({ pointer, detail }) => [pointer, detail]);
    throw error;
  }
  return [];
}

describe('rows', () => {
  const v1 = schema({ name: 'id', type: 'int' }, { name: 'mail', type: 'string' }, { name: 'old', type: 'string' });
  const v2 = schema(
    { name: 'id', type: 'long' },
    { name: 'email', type: 'string', aliases: ['mail'] },
    { name: 'country', type: 'string', default: 'DE' },
    { name: 'note', type: 'string', nullable: true },
  );

  it('get defaults and new names, and lose what is gone', () => {
    expect(migrateRows([{ id: 1, mail: 'a@b.c', old: 'x' }], v1, v2)).toEqual([
      { id: 1, email: 'a@b.c', country: 'DE', note: null },
    ]);
  });

  it('get their old names back', () => {
    const before = schema({ name: 'id', type: 'int' }, { name: 'mail', type: 'string', nullable: true });
    expect(migrateRows([{ id: 1, email: 'a@b.c', country: 'FR', note: 'n' }], v2, before)).toEqual([
      { id: 1, mail: 'a@b.c' },
    ]);
  });

  it('do not get a value twice when a name is used again', () => {
    const again = schema({ name: 'email', type: 'string' }, { name: 'mail', type: 'string', nullable: true });
    expect(migrateRows([{ id: 1, email: 'a@b.c', country: 'FR', note: 'n' }], v2, again)).toEqual([
      { email: 'a@b.c', mail: null },
    ]);
  });

  it('may leave out what has a default', () => {
    expect(migrateRows([{ id: 1, email: 'e' }], v2, v2)).toEqual([{ id: 1, email: 'e', country: 'DE', note: null }]);
  });

  it('that do not fit are told with pointers, all of them, without their values', () => {
    const found = issues(
      [
        { id: 'hunter2', mail: 'a', old: 'b' },
        { id: 1, mail: null, old: 'b', 'x/y': 1 },
        'row',
        { id: 1, mail: 'a' },
        { id: 2, mail: 'a', old: 'b' },
      ],
      v1,
      schema({ name: 'id', type: 'long' }, { name: 'must', type: 'int' }),
    );
    expect(found).toEqual([
      ['/rows/0/id', 'must be a whole number (it is a text)'],
      ['/rows/0/must', 'is missing, and the new version has no default for it'],
      ['/rows/1/x~1y', 'is no field of the schema that it comes from'],
      ['/rows/1/mail', 'must be a text (it is null)'],
      ['/rows/1/must', 'is missing, and the new version has no default for it'],
      ['/rows/2', 'must be an object'],
      ['/rows/3/old', 'is missing, and has no default'],
      ['/rows/3/must', 'is missing, and the new version has no default for it'],
      ['/rows/4/must', 'is missing, and the new version has no default for it'],
    ]);
  });

  it('are told of a hundred times at most', () => {
    expect(issues(Array(500).fill({}), v1, v1)).toHaveLength(100);
  });

  it('cannot be moved when an alias stands for two fields', () => {
    const both = schema({ name: 'a', type: 'int' }, { name: 'b', type: 'int' });
    expect(issues([], both, schema({ name: 'b', type: 'int', aliases: ['a'] }))).toEqual([
      ['/to/fields/0', '`b` stands for both `b` and `a`'],
    ]);
  });

  it('may have columns with any name', () => {
    const odd = schema({ name: '__proto__', type: 'int' }, { name: 'constructor', type: 'int', nullable: true });
    const row = JSON.parse('{"__proto__": 1}');
    expect(JSON.stringify(migrateRows([row], odd, odd))).toBe('[{"__proto__":1,"constructor":null}]');
  });
});

describe('values', () => {
  it.each([
    ['int', 'long', 5, 5],
    ['int', 'double', 5, 5],
    ['long', 'double', '9007199254740993', 9007199254740992],
    ['long', 'float', 16777217, 16777216],
    ['float', 'double', 0.1, 0.1],
    ['double', 'double', 'nan', 'nan'],
    ['float', 'double', 'inf', 'Infinity'],
    ['string', 'bytes', 'é', '\u00c3\u00a9'],
    ['bytes', 'string', '\u00c3\u00a9', 'é'],
    ['uuid', 'string', '018F3B1E-0000-7000-8000-000000000000', '018f3b1e-0000-7000-8000-000000000000'],
    ['json', 'string', { b: 1, a: [null] }, '{"a":[null],"b":1}'],
    ['date', 'string', '2026-01-31', '2026-01-31'],
    ['array<int>', 'array<long>', [1, null], [1, null]],
    ['array<bytes>', 'array<string>', ['\u00c3\u00a9'], ['é']],
  ])('of %s as %s: %j is %j', (from, to, value, expected) => {
    expect(move(from, to, value)).toEqual(expected);
  });

  it.each([
    ['long', 'int', 5, 5],
    ['long', 'int', '2147483648', /must be -2147483648 to 2147483647/],
    ['double', 'int', 5, 5],
    ['double', 'int', 5.5, /no number that int can hold/],
    ['double', 'float', 9.99, 9.99],
    ['double', 'float', 1.23456789012, /more digits than a float/],
    ['double', 'float', 1e300, /more digits than a float/],
    ['decimal(12,2)', 'decimal(10,1)', '5.50', '5.5'],
    ['decimal(12,2)', 'decimal(10,1)', '5.55', /more than 1 digits behind the point/],
    ['decimal(12,2)', 'long', '5.00', 5],
    ['decimal(12,2)', 'long', '5.01', /whole number/],
    ['long', 'decimal(20,1)', '9007199254740993', '9007199254740993.0'],
    ['decimal(12,2)', 'double', '5.00', /cannot become double/],
    ['string', 'uuid', '018f3b1e-0000-7000-8000-000000000000', '018f3b1e-0000-7000-8000-000000000000'],
    ['string', 'date', 'x', /must be a day/],
    ['bytes', 'string', '\u00ff', /no text in UTF-8/],
    ['string', 'bytes', '\ud800', /half a character/],
    ['string', 'int', '5', /string cannot become int/],
    ['boolean', 'int', true, /boolean cannot become int/],
    ['array<long>', 'array<int>', [1, '2147483648'], /item 2: must be/],
    ['array<int>', 'int', [1], /cannot become/],
  ])('of %s as %s: %j is %s', (from, to, value, expected) => {
    const moved = move(from, to, value);
    if (expected instanceof RegExp) expect(moved).toMatch(expected);
    else expect(moved).toEqual(expected);
  });

  it('stay as they came when the type stays', () => {
    expect(move('timestamp', 'timestamp', '2026-01-01 00:00:00')).toBe('2026-01-01 00:00:00');
    expect(move('decimal(5,2)', 'decimal(5,2)', 1.5)).toBe(1.5);
    expect(move('long', 'long', '5')).toBe('5');
  });

  it('are not null where null is not allowed any more', () => {
    const before = schema({ name: 'a', type: 'int', nullable: true });
    expect(issues([{ a: null }, { a: 1 }], before, schema({ name: 'a', type: 'int', default: 3 }))).toEqual([
      ['/rows/0/a', 'is null, and the field of the new version is not nullable'],
    ]);
    expect(migrateRows([{ a: null }], before, schema({ name: 'a', type: 'long', nullable: true }))).toEqual([
      { a: null },
    ]);
  });
});
