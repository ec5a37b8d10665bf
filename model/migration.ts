/**
 * Rewrites rows from one schema to another: defaults for fields that are new, renames by alias, promotions; fields that are
 * gone are left out. Where the new type is narrower, a value that fits is kept, and one that does not is an issue.
 */
import { fieldsByName, writerFields } from './compatibility.ts';
import { type FieldType, typeOf, typeText } from './field_type.ts';
import { type Reading, readValue } from './field_value.ts';
import { type Field, hasDefault, type Schema } from './schema.ts';
import { pointerPart, ShapeError, type ShapeIssue } from './shape_error.ts';

const issuesLimit = 100;

/** A field with its type read. */
interface Typed {
  field: Field;
  type: FieldType;
}

/** One field of the new rows, and where it comes from. */
interface Step extends Typed {
  /** Absent: the field is new. */
  source?: Typed;
}

/**
 * The rows in the shape of `to`. All or none: throws ShapeError with a pointer for each value that does not fit, at most
 * 100; `pointer` is where the rows stand. Values whose type stays are returned as they came.
 */
export function migrateRows(
  rows: readonly unknown[],
  from: Schema,
  to: Schema,
  pointer = '',
): Record<string, unknown>[] {
  const steps = planSteps(from, to);
  const known = fieldsByName(from);
  const sources = from.fields.map(typed);
  const issues: ShapeIssue[] = [];
  const migrated = rows.map((row, index) => {
    const at = `${pointer}/${index}`;
    if (!isRow(row)) {
      issues.push({ pointer: at, detail: 'must be an object' });
      return {};
    }
    for (const key of Object.keys(row)) {
      if (!known.has(key))
        issues.push({ pointer: place(at, key), detail: 'is no field of the schema that it comes from' });
    }
    return migrateRow(row, sources, steps, at, issues);
  });
  if (issues.length > 0) throw refused(issues);
  return migrated;
}

function refused(issues: ShapeIssue[]): ShapeError {
  const remedy = 'Correct these values, or migrate to a version that they fit.';
  return new ShapeError('rows do not fit', issues.slice(0, issuesLimit), remedy);
}

function planSteps(from: Schema, to: Schema): Step[] {
  const written = fieldsByName(from);
  const found = to.fields.map((field, index) => sourceOf(written, field, index));
  const taken = new Set(found);
  return to.fields.map((field, index) => {
    // The way back: a field that was renamed in between bears the older name as an alias.
    const renamed = (one: Field) => !taken.has(one) && one.aliases?.includes(field.name);
    const source = found[index] ?? from.fields.find(renamed);
    return source ? { ...typed(field), source: typed(source) } : typed(field);
  });
}

function sourceOf(written: ReadonlyMap<string, Field>, field: Field, index: number): Field | undefined {
  const [source, other] = writerFields(written, field);
  if (source === undefined || other === undefined) return source;
  const detail = `\`${field.name}\` stands for both \`${source.name}\` and \`${other.name}\``;
  const remedy = 'Register a version where its aliases stand for one field.';
  const issue = { pointer: `/to/fields/${index}`, detail };
  throw new ShapeError('nobody can tell which field is meant', [issue], remedy);
}

function typed(field: Field): Typed {
  return { field, type: typeOf(field.type) };
}

function migrateRow(
  row: Record<string, unknown>,
  sources: Typed[],
  steps: Step[],
  at: string,
  issues: ShapeIssue[],
): Record<string, unknown> {
  const values = new Map<string, Reading>();
  for (const { field, type } of sources) {
    const reading = readOwn(row, field, type);
    if ('problem' in reading) issues.push({ pointer: place(at, field.name), detail: reading.problem });
    else values.set(field.name, reading);
  }
  const entries = steps.flatMap((step): [string, unknown][] => {
    const { field, source } = step;
    if (source === undefined) {
      if (hasDefault(field)) return [[field.name, field.default]];
      issues.push({ pointer: place(at, field.name), detail: 'is missing, and the new version has no default for it' });
      return [];
    }
    const value = values.get(source.field.name);
    if (value === undefined || 'problem' in value) return [];
    const given = Object.hasOwn(row, source.field.name) ? row[source.field.name] : value.value;
    const reading = convertField(given, value.value, step);
    if ('value' in reading) return [[field.name, reading.value]];
    issues.push({ pointer: place(at, source.field.name), detail: reading.problem });
    return [];
  });
  return Object.fromEntries(entries);
}

