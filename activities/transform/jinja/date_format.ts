/** Dates as text: ISO 8601, and the directives of Python's strftime and strptime, with English names. */
import { calendarDay, clockTime, DateTime, daysInMonth, daysOf, microsecondsOfDay, type PlainDate } from './dates.ts';
import { claimScan, currentEvaluation, failure, made, spend } from './limits.ts';

const weekdays = ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday'];
const months = [
  'January',
  'February',
  'March',
  'April',
  'May',
  'June',
  'July',
  'August',
  'September',
  'October',
  'November',
  'December',
];

/** Monday is 0. 1970-01-01 was a Thursday. */
export function weekdayOf(days: number): number {
  return (((days + 3) % 7) + 7) % 7;
}

/** January 1st is 1. */
export function dayOfYear(days: number): number {
  return days - daysOf(calendarDay(days).year, 1, 1) + 1;
}

/** Year and week of ISO 8601: the week belongs to the year that holds its Thursday. */
export function isoWeek(days: number): { year: number; week: number } {
  const thursday = days - weekdayOf(days) + 3;
  const { year } = calendarDay(thursday);
  return { year, week: Math.floor((thursday - daysOf(year, 1, 1)) / 7) + 1 };
}

function digits(value: number, width: number): string {
  return String(value).padStart(width, '0');
}

/** A date by strftime's directives. */
export function formatDate(moment: DateTime | PlainDate, format: string): string {
  claimScan(format.length);
  const text = format.replace(/%([\s\S]?)/gu, (whole, directive: string) => {
    spend(1);
    const part = dateDirective(moment, directive);
    if (part === undefined) throw failure(`"${whole}" is no directive for dates`);
    return part;
  });
  return made(text);
}

function dateDirective(moment: DateTime | PlainDate, directive: string): string | undefined {
  const { days } = moment;
  const { year, month, day } = calendarDay(days);
  switch (directive) {
    case 'Y':
      return digits(year, 4);
    case 'y':
      return digits(year % 100, 2);
    case 'm':
      return digits(month, 2);
    case 'd':
      return digits(day, 2);
    case 'e':
      return String(day).padStart(2, ' ');
    case 'b':
    case 'h':
      return months[month - 1]!.slice(0, 3);
    case 'B':
      return months[month - 1]!;
    case 'a':
      return weekdays[weekdayOf(days)]!.slice(0, 3);
    case 'A':
      return weekdays[weekdayOf(days)]!;
    case 'j':
      return digits(dayOfYear(days), 3);
    case 'u':
      return String(weekdayOf(days) + 1);
    case 'w':
      return String((weekdayOf(days) + 1) % 7);
    case 'U':
      return digits(Math.floor((dayOfYear(days) + 6 - ((weekdayOf(days) + 1) % 7)) / 7), 2);
    case 'W':
      return digits(Math.floor((dayOfYear(days) + 6 - weekdayOf(days)) / 7), 2);
    case 'G':
      return digits(isoWeek(days).year, 4);
    case 'V':
      return digits(isoWeek(days).week, 2);
    case 'F':
      return formatDate(moment, '%Y-%m-%d');
    case 'D':
      return formatDate(moment, '%m/%d/%y');
    case '%':
      return '%';
    default:
      return timeDirective(moment, directive);
  }
}

function timeDirective(moment: DateTime | PlainDate, directive: string): string | undefined {
  const { hour, minute, second, microsecond } = clockTime(moment instanceof DateTime ? moment.microseconds : 0);
  switch (directive) {
    case 'H':
      return digits(hour, 2);
    case 'I':
      return digits(hour % 12 || 12, 2);
    case 'M':
      return digits(minute, 2);
    case 'S':
      return digits(second, 2);
    case 'f':
      return digits(microsecond, 6);
    case 'p':
      return hour < 12 ? 'AM' : 'PM';
    case 'T':
      return `${digits(hour, 2)}:${digits(minute, 2)}:${digits(second, 2)}`;
    case 'R':
      return `${digits(hour, 2)}:${digits(minute, 2)}`;
    case 'z':
      return moment instanceof DateTime && moment.utc ? '+0000' : '';
    case 'Z':
      return moment instanceof DateTime && moment.utc ? 'UTC' : '';
    default:
      return undefined;
  }
}

const iso =
  /^(\d{4})-(\d{2})-(\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?[ ]?(Z|[+-]\d{2}(?::?\d{2})?)?)?$/i;

/** A moment written by ISO 8601: `2024-01-31`, `2024-01-31 12:30:00.5+02:00`. In another zone it becomes UTC. */
export function parseIso(text: string): DateTime {
  const match = text.length <= 64 ? iso.exec(text.trim()) : null;
  if (!match) throw failure('the text is no date of ISO 8601');
  const [, year, month, day, hour = '0', minute = '0', second = '0', fraction = '', zone] = match;
  const micros = Math.trunc(Number(fraction.padEnd(6, '0').slice(0, 6)));
  return momentOf({
    year: Number(year),
    month: Number(month),
    day: Number(day),
    hour: Number(hour),
    minute: Number(minute),
    second: Number(second),
    microsecond: micros,
    zone: zone === undefined ? undefined : zoneMinutes(zone),
  });
}

function zoneMinutes(zone: string): number {
  if (zone.toUpperCase() === 'Z') return 0;
  const [, sign, hours, minutes = '0'] = /^([+-])(\d{2}):?(\d{2})?$/.exec(zone)!;
  const total = Number(hours) * 60 + Number(minutes);
  if (total >= 24 * 60) throw failure('the zone of a date is out of range');
  return sign === '-' ? -total : total;
}

