/**
 * A deployment as a Temporal schedule, and what differs between two schedules. The schedule's own memo cannot change
 * after it was made, so it holds the name alone: the mark that the schedule is ours. The definition is in the memo of
 * the action, where every run shows it.
 */
import type { ScheduleDescription, ScheduleOverlapPolicy } from '@temporalio/client';
import type { SearchAttributePair } from '@temporalio/common';
import { searchAttributes } from '../../flows/searchAttributes.ts';
import { parseCron } from '../../model/cron.ts';
import {
  type Deployment,
  deployableFlow,
  type OverlapPolicy,
  overlapPolicies,
  scheduledWorkflowId,
} from '../../model/deployment.ts';
import { formatDuration, parseDuration } from '../../model/duration.ts';
import { type Difference, definitionShape } from './deployment_shapes.ts';
import { scheduleIn, specOf, timesText } from './schedule_spec.ts';

/** Key of both memos. */
const memoKey = 'sluice_deployment';

/** The notes that Sluice itself writes: they tell who has paused, and so who may resume. Any other is a person's. */
export const notes = {
  /** By pipeline/stop; pipeline/start resumes what has this note. */
  pipeline: 'Stopped with the pipeline; its start resumes it',
  /** Temporal forgets a schedule without times after a week, unless it is paused. */
  byHand: 'Runs only by hand: its file has no schedule',
  file: 'Paused by its file',
  /** What `pause` writes when it is told nothing else. */
  person: 'Paused by hand',
  resumed: 'Resumed by hand',
  pipelineAgain: 'Resumed with the pipeline',
} as const;

export interface ScheduleState {
  paused: boolean;
  note: string;
}

/** The parts of a schedule that a deployment decides. */
export interface WantedSchedule {
  spec: ScheduleDescription['spec'];
  action: ScheduleDescription['action'];
  policies: ScheduleDescription['policies'];
  typedSearchAttributes: SearchAttributePair[];
}

/** The schedule that a deployment is to have. `taskQueue` is the one of this installation. */
export function wantedSchedule(deployment: Deployment, taskQueue: string): WantedSchedule {
  const attributes = attributesOf(deployment);
  return {
    spec: specOf(deployment.schedule),
    action: {
      type: 'startWorkflow',
      workflowType: deployment.flow,
      args: [inputOf(deployment)],
      workflowId: scheduledWorkflowId(deployment.name),
      taskQueue: deployment.task_queue ?? taskQueue,
      staticSummary: summaryOf(deployment),
      memo: memoOf(deployment),
      typedSearchAttributes: attributes,
    },
    policies: {
      overlap: deployment.overlap.toUpperCase() as ScheduleOverlapPolicy,
      catchupWindow: (parseDuration(deployment.catchup_window) ?? 0) * 1000,
      pauseOnFailure: false,
    },
    typedSearchAttributes: attributes,
  };
}

/** What is written on the schedule when it is made. */
export function markOf(deployment: Deployment): Record<string, unknown> {
  return { [memoKey]: deployment.name };
}

/** True for a schedule that `deploy` made. */
export function isOurs(schedule: Pick<ScheduleDescription, 'memo' | 'scheduleId'>): boolean {
  return schedule.memo?.[memoKey] === schedule.scheduleId;
}

/** The input of a run. */
export function inputOf(deployment: Deployment, parameters: object = deployment.parameters): object {
  return deployableFlow(deployment.flow)?.input(deployment.name, parameters) ?? parameters;
}

/** Shown beside each run in Temporal UI, which takes 200 bytes. */
export function summaryOf(deployment: Deployment): string {
  const text = `${deployment.name}: ${deployment.description || deployment.flow}`;
  return Buffer.byteLength(text) <= 200 ? text : `${Buffer.from(text).subarray(0, 190).toString().replace(/�+$/, '')}…`;
}

/** The search attributes of the schedule and of its runs. */
export function attributesOf(deployment: Deployment): SearchAttributePair[] {
  return [
    { key: searchAttributes.deployment, value: deployment.name },
    { key: searchAttributes.flow, value: deployment.flow },
    ...(deployment.tags.length > 0 ? [{ key: searchAttributes.tags, value: deployment.tags }] : []),
  ];
}

/** The memo of a run. */
export function memoOf(deployment: Deployment): Record<string, unknown> {
  return { [memoKey]: deployment };
}

/** What was deployed; undefined when somebody has taken it out of the schedule, or put something else in its place. */
export function definitionIn(schedule: Pick<ScheduleDescription, 'action'>): Deployment | undefined {
  const found = definitionShape.safeParse(schedule.action.memo?.[memoKey]).data;
  const isRight = found?.schedule.every((entry) => !('cron' in entry) || !('mistake' in parseCron(entry.cron)));
  return isRight ? found : undefined;
}

/** What was deployed; where somebody has taken that out, what the schedule itself says. */
export function definitionOf(schedule: ScheduleDescription): Deployment {
  const known = definitionIn(schedule);
  if (known !== undefined) return known;
  const { scheduleId: name, action, policies, spec } = schedule;
  const { deployment: _, ...parameters } = (action.args?.[0] ?? {}) as Record<string, unknown>;
  const overlap = policies.overlap?.toLowerCase() as OverlapPolicy;
  return {
    name,
    description: '',
    flow: action.workflowType,
    schedule: scheduleIn(spec),
    parameters,
    tags: [],
    task_queue: action.taskQueue,
    overlap: overlapPolicies.includes(overlap) ? overlap : 'buffer_all',
    catchup_window: formatDuration(policies.catchupWindow / 1000),
  };
}

