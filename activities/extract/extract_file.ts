/** One file of a run: pull pages, write them as CSV, load that, record it. In this order; any step may be repeated. */
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { Context } from '@temporalio/activity';
import { noEffects } from '../../model/batch.ts';
import { formatInstant, parseInstant } from '../../model/instant.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import { createOwnTables, saveSchema } from '../load/batches.ts';
import { AssetApi } from './asset_api.ts';
import { assetTable, assetVersion, makeAssetCopy } from './asset_copy.ts';
import { csvColumns, csvLine, fieldsOf, findFault } from './asset_row.ts';
import { AssetWalk, type Found } from './asset_walk.ts';
import type { ExtractActivities, ExtractedFile, ExtractRun } from './contract.ts';
import { CsvFile, type CsvSummary, removeDrafts } from './csv_file.ts';
import { loadCsv } from './load_csv.ts';
import { fileBase, fileName, noteFile } from './manifest.ts';
import { readReference, resolveOutgoing } from './outgoing.ts';
import { keptPosition, recordExtract } from './records.ts';

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
  const { deployment, api_url, token, page_size } = input.request;
  const activity = Context.current();
  const folder = path.join(assetData, deployment);
  const progress = { stage: 'asks', requests: 0, rows: 0 };
  const beat = setInterval(() => activity.heartbeat({ ...progress }), 1000);
  const api = new AssetApi({
    url: resolveOutgoing(api_url),
    token: token === undefined ? undefined : readReference(token),
    pageSize: page_size,
    signal: activity.cancellationSignal,
    onWait: (text) => {
      progress.stage = text;
    },
  });
  const walk = new AssetWalk(api, {
    since: instantOf(input.since),
    until: instantOf(input.plan.to),
    pageSize: page_size,
    ...(input.number === 1 && input.plan.etag !== '' ? { etag: input.plan.etag } : {}),
  });
  await removeDrafts(folder, fileBase(input));
  if (input.plan.kind === 'rows' && input.number === 1) {
    const early = Number(instantOf(input.plan.to) / 1_000_000n) + settling - Date.now();
    if (early > 0) await activity.sleep(Math.min(early, settling));
  }
  let file: CsvFile | undefined;
  const begun = performance.now();
  try {
    const pulled = await pull(
      walk,
      async () => {
        file ??= await CsvFile.create(folder, fileName(input, input.number));
        return file;
      },
      (at, row) => assetVersion(at < 0n ? 0n : at, input.started, (input.number - 1) * fileRows + row),
      () => {
        Object.assign(progress, { stage: 'pulls', requests: api.requests, rows: file?.rows ?? 0 });
      },
    );
    const summary = await file?.finish();
    progress.stage = 'loads';
    return await load(context, input, {
      folder,
      file,
      summary,
      walk,
      pulled,
      requests: api.requests,
      fill: performance.now() - begun,
    });
  } catch (error) {
    throw activityError(error, { source: deployment });
  } finally {
    clearInterval(beat);
    await file?.close();
    await api.close();
  }
}

function instantOf(text: string): bigint {
  return text === '' ? 0n : (parseInstant(text) ?? 0n);
}

/**
 * Writes what the walk hands out, until the interval ends or the file is full. Answers where the next file begins, or
 * undefined. A file ends between two instants, so that the next one can begin there without knowing this one.
 */
async function pull(
  walk: AssetWalk,
  open: () => Promise<CsvFile>,
  versionOf: (at: bigint, row: number) => bigint,
  onPage: () => void,
): Promise<bigint | undefined> {
  let held: Found[] = [];
  for (;;) {
    const found = await walk.next();
    if (found) held.push(...found);
    const certain = found ? held.filter(({ at }) => at === undefined || at < walk.reached) : held;
    if (certain.length > 0) {
      const file = await open();
      for (const one of certain) {
        const fields = fieldsOf(one, versionOf(one.at ?? 0n, file.rows));
        await file.writeRow(csvLine(fields), findFault(fields) !== undefined);
      }
      held = found ? held.filter(({ at }) => at !== undefined && at >= walk.reached) : [];
      if (found && file.rows >= fileRows) return walk.reached;
    }
    onPage();
    if (!found) return undefined;
  }
}

interface Pulled {
  folder: string;
  file: CsvFile | undefined;
  summary: CsvSummary | undefined;
  walk: AssetWalk;
  /** Where the next file begins; undefined at the end of the interval. */
  pulled: bigint | undefined;
  requests: number;
  /** Milliseconds that pulling took. */
  fill: number;
}

