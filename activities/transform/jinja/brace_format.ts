/** Python's `text.format(…)` with its mini-language for widths, signs, grouping and notations. */
import { fieldOf, itemOf } from './attributes.ts';
import { formatDate } from './date_format.ts';
import { DateTime, PlainDate } from './dates.ts';
import { Decimal, decimalText } from './decimal.ts';
import { claimScan, claimText, failure, limits, made, overLimit, spend, watchText } from './limits.ts';
import { characterOf, digitsOf, fixed, general, generalDecimal, inBase, withExponent } from './number_format.ts';
import { floatText, isInteger, isNumber, type NumberValue, toInteger, toNumber } from './numbers.ts';
import { asciiRepr } from './percent_format.ts';
import { textLength, toRepr, toText, unitOffset } from './text.ts';
import { Float, typeName, Undefined, type Value } from './values.ts';

/** The text with `{…}` replaced by the values. */
export function formatBraces(text: string, positional: readonly Value[], named: ReadonlyMap<string, Value>): string {
  return new Formatter(positional, named).format(text, 2);
}

/** A field: what it names, a conversion, a notation. Each part ends in one way only, or malformed ones would take all time. */
const fieldPattern = /^((?:[^!:[]|\[[^\]]*(?:\]|$))*)(?:!([\s\S]))?(?::([\s\S]*))?$/;
const fieldStep = /\.([^.[]+)|\[([^\]]+)\]/y;

class Formatter {
  readonly #positional: readonly Value[];
  readonly #named: ReadonlyMap<string, Value>;
  /** The next field without a number; undefined once a field had one. */
  #automatic: number | undefined;
  #manual = false;

  constructor(positional: readonly Value[], named: ReadonlyMap<string, Value>) {
    this.#positional = positional;
    this.#named = named;
  }

  /** `depth`: how many levels of fields inside of formats may follow. */
  format(text: string, depth: number): string {
    if (depth === 0) throw failure('the format nests too deep');
    let result = '';
    let at = 0;
    claimScan(text.length);
    while (at < text.length) {
      spend(2);
      const brace = nextBrace(text, at);
      result += text.slice(at, brace);
      if (brace === text.length) break;
      if (text[brace + 1] === text[brace]) {
        result += text[brace];
        at = brace + 2;
        continue;
      }
      if (text[brace] === '}') throw failure('a single "}" in the format');
      const end = fieldEnd(text, brace + 1);
      result += this.#field(text.slice(brace + 1, end), depth);
      watchText(result.length);
      at = end + 1;
    }
    return made(result);
  }

  #field(field: string, depth: number): string {
    const match = fieldPattern.exec(field);
    if (!match) throw failure('a field of the format is malformed');
    const [, name = '', conversion, spec = ''] = match;
    const value = this.#convert(this.#value(name), conversion);
    return formatValue(value, spec.includes('{') || spec.includes('}') ? this.format(spec, depth - 1) : spec);
  }

  #convert(value: Value, conversion: string | undefined): Value {
    switch (conversion) {
      case undefined:
        return value;
      case 's':
        return toText(value);
      case 'r':
        return toRepr(value);
      case 'a':
        return asciiRepr(value);
      default:
        throw failure('a field of the format has an unknown conversion');
    }
  }

  #value(name: string): Value {
    const [first = ''] = /^[^.[]*/.exec(name)!;
    let value = this.#argument(first);
    fieldStep.lastIndex = first.length;
    while (fieldStep.lastIndex < name.length) {
      const step = fieldStep.exec(name);
      if (!step) throw failure('a field of the format is malformed');
      const [, attribute, item] = step;
      value = attribute === undefined ? formatItem(value, item!) : formatField(value, attribute);
    }
    return value;
  }

  #argument(name: string): Value {
    if (name === '' || /^[0-9]+$/.test(name)) {
      if (name === '' ? this.#manual : this.#automatic !== undefined)
        throw failure('the format mixes fields with and without numbers');
      if (name === '') this.#automatic = (this.#automatic ?? -1) + 1;
      else this.#manual = true;
      const value = this.#positional[name === '' ? this.#automatic! : Number(name)];
      if (value === undefined) throw failure('not enough values for the format');
      return value;
    }
    const value = this.#named.get(name);
    if (value === undefined) throw failure(`the format names a value "${name}" that is not given`);
    return value;
  }
}

function nextBrace(text: string, from: number): number {
  for (let i = from; i < text.length; i++) if (text[i] === '{' || text[i] === '}') return i;
  return text.length;
}

