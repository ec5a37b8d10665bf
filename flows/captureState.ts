/** The state of `captureSource`: plain JSON that is carried from run to run, and what follows from it. */
import type { KnownTables, TableName, TableRef } from '../activities/capture/contract.ts';
import type { BatchGlance } from '../model/batch.ts';
import type { ErrorReport } from '../model/errors.ts';
import type { LogFigures } from '../model/log.ts';
import {
  type CapturedTable,
  type CaptureStatus,
  type ConnectRequest,
  healsItself,
  type LeaseSummary,
  type LeftOutTable,
  meansManyTables,
  type SourceState,
} from '../model/source.ts';
import { tableName } from '../model/table.ts';
import { stateLimit } from './input.ts';

/** A table, with what only the flow needs to know. */
export interface FlowTable extends CapturedTable {
  /** False for a table that was connected, but left out by `start`. */
  started: boolean;
  /** Source position that the stream must pass for the copy to be complete; empty until the snapshot is recorded. */
  complete_at: string;
  /** All chunks before this one are done. */
  next_chunk: number;
  /** When (ms since 1970) it was copied anew lately without anybody having asked for it. */
  healed?: number[];
}

/** What people last asked for. */
export type Wish = 'connected' | 'running' | 'paused' | 'stopped';

/** What of the last lease is shown. */
export interface LeaseGlance {
  lease: number;
  ended: LeaseSummary['ended'];
  batches: number;
  changes: number;
  rows: number;
  /** Of the source's own log then; null when it is not known. */
  log: LogFigures | null;
}

/** How much at once, and how long. Only tests set other values. */
export interface Limits {
  lease_seconds: number;
  /** A new run of the flow after so many leases; 0 = when Temporal suggests it. */
  leases_per_run: number;
  /** Tables whose snapshots run at once. */
  snapshots: number;
  /** Chunks at once within a table. */
  chunks: number;
}

export const usualLimits: Limits = { lease_seconds: 600, leases_per_run: 0, snapshots: 2, chunks: 2 };

export interface FlowState {
  /** As it was connected or configured last: what `addTables` adds is in `tables` alone. */
  request: ConnectRequest;
  wish: Wish;
  tables: FlowTable[];
  /** Removed, but perhaps still in the publication. */
  releasing: TableRef[];
  /** Tables that people have taken out: globs do not bring them back. Absent in states of before. */
  taken_out?: TableName[];
  /** Tables that came and cannot be copied as they are. Absent in states of before. */
  left_out?: LeftOutTable[];
  /** False when `prepareSource` must look at the source before the next lease. */
  prepared: boolean;
  /** True when the log of before is given up with all copies. Absent in states of before. */
  renew?: boolean;
  /** Number of the running or last lease; rises for ever. */
  lease: number;
  position: string;
  /** Set when the source failed for good: nothing goes on until start or resume. */
  last_error: ErrorReport | null;
  warning: string | null;
  last_lease: LeaseGlance | null;
  /** The last batches, as they were when somebody last asked. */
  recent: BatchGlance[];
  limits: Limits;
}

export function newState(request: ConnectRequest, limits: Limits): FlowState {
  return {
    request,
    wish: 'connected',
    tables: [],
    releasing: [],
    prepared: false,
    lease: 0,
    position: '',
    last_error: null,
    warning: null,
    last_lease: null,
    recent: [],
    limits,
  };
}

export function newTable(found: Pick<CapturedTable, 'asset_id' | 'schema' | 'table'>, started: boolean): FlowTable {
  return {
    asset_id: found.asset_id,
    schema: found.schema,
    table: found.table,
    status: 'pending',
    error: null,
    notice: null,
    start_position: '',
    generation: 1,
    chunks_done: 0,
    chunks_total: 0,
    snapshot_rows: 0,
    started,
    complete_at: '',
    next_chunk: 0,
  };
}

/** The table will be copied from its beginning again, as the given generation. */
export function resetTable(table: FlowTable, generation: number): void {
  Object.assign(table, newTable(table, table.started), { generation });
}

/** A table that is copied anew so often in so short a time is not cured by that. */
const mostHealed = { times: 6, within: 15 * 60_000 };

/** Has a table copied anew because its definition changed, unless that was done too often lately: then answers false. */
export function healTable(table: FlowTable, notice: string, now: number): boolean {
  const healed = (table.healed ?? []).filter((time) => now - time < mostHealed.within);
  if (healed.length >= mostHealed.times) return false;
  resetTable(table, table.generation + 1);
  Object.assign(table, { notice: notice.slice(0, 600), healed: [...healed, now] });
  return true;
}

