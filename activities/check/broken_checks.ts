/** Checks that cannot run: each says why by itself, and the others answer without it. */
import { tableAssetOf } from '../../model/asset.ts';
import type { CheckInput } from '../../model/checks.ts';
import { asSluiceError, type ErrorReport, SluiceError } from '../../model/errors.ts';
import { refusalCode, tookTooLong } from '../load/clickhouse.ts';
import type { CheckResult } from './quality.ts';

/** How long checks are tried one by one, in milliseconds: somebody waits for the answer. */
const patience = 60_000;

/**
 * Finds those that fail when they run alone. Answers why, by check; none where only all of them together fail, or there was no time
 * to find it. Errors: what concerns all of them, as a ClickHouse that does not answer.
 */
export async function findBroken(
  checks: readonly CheckInput[],
  runAlone: (check: CheckInput) => Promise<unknown>,
): Promise<Map<CheckInput, ErrorReport>> {
  const broken = new Map<CheckInput, ErrorReport>();
  const end = Date.now() + patience;
  for (const check of checks) {
    if (Date.now() > end) break;
    try {
      await runAlone(check);
    } catch (error) {
      if (!isOfOne(error)) throw error;
      broken.set(check, explained(check, error));
    }
  }
  return broken;
}

/** False for an error that any statement could end with. */
export function isOfOne(error: unknown): boolean {
  return !asSluiceError(error).transient || refusalCode(error) !== undefined;
}

/** A check that could not run: nothing passed it. */
export function brokenResult({ rule_id }: CheckInput, error: ErrorReport): CheckResult {
  return { rule_id, checked: 0, failed: 0, samples: [], error };
}

/** What is in the way, said by the check where ClickHouse speaks of its statement: names that are not there, or too much work. */
export function explained(check: CheckInput, error: unknown): ErrorReport {
  const code = refusalCode(error);
  const { asset = '', field } = check.parameters;
  const said = (reason: string, remedy: string) =>
    new SluiceError('configuration', `check ${check.rule_id}: ${reason}`, remedy).report();
  if (check.rule_type === 'relationships' && code === '60')
    return said(`there is no copy ${tableAssetOf(asset)}`, 'Have it copied, or name another in parameters.asset.');
  if (check.rule_type === 'relationships' && code === '47')
    return said(`${tableAssetOf(asset)} has no column ${field}`, 'Name one of its columns in parameters.field.');
  if (code === tookTooLong)
    return {
      kind: 'timeout',
      reason: `check ${check.rule_id} took longer than 10 s on the whole copy`,
      remedy: 'Take it away, or send rows.',
    };
  return asSluiceError(error).report();
}
