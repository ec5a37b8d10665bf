/**
 * Values of fields as JSON holds them. Integers beyond ±2^53 and decimals are exact only as texts; bytes are texts with one
 * character of up to U+00FF for each, as in Avro's JSON; times are ISO 8601.
 */
import type { FieldType, SimpleType } from './field_type.ts';
import { formatInstant, parseInstant } from './instant.ts';

/** A value in its canonical form, or what is wrong with it. */
export type Reading = { value: unknown } | { problem: string };

/** The largest number that a 32-bit float can hold. */
const largestFloat = 3.4028234663852886e38;
/** Numbers of JSON with more digits than this may have been rounded before anybody could see it. */
const exactDigits = 15;
const maxDepth = 64;
/** Longer texts are no number. */
const maxText = 200;

const limits: Record<'int' | 'long', [bigint, bigint]> = {
  int: [-(2n ** 31n), 2n ** 31n - 1n],
  long: [-(2n ** 63n), 2n ** 63n - 1n],
};

/** Reads a value of a type; null is a value of `null` and `json` alone. */
export function readValue(value: unknown, type: FieldType): Reading {
  if (type.kind === 'decimal') return readDecimal(value, type.precision, type.scale);
  if (type.kind === 'array') return readArray(value, type.items);
  return readers[type.kind](value);
}

const readers: Record<SimpleType, (value: unknown) => Reading> = {
  null: (value) => (value === null ? { value } : wrong(value, 'must be null')),
  boolean: (value) => (typeof value === 'boolean' ? { value } : wrong(value, 'must be true or false')),
  int: (value) => readInteger(value, 'int'),
  long: (value) => readInteger(value, 'long'),
  float: (value) => readFloat(value, largestFloat),
  double: (value) => readFloat(value, Number.MAX_VALUE),
  bytes: readBytes,
  string: (value) => (typeof value === 'string' ? { value } : wrong(value, 'must be a text')),
  date: readDate,
  timestamp: readTimestamp,
  uuid: readUuid,
  json: (value) => readJson(value, 0),
};

function readInteger(value: unknown, kind: 'int' | 'long'): Reading {
  if (typeof value === 'number' && Number.isInteger(value) && !Number.isSafeInteger(value)) {
    return { problem: `a number of this size is not exact in JSON: write it as a text, e.g. "9007199254740993"` };
  }
  const isText = typeof value === 'string' && /^-?\d{1,40}$/.test(value);
  if (!isText && !Number.isInteger(value)) return wrong(value, 'must be a whole number');
  const whole = BigInt(value as string | number);
  const [lowest, highest] = limits[kind];
  if (whole < lowest || whole > highest) return { problem: `must be ${lowest} to ${highest}` };
  return { value: integerValue(whole) };
}

/** A whole number as JSON holds it exactly. */
export function integerValue(whole: bigint): number | string {
  const number = Number(whole);
  return Number.isSafeInteger(number) ? number : String(whole);
}

const unusual = new Map([
  ['nan', 'NaN'],
  ['inf', 'Infinity'],
  ['+inf', 'Infinity'],
  ['infinity', 'Infinity'],
  ['-inf', '-Infinity'],
  ['-infinity', '-Infinity'],
]);

function readFloat(value: unknown, largest: number): Reading {
  if (typeof value === 'number' && Number.isFinite(value)) {
    return Math.abs(value) <= largest ? { value } : { problem: `must be at most ±${largest}` };
  }
  const name = typeof value === 'string' ? unusual.get(value.toLowerCase()) : undefined;
  return name === undefined ? wrong(value, 'must be a number, "NaN", "Infinity" or "-Infinity"') : { value: name };
}

