/** Taking no more than a share of the time, so that nobody notices a comparison that never ends. */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';

/** Longest pause at once (ms): after a very slow part the next one comes all the same. */
const longest = 60_000;

export class Rest {
  readonly #share: number;
  readonly #signal: AbortSignal | undefined;
  #since = performance.now();

  /** `share` of the time is for work, the rest for others. */
  constructor(share: number, signal?: AbortSignal) {
    this.#share = share;
    this.#signal = signal;
  }

  /** Pauses for as long as the work since the last pause calls for. */
  async take(): Promise<void> {
    const worked = performance.now() - this.#since;
    const pause = Math.min(worked * (1 / this.#share - 1), longest);
    if (pause >= 1) await sleep(pause, undefined, { signal: this.#signal });
    this.#since = performance.now();
  }
}
