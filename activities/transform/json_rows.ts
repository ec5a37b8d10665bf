/** Rows of JSON as values that rules and checks compute with, and such values as JSON. */
import { SluiceError } from '../../model/errors.ts';
import { Issues, pointerPart, ShapeError } from '../../model/shape_error.ts';
import { decoderFor, typeOfSource } from './decode.ts';
import { storedText } from './encode.ts';
import type { ExpressionColumn } from './expression.ts';
import { Decimal, decimalText, parseDecimal } from './jinja/decimal.ts';
import { parseJson } from './jinja/json_text.ts';
import { EvaluationError } from './jinja/limits.ts';
import { type Kind, ofKind, type StaticType } from './jinja/static_type.ts';
import { Dict, Float, integer, Tuple, type Value } from './jinja/values.ts';

/** A row as JSON has it. */
export type JsonRow = Record<string, unknown>;

/** Each row gets a value for each column: columns that all have other names would be many times the rows. */
const mostColumns = 1000;

/**
 * Columns that rows have, with those of `columns` before; what these do not say of their types, the rows do. Errors:
 * `configuration` for too many columns.
 */
export function rowColumns(
  rows: readonly JsonRow[],
  columns: readonly { name: string; type: string }[],
): ExpressionColumn[] {
  const known = new Set(columns.map((column) => column.name));
  const found = new Map<string, Set<Kind>>();
  for (const row of rows) {
    for (const name of Object.keys(row)) {
      if (known.has(name)) continue;
      const kinds = found.get(name) ?? new Set();
      found.set(name, kinds);
      const kind = jsonKind(row[name]);
      if (kind !== 'none') kinds.add(kind);
    }
  }
  if (found.size > mostColumns) {
    const reason = `the rows have more than ${mostColumns} columns`;
    throw new SluiceError('configuration', reason, 'Send those that the rule or check uses.');
  }
  return [...columns, ...[...found].map(([name, kinds]) => ({ name, type: commonKind(kinds) }))];
}

/** What a program may have rounded before anybody could see it: JSON's readers have numbers of 53 bits. */
const exactDigits = 15;

/**
 * Throws ShapeError for numbers that may be others than were sent, each with its place below `/rows`: of exact columns those with
 * more digits than are safe, elsewhere large whole ones. A float is what JSON says.
 */
export function refuseRounded(rows: readonly JsonRow[], columns: readonly { name: string; type: string }[]): void {
  const kinds = new Map(columns.map(({ name, type }) => [name, typeOfSource(type).kind]));
  const issues = new Issues('/rows');
  const look = (value: unknown, at: string, kind: Kind | undefined): void => {
    if (typeof value === 'number' && isRounded(value, kind))
      issues.add(at, 'a number with so many digits is not exact in JSON: write it as a text');
    else if (typeof value === 'object' && value !== null)
      for (const [key, inner] of Object.entries(value)) look(inner, `${at}/${pointerPart(key)}`, undefined);
  };
  for (const [number, row] of rows.entries())
    for (const [name, value] of Object.entries(row)) look(value, `/${number}/${pointerPart(name)}`, kinds.get(name));
  if (issues.found.length > 0)
    throw new ShapeError('numbers of the rows are not exact', issues.found, 'Write them as texts.');
}

function isRounded(value: number, kind: Kind | undefined): boolean {
  if (kind === 'float') return false;
  if (Number.isInteger(value)) return !Number.isSafeInteger(value);
  return kind === 'decimal' && String(value).replace(/^-?0?\.?0*|e.*$|\./g, '').length > exactDigits;
}

/** What is known of a column of JSON: its kind, where all rows agree. */
function commonKind(kinds: ReadonlySet<Kind>): StaticType {
  const [kind = 'any'] = kinds;
  return ofKind(kinds.size === 1 ? kind : 'any');
}

function jsonKind(value: unknown): Kind {
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
