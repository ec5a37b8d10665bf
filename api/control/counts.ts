/** Rows of copies: exact counts, taken as often as they are cheap, so that looking never slows the copying. */
import type { Control } from './control.ts';
import { rowsIfThere } from './figures.ts';

interface Count {
  rows: number | null;
  /** When the next count may begin (ms since the epoch). */
  next: number;
  running: Promise<void> | undefined;
}

const counts = new WeakMap<Control, Map<string, Count>>();
/** A count may take this share of the time. */
const share = 1 / 20;
const patience = 1_500;

/** The number of rows in the copy, at most 20 times as old as counting takes (but 1 s); null when it is not known yet. */
export async function countRows(control: Control, asset: string): Promise<number | null> {
  const known = counts.get(control) ?? new Map<string, Count>();
  counts.set(control, known);
  const count = known.get(asset) ?? { rows: null, next: 0, running: undefined };
  known.set(asset, count);
  if (!count.running && Date.now() >= count.next) count.running = refresh(control, asset, count);
  if (count.running) await Promise.race([count.running, pause()]);
  return count.rows;
}

async function refresh(control: Control, asset: string, count: Count): Promise<void> {
  const began = Date.now();
  try {
    const [row] = await rowsIfThere<{ rows: string }>(
      control,
      `SELECT toString(count()) AS rows FROM ${control.clickhouse.name(`${asset}_current`)}`,
    );
    count.rows = Number(row?.rows ?? 0);
  } catch {
    // The last count stays; that ClickHouse is away is told elsewhere.
  } finally {
    count.next = Date.now() + Math.max(1_000, (Date.now() - began) / share);
    count.running = undefined;
  }
}

function pause(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, patience).unref());
}
