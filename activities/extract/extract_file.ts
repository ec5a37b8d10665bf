/** One file of a run: pull pages, write them as CSV, load that, record it. In this order; any step may be repeated. */
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { Context } from '@temporalio/activity';
import { noEffects } from '../../model/batch.ts';
import { asSluiceError } from '../../model/errors.ts';
import type { ExtractRequest } from '../../model/extract.ts';
import { formatInstant, parseInstant } from '../../model/instant.ts';
import { expectPast } from '../../model/stretch.ts';
import type { TableSchema } from '../../model/table.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import { watchCopies } from '../check/watch_copies.ts';
import { saveSchema } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { rulesInForce, withRules } from '../transform/table_rules.ts';
import { AssetApi } from './asset_api.ts';
import { assetTable, assetVersion, makeAssetCopy } from './asset_copy.ts';
import { csvColumns, csvLine, fieldsOf, findFault } from './asset_row.ts';
import { AssetWalk, type Found } from './asset_walk.ts';
import type { ExtractActivities, ExtractedFile, ExtractPlan } from './contract.ts';
import { CsvFile, type CsvSummary, removeDrafts } from './csv_file.ts';
import { claimInterval, type IntervalClaim } from './interval_claim.ts';
import { loadCsv } from './load_csv.ts';
import { fileBase, fileName, noteFile } from './manifest.ts';
import { readReference, resolveOutgoing } from './outgoing.ts';
import { type ExtractRecord, ensureOwnTables, keptPosition, recordExtract, runPrefix } from './records.ts';

/** Rows after which a file ends, at the end of an instant. */
const fileRows = 200_000;

/**
 * How long after its end an interval is pulled, in milliseconds: an API's clock that is a little behind has then passed
 * the end, and what was being written at that moment is there.
 */
const settling = 2_000;

type Input = Parameters<ExtractActivities['extractFile']>[0];

/** See ExtractActivities.extractFile. */
export async function extractFile(context: CaptureContext, assetData: string, input: Input): Promise<ExtractedFile> {
  const activity = Context.current();
  const progress = { stage: 'asks', requests: 0, rows: 0 };
  let claim: IntervalClaim | undefined;
  const beat = setInterval(() => {
    activity.heartbeat({ ...progress });
    void claim?.touch();
  }, 1000);
  try {
    const folder = path.join(assetData, input.request.deployment);
    if (input.plan.kind === 'backfill' && input.number === 1) expectPast(instantOf(input.plan.to), Date.now());
    await removeDrafts(folder, fileBase(input), draftTag(activity));
    await settle(activity, input);
    claim = await claimInterval(folder, fileBase(input), runOf(activity), (holder, milliseconds) => {
      progress.stage = `waits for ${holder}, which writes files of the same interval`;
      return activity.sleep(milliseconds);
    });
    const extracted = await extract(context, activity, input, { folder, claim }, progress);
    if (extracted.next === '') await claim.release();
    return extracted;
  } catch (error) {
    throw activityError(error, { source: input.request.deployment });
  } finally {
    clearInterval(beat);
  }
}

/** Names the drafts of a run: another one over the same interval may be writing its own. */
function draftTag({ info }: Context): string {
  return info.workflowExecution?.runId.slice(-8) ?? 'none';
}

/** Whose the interval is. A workflow runs once at a time. */
function runOf({ info }: Context): string {
  return info.workflowExecution?.workflowId ?? 'none';
}

async function settle(activity: Context, { plan, number }: Input): Promise<void> {
  if (plan.kind !== 'rows' || number !== 1) return;
  const early = Number(instantOf(plan.to) / 1_000_000n) + settling - Date.now();
  if (early > 0) await activity.sleep(Math.min(early, settling));
}

/** Where files go, and the right to write them. */
interface Place {
  folder: string;
  claim: IntervalClaim;
}

interface Progress {
  stage: string;
  requests: number;
  rows: number;
}

