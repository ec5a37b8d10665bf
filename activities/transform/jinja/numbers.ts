/** Arithmetic of Python over ints, floats, Decimals and bools. */
import {
  absoluteDecimal,
  addDecimals,
  compareDecimals,
  Decimal,
  decimalText,
  decimalToInteger,
  decimalToNumber,
  divideDecimals,
  divideDecimalsWhole,
  multiplyDecimals,
  negateDecimal,
  parseDecimal,
  raiseDecimal,
  remainderOfDecimals,
  roundDecimal,
  subtractDecimals,
  wholeDecimal,
} from './decimal.ts';
import { claimNumber, failure, limits, overLimit, spend } from './limits.ts';
import { Float, type Integer, integer, type Value } from './values.ts';

/** A number as Python sees it: True is 1. */
export type NumberValue = boolean | Integer | Float | Decimal;

export function isNumber(value: Value): value is NumberValue {
  switch (typeof value) {
    case 'number':
    case 'bigint':
    case 'boolean':
      return true;
    default:
      return value instanceof Float || value instanceof Decimal;
  }
}

export function isInteger(value: Value): value is Integer | boolean {
  return typeof value === 'number' || typeof value === 'bigint' || typeof value === 'boolean';
}

/** The integer that a bool or an int is. */
export function toInteger(value: Integer | boolean): Integer {
  return typeof value === 'boolean' ? (value ? 1 : 0) : value;
}

/** The nearest binary number. */
export function toNumber(value: NumberValue): number {
  if (typeof value === 'number') return value;
  if (value instanceof Float) return value.number;
  if (typeof value === 'boolean') return value ? 1 : 0;
  const number = value instanceof Decimal ? decimalToNumber(value) : Number(value);
  if (!Number.isFinite(number)) throw failure('the number is too large for a float');
  return number;
}

/** A number as a Decimal; a float as the decimal that it prints. */
export function toDecimal(value: NumberValue): Decimal {
  if (value instanceof Decimal) return value;
  if (!(value instanceof Float)) return wholeDecimal(toInteger(value));
  const decimal = parseDecimal(floatText(value.number));
  if (decimal === undefined) throw failure(`a float that is ${floatText(value.number)} has no decimal`);
  return decimal;
}

/** Python's text of a float: the shortest that reads back as the same number. */
export function floatText(number: number): string {
  if (Number.isNaN(number)) return 'nan';
  if (!Number.isFinite(number)) return number > 0 ? 'inf' : '-inf';
  if (number === 0) return Object.is(number, -0) ? '-0.0' : '0.0';
  const size = Math.abs(number);
  if (size >= 1e-4 && size < 1e16) {
    const text = String(number);
    return text.includes('.') ? text : `${text}.0`;
  }
  const [digits, exponent = ''] = number.toExponential().split('e');
  return `${digits}e${exponent[0]}${exponent.slice(1).padStart(2, '0')}`;
}

/** Counts computing with a number that has many digits or places. */
export function claimLong(value: NumberValue): void {
  if (typeof value === 'bigint') claimNumber(value);
  else if (value instanceof Decimal) {
    if (value.scale > 77) spend(40);
    claimNumber(value.coefficient);
  }
}

function claimBoth(a: NumberValue, b: NumberValue): void {
  claimLong(a);
  claimLong(b);
}

function isFloat(a: NumberValue, b: NumberValue): boolean {
  return a instanceof Float || b instanceof Float;
}

function isDecimal(a: NumberValue, b: NumberValue): boolean {
  return a instanceof Decimal || b instanceof Decimal;
}

function big(value: NumberValue): bigint {
  return BigInt(value as Integer | boolean);
}

export function addNumbers(a: NumberValue, b: NumberValue): Value {
  claimBoth(a, b);
  if (isDecimal(a, b)) return addDecimals(toDecimal(a), toDecimal(b));
  if (isFloat(a, b)) return new Float(toNumber(a) + toNumber(b));
  return integer(big(a) + big(b));
}

