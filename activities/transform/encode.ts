/**
 * From a rule's result to the text of a TSV field for a column of ClickHouse. ClickHouse wraps, cuts and clamps in silence:
 * so whatever it could alter is refused here, with the reason.
 */
import { type ClickhouseType, type ParsedType, parseClickhouseType } from './clickhouse_types.ts';
import { parseIso } from './jinja/date_format.ts';
import { clockText, DateTime, daysOf, dayText, PlainDate } from './jinja/dates.ts';
import { Decimal, decimalText, roundDecimal } from './jinja/decimal.ts';
import { compactJson, toJson } from './jinja/json_text.ts';
import { failure, renewBudget, spend, watchText } from './jinja/limits.ts';
import { parseDecimalText, parseInteger } from './jinja/number_text.ts';
import { compareNumbers, floatText, isNumber, toDecimal } from './jinja/numbers.ts';
import { elements } from './jinja/operators.ts';
import { toText } from './jinja/text.ts';
import { Dict, Float, Range, Tuple, typeName, type Value } from './jinja/values.ts';

/** Writes a result as a TSV field, without the tab. Throws EvaluationError for what the column cannot hold exactly. */
export type Encoder = (value: Value) => string;

/** The encoder for a type of ClickHouse; SluiceError `configuration` for types that rules cannot fill. */
export function encoderFor(type: string): Encoder {
  const parsed = parseClickhouseType(type);
  const encode = fieldEncoder(parsed.type);
  return (value) => {
    if (value !== null) {
      // What an evaluation has left is not for writing its result, nor what the row before has left.
      renewBudget();
      return encode(value);
    }
    if (parsed.nullable) return '\\N';
    throw failure(`NULL does not fit into ${type}`);
  };
}

function fieldEncoder(type: ClickhouseType): Encoder {
  // ClickHouse reads the text of an array without unescaping it first: its own string literals do that.
  if (type.name === 'Array') {
    return nestedArray(type.element);
  }
  const write = scalarWriter(type);
  return (value) => escapeField(write(value));
}

/** The text of a value that is not NULL, as ClickHouse reads it, not yet escaped. */
function scalarWriter(type: Exclude<ClickhouseType, { name: 'Array' }>): (value: Value) => string {
  switch (type.name) {
    case 'String':
      return storedText;
    case 'FixedString':
      return (value) => fixedText(value, type.length);
    case 'Int':
      return integerWriter(type.bits, type.signed);
    case 'Float':
      return (value) => floatOf(value, type.bits);
    case 'Decimal':
      return (value) => decimalOf(value, type.precision, type.scale);
    case 'Bool':
      return boolOf;
    case 'UUID':
      return uuidOf;
    case 'Date':
      return (value) => dateOf(value, type.wide);
    case 'DateTime':
      return (value) => dateTimeOf(value, type.places);
  }
}

const escapes: Record<string, string> = {
  '\0': '\\0',
  '\b': '\\b',
  '\t': '\\t',
  '\n': '\\n',
  '\f': '\\f',
  '\r': '\\r',
  '\\': '\\\\',
};
const special = /[\0\b\t\n\f\r\\]/;
const allSpecial = /[\0\b\t\n\f\r\\]/g;

/** Text as TSV has it. Most texts are short and need nothing: for those a loop is quicker than a pattern. */
function escapeField(text: string): string {
  if (text.length > 64) return special.test(text) ? text.replace(allSpecial, escapeSign) : text;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === 0x5c || (code < 0x20 && special.test(text[i]!))) return text.replace(allSpecial, escapeSign);
  }
  return text;
}

function escapeSign(sign: string): string {
  return escapes[sign]!;
}

/** The text that a String column holds: JSON of lists and dicts, else what `{{ }}` prints. */
export function storedText(value: Value): string {
  if (typeof value === 'string') return value;
  const structured = Array.isArray(value) || value instanceof Dict || value instanceof Tuple || value instanceof Range;
  if (!structured) return toText(value);
  // What is short in memory can be long on paper: the same list may stand in a value many times.
  renewBudget();
  return toJson(value instanceof Range ? [...elements(value)] : value, compactJson);
}

