/** Numbers of a set of latencies. */
export interface LatencyFigures {
  p50_ms: number;
  p95_ms: number;
  p99_ms: number;
  max_ms: number;
  samples: number;
}

/** The value that the fraction `p` of the sorted values does not exceed (nearest rank). */
export function percentile(sorted: number[], p: number): number {
  if (sorted.length === 0) throw new RangeError('no values');
  return sorted[Math.max(0, Math.ceil(sorted.length * p) - 1)]!;
}

/** Latencies of all rows of `committed`; throws when one of them never arrived. */
export function latencyFigures(committed: Map<number, number>, arrived: Map<number, number>): LatencyFigures {
  const latencies = [...committed].map(([id, from]) => {
    const to = arrived.get(id);
    if (to === undefined) throw new RangeError(`row ${id} did not arrive`);
    return to - from;
  });
  const sorted = latencies.sort((a, b) => a - b);
  const figure = (p: number) => Math.round(percentile(sorted, p) * 10) / 10;
  return { p50_ms: figure(0.5), p95_ms: figure(0.95), p99_ms: figure(0.99), max_ms: figure(1), samples: sorted.length };
}
