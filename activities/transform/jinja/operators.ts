/** What operators do to values, as in Python; errors as Python's TypeError and Jinja2's UndefinedError. */

import { addDurations, DateTime, Duration, PlainDate, subtractDates } from './dates.ts';
import { Decimal } from './decimal.ts';
import { claimComparison, claimSearch, claimText, failure, limits, made, overLimit, spend } from './limits.ts';
import {
  addNumbers,
  claimLong,
  compareNumbers,
  divideNumbers,
  divideNumbersWhole,
  isInteger,
  isNumber,
  multiplyNumbers,
  negateNumber,
  raiseNumber,
  remainderOfNumbers,
  subtractNumbers,
  toInteger,
} from './numbers.ts';
import { formatPercent } from './percent_format.ts';
import { characters, compareTexts, textLength } from './text.ts';
import {
  Dict,
  Float,
  type Integer,
  keyId,
  Loop,
  Namespace,
  Range,
  Tuple,
  typeName,
  Undefined,
  type Value,
} from './values.ts';

/** Fails as an operator does that has no meaning for these values. */
function unsupported(operator: string, a: Value, b: Value): never {
  if (a instanceof Undefined) a.fail();
  if (b instanceof Undefined) b.fail();
  throw failure(`"${operator}" does not work between ${typeName(a)} and ${typeName(b)}`);
}

export function isTrue(value: Value): boolean {
  switch (typeof value) {
    case 'boolean':
      return value;
    case 'string':
      return value !== '';
    case 'number':
      return value !== 0;
    case 'bigint':
      return true;
    default:
      return isTrueObject(value);
  }
}

function isTrueObject(value: Exclude<Value, string | number | bigint | boolean>): boolean {
  if (value === null || value instanceof Undefined) return false;
  if (value instanceof Float) return value.number !== 0;
  if (value instanceof Decimal) return value.coefficient !== 0;
  if (Array.isArray(value)) return value.length > 0;
  if (value instanceof Tuple) return value.items.length > 0;
  if (value instanceof Dict) return value.size > 0;
  if (value instanceof Range) return value.length > 0;
  if (value instanceof Duration) return value.days !== 0 || value.microseconds !== 0;
  return true;
}

export function add(a: Value, b: Value): Value {
  if (typeof a === 'number' && typeof b === 'number') {
    const sum = a + b;
    if (Number.isSafeInteger(sum)) return sum;
  }
  if (typeof a === 'string' && typeof b === 'string') return made(a + b);
  if (isNumber(a) && isNumber(b)) return addNumbers(a, b);
  if (Array.isArray(a) && Array.isArray(b)) return joinLists(a, b);
  if (a instanceof Tuple && b instanceof Tuple) return new Tuple(joinLists(a.items, b.items));
  return addDurations(a, b, 1) ?? unsupported('+', a, b);
}

function joinLists(a: readonly Value[], b: readonly Value[]): Value[] {
  spend(a.length + b.length);
  return [...a, ...b];
}

export function subtract(a: Value, b: Value): Value {
  if (typeof a === 'number' && typeof b === 'number') {
    const difference = a - b;
    if (Number.isSafeInteger(difference)) return difference;
  }
  if (isNumber(a) && isNumber(b)) return subtractNumbers(a, b);
  return subtractDates(a, b) ?? addDurations(a, b, -1) ?? unsupported('-', a, b);
}

export function multiply(a: Value, b: Value): Value {
  if (typeof a === 'number' && typeof b === 'number') {
    const product = a * b;
    if (Number.isSafeInteger(product)) return product + 0;
  }
  if (isNumber(a) && isNumber(b)) return multiplyNumbers(a, b);
  if (a instanceof Duration) return a.times(b) ?? unsupported('*', a, b);
  if (b instanceof Duration) return b.times(a) ?? unsupported('*', a, b);
  if (isInteger(b)) return repeat(a, toInteger(b)) ?? unsupported('*', a, b);
  if (isInteger(a)) return repeat(b, toInteger(a)) ?? unsupported('*', a, b);
  return unsupported('*', a, b);
}