function refuse(value: Value, type: string): never {
  throw failure(`a value of type ${typeName(value)} does not fit into ${type}`);
}

function fixedText(value: Value, length: number): string {
  const text = storedText(value);
  const lacking = length - Buffer.byteLength(text);
  if (lacking < 0) throw failure(`a text does not fit into FixedString(${length})`);
  // As ClickHouse fills it up and prints it: joins compare keys by their texts.
  return `${text}${'\0'.repeat(lacking)}`;
}

function integerWriter(bits: number, signed: boolean): (value: Value) => string {
  const name = `${signed ? '' : 'U'}Int${bits}`;
  const most = 2n ** BigInt(signed ? bits - 1 : bits) - 1n;
  const least = signed ? -most - 1n : 0n;
  return (value) => {
    const whole = wholeOf(value, name);
    // A bigint and a number compare by their values.
    if (whole > most || whole < least) throw failure(`a number does not fit into ${name}`);
    return String(whole);
  };
}

/** A whole number, also one that was written as a decimal, a float or a text. */
function wholeOf(value: Value, type: string): number | bigint {
  if (typeof value === 'number' || typeof value === 'bigint') return value;
  if (typeof value === 'boolean') return value ? 1 : 0;
  if (typeof value === 'string') {
    const parsed = parseInteger(value, 10);
    if (parsed === undefined) throw failure(`a text is no number for ${type}`);
    return parsed;
  }
  if (!isNumber(value)) return refuse(value, type);
  const decimal = toDecimal(value);
  const whole = roundDecimal(decimal, 0);
  if (compareNumbers(whole, decimal) !== 0)
    throw failure(`a number with places behind the point does not fit into ${type}: use the filter round or int`);
  return whole.coefficient;
}

/** The nearest float; a number that is beyond all of them would be infinite. */
function floatOf(value: Value, bits: 32 | 64): string {
  const text = numberText(value, bits);
  const number = Number(text);
  const nearest = bits === 32 ? Math.fround(number) : number;
  const isInfinite = value instanceof Float && !Number.isFinite(value.number);
  if (Math.abs(nearest) === Number.POSITIVE_INFINITY && !isInfinite)
    throw failure(`a number does not fit into Float${bits}`);
  return text;
}

function numberText(value: Value, bits: 32 | 64): string {
  if (typeof value === 'string') {
    const decimal = parseDecimalText(value);
    if (decimal === undefined) throw failure(`a text is no number for Float${bits}`);
    return decimalText(decimal);
  }
  if (!isNumber(value)) return refuse(value, `Float${bits}`);
  if (value instanceof Float) return floatText(value.number);
  return value instanceof Decimal ? decimalText(value) : toText(typeof value === 'boolean' ? Number(value) : value);
}

function decimalOf(value: Value, precision: number, scale: number): string {
  const type = `Decimal(${precision}, ${scale})`;
  const decimal = typeof value === 'string' ? parseDecimalText(value) : isNumber(value) ? toDecimal(value) : undefined;
  if (decimal === undefined) return refuse(value, type);
  const fitted = decimal.scale <= scale ? decimal : roundDecimal(decimal, scale, 'cut');
  if (fitted !== decimal && compareNumbers(fitted, decimal) !== 0)
    throw failure(
      `a number with more than ${scale} places behind the point does not fit into ${type}: use the filter round`,
    );
  const digits = String(fitted.coefficient).replace('-', '').length + scale - fitted.scale;
  if (digits > precision && fitted.coefficient !== 0) throw failure(`a number does not fit into ${type}`);
  return decimalText(fitted);
}

