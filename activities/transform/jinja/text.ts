/** Values as text (`str` and `repr` of Python), and texts as sequences of characters. */
import { Decimal, decimalText } from './decimal.ts';
import { claimComparison, claimNumber, claimScan, limits, made, overLimit, spend, watchText } from './limits.ts';
import { floatText } from './numbers.ts';
import { notPrintable } from './unicode.ts';
import { Dict, Float, Loop, Namespace, Range, Tuple, Undefined, type Value } from './values.ts';

/** The text of a value, as `{{ }}` prints it. */
export function toText(value: Value): string {
  switch (typeof value) {
    case 'string':
      return value;
    case 'number':
      return `${value}`;
    case 'bigint':
      claimNumber(value);
      return String(value);
    case 'boolean':
      return value ? 'True' : 'False';
    default:
      return objectText(value);
  }
}

function objectText(value: Exclude<Value, string | number | bigint | boolean>): string {
  if (value === null) return 'None';
  if (value instanceof Decimal) return longText(value);
  if (value instanceof Float) return floatText(value.number);
  if (value instanceof Undefined) return '';
  if (Array.isArray(value) || value instanceof Tuple || value instanceof Dict) return represent(value, 0);
  if (value instanceof Range || value instanceof Namespace || value instanceof Loop) return represent(value, 0);
  return value.toString();
}

function longText(value: Decimal): string {
  claimNumber(value.coefficient);
  return decimalText(value);
}

/** The text of a value as Python's repr() writes it, and as it stands inside of lists. */
export function toRepr(value: Value): string {
  return represent(value, 0);
}

function represent(value: Value, depth: number): string {
  if (typeof value === 'string') return quote(value);
  if (value === null || typeof value !== 'object') return toText(value);
  if (value instanceof Float) return floatText(value.number);
  if (value instanceof Decimal) return `Decimal('${longText(value)}')`;
  if (value instanceof Undefined) return 'Undefined';
  if (depth > limits.nesting) throw overLimit('nesting');
  if (Array.isArray(value)) return `[${list(value, depth)}]`;
  if (value instanceof Tuple) return `(${list(value.items, depth)}${value.items.length === 1 ? ',' : ''})`;
  if (value instanceof Dict) return dict(value, depth);
  if (value instanceof Range) return `range(${value.start}, ${value.stop}${value.step === 1 ? '' : `, ${value.step}`})`;
  if (value instanceof Namespace) return `<Namespace ${dict(value.fields, depth)}>`;
  if (value instanceof Loop) return `<LoopContext ${value.index + 1}/${value.items.length}>`;
  return value.repr();
}

function list(items: readonly Value[], depth: number): string {
  spend(items.length);
  let text = '';
  for (let i = 0; i < items.length; i++) {
    text += i === 0 ? represent(items[i]!, depth + 1) : `, ${represent(items[i]!, depth + 1)}`;
    watchText(text.length);
  }
  return made(text);
}

function dict(value: Dict, depth: number): string {
  spend(value.size);
  let text = '';
  for (const [key, item] of value.entries()) {
    text += `${text === '' ? '' : ', '}${represent(key, depth + 1)}: ${represent(item, depth + 1)}`;
    watchText(text.length);
  }
  return made(`{${text}}`);
}

const escapes: Record<string, string> = { '\n': '\\n', '\r': '\\r', '\t': '\\t' };

/** A string literal of Python. */
export function quote(text: string): string {
  claimScan(text.length);
  const mark = text.includes("'") && !text.includes('"') ? '"' : "'";
  let body = text;
  if (body.includes('\\')) body = body.replaceAll('\\', '\\\\');
  if (mark === "'" && body.includes("'")) body = body.replaceAll("'", "\\'");
  return mark + body.replace(notPrintable, escapeCharacter) + mark;
}

function escapeCharacter(character: string): string {
  if (escapes[character] !== undefined) return escapes[character];
  const code = character.codePointAt(0)!;
  if (code <= 0xff) return `\\x${code.toString(16).padStart(2, '0')}`;
  return code <= 0xffff ? `\\u${code.toString(16).padStart(4, '0')}` : `\\U${code.toString(16).padStart(8, '0')}`;
}

// ---- characters: Python counts code points, JavaScript counts halves of some of them

/** True when each character of the text is one unit of JavaScript's. */
export function isPlain(text: string): boolean {
  for (let i = 0; i < text.length; i++) if ((text.charCodeAt(i) & 0xf800) === 0xd800) return false;
  return true;
}

/** The text's characters. */
export function characters(text: string): string[] {
  spend(text.length);
  return isPlain(text) ? text.split('') : Array.from(text);
}

/** How many characters a text has. */
export function textLength(text: string): number {
  claimScan(text.length);
  let pairs = 0;
  for (let i = 0; i < text.length; i++) {
    if ((text.charCodeAt(i) & 0xfc00) === 0xd800 && (text.charCodeAt(i + 1) & 0xfc00) === 0xdc00) {
      pairs++;
      i++;
    }
  }
  return text.length - pairs;
}

/** Where character number `count` begins, from unit `from` on; the text's end where it has fewer. */
export function unitOffset(text: string, count: number, from = 0): number {
  claimScan(Math.min(count, text.length - from));
  let at = from;
  for (let left = count; left > 0 && at < text.length; left--) {
    const pair = (text.charCodeAt(at) & 0xfc00) === 0xd800 && (text.charCodeAt(at + 1) & 0xfc00) === 0xdc00;
    at += pair ? 2 : 1;
  }
  return Math.min(at, text.length);
}

/** How many characters stand before unit `offset`. */
export function characterIndex(text: string, offset: number): number {
  return offset <= 0 ? offset : textLength(text.slice(0, offset));
}

/** The order of two texts by code points: below zero where a comes first. */
export function compareTexts(a: string, b: string): number {
  claimComparison(a.length, b.length);
  if (a === b) return 0;
  const end = Math.min(a.length, b.length);
  claimScan(end);
  let i = 0;
  while (i < end && a.charCodeAt(i) === b.charCodeAt(i)) i++;
  if (i === end) return a.length - b.length;
  const x = a.charCodeAt(i);
  const y = b.charCodeAt(i);
  // Halves of characters beyond the first 65,536 come after all others.
  return rank(x) - rank(y);
}

function rank(unit: number): number {
  return (unit & 0xf800) === 0xd800 ? unit + 0x10000 : unit;
}