async function extract(
  context: CaptureContext,
  activity: Context,
  input: Input,
  place: Place,
  progress: Progress,
): Promise<ExtractedFile> {
  const api = openApi(activity, input.request, (text) => {
    progress.stage = text;
  });
  let file: CsvFile | undefined;
  const [begun, asked] = [performance.now(), Date.now()];
  try {
    const walk = new AssetWalk(api, {
      since: instantOf(input.since),
      until: instantOf(input.plan.to),
      pageSize: input.request.page_size,
      ...(input.number === 1 && input.plan.etag !== '' ? { etag: input.plan.etag } : {}),
    });
    const next = await pull(walk, input, async () => {
      Object.assign(progress, { stage: 'pulls', requests: api.requests, rows: file?.rows ?? 0 });
      file ??= await CsvFile.create(place.folder, fileName(input, input.number), draftTag(activity));
      return file;
    });
    await place.claim.check();
    const summary = await file?.finish();
    progress.stage = 'loads';
    const pulled = { file, summary, walk, next, asked, milliseconds: Math.round(performance.now() - begun) };
    return { ...(await loadAndRecord(context, activity, input, place, pulled)), requests: api.requests };
  } finally {
    await file?.close();
    await api.close();
  }
}

function openApi(activity: Context, request: ExtractRequest, onWait: (text: string) => void): AssetApi {
  return new AssetApi({
    url: resolveOutgoing(request.api_url),
    token: request.token === undefined ? undefined : readReference(request.token),
    pageSize: request.page_size,
    signal: activity.cancellationSignal,
    onWait,
  });
}

function instantOf(text: string): bigint {
  return text === '' ? 0n : (parseInstant(text) ?? 0n);
}

/** Assets at most that wait for the walk to have passed their instant. */
const mostHeld = 20_000;

/**
 * Writes what the walk hands out, until the interval ends or the file is full. Answers where the next file begins, or
 * undefined. A file ends between two instants, so that the next one can begin there without knowing this one: what may
 * have to be the next one's waits, unless it is so much that the file goes on for as long as it takes.
 */
async function pull(walk: AssetWalk, input: Input, open: () => Promise<CsvFile>): Promise<bigint | undefined> {
  const rowsBefore = (input.number - 1) * fileRows;
  let held: Found[] = [];
  let newest = 0n;
  for (;;) {
    const found = await walk.next();
    if (found) held.push(...found);
    const all = !found || held.length > mostHeld;
    const certain = all ? held : held.filter(({ at }) => at === undefined || at < walk.reached);
    held = all ? [] : held.filter(({ at }) => at !== undefined && at >= walk.reached);
    if (certain.length > 0) {
      const file = await open();
      for (const one of certain) {
        const at = one.at !== undefined && one.at > 0n ? one.at : 0n;
        const fields = fieldsOf(one, assetVersion(at, input.started, rowsBefore + file.rows));
        await file.writeRow(csvLine(fields), findFault(fields) !== undefined);
        if (at > newest) newest = at;
      }
      if (found && file.rows >= fileRows && newest < walk.reached) return walk.reached;
    }
    if (!found) return undefined;
  }
}

interface Pulled {
  file: CsvFile | undefined;
  summary: CsvSummary | undefined;
  walk: AssetWalk;
  /** Where the next file begins; undefined at the end of the interval. */
  next: bigint | undefined;
  /** When the API was first asked, in milliseconds since 1970. */
  asked: number;
  milliseconds: number;
}

/** Loads the file and records it; at the end of the interval that too. */
async function loadAndRecord(
  context: CaptureContext,
  activity: Context,
  input: Input,
  { folder, claim }: Place,
  pulled: Pulled,
): Promise<Omit<ExtractedFile, 'requests'>> {
  const { request, number, plan } = input;
  const { file, summary, next } = pulled;
  const sink = context.sink('snapshot');
  const table = await copyOf(context, sink, request.deployment, number === 1);
  const begun = performance.now();
  const { workflowId = '', runId = '' } = activity.info.workflowExecution ?? {};
  const id = `${runPrefix(request.deployment, input.started, runId)}/${number}/${activity.info.attempt}`;
  const effects = file && summary ? await loadCsv({ sink, table, file, summary, id }) : noEffects();
  const { kind, from, to } = plan;
  const workflow = { id: workflowId, run_id: runId };
  const manifest = { deployment: request.deployment, kind, from, to, workflow, columns: csvColumns };
  await claim.check();
  await noteFile(folder, manifest, fileBase(input), summary, next === undefined);
  const durations = { fill: pulled.milliseconds, resolve: 0, write: Math.round(performance.now() - begun) };
  const hash = await record(sink.clickhouse, activity, input, pulled, { effects, durations });
  if (kind === 'rows' && next === undefined)
    // What checks find in the copy does not fail the run.
    await watchCopies(sink.clickhouse, [request.deployment]).catch((error: unknown) =>
      activity.log.warn('checks of the whole copy could not run', { reason: asSluiceError(error).message }),
    );
  const { position } = await keptPosition(sink.clickhouse, request.deployment);
  return {
    file: summary?.file ?? '',
    rows: summary?.rows ?? 0,
    rejected: effects.rejected,
    bytes: summary?.bytes ?? 0,
    next: next === undefined ? '' : formatInstant(next),
    position,
    hash,
  };
}

