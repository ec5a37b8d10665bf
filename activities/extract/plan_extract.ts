/** Which interval a run pulls. */
import type { Client } from '@temporalio/client';
import { SluiceError } from '../../model/errors.ts';
import { formatInstant } from '../../model/instant.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import type { ExtractActivities, ExtractPlan } from './contract.ts';
import { ensureOwnTables, type KeptPosition, keptPosition } from './records.ts';
import { describeSchedule, firingBefore, nanoseconds } from './schedule_times.ts';

/**
 * A run whose nominal time lies behind the kept position, or further back than the schedule makes up for, was asked for
 * as a backfill: it pulls the schedule's own interval. A wrong guess loses nothing: a backfill leaves the position, so
 * the next run pulls from there.
 */
export async function planExtract(
  context: CaptureContext,
  client: Client,
  { request, nominal, started }: Parameters<ExtractActivities['planExtract']>[0],
): Promise<ExtractPlan> {
  const { deployment } = request;
  const clickhouse = context.clickhouse('read');
  try {
    await ensureOwnTables(context.clickhouse('snapshot'));
    const kept = await keptPosition(clickhouse, deployment);
    const at = nanoseconds(nominal);
    const behind = kept.position !== '' && at <= nanoseconds(kept.position);
    const schedule = await scheduleOf(client, deployment);
    const old = schedule !== undefined && at < BigInt(started - schedule.catchupWindow) * 1_000_000n;
    if (!behind && !old) return regular(kept, nominal);
    const before = schedule === undefined ? undefined : await firingBefore(client, deployment, at);
    // Asked for by hand, twice in the same moment: what there was is pulled already.
    if (before === undefined) return behind ? backfill(kept.position, kept.position) : regular(kept, nominal);
    return backfill(before, nominal);
  } catch (error) {
    throw activityError(error, { source: deployment });
  }
}

function regular(kept: KeptPosition, nominal: string): ExtractPlan {
  const since = kept.since === '' ? kept.position : kept.since;
  return { kind: 'rows', from: kept.position, to: formatInstant(nanoseconds(nominal)), since, etag: kept.etag };
}

function backfill(from: string, to: string): ExtractPlan {
  const [begin, end] = [formatInstant(nanoseconds(from)), formatInstant(nanoseconds(to))];
  return { kind: 'backfill', from: begin, to: end, since: begin, etag: '' };
}

/** Undefined when the flow was started without a schedule. */
async function scheduleOf(client: Client, deployment: string): Promise<{ catchupWindow: number } | undefined> {
  try {
    return await describeSchedule(client, deployment);
  } catch (error) {
    if (error instanceof SluiceError && error.kind === 'not_found') return undefined;
    throw error;
  }
}
