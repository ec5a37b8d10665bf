/** Which intervals a backfill runs. */
import type { Client } from '@temporalio/client';
import { SluiceError } from '../../model/errors.ts';
import type { ExtractRequest } from '../../model/extract.ts';
import { formatInstant } from '../../model/instant.ts';
import { expectPast } from '../../model/stretch.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import type { ExtractActivities, Interval } from './contract.ts';
import { isCovered, joinStretches, type Stretch } from './coverage.ts';
import { ensureOwnTables, finishedStretches } from './records.ts';
import { describeSchedule, firingsBetween, mostFirings, nanoseconds } from './schedule_times.ts';

/** Intervals of one backfill: each is a flow, with a history and a record of its own. */
const mostIntervals = 100_000n;

type Input = Parameters<ExtractActivities['planBackfill']>[0];

/** See ExtractActivities.planBackfill. */
export async function planBackfill(
  context: CaptureContext,
  client: Client,
  input: Input,
): ReturnType<ExtractActivities['planBackfill']> {
  const { deployment } = input;
  try {
    await ensureOwnTables(context.clickhouse('snapshot'));
    const { workflowType, input: read, run } = await describeSchedule(client, deployment);
    const request = read as ExtractRequest;
    if (workflowType !== 'extractAssets') throw noIntervals(deployment, workflowType);
    const finished: Finished = (from, to) => finishedStretches(context.clickhouse('read'), deployment, from, to);
    return { ...(await planIntervals(client, input, finished, Date.now())), request, run };
  } catch (error) {
    throw activityError(error, { source: deployment });
  }
}

/** What finished runs have pulled, where that touches [from, to); both are ISO texts. */
type Finished = (from: string, to: string) => Promise<Stretch[]>;

/** The plan without the input of runs. `now`: milliseconds since 1970. Errors: `configuration`. */
export async function planIntervals(
  client: Client,
  input: Input,
  finished: Finished,
  now: number,
): Promise<{ intervals: Interval[]; skipped: number; through: string }> {
  const isFirst = input.after === '';
  if (isFirst) expectPast(nanoseconds(input.to), now);
  const ends = await intervalEnds(client, input);
  if (isFirst) expectFew(input, ends);
  const intervals: Interval[] = [];
  let skipped = 0;
  let through = isFirst ? input.from : input.after;
  const last = ends.at(-1);
  const pulled = input.only_missing && last !== undefined ? joinStretches(await finished(through, last)) : [];
  for (const end of ends) {
    if (intervals.length === input.limit) return { intervals, skipped, through };
    if (isCovered(pulled, { from: nanoseconds(through), to: nanoseconds(end) })) skipped++;
    else intervals.push({ from: through, to: end });
    through = end;
  }
  const ended = last === undefined || nanoseconds(through) >= nanoseconds(input.to);
  return { intervals, skipped, through: ended ? '' : through };
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

/**
 * Refuses a backfill of more intervals than anybody can mean. Of more than Temporal tells at once their number is
 * reckoned from how close the first ones are. Errors: `configuration`.
 */
function expectFew({ from, to }: Input, ends: string[]): void {
  if (ends.length < mostFirings) return;
  const [begin, told] = [nanoseconds(from), nanoseconds(ends.at(-1)!)];
  const number = (BigInt(ends.length) * (nanoseconds(to) - begin)) / (told - begin);
  if (number <= mostIntervals) return;
  const until = begin + ((told - begin) * mostIntervals) / BigInt(ends.length);
  throw new SluiceError(
    'configuration',
    `that are about ${number.toLocaleString('en')} intervals, and a backfill runs at most ${mostIntervals.toLocaleString('en')}`,
    `Ask for a part of it first, up to ${formatInstant(until)} or before.`,
  );
}

function noIntervals(deployment: string, flow: string): SluiceError {
  return new SluiceError(
    'configuration',
    `runs of ${deployment} (${flow}) stand for no intervals`,
    `Run it once: npx sluice run ${deployment}.`,
  );
}
