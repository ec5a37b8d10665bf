/** Makes Temporal's schedules equal to the deployment files: everything is looked at first, then changed. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { ScheduleDescription } from '@temporalio/client';
import { asSluiceError, describeError, SluiceError } from '../../model/errors.ts';
import { captureWorkflowId } from '../../model/messages.ts';
import type { DeploymentFile } from '../../workers/deployment_files.ts';
import { createLog } from '../../workers/log.ts';
import { registerSearchAttributes } from '../../workers/namespace.ts';
import { acted } from './actions.ts';
import type { Control } from './control.ts';
import { differencesOf, isOurs, markOf, stateOf, wantedSchedule, wantedState } from './deployment_schedule.ts';
import type { Difference } from './deployment_shapes.ts';
import { call, checkTimes, findSchedule, listSchedules } from './schedules.ts';
import { registered } from './sources.ts';
import { bounded } from './temporal.ts';

export interface DeployOptions {
  /** Only says what would change. */
  dryRun?: boolean;
  /** Deletes schedules of Sluice that no file names. */
  prune?: boolean;
}

/** What becomes of one schedule; `extra` = no file names it, and it stays. */
export interface Change {
  name: string;
  action: 'create' | 'update' | 'unchanged' | 'delete' | 'extra';
  file: string | null;
  differences: Difference[];
  /** Set when the change was tried and failed. */
  error: string | null;
}

export interface DeployAnswer {
  dry_run: boolean;
  changes: Change[];
}

interface Step {
  change: Change;
  apply?: () => Promise<void>;
}

/** How long the list of schedules may lag behind. */
const listPatience = 5_000;

/**
 * Compares files with schedules and, without `dryRun`, makes them equal. Nothing is changed when anything is wrong.
 * Errors: `configuration` with file and line, `conflict` (the name belongs to a source, or to somebody else's schedule),
 * `temporal_unreachable`. A change that fails in passing is told in its `error`; the others are made.
 */
export async function deploy(
  control: Control,
  files: DeploymentFile[],
  options: DeployOptions = {},
): Promise<DeployAnswer> {
  const steps = await plan(control, files, Boolean(options.prune));
  const changing = steps.filter((step) => step.apply !== undefined);
  if (!options.dryRun && changing.length > 0) {
    await prepare(control);
    for (const { change, apply } of changing) {
      const what = { action: change.action === 'delete' ? 'delete' : 'deploy', target: change.name };
      await acted(control, { ...what, input: { change: change.action } }, async () => await apply?.()).catch(
        (error: unknown) => {
          change.error = describeError(asSluiceError(error));
        },
      );
    }
    await untilListed(
      control,
      changing.map((step) => step.change).filter((change) => change.error === null),
    );
  }
  return { dry_run: Boolean(options.dryRun), changes: steps.map((step) => step.change) };
}

async function plan(control: Control, files: DeploymentFile[], prune: boolean): Promise<Step[]> {
  await refuseSources(control, files);
  const current = await Promise.all(files.map((file) => findSchedule(control, file.deployment.name)));
  const steps = files.map((file, index) => stepFor(control, file, current[index]));
  const changed = files.filter((_, index) => steps[index]?.apply !== undefined);
  await Promise.all(changed.map((file) => refuseTimes(control, file)));
  const named = new Set(files.map((file) => file.deployment.name));
  const others = (await listSchedules(control)).filter((id) => !named.has(id));
  const known = await Promise.all(others.map((id) => findSchedule(control, id)));
  const extra = known.filter((schedule) => schedule !== undefined && isOurs(schedule)) as ScheduleDescription[];
  return [...steps, ...extra.map(({ scheduleId }) => stepWithoutFile(control, scheduleId, prune))];
}

