/**
 * Reads all assets of an interval from a live API, none lost and none twice.
 *
 * Page numbers shift while assets change: one that changes moves to the end, and those behind it move up. So the walk goes
 * on by time: the first page of "updated since the last instant that was seen", again and again. Only where one instant
 * has more assets than a page do page numbers come into it; such an instant is walked until a whole walk shows nothing
 * new.
 *
 * That is right for an API that answers in the order of `updated_at`, and so that is not taken for granted: where a page
 * gives reason to doubt, the page behind it is looked at. An API whose pages are not in order is walked by their numbers,
 * all of the interval, until a whole walk shows nothing new.
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
  /** Set while one instant, or all of an interval, is walked by page numbers. */
  #numbered: { walks: number; fresh: number } | undefined;
  /** True once the API's pages were seen not to be in order. */
  #unordered = false;
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

  /** All assets updated before this instant, in the interval, have been handed out. It stays where it is in an API without order. */
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
    const answer = await this.#ask(this.#page, this.#requests === 0 ? this.#options.etag : undefined);
    this.#unchanged = answer.unchanged;
    this.#etag = answer.items.length === 0 ? answer.etag : undefined;
    if (!this.#unordered && this.#isDoubtful(answer) && (await this.#isOutOfOrder(answer))) {
      this.#unordered = true;
      this.#numbered = { walks: 0, fresh: 0 };
    }
    const fresh = this.#takeFresh(answer);
    this.#goOn(answer, fresh);
    return fresh;
  }

  async #ask(page: number, etag?: string): Promise<PageAnswer> {
    const answer = await this.#api.page(formatInstant(this.#since), page, this.#size, etag);
    this.#requests++;
    if (answer.time !== undefined && (this.#time === undefined || answer.time < this.#time)) this.#time = answer.time;
    return answer;
  }

  /** True for a page that need not be what comes next in time. */
  #isDoubtful({ items, nextPage }: PageAnswer): boolean {
    const instants = instantsOf(items);
    if (instants.some((at, index) => index > 0 && at < instants[index - 1]!)) return true;
    // The end of an instant that was walked by numbers.
    if (this.#page > 1) return nextPage !== null && instants.some((at) => at > this.#since);
    // What the walk has gone on from comes first, unless it has changed meanwhile.
    if (this.#since > this.#options.since) return !instants.includes(this.#since);
    return this.#requests === 1 && nextPage !== null;
  }

  /** Looks twice: a page may have been answered wrongly by chance, and then the other one or this one was not. */
  async #isOutOfOrder(answer: PageAnswer): Promise<boolean> {
    return (await this.#contradicts(answer)) && (await this.#contradicts(answer));
  }

  /**
   * True when the next page has something of before the end of this one, or something of what is on it; of a page that is said
   * to be the last, when asking again shows something of before it.
   */
  async #contradicts({ items, nextPage }: PageAnswer): Promise<boolean> {
    const instants = instantsOf(items).sort((a, b) => (a < b ? -1 : 1));
    if (nextPage === null) {
      const again = await this.#ask(this.#page);
      return (
        again.items.length > 0 && (instants.length === 0 || instantsOf(again.items).some((at) => at < instants[0]!))
      );
    }
    const known = new Set(items.map(nameOf));
    const { items: behind } = await this.#ask(this.#page + 1);
    return (
      instantsOf(behind).some((at) => at < (instants.at(-1) ?? at)) || behind.some((item) => known.has(nameOf(item)))
    );
  }

  #takeFresh({ items }: PageAnswer): Found[] {
    const fresh: Found[] = [];
    for (const item of items) {
      const told = updatedAt(item);
      // Of before the beginning of time: nobody could ask for it again.
      const at = told !== undefined && told < 0n && this.#since === 0n ? undefined : told;
      if (at === undefined) {
        const text = JSON.stringify(item);
        if (this.#seenBroken.has(text)) continue;
        this.#seenBroken.add(text);
      } else {
        if (at < this.#since || at >= this.#options.until) continue;
        const name = nameOf(item);
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
    const ended = answer.nextPage === null || (!this.#unordered && last >= this.#options.until);
    const stays = this.#unordered || last === this.#since;
    if (this.#numbered) {
      const counted = fresh.filter(({ at }) => this.#unordered || at === this.#since);
      this.#numbered.fresh += counted.length;
    }
    this.#stalled = fresh.length === 0 && stays && !ended ? this.#stalled + 1 : 0;
    if (this.#stalled > Math.max(mostStalled, this.#seen.size)) throw endless();
    if (!ended && stays) this.#goOnByNumber(answer);
    else if (!this.#numberedIsDone()) this.#page = 1;
    else if (ended) this.#done = true;
    else this.#moveTo(last);
  }

  /** More of the same instant than a page holds, or no order to go by. */
  #goOnByNumber(answer: PageAnswer): void {
    this.#numbered ??= { walks: 0, fresh: 0 };
    const served = answer.items.length;
    if (served > 0 && served < this.#size) {
      // The API's pages are smaller than asked for: numbers mean something only for the size that it serves.
      this.#size = served;
      this.#page = 1;
    } else this.#page = answer.nextPage ?? 1;
  }

  /** At the end of a walk by numbers: true when it showed nothing new, or when there was no need for one. */
  #numberedIsDone(): boolean {
    const walk = this.#numbered;
    if (!walk) return true;
    walk.walks++;
    if (walk.walks > 1 && walk.fresh === 0) return true;
    if (walk.walks > mostWalks) throw restless(this.#since);
    walk.fresh = 0;
    return false;
  }

  #moveTo(instant: bigint): void {
    this.#since = instant;
    this.#page = 1;
    this.#size = this.#options.pageSize;
    this.#numbered = undefined;
    for (const [name, at] of this.#seen) if (at < instant) this.#seen.delete(name);
  }
}

function instantsOf(items: AssetItem[]): bigint[] {
  return items.map(updatedAt).filter((at) => at !== undefined);
}

/** Tells an asset as it was at one moment from all others. */
function nameOf(item: AssetItem): string {
  return `${String(item.id)} ${updatedAt(item)}`;
}

function byInstant(a: Found, b: Found): number {
  const [x, y] = [a.at ?? -1n, b.at ?? -1n];
  if (x !== y) return x < y ? -1 : 1;
  return String(a.item.id) < String(b.item.id) ? -1 : 1;
}

function restless(instant: bigint): SluiceError {
  return new SluiceError(
    'source_unreachable',
    `the assets since ${formatInstant(instant)} changed during each of ${mostWalks} reads of all their pages`,
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
