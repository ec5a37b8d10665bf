/** Which interval a run pulls. */
import type { Client } from '@temporalio/client';
import { parseDuration } from '../../model/duration.ts';
import { formatInstant } from '../../model/instant.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import type { ExtractActivities, ExtractPlan } from './contract.ts';
import { ensureOwnTables, type KeptPosition, keptPosition } from './records.ts';
import { firingBefore, firingsBetween, isDeployment, nanoseconds } from './schedule_times.ts';

/** So far behind an API's clock is expected to be at most, in nanoseconds: one that is further costs a second pull. */
const clockBehind = 60_000_000_000n;

type Input = Parameters<ExtractActivities['planExtract']>[0];

/** See ExtractActivities.planExtract. */
export async function planExtract(context: CaptureContext, client: Client, input: Input): Promise<ExtractPlan> {
  const { deployment } = input.request;
  try {
    await ensureOwnTables(context.clickhouse('snapshot'));
    const kept = await keptPosition(context.clickhouse('read'), deployment);
    const plan = await chooseInterval(client, deployment, kept, { ...input, now: Date.now() });
    return lookBack(plan, input.request.lookback);
  } catch (error) {
    throw activityError(error, { source: deployment });
  }
}

/** Which run is planned, and when: milliseconds since 1970, but for `nominal`. */
interface Moments extends Pick<Input, 'nominal' | 'started'> {
  now: number;
}

/**
 * The newest run that is due pulls all since the kept position, and so does one whose own interval begins there: runs
 * that have queued up follow one another. Any other was asked for as a backfill, or comes after one that is missing: it
 * pulls the schedule's own interval. Nothing is lost by that: it leaves the position, so a later run pulls from there.
 */
export async function chooseInterval(
  client: Client,
  deployment: string,
  kept: KeptPosition,
  moments: Moments,
): Promise<ExtractPlan> {
  const { nominal } = moments;
  const at = nanoseconds(nominal);
  const scheduled = await isDeployment(client, deployment);
  const behind = kept.position !== '' && at <= nanoseconds(kept.position);
  if (!behind && (!scheduled || (await isNewest(client, deployment, moments)))) return regular(kept, nominal);
  const before = scheduled ? await firingBefore(client, deployment, at) : undefined;
  // Asked for by hand, twice in the same moment: what there was is pulled already.
  if (behind) return before === undefined ? backfill(kept.position, kept.position) : backfill(before, nominal);
  if (before === undefined || (await isNext(client, deployment, kept, before))) return regular(kept, nominal);
  return backfill(before, nominal);
}

/** False when the run stands for a time of the schedule, and another one has been due since. */
async function isNewest(client: Client, deployment: string, { nominal, started, now }: Moments): Promise<boolean> {
  const at = nanoseconds(nominal);
  const until = BigInt(Math.max(started, now)) * 1_000_000n;
  if (at >= until) return true;
  const [first, next] = await firingsBetween(client, deployment, at - 1n, until);
  // Any other time is the moment at which somebody asked, however long the run then waited.
  return next === undefined || nanoseconds(first!) !== at;
}

/** True when no run is missing between the kept position and an interval that begins at `before`. */
async function isNext(
  client: Client,
  deployment: string,
  { position }: KeptPosition,
  before: string,
): Promise<boolean> {
  if (position === '') return false;
  const [reached, begin] = [nanoseconds(position), nanoseconds(before)];
  if (begin <= reached) return true;
  // The run that ended there was kept back by the API's clock, and has left a rest.
  return (
    begin - reached <= clockBehind && (await firingsBetween(client, deployment, reached - 1n, begin - 1n)).length === 0
  );
}

/** The plan, asking since `lookback` before its interval begins: what the API showed too late for the run before comes now. */
export function lookBack(plan: ExtractPlan, lookback: string | undefined): ExtractPlan {
  if (lookback === undefined || plan.kind !== 'rows' || plan.from === '') return plan;
  const early = nanoseconds(plan.from) - BigInt(Math.round((parseDuration(lookback) ?? 0) * 1000)) * 1_000_000n;
  if (early >= nanoseconds(plan.since)) return plan;
  // The tag is of an answer to another question.
  return { ...plan, since: formatInstant(early < 0n ? 0n : early), etag: '' };
}

function regular(kept: KeptPosition, nominal: string): ExtractPlan {
  const since = kept.since === '' ? kept.position : kept.since;
  return { kind: 'rows', from: kept.position, to: formatInstant(nanoseconds(nominal)), since, etag: kept.etag };
}

function backfill(from: string, to: string): ExtractPlan {
  const [begin, end] = [formatInstant(nanoseconds(from)), formatInstant(nanoseconds(to))];
  return { kind: 'backfill', from: begin, to: end, since: begin, etag: '' };
}
