/** The activities of extracting, as flows see them. All are idempotent: any may run again after a crash. */
import type { ExtractRequest } from '../../model/extract.ts';

/** What of a run is to be pulled. All instants are ISO texts; '' = the beginning of time. */
export interface ExtractPlan {
  /** `rows` moves the kept position, `backfill` leaves it. */
  kind: 'rows' | 'backfill';
  from: string;
  to: string;
  /** Where to begin asking: `from`, or an earlier instant since which nothing had changed. */
  since: string;
  /** Of the answer that said so; '' when there is none. */
  etag: string;
}

export interface ExtractRun {
  request: ExtractRequest;
  plan: ExtractPlan;
  /** When the run began, milliseconds since 1970: the same at every attempt. */
  started: number;
}

/** What one file holds, and what its load did. */
export interface ExtractedFile {
  /** Name in the deployment's folder of asset_data; '' when there was nothing to write. */
  file: string;
  rows: number;
  rejected: number;
  bytes: number;
  requests: number;
  /** Where the next file begins; '' when the interval is done. */
  next: string;
  /** All assets before this instant are in the copy. */
  position: string;
  /** Head of the run's chain of records. */
  hash: string;
}

/** An interval of a backfill: [from, to). */
export interface Interval {
  from: string;
  to: string;
}

/** How the schedule of a deployment starts its runs: a backfill starts them likewise. */
export interface RunOptions {
  task_queue: string;
  tags: string[];
  /** What Temporal shows beside a run; the deployment's definition, unless somebody has changed that. */
  memo: Record<string, unknown>;
}

export interface ExtractActivities {
  /**
   * Decides what a run pulls: [kept position, nominal time) when it is the newest that is due, or when its own interval
   * begins at or before that position; else, and when all up to its nominal time is pulled, the schedule's own interval
   * that ends there, as a backfill. Without a schedule every run is the newest. `nominal`: ISO text; `started`:
   * milliseconds since 1970.
   */
  planExtract(input: { request: ExtractRequest; nominal: string; started: number }): Promise<ExtractPlan>;

  /**
   * Pulls pages from `since` on, writes file `number` (from 1), loads it and records that; ends at about 200,000 rows.
   * At the end of the interval it also records that the interval is done. Heartbeats progress. Errors: `configuration` for
   * a backfill that ends in the future.
   */
  extractFile(input: ExtractRun & { number: number; since: string; previous_hash: string }): Promise<ExtractedFile>;

  /**
   * The intervals of a deployment's schedule that end in (`after`, to], in order, at most `limit`: those that lie in what
   * finished runs have pulled, taken together, are left out when `only_missing` is set. Intervals are cut at from and to.
   * `through`: what to go on behind; '' when there are no more. At the beginning (`after` = '') `configuration` refuses a
   * `to` in the future, and more than 100,000 intervals.
   * `run` is absent in answers of earlier versions, which flows may still read.
   */
  planBackfill(input: {
    deployment: string;
    from: string;
    to: string;
    only_missing: boolean;
    after: string;
    limit: number;
  }): Promise<{ intervals: Interval[]; skipped: number; through: string; request: ExtractRequest; run?: RunOptions }>;

  /** Re-syncs tables of a source (none named = all), and returns when they stream again. Heartbeats. */
  resyncTables(input: { source: string; tables: string[]; request_id: string }): Promise<{ tables: number }>;
}
