/** A source as flows, activities, REST and CLI speak of it. All of it is plain JSON. */
import type { AssetEffects, BatchGlance, BatchRecord } from './batch.ts';
import type { ErrorReport } from './errors.ts';
import { isGlob } from './glob.ts';
import type { LogFigures } from './log.ts';

export type SourceType = 'postgresql';

/**
 * What follows when a table's definition changes. `evolve`: the copy follows by itself · `approve`: the table waits for
 * somebody to agree · `ignore`: as evolve, but new columns are left out · `stop`: the table waits for a re-sync.
 */
export const schemaPolicies = ['evolve', 'approve', 'ignore', 'stop'] as const;
export type SchemaPolicy = (typeof schemaPolicies)[number];

/** The policy that a source's configuration means: `options.schema_changes`. */
export function schemaPolicy(config: Pick<CaptureConfig, 'options'>): SchemaPolicy {
  const named = config.options.schema_changes as SchemaPolicy | undefined;
  return named !== undefined && schemaPolicies.includes(named) ? named : 'evolve';
}

/** True when a table whose copy does not fit any more is copied anew without anybody asking. */
export function healsItself(config: Pick<CaptureConfig, 'options'>): boolean {
  const policy = schemaPolicy(config);
  return policy === 'evolve' || policy === 'ignore';
}

/** True when the configuration means more tables than it names: others that come later too. */
export function meansManyTables({ tables = [] }: Pick<CaptureConfig, 'tables'>): boolean {
  return tables.length === 0 || tables.some(isGlob);
}

/** What people do about a table whose definition changed. */
export function schemaRemedy(config: Pick<CaptureConfig, 'options'>, source: string, table: string): string {
  const remedies: Record<SchemaPolicy, string> = {
    evolve: 'Nothing is to be done: it is copied anew by itself.',
    ignore: 'Nothing is to be done: it is copied anew by itself.',
    approve: `If that is right, have it copied as it is now: sluice sources approve ${source} ${table}`,
    stop: `Make its copy anew: sluice sources resync ${source} ${table}`,
  };
  return remedies[schemaPolicy(config)];
}

export type CopyMode = 'copy' | 'log' | 'both';

/** The part of a connect request that says what to capture and how. */
export interface CaptureConfig {
  /** Names, `schema.name` or globs; none = every table of `public` with a usable key. */
  tables?: string[];
  /** Seconds that a batch may wait at most before it is written. */
  poll_interval: number;
  mode: CopyMode;
  /** By table: columns that are stored nowhere. */
  exclude_columns: Record<string, string[]>;
  /** By type; for postgresql `publication`, `slot`, `asset_ids` and `schema_changes`. */
  options: Record<string, unknown>;
}

/**
 * What POST /api/v1/sources/connect takes and what `captureSource` is started with. In a flow `connection_string` is
 * always sealed or an environment reference such as `${DATABASE_URL}`: a plain one is refused there.
 */
export interface ConnectRequest {
  id: string;
  type: SourceType;
  connection_string: string;
  config: CaptureConfig;
}

export type SourceState = 'connected' | 'snapshotting' | 'streaming' | 'paused' | 'stopped' | 'failed';
export type TableState = 'pending' | 'snapshotting' | 'streaming' | 'failed';

/** A table in the state of `captureSource`. */
export interface CapturedTable {
  asset_id: string;
  /** `schema.name`, exactly; people see it without `public.`. */
  schema: string;
  table: string;
  status: TableState;
  error: ErrorReport | null;
  /** Why the table is copied anew without anybody having asked for it, or null. */
  notice: string | null;
  /** Where this table's stream begins: the version of its snapshot rows. Empty until it is known. */
  start_position: string;
  /** Counts snapshots of this table. */
  generation: number;
  /** Chunks of the running or last snapshot. */
  chunks_done: number;
  chunks_total: number;
  snapshot_rows: number;
}

/** A table that the source's globs mean, and that is left out: why, and what to do. */
export interface LeftOutTable {
  /** As people write it. */
  table: string;
  reason: string;
  remedy: string;
}

/** Answer of the query `status` of `captureSource`. */
export interface CaptureStatus {
  id: string;
  type: SourceType;
  status: SourceState;
  /** The request without its connection string. */
  config: CaptureConfig;
  tables: CapturedTable[];
  /** Number of the running or last lease. */
  lease: number;
  /** Recorded position at the end of the last lease; the live one is in `_batches`. */
  position: string;
  last_error: ErrorReport | null;
  warning: string | null;
  /** Tables that came since the source was connected, and that cannot be copied as they are. */
  left_out: LeftOutTable[];
}

/** Heartbeat details of a lease: live figures, never row values. */
export interface LeaseProgress {
  position: string;
  changes: number;
  batches: number;
  lag_bytes: number;
  lag_seconds: number;
  /** Bytes of log that the source keeps for us; null until it was asked. */
  retained_bytes: number | null;
  /** What that means; null until it was asked. */
  log: LogFigures | null;
  /** ISO time of the last batch, or null. */
  last_batch_at: string | null;
  /** The last batches, newest first: for people who look at the running activity. */
  recent: BatchGlance[];
}

/** What a lease returns into the history (at most 128 KB): sums, not records. */
export interface LeaseSummary {
  ended: 'time' | 'cancelled' | 'table_failed' | 'table_returned' | 'tables_found' | 'summary_full';
  lease: number;
  position_from: string;
  position_to: string;
  batches: number;
  changes: number;
  assets: Record<string, AssetEffects>;
  first: Pick<BatchRecord, 'id' | 'position_from' | 'position_to' | 'committed_first'> | null;
  last: Pick<BatchRecord, 'id' | 'position_from' | 'position_to' | 'committed_last'> | null;
  /** Head of the hash chain. */
  hash: string;
  failed: Record<string, ErrorReport>;
  /** Assets whose tables were gone, and are there again. */
  returned?: string[];
  /** Tables that the source's globs mean and that nobody knew of, ready to be copied. */
  found?: Pick<CapturedTable, 'asset_id' | 'schema' | 'table'>[];
  /** All others of them, when they are not those that were known to be left out. */
  left_out?: LeftOutTable[];
  /** Of the source's own log, when it was last asked; null when it could not be. */
  log: LogFigures | null;
}

/** One thing that preflight found; a blocking one stops connect. */
export interface Finding {
  code: string;
  blocking: boolean;
  /** `schema.table` when it is about one table. */
  table?: string;
  detail: string;
  remedy: string;
}
