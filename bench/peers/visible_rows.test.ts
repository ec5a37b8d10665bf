import { expect, test } from 'vitest';
import { firstSights } from './visible_rows.ts';

test('a row was there when first one as large was seen', () => {
  const sights = [
    { at: 10, id: 5 },
    { at: 20, id: 6 },
    { at: 30, id: 12 },
  ];
  const seen = firstSights(sights, [12, 3, 5, 6, 7]);
  expect(Object.fromEntries(seen)).toEqual({ 3: 10, 5: 10, 6: 20, 7: 30, 12: 30 });
});

test('a row that was not seen is left out', () => {
  expect(firstSights([{ at: 10, id: 5 }], [6]).size).toBe(0);
  expect(firstSights([], [1]).size).toBe(0);
});