/** A text, list or tuple several times over. */
function repeat(value: Value, count: Integer): Value | undefined {
  const times = Math.max(0, Number(count));
  if (Math.abs(Number(count)) >= 2 ** 63) throw failure('nothing can be repeated so many times');
  if (typeof value === 'string') {
    if (value === '') return '';
    claimText(value.length * times);
    return value.repeat(times);
  }
  if (value instanceof Tuple) return new Tuple(repeatList(value.items, times));
  if (Array.isArray(value)) return repeatList(value, times);
  return undefined;
}

function repeatList(items: readonly Value[], times: number): Value[] {
  if (items.length === 0) return [];
  spend(items.length * times);
  const result: Value[] = [];
  for (let i = 0; i < times; i++) for (const item of items) result.push(item);
  return result;
}

export function divide(a: Value, b: Value): Value {
  if (isNumber(a) && isNumber(b)) return divideNumbers(a, b);
  if (a instanceof Duration) return a.dividedBy(b) ?? unsupported('/', a, b);
  return unsupported('/', a, b);
}

export function divideWhole(a: Value, b: Value): Value {
  if (isNumber(a) && isNumber(b)) return divideNumbersWhole(a, b);
  if (a instanceof Duration) return a.wholeDividedBy(b) ?? unsupported('//', a, b);
  return unsupported('//', a, b);
}

export function remainder(a: Value, b: Value): Value {
  if (isNumber(a) && isNumber(b)) return remainderOfNumbers(a, b);
  if (typeof a === 'string') return formatPercent(a, b);
  if (a instanceof Duration) return a.remainder(b) ?? unsupported('%', a, b);
  return unsupported('%', a, b);
}

export function raise(a: Value, b: Value): Value {
  return isNumber(a) && isNumber(b) ? raiseNumber(a, b) : unsupported('**', a, b);
}

export function negate(value: Value): Value {
  if (isNumber(value)) return negateNumber(value);
  if (value instanceof Duration) return value.times(-1)!;
  if (value instanceof Undefined) return value.fail();
  throw failure(`a value of type ${typeName(value)} has no negative`);
}

export function plus(value: Value): Value {
  if (typeof value === 'boolean') return toInteger(value);
  if (isNumber(value) || value instanceof Duration) return value;
  if (value instanceof Undefined) return value.fail();
  throw failure(`"+" does not work on ${typeName(value)}`);
}

/** `==` */
export function equal(a: Value, b: Value): boolean {
  return isSame(a, b) ? !(a instanceof Float && Number.isNaN(a.number)) : equalDeep(a, b, 0);
}

/** The same object, or the same text. */
export function isSame(a: Value, b: Value): boolean {
  if (typeof a === 'string' && typeof b === 'string') claimComparison(a.length, b.length);
  return a === b;
}

function equalDeep(a: Value, b: Value, depth: number): boolean {
  if (typeof a === 'string' || typeof b === 'string') {
    return isSame(a, b);
  }
  if (isNumber(a)) return isNumber(b) && compareNumbers(a, b) === 0;
  if (a === null || b === null) return a === b;
  if (depth > limits.nesting) throw overLimit('nesting');
  if (Array.isArray(a)) return Array.isArray(b) && equalItems(a, b, depth);
  if (a instanceof Tuple) return b instanceof Tuple && equalItems(a.items, b.items, depth);
  if (a instanceof Dict) return b instanceof Dict && equalDicts(a, b, depth);
  if (a instanceof Undefined) return b instanceof Undefined;
  if (a instanceof Range) return b instanceof Range && keyId(a) === keyId(b);
  if (a instanceof DateTime || a instanceof PlainDate || a instanceof Duration) return a.order(b) === 0;
  return a === b;
}

function equalItems(a: readonly Value[], b: readonly Value[], depth: number): boolean {
  if (a.length !== b.length) return false;
  spend(a.length);
  // Python looks first whether both are the same object: then a NaN equals itself.
  return a.every((item, i) => isSame(item, b[i]!) || equalDeep(item, b[i]!, depth + 1));
}

