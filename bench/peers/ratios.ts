/** Sluice's figures over those of each peer. */
import type { SideFigures } from './measure.ts';

/** Figures by side; those that were not wanted are not there. */
export interface PeerFigures {
  sluice?: SideFigures;
  debezium_kafka_tuned?: SideFigures;
  debezium_kafka?: SideFigures;
  debezium_clickhouse?: SideFigures;
}

export interface Ratios {
  /** Changes a second of Sluice over those of the peer: above 1, Sluice is faster. */
  rate: number;
  /** Processor time of the side's own processes, PostgreSQL apart, over that of the peer: below 1, Sluice needs less. */
  cpu: number | null;
  /** Sum of peak memories of Sluice's processes over that of the peer's. */
  memory: number | null;
  /** Median latency of Sluice over that of the peer, by changes a second. */
  p50: Record<string, number>;
}

/** Sluice over each peer. */
export function compareSides(figures: PeerFigures): Record<string, Ratios> {
  const { sluice, ...peers } = figures;
  if (sluice === undefined) return {};
  return Object.fromEntries(Object.entries(peers).map(([name, peer]) => [name, compare(sluice, peer)]));
}

function compare(sluice: SideFigures, peer: SideFigures): Ratios {
  const p50 = sluice.latency.map((own, index) => [
    String(own.wanted_changes_per_second),
    over(own.p50_ms, peer.latency[index]!.p50_ms) ?? Number.NaN,
  ]);
  return {
    rate: over(sluice.rate.changes_per_second, peer.rate.changes_per_second) ?? Number.NaN,
    cpu: over(ownSeconds(sluice), ownSeconds(peer)),
    memory: over(sum(Object.values(sluice.peak_memory_bytes)), sum(Object.values(peer.peak_memory_bytes))),
    p50: Object.fromEntries(p50),
  };
}

/** Of the side's own processes: those whose memory is known, too. */
function ownSeconds({ rate, peak_memory_bytes }: SideFigures): number | undefined {
  const own = Object.keys(peak_memory_bytes);
  return rate.cpu_seconds === null ? undefined : sum(own.map((name) => rate.cpu_seconds?.[name] ?? null));
}

/** Undefined when one of the values is not known. */
function sum(values: (number | null)[]): number | undefined {
  return values.reduce<number | undefined>(
    (total, value) => (total === undefined || value === null ? undefined : total + value),
    0,
  );
}

function over(a: number | undefined, b: number | undefined): number | null {
  return a === undefined || b === undefined ? null : Math.round((a / b) * 100) / 100;
}
