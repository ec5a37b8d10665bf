/**
 * Whether a copy equals its table, while both move.
 *
 * Part by part, both databases sum digests of their rows, the source first. Equal sums: the part is identical, however
 * far the stream is. Otherwise the copy is read again once it has applied all that the source showed; then its rows are
 * compared one by one; then those that differ are looked at closely, between two looks at the source: a row that stood
 * still there, and differs in the copy, twice, is a real difference.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import { behindPageHeader, formatLsn } from '../../model/position.ts';
import { keyColumns, type TableSchema, tableName } from '../../model/table.ts';
import { connect } from '../capture/postgresql/connection.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { type Key, showKey } from './verify_keys.ts';
import { openRejects } from './verify_rejects.ts';
import {
  type Checksum,
  copySide,
  type Facts,
  keyId,
  type Part,
  type Range,
  type SeenRow,
  type SeenRows,
  type Side,
  sourceFacts,
  sourcePosition,
  sourceSide,
} from './verify_sides.ts';

export type Problem = 'missing' | 'extra' | 'different' | 'moving' | 'rejected';

/** What comparing one table found. Counts of a moving table are of the moments at which its parts were read. */
export interface TableVerification {
  asset_id: string;
  /** Proven equal: nothing is missing, extra, different or still moving. Rows held back by a reject do not count. */
  identical: boolean;
  source_rows: number;
  copy_rows: number;
  /** Rows of the source that are not in the copy. */
  missing: number;
  /** Rows of the copy that are not in the source. */
  extra: number;
  /** Rows that are in both with other values. */
  different: number;
  /** Rows that changed faster than they could be compared. */
  moving: number;
  /** Rows that are missing or different because a change of theirs is held back. */
  rejected: number;
  /** True when it stopped looking at single rows: the counts are at least so high. */
  at_least: boolean;
  /** At most 100. */
  keys: { problem: Problem; key: Record<string, string | number | boolean> }[];
  /** Why the comparison could not be finished, or null. */
  error: ErrorReport | null;
  duration_ms: number;
}

export interface VerifyOptions {
  connectionString: string;
  /** With role `verify`. */
  clickhouse: ClickHouse;
  table: TableSchema;
  /** Position in the source's log up to which the copy holds everything. */
  appliedPosition: () => Promise<bigint>;
  signal?: AbortSignal;
  /** Rows of the source that are summed, and parts. */
  onProgress?: (progress: { checked: number; chunks: number }) => void;
  /** Seconds that the copy may stand still while it is behind. */
  patience?: number;
  /** Rows of a part. */
  partRows?: number;
}

/** Parts that are read from the source before the copy is asked: one wait for many. */
const partsPerGroup = 16;
/** Rows that are compared one by one at once, in parts: what memory is bounded by. */
const partsOfRows = 10;
/** Keys that are looked at closely together. */
const keysPerLook = 500;
/** Real differences after which single rows are no longer looked at: such a table needs a re-sync, not a longer list. */
const enoughDifferences = 10_000;
const keptKeys = 100;
/** Looks at a row that keeps moving. */
const looks = 12;

/**
 * Compares a table with its copy. Throws what either side throws, `table_missing` when the table is gone; a copy that
 * does not catch up is an answer with `error`.
 */
export async function verifyTable(options: VerifyOptions): Promise<TableVerification> {
  const { connectionString, table } = options;
  const client = await connect({ connectionString, applicationName: 'sluice verify' });
  try {
    const facts = await sourceFacts(client, table);
    if (facts) return await new Comparison(options, client, facts).run();
    throw new SluiceError(
      'table_missing',
      `the table ${tableName(table)} is not in the source`,
      'Remove it from the source’s tables, or make it again.',
      { table: tableName(table) },
    );
  } finally {
    await client.end().catch(() => {});
  }
}

interface ReadRange {
  range: Range;
  source: Checksum;
}

interface SizedRange {
  range: Range;
  rows: number;
}

/** Ranges that the source has read. */
interface Group {
  parts: ReadRange[];
  /** Where the next group begins; undefined when this was the last. */
  end: Key | undefined;
  /** Position that the copy must have applied to hold what the source showed. */
  position: bigint;
}

class Comparison {
  readonly #options: VerifyOptions;
  readonly #client: pg.Client;
  readonly #facts: Facts;
  readonly #source: Side;
  readonly #copy: Side;
  readonly #partRows: number;
  readonly #started = performance.now();
  readonly #found: TableVerification;
  #chunks = 0;
  #applied = 0n;
  #rejects = new Map<string, bigint>();

