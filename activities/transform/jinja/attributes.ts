/** Attributes and items of values: `value.name` and `value[key]`. What is not there is Undefined, as in Jinja2. */
import { calendarDay, clockTime, DateTime, Duration, PlainDate } from './dates.ts';
import { claimScan, EvaluationError } from './limits.ts';
import { isInteger } from './numbers.ts';
import { claimKey } from './operators.ts';
import { unitOffset } from './text.ts';
import { Dict, Group, keyId, Loop, Namespace, Range, Tuple, typeName, Undefined, type Value } from './values.ts';

/** An attribute in Python's sense, which an item of a dict is not; undefined where there is none of that name. */
export function fieldOf(value: Value, name: string): Value | undefined {
  if (value instanceof DateTime) return calendarField(value.days, name) ?? clockField(value.microseconds, name);
  if (value instanceof PlainDate) return calendarField(value.days, name);
  if (value instanceof Duration) return durationField(value, name);
  if (value instanceof Loop) return loopField(value, name);
  if (value instanceof Namespace) return value.fields.get(name);
  if (value instanceof Group) return name === 'grouper' ? value.items[0] : name === 'list' ? value.items[1] : undefined;
  if (value instanceof Undefined) return value.fail();
  return undefined;
}

function calendarField(days: number, name: string): Value | undefined {
  switch (name) {
    case 'year':
      return calendarDay(days).year;
    case 'month':
      return calendarDay(days).month;
    case 'day':
      return calendarDay(days).day;
    default:
      return undefined;
  }
}

function clockField(microseconds: number, name: string): Value | undefined {
  switch (name) {
    case 'hour':
      return clockTime(microseconds).hour;
    case 'minute':
      return clockTime(microseconds).minute;
    case 'second':
      return clockTime(microseconds).second;
    case 'microsecond':
      return clockTime(microseconds).microsecond;
    default:
      return undefined;
  }
}

function durationField(span: Duration, name: string): Value | undefined {
  switch (name) {
    case 'days':
      return span.days;
    case 'seconds':
      return Math.floor(span.microseconds / 1e6);
    case 'microseconds':
      return span.microseconds % 1e6;
    default:
      return undefined;
  }
}

function loopField(loop: Loop, name: string): Value | undefined {
  const { index, items } = loop;
  switch (name) {
    case 'index':
      return index + 1;
    case 'index0':
      return index;
    case 'revindex':
      return items.length - index;
    case 'revindex0':
      return items.length - index - 1;
    case 'first':
      return index === 0;
    case 'last':
      return index === items.length - 1;
    case 'length':
      return items.length;
    case 'depth':
      // Only recursive loops are deeper, and there are none.
      return 1;
    case 'depth0':
      return 0;
    case 'previtem':
      return index > 0 ? items[index - 1] : new Undefined('there is no previous item');
    case 'nextitem':
      return index + 1 < items.length ? items[index + 1] : new Undefined('there is no next item');
    default:
      return undefined;
  }
}

function missing(value: Value, name: Value): Undefined {
  return new Undefined(typeof name === 'string' || isInteger(name) ? String(name) : typeName(name), typeName(value));
}

/** What was found, which may be None, or else Undefined. */
function found(item: Value | undefined, value: Value, name: Value): Value {
  return item === undefined ? missing(value, name) : item;
}

/** `value.name`: an attribute, else an item with that key. */
export function attributeOf(value: Value, name: string): Value {
  return found(value instanceof Dict ? value.get(name) : fieldOf(value, name), value, name);
}

/** `value[key]`: an item, else an attribute with that name. */
export function itemOf(value: Value, key: Value): Value {
  if (typeof key === 'number' || typeof key === 'boolean' || typeof key === 'bigint') return indexed(value, key);
  if (value instanceof Dict) return keyed(value, key);
  if (typeof key === 'string') return found(fieldOf(value, key), value, key);
  if (value instanceof Undefined) return value.fail();
  return missing(value, key);
}

function keyed(dict: Dict, key: Value): Value {
  claimKey(key);
  // What cannot be a key is not in the dict: Jinja2 answers Undefined for that, too.
  if (Array.isArray(key) || key instanceof Dict || key instanceof Namespace || key instanceof Loop)
    return missing(dict, key);
  if (key instanceof Tuple) {
    try {
      keyId(key);
    } catch (error) {
      if (error instanceof EvaluationError && error.limit === undefined) return missing(dict, key);
      throw error;
    }
  }
  return found(dict.get(key), dict, key);
}

function indexed(value: Value, key: number | boolean | bigint): Value {
  if (value instanceof Dict) return keyed(value, key);
  const index = Number(key);
  if (typeof value === 'string') return found(characterAt(value, index), value, key);
  if (Array.isArray(value)) return found(value[index < 0 ? index + value.length : index], value, key);
  if (value instanceof Tuple) return found(value.items[index < 0 ? index + value.items.length : index], value, key);
  if (value instanceof Range) {
    const at = index < 0 ? index + value.length : index;
    return at >= 0 && at < value.length ? value.start + at * value.step : missing(value, key);
  }
  if (value instanceof Undefined) return value.fail();
  return missing(value, key);
}

function characterAt(text: string, index: number): string | undefined {
  if (index >= 0) {
    const start = unitOffset(text, index);
    return start < text.length ? text.slice(start, unitOffset(text, 1, start)) : undefined;
  }
  // From the end: one step back for each character.
  claimScan(Math.min(-index, text.length));
  let at = text.length;
  for (let left = -index; left > 0; left--) {
    if (at === 0) return undefined;
    const pair = (text.charCodeAt(at - 1) & 0xfc00) === 0xdc00 && (text.charCodeAt(at - 2) & 0xfc00) === 0xd800;
    at -= pair ? 2 : 1;
  }
  return text.slice(at, unitOffset(text, 1, at));
}
