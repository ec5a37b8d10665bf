/**
 * Reads all assets of an interval from a live API, none lost and none twice.
 *
 * Page numbers shift while assets change: one that changes moves to the end, and those behind it move up. So the walk goes
 * on by time: the first page of "updated since the last instant that was seen", again and again. Only where one instant
 * has more assets than a page do page numbers come into it; such an instant is walked until a whole walk shows nothing
 * new.
 */
import { SluiceError } from '../../model/errors.ts';
import { formatInstant } from '../../model/instant.ts';
import type { AssetApi, PageAnswer } from './asset_api.ts';
import { type AssetItem, updatedAt } from './asset_page.ts';

/** Walks over one instant after which it is given up for now. */
const mostWalks = 20;
/** Answers in a row that bring nothing and do not move on. */
const mostStalled = 50;

/** An asset with the instant that orders it; `undefined` when that is not to be read. */
export interface Found {
  item: AssetItem;
  at: bigint | undefined;
}

export interface WalkOptions {
  /** The interval [since, until), nanoseconds since 1970. */
  since: bigint;
  until: bigint;
  pageSize: number;
  /** Of an earlier answer to the same first request. */
  etag?: string;
}

export class AssetWalk {
  readonly #api: Pick<AssetApi, 'page'>;
  readonly #options: WalkOptions;
  /** All before this instant have been handed out. */
  #since: bigint;
  #page = 1;
  #size: number;
  #done = false;
  #requests = 0;
  /** What was handed out of the instant `#since` and later. */
  #seen = new Map<string, bigint>();
  /** Of what has no instant, all. */
  readonly #seenBroken = new Set<string>();
  /** Set while one instant is walked by page numbers. */
  #tie: { walks: number; fresh: number } | undefined;
  #stalled = 0;
  #time: bigint | undefined;
  #etag: string | undefined;
  #unchanged = false;

  constructor(api: Pick<AssetApi, 'page'>, options: WalkOptions) {
    this.#api = api;
    this.#options = options;
    this.#since = options.since;
    this.#size = options.pageSize;
  }

  /** All assets updated before this instant, in the interval, have been handed out. */
  get reached(): bigint {
    return this.#since;
  }

  /** The earliest time that the API's clock showed in an answer; undefined when it shows none. */
  get apiTime(): bigint | undefined {
    return this.#time;
  }

  /** Tag of the answer when the whole walk was one answer without any asset; or of the one that is still true. */
  get etag(): string | undefined {
    return this.#requests === 1 && this.#done ? this.#etag : undefined;
  }

  /** True when the API said that nothing has changed since the answer with the given tag. */
  get unchanged(): boolean {
    return this.#unchanged;
  }

  /** What the next page has and was not handed out before, ordered by instant and id; undefined at the end. */
  async next(): Promise<Found[] | undefined> {
    if (this.#done) return undefined;
    const etag = this.#requests === 0 ? this.#options.etag : undefined;
    const answer = await this.#api.page(formatInstant(this.#since), this.#page, this.#size, etag);
    this.#requests++;
    if (answer.time !== undefined && (this.#time === undefined || answer.time < this.#time)) this.#time = answer.time;
    this.#unchanged = answer.unchanged;
    this.#etag = answer.items.length === 0 ? answer.etag : undefined;
    const fresh = this.#takeFresh(answer);
    this.#goOn(answer, fresh);
    return fresh;
  }

  #takeFresh({ items }: PageAnswer): Found[] {
    const fresh: Found[] = [];
    for (const item of items) {
      const at = updatedAt(item);
      if (at === undefined) {
        const text = JSON.stringify(item);
        if (this.#seenBroken.has(text)) continue;
        this.#seenBroken.add(text);
      } else {
        if (at < this.#since || at >= this.#options.until) continue;
        const name = `${String(item.id)} ${at}`;
        if (this.#seen.has(name)) continue;
        this.#seen.set(name, at);
      }
      fresh.push({ item, at });
    }
    return fresh.sort(byInstant);
  }

  /** Decides what to ask for next. */
  #goOn(answer: PageAnswer, fresh: Found[]): void {
    let last = this.#since;
    for (const item of answer.items) {
      const at = updatedAt(item);
      if (at !== undefined && at > last) last = at;
    }
    const ended = answer.nextPage === null || last >= this.#options.until;
    if (this.#tie) this.#tie.fresh += fresh.filter(({ at }) => at === this.#since).length;
    this.#stalled = fresh.length === 0 && last === this.#since && !ended ? this.#stalled + 1 : 0;
    if (this.#stalled > Math.max(mostStalled, this.#seen.size)) throw endless();
    if (!ended && last === this.#since) this.#stayInInstant(answer);
    else if (!this.#tieIsDone()) this.#page = 1;
    else if (ended) this.#done = true;
    else this.#moveTo(last);
  }

  /** More of the same instant than a page holds. */
  #stayInInstant(answer: PageAnswer): void {
    this.#tie ??= { walks: 0, fresh: 0 };
    const served = answer.items.length;
    if (served > 0 && served < this.#size) {
      // The API's pages are smaller than asked for: numbers mean something only for the size that it serves.
      this.#size = served;
      this.#page = 1;
    } else this.#page = answer.nextPage ?? 1;
  }

  /** At the end of a walk over one instant: true when it showed nothing new, or when there was no need for one. */
  #tieIsDone(): boolean {
    if (!this.#tie) return true;
    this.#tie.walks++;
    if (this.#tie.walks > 1 && this.#tie.fresh === 0) return true;
    if (this.#tie.walks > mostWalks) throw restless(this.#since);
    this.#tie.fresh = 0;
    return false;
  }

  #moveTo(instant: bigint): void {
    this.#since = instant;
    this.#page = 1;
    this.#size = this.#options.pageSize;
    this.#tie = undefined;
    for (const [name, at] of this.#seen) if (at < instant) this.#seen.delete(name);
  }
}

function byInstant(a: Found, b: Found): number {
  const [x, y] = [a.at ?? -1n, b.at ?? -1n];
  if (x !== y) return x < y ? -1 : 1;
  return String(a.item.id) < String(b.item.id) ? -1 : 1;
}

function restless(instant: bigint): SluiceError {
  return new SluiceError(
    'source_unreachable',
    `the assets of ${formatInstant(instant)} changed during each of ${mostWalks} reads of all its pages`,
    'It is tried again by itself; a larger `page_size` makes it easier.',
  );
}

function endless(): SluiceError {
  return new SluiceError(
    'source_refused',
    'the asset API goes on answering the same assets, and always names a next page',
    'See that `next_page` is null on the last page.',
  );
}
