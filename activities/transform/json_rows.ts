/** Rows of JSON as values that rules and checks compute with, and such values as JSON. */
import { decoderFor, typeOfSource } from './decode.ts';
import { storedText } from './encode.ts';
import type { ExpressionColumn } from './expression.ts';
import { Decimal, decimalText, parseDecimal } from './jinja/decimal.ts';
import { parseJson } from './jinja/json_text.ts';
import { EvaluationError } from './jinja/limits.ts';
import { ofKind } from './jinja/static_type.ts';
import { Dict, Float, integer, Tuple, type Value } from './jinja/values.ts';

/** A row as JSON has it. */
export type JsonRow = Record<string, unknown>;

function ownValue(row: JsonRow, name: string): unknown {
  return Object.hasOwn(row, name) ? row[name] : null;
}

/** Columns that rows have, with those of `columns` before; what these do not say of their types, the rows do. */
export function rowColumns(
  rows: readonly JsonRow[],
  columns: readonly { name: string; type: string }[],
): ExpressionColumn[] {
  const known = new Map<string, ExpressionColumn>(columns.map((column) => [column.name, column]));
  for (const name of rows.flatMap((row) => Object.keys(row)))
    if (!known.has(name)) known.set(name, { name, type: kindOf(rows, name) });
  return [...known.values()];
}

/** What is known of a column of JSON: its kind, where all rows agree. */
function kindOf(rows: readonly JsonRow[], name: string) {
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

/** A cell as a value of its column; what is none of its type stays as JSON has it, and fails where that matters. */
export function cellOf(row: JsonRow, { name, type }: ExpressionColumn): Value {
  const json = Object.hasOwn(row, name) ? row[name] : null;
  if (json === null || json === undefined) return null;
  const typed = typeof type === 'string' ? typedCell(json, type) : undefined;
  if (typed !== undefined) return typed;
  return typeof json === 'string' ? json : (parseJson(JSON.stringify(json)) ?? null);
}

function typedCell(json: unknown, type: string): Value | undefined {
  const text = typeof json === 'string' ? json : JSON.stringify(json);
  switch (typeOfSource(type).kind) {
    case 'int':
      return /^-?\d{1,100}$/.test(text) ? integer(BigInt(text)) : undefined;
    case 'decimal':
      return text.length <= 200 ? parseDecimal(text) : undefined;
    case 'float':
      return typeof json === 'number' ? new Float(json) : undefined;
    case 'date':
    case 'datetime':
      return decoded(text, type);
    default:
      return undefined;
  }
}

function decoded(text: string, type: string): Value | undefined {
  try {
    const bytes = Buffer.from(text);
    return decoderFor(type)(bytes, 0, bytes.length);
  } catch (error) {
    if (error instanceof EvaluationError) return undefined;
    throw error;
  }
}

/** A value for an answer: numbers that JSON's readers would round are texts. */
export function jsonOf(value: Value): unknown {
  if (value === null || typeof value !== 'object') return typeof value === 'bigint' ? String(value) : value;
  if (value instanceof Float) return Number.isFinite(value.number) ? value.number : String(value.number);
  if (value instanceof Decimal) return decimalText(value);
  if (Array.isArray(value)) return value.map(jsonOf);
  if (value instanceof Tuple) return value.items.map(jsonOf);
  if (!(value instanceof Dict)) return storedText(value);
  const shown: JsonRow = Object.create(null);
  for (const [key, item] of value.entries()) shown[storedText(key)] = jsonOf(item);
  return shown;
}
