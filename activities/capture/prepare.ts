/** Making a source ready: copies, log, start positions; and taking it apart again. */

import { attemptsLimit } from '../../model/batch.ts';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import type { ConnectRequest } from '../../model/source.ts';
import type { TableSchema } from '../../model/table.ts';
import {
  chainHead,
  headAt,
  lastRecordEver,
  loadSaved,
  readRecords,
  type SavedSchemas,
  saveSchema,
  sealRecord,
} from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { beginTables, definitionsOf } from './beginnings.ts';
import type { CaptureContext } from './context.ts';
import type { PreparedSource, TableRef } from './contract.ts';
import { type Connected, openSource, type Source } from './source.ts';

/** See CaptureActivities.prepareSource. */
export async function prepareSource(
  context: CaptureContext,
  input: { request: ConnectRequest; tables: TableRef[]; renew?: boolean },
): Promise<PreparedSource> {
  const { request, tables, renew = false } = input;
  const sink = context.sink('write');
  const { clickhouse } = sink;
  const source = await openSource(request.type);
  const connected = context.connected(request);
  try {
    await sink.createOwnTables();
    const before = await definitionsOf(source, connected, tables);
    const known = await recordedSnapshots(clickhouse, request.id, tables);
    const saved = await loadSaved(clickhouse, request.id);
    const begunTables = tables.filter(({ asset_id: id, start_position }) => known.has(id) || start_position !== '');
    const published = await source.publishedAs(connected, [...before.values()]);
    const gaps = await giveUpGaps(clickhouse, request.id, begunTables, { before, published, saved });
    const allAnew = renew && begunTables.length === 0;
    const log = await beginStream(context, source, connected, { tables, allAnew, schemas: [...before.values()] });
    const prepared: PreparedSource['tables'] = [];
    const fresh: TableRef[] = [];
    for (const table of tables) {
      const newest = saved.get(table.asset_id)?.generation ?? 0;
      const done = log.fresh ? undefined : known.get(table.asset_id);
      if (done && newest <= done.generation) prepared.push({ ...table, ...done });
      else if (table.start_position !== '' && !log.fresh && newest <= table.generation)
        prepared.push({ ...table, snapshot_done: false });
      else fresh.push(gaps.has(table.asset_id) ? { ...table, automatic: true } : table);
    }
    const position = log.fresh ? log.position : undefined;
    const begun = await beginTables(fresh, { source, connected, sink, epoch: log.epoch, before, position });
    for (const table of begun) {
      const notice = gaps.has(table.asset_id) && {
        notice: 'it was out of the publication, and its changes were not sent',
      };
      prepared.push({ ...table, snapshot_done: false, ...notice });
    }
    return { position: log.position, last_lease: log.lastLease, tables: prepared };
  } catch (error) {
    throw asSluiceError(error, { source: request.id });
  }
}

/**
 * Gives up copies of tables that the log does not send, or did not for a while, before it does so again: changes in between
 * are in none. A generation is begun of which nobody knows anything, so that whoever prepares them, now or after a crash,
 * begins anew. Answers their assets.
 */
async function giveUpGaps(
  clickhouse: ClickHouse,
  source: string,
  tables: TableRef[],
  {
    before,
    published,
    saved,
  }: { before: Map<string, TableSchema>; published: Map<string, string>; saved: SavedSchemas },
): Promise<Set<string>> {
  const gaps = new Set<string>();
  for (const { asset_id: asset } of tables) {
    const { schema, generation } = saved.get(asset) ?? {};
    // Another table under the name is for the lease to tell, by the source's policy.
    if (schema?.oid !== before.get(asset)?.oid) continue;
    const since = schema?.published || published.get(asset);
    if (!schema || (published.has(asset) && published.get(asset) === since)) continue;
    const next = { schema, generation: generation! + 1 };
    await saveSchema(clickhouse, source, schema, next.generation);
    saved.set(asset, next);
    gaps.add(asset);
  }
  return gaps;
}

type RecordedSnapshot = Pick<PreparedSource['tables'][number], 'start_position' | 'generation' | 'snapshot_done'>;

/**
 * Finished snapshots that still count: a flow that lost its state goes on from them, and takes the last step of those that
 * the stream had not passed yet. One counts no more when its table failed later (its changes were left out since), or was released, or
 * left out by a lease, or the whole source was removed.
 */