function equalDicts(a: Dict, b: Dict, depth: number): boolean {
  if (a.size !== b.size) return false;
  spend(a.size);
  return a.entries().every(([key, value]) => {
    const other = b.get(key);
    return other !== undefined && (isSame(value, other) || equalDeep(value, other, depth + 1));
  });
}

/** The order of two values: below zero where a comes first, NaN where neither does. Fails where Python's `<` does. */
export function order(a: Value, b: Value, operator = '<', depth = 0): number {
  if (typeof a === 'number' && typeof b === 'number') return a - b;
  if (typeof a === 'string' && typeof b === 'string') return compareTexts(a, b);
  if (isNumber(a) && isNumber(b)) return compareNumbers(a, b);
  if (depth > limits.nesting) throw overLimit('nesting');
  if (Array.isArray(a) && Array.isArray(b)) return orderItems(a, b, operator, depth);
  if (a instanceof Tuple && b instanceof Tuple) return orderItems(a.items, b.items, operator, depth);
  if (a instanceof DateTime || a instanceof PlainDate || a instanceof Duration) {
    const result = a.order(b);
    if (result !== undefined) return result;
  }
  return unsupported(operator, a, b);
}

function orderItems(a: readonly Value[], b: readonly Value[], operator: string, depth: number): number {
  const end = Math.min(a.length, b.length);
  for (let i = 0; i < end; i++) {
    spend(1);
    if (!isSame(a[i]!, b[i]!) && !equalDeep(a[i]!, b[i]!, depth + 1)) return order(a[i]!, b[i]!, operator, depth + 1);
  }
  return a.length - b.length;
}

/** `item in container` */
export function contains(container: Value, item: Value): boolean {
  if (typeof container === 'string') {
    if (typeof item !== 'string') return unsupported('in', item, container);
    claimSearch(container.length, item.length);
    return container.includes(item);
  }
  if (container instanceof Dict) {
    claimKey(item);
    return container.has(item);
  }
  if (container instanceof Namespace || container instanceof Loop) return unsupported('in', item, container);
  if (container instanceof Undefined) return false;
  if (container instanceof Range) return isInRange(container, item);
  const items = container instanceof Tuple ? container.items : container;
  if (!Array.isArray(items)) return unsupported('in', item, container);
  spend(items.length);
  return items.some((other: Value) => isSame(other, item) || equalDeep(other, item, 0));
}

function isInRange(range: Range, item: Value): boolean {
  if (!isNumber(item)) return false;
  // Equal numbers have equal keys, and the key of a whole number is that number.
  const whole = keyId(item);
  const steps = typeof whole === 'number' ? (whole - range.start) / range.step : Number.NaN;
  return Number.isInteger(steps) && steps >= 0 && steps < range.length;
}

/** Counts looking a key up: equal texts are compared by their letters, long numbers written down. */
export function claimKey(key: Value): void {
  if (typeof key === 'string') claimComparison(key.length, key.length);
  else if (isNumber(key)) claimLong(key);
}

/** The elements of a value, as a loop takes them: characters, items, keys. */
export function elements(value: Value): readonly Value[] {
  if (Array.isArray(value)) return value;
  if (typeof value === 'string') return characters(value);
  if (value instanceof Tuple) return value.items;
  if (value instanceof Dict) {
    spend(value.size);
    return value.keys();
  }
  if (value instanceof Undefined) return [];
  if (value instanceof Range) return rangeItems(value);
  throw failure(`a value of type ${typeName(value)} has no elements`);
}

function rangeItems(range: Range): Value[] {
  spend(range.length);
  return Array.from({ length: range.length }, (_, i) => range.start + i * range.step);
}

/** Python's len(). */
export function lengthOf(value: Value): number {
  if (Array.isArray(value)) return value.length;
  if (typeof value === 'string') return textLength(value);
  if (value instanceof Tuple) return value.items.length;
  if (value instanceof Dict) return value.size;
  if (value instanceof Range) return value.length;
  if (value instanceof Undefined) return 0;
  throw failure(`a value of type ${typeName(value)} has no length`);
}
