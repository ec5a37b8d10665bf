/** Comparing rows that have no key, while both sides move: of each kind, how many there are. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Column, TableSchema } from '../../model/table.ts';
import { RowEncoder } from '../capture/postgresql/encode.ts';
import { Block } from '../load/block.ts';
import { bareType } from '../transform/clickhouse_types.ts';
import type { DifferingKey, TableVerification } from './verify.ts';
import type { Pace } from './verify_pace.ts';
import type { Part, SeenCount, Side } from './verify_sides.ts';

/** Kinds of rows that are looked at together. */
const kindsPerLook = 500;
/** Looks at rows that keep moving. */
const maxLooks = 12;
/** Differences after which rows are no longer looked at: the copy is made anew for one. */
const enoughDifferences = 10_000;
const keptRows = 100;
/** Letters of a value that are shown. */
const shownLetters = 200;

interface Needs {
  source: Side;
  copy: Side;
  pace: Pace;
  table: TableSchema;
  signal: AbortSignal | undefined;
  /** Differences go here. */
  found: TableVerification;
}

export class CountComparison {
  readonly #needs: Needs;
  readonly #encoder: RowEncoder;
  readonly #shown: { digest: string; shown: DifferingKey }[] = [];

  constructor(needs: Needs) {
    this.#needs = needs;
    this.#encoder = new RowEncoder(needs.table);
  }

  /** True when no more rows are looked at, since far too many differ. */
  get enough(): boolean {
    const { found } = this.#needs;
    if (found.missing + found.extra >= enoughDifferences) found.at_least = true;
    return found.at_least;
  }

  /** Compares the rows of these parts. Holds the digests of their kinds in memory. */
  async compare(parts: Part[]): Promise<void> {
    if (parts.length === 0 || this.enough) return;
    const source = await countParts(this.#needs.source, parts);
    await this.#needs.pace.caughtUpNow();
    const copy = await countParts(this.#needs.copy, parts);
    const kinds = [...new Set([...source.keys(), ...copy.keys()])];
    const suspects = kinds.filter((digest) => source.get(digest)?.rows !== copy.get(digest)?.rows);
    for (let start = 0; start < suspects.length && !this.enough; start += kindsPerLook) {
      await this.#lookAt(suspects.slice(start, start + kindsPerLook));
    }
  }

  /** Looks at some kinds until each has been as many once, or more or fewer twice while the source stood still. */
  async #lookAt(digests: string[]): Promise<void> {
    const { source, copy, pace, signal, found } = this.#needs;
    /** What either side showed when a kind differed. */
    const differed = new Map<string, string>();
    const real: Counts[] = [];
    let open = digests;
    for (let look = 0; look < maxLooks && open.length > 0; look++) {
      if (look > 0) await sleep(Math.min(50 * 2 ** look, 1000), undefined, { signal });
      const before = await source.countsOf(open);
      await pace.caughtUpNow();
      const between = await copy.countsOf(open);
      const after = await source.countsOf(open);
      open = open.filter((digest) => {
        const [first, there, last] = [before.get(digest), between.get(digest), after.get(digest)];
        if (there?.rows === first?.rows || there?.rows === last?.rows) return false;
        const seen = state(first) + state(there);
        const still = state(first) === state(last);
        const again = still && differed.get(digest) === seen;
        if (again) real.push({ digest, source: last?.rows ?? 0, copy: there?.rows ?? 0 });
        else differed.set(digest, still ? seen : '');
        return !again;
      });
    }
    found.moving += open.length;
    await this.#report(real);
  }

  async #report(counts: Counts[]): Promise<void> {
    const lacking = counts.filter(({ source, copy }) => source > copy).map(({ digest }) => digest);
    const texts = await this.#needs.source.texts(lacking);
    const { found } = this.#needs;
    for (const { digest, source, copy } of counts) {
      const values = texts.get(digest);
      const problem = source < copy ? 'extra' : values && this.#isHeld(values) ? 'rejected' : 'missing';
      found[problem] += Math.abs(source - copy);
      if (found.keys.length >= keptRows) continue;
      const shown: DifferingKey = { problem, key: {}, source_rows: source, copy_rows: copy };
      found.keys.push(shown);
      if (values) shown.key = this.#show(values);
      else this.#shown.push({ digest, shown });
    }
  }

  /** Adds the values of rows that the source does not have. */
  async showValues(): Promise<void> {
    const texts = await this.#needs.copy.texts(this.#shown.map(({ digest }) => digest));
    for (const { digest, shown } of this.#shown) shown.key = this.#show(texts.get(digest) ?? []);
  }

  #show(values: (string | null)[]): DifferingKey['key'] {
    return Object.fromEntries(
      this.#needs.table.columns.map((column, index) => [column.name, showValue(column, values[index] ?? null)]),
    );
  }

  /** True for a row that the copy's types cannot hold: it is among the rejects. */
  #isHeld(values: (string | null)[]): boolean {
    const block = new Block(4096);
    return values.some((text, index) => {
      block.length = 0;
      return text === null ? !this.#encoder.missing(block, index) : !this.#encoder.text(block, index, text);
    });
  }
}

interface Counts {
  digest: string;
  source: number;
  copy: number;
}

async function countParts(side: Side, parts: Part[]): Promise<Map<string, SeenCount>> {
  const counts = new Map<string, SeenCount>();
  for (const part of parts) for (const [digest, count] of await side.counts(part)) counts.set(digest, count);
  return counts;
}

function state(count: SeenCount | undefined): string {
  return count ? `${count.rows} ${count.mark};` : 'none;';
}

function showValue(column: Column, text: string | null): string | number | boolean | null {
  if (text === null) return null;
  const type = bareType(column.clickhouse);
  if (type === 'Bool') return text === 't' || text === 'true';
  if (/^U?Int(8|16|32|64)$/.test(type) && Number.isSafeInteger(Number(text))) return Number(text);
  return text.length > shownLetters ? `${text.slice(0, shownLetters)}…` : text;
}
