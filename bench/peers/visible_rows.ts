/** When rows can be queried in ClickHouse: it is asked again and again for the largest key. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ClickHouse } from '../../activities/load/clickhouse.ts';
import type { Watch } from './side.ts';
import { waitUntil } from './wait_until.ts';

/** Pause between two questions. What it adds to a latency, half of it on average, is left in. */
const pauseMs = 10;

/** What a question answered: at this time, all rows up to this one could be seen. */
export interface Sight {
  at: number;
  id: number;
}

/** Watches the table (its quoted name), whose keys rise with each transaction. */
export function watchTable(clickhouse: ClickHouse, table: string): Watch {
  const sights: Sight[] = [];
  let watching = true;
  let failure: unknown;
  const asking = ask().catch((error) => {
    failure = error;
  });

  async function ask(): Promise<void> {
    while (watching) {
      const id = await largestId(clickhouse, table);
      if (id > (sights.at(-1)?.id ?? 0)) sights.push({ at: Date.now(), id });
      await sleep(pauseMs);
    }
  }

  async function saw(id: number): Promise<true | undefined> {
    if (failure !== undefined) throw failure;
    return (sights.at(-1)?.id ?? 0) >= id || undefined;
  }

  return {
    async arrivals(ids) {
      const last = Math.max(...ids);
      try {
        await waitUntil('the last row in ClickHouse', () => saw(last));
      } finally {
        watching = false;
        await asking;
      }
      return firstSights(sights, ids);
    },
  };
}

async function largestId(clickhouse: ClickHouse, table: string): Promise<number> {
  const rows = await clickhouse.rows<{ id: string }>(`SELECT max(id) AS id FROM ${table}`);
  return Number(rows[0]?.id ?? 0);
}

/** The time of the first sight of each row; rows that were not seen are left out. */
export function firstSights(sights: Sight[], ids: number[]): Map<number, number> {
  const seen = new Map<number, number>();
  let next = 0;
  for (const id of [...ids].sort((a, b) => a - b)) {
    while (next < sights.length && sights[next]!.id < id) next++;
    if (next < sights.length) seen.set(id, sights[next]!.at);
  }
  return seen;
}
