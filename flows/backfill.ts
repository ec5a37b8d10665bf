/**
 * Flow `backfill`: runs a deployment once for each interval of a stretch of time, in order; or re-syncs tables of a
 * source. Its runs are child flows, so each has its own history and is to be found under the deployment's name.
 */
import { type SearchAttributePair, WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import {
  type ChildWorkflowOptions,
  ContinueAsNew,
  continueAsNew,
  executeChild,
  log,
  ParentClosePolicy,
  setCurrentDetails,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { Interval, RunOptions } from '../activities/extract/contract.ts';
import { type BackfillRequest, runWorkflowId } from '../model/deployment.ts';
import type { ExtractAnswer, ExtractRequest } from '../model/extract.ts';
import { captureWorkflowId } from '../model/messages.ts';
import { extractActivities, prepareOptions, waitOptions } from './activities.ts';
import { readBackfillRequest } from './input.ts';
import {
  activitiesLink,
  code,
  count,
  flowLink,
  flowsLink,
  page,
  percentOf,
  section,
  stretch,
  trouble,
} from './markdown.ts';
import { readFailure, refuse, wasCancelled } from './refuse.ts';
import { searchAttributes, sourceAttributes } from './searchAttributes.ts';

/** Intervals that are planned at once; then the flow continues as new. */
const atOnce = 100;
/** Runs that are shown. */
const shownRuns = 10;

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
    { key: searchAttributes.phase, value: 'running' },
  ]);
  const intervals = new Intervals(request, progress);
  try {
    const answer = await intervals.run();
    upsertSearchAttributes([{ key: searchAttributes.phase, value: 'done' }]);
    log.info('backfilled', { ...answer, deployment: request.deployment });
    return answer;
  } catch (error) {
    if (!(error instanceof ContinueAsNew)) intervals.stopped(error);
    throw error;
  }
}

type IntervalsRequest = Extract<BackfillRequest, { deployment: string }>;

/** The intervals of a deployment, one after the other, and what people see of them. */
class Intervals {
  readonly #request: IntervalsRequest;
  readonly #state: BackfillProgress;
  /** The last runs, newest first. */
  #runs: string[] = [];
  #now: Interval | undefined;

  constructor(request: IntervalsRequest, progress: BackfillProgress) {
    this.#request = request;
    this.#state = { ...progress };
  }

