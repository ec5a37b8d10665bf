/** Dates, times and durations as Python's `datetime` has them: date, datetime (naive or in UTC) and timedelta. */

import { multiplyDecimals, roundDecimal, wholeDecimal } from './decimal.ts';
import { failure } from './limits.ts';
import { divideNumbers, exactDecimal, isInteger, isNumber, toDecimal, toNumber } from './numbers.ts';
import { Float, integer, type Value } from './values.ts';

export const microsecondsOfDay = 86_400_000_000;

/** Days since 1970 of 0001-01-01 and 9999-12-31. */
const firstDay = -719162;
const lastDay = 2932896;
const mostDays = 999_999_999;

/** Days since 1970-01-01 of a day of the Gregorian calendar. */
export function daysOf(year: number, month: number, day: number): number {
  const y = month <= 2 ? year - 1 : year;
  const era = Math.floor(y / 400);
  const yearOfEra = y - era * 400;
  const dayOfYear = Math.floor((153 * (month > 2 ? month - 3 : month + 9) + 2) / 5) + day - 1;
  return era * 146097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719468;
}

/** Year, month and day of a number of days since 1970-01-01. */
export function calendarDay(days: number): { year: number; month: number; day: number } {
  const z = days + 719468;
  const era = Math.floor(z / 146097);
  const dayOfEra = z - era * 146097;
  const yearOfEra = Math.floor(
    (dayOfEra - Math.floor(dayOfEra / 1460) + Math.floor(dayOfEra / 36524) - Math.floor(dayOfEra / 146096)) / 365,
  );
  const dayOfYear = dayOfEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100));
  const shifted = Math.floor((5 * dayOfYear + 2) / 153);
  const month = shifted < 10 ? shifted + 3 : shifted - 9;
  return {
    year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0),
    month,
    day: dayOfYear - Math.floor((153 * shifted + 2) / 5) + 1,
  };
}

export function daysInMonth(year: number, month: number): number {
  return month === 12 ? 31 : daysOf(year, month + 1, 1) - daysOf(year, month, 1);
}

function checkDays(days: number): number {
  if (!(days >= firstDay && days <= lastDay)) throw failure('a date outside of the years 1 … 9999');
  return days;
}

function two(value: number): string {
  return value < 10 ? `0${value}` : String(value);
}

/** A day of the calendar: Python's date. */
export class PlainDate {
  readonly typeName = 'date';
  /** Since 1970-01-01. */
  readonly days: number;

  constructor(days: number) {
    this.days = checkDays(days);
  }

  key(): string {
    return String(this.days);
  }

  order(other: Value): number | undefined {
    return other instanceof PlainDate ? this.days - other.days : undefined;
  }

  toString(): string {
    return dayText(this.days);
  }

  repr(): string {
    const { year, month, day } = calendarDay(this.days);
    return `datetime.date(${year}, ${month}, ${day})`;
  }
}

/** `2024-01-31` */
export function dayText(days: number): string {
  const { year, month, day } = calendarDay(days);
  return `${String(year).padStart(4, '0')}-${two(month)}-${two(day)}`;
}

/** Hours, minutes, seconds and microseconds of a number of microseconds since midnight. */
export function clockTime(microseconds: number): { hour: number; minute: number; second: number; microsecond: number } {
  const seconds = Math.floor(microseconds / 1e6);
  return {
    hour: Math.floor(seconds / 3600),
    minute: Math.floor(seconds / 60) % 60,
    second: seconds % 60,
    microsecond: microseconds - seconds * 1e6,
  };
}

/** `23:59:59`, with six more digits where there are microseconds. */
export function clockText(microseconds: number): string {
  const { hour, minute, second, microsecond } = clockTime(microseconds);
  const fraction = microsecond === 0 ? '' : `.${String(microsecond).padStart(6, '0')}`;
  return `${two(hour)}:${two(minute)}:${two(second)}${fraction}`;
}

/** A moment: Python's datetime, without a zone or in UTC. */
export class DateTime {
  readonly typeName = 'datetime';
  /** Since 1970-01-01. */
  readonly days: number;
  /** Since midnight. */
  readonly microseconds: number;
  /** False: the source did not say in which zone it is. */
  readonly utc: boolean;

  constructor(days: number, microseconds: number, utc: boolean) {
    const carry = Math.floor(microseconds / microsecondsOfDay);
    this.days = checkDays(days + carry);
    this.microseconds = microseconds - carry * microsecondsOfDay;
    this.utc = utc;
  }

