/**
 * Comparing a table part by part: by ranges of the key where both databases sort it alike, else by buckets of its hash.
 * Parts whose sums differ are handed on to be compared row by row.
 */
import type { TableVerification, VerifyOptions } from './verify.ts';
import type { Key } from './verify_keys.ts';
import type { Pace } from './verify_pace.ts';
import type { Rest } from './verify_rest.ts';
import type { RowComparison } from './verify_rows.ts';
import type { Checksum, Facts, Range, Side } from './verify_sides.ts';

/** Ranges that the source sums before the copy is asked: one wait for many. */
const rangesPerGroup = 16;
/** Parts that are compared row by row at once: what memory is bounded by. */
const partsAtOnce = 10;
const maxBuckets = 65_536;

interface SizedRange {
  range: Range;
  rows: number;
}

/** Ranges that the source has summed. */
interface Group {
  ranges: { range: Range; source: Checksum }[];
  /** Where the next group begins; undefined when this was the last. */
  end: Key | undefined;
  /** Position that the copy must have applied to hold what the source showed. */
  position: bigint;
}

interface Needs {
  source: Side;
  copy: Side;
  pace: Pace;
  rows: Pick<RowComparison, 'compare' | 'enough'>;
  facts: Facts;
  options: VerifyOptions;
  /** Counts of rows go here. */
  found: TableVerification;
  /** Called after each part with the rows of the source so far. */
  onPart: (checked: number) => void;
  /** Called when all before `end` has been compared: rows that differ are known then. Undefined = at the table's end. */
  settle: (end: Key | undefined) => Promise<void>;
  /** Pauses between parts; absent = as fast as it goes. */
  rest: Rest | undefined;
}

export class PartComparison {
  readonly #needs: Needs;
  readonly #partRows: number;

  constructor(needs: Needs) {
    this.#needs = needs;
    this.#partRows = needs.options.partRows ?? 10_000;
  }

  async run(): Promise<void> {
    if (this.#needs.facts.ranges) await this.#compareRanges();
    else await this.#compareBuckets();
  }

  /** One range after the other. While a group is compared, the source sums the next one, unless it is to have its rest. */
  async #compareRanges(): Promise<void> {
    const { rest, settle, options } = this.#needs;
    let next: Promise<Group> | undefined = this.#readGroup(options.after);
    while (next) {
      const group: Group = await next;
      next = group.end && !rest ? this.#readGroup(group.end) : undefined;
      // It is awaited above, or not any more: a failure of this group comes first.
      next?.catch(() => {});
      await this.#lookInto(await this.#differingRanges(group));
      await settle(group.end);
      if (!rest || !group.end) continue;
      await rest.take();
      next = this.#readGroup(group.end);
    }
  }

  async #readGroup(after: Key | undefined): Promise<Group> {
    const { source, pace, options } = this.#needs;
    const ranges: Group['ranges'] = [];
    let end = after;
    do {
      options.signal?.throwIfAborted();
      const range: Range = { after: end, upto: await source.boundary({ after: end }, this.#partRows) };
      ranges.push({ range, source: await source.checksum(range) });
      end = range.upto;
    } while (end && ranges.length < (this.#needs.rest ? 1 : rangesPerGroup));
    return { ranges, end, position: await pace.position() };
  }

  /** The ranges whose sums differ even when the copy holds all that the source showed. */
  async #differingRanges({ ranges, position }: Group): Promise<SizedRange[]> {
    const differing: SizedRange[] = [];
    for (const { range, source } of ranges) {
      let copy = await this.#needs.copy.checksum(range);
      if (!equal(source, copy)) {
        await this.#needs.pace.caughtUp(position);
        copy = await this.#needs.copy.checksum(range);
      }
      this.#count(source, copy);
      if (!equal(source, copy)) differing.push({ range, rows: Math.max(source.rows, copy.rows) });
    }
    return differing;
  }

  /** Compares ranges row by row, as many at once as memory should hold. */
  async #lookInto(ranges: SizedRange[]): Promise<void> {
    let some: Range[] = [];
    let size = 0;
    for (const whole of ranges) {
      for await (const { range, rows } of this.#cut(whole)) {
        some.push(range);
        size += rows;
        if (size < partsAtOnce * this.#partRows) continue;
        await this.#needs.rows.compare(some);
        some = [];
        size = 0;
      }
    }
    await this.#needs.rows.compare(some);
  }

  /** Where the copy has far more rows than the source, a range is cut by the copy's keys. */
  async *#cut({ range, rows }: SizedRange): AsyncGenerator<SizedRange> {
    let rest = range;
    while (rows > 2 * this.#partRows && !this.#needs.rows.enough) {
      const upto = await this.#needs.copy.boundary(rest, this.#partRows);
      if (!upto) break;
      yield { range: { after: rest.after, upto }, rows: this.#partRows };
      rest = { after: upto, upto: rest.upto };
    }
    yield { range: rest, rows: Math.min(rows, this.#partRows) };
  }

  /** All buckets in one pass over either side, at the same time: sums that are equal are, in whatever order they were read. */
  async #compareBuckets(): Promise<void> {
    const { source, copy, pace } = this.#needs;
    const of = await this.#bucketCount();
    const [here, first] = await Promise.all([source.bucketChecksums(of), copy.bucketChecksums(of)]);
    let there = first;
    if (numbers(of).some((bucket) => !equal(here.get(bucket), there.get(bucket)))) {
      await pace.caughtUpNow();
      there = await copy.bucketChecksums(of);
    }
    await this.#needs.rest?.take();
    for (const buckets of this.#differingBuckets(of, here, there)) {
      await this.#needs.rows.compare([{ of, buckets }]);
      await this.#needs.settle(undefined);
      await this.#needs.rest?.take();
    }
  }

  async #bucketCount(): Promise<number> {
    const { clickhouse, table } = this.#needs.options;
    const name = clickhouse.name(table.asset_id);
    const [size] = await clickhouse.rows<{ n: string }>(`SELECT toString(count()) AS n FROM ${name}`);
    const rows = Math.max(this.#needs.facts.estimate, Number(size?.n ?? 0));
    return Math.min(Math.ceil(rows / this.#partRows) || 1, maxBuckets);
  }

  /** Buckets that differ, as many at once as memory should hold: each look reads the whole table. */
  *#differingBuckets(of: number, source: Map<number, Checksum>, copy: Map<number, Checksum>): Generator<number[]> {
    let some: number[] = [];
    let rows = 0;
    for (const bucket of numbers(of)) {
      const [here, there] = [source.get(bucket) ?? nothing, copy.get(bucket) ?? nothing];
      this.#count(here, there);
      if (equal(here, there)) continue;
      some.push(bucket);
      rows += Math.max(here.rows, there.rows);
      if (rows < partsAtOnce * this.#partRows) continue;
      yield some;
      some = [];
      rows = 0;
    }
    if (some.length > 0) yield some;
  }

  #count(source: Checksum, copy: Checksum): void {
    const { found, onPart } = this.#needs;
    found.source_rows += source.rows;
    found.copy_rows += copy.rows;
    onPart(found.source_rows);
  }
}

const nothing: Checksum = { rows: 0, sum: '0' };

function equal(a: Checksum = nothing, b: Checksum = nothing): boolean {
  return a.rows === b.rows && a.sum === b.sum;
}

function numbers(count: number): number[] {
  return Array.from({ length: count }, (_, number) => number);
}
