import { defineConfig } from 'vitest/config';

/**
 * Tests beside their files run side by side; those in test/ start servers, and run two files at once. Two files that
 * start the whole product again and again run beside each other alone.
 */
const product = ['stack', 'readme'].map((name) => `test/${name}.test.ts`);
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
          exclude: product,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          ...servers,
          name: 'product',
          include: product,
          maxWorkers: 2,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
