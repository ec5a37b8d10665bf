/** Filters of Jinja2 for single values: numbers, defaults, conversions, JSON. Some more than Jinja2 has. */

import { Duration } from './dates.ts';
import { Decimal } from './decimal.ts';
import { wantText } from './filters_text.ts';
import { type JsonStyle, parseJson, toJson } from './json_text.ts';
import { claimScan, failure, made } from './limits.ts';
import { fixed } from './number_format.ts';
import { parseDecimalText, parseFloatText, parseInteger } from './number_text.ts';
import {
  absoluteNumber,
  exactDecimal,
  floatText,
  isNumber,
  type NumberValue,
  roundNumber,
  toDecimal,
  toNumber,
  wholePart,
} from './numbers.ts';
import { isTrue } from './operators.ts';
import {
  allMatches,
  compilePattern,
  firstMatch,
  isFound,
  type Pattern,
  replaceMatches,
} from './regular_expressions.ts';
import { type Argument, indexArgument, type Routine, routine, textArgument } from './routine.ts';
import { decimalOf, eitherType, ofKind, type StaticType } from './static_type.ts';
import { toText } from './text.ts';
import { Float, typeName, Undefined, type Value } from './values.ts';

function wantNumber(value: Value, filter: string): NumberValue {
  if (isNumber(value)) return value;
  if (value instanceof Undefined) return value.fail();
  throw failure(`the filter ${filter} wants a number, not ${typeName(value)}`);
}

function round(value: Value, precision: Argument, method: Argument): Value {
  const places = precision === undefined ? 0 : indexArgument(precision, 'precision');
  const how = method === undefined ? 'common' : textArgument(method, 'method');
  if (how !== 'common' && how !== 'ceil' && how !== 'floor')
    throw failure('argument "method" must be common, ceil or floor');
  return roundNumber(wantNumber(value, 'round'), places, how);
}

function toInt(value: Value, fallback: Argument = 0, base: Argument = 10): Value {
  const radix = indexArgument(base, 'base');
  if (value instanceof Undefined) return value.fail();
  if (typeof value === 'string') {
    const inBase = radix === 0 || (radix >= 2 && radix <= 36) ? parseInteger(value, radix) : undefined;
    if (inBase !== undefined) return inBase;
    const float = parseFloatText(value);
    return float !== undefined && Number.isFinite(float) ? wholePart(new Float(float)) : fallback;
  }
  if (!isNumber(value) || (value instanceof Float && Number.isNaN(value.number))) return fallback;
  return wholePart(value);
}

function toFloat(value: Value, fallback: Argument = new Float(0)): Value {
  if (value instanceof Undefined) return value.fail();
  if (typeof value === 'string') {
    const float = parseFloatText(value);
    if (float !== undefined) return new Float(float);
  } else if (isNumber(value)) return new Float(toNumber(value));
  return fallback;
}

function toExactDecimal(value: Value, fallback: Argument = new Decimal(0, 0)): Value {
  if (value instanceof Undefined) return value.fail();
  if (typeof value === 'string') return parseDecimalText(value) ?? fallback;
  if (!isNumber(value) || (value instanceof Float && !Number.isFinite(value.number))) return fallback;
  return toDecimal(value);
}

function fallbackFor(value: Value, fallback: Argument = '', boolean: Argument = false): Value {
  return value instanceof Undefined || (isTrue(boolean) && !isTrue(value)) ? fallback : value;
}

function absolute(value: Value): Value {
  if (value instanceof Duration) return value.days < 0 ? value.times(-1)! : value;
  return absoluteNumber(wantNumber(value, 'abs'));
}

const sizes = ['kB', 'MB', 'GB', 'TB', 'PB', 'EB', 'ZB', 'YB'];

function fileSize(value: Value, binary: Argument): string {
  const size = toFloat(value, new Float(Number.NaN)) as Float;
  const bytes = size.number;
  if (Number.isNaN(bytes)) throw failure('the filter filesizeformat wants a number');
  const twos = binary !== undefined && isTrue(binary);
  const base = twos ? 1024 : 1000;
  if (bytes === 1) return '1 Byte';
  if (bytes < base) return `${toText(wholePart(size))} Bytes`;
  let index = 0;
  while (index < sizes.length - 1 && bytes >= base ** (index + 2)) index++;
  const prefix = twos ? sizes[index]!.toUpperCase().replace('B', 'iB') : sizes[index]!;
  const shown = (base * bytes) / base ** (index + 2);
  return `${Number.isFinite(shown) ? fixed(exactDecimal(shown), 1) : floatText(shown)} ${prefix}`;
}

const pythonJson: JsonStyle = { comma: ', ', colon: ': ', indent: undefined, sortKeys: true, ascii: true };

