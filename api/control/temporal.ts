/** Questions and orders to flows, each with a deadline, and Temporal's errors in Sluice's words. */
import {
  isGrpcDeadlineError,
  isGrpcServiceError,
  ServiceError,
  WithStartWorkflowOperation,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { ApplicationFailure } from '@temporalio/common';
import { redact } from '../../activities/secrets.ts';
import { type ErrorKind, type ErrorReport, errorTable, type Place, SluiceError } from '../../model/errors.ts';
import { catalogMessages, catalogWorkflowId, flowNames } from '../../model/messages.ts';
import type { Finding } from '../../model/source.ts';
import type { Control } from './control.ts';
import { FindingsError } from './findings.ts';

const queryDeadline = 2_000;
const updateDeadline = 10_000;
/** How long an answer about the worker's health is believed. */
const livenessAge = 1_000;

/** Asks a flow. Errors: `not_found` (no such flow), `no_worker`, `temporal_unreachable`. */
export async function query<Answer>(
  control: Control,
  workflowId: string,
  name: string,
  ...args: unknown[]
): Promise<Answer> {
  const handle = control.temporal.workflow.getHandle(workflowId);
  return await within(control, queryDeadline, () => handle.query<Answer, unknown[]>(name, ...args));
}

/**
 * Orders a flow. Errors: those of the flow, `not_found`, `no_worker` at once, `timeout` when the flow took longer: then
 * the order may still be carried out.
 */
export async function update<Answer>(
  control: Control,
  workflowId: string,
  name: string,
  argument?: unknown,
): Promise<Answer> {
  await requireWorker(control);
  const handle = control.temporal.workflow.getHandle(workflowId);
  const args: unknown[] = argument === undefined ? [] : [argument];
  return await within(control, updateDeadline, () =>
    handle.executeUpdate<Answer, [unknown, ...unknown[]]>(name, { args: args as [unknown] }),
  );
}

/** Orders a flow that is started for it when it does not run. */
export async function updateWithStart<Answer>(
  control: Control,
  flow: { type: string; id: string; input: unknown; summary: string },
  name: string,
  argument: unknown,
): Promise<Answer> {
  await requireWorker(control);
  const startWorkflowOperation = new WithStartWorkflowOperation(flow.type, {
    workflowId: flow.id,
    taskQueue: control.settings.taskQueue,
    args: [flow.input],
    staticSummary: flow.summary,
    workflowIdConflictPolicy: 'USE_EXISTING',
  });
  return await within(control, updateDeadline, () =>
    control.temporal.workflow.executeUpdateWithStart(name, { args: [argument], startWorkflowOperation }),
  );
}

/** The run id of a flow, started if it does not run. */
export async function startFlow(
  control: Control,
  flow: { type: string; id: string; input?: unknown; summary: string },
): Promise<string> {
  const handle = await within(control, queryDeadline, () =>
    control.temporal.workflow.start(flow.type, {
      workflowId: flow.id,
      taskQueue: control.settings.taskQueue,
      args: flow.input === undefined ? [] : [flow.input],
      staticSummary: flow.summary,
      workflowIdConflictPolicy: 'USE_EXISTING',
    }),
  );
  return handle.firstExecutionRunId;
}

const probes = new WeakMap<Control, { at: number; answer: Promise<void> }>();

/**
 * Returns when a worker answers: a query of `catalog`, because pollers of a dead worker stay listed for minutes.
 * Calls within a second share one probe. Errors: `no_worker`, `temporal_unreachable`.
 */
export async function requireWorker(control: Control): Promise<void> {
  const known = probes.get(control);
  if (known && Date.now() - known.at < livenessAge) return await known.answer;
  const answer = probeWorker(control);
  probes.set(control, { at: Date.now(), answer });
  await answer;
}

async function probeWorker(control: Control): Promise<void> {
  const ask = () => query(control, catalogWorkflowId, catalogMessages.source, '');
  try {
    await ask();
  } catch (error) {
    if (!(error instanceof SluiceError) || error.kind !== 'not_found') throw error;
    await startFlow(control, { type: flowNames.catalog, id: catalogWorkflowId, summary: 'Sources, rules and schemas' });
    await ask();
  }
}

/** Runs a call to Temporal under a deadline (ms) and translates its errors. */
export async function within<Answer>(
  control: Control,
  milliseconds: number,
  call: () => Promise<Answer>,
): Promise<Answer> {
  try {
    return await control.temporal.withDeadline(Date.now() + milliseconds, call);
  } catch (error) {
    if (isLate(error)) throw await lateError(control, error);
    throw flowError(error, control.settings.temporalAddress);
  }
}

function isLate(error: unknown): boolean {
  return isGrpcDeadlineError(error) || error instanceof WorkflowUpdateRPCTimeoutOrCancelledError;
}

/** Nobody answered: is Temporal away, the worker, or is the work merely long? */
async function lateError(control: Control, error: unknown): Promise<SluiceError> {
  try {
    await control.temporal.withDeadline(Date.now() + 1_000, () => control.temporal.workflowService.getSystemInfo({}));
  } catch {
    return temporalUnreachable(control.settings.temporalAddress, error);
  }
  if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError) {
    const reason = 'the flow has not answered within 10 s; what was asked for may still be carried out';
    return new SluiceError('timeout', reason, 'Look at the status (`sluice status`) before asking again.', {}, error);
  }
  const reason = `no worker answers on the task queue ${control.settings.taskQueue}`;
  return new SluiceError('no_worker', reason, 'Start one: `npm start`, or `npx sluice worker`.', {}, error);
}