interface Parts {
  year: number;
  month: number;
  day: number;
  hour: number;
  minute: number;
  second: number;
  microsecond: number;
  /** Minutes east of UTC; undefined for a moment without a zone. */
  zone: number | undefined;
}

function momentOf({ year, month, day, hour, minute, second, microsecond, zone }: Parts): DateTime {
  const valid =
    year >= 1 &&
    month >= 1 &&
    month <= 12 &&
    day >= 1 &&
    day <= daysInMonth(year, month) &&
    hour < 24 &&
    minute < 60 &&
    second < 60;
  if (!valid) throw failure('a date or time out of range');
  const clock = (hour * 3600 + (minute - (zone ?? 0)) * 60 + second) * 1e6 + microsecond;
  return new DateTime(daysOf(year, month, day), clock, zone !== undefined);
}

/** What each directive of strptime matches. */
const patterns: Record<string, string> = {
  Y: '(\\d{4})',
  y: '(\\d{2})',
  m: '(1[0-2]|0[1-9]|[1-9])',
  d: '(3[01]|[12]\\d|0[1-9]|[1-9]| [1-9])',
  H: '(2[0-3]|[01]\\d|\\d)',
  I: '(1[0-2]|0[1-9]|[1-9])',
  M: '([0-5]\\d|\\d)',
  S: '(6[01]|[0-5]\\d|\\d)',
  f: '(\\d{1,6})',
  j: '(36[0-6]|3[0-5]\\d|[12]\\d\\d|0[1-9]\\d|00[1-9]|[1-9]\\d|0[1-9]|[1-9])',
  p: '(am|pm)',
  b: `(${months.map((name) => name.slice(0, 3)).join('|')})`,
  B: `(${[...months].sort((a, b) => b.length - a.length).join('|')})`,
  a: `(${weekdays.map((name) => name.slice(0, 3)).join('|')})`,
  A: `(${weekdays.join('|')})`,
  z: '([+-]\\d{2}:?\\d{2}|Z)',
};

interface DatePattern {
  /** The evaluation that paid for it last, as each does once. */
  paidIn: number;
  expression: RegExp;
  directives: string[];
}

const compiled = new Map<string, DatePattern>();

/** The pattern of a format. Its parts are bounded and never repeat, so matching takes linear time. */
function patternOf(format: string): DatePattern {
  const known = compiled.get(format);
  if (known) return paidFor(known);
  if (format.length > 200) throw failure('the format of a date is too long');
  const directives: string[] = [];
  const source = format.replace(/%([\s\S]?)|\s+|[^%\s]+/gu, (part: string, directive: string | undefined) => {
    if (directive === undefined) return /^\s/.test(part) ? '\\s+' : part.replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&');
    if (directive === '%') return '%';
    const pattern = patterns[directive];
    if (pattern === undefined || !Object.hasOwn(patterns, directive))
      throw failure(`"${part}" cannot be read from a date`);
    if (directives.includes(directive)) throw failure(`"${part}" stands twice in the format`);
    directives.push(directive);
    return pattern;
  });
  const result = { paidIn: -1, expression: new RegExp(`^${source}$`, 'iu'), directives };
  if (compiled.size > 1000) compiled.clear();
  compiled.set(format, result);
  return paidFor(result);
}

function paidFor(pattern: DatePattern): DatePattern {
  if (pattern.paidIn !== currentEvaluation()) {
    pattern.paidIn = currentEvaluation();
    spend(200);
  }
  return pattern;
}

/** A moment read by strptime's directives. Fields that the format does not have are those of 1900-01-01 00:00:00. */
export function parseDate(text: string, format: string): DateTime {
  const { expression, directives } = patternOf(format);
  const match = text.length <= 500 ? expression.exec(text) : null;
  if (!match) throw failure('the text does not have the format of the date');
  const fields = new Map(directives.map((directive, i) => [directive, match[i + 1]!]));
  const number = (directive: string) => (fields.has(directive) ? Number(fields.get(directive)) : undefined);
  const name = (directive: string) => fields.get(directive)?.toLowerCase().slice(0, 3);
  const shortYear = number('y');
  const year = number('Y') ?? (shortYear === undefined ? 1900 : shortYear + (shortYear < 69 ? 2000 : 1900));
  const named = name('b') ?? name('B');
  const month =
    number('m') ?? (named === undefined ? 1 : months.findIndex((m) => m.toLowerCase().startsWith(named)) + 1);
  const zone = fields.get('z');
  const moment = momentOf({
    year,
    month,
    day: number('d') ?? 1,
    hour: hourOf(number('H'), number('I'), fields.get('p')),
    minute: number('M') ?? 0,
    second: number('S') ?? 0,
    microsecond: Number((fields.get('f') ?? '').padEnd(6, '0')),
    zone: zone === undefined ? undefined : zoneMinutes(zone),
  });
  const ordinal = number('j');
  if (ordinal === undefined || fields.has('d')) return moment;
  const days = daysOf(year, 1, 1) + ordinal - 1;
  if (calendarDay(days).year !== year) throw failure('a date or time out of range');
  return new DateTime(days, moment.microseconds % microsecondsOfDay, moment.utc);
}

function hourOf(hour: number | undefined, half: number | undefined, noon: string | undefined): number {
  if (hour !== undefined) return hour;
  if (half === undefined) return 0;
  return (half % 12) + (noon?.toLowerCase() === 'pm' ? 12 : 0);
}
