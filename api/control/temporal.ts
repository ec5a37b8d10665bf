/** Questions and orders to flows: what workers/temporal_client.ts does, and who exactly it is that does not answer. */
import { WithStartWorkflowOperation, WorkflowFailedError } from '@temporalio/client';
import {
  ApplicationFailure,
  CancelledFailure,
  type SearchAttributePair,
  TerminatedFailure,
  TimeoutFailure,
  type Workflow,
} from '@temporalio/common';
import { redact } from '../../activities/secrets.ts';
import { type ErrorKind, type ErrorReport, errorTable, SluiceError } from '../../model/errors.ts';
import { catalogMessages, catalogWorkflowId, flowNames } from '../../model/messages.ts';
import { ShapeError, type ShapeIssue } from '../../model/shape_error.ts';
import type { Finding } from '../../model/source.ts';
import { askFlow, deadlines, flowError, updateFlow, updateWithStart } from '../../workers/temporal_client.ts';
import type { Control } from './control.ts';
import { FindingsError } from './findings.ts';

/** How long an answer about the worker's health is believed (ms). */
const livenessAge = 1_000;

/** A flow to start, when it does not run. */
export interface Flow {
  type: string;
  id: string;
  input?: unknown;
  /** Shown in Temporal UI. */
  summary: string;
  /** Default: the one of this installation. */
  taskQueue?: string;
  attributes?: SearchAttributePair[];
  memo?: Record<string, unknown>;
  /** Started with the same key before, it is not started again, whether it still runs or has ended. */
  key?: string | undefined;
  /** No other run bears its id. */
  once?: boolean;
}

/** Asks a flow. Errors: `not_found` (no such flow), `no_worker`, `temporal_unreachable`. */
export async function query<Answer>(control: Control, flow: string, name: string, ...args: unknown[]): Promise<Answer> {
  return await explained(control, () => askFlow<Answer>(control.temporal, flow, name, ...args));
}

/**
 * Orders a flow. Errors: the flow's own (FindingsError for preflight), `not_found`, `no_worker`, `timeout` when the flow
 * took longer than 10 s: then the order may still be carried out.
 */
export async function update<Answer>(
  control: Control,
  flow: string,
  name: string,
  argument?: unknown,
): Promise<Answer> {
  await requireWorker(control);
  return await explained(control, () =>
    updateFlow<Answer>(control.temporal, flow, name, argument, updateId(control, name)),
  );
}

/** Orders a flow that is started for it when it does not run. */
export async function updateOrStart<Answer>(
  control: Control,
  flow: Flow,
  name: string,
  argument: unknown,
): Promise<Answer> {
  await requireWorker(control);
  const start = new WithStartWorkflowOperation<Workflow>(flow.type, startOptions(control, flow));
  const id = updateId(control, name);
  return await explained(control, () => updateWithStart<Answer>(control.temporal, start, name, argument, id));
}

/** A flow carries out an order of one id once, and answers it again. One key may stand for orders of several names. */
function updateId({ idempotencyKey: key }: Control, name: string): string | undefined {
  return key === undefined ? undefined : `${name}/${key}`;
}

/** Starts a flow unless it runs, or was started with its key; answers its run id. */
export async function startFlow(control: Control, flow: Flow): Promise<string> {
  const earlier = await runOfKey(control, flow);
  if (earlier !== undefined) return earlier;
  const start = () => control.temporal.workflow.start<Workflow>(flow.type, startOptions(control, flow));
  try {
    return (await bounded(control, `the start of ${flow.id}`, start)).firstExecutionRunId;
  } catch (error) {
    const isThere = flow.once && error instanceof SluiceError && error.kind === 'conflict';
    // It was started, and ended, since it was looked for.
    const other = isThere ? await runOfKey(control, flow) : undefined;
    if (other !== undefined) return other;
    throw error;
  }
}

