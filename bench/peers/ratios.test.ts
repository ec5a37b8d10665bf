import { expect, test } from 'vitest';
import type { SideFigures } from './measure.ts';
import { compareSides } from './ratios.ts';

function figures(
  rate: number,
  cpu: Record<string, number> | null,
  memory: Record<string, number>,
  p50: number,
): SideFigures {
  const latency = { p50_ms: p50, p95_ms: 2 * p50, p99_ms: 3 * p50, max_ms: 4 * p50, samples: 10 };
  return {
    rate: {
      changes_per_second: rate,
      seconds: 1,
      seconds_from_first: null,
      cpu_seconds: cpu,
    },
    latency: [{ wanted_changes_per_second: 1000, written_changes_per_second: 999, ...latency, cpu_seconds: null }],
    peak_memory_bytes: memory,
  };
}

test('Sluice over each peer', () => {
  const all = {
    sluice: figures(90_000, { worker: 1, clickhouse: 2, postgres: 50 }, { worker: 100, clickhouse: 200 }, 40),
    debezium_kafka: figures(30_000, { kafka: 5, connect: 7, postgres: 60 }, { kafka: 500, connect: 700 }, 320),
  };
  expect(compareSides(all)).toEqual({ debezium_kafka: { rate: 3, cpu: 0.25, memory: 0.25, p50: { 1000: 0.13 } } });
});

test('no ratio where a figure is not known', () => {
  const all = { sluice: figures(1, null, { a: 1 }, 1), debezium_clickhouse: figures(1, { a: 1 }, { a: 1 }, 1) };
  expect(compareSides(all).debezium_clickhouse?.cpu).toBeNull();
  expect(compareSides({ debezium_kafka: figures(1, null, { a: 1 }, 1) })).toEqual({});
});
