/**
 * What expressions compute with: Python's values, in forms that JavaScript is quick with.
 *
 *   None        null
 *   bool        boolean
 *   int         number while it is a safe integer, else bigint: never a bigint that a number could hold
 *   float       Float
 *   Decimal     Decimal
 *   str         string
 *   list        array
 *   tuple       Tuple
 *   dict        Dict
 *   date, datetime, timedelta   PlainDate, DateTime, Duration
 *
 * No property of a JavaScript object is ever looked up by a name from an expression or from data.
 */
import type { DateTime, Duration, PlainDate } from './dates.ts';
import { Decimal, decimalKey, parseDecimal } from './decimal.ts';
import { failure, limits, made, overLimit, spend, watchText } from './limits.ts';

export type Integer = number | bigint;

export type Value =
  | null
  | boolean
  | Integer
  | Float
  | Decimal
  | string
  | Value[]
  | Tuple
  | Dict
  | PlainDate
  | DateTime
  | Duration
  | Undefined
  | Range
  | Namespace
  | Loop;

/** A binary floating point number. Boxed, because 2.0 is not 2: it prints otherwise, and divides otherwise. */
export class Float {
  readonly number: number;
  constructor(number: number) {
    this.number = number;
  }
}

export class Tuple {
  readonly items: readonly Value[];
  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** A group of the filter `groupby`: a tuple whose parts have names. */
export class Group extends Tuple {}

/** What is not there. Prints as nothing, is false and empty; everything else that is done with it fails. */
export class Undefined {
  readonly #owner: string | undefined;
  readonly #name: string;

  /** `owner`: type of the value that has no such attribute or item; without it `name` is the whole reason. */
  constructor(name: string, owner?: string) {
    this.#name = name;
    this.#owner = owner;
  }

  get reason(): string {
    return this.#owner === undefined ? this.#name : `a value of type ${this.#owner} has no "${this.#name}"`;
  }

  fail(): never {
    throw failure(this.reason);
  }
}

export class Range {
  readonly start: number;
  readonly stop: number;
  readonly step: number;
  readonly length: number;

  constructor(start: number, stop: number, step: number) {
    this.start = start;
    this.stop = stop;
    this.step = step;
    this.length = Math.max(0, Math.ceil((stop - start) / step));
  }
}

/** The object that `namespace()` makes: its fields can be set inside of loops. */
export class Namespace {
  readonly fields: Dict;
  constructor(fields: Dict) {
    this.fields = fields;
  }
}

/** What `loop` is inside of a loop. */
export class Loop {
  readonly items: readonly Value[];
  index = 0;
  /** What `changed` saw last. */
  seen: Value[] | undefined;

  constructor(items: readonly Value[]) {
    this.items = items;
  }
}

/** What stands for a key in the Map of a dict: equal keys have the same, as 1, 1.0 and True have in Python. */
type KeyId = string | Integer;

/** Python's dict: any hashable key, in the order in which they came. */
export class Dict {
  readonly #values = new Map<KeyId, Value>();
  /** Keys that are not their own id. */
  #keys: Map<KeyId, Value> | undefined;

  get size(): number {
    return this.#values.size;
  }

  get(key: Value): Value | undefined {
    return this.#values.get(keyId(key));
  }

  has(key: Value): boolean {
    return this.#values.has(keyId(key));
  }

  set(key: Value, value: Value): void {
    const id = keyId(key);
    if (id !== key && !this.#values.has(id)) {
      this.#keys ??= new Map();
      this.#keys.set(id, key);
    }
    this.#values.set(id, value);
  }

  delete(key: Value): void {
    const id = keyId(key);
    this.#values.delete(id);
    this.#keys?.delete(id);
  }

