/** Batch records: what a batch did. One insert into `_batches` is both the checkpoint and the audit record. */

import type { ErrorReport } from './errors.ts';

/** What one batch did to one asset. `effects` read = written + compacted + superseded + rejected + filtered. */
export interface AssetEffects {
  inserts: number;
  updates: number;
  deletes: number;
  truncates: number;
  /** A change is one effect, a change of key two. */
  effects: number;
  /** Rows that ClickHouse confirmed, tombstones included. */
  written: number;
  /** Effects overtaken by a later one of the same key in the same batch. */
  compacted: number;
  /** Effects that the copy had already overtaken. */
  superseded: number;
  rejected: number;
  /**
   * Rows of a snapshot that a filter did not let through; absent when there are none. Streamed ones leave a tombstone, and are
   * written.
   */
  filtered?: number;
  /** Bytes of TSV sent. */
  bytes: number;
}

/** What a rule or check did to the rows that came to it. */
export interface RuleCounts {
  in: number;
  /** Rows that went on: of a filter those that it let through, of a check those that passed. */
  out: number;
  /** Rows on which a rule itself failed; of a check those that failed it, whatever its severity. */
  errors: number;
}

/** By asset, what each of its rules and checks did. */
export type AppliedRules = Record<string, Record<string, RuleCounts>>;

/**
 * `begin` opens a lease (its fence) · `rows` changes · `truncate` one truncate, alone · `schema` another definition of
 * a table, alone · `idle` the source moved on without changes for us · `chunk` part of a snapshot (its positions are the
 * table's starting point) · `snapshot` a finished one (from its start to the position that the stream must pass) ·
 * `complete` the stream has passed it: from here on the copy is complete · `repair` rows of a copy that differed, read
 * again (its positions are where they stand in the stream) · `release` rows that were held back, and came into their copy after
 * all (its position is where the stream stood then) · `released` tables are not captured any more · `removed` the
 * source was disconnected: what stands before says nothing about a later source of that name.
 * Of a deployment (`source` is its name, positions are instants): `rows` and `idle` move the kept position · `backfill`
 * a file of a backfill · `extract` an interval that is done.
 */
export type BatchKind =
  | 'begin'
  | 'rows'
  | 'truncate'
  | 'schema'
  | 'idle'
  | 'chunk'
  | 'snapshot'
  | 'complete'
  | 'repair'
  | 'release'
  | 'released'
  | 'removed'
  | 'backfill'
  | 'extract';

/** Leases are numbered in the upper bits, attempts in the lower 16. */
export const attemptsLimit = 65_536;

/** Why a table's changes are not copied any more, and since which beginning of its copy. */
export type TableFailure = ErrorReport & { generation?: number };

/** The kinds that leases record, in the order of the source's log. */
export const streamKinds = ['begin', 'rows', 'truncate', 'schema', 'idle'] as const satisfies BatchKind[];

/** A row of `_batches`, as JSON: positions, versions and 64-bit numbers are strings, times ISO 8601 in UTC. */
export interface BatchRecord {
  /** `{source}/{lease}/{seq}`; of a snapshot `{source}/snapshot/{asset}/{generation}` and `/{chunk}`; of a release `{source}/release/{asset}/{lowest version}-{digest of its rows}`. */
  id: string;
  source: string;
  kind: BatchKind;
  /** lease number * `attemptsLimit` + attempt: later leases have higher numbers, so a zombie is recognised. */
  lease: number;
  seq: number;
  /** Resume points before and after: the end of the last whole transaction that is durable. */
  position_from: string;
  position_to: string;
  /** Set when the batch ends inside a transaction: LSN of its last change. Of a chunk or repair, what its rows bear as `_committed_at`; of a release, a mark for each row. */
  inner: string;
  /** Of the source's cluster: `system identifier/timeline`. */
  cluster: string;
  /** Upper 16 bits of all versions: rises when the source is another cluster, or another timeline, than before. */
  epoch: number;
  /** Commit times of the first and last change; null when there is none. */
  committed_first: string | null;
  committed_last: string | null;
  changes: number;
  /** By asset, what was done to it. A `begin` names here, without effects, the assets that its lease streams. */
  assets: Record<string, AssetEffects>;
  /** Highest truncate version per asset, decimal text. */
  truncated: Record<string, string>;
  /** Of kind `schema`: per asset what was altered, for people. */
  altered?: Record<string, string[]>;
  /** Tables that failed in this batch: their later changes are not copied until they are re-synced. */
  failed: Record<string, TableFailure>;
  /** Version of the rules that were applied: the highest of its tables. 0 = none. */
  rules: number;
  /** What they did; absent when no table has any. */
  applied?: AppliedRules;
  /** Milliseconds: first change received to cut, resolving missing values, insert. */
  durations: { fill: number; resolve: number; write: number };
  workflow_id: string;
  run_id: string;
  attempt: number;
  /**
   * The chain: of a stream record, the hash of the one before it that is not `idle` (those replace each other), in this lease or
   * in the one that it took over from. Of a `snapshot` the digest of its chunks' hashes, of a `complete` its snapshot's hash.
   */
  previous_hash: string;
  /** SHA-256 over all of this record. */
  hash: string;
}

/** What people are shown of a batch: in heartbeats, and on the pages of flows. */
export interface BatchGlance extends Pick<BatchRecord, 'id' | 'kind' | 'position_to' | 'changes' | 'committed_last'> {
  /** Written to all copies. */
  rows: number;
  recorded_at: string;
}

export function glanceAt(record: BatchRecord, recordedAt: string): BatchGlance {
  const { id, kind, position_to, changes, committed_last } = record;
  const rows = Object.values(record.assets).reduce((sum, effects) => sum + effects.written, 0);
  return { id, kind, position_to, changes, committed_last, rows, recorded_at: recordedAt };
}

/** An empty account. */
export function noEffects(): AssetEffects {
  return {
    inserts: 0,
    updates: 0,
    deletes: 0,
    truncates: 0,
    effects: 0,
    written: 0,
    compacted: 0,
    superseded: 0,
    rejected: 0,
    bytes: 0,
  };
}

/** Adds `more` to `sum` in place. */
export function addEffects(sum: AssetEffects, more: AssetEffects): void {
  const { filtered, ...counted } = more;
  for (const name of Object.keys(counted) as (keyof typeof counted)[]) sum[name] += counted[name];
  if (filtered) sum.filtered = (sum.filtered ?? 0) + filtered;
}

/** Adds what rules did to `sum` in place. */
export function addCounts(sum: Record<string, RuleCounts>, more: Iterable<[string, RuleCounts]>): void {
  for (const [rule, counts] of more) {
    sum[rule] ??= { in: 0, out: 0, errors: 0 };
    const before = sum[rule];
    before.in += counts.in;
    before.out += counts.out;
    before.errors += counts.errors;
  }
}
