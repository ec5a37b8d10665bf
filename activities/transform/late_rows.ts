/**
 * Rows that wait for a row of another copy: a join has not found their key, and says on_error reject. When that row has come,
 * they come into their own copy, at their own versions, so that whatever changed since wins. Each time is a batch record of
 * kind `release`.
 */
import type { SettleRequest } from '../../model/rejects.ts';
import type { TableSchema } from '../../model/table.ts';
import { Block } from '../load/block.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { lookUpIn } from '../load/look_up.ts';
import { type RejectPlace, readRejects } from '../load/rejects.ts';
import { type Releaser, rowMark } from '../load/releases.ts';
import { restage } from './held_row.ts';
import { copyTime, settleRejects } from './settle_rejects.ts';

/** Rows that are tried again at once. */
const atOnce = 500;
/** Milliseconds between two looks. */
const lookEvery = 3_000;

export class LateRows {
  readonly #clickhouse: ClickHouse;
  readonly #by: Releaser;
  /** By rule and asset, where the last look ended: rows that wait for long must not keep others waiting. */
  readonly #places = new Map<string, RejectPlace | undefined>();

  /** @param by the lease that looks: records of what comes into copies name it. */
  constructor(clickhouse: ClickHouse, by: Releaser) {
    this.#clickhouse = clickhouse;
    this.#by = by;
  }

  /** Looks every few seconds until the answer is called. What fails is tried again at the next look. */
  watch(tables: () => readonly TableSchema[]): () => void {
    let looking = false;
    const timer = setInterval(() => {
      if (looking) return;
      looking = true;
      this.look(tables())
        .catch(() => {})
        .finally(() => (looking = false));
    }, lookEvery);
    return () => clearInterval(timer);
  }

  /** Looks at some waiting rows of these tables; answers how many have come into their copies. */
  async look(tables: readonly TableSchema[]): Promise<number> {
    let released = 0;
    for (const table of tables) {
      const joins = (table.rules?.rules ?? []).filter(
        ({ rule_type: type, on_error: on = 'reject' }) => type === 'join' && on === 'reject',
      );
      for (const { rule_id } of joins) released += await this.#lookAt(table, rule_id);
    }
    return released;
  }

  async #lookAt(table: TableSchema, check: string): Promise<number> {
    const { asset_id: asset } = table;
    const place = `${check} ${asset}`;
    const after = this.#places.get(place);
    const waiting = await readRejects(
      this.#clickhouse,
      { asset, check, states: ['open'], ...(after && { after }) },
      atOnce,
    );
    const last = waiting.length === atOnce ? waiting.at(-1) : undefined;
    this.#places.set(place, last && [last.changed_at, last.asset, last.key, last.version, last.check]);
    const held = waiting.map((reject) => ({ ...reject, committed_at: copyTime(reject.committed_at) }));
    const rows = await restage(table, held, lookUpIn(this.#clickhouse));
    // One that a rule or check would stop the table for waits on: nobody asked for it now.
    const come = waiting.filter((_, i) => rows[i] instanceof Block);
    if (come.length === 0) return 0;
    const request: SettleRequest = {
      asset,
      action: 'release',
      versions: come.map(({ version }) => version),
      rows: come.map(rowMark),
    };
    const answer = await settleRejects(this.#clickhouse, request, this.#by);
    return answer.released;
  }
}
