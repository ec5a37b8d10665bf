/** Runs and backfills that somebody asks for: started here, done by flows. */
import { createHash } from 'node:crypto';
import {
  type BackfillRequest,
  backfillWorkflowId,
  type Deployment,
  deployableFlow,
  keyedWorkflowId,
  runWorkflowId,
} from '../../model/deployment.ts';
import { SluiceError } from '../../model/errors.ts';
import { formatInstant, parseInstant } from '../../model/instant.ts';
import { flowNames } from '../../model/messages.ts';
import { expectPast } from '../../model/stretch.ts';
import { acted } from './actions.ts';
import { type Control, workflowUrl } from './control.ts';
import { attributesOf, definitionOf, inputOf, memoOf, summaryOf } from './deployment_schedule.ts';
import type { BackfillBody, DeploymentAnswer, StartedAnswer } from './deployment_shapes.ts';
import { getDeployment, ownSchedule } from './deployments.ts';
import { call } from './schedules.ts';
import { getSource } from './sources.ts';
import { bounded, type Flow, noWorkerOn, requireWorker, startFlow } from './temporal.ts';

/** A worker asks again at least once a minute: who has not for longer is gone. */
const pollAge = 65_000;

/**
 * Starts one run now, beside the schedule. `overrides` replace parameters key by key. Errors: `not_found`, `no_worker`
 * at once, `configuration` for wrong parameters.
 */
export function runDeployment(
  control: Control,
  name: string,
  overrides: Record<string, unknown> = {},
): Promise<StartedAnswer> {
  const input = Object.keys(overrides).length > 0 ? { parameters: Object.keys(overrides) } : {};
  return acted(control, { action: 'run', target: name, input }, () => run(control, name, overrides));
}

async function run(control: Control, name: string, overrides: Record<string, unknown>): Promise<StartedAnswer> {
  const deployment = definitionOf(await ownSchedule(control, name));
  await requireWorkerOf(control, deployment);
  const parameters = readParameters(deployment, { ...deployment.parameters, ...overrides });
  const { idempotencyKey: key } = control;
  return await startRun(control, deployment.name, {
    type: deployment.flow,
    id: key === undefined ? runWorkflowId(name, new Date().toISOString()) : keyedWorkflowId(name, key),
    once: key !== undefined,
    input: inputOf(deployment, parameters),
    summary: summaryOf(deployment),
    taskQueue: deployment.task_queue,
    attributes: attributesOf(deployment),
    memo: memoOf(deployment),
  });
}

/**
 * Lets the schedule make a run now, under its own overlap policy: it may wait for the one that runs. Errors:
 * `not_found`, `no_worker` at once.
 */
export function triggerDeployment(control: Control, name: string): Promise<DeploymentAnswer> {
  return acted(control, { action: 'trigger', target: name }, () => trigger(control, name));
}

async function trigger(control: Control, name: string): Promise<DeploymentAnswer> {
  const schedule = await ownSchedule(control, name);
  await requireWorkerOf(control, definitionOf(schedule));
  await call(control, name, (handle) => handle.trigger(schedule.policies.overlap));
  return await getDeployment(control, name);
}

/**
 * Runs all intervals of [from, to) again, in order; the kept position stays. The same stretch is not run twice at once.
 * Errors: `not_found`, `no_worker`, `configuration`.
 */
export function backfillDeployment(control: Control, name: string, body: BackfillBody): Promise<StartedAnswer> {
  return acted(control, { action: 'backfill', target: name, input: { ...body } }, () => backfill(control, name, body));
}

async function backfill(control: Control, name: string, body: BackfillBody): Promise<StartedAnswer> {
  const deployment = definitionOf(await ownSchedule(control, name));
  if (!deployableFlow(deployment.flow)?.intervals) {
    const reason = `runs of ${name} (${deployment.flow}) stand for no intervals`;
    throw new SluiceError('configuration', reason, `Run it once: npx sluice run ${name}`);
  }
  const { from, to } = readStretch(body);
  await requireWorkerOf(control, deployment);
  const input: BackfillRequest = { deployment: name, from, to, only_missing: body.only_missing };
  return await startRun(control, name, {
    type: flowNames.backfill,
    id: `${backfillWorkflowId(name)}/${from}_${to}`,
    input,
    summary: `Backfill of ${name} [${from}, ${to})`,
    // It reads the schedule, and is where its runs are.
    taskQueue: deployment.task_queue,
  });
}

