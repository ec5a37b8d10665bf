/** The times of a deployment as a Temporal schedule's specification, and the way back. */
import {
  type CalendarSpecDescription,
  DAYS_OF_WEEK,
  type DayOfWeek,
  MONTHS,
  type Month,
  type Range,
  type ScheduleDescription,
} from '@temporalio/client';
import { type CronRange, type CronTimes, formatCron, parseCron } from '../../model/cron.ts';
import type { DeploymentSchedule } from '../../model/deployment.ts';
import { formatDuration, parseDuration } from '../../model/duration.ts';

type Spec = ScheduleDescription['spec'];

/** What Temporal is told: calendars, which come back as they were sent, so that they can be compared. */
export function specOf(schedule: DeploymentSchedule[]): Spec {
  const crons = schedule.flatMap((entry) => ('cron' in entry ? [entry] : []));
  return {
    calendars: crons.map((entry) => calendarOf(entry.cron)),
    intervals: schedule.flatMap((entry) =>
      'interval' in entry ? [{ every: (parseDuration(entry.interval) ?? 0) * 1000, offset: 0 }] : [],
    ),
    ...(crons[0] ? { timezone: crons[0].timezone } : {}),
  };
}

/** Texts were checked when the file was read; what is no cron text here would never be due. */
function calendarOf(cron: string): CalendarSpecDescription {
  const times = parseCron(cron);
  if ('mistake' in times) throw new Error(`${cron}: ${times.mistake}`);
  const named = <Name>(ranges: CronRange[], names: readonly Name[], least: number): Range<Name>[] =>
    ranges.map(({ start, end, step }) => ({ start: names[start - least]!, end: names[end - least]!, step }));
  return {
    second: [{ start: 0, end: 0, step: 1 }],
    minute: times.minute,
    hour: times.hour,
    dayOfMonth: times.dayOfMonth,
    month: named<Month>(times.month, MONTHS, 1),
    year: [],
    dayOfWeek: named<DayOfWeek>(times.dayOfWeek, DAYS_OF_WEEK, 0),
    comment: cron,
  };
}

/** The times of a schedule in the words of a deployment file, as far as these go. */
export function scheduleIn(spec: Spec): DeploymentSchedule[] {
  const intervals = (spec.intervals ?? []).map(({ every }) => ({ interval: formatDuration(every / 1000) }));
  const timezone = spec.timezone || 'UTC';
  return [...intervals, ...(spec.calendars ?? []).map((calendar) => ({ cron: calendarText(calendar), timezone }))];
}

/** `every 15m`, `cron 0 0 * * * UTC`, or `none`: the same text for the same times. */
export function timesText(spec: Spec): string {
  const intervals = (spec.intervals ?? []).map(({ every, offset }) => {
    return `every ${formatDuration(every / 1000)}${offset ? ` and ${formatDuration(offset / 1000)}` : ''}`;
  });
  const zone = spec.timezone || 'UTC';
  const crons = (spec.calendars ?? []).map((calendar) => `cron ${calendarText(calendar)} ${zone}`);
  return [...intervals, ...crons].join(', ') || 'none';
}

function calendarText(calendar: CalendarSpecDescription): string {
  const numbered = <Name>(ranges: Range<Name>[], names: readonly Name[], least: number): CronRange[] =>
    ranges.map(({ start, end, step }) => ({
      start: names.indexOf(start) + least,
      end: names.indexOf(end) + least,
      step,
    }));
  const times: CronTimes = {
    minute: calendar.minute,
    hour: calendar.hour,
    dayOfMonth: calendar.dayOfMonth,
    month: numbered(calendar.month, MONTHS, 1),
    dayOfWeek: numbered(calendar.dayOfWeek, DAYS_OF_WEEK, 0),
  };
  const onTheMinute = calendar.second.length === 1 && calendar.second[0]?.start === 0 && calendar.second[0].end === 0;
  const seconds = onTheMinute ? '' : ` seconds ${JSON.stringify(calendar.second)}`;
  const years = calendar.year.length > 0 ? ` years ${JSON.stringify(calendar.year)}` : '';
  return `${formatCron(times)}${seconds}${years}`;
}