  key(): string {
    return `${this.days} ${this.microseconds} ${this.utc}`;
  }

  /** Undefined where two moments cannot be compared: one in a zone and one without. */
  order(other: Value): number | undefined {
    if (!(other instanceof DateTime) || other.utc !== this.utc) return undefined;
    return this.days - other.days || this.microseconds - other.microseconds;
  }

  /** ISO 8601 with this sign between day and time. */
  isoText(separator: string): string {
    return `${dayText(this.days)}${separator}${clockText(this.microseconds)}${this.utc ? '+00:00' : ''}`;
  }

  toString(): string {
    return this.isoText(' ');
  }

  repr(): string {
    const { year, month, day } = calendarDay(this.days);
    const { hour, minute, second, microsecond } = clockTime(this.microseconds);
    const seconds = microsecond !== 0 ? `, ${second}, ${microsecond}` : second !== 0 ? `, ${second}` : '';
    const zone = this.utc ? ', tzinfo=datetime.timezone.utc' : '';
    return `datetime.datetime(${year}, ${month}, ${day}, ${hour}, ${minute}${seconds}${zone})`;
  }
}

/** A span of time: Python's timedelta. Microseconds are never negative; a negative span has negative days. */
export class Duration {
  readonly typeName = 'timedelta';
  readonly days: number;
  readonly microseconds: number;

  constructor(days: number, microseconds: number) {
    const carry = Math.floor(microseconds / microsecondsOfDay);
    this.days = days + carry;
    this.microseconds = microseconds - carry * microsecondsOfDay;
    if (!(Math.abs(this.days) <= mostDays)) throw failure('a span of more than 999999999 days');
  }

  static ofMicroseconds(total: bigint): Duration {
    const day = BigInt(microsecondsOfDay);
    const days = total / day;
    if (days > 1_000_000_000n || days < -1_000_000_000n) throw failure('a span of more than 999999999 days');
    return new Duration(Number(days), Number(total % day));
  }

  total(): bigint {
    return BigInt(this.days) * BigInt(microsecondsOfDay) + BigInt(this.microseconds);
  }

  key(): string {
    return `${this.days} ${this.microseconds}`;
  }

  order(other: Value): number | undefined {
    return other instanceof Duration ? this.days - other.days || this.microseconds - other.microseconds : undefined;
  }

  /** So many times the span; undefined for a factor that is neither int nor float. */
  times(factor: Value): Duration | undefined {
    if (isInteger(factor)) return Duration.ofMicroseconds(this.total() * BigInt(factor));
    if (!(factor instanceof Float)) return undefined;
    const [numerator, denominator] = ratio(factor);
    return Duration.ofMicroseconds(divideHalfEven(this.total() * numerator, denominator));
  }

  dividedBy(divisor: Value): Value | undefined {
    if (divisor instanceof Duration) {
      return divideNumbers(integer(this.total()), integer(divisor.total()));
    }
    if (isInteger(divisor)) return Duration.ofMicroseconds(divideHalfEven(this.total(), BigInt(divisor)));
    if (!(divisor instanceof Float)) return undefined;
    const [numerator, denominator] = ratio(divisor);
    return Duration.ofMicroseconds(divideHalfEven(this.total() * denominator, numerator));
  }

  wholeDividedBy(divisor: Value): Value | undefined {
    if (divisor instanceof Duration) return integer(floorDivide(this.total(), divisor.total()));
    return isInteger(divisor) ? Duration.ofMicroseconds(floorDivide(this.total(), BigInt(divisor))) : undefined;
  }

  remainder(divisor: Value): Duration | undefined {
    if (!(divisor instanceof Duration)) return undefined;
    const whole = floorDivide(this.total(), divisor.total());
    return Duration.ofMicroseconds(this.total() - whole * divisor.total());
  }

  toString(): string {
    const { hour, minute, second, microsecond } = clockTime(this.microseconds);
    const fraction = microsecond === 0 ? '' : `.${String(microsecond).padStart(6, '0')}`;
    const days = this.days === 0 ? '' : `${this.days} day${Math.abs(this.days) === 1 ? '' : 's'}, `;
    return `${days}${hour}:${two(minute)}:${two(second)}${fraction}`;
  }

  repr(): string {
    const seconds = Math.floor(this.microseconds / 1e6);
    const parts = [
      this.days !== 0 ? `days=${this.days}` : '',
      seconds !== 0 ? `seconds=${seconds}` : '',
      this.microseconds % 1e6 !== 0 ? `microseconds=${this.microseconds % 1e6}` : '',
    ].filter((part) => part !== '');
    return `datetime.timedelta(${parts.length > 0 ? parts.join(', ') : '0'})`;
  }
}

