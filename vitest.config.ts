import { defineConfig } from 'vitest/config';

/**
 * Three files run at once: those in test/ start servers and often wait for them. They begin with the largest; the small
 * ones beside their sources fill the end.
 */
export default defineConfig({
  test: {
    pool: 'forks',
    maxWorkers: 3,
    projects: [
      {
        test: {
          name: 'unit',
          include: ['{activities,api,cli,flows,model,workers,bench,console}/**/*.test.ts'],
          testTimeout: 30_000,
          // They keep nothing, and share what they import.
          isolate: false,
        },
      },
      {
        test: {
          name: 'servers',
          include: ['test/**/*.test.ts'],
          setupFiles: ['test/port_range.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
