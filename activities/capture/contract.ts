/**
 * The activities of capturing, as flows see them. All inputs and outputs are small JSON: positions are text, the
 * connection string is sealed, no row value or key passes here. All are idempotent: any may run again after a crash,
 * or beside a predecessor that nobody believes alive.
 */
import type { BatchGlance } from '../../model/batch.ts';
import type { LogState } from '../../model/log.ts';
import type { VerifyAnswer, VerifyRequest } from '../../model/messages.ts';
import type {
  CapturedTable,
  ConnectRequest,
  Finding,
  LeaseSummary,
  LeftOutTable,
  SourceType,
} from '../../model/source.ts';

/** A table as the flow names it to activities. */
export type TableRef = Pick<CapturedTable, 'asset_id' | 'schema' | 'table' | 'start_position' | 'generation'> & {
  /** True when it is copied anew because its definition changed, and nobody asked for it. */
  automatic?: boolean;
};

/** A table by its name and its asset. */
export type TableName = Pick<CapturedTable, 'asset_id' | 'schema' | 'table'>;

/** What a flow knows of the tables that its source's globs mean. */
export interface KnownTables {
  /** Those that a lease does not stream: left out by people, failed, not started. */
  others: TableName[];
  /** Those that cannot be copied as they are, and that people have been told of. */
  left_out: LeftOutTable[];
}

export interface PreflightAnswer {
  findings: Finding[];
  /** What the request's names and globs mean in the source now; tables with a blocking finding are left out. */
  tables: TableName[];
  /** False when `current` points elsewhere than `request` or configures it otherwise. True when there is no `current`. */
  same: boolean;
}

export interface PreparedSource {
  /** Where the stream resumes: the last record's position, or where the slot begins. */
  position: string;
  /** Lease numbers up to this one have been used. */
  last_lease: number;
  /**
   * Every table asked for, with its start; `snapshot_done` when the records say that its copy is complete, `notice` why it is
   * copied anew when nobody asked for that.
   */
  tables: (TableRef & { snapshot_done: boolean; notice?: string })[];
}

export interface SnapshotPlan {
  chunks: number;
  /** The planner's estimate; -1 when unknown. */
  estimated_rows: number;
}

/** What a comparison found in one table. */
export interface VerifiedTable {
  asset_id: string;
  identical: boolean;
  source_rows: number;
  missing: number;
  extra: number;
  different: number;
  moving: number;
  rejected: number;
  /** Of those that differed, rows that are right now. */
  repaired?: number;
}

export interface VerifySum extends VerifyAnswer {
  /** For people: those that differ first, at most 60. */
  found: VerifiedTable[];
}

export interface CaptureActivities {
  /** Looks whether the source can be captured as asked. Changes nothing. `beside`: names of tables that are captured already. */
  preflightSource(input: {
    request: ConnectRequest;
    current?: ConnectRequest;
    beside?: string[];
  }): Promise<PreflightAnswer>;

  /**
   * Makes copies, publication and slot what the tables need, in the order that loses nothing (publication before slot,
   * start position after the publication). Tables with a `start_position` keep it, unless the slot is new. A table that
   * has a copy gets another one beside it, under a higher generation. No lease may run meanwhile. `renew`: where all of them begin,
   * the slot is made anew, however whole it looks.
   */
  prepareSource(input: { request: ConnectRequest; tables: TableRef[]; renew?: boolean }): Promise<PreparedSource>;

  /**
   * The data plane: streams all `tables` until `seconds` have passed (at a transaction's end, after progress), it is
   * cancelled, a table fails, one of `absent` is there again, or there are tables that are not `known`. Heartbeats LeaseProgress. Cancelled = answers its
   * summary, after the running batch.
   */
  captureLease(input: {
    request: ConnectRequest;
    lease: number;
    tables: TableRef[];
    /** Tables that are gone from the source, and are looked for. */
    absent?: TableRef[];
    /** Nothing when no new tables are looked for. */
    known?: KnownTables;
    seconds: number;
    /** The last lease whose summary the flow has; 0 = none. What later ones recorded of failed tables is told again. */
    told?: number;
  }): Promise<LeaseSummary>;

  /** Waits behind the barrier of open transactions, then cuts the table's key range into chunks and stores the plan. */
  planSnapshot(input: { request: ConnectRequest; table: TableRef }): Promise<SnapshotPlan>;

  /** Copies chunk `chunk` (from 0) of the stored plan; one that is recorded already only answers. */
  copyChunk(input: {
    request: ConnectRequest;
    table: TableRef;
    chunk: number;
  }): Promise<{ rows: number; bytes: number }>;

  /**
   * After the last chunk: sweeps rows of before the start position and below truncates, records the snapshot, and
   * answers the source position that the stream must pass for the table to be complete.
   */
  finishSnapshot(input: { request: ConnectRequest; table: TableRef }): Promise<{ complete_at: string; rows: number }>;

  /**
   * Returns when a batch is recorded at or past `position`. With `table`, its copy is complete then, has taken the place of
   * an old one beside which it was made, and a record says so. Heartbeats; cancellable. Answers the last batches, for people, when nobody was told of them a moment ago.
   */
  awaitPosition(input: {
    source: string;
    /** Absent in inputs of earlier versions: then the catalog is asked for it. */
    type?: SourceType;
    position: string;
    table?: TableRef;
  }): Promise<BatchGlance[] | undefined>;

  /** Where the source's log stands now, and how much of it is kept for us. */
  lookAtLog(input: { source: string }): Promise<LogState>;

  /** Takes tables out of the publication; their copies stay. */
  releaseTables(input: { request: ConnectRequest; tables: TableRef[] }): Promise<void>;

  /** Drops slot and publication, and the copies too when asked. `force`: goes on when the source does not answer. */
  removeSource(input: {
    request: ConnectRequest;
    tables: TableRef[];
    drop_copies: boolean;
    force: boolean;
  }): Promise<void>;

  /** Compares tables of a source with their copies; the answer with keys is stored in `_verifications`. */
  verifySource(input: VerifyRequest): Promise<VerifySum>;

  /** The last records of a source, newest first: for a flow's current details. */
  recentBatches(input: { source: string; limit: number }): Promise<BatchGlance[]>;
}
