/**
 * The one place where errors of activities become what Temporal keeps: kind, message and remedy, and whether it is
 * worth to try again. Nothing secret leaves here: neither in messages nor by causes or stacks.
 */
import { ApplicationFailure, asyncLocalStorage, CancelledFailure, CompleteAsyncError } from '@temporalio/activity';
import { asSluiceError, describeError, type ErrorReport, type Place, type SluiceError } from '../model/errors.ts';
import { redact } from './secrets.ts';

type Activity = (...args: never[]) => Promise<unknown>;

/** How often an activity is reported alive while it works, in milliseconds. */
const beatPause = 1000;

/**
 * The same activities, so that every error they throw is an ApplicationFailure: `type` is the kind, `details` are the
 * ErrorReport and the place, and only transient kinds are tried again. Cancellation and asynchronous completion pass
 * as they are. While an activity runs it heartbeats, so that a lost worker shows within its heartbeat timeout; those
 * named in `ownBeats` do that themselves, with figures.
 */
export function reportFailures<T extends object>(activities: T, ownBeats: readonly (keyof T)[] = []): T {
  const entries = methodNames(activities).map((name) => {
    const run = activities[name as keyof T] as Activity;
    const beats = !ownBeats.includes(name as keyof T);
    const guarded: Activity = async (...args) => {
      const stop = beats ? beat() : () => {};
      try {
        return await run.apply(activities, args);
      } catch (error) {
        throw asFailure(error);
      } finally {
        stop();
      }
    };
    return [name, guarded];
  });
  return Object.fromEntries(entries) as T;
}

/** Names of all functions of an object or of a class's instance. */
function methodNames(activities: object): string[] {
  const names = new Set<string>();
  for (let level = activities; level !== Object.prototype && level; level = Object.getPrototypeOf(level)) {
    for (const name of Object.getOwnPropertyNames(level)) {
      const own = Object.getOwnPropertyDescriptor(level, name);
      if (name !== 'constructor' && typeof own?.value === 'function') names.add(name);
    }
  }
  return [...names];
}

/** Any thrown value as Temporal should keep it; it is tried again as late as the error itself says. */
export function asFailure(error: unknown): Error {
  if (error instanceof CancelledFailure || error instanceof CompleteAsyncError) return error;
  if (error instanceof ApplicationFailure) return error;
  if (cancelled() && error instanceof Error && error.name === 'AbortError') return new CancelledFailure('aborted');
  const known = asSluiceError(error);
  if (known.kind === 'unexpected') logStack(error);
  return toFailure(known);
}

function toFailure(error: SluiceError): ApplicationFailure {
  const report = error.report();
  const safe: ErrorReport = { kind: report.kind, reason: redact(report.reason), remedy: redact(report.remedy) };
  const place: Place = error.place;
  const failure = ApplicationFailure.create({
    message: redact(describeError(error)),
    type: error.kind,
    nonRetryable: !error.transient,
    details: [safe, place],
    nextRetryDelay: error.retryDelay,
  });
  // It would name this file and the machine's folders, and nothing that helps.
  failure.stack = '';
  return failure;
}

function cancelled(): boolean {
  return asyncLocalStorage.getStore()?.cancellationSignal.aborted === true;
}

/** Where an unforeseen error came from is told to the worker's log alone. */
function logStack(error: unknown): void {
  const context = asyncLocalStorage.getStore();
  const stack = error instanceof Error ? (error.stack ?? error.message) : String(error);
  context?.log.error('unexpected error', { stack: redact(stack) });
}

function beat(): () => void {
  const context = asyncLocalStorage.getStore();
  if (!context?.info.heartbeatTimeoutMs) return () => {};
  const timer = setInterval(() => context.heartbeat(), beatPause);
  return () => clearInterval(timer);
}
