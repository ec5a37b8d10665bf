/** The way to Temporal: a client with deadlines, and its errors in Sluice's words. */
import os from 'node:os';
import {
  Client,
  Connection,
  defaultGrpcRetryOptions,
  isGrpcServiceError,
  makeGrpcRetryInterceptor,
  QueryNotRegisteredError,
  QueryRejectedError,
  type WithStartWorkflowOperation,
  WorkflowNotFoundError,
  WorkflowUpdateFailedError,
  WorkflowUpdateRPCTimeoutOrCancelledError,
} from '@temporalio/client';
import { ApplicationFailure, type Workflow, WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import { redact } from '../activities/secrets.ts';
import { type ErrorKind, type ErrorReport, errorTable, SluiceError } from '../model/errors.ts';
import type { Settings } from './settings.ts';

/**
 * Milliseconds; without a worker a query would hang for 30 s, and an update for ever. An update may wait for the last batch
 * of a lease, and for a busy machine; whether a worker answers is asked before one is sent.
 */
export const deadlines = {
  connect: 5_000,
  reach: 2_000,
  query: 3_000,
  update: 30_000,
  start: 10_000,
  call: 5_000,
} as const;

export type TemporalSettings = Pick<Settings, 'temporalAddress' | 'temporalNamespace'>;

/** Of gRPC. */
const resourceExhausted = 8;

/**
 * Milliseconds before a call is tried again for the first time. A server takes one query at a time of a flow that has
 * work to do (`history.MaxBufferedQueryCount`), and calls the second one's case exhausted resources: with the client's
 * usual pause of one to two seconds, that would be all of a query's deadline.
 */
export function firstPause({ code, details }: { code: number; details: string }): number {
  if (code !== resourceExhausted) return 100;
  return /query buffer/.test(details) ? 20 : 1_000;
}

/** How calls of all our clients are tried again. */
export const retries = [makeGrpcRetryInterceptor(defaultGrpcRetryOptions({ initialIntervalMs: firstPause }))];

/** A client; close it by `client.connection.close()`. Errors: `temporal_unreachable`. */
export async function connectTemporal(settings: TemporalSettings): Promise<Client> {
  const { temporalAddress: address, temporalNamespace: namespace } = settings;
  try {
    const connection = await Connection.connect({ address, connectTimeout: deadlines.connect, interceptors: retries });
    return new Client({ connection, namespace, identity: `sluice-worker:${process.pid}@${os.hostname()}` });
  } catch (error) {
    throw unreachable(`Temporal does not answer at ${address}`, error);
  }
}

/**
 * Asks a flow. Errors: `not_found` when there is no such flow, `no_worker` when nobody answers in time,
 * `temporal_unreachable`.
 */
export async function askFlow<Answer>(client: Client, id: string, query: string, ...args: unknown[]): Promise<Answer> {
  try {
    const ask = () => client.workflow.getHandle(id).query<Answer, unknown[]>(query, ...args);
    return await client.withDeadline(Date.now() + deadlines.query, ask);
  } catch (error) {
    throw flowError(error, `the query \`${query}\` of ${id}`, 'no_worker');
  }
}

/**
 * Sends an update and waits for its answer. `updateId` makes it safe to send again. Errors: the flow's own kinds,
 * `not_found`, `timeout` (it may still be done later), `temporal_unreachable`.
 */
export async function updateFlow<Answer>(
  client: Client,
  id: string,
  update: string,
  input?: unknown,
  updateId?: string,
): Promise<Answer> {
  const options = { args: [input] as [unknown], updateId };
  const send = () => client.workflow.getHandle(id).executeUpdate<Answer, [unknown]>(update, options);
  return answered(client, send, `the update \`${update}\` of ${id}`);
}

/** Starts a flow unless it runs, and sends it an update in the same call. Errors as `updateFlow`. */
export async function updateWithStart<Answer>(
  client: Client,
  start: WithStartWorkflowOperation<Workflow>,
  update: string,
  input: unknown,
  updateId?: string,
): Promise<Answer> {
  const options = { args: [input] as [unknown], startWorkflowOperation: start, updateId };
  const send = () => client.workflow.executeUpdateWithStart<Workflow, Answer, [unknown]>(update, options);
  return answered(client, send, `the update \`${update}\``);
}

async function answered<Answer>(client: Client, send: () => Promise<Answer>, what: string): Promise<Answer> {
  try {
    return await client.withDeadline(Date.now() + deadlines.update, send);
  } catch (error) {
    throw flowError(error, what, 'timeout');
  }
}

/** An error of Temporal's client as a SluiceError. `late` is the kind of a passed deadline. */
export function flowError(error: unknown, what: string, late: 'no_worker' | 'timeout' = 'timeout'): SluiceError {
  if (error instanceof SluiceError) return error;
  if (error instanceof WorkflowUpdateFailedError) return ownError(error.cause, what);
  if (error instanceof ApplicationFailure) return ownError(error, what);
  if (error instanceof WorkflowNotFoundError) {
    return new SluiceError(
      'not_found',
      `${what}: there is no such flow running`,
      'Look at the list of sources.',
      {},
      error,
    );
  }
  if (error instanceof WorkflowExecutionAlreadyStartedError) {
    return new SluiceError('conflict', `${what}: it runs already`, 'Wait until it has ended.', {}, error);
  }
  if (error instanceof QueryNotRegisteredError || error instanceof QueryRejectedError) {
    return new SluiceError(
      'unexpected',
      `${what} is not answered: ${error.message}`,
      'Look at the worker log.',
      {},
      error,
    );
  }
  return callError(error, what, late);
}

function callError(error: unknown, what: string, late: 'no_worker' | 'timeout'): SluiceError {
  const status = grpcStatus(error);
  // 9 is what a query gets when the server has seen no poller for a while.
  if (error instanceof WorkflowUpdateRPCTimeoutOrCancelledError || status === 4 || status === 1 || status === 9) {
    return late === 'no_worker'
      ? new SluiceError(
          'no_worker',
          `${what} got no answer in time`,
          'See that a worker runs and look at its log.',
          {},
          error,
        )
      : new SluiceError(
          'timeout',
          `${what} got no answer in time`,
          'It may still be done: look at the state later.',
          {},
          error,
        );
  }
  if (status === 5)
    return new SluiceError('not_found', `${what}: not found`, 'Look at the list of sources.', {}, error);
  if (status === 14 || status === undefined) return unreachable(`${what}: Temporal does not answer`, error);
  const reason = redact(error instanceof Error ? error.message : String(error));
  return new SluiceError('unexpected', `${what}: ${reason}`, 'Look at the worker log and at Temporal’s.', {}, error);
}

/** The gRPC status behind an error: 1 cancelled, 4 deadline, 5 not found, 14 unavailable. */
function grpcStatus(error: unknown): number | undefined {
  for (let inner = error; inner instanceof Error; inner = inner.cause) {
    if (isGrpcServiceError(inner)) return inner.code;
  }
  return undefined;
}

/** What a flow or an activity of Sluice threw, as it was; other failures keep their text. */
function ownError(cause: unknown, what: string): SluiceError {
  if (cause instanceof ApplicationFailure) {
    const report = cause.details?.[0] as ErrorReport | undefined;
    if (report && typeof report === 'object' && report.kind in errorTable) {
      return new SluiceError(report.kind, report.reason, report.remedy, {}, cause);
    }
    const kind = (cause.type ?? '') in errorTable ? (cause.type as ErrorKind) : 'unexpected';
    return new SluiceError(kind, cause.message, 'Look at the flow in Temporal UI.', {}, cause);
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  return new SluiceError('unexpected', `${what}: ${redact(reason)}`, 'Look at the flow in Temporal UI.', {}, cause);
}

function unreachable(reason: string, cause: unknown): SluiceError {
  return new SluiceError(
    'temporal_unreachable',
    reason,
    'See that Temporal runs and TEMPORAL_ADDRESS is right; `npm start` runs one.',
    {},
    cause,
  );
}