/** As Jinja2 writes JSON: keys sorted, ASCII only, and safe inside of HTML. */
function jsonFilter(value: Value, indent: Argument): string {
  const style = indent === undefined || indent === null ? pythonJson : { ...pythonJson, indent: indention(indent) };
  return made(
    toJson(value, style).replace(/[<>&']/g, (sign) => `\\u00${sign.charCodeAt(0).toString(16).padStart(2, '0')}`),
  );
}

function indention(indent: Value): string {
  if (typeof indent === 'string') return indent.slice(0, 100);
  return ' '.repeat(Math.max(0, Math.min(100, indexArgument(indent, 'indent'))));
}

function fromJson(value: Value): Value {
  const text = wantText(value, 'from_json');
  claimScan(text.length);
  const parsed = parseJson(text);
  if (parsed === undefined) throw failure('the text is no JSON');
  return parsed;
}

// ---- regular expressions

function patternOf(pattern: Argument, ignoreCase: Argument, multiline: Argument): Pattern {
  const flag = (value: Argument) => value !== undefined && isTrue(value);
  return compilePattern(textArgument(pattern, 'pattern'), flag(ignoreCase), flag(multiline));
}

function regexReplace(
  value: Value,
  pattern: Argument,
  replacement: Argument,
  ignoreCase: Argument,
  multiline: Argument,
  count: Argument,
): Value {
  const most = count === undefined ? 0 : indexArgument(count, 'count');
  const fresh = replacement === undefined ? '' : textArgument(replacement, 'replacement');
  return replaceMatches(patternOf(pattern, ignoreCase, multiline), toText(value), fresh, most);
}

function regexSearch(
  value: Value,
  pattern: Argument,
  group: Argument,
  ignoreCase: Argument,
  multiline: Argument,
): Value {
  const wanted = typeof group === 'string' ? group : group === undefined ? 0 : indexArgument(group, 'group');
  return firstMatch(patternOf(pattern, ignoreCase, multiline), toText(value), wanted);
}

/** A mistake in a constant pattern is a mistake in the template. */
function checkPattern(args: readonly Argument[]): void {
  if (typeof args[0] === 'string') compilePattern(args[0], false, false);
}

// ---- types of results

function roundedType(self: StaticType, [precision]: readonly (StaticType | undefined)[]): StaticType {
  if (self.kind === 'decimal' && self.scale !== undefined && precision === undefined)
    return decimalOf(self.digits! - self.scale + 1, 0);
  return self.kind === 'bool' ? ofKind('int') : self;
}

/** The type of a rounded value, where the number of places is written in the template. */
export function roundedTo(self: StaticType, places: number): StaticType {
  if (self.kind !== 'decimal') return self;
  const scale = Math.max(0, places);
  if (self.scale === undefined) return decimalOf(38, scale);
  return decimalOf(Math.max(1, self.digits! - self.scale + 1) + scale, scale);
}

function sameType(self: StaticType): StaticType {
  return self.kind === 'bool' ? ofKind('int') : self;
}

export const valueFilters: Routine[] = [
  routine('abs', '', sameType, absolute),
  routine('round', 'precision? method?', roundedType, round),
  routine(
    'int',
    'default? base?',
    (_, [fallback]) => (fallback === undefined ? ofKind('int') : eitherType(ofKind('int'), fallback)),
    toInt,
  ),
  routine(
    'float',
    'default?',
    (_, [fallback]) => (fallback === undefined ? ofKind('float') : eitherType(ofKind('float'), fallback)),
    toFloat,
  ),
  routine('decimal', 'default?', 'decimal', toExactDecimal),
  routine(
    'default',
    'default_value? boolean?',
    (self, [fallback]) => eitherType(self, fallback ?? ofKind('text')),
    fallbackFor,
  ),
  routine('filesizeformat', 'binary?', 'text', fileSize),
  routine('tojson', 'indent?', 'text', jsonFilter),
  routine('from_json', '', 'any', fromJson),
  {
    ...routine('regex_replace', 'pattern replacement? ignorecase? multiline? count?', 'text', regexReplace),
    check: checkPattern,
  },
  { ...routine('regex_search', 'pattern group? ignorecase? multiline?', 'text', regexSearch), check: checkPattern },
  {
    ...routine('regex_findall', 'pattern ignorecase? multiline?', 'list', (self, pattern, ignoreCase, multiline) =>
      allMatches(patternOf(pattern, ignoreCase, multiline), toText(self)),
    ),
    check: checkPattern,
  },
  {
    ...routine('regex_match', 'pattern ignorecase? multiline?', 'bool', (self, pattern, ignoreCase, multiline) =>
      isFound(patternOf(pattern, ignoreCase, multiline), toText(self), true),
    ),
    check: checkPattern,
  },
];

/** The tests `match` and `search`, with the same arguments as the filters. */
export const patternTests: Routine[] = (['match', 'search'] as const).map((name) => ({
  ...routine(name, 'pattern ignorecase? multiline?', 'bool', (self, pattern, ignoreCase, multiline) =>
    isFound(patternOf(pattern, ignoreCase, multiline), toText(self), name === 'match'),
  ),
  check: checkPattern,
}));
