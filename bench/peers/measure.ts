/** What is measured of a side, the same for each, and in the same order. */
import type pg from 'pg';
import { changeStatements } from '../capture.ts';
import { peakMemory, round, withCpu } from '../measure/processes.ts';
import { type LatencyFigures, latencyFigures } from './latency.ts';
import { say } from './say.ts';
import type { Side } from './side.ts';
import { commitTimes, writeSteadily } from './steady_load.ts';

export interface Sizes {
  /** Changes that wait in the log, for the rate. */
  changes: number;
  /** The same before, not counted: compilers, caches, connections. Java needs some 100,000. */
  warmup: number;
  perTransaction: number;
  /** Changes a second at which latency is measured. */
  rates: number[];
  /** How long each of them is counted. */
  seconds: number;
}

/** The PostgreSQL that all sides read. */
export interface Source {
  client: pg.Client;
  /** Of the server. */
  pid: number;
}

export interface RateFigures {
  changes_per_second: number;
  /** From the order to read on until the last change was there. */
  seconds: number;
  /** The same from the first change that was there; null where that is not known. */
  seconds_from_first: number | null;
  /** By process: of the side, of `postgres`, and of this one, `bench`. */
  cpu_seconds: Record<string, number> | null;
}

export interface LatencyRound extends LatencyFigures {
  wanted_changes_per_second: number;
  written_changes_per_second: number;
  /** Of the whole round, also of its first quarter, which is not counted otherwise. */
  cpu_seconds: Record<string, number> | null;
}

export interface SideFigures {
  rate: RateFigures;
  latency: LatencyRound[];
  peak_memory_bytes: Record<string, number | null>;
}

/** Changes of a transaction of the steady load. */
const steadyTransaction = 10;

/** Measures rate, latencies, processor time and memory of a side, which is stopped. */
export async function measureSide(name: string, side: Side, source: Source, sizes: Sizes): Promise<SideFigures> {
  say(`${name}: ${sizes.warmup} changes to warm up`);
  if (sizes.warmup > 0) await drainNew(side, source, sizes.warmup, sizes.perTransaction);
  say(`${name}: ${sizes.changes} changes`);
  const rate = await drainNew(side, source, sizes.changes, sizes.perTransaction);
  const latency = await measureLatencies(name, side, source, sizes);
  const peaks = Object.entries(side.pids).map(([process, pid]) => [process, peakMemory(pid)]);
  return { rate, latency, peak_memory_bytes: Object.fromEntries(peaks) };
}

/** Empties the table, writes changes to it, and lets the side read them. */
async function drainNew(side: Side, source: Source, changes: number, perTransaction: number): Promise<RateFigures> {
  const { client } = source;
  await emptyTable(side, client);
  for (const statement of changeStatements(changes, perTransaction)) await client.query(statement);
  await client.query('CHECKPOINT');
  const pids = { ...side.pids, postgres: source.pid };
  const { result, cpu } = await withCpu(pids, () => side.drain({ changes, lastId: changes / 2 }));
  const { seconds, secondsFromFirst } = result;
  return {
    changes_per_second: Math.round(changes / (secondsFromFirst ?? seconds)),
    seconds: round(seconds, 2),
    seconds_from_first: secondsFromFirst === undefined ? null : round(secondsFromFirst, 2),
    cpu_seconds: cpu,
  };
}

async function measureLatencies(name: string, side: Side, source: Source, sizes: Sizes): Promise<LatencyRound[]> {
  const { client } = source;
  await emptyTable(side, client);
  await side.resume();
  const rounds: LatencyRound[] = [];
  let earlier = 0;
  for (const changesPerSecond of sizes.rates) {
    say(`${name}: ${changesPerSecond} changes/s for ${sizes.seconds} s`);
    // The first quarter is not counted.
    const seconds = sizes.seconds * (4 / 3);
    const load = { changesPerSecond, seconds, perTransaction: steadyTransaction, earlier };
    const watch = await side.watch();
    const { result, cpu } = await withCpu({ ...side.pids, postgres: source.pid }, async () => {
      const written = await writeSteadily(client, load);
      return { written, arrived: await watch.arrivals(written.markers, written.changes) };
    });
    const { written, arrived } = result;
    const counted = written.markers.slice(Math.round(written.markers.length / 4));
    rounds.push({
      wanted_changes_per_second: changesPerSecond,
      written_changes_per_second: written.changesPerSecond,
      ...latencyFigures(await commitTimes(client, counted), arrived),
      cpu_seconds: cpu,
    });
    earlier += written.markers.length;
  }
  await side.stop();
  return rounds;
}

async function emptyTable(side: Side, client: pg.Client): Promise<void> {
  await client.query('TRUNCATE public.bench');
  await side.empty();
}