export function subtractNumbers(a: NumberValue, b: NumberValue): Value {
  claimBoth(a, b);
  if (isDecimal(a, b)) return subtractDecimals(toDecimal(a), toDecimal(b));
  if (isFloat(a, b)) return new Float(toNumber(a) - toNumber(b));
  return integer(big(a) - big(b));
}

export function multiplyNumbers(a: NumberValue, b: NumberValue): Value {
  claimBoth(a, b);
  if (isDecimal(a, b)) return multiplyDecimals(toDecimal(a), toDecimal(b));
  if (isFloat(a, b)) return new Float(toNumber(a) * toNumber(b));
  return integer(big(a) * big(b));
}

/** `/`: of two ints it makes a float. */
export function divideNumbers(a: NumberValue, b: NumberValue): Value {
  claimBoth(a, b);
  if (isDecimal(a, b)) {
    // Long ones are written down to count their digits, and shifted to as many again.
    for (let times = 0; times < 3; times++) claimBoth(a, b);
    return divideDecimals(toDecimal(a), toDecimal(b));
  }
  if (isFloat(a, b) || (typeof a !== 'bigint' && typeof b !== 'bigint')) {
    const divisor = toNumber(b);
    if (divisor === 0) throw failure('division by zero');
    return new Float(toNumber(a) / divisor);
  }
  if (!b) throw failure('division by zero');
  return new Float(nearestQuotient(big(a), big(b)));
}

/** The binary number nearest to the quotient of two integers. */
function nearestQuotient(a: bigint, b: bigint): number {
  const dividend = a < 0n ? -a : a;
  const divisor = b < 0n ? -b : b;
  const bits = (value: bigint) => value.toString(2).length;
  const shift = Math.max(0, 66 - (bits(dividend) - bits(divisor)));
  const numerator = dividend << BigInt(shift);
  // The quotient has more bits than a float. What is cut off leaves a mark in the last, so that halves are told apart.
  const quotient = (numerator / divisor) | (numerator % divisor === 0n ? 0n : 1n);
  const size = shift > 1000 ? Number(quotient) / 2 ** 1000 / 2 ** (shift - 1000) : Number(quotient) / 2 ** shift;
  if (!Number.isFinite(size)) throw failure('the quotient is too large for a float');
  return a < 0n === b < 0n ? size : -size;
}

/** `//`: rounds down, for Decimals towards zero. */
export function divideNumbersWhole(a: NumberValue, b: NumberValue): Value {
  claimBoth(a, b);
  if (isDecimal(a, b)) return divideDecimalsWhole(toDecimal(a), toDecimal(b));
  if (isFloat(a, b)) return new Float(floorDivide(toNumber(a), toNumber(b)));
  const divisor = big(b);
  if (divisor === 0n) throw failure('division by zero');
  const dividend = big(a);
  const quotient = dividend / divisor;
  return integer(dividend % divisor !== 0n && dividend < 0n !== divisor < 0n ? quotient - 1n : quotient);
}

function floorDivide(a: number, b: number): number {
  if (b === 0) throw failure('division by zero');
  const rest = a % b;
  let quotient = (a - rest) / b;
  if (rest !== 0 && b < 0 !== rest < 0) quotient -= 1;
  if (quotient === 0) return a / b < 0 || Object.is(a / b, -0) ? -0 : 0;
  const floor = Math.floor(quotient);
  return quotient - floor > 0.5 ? floor + 1 : floor;
}

/** `%`: has the sign of the divisor, for Decimals that of the dividend. */
export function remainderOfNumbers(a: NumberValue, b: NumberValue): Value {
  claimBoth(a, b);
  if (isDecimal(a, b)) return remainderOfDecimals(toDecimal(a), toDecimal(b));
  if (isFloat(a, b)) return new Float(floatRemainder(toNumber(a), toNumber(b)));
  if (typeof a === 'number' && typeof b === 'number' && b !== 0) {
    const rest = a % b;
    return rest !== 0 && rest < 0 !== b < 0 ? rest + b : rest + 0;
  }
  const divisor = big(b);
  if (divisor === 0n) throw failure('division by zero');
  const rest = big(a) % divisor;
  return integer(rest !== 0n && rest < 0n !== divisor < 0n ? rest + divisor : rest);
}

