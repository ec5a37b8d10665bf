/** Examples; test/avro_compatibility.test.ts compares with Avro itself. */
import { describe, expect, it } from 'vitest';
import { canRead, checkCompatibility } from './compatibility.ts';
import { typeOf } from './field_type.ts';
import { type CompatibilityMode, readSchema, type Schema } from './schema.ts';

const schema = (...fields: object[]): Schema => readSchema({ fields });
const id = { name: 'id', type: 'long' };
const v1 = schema(id, { name: 'name', type: 'string' });

function reasons(old: Schema[], next: Schema, mode: CompatibilityMode) {
  const answer = checkCompatibility(old, next, mode);
  expect(answer.compatible).toBe(answer.reasons.length === 0);
  expect(answer.mode).toBe(mode);
  return answer.reasons.map(({ code, field, direction }) => `${direction} ${field} ${code}`);
}

describe('a field that is new', () => {
  const required = schema(...v1.fields, { name: 'email', type: 'string' });
  const optional = schema(...v1.fields, { name: 'email', type: 'string', nullable: true });
  const filled = schema(...v1.fields, { name: 'email', type: 'string', default: '' });

  it('needs a default for those who read old rows', () => {
    expect(reasons([v1], required, 'BACKWARD')).toEqual(['backward email missing_default']);
    expect(reasons([v1], optional, 'BACKWARD')).toEqual([]);
    expect(reasons([v1], filled, 'BACKWARD')).toEqual([]);
  });

  it('does not disturb those who know only the old schema', () => {
    expect(reasons([v1], required, 'FORWARD')).toEqual([]);
    expect(reasons([required], v1, 'BACKWARD')).toEqual([]);
  });

  it('that goes needs a default for those who still read it', () => {
    expect(reasons([required], v1, 'FORWARD')).toEqual(['forward email missing_default']);
    expect(reasons([filled], v1, 'FULL')).toEqual([]);
  });

  it('is told of with the version, and with what to do', () => {
    expect(checkCompatibility([v1], required, 'FULL', [4]).reasons).toEqual([
      {
        code: 'missing_default',
        field: 'email',
        direction: 'backward',
        version: 4,
        detail: 'version 4 has no `email`, and the new schema has no default for it: give it one, or make it nullable',
      },
    ]);
  });
});

describe('modes', () => {
  const a = schema(id, { name: 'x', type: 'int' });
  const b = schema(id);
  const c = schema(id, { name: 'x', type: 'string', default: '' });

  it('look at the latest version, or at all', () => {
    expect(reasons([a, b], c, 'BACKWARD')).toEqual([]);
    expect(reasons([a, b], c, 'BACKWARD_TRANSITIVE')).toEqual(['backward x type_mismatch']);
    expect(reasons([a, b], c, 'FORWARD')).toEqual([]);
    expect(reasons([a, b], c, 'FORWARD_TRANSITIVE')).toEqual(['forward x type_mismatch']);
    expect(reasons([a, b], c, 'FULL_TRANSITIVE')).toHaveLength(2);
    expect(checkCompatibility([a, b], c, 'FULL_TRANSITIVE', [1, 2]).reasons.map(({ version }) => version)).toEqual([
      1, 1,
    ]);
  });

  it('NONE allows all, and a first version goes with nothing', () => {
    expect(reasons([a], c, 'NONE')).toEqual([]);
    expect(reasons([], c, 'FULL_TRANSITIVE')).toEqual([]);
  });

  it('FULL is both', () => {
    const wide = schema(id, { name: 'x', type: 'long' });
    expect(reasons([a], wide, 'BACKWARD')).toEqual([]);
    expect(reasons([a], wide, 'FULL')).toEqual(['forward x type_mismatch']);
  });
});

describe('null', () => {
  const required = schema({ name: 'x', type: 'int' });
  const nullable = schema({ name: 'x', type: 'int', nullable: true });

  it('may be allowed, and not be forbidden again', () => {
    expect(reasons([required], nullable, 'BACKWARD')).toEqual([]);
    expect(reasons([nullable], required, 'BACKWARD')).toEqual(['backward x null_mismatch']);
    expect(reasons([required], nullable, 'FULL')).toEqual(['forward x null_mismatch']);
  });

  it('as a type is read by what is nullable', () => {
    const nothing = schema({ name: 'x', type: 'null' });
    expect(reasons([nothing], nullable, 'BACKWARD')).toEqual([]);
    expect(reasons([nothing], required, 'BACKWARD')).toEqual(['backward x null_mismatch']);
    expect(reasons([required], nothing, 'BACKWARD')).toEqual(['backward x type_mismatch']);
  });
});

describe('names', () => {
  const old = schema(id, { name: 'mail', type: 'string' });

  it('are followed by aliases of the reader', () => {
    const renamed = schema(id, { name: 'email', type: 'string', aliases: ['mail'] });
    expect(reasons([old], renamed, 'BACKWARD')).toEqual([]);
    expect(reasons([old], renamed, 'FORWARD')).toEqual(['forward mail missing_default']);
    expect(reasons([old], schema(id, { name: 'email', type: 'string' }), 'BACKWARD')).toEqual([
      'backward email missing_default',
    ]);
  });

  it('must not stand for two fields', () => {
    const both = schema(id, { name: 'mail', type: 'string' }, { name: 'email', type: 'string' });
    const merged = schema(id, { name: 'email', type: 'string', aliases: ['mail'] });
    expect(reasons([both], merged, 'BACKWARD')).toEqual(['backward email ambiguous_alias']);
  });

  it('may stand in any order', () => {
    expect(reasons([v1], schema(...[...v1.fields].reverse()), 'FULL')).toEqual([]);
  });
});

describe('types', () => {
  const types = [
    'null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string', 'date', 'timestamp', 'uuid', 'json',
    'decimal(10,2)', 'decimal(12,2)', 'decimal(12,3)', 'array<int>', 'array<string>', 'array<uuid>', 'array<array<int>>',
  ]; // biome-ignore format: a list
  const allowed: Record<string, string[]> = {
    long: ['int'],
    float: ['int', 'long'],
    double: ['int', 'long', 'float'],
    bytes: ['string'],
    string: ['bytes', 'uuid', 'json'],
    'array<string>': ['array<uuid>'],
  };

  it.each(types)('%s reads what Avro promotes to it, and nothing else', (reader) => {
    const read = types.filter((writer) => canRead(typeOf(reader), typeOf(writer)));
    expect(read.sort()).toEqual([reader, ...(allowed[reader] ?? [])].sort());
  });

  it('decimals match with the same precision and scale', () => {
    const price = (type: string) => schema({ name: 'price', type });
    expect(reasons([price('numeric(12,2)')], price('decimal(12,2)'), 'FULL')).toEqual([]);
    expect(reasons([price('decimal(10,2)')], price('decimal(12,2)'), 'BACKWARD')).toEqual([
      'backward price decimal_mismatch',
    ]);
    expect(reasons([price('long')], price('decimal(20,0)'), 'BACKWARD')).toEqual(['backward price type_mismatch']);
  });

  it('are named in the reason', () => {
    const [reason] = checkCompatibility(
      [schema({ name: 'x', type: 'text', nullable: true })],
      schema({ name: 'x', type: 'bigint', nullable: true }),
      'BACKWARD',
    ).reasons;
    expect(reason!.detail).toBe('the new schema reads `x` as long or null, and the old schema writes string or null');
  });
});