  constructor(options: VerifyOptions, client: pg.Client, facts: Facts) {
    this.#options = options;
    this.#client = client;
    this.#facts = facts;
    this.#source = sourceSide(client, options.table, facts.partitioned);
    this.#copy = copySide(options.clickhouse, options.table, options.signal);
    this.#partRows = options.partRows ?? 10_000;
    this.#found = {
      asset_id: options.table.asset_id,
      identical: false,
      source_rows: 0,
      copy_rows: 0,
      missing: 0,
      extra: 0,
      different: 0,
      moving: 0,
      rejected: 0,
      at_least: false,
      keys: [],
      error: null,
      duration_ms: 0,
    };
  }

  async run(): Promise<TableVerification> {
    const found = this.#found;
    try {
      this.#rejects = await openRejects(this.#options.clickhouse, this.#options.table);
      if (this.#facts.ranges) await this.#compareRanges();
      else await this.#compareBuckets();
      found.identical = found.missing + found.extra + found.different + found.moving === 0 && !found.at_least;
    } catch (error) {
      if (!(error instanceof NotCaughtUp)) throw error;
      found.error = error.report();
    }
    found.duration_ms = Math.round(performance.now() - this.#started);
    return found;
  }

  // Integer keys: ranges, one after the other. While a group is compared, the source reads the next one.

  async #compareRanges(): Promise<void> {
    let next: Promise<Group> | undefined = this.#readGroup(undefined);
    while (next) {
      const group: Group = await next;
      next = group.end && this.#readGroup(group.end);
      // Awaited above or never: a failure of this group comes first.
      next?.catch(() => {});
      const differing = await this.#differingRanges(group);
      if (differing.length > 0) await this.#lookInto(differing);
    }
  }

  async #readGroup(after: Key | undefined): Promise<Group> {
    const parts: ReadRange[] = [];
    let end = after;
    do {
      this.#options.signal?.throwIfAborted();
      const range: Range = { after: end, upto: await this.#source.boundary({ after: end }, this.#partRows) };
      parts.push({ range, source: await this.#source.checksum(range) });
      end = range.upto;
    } while (end && parts.length < partsPerGroup);
    return { parts, end, position: await sourcePosition(this.#client) };
  }

  /** The ranges whose sums differ even when the copy holds all that the source showed. */
  async #differingRanges({ parts, position }: Group): Promise<SizedRange[]> {
    const differing: SizedRange[] = [];
    for (const { range, source } of parts) {
      let copy = await this.#copy.checksum(range);
      if (!equal(source, copy)) {
        await this.#caughtUp(position);
        copy = await this.#copy.checksum(range);
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
        if (size < partsOfRows * this.#partRows) continue;
        await this.#compareRows(some);
        some = [];
        size = 0;
      }
    }
    await this.#compareRows(some);
  }

  /** Where the copy has far more rows than the source, a range is cut by the copy's keys. */
  async *#cut({ range, rows }: SizedRange): AsyncGenerator<SizedRange> {
    let rest = range;
    while (rows > 2 * this.#partRows && !this.#hasEnough()) {
      const upto = await this.#copy.boundary(rest, this.#partRows);
      if (!upto) break;
      yield { range: { after: rest.after, upto }, rows: this.#partRows };
      rest = { after: upto, upto: rest.upto };
    }
    yield { range: rest, rows: Math.min(rows, this.#partRows) };
  }

  // Other keys: buckets of the key's hash. Ranges would be other rows on either side.

  async #compareBuckets(): Promise<void> {
    const { clickhouse, table } = this.#options;
    const [size] = await clickhouse.rows<{ n: string }>(
      `SELECT toString(count()) AS n FROM ${clickhouse.name(table.asset_id)}`,
    );
    const rows = Math.max(this.#facts.estimate, Number(size?.n ?? 0));
    const of = Math.min(Math.ceil(rows / this.#partRows) || 1, 65_536);
    const source = await this.#source.bucketChecksums(of);
    const position = await sourcePosition(this.#client);
    let copy = await this.#copy.bucketChecksums(of);
    if (bucketNumbers(of).some((bucket) => !equal(source.get(bucket), copy.get(bucket)))) {
      await this.#caughtUp(position);
      copy = await this.#copy.bucketChecksums(of);
    }
    for (const buckets of this.#differingBuckets(of, source, copy)) await this.#compareRows([{ of, buckets }]);
  }

  /** Buckets that differ, as many at once as memory should hold: each look reads the whole table. */
  *#differingBuckets(of: number, source: Map<number, Checksum>, copy: Map<number, Checksum>): Generator<number[]> {
    let some: number[] = [];
    let rows = 0;
    for (const bucket of bucketNumbers(of)) {
      const [here, there] = [source.get(bucket) ?? nothing, copy.get(bucket) ?? nothing];
      this.#count(here, there);
      if (equal(here, there)) continue;
      some.push(bucket);
      rows += Math.max(here.rows, there.rows);
      if (rows < partsOfRows * this.#partRows) continue;
      yield some;
      some = [];
      rows = 0;
    }
    if (some.length > 0) yield some;
  }

  // Row by row.

  /** Compares all rows of these parts, then those that seem to differ, closely. */
  async #compareRows(parts: Part[]): Promise<void> {
    if (parts.length === 0 || this.#hasEnough()) return;
    const source: SeenRows = new Map();
    for (const part of parts) merge(source, await this.#source.rows(part));
    await this.#caughtUp(await sourcePosition(this.#client));
    const copy: SeenRows = new Map();
    for (const part of parts) merge(copy, await this.#copy.rows(part));
    const suspects: Key[] = [];
    for (const [id, row] of source) if (copy.get(id)?.digest !== row.digest) suspects.push(row.key);
    for (const [id, row] of copy) if (!source.has(id)) suspects.push(row.key);
    for (let start = 0; start < suspects.length && !this.#hasEnough(); start += keysPerLook) {
      await this.#lookAtKeys(suspects.slice(start, start + keysPerLook));
    }
  }

  #hasEnough(): boolean {
    const { missing, extra, different } = this.#found;
    if (missing + extra + different >= enoughDifferences) this.#found.at_least = true;
    return this.#found.at_least;
  }

  /** Looks at rows until each has been the same once, or different twice while the source stood still. */
  async #lookAtKeys(keys: Key[]): Promise<void> {
    let open = keys;
    const seenDifferent = new Map<string, string>();
    for (let look = 0; look < looks && open.length > 0; look++) {
      if (look > 0) await sleep(Math.min(50 * 2 ** look, 1000), undefined, { signal: this.#options.signal });
      const before = await this.#source.lookup(open);
      await this.#caughtUp(await sourcePosition(this.#client));
      const copy = await this.#copy.lookup(open);
      const after = await this.#source.lookup(open);
      open = open.filter((key) => {
        const id = keyId(key);
        const rows = { before: before.get(id), copy: copy.get(id), after: after.get(id) };
        if (rows.copy?.digest === rows.after?.digest || rows.copy?.digest === rows.before?.digest) return false;
        const state = identity(rows.before) + identity(rows.copy);
        const still = identity(rows.before) === identity(rows.after);
        if (!still || seenDifferent.get(id) !== state) {
          if (still) seenDifferent.set(id, state);
          else seenDifferent.delete(id);
          return true;
        }
        this.#report(this.#problem(rows.after, rows.copy, key), key);
        return false;
      });
    }
    for (const key of open) this.#report('moving', key);
  }

  #problem(source: SeenRow | undefined, copy: SeenRow | undefined, key: Key): Problem {
    const reject = this.#rejects.get(keyId(key));
    if (source && reject !== undefined && reject > BigInt(copy?.mark ?? 0)) return 'rejected';
    return source ? (copy ? 'different' : 'missing') : 'extra';
  }

  #report(problem: Problem, key: Key): void {
    this.#found[problem] += 1;
    if (this.#found.keys.length >= keptKeys) return;
    this.#found.keys.push({ problem, key: showKey(keyColumns(this.#options.table), key) });
  }

  #count(source: Checksum, copy: Checksum): void {
    this.#found.source_rows += source.rows;
    this.#found.copy_rows += copy.rows;
    this.#chunks += 1;
    this.#options.onProgress?.({ checked: this.#found.source_rows, chunks: this.#chunks });
  }

  /** Returns when the copy holds everything up to `position`; it may take long, but must not stand still. */
  async #caughtUp(position: bigint): Promise<void> {
    const patience = (this.#options.patience ?? 60) * 1000;
    let moved = performance.now();
    for (let pause = 10; this.#applied < position; pause = Math.min(pause * 1.5, 500)) {
      this.#options.signal?.throwIfAborted();
      const applied = behindPageHeader(await this.#options.appliedPosition());
      if (applied > this.#applied) moved = performance.now();
      this.#applied = applied;
      if (applied >= position) return;
      if (performance.now() - moved > patience) throw new NotCaughtUp(this.#options.table, applied, position);
      await sleep(pause, undefined, { signal: this.#options.signal });
    }
  }
}

class NotCaughtUp extends SluiceError {
  constructor(table: TableSchema, applied: bigint, position: bigint) {
    super(
      'conflict',
      `the copy has not caught up: it stands at ${formatLsn(applied)}, and the source was read at ${formatLsn(position)}`,
      'Start or resume the source, see that its lag shrinks, and verify again.',
      { table: tableName(table) },
    );
  }
}

const nothing: Checksum = { rows: 0, sum: '0' };

function equal(a: Checksum = nothing, b: Checksum = nothing): boolean {
  return a.rows === b.rows && a.sum === b.sum;
}

function bucketNumbers(of: number): number[] {
  return Array.from({ length: of }, (_, bucket) => bucket);
}

function merge(all: SeenRows, more: SeenRows): void {
  for (const [id, row] of more) all.set(id, row);
}

function identity(row: SeenRow | undefined): string {
  return row ? `${row.digest} ${row.mark};` : 'none;';
}
