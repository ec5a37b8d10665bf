/** What processes cost, as Linux tells it in /proc; null elsewhere. */
import { readdirSync, readFileSync } from 'node:fs';

/** Clock ticks a second in /proc: 100 on all Linux systems of our day. */
const ticksPerSecond = 100;

interface ProcessStat {
  pid: number;
  parent: number;
  /** Processor time of the process and of its children that have ended. */
  cpuSeconds: number;
}

/** Reads a line of /proc/{pid}/stat. The name, in brackets, may hold anything. Undefined when it is no such line. */
export function parseStat(line: string): ProcessStat | undefined {
  const nameEnd = line.lastIndexOf(')');
  const pid = Number.parseInt(line, 10);
  const fields = line.slice(nameEnd + 2).split(' ');
  // Counted from the state, which is the third of the line: parent 4; utime, stime, cutime, cstime 14 to 17.
  const [parent, ...ticks] = [fields[1], ...fields.slice(11, 15)].map(Number);
  if (nameEnd < 0 || !(pid > 0) || ticks.length < 4 || ![parent, ...ticks].every(Number.isFinite)) return undefined;
  return { pid, parent: parent!, cpuSeconds: ticks.reduce((sum, tick) => sum + tick, 0) / ticksPerSecond };
}

/** Sum over a process and everything below it. */
export function treeSeconds(root: number, stats: ProcessStat[]): number {
  const own = stats.find((stat) => stat.pid === root)?.cpuSeconds ?? 0;
  const children = stats.filter((stat) => stat.parent === root);
  return children.reduce((sum, child) => sum + treeSeconds(child.pid, stats), own);
}

/** Processor seconds so far of each process with its children, by the names of `pids`. */
export function cpuSeconds<Name extends string>(pids: Record<Name, number>): Record<Name, number> | null {
  if (process.platform !== 'linux') return null;
  const stats = readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => parseStat(readOr(`/proc/${pid}/stat`)) ?? []);
  return eachOf(pids, (pid) => treeSeconds(pid, stats));
}

/** What was used between two readings; rounded, with the sum. */
export function usedBetween(
  before: Record<string, number> | null,
  after: Record<string, number> | null,
): (Record<string, number> & { total: number }) | null {
  if (before === null || after === null) return null;
  const used = eachOf(after, (seconds, name) => Math.round((seconds - (before[name] ?? 0)) * 100) / 100);
  const total = Object.values(used).reduce((sum, seconds) => sum + seconds, 0);
  return { ...used, total: Math.round(total * 100) / 100 };
}

/** Peak resident memory of each process, in bytes. */
export function peakMemory<Name extends string>(pids: Record<Name, number>): Record<Name, number> | null {
  if (process.platform !== 'linux') return null;
  return eachOf(pids, (pid) => Number(/VmHWM:\s+(\d+)/.exec(readOr(`/proc/${pid}/status`))?.[1] ?? 0) * 1024);
}

function eachOf<Name extends string, Value>(
  values: Record<Name, number>,
  map: (value: number, name: Name) => Value,
): Record<Name, Value> {
  const entries = Object.entries<number>(values).map(([name, value]) => [name, map(value, name as Name)]);
  return Object.fromEntries(entries) as Record<Name, Value>;
}

/** A process may end between being listed and being read. */
function readOr(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