async function recordedSnapshots(
  clickhouse: ClickHouse,
  source: string,
  tables: TableRef[],
): Promise<Map<string, RecordedSnapshot>> {
  const where = `source = {source:String} AND (kind IN ('snapshot', 'complete', 'released', 'removed') OR failed NOT IN ('', '{}'))`;
  const records = await readRecords(clickhouse, where, { source }, 'lease, recorded_at');
  const found = new Map<string, RecordedSnapshot>();
  /** By asset, the lease beside which its snapshot was recorded. */
  const floors = new Map<string, number>();
  const asked = new Map(tables.map((table) => [table.asset_id, table.generation]));
  for (const record of records) {
    if (record.kind === 'removed') found.clear();
    for (const asset of Object.keys(record.failed)) found.delete(asset);
    for (const asset of Object.keys(record.assets)) {
      if (record.kind === 'released') found.delete(asset);
      if (record.kind !== 'snapshot' && record.kind !== 'complete') continue;
      const generation = Number(record.id.split('/').at(record.kind === 'snapshot' ? -1 : -2));
      if (generation >= (asked.get(asset) ?? Number.POSITIVE_INFINITY))
        found.set(asset, {
          start_position: record.position_from,
          generation,
          snapshot_done: record.kind === 'complete',
        });
      floors.set(asset, record.lease);
    }
  }
  // The flow itself knows what the others have been through.
  const unknown = tables.filter((table) => table.start_position === '' && found.has(table.asset_id));
  const since = unknown.map(({ asset_id }): [string, number] => [asset_id, floors.get(asset_id)!]);
  for (const asset of await leftOutLater(clickhouse, source, since)) found.delete(asset);
  return found;
}

/** Those of the assets that some lease after the given one did not stream: changes have been passed by without them. */
async function leftOutLater(clickhouse: ClickHouse, source: string, since: [string, number][]): Promise<string[]> {
  if (since.length === 0) return [];
  const first = Math.min(...since.map(([, lease]) => lease));
  const begins = `FROM ${clickhouse.name('_batches')} WHERE source = {source:String} AND kind = 'begin' AND lease > {first:UInt64}`;
  const [names, leases] = [since.map(([asset]) => asset), since.map(([, lease]) => lease)];
  const rows = await clickhouse.rows<{ asset: string }>(
    `WITH (SELECT groupUniqArray(lease) ${begins}) AS every
     SELECT asset FROM (SELECT arrayJoin(arrayZip({names:Array(String)}, {leases:Array(UInt64)})) AS known, known.1 AS asset, known.2 AS floor) AS k
     LEFT JOIN (SELECT arrayJoin(JSONExtractKeys(assets)) AS asset, groupUniqArray(lease) AS streamed ${begins} GROUP BY asset) AS s USING asset
     WHERE arrayCount(lease -> lease > floor, every) > arrayCount(lease -> lease > floor, streamed)`,
    { params: { source, names, leases, first } },
  );
  return rows.map(({ asset }) => asset);
}

/**
 * Where the stream begins: at the last record when the log behind it is whole. A new beginning is made only for a source
 * none of whose tables has a start position yet, and always where `allAnew`; else a lost log is an error, since changes are missing.
 */
async function beginStream(
  context: CaptureContext,
  source: Source,
  connected: Connected,
  { tables, allAnew, schemas }: { tables: TableRef[]; allAnew: boolean; schemas: TableSchema[] },
): Promise<{ fresh: boolean; position: string; lastLease: number; epoch: number }> {
  const sink = context.sink('write');
  const { id } = connected.request;
  const identity = await source.identity(connected);
  const record = await sink.lastRecord(id);
  const started = tables.some((table) => table.start_position !== '');
  try {
    if (record && !allAnew) {
      checkIdentity(identity, record.cluster, id);
      const position = await source.prepare(connected, schemas, record.position_to, true);
      const lastLease = Math.floor(record.lease / attemptsLimit);
      return { fresh: false, position, lastLease, epoch: record.epoch };
    }
  } catch (error) {
    const lost = error instanceof SluiceError && ['slot_lost', 'slot_ahead', 'source_replaced'].includes(error.kind);
    if (started || !lost) throw error;
  }
  const before = await lastRecordEver(sink.clickhouse, id);
  const position = await source.prepare(connected, schemas, undefined, before !== undefined);
  const lastLease = Math.floor((before?.lease ?? 0) / attemptsLimit) + 1;
  // Positions of another log, or of one that was set back, begin again: their rows must win against those of before.
  const goesOn = before && before.cluster === identity && source.passed(position, before.position_to);
  const epoch = (before?.epoch ?? 0) + (goesOn ? 0 : 1);
  const previous = await chainHead(sink.clickhouse, id);
  const at = { lease: lastLease * attemptsLimit, position, cluster: identity, epoch, previous };
  await sink.record(markRecord('begin', id, at));
  return { fresh: true, position, lastLease, epoch };
}

