import { expect, test } from 'vitest';
import { changeStatements } from '../capture.ts';
import { transaction } from './steady_load.ts';

/** Keys that the statements insert, update or delete. */
function keys(sql: string, word: 'INSERT' | 'UPDATE' | 'DELETE'): number[] {
  const range = word === 'INSERT' ? /generate_series\((\d+), (\d+)\)/ : /id > (\d+) AND id <= (\d+)/;
  return sql
    .split('; ')
    .filter((statement) => statement.startsWith(word))
    .flatMap((statement) => {
      const [, from, to] = range.exec(statement)!.map(Number);
      const first = word === 'INSERT' ? from! : from! + 1;
      return Array.from({ length: to! - first + 1 }, (_, index) => first + index);
    });
}

test('transactions insert keys that rise, and never touch the row that marks another', () => {
  const all = Array.from({ length: 20 }, (_, index) => transaction(index, 10));
  const inserted = all.flatMap(({ sql }) => keys(sql, 'INSERT'));
  expect(inserted).toEqual([...inserted].sort((a, b) => a - b));
  expect(new Set(inserted).size).toBe(inserted.length);
  const updated = all.flatMap(({ sql }) => keys(sql, 'UPDATE'));
  for (const key of updated) expect(inserted).toContain(key);
  for (const { marker, sql } of all) {
    expect(updated).not.toContain(marker);
    expect(keys(sql, 'INSERT').at(-1)).toBe(marker);
  }
  expect(all.map(({ changes }) => changes)).toEqual([6, ...Array(19).fill(10)]);
  expect(inserted.length + updated.length).toBe(196);
});

test.each([1, 2, 3])('a transaction of %i changes', (perTransaction) => {
  const { sql, changes } = transaction(5, perTransaction);
  expect(changes).toBe(perTransaction);
  expect(keys(sql, 'INSERT').length + keys(sql, 'UPDATE').length).toBe(perTransaction);
});

test.each([
  [1000, 100],
  [20_000, 1000],
  [2006, 7],
  [100, 1000],
])('%i changes in statements of %i', (changes, perTransaction) => {
  const statements = changeStatements(changes, perTransaction);
  const count = (word: 'INSERT' | 'UPDATE' | 'DELETE') => statements.flatMap((sql) => keys(sql, word)).length;
  expect(count('INSERT')).toBe(changes / 2);
  expect(count('INSERT') + count('UPDATE') + count('DELETE')).toBe(changes);
  expect(keys(statements.at(-1)!, 'DELETE').at(-1)).toBe(changes / 2);
});
