/** The log of a source, and how much of it is kept for us: what is told of it, and when it becomes too much. */
import { formatDuration } from './duration.ts';
import type { ErrorReport } from './errors.ts';

/** A look at a source's log. */
export interface LogState {
  /** When, ISO 8601. */
  at: string;
  /** Everything that the source showed before the look lies before this position, and the stream is sure to pass it. */
  position: string;
  /** Up to here the source believes all to be stored; null when it keeps nothing for us. */
  acknowledged: string | null;
  retained_bytes: number;
  /** Bytes at which the source gives up what it keeps, or its disk's room is used up; null when no limit is known. */
  limit_bytes: number | null;
  /** Why changes may be lost soon or are lost already; null when nothing is wrong. */
  danger: string | null;
}

/** Kept bytes at a moment. */
export interface LogSample {
  /** Milliseconds since 1970. */
  at: number;
  retained: number;
}

/** What is shown of a source's log: the last look, and what the looks before it say about the time to come. */
export interface LogFigures {
  retained_bytes: number;
  limit_bytes: number | null;
  /** By how much more is kept; null until it was looked at for some time, and while it does not grow. */
  growth_bytes_per_second: number | null;
  /** When the limit is reached at this rate; null without either. */
  limit_in_seconds: number | null;
  warning: ErrorReport | null;
}

/** Samples are compared over this time at most. */
const memory = 600_000;
/** Samples closer than this say nothing new. */
const apart = 5_000;
/** Nothing is foretold from less. */
const shortest = 10_000;
/** Without a known limit, so much is worth a word: while nothing reads, and while something does. */
const muchAtRest = 1_000_000_000;
const muchMoving = 10_000_000_000;
/** Of the limit. */
const muchOfLimit = 0.8;
const soon = 86_400;

/** The samples with one more; old ones are left out. */
export function addSample(samples: readonly LogSample[], { at, retained_bytes: retained }: LogState): LogSample[] {
  const now = Date.parse(at);
  const kept = samples.filter((sample) => sample.at > now - memory && sample.at < now);
  const [before, last] = kept.slice(-2);
  if (before && last && last.at - before.at < apart) kept.pop();
  return [...kept, { at: now, retained }];
}

/**
 * Bytes a second by which what is kept grows. It falls in leaps whenever the source lets go, so the least of the older half
 * is compared with the least of the newer one.
 */
export function growthOf(samples: readonly LogSample[]): number | null {
  const [first, last] = [samples[0], samples.at(-1)];
  if (!first || !last || last.at - first.at < shortest) return null;
  const middle = (first.at + last.at) / 2;
  const older = least(samples.filter((sample) => sample.at < middle));
  const newer = least(samples.filter((sample) => sample.at >= middle));
  const growth = ((newer.retained - older.retained) * 1000) / (newer.at - older.at);
  return growth > 0 ? growth : null;
}

/** The first of the samples that keep least. */
function least(samples: readonly LogSample[]): LogSample {
  return samples.reduce((best, sample) => (sample.retained < best.retained ? sample : best));
}

/** What is shown of a look. `moving`: something reads the log. */
export function logFigures(state: LogState, samples: readonly LogSample[], moving: boolean): LogFigures {
  const growth = growthOf(samples);
  const { retained_bytes: retained, limit_bytes: limit } = state;
  const left = growth === null || limit === null ? null : Math.max(0, Math.round((limit - retained) / growth));
  const figures = { retained_bytes: retained, limit_bytes: limit, limit_in_seconds: left };
  const rate = growth === null ? null : Math.round(growth);
  return { ...figures, growth_bytes_per_second: rate, warning: warn(state, rate, left, moving) };
}

function warn(state: LogState, rate: number | null, left: number | null, moving: boolean): ErrorReport | null {
  const { retained_bytes: retained, limit_bytes: limit, danger } = state;
  const grows = rate === null ? '' : `, and ${size(rate)}/s more`;
  const keeps = `the source keeps ${size(retained)} of log for us${grows}`;
  const remedy = moving
    ? 'See what holds the stream up: its lag, its last error, and transactions in the source that stay open for long.'
    : 'Let it go on (sluice sources start), or remove it (sluice sources delete): removing lets the log go.';
  const told = (reason: string): ErrorReport => ({ kind: 'log_kept', reason, remedy });
  if (danger !== null) return told(`${danger}; ${keeps}`);
  if (limit !== null) {
    const bound = `it may keep ${size(limit)}`;
    if (left !== null && left < soon) return told(`${keeps}; ${bound}, which is reached in ${roughly(left)}`);
    return retained > limit * muchOfLimit ? told(`${keeps}; ${bound}`) : null;
  }
  const much = moving ? muchMoving : muchAtRest;
  return retained > much ? told(`${keeps}; nothing limits it but its disk`) : null;
}

/** A duration in its two largest units. */
function roughly(seconds: number): string {
  const step = seconds >= 86_400 ? 3_600 : seconds >= 3_600 ? 60 : 1;
  return formatDuration(Math.floor(seconds / step) * step);
}

const units = ['B', 'kB', 'MB', 'GB', 'TB'] as const;

/** Bytes for people. */
export function size(bytes: number): string {
  let unit = 0;
  let value = bytes;
  while (value >= 1000 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit > 0 ? value.toFixed(1) : value} ${units[unit]}`;
}

const sizePattern = /^(\d+(?:\.\d+)?) ?(B|kB|MB|GB|TB)$/;

/** Bytes of a size as people write it, e.g. `20GB`; undefined when the text is none. */
export function parseSize(text: string): number | undefined {
  const [, amount, unit] = sizePattern.exec(text) ?? [];
  if (amount === undefined) return undefined;
  return Math.round(Number(amount) * 1000 ** units.indexOf(unit as (typeof units)[number]));
}
