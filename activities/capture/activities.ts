/** Builds the activities of capturing for a worker. */
import { performance } from 'node:perf_hooks';
import { isDeepStrictEqual } from 'node:util';
import { Context } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import { attemptsLimit, glanceAt } from '../../model/batch.ts';
import { asSluiceError } from '../../model/errors.ts';
import type { LogState } from '../../model/log.ts';
import type { ConnectRequest } from '../../model/source.ts';
import { scheduleVerification, unscheduleVerification } from '../check/verify_schedule.ts';
import { verifySource } from '../check/verify_source.ts';
import { highestLease, readRecords } from '../load/batches.ts';
import { redact } from '../secrets.ts';
import { activityError, CaptureContext, type CaptureSettings } from './context.ts';
import type { CaptureActivities } from './contract.ts';
import { Leases } from './lease.ts';
import { prepareSource, releaseTables, removeSource } from './prepare.ts';
import { copyChunk, finishSnapshot, planSnapshot } from './snapshots.ts';
import { type Connected, openSource, type Source } from './source.ts';
import { LastRecords, waitForPosition } from './waiting.ts';

/** Activities and what they keep open; `close` when the worker ends. */
export function createCaptureActivities(options: {
  settings: CaptureSettings;
  client: Client;
}): CaptureActivities & { close(): void } {
  const context = new CaptureContext(options.settings, options.client);
  const leases = new Leases(context);
  return {
    preflightSource: (input) => preflightSource(context, input),
    prepareSource: async (input) => {
      const prepared = await prepareSource(context, input);
      await watchCopies(context, input.request);
      await context.tablesDefined(input.request.id);
      return prepared;
    },
    captureLease: (input) => leases.run(input),
    planSnapshot: (input) => planSnapshot(context, input),
    copyChunk: (input) => copyChunk(context, input),
    finishSnapshot: (input) => finishSnapshot(context, input),
    awaitPosition: createAwaitPosition(context),
    lookAtLog: (input) => lookAtLog(context, input),
    releaseTables: (input) => releaseTables(context, input),
    removeSource: async (input) => {
      await removeSource(context, input);
      await unscheduleVerification(context, input.request.id).catch(notScheduled);
    },
    verifySource: (input) => verifySource(context, input),
    recentBatches: (input) => recentBatches(context, input),
    close: () => leases.close(),
  };
}

async function preflightSource(
  context: CaptureContext,
  { request, current, beside }: { request: ConnectRequest; current?: ConnectRequest; beside?: string[] },
): ReturnType<CaptureActivities['preflightSource']> {
  const source = await openSource(request.type);
  const connected = context.connected(request);
  const same = current === undefined || isSame(context, source, current, connected);
  const { findings, tables } = await source.preflight(connected, beside);
  if (request.config.mode !== 'copy') {
    const detail = `mode ${request.config.mode} is not built yet`;
    findings.unshift({ code: 'mode', blocking: true, detail, remedy: 'Use mode: copy.' });
  }
  return { findings, tables: tables.map(({ asset_id, schema, table }) => ({ asset_id, schema, table })), same };
}

/** Whether a second connect means the source that is connected already: same place, same configuration. */
function isSame(
  context: CaptureContext,
  source: Source,
  current: ConnectRequest,
  { request, connectionString }: Connected,
): boolean {
  if (current.type !== request.type || !isDeepStrictEqual(current.config, request.config)) return false;
  try {
    return source.samePlace(context.connectionString(current), connectionString);
  } catch {
    // Sealed with a key that is gone: connecting again is how a source gets the new one.
    return true;
  }
}

/** Has the source compared with its copies from now on. That it cannot be must not keep it from being captured. */
async function watchCopies(context: CaptureContext, request: ConnectRequest): Promise<void> {
  const { taskQueue } = Context.current().info;
  await scheduleVerification(context, request, taskQueue).catch(notScheduled);
}

function notScheduled(error: unknown): void {
  const { message } = asSluiceError(error);
  Context.current().log.warn('the schedule of comparisons was not changed', { reason: redact(message) });
}

/** Milliseconds in which the last batches are fetched once only for tables whose snapshots end. */
const glanceEvery = 1_000;

/** Waits as `waitForPosition`; answers the last batches for people, unless somebody was told of them a moment ago. */
function createAwaitPosition(context: CaptureContext): CaptureActivities['awaitPosition'] {
  const records = new LastRecords(context.clickhouse('read'));
  const glancedAt = new Map<string, number>();
  return async (input) => {
    const { source } = input;
    await waitForPosition(context, records, input);
    const now = performance.now();
    if (now - (glancedAt.get(source) ?? Number.NEGATIVE_INFINITY) < glanceEvery) return undefined;
    glancedAt.set(source, now);
    return await recentBatches(context, { source, limit: 5 }).catch(() => undefined);
  };
}

async function lookAtLog(context: CaptureContext, { source: id }: { source: string }): Promise<LogState> {
  const request = await context.request(id);
  const source = await openSource(request.type);
  try {
    return await source.logState(context.connected(request));
  } catch (error) {
    throw activityError(error, { source: id });
  }
}

async function recentBatches(
  context: CaptureContext,
  { source, limit }: { source: string; limit: number },
): ReturnType<CaptureActivities['recentBatches']> {
  const clickhouse = context.clickhouse('read');
  // The last lease and the one before it: of all that there ever were, there may be millions.
  // Chunks may bear what stood before the first attempt of theirs.
  const newest = `intDiv((${highestLease(clickhouse)}), ${attemptsLimit})`;
  const lately = `lease >= (greatest(${newest}, 1) - 1) * ${attemptsLimit}`;
  const records = await readRecords(
    clickhouse,
    `source = {source:String} AND kind IN ('rows', 'truncate', 'chunk') AND ${lately}`,
    { source },
    'recorded_at DESC',
    Math.min(limit, 50),
  );
  return records.map((record) => glanceAt(record, record.recorded_at));
}
