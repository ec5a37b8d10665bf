import { describe, expect, it } from 'vitest';
import { mapColumn, numericLimits, type TypeFacts } from './type_mapping.ts';

const plain = { key: false, notNull: false };
const base = (oid: number, typmod = -1): TypeFacts => ({ oid, typmod, typtype: 'b', dimensions: 0 });
const array = (oid: number, element: number, typmod = -1, delimiter = ','): TypeFacts => ({
  ...base(oid, typmod),
  dimensions: 1,
  element: { oid: element, typmod, typtype: 'b', delimiter },
});
const numeric = (precision: number, scale: number) => ((precision << 16) | (scale & 0x7ff)) + 4;

describe('mapColumn', () => {
  it.each([
    ['smallint', 21, 'Int16', 'plain'],
    ['integer', 23, 'Int32', 'plain'],
    ['bigint', 20, 'Int64', 'plain'],
    ['oid', 26, 'UInt32', 'plain'],
    ['real', 700, 'Float32', 'plain'],
    ['double precision', 701, 'Float64', 'plain'],
    ['boolean', 16, 'Bool', 'plain'],
    ['uuid', 2950, 'UUID', 'plain'],
    ['text', 25, 'String', 'text'],
    ['character varying', 1043, 'String', 'text'],
    ['character', 1042, 'String', 'text'],
    ['date', 1082, 'Date32', 'date'],
    ['timestamp', 1114, "DateTime64(6, 'UTC')", 'timestamp'],
    ['timestamptz', 1184, "DateTime64(6, 'UTC')", 'timestamptz'],
    ['bytea', 17, 'String', 'bytea'],
    ['numeric', 1700, 'String', 'plain'],
    ['jsonb', 3802, 'String', 'text'],
    ['money', 790, 'String', 'text'],
    ['interval', 1186, 'String', 'text'],
    ['int2vector', 22, 'String', 'text'],
    ['a type nobody knows', 99_999, 'String', 'text'],
  ])('copies %s', (_, oid, clickhouse, encoding) => {
    expect(mapColumn(base(oid), plain)).toEqual({ encoding, clickhouse: `Nullable(${clickhouse})` });
    expect(mapColumn(base(oid), { key: true, notNull: true })).toEqual({ encoding, clickhouse });
  });

  it.each([
    [12, 2, 'Decimal(12, 2)'],
    [5, -2, 'Decimal(7, 0)'],
    [3, 5, 'Decimal(5, 5)'],
    [76, 76, 'Decimal(76, 76)'],
    [70, -6, 'Decimal(76, 0)'],
  ])('copies numeric(%i,%i) as %s', (precision, scale, clickhouse) => {
    expect(mapColumn(base(1700, numeric(precision, scale)), plain)).toEqual({
      encoding: 'numeric',
      clickhouse: `Nullable(${clickhouse})`,
    });
  });

  it.each([
    [77, 0],
    [76, -1],
    [1000, 1000],
    [10, 77],
  ])('copies numeric(%i,%i) as text', (precision, scale) => {
    expect(mapColumn(base(1700, numeric(precision, scale)), plain).clickhouse).toBe('Nullable(String)');
  });

  it('copies enums in a dictionary', () => {
    const mood: TypeFacts = { oid: 16_400, typmod: -1, typtype: 'e', dimensions: 0 };
    expect(mapColumn(mood, plain).clickhouse).toBe('LowCardinality(Nullable(String))');
    expect(mapColumn(mood, { key: true, notNull: true }).clickhouse).toBe('LowCardinality(String)');
  });

  it('copies arrays that cannot be null', () => {
    const always = { key: false, notNull: true };
    expect(mapColumn(array(1007, 23), always)).toEqual({
      encoding: 'array',
      element: 'plain',
      clickhouse: 'Array(Nullable(Int32))',
    });
    expect(mapColumn(array(1231, 1700, numeric(10, 2)), always).clickhouse).toBe('Array(Nullable(Decimal(10, 2)))');
    expect(mapColumn(array(1231, 1700), always)).toMatchObject({
      element: 'text',
      clickhouse: 'Array(Nullable(String))',
    });
    expect(mapColumn(array(2951, 2950), always)).toMatchObject({
      element: 'text',
      clickhouse: 'Array(Nullable(UUID))',
    });
    expect(mapColumn(array(1000, 16), always)).toMatchObject({ element: 'text', clickhouse: 'Array(Nullable(Bool))' });
    expect(mapColumn(array(1182, 1082), always)).toMatchObject({ element: 'date' });
  });

  it('copies other arrays as text', () => {
    const asText = { encoding: 'text', clickhouse: 'Nullable(String)' };
    const always = { key: false, notNull: true };
    expect(mapColumn(array(1007, 23), plain)).toEqual(asText);
    expect(mapColumn({ ...array(1007, 23), dimensions: 2 }, always)).toEqual(asText);
    expect(mapColumn(array(1020, 603, -1, ';'), always)).toEqual(asText);
    expect(mapColumn(array(1007, 23), { key: true, notNull: true })).toEqual({
      encoding: 'text',
      clickhouse: 'String',
    });
  });
});

describe('numericLimits', () => {
  it('reads what PostgreSQL stores', () => {
    expect(numericLimits(-1)).toBeUndefined();
    expect(numericLimits(329_730)).toEqual({ precision: 5, scale: -2 });
    expect(numericLimits(196_617)).toEqual({ precision: 3, scale: 5 });
  });
});
