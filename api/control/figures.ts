/** Live figures: from batch records in ClickHouse, and from the heartbeats of running leases. */
import { defaultPayloadConverter } from '@temporalio/common';
import type { CaptureActivities } from '../../activities/capture/contract.ts';
import { refusalCode } from '../../activities/load/clickhouse.ts';
import { readSums, type Sums } from '../../activities/load/sums.ts';
import { isoTimeOrNull } from '../../activities/load/time_text.ts';
import type { RuleCounts } from '../../model/batch.ts';
import type { ErrorReport } from '../../model/errors.ts';
import { captureWorkflowId } from '../../model/messages.ts';
import type { LeaseProgress } from '../../model/source.ts';
import type { Control } from './control.ts';
import { bounded, reportIn } from './temporal.ts';

/** What the records of a source sum up to. */
export interface SourceFigures {
  changes: number;
  position: string;
  last_batch_at: string | null;
}

export interface AssetFigures {
  source: string;
  asset: string;
  inserts: number;
  updates: number;
  deletes: number;
  truncates: number;
  rejected: number;
}

/** Sums by source. Empty when nothing was recorded yet. Errors: `sink_unreachable`. */
export async function sourceFigures(control: Control): Promise<Map<string, SourceFigures>> {
  const sums = await sumsOf(control);
  return new Map(
    [...sums].map(([source, { changes, position, last }]) => [
      source,
      { changes, position, last_batch_at: isoTimeOrNull(last) },
    ]),
  );
}

/** Sums by asset: changes of the stream alone, rejects of snapshots too. */
export async function assetFigures(control: Control): Promise<AssetFigures[]> {
  const sums = await sumsOf(control);
  return [...sums].flatMap(([source, { assets }]) =>
    Object.entries(assets).map(([asset, effects]) => ({ source, asset, ...effects })),
  );
}

/** What became of rows that a rule or check looked at. */
export interface RuleFigures {
  rule: string;
  passed: number;
  /** Let through by no filter. */
  stopped: number;
  /** On which the rule itself failed, or which failed the check, whatever followed. */
  failed: number;
}

/** Sums by rule and check, over all tables. */
export async function ruleFigures(control: Control): Promise<RuleFigures[]> {
  const all = new Map<string, RuleCounts>();
  for (const { rules } of (await sumsOf(control)).values())
    for (const [rule, counts] of Object.entries(rules)) {
      const known = all.get(rule) ?? { in: 0, out: 0, errors: 0 };
      all.set(rule, { in: known.in + counts.in, out: known.out + counts.out, errors: known.errors + counts.errors });
    }
  return [...all]
    .map(([rule, { in: seen, out: passed, errors: failed }]) => {
      return { rule, passed, stopped: Math.max(0, seen - passed - failed), failed };
    })
    .sort((a, b) => (a.rule < b.rule ? -1 : 1));
}

/** Seconds that batches took, counted into `batchBuckets` by source: what a Prometheus histogram needs. */
export async function batchSeconds(control: Control): Promise<(Sums['seconds'] & { source: string })[]> {
  const sums = await sumsOf(control);
  return [...sums]
    .filter(([, { seconds }]) => seconds.count > 0)
    .map(([source, { seconds }]) => ({ source, ...seconds }));
}

/** Sums by source; none when nothing was recorded yet. */
async function sumsOf(control: Control): Promise<Map<string, Sums>> {
  return await shared(control, 'sums', async () => {
    return (await ifThere(() => readSums(control.clickhouse, AbortSignal.timeout(10_000)))) ?? new Map<string, Sums>();
  });
}

/** Rows of Sluice's own tables; none when they have not been made yet. */
export async function rowsIfThere<Row>(
  control: Control,
  sql: string,
  params?: Record<string, unknown>,
): Promise<Row[]> {
  const signal = AbortSignal.timeout(10_000);
  return (await ifThere(() => control.clickhouse.rows<Row>(sql, { params, signal }))) ?? [];
}

/** True when ClickHouse said that the table (60) or the database (81) does not exist. */
export function noTableYet(error: unknown): boolean {
  return ['60', '81'].includes(refusalCode(error) ?? '');
}

/** What is read of Sluice's own tables; undefined when they have not been made yet. */
export async function ifThere<Answer>(read: () => Promise<Answer>): Promise<Answer | undefined> {
  try {
    return await read();
  } catch (error) {
    if (noTableYet(error)) return undefined;
    throw error;
  }
}

export interface LeaseGlance {
  run_id: string | null;
  /** False when the flow has ended: somebody terminated or cancelled it. */
  runs: boolean;
  /** Of the running lease; null when none runs. */
  progress: LeaseProgress | null;
  /** Why the lease does not go on at the moment; null when it does. */
  failing: ErrorReport | null;
}

