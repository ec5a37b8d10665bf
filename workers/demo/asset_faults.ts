/** Faults that the simulated asset API can be told to show: what real ones do on a bad day. */
import { z } from 'zod';
import { type Random, seededRandom } from './random.ts';

/**
 * `rate_limit` 429 with Retry-After · `server_error` 500 · `slow` answers late · `cut` ends the connection inside the
 * body · `broken_json` a body that is no JSON · `page_size` serves pages of another size than asked · `repeat` serves
 * the page before again, then goes on · `reorder` shuffles a page · `clock_behind` shows the assets of a while ago.
 */
export const faultKinds = [
  'rate_limit',
  'server_error',
  'slow',
  'cut',
  'broken_json',
  'page_size',
  'repeat',
  'reorder',
  'clock_behind',
] as const;

export const faultSchema = z.strictObject({
  kind: z.enum(faultKinds),
  /** How often it shows; without it once, or for ever when a probability is given. */
  count: z.int().min(1).max(1_000_000).optional(),
  /** Chance for each request. */
  probability: z.number().min(0).max(1).optional(),
  seed: z.union([z.string(), z.int()]).optional(),
  /** Seconds, for `rate_limit`. */
  retry_after: z.int().min(0).max(86_400).default(1),
  retry_after_form: z.enum(['seconds', 'date']).default('seconds'),
  /** For `slow`. */
  delay_ms: z.int().min(0).max(600_000).default(5_000),
  /** For `page_size`. */
  page_size: z.int().min(1).max(1_000).default(7),
  /** For `clock_behind`. */
  behind_ms: z.int().min(1).max(86_400_000).default(30_000),
});

export type Fault = z.infer<typeof faultSchema>;

interface Armed {
  fault: Fault;
  random: Random;
  left: number;
  shown: number;
}

/** The faults that are switched on. */
export class Faults {
  #armed: Armed[] = [];

  add(fault: Fault): void {
    const left = fault.count ?? (fault.probability === undefined ? 1 : Number.POSITIVE_INFINITY);
    this.#armed.push({ fault, random: seededRandom(`fault/${fault.seed ?? 1}`), left, shown: 0 });
  }

  clear(): void {
    this.#armed = [];
  }

  /** The fault that the next request shows: the first that is due, in the order they were switched on. */
  take(): Fault | undefined {
    for (const armed of this.#armed) {
      if (armed.left <= 0) continue;
      if (armed.fault.probability !== undefined && !armed.random.chance(armed.fault.probability)) continue;
      armed.left--;
      armed.shown++;
      return armed.fault;
    }
    return undefined;
  }

  /** All since the last clearing; `left` is null for those without an end. */
  list(): (Fault & { left: number | null; shown: number })[] {
    return this.#armed.map(({ fault, left, shown }) => ({
      ...fault,
      left: Number.isFinite(left) ? left : null,
      shown,
    }));
  }
}
