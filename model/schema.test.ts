import { describe, expect, it } from 'vitest';
import { readType, typeText } from './field_type.ts';
import { readSchema, schemaText } from './schema.ts';
import { ShapeError, type ShapeIssue } from './shape_error.ts';

const one = (field: object) => readSchema({ fields: [{ name: 'a', ...field }] }).fields[0]!;

function issuesOf(input: unknown, pointer?: string): ShapeIssue[] {
  try {
    readSchema(input, pointer);
  } catch (error) {
    if (error instanceof ShapeError) return error.issues;
    throw error;
  }
  throw new Error('nothing is wrong with it');
}

/** What is wrong with one field, as [pointer, detail]. */
function wrong(field: object): [string, string][] {
  return issuesOf({ fields: [{ name: 'a', type: 'int', ...field }] }).map(({ pointer, detail }) => [pointer, detail]);
}

describe('types', () => {
  it.each([
    ['long', 'long'],
    ['bigint', 'long'],
    ['BIGINT', 'long'],
    ['int8', 'long'],
    ['integer', 'int'],
    ['smallint', 'int'],
    ['varchar(20)', 'string'],
    ['character varying(20)', 'string'],
    ['Character  Varying', 'string'],
    ['text', 'string'],
    ['double precision', 'double'],
    ['float', 'float'],
    ['real', 'float'],
    ['boolean', 'boolean'],
    ['bool', 'boolean'],
    ['bytea', 'bytes'],
    ['timestamptz', 'timestamp'],
    ['timestamp(3) with time zone', 'timestamp'],
    ['timestamp without time zone', 'timestamp'],
    ['numeric(12,2)', 'decimal(12,2)'],
    ['decimal( 12 , 2 )', 'decimal(12,2)'],
    ['numeric(12)', 'decimal(12,0)'],
    ['decimal(76,76)', 'decimal(76,76)'],
    ['jsonb', 'json'],
    ['uuid', 'uuid'],
    ['date', 'date'],
    ['null', 'null'],
    ['array<bigint>', 'array<long>'],
    ['Array< numeric(5,1) >', 'array<decimal(5,1)>'],
    ['text[]', 'array<string>'],
    ['array<int[]>', 'array<array<int>>'],
    ['array<timestamp(3) with time zone>', 'array<timestamp>'],
  ])('%s is %s', (text, canonical) => {
    const type = readType(text);
    expect(typeof type === 'string' ? type : typeText(type)).toBe(canonical);
  });

  it.each([
    ['strin', /did you mean string\?.*allowed are null, boolean, int, long/],
    ['constructor', /no type/],
    ['', /no type/],
    ['int(4)', /`int` takes no/],
    ['varchar(1,2)', /takes no/],
    ['decimal', /precision and scale/],
    ['numeric', /precision and scale/],
    ['decimal(0,0)', /precision .* 1 to 76/],
    ['decimal(77,2)', /precision .* 1 to 76/],
    ['decimal(4,5)', /scale .* 0 to its precision/],
    ['numeric(4,-2)', /scale .* 0 to its precision/],
    ['array<>', /no type/],
    ['array<null>', /says nothing/],
    ['array<nothing>', /`nothing` is no type/],
    ['array', /no type/],
    [`${'array<'.repeat(9)}int${'>'.repeat(9)}`, /at most 8 deep/],
    ['x'.repeat(300), /at most 200/],
    ['int; DROP TABLE a', /no type/],
  ])('%s is none', (text, problem) => {
    expect(readType(text)).toMatch(problem);
  });
});

