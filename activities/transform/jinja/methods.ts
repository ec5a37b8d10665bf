/** The methods of lists, tuples, dicts, dates and numbers, and the table of methods by type. */
import { formatDate, isoWeek, weekdayOf } from './date_format.ts';
import {
  calendarDay,
  clockTime,
  DateTime,
  Duration,
  daysInMonth,
  daysOf,
  epochMicroseconds,
  PlainDate,
} from './dates.ts';
import { claimNumber, failure, spend } from './limits.ts';
import { divideNumbers } from './numbers.ts';
import { claimKey, elements, equal, isTrue } from './operators.ts';
import {
  type Argument,
  indexArgument,
  integerArgument,
  type Routine,
  type Routines,
  routine,
  routines,
  textArgument,
  variadicRoutine,
} from './routine.ts';
import { sliceBounds } from './slices.ts';
import { sorted } from './sorting.ts';
import { textMethods } from './text_methods.ts';
import { Dict, Float, integer, Loop, Range, Tuple, type Value } from './values.ts';

/**
 * Methods that change their list or dict. A template that calls one works on copies of the row's values, and its literals
 * are made anew for each row.
 */
export const changingMethods: ReadonlySet<string> = new Set([
  'append',
  'clear',
  'extend',
  'insert',
  'pop',
  'popitem',
  'remove',
  'reverse',
  'setdefault',
  'sort',
  'update',
]);

// ---- list and tuple

function indexIn(items: readonly Value[], value: Value, start: Argument, stop: Argument): number {
  const [from, to] = sliceBounds(items.length, start ?? null, stop ?? null);
  spend(items.length);
  for (let i = from; i < to; i++) if (equal(items[i]!, value)) return i;
  throw failure('the value is not in the list');
}

function countIn(items: readonly Value[], value: Value): number {
  spend(items.length);
  return items.filter((item) => equal(item, value)).length;
}

function listMethod(
  name: string,
  signature: string,
  run: (list: Value[], a: Argument, b: Argument, c: Argument) => Value,
): Routine {
  return routine(name, signature, 'any', (self, a, b, c) => run(self as Value[], a, b, c));
}

function popFrom(list: Value[], index: Argument): Value {
  if (list.length === 0) throw failure('the list is empty');
  const at = index === undefined ? list.length - 1 : indexArgument(index, 'index');
  const place = at < 0 ? at + list.length : at;
  if (place < 0 || place >= list.length) throw failure('the list has no such item');
  spend(1 + ((list.length - place) >> 3));
  return list.splice(place, 1)[0]!;
}

const listMethods = routines([
  listMethod('index', '/ value start? stop?', (list, value, start, stop) => indexIn(list, value!, start, stop)),
  listMethod('count', '/ value', (list, value) => countIn(list, value!)),
  listMethod('copy', '/', (list) => {
    spend(list.length);
    return [...list];
  }),
  listMethod('append', '/ object', (list, value) => {
    spend(1);
    list.push(value!);
    return null;
  }),
  listMethod('extend', '/ iterable', (list, iterable) => {
    const items = elements(iterable!);
    spend(items.length);
    for (const item of [...items]) list.push(item);
    return null;
  }),
  listMethod('insert', '/ index object', (list, index, value) => {
    spend(list.length);
    list.splice(indexArgument(index, 'index'), 0, value!);
    return null;
  }),
  listMethod('pop', '/ index?', popFrom),
  listMethod('remove', '/ value', (list, value) => {
    list.splice(indexIn(list, value!, undefined, undefined), 1);
    return null;
  }),
  listMethod('clear', '/', (list) => {
    list.length = 0;
    return null;
  }),
  listMethod('reverse', '/', (list) => {
    spend(list.length);
    list.reverse();
    return null;
  }),
  listMethod('sort', 'reverse?', (list, reverse) => {
    for (const [i, item] of sorted(list, reverse !== undefined && isTrue(reverse)).entries()) list[i] = item;
    return null;
  }),
]);

const tupleMethods = routines([
  routine('index', '/ value start? stop?', 'int', (self, value, start, stop) =>
    indexIn((self as Tuple).items, value!, start, stop),
  ),
  routine('count', '/ value', 'int', (self, value) => countIn((self as Tuple).items, value!)),
]);

const rangeMethods = routines([
  routine('index', '/ value', 'int', (self, value) => indexIn(elements(self), value!, undefined, undefined)),
  routine('count', '/ value', 'int', (self, value) => countIn(elements(self), value!)),
]);