function floatRemainder(a: number, b: number): number {
  if (b === 0) throw failure('division by zero');
  const rest = a % b;
  if (rest === 0) return b < 0 ? -0 : 0;
  return b < 0 !== rest < 0 ? rest + b : rest;
}

/** `**`: of an int with a negative exponent it makes a float. */
export function raiseNumber(a: NumberValue, b: NumberValue): Value {
  claimBoth(a, b);
  if (isDecimal(a, b)) return raiseDecimal(toDecimal(a), toDecimal(b));
  if (!isFloat(a, b) && toInteger(b as Integer) >= 0)
    return raiseInteger(toInteger(a as Integer), toInteger(b as Integer));
  const base = toNumber(a);
  const exponent = toNumber(b);
  if (base === 0 && exponent < 0) throw failure('zero cannot be raised to a negative power');
  if (base < 0 && Number.isFinite(base) && Number.isFinite(exponent) && !Number.isInteger(exponent))
    throw failure('a negative number can only be raised to a whole number');
  const power = raiseFloat(base, exponent);
  if (!Number.isFinite(power) && Number.isFinite(base) && Number.isFinite(exponent))
    throw failure('the power is too large for a float');
  return new Float(power);
}

function raiseFloat(base: number, exponent: number): number {
  // C's pow knows that one raised to anything is one; JavaScript's does not.
  if (base === 1 || (base === -1 && Math.abs(exponent) === Number.POSITIVE_INFINITY)) return 1;
  const power = base ** exponent;
  const exact = Number.isInteger(exponent) && Math.abs(exponent) <= 64 && Number.isFinite(base) && base !== 0;
  // What is far beyond all floats has thousands of digits, and comes to the same.
  return exact && Number.isFinite(power) && power !== 0 ? raiseExactly(base, exponent) : power;
}

/** The binary number nearest to the power: JavaScript's own is often another one. */
function raiseExactly(base: number, exponent: number): number {
  const { coefficient, scale } = exactDecimal(base);
  spend((Math.abs(exponent) * (scale + 16)) >> 3);
  const times = BigInt(Math.abs(exponent));
  const power = BigInt(coefficient) ** times;
  const divisor = 10n ** (BigInt(scale) * times);
  return exponent < 0 ? nearestQuotient(divisor, power) : nearestQuotient(power, divisor);
}

function raiseInteger(base: Integer, exponent: Integer): Integer {
  if (base === 1 || exponent === 0) return 1;
  if (base === 0) return 0;
  if (base === -1) return BigInt(exponent) % 2n === 0n ? 1 : -1;
  const size = String(base < 0 ? -base : base).length;
  // At least (size - 1) digits a factor; a one-digit base has at least log10(2).
  if (Number(exponent) * Math.max(size - 1, 0.301) > limits.digits) throw overLimit('digits');
  return integer(BigInt(base) ** BigInt(exponent));
}

export function negateNumber(value: NumberValue): Value {
  if (value instanceof Float) return new Float(-value.number);
  if (value instanceof Decimal) return negateDecimal(value);
  if (typeof value === 'bigint') return integer(-value);
  return 0 - Number(value);
}

export function absoluteNumber(value: NumberValue): Value {
  if (value instanceof Float) return new Float(Math.abs(value.number));
  if (value instanceof Decimal) return absoluteDecimal(value);
  if (typeof value === 'bigint') return value < 0n ? -value : value;
  return Math.abs(Number(value));
}

