/**
 * Checks of whole copies that nobody asks for: with each comparison by schedule, and behind each run of a deployment. Their
 * scores are kept, and those that fail are told until they do not.
 */
import { isRowCheck } from '../../model/checks.ts';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import { checksOf } from '../../model/rules.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { loadRules } from '../transform/rule_store.ts';
import { checkedCopy } from './checked_copy.ts';
import { checkCopy } from './quality.ts';
import { scoresNow, storeScores } from './scores.ts';

/** Begins the ids of what such a look has found. */
export const watchPrefix = 'watch/';

/**
 * Runs what no single row passes or fails, of these assets; of tables without a key all of their checks, which no stream runs.
 * Answers how many checks fail. Errors: those of ClickHouse; when all others are done, the first of a check that could not run.
 */
export async function watchCopies(clickhouse: ClickHouse, assets: readonly string[]): Promise<number> {
  const { checks } = await loadRules(clickhouse);
  let failing = 0;
  const broken: ErrorReport[] = [];
  for (const asset of assets) {
    const own = checksOf(checks, asset);
    const copy = own.length > 0 ? await checkedCopy(clickhouse, asset) : undefined;
    const wanted = copy?.newest === '' ? own : own.filter((check) => !isRowCheck(check));
    if (!copy || wanted.length === 0) continue;
    const { rules } = await checkCopy(copy, wanted);
    // The score of an asset is that of its rows.
    await storeScores(clickhouse, [scoresNow(asset, watchPrefix, { checked: 0, failed: 0 }, rules)]);
    failing += rules.filter(({ failed }) => failed > 0).length;
    broken.push(...rules.flatMap(({ error }) => error ?? []));
  }
  const [first] = broken;
  if (first) throw new SluiceError(first.kind, first.reason, first.remedy);
  return failing;
}
