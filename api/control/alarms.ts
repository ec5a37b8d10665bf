/** What comparisons of copies with their sources, and checks of whole copies, have found, and who should know. */

import { watchPrefix } from '../../activities/check/watch_copies.ts';
import { isoTimeOrNull } from '../../activities/load/time_text.ts';
import type { ErrorReport } from '../../model/errors.ts';
import type { Control } from './control.ts';
import { declaredRules } from './declared_rules.ts';
import { rowsIfThere, shared } from './figures.ts';

/** What comparisons found of one copy. */
export interface VerifyFigures {
  source: string;
  asset: string;
  /** Of the last comparison. */
  at: string;
  differing: number;
  repaired: number;
  unrepaired: string;
  resynced: boolean;
  /** True when the copy was made anew since: then it says nothing any more. */
  outdated: boolean;
  /** Of all comparisons. */
  differing_total: number;
  repaired_total: number;
}

const figure = (name: string): string => `JSONExtractUInt(result, '${name}')`;
const differing = `${figure('missing')} + ${figure('extra')} + ${figure('different')}`;
/** The last comparison that could say something. */
const last = (what: string): string => `argMaxIf(${what}, _at, _failed = 0)`;

/** A copy may have been made anew before the comparison of the other tables ended. */
const comparedAt = `ifNull(parseDateTime64BestEffortOrNull(JSONExtractString(result, 'compared_at'), 6, 'UTC'),
  assumeNotNull(finished_at))`;

/** The last result of each copy, and sums. Empty when nothing was compared yet. */
export async function verifyFigures(control: Control): Promise<VerifyFigures[]> {
  return await shared(control, 'verifications', async () => {
    const rows = await rowsIfThere<Record<keyof VerifyFigures, string>>(
      control,
      `SELECT source, asset, toString(max(_at)) AS at, toString(${last('_differing')}) AS differing,
         toString(${last('_repaired')}) AS repaired, ${last('_reason')} AS unrepaired, toString(${last('_anew')}) AS resynced,
         toString(max(_at) < any(complete._since)) AS outdated,
         toString(sum(_differing)) AS differing_total, toString(sum(_repaired)) AS repaired_total
       FROM (
         SELECT source, ${comparedAt} AS _at, JSONExtractString(result, 'asset_id') AS asset, ${differing} AS _differing,
           ${figure('repaired')} AS _repaired, JSONExtractString(result, 'unrepaired') AS _reason,
           JSONExtractBool(result, 'resynced') AS _anew, JSONType(result, 'error') = 'Object' AS _failed
         FROM (
           SELECT source, finished_at, arrayJoin(JSONExtractArrayRaw(v.result, 'tables')) AS result
           FROM ${control.clickhouse.name('_verifications')} AS v FINAL WHERE status = 'finished'
         )
       ) AS found
       LEFT JOIN (
         SELECT source, arrayJoin(JSONExtractKeys(assets)) AS asset, max(recorded_at) AS _since
         FROM ${control.clickhouse.name('_batches')} WHERE kind = 'complete' GROUP BY source, asset
       ) AS complete USING (source, asset)
       GROUP BY source, asset ORDER BY source, asset`,
    );
    return rows.map((row) => ({
      source: row.source,
      asset: row.asset,
      at: isoTimeOrNull(row.at) ?? '',
      differing: Number(row.differing),
      repaired: Number(row.repaired),
      unrepaired: row.unrepaired,
      resynced: row.resynced === '1' || row.resynced === 'true',
      outdated: row.outdated === '1',
      differing_total: Number(row.differing_total),
      repaired_total: Number(row.repaired_total),
    }));
  });
}

/** What is to be told of a source's copies, until a comparison finds them equal. */
export function copyAlarms(figures: VerifyFigures[], source: string, assets: Set<string>): ErrorReport[] {
  return figures.flatMap((found) => {
    if (found.source !== source || !assets.has(found.asset) || found.differing === 0 || found.outdated) return [];
    const { asset, differing: rows, repaired, at } = found;
    const were = `${count(rows)} of ${asset} differed from the source at ${at.slice(0, 19)}Z`;
    const look = `Which ones: GET /api/v1/verify/${source}. Find out who else writes to the copy, or report it with the batch records.`;
    if (found.resynced) return [alarm(`${were}; the copy is made anew`, look)];
    if (repaired === rows) return [alarm(`${were}, and were repaired`, look)];
    const why = found.unrepaired === '' ? '' : `: ${found.unrepaired}`;
    const remedy = `Repair them: sluice verify ${source} --repair; or make the copy anew: sluice sources resync ${source}. ${look}`;
    return [alarm(`${were}, and ${count(rows - repaired)} stayed so${why}`, remedy)];
  });
}

const count = (rows: number): string => `${rows} ${rows === 1 ? 'row' : 'rows'}`;

function alarm(reason: string, remedy: string): ErrorReport {
  return { kind: 'copy_differs', reason, remedy };
}

/** What a check found when it last looked at a whole copy by itself. */
export interface CheckFigures {
  asset: string;
  rule: string;
  checked: number;
  failed: number;
  /** ISO 8601. */
  at: string;
}

/** Checks that failed at the last look, of those that are declared. */
export async function failingChecks(control: Control): Promise<CheckFigures[]> {
  return await shared(control, 'checks', async () => {
    const rows = await rowsIfThere<Record<keyof CheckFigures, string>>(
      control,
      `SELECT asset, rule, toString(argMax(q.checked, q.at)) AS checked, toString(argMax(q.failed, q.at)) AS failed, toString(max(q.at)) AS at
       FROM ${control.clickhouse.name('_quality')} AS q
       WHERE startsWith(batch, '${watchPrefix}') GROUP BY asset, rule HAVING argMax(q.failed, q.at) > 0 ORDER BY asset, rule`,
    );
    if (rows.length === 0) return [];
    const { checks } = await declaredRules(control);
    const isDeclared = (row: { asset: string; rule: string }) =>
      checks.some(({ asset, rule_id }) => asset === row.asset && rule_id === row.rule);
    return rows.filter(isDeclared).map((row) => ({
      ...row,
      checked: Number(row.checked),
      failed: Number(row.failed),
      at: isoTimeOrNull(row.at) ?? '',
    }));
  });
}

/** What is to be told of checks of whole copies, until they pass. */
export function checkAlarms(failing: CheckFigures[], assets: Set<string>): ErrorReport[] {
  return failing
    .filter(({ asset }) => assets.has(asset))
    .map(({ asset, rule, failed, checked, at }) => ({
      kind: 'check_failed',
      reason: `the check ${rule} of ${asset} failed at ${at.slice(0, 19)}Z: ${failed} of ${checked}`,
      remedy: `Which rows: sluice quality ${asset}. It is looked at again with each comparison by schedule.`,
    }));
}
