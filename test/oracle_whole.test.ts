/**
 * The whole system while parts of it die, alone and all at once, and people pause and re-sync it; the source is the judge.
 * Another seed each time; one that failed is run again with ORACLE_SEED=…, longer ones with test/oracle/run.ts --whole.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { runWhole, startWholeParts, type WholeParts } from './oracle/whole.ts';

const seed = process.env.ORACLE_SEED ?? String(Math.floor(Math.random() * 1e9));

let parts: WholeParts;

beforeAll(async () => {
  parts = await startWholeParts();
}, 60_000);

afterAll(async () => {
  await parts?.[Symbol.asyncDispose]();
});

it(`keeps every copy equal to its source, whatever dies: ORACLE_SEED=${seed}`, async () => {
  const result = await runWhole(parts, { seed, seconds: 6 });
  console.log(JSON.stringify(result));
  expect(result.problems).toEqual([]);
  expect(result.rows).toBeGreaterThan(0);
}, 240_000);
