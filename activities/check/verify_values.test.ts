import { describe, expect, it } from 'vitest';
import type { Column } from '../../model/table.ts';
import { bareType } from '../transform/clickhouse_types.ts';
import { copyExpression, sourceExpression, sourceRecord } from './verify_values.ts';

function column(type: string, clickhouse: string, encoding: Column['encoding'] = 'text'): Column {
  return { attnum: 1, name: 'c', type, typeOid: 0, typmod: -1, notNull: false, key: false, encoding, clickhouse };
}

describe('values in the source', () => {
  it('are texts by a cast only where that is what is copied', () => {
    const cast = '_r."c"::pg_catalog.text';
    for (const type of ['text', 'character varying(20)', 'json', 'numeric', 'public.citext', 'citext'])
      expect(sourceExpression(column(type, 'Nullable(String)'), '_r."c"')).toBe(cast);
    for (const type of ['inet', 'character(5)', 'xml', 'public.pair', '"char"', 'textual', 'public.mood'])
      expect(sourceExpression(column(type, 'Nullable(String)'), '_r."c"')).toContain('concat(');
  });

  it('are said as one record', () => {
    const columns = [column('integer', 'Int32', 'plain'), column('uuid', 'Nullable(UUID)', 'plain')];
    expect(sourceRecord(columns, () => 'x')).toBe('record_send(ROW(x::pg_catalog.int8, x::pg_catalog.uuid))');
  });
});

describe('values in the copy', () => {
  it('have their oid and length before them, and NULL a length of -1', () => {
    const said = copyExpression(column('uuid', 'Nullable(UUID)', 'plain'), '_r.`c`');
    expect(said).toContain("'\\x00\\x00\\x0b\\x86\\xff\\xff\\xff\\xff'");
    expect(said).toContain("'\\x00\\x00\\x0b\\x86\\x00\\x00\\x00\\x10'");
  });

  it('of a type that nobody thought of are refused', () => {
    expect(() => copyExpression(column('x', 'Map(String, String)'), 'x')).toThrow(/cannot be compared/);
  });
});

it('types lose what is around them', () => {
  expect(bareType('LowCardinality(Nullable(String))')).toBe('String');
  expect(bareType("Nullable(DateTime64(6, 'UTC'))")).toBe("DateTime64(6, 'UTC')");
  expect(bareType('Decimal(10, 2)')).toBe('Decimal(10, 2)');
});
