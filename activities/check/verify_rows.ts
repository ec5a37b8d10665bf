/** Comparing row by row, while both sides move: what differs is looked at until it is certain why. */
import { setTimeout as sleep } from 'node:timers/promises';
import { keyColumns, type TableSchema, withCopiedValues } from '../../model/table.ts';
import type { DifferingKey, Problem, TableVerification } from './verify.ts';
import { type Key, showKey } from './verify_keys.ts';
import type { Pace } from './verify_pace.ts';
import { keyId, type Part, type SeenRow, type SeenRows, type Side } from './verify_sides.ts';

/** Keys that are looked at together. */
const keysPerLook = 500;
/** Looks at a row that keeps moving. */
const maxLooks = 12;
/** Real differences after which rows are no longer looked at: such a table needs a re-sync, not a longer list. */
const enoughDifferences = 10_000;
const keptKeys = 100;

interface Needs {
  source: Side;
  copy: Side;
  pace: Pace;
  table: TableSchema;
  /** Versions of changes that are held back or discarded, by `keyId`. */
  rejects: Map<string, bigint>;
  signal: AbortSignal | undefined;
  /** Differences go here. */
  found: TableVerification;
  /** Called for each row that is really missing, extra or different. */
  onDifference?: (difference: Difference) => void;
}

/** A row that differs, and what is shown of it. */
export interface Difference {
  key: Key;
  problem: Problem;
  /** Absent beyond the hundred that are shown. */
  shown?: DifferingKey;
}

export class RowComparison {
  readonly #needs: Needs;
  #different: { key: Key; shown: DifferingKey }[] = [];

  constructor(needs: Needs) {
    this.#needs = needs;
  }

  /** True when no more rows are looked at, since far too many differ. */
  get enough(): boolean {
    const { found } = this.#needs;
    if (found.missing + found.extra + found.different >= enoughDifferences) found.at_least = true;
    return found.at_least;
  }

  /** Compares all rows of these parts, then those that seem to differ, closely. Holds the parts' keys in memory. */
  async compare(parts: Part[]): Promise<void> {
    if (parts.length === 0 || this.enough) return;
    const source = await readParts(this.#needs.source, parts);
    await this.#needs.pace.caughtUpNow();
    const copy = await readParts(this.#needs.copy, parts);
    const suspects: Key[] = [];
    for (const [id, row] of source) if (!isSame(row, copy.get(id))) suspects.push(row.key);
    for (const [id, row] of copy) if (!source.has(id)) suspects.push(row.key);
    for (let start = 0; start < suspects.length && !this.enough; start += keysPerLook) {
      await this.lookAt(suspects.slice(start, start + keysPerLook));
    }
  }

  /** Looks at some rows until each has been the same once, or different twice while the source stood still. */
  async lookAt(keys: Key[]): Promise<void> {
    const { source, copy, pace, signal } = this.#needs;
    /** What either side showed when a key differed. */
    const differed = new Map<string, string>();
    let open = keys;
    for (let look = 0; look < maxLooks && open.length > 0; look++) {
      if (look > 0) await sleep(Math.min(50 * 2 ** look, 1000), undefined, { signal });
      const before = await source.lookup(open);
      await pace.caughtUpNow();
      const between = await copy.lookup(open);
      const after = await source.lookup(open);
      open = open.filter((key) => {
        const id = keyId(key);
        const [first, there, last] = [before.get(id), between.get(id), after.get(id)];
        if (isSame(first, there) || isSame(last, there)) return false;
        const seen = state(first) + state(there);
        const still = state(first) === state(last);
        const again = still && differed.get(id) === seen;
        if (again) this.#report(this.#problem(last, there, id), key);
        else differed.set(id, still ? seen : '');
        return !again;
      });
    }
    for (const key of open) this.#report('moving', key);
  }

  #problem(source: SeenRow | undefined, copy: SeenRow | undefined, id: string): Problem {
    const reject = this.#needs.rejects.get(id);
    if (source && reject !== undefined && reject > BigInt(copy?.mark ?? 0)) return 'rejected';
    return source ? (copy ? 'different' : 'missing') : 'extra';
  }

  #report(problem: Problem, key: Key): void {
    const { found, table } = this.#needs;
    found[problem] += 1;
    const shown = found.keys.length < keptKeys ? { problem, key: showKey(keyColumns(table), key) } : undefined;
    if (shown) found.keys.push(shown);
    if (shown && problem === 'different') this.#different.push({ key, shown });
    if (problem !== 'moving' && problem !== 'rejected') this.#needs.onDifference?.({ key, problem, shown });
  }

  /** Adds to the keys of different rows, since it was last called, which columns differ. */
  async nameColumns(): Promise<void> {
    const { source, copy, table } = this.#needs;
    if (this.#different.length === 0) return;
    const keys = this.#different.map(({ key }) => key);
    const [here, there] = [await source.columnDigests(keys), await copy.columnDigests(keys)];
    for (const { key, shown } of this.#different) {
      const [mine, theirs] = [here.get(keyId(key)), there.get(keyId(key))];
      const differing = withCopiedValues(table).columns.filter((_, index) => mine?.[index] !== theirs?.[index]);
      shown.columns = differing.map((column) => column.name);
    }
    this.#different = [];
  }
}

/** True when the copy shows what the source does, or lacks a row that it need not have. */
function isSame(source: SeenRow | undefined, copy: SeenRow | undefined): boolean {
  return copy?.digest === source?.digest || (copy === undefined && source?.doubt !== undefined);
}

async function readParts(side: Side, parts: Part[]): Promise<SeenRows> {
  const rows: SeenRows = new Map();
  for (const part of parts) for (const [id, row] of await side.rows(part)) rows.set(id, row);
  return rows;
}

function state(row: SeenRow | undefined): string {
  return row ? `${row.digest} ${row.mark};` : 'none;';
}
