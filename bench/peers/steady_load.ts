/** Changes at a steady rate: transactions at their times, whether or not the one before was late. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { benchRows } from '../capture.ts';

export interface Load {
  changesPerSecond: number;
  seconds: number;
  perTransaction: number;
  /** How many such transactions the table has seen before. */
  earlier: number;
}

export interface Written {
  /** The last row that each transaction inserted; no later change touches it. */
  markers: number[];
  changes: number;
  /** What was reached; lower than what was wanted when PostgreSQL or the machine did not keep up. */
  changesPerSecond: number;
}

/** Above all keys that the table has had: copies may keep tombstones of those. */
const firstId = 1_000_000_000;

/**
 * The statements of one transaction: it inserts a little more than half of its changes, and updates rows that the one
 * before inserted, never their last. The first has no one before, and only inserts.
 */
export function transaction(index: number, perTransaction: number): { sql: string; changes: number; marker: number } {
  const inserts = Math.floor(perTransaction / 2) + 1;
  const updates = perTransaction - inserts;
  const from = firstId + index * inserts;
  const insert = `INSERT INTO public.bench ${benchRows(from + 1, from + inserts)}`;
  if (index === 0 || updates === 0) return { sql: insert, changes: inserts, marker: from + inserts };
  const update = `UPDATE public.bench SET n = n + 1, note = note || '!' WHERE id > ${from - inserts} AND id <= ${from - inserts + updates}`;
  // Two statements in one message are one transaction. The marker is its last change: all of it is there when that is.
  return { sql: `${update}; ${insert}`, changes: perTransaction, marker: from + inserts };
}

/** Writes for as long as the load says. */
export async function writeSteadily(client: pg.ClientBase, load: Load): Promise<Written> {
  const count = Math.round((load.changesPerSecond * load.seconds) / load.perTransaction);
  const everyMs = (load.seconds * 1000) / count;
  const markers: number[] = [];
  let changes = 0;
  const started = performance.now();
  for (let index = 0; index < count; index++) {
    const early = started + index * everyMs - performance.now();
    if (early > 1) await sleep(early);
    const one = transaction(load.earlier + index, load.perTransaction);
    await client.query(one.sql);
    markers.push(one.marker);
    changes += one.changes;
  }
  const seconds = Math.max(load.seconds, (performance.now() - started) / 1000);
  return { markers, changes, changesPerSecond: Math.round(changes / seconds) };
}

/** When PostgreSQL committed the rows, by its own clock: milliseconds since 1970. Needs `track_commit_timestamp`. */
export async function commitTimes(client: pg.ClientBase, ids: number[]): Promise<Map<number, number>> {
  const { rows } = await client.query<{ id: string; at: string }>(
    'SELECT id, extract(epoch FROM pg_catalog.pg_xact_commit_timestamp(xmin)) * 1000 AS at FROM public.bench WHERE id = ANY($1)',
    [ids],
  );
  return new Map(rows.map((row) => [Number(row.id), Number(row.at)]));
}
