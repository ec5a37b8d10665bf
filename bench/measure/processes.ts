/** What processes have used, as the system tells it (Linux); elsewhere null. */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import { performance } from 'node:perf_hooks';

/** Peak resident memory of a process in bytes. */
export function peakMemory(pid: number): number | null {
  try {
    return Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]) * 1024;
  } catch {
    return null;
  }
}

/** Lets the next `peakMemory` tell the peak from now on, where the system allows it. */
export function forgetPeak(pid: number): void {
  try {
    // 5 sets the peak to what is resident now.
    writeFileSync(`/proc/${pid}/clear_refs`, '5');
  } catch {
    // Then the peak is that of the whole life.
  }
}

/** Seconds of processor time by name. */
export type CpuSeconds<Name extends string> = Record<Name, number>;

/**
 * Seconds that processes and all their children, also those that have ended, use while `work` runs; `bench` is this
 * process alone. Unlike the time on the clock they say much the same on a busy machine.
 */
export async function withCpu<Name extends string, T>(
  pids: Record<Name, number>,
  work: () => Promise<T>,
): Promise<{ result: T; seconds: number; cpu: CpuSeconds<Name | 'bench'> | null }> {
  const before = readAll(pids);
  const started = performance.now();
  const result = await work();
  const seconds = (performance.now() - started) / 1000;
  const after = readAll(pids);
  if (!before || !after) return { result, seconds, cpu: null };
  const used = [...after].map(([name, spent]) => [name, round(spent - before.get(name)!, 2)]);
  return { result, seconds, cpu: Object.fromEntries(used) as CpuSeconds<Name | 'bench'> };
}

function readAll(pids: Record<string, number>): Map<string, number> | undefined {
  const { user, system } = process.cpuUsage();
  try {
    const processes = readProcesses();
    const trees = Object.entries(pids).map(([name, pid]) => [name, treeSeconds(processes, pid)] as const);
    return new Map([...trees, ['bench', (user + system) / 1e6]]);
  } catch {
    return undefined;
  }
}

interface Process {
  parent: number;
  /** Ticks of its own and of children that have ended. */
  ticks: number;
}

/** Ticks of the clock a second, as Linux counts them for programs. */
const ticksPerSecond = 100;

function readProcesses(): Map<number, Process> {
  const processes = new Map<number, Process>();
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue;
    try {
      const text = readFileSync(`/proc/${name}/stat`, 'utf8');
      // The program's name, in parentheses, may hold anything.
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ');
      const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0);
      processes.set(Number(name), { parent: Number(fields[1]), ticks });
    } catch {
      // It has ended meanwhile.
    }
  }
  return processes;
}

function treeSeconds(processes: Map<number, Process>, root: number): number {
  let ticks = processes.get(root)!.ticks;
  for (const [pid, process] of processes) {
    if (process.parent === root) ticks += treeSeconds(processes, pid) * ticksPerSecond;
  }
  return ticks / ticksPerSecond;
}

/** What else a reader of figures should know: how busy the machine was. */
export function machine(): { cores: number; load: number[]; node: string } {
  return { cores: os.cpus().length, load: os.loadavg().map((value) => round(value, 2)), node: process.version };
}

/** A number with so many digits behind the point. */
export function round(value: number, digits: number): number {
  return Math.round(value * 10 ** digits) / 10 ** digits;
}
