/** JSON as values and values as JSON. Integers are exact, whatever their size; other numbers are floats, as in Python. */

import { DateTime, Duration, PlainDate } from './dates.ts';
import { Decimal, decimalText } from './decimal.ts';
import { claimScan, claimText, failure, limits, made, overLimit, spend } from './limits.ts';
import { floatText } from './numbers.ts';
import { Dict, Float, integerFromText, Tuple, typeName, type Value } from './values.ts';

/** Parses JSON; undefined for what is none. Too deep a nesting is an error. */
export function parseJson(text: string): Value | undefined {
  const parser = new JsonParser(text);
  return parser.document();
}

const stringToken = /"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const plainString = /"[^"\\\x00-\x1f]*"/y;
const numberToken = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;

/** Thrown inside of the parser for text that is no JSON. */
const malformed = Symbol('malformed');

class JsonParser {
  readonly #text: string;
  #at = 0;
  #depth = 0;

  constructor(text: string) {
    this.#text = text;
  }

  document(): Value | undefined {
    try {
      const value = this.#value();
      this.#space();
      return this.#at === this.#text.length ? value : undefined;
    } catch (error) {
      if (error === malformed) return undefined;
      throw error;
    }
  }

  #space(): void {
    for (;;) {
      const code = this.#text.charCodeAt(this.#at);
      if (code !== 0x20 && code !== 0x0a && code !== 0x0d && code !== 0x09) return;
      this.#at++;
    }
  }

  #value(): Value {
    this.#space();
    switch (this.#text[this.#at]) {
      case '{':
        return this.#nested(() => this.#object());
      case '[':
        return this.#nested(() => this.#array());
      case '"':
        return this.#string();
      case 't':
        return this.#word('true', true);
      case 'f':
        return this.#word('false', false);
      case 'n':
        return this.#word('null', null);
      default:
        return this.#number();
    }
  }

  #nested<T>(parse: () => T): T {
    if (++this.#depth > limits.nesting) throw overLimit('nesting');
    this.#at++;
    const value = parse();
    this.#depth--;
    return value;
  }

  #word<T>(word: string, value: T): T {
    if (!this.#text.startsWith(word, this.#at)) throw malformed;
    this.#at += word.length;
    return value;
  }

  #string(): string {
    plainString.lastIndex = this.#at;
    const plain = plainString.exec(this.#text);
    if (plain) {
      this.#at += plain[0].length;
      return plain[0].slice(1, -1);
    }
    stringToken.lastIndex = this.#at;
    const token = stringToken.exec(this.#text);
    if (!token) throw malformed;
    this.#at += token[0].length;
    return JSON.parse(token[0]) as string;
  }

  #number(): Value {
    numberToken.lastIndex = this.#at;
    const token = numberToken.exec(this.#text);
    if (!token) throw malformed;
    this.#at += token[0].length;
    if (token[1] !== undefined || token[2] !== undefined) return new Float(Number(token[0]));
    if (token[0].length > limits.digits) throw overLimit('digits');
    return token[0] === '-0' ? 0 : integerFromText(token[0]);
  }

  #array(): Value[] {
    const items: Value[] = [];
    this.#space();
    if (this.#skip(']')) return items;
    for (;;) {
      items.push(this.#value());
      this.#space();
      if (this.#skip(']')) return items;
      this.#expect(',');
    }
  }

  #object(): Dict {
    const result = new Dict();
    this.#space();
    if (this.#skip('}')) return result;
    for (;;) {
      this.#space();
      if (this.#text[this.#at] !== '"') throw malformed;
      const key = this.#string();
      this.#space();
      this.#expect(':');
      result.set(key, this.#value());
      this.#space();
      if (this.#skip('}')) return result;
      this.#expect(',');
    }
  }

  #skip(sign: string): boolean {
    if (this.#text[this.#at] !== sign) return false;
    this.#at++;
    return true;
  }

  #expect(sign: string): void {
    if (!this.#skip(sign)) throw malformed;
  }
}

/** How JSON is written. */
export interface JsonStyle {
  /** Behind a comma and behind a colon; commas are followed by a new line instead where there is an indent. */
  comma: string;
  colon: string;
  indent: string | undefined;
  /** Keys in their order, and all characters beyond ASCII escaped. */
  sortKeys: boolean;
  ascii: boolean;
}

/** As short as can be: what is stored in columns. */
export const compactJson: JsonStyle = { comma: ',', colon: ':', indent: undefined, sortKeys: false, ascii: false };

/** A value as JSON. Decimals are written in full, dates as ISO text. Fails for what JSON cannot hold. */
export function toJson(value: Value, style: JsonStyle): string {
  return made(new JsonWriter(style).write(value, 0));
}

class JsonWriter {
  readonly #style: JsonStyle;

  constructor(style: JsonStyle) {
    this.#style = style;
  }

  write(value: Value, depth: number): string {
    if (typeof value === 'string') return this.#string(value);
    if (value === null) return 'null';
    if (typeof value !== 'object') return String(value);
    if (value instanceof Float) return this.#float(value.number);
    if (value instanceof Decimal) return decimalText(value);
    if (value instanceof DateTime) return `"${value.isoText('T')}"`;
    if (value instanceof PlainDate || value instanceof Duration) return `"${value}"`;
    if (depth > limits.nesting) throw overLimit('nesting');
    if (Array.isArray(value)) return this.#block('[', ']', this.#items(value, depth), depth);
    if (value instanceof Tuple) return this.#block('[', ']', this.#items(value.items, depth), depth);
    if (value instanceof Dict) return this.#block('{', '}', this.#entries(value, depth), depth);
    throw failure(`a value of type ${typeName(value)} has no JSON`);
  }

  #string(text: string): string {
    claimScan(text.length);
    const json = JSON.stringify(text);
    // JSON.stringify has escaped control characters.
    return this.#style.ascii ? json.replace(/[\u007f-\uffff]/g, unicodeEscape) : json;
  }

  #float(number: number): string {
    if (!Number.isFinite(number)) throw failure(`a float that is ${floatText(number)} has no JSON`);
    return floatText(number);
  }

  #items(items: readonly Value[], depth: number): string[] {
    spend(items.length);
    return items.map((item) => this.write(item, depth + 1));
  }

  #entries(dict: Dict, depth: number): string[] {
    spend(dict.size);
    let entries = dict.entries();
    if (this.#style.sortKeys) entries = sortedByKey(entries);
    return entries.map(
      ([key, item]) => `${this.#string(keyText(key))}${this.#style.colon}${this.write(item, depth + 1)}`,
    );
  }

  #block(open: string, close: string, parts: string[], depth: number): string {
    if (parts.length === 0) return open + close;
    const { indent, comma } = this.#style;
    const between = 2 + (indent === undefined ? 0 : indent.length * (depth + 1));
    let size = 2;
    for (const part of parts) size += part.length + between;
    claimText(size);
    if (indent === undefined) return open + parts.join(comma) + close;
    const inner = `\n${indent.repeat(depth + 1)}`;
    return `${open}${inner}${parts.join(`,${inner}`)}\n${indent.repeat(depth)}${close}`;
  }
}

function unicodeEscape(character: string): string {
  return `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;
}

function sortedByKey(entries: [Value, Value][]): [Value, Value][] {
  const sameType = entries.every(([key]) => typeName(key) === typeName(entries[0]![0]));
  if (!sameType) throw failure('keys of different types have no order');
  return entries.sort(([a], [b]) => keyOrder(a, b));
}

function keyOrder(a: Value, b: Value): number {
  if (typeof a === 'string' && typeof b === 'string') return a < b ? -1 : a > b ? 1 : 0;
  if (a instanceof Float && b instanceof Float) return a.number - b.number;
  return (a as number) < (b as number) ? -1 : (a as number) > (b as number) ? 1 : 0;
}

/** JSON's keys are text: Python writes True as true, and numbers as they are. */
function keyText(key: Value): string {
  if (typeof key === 'string') return key;
  if (key === null) return 'null';
  if (typeof key === 'number' || typeof key === 'bigint' || typeof key === 'boolean') return String(key);
  if (key instanceof Float) return floatText(key.number);
  throw failure(`a value of type ${typeName(key)} cannot be a key in JSON`);
}