function stepFor(control: Control, file: DeploymentFile, current: ScheduleDescription | undefined): Step {
  const { deployment } = file;
  const wanted = wantedSchedule(deployment, control.settings.taskQueue);
  const { name } = deployment;
  const change: Change = { name, action: 'unchanged', file: file.file, differences: [], error: null };
  if (current === undefined) {
    change.action = 'create';
    const state = wantedState(deployment);
    const options = { scheduleId: name, memo: markOf(deployment), ...wanted, state };
    const create = () => control.temporal.schedule.create(options);
    return { change, apply: async () => void (await call(control, name, create)) };
  }
  if (!isOurs(current)) throw foreign(file);
  change.differences = differencesOf(current, wanted, wantedState(deployment, stateOf(current)));
  if (change.differences.length === 0) return { change };
  change.action = 'update';
  // The state is read again: what people paused while this went on stays paused.
  const update = () =>
    call(control, name, (handle) =>
      handle.update((latest) => ({ ...wanted, state: wantedState(deployment, stateOf(latest)) })),
    );
  return { change, apply: update };
}

/** A schedule of ours that no file names. */
function stepWithoutFile(control: Control, name: string, prune: boolean): Step {
  const change: Change = { name, action: prune ? 'delete' : 'extra', file: null, differences: [], error: null };
  return prune ? { change, apply: () => call(control, name, (handle) => handle.delete()) } : { change };
}

/** Search attributes must be there before a schedule may carry them. */
async function prepare(control: Control): Promise<void> {
  const command = await registerSearchAttributes(control.temporal, createLog('deploy', 'silent'));
  if (command === undefined) return;
  throw new SluiceError('configuration', 'the search attributes of Sluice are not registered', `Run: ${command}`);
}

/** Schedules are found by the list: who deploys and then looks must see what was made. */
async function untilListed(control: Control, changes: Change[]): Promise<void> {
  const end = Date.now() + listPatience;
  const settled = (ids: Set<string>) => changes.every(({ name, action }) => ids.has(name) === (action !== 'delete'));
  while (Date.now() < end && !settled(new Set(await listSchedules(control)))) await sleep(50);
}

/** The last word on times has the server that will follow them: its time zones, its limits. */
async function refuseTimes(control: Control, file: DeploymentFile): Promise<void> {
  const mistake = await checkTimes(control, file.deployment.schedule);
  if (mistake === undefined) return;
  const remedy = 'Correct the schedule; cron has five fields, and time zones are named as in Europe/Berlin.';
  throw new SluiceError('configuration', `Temporal refuses it: ${mistake}`, remedy, file.placeOf('schedule'));
}

async function refuseSources(control: Control, files: DeploymentFile[]): Promise<void> {
  const sources = new Set(await sourceIds(control, files));
  const taken = files.find((file) => sources.has(file.deployment.name));
  if (taken === undefined) return;
  const reason = `${taken.deployment.name} is the id of a connected source`;
  throw new SluiceError('conflict', reason, 'Give the deployment another name.', taken.placeOf('name'));
}

/** Ids of connected sources, at least of those that files name. Without a worker their flows tell. */
async function sourceIds(control: Control, files: DeploymentFile[]): Promise<string[]> {
  try {
    return (await registered(control)).map((source) => source.id);
  } catch (error) {
    if (!(error instanceof SluiceError) || error.kind !== 'no_worker') throw error;
  }
  const names = files.map((file) => file.deployment.name);
  const running = await Promise.all(names.map((name) => isRunning(control, captureWorkflowId(name))));
  return names.filter((_, index) => running[index]);
}

async function isRunning(control: Control, flow: string): Promise<boolean> {
  try {
    const { status } = await bounded(control, flow, () => control.temporal.workflow.getHandle(flow).describe());
    return status.name === 'RUNNING';
  } catch (error) {
    if (error instanceof SluiceError && error.kind === 'not_found') return false;
    throw error;
  }
}

function foreign(file: DeploymentFile): SluiceError {
  const { name } = file.deployment;
  const remedy = `Give the deployment another name, or delete that one: temporal schedule delete --schedule-id ${name}`;
  const reason = `there is a schedule ${name} that Sluice has not made`;
  return new SluiceError('conflict', reason, remedy, file.placeOf('name'));
}
