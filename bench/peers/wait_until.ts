/** Waiting for another process, never for ever. */
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../model/errors.ts';

/** Asks every `everyMs` until the answer is not undefined. Error: `timeout`, saying what was waited for. */
export async function waitUntil<T>(
  what: string,
  ask: () => Promise<T | undefined>,
  { withinMs = 60_000, everyMs = 50 }: { withinMs?: number; everyMs?: number } = {},
): Promise<T> {
  const deadline = Date.now() + withinMs;
  for (;;) {
    const answer = await ask();
    if (answer !== undefined) return answer;
    if (Date.now() > deadline) {
      const reason = `${what}: not within ${Math.round(withinMs / 1000)} s`;
      throw new SluiceError('timeout', reason, 'Run it again when the machine is quiet, or with fewer --changes.');
    }
    await sleep(everyMs);
  }
}
