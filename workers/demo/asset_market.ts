/**
 * The simulated assets: a pure function of a seed, of the rates of change over time, and of the time asked for. Nothing
 * that was served needs to be stored, and whoever asks again after a restart finds the same assets at the same times.
 */
import { type Random, seededRandom } from './random.ts';

export interface Asset {
  id: string;
  name: string;
  kind: string;
  /** Two decimals; null when nobody has priced it. */
  value: number | null;
  /** ISO 8601 in UTC with milliseconds. */
  updated_at: string;
  deleted: boolean;
}

/** From `from` (milliseconds since 1970) on, assets change `per_second` times a second. */
export interface ChangeRate {
  from: number;
  per_second: number;
}

/** What the whole market follows from. The first rate's `from` is its beginning. */
export interface MarketPlan {
  seed: string;
  rates: ChangeRate[];
}

const initialAssets = 1_200;
/** Beyond so many, deleted ids come back instead of new ones being made: memory stays bounded. */
const mostAssets = 20_000;
const day = 86_400_000;

const kinds = ['equity', 'bond', 'fund', 'cash', 'property', 'commodity', 'derivative'] as const;
const firstWords = ['Northern', 'Blue', 'Global', 'Alpine', 'Harbour', 'Meridian', 'Oak', 'Crown', 'Delta', 'Sterling'];
const lastWords = ['Holdings', 'Bond 2031', 'Growth Fund', 'Energy', 'Trust', 'Capital', 'Rail', 'Estates', 'Metals'];
/** Names that break careless CSV and JSON handling; all of them are seen in real data. */
const awkwardNames = [
  'Smith, Jones & Co.',
  'The "Quoted" Fund',
  'Two\nlines',
  'Carriage\r\nreturn',
  'Tab\there',
  'back\\slash\\N',
  '=SUM(A1:A9)',
  '-1 Short ETF',
  '株式会社 東京',
  'Ünïcödé Gëmüse 🏦',
  '  padded  ',
  '',
  'NULL',
  "O'Neil; DROP TABLE assets;--",
];

/** All assets as they are at one time; the time only moves forward. */
export class Market {
  readonly #plan: MarketPlan;
  readonly #random: Random;
  readonly #assets = new Map<string, Asset>();
  /** Ids by age, for picking one by number. */
  readonly #ids: string[] = [];
  #ordered: Asset[] | undefined;
  /** Which rate is in force, and how many of its changes have been made. */
  #rate = 0;
  #made = 0;
  #changes = 0;

  constructor(plan: MarketPlan) {
    this.#plan = plan;
    this.#random = seededRandom(`assets/${plan.seed}`);
    this.#found();
  }

  get size(): number {
    return this.#assets.size;
  }

  /** Changes since the beginning; a change may touch many assets. */
  get changes(): number {
    return this.#changes;
  }

  /** Makes every change up to `time` (milliseconds, included). */
  advance(time: number): void {
    for (;;) {
      const rate = this.#plan.rates[this.#rate]!;
      const next = this.#plan.rates[this.#rate + 1];
      const end = next === undefined ? time : Math.min(time, next.from);
      const due = rate.from + Math.floor(((this.#made + 1) * 1000) / rate.per_second);
      if (due <= end) {
        this.#change(due);
        this.#made++;
      } else if (next !== undefined && next.from <= time) {
        this.#rate++;
        this.#made = 0;
      } else return;
    }
  }

  /** Assets updated at or after `since` (milliseconds), ordered by (updated_at, id). */
  since(since: number): Asset[] {
    this.#ordered ??= [...this.#assets.values()].sort(byUpdate);
    const from = new Date(since).toISOString();
    let low = 0;
    let high = this.#ordered.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#ordered[middle]!.updated_at < from) low = middle + 1;
      else high = middle;
    }
    return this.#ordered.slice(low);
  }

  /** The assets of the beginning, updated over the month before it, many of them at the same instant. */
  #found(): void {
    const beginning = this.#plan.rates[0]!.from;
    let time = beginning - 30 * day;
    for (let left = initialAssets; left > 0; left--) {
      this.#put(this.#newId(), time, false);
      if (this.#random.chance(0.3)) continue;
      time = Math.min(beginning, time + this.#random.between(1, Math.floor((beginning - time) / left) + 1));
    }
  }

  #change(time: number): void {
    this.#changes++;
    const roll = this.#random.next();
    if (roll < 0.15) this.#put(this.#newId(), time, false);
    else if (roll < 0.22) this.#put(this.#anyId(), time, true);
    else if (roll < 0.25) this.#revalueMany(time);
    else this.#put(this.#anyId(), time, false);
  }

  /** Many assets at one instant, as after a nightly valuation: a page may end among equal times. */
  #revalueMany(time: number): void {
    for (let left = this.#random.between(5, 60); left > 0; left--) this.#put(this.#anyId(), time, false);
  }

  #put(id: string, time: number, deleted: boolean): void {
    const old = this.#assets.get(id);
    const renamed = old === undefined || this.#random.chance(0.1);
    this.#assets.set(id, {
      id,
      name: renamed ? this.#name() : old.name,
      kind: old?.kind ?? this.#random.pick(kinds),
      value: this.#random.chance(0.02) ? null : this.#value(old?.value ?? null),
      updated_at: new Date(time).toISOString(),
      deleted,
    });
    this.#ordered = undefined;
  }

  #value(old: number | null): number {
    if (old === null) return this.#random.between(100, 500_000_000) / 100;
    return Math.round(old * (90 + 20 * this.#random.next())) / 100;
  }

  #name(): string {
    if (this.#random.chance(0.03)) return this.#random.pick(awkwardNames);
    return `${this.#random.pick(firstWords)} ${this.#random.pick(lastWords)}`;
  }

  #newId(): string {
    if (this.#ids.length >= mostAssets) return this.#anyId();
    const id = `AST${String(this.#ids.length + 1).padStart(6, '0')}`;
    this.#ids.push(id);
    return id;
  }

  #anyId(): string {
    return this.#random.pick(this.#ids);
  }
}

function byUpdate(a: Asset, b: Asset): number {
  if (a.updated_at !== b.updated_at) return a.updated_at < b.updated_at ? -1 : 1;
  return a.id < b.id ? -1 : 1;
}
