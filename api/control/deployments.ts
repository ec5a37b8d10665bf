/** Deployments as they are in Temporal: looking, pausing, resuming, deleting. */

import { type ScheduleDescription, type WorkflowExecutionInfo, WorkflowFailedError } from '@temporalio/client';
import { defineSearchAttributeKey } from '@temporalio/common';
import { keptPosition } from '../../activities/extract/records.ts';
import { searchAttributes } from '../../flows/searchAttributes.ts';
import { type Deployment, deployableFlow } from '../../model/deployment.ts';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import { acted } from './actions.ts';
import { type Control, scheduleUrl, workflowUrl } from './control.ts';
import { countRows } from './counts.ts';
import { definitionOf, driftOf, isOurs, notes, stateOf } from './deployment_schedule.ts';
import type { DeploymentAnswer, DeploymentRun } from './deployment_shapes.ts';
import { shared } from './figures.ts';
import { call, findSchedule, listSchedules, timesBetween } from './schedules.ts';
import { bounded, failureOf } from './temporal.ts';

const shownRuns = 10;
const nextRuns = 5;
const scheduledTime = defineSearchAttributeKey('TemporalScheduledStartTime', 'DATETIME');

/** All deployments, by name. One that was deployed a moment ago by somebody else may still be missing. */
export async function listDeployments(control: Control): Promise<DeploymentAnswer[]> {
  return await Promise.all((await ownSchedules(control)).map((schedule) => describeDeployment(control, schedule)));
}

/** One deployment. Errors: `not_found`. */
export async function getDeployment(control: Control, name: string): Promise<DeploymentAnswer> {
  return await describeDeployment(control, await ownSchedule(control, name));
}

/** The schedule of a deployment. Errors: `not_found`, also for a schedule that is not Sluice's. */
export async function ownSchedule(control: Control, name: string): Promise<ScheduleDescription> {
  const schedule = await findSchedule(control, name);
  if (schedule !== undefined && isOurs(schedule)) return schedule;
  const remedy = 'See what there is: `npx sluice deployments list`. Make it from its file: `npx sluice deploy`.';
  throw new SluiceError('not_found', `there is no deployment ${name}`, remedy);
}

async function ownSchedules(control: Control): Promise<ScheduleDescription[]> {
  const ids = await listSchedules(control);
  const schedules = await Promise.all(ids.map((id) => findSchedule(control, id)));
  return schedules.filter((schedule) => schedule !== undefined && isOurs(schedule)) as ScheduleDescription[];
}

/** Pauses; a person's note stays through pipeline/start. Errors: `not_found`. */
export function pauseDeployment(control: Control, name: string, note?: string): Promise<DeploymentAnswer> {
  const what = { action: 'pause', target: name, input: note === undefined ? {} : { note } };
  return acted(control, what, () => pause(control, name, note));
}

async function pause(control: Control, name: string, note?: string): Promise<DeploymentAnswer> {
  const schedule = await ownSchedule(control, name);
  if (!isManual(schedule)) await call(control, name, (handle) => handle.pause(note ?? notes.person));
  return await getDeployment(control, name);
}

/** Resumes, whoever has paused. Errors: `not_found`, `conflict` when it has no schedule. */
export function resumeDeployment(control: Control, name: string): Promise<DeploymentAnswer> {
  return acted(control, { action: 'resume', target: name }, () => resume(control, name));
}

async function resume(control: Control, name: string): Promise<DeploymentAnswer> {
  const schedule = await ownSchedule(control, name);
  if (isManual(schedule)) {
    const remedy = `Give it a schedule in its file and deploy, or run it: npx sluice run ${name}`;
    throw new SluiceError('conflict', `${name} has no schedule that could be resumed`, remedy);
  }
  if (schedule.state.paused) await call(control, name, (handle) => handle.unpause(notes.resumed));
  return await getDeployment(control, name);
}

/** Deletes the schedule; runs go on, and the copy stays. Errors: `not_found`. */
export async function deleteDeployment(control: Control, name: string): Promise<void> {
  await acted(control, { action: 'delete', target: name }, async () => {
    await ownSchedule(control, name);
    await call(control, name, (handle) => handle.delete());
  });
}

/** Names of deployments that run by schedule. */
export async function activeDeployments(control: Control): Promise<string[]> {
  return (await ownSchedules(control)).filter(({ state }) => !state.paused).map(({ scheduleId }) => scheduleId);
}

/** Names of deployments that `stopDeployment` has paused, and no person. */
export async function stoppedDeployments(control: Control): Promise<string[]> {
  const stopped = ({ state }: ScheduleDescription) => state.paused && state.note === notes.pipeline;
  return (await ownSchedules(control)).filter(stopped).map(({ scheduleId }) => scheduleId);
}

/** Pauses with the pipeline. */
export async function stopDeployment(control: Control, name: string): Promise<void> {
  await call(control, name, (handle) => handle.pause(notes.pipeline));
}

/** Resumes with the pipeline. */
export async function startDeployment(control: Control, name: string): Promise<void> {
  await call(control, name, (handle) => handle.unpause(notes.pipelineAgain));
}

