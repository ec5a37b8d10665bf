/** A rule run beside a copy: what would be another in its newest rows, had the rule been there. Nothing is written. */
import { performance } from 'node:perf_hooks';
import type { JoinedTypes, RuleInput } from '../../model/rules.ts';
import { type CheckedColumn, readCopyRows } from '../check/copy_columns.ts';
import type { CheckedCopy } from '../check/copy_conditions.ts';
import { encoderFor } from './encode.ts';
import { EvaluationError } from './jinja/limits.ts';
import type { Value } from './jinja/values.ts';
import { type JsonRow, jsonOf } from './json_rows.ts';
import { lookUpJoins, type Preview, type PreviewJoins } from './preview.ts';
import { compileRules, type RuleSet } from './rules.ts';

/** A row that would be another. */
export interface Difference {
  /** Its key. */
  row: JsonRow;
  outcome: 'changed' | 'filtered' | 'rejected';
  /** The fields that the rule fills, as the copy has them; those that it does not have yet are missing. */
  before: JsonRow;
  /** The same fields as they would be; null where the copy would not have the row. */
  after: JsonRow | null;
  reason?: string;
}

export interface Shadow extends Preview {
  differences: { checked: number; changed: number; filtered: number; rejected: number; samples: Difference[] };
}

/** Rows that are shown. */
const samplesLimit = 100;

/** Runs a rule on the newest rows of a copy. Errors: `configuration` for a rule that cannot be compiled. */
export async function shadowRun(
  copy: CheckedCopy,
  rule: RuleInput,
  last: number,
  { types, lookUp }: PreviewJoins,
): Promise<Shadow> {
  const tried: RuleInput = { ...rule, on_error: rule.on_error === 'null' ? 'null' : 'reject' };
  const columns = neededColumns(copy, tried, types);
  const rules = compileRules([tried], columns, types);
  const read = await readCopyRows(copy, columns, { rest: `${copy.newest} LIMIT ${last}` });
  const shadow: Shadow = {
    rows: [],
    rejected: [],
    rows_per_second: 0,
    differences: { checked: read.length, changed: 0, filtered: 0, rejected: 0, samples: [] },
  };
  await lookUpJoins(
    rules,
    read.map(({ values }) => values),
    lookUp,
  );
  const begun = performance.now();
  for (const [number, { values }] of read.entries()) compareRow(shadow, rules, columns, values, number);
  const seconds = (performance.now() - begun) / 1000;
  shadow.rows_per_second = read.length === 0 ? 0 : Math.round(read.length / Math.max(seconds, 1e-6));
  return shadow;
}

/** Columns that it reads, keys, and what it fills. */
function neededColumns({ columns }: CheckedCopy, rule: RuleInput, types: JoinedTypes): CheckedColumn[] {
  const { uses, targets } = compileRules([rule], columns, types);
  const named = new Set([...targets.map(({ name }) => name), ...(rule.source_fields ?? [])]);
  return columns.filter((column, index) => column.key || uses.includes(index) || named.has(column.name));
}

function compareRow(shadow: Shadow, rules: RuleSet, columns: CheckedColumn[], values: Value[], number: number): void {
  const { differences } = shadow;
  const before = shown(columns, values, (column) => rules.targets.some(({ name }) => name === column.name));
  const outcome = rules.apply([...values]);
  if (outcome === 'kept' && isSame(rules, columns, values)) return;
  const kind = outcome === 'kept' ? 'changed' : outcome;
  differences[kind]++;
  if (outcome === 'rejected' && shadow.rejected.length < samplesLimit)
    shadow.rejected.push({ row: number, reason: rules.rejection.reason });
  if (differences.samples.length >= samplesLimit) return;
  const after = outcome === 'kept' ? afterOf(rules) : null;
  const reason = outcome === 'rejected' ? { reason: rules.rejection.reason } : {};
  const row = shown(columns, values, (column) => column.key);
  differences.samples.push({ row, outcome: kind, before, after, ...reason });
  if (after) shadow.rows.push({ ...row, ...after });
}

function shown(columns: CheckedColumn[], values: Value[], which: (column: CheckedColumn) => boolean): JsonRow {
  const row: JsonRow = Object.create(null);
  for (const [index, column] of columns.entries()) if (which(column)) row[column.name] = jsonOf(values[index]!);
  return row;
}

function afterOf(rules: RuleSet): JsonRow {
  const row: JsonRow = Object.create(null);
  for (const [i, { name }] of rules.targets.entries()) row[name] = jsonOf(rules.values[i]!);
  return row;
}

/** True when the copy has what the rule makes, in the form in which it would be stored. */
function isSame(rules: RuleSet, columns: CheckedColumn[], values: Value[]): boolean {
  return rules.targets.every(({ name, clickhouse }, i) => {
    const index = columns.findIndex((column) => column.name === name);
    if (index < 0) return false;
    try {
      return encoderFor(clickhouse)(values[index]!) === rules.fields[i];
    } catch (error) {
      if (error instanceof EvaluationError) return false;
      throw error;
    }
  });
}
