/**
 * Exact decimal numbers. They behave as Python's `decimal` does, with these rules:
 *
 * - `+`, `-`, `*`, `abs` and `**` with a whole, not negative exponent are exact, whatever their length.
 * - `/` is exact where the quotient has at most 28 significant digits (or as many as its longer operand has); else it is
 *   rounded to that many, half to even. A whole quotient shows no more places than the operands ask for: 1.00 / 0.5 is 2.0.
 * - `//` and `%` cut towards zero, so the remainder has the sign of the dividend: -7.5 // 2 is -3, -7.5 % 2 is -1.5.
 * - `**` with a negative exponent is one divided by the power; an exponent that is not whole is refused.
 * - There is no infinity, no NaN and no negative zero, and a number always prints in full, never as 1E+3.
 *
 * Number of places: the larger of both for `+`, `-` and `%`, the sum for `*`; none for `//`.
 */
import { failure, limits, overLimit } from './limits.ts';

type Whole = number | bigint;

/** `coefficient` / 10^`scale`. The coefficient is a number while it is a safe integer, else a bigint. */
export class Decimal {
  readonly coefficient: Whole;
  readonly scale: number;
  constructor(coefficient: Whole, scale: number) {
    this.coefficient = coefficient;
    this.scale = scale;
  }
}

/** Significant digits of a quotient that does not end, as in Python's default context. */
const quotientDigits = 28;

const smallPowers = Array.from({ length: 16 }, (_, exponent) => 10 ** exponent);
const powers = Array.from({ length: 80 }, (_, exponent) => 10n ** BigInt(exponent));

function power(exponent: number): bigint {
  if (exponent < powers.length) return powers[exponent]!;
  if (exponent > limits.digits * 3) throw overLimit('digits');
  return 10n ** BigInt(exponent);
}

const bound = 10n ** BigInt(limits.digits);

/** A decimal in its one form, within the limit of digits. */
function decimal(coefficient: bigint, scale: number): Decimal {
  const small = Number(coefficient);
  if (Number.isSafeInteger(small)) {
    if (scale > limits.digits) throw overLimit('digits');
    return new Decimal(small, scale);
  }
  if (coefficient >= bound || coefficient <= -bound || scale > limits.digits) throw overLimit('digits');
  return new Decimal(coefficient, scale);
}

/** An integer as a decimal. */
export function wholeDecimal(value: Whole): Decimal {
  return new Decimal(value, 0);
}

const plain = /^([+-]?)([0-9]*)(?:\.([0-9]*))?(?:[eE]([+-]?[0-9]+))?$/;

/** Parses decimal notation with an optional exponent; undefined for anything else. */
export function parseDecimal(text: string): Decimal | undefined {
  const match = plain.exec(text);
  if (!match) return undefined;
  const [, sign, whole = '', fraction = '', exponent = '0'] = match;
  const digits = whole + fraction;
  if (digits === '') return undefined;
  const shift = Number(exponent);
  if (digits.length > limits.digits * 2 || Math.abs(shift) > limits.digits * 2) throw overLimit('digits');
  const scale = fraction.length - shift;
  let coefficient = BigInt(digits);
  if (sign === '-') coefficient = -coefficient;
  return scale >= 0 ? decimal(coefficient, scale) : decimal(coefficient * power(-scale), 0);
}

/** The number in plain notation with all its places: `1.50`. */
export function decimalText(value: Decimal): string {
  const { coefficient, scale } = value;
  if (scale === 0) return String(coefficient);
  const negative = coefficient < 0;
  const digits = String(negative ? -coefficient : coefficient).padStart(scale + 1, '0');
  const point = digits.length - scale;
  return `${negative ? '-' : ''}${digits.slice(0, point)}.${digits.slice(point)}`;
}

/** What equal numbers have in common: the integer, or the text without zeros at the end. */
export function decimalKey(value: Decimal): string | Whole {
  if (value.scale === 0) return value.coefficient;
  const shown = withoutZeros(decimalText(value));
  const text = shown.endsWith('.') ? shown.slice(0, -1) : shown;
  if (text.includes('.')) return text;
  const whole = Number(text);
  return Number.isSafeInteger(whole) ? whole + 0 : BigInt(text);
}

