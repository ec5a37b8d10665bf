/** Filters for dates. Jinja2 has none; they read, write and compute with Python's date and datetime. */
import { formatDate, parseDate, parseIso } from './date_format.ts';
import {
  addDurations,
  addMonths,
  DateTime,
  Duration,
  epochMicroseconds,
  fromEpoch,
  PlainDate,
  spanOf,
  subtractDates,
  units,
} from './dates.ts';
import { failure } from './limits.ts';
import { isInteger, isNumber } from './numbers.ts';
import { type Argument, indexArgument, type Routine, routine, textArgument } from './routine.ts';
import { ofKind } from './static_type.ts';
import { integer, typeName, Undefined, type Value } from './values.ts';

/** A value as a date or datetime; texts are read by ISO 8601. */
function momentOf(value: Value, filter: string): DateTime | PlainDate {
  if (value instanceof DateTime || value instanceof PlainDate) return value;
  if (typeof value === 'string') return parseIso(value);
  if (value instanceof Undefined) return value.fail();
  throw failure(`the filter ${filter} wants a date, not ${typeName(value)}`);
}

function dateTimeOf(value: Value, filter: string): DateTime {
  const moment = momentOf(value, filter);
  return moment instanceof DateTime ? moment : new DateTime(moment.days, 0, false);
}

function toDateTime(value: Value, format: Argument): DateTime {
  if (typeof value === 'string' && typeof format === 'string') return parseDate(value, format);
  return dateTimeOf(value, 'to_datetime');
}

function toDate(value: Value, format: Argument): PlainDate {
  if (value instanceof PlainDate) return value;
  return new PlainDate(toDateTime(value, format).days);
}

const spanNames = ['weeks', 'days', 'hours', 'minutes', 'seconds', 'milliseconds', 'microseconds'];

/** The moment moved by calendar years and months first, then by fixed spans. */
function dateAdd(value: Value, years: Argument, months: Argument, ...spans: Argument[]): Value {
  const moment = momentOf(value, 'date_add');
  const count = (years === undefined ? 0 : indexArgument(years, 'years')) * 12;
  const shifted = addMonths(moment, count + (months === undefined ? 0 : indexArgument(months, 'months')));
  let total = 0n;
  for (const [i, span] of spans.entries()) if (span !== undefined) total += spanOf(span, spanNames[i]!);
  if (total === 0n) return shifted;
  // A date that is moved by hours must become a datetime, else they would be lost.
  const whole = total % BigInt(units.get('days')!) === 0n;
  const base = shifted instanceof PlainDate && !whole ? new DateTime(shifted.days, 0, false) : shifted;
  return addDurations(base, Duration.ofMicroseconds(total), 1)!;
}

/** Whole units from `other` to the value; negative where the value is earlier. */
function dateDiff(value: Value, other: Argument, unit: Argument): Value {
  const a = momentOf(value, 'date_diff');
  const b = momentOf(other!, 'date_diff');
  const both = a instanceof PlainDate && b instanceof PlainDate;
  const span = both ? subtractDates(a, b)! : subtractDates(dateTimeOf(a, ''), dateTimeOf(b, ''))!;
  const name = unit === undefined ? 'seconds' : textArgument(unit, 'unit');
  const size = units.get(name);
  if (size === undefined) throw failure(`argument "unit" must be one of ${[...units.keys()].join(', ')}`);
  return integer(span.total() / BigInt(size));
}

const epochUnits = new Map([
  ['s', 1_000_000n],
  ['ms', 1000n],
  ['us', 1n],
]);

function epochUnit(unit: Argument): bigint {
  const size = epochUnits.get(unit === undefined ? 's' : textArgument(unit, 'unit'));
  if (size === undefined) throw failure(`argument "unit" must be one of ${[...epochUnits.keys()].join(', ')}`);
  return size;
}

/** Whole units since 1970, rounded down. */
function epoch(value: Value, unit: Argument): Value {
  const size = epochUnit(unit);
  const total = epochMicroseconds(momentOf(value, 'epoch'));
  const quotient = total / size;
  return integer(total % size < 0n ? quotient - 1n : quotient);
}

function fromEpochUnits(value: Value, unit: Argument): DateTime {
  const size = epochUnit(unit);
  if (isInteger(value)) return fromEpoch(BigInt(value) * size);
  if (value instanceof Undefined) return value.fail();
  if (!isNumber(value)) throw failure(`the filter from_epoch wants a number, not ${typeName(value)}`);
  const name = size === 1n ? 'microseconds' : size === 1000n ? 'milliseconds' : 'seconds';
  return fromEpoch(spanOf(value, name));
}

export const dateFilters: Routine[] = [
  routine('to_datetime', 'format?', 'datetime', toDateTime),
  routine('to_date', 'format?', 'date', toDate),
  routine('date_format', 'format', 'text', (self, format) =>
    formatDate(momentOf(self, 'date_format'), textArgument(format, 'format')),
  ),
  routine(
    'date_add',
    'years? months? weeks? days? hours? minutes? seconds? milliseconds? microseconds?',
    (self) => (self.kind === 'date' || self.kind === 'datetime' ? self : ofKind('any')),
    dateAdd,
  ),
  routine('date_diff', 'other unit?', 'int', dateDiff),
  routine('epoch', 'unit?', 'int', epoch),
  routine('from_epoch', 'unit?', 'datetime', fromEpochUnits),
];
