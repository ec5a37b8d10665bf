/**
 * Tables that a source's globs mean and that come while it streams: a lease looks for them every few seconds, and ends
 * when it has something to tell. The flow then takes them in, as if somebody had added them.
 */
import { performance } from 'node:perf_hooks';
import type { LeftOutTable } from '../../model/source.ts';
import type { KnownTables, TableName } from './contract.ts';
import type { Connected, Source } from './source.ts';

/** Milliseconds before the first look. */
const firstLook = 1_000;
/** Milliseconds before a look that is asked for: who makes one table often makes more. */
const soonEnough = 500;
/** Tables that a lease tells of: what flows hold must stay small. */
const mostLeftOut = 50;
const longestText = 500;

export interface FoundTables {
  found: TableName[];
  /** Ordered by name. */
  leftOut: LeftOutTable[];
}

export class NewTables {
  readonly #source: Source;
  readonly #connected: Connected;
  readonly #known: KnownTables;
  readonly #streamed: TableName[];
  /** Milliseconds between two looks, and between two for tables that are left out. */
  readonly #every: { look: number; again: number };
  #looking = false;
  #nextLook = performance.now() + firstLook;
  #nextAgain: number;
  /** When the look that was asked for is due. */
  #wantedAt: number | undefined;
  /** Milliseconds that the last look took. */
  #took = 0;
  #news: FoundTables | undefined;

  /** `streamed`: the tables of the lease itself. `lookEvery`: as that of the keeper of schemas. */
  constructor(
    source: Source,
    connected: Connected,
    known: KnownTables,
    { streamed, lookEvery }: { streamed: TableName[]; lookEvery: number },
  ) {
    this.#source = source;
    this.#connected = connected;
    this.#known = known;
    this.#streamed = streamed;
    this.#every = { look: lookEvery / 2, again: lookEvery * 3 };
    this.#nextAgain = performance.now() + this.#every.again;
  }

  /** Looks when it is time, or soon, without waiting; answers what a look has found that the flow does not know. */
  look(soon: boolean): FoundTables | undefined {
    if (soon) this.#wantedAt ??= performance.now() + Math.max(soonEnough, 5 * this.#took);
    if (!this.#looking && performance.now() >= Math.min(this.#nextLook, this.#wantedAt ?? this.#nextLook))
      this.#begin();
    return this.#news;
  }

  #begin(): void {
    this.#looking = true;
    this.#wantedAt = undefined;
    const began = performance.now();
    this.#find()
      .then(
        (news) => (this.#news = news),
        () => {}, // The stream itself will say what is wrong with the source.
      )
      .finally(() => {
        this.#looking = false;
        this.#nextLook = performance.now() + this.#every.look;
        this.#took = performance.now() - began;
      });
  }

  /** Tables that are left out are seldom examined again: that asks for more than their names. */
  async #find(): Promise<FoundTables | undefined> {
    const again = performance.now() >= this.#nextAgain;
    if (again) this.#nextAgain = performance.now() + this.#every.again;
    const { others, left_out: told } = this.#known;
    const known = [...this.#streamed, ...others];
    const { found, leftOut } = await this.#source.findTables(
      this.#connected,
      known,
      again ? [] : told.map(({ table }) => table),
    );
    const left = (again ? leftOut : [...told, ...leftOut]).map(shortened).sort((a, b) => (a.table < b.table ? -1 : 1));
    const most = left.slice(0, mostLeftOut);
    return found.length > 0 || JSON.stringify(most) !== JSON.stringify(told) ? { found, leftOut: most } : undefined;
  }
}

function shortened({ table, reason, remedy }: LeftOutTable): LeftOutTable {
  return { table, reason: reason.slice(0, longestText), remedy: remedy.slice(0, longestText) };
}