/** Both coefficients at the larger of the two scales. */
function align(a: Decimal, b: Decimal): [bigint, bigint] {
  const x = BigInt(a.coefficient);
  const y = BigInt(b.coefficient);
  if (a.scale === b.scale) return [x, y];
  return a.scale < b.scale ? [x * power(b.scale - a.scale), y] : [x, y * power(a.scale - b.scale)];
}

/** The coefficient as a number at a larger scale, or NaN where it does not fit. */
function smallAt(value: Decimal, scale: number): number {
  if (typeof value.coefficient !== 'number') return Number.NaN;
  if (scale === value.scale) return value.coefficient;
  const factor = smallPowers[scale - value.scale];
  return factor === undefined ? Number.NaN : value.coefficient * factor;
}

export function addDecimals(a: Decimal, b: Decimal): Decimal {
  const scale = Math.max(a.scale, b.scale);
  const sum = smallAt(a, scale) + smallAt(b, scale);
  if (Number.isSafeInteger(sum)) return new Decimal(sum, scale);
  const [x, y] = align(a, b);
  return decimal(x + y, scale);
}

export function subtractDecimals(a: Decimal, b: Decimal): Decimal {
  return addDecimals(a, negateDecimal(b));
}

export function multiplyDecimals(a: Decimal, b: Decimal): Decimal {
  const scale = a.scale + b.scale;
  if (typeof a.coefficient === 'number' && typeof b.coefficient === 'number' && scale <= limits.digits) {
    const product = a.coefficient * b.coefficient;
    // The sum turns a negative zero into zero.
    if (Number.isSafeInteger(product)) return new Decimal(product + 0, scale);
  }
  return decimal(BigInt(a.coefficient) * BigInt(b.coefficient), scale);
}

export function negateDecimal(value: Decimal): Decimal {
  return new Decimal(value.coefficient === 0 ? 0 : -value.coefficient, value.scale);
}

export function absoluteDecimal(value: Decimal): Decimal {
  return value.coefficient < 0 ? negateDecimal(value) : value;
}

function digitCount(value: bigint): number {
  return String(value < 0n ? -value : value).length;
}

function zerosAtEnd(digits: string): number {
  let end = digits.length;
  while (digits[end - 1] === '0') end--;
  return digits.length - end;
}

/** Digits without zeros at their end. A pattern for it would take quadratic time on many zeros inside. */
export function withoutZeros(digits: string): string {
  return digits.slice(0, digits.length - zerosAtEnd(digits));
}

/** The quotient; see the head of this file for its digits. */
export function divideDecimals(a: Decimal, b: Decimal): Decimal {
  const x = BigInt(a.coefficient);
  const y = BigInt(b.coefficient);
  if (y === 0n) throw failure('division by zero');
  if (x === 0n) return new Decimal(0, Math.max(0, a.scale - b.scale));
  const digits = Math.max(quotientDigits, digitCount(x), digitCount(y));
  const shift = digits + 1 + digitCount(y) - digitCount(x);
  let scale = a.scale - b.scale + shift;
  const numerator = shift >= 0 ? x * power(shift) : x;
  const denominator = shift >= 0 ? y : y * power(-shift);
  let quotient = numerator / denominator;
  const exact = numerator % denominator === 0n;
  // One more digit that is not zero stands for what was cut off, so that a half is told from more than a half.
  if (!exact) {
    quotient = quotient * 10n + (x < 0n === y < 0n ? 1n : -1n);
    scale += 1;
  }
  const surplus = digitCount(quotient) - digits;
  if (surplus > 0) {
    quotient = divideRounded(quotient, power(surplus), 'half even');
    scale -= surplus;
  }
  const ideal = Math.max(0, a.scale - b.scale);
  if (exact && scale > ideal) {
    const zeros = Math.min(zerosAtEnd(String(quotient)), scale - ideal);
    quotient /= power(zeros);
    scale -= zeros;
  }
  return scale >= 0 ? decimal(quotient, scale) : decimal(quotient * power(-scale), 0);
}

