/** Temporal's schedules: the calls that deployments are made of, with deadlines and errors in Sluice's words. */
import { randomUUID } from 'node:crypto';
import {
  isGrpcServiceError,
  ScheduleAlreadyRunning,
  type ScheduleDescription,
  type ScheduleHandle,
  ScheduleNotFoundError,
} from '@temporalio/client';
import { searchAttributes } from '../../flows/searchAttributes.ts';
import type { DeploymentSchedule } from '../../model/deployment.ts';
import { parseDuration } from '../../model/duration.ts';
import { SluiceError } from '../../model/errors.ts';
import { deadlines } from '../../workers/temporal_client.ts';
import type { Control } from './control.ts';
import { bounded } from './temporal.ts';

/**
 * Milliseconds for each look at a schedule. One of some hundred gets lost inside Temporal, which notices after five
 * seconds; the next one is answered at once.
 */
const looks = [1_000, 2_000, deadlines.start];

/** A schedule as it is; undefined when there is none of that id. */
export async function findSchedule(control: Control, id: string): Promise<ScheduleDescription | undefined> {
  for (const [index, deadline] of looks.entries()) {
    try {
      return await call(control, id, (handle) => handle.describe(), deadline);
    } catch (error) {
      const kind = error instanceof SluiceError ? error.kind : 'unexpected';
      if (kind === 'not_found') return undefined;
      if (kind !== 'timeout' || index === looks.length - 1) throw error;
    }
  }
  return undefined;
}

/** Does something with one schedule. Errors: `not_found`, `conflict`, `configuration`, `temporal_unreachable`. */
export async function call<Answer>(
  control: Control,
  id: string,
  use: (handle: ScheduleHandle) => Promise<Answer>,
  deadline: number = deadlines.start,
): Promise<Answer> {
  const safely = async () => {
    try {
      return await use(control.temporal.schedule.getHandle(id));
    } catch (error) {
      throw scheduleError(error, id);
    }
  };
  return await bounded(control, `the schedule ${id}`, safely, deadline);
}

/**
 * Ids of the schedules that carry our search attribute, sorted. The list is Temporal's visibility: what was made or
 * deleted a moment ago may be missing, or still be there.
 */
export async function listSchedules(control: Control): Promise<string[]> {
  const query = `${searchAttributes.deployment.name} IS NOT NULL`;
  return await bounded(control, 'the list of schedules', async () => {
    const ids: string[] = [];
    try {
      for await (const one of control.temporal.schedule.list({ query })) ids.push(one.scheduleId);
    } catch (error) {
      // Before the first worker or deploy there are no search attributes, and so no schedules of ours.
      if (grpcError(error)?.code === invalidArgument) return [];
      throw error;
    }
    return ids.sort();
  });
}

/**
 * Asks Temporal whether it can read these times, and changes nothing: an update of a schedule that is not there is
 * checked first, and then refused as not found. Answers what is wrong, if anything is.
 */
export async function checkTimes(control: Control, schedule: DeploymentSchedule[]): Promise<string | undefined> {
  const crons = schedule.flatMap((entry) => ('cron' in entry ? [entry] : []));
  const intervals = schedule.flatMap((entry) => ('interval' in entry ? [entry.interval] : []));
  const request = {
    namespace: control.temporal.options.namespace,
    scheduleId: `sluice-check-${randomUUID()}`,
    requestId: randomUUID(),
    schedule: {
      spec: {
        cronString: crons.map((entry) => entry.cron),
        interval: intervals.map((text) => ({ interval: { seconds: parseDuration(text) ?? 0 } })),
        timezoneName: crons[0]?.timezone ?? '',
      },
    },
  };
  return await bounded(control, 'a check of times', async () => {
    try {
      await control.temporal.workflowService.updateSchedule(request as never);
    } catch (error) {
      const status = grpcError(error);
      if (status?.code === invalidArgument) return status.details.replace(/^Invalid schedule spec: /, '');
      if (status?.code !== notFound) throw error;
    }
    return undefined;
  });
}

/** The times in (after, until] at which a schedule is due, at most a thousand. */
export async function timesBetween(control: Control, id: string, after: Date, until: Date): Promise<Date[]> {
  const { namespace } = control.temporal.options;
  return await call(control, id, async () => {
    const answer = await control.temporal.workflowService.listScheduleMatchingTimes({
      namespace,
      scheduleId: id,
      startTime: { seconds: Math.floor(after.getTime() / 1000) as never },
      endTime: { seconds: Math.floor(until.getTime() / 1000) as never },
    });
    return answer.startTime.map(({ seconds }) => new Date(Number(String(seconds ?? 0)) * 1000));
  });
}

/** Codes of gRPC. */
const invalidArgument = 3;
const notFound = 5;

function scheduleError(error: unknown, id: string): unknown {
  const status = grpcError(error);
  if (error instanceof ScheduleNotFoundError || status?.code === notFound) {
    const remedy = 'See what there is: `npx sluice deployments list`. Make it from its file: `npx sluice deploy`.';
    return new SluiceError('not_found', `there is no deployment ${id}`, remedy, {}, error);
  }
  if (error instanceof ScheduleAlreadyRunning) {
    const remedy = 'Somebody made it at the same time: deploy again.';
    return new SluiceError('conflict', `the schedule ${id} exists already`, remedy, {}, error);
  }
  if (status?.code === invalidArgument) {
    return new SluiceError(
      'configuration',
      `Temporal refused the schedule ${id}: ${status.details}`,
      'Correct it.',
      {},
      error,
    );
  }
  return error;
}

/** The gRPC error behind an error. */
function grpcError(error: unknown): { code: number; details: string } | undefined {
  for (let inner = error; inner instanceof Error; inner = inner.cause) {
    if (isGrpcServiceError(inner)) return inner;
  }
  return undefined;
}