/**
 * Whether the schedule is to be paused: what the file says; without a word in the file as it is now. A schedule without
 * times is always paused, and what only was for that reason is resumed when it gets some.
 */
export function wantedState(deployment: Deployment, current?: ScheduleState): ScheduleState {
  if (deployment.schedule.length === 0) return current?.paused ? current : { paused: true, note: notes.byHand };
  if (deployment.paused === true) {
    return current?.paused && current.note !== notes.pipeline ? current : { paused: true, note: notes.file };
  }
  const isFree = deployment.paused === false || current === undefined || current.note === notes.byHand;
  return isFree ? { paused: false, note: current?.paused === false ? current.note : '' } : current;
}

export function stateOf({ state }: Pick<ScheduleDescription, 'state'>): ScheduleState {
  return { paused: state.paused, note: state.note ?? '' };
}

/** By field, in the words of a deployment file: all of a schedule that a run depends on. */
type Facts = Record<string, unknown>;

type Comparable = Pick<ScheduleDescription, 'spec' | 'action' | 'policies'> & {
  typedSearchAttributes: SearchAttributePair[];
  remainingActions?: number;
};

/** What differs, field by field, between a schedule as it is and as it is wanted. */
export function differencesOf(
  current: ScheduleDescription,
  wanted: WantedSchedule,
  state: ScheduleState,
): Difference[] {
  const { typedSearchAttributes, state: currentState, ...rest } = current;
  const { remainingActions } = currentState;
  const before = factsOf({ ...rest, typedSearchAttributes: typedSearchAttributes.getAll(), remainingActions });
  const found = [...compare(before, factsOf(wanted)), ...stateDifferences(stateOf(current), state)];
  if (found.length > 0) return found;
  // The same runs at the same times, in other words: `60m` for `1h`.
  return compare((current.action.memo?.[memoKey] ?? {}) as Facts, wanted.action.memo?.[memoKey] as Facts);
}

/** What somebody has changed since it was deployed. `taskQueue` is the one of this installation. */
export function driftOf(schedule: ScheduleDescription, taskQueue: string): Difference[] {
  const deployment = definitionIn(schedule);
  if (deployment === undefined) return [{ field: 'definition', from: null, to: 'as in its file' }];
  const state = wantedState(deployment, stateOf(schedule));
  return differencesOf(schedule, wantedSchedule(deployment, taskQueue), state);
}

function stateDifferences(now: ScheduleState, wanted: ScheduleState): Difference[] {
  if (now.paused !== wanted.paused) return [{ field: 'paused', from: now.paused, to: wanted.paused }];
  return now.note === wanted.note ? [] : [{ field: 'note', from: now.note, to: wanted.note }];
}

function compare(before: Facts, after: Facts): Difference[] {
  const fields = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  return fields
    .filter((field) => canonical(before[field]) !== canonical(after[field]))
    .map((field) => ({ field, from: before[field] ?? null, to: after[field] ?? null }));
}

/** JSON with sorted keys: the same text for the same content. */
function canonical(value: unknown): string {
  return JSON.stringify(value ?? null, (_key, inner: unknown) =>
    typeof inner === 'object' && inner !== null && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  );
}

function factsOf({ spec, action, policies, typedSearchAttributes, remainingActions }: Comparable): Facts {
  return {
    flow: action.workflowType,
    schedule: timesText(spec),
    ...parameterFacts(action.args ?? []),
    overlap: policies.overlap?.toLowerCase(),
    catchup_window: formatDuration(policies.catchupWindow / 1000),
    pause_on_failure: policies.pauseOnFailure,
    task_queue: action.taskQueue,
    ...attributeFacts('', action.typedSearchAttributes),
    ...attributeFacts('schedule.', typedSearchAttributes),
    workflow_id: action.workflowId,
    summary: action.staticSummary ?? null,
    // Not ours to set: found only where somebody has set them by hand.
    details: action.staticDetails || null,
    jitter: spec.jitter || null,
    start_at: spec.startAt ?? null,
    end_at: spec.endAt ?? null,
    skip: spec.skip?.length ? spec.skip : null,
    remaining_actions: remainingActions ?? null,
    retry: action.retry ?? null,
    timeouts: [action.workflowExecutionTimeout, action.workflowRunTimeout, action.workflowTaskTimeout].some(Boolean)
      ? [action.workflowExecutionTimeout, action.workflowRunTimeout, action.workflowTaskTimeout]
      : null,
  };
}

type AttributeList = SearchAttributePair[] | { getAll(): SearchAttributePair[] } | undefined;

/** Tags under their own name; the rest must be there, and is not worth a word while it is. */
function attributeFacts(prefix: string, list: AttributeList): Facts {
  const pairs = Array.isArray(list) ? list : (list?.getAll() ?? []);
  const facts: Facts = {};
  for (const { key, value } of pairs) {
    if (key.name === searchAttributes.tags.name) facts[`${prefix}tags`] = (value as string[]).length > 0 ? value : null;
    else facts[`${prefix}search_attributes.${key.name}`] = value;
  }
  return facts;
}

function parameterFacts(args: readonly unknown[]): Facts {
  const [input, ...more] = args;
  if (more.length > 0 || typeof input !== 'object' || input === null || Array.isArray(input)) return { input: args };
  return Object.fromEntries(Object.entries(input).map(([key, value]) => [`parameters.${key}`, value]));
}
