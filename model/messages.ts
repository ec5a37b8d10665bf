/** Names of flows, their ids and messages: what the API, the CLI and people at Temporal UI call. */
import type { LogSample, LogState } from './log.ts';
import type { CapturedTable, CaptureStatus, Finding } from './source.ts';
import type { SourceChanges } from './source_changes.ts';

type TableName = Pick<CapturedTable, 'asset_id' | 'schema' | 'table'>;

export const catalogWorkflowId = 'catalog';
export const captureWorkflowId = (source: string): string => `capture/${source}`;
export const snapshotWorkflowId = (source: string, asset: string, generation: number): string =>
  `snapshot/${source}/${asset}/${generation}`;
export const logWorkflowId = (source: string): string => `log/${source}`;
export const verifyWorkflowId = (source: string): string => `verify/${source}`;

/** Of the schedule that compares a source by itself. No deployment can bear that name. */
export const verifyScheduleId = (source: string): string => `verify/${source}`;

/** Workflow types, as they are called in flows/. */
export const flowNames = {
  captureSource: 'captureSource',
  snapshotTable: 'snapshotTable',
  catalog: 'catalog',
  verifyCopy: 'verifyCopy',
  watchLog: 'watchLog',
  extractAssets: 'extractAssets',
  backfill: 'backfill',
  settleRejects: 'settleRejects',
  discoverSource: 'discoverSource',
} as const;

/**
 * Messages of `captureSource`. Updates: `connect` (ConnectRequest → ConnectAnswer), `start` ({tables?} → CaptureStatus),
 * `pause`, `resume`, `stop` (→ CaptureStatus), `addTables`, `removeTables`, `resync` ({tables} → CaptureStatus),
 * `configure` ({config} → CaptureStatus: other settings, in place), `plan` ({config} → SourcePlan: what that would do),
 * `approveSchema` ({tables?} → CaptureStatus: tables that wait because of a schema change are copied as they are now),
 * `remove` ({drop_copies, force} → the flow drops slot and publication and completes). Query: `status` → CaptureStatus. Signal:
 * `rulesChanged` ({version}), sent by `catalog`.
 */
export const captureMessages = {
  connect: 'connect',
  start: 'start',
  pause: 'pause',
  resume: 'resume',
  stop: 'stop',
  addTables: 'addTables',
  removeTables: 'removeTables',
  resync: 'resync',
  approveSchema: 'approveSchema',
  configure: 'configure',
  plan: 'plan',
  remove: 'remove',
  status: 'status',
  rulesChanged: 'rulesChanged',
} as const;

/**
 * Messages of `catalog`. Updates: `registerSource` (ConnectRequest, sealed), `removeSource` ({id}). Queries: `sources`
 * → ConnectRequest[] (sealed), `source` (id) → ConnectRequest | null. Of schemas: updates `registerSchema` (RegisterRequest →
 * RegisterAnswer), `setCompatibility` (CompatibilityRequest → SubjectState); signal `tablesDefined` ({source}: what its copies
 * are made from has changed); query `subjects` → by subject, SubjectState. Of rules: updates `putRule`, `putCheck` (PutRequest),
 * `removeRule`, `removeCheck` ({rule_id}), `applyRules` (ApplyRequest), `checkRules` (ApplyRequest: nothing is changed), all → RulesAnswer; queries `rules` → DeclaredRules without checks, `checks`
 * → those without rules.
 */
export const catalogMessages = {
  registerSource: 'registerSource',
  removeSource: 'removeSource',
  sources: 'sources',
  source: 'source',
  registerSchema: 'registerSchema',
  setCompatibility: 'setCompatibility',
  tablesDefined: 'tablesDefined',
  subjects: 'subjects',
  putRule: 'putRule',
  removeRule: 'removeRule',
  putCheck: 'putCheck',
  removeCheck: 'removeCheck',
  applyRules: 'applyRules',
  checkRules: 'checkRules',
  rules: 'rules',
  checks: 'checks',
} as const;

/** Messages of `watchLog`. Update: `look` → LogLook. */
export const logMessages = { look: 'look' } as const;

/** Answer of the update `look`: the source's log now, and what it looked like lately. */
export interface LogLook {
  state: LogState;
  samples: LogSample[];
}

/** What a source has to copy, without being connected. */
export interface DiscoverAnswer {
  /** Those that can be copied. */
  tables: Pick<CapturedTable, 'asset_id' | 'schema' | 'table'>[];
  findings: Finding[];
}

/** Answer of the update `connect`. */
export interface ConnectAnswer {
  /** `refused`: preflight found blockers, and a fresh flow has ended · `conflict`: the id has another configuration. */
  outcome: 'created' | 'same' | 'conflict' | 'refused';
  findings: Finding[];
  status: CaptureStatus | null;
}

/** Answer of the update `plan`. */
export interface SourcePlan extends Pick<SourceChanges<TableName>, 'changed' | 'fixed' | 'extra'> {
  /** Tables that would be copied besides. */
  added: TableName[];
}

/** Input of `verifyCopy`. */
export interface VerifyRequest {
  source: string;
  /** Asset id, copy id or table name; none = every table. */
  table?: string;
  /** Reads rows that differ again from the source; too many of a table, and it is copied anew. */
  repair?: boolean;
  /** The part of the time that it may keep the source busy, above 0; 1 when nothing is said. */
  share?: number;
  /** Nobody asked just now: tables that do not stream are left out, and a source that rests altogether. */
  scheduled?: boolean;
}

/** What a comparison found; its details are in `_verifications` under `id`. */
export interface VerifyAnswer {
  identical: boolean;
  tables: number;
  id: string;
  /** Why nothing was compared. */
  skipped?: string;
}