async function describeDeployment(control: Control, schedule: ScheduleDescription): Promise<DeploymentAnswer> {
  const { settings } = control;
  const deployment = definitionOf(schedule);
  const [runs, missed, position, rows] = await Promise.all([
    runsOf(control, deployment),
    missedRuns(control, schedule, deployment),
    positionOf(control, deployment),
    rowsOf(control, deployment),
  ]);
  const state = stateOf(schedule);
  const { paused: _, ...definition } = deployment;
  return {
    ...definition,
    task_queue: schedule.action.taskQueue,
    status: isManual(schedule) ? 'manual' : state.paused ? 'paused' : 'active',
    ...state,
    next_runs: state.paused ? [] : schedule.info.nextActionTimes.slice(0, nextRuns).map((time) => time.toISOString()),
    running: runs.filter((run) => run.status === 'running'),
    last_runs: runs.slice(0, shownRuns),
    last_error: await lastError(control, deployment, runs),
    missed,
    drift: driftOf(schedule, settings.taskQueue),
    position,
    rows,
    url: scheduleUrl(settings, deployment.name),
  };
}

function isManual({ spec }: ScheduleDescription): boolean {
  return (spec.intervals ?? []).length + (spec.calendars ?? []).length === 0;
}

/** Runs of a deployment, the newest first: by schedule, by hand and by backfill. */
async function runsOf(control: Control, { name, flow }: Deployment): Promise<DeploymentRun[]> {
  const query = `${searchAttributes.deployment.name} = '${name}' AND WorkflowType = '${flow.replaceAll("'", "''")}'`;
  const found = await bounded(control, `the runs of ${name}`, async () => {
    const infos: WorkflowExecutionInfo[] = [];
    for await (const info of control.temporal.workflow.list({ query, pageSize: 2 * shownRuns })) {
      infos.push(info);
      if (infos.length === 2 * shownRuns) break;
    }
    return infos;
  });
  return found.map((info) => runShape(control, name, info)).sort((a, b) => (a.started_at < b.started_at ? 1 : -1));
}

function runShape(control: Control, name: string, info: WorkflowExecutionInfo): DeploymentRun {
  const { workflowId, runId, startTime, closeTime } = info;
  // Of runs that the schedule did not make, the id says what they stand for.
  const named = workflowId.startsWith(`${name}/`) ? workflowId.slice(name.length + 1) : '';
  const nominal = info.typedSearchAttributes.get(scheduledTime) ?? new Date(isTime(named) ? named : Number.NaN);
  return {
    workflow: { id: workflowId, run_id: runId, url: workflowUrl(control.settings, workflowId, runId) },
    status: info.status.name.toLowerCase(),
    nominal: Number.isNaN(nominal.getTime()) ? null : nominal.toISOString(),
    started_at: startTime.toISOString(),
    closed_at: closeTime?.toISOString() ?? null,
  };
}

/** Dates are read from all kinds of text. */
function isTime(text: string): boolean {
  return /^\d{4}-\d\d-\d\dT/.test(text);
}

/** Where the next scheduled run begins; null before the first, and while ClickHouse cannot be asked. */
async function positionOf(control: Control, { name, flow }: Deployment): Promise<string | null> {
  if (!deployableFlow(flow)?.intervals) return null;
  const kept = shared(control, `position of ${name}`, () => keptPosition(control.clickhouse, name));
  return (await kept.catch(() => undefined))?.position || null;
}

/** Rows of its copy; null for flows that make none, and while it is not known. */
async function rowsOf(control: Control, { name, flow }: Deployment): Promise<number | null> {
  return deployableFlow(flow)?.intervals ? await countRows(control, name) : null;
}

/** Why the newest run that has ended did not end well. */
async function lastError(control: Control, { name }: Deployment, runs: DeploymentRun[]): Promise<ErrorReport | null> {
  const last = runs.find((run) => run.closed_at !== null);
  if (last?.status !== 'failed' && last?.status !== 'timed_out') return null;
  const { id, run_id: runId } = last.workflow;
  const handle = control.temporal.workflow.getHandle(id, runId ?? undefined, { followRuns: false });
  const ended = (error: unknown) => {
    if (error instanceof WorkflowFailedError) return error;
    throw error;
  };
  const failure = await bounded(control, `the run ${id}`, () => handle.result().then(() => null, ended));
  return failure && failureOf(failure, `the last run of ${name}`).report();
}

/** Runs that the schedule left out, and the command that makes up for them. */
async function missedRuns(
  control: Control,
  schedule: ScheduleDescription,
  { name, flow }: Deployment,
): Promise<DeploymentAnswer['missed']> {
  const { numActionsMissedCatchupWindow: late, numActionsSkippedOverlap: overlap } = schedule.info;
  const buffer = Number(String(schedule.raw.info?.bufferDropped ?? 0));
  const missed = { catchup_window: late, buffer, overlap, command: null };
  if (late + buffer === 0 || !deployableFlow(flow)?.intervals) return missed;
  const [from, to] = await missedStretch(control, schedule);
  const stretch = `--from ${from.toISOString()} --to ${to.toISOString()}`;
  return { ...missed, command: `npx sluice backfill ${name} ${stretch} --only-missing` };
}

/**
 * From the run before the first missing one to the last missing one. Temporal counts them, and remembers only the last
 * ten that it made: what is not missing between those lies anywhere since the schedule was made.
 */
async function missedStretch(control: Control, { scheduleId, info }: ScheduleDescription): Promise<[Date, Date]> {
  const made = info.recentActions.map((action) => action.scheduledAt.getTime()).sort((a, b) => a - b);
  const [first, last] = [made[0], made.at(-1)];
  if (first === undefined || last === undefined) return [info.createdAt, new Date()];
  const due = await timesBetween(control, scheduleId, new Date(first), new Date(last));
  const missing = due.map((time) => time.getTime()).filter((time) => !made.includes(time));
  if (missing.length === 0) return [info.createdAt, new Date()];
  const before = made.findLast((time) => time < missing[0]!) ?? first;
  return [new Date(before), new Date(missing.at(-1)!)];
}