function readDecimal(value: unknown, precision: number, scale: number): Reading {
  const text = typeof value === 'number' ? String(value) : value;
  const match = typeof text === 'string' && text.length <= maxText ? /^(-?)0*(\d*?)(?:\.(\d*?)0*)?$/.exec(text) : null;
  if (match === null || !/\d/.test(text as string)) return wrong(value, 'must be a decimal, e.g. "12.50"');
  const [, sign, digits = '', fraction = ''] = match;
  if (typeof value === 'number' && digits.length + fraction.length > exactDigits) {
    return { problem: 'a number with so many digits is not exact in JSON: write it as a text' };
  }
  if (digits.length > precision - scale)
    return { problem: `has more than ${precision - scale} digits before the point` };
  if (fraction.length > scale) return { problem: `has more than ${scale} digits behind the point` };
  const padded = fraction.padEnd(scale, '0');
  const isZero = digits === '' && fraction === '';
  return { value: `${isZero ? '' : sign}${digits === '' ? '0' : digits}${scale === 0 ? '' : `.${padded}`}` };
}

function readBytes(value: unknown): Reading {
  if (typeof value !== 'string') return wrong(value, 'must be a text');
  return /^[\u0000-\u00ff]*$/.test(value)
    ? { value }
    : { problem: 'must have a character of up to U+00FF for each byte, e.g. "\\u00ff"' };
}

function readDate(value: unknown): Reading {
  const isDate = typeof value === 'string' && value.length === 10 && parseInstant(value) !== undefined;
  return isDate ? { value } : wrong(value, 'must be a day, e.g. "2026-01-31"');
}

function readTimestamp(value: unknown): Reading {
  const example = 'must be an instant, e.g. "2026-01-31T09:30:00.123456Z"; without a zone it is UTC';
  if (typeof value !== 'string') return wrong(value, example);
  // PostgreSQL prints zones of whole hours without minutes.
  const text = value.replace(/:\d\d(\.\d+)?[+-]\d\d$/, '$&:00');
  const instant = parseInstant(text) ?? parseInstant(`${text}Z`);
  if (instant === undefined) return wrong(value, example);
  return instant % 1000n === 0n ? { value: formatInstant(instant) } : { problem: 'is finer than a microsecond' };
}

function readUuid(value: unknown): Reading {
  const isUuid = typeof value === 'string' && /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i.test(value);
  return isUuid
    ? { value: (value as string).toLowerCase() }
    : wrong(value, 'must be a UUID, e.g. "018f3b1e-0000-7000-8000-000000000000"');
}

/** Any JSON; keys in one order. */
function readJson(value: unknown, depth: number): Reading {
  if (depth > maxDepth) return { problem: `is more than ${maxDepth} deep` };
  if (value === undefined || (typeof value === 'number' && !Number.isFinite(value))) return { problem: 'is no JSON' };
  if (typeof value !== 'object' || value === null) return { value };
  const read: [string, unknown][] = [];
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1));
  for (const [key, inner] of Array.isArray(value) ? [...value.entries()] : entries) {
    const reading = readJson(inner, depth + 1);
    if ('problem' in reading) return reading;
    read.push([String(key), reading.value]);
  }
  return { value: Array.isArray(value) ? read.map(([, inner]) => inner) : Object.fromEntries(read) };
}

function readArray(value: unknown, items: FieldType): Reading {
  if (!Array.isArray(value)) return wrong(value, 'must be an array');
  const values: unknown[] = [];
  for (const [index, item] of value.entries()) {
    const reading = item === null ? { value: null } : readValue(item, items);
    if ('problem' in reading) return { problem: `item ${index + 1} ${reading.problem}` };
    values.push(reading.value);
  }
  return { value: values };
}

/** Names the kind of the value and never the value: it may be private. */
function wrong(value: unknown, must: string): { problem: string } {
  const kind = value === null ? 'null' : Array.isArray(value) ? 'an array' : (kinds[typeof value] ?? typeof value);
  return { problem: `${must} (it is ${kind})` };
}

const kinds: Partial<Record<string, string>> = {
  string: 'a text',
  number: 'a number',
  boolean: 'true or false',
  object: 'an object',
  undefined: 'not there',
};
