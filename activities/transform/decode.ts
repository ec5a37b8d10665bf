/**
 * From a source's text of a value to the value that expressions compute with. Only the columns that a rule uses are
 * decoded, straight from the bytes of the change.
 */
import { DateTime, daysInMonth, daysOf, PlainDate } from './jinja/dates.ts';
import { Decimal, parseDecimal } from './jinja/decimal.ts';
import { parseJson } from './jinja/json_text.ts';
import { failure } from './jinja/limits.ts';
import { bigintDigits, decimalOf, ofKind, type StaticType } from './jinja/static_type.ts';
import { Float, integer, type Value } from './jinja/values.ts';

/** Reads the text in `bytes[start, end)`. Throws EvaluationError for text that is no value of the type. */
export type Decoder = (bytes: Buffer, start: number, end: number) => Value;

interface ColumnType {
  type: StaticType;
  decode: Decoder;
}

const digit0 = 0x30;
const minus = 0x2d;

function decodeText(bytes: Buffer, start: number, end: number): string {
  return bytes.toString('utf8', start, end);
}

function decodeInteger(bytes: Buffer, start: number, end: number): Value {
  if (end - start > 15) return integer(BigInt(bytes.toString('latin1', start, end)));
  const negative = bytes[start] === minus;
  let value = 0;
  for (let i = negative ? start + 1 : start; i < end; i++) value = value * 10 + bytes[i]! - digit0;
  return negative ? 0 - value : value;
}

function decodeDecimal(bytes: Buffer, start: number, end: number): Value {
  if (end - start > 16) return decodeLongDecimal(bytes, start, end);
  const negative = bytes[start] === minus;
  let coefficient = 0;
  let scale = 0;
  let point = false;
  for (let i = negative ? start + 1 : start; i < end; i++) {
    const digit = bytes[i]! - digit0;
    if (digit >= 0 && digit <= 9) {
      coefficient = coefficient * 10 + digit;
      if (point) scale++;
    } else if (bytes[i] === 0x2e && !point) point = true;
    else return decodeLongDecimal(bytes, start, end);
  }
  // Fifteen digits at most: a number holds them exactly.
  if (end - start - (point ? 1 : 0) - (negative ? 1 : 0) > 15) return decodeLongDecimal(bytes, start, end);
  return new Decimal(negative ? 0 - coefficient : coefficient, scale);
}

/** NaN and the infinities have no decimal: they become floats, which expressions can test. */
function decodeLongDecimal(bytes: Buffer, start: number, end: number): Value {
  const text = bytes.toString('latin1', start, end);
  return parseDecimal(text) ?? specialNumber(text);
}

function specialNumber(text: string): Value {
  const number = Number(text);
  if (text !== 'NaN' && Number.isNaN(number)) throw failure('the text is no number');
  return new Float(number);
}

/** What ClickHouse calls the floats that are no numbers: fields of copies are read here, too. */
const inCopies = new Map([
  ['nan', Number.NaN],
  ['inf', Number.POSITIVE_INFINITY],
  ['-inf', Number.NEGATIVE_INFINITY],
]);

function decodeFloat(bytes: Buffer, start: number, end: number): Value {
  const text = bytes.toString('latin1', start, end);
  const unusual = inCopies.get(text);
  return unusual === undefined ? specialNumber(text) : new Float(unusual);
}

function decodeBool(bytes: Buffer, start: number): Value {
  return bytes[start] === 0x74 || bytes[start] === 0x54 || bytes[start] === 0x31;
}

function number2(bytes: Buffer, at: number): number {
  const tens = bytes[at]! - digit0;
  const ones = bytes[at + 1]! - digit0;
  return tens >= 0 && tens <= 9 && ones >= 0 && ones <= 9 ? tens * 10 + ones : Number.NaN;
}

/** Days since 1970 of `2024-01-31`; refuses infinity, years of five digits and years before Christ. */
function decodeDays(bytes: Buffer, start: number): number {
  const year = number2(bytes, start) * 100 + number2(bytes, start + 2);
  const month = number2(bytes, start + 5);
  const day = number2(bytes, start + 8);
  const valid = year >= 1 && month >= 1 && month <= 12 && day >= 1 && day <= daysInMonth(year, month);
  if (!valid || bytes[start + 4] !== minus || bytes[start + 7] !== minus)
    throw failure('a date outside of the years 1 … 9999');
  return daysOf(year, month, day);
}

function decodeDate(bytes: Buffer, start: number, end: number): Value {
  if (end - start !== 10) throw failure('a date outside of the years 1 … 9999');
  return new PlainDate(decodeDays(bytes, start));
}