/** A float as a quotient of integers. */
function ratio(value: Float): [bigint, bigint] {
  if (!Number.isFinite(value.number)) throw failure('a span cannot be computed with infinity or NaN');
  const { coefficient, scale } = exactDecimal(value.number);
  return [BigInt(coefficient), 10n ** BigInt(scale)];
}

function floorDivide(a: bigint, b: bigint): bigint {
  if (b === 0n) throw failure('division by zero');
  const quotient = a / b;
  return a % b !== 0n && a < 0n !== b < 0n ? quotient - 1n : quotient;
}

function divideHalfEven(a: bigint, b: bigint): bigint {
  const floor = floorDivide(a, b);
  const twice = (a - floor * b) * 2n;
  const size = b < 0n ? -b : b;
  const rest = twice < 0n ? -twice : twice;
  return rest > size || (rest === size && floor % 2n !== 0n) ? floor + 1n : floor;
}

/** Dates and durations added up; undefined for values of other types. `sign` -1 takes b away. */
export function addDurations(a: Value, b: Value, sign: 1 | -1): Value | undefined {
  if (b instanceof Duration) {
    if (a instanceof Duration) return new Duration(a.days + sign * b.days, a.microseconds + sign * b.microseconds);
    if (a instanceof DateTime)
      return new DateTime(a.days + sign * b.days, a.microseconds + sign * b.microseconds, a.utc);
    if (a instanceof PlainDate) return new PlainDate(a.days + sign * b.days);
  }
  if (sign === 1 && a instanceof Duration && (b instanceof DateTime || b instanceof PlainDate))
    return addDurations(b, a, 1);
  return undefined;
}

/** The span between two dates; undefined for values of other types. */
export function subtractDates(a: Value, b: Value): Duration | undefined {
  if (a instanceof PlainDate && b instanceof PlainDate) return new Duration(a.days - b.days, 0);
  if (!(a instanceof DateTime) || !(b instanceof DateTime)) return undefined;
  if (a.utc !== b.utc) throw failure('a datetime with a zone and one without cannot be subtracted');
  return new Duration(a.days - b.days, a.microseconds - b.microseconds);
}

/** Microseconds since 1970; a datetime without a zone counts as UTC. */
export function epochMicroseconds(moment: DateTime | PlainDate): bigint {
  const clock = moment instanceof DateTime ? moment.microseconds : 0;
  return BigInt(moment.days) * BigInt(microsecondsOfDay) + BigInt(clock);
}

/** The moment that is so many microseconds after 1970 began, in UTC. */
export function fromEpoch(microseconds: bigint): DateTime {
  const span = Duration.ofMicroseconds(microseconds);
  return new DateTime(span.days, span.microseconds, true);
}

/** Units in which spans are given, in microseconds. */
export const units = new Map<string, number>([
  ['weeks', 7 * microsecondsOfDay],
  ['days', microsecondsOfDay],
  ['hours', 3_600_000_000],
  ['minutes', 60_000_000],
  ['seconds', 1_000_000],
  ['milliseconds', 1000],
  ['microseconds', 1],
]);

/** So many of a unit, as microseconds; fractions are rounded half to even. */
export function spanOf(count: Value, unit: string): bigint {
  if (!isNumber(count)) throw failure(`${unit} must be a number`);
  if (count instanceof Float && !Number.isFinite(toNumber(count))) throw failure(`${unit} must be a number`);
  const total = multiplyDecimals(toDecimal(count), wholeDecimal(units.get(unit)!));
  return BigInt(roundDecimal(total, 0).coefficient);
}

/** A date or datetime some calendar months later; a day that the month does not have becomes its last. */
export function addMonths<T extends DateTime | PlainDate>(moment: T, months: number): T {
  const { year, month, day } = calendarDay(moment.days);
  const index = year * 12 + month - 1 + months;
  const newYear = Math.floor(index / 12);
  const newMonth = (index % 12) + 1;
  if (newYear < 1 || newYear > 9999) throw failure('a date outside of the years 1 … 9999');
  const days = daysOf(newYear, newMonth, Math.min(day, daysInMonth(newYear, newMonth)));
  return (moment instanceof DateTime ? new DateTime(days, moment.microseconds, moment.utc) : new PlainDate(days)) as T;
}
