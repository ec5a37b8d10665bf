/** A look at the server's log and at the slot that keeps it for us. */
import type pg from 'pg';
import type { LogState } from '../../../model/log.ts';
import { durablePosition } from './durable.ts';
import { readSlot, type Slot } from './slot.ts';

/** See Source.logState. `budget`: bytes of log that the disk has room for, when somebody has said so. */
export async function logState(client: pg.Client, name: string, budget: number | null): Promise<LogState> {
  const slot = await readSlot(client, name);
  const position = await durablePosition(client);
  return {
    at: new Date().toISOString(),
    position,
    acknowledged: slot && !slot.foreign ? slot.confirmed : null,
    retained_bytes: slot?.retained ?? 0,
    limit_bytes: slot ? limitOf(slot, budget) : null,
    danger: dangerOf(slot, name),
  };
}

function limitOf({ retained, room }: Slot, budget: number | null): number | null {
  const limits = [room === null ? null : retained + room, budget].filter((limit) => limit !== null);
  return limits.length > 0 ? Math.min(...limits) : null;
}

function dangerOf(slot: Slot | undefined, name: string): string | null {
  if (!slot) return `the replication slot ${name} is gone`;
  if (slot.foreign) return `the replication slot ${name} is another's now (${slot.foreign})`;
  if (slot.invalid) return `the replication slot ${name} was invalidated: ${slot.invalid}`;
  return slot.unreserved ? `the log that the replication slot ${name} needs is about to be removed` : null;
}
