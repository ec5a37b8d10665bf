import { describe, expect, it } from 'vitest';
import type { Column } from '../../model/table.ts';
import { copyLiteral, keyTextOfOutput, readKeyText, showKey, sourceLiteral } from './verify_keys.ts';

function column(type: string, clickhouse: string, encoding: Column['encoding'] = 'plain', name = 'id'): Column {
  return { attnum: 1, name, type, typeOid: 0, typmod: -1, notNull: true, key: true, encoding, clickhouse };
}

const text = column('text', 'String', 'text');
const bytes = column('bytea', 'String', 'bytea');
const number = column('bigint', 'Int64');
const price = column('numeric(10,2)', 'Decimal(10, 2)', 'numeric');
const time = column('timestamp with time zone', "DateTime64(6, 'UTC')", 'timestamptz');
const float = column('double precision', 'Float64');

describe('texts of keys', () => {
  it('of what the source prints are those that are compared', () => {
    expect(keyTextOfOutput(text, 'é')).toBe('c3a9');
    expect(keyTextOfOutput(bytes, '\\x00ff')).toBe('00ff');
    expect(keyTextOfOutput(price, '1200.50')).toBe('1200.5');
    expect(keyTextOfOutput(price, '1200.00')).toBe('1200');
    expect(keyTextOfOutput(column('numeric(5,-2)', 'Decimal(7, 0)', 'numeric'), '1200')).toBe('1200');
    expect(keyTextOfOutput(time, '2026-01-01 00:00:00.5+00')).toBe('2026-01-01 00:00:00.5');
    expect(['t', 'f'].map((output) => keyTextOfOutput(column('boolean', 'Bool'), output))).toEqual(['true', 'false']);
  });

  it('of floats are the same from both sides', () => {
    for (const [source, copy] of [
      ['1e+100', '1e100'],
      ['1e-07', '1e-7'],
      ['-Infinity', '-inf'],
      ['NaN', 'nan'],
    ] as const)
      expect(readKeyText(float, source)).toBe(readKeyText(float, copy));
  });
});

describe('literals of keys', () => {
  it('cannot be left by what is in them', () => {
    const evil = Buffer.from("'); DROP TABLE x; --\\").toString('hex');
    expect(sourceLiteral(text, evil)).toBe(" E'''); DROP TABLE x; --\\\\'::text");
    expect(copyLiteral(text, evil)).toBe(`unhex('${evil}')`);
    expect(copyLiteral(number, "1') --")).toBe("CAST('1\\') --', 'Int64')");
  });

  it('are none where the source has no such value', () => {
    expect(sourceLiteral(text, 'ff')).toBeUndefined();
    expect(sourceLiteral(text, '00')).toBeUndefined();
    expect(sourceLiteral(bytes, '00ff')).toBe("decode('00ff', 'hex')");
  });

  it('name the type of the copy', () => {
    expect(copyLiteral(time, '2026-01-01 00:00:00')).toBe("CAST('2026-01-01 00:00:00', 'DateTime64(6, \\'UTC\\')')");
  });
});

describe('keys for people', () => {
  it('are exact', () => {
    const columns = [number, { ...text, name: 't' }, { ...bytes, name: 'b' }];
    expect(showKey(columns, ['9007199254740993', 'c3a9', '00'])).toEqual({
      id: '9007199254740993',
      t: 'é',
      b: '\\x00',
    });
    expect(showKey([number], ['-5'])).toEqual({ id: -5 });
    expect(showKey([column('boolean', 'Bool')], ['true'])).toEqual({ id: true });
  });
});
