/**
 * The worker process: runs flows and activities. Prints `{"ready":true}` on stdout when it polls; logs go to stderr.
 * SIGTERM ends it gracefully: leases write their last batch and end, other activities are tried again elsewhere. When
 * its parent dies it exits at once; what it did then goes on in the next worker after a heartbeat timeout.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Client } from '@temporalio/client';
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import { DefaultLogger, makeTelemetryFilterString, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import type pino from 'pino';
import type { CaptureActivities } from '../activities/capture/contract.ts';
import { reportFailures } from '../activities/failure.ts';
import { redact } from '../activities/secrets.ts';
import { asSluiceError, describeError } from '../model/errors.ts';
import { catalogWorkflowId, flowNames } from '../model/messages.ts';
import { flowBundle } from './bundle.ts';
import { isEntryPoint, whenUnwanted } from './child.ts';
import { createLog } from './log.ts';
import { keepHistories, registerSearchAttributes } from './namespace.ts';
import { loadOwnFunctions } from './own_functions.ts';
import { readSettings, type Settings } from './settings.ts';
import { connectTemporal, flowError } from './temporal_client.ts';

/** Milliseconds between two tries to reach Temporal, or to find its search attributes. */
const patience = 1000;
/** Between two heartbeats of an activity: pause and stop are heard at a heartbeat. */
const beatPause = '1s';
/** How long a killed worker's tasks, and queries, wait for it before another worker gets them. */
const stickyPatience = '1s';
/** A graceful end takes at most this. */
const longestGoodbye = '10s';

export interface WorkerContext {
  settings: Settings;
  client: Client;
}

/** Activities, and how to end what they keep open. */
type Closable<Activities> = Activities & { close?(): void | Promise<void> };

export interface WorkerOptions {
  settings: Settings;
  log: pino.Logger;
  /** Makes the activities once Temporal answers. */
  activities: (context: WorkerContext) => Closable<CaptureActivities>;
  /** Aborted for a graceful end. */
  signal: AbortSignal;
  /** Called once, when the worker polls. */
  ready: () => void;
}

/** Runs a worker until `signal` is aborted. Waits for Temporal as long as it takes. */
export async function runWorker({ settings, log, activities, signal, ready }: WorkerOptions): Promise<void> {
  installRuntime(log);
  const { temporalAddress: address, temporalNamespace: namespace, taskQueue } = settings;
  const [codePath, client] = await Promise.all([flowBundle(settings.home), reachTemporal(settings, log, signal)]);
  if (!client) return;
  await prepareNamespace(client, settings, log, signal);
  const connection = await NativeConnection.connect({ address });
  const made = activities({ settings, client });
  const { close: _, ...safe } = reportFailures(made, ['captureLease']);
  try {
    const worker = await Worker.create({
      connection,
      namespace,
      taskQueue,
      workflowBundle: { codePath },
      activities: safe,
      maxHeartbeatThrottleInterval: beatPause,
      defaultHeartbeatThrottleInterval: beatPause,
      stickyQueueScheduleToStartTimeout: stickyPatience,
      // Activities are told to end at once: a lease then writes its last batch and answers.
      shutdownGraceTime: 0,
      shutdownForceTime: longestGoodbye,
      maxConcurrentActivityTaskExecutions: 200,
    });
    await runUntil(worker, signal, async () => {
      await ensureCatalog(client, taskQueue, log, signal);
      log.info({ address, namespace, taskQueue }, 'worker polls');
      ready();
    });
  } finally {
    await made.close?.();
    await connection.close().catch(() => {});
    await client.connection.close();
  }
}

/** Runs the worker, calls `begun` when it polls, and shuts it down at the signal. */
async function runUntil(worker: Worker, signal: AbortSignal, begun: () => Promise<void>): Promise<void> {
  const stop = () => {
    if (worker.getState() === 'RUNNING') worker.shutdown();
  };
  const running = worker.run();
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  await Promise.all([running, signal.aborted ? undefined : begun()]);
}

