/** Checks: declared, run on whole copies or on rows that are sent, and their scores over time. */
import { checkedCopy } from '../../activities/check/checked_copy.ts';
import type { CheckedCopy } from '../../activities/check/copy_conditions.ts';
import { checkCopy, type QualityResult } from '../../activities/check/quality.ts';
import { checkRows } from '../../activities/check/quality_rows.ts';
import {
  latestScores,
  readScores,
  type ScorePlace,
  scoreOf,
  scoresNow,
  storeScores,
} from '../../activities/check/scores.ts';
import { refusalCode, tookTooLong } from '../../activities/load/clickhouse.ts';
import { tableAssetOf } from '../../model/asset.ts';
import { type Check, type CheckInput, readCheck } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import { checksOf } from '../../model/rules.ts';
import type { Control } from './control.ts';
import { pageCursor, readCursor } from './cursor.ts';
import { declaredRules, putDeclared, removeDeclared } from './declared_rules.ts';
import { noTableYet } from './figures.ts';
import { ownTables } from './own_tables.ts';
import type { CheckBody, QualityAnswer, QualityBody, ScoresAnswer, ScoresQuery } from './rule_shapes.ts';
import { withId } from './transformations.ts';

/** All checks, in their order. */
export async function listChecks(control: Control): Promise<Check[]> {
  return (await declaredRules(control)).checks;
}

/** One check. Errors: `not_found`. */
export async function getCheck(control: Control, id: string): Promise<Check> {
  const found = (await listChecks(control)).find(({ rule_id }) => rule_id === id);
  if (found) return found;
  throw new SluiceError('not_found', `there is no check ${id}`, 'See what there is: GET /api/v1/quality/rules.');
}

/** Adds a check; `created` is false when it is there already. Errors: ShapeError, `conflict` for other content. */
export async function addCheck(control: Control, body: CheckBody): Promise<{ created: boolean; check: Check }> {
  const { changes, check } = await putDeclared(control, { check: readBody(body), mode: 'create' });
  return { created: changes.length > 0, check: check! };
}

/** Replaces a check. Errors: ShapeError, `not_found`. */
export async function replaceCheck(control: Control, id: string, body: Partial<CheckBody>): Promise<Check> {
  return (await putDeclared(control, { check: readBody(withId(body, id)), mode: 'replace' })).check!;
}

/** Takes a check away. Errors: `not_found`. */
export async function removeCheck(control: Control, id: string): Promise<void> {
  await removeDeclared(control, 'check', id);
}

/** An asset may be named by its copy, too. */
function readBody(body: Partial<CheckBody>): CheckInput {
  const check = readCheck(body);
  return { ...check, asset: tableAssetOf(check.asset) };
}

/** A copy with its columns. Errors: `not_found`. */
export async function copyOf(control: Control, asset: string): Promise<CheckedCopy> {
  const copy = await copyIfThere(control, asset);
  if (copy) return copy;
  const remedy = 'Its id is {source}_{table}, or the name of a deployment: `sluice status` lists them.';
  throw new SluiceError('not_found', `there is no copy ${asset}`, remedy);
}

async function copyIfThere({ clickhouse }: Control, asset: string): Promise<CheckedCopy | undefined> {
  return await checkedCopy(clickhouse, asset).catch((error: unknown) => {
    if (noTableYet(error)) return undefined;
    throw error;
  });
}

/** Runs all checks of an asset: on rows that are sent, or on its whole copy. Errors: `not_found`, `configuration`, `timeout`. */
export async function checkQuality(control: Control, { asset_id, rows }: QualityBody): Promise<QualityAnswer> {
  const asset = tableAssetOf(asset_id);
  const checks = checksOf(await listChecks(control), asset);
  if (rows !== undefined) {
    const copy = checks.length > 0 ? await copyIfThere(control, asset) : await copyOf(control, asset);
    return answerOf(asset, await checkRows(control.clickhouse, checks, rows, copy?.columns ?? []));
  }
  const result = await bounded(async () => checkCopy(await copyOf(control, asset), checks));
  await keepScores(control, asset, result);
  return answerOf(asset, result);
}

function answerOf(asset_id: string, { checked, failed, rules }: QualityResult): QualityAnswer {
  return {
    asset_id,
    score: scoreOf({ checked, failed }),
    checked,
    passed: checked - failed,
    failed,
    rules: rules.map((rule) => ({ ...rule, score: rule.error ? 0 : scoreOf(rule) })),
  };
}

/** Says what took too long, and what to do. */
async function bounded<Answer>(run: () => Promise<Answer>): Promise<Answer> {
  try {
    return await run();
  } catch (error) {
    if (refusalCode(error) !== tookTooLong) throw error;
    const remedy = 'Take checks away that look at much, as unique does, or send rows.';
    throw new SluiceError('timeout', 'the checks took longer than 10 s on the whole copy', remedy, {}, error);
  }
}

async function keepScores(control: Control, asset: string, { checked, failed, rules }: QualityResult): Promise<void> {
  const scores = [scoresNow(asset, 'check/', { checked, failed }, rules)];
  await ownTables(control, (clickhouse) => storeScores(clickhouse, scores));
}

const placeShape = ['time', 'text', 'text', 'text'] as const;

/** Scores, the newest first. Errors: `configuration` for a cursor that is none. */
export async function listScores(control: Control, wanted: ScoresQuery): Promise<ScoresAnswer> {
  const { since, limit = 100 } = wanted;
  const asset = wanted.asset === undefined ? undefined : tableAssetOf(wanted.asset);
  const after = wanted.cursor === undefined ? undefined : (readCursor(wanted.cursor, placeShape) as ScorePlace);
  const found = await readScores(control.clickhouse, { asset, since, after, limit: limit + 1 }).catch((error) => {
    if (noTableYet(error)) return [];
    throw error;
  });
  const page = found.slice(0, limit);
  const last = found.length > limit ? page.at(-1) : undefined;
  const items = page.map(({ asset, rule, at, batch, checked, failed, score }) => {
    return { asset_id: asset, rule_id: rule === '' ? null : rule, at, batch_id: batch, checked, failed, score };
  });
  return { items, next_cursor: last ? pageCursor([last.at, last.asset, last.batch, last.rule]) : null };
}

/** The newest score of each asset; none before anything was checked. */
export async function newestScores(control: Control): Promise<{ asset: string; score: number }[]> {
  return await latestScores(control.clickhouse).catch((error: unknown) => {
    if (noTableYet(error)) return [];
    throw error;
  });
}
