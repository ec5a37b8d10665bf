/**
 * What runs of a deployment have recorded in `_batches`, under the deployment's name as source: `rows` and `idle` move
 * the kept position, `backfill` is a file of a backfill, `extract` says that an interval is done.
 */
import type { Context } from '@temporalio/activity';
import type { AssetEffects, BatchKind } from '../../model/batch.ts';
import { createOwnTables, readRecords, sealRecord, writeRecord } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import type { Stretch } from './coverage.ts';
import { nanoseconds } from './schedule_times.ts';

/** Where the next scheduled run begins. */
export interface KeptPosition {
  /** ISO instant; '' when nothing was pulled yet. */
  position: string;
  /** Since this instant nothing had changed when the API was last asked; '' when it had. */
  since: string;
  /** Of that answer. */
  etag: string;
}

/** The kept position of a deployment. */
export async function keptPosition(clickhouse: ClickHouse, deployment: string): Promise<KeptPosition> {
  const [last] = await readRecords(
    clickhouse,
    `source = {source:String} AND kind IN ('rows', 'idle')`,
    { source: deployment },
    'parseDateTime64BestEffortOrZero(position_to, 9) DESC, lease DESC, seq DESC',
    1,
  );
  if (!last) return { position: '', since: '', etag: '' };
  const { since = '', etag = '' } = last.inner === '' ? {} : (JSON.parse(last.inner) as Partial<KeptPosition>);
  return { position: last.position_to, since, etag };
}

/** When its tables were last seen to be there: a backfill of many small intervals need not look each time. */
const tablesSeen = new WeakMap<ClickHouse, number>();
const lookAgain = 10_000;

/** Makes Sluice's own tables when they are not there. */
export async function ensureOwnTables(clickhouse: ClickHouse): Promise<void> {
  const seen = tablesSeen.get(clickhouse);
  if (seen !== undefined && performance.now() - seen < lookAgain) return;
  await createOwnTables(clickhouse);
  tablesSeen.set(clickhouse, performance.now());
}

/** What finished runs of a deployment have pulled, where that touches [from, to): in any order, as they were recorded. */
export async function finishedStretches(
  clickhouse: ClickHouse,
  deployment: string,
  from: string,
  to: string,
): Promise<Stretch[]> {
  // '' is the beginning of time, and read as 1970: there a first run begins to ask.
  const rows = await clickhouse.rows<{ position_from: string; position_to: string }>(
    `SELECT DISTINCT position_from, position_to FROM ${clickhouse.name('_batches')} FINAL
     WHERE source = {source:String} AND kind = 'extract'
       AND parseDateTime64BestEffortOrZero(position_to, 9) > parseDateTime64BestEffort({from:String}, 9)
       AND parseDateTime64BestEffortOrZero(position_from, 9) < parseDateTime64BestEffort({to:String}, 9)`,
    { params: { source: deployment, from, to } },
  );
  return rows.map((row) => ({ from: nanoseconds(row.position_from), to: nanoseconds(row.position_to) }));
}

/** The begin of the ids of all that a run writes. Runs may begin in the same millisecond; the end of a run's id is chance. */
export function runPrefix(deployment: string, started: number, runId: string): string {
  return `${deployment}/${started}-${runId.slice(-8)}`;
}

/** What one record says. */
export interface ExtractRecord {
  deployment: string;
  kind: Extract<BatchKind, 'rows' | 'idle' | 'backfill' | 'extract'>;
  /** Name of the record in its run. */
  name: string;
  started: number;
  seq: number;
  from: string;
  to: string;
  inner: string;
  effects: AssetEffects;
  durations: { fill: number; resolve: number; write: number };
  previousHash: string;
}

/** Writes a record, durably; answers its hash. Again under the same name replaces it. */
export async function recordExtract(clickhouse: ClickHouse, activity: Context, done: ExtractRecord): Promise<string> {
  const workflow = activity.info.workflowExecution;
  const record = sealRecord({
    id: `${runPrefix(done.deployment, done.started, workflow?.runId ?? '')}/${done.name}`,
    source: done.deployment,
    kind: done.kind,
    lease: done.started,
    seq: done.seq,
    position_from: done.from,
    position_to: done.to,
    inner: done.inner,
    cluster: '',
    epoch: 0,
    committed_first: null,
    committed_last: null,
    changes: done.effects.effects,
    assets: done.effects.effects > 0 ? { [done.deployment]: done.effects } : {},
    truncated: {},
    failed: {},
    rules: 0,
    durations: done.durations,
    workflow_id: workflow?.workflowId ?? '',
    run_id: workflow?.runId ?? '',
    attempt: activity.info.attempt,
    previous_hash: done.previousHash,
  });
  await writeRecord(clickhouse, record);
  return record.hash;
}