/**
 * Copies tables of a source again, and ends when they stream. Errors: `not_found` (also for a table), `no_worker`,
 * `conflict` when the source does not run.
 */
export function backfillSource(control: Control, source: string, tables: string[]): Promise<StartedAnswer> {
  const what = { action: 'backfill', target: source, input: { tables } };
  return acted(control, what, () => copyAgain(control, source, tables));
}

async function copyAgain(control: Control, source: string, tables: string[]): Promise<StartedAnswer> {
  const { status, tables: known } = await getSource(control, source);
  const names = known.map((table) => table.table);
  const missing = tables.find((name) => !names.includes(name.replace(/^public\./, '')));
  if (missing !== undefined) {
    const remedy = `It has ${names.slice(0, 30).join(', ')}.`;
    throw new SluiceError('not_found', `the source ${source} has no table ${missing}`, remedy, { source });
  }
  if (status !== 'streaming' && status !== 'snapshotting' && status !== 'failed') {
    const remedy = `Start it first: npx sluice sources start ${source}`;
    throw new SluiceError('conflict', `the source ${source} is ${status}, so nothing would be copied`, remedy, {
      source,
    });
  }
  const input: BackfillRequest = { source, tables };
  const what = createHash('sha256')
    .update([...tables].sort().join('\n'))
    .digest('hex')
    .slice(0, 16);
  return await startRun(control, source, {
    type: flowNames.backfill,
    id: `${backfillWorkflowId(source)}/${what}`,
    input,
    summary: `Copies ${tables.join(', ')} of ${source} again`.slice(0, 100),
  });
}

async function startRun(control: Control, deployment: string, flow: Flow): Promise<StartedAnswer> {
  const run = await startFlow(control, { ...flow, key: control.idempotencyKey });
  const workflow = { id: flow.id, run_id: run, url: workflowUrl(control.settings, flow.id, run) };
  return { deployment, flow: flow.type, status: 'running', input: { ...(flow.input as object) }, workflow };
}

function readParameters(deployment: Deployment, parameters: Record<string, unknown>): object {
  const flow = deployableFlow(deployment.flow);
  const wrong = (reason: string, example: string) => new SluiceError('configuration', reason, example);
  if (flow !== undefined) return flow.read(parameters, wrong);
  throw wrong(`the flow ${deployment.flow} is unknown here`, 'Correct its file and deploy again.');
}

/** Both as instants in UTC. Errors: `configuration`. */
function readStretch({ from, to }: Pick<BackfillBody, 'from' | 'to'>): { from: string; to: string } {
  const example = 'Write dates or instants, e.g. --from 2026-01-01 --to 2026-01-31T12:00:00Z.';
  const [begin, end] = [parseInstant(from), parseInstant(to)];
  if (begin === undefined || end === undefined) {
    throw new SluiceError('configuration', `${begin === undefined ? from : to} is no date or instant`, example);
  }
  if (begin >= end) throw new SluiceError('configuration', '`from` must be before `to`', example);
  expectPast(end, Date.now());
  return { from: formatInstant(begin), to: formatInstant(end) };
}

/** Returns when a worker would run it. Errors: `no_worker` with the command that starts one. */
async function requireWorkerOf(control: Control, { task_queue: queue }: Deployment): Promise<void> {
  if (queue === undefined || queue === control.settings.taskQueue) return await requireWorker(control);
  const answer = await bounded(control, `the task queue ${queue}`, () =>
    control.temporal.workflowService.describeTaskQueue({
      namespace: control.temporal.options.namespace,
      taskQueue: { name: queue },
      // 1 = workflow tasks: what a run begins with.
      taskQueueType: 1,
    }),
  );
  const lately = answer.pollers.some(({ lastAccessTime }) => {
    return Date.now() - Number(String(lastAccessTime?.seconds ?? 0)) * 1000 < pollAge;
  });
  if (lately) return;
  throw noWorkerOn(control, queue);
}