/** The run that was started with the flow's key. */
async function runOfKey(control: Control, { id, key }: Flow): Promise<string | undefined> {
  if (key === undefined) return undefined;
  try {
    const look = () => control.temporal.workflow.getHandle(id).describe();
    const { memo, runId } = await bounded(control, `the flow ${id}`, look);
    return memo?.[keyMemo] === key ? runId : undefined;
  } catch (error) {
    if (error instanceof SluiceError && error.kind === 'not_found') return undefined;
    throw error;
  }
}

const keyMemo = 'idempotency_key';

/**
 * Starts a flow and waits for its answer, as long as for an update. Errors: the flow's own, `conflict` while it runs already,
 * `timeout`: then it goes on.
 */
export async function runFlow<Answer>(control: Control, flow: Flow): Promise<Answer> {
  await requireWorker(control);
  const options = { ...startOptions(control, flow), workflowIdConflictPolicy: 'FAIL' as const };
  return await explained(control, async () => {
    try {
      return await control.temporal.withDeadline(Date.now() + deadlines.start, () =>
        control.temporal.workflow.execute<Workflow>(flow.type, options),
      );
    } catch (error) {
      throw failureOf(error, `the flow ${flow.id}`);
    }
  });
}

function startOptions(control: Control, flow: Flow) {
  return {
    workflowId: flow.id,
    taskQueue: flow.taskQueue ?? control.settings.taskQueue,
    args: flow.input === undefined ? [] : [flow.input],
    staticSummary: flow.summary,
    ...(flow.attributes ? { typedSearchAttributes: flow.attributes } : {}),
    ...(flow.memo || flow.key !== undefined
      ? { memo: { ...flow.memo, ...(flow.key !== undefined && { [keyMemo]: flow.key }) } }
      : {}),
    workflowIdConflictPolicy: 'USE_EXISTING' as const,
    ...(flow.once ? { workflowIdReusePolicy: 'REJECT_DUPLICATE' as const } : {}),
  };
}

/** A call to Temporal itself, under the deadline of queries unless told otherwise. */
export async function bounded<Answer>(
  control: Control,
  what: string,
  call: () => Promise<Answer>,
  deadline: number = deadlines.query,
): Promise<Answer> {
  return await explained(control, async () => {
    try {
      return await control.temporal.withDeadline(Date.now() + deadline, call);
    } catch (error) {
      throw flowError(error, what);
    }
  });
}

const probes = new WeakMap<Control, { at: number; answer: Promise<void> }>();

/**
 * Returns when a worker answers: a query of `catalog`, because pollers of a dead worker stay listed for minutes.
 * Calls within a second share one probe. Errors: `no_worker`, `temporal_unreachable`.
 */
export async function requireWorker(control: Control): Promise<void> {
  const known = probes.get(control);
  if (known && Date.now() - known.at < livenessAge) return await known.answer;
  const answer = probe(control);
  const entry = { at: Date.now(), answer };
  probes.set(control, entry);
  // Its age counts from the answer: a probe that waited in vain is fresh.
  await answer.finally(() => {
    entry.at = Date.now();
  });
}

/** Asks Temporal first: when it is away, that is what people should hear, and nothing is left under way. */
async function probe(control: Control): Promise<void> {
  if (!(await isReachable(control))) throw unreachable(control, undefined);
  await probeWorker(control);
}

async function probeWorker(control: Control): Promise<void> {
  const ask = () => query(control, catalogWorkflowId, catalogMessages.source, '');
  try {
    await ask();
  } catch (error) {
    if (!(error instanceof SluiceError) || error.kind !== 'not_found') throw error;
    await startFlow(control, { type: flowNames.catalog, id: catalogWorkflowId, summary: 'The registry of sources' });
    await ask();
  }
}

