/** What is done to a whole system while its source changes: a list of faults and orders, made by fast-check from a seed. */
import fc from 'fast-check';
import { oracleTables } from './tables.ts';

export const wholeParts = ['worker', 'postgres', 'clickhouse', 'temporal'] as const;
export type WholePart = (typeof wholeParts)[number];

/** One thing that is done; `for` and `away` are milliseconds. */
export type Act =
  /** kill -9 of all of them at once; each is started again after that time. */
  | { do: 'kill'; parts: readonly WholePart[]; away: number }
  /** They stand still, and go on as if nothing had been. */
  | { do: 'stall'; parts: readonly WholePart[]; for: number }
  /** A worker is told to end, as at a deployment, and another one is started. */
  | { do: 'replace' }
  | { do: 'cut'; which: 'all' | 'one' }
  /** Sessions with the source hear nothing any more, and nobody ends them. */
  | { do: 'freeze'; for: number }
  | { do: 'slow'; bytesPerSecond: number; for: number }
  /** Share of inserts that are lost, or done and reported as failed, or done late. */
  | { do: 'trouble'; share: number }
  | { do: 'pause' | 'stop'; for: number }
  | { do: 'addTable' | 'removeTable' | 'resyncTable' | 'alterTable'; table: string }
  | { do: 'resyncAll' };

export interface Plan {
  workers: 1 | 2;
  /** Tables that are copied from the beginning. */
  tables: string[];
  bufferSize: number;
  lookSeconds: number;
  leaseSeconds: number;
  leasesPerRun: number;
  ddlTrigger: boolean;
  /** Sessions that change the source. */
  sessions: number;
  /** Milliseconds before each act. */
  acts: { after: number; act: Act }[];
}

const names = oracleTables.map(({ name }) => name);
const milliseconds = (most: number) => fc.integer({ min: 0, max: most });
const someParts = fc.subarray([...wholeParts], { minLength: 1 });
const table = fc.constantFrom(...names);

const act: fc.Arbitrary<Act> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('kill' as const), parts: someParts, away: milliseconds(2_500) }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('kill' as const),
      parts: fc.constant([...wholeParts]),
      away: milliseconds(500),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constant('stall' as const), parts: someParts, for: milliseconds(4_000) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant('stall' as const),
      parts: fc.constant(['worker' as const]),
      for: fc.integer({ min: 11_000, max: 14_000 }),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ do: 'replace' as const }) },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('cut' as const), which: fc.constantFrom('all' as const, 'one' as const) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('freeze' as const), for: fc.constantFrom(500, 3_000, 12_000) }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant('slow' as const),
      bytesPerSecond: fc.constantFrom(20_000, 200_000),
      for: milliseconds(4_000),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({ do: fc.constant('trouble' as const), share: fc.constantFrom(0, 0.02, 0.1, 0.3) }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ do: fc.constantFrom('pause' as const, 'stop' as const), for: milliseconds(3_000) }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('addTable' as const, 'removeTable' as const, 'resyncTable' as const, 'alterTable' as const),
      table,
    }),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'resyncAll' as const }) },
);

const plan = (seconds: number): fc.Arbitrary<Plan> =>
  fc.record({
    workers: fc.constantFrom(1, 1, 2),
    tables: fc.subarray(names, { minLength: 4 }),
    bufferSize: fc.constantFrom(10, 100, 1_000, 10_000),
    lookSeconds: fc.constantFrom(1, 2, 10),
    leaseSeconds: fc.constantFrom(2, 5, 600),
    leasesPerRun: fc.constantFrom(0, 2, 5),
    ddlTrigger: fc.boolean(),
    sessions: fc.integer({ min: 2, max: 4 }),
    acts: fc.array(fc.record({ after: milliseconds(2_000), act }), { minLength: seconds, maxLength: seconds }),
  });

/** The plan of a seed: about `seconds` long. */
export function planOf(seed: string, seconds: number): Plan {
  return fc.sample(plan(seconds), { seed: Number(seed), numRuns: 1 })[0]!;
}
