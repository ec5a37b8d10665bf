/** What a rule would make of some rows, before it is used: for POST /api/v1/transformations/preview. */
import { performance } from 'node:perf_hooks';
import type { RuleInput } from '../../model/rules.ts';
import { decoderFor } from './decode.ts';
import { storedText } from './encode.ts';
import type { ExpressionColumn } from './expression.ts';
import { Decimal, decimalText } from './jinja/decimal.ts';
import { parseJson } from './jinja/json_text.ts';
import { EvaluationError } from './jinja/limits.ts';
import { ofKind } from './jinja/static_type.ts';
import { Dict, Float, Tuple, type Value } from './jinja/values.ts';
import { compileRules, type RuleSet } from './rules.ts';

/** A row as JSON has it. */
export type PreviewRow = Record<string, unknown>;

export interface Preview {
  /** Rows that the rule lets through, with its target. */
  rows: PreviewRow[];
  /** Rows that it would hold back, by their number from 0, and why. */
  rejected: { row: number; reason: string }[];
  /** How many rows a second the rule does here, on one core. */
  rows_per_second: number;
}

/** How long the rule is run to see how fast it is. */
const measureMilliseconds = 20;

/**
 * Runs a rule on rows. `columns`: their types in the source; a column without one has whatever JSON says: whole numbers are
 * ints, other numbers floats. Throws SluiceError `configuration` for a rule that cannot be compiled.
 */
export function previewRule(
  rule: RuleInput,
  rows: readonly PreviewRow[],
  columns: readonly { name: string; type: string }[] = [],
): Preview {
  const known = allColumns(rows, columns);
  const rules = compileRules([{ ...rule, on_error: rule.on_error === 'null' ? 'null' : 'reject' }], known);
  const types = new Map(columns.map(({ name, type }) => [name, type]));
  const preview: Preview = { rows: [], rejected: [], rows_per_second: 0 };
  const decoded: Value[][] = [];
  for (const [number, row] of rows.entries()) {
    try {
      const values = known.map(({ name }) => decodeJson(ownValue(row, name), types.get(name)));
      decoded.push(values);
      const outcome = rules.apply([...values]);
      if (outcome === 'rejected') preview.rejected.push({ row: number, reason: rules.rejection.reason });
      if (outcome === 'kept') preview.rows.push(shownRow(row, rules));
    } catch (error) {
      if (!(error instanceof EvaluationError)) throw error;
      preview.rejected.push({ row: number, reason: error.message });
    }
  }
  preview.rows_per_second = measure(rules, decoded);
  return preview;
}

function ownValue(row: PreviewRow, name: string): unknown {
  return Object.hasOwn(row, name) ? row[name] : null;
}

/** Columns that rows have, with those of `columns` before; what these do not say of their types, the rows do. */
export function allColumns(
  rows: readonly PreviewRow[],
  columns: readonly { name: string; type: string }[],
): ExpressionColumn[] {
  const known = new Map<string, ExpressionColumn>(columns.map((column) => [column.name, column]));
  for (const name of rows.flatMap((row) => Object.keys(row)))
    if (!known.has(name)) known.set(name, { name, type: kindOf(rows, name) });
  return [...known.values()];
}

/** What is known of a column of JSON: its kind, where all rows agree. */
function kindOf(rows: readonly PreviewRow[], name: string) {
  const kinds = new Set(rows.map((row) => jsonKind(ownValue(row, name))).filter((kind) => kind !== 'none'));
  const [kind = 'any'] = kinds;
  return ofKind(kinds.size === 1 ? kind : 'any');
}

function jsonKind(value: unknown) {
  if (value === null || value === undefined) return 'none';
  if (typeof value === 'string') return 'text';
  if (typeof value === 'boolean') return 'bool';
  if (typeof value === 'number') return Number.isInteger(value) ? 'int' : 'float';
  return 'any';
}

/** A value of JSON, by the type of its column where that is known. */
function decodeJson(json: unknown, type: string | undefined): Value {
  if (json === null || json === undefined) return null;
  const text = typeof json === 'string' ? json : JSON.stringify(json);
  if (type === undefined) return typeof json === 'string' ? json : parseJson(text)!;
  const bytes = Buffer.from(text);
  return decoderFor(type)(bytes, 0, bytes.length);
}

/** The row with what the rule made of it. */
function shownRow(row: PreviewRow, rules: RuleSet): PreviewRow {
  const shown: PreviewRow = Object.assign(Object.create(null), row);
  for (const [i, { name }] of rules.targets.entries()) shown[name] = jsonOf(rules.values[i]!);
  return shown;
}

/** A value for an answer: numbers that JSON's readers would round are texts. */
export function jsonOf(value: Value): unknown {
  if (value === null || typeof value !== 'object') return typeof value === 'bigint' ? String(value) : value;
  if (value instanceof Float) return Number.isFinite(value.number) ? value.number : String(value.number);
  if (value instanceof Decimal) return decimalText(value);
  if (Array.isArray(value)) return value.map(jsonOf);
  if (value instanceof Tuple) return value.items.map(jsonOf);
  if (!(value instanceof Dict)) return storedText(value);
  const shown: PreviewRow = Object.create(null);
  for (const [key, item] of value.entries()) shown[storedText(key)] = jsonOf(item);
  return shown;
}

function measure(rules: RuleSet, rows: readonly Value[][]): number {
  if (rows.length === 0) return 0;
  const begun = performance.now();
  let done = 0;
  let elapsed = 0;
  while (elapsed < measureMilliseconds) {
    for (const row of rows) rules.apply([...row]);
    done += rows.length;
    elapsed = performance.now() - begun;
  }
  return Math.round((done / elapsed) * 1000);
}