/** A row's value of a field, checked; one that is not there is the field's default. */
function readOwn(row: Record<string, unknown>, field: Field, type: FieldType): Reading {
  if (!Object.hasOwn(row, field.name)) {
    return hasDefault(field) ? { value: field.default } : { problem: 'is missing, and has no default' };
  }
  const value = row[field.name];
  if (value === null && field.nullable) return { value };
  return readValue(value, type);
}

/** `given` is the value as it came, `value` its canonical form. */
function convertField(given: unknown, value: unknown, { field, type, source }: Step): Reading {
  const isNull = value === null && source!.type.kind !== 'json';
  if (isNull || (value === null && field.nullable)) {
    return field.nullable ? { value: null } : { problem: 'is null, and the field of the new version is not nullable' };
  }
  if (field.type === source!.field.type) return { value: given };
  return convert(value, source!.type, type);
}

function convert(value: unknown, from: FieldType, to: FieldType): Reading {
  if (typeText(from) === typeText(to)) return { value };
  if (from.kind === 'array' && to.kind === 'array') return convertItems(value as unknown[], from.items, to.items);
  const problem = `${typeText(from)} cannot become ${typeText(to)}`;
  if (from.kind === 'bytes' && to.kind === 'string') return utf8Text(value as string);
  if (from.kind === 'string' && to.kind === 'bytes') return utf8Bytes(value as string);
  if (to.kind === 'string') {
    if (from.kind === 'json') return { value: JSON.stringify(value) };
    return isText(from) ? { value } : { problem };
  }
  if (from.kind === 'string' && isText(to)) return readValue(value, to);
  return isNumber(from) && isNumber(to) ? convertNumber(value as number | string, from, to) : { problem };
}

/** Types whose values are texts with a form. */
function isText({ kind }: FieldType): boolean {
  return kind === 'uuid' || kind === 'date' || kind === 'timestamp';
}

function isNumber({ kind }: FieldType): boolean {
  return kind === 'int' || kind === 'long' || kind === 'float' || kind === 'double' || kind === 'decimal';
}

function isFloat({ kind }: FieldType): boolean {
  return kind === 'float' || kind === 'double';
}

function convertItems(values: unknown[], from: FieldType, to: FieldType): Reading {
  const items: unknown[] = [];
  for (const [index, value] of values.entries()) {
    const reading = value === null ? { value } : convert(value, from, to);
    if ('problem' in reading) return { problem: `item ${index + 1}: ${reading.problem}` };
    items.push(reading.value);
  }
  return { value: items };
}

/** Whole numbers become floats as Avro promotes them, to the nearest one. Else a number stays the same or does not fit. */
function convertNumber(value: number | string, from: FieldType, to: FieldType): Reading {
  if (!isFloat(to)) {
    const text = isFloat(from) ? wholeText(value) : String(value);
    if (text === undefined) return { problem: `is no number that ${typeText(to)} can hold` };
    return readValue(to.kind === 'decimal' ? text : text.replace(/\.0+$/, ''), to);
  }
  if (from.kind === 'decimal') return { problem: `${typeText(from)} cannot become ${to.kind}` };
  if (!isFloat(from)) return { value: to.kind === 'float' ? Math.fround(Number(value)) : Number(value) };
  if (to.kind === 'float' && typeof value === 'number' && !fitsFloat(value)) {
    return { problem: 'has more digits than a float can hold' };
  }
  return { value };
}

/** A float that is a whole number, as a text. */
function wholeText(value: number | string): string | undefined {
  return typeof value === 'number' && Number.isSafeInteger(value) ? String(value) : undefined;
}

/** Any number of up to six digits comes back from 32 bits as it was. */
function fitsFloat(value: number): boolean {
  const single = Math.fround(value);
  return single === value || Number(single.toPrecision(6)) === value;
}

function utf8Bytes(text: string): Reading {
  if (!text.isWellFormed()) return { problem: 'has half a character at its end or between others' };
  const value = Array.from(new TextEncoder().encode(text), (byte) => String.fromCharCode(byte)).join('');
  return { value };
}

function utf8Text(bytes: string): Reading {
  try {
    const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
    return { value: decoder.decode(Uint8Array.from(bytes, (char) => char.charCodeAt(0))) };
  } catch {
    return { problem: 'are bytes that are no text in UTF-8' };
  }
}

function isRow(row: unknown): row is Record<string, unknown> {
  return typeof row === 'object' && row !== null && !Array.isArray(row);
}

function place(row: string, field: string): string {
  return `${row}/${pointerPart(field)}`;
}
