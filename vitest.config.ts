import { existsSync, statfsSync } from 'node:fs';
import { defineConfig } from 'vitest/config';

/**
 * Servers of tests keep their data in memory where there is plenty: a sixth of their processor time is waiting for disks,
 * and what a killed process has written is there afterwards all the same.
 */
function memoryFolder(): Record<string, string> {
  const folder = '/dev/shm';
  if (process.env.TMPDIR !== undefined || !existsSync(folder)) return {};
  const { bavail, bsize } = statfsSync(folder);
  return bavail * bsize > 8 * 1024 ** 3 ? { TMPDIR: folder } : {};
}

/**
 * Unit tests come first. Of those in test/, which start servers and wait for them a quarter of their time, three files run
 * at once: on two cores that makes the whole an eighth shorter.
 */
export default defineConfig({
  test: {
    pool: 'forks',
    projects: [
      {
        test: {
          name: 'unit',
          include: ['{activities,api,cli,flows,model,workers,bench,console}/**/*.test.ts'],
          testTimeout: 30_000,
          // They keep nothing, and share what they import.
          isolate: false,
          maxWorkers: 2,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'servers',
          include: ['test/**/*.test.ts'],
          setupFiles: ['test/port_range.ts'],
          env: memoryFolder(),
          testTimeout: 180_000,
          hookTimeout: 180_000,
          // What is waited for comes in milliseconds, or never: a stall of the machine must not decide.
          expect: { poll: { timeout: 20_000 } },
          maxWorkers: 3,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
