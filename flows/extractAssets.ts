/**
 * Flow `extractAssets`: one run of a deployment. Pulls assets of an interval from the API, file by file; each file is
 * loaded and recorded before the next one begins, so that a run that dies goes on where it was.
 */
import { defineSearchAttributeKey } from '@temporalio/common';
import { log, setCurrentDetails, upsertSearchAttributes, workflowInfo } from '@temporalio/workflow';
import type { ExtractedFile, ExtractPlan } from '../activities/extract/contract.ts';
import type { ExtractAnswer, ExtractRequest } from '../model/extract.ts';
import { extractActivities, extractOptions, prepareOptions } from './activities.ts';
import { readExtractRequest } from './input.ts';
import { activitiesLink, code, count, flowsLink, instant, page, section, stretch, trouble } from './markdown.ts';
import { readFailure, wasCancelled } from './refuse.ts';
import { searchAttributes } from './searchAttributes.ts';

/** When the schedule meant this run to be, and which schedule: set by Temporal. */
const scheduledTime = defineSearchAttributeKey('TemporalScheduledStartTime', 'DATETIME');
const scheduledBy = defineSearchAttributeKey('TemporalScheduledById', 'KEYWORD');
/** Files that are shown. */
const shownFiles = 10;

/** Pulls one interval. Wrong input fails at once. */
export async function extractAssets(input: ExtractRequest): Promise<ExtractAnswer> {
  const request = readExtractRequest(input);
  upsertSearchAttributes([
    { key: searchAttributes.flow, value: 'extractAssets' },
    { key: searchAttributes.deployment, value: request.deployment },
    { key: searchAttributes.phase, value: 'running' },
  ]);
  const run = new Run(request);
  try {
    const answer = await run.pull();
    upsertSearchAttributes([{ key: searchAttributes.phase, value: 'done' }]);
    log.info('extracted', { ...answer });
    return answer;
  } catch (error) {
    run.stopped(error);
    throw error;
  }
}

/** One run: what it pulls, what it has done, and what people see of it. */
class Run {
  readonly #request: ExtractRequest;
  readonly #started: number;
  /** The time that this run stands for. */
  readonly #nominal: string;
  readonly #schedule: string | undefined;
  readonly #answer: ExtractAnswer;
  #plan: ExtractPlan | undefined;
  /** The last files, newest first. */
  #files: ExtractedFile[] = [];

  constructor(request: ExtractRequest) {
    const { startTime, typedSearchAttributes } = workflowInfo();
    this.#request = request;
    this.#started = startTime.getTime();
    this.#nominal = (typedSearchAttributes.get(scheduledTime) ?? startTime).toISOString();
    this.#schedule = typedSearchAttributes.get(scheduledBy);
    this.#answer = {
      deployment: request.deployment,
      from: '',
      to: '',
      files: 0,
      rows: 0,
      rejected: 0,
      position: '',
    };
  }

  async pull(): Promise<ExtractAnswer> {
    this.#show('**planning** · which interval is to be pulled?');
    const plan = givenPlan(this.#request) ?? (await this.#planned());
    this.#plan = plan;
    Object.assign(this.#answer, { from: plan.from, to: plan.to });
    let hash = '';
    for (let number = 1, since = plan.since; ; number++) {
      const what = `file ${number}, assets since ${since === '' ? 'the beginning' : instant(since)}`;
      const live = activitiesLink(workflowInfo().workflowId, 'how far it is');
      this.#show(`**pulling** ${what} · ${live}`);
      const file = await extractActivities.extractFile.executeWithOptions({ ...extractOptions, summary: what }, [
        { request: this.#request, plan, started: this.#started, number, since, previous_hash: hash },
      ]);
      this.#add(file);
      if (file.next === '') break;
      since = file.next;
      hash = file.hash;
    }
    this.#show('**done**');
    return this.#answer;
  }

  /** Tells people why it ended early; what is recorded stays recorded. */
  stopped(error: unknown): void {
    const cancelled = wasCancelled(error);
    this.#show(
      cancelled ? '**cancelled** · its files are loaded, and stay' : trouble('failed', readFailure(error).report),
    );
    upsertSearchAttributes([{ key: searchAttributes.phase, value: cancelled ? 'cancelled' : 'failed' }]);
  }

  async #planned(): Promise<ExtractPlan> {
    const summary = `the interval of the run of ${instant(this.#nominal)}`;
    return await extractActivities.planExtract.executeWithOptions({ ...prepareOptions, summary }, [
      { request: this.#request, nominal: this.#nominal, started: this.#started },
    ]);
  }

  #add(file: ExtractedFile): void {
    const answer = this.#answer;
    answer.rows += file.rows;
    answer.rejected += file.rejected;
    answer.position = file.position;
    if (file.file === '') return;
    answer.files += 1;
    this.#files = [file, ...this.#files].slice(0, shownFiles);
  }

  #show(state: string): void {
    setCurrentDetails(
      page(
        state,
        this.#intervalLine(),
        section('Files', this.#files.map(fileLine)),
        section('More', this.#moreLines()),
      ),
    );
  }

  #intervalLine(): string {
    const { deployment, rows, files, rejected } = this.#answer;
    if (!this.#plan) return `Deployment ${code(deployment)}, run of ${instant(this.#nominal)} UTC.`;
    const { kind, from, to } = this.#plan;
    const what = `${kind === 'backfill' ? 'Backfill of' : 'Deployment'} ${code(deployment)}`;
    const held = rejected > 0 ? `, **${rejected} rejected**` : '';
    return `${what}, ${stretch(from, to)} UTC: ${count(rows, 'row')} in ${count(files, 'file')}${held}.`;
  }

  #moreLines(): string[] {
    const { deployment, position, rejected } = this.#answer;
    const schedule =
      this.#schedule && `, [its schedule](/namespaces/{namespace}/schedules/${encodeURIComponent(this.#schedule)})`;
    return [
      ...(position === ''
        ? []
        : [`the next run by schedule pulls what has changed since ${code(instant(position))} UTC`]),
      `${flowsLink(`SluiceDeployment = "${deployment}"`, 'all runs')} of the deployment${schedule ?? ''}; once more now: ${code(`npx sluice run ${deployment}`)}`,
      `the copy: ${code(`npx sluice query "SELECT * FROM ${deployment} FINAL LIMIT 10"`)}`,
      ...(rejected > 0
        ? [`rejected rows, with file and line: ${code(`SELECT * FROM _rejects WHERE asset = '${deployment}'`)}`]
        : []),
    ];
  }
}

/** A run that names its interval needs no plan. */
function givenPlan({ from, to }: ExtractRequest): ExtractPlan | undefined {
  return from === undefined || to === undefined ? undefined : { kind: 'backfill', from, to, since: from, etag: '' };
}

function fileLine({ file, rows, rejected, requests }: ExtractedFile): string {
  const held = rejected > 0 ? `, **${rejected} rejected**` : '';
  return `${code(file)} · ${count(rows, 'row')}${held}, ${count(requests, 'request')}`;
}