function decodeMoment(bytes: Buffer, start: number, end: number, utc: boolean): Value {
  const clock = start + 11;
  const seconds = number2(bytes, clock) * 3600 + number2(bytes, clock + 3) * 60 + number2(bytes, clock + 6);
  let microseconds = 0;
  let at = clock + 8;
  if (bytes[at] === 0x2e) {
    let unit = 100_000;
    for (at++; at < end && bytes[at]! >= digit0 && bytes[at]! <= 0x39; at++) {
      // Smaller parts than expressions know are cut off.
      if (unit >= 1) microseconds += (bytes[at]! - digit0) * unit;
      unit /= 10;
    }
  }
  // Sessions run in UTC: a zone can only be +00, and BC only stands behind everything.
  const rest = bytes.toString('latin1', at, end);
  if (rest !== '' && !/^(?:[+-]00(?::00)?|Z)$/.test(rest)) throw failure('a timestamp outside of the years 1 … 9999');
  if (Number.isNaN(seconds)) throw failure('a timestamp outside of the years 1 … 9999');
  return new DateTime(decodeDays(bytes, start), seconds * 1e6 + microseconds, utc);
}

function decodeJson(bytes: Buffer, start: number, end: number): Value {
  const value = parseJson(bytes.toString('utf8', start, end));
  if (value === undefined) throw failure('the text is no JSON');
  return value;
}

/** PostgreSQL's text of an array: `{1,NULL,"a b"}`, in any number of dimensions, with or without bounds. */
function arrayDecoder(element: Decoder, delimiter: number): Decoder {
  return (bytes, start, end) => {
    // Bounds that are not 1 stand before the braces: `[2:3]={…}`.
    const open = bytes.indexOf(0x7b, start);
    if (open < 0 || open >= end) throw failure('the text is no array');
    const [items, next] = decodeItems(bytes, open + 1, end, element, delimiter);
    if (next !== end) throw failure('the text is no array');
    return items;
  };
}

/** The items up to the closing brace, and where the text goes on behind it. */
function decodeItems(bytes: Buffer, from: number, end: number, element: Decoder, delimiter: number): [Value[], number] {
  const items: Value[] = [];
  let at = from;
  while (at < end && bytes[at] !== 0x7d) {
    if (bytes[at] === 0x7b) {
      const [inner, next] = decodeItems(bytes, at + 1, end, element, delimiter);
      items.push(inner);
      at = next;
    } else if (bytes[at] === 0x22) {
      const quoted: number[] = [];
      for (at++; at < end && bytes[at] !== 0x22; at++) {
        if (bytes[at] === 0x5c) at++;
        quoted.push(bytes[at]!);
      }
      at++;
      items.push(element(Buffer.from(quoted), 0, quoted.length));
    } else {
      const begin = at;
      while (at < end && bytes[at] !== delimiter && bytes[at] !== 0x7d) at++;
      items.push(bytes.toString('latin1', begin, at).toUpperCase() === 'NULL' ? null : element(bytes, begin, at));
    }
    if (bytes[at] === delimiter) at++;
  }
  if (at >= end) throw failure('the text is no array');
  return [items, at + 1];
}

const text: ColumnType = { type: ofKind('text'), decode: decodeText };
const whole = (digits: number): ColumnType => ({ type: { kind: 'int', digits }, decode: decodeInteger });
const floating: ColumnType = { type: ofKind('float'), decode: decodeFloat };
const moment = (utc: boolean): ColumnType => ({
  type: ofKind('datetime'),
  decode: (bytes, start, end) => decodeMoment(bytes, start, end, utc),
});
const json: ColumnType = { type: ofKind('any'), decode: decodeJson };

/** Types of PostgreSQL as it prints them. What is not here is a text, as in the copy. */
const named = new Map<string, ColumnType>([
  ['smallint', whole(5)],
  ['integer', whole(10)],
  ['bigint', whole(bigintDigits)],
  ['oid', whole(10)],
  ['real', floating],
  ['double precision', floating],
  ['numeric', { type: ofKind('decimal'), decode: decodeDecimal }],
  ['boolean', { type: ofKind('bool'), decode: decodeBool }],
  ['date', { type: ofKind('date'), decode: decodeDate }],
  ['timestamp without time zone', moment(false)],
  ['timestamp', moment(false)],
  ['timestamp with time zone', moment(true)],
  ['timestamptz', moment(true)],
  ['json', json],
  ['jsonb', json],
]);

const arraySuffix = /(?:\[\])+$/;

function columnType(type: string): ColumnType {
  const element = type.replace(arraySuffix, '');
  if (element !== type) {
    const delimiter = element === 'box' ? 0x3b : 0x2c;
    return { type: ofKind('list'), decode: arrayDecoder(columnType(element).decode, delimiter) };
  }
  const numeric = /^numeric\((\d+),(-?\d+)\)$/.exec(type);
  if (numeric) return { type: numericType(Number(numeric[1]), Number(numeric[2])), decode: decodeDecimal };
  return named.get(type.replace(/\(\d+\)/, '')) ?? named.get(type) ?? text;
}

/** (5,-2) has up to 7 digits before the point, (3,5) three digits from the third place on. */
function numericType(precision: number, scale: number): StaticType {
  const places = Math.max(scale, 0);
  return decimalOf(Math.max(precision - Math.min(scale, 0), places), places);
}

/** The decoder for a type of PostgreSQL, written as `format_type` prints it. */
export function decoderFor(type: string): Decoder {
  return columnType(type).decode;
}

/** What is known of values of a type of PostgreSQL. */
export function typeOfSource(type: string): StaticType {
  return columnType(type).type;
}
