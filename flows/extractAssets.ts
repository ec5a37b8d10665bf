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
import { searchAttributes } from './searchAttributes.ts';

/** When the schedule meant this run to be: set by Temporal. */
const scheduledTime = defineSearchAttributeKey('TemporalScheduledStartTime', 'DATETIME');

/** Pulls one interval. Wrong input fails at once. */
export async function extractAssets(input: ExtractRequest): Promise<ExtractAnswer> {
  const request = readExtractRequest(input);
  upsertSearchAttributes([
    { key: searchAttributes.flow, value: 'extractAssets' },
    { key: searchAttributes.deployment, value: request.deployment },
    { key: searchAttributes.phase, value: 'running' },
  ]);
  const { startTime, typedSearchAttributes } = workflowInfo();
  const nominal = (typedSearchAttributes.get(scheduledTime) ?? startTime).toISOString();
  const started = startTime.getTime();
  const plan = givenPlan(request) ?? (await plannedFor(request, nominal, started));
  const answer = await pull(request, plan, started);
  upsertSearchAttributes([{ key: searchAttributes.phase, value: 'done' }]);
  log.info('extracted', { ...answer });
  return answer;
}

/** A run that names its interval needs no plan. */
function givenPlan({ from, to }: ExtractRequest): ExtractPlan | undefined {
  return from === undefined || to === undefined ? undefined : { kind: 'backfill', from, to, since: from, etag: '' };
}

async function plannedFor(request: ExtractRequest, nominal: string, started: number): Promise<ExtractPlan> {
  setCurrentDetails(`**planning** the interval of the run of ${nominal}`);
  const summary = `which interval does the run of ${nominal} pull?`;
  return await extractActivities.planExtract.executeWithOptions({ ...prepareOptions, summary }, [
    { request, nominal, started },
  ]);
}

async function pull(request: ExtractRequest, plan: ExtractPlan, started: number): Promise<ExtractAnswer> {
  const { deployment } = request;
  const { from, to } = plan;
  const answer: ExtractAnswer = { deployment, from, to, files: 0, rows: 0, rejected: 0, position: '' };
  const last: string[] = [];
  let hash = '';
  for (let number = 1, since = plan.since; ; number++) {
    describe('pulling', plan, answer, last);
    const summary = `${intervalText(plan)}: file ${number}, assets since ${since === '' ? 'the beginning' : since}`;
    const file = await extractActivities.extractFile.executeWithOptions({ ...extractOptions, summary }, [
      { request, plan, started, number, since, previous_hash: hash },
    ]);
    add(answer, file, last);
    if (file.next === '') break;
    since = file.next;
    hash = file.hash;
  }
  describe('done', plan, answer, last);
  return answer;
}

function add(answer: ExtractAnswer, file: ExtractedFile, last: string[]): void {
  if (file.file !== '') answer.files += 1;
  answer.rows += file.rows;
  answer.rejected += file.rejected;
  answer.position = file.position;
  const held = file.rejected > 0 ? `, **${file.rejected} rejected**` : '';
  if (file.file !== '') last.unshift(`- \`${file.file}\`: ${file.rows} rows${held}, ${file.requests} requests`);
  last.splice(10);
}

function intervalText({ kind, from, to }: ExtractPlan): string {
  return `${kind === 'backfill' ? 'backfill ' : ''}[${from === '' ? 'beginning' : from}, ${to})`;
}

/** What people see at the top of the run in Temporal UI. */
function describe(phase: string, plan: ExtractPlan, answer: ExtractAnswer, last: string[]): void {
  const lines = [
    `**${phase}** · ${intervalText(plan)} · ${answer.rows} rows in ${answer.files} files`,
    '',
    ...last,
    ...(answer.position === '' ? [] : [`- the next scheduled run begins at \`${answer.position}\``]),
    `- copy: table \`${answer.deployment}\` in ClickHouse; its records: \`_batches\` where source = '${answer.deployment}'`,
    ...(answer.rejected > 0 ? ['- rejected rows, with file and line: `SELECT * FROM _rejects`'] : []),
  ];
  setCurrentDetails(lines.join('\n'));
}
