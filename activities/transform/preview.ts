/** What a rule would make of some rows, before it is used: for POST /api/v1/transformations/preview. */
import { performance } from 'node:perf_hooks';
import type { JoinedTypes, RuleInput } from '../../model/rules.ts';
import { typeOfSource } from './decode.ts';
import type { ExpressionColumn } from './expression.ts';
import { EvaluationError, failure } from './jinja/limits.ts';
import type { Kind } from './jinja/static_type.ts';
import type { Value } from './jinja/values.ts';
import type { LookUp } from './join.ts';
import { cellOf, type JsonRow, jsonOf, refuseRounded, rowColumns } from './json_rows.ts';
import { compileRules, type RuleSet } from './rules.ts';
import { forEachRow, Turns } from './turns.ts';

export interface Preview {
  /** Rows that the rule lets through, with its target. */
  rows: JsonRow[];
  /** Rows that it would hold back, by their number from 0, and why. */
  rejected: { row: number; reason: string }[];
  /** How many rows a second the rule does here, on one core. */
  rows_per_second: number;
}

/** How long the rule is run to see how fast it is. */
const measureMilliseconds = 20;

/**
 * Runs a rule on rows. `columns`: their types in the source; a column without one has whatever JSON says: whole numbers are
 * ints, other numbers floats. Throws SluiceError `configuration` for a rule that cannot be compiled, or takes too long, ShapeError for numbers that
 * JSON may have rounded.
 */
export async function previewRule(
  rule: RuleInput,
  rows: readonly JsonRow[],
  columns: readonly { name: string; type: string }[] = [],
  { types, lookUp }: PreviewJoins = noJoins,
): Promise<Preview> {
  refuseRounded(rows, columns);
  const fields = rule.source_fields ?? [];
  const known = rowColumns([...rows, Object.fromEntries(fields.map((field) => [field, null]))], columns);
  const rules = compileRules([{ ...rule, on_error: rule.on_error === 'null' ? 'null' : 'reject' }], known, types);
  const preview: Preview = { rows: [], rejected: [], rows_per_second: 0 };
  const turns = new Turns();
  const decoded: (Value[] | EvaluationError)[] = [];
  await forEachRow(rows, turns, (row) => decoded.push(decodedRow(row, known)));
  const right = decoded.filter((values) => Array.isArray(values));
  await lookUpJoins(rules, right, lookUp, turns);
  await forEachRow(decoded, turns, (values, number) => {
    if (!Array.isArray(values)) return preview.rejected.push({ row: number, reason: values.message });
    const outcome = rules.apply([...values]);
    if (outcome === 'rejected') preview.rejected.push({ row: number, reason: rules.rejection.reason });
    if (outcome === 'kept') preview.rows.push(shownRow(rows[number]!, rules));
  });
  preview.rows_per_second = measure(rules, right);
  return preview;
}

/** The copies that rules of type join look into. */
export interface PreviewJoins {
  types: JoinedTypes;
  lookUp: LookUp;
}

const noJoins: PreviewJoins = { types: {}, lookUp: async () => new Map() };

function decodedRow(row: JsonRow, known: readonly ExpressionColumn[]): Value[] | EvaluationError {
  try {
    return valuesOf(row, known);
  } catch (error) {
    if (error instanceof EvaluationError) return error;
    throw error;
  }
}

/** Looks up what a rule of type join will ask for. */
export async function lookUpJoins(
  rules: RuleSet,
  rows: readonly Value[][],
  lookUp: LookUp,
  turns: Turns,
): Promise<void> {
  for (const join of rules.joins) {
    await forEachRow(rows, turns, (values) => rules.want(join, [...values]));
    await join.lookUp(lookUp);
  }
}

/** Values of a row. Throws EvaluationError for what is none of its column's type. */
function valuesOf(row: JsonRow, columns: readonly ExpressionColumn[]): Value[] {
  return columns.map((column) => {
    const value = cellOf(row, column);
    const typed = typeof column.type === 'string' && exact.has(typeOfSource(column.type).kind);
    if (typed && typeof value === 'string') throw failure(`${column.name} has a text that is no ${column.type}`);
    return value;
  });
}

/** Kinds that no text is of. */
const exact = new Set<Kind>(['int', 'decimal', 'float', 'bool', 'date', 'datetime']);

/** The row with what the rule made of it. */
function shownRow(row: JsonRow, rules: RuleSet): JsonRow {
  const shown: JsonRow = Object.assign(Object.create(null), row);
  for (const [i, { name }] of rules.targets.entries()) shown[name] = jsonOf(rules.values[i]!);
  return shown;
}

function measure(rules: RuleSet, rows: readonly Value[][]): number {
  if (rows.length === 0) return 0;
  const begun = performance.now();
  let done = 0;
  let elapsed = 0;
  for (; elapsed < measureMilliseconds; done++) {
    rules.apply([...rows[done % rows.length]!]);
    elapsed = performance.now() - begun;
  }
  return Math.round((done / elapsed) * 1000);
}
