/** Which intervals a backfill runs. */
import type { Client } from '@temporalio/client';
import { SluiceError } from '../../model/errors.ts';
import type { ExtractRequest } from '../../model/extract.ts';
import { formatInstant } from '../../model/instant.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import type { ExtractActivities, Interval } from './contract.ts';
import { ensureOwnTables, finishedIntervals } from './records.ts';
import { describeSchedule, firingsBetween, mostFirings, nanoseconds } from './schedule_times.ts';

type Input = Parameters<ExtractActivities['planBackfill']>[0];

/** See ExtractActivities.planBackfill. */
export async function planBackfill(
  context: CaptureContext,
  client: Client,
  input: Input,
): ReturnType<ExtractActivities['planBackfill']> {
  const { deployment, limit } = input;
  try {
    await ensureOwnTables(context.clickhouse('snapshot'));
    const { workflowType, input: request } = await describeSchedule(client, deployment);
    if (workflowType !== 'extractAssets') throw noIntervals(deployment, workflowType);
    const ends = await intervalEnds(client, input);
    const whole = input.only_missing
      ? await finishedIntervals(context.clickhouse('read'), deployment, input.from, input.to)
      : new Map<string, bigint>();
    const intervals: Interval[] = [];
    let skipped = 0;
    let through = input.after === '' ? input.from : input.after;
    for (const end of ends) {
      if (intervals.length === limit) return { intervals, skipped, through, request: request as ExtractRequest };
      const begin = whole.get(end);
      // A run whose interval was cut at a backfill's begin has pulled only a part of this one.
      if (begin !== undefined && begin <= nanoseconds(through)) skipped++;
      else intervals.push({ from: through, to: end });
      through = end;
    }
    const ended = ends.length === 0 || nanoseconds(through) >= nanoseconds(input.to);
    return { intervals, skipped, through: ended ? '' : through, request: request as ExtractRequest };
  } catch (error) {
    throw activityError(error, { source: deployment });
  }
}

/** Ends of the intervals behind `after`, at most `mostFirings` at once; the last one is `to`. */
async function intervalEnds(client: Client, input: Input): Promise<string[]> {
  const after = nanoseconds(input.after === '' ? input.from : input.after);
  const to = nanoseconds(input.to);
  const firings = await firingsBetween(client, input.deployment, after, to);
  if (firings.length < mostFirings && (firings.length === 0 || nanoseconds(firings.at(-1)!) < to))
    firings.push(formatInstant(to));
  return firings;
}

function noIntervals(deployment: string, flow: string): SluiceError {
  return new SluiceError(
    'configuration',
    `runs of ${deployment} (${flow}) stand for no intervals`,
    `Run it once: npx sluice run ${deployment}.`,
  );
}
