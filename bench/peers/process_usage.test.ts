import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { expect, test } from 'vitest';
import { cpuSeconds, parseStat, peakMemory, treeSeconds, usedBetween } from './process_usage.ts';

const line = (pid: number, name: string, parent: number, ticks: number[]) =>
  `${pid} (${name}) S ${parent} 1 1 0 -1 4194560 10 20 30 40 ${ticks.join(' ')} 20 0 8 0 12345 1000 200`;

test('reads parent and processor time of a process, whatever its name is', () => {
  expect(parseStat(line(42, 'java', 7, [100, 50, 25, 5]))).toEqual({ pid: 42, parent: 7, cpuSeconds: 1.8 });
  expect(parseStat(line(42, 'a) S 9 (b', 7, [100, 0, 0, 0]))).toEqual({ pid: 42, parent: 7, cpuSeconds: 1 });
  expect(parseStat('')).toBeUndefined();
  expect(parseStat('42 (java) S 7')).toBeUndefined();
});

test('sums a process with all below it', () => {
  const stats = [
    [1, 0, 10],
    [2, 1, 20],
    [3, 2, 30],
    [4, 9, 40],
  ].map(([pid, parent, cpu]) => ({ pid: pid!, parent: parent!, cpuSeconds: cpu! }));
  expect(treeSeconds(1, stats)).toBe(60);
  expect(treeSeconds(4, stats)).toBe(40);
  expect(treeSeconds(5, stats)).toBe(0);
});

test('tells what was used between two readings', () => {
  expect(usedBetween({ a: 1, b: 2 }, { a: 1.5, b: 4.256 })).toEqual({ a: 0.5, b: 2.26, total: 2.76 });
  expect(usedBetween(null, { a: 1 })).toBeNull();
});

test.runIf(process.platform === 'linux')('counts what a child uses, and its memory', async () => {
  const child = spawn(process.execPath, ['-e', 'const end = Date.now() + 60000; while (Date.now() < end);']);
  try {
    const pids = { own: process.pid, child: child.pid! };
    let used = cpuSeconds(pids)!;
    while (used.child < 0.3) used = cpuSeconds(pids)!;
    expect(used.own).toBeGreaterThanOrEqual(used.child);
    expect(peakMemory(pids)!.child).toBeGreaterThan(10_000_000);
  } finally {
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
});