// ---- dict

function dictMethod(
  name: string,
  signature: string,
  type: 'any' | 'list' | 'dict',
  run: (dict: Dict, a: Argument, b: Argument) => Value,
): Routine {
  return routine(name, signature, type, (self, a, b) => {
    const dict = self as Dict;
    spend(1);
    return run(dict, a, b);
  });
}

/** Pairs of a dict, as tuples. */
export function dictItems(dict: Dict): Value[] {
  spend(dict.size);
  return dict.entries().map((entry) => new Tuple(entry));
}

/** Adds the entries of a dict, or of a list of pairs. */
export function updateDict(dict: Dict, source: Value): void {
  if (source instanceof Dict) {
    spend(source.size);
    for (const [key, value] of source.entries()) dict.set(key, value);
    return;
  }
  for (const pair of elements(source)) {
    const items = elements(pair);
    if (items.length !== 2) throw failure('a dict is made of pairs');
    spend(1);
    dict.set(items[0]!, items[1]!);
  }
}

/** A new dict from a dict or pairs, and from named values. */
export function dictOf(positional: readonly Value[], named: ReadonlyMap<string, Value>): Dict {
  if (positional.length > 1) throw failure('a dict is made of one dict or list of pairs');
  const dict = new Dict();
  if (positional.length === 1) updateDict(dict, positional[0]!);
  for (const [key, value] of named) dict.set(key, value);
  return dict;
}

const dictMethods = routines([
  dictMethod('get', '/ key default?', 'any', (dict, key, fallback = null) => {
    claimKey(key!);
    const value = dict.get(key!);
    return value === undefined ? fallback : value;
  }),
  dictMethod('keys', '/', 'list', (dict) => {
    spend(dict.size);
    return dict.keys();
  }),
  dictMethod('values', '/', 'list', (dict) => {
    spend(dict.size);
    return dict.values();
  }),
  dictMethod('items', '/', 'list', dictItems),
  dictMethod('copy', '/', 'dict', (dict) => {
    spend(dict.size);
    return dict.copy();
  }),
  dictMethod('pop', '/ key default?', 'any', (dict, key, fallback) => {
    claimKey(key!);
    const value = dict.has(key!) ? dict.get(key!) : fallback;
    if (value === undefined) throw failure('the dict has no such key');
    dict.delete(key!);
    return value;
  }),
  dictMethod('popitem', '/', 'any', (dict) => {
    spend(dict.size);
    const last = dict.entries().at(-1);
    if (last === undefined) throw failure('the dict is empty');
    dict.delete(last[0]);
    return new Tuple(last);
  }),
  dictMethod('setdefault', '/ key default?', 'any', (dict, key, fallback = null) => {
    claimKey(key!);
    if (!dict.has(key!)) dict.set(key!, fallback);
    return dict.get(key!)!;
  }),
  dictMethod('clear', '/', 'any', (dict) => {
    spend(dict.size);
    for (const key of dict.keys()) dict.delete(key);
    return null;
  }),
  variadicRoutine('update', 'any', (self, positional, named) => {
    if (positional.length > 1) throw failure('update takes one dict');
    if (positional.length === 1) updateDict(self as Dict, positional[0]!);
    for (const [key, value] of named) (self as Dict).set(key, value);
    return null;
  }),
]);

// ---- dates

/** Microseconds as seconds, in the nearest float. */
function secondsOf(microseconds: bigint): Value {
  return divideNumbers(integer(microseconds), 1_000_000);
}

type Moment = DateTime | PlainDate;

function isoCalendar(moment: Moment): Tuple {
  const { year, week } = isoWeek(moment.days);
  return new Tuple([year, week, weekdayOf(moment.days) + 1]);
}

/** The moment with some of its fields replaced. */
function replaceFields(moment: Moment, fields: readonly (number | undefined)[]): Moment {
  const date = calendarDay(moment.days);
  const clock = clockTime(moment instanceof DateTime ? moment.microseconds : 0);
  const [year = date.year, month = date.month, day = date.day, hour = clock.hour, minute = clock.minute] = fields;
  const [second = clock.second, microsecond = clock.microsecond] = fields.slice(5);
  const valid =
    year >= 1 &&
    year <= 9999 &&
    month >= 1 &&
    month <= 12 &&
    day >= 1 &&
    day <= daysInMonth(year, month) &&
    [hour / 24, minute / 60, second / 60, microsecond / 1e6].every((part) => part >= 0 && part < 1);
  if (!valid) throw failure('a date or time out of range');
  const days = daysOf(year, month, day);
  if (!(moment instanceof DateTime)) return new PlainDate(days);
  return new DateTime(days, ((hour * 60 + minute) * 60 + second) * 1e6 + microsecond, moment.utc);
}

