/** Errors in flows: how they are thrown, and how those of activities and child flows are read. */
import {
  ActivityFailure,
  ApplicationFailure,
  CancelledFailure,
  ChildWorkflowFailure,
  TerminatedFailure,
  TimeoutFailure,
} from '@temporalio/workflow';
import { type ErrorKind, type ErrorReport, errorTable, type Place } from '../model/errors.ts';

/** Texts in a flow's state are cut to this: the state must stay small. */
const textLimit = 600;

/** The failure that a validator, an update or a flow throws: its type is the error's kind, its details the report. */
export function refuse(kind: ErrorKind, reason: string, remedy: string, ...more: unknown[]): ApplicationFailure {
  const report: ErrorReport = { kind, reason, remedy };
  const failure = ApplicationFailure.create({
    message: `${reason} (${kind}). ${remedy}`,
    type: kind,
    nonRetryable: true,
    details: [report, ...more],
  });
  // People read this in Temporal UI: where it was thrown helps nobody there.
  failure.stack = '';
  return failure;
}

export interface Trouble {
  report: ErrorReport;
  place: Place;
  /** False for what would have passed by itself, had it been tried again. */
  final: boolean;
}

/** What went wrong in an activity or a child flow, dug out of its wrappings and cut to a size that a state can hold. */
export function readFailure(error: unknown): Trouble {
  const cause = innermost(error);
  const final = cause instanceof ApplicationFailure ? cause.nonRetryable === true : !(cause instanceof TimeoutFailure);
  if (cause instanceof ApplicationFailure) {
    const [report, place] = (cause.details ?? []) as [ErrorReport?, Place?];
    if (report && typeof report === 'object' && report.kind in errorTable) {
      return { report: cut(report), place: place && typeof place === 'object' ? place : {}, final };
    }
  }
  const reason = cause instanceof Error ? cause.message : String(cause);
  const remedy =
    cause instanceof TimeoutFailure || cause instanceof TerminatedFailure
      ? 'See that the worker runs and look at its log, then start again.'
      : 'Look at the worker log, and report it with the log.';
  return { report: cut({ kind: 'unexpected', reason, remedy }), place: {}, final };
}

/** True when the error says that a person or the flow itself asked for the end. */
export function wasCancelled(error: unknown): boolean {
  return innermost(error) instanceof CancelledFailure;
}

function innermost(error: unknown): unknown {
  let inner = error;
  while ((inner instanceof ActivityFailure || inner instanceof ChildWorkflowFailure) && inner.cause) {
    inner = inner.cause;
  }
  return inner;
}

function cut(report: ErrorReport): ErrorReport {
  return { kind: report.kind, reason: shorten(report.reason), remedy: shorten(report.remedy) };
}

function shorten(text: string): string {
  return text.length <= textLimit ? text : `${text.slice(0, textLimit - 1)}…`;
}
