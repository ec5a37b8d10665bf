/** What every kind of run of the oracle needs, and tells. */
import { type PartName, type StartedParts, startParts } from '../../workers/embedded/start_parts.ts';
import type { ProxyFigures } from './proxy.ts';

export interface RunResult {
  seed: string;
  ok: boolean;
  /** What is wrong, worst first. */
  problems: string[];
  seconds: number;
  rows: number;
  transactions: number;
  faults: Record<string, number>;
  proxy: ProxyFigures;
}

/** Parts for any number of runs, durable as in earnest. */
export function startDurableParts<Name extends PartName>(names: Name[]): Promise<StartedParts<Name>> {
  return startParts(names, {
    // Commits of sessions that do not wait stay in memory for long: a crash takes many of them back.
    postgresSettings: ['fsync=on', 'full_page_writes=on', 'wal_writer_delay=1000ms', 'max_prepared_transactions=50'],
  });
}
