/**
 * Flow `backfill`: runs a deployment once for each interval of a stretch of time, in order; or re-syncs tables of a
 * source. Its runs are child flows, so each has its own history and is to be found under the deployment's name.
 */
import {
  continueAsNew,
  executeChild,
  log,
  ParentClosePolicy,
  setCurrentDetails,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { Interval } from '../activities/extract/contract.ts';
import { type BackfillRequest, runWorkflowId } from '../model/deployment.ts';
import type { ExtractAnswer, ExtractRequest } from '../model/extract.ts';
import { extractActivities, prepareOptions, waitOptions } from './activities.ts';
import { readBackfillRequest } from './input.ts';
import { searchAttributes, sourceAttributes } from './searchAttributes.ts';

/** Intervals that are planned at once; then the flow continues as new. */
const atOnce = 100;

/** What a backfill did. */
export interface BackfillAnswer {
  /** Intervals that were run. */
  intervals: number;
  /** Intervals that had a finished run already. */
  skipped: number;
  rows: number;
  rejected: number;
  /** Tables that were re-synced. */
  tables: number;
}

/** What the flow carries from run to run. */
export interface BackfillProgress extends BackfillAnswer {
  /** Intervals up to here are done; '' = none yet. */
  after: string;
}

const nothing: BackfillProgress = { intervals: 0, skipped: 0, rows: 0, rejected: 0, tables: 0, after: '' };

/** Runs all intervals; stops at the first that fails. `progress` is the flow's own. */
export async function backfill(input: BackfillRequest, progress: BackfillProgress = nothing): Promise<BackfillAnswer> {
  const request = readBackfillRequest(input);
  if ('source' in request) return await resync(request.source, request.tables ?? []);
  upsertSearchAttributes([
    { key: searchAttributes.flow, value: 'backfill' },
    { key: searchAttributes.deployment, value: request.deployment },
  ]);
  const { deployment, from, to, only_missing: onlyMissing = false } = request;
  const plan = await extractActivities.planBackfill.executeWithOptions(
    { ...prepareOptions, summary: `which intervals of ${deployment} end up to ${to}?` },
    [{ deployment, from, to, only_missing: onlyMissing, after: progress.after, limit: atOnce }],
  );
  const state = { ...progress, skipped: progress.skipped + plan.skipped };
  for (const [index, interval] of plan.intervals.entries()) {
    describe('running', request, state, `${interval.from} … ${interval.to}, ${plan.intervals.length - index} planned`);
    const answer = await runInterval(plan.request, interval);
    state.intervals += 1;
    state.rows += answer.rows;
    state.rejected += answer.rejected;
    state.after = interval.to;
  }
  if (plan.through !== '') await continueAsNew<typeof backfill>(request, { ...state, after: plan.through });
  describe('done', request, state, '');
  const { after: _, ...answer } = state;
  log.info('backfilled', { ...answer, deployment });
  return answer;
}

async function runInterval(request: ExtractRequest, { from, to }: Interval): Promise<ExtractAnswer> {
  return (await executeChild('extractAssets', {
    workflowId: runWorkflowId(request.deployment, to),
    args: [{ ...request, from, to }],
    staticSummary: `${request.deployment}: backfill of [${from}, ${to})`,
    // Whoever ends the backfill ends its run too.
    parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
  })) as ExtractAnswer;
}

async function resync(source: string, tables: string[]): Promise<BackfillAnswer> {
  upsertSearchAttributes(sourceAttributes(source, 'backfill'));
  const what = tables.length === 0 ? 'all tables' : tables.join(', ');
  setCurrentDetails(`**copying again** ${what} of ${source}, beside the stream`);
  const { workflowId, runId } = workflowInfo();
  const answer = await extractActivities.resyncTables.executeWithOptions(
    { ...waitOptions, summary: `copy ${what} of ${source} again` },
    [{ source, tables, request_id: `${workflowId}/${runId}` }],
  );
  setCurrentDetails(`**done** · ${what} of ${source} stream again`);
  const { after: _, ...zero } = nothing;
  return { ...zero, tables: answer.tables };
}

function describe(
  phase: string,
  request: { deployment: string; from: string; to: string; only_missing?: boolean },
  state: BackfillProgress,
  now: string,
): void {
  const lines = [
    `**${phase}** · ${request.deployment} · [${request.from}, ${request.to})${request.only_missing ? ' · only missing' : ''}`,
    '',
    `- ${state.intervals} intervals run, ${state.skipped} had a run already, ${state.rows} rows, ${state.rejected} rejected`,
    ...(now === '' ? [] : [`- now ${now}`]),
    `- its runs: workflow ids \`${request.deployment}/…\`; the kept position of the deployment is left as it is`,
  ];
  setCurrentDetails(lines.join('\n'));
}