  async run(): Promise<BackfillAnswer> {
    const { deployment, from, to, only_missing: onlyMissing = false } = this.#request;
    this.#show('**planning** · which intervals are to be run?');
    const plan = await extractActivities.planBackfill.executeWithOptions(
      { ...prepareOptions, summary: `the intervals of ${deployment}, ${stretch(from, to)}` },
      [{ deployment, from, to, only_missing: onlyMissing, after: this.#state.after, limit: atOnce }],
    );
    this.#state.skipped += plan.skipped;
    for (const [index, interval] of plan.intervals.entries()) {
      const left = count(plan.intervals.length - index, 'interval');
      // While not all are planned, nobody knows how many there are.
      const progress = plan.through === '' ? `${left} to go` : `${percentOf(from, to, interval.from)} done`;
      this.#now = interval;
      this.#show(`**running** ${this.#link(interval)} · ${progress}`);
      this.#add(interval, await runInterval(plan.request, interval, plan.run));
    }
    if (plan.through !== '') {
      await continueAsNew<typeof backfill>(this.#request, { ...this.#state, after: plan.through });
    }
    this.#show('**done**');
    const { after: _, ...answer } = this.#state;
    return answer;
  }

  /** Tells people why it ended early; what ran before stays. */
  stopped(error: unknown): void {
    const cancelled = wasCancelled(error);
    const where = this.#now ? ` at ${this.#link(this.#now)}` : '';
    const again = `Then start it again, with ${code('"only_missing": true')}: what has run is left out.`;
    const failed = () => `${trouble('failed', readFailure(error).report)} ${again}`;
    this.#show(cancelled ? `**cancelled**${where}` : failed(), !cancelled && where !== '' && `It stopped${where}.`);
    upsertSearchAttributes([{ key: searchAttributes.phase, value: cancelled ? 'cancelled' : 'failed' }]);
  }

  #add(interval: Interval, { rows, rejected }: ExtractAnswer): void {
    this.#state.intervals += 1;
    this.#state.rows += rows;
    this.#state.rejected += rejected;
    this.#state.after = interval.to;
    const held = rejected > 0 ? `, **${rejected} rejected**` : '';
    this.#runs = [`${this.#link(interval)} · ${count(rows, 'row')}${held}`, ...this.#runs].slice(0, shownRuns);
  }

  #link({ from, to }: Interval): string {
    return flowLink(runWorkflowId(this.#request.deployment, to), stretch(from, to));
  }

  #show(...state: (string | false)[]): void {
    const { deployment, from, to, only_missing: onlyMissing } = this.#request;
    const { intervals, skipped, rows, rejected } = this.#state;
    const left = onlyMissing ? `, ${skipped} left out because they had run` : '';
    const held = rejected > 0 ? `, **${rejected} rejected**` : '';
    const sum = `${count(intervals, 'interval')} run${left}: ${count(rows, 'row')}${held}`;
    setCurrentDetails(
      page(
        ...state,
        `Backfill of ${code(deployment)}, ${stretch(from, to)} UTC. ${sum}.`,
        section('Last runs', this.#runs),
        section('More', [
          `${flowsLink(`SluiceDeployment = "${deployment}"`, 'all runs')} of the deployment; where its next run by schedule begins stays as it was`,
        ]),
      ),
    );
  }
}

async function runInterval(
  request: ExtractRequest,
  { from, to }: Interval,
  run: RunOptions | undefined,
): Promise<ExtractAnswer> {
  const workflowId = runWorkflowId(request.deployment, to);
  try {
    return (await executeChild('extractAssets', {
      workflowId,
      args: [{ ...request, from, to }],
      staticSummary: `${request.deployment}: backfill, ${stretch(from, to)}`,
      // Whoever ends the backfill ends its run too.
      parentClosePolicy: ParentClosePolicy.REQUEST_CANCEL,
      ...asScheduled(request.deployment, run),
    })) as ExtractAnswer;
  } catch (error) {
    if (!(error instanceof WorkflowExecutionAlreadyStartedError)) throw error;
    throw refuse(
      'conflict',
      `the interval that ends at ${to} is being run already: ${workflowId}`,
      'Wait until the other backfill has ended.',
    );
  }
}

/** What a run has of its schedule, as if that had started it. */
function asScheduled(deployment: string, run: RunOptions | undefined): ChildWorkflowOptions {
  // A plan of an earlier version says nothing of it: then the run is where the backfill is.
  if (run === undefined) return {};
  const attributes: SearchAttributePair[] = [
    { key: searchAttributes.deployment, value: deployment },
    { key: searchAttributes.flow, value: 'extractAssets' },
  ];
  if (run.tags.length > 0) attributes.push({ key: searchAttributes.tags, value: run.tags });
  return { taskQueue: run.task_queue, memo: run.memo, typedSearchAttributes: attributes };
}

async function resync(source: string, tables: string[]): Promise<BackfillAnswer> {
  upsertSearchAttributes([...sourceAttributes(source, 'backfill'), { key: searchAttributes.phase, value: 'running' }]);
  const names = tables.length === 0 ? 'all tables' : tables.map(code).join(', ');
  const what = `${names} of ${flowLink(captureWorkflowId(source), code(source))}`;
  const { workflowId, runId } = workflowInfo();
  const live = activitiesLink(workflowId, 'How far it is');
  setCurrentDetails(page(`**copying again** ${what}, beside the stream`, `${live}: which tables stream again.`));
  try {
    const answer = await extractActivities.resyncTables.executeWithOptions(
      { ...waitOptions, summary: `copy ${tables.join(', ') || 'all tables'} of ${source} again` },
      [{ source, tables, request_id: `${workflowId}/${runId}` }],
    );
    setCurrentDetails(page(`**done** · ${what}: copied again, and streaming`));
    upsertSearchAttributes([{ key: searchAttributes.phase, value: 'done' }]);
    const { after: _, ...zero } = nothing;
    return { ...zero, tables: answer.tables };
  } catch (error) {
    const cancelled = wasCancelled(error);
    const state = cancelled
      ? '**cancelled** · the source goes on copying'
      : trouble('failed', readFailure(error).report);
    setCurrentDetails(page(state, `It was to copy again: ${what}.`));
    upsertSearchAttributes([{ key: searchAttributes.phase, value: cancelled ? 'cancelled' : 'failed' }]);
    throw error;
  }
}