/** The whole part of the quotient. */
export function divideDecimalsWhole(a: Decimal, b: Decimal): Decimal {
  const [x, y] = align(a, b);
  if (y === 0n) throw failure('division by zero');
  return decimal(x / y, 0);
}

export function remainderOfDecimals(a: Decimal, b: Decimal): Decimal {
  const [x, y] = align(a, b);
  if (y === 0n) throw failure('division by zero');
  return decimal(x % y, Math.max(a.scale, b.scale));
}

export function raiseDecimal(base: Decimal, exponent: Decimal): Decimal {
  const whole = decimalToInteger(exponent);
  if (compareDecimals(wholeDecimal(whole), exponent) !== 0)
    throw failure('a decimal can only be raised to a whole number: use the filter float before');
  if (base.coefficient === 0 && whole <= 0) throw failure('zero cannot be raised to zero or less');
  const n = Number(whole < 0 ? -whole : whole);
  const coefficient = BigInt(base.coefficient);
  const unit = coefficient === 1n || coefficient === -1n || coefficient === 0n;
  if (
    (!unit && (digitCount(coefficient) - 1) * n > limits.digits) ||
    n > limits.digits * 4 ||
    base.scale * n > limits.digits
  )
    throw overLimit('digits');
  const power = decimal(coefficient ** BigInt(n), base.scale * n);
  return whole < 0 ? divideDecimals(wholeDecimal(1), power) : power;
}

/** Below zero where a is less than b, zero where they are equal. */
export function compareDecimals(a: Decimal, b: Decimal): number {
  const scale = Math.max(a.scale, b.scale);
  const x = smallAt(a, scale);
  const y = smallAt(b, scale);
  if (Number.isSafeInteger(x) && Number.isSafeInteger(y)) return x - y;
  const [p, q] = align(a, b);
  return p < q ? -1 : p > q ? 1 : 0;
}

export type Rounding = 'half even' | 'ceil' | 'floor' | 'cut';

/** The quotient of two integers as the nearest integer by a rounding. */
function divideRounded(numerator: bigint, denominator: bigint, rounding: Rounding): bigint {
  const quotient = numerator / denominator;
  const rest = numerator % denominator;
  if (rest === 0n || rounding === 'cut') return quotient;
  const negative = rest < 0n !== denominator < 0n;
  if (rounding === 'ceil') return negative ? quotient : quotient + 1n;
  if (rounding === 'floor') return negative ? quotient - 1n : quotient;
  const twice = (rest < 0n ? -rest : rest) * 2n;
  const whole = denominator < 0n ? -denominator : denominator;
  if (twice < whole || (twice === whole && quotient % 2n === 0n)) return quotient;
  return negative ? quotient - 1n : quotient + 1n;
}

/** Rounded to a number of places, which may be negative: then to tens, hundreds and so on. */
export function roundDecimal(value: Decimal, places: number, rounding: Rounding = 'half even'): Decimal {
  if (Math.abs(places) > limits.digits) throw overLimit('digits');
  const scale = Math.max(places, 0);
  const coefficient = BigInt(value.coefficient);
  if (places >= value.scale) return decimal(coefficient * power(places - value.scale), places);
  const rounded = divideRounded(coefficient, power(value.scale - places), rounding);
  return decimal(places < 0 ? rounded * power(-places) : rounded, scale);
}

/** The whole part. */
export function decimalToInteger(value: Decimal): Whole {
  if (value.scale === 0) return value.coefficient;
  const whole = BigInt(value.coefficient) / power(value.scale);
  const small = Number(whole);
  return Number.isSafeInteger(small) ? small : whole;
}

/** The nearest binary number. */
export function decimalToNumber(value: Decimal): number {
  return Number(decimalText(value));
}
