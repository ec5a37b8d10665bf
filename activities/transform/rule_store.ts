/** Declared rules and checks in ClickHouse: every version of the set, for ever, with who changed what. */
import { SluiceError } from '../../model/errors.ts';
import { type DeclaredRules, noRules } from '../../model/rules.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { durable } from '../load/tables.ts';

/** One row a version. The catalog gives versions, one after another. */
const definition = `(
  version UInt64, body String, changed_by String, change String,
  recorded_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ReplacingMergeTree(recorded_at) ORDER BY version`;

/** Makes `_rules` when it is not there. */
export async function createRules(clickhouse: ClickHouse): Promise<void> {
  await clickhouse.command(`CREATE TABLE IF NOT EXISTS ${clickhouse.name('_rules')} ${definition} SETTINGS ${durable}`);
}

/**
 * Stores a version of the set; when this returns, it is durable. Storing it again changes nothing. Errors: `conflict` when
 * there is such a version, or a later one, with other content.
 */
export async function storeRules(
  clickhouse: ClickHouse,
  set: DeclaredRules,
  how: { by: string; change: string },
): Promise<void> {
  const newest = await loadRules(clickhouse);
  if (newest.version >= set.version) {
    if (JSON.stringify(newest) === JSON.stringify(set)) return;
    throw new SluiceError(
      'conflict',
      `rules were changed by somebody else: there is version ${newest.version} already`,
      'Look at the rules as they are now, then try again.',
    );
  }
  const { version, rules, checks } = set;
  await clickhouse.insertObjects('_rules', [
    { version, body: JSON.stringify({ rules, checks }), changed_by: how.by, change: how.change },
  ]);
}

/** The newest set, or that of a version; version 0 is the empty one. Errors: `not_found` for a version that is not there. */
export async function loadRules(clickhouse: ClickHouse, version?: number): Promise<DeclaredRules> {
  if (version === 0) return noRules;
  const which = version === undefined ? '' : 'WHERE version = {version:UInt64}';
  const [row] = await clickhouse.rows<{ version: string; body: string }>(
    `SELECT version, body FROM ${clickhouse.name('_rules')} FINAL ${which} ORDER BY version DESC LIMIT 1`,
    { params: version === undefined ? {} : { version } },
  );
  if (row) return { version: Number(row.version), ...(JSON.parse(row.body) as Omit<DeclaredRules, 'version'>) };
  if (version === undefined) return noRules;
  throw new SluiceError('not_found', `there is no version ${version} of the rules`, 'See _rules in ClickHouse.');
}

/** The newest version; 0 when nothing was declared yet. */
export async function rulesVersion(clickhouse: ClickHouse): Promise<number> {
  const [row] = await clickhouse.rows<{ version: string }>(
    `SELECT toString(max(version)) AS version FROM ${clickhouse.name('_rules')}`,
  );
  return Number(row?.version ?? 0);
}

/** A version of the set, and how it came to be. */
export interface RulesChange {
  version: number;
  /** RFC 3339. */
  at: string;
  by: string;
  change: string;
}

/** The newest versions, the newest first. */
export async function readRulesHistory(clickhouse: ClickHouse, limit: number): Promise<RulesChange[]> {
  const rows = await clickhouse.rows<{ number: string; at: string; by: string; change: string }>(
    `SELECT toString(version) AS number, concat(replaceOne(toString(recorded_at), ' ', 'T'), 'Z') AS at, changed_by AS by, change
     FROM ${clickhouse.name('_rules')} FINAL ORDER BY version DESC LIMIT {limit:UInt32}`,
    { params: { limit } },
  );
  return rows.map(({ number, ...rest }) => ({ version: Number(number), ...rest }));
}
