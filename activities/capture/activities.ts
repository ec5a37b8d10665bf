/** Builds the activities of capturing for a worker. */
import { isDeepStrictEqual } from 'node:util';
import { Context } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import pg from 'pg';
import { behindPageHeader, parseLsn } from '../../model/position.ts';
import type { ConnectRequest } from '../../model/source.ts';
import { verifySource } from '../check/verify_source.ts';
import { lastRecord, readRecords } from '../load/batches.ts';
import { CaptureContext, type CaptureSettings } from './context.ts';
import type { CaptureActivities } from './contract.ts';
import { Leases } from './lease.ts';
import { withConnection } from './postgresql/connection.ts';
import { preflight } from './postgresql/preflight.ts';
import { prepareSource, releaseTables, removeSource } from './prepare.ts';
import { copyChunk, finishSnapshot, planSnapshot } from './snapshots.ts';

/** Activities and what they keep open; `close` when the worker ends. */
export function createCaptureActivities(options: {
  settings: CaptureSettings;
  client: Client;
}): CaptureActivities & { close(): void } {
  const context = new CaptureContext(options.settings, options.client);
  const leases = new Leases(context);
  return {
    preflightSource: (input) => preflightSource(context, input),
    prepareSource: (input) => prepareSource(context, input),
    captureLease: (input) => leases.run(input),
    planSnapshot: (input) => planSnapshot(context, input),
    copyChunk: (input) => copyChunk(context, input),
    finishSnapshot: (input) => finishSnapshot(context, input),
    awaitPosition: (input) => awaitPosition(context, input),
    releaseTables: (input) => releaseTables(context, input),
    removeSource: (input) => removeSource(context, input),
    verifySource: (input) => verifySource(context, input),
    recentBatches: (input) => recentBatches(context, input),
    close: () => leases.close(),
  };
}

async function preflightSource(
  context: CaptureContext,
  { request, current }: { request: ConnectRequest; current?: ConnectRequest },
): ReturnType<CaptureActivities['preflightSource']> {
  const connectionString = context.connectionString(request);
  const same = current === undefined || sameSource(context, current, request, connectionString);
  const { findings, tables } = await withConnection(
    { connectionString, applicationName: `sluice ${request.id} preflight` },
    (client) => preflight(client, request.id, request.config),
  );
  if (request.config.mode !== 'copy') {
    findings.unshift({
      code: 'mode',
      blocking: true,
      detail: `mode ${request.config.mode} is not built yet`,
      remedy: 'Use mode: copy.',
    });
  }
  return { findings, tables: tables.map(({ asset_id, schema, table }) => ({ asset_id, schema, table })), same };
}

/** Whether a second connect means the source that is connected already: same place, same configuration. */
function sameSource(
  context: CaptureContext,
  current: ConnectRequest,
  request: ConnectRequest,
  connectionString: string,
): boolean {
  if (current.type !== request.type || !isDeepStrictEqual(current.config, request.config)) return false;
  const place = (text: string) => {
    const { host, port, database } = new pg.Client({ connectionString: text });
    return `${host}:${port}/${database}`;
  };
  try {
    return place(context.connectionString(current)) === place(connectionString);
  } catch {
    // Sealed with a key that is gone: connecting again is how a source gets the new one.
    return true;
  }
}

async function awaitPosition(
  context: CaptureContext,
  { source, position }: { source: string; position: string },
): Promise<void> {
  const activity = Context.current();
  const target = parseLsn(position);
  for (;;) {
    const record = await lastRecord(context.clickhouse('read'), source);
    if (record && behindPageHeader(parseLsn(record.position_to)) >= target) return;
    activity.heartbeat(record?.position_to);
    await activity.sleep(200);
  }
}

async function recentBatches(
  context: CaptureContext,
  { source, limit }: { source: string; limit: number },
): ReturnType<CaptureActivities['recentBatches']> {
  const records = await readRecords(
    context.clickhouse('read'),
    `source = {source:String} AND kind IN ('rows', 'truncate', 'chunk')`,
    { source },
    'recorded_at DESC',
    Math.min(limit, 50),
  );
  return records.map(({ id, position_to, changes, committed_last }) => ({ id, position_to, changes, committed_last }));
}