/** Below zero where a is less than b, zero where they are equal, NaN where one of them is. */
export function compareNumbers(a: NumberValue, b: NumberValue): number {
  claimBoth(a, b);
  if (isDecimal(a, b)) {
    const float = a instanceof Float ? a.number : b instanceof Float ? b.number : 0;
    if (Number.isFinite(float)) return compareDecimals(toDecimal(a), toDecimal(b));
    return a instanceof Float ? float : -float;
  }
  // JavaScript compares a bigint with a number by their values.
  const x = a instanceof Float ? a.number : (a as Integer);
  const y = b instanceof Float ? b.number : (b as Integer);
  if (x < y) return -1;
  if (x > y) return 1;
  return Number.isNaN(x) || Number.isNaN(y) ? Number.NaN : 0;
}

/** The whole part of a number, as Python's int() takes it. */
export function wholePart(value: NumberValue): Integer {
  claimLong(value);
  if (value instanceof Decimal) return integer(BigInt(decimalToInteger(value)));
  if (!(value instanceof Float)) return toInteger(value);
  if (!Number.isFinite(value.number)) throw failure(`${floatText(value.number)} has no whole part`);
  const whole = Math.trunc(value.number);
  return Number.isSafeInteger(whole) ? whole + 0 : integer(BigInt(whole));
}

export type RoundingMethod = 'common' | 'ceil' | 'floor';

/** Jinja2's filter `round`: "common" rounds halves to even. Ints stay ints, Decimals Decimals. */
export function roundNumber(value: NumberValue, places: number, method: RoundingMethod): Value {
  claimLong(value);
  if (Math.abs(places) > 77) spend(40);
  if (value instanceof Decimal) return roundDecimal(value, places, method === 'common' ? 'half even' : method);
  if (method !== 'common') return roundToward(value, places, method);
  if (value instanceof Float) return new Float(roundFloat(value.number, places));
  if (places >= 0) return toInteger(value);
  return integer(BigInt(roundDecimal(wholeDecimal(toInteger(value)), places).coefficient));
}

/** Python does this in floats: func(value * 10**places) / 10**places. */
function roundToward(value: Exclude<NumberValue, Decimal>, places: number, method: 'ceil' | 'floor'): Value {
  const factor = raiseNumber(10, places) as NumberValue;
  const scaled = multiplyNumbers(value, factor);
  if (!(scaled instanceof Float)) return divideNumbers(scaled as NumberValue, factor);
  if (!Number.isFinite(scaled.number)) throw failure(`${floatText(scaled.number)} cannot be rounded to an int`);
  const whole = method === 'ceil' ? Math.ceil(scaled.number) : Math.floor(scaled.number);
  return divideNumbers(Number.isSafeInteger(whole) ? whole + 0 : integer(BigInt(whole)), factor);
}

/** A float rounded to a number of decimal places, by its exact value, halves to even. */
export function roundFloat(number: number, places: number): number {
  if (!Number.isFinite(number) || number === 0) return number;
  if (places > 323) return number;
  if (places < -308) return number < 0 ? -0 : 0;
  const rounded = Number(decimalText(roundDecimal(exactDecimal(number), places)));
  if (!Number.isFinite(rounded)) throw failure('the rounded number is too large for a float');
  return rounded === 0 && number < 0 ? -0 : rounded;
}

const view = new DataView(new ArrayBuffer(8));

/** All decimal digits of a binary number. */
export function exactDecimal(number: number): Decimal {
  if (Number.isSafeInteger(number)) return wholeDecimal(number + 0);
  view.setFloat64(0, number);
  const bits = view.getBigUint64(0);
  const exponent = Number((bits >> 52n) & 0x7ffn);
  const fraction = bits & 0xfffffffffffffn;
  let mantissa = exponent === 0 ? fraction : fraction | 0x10000000000000n;
  if (number < 0) mantissa = -mantissa;
  const shift = (exponent === 0 ? 1 : exponent) - 1075;
  spend(Math.abs(shift) >> 5);
  if (shift >= 0) return new Decimal(mantissa << BigInt(shift), 0);
  // m / 2^n is m * 5^n / 10^n.
  return new Decimal(mantissa * 5n ** BigInt(-shift), -shift);
}
