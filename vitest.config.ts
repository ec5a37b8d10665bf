import { defineConfig } from 'vitest/config';

/**
 * Tests beside their files run side by side; those in test/ start servers, and run two files at once. Files that start the
 * whole product, or count seconds, run alone.
 */
const alone = ['stack', 'readme'].map((name) => `test/${name}.test.ts`);
const servers = { testTimeout: 180_000, hookTimeout: 180_000, setupFiles: ['test/port_range.ts'] };

export default defineConfig({
  test: {
    pool: 'forks',
    projects: [
      {
        test: {
          name: 'unit',
          include: ['{activities,api,cli,flows,model,workers,bench,console}/**/*.test.ts'],
          testTimeout: 30_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          ...servers,
          name: 'servers',
          include: ['test/**/*.test.ts'],
          exclude: alone,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...servers,
          name: 'product',
          include: alone,
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
