/** Runs all checks of an asset: on its whole copy, where ClickHouse does it, or on rows that somebody sends. */
import { type CheckInput, isRowCheck } from '../../model/checks.ts';
import { parseDuration } from '../../model/duration.ts';
import type { ErrorReport } from '../../model/errors.ts';
import { quoteName } from '../load/clickhouse.ts';
import type { Value } from '../transform/jinja/values.ts';
import { jsonOf } from '../transform/json_rows.ts';
import { brokenResult, findBroken, isOfOne } from './broken_checks.ts';
import { type CheckedColumn, readCopyRows } from './copy_columns.ts';
import { type CheckedCopy, columnOf, conditionOf, Parameters } from './copy_conditions.ts';
import { type CheckCounts, compileChecks } from './row_checks.ts';

/** What a check found. */
export interface CheckResult extends CheckCounts {
  rule_id: string;
  /** Rows that fail, at most five. */
  samples: Record<string, unknown>[];
  notice?: string;
  /** Why it could not run. */
  error?: ErrorReport;
}

/** What all checks found together. A check of the copy as a whole counts as one more row. */
export interface QualityResult extends CheckCounts {
  rules: CheckResult[];
}

export const samplesLimit = 5;

/** Rows of a copy that are looked at here, because ClickHouse cannot run the check. */
const rowsLimit = 200_000;

const limits = { max_execution_time: 10, max_memory_usage: String(1 << 30) };

/** Runs checks on all rows of a copy; one that cannot run says so, and the others run without it. Errors: what stops all of them. */
export async function checkCopy(copy: CheckedCopy, checks: readonly CheckInput[]): Promise<QualityResult> {
  try {
    return await runChecks(copy, checks);
  } catch (error) {
    if (!isOfOne(error)) throw error;
    const broken = await findBroken(checks, (check) => runChecks(copy, [check]));
    if (broken.size === 0) throw error;
    const sound = checks.filter((check) => !broken.has(check));
    const found = await runChecks(copy, sound);
    const results = found.rules.values();
    const rules = checks.map((check) => {
      const why = broken.get(check);
      return why ? brokenResult(check, why) : results.next().value!;
    });
    return { ...found, rules };
  }
}

async function runChecks(copy: CheckedCopy, checks: readonly CheckInput[]): Promise<QualityResult> {
  for (const check of checks) if (isRowCheck(check)) compileChecks([check], copy.columns);
  const counted = await countRows(copy, checks);
  const looked = await lookAtRows(copy, checks, counted);
  const ofCopy = await checkWhole(copy, checks, counted.total);
  const rules: CheckResult[] = [];
  for (const check of checks) {
    const found = counted.results.get(check) ?? looked?.results.get(check) ?? ofCopy.get(check)!;
    const samples = found.samples ?? (found.failed > 0 ? await sampleRows(copy, check) : []);
    rules.push({ rule_id: check.rule_id, ...found, samples });
  }
  const rows = looked?.rows ?? counted.rows;
  return together(rows, [...ofCopy.values()], rules);
}

/** Adds checks of copies as a whole, each like one more row. */
export function together(rows: CheckCounts, whole: readonly CheckCounts[], rules: CheckResult[]): QualityResult {
  const sum = (name: keyof CheckCounts) => whole.reduce((all, one) => all + one[name], rows[name]);
  return { checked: sum('checked'), failed: sum('failed'), rules };
}

type Found = CheckCounts & { samples?: Record<string, unknown>[]; notice?: string };

interface Counted {
  total: number;
  /** Rows, and those that fail any of the conditions; none where there is no condition. */
  rows: CheckCounts;
  results: Map<CheckInput, Found>;
}

/** Counts all rows, and those that fail each check that is a condition, in one statement. */
async function countRows(copy: CheckedCopy, checks: readonly CheckInput[]): Promise<Counted> {
  const parameters = new Parameters();
  const conditions = conditionsOf(copy, checks, parameters);
  const counts = [...conditions.values()].map((condition, i) => `countIf(NOT ${condition}) AS f${i}`);
  const all = [...conditions.values()].join(' AND ') || 'true';
  const [row] = await copy.clickhouse.rows<Record<string, string>>(
    `SELECT ${['count() AS total', `countIf(NOT (${all})) AS failing`, ...counts].join(', ')}
     FROM ${copy.rows}`,
    { params: parameters.values, settings: limits },
  );
  const total = Number(row!.total);
  const results = new Map<CheckInput, Found>();
  for (const [i, check] of [...conditions.keys()].entries())
    results.set(check, { checked: total, failed: Number(row![`f${i}`]) });
  const rows = conditions.size === 0 ? { checked: 0, failed: 0 } : { checked: total, failed: Number(row!.failing) };
  return { total, rows, results };
}

function conditionsOf(
  copy: CheckedCopy,
  checks: readonly CheckInput[],
  parameters: Parameters,
): Map<CheckInput, string> {
  const conditions = new Map<CheckInput, string>();
  for (const check of checks) {
    const condition = conditionOf(check, copy, parameters);
    if (condition !== undefined) conditions.set(check, condition);
  }
  return conditions;
}

