/** Runs all checks of an asset on rows of JSON, which need not be in its copy. */
import { tableAssetOf } from '../../model/asset.ts';
import { type CheckInput, isRowCheck } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import { type ClickHouse, lengthOf, quoteName } from '../load/clickhouse.ts';
import { keyLists, longestKey } from '../load/key_lists.ts';
import { encoderFor } from '../transform/encode.ts';
import type { ExpressionColumn } from '../transform/expression.ts';
import { parseIso } from '../transform/jinja/date_format.ts';
import { epochMicroseconds } from '../transform/jinja/dates.ts';
import { EvaluationError } from '../transform/jinja/limits.ts';
import type { Value } from '../transform/jinja/values.ts';
import { cellOf, type JsonRow, refuseRounded, rowColumns } from '../transform/json_rows.ts';
import { forEachRow, Turns } from '../transform/turns.ts';
import { brokenResult, explained, isOfOne } from './broken_checks.ts';
import {
  type CheckResult,
  isCount,
  maxAge,
  type QualityResult,
  samplesLimit,
  together,
  wholeResult,
} from './quality.ts';
import { compileChecks } from './row_checks.ts';

/**
 * Runs checks on rows; one that cannot run says so. `columns`: those of the copy, as far as there is one; what these do not know is as
 * JSON says. Errors: `configuration` when that takes too long, or for numbers that JSON may have rounded.
 */
export async function checkRows(
  clickhouse: ClickHouse,
  checks: readonly CheckInput[],
  rows: readonly JsonRow[],
  columns: readonly { name: string; type: string }[],
): Promise<QualityResult> {
  refuseRounded(rows, columns);
  const named = [...new Set(checks.flatMap((check) => check.field ?? []))].map((name) => ({ [name]: null }));
  const known = rowColumns([...rows, ...named], columns);
  const turns = new Turns();
  const values: Value[][] = [];
  await forEachRow(rows, turns, (row) => values.push(known.map((column) => cellOf(row, column))));
  const failing = new Set<number>();
  const rules: CheckResult[] = [];
  const whole: CheckResult[] = [];
  for (const check of checks) {
    const failed = await failedRows(clickhouse, check, { rows, values, columns: known, turns }).catch((error) => {
      if (turns.spent || !isOfOne(error)) throw error;
      rules.push(brokenResult(check, explained(check, error)));
      return 'broken' as const;
    });
    if (failed === 'broken') continue;
    if (failed === undefined) {
      const passed = check.rule_type === 'row_count' ? isCount(check, rows.length) : isFresh(check, rows);
      whole.push({ rule_id: check.rule_id, ...wholeResult(passed) });
      rules.push(whole.at(-1)!);
      continue;
    }
    for (const row of failed) failing.add(row);
    const samples = failed.slice(0, samplesLimit).map((row) => rows[row]!);
    rules.push({ rule_id: check.rule_id, checked: rows.length, failed: failed.length, samples });
  }
  const looked = whole.length < checks.length ? rows.length : 0;
  return together({ checked: looked, failed: failing.size }, whole, rules);
}

/** Rows as they were sent, and as checks see them. */
interface CheckedRows {
  rows: readonly JsonRow[];
  values: readonly Value[][];
  columns: readonly ExpressionColumn[];
  turns: Turns;
}

/** Numbers of the rows that fail; undefined for checks of all rows together. */
async function failedRows(
  clickhouse: ClickHouse,
  check: CheckInput,
  { rows, values, columns, turns }: CheckedRows,
): Promise<number[] | undefined> {
  const chosen = (fails: (row: number) => boolean) => [...rows.keys()].filter(fails);
  if (isRowCheck(check)) {
    const compiled = compileChecks([check], columns);
    const failed: number[] = [];
    await forEachRow(values, turns, (row, number) => {
      if (compiled.failures(row).length > 0) failed.push(number);
    });
    return failed;
  }
  if (check.rule_type === 'unique') {
    const keys = rows.map((row) => uniqueKey(row, check));
    const counts = new Map<string, number>();
    for (const key of keys) if (key !== undefined) counts.set(key, (counts.get(key) ?? 0) + 1);
    return chosen((row) => (counts.get(keys[row] ?? '') ?? 0) > 1);
  }
  if (check.rule_type !== 'relationships') return undefined;
  const texts = rows.map((row) => textOf(row[check.field!]));
  const there = await valuesThere(clickhouse, check, texts);
  return chosen((row) => texts[row] !== undefined && !there.has(texts[row]));
}

/** Undefined for a row with a NULL in it, which is unique. */
function uniqueKey(row: JsonRow, { field, parameters }: CheckInput): string | undefined {
  const parts = (parameters.fields ?? [field!]).map((name) => textOf(row[name]));
  return parts.some((part) => part === undefined) ? undefined : JSON.stringify(parts);
}

function textOf(value: unknown): string | undefined {
  if (value === null || value === undefined) return undefined;
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Those of some values that the other asset has. Errors: `configuration` for a value that fits into no statement. */
async function valuesThere(
  clickhouse: ClickHouse,
  { rule_id, parameters }: CheckInput,
  texts: readonly (string | undefined)[],
): Promise<Set<string>> {
  const asked = [...new Set(texts.filter((text) => text !== undefined))].map(textField);
  if (asked.some((field) => field.length > longestKey))
    throw new SluiceError(
      'configuration',
      `check ${rule_id}: values that are looked for in another asset have ${longestKey} characters at most`,
      'Leave such rows out; or run the check on the whole copy, which has no such limit.',
    );
  const value = `toString(${quoteName(parameters.field!)})`;
  const other = clickhouse.name(`${tableAssetOf(parameters.asset!)}_current`);
  const there = new Set<string>();
  for (const list of keyLists(
    asked.map((field) => [field]),
    ['String'],
  )) {
    const sql = `SELECT DISTINCT ${value} AS text FROM ${other} WHERE ${value} IN (${list})`;
    const settings = { max_execution_time: 10, ...lengthOf(sql) };
    for (const { text } of await clickhouse.rows<{ text: string }>(sql, { settings })) there.add(text);
  }
  return there;
}

/** A text as TSV has it. */
const textField = encoderFor('String');

/** True when the newest time among the rows is young enough; those without one do not count. */
function isFresh(check: CheckInput, rows: readonly JsonRow[]): boolean {
  const oldest = BigInt(Date.now() - maxAge(check) * 1000) * 1000n;
  return rows.some((row) => {
    const text = textOf(row[check.field ?? '_committed_at']);
    try {
      return text !== undefined && epochMicroseconds(parseIso(text)) >= oldest;
    } catch (error) {
      if (error instanceof EvaluationError) return false;
      throw error;
    }
  });
}