  keys(): Value[] {
    const ids = [...this.#values.keys()];
    const others = this.#keys;
    return others === undefined ? ids : ids.map((id) => (others.has(id) ? others.get(id)! : id));
  }

  values(): Value[] {
    return [...this.#values.values()];
  }

  entries(): [Value, Value][] {
    const entries = [...this.#values] as [Value, Value][];
    const others = this.#keys;
    if (others === undefined) return entries;
    for (const entry of entries) if (others.has(entry[0] as KeyId)) entry[0] = others.get(entry[0] as KeyId)!;
    return entries;
  }

  copy(): Dict {
    const copy = new Dict();
    for (const [key, value] of this.entries()) copy.set(key, value);
    return copy;
  }
}

/** Ids of keys that are no text begin with this, and so do ids of texts that begin with it. */
const mark = '\0';

/** The id of a key: what `unique` and dicts compare by. Throws for what Python cannot hash. */
export function keyId(key: Value): KeyId {
  if (typeof key === 'string') return key.startsWith(mark) ? `${mark}s${key}` : key;
  if (typeof key === 'number' || typeof key === 'bigint') return key;
  if (typeof key === 'boolean') return key ? 1 : 0;
  if (key === null) return `${mark}none`;
  if (key instanceof Float) return floatKey(key.number);
  if (key instanceof Decimal) return fractionKey(decimalKey(key));
  if (key instanceof Tuple) return tupleKey(key, 1);
  if (key instanceof Undefined) return `${mark}undefined`;
  if (Array.isArray(key) || key instanceof Dict) throw failure(`a value of type ${typeName(key)} cannot be a key`);
  if (key instanceof Range) return `${mark}r${key.length > 0 ? [key.start, key.length, key.step].join() : ''}`;
  if (key instanceof Namespace || key instanceof Loop)
    throw failure(`a value of type ${typeName(key)} cannot be a key`);
  return `${mark}${key.constructor.name} ${key.key()}`;
}

/** Of each item its id behind the id's length: so no sign in it needs an escape, which would double with each tuple around. */
function tupleKey({ items }: Tuple, depth: number): string {
  if (depth > limits.nesting) throw overLimit('nesting');
  spend(items.length);
  let id = `${mark}t`;
  for (const item of items) {
    const part = item instanceof Tuple ? tupleKey(item, depth + 1) : keyId(item);
    const text = String(part);
    id += `${typeof part === 'string' ? 's' : 'n'}${text.length}:${text}`;
    watchText(id.length);
  }
  return made(id);
}

function floatKey(number: number): KeyId {
  if (!Number.isFinite(number)) return `${mark}f${number}`;
  if (Number.isSafeInteger(number)) return number === 0 ? 0 : number;
  if (Number.isInteger(number)) return BigInt(number);
  return fractionKey(decimalKey(parseDecimal(String(number))!));
}

function fractionKey(key: string | Integer): KeyId {
  return typeof key === 'string' ? `${mark}d${key}` : key;
}

const typeNames = new Map<unknown, string>([
  [Float, 'float'],
  [Decimal, 'Decimal'],
  [Tuple, 'tuple'],
  [Group, 'tuple'],
  [Dict, 'dict'],
  [Undefined, 'undefined'],
  [Range, 'range'],
  [Namespace, 'namespace'],
  [Loop, 'loop'],
  [Array, 'list'],
]);

/** The type of a value as Python calls it. */
export function typeName(value: Value): string {
  switch (typeof value) {
    case 'string':
      return 'str';
    case 'number':
    case 'bigint':
      return 'int';
    case 'boolean':
      return 'bool';
    default:
      if (value === null) return 'None';
      return typeNames.get((value as object).constructor) ?? (value as DateTime).typeName;
  }
}

const digitsBound = 10n ** BigInt(limits.digits);

/** An integer in its one form, within the limit of digits. */
export function integer(value: bigint): Integer {
  const small = Number(value);
  if (Number.isSafeInteger(small)) return small;
  if (value >= digitsBound || value <= -digitsBound) throw overLimit('digits');
  return value;
}

/** An integer's literal: decimal, or with 0x, 0o or 0b in front. */
export function integerFromText(text: string): Integer {
  if (text.length < 16) return Number(text);
  return integer(BigInt(text));
}
