/** Flow `settleRejects`: releases rows of one asset that were held back, or discards them. */
import { setCurrentDetails, upsertSearchAttributes } from '@temporalio/workflow';
import type { SettleAnswer, SettleRequest } from '../model/rejects.ts';
import { askOptions, ruleActivities } from './activities.ts';
import { expectKeys, isObject, refusalOf } from './input.ts';
import { code, count, page } from './markdown.ts';
import { searchAttributes } from './searchAttributes.ts';

const known = ['asset', 'action', 'versions', 'rows', 'rule'];
const example =
  'Right is e.g. {"asset": "postgres_main_accounts", "action": "discard", "versions": ["83076749736557242056487941267521536"]}.';

/** Settles open rejects of an asset. */
export async function settleRejects(input: SettleRequest): Promise<SettleAnswer> {
  const request = readRequest(input);
  upsertSearchAttributes([{ key: searchAttributes.flow, value: 'settleRejects' }]);
  const what = `${request.action} ${count((request.rows ?? request.versions).length, 'row')} of ${request.asset}`;
  const options = { ...askOptions, summary: what.slice(0, 200) };
  const answer = await ruleActivities.settleRejects.executeWithOptions(options, [request]);
  const { released, discarded, still_open, superseded } = answer;
  setCurrentDetails(
    page(
      `**${code(request.asset)}** · ${released} released, ${discarded} discarded, ${still_open} still open, ${superseded} superseded`,
    ),
  );
  return answer;
}

function readRequest(input: unknown): SettleRequest {
  const bad = refusalOf(input, example);
  if (!isObject(input)) throw bad('the input names no rejects');
  expectKeys(input, known, bad);
  const { asset, action, versions, rows, rule } = input;
  if (typeof asset !== 'string' || asset === '') throw bad('`asset` must be the id of an asset');
  if (action !== 'release' && action !== 'discard') throw bad('`action` must be release or discard');
  const areVersions =
    Array.isArray(versions) && versions.every((one) => typeof one === 'string' && /^\d{1,39}$/.test(one));
  if (!areVersions || versions.length === 0) throw bad('`versions` must be a list of versions');
  if (rows !== undefined && !(Array.isArray(rows) && rows.every((one) => typeof one === 'string')))
    throw bad('`rows` must be a list of marks of rows');
  if (rule !== undefined && typeof rule !== 'string') throw bad('`rule` must be the id of a rule or check');
  return { asset, action, versions, ...(rows && { rows }), ...(rule !== undefined && { rule }) };
}
