/**
 * The one error table of Sluice: every error has a kind, a place and a remedy, and the kind alone decides whether
 * the work is tried again. What is not in the table is `unexpected`, and `unexpected` stops.
 */

/** Where an error happened; only the parts that are known are set. Never holds row values or secrets. */
export interface Place {
  source?: string;
  table?: string;
  /** The source's own position text, e.g. a PostgreSQL LSN. */
  position?: string;
  file?: string;
  line?: number;
}

interface ErrorRule {
  /** True when the same call may succeed later without anybody doing anything. */
  transient: boolean;
  /** What this kind means, for docs and for people. */
  meaning: string;
}

export const errorTable = {
  source_unreachable: { transient: true, meaning: 'the source does not answer, or cut the connection' },
  sink_unreachable: { transient: true, meaning: 'ClickHouse does not answer, or cut the connection' },
  slot_in_use: { transient: true, meaning: 'another session still reads the replication slot' },
  interval_taken: { transient: true, meaning: 'another run has taken over the interval of this one' },
  file_unwritable: { transient: true, meaning: 'a file of asset_data cannot be written: disk or rights' },
  no_worker: { transient: true, meaning: 'no worker polls the task queue' },
  temporal_unreachable: { transient: true, meaning: 'Temporal does not answer' },
  timeout: { transient: true, meaning: 'no answer in time; what was asked for may still happen' },
  configuration: { transient: false, meaning: 'a setting, file or input is wrong' },
  port_in_use: { transient: false, meaning: 'a port that Sluice needs is taken' },
  missing_part: { transient: false, meaning: 'a program that Sluice needs is not there and could not be installed' },
  not_found: { transient: false, meaning: 'no such thing' },
  conflict: { transient: false, meaning: 'something else already has that name, or the state forbids it' },
  preflight: { transient: false, meaning: 'the source is not ready to be captured' },
  source_refused: { transient: false, meaning: 'the source refused the login or the privilege' },
  source_replaced: {
    transient: false,
    meaning: 'the source is another cluster or timeline than the copy was made from, or was set back',
  },
  slot_lost: { transient: false, meaning: 'the replication slot is gone or was invalidated' },
  log_kept: { transient: false, meaning: 'the source keeps much log for us' },
  slot_ahead: { transient: false, meaning: 'the slot was confirmed past the last recorded batch' },
  table_missing: { transient: false, meaning: 'the table is not in the source' },
  table_changed: { transient: false, meaning: 'the table is not the one that the copy was made from' },
  table_unusable: { transient: false, meaning: 'the table cannot be copied as it is' },
  rule_failed: {
    transient: false,
    meaning: 'a rule or check does not go with its table, or says stop for a row: the table stops',
  },
  rules_changed: { transient: false, meaning: 'other rules are in force than those that the copy was made with' },
  sink_refused: { transient: false, meaning: 'ClickHouse refused the statement or the rows' },
  rows_refused: {
    transient: false,
    meaning: 'ClickHouse refused rows of one table: that table stops, its neighbours go on',
  },
  sink_damaged: { transient: false, meaning: 'ClickHouse detached broken parts: the copy may miss acknowledged rows' },
  conservation: { transient: false, meaning: 'ClickHouse confirmed another number of rows than were sent' },
  copy_differs: { transient: false, meaning: 'rows of a copy were not as in the source' },
  check_failed: { transient: false, meaning: 'a check of a whole copy fails' },
  unexpected: { transient: false, meaning: 'a case that nobody thought of: please report it' },
} as const satisfies Record<string, ErrorRule>;

export type ErrorKind = keyof typeof errorTable;

/** What of an error is stored and shown: plain JSON, safe for histories, logs and answers. */
export interface ErrorReport {
  kind: ErrorKind;
  reason: string;
  remedy: string;
  /** Of a change of a table that somebody has to agree with: assets that are made from it, at most 20. */
  affects?: string[];
}

/** The error that all of Sluice throws. `message` says what and where, `remedy` the next step. */
export class SluiceError extends Error {
  readonly kind: ErrorKind;
  readonly place: Place;
  readonly remedy: string;
  /** Milliseconds after which the work is to be tried again, when who stands in the way said so; of transient kinds. */
  readonly retryDelay: number | undefined;

  constructor(
    kind: ErrorKind,
    reason: string,
    remedy: string,
    place: Place = {},
    cause?: unknown,
    retryDelay?: number,
  ) {
    super(reason, cause === undefined ? undefined : { cause });
    this.name = 'SluiceError';
    this.kind = kind;
    this.place = place;
    this.remedy = remedy;
    this.retryDelay = retryDelay;
  }

  get transient(): boolean {
    return errorTable[this.kind].transient;
  }

  report(): ErrorReport {
    return { kind: this.kind, reason: this.message, remedy: this.remedy };
  }
}

/** Any thrown value as a SluiceError; what was not foreseen becomes `unexpected`. */
export function asSluiceError(error: unknown, place: Place = {}): SluiceError {
  if (error instanceof SluiceError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new SluiceError(
    'unexpected',
    reason,
    'Look at the worker log for the stack, and report it with the log.',
    place,
    error,
  );
}

/** One line for people: place, reason, remedy. */
export function describeError(error: SluiceError): string {
  const { file, line, source, table, position } = error.place;
  const place = [
    file === undefined ? undefined : line === undefined ? file : `${file}:${line}`,
    source && `source ${source}`,
    table && `table ${table}`,
    position && `position ${position}`,
  ].filter(Boolean);
  return `${place.length > 0 ? `${place.join(', ')}: ` : ''}${error.message} (${error.kind}). ${error.remedy}`;
}
