/**
 * What the simulated assets follow from, kept in `$SLUICE_HOME/asset_api.json`: the seed, the beginning, and each change
 * of the rate. The assets themselves need no storage: they are computed from it, so a crash cannot lose or alter what
 * was served, and there is no file to grow or to tear.
 */
import { closeSync, fsyncSync, mkdirSync, openSync, readFileSync, renameSync, writeSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';
import { SluiceError } from '../../model/errors.ts';
import type { MarketPlan } from './asset_market.ts';

/** Changes a second; more would make a restart after a long run slow, since all changes are made again. */
export const mostChangesPerSecond = 100;

export const rateSchema = z.number().min(0).max(mostChangesPerSecond);

const planSchema = z.strictObject({
  seed: z.string(),
  rates: z.array(z.strictObject({ from: z.int(), per_second: rateSchema })).min(1),
});

export interface PlanWishes {
  seed?: string;
  /** Changes a second. */
  rate?: number;
}

const defaults = { seed: '1', rate: 0.5 };

/**
 * The plan to serve from `now` on: the kept one, with another rate from now on if that is wished, or a new one.
 * `folder` undefined keeps nothing. Errors: `configuration` when another seed is wished than the kept one, or the file
 * is damaged.
 */
export function openPlan(folder: string | undefined, wishes: PlanWishes, now: number): MarketPlan {
  const kept = folder === undefined ? undefined : readPlan(planFile(folder));
  if (kept === undefined) {
    const plan = {
      seed: wishes.seed ?? defaults.seed,
      rates: [{ from: now, per_second: wishes.rate ?? defaults.rate }],
    };
    keepPlan(folder, plan);
    return plan;
  }
  if (wishes.seed !== undefined && wishes.seed !== kept.seed) {
    throw new SluiceError(
      'configuration',
      `the asset API of this folder was begun with seed ${kept.seed}, not ${wishes.seed}`,
      'Leave the seed out, use another SLUICE_HOME, or delete the file to begin anew.',
      { file: planFile(folder!) },
    );
  }
  if (wishes.rate !== undefined) changeRate(folder, kept, wishes.rate, now);
  return kept;
}

/** From `now` on, changes come at `rate`; the past stays as it was. Changes and keeps `plan`. */
export function changeRate(folder: string | undefined, plan: MarketPlan, rate: number, now: number): void {
  const last = plan.rates.at(-1)!;
  if (last.per_second === rate) return;
  plan.rates.push({ from: Math.max(now, last.from), per_second: rate });
  keepPlan(folder, plan);
}

function planFile(folder: string): string {
  return path.join(folder, 'asset_api.json');
}

function readPlan(file: string): MarketPlan | undefined {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw damaged(file, error);
  }
  try {
    return planSchema.parse(JSON.parse(text));
  } catch (error) {
    throw damaged(file, error);
  }
}

function damaged(file: string, cause: unknown): SluiceError {
  return new SluiceError(
    'configuration',
    'the file of the simulated asset API cannot be read',
    'Restore it, or delete it to begin with new assets.',
    { file },
    cause,
  );
}

/** Written whole beside the old file, then renamed over it. */
function keepPlan(folder: string | undefined, plan: MarketPlan): void {
  if (folder === undefined) return;
  mkdirSync(folder, { recursive: true });
  const file = planFile(folder);
  const descriptor = openSync(`${file}.new`, 'w');
  try {
    writeSync(descriptor, `${JSON.stringify(plan)}\n`);
    fsyncSync(descriptor);
  } finally {
    closeSync(descriptor);
  }
  renameSync(`${file}.new`, file);
}