function momentMethods(kind: 'date' | 'datetime'): Routine[] {
  const fields = kind === 'date' ? 'year? month? day?' : 'year? month? day? hour? minute? second? microsecond?';
  return [
    routine('strftime', 'format', 'text', (self, format) => formatDate(self as Moment, textArgument(format, 'format'))),
    routine('weekday', '/', 'int', (self) => weekdayOf((self as Moment).days)),
    routine('isoweekday', '/', 'int', (self) => weekdayOf((self as Moment).days) + 1),
    routine('isocalendar', '/', 'tuple', (self) => isoCalendar(self as Moment)),
    routine('toordinal', '/', 'int', (self) => (self as Moment).days + 719163),
    routine('replace', fields, kind, (self, ...args) =>
      replaceFields(
        self as Moment,
        args.map((value) => (value === undefined ? undefined : indexArgument(value, 'replace'))),
      ),
    ),
  ];
}

const dateMethods = routines([
  ...momentMethods('date'),
  routine('isoformat', '/', 'text', (self) => (self as PlainDate).toString()),
]);

const dateTimeMethods = routines([
  ...momentMethods('datetime'),
  routine('isoformat', 'sep?', 'text', (self, separator) => {
    const sign = separator === undefined ? 'T' : textArgument(separator, 'sep');
    if (sign.length !== 1) throw failure('argument "sep" must be one character');
    return (self as DateTime).isoText(sign);
  }),
  routine('date', '/', 'date', (self) => new PlainDate((self as DateTime).days)),
  routine('timestamp', '/', 'float', (self) => secondsOf(epochMicroseconds(self as DateTime))),
]);

const durationMethods = routines([
  routine('total_seconds', '/', 'float', (self) => secondsOf((self as Duration).total())),
]);

// ---- numbers

const integerMethods = routines([
  routine('bit_length', '/', 'int', (self) => {
    const value = BigInt(integerArgument(self, 'value'));
    claimNumber(value);
    return value === 0n ? 0 : (value < 0n ? -value : value).toString(2).length;
  }),
]);

const floatMethods = routines([routine('is_integer', '/', 'bool', (self) => Number.isInteger((self as Float).number))]);

// ---- loop

const loopMethods = routines([
  variadicRoutine('cycle', 'any', (self, positional) => {
    if (positional.length === 0) throw failure('nothing to cycle through');
    return positional[(self as Loop).index % positional.length]!;
  }),
  variadicRoutine('changed', 'bool', (self, positional) => {
    const loop = self as Loop;
    const changed = loop.seen === undefined || !equal(loop.seen, positional);
    if (changed) loop.seen = positional;
    return changed;
  }),
]);

const none: Routines = new Map();

/** The methods that a value has. */
export function methodsOf(value: Value): Routines {
  switch (typeof value) {
    case 'string':
      return textMethods;
    case 'number':
    case 'bigint':
    case 'boolean':
      return integerMethods;
    default:
      return value === null ? none : methodsOfObject(value);
  }
}

function methodsOfObject(value: Exclude<Value, null | string | number | bigint | boolean>): Routines {
  if (Array.isArray(value)) return listMethods;
  if (value instanceof Dict) return dictMethods;
  if (value instanceof Tuple) return tupleMethods;
  if (value instanceof Range) return rangeMethods;
  if (value instanceof DateTime) return dateTimeMethods;
  if (value instanceof PlainDate) return dateMethods;
  if (value instanceof Duration) return durationMethods;
  if (value instanceof Float) return floatMethods;
  if (value instanceof Loop) return loopMethods;
  return none;
}

/** All tables of methods, to find a name in any of them. */
export const allMethods: readonly Routines[] = [
  textMethods,
  listMethods,
  dictMethods,
  tupleMethods,
  rangeMethods,
  dateTimeMethods,
  dateMethods,
  durationMethods,
  integerMethods,
  floatMethods,
  loopMethods,
];