/** Copies that were seen to be there, by deployment: a backfill of many small intervals need not look each time. */
const copiesSeen = new Map<string, { at: number; table: TableSchema }>();
const lookAgain = 10_000;

/** The copy with its rules, made when it is not there. All files of a run may ask; `first` looks for other rules. */
async function copyOf(
  context: CaptureContext,
  sink: ClickHouseSink,
  deployment: string,
  first: boolean,
): Promise<TableSchema> {
  const seen = copiesSeen.get(deployment);
  if (seen && (!first || performance.now() - seen.at < lookAgain)) return seen.table;
  await ensureOwnTables(sink.clickhouse);
  const { rules, joined } = await rulesInForce(sink.clickhouse);
  const table = withRules(assetTable(deployment), rules, joined);
  await makeAssetCopy(sink, table);
  await saveSchema(sink.clickhouse, deployment, table, 1);
  // Files of assets have the same columns for ever: what is told once is true until rules fill others.
  if (JSON.stringify(seen?.table) !== JSON.stringify(table)) await context.tablesDefined(deployment);
  copiesSeen.set(deployment, { at: performance.now(), table });
  return table;
}

/** Records the file, and the interval when it is done. Answers the head of the run's chain. */
async function record(
  clickhouse: ClickHouse,
  activity: Context,
  { plan, request, number, started, since, previous_hash }: Input,
  { walk, next, asked }: Pulled,
  done: Pick<ExtractRecord, 'effects' | 'durations'>,
): Promise<string> {
  const reached = next ?? endOf(plan, walk.apiTime, asked);
  const moves = plan.kind === 'rows' && reached > instantOf(plan.from);
  const common = { deployment: request.deployment, started };
  let hash = previous_hash;
  if (moves || done.effects.effects > 0) {
    hash = await recordExtract(clickhouse, activity, {
      ...common,
      ...done,
      kind: plan.kind === 'rows' && done.effects.effects === 0 ? 'idle' : plan.kind,
      name: String(number),
      seq: number,
      from: number === 1 ? plan.from : since,
      to: moves || plan.kind === 'backfill' ? formatInstant(reached) : plan.from,
      // Asked again from there, an API that says "unchanged" spares everybody the rest.
      inner: walk.etag === undefined ? '' : JSON.stringify({ since, etag: walk.etag }),
      previousHash: hash,
    });
  }
  if (next !== undefined) return hash;
  return await recordExtract(clickhouse, activity, {
    ...common,
    effects: noEffects(),
    durations: { fill: 0, resolve: 0, write: 0 },
    kind: 'extract',
    name: 'end',
    seq: number + 1,
    from: plan.from,
    to: formatInstant(reached),
    inner: '',
    previousHash: hash,
  });
}

/**
 * Up to where the interval was really read: an API whose clock is behind has not shown the rest yet, and those assets
 * will bear times of before. One that shows no clock, or one that is ahead, has shown nothing of after `asked`: when it
 * was first asked, by the clock here, in milliseconds since 1970.
 */
export function endOf(plan: Pick<ExtractPlan, 'from' | 'to'>, apiTime: bigint | undefined, asked: number): bigint {
  const to = instantOf(plan.to);
  const from = instantOf(plan.from);
  const now = BigInt(asked) * 1_000_000n;
  const shown = apiTime !== undefined && apiTime < now ? apiTime : now;
  if (shown >= to) return to;
  if (shown < from) return from;
  return shown;
}