function boolOf(value: Value): string {
  if (value === true || value === 1) return 'true';
  if (value === false || value === 0) return 'false';
  const word = typeof value === 'string' ? value.toLowerCase() : '';
  if (word === 'true' || word === 'false') return word;
  return refuse(value, 'Bool');
}

function uuidOf(value: Value): string {
  const valid = typeof value === 'string' && /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/i.test(value);
  // As ClickHouse prints it: joins compare keys by their texts.
  return valid ? value.toLowerCase() : refuse(value, 'UUID');
}

const firstDates = { wide: daysOf(1900, 1, 1), narrow: 0 };
const lastDates = { wide: daysOf(2299, 12, 31), narrow: 65535 };

function dateOf(value: Value, wide: boolean): string {
  const type = wide ? 'Date32' : 'Date';
  const moment = typeof value === 'string' ? parseIso(value) : value;
  if (moment instanceof DateTime && moment.microseconds !== 0)
    throw failure(`a datetime does not fit into ${type}: use the filter to_date`);
  if (!(moment instanceof DateTime || moment instanceof PlainDate)) return refuse(value, type);
  const range = wide ? 'wide' : 'narrow';
  if (moment.days < firstDates[range] || moment.days > lastDates[range])
    throw failure(`a date outside of ${dayText(firstDates[range])} … ${dayText(lastDates[range])}`);
  return dayText(moment.days);
}

/** A moment in UTC: one without a zone counts as UTC, as in the copy. `places`: those of the seconds. */
function dateTimeOf(value: Value, places: number | undefined): string {
  const type = places === undefined ? 'DateTime' : `DateTime64(${places})`;
  const moment = typeof value === 'string' ? parseIso(value) : value;
  if (!(moment instanceof DateTime || moment instanceof PlainDate)) return refuse(value, type);
  const microseconds = moment instanceof DateTime ? moment.microseconds : 0;
  const unit = 10 ** Math.max(0, 6 - (places ?? 0));
  if (microseconds % unit !== 0) throw failure(`a datetime with smaller parts of a second does not fit into ${type}`);
  if (places === undefined && (moment.days < 0 || moment.days > daysOf(2106, 2, 6)))
    throw failure('a datetime outside of 1970-01-01 … 2106-02-06 does not fit into DateTime');
  if (places !== undefined && places > 6 && (moment.days < daysOf(1900, 1, 1) || moment.days > daysOf(2261, 12, 31)))
    throw failure(`a datetime outside of 1900-01-01 … 2261-12-31 does not fit into ${type}`);
  return `${dayText(moment.days)} ${clockText(microseconds)}`;
}

// ---- arrays

/** Types whose values stand in arrays without quotes. */
const bare = new Set(['Int', 'Float', 'Decimal', 'Bool']);

/** How an element stands in the text of an array. */
function arrayElement({ type, nullable }: ParsedType): (value: Value) => string {
  const write = type.name === 'Array' ? nestedArray(type.element) : scalarWriter(type);
  const quoted = type.name !== 'Array' && !bare.has(type.name);
  return (value) => {
    if (value === null) {
      if (!nullable) throw failure('NULL does not fit into the array');
      return 'NULL';
    }
    return quoted ? quoteElement(write(value)) : write(value);
  };
}

function nestedArray(element: ParsedType): (value: Value) => string {
  const write = arrayElement(element);
  return (value) => arrayText(value, write);
}

function arrayText(value: Value, element: (value: Value) => string): string {
  if (!Array.isArray(value) && !(value instanceof Tuple) && !(value instanceof Range)) return refuse(value, 'Array');
  const items = elements(value);
  spend(items.length);
  let text = '';
  for (const item of items) {
    text += text === '' ? element(item) : `,${element(item)}`;
    watchText(text.length);
  }
  return `[${text}]`;
}

/** A string literal inside of ClickHouse's text of an array. */
function quoteElement(text: string): string {
  return `'${escapeField(text).replaceAll("'", "\\'")}'`;
}