/** Refuses to go on at a position of another database. Errors: `source_replaced`. */
export function checkIdentity(now: string, recorded: string, source: string): void {
  if (now === recorded) return;
  throw new SluiceError(
    'source_replaced',
    `the source is ${now} and its copies were made from ${recorded}: it was restored, or failed over`,
    `Make the copies anew: sluice sources resync ${source}`,
    { source },
  );
}

/** A record that no batch stands behind. */
function markRecord(
  kind: 'begin' | 'released' | 'removed',
  source: string,
  at: { lease: number; position: string; cluster: string; epoch: number; previous: string; assets?: string[] },
) {
  const none = { inserts: 0, updates: 0, deletes: 0, truncates: 0, effects: 0, written: 0 };
  const nothing = { ...none, compacted: 0, superseded: 0, rejected: 0, bytes: 0 };
  return sealRecord({
    id: `${source}/${at.lease}/${kind}${at.assets ? `/${Date.now()}` : ''}`,
    source,
    kind,
    lease: at.lease,
    seq: 0,
    position_from: at.position,
    position_to: at.position,
    inner: '',
    cluster: at.cluster,
    epoch: at.epoch,
    committed_first: null,
    committed_last: null,
    changes: 0,
    assets: Object.fromEntries((at.assets ?? []).map((asset) => [asset, nothing])),
    truncated: {},
    failed: {},
    rules: 0,
    durations: { fill: 0, resolve: 0, write: 0 },
    workflow_id: '',
    run_id: '',
    attempt: 0,
    previous_hash: at.previous,
  });
}

/** See CaptureActivities.releaseTables. */
export async function releaseTables(
  context: CaptureContext,
  { request, tables }: { request: ConnectRequest; tables: TableRef[] },
): Promise<void> {
  const source = await openSource(request.type);
  const sink = context.sink('write');
  const last = await sink.lastRecord(request.id);
  if (last && tables.length > 0) {
    // First: tables that may be out of the publication already are copied anew when they come again, whatever fails now.
    const { lease, position_to: position, cluster, epoch } = last;
    const assets = tables.map((table) => table.asset_id);
    const previous = headAt(last);
    await sink.record(markRecord('released', request.id, { lease, position, cluster, epoch, previous, assets }));
  }
  await source.release(context.connected(request), tables);
  for (const table of tables) await sink.dropSideCopies(table.asset_id);
}

/** See CaptureActivities.removeSource. */
export async function removeSource(
  context: CaptureContext,
  input: { request: ConnectRequest; tables: TableRef[]; drop_copies: boolean; force: boolean },
): Promise<void> {
  const { request, tables, drop_copies, force } = input;
  try {
    const source = await openSource(request.type);
    await source.remove(context.connected(request));
  } catch (error) {
    if (!force) {
      const { message } = asSluiceError(error);
      const remedy =
        'Its slot would go on keeping log there. Ask again when it answers, or with force to leave the slot behind.';
      throw new SluiceError(
        'conflict',
        `the source does not let go: ${message}`,
        remedy,
        { source: request.id },
        error,
      );
    }
  }
  const sink = context.sink('write');
  await sink.createOwnTables();
  const last = await lastRecordEver(sink.clickhouse, request.id);
  if (last) {
    const lease = (Math.floor(last.lease / attemptsLimit) + 1) * attemptsLimit;
    const { position_to: position, cluster, epoch } = last;
    const previous = await chainHead(sink.clickhouse, request.id);
    await sink.record(markRecord('removed', request.id, { lease, position, cluster, epoch, previous }));
  }
  for (const table of tables) {
    if (drop_copies) await sink.dropCopy(table.asset_id);
    else await sink.dropSideCopies(table.asset_id);
  }
}