/** What Temporal knows of a source's running lease. Errors: `not_found`, `temporal_unreachable`. */
export async function leaseGlance(control: Control, source: string): Promise<LeaseGlance> {
  const handle = control.temporal.workflow.getHandle(captureWorkflowId(source));
  const description = await bounded(control, `the description of ${handle.workflowId}`, () => handle.describe());
  const pending = description.raw.pendingActivities ?? [];
  const name: keyof CaptureActivities = 'captureLease';
  const lease = pending.find((activity) => activity.activityType?.name === name);
  const failed = lease?.lastFailure
    ? lease
    : pending.find((activity) => activity.lastFailure && (activity.attempt ?? 1) > 1);
  return {
    run_id: description.runId,
    runs: description.status.name === 'RUNNING',
    progress: lease && isAlive(lease) ? readProgress(lease.heartbeatDetails?.payloads?.[0]) : null,
    failing: failed && !isAlive(failed) ? readFailure(failed.lastFailure) : null,
  };
}

type Pending = NonNullable<
  Awaited<ReturnType<ReturnType<Control['temporal']['workflow']['getHandle']>['describe']>>['raw']['pendingActivities']
>[number];

/** PENDING_ACTIVITY_STATE_STARTED; 1 is scheduled: it waits for a worker or the next attempt. */
const started = 2;

/** True while the present attempt heartbeats; the details of a dead one stay listed until the next begins. */
function isAlive(activity: Pending): boolean {
  if (activity.state !== started) return false;
  const beat = milliseconds(activity.lastHeartbeatTime);
  return beat > 0 && beat >= milliseconds(activity.lastStartedTime);
}

function milliseconds(time: Pending['lastHeartbeatTime']): number {
  return time ? Number(time.seconds ?? 0) * 1000 + (time.nanos ?? 0) / 1e6 : 0;
}

function readProgress(payload: unknown): LeaseProgress | null {
  if (!payload) return null;
  const value = defaultPayloadConverter.fromPayload<LeaseProgress | undefined>(payload as never);
  return value && typeof value === 'object' ? value : null;
}

function readFailure(failure: Pending['lastFailure']): ErrorReport {
  for (let cause = failure; cause; cause = cause.cause) {
    const details = cause.applicationFailureInfo?.details?.payloads?.map((payload) =>
      defaultPayloadConverter.fromPayload(payload),
    );
    const known = reportIn(cause.applicationFailureInfo?.type, details);
    if (known) return known;
  }
  if (failure?.timeoutFailureInfo) {
    const remedy = 'It is tried again; see that a worker runs.';
    return { kind: 'no_worker', reason: 'the worker that ran the lease is gone', remedy };
  }
  return {
    kind: 'unexpected',
    reason: failure?.message ?? 'the lease failed',
    remedy: 'It is tried again; look at the worker’s log.',
  };
}

interface Shared {
  answer: Promise<unknown>;
  /** When it was asked, how long that took (ms; 0 while it runs), and whether it is being asked anew. */
  at: number;
  took: number;
  renewing: boolean;
}

const cached = new WeakMap<Control, Map<string, Shared>>();
/** Asking may take this share of the time; what takes longer than `slow` ms is renewed behind the scenes. */
const share = 1 / 20;
const slow = 250;

/**
 * Calls within a second share one answer, and longer when it is costly: looking must not slow the copying. While
 * ClickHouse is away, the last answer stands.
 */
export async function shared<Answer>(control: Control, name: string, make: () => Promise<Answer>): Promise<Answer> {
  const answers = cached.get(control) ?? new Map<string, Shared>();
  cached.set(control, answers);
  const known = answers.get(name);
  const fresh = known && Date.now() - known.at < Math.max(1_000, known.took / share);
  if (known && (fresh || known.renewing)) return (await known.answer) as Answer;
  const next: Shared = { answer: make(), at: Date.now(), took: 0, renewing: false };
  const settled = next.answer.then(
    () => true,
    () => false,
  );
  if (!known || known.took < slow) {
    answers.set(name, next);
    if (await settled) next.took = Date.now() - next.at;
    else if (known) answers.set(name, { ...known, at: Date.now() });
    else answers.delete(name);
    return (await (known && !(await settled) ? known.answer : next.answer)) as Answer;
  }
  known.renewing = true;
  void settled.then((good) => {
    next.took = Date.now() - next.at;
    answers.set(name, good ? next : { ...known, at: Date.now(), renewing: false });
  });
  return (await known.answer) as Answer;
}