async function reachTemporal(settings: Settings, log: pino.Logger, signal: AbortSignal): Promise<Client | undefined> {
  let told = 0;
  while (!signal.aborted) {
    try {
      return await connectTemporal(settings);
    } catch (error) {
      // One line at once, then one every ten seconds.
      if (Date.now() - told > 10_000) log.warn(`${describeError(asSluiceError(error))} It is tried again.`);
      if (Date.now() - told > 10_000) told = Date.now();
      await pause(patience, undefined, { signal }).catch(() => {});
    }
  }
  return undefined;
}

/** Returns when the search attributes are there; prints how to make them when it may not. */
async function prepareNamespace(
  client: Client,
  settings: Settings,
  log: pino.Logger,
  signal: AbortSignal,
): Promise<void> {
  let printed: string | undefined;
  while (!signal.aborted) {
    const command = await registerSearchAttributes(client, log);
    if (command === undefined) break;
    if (command !== printed)
      log.error(`the worker waits until its search attributes are there; make them by: ${command}`);
    printed = command;
    await pause(5 * patience, undefined, { signal }).catch(() => {});
  }
  await keepHistories(client, settings.temporalAddress, log).catch((error: unknown) => {
    log.warn(`retention was not looked at: ${redact(String(error))}`);
  });
}

/** The registry of sources is an entity flow: made once, and again if somebody ended it. */
async function ensureCatalog(client: Client, taskQueue: string, log: pino.Logger, signal: AbortSignal): Promise<void> {
  const start = { workflowId: catalogWorkflowId, taskQueue, staticSummary: 'The registry of sources' };
  while (!signal.aborted) {
    try {
      await client.workflow.start(flowNames.catalog, start);
      return log.info('catalog started');
    } catch (error) {
      if (error instanceof WorkflowExecutionAlreadyStartedError) return;
      log.warn(`the catalog was not started: ${describeError(flowError(error, 'the start of `catalog`'))}`);
      await pause(patience, undefined, { signal }).catch(() => {});
    }
  }
}

let runtimeInstalled = false;

/** Temporal's own lines go through our log; signals are ours to handle. */
function installRuntime(log: pino.Logger): void {
  if (runtimeInstalled) return;
  runtimeInstalled = true;
  const levels = { TRACE: 'trace', DEBUG: 'debug', INFO: 'debug', WARN: 'warn', ERROR: 'error' } as const;
  const logger = new DefaultLogger('DEBUG', ({ level, message, meta }) => {
    // The task itself is long, holds inputs, and says nothing that its ids do not.
    const { task: _task, taskEncoded: _encoded, taskToken: _token, ...rest } = (meta ?? {}) as Record<string, unknown>;
    log[levels[level]](rest, message);
  });
  Runtime.install({
    logger,
    shutdownSignals: [],
    telemetryOptions: { logging: { filter: makeTelemetryFilterString({ core: 'WARN' }), forward: {} } },
  });
}

/** The process: `node --import tsx workers/worker.ts`. */
async function main(): Promise<void> {
  const settings = readSettings();
  const log = createLog('worker', settings.logLevel);
  const ending = new AbortController();
  process.on('uncaughtException', (error) => {
    log.fatal(redact(`the worker ends: ${error.stack ?? error.message}`));
    process.exit(1);
  });
  whenUnwanted((why) => {
    if (why === 'the parent has gone') process.exit(1);
    log.info(`ending: ${why}`);
    ending.abort();
  });
  const { createActivities } = await import('../activities/activities.ts');
  await loadOwnFunctions(settings, log);
  await runWorker({
    settings,
    log,
    activities: createActivities,
    signal: ending.signal,
    ready: () => process.stdout.write('{"ready":true}\n'),
  });
  log.info('ended');
  process.exit(0);
}

if (isEntryPoint(import.meta.url)) {
  await main().catch((error: unknown) => {
    process.stderr.write(`${redact(describeError(asSluiceError(error)))}\n`);
    process.exit(1);
  });
}
