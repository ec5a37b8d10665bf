/** Python's `text % values`, which is also Jinja2's filter `format`. */
import { claimNumber, claimScan, claimText, failure, made, spend, watchText } from './limits.ts';
import { characterOf, type Digits, digitsOf, fixed, general, inBase, withExponent } from './number_format.ts';
import { isInteger, isNumber, toInteger, wholePart } from './numbers.ts';
import { textLength, toRepr, toText, unitOffset } from './text.ts';
import { Dict, type Integer, Range, Tuple, typeName, Undefined, type Value } from './values.ts';

const directive = /%(?:\(([^()]*)\))?([-#0 +]*)(\*|[0-9]+)?(?:\.(\*|[0-9]*))?[hlL]?([\s\S])?/gu;

/** The text with its directives replaced by values: one value, a tuple of them, or a dict for `%(name)s`. */
export function formatPercent(text: string, values: Value): string {
  claimScan(text.length);
  const source = new Values(values);
  let result = '';
  let at = 0;
  for (const match of text.matchAll(directive)) {
    spend(2);
    result += text.slice(at, match.index);
    result += replaceDirective(match, source);
    watchText(result.length);
    at = match.index + match[0].length;
  }
  source.end();
  return made(result + text.slice(at));
}

/** Where directives take their values from. */
class Values {
  readonly #values: Value;
  #next = 0;

  constructor(values: Value) {
    this.#values = values;
  }

  take(): Value {
    const { items } = this.#values instanceof Tuple ? this.#values : { items: [this.#values] };
    if (this.#next >= items.length) throw failure('not enough values for the format');
    return items[this.#next++]!;
  }

  named(name: string): Value {
    if (this.#values instanceof Undefined) return this.#values.fail();
    if (!(this.#values instanceof Dict)) throw failure('a format with names needs a dict');
    const value = this.#values.get(name);
    if (value === undefined) throw failure('the format names a key that the dict does not have');
    // The dict counts as used.
    this.#next = 1;
    return value;
  }

  end(): void {
    const values = this.#values;
    if (Array.isArray(values) || values instanceof Dict || values instanceof Range || values instanceof Undefined)
      return;
    const count = values instanceof Tuple ? values.items.length : 1;
    if (this.#next < count) throw failure('the format does not use all values');
  }
}

function replaceDirective(match: RegExpExecArray, source: Values): string {
  const [, name, flags = '', width, precision, type] = match;
  if (type === undefined) throw failure('the format ends in the middle of a directive');
  let left = flags.includes('-');
  let room = 0;
  if (width === '*') {
    room = takeInteger(source);
    if (room < 0) left = true;
    room = Math.abs(room);
  } else if (width !== undefined) room = Number(width);
  const places =
    precision === '*' ? Math.max(0, takeInteger(source)) : precision === undefined ? undefined : Number(precision);
  if (type === '%') return '%';
  const value = name === undefined ? source.take() : source.named(name);
  claimText(room);
  const written = write(type, value, flags, places);
  return pad(written, room, left, flags.includes('0') && written.number);
}

function takeInteger(source: Values): number {
  const value = source.take();
  if (!isInteger(value)) throw failure('"*" in a format wants an int');
  return Number(value);
}

interface Written {
  sign: string;
  body: string;
  /** Zeros may stand before its digits. */
  number: boolean;
}

function pad({ sign, body }: Written, room: number, left: boolean, zeros: boolean): string {
  const missing = room - sign.length - textLength(body);
  if (missing <= 0) return sign + body;
  if (left) return sign + body + ' '.repeat(missing);
  if (!zeros) return ' '.repeat(missing) + sign + body;
  const prefix = /^0[xob]/i.exec(body)?.[0] ?? '';
  return sign + prefix + '0'.repeat(missing) + body.slice(prefix.length);
}

function write(type: string, value: Value, flags: string, precision: number | undefined): Written {
  switch (type) {
    case 's':
      return plainText(toText(value), precision);
    case 'r':
      return plainText(toRepr(value), precision);
    case 'a':
      return plainText(asciiRepr(value), precision);
    case 'c':
      return plainText(character(value), undefined);
    case 'd':
    case 'i':
    case 'u':
      return writeInteger(wholeOf(value), 10, '', flags, precision);
    case 'x':
    case 'X':
    case 'o': {
      if (value instanceof Undefined) return value.fail();
      if (!isInteger(value)) throw failure(`"%${type}" wants an int, not ${typeName(value)}`);
      const prefix = flags.includes('#') ? (type === 'o' ? '0o' : '0x') : '';
      const written = writeInteger(toInteger(value), type === 'o' ? 8 : 16, prefix, flags, precision);
      return type === 'X' ? { ...written, body: written.body.toUpperCase() } : written;
    }
    case 'e':
    case 'E':
    case 'f':
    case 'F':
    case 'g':
    case 'G':
      return writeFloat(type, value, flags, precision ?? 6);
    default:
      throw failure('the format has a directive that does not exist');
  }
}

function plainText(text: string, precision: number | undefined): Written {
  const body = precision === undefined ? text : text.slice(0, unitOffset(text, precision));
  return { sign: '', body, number: false };
}

/** repr() with everything escaped that is not ASCII. */
export function asciiRepr(value: Value): string {
  return toRepr(value).replace(/[^\x00-\x7f]/gu, (character) => {
    const code = character.codePointAt(0)!;
    if (code <= 0xff) return `\\x${code.toString(16)}`;
    return code <= 0xffff ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
  });
}

function character(value: Value): string {
  if (typeof value === 'string' && textLength(value) === 1) return value;
  if (isInteger(value)) return characterOf(toInteger(value));
  throw failure('"%c" wants an int or one character');
}

function wholeOf(value: Value): Integer {
  if (isNumber(value)) return wholePart(value);
  if (value instanceof Undefined) return value.fail();
  throw failure(`"%d" wants a number, not ${typeName(value)}`);
}

function signOf(negative: boolean, flags: string): string {
  return negative ? '-' : flags.includes('+') ? '+' : flags.includes(' ') ? ' ' : '';
}

function writeInteger(
  value: Integer,
  base: 8 | 10 | 16,
  prefix: string,
  flags: string,
  precision: number | undefined,
): Written {
  claimNumber(value);
  const digits = base === 10 ? String(value).replace('-', '') : inBase(value, base);
  claimText(precision ?? 0);
  return { sign: signOf(value < 0, flags), body: prefix + digits.padStart(precision ?? 0, '0'), number: true };
}

function writeFloat(type: string, value: Value, flags: string, precision: number): Written {
  if (value instanceof Undefined) return value.fail();
  if (!isNumber(value)) throw failure(`"%${type}" wants a number, not ${typeName(value)}`);
  const digits = digitsOf(value);
  const body = floatBody(type.toLowerCase(), digits, precision, flags.includes('#'));
  const upper = type !== type.toLowerCase();
  return { sign: signOf(digits.negative, flags), body: upper ? body.toUpperCase() : body, number: true };
}

function floatBody(type: string, { size, word }: Digits, precision: number, alternate: boolean): string {
  if (size === undefined) return word;
  if (type === 'e') return withExponent(size, precision, alternate);
  if (type === 'g') return general(size, precision, alternate, 'plain');
  const text = fixed(size, precision);
  return alternate && precision === 0 ? `${text}.` : text;
}