export function refOf(table: TableRef & { notice?: string | null }): TableRef {
  const { asset_id, schema, table: name, start_position, generation, notice } = table;
  const ref = { asset_id, schema, table: name, start_position, generation };
  return notice ? { ...ref, automatic: true } : ref;
}

/** A table by its name, `schema.name` or asset id. */
export function findTable(state: FlowState, name: string): FlowTable | undefined {
  return state.tables.find(
    (table) => tableName(table) === name || `${table.schema}.${table.table}` === name || table.asset_id === name,
  );
}

/** Tables that leases stream: started and not failed. */
export function liveTables(state: FlowState): FlowTable[] {
  return state.tables.filter((table) => table.started && table.status !== 'failed');
}

/** Tables that are gone from the source: they are copied again when they come back. */
export function absentTables(state: FlowState): FlowTable[] {
  if (!healsItself(state.request.config)) return [];
  return state.tables.filter((table) => table.started && table.error?.kind === 'table_missing');
}

/** What a lease has to know to look for new tables; undefined where nothing but names was connected. */
export function knownTables(state: FlowState): KnownTables | undefined {
  const { config } = state.request;
  if (!meansManyTables(config) || isAlmostFull(state)) return undefined;
  const watched = new Set([...liveTables(state), ...absentTables(state)]);
  const others = [...state.tables.filter((table) => !watched.has(table)), ...(state.taken_out ?? [])];
  return { others: others.map(nameOf), left_out: state.left_out ?? [] };
}

/** New tables are not looked for where there is hardly room for them in the flow's state. */
function isAlmostFull(state: FlowState): boolean {
  return JSON.stringify(state).length > 0.9 * stateLimit;
}

/** Takes in tables that a lease has found. They wait when somebody has chosen among the tables before. */
export function takeInFound(state: FlowState, { found = [], left_out: leftOut }: LeaseSummary): void {
  if (leftOut) state.left_out = leftOut;
  const started = state.tables.every((table) => table.started);
  const known = [...state.tables, ...(state.taken_out ?? [])];
  const isKnown = ({ asset_id, schema, table }: TableName) =>
    known.some((one) => one.asset_id === asset_id || (one.schema === schema && one.table === table));
  for (const table of found) if (!isKnown(table) && !isAlmostFull(state)) state.tables.push(newTable(table, started));
}

export function nameOf({ asset_id, schema, table }: TableName): TableName {
  return { asset_id, schema, table };
}

/** Tables that wait for somebody to agree with a change of their definition. */
export function waitingTables(state: FlowState): FlowTable[] {
  return state.tables.filter((table) => table.started && table.error?.kind === 'table_changed');
}

export type Step = 'release' | 'prepare' | 'lease' | 'wait';

/** What has to be done next; leases and changes of the publication exclude each other. */
export function nextStep(state: FlowState): Step {
  if (state.releasing.length > 0) return 'release';
  if (state.wish !== 'running' || state.last_error) return 'wait';
  const live = liveTables(state);
  // Without any table a lease still looks for those that are gone, once there is a log to read.
  if (live.length === 0) return absentTables(state).length > 0 && state.position !== '' ? 'lease' : 'wait';
  if (!state.prepared || live.some((table) => table.start_position === '')) return 'prepare';
  return 'lease';
}

export function sourceState(state: FlowState): SourceState {
  if (state.wish !== 'running') return state.wish;
  const live = liveTables(state);
  if (state.last_error || live.length === 0) return 'failed';
  return live.every((table) => table.status === 'streaming') ? 'streaming' : 'snapshotting';
}

/** What the query `status` and most updates answer. */
export function statusOf(state: FlowState): CaptureStatus {
  const status = sourceState(state);
  const { connection_string: _, ...request } = state.request;
  const firstError = state.tables.find((table) => table.started && table.error)?.error ?? null;
  return {
    id: request.id,
    type: request.type,
    status,
    config: request.config,
    tables: state.tables.map(
      ({ started: _started, complete_at: _at, next_chunk: _next, healed: _healed, ...table }) => table,
    ),
    lease: state.lease,
    position: state.position,
    last_error: state.last_error ?? (status === 'failed' ? firstError : null),
    warning: state.warning,
    left_out: state.left_out ?? [],
  };
}
