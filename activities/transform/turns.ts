/**
 * Rules and checks compute without ever waiting: over many rows they would keep everything else of their process waiting,
 * heartbeats and other people's requests too. So they take turns.
 */
import { performance } from 'node:perf_hooks';
import { setImmediate } from 'node:timers/promises';
import { SluiceError } from '../../model/errors.ts';

/** How long others wait, in milliseconds; longer where a single row takes longer. */
const turnMilliseconds = 20;

/** How long rows that somebody has sent may take in all, in milliseconds, without the turns of others. */
const mostMilliseconds = 2000;

export class Turns {
  #begun = performance.now();
  #worked = 0;

  /** True when others should go first. */
  get over(): boolean {
    return performance.now() - this.#begun > turnMilliseconds;
  }

  /** Milliseconds of all turns that are over. */
  get worked(): number {
    return this.#worked;
  }

  /** True when no row may be looked at any more. */
  get spent(): boolean {
    return this.#worked > mostMilliseconds;
  }

  /** Lets others do what they have to do, then begins the next turn. */
  async pass(): Promise<void> {
    this.#worked += performance.now() - this.#begun;
    await setImmediate();
    this.#begun = performance.now();
  }
}

/**
 * Does something with each of the rows that somebody has sent, in turns. Errors: `configuration` when that takes longer than it
 * may, together with what was done in these turns before.
 */
export async function forEachRow<Row>(
  rows: readonly Row[],
  turns: Turns,
  each: (row: Row, number: number) => void,
): Promise<void> {
  for (let number = 0; number < rows.length; number++) {
    each(rows[number]!, number);
    if (!turns.over) continue;
    await turns.pass();
    if (!turns.spent) continue;
    throw new SluiceError(
      'configuration',
      `it took longer than ${mostMilliseconds / 1000} s: ${number + 1} of ${rows.length} rows were done`,
      'Send fewer rows, or make the expression cheaper.',
    );
  }
}