/** Runs checks that ClickHouse cannot on rows of the copy, and counts rows that fail any check of a row. */
async function lookAtRows(
  copy: CheckedCopy,
  checks: readonly CheckInput[],
  { total, results: counted }: Counted,
): Promise<{ rows: CheckCounts; results: Map<CheckInput, Found> } | undefined> {
  const own = checks.filter((check) => isRowCheck(check) && !counted.has(check));
  if (own.length === 0) return undefined;
  const columns = [...usedColumns(copy, own), ...copy.columns.filter((column) => column.key)];
  const used = copy.columns.filter((column) => columns.includes(column));
  const parameters = new Parameters();
  const passes = [...conditionsOf(copy, checks, parameters).values()]
    .map((condition) => `(${condition})`)
    .join(' AND ');
  const read = await readCopyRows(copy, used, {
    rest: `LIMIT ${rowsLimit}`,
    more: [`toUInt8(${passes || 'true'})`],
    params: parameters.values,
  });
  const compiled = own.map((check) => ({
    check,
    run: compileChecks([check], used),
    failed: 0,
    samples: [] as Value[][],
  }));
  let failed = 0;
  for (const { values, more } of read) {
    let passed = more[0] === '1';
    for (const one of compiled) {
      if (one.run.failures(values).length === 0) continue;
      passed = false;
      one.failed++;
      if (one.samples.length < samplesLimit) one.samples.push(values);
    }
    if (!passed) failed++;
  }
  const notice = total > read.length ? `${read.length} rows of ${total} were looked at` : undefined;
  const results = compiled.map(({ check, failed, samples }): [CheckInput, Found] => {
    const shown = samples.map((values) => shownRow(used, values));
    return [check, { checked: read.length, failed, samples: shown, ...(notice === undefined ? {} : { notice }) }];
  });
  return { rows: { checked: read.length, failed }, results: new Map(results) };
}

function usedColumns({ columns }: CheckedCopy, checks: readonly CheckInput[]): CheckedColumn[] {
  return compileChecks(checks, columns).uses.map((index) => columns[index]!);
}

function shownRow(columns: readonly CheckedColumn[], values: readonly Value[]): Record<string, unknown> {
  const shown: Record<string, unknown> = Object.create(null);
  for (const [i, column] of columns.entries()) shown[column.name] = jsonOf(values[i]!);
  return shown;
}

/** Key and fields of rows that fail a check. */
async function sampleRows(copy: CheckedCopy, check: CheckInput): Promise<Record<string, unknown>[]> {
  const parameters = new Parameters();
  const condition = conditionOf(check, copy, parameters);
  if (condition === undefined) return [];
  const fields = new Set([check.field, ...(check.parameters.fields ?? [])]);
  const columns = copy.columns.filter((column) => column.key || fields.has(column.name));
  const rows = await readCopyRows(copy, columns, {
    rest: `WHERE NOT ${condition} LIMIT ${samplesLimit}`,
    params: parameters.values,
  });
  return rows.map(({ values }) => shownRow(columns, values));
}

/** Checks of the copy as a whole. */
async function checkWhole(
  copy: CheckedCopy,
  checks: readonly CheckInput[],
  total: number,
): Promise<Map<CheckInput, Found>> {
  const results = new Map<CheckInput, Found>();
  for (const check of checks) {
    const passed = check.rule_type === 'row_count' ? isCount(check, total) : await isFresh(copy, check);
    if (passed !== undefined) results.set(check, wholeResult(passed));
  }
  return results;
}

/** One more row, that passes or fails. */
export function wholeResult(passed: boolean): Found & { samples: [] } {
  return { checked: 1, failed: passed ? 0 : 1, samples: [] };
}

/** True when so many rows are right. */
export function isCount({ parameters: { min, max } }: CheckInput, rows: number): boolean {
  return (min === undefined || rows >= Number(min)) && (max === undefined || rows <= Number(max));
}

/** True when the newest row, by its event time or else by its commit, is young enough; no row is not. */
async function isFresh(copy: CheckedCopy, check: CheckInput): Promise<boolean | undefined> {
  if (check.rule_type !== 'freshness') return undefined;
  const field = check.field === undefined ? '_committed_at' : columnOf(check, check.field, copy).name;
  const [row] = await copy.clickhouse.rows<{ fresh: number }>(
    `SELECT ifNull(toDateTime64(maxOrNull(${quoteName(field)}), 6, 'UTC') >= now64(6) - INTERVAL ${maxAge(check)} SECOND, 0) AS fresh
     FROM ${field === '_committed_at' ? copy.clickhouse.name(copy.asset) : copy.rows}`,
    { settings: limits },
  );
  return Number(row!.fresh) === 1;
}

/** Seconds. */
export function maxAge({ parameters }: CheckInput): number {
  return parseDuration(parameters.max_age ?? '') ?? 0;
}