function temporalUnreachable(address: string, cause: unknown): SluiceError {
  const remedy = 'See that Temporal runs (`npm start` brings one) and that TEMPORAL_ADDRESS is right.';
  return new SluiceError('temporal_unreachable', `Temporal does not answer at ${address}`, remedy, {}, cause);
}

/** Any error of a Temporal client or a flow as a SluiceError. */
export function flowError(error: unknown, address = 'TEMPORAL_ADDRESS'): SluiceError {
  if (error instanceof SluiceError) return error;
  if (error instanceof WorkflowNotFoundError) {
    return new SluiceError('not_found', error.message, 'See what there is: `sluice sources list`.', {}, error);
  }
  if (error instanceof WorkflowUpdateFailedError) return failureError(error.cause ?? error);
  const status = error instanceof ServiceError ? error.cause : error;
  if (isGrpcServiceError(status)) {
    // 5 not found · 9 failed precondition (no poller seen lately) · 14 unavailable
    if (status.code === 5)
      return new SluiceError('not_found', status.details, 'Look at the name and the namespace.', {}, error);
    if (status.code === 9)
      return new SluiceError(
        'no_worker',
        status.details,
        'Start a worker: `npm start`, or `npx sluice worker`.',
        {},
        error,
      );
    if (status.code === 14 || status.code === 4 || status.code === 1) return temporalUnreachable(address, error);
    return new SluiceError(
      'unexpected',
      redact(`Temporal: ${status.details}`),
      'Look at the log of Temporal.',
      {},
      error,
    );
  }
  return failureError(error);
}

/** What a flow or an activity threw: the innermost failure that names one of Sluice's kinds. */
function failureError(error: unknown): SluiceError {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof ApplicationFailure) {
      const known = reportedError(cause.type, cause.details, error);
      if (known) return known;
    }
  }
  const reason = redact(error instanceof Error ? error.message : String(error));
  return new SluiceError('unexpected', reason, 'Look at the flow in Temporal UI, and at the worker’s log.', {}, error);
}

/** The error of a failure as flows and activities make it: the kind as its type, report and place in its details. */
export function reportedError(type: unknown, details: unknown, cause?: unknown): SluiceError | undefined {
  const [report, place] = (Array.isArray(details) ? details : []) as [Partial<ErrorReport>?, Place?];
  if (typeof type !== 'string' || !(type in errorTable) || typeof report?.reason !== 'string') return undefined;
  // Preflight's findings stand where other failures have their place.
  if (type === 'preflight' && Array.isArray(place)) return new FindingsError(place as Finding[]);
  const where = place && typeof place === 'object' && !Array.isArray(place) ? place : {};
  return new SluiceError(type as ErrorKind, redact(report.reason), report.remedy ?? '', where, cause);
}
