/** Stretches of time that somebody asks for. */
import { SluiceError } from './errors.ts';
import { formatInstant } from './instant.ts';

/** By how much clocks may differ, in milliseconds. */
const clocksDiffer = 60_000;

/**
 * Refuses the end of a stretch (nanoseconds since 1970) that lies in the future: what changes until then would be taken
 * for pulled. `now`: milliseconds since 1970. Errors: `configuration`.
 */
export function expectPast(to: bigint, now: number): void {
  if (to <= BigInt(now + clocksDiffer) * 1_000_000n) return;
  const remedy = 'Name a moment that has passed; what changes later is pulled by the next run of the schedule.';
  throw new SluiceError('configuration', `\`to\` lies in the future: ${formatInstant(to)}`, remedy);
}
