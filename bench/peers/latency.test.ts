import { expect, test } from 'vitest';
import { latencyFigures, percentile } from './latency.ts';

test('takes the nearest rank', () => {
  const values = Array.from({ length: 100 }, (_, index) => index + 1);
  expect([0.5, 0.95, 0.99, 1].map((p) => percentile(values, p))).toEqual([50, 95, 99, 100]);
  expect(percentile([7], 0.5)).toBe(7);
  expect(() => percentile([], 0.5)).toThrow(RangeError);
});

test('figures are of the time from commit to arrival, in any order', () => {
  const committed = new Map([
    [1, 1000],
    [2, 1000.5],
    [3, 2000],
  ]);
  const arrived = new Map([
    [3, 2004],
    [1, 1030],
    [2, 1020.74],
    [9, 0],
  ]);
  expect(latencyFigures(committed, arrived)).toEqual({ p50_ms: 20.2, p95_ms: 30, p99_ms: 30, max_ms: 30, samples: 3 });
});

test('a row that never arrived is no latency', () => {
  expect(() => latencyFigures(new Map([[1, 1000]]), new Map())).toThrow('row 1 did not arrive');
});
