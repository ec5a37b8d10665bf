/** Numbers in the notations of C's printf, as Python's `%` and `format` write them: fixed, with exponent, general. */
import { absoluteDecimal, Decimal, decimalText, roundDecimal, withoutZeros } from './decimal.ts';
import { failure, limits, overLimit } from './limits.ts';
import { exactDecimal, floatText, type NumberValue, toNumber } from './numbers.ts';

/** A number that is to be written: its sign apart from its digits. */
export interface Digits {
  negative: boolean;
  /** Not negative. Undefined: then it is `word`. */
  size: Decimal | undefined;
  /** `inf` or `nan`. */
  word: string;
}

/** Takes a number apart. Ints become floats, as Python does it here; Decimals stay exact. */
export function digitsOf(value: NumberValue): Digits {
  if (value instanceof Decimal) return { negative: value.coefficient < 0, size: absoluteDecimal(value), word: '' };
  const number = toNumber(value);
  const negative = number < 0 || Object.is(number, -0);
  const size = Math.abs(number);
  return Number.isFinite(number)
    ? { negative, size: exactDecimal(size), word: '' }
    : { negative, size: undefined, word: floatText(size) };
}

function checkPrecision(precision: number): void {
  if (precision > limits.digits / 2) throw overLimit('digits');
}

/** `12.50` */
export function fixed(size: Decimal, precision: number): string {
  checkPrecision(precision);
  return decimalText(roundDecimal(size, precision));
}

/** Significant digits and the exponent of the first: 1250 with precision 2 is `1.25` and 3. */
function scientific(size: Decimal, precision: number): { digits: string; exponent: number } {
  checkPrecision(precision);
  if (size.coefficient === 0 || size.coefficient === 0n) return { digits: '0'.repeat(precision + 1), exponent: 0 };
  const exponentOf = (value: Decimal) => String(value.coefficient).length - 1 - value.scale;
  let exponent = exponentOf(size);
  const rounded = roundDecimal(size, precision - exponent);
  exponent = Math.max(exponent, exponentOf(rounded));
  const digits = String(rounded.coefficient).slice(0, precision + 1);
  return { digits: digits.padEnd(precision + 1, '0'), exponent };
}

function point(digits: string, always: boolean): string {
  return digits.length > 1 ? `${digits[0]}.${digits.slice(1)}` : always ? `${digits}.` : digits;
}

/** `1.25e+03`; `places`: least digits of the exponent. */
export function withExponent(size: Decimal, precision: number, always: boolean, places = 2): string {
  const { digits, exponent } = scientific(size, precision);
  return `${point(digits, always)}e${exponentText(exponent, places)}`;
}

function exponentText(exponent: number, places: number): string {
  return `${exponent < 0 ? '-' : '+'}${String(Math.abs(exponent)).padStart(places, '0')}`;
}

/**
 * The shorter of both notations. `keepZeros`: with all its significant digits. `wholeAs`: how a whole number is written,
 * `plain` as `3`, `float` as `3.0`.
 */
export function general(size: Decimal, precision: number, keepZeros: boolean, wholeAs: 'plain' | 'float'): string {
  const wanted = Math.max(precision, 1);
  const { digits, exponent } = scientific(size, wanted - 1);
  const kept = keepZeros ? digits : withoutZeros(digits) || '0';
  if (exponent < -4 || exponent >= wanted - (wholeAs === 'float' ? 1 : 0)) {
    if (wholeAs === 'float' && exponent === 0) return `${kept}.0`;
    return `${point(kept, keepZeros)}e${exponentText(exponent, 2)}`;
  }
  if (exponent < 0) return `0.${'0'.repeat(-exponent - 1)}${kept}`;
  const whole = kept.slice(0, exponent + 1).padEnd(exponent + 1, '0');
  const fraction = kept.slice(exponent + 1);
  if (fraction !== '') return `${whole}.${fraction}`;
  return wholeAs === 'float' ? `${whole}.0` : keepZeros ? `${whole}.` : whole;
}

/** A Decimal in the general notation of Python's `decimal`: no zeros are cut off, and an exponent has no leading zero. */
export function generalDecimal(size: Decimal, precision: number): string {
  const wanted = Math.max(precision, 1);
  const length = size.coefficient === 0 ? 1 : String(size.coefficient).length;
  const exponent = length - 1 - size.scale;
  const rounded = length > wanted ? scientific(size, wanted - 1) : undefined;
  const digits = rounded?.digits ?? String(size.coefficient);
  const first = rounded?.exponent ?? exponent;
  const last = first - digits.length + 1;
  if (last > 0 || first <= -7) return `${point(digits, false)}e${exponentText(first, 1)}`;
  if (first >= 0)
    return first + 1 === digits.length ? digits : `${digits.slice(0, first + 1)}.${digits.slice(first + 1)}`;
  return `0.${'0'.repeat(-first - 1)}${digits}`;
}

/** An integer in another base, without its sign. */
export function inBase(value: number | bigint, base: 2 | 8 | 16): string {
  return (value < 0 ? -value : value).toString(base);
}

/** The character of a number, as chr() makes it. */
export function characterOf(code: number | bigint): string {
  const number = Number(code);
  if (!(number >= 0 && number <= 0x10ffff) || (number >= 0xd800 && number <= 0xdfff))
    throw failure('no character has this number');
  return String.fromCodePoint(number);
}