/** Adds to an error what only the control module knows: preflight's findings, and whether Temporal itself is away. */
async function explained<Answer>(control: Control, call: () => Promise<Answer>): Promise<Answer> {
  try {
    return await call();
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    const late = error.kind === 'no_worker' || error.kind === 'timeout';
    if (late && !(await isReachable(control))) throw unreachable(control, error);
    if (error.kind === 'no_worker') throw noWorkerOn(control, control.settings.taskQueue, error);
    const failure = error.cause;
    throw (failure instanceof ApplicationFailure && partsIn(error, failure.details)) || error;
  }
}

async function isReachable(control: Control): Promise<boolean> {
  try {
    await control.temporal.withDeadline(Date.now() + deadlines.reach, () =>
      control.temporal.workflowService.getSystemInfo({}),
    );
    return true;
  } catch {
    return false;
  }
}

function unreachable(control: Control, cause: unknown): SluiceError {
  const reason = `Temporal does not answer at ${control.settings.temporalAddress}`;
  const remedy = 'See that Temporal runs (`npm start` brings one) and that TEMPORAL_ADDRESS is right.';
  return new SluiceError('temporal_unreachable', reason, remedy, {}, cause);
}

/** That nobody works on a task queue, with the command that starts a worker there. */
export function noWorkerOn(control: Control, queue: string, cause?: unknown): SluiceError {
  const own = queue === control.settings.taskQueue;
  const remedy = own
    ? 'Start one: `npm start`, or `npx sluice worker`.'
    : `Start one: TEMPORAL_TASK_QUEUE=${queue} npx sluice worker`;
  return new SluiceError('no_worker', `no worker answers on the task queue ${queue}`, remedy, {}, cause);
}

/** Preflight's findings stand second in the details of its failure. */
function findingsIn(kind: string, details: unknown): FindingsError | undefined {
  const findings = Array.isArray(details) ? details[1] : undefined;
  return kind === 'preflight' && Array.isArray(findings) ? new FindingsError(findings as Finding[]) : undefined;
}

/** What a flow says of parts of its input stands second in the details of its failure. */
function partsIn(error: SluiceError, details: unknown): SluiceError | undefined {
  const findings = findingsIn(error.kind, details);
  const issues = Array.isArray(details) ? (details[1] as ShapeIssue[] | undefined) : undefined;
  if (findings || !Array.isArray(issues) || issues.length === 0) return findings;
  return new ShapeError('it is not as it should be', issues, error.remedy, error.kind);
}

/** What a flow ended with, under the wrappings of flow, child flow and activity. `what` names the flow. */
export function failureOf(error: unknown, what: string): SluiceError {
  if (!(error instanceof WorkflowFailedError)) return flowError(error, what);
  let cause: unknown = error;
  while (cause instanceof Error && cause.cause instanceof Error) cause = cause.cause;
  if (cause instanceof ApplicationFailure) return flowError(cause, what);
  const text = cause instanceof Error ? cause.message : String(cause);
  const remedy = 'Look at the flow in Temporal UI and at the worker log, then start it again.';
  if (cause instanceof TimeoutFailure)
    return new SluiceError('timeout', `${what} timed out: ${redact(text)}`, remedy, {}, error);
  if (cause instanceof CancelledFailure)
    return new SluiceError('unexpected', `${what} was cancelled`, remedy, {}, error);
  if (cause instanceof TerminatedFailure)
    return new SluiceError('unexpected', `${what} was terminated`, remedy, {}, error);
  return new SluiceError('unexpected', `${what}: ${redact(text)}`, remedy, {}, error);
}

/** The report in a failure as flows and activities make it: the kind as its type, the report as its first detail. */
export function reportIn(type: unknown, details: unknown): ErrorReport | undefined {
  const [report] = (Array.isArray(details) ? details : []) as [Partial<ErrorReport>?];
  if (typeof type !== 'string' || !(type in errorTable) || typeof report?.reason !== 'string') return undefined;
  return { kind: type as ErrorKind, reason: redact(report.reason), remedy: report.remedy ?? '' };
}
