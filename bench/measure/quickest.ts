/** How quickly something is done, for benchmarks and tests that bound it: a stall of the machine must not decide. */

/** Milliseconds of the quickest of up to `rounds` calls; the first below `enough` ends them. */
export async function quickest(rounds: number, enough: number, call: () => Promise<unknown>): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let round = 0; round < rounds && least >= enough; round += 1) {
    const began = performance.now();
    await call();
    least = Math.min(least, performance.now() - began);
  }
  return least;
}