/** Loads the file and records it; at the end of the interval that too. */
async function load(context: CaptureContext, input: Input, done: Pulled): Promise<ExtractedFile> {
  const { request, number, started } = input;
  const { file, summary, pulled } = done;
  const activity = Context.current();
  const table = assetTable(request.deployment);
  const sink = context.sink('snapshot');
  if (number === 1) await makeCopy(context, input);
  const begun = performance.now();
  let effects = noEffects();
  if (file && summary) {
    const id = `${request.deployment}/${started}/${number}/${activity.info.attempt}`;
    effects = await loadCsv({ sink, table, file, summary, id });
  }
  const complete = pulled === undefined;
  const workflow = {
    id: activity.info.workflowExecution?.workflowId ?? '',
    run_id: activity.info.workflowExecution?.runId ?? '',
  };
  const { kind, from, to } = input.plan;
  const manifest = { deployment: request.deployment, kind, from, to, workflow, columns: csvColumns };
  await noteFile(done.folder, manifest, fileBase(input), summary, complete);
  const durations = { fill: Math.round(done.fill), resolve: 0, write: Math.round(performance.now() - begun) };
  const records = await record(context, input, { ...done, effects, durations });
  return {
    file: summary?.file ?? '',
    rows: summary?.rows ?? 0,
    rejected: effects.rejected,
    bytes: summary?.bytes ?? 0,
    requests: done.requests,
    next: pulled === undefined ? '' : formatInstant(pulled),
    ...records,
  };
}

/** When copies were last seen to be there, by deployment: a backfill of many small intervals need not look each time. */
const copiesSeen = new Map<string, number>();
const lookAgain = 10_000;

async function makeCopy(context: CaptureContext, { request }: Input): Promise<void> {
  const { deployment } = request;
  if (performance.now() - (copiesSeen.get(deployment) ?? -lookAgain) < lookAgain) return;
  const sink = context.sink('snapshot');
  const table = assetTable(deployment);
  await createOwnTables(sink.clickhouse);
  await makeAssetCopy(sink, table);
  await saveSchema(sink.clickhouse, deployment, table, 1);
  copiesSeen.set(deployment, performance.now());
}

async function record(
  context: CaptureContext,
  input: Input,
  done: Pulled & { effects: ReturnType<typeof noEffects>; durations: { fill: number; resolve: number; write: number } },
): Promise<{ position: string; hash: string }> {
  const { plan, request, number, started } = input;
  const { clickhouse } = context.sink('snapshot');
  const activity = Context.current();
  const { effects, durations, walk } = done;
  const reached = done.pulled ?? endOf(input, walk);
  const at = formatInstant(reached);
  const common = { deployment: request.deployment, started, effects, durations };
  // Asked again from there, an API that says "unchanged" spares everybody the rest.
  const inner = walk.etag === undefined ? '' : JSON.stringify({ since: input.since, etag: walk.etag });
  const moves = plan.kind === 'rows' && reached > instantOf(plan.from);
  let hash = input.previous_hash;
  if (moves || effects.effects > 0) {
    const kind = plan.kind === 'backfill' ? 'backfill' : effects.effects > 0 ? 'rows' : 'idle';
    const from = number === 1 ? plan.from : input.since;
    hash = await recordExtract(clickhouse, activity, {
      ...common,
      kind,
      name: String(number),
      seq: number,
      from,
      to: moves || plan.kind === 'backfill' ? at : plan.from,
      inner,
      previousHash: hash,
    });
  }
  if (done.pulled === undefined) {
    const whole = { effects: noEffects(), durations: { fill: 0, resolve: 0, write: 0 }, inner: '' };
    const end = {
      ...common,
      ...whole,
      kind: 'extract',
      name: 'end',
      seq: number + 1,
      from: plan.from,
      to: at,
    } as const;
    hash = await recordExtract(clickhouse, activity, { ...end, previousHash: hash });
  }
  const { position } = await keptPosition(clickhouse, request.deployment);
  return { position, hash };
}

/**
 * Up to where the interval was really read: an API whose clock is behind has not shown the rest yet, and those assets
 * will bear times of before.
 */
function endOf({ plan }: ExtractRun, walk: AssetWalk): bigint {
  const to = instantOf(plan.to);
  const from = instantOf(plan.from);
  const shown = walk.apiTime ?? to;
  if (shown >= to) return to;
  if (shown < from) return from;
  return shown;
}
