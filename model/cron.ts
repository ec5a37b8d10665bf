/**
 * Cron texts of five fields, read strictly: what cron programs understand differently is refused, so that a deployment
 * never runs at other times than its author meant.
 */

export interface CronRange {
  start: number;
  /** Inclusive. */
  end: number;
  step: number;
}

/** When all fields match, it is due. Sunday is 0. */
export interface CronTimes {
  minute: CronRange[];
  hour: CronRange[];
  dayOfMonth: CronRange[];
  month: CronRange[];
  dayOfWeek: CronRange[];
}

interface Field {
  key: keyof CronTimes;
  name: string;
  least: number;
  most: number;
  /** Names of values, the first for `least`. */
  words?: string[];
}

const fields: Field[] = [
  { key: 'minute', name: 'minute', least: 0, most: 59 },
  { key: 'hour', name: 'hour', least: 0, most: 23 },
  { key: 'dayOfMonth', name: 'day of the month', least: 1, most: 31 },
  {
    key: 'month',
    name: 'month',
    least: 1,
    most: 12,
    words: ['jan', 'feb', 'mar', 'apr', 'may', 'jun', 'jul', 'aug', 'sep', 'oct', 'nov', 'dec'],
  },
  {
    key: 'dayOfWeek',
    name: 'day of the week',
    least: 0,
    most: 7,
    words: ['sun', 'mon', 'tue', 'wed', 'thu', 'fri', 'sat'],
  },
];
const longestMonths = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/** The times of a cron text, or what is wrong with it. */
export function parseCron(text: string): CronTimes | { mistake: string } {
  const parts = text.trim().split(/\s+/);
  if (parts.length !== fields.length) {
    return { mistake: 'a cron text has five fields: minute, hour, day of the month, month, day of the week' };
  }
  const times = {} as CronTimes;
  for (const [index, field] of fields.entries()) {
    const ranges = parseField(parts[index]!, field);
    if ('mistake' in ranges) return ranges;
    times[field.key] = ranges.ranges;
  }
  const mistake = unclear(times);
  return mistake === undefined ? times : { mistake };
}

/** Days are the trap of cron: two kinds of them, and dates that do not exist. */
function unclear(times: CronTimes): string | undefined {
  if (!isAny(times.dayOfMonth, 1, 31) && !isAny(times.dayOfWeek, 0, 6)) {
    return (
      'day of the month and day of the week are both set: cron programs differ on whether one or both must match. ' +
      'Write two schedules, each with * in one of the two fields'
    );
  }
  const months = valuesOf(times.month);
  const days = valuesOf(times.dayOfMonth);
  const exists = months.some((month) => days.some((day) => day <= longestMonths[month - 1]!));
  return exists ? undefined : 'there is no such day in the year: it would never be due';
}

function parseField(text: string, field: Field): { ranges: CronRange[] } | { mistake: string } {
  const ranges: CronRange[] = [];
  for (const part of text.split(',')) {
    const range = parseRange(part, field);
    if (typeof range === 'string') return { mistake: `${field.name} \`${text.slice(0, 40)}\`: ${range}` };
    ranges.push(range);
  }
  return { ranges: field.key === 'dayOfWeek' ? ranges.flatMap(sundayFirst) : ranges };
}

function parseRange(text: string, field: Field): CronRange | string {
  const [, span = '', stepText] = /^([^/]+)(?:\/(\d{1,4}))?$/.exec(text) ?? [];
  if (span === '') return 'write *, a number, a range such as 1-5, or a step such as */10';
  const step = stepText === undefined ? 1 : Number(stepText);
  if (step < 1) return 'a step is at least 1';
  // The day of the week has two numbers for Sunday: any day is all but one of them.
  if (span === '*') return { start: field.least, end: field.key === 'dayOfWeek' ? 6 : field.most, step };
  const [first = '', last, ...more] = span.split('-');
  if (stepText !== undefined && last === undefined) return `write ${first}-${field.most}/${step}`;
  const start = cronValue(first, field);
  const end = last === undefined ? start : cronValue(last, field);
  if (start === undefined || end === undefined || more.length > 0) {
    const words = field.words ? `, or ${field.words[0]} to ${field.words.at(-1)}` : '';
    return `values are ${field.least} to ${field.most}${words}`;
  }
  if (end < start) return 'a range ends before it begins';
  return { start, end, step };
}

function cronValue(text: string, field: Field): number | undefined {
  const word = field.words?.indexOf(text.toLowerCase()) ?? -1;
  if (word >= 0) return field.least + word;
  const value = /^\d{1,2}$/.test(text) ? Number(text) : Number.NaN;
  return value >= field.least && value <= field.most ? value : undefined;
}

/** Sunday is 0 and 7 in cron, and 0 alone here. */
function sundayFirst(range: CronRange): CronRange[] {
  if (range.end < 7) return [range];
  const sunday = { start: 0, end: 0, step: 1 };
  const reached = (7 - range.start) % range.step === 0;
  if (range.start === 7) return [sunday];
  const before = { ...range, end: 6 };
  return reached && range.start > 0 ? [sunday, before] : [before];
}

function valuesOf(ranges: CronRange[]): number[] {
  return ranges.flatMap(({ start, end, step }) =>
    Array.from({ length: Math.floor((end - start) / step) + 1 }, (_, index) => start + index * step),
  );
}

function isAny(ranges: CronRange[], least: number, most: number): boolean {
  const values = new Set(valuesOf(ranges));
  return Array.from({ length: most - least + 1 }, (_, index) => least + index).every((value) => values.has(value));
}

/** The times as a cron text, always the same one for the same ranges. */
export function formatCron(times: CronTimes): string {
  return fields
    .map((field) => {
      const most = field.key === 'dayOfWeek' ? 6 : field.most;
      return times[field.key].map((range) => formatRange(range, field.least, most)).join(',');
    })
    .join(' ');
}

function formatRange({ start, end, step }: CronRange, least: number, most: number): string {
  const all = start === least && end === most;
  const span = all ? '*' : end <= start ? `${start}` : `${start}-${end}`;
  return step > 1 && end > start ? `${span}/${step}` : span;
}
