/** Scores of checks over time, in ClickHouse: for each batch of a stream, and each time that somebody asks. */
import type { ClickHouse } from '../load/clickhouse.ts';
import { durable } from '../load/tables.ts';
import { isoTime } from '../load/time_text.ts';
import type { CheckCounts } from './row_checks.ts';

/** One row for each check that looked at rows of a batch; that with rule '' is for all checks together. */
const definition = `(
  asset LowCardinality(String), rule LowCardinality(String), at DateTime64(6, 'UTC'), batch String,
  checked UInt64, failed UInt64, score Float64
) ENGINE = ReplacingMergeTree ORDER BY (asset, at, batch, rule) TTL toDateTime(at) + INTERVAL 90 DAY`;

/** What was checked at one moment. */
export interface Scores {
  asset: string;
  /** ISO 8601. The same for a batch that is written again. */
  at: string;
  /** Id of the batch, or of what else looked. */
  batch: string;
  /** Rows, and those that fail any check. */
  rows: CheckCounts;
  /** By the id of the check. */
  rules: ReadonlyMap<string, CheckCounts>;
}

/** A score as it was stored. */
export interface StoredScore extends CheckCounts {
  asset: string;
  /** '' = all checks together. */
  rule: string;
  at: string;
  batch: string;
  score: number;
}

/** Makes `_quality` when it is not there. */
export async function createQuality(clickhouse: ClickHouse): Promise<void> {
  await clickhouse.command(
    `CREATE TABLE IF NOT EXISTS ${clickhouse.name('_quality')} ${definition} SETTINGS ${durable}`,
  );
}

/** Rows that pass / rows checked; 1 when none was. */
export function scoreOf({ checked, failed }: CheckCounts): number {
  return checked === 0 ? 1 : (checked - failed) / checked;
}

/** What checks found in the rows of a batch. `at`: microseconds since 1970, the same when the batch is written again. */
export function scoresOf(
  asset: string,
  batch: string,
  at: number,
  { rows, checks }: { rows: CheckCounts; checks: ReadonlyMap<string, CheckCounts> },
): Scores {
  return { asset, at: new Date(at / 1000).toISOString(), batch, rows, rules: checks };
}

/** What somebody, or a watch, found who looked at a copy now; `begin` is that of the id. */
export function scoresNow(
  asset: string,
  begin: string,
  rows: CheckCounts,
  rules: readonly (CheckCounts & { rule_id: string })[],
): Scores {
  const at = new Date().toISOString();
  const found = new Map(rules.map(({ rule_id, checked, failed }) => [rule_id, { checked, failed }]));
  return { asset, at, batch: `${begin}${at}`, rows, rules: found };
}

/** Keeps scores; keeping those of one batch again changes nothing. What looked at no row leaves nothing. */
export async function storeScores(clickhouse: ClickHouse, all: readonly Scores[]): Promise<void> {
  const rows = all.flatMap(({ asset, at, batch, rows: together, rules }) =>
    [['', together] as const, ...rules]
      .filter(([, counts]) => counts.checked > 0)
      .map(([rule, { checked, failed }]) => {
        return { asset, rule, at, batch, checked, failed, score: scoreOf({ checked, failed }) };
      }),
  );
  if (rows.length > 0) await clickhouse.insertObjects('_quality', rows);
}

/** Where a page of scores ends. */
export type ScorePlace = [at: string, asset: string, batch: string, rule: string];

/** Scores, the newest first. */
export async function readScores(
  clickhouse: ClickHouse,
  wanted: { asset?: string; since?: string; after?: ScorePlace; limit: number },
): Promise<StoredScore[]> {
  const { asset, since, after, limit } = wanted;
  const time = (name: string) => `parseDateTime64BestEffort({${name}:String}, 6, 'UTC')`;
  const conditions = [
    'true',
    asset === undefined ? '' : 'asset = {asset:String}',
    since === undefined ? '' : `q.at >= ${time('since')}`,
    after === undefined
      ? ''
      : `(q.at, asset, batch, rule) < (${time('at')}, {last:String}, {batch:String}, {rule:String})`,
  ];
  const [at, last, batch, rule] = after ?? [];
  const params = Object.entries({ asset, since, at, last, batch, rule }).filter(([, value]) => value !== undefined);
  const rows = await clickhouse.rows<
    Record<'asset' | 'rule' | 'at' | 'batch' | 'checked' | 'failed', string> & { score: number }
  >(
    `SELECT asset, rule, toString(q.at) AS at, batch, checked, failed, score FROM ${clickhouse.name('_quality')} AS q FINAL
     WHERE ${conditions.filter(Boolean).join(' AND ')} ORDER BY q.at DESC, asset DESC, batch DESC, rule DESC LIMIT ${limit}`,
    { params: Object.fromEntries(params) },
  );
  return rows.map((row) => ({ ...row, at: isoTime(row.at), checked: Number(row.checked), failed: Number(row.failed) }));
}

/** The newest score of each asset. */
export async function latestScores(clickhouse: ClickHouse): Promise<{ asset: string; score: number }[]> {
  return await clickhouse.rows(
    `SELECT asset, argMax(score, at) AS score FROM ${clickhouse.name('_quality')} WHERE rule = '' GROUP BY asset ORDER BY asset`,
  );
}