/** Where the field that begins at `from` ends; braces inside of it must pair, except inside of [ ]. */
function fieldEnd(text: string, from: number): number {
  let open = 1;
  let last: number | undefined;
  for (let i = from; i < text.length; i++) {
    if (text[i] === '[' && open === 1) {
      last ??= text.lastIndexOf(']');
      if (last > i) i = text.indexOf(']', i);
    } else if (text[i] === '{') open++;
    else if (text[i] === '}' && --open === 0) return i;
  }
  throw failure('a "{" in the format is not closed');
}

function formatField(value: Value, name: string): Value {
  const field = fieldOf(value, name);
  if (field === undefined) throw failure('the format names an attribute that does not exist');
  return field;
}

function formatItem(value: Value, key: string): Value {
  const item = itemOf(value, /^[0-9]+$/.test(key) ? Number(key) : key);
  return item instanceof Undefined ? item.fail() : item;
}

interface Spec {
  fill: string;
  /** An alignment was asked for. */
  aligned: boolean;
  align: string | undefined;
  sign: string;
  alternate: boolean;
  zero: boolean;
  width: number;
  grouping: string;
  precision: number | undefined;
  type: string;
}

const specPattern = /^(?:([\s\S])?([<>=^]))?([-+ ])?(z)?(#)?(0)?([0-9]+)?([,_])?(?:\.([0-9]+))?([a-zA-Z%])?$/u;

function parseSpec(text: string): Spec {
  const match = specPattern.exec(text);
  if (!match) throw failure('a field of the format has a malformed width or notation');
  const [, fill, align, sign = '-', negativeZero, alternate, zero, width = '0', grouping = '', precision, type = ''] =
    match;
  if (negativeZero !== undefined) throw failure('"z" in formats is not supported');
  claimText(Number(width));
  if (precision !== undefined && Number(precision) > limits.text) throw overLimit('text');
  return {
    fill: fill ?? (zero !== undefined ? '0' : ' '),
    aligned: align !== undefined,
    align: align ?? (zero !== undefined ? '=' : undefined),
    sign,
    alternate: alternate !== undefined,
    zero: zero !== undefined,
    width: Number(width),
    grouping,
    precision: precision === undefined ? undefined : Number(precision),
    type,
  };
}

/** One value by a format of the mini-language, as Python's format() does it. */
export function formatValue(value: Value, spec: string): string {
  if (value instanceof DateTime || value instanceof PlainDate)
    return spec === '' ? toText(value) : formatDate(value, spec);
  if (spec === '') return toText(value);
  if (typeof value === 'string') return formatText(value, parseSpec(spec));
  if (isNumber(value)) return formatNumber(value, parseSpec(spec));
  throw failure(`a value of type ${typeName(value)} has no formats`);
}

function formatText(value: string, spec: Spec): string {
  if (spec.type !== '' && spec.type !== 's') throw failure(`format "${spec.type}" does not fit a str`);
  if (spec.sign !== '-' || spec.alternate || spec.grouping !== '' || (spec.align === '=' && !spec.zero))
    throw failure('signs and grouping do not fit a str');
  const text = spec.precision === undefined ? value : value.slice(0, unitOffset(value, spec.precision));
  return align(text, { ...spec, align: spec.align === '=' ? '<' : (spec.align ?? '<') });
}

function align(text: string, { fill, align, width }: Pick<Spec, 'fill' | 'align' | 'width'>): string {
  const missing = width - textLength(text);
  if (missing <= 0) return text;
  if (align === '<') return text + fill.repeat(missing);
  if (align === '>') return fill.repeat(missing) + text;
  const before = Math.floor(missing / 2);
  return fill.repeat(before) + text + fill.repeat(missing - before);
}

function formatNumber(value: NumberValue, spec: Spec): string {
  if (isInteger(value) && 'bcdoxXn'.includes(spec.type)) return formatInteger(toInteger(value), spec);
  if (spec.type === 'n' && spec.grouping !== '') throw failure('grouping does not fit format "n"');
  if (value instanceof Decimal && (spec.alternate || spec.grouping === '_' || (spec.zero && spec.aligned)))
    throw failure('"#", "_" and zeros in an alignment do not fit a Decimal');
  if (!'eEfFgGn%'.includes(spec.type)) throw failure(`format "${spec.type}" does not fit ${typeName(value)}`);
  const digits = digitsOf(spec.type === '%' ? hundredfold(value) : value);
  const body =
    digits.size === undefined ? digits.word + (spec.type === '%' ? '%' : '') : notation(value, digits.size, spec);
  const upper = spec.type !== '' && spec.type !== spec.type.toLowerCase();
  return finish(digits.negative, '', upper ? body.toUpperCase() : body, spec);
}

function formatInteger(value: number | bigint, spec: Spec): string {
  if (spec.precision !== undefined) throw failure('an int has no places');
  const { type, grouping } = spec;
  if (type === 'c') {
    if (spec.sign !== '-' || grouping !== '') throw failure('signs and grouping do not fit a character');
    return align(characterOf(value), { ...spec, align: spec.align ?? '<' });
  }
  if (grouping !== '' && type === 'n') throw failure('grouping does not fit format "n"');
  if (grouping === ',' && 'boxX'.includes(type) && type !== '') throw failure(`"," does not fit format "${type}"`);
  const base = ({ b: 2, o: 8, x: 16, X: 16 } as const)[type as 'b' | 'o' | 'x' | 'X'];
  const digits = base === undefined ? String(value < 0 ? -value : value) : inBase(value, base);
  const prefix = spec.alternate && base !== undefined ? `0${type}` : '';
  return finish(value < 0, prefix, type === 'X' ? digits.toUpperCase() : digits, spec);
}

function notation(value: NumberValue, size: Decimal, spec: Spec): string {
  const { precision, alternate } = spec;
  const type = spec.type.toLowerCase();
  const decimal = value instanceof Decimal;
  switch (type) {
    case 'f':
      return decimal && precision === undefined ? decimalText(size) : dotted(fixed(size, precision ?? 6), alternate);
    case '%':
      return `${dotted(fixed(size, precision ?? (decimal ? size.scale : 6)), alternate)}%`;
    case 'e': {
      const places = decimal && precision === undefined ? String(size.coefficient).length - 1 : (precision ?? 6);
      return withExponent(size, places, alternate, decimal ? 1 : 2);
    }
    default:
      if (decimal) return precision === undefined ? decimalText(size) : generalText(size, precision, spec.type);
      if (type !== '') return general(size, precision ?? 6, alternate, 'plain');
      return precision === undefined
        ? floatText(Math.abs((value as Float).number))
        : general(size, precision, alternate, 'float');
  }
}

/** Python's decimal writes its exponent in capitals where no notation is asked for. */
function generalText(size: Decimal, precision: number, type: string): string {
  const text = generalDecimal(size, precision);
  return type === '' ? text.toUpperCase() : text;
}

/** A hundred times the number, for percentages: of floats and ints as a float, as Python does it. */
function hundredfold(value: NumberValue): NumberValue {
  if (!(value instanceof Decimal)) return new Float(toNumber(value) * 100);
  const { coefficient, scale } = value;
  if (scale >= 2) return new Decimal(coefficient, scale - 2);
  return new Decimal(BigInt(coefficient) * 10n ** BigInt(2 - scale), 0);
}

function dotted(text: string, always: boolean): string {
  return always && !text.includes('.') ? `${text}.` : text;
}

/** Sign, grouping and width around the digits of a number. */
function finish(negative: boolean, prefix: string, body: string, spec: Spec): string {
  const sign = (negative ? '-' : spec.sign === '-' ? '' : spec.sign) + prefix;
  const [, digits = '', rest = ''] = /^([0-9a-fA-F]*)([\s\S]*)$/.exec(body)!;
  const hexadecimal = spec.type === 'x' || spec.type === 'X';
  // In decimal notation an "e" begins the exponent, and words have no digits to group.
  const [, whole = '', tail = ''] = hexadecimal ? [body, digits, rest] : /^([0-9]*)([\s\S]*)$/.exec(body)!;
  const step = 'boxX'.includes(spec.type) && spec.type !== '' ? 4 : 3;
  const padded = spec.align === '=' && spec.fill === '0' && spec.grouping !== '';
  const room = padded ? spec.width - sign.length - tail.length : 0;
  const text = group(whole, spec.grouping, step, room) + tail;
  if (spec.align !== '=') return align(sign + text, { ...spec, align: spec.align ?? '>' });
  return sign + align(text, { fill: spec.fill, align: '>', width: spec.width - sign.length });
}

/** Digits in groups; with zeros before them until they fill `room`. */
function group(digits: string, separator: string, step: number, room: number): string {
  if (separator === '' || digits === '') return digits;
  let result = '';
  let left = digits;
  spend(Math.max(digits.length, room) >> 2);
  for (let count = 0; left !== '' || result.length < room; count++) {
    if (count > 0 && count % step === 0) result = separator + result;
    result = (left === '' ? '0' : left.at(-1)!) + result;
    left = left.slice(0, -1);
  }
  return result;
}
