import { parse } from 'csv-parse/sync';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { csvColumns, csvLine, type Fields, fieldsOf, findFault } from './asset_row.ts';

const seed = Number(process.env.SEED ?? 20261121);

const item = { id: 'A1', name: 'n', kind: 'k', value: 1, updated_at: '2026-01-01T00:00:00Z', deleted: false };
const right: Fields = ['A1', 'n', 'k', '1.5', '2026-01-01T00:00:00.000Z', '0', '12'];

describe('an asset as a row', () => {
  it('keeps numbers exactly, without exponent', () => {
    const text = (value: unknown) => fieldsOf({ item: { ...item, value }, at: 0n }, 1n)[3];
    const cases: [unknown, string | null][] = [
      [1.5, '1.5'], [-0, '0'], [1e-7, '0.0000001'], [1e21, '1000000000000000000000'], [12.5e-1, '1.25'], [null, null],
      ['1234567890123456789.25', '1234567890123456789.25'], ['00012.500', '12.5'], ['-1.20E+2', '-120'], ['much', 'much'], ['1e9999', '1e9999'],
    ]; // biome-ignore format: pairs
    for (const [value, expected] of cases) expect(text(value), String(value)).toBe(expected);
  });

  it('that is gone leaves the copy, whatever its value is', () => {
    for (const value of ['', 'N/A', '0.12345678901234', { a: 1 }]) {
      const fields = fieldsOf({ item: { ...item, value, deleted: true }, at: 0n }, 1n);
      expect([fields[3], fields[5], findFault(fields)], String(value)).toEqual([null, '1', undefined]);
      expect(findFault(fieldsOf({ item: { ...item, value }, at: 0n }, 1n))).toMatchObject({ column: 'value' });
    }
  });

  it(`numbers mean the same as before (seed ${seed})`, () => {
    fc.assert(
      fc.property(fc.double({ noNaN: true, noDefaultInfinity: true }), (value) => {
        const text = fieldsOf({ item: { ...item, value }, at: 0n }, 1n)[3]!;
        expect(Number(text)).toBe(value === 0 ? 0 : value);
        if (Math.abs(Math.log10(Math.abs(value) || 1)) < 90) expect(text).not.toMatch(/e/i);
      }),
      { seed, numRuns: 2000 },
    );
  });

  it(`is read from its line as it was (seed ${seed})`, () => {
    const text = fc.option(
      fc.string({ unit: 'binary' }).filter((one) => one.isWellFormed()),
      { nil: null },
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(text, text, text), { minLength: 1 }), (rows) => {
        const fields = rows.map(([id, name, kind]): Fields => [id, name, kind, null, null, '1', '7']);
        const [header, ...read] = parse(`${csvColumns.join(',')}\n${fields.map(csvLine).join('')}`, {
          record_delimiter: '\n',
          cast: (field, { quoting }) => (quoting || field !== '\\N' ? field : null),
        }) as unknown as Fields[];
        expect(header).toEqual([...csvColumns]);
        expect(read).toEqual(fields);
      }),
      { seed },
    );
  });

  it('tells what cannot enter the copy', () => {
    expect(findFault(right)).toBeUndefined();
    const wrong: [number, string | null, string][] = [
      [0, null, 'id'], [0, '', 'id'], [3, 'much', 'value'], [3, '1'.repeat(29), 'value'], [3, '0.12345678901', 'value'], [3, '1e5', 'value'],
      [4, null, 'updated_at'], [4, '1969-12-31T00:00:00Z', 'updated_at'], [4, '2262-04-12T00:00:00Z', 'updated_at'], [4, '2026-01-01T00:00:00', 'updated_at'],
      [5, 'yes', 'deleted'], [5, null, 'deleted'], [6, 'x', '_version'],
    ]; // biome-ignore format: triples
    for (const [index, text, column] of wrong) {
      expect(findFault(right.with(index, text)), `${column} ${text}`).toMatchObject({ column });
    }
    expect(findFault([...right, 'more'])?.reason).toMatch(/8 fields/);
  });

  it('half of a surrogate pair is kept as its escape', () => {
    expect(fieldsOf({ item: { ...item, name: 'a\ud800b' }, at: 0n }, 1n)[1]).toBe('a\\ud800b');
  });
});