describe('fields', () => {
  it('that are nullable have null as default', () => {
    expect(one({ type: 'int', nullable: true })).toEqual({ name: 'a', type: 'int', nullable: true, default: null });
    expect(one({ type: 'int', nullable: true, default: 7 }).default).toBe(7);
    expect(one({ type: 'int' })).toEqual({ name: 'a', type: 'int', nullable: false });
    expect(one({ type: 'null' })).toEqual({ name: 'a', type: 'null', nullable: true, default: null });
  });

  it.each([
    ['boolean', false, false],
    ['int', -(2 ** 31), -(2 ** 31)],
    ['long', '9223372036854775807', '9223372036854775807'],
    ['long', '12', 12],
    ['double', 1.5, 1.5],
    ['double', 'nan', 'NaN'],
    ['float', '-inf', '-Infinity'],
    ['decimal(5,2)', 1.5, '1.50'],
    ['decimal(5,2)', '-001.5', '-1.50'],
    ['decimal(5,2)', '-0', '0.00'],
    ['decimal(2,2)', '.25', '0.25'],
    ['decimal(40,0)', '1234567890123456789012345678901234567890', '1234567890123456789012345678901234567890'],
    ['bytes', '\u0000\u00ff', '\u0000\u00ff'],
    ['date', '2024-02-29', '2024-02-29'],
    ['timestamp', '2026-01-01 01:00:00.5+01', '2026-01-01T00:00:00.500Z'],
    ['timestamp', '2026-01-01T01:00:00+01:00', '2026-01-01T00:00:00.000Z'],
    ['timestamp', '2026-01-01 00:00:00.123456', '2026-01-01T00:00:00.123456Z'],
    ['uuid', '018F3B1E-0000-7000-8000-000000000000', '018f3b1e-0000-7000-8000-000000000000'],
    ['json', { b: [1, null], a: 'x' }, { a: 'x', b: [1, null] }],
    ['array<long>', [1, null, '2'], [1, null, 2]],
  ])('of %s may have the default %j', (type, value, canonical) => {
    expect(one({ type, default: value }).default).toEqual(canonical);
  });

  it.each([
    ['int', null],
    ['int', '1.0'],
    ['int', 1.5],
    ['int', 2 ** 31],
    ['int', true],
    ['long', 2 ** 53],
    ['long', '9223372036854775808'],
    ['float', 1e39],
    ['double', 'x'],
    ['boolean', 0],
    ['string', 5],
    ['bytes', 'Ā'],
    ['decimal(5,2)', '1234'],
    ['decimal(5,2)', '1.234'],
    ['decimal(30,2)', 12345678901234568],
    ['decimal(5,2)', '1e2'],
    ['decimal(5,2)', '.'],
    ['decimal(5,2)', ''],
    ['date', '2026-02-29'],
    ['date', '2026-01-01T00:00:00Z'],
    ['timestamp', '2026-01-01T24:00:00Z'],
    ['timestamp', '2026-01-01T00:00:00.123456789Z'],
    ['uuid', 'x'],
    ['array<int>', 1],
    ['array<int>', ['a']],
  ])('of %s may not have the default %j', (type, value) => {
    expect(wrong({ type, default: value })).toEqual([['/fields/0/default', expect.stringContaining('does not fit')]]);
  });

  it('never show a value that is wrong', () => {
    expect(JSON.stringify(wrong({ type: 'int', default: 'hunter2' }))).not.toContain('hunter2');
  });

  it('are complained about with pointers, all at once', () => {
    const fields = [
      { name: '', type: 'int', nullable: 'yes' },
      { name: 'b', type: ['null', 'int'], size: 3 },
      'c',
      { name: 'd\n', type: 'int', aliases: 'e' },
      { name: 'f', type: 'int', aliases: [''] },
    ];
    expect(issuesOf({ fields, 'a/b': 1 }, '/schema').map(({ pointer }) => pointer)).toEqual([
      '/schema/a~1b',
      '/schema/fields/0/name',
      '/schema/fields/0/nullable',
      '/schema/fields/1/size',
      '/schema/fields/1/type',
      '/schema/fields/2',
      '/schema/fields/3/name',
      '/schema/fields/3/aliases',
      '/schema/fields/4/aliases/0',
    ]);
  });

  it('must be told apart by name and alias', () => {
    const pointers = (...fields: object[]) => issuesOf({ fields }).map(({ pointer }) => pointer);
    const a = { name: 'a', type: 'int' };
    expect(pointers(a, a)).toEqual(['/fields/1/name']);
    expect(pointers({ ...a, aliases: ['a'] })).toEqual(['/fields/0/aliases']);
    expect(pointers(a, { name: 'b', type: 'int', aliases: ['a'] })).toEqual(['/fields/1/aliases']);
    expect(pointers({ ...a, aliases: ['c'] }, { name: 'b', type: 'int', aliases: ['c'] })).toEqual([
      '/fields/1/aliases',
    ]);
  });

  it('may be called as columns of databases are', () => {
    const names = ['we"ird', 'a.b', 'Größe', '__proto__', 'constructor', 'select'];
    const fields = names.map((name) => ({ name, type: 'int' }));
    expect(readSchema({ fields }).fields.map(({ name }) => name)).toEqual(names);
  });
});

describe('schemas', () => {
  it.each([[undefined], [null], ['x'], [[]], [{}], [{ fields: {} }], [{ fields: [] }]])('%j is none', (input) => {
    expect(() => readSchema(input)).toThrow(ShapeError);
  });

  it('are the same whatever the order of keys and the names of types', () => {
    const a =
      '{"fields":[{"name":"id","type":"bigint","nullable":false},{"name":"x","type":"varchar(20)","nullable":true}]}';
    const b = '{"fields":[{"type":"long","name":"id"},{"default":null,"nullable":true,"type":"string","name":"x"}]}';
    expect(schemaText(readSchema(JSON.parse(a)))).toBe(schemaText(readSchema(JSON.parse(b))));
    const meta = (value: string) => JSON.parse(`{"fields":[{"name":"m","type":"json","default":${value}}]}`);
    expect(schemaText(readSchema(meta('{"a":1,"b":2}')))).toBe(schemaText(readSchema(meta('{"b":2,"a":1}'))));
  });

  it('are read from their own text as they were', () => {
    const schema = readSchema({
      fields: [
        { name: 'id', type: 'long' },
        { name: 'price', type: 'numeric(12,2)', default: 1, aliases: ['cost', 'amount'] },
        { name: 'tags', type: 'text[]', nullable: true },
      ],
    });
    expect(readSchema(JSON.parse(schemaText(schema)))).toEqual(schema);
    expect(schema.fields[1]!.aliases).toEqual(['amount', 'cost']);
  });

  it('have limits', () => {
    const many = Array.from({ length: 5001 }, (_, index) => ({ name: `f${index}`, type: 'int' }));
    expect(issuesOf({ fields: many })[0]!.detail).toContain('5000');
    const large = [{ name: 'a', type: 'string', default: 'x'.repeat(300 * 1024) }];
    expect(issuesOf({ fields: large })[0]!.detail).toContain('256 KiB');
  });
});
