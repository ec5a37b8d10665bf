/** When a deployment's schedule fires, as Temporal itself reads it: no second reading of cron texts that could differ. */
import type { Client } from '@temporalio/client';
import { type SearchAttributePair, TypedSearchAttributes } from '@temporalio/common';
import { searchAttributes } from '../../flows/searchAttributes.ts';
import { SluiceError } from '../../model/errors.ts';
import { formatInstant, parseInstant } from '../../model/instant.ts';
import type { RunOptions } from './contract.ts';

const second = 1_000_000_000n;
/** The window in which the firing before an instant is looked for first, and the one in which it is last. */
const [firstWindow, lastWindow] = [60n * second, 400n * 86_400n * second];
/** So many firings Temporal answers at once: the first ones of what it was asked for. */
export const mostFirings = 1000;

/** The firings in (after, to], in order, as ISO texts; of more than `mostFirings` the first ones. */
export async function firingsBetween(client: Client, schedule: string, after: bigint, to: bigint): Promise<string[]> {
  const answer = await client.workflowService
    .listScheduleMatchingTimes({
      namespace: client.options.namespace,
      scheduleId: schedule,
      startTime: timestamp(after),
      endTime: timestamp(to),
    })
    .catch((error: unknown) => {
      throw scheduleError(error, schedule);
    });
  const times = (answer.startTime ?? []).map(
    ({ seconds, nanos }) => BigInt(String(seconds ?? 0)) * second + BigInt(nanos ?? 0),
  );
  return times.filter((time) => time > after && time <= to).map(formatInstant);
}

/** The firing before `nominal`, as ISO text; undefined when there is none in 400 days. */
export async function firingBefore(client: Client, schedule: string, nominal: bigint): Promise<string | undefined> {
  // Twice as far each time: what is found lies in the far half, and is not much more than what is needed.
  for (let window = firstWindow; ; window *= 2n) {
    const far = window < lastWindow ? window : lastWindow;
    const last = await lastFiring(client, schedule, nominal - far - 1n, nominal - 1n);
    if (last !== undefined || far === lastWindow) return last;
  }
}

/** The last firing in (after, to], as ISO text; undefined when there is none. */
async function lastFiring(client: Client, schedule: string, after: bigint, to: bigint): Promise<string | undefined> {
  let firings = await firingsBetween(client, schedule, after, to);
  let last = firings.at(-1);
  while (firings.length === mostFirings) {
    firings = await firingsBetween(client, schedule, nanoseconds(last!), to);
    last = firings.at(-1) ?? last;
  }
  return last;
}

/** What is to be known of a schedule. */
export interface ScheduleFacts {
  workflowType: string;
  /** What its runs get. */
  input: unknown;
  /** How its runs are started. */
  run: RunOptions;
}

/** What is to be known of a schedule. Errors: `not_found`, `temporal_unreachable`. */
export async function describeSchedule(client: Client, schedule: string): Promise<ScheduleFacts> {
  const described = await client.schedule
    .getHandle(schedule)
    .describe()
    .catch((error: unknown) => {
      throw scheduleError(error, schedule);
    });
  const { action } = described;
  return {
    workflowType: action.workflowType,
    input: action.args?.[0],
    run: {
      task_queue: action.taskQueue,
      tags: attributesIn(action.typedSearchAttributes).get(searchAttributes.tags) ?? [],
      memo: action.memo ?? {},
    },
  };
}

function attributesIn(list: SearchAttributePair[] | TypedSearchAttributes = []): TypedSearchAttributes {
  return Array.isArray(list) ? new TypedSearchAttributes(list) : list;
}

/** True when there is a schedule of this name that extracts assets. */
export async function isDeployment(client: Client, name: string): Promise<boolean> {
  try {
    return (await describeSchedule(client, name)).workflowType === 'extractAssets';
  } catch (error) {
    if (error instanceof SluiceError && error.kind === 'not_found') return false;
    throw error;
  }
}

function timestamp(nanoseconds: bigint): { seconds: never; nanos: number } {
  const seconds = nanoseconds / second;
  return { seconds: Number(seconds) as never, nanos: Number(nanoseconds - seconds * second) };
}

function scheduleError(error: unknown, schedule: string): SluiceError {
  const message = error instanceof Error ? error.message : String(error);
  if ((error as { code?: number }).code === 5 || /not found/i.test(message)) {
    const remedy = 'See what there is: npx sluice deployments list. Deploy it: npx sluice deploy.';
    return new SluiceError('not_found', `there is no deployment ${schedule}`, remedy, {}, error);
  }
  const remedy = 'See that Temporal runs; it is tried again by itself.';
  return new SluiceError('temporal_unreachable', `Temporal did not answer: ${message}`, remedy, {}, error);
}

/** ISO text to nanoseconds, of texts that were checked before. */
export function nanoseconds(text: string): bigint {
  return parseInstant(text) ?? 0n;
}
