import { ApplicationFailure, CancelledFailure, CompleteAsyncError } from '@temporalio/activity';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { describe, expect, it } from 'vitest';
import { SluiceError } from '../model/errors.ts';
import { asFailure, reportFailures } from './failure.ts';

const quiet = { logger: new DefaultLogger('ERROR', () => {}) };

describe('asFailure', () => {
  it('keeps kind, remedy and place, and tries again only what passes by itself', () => {
    const lost = new SluiceError('slot_lost', 'the slot is gone', 'Re-sync.', { source: 'main', table: 'accounts' });
    const failure = asFailure(lost) as ApplicationFailure;
    expect(failure).toMatchObject({ type: 'slot_lost', nonRetryable: true });
    expect(failure.message).toBe('source main, table accounts: the slot is gone (slot_lost). Re-sync.');
    expect(failure.details).toEqual([
      { kind: 'slot_lost', reason: 'the slot is gone', remedy: 'Re-sync.' },
      { source: 'main', table: 'accounts' },
    ]);
    const away = asFailure(new SluiceError('source_unreachable', 'cut', 'Wait.')) as ApplicationFailure;
    expect(away).toMatchObject({ type: 'source_unreachable', nonRetryable: false });
    expect(asFailure(new TypeError('x is not a function'))).toMatchObject({ type: 'unexpected', nonRetryable: true });
    expect(asFailure('text')).toMatchObject({ type: 'unexpected' });
  });

  it('has Temporal wait as long as the error says', () => {
    const later = new SluiceError('source_unreachable', 'too many requests', 'Wait.', {}, undefined, 3_600_000);
    expect(asFailure(later)).toMatchObject({ nonRetryable: false, nextRetryDelay: 3_600_000 });
    const usual = asFailure(new SluiceError('source_unreachable', 'cut', 'Wait.')) as ApplicationFailure;
    expect(usual.nextRetryDelay ?? undefined).toBeUndefined();
  });

  it('lets no secret out: not in message, details, causes or stack', () => {
    const cause = new Error('connect postgresql://u:hunter2@host/db');
    const failures = [
      asFailure(
        new SluiceError('source_unreachable', cause.message, 'Look at postgresql://u:hunter2@host.', {}, cause),
      ),
      asFailure(cause),
      asFailure(new Error("password = 'hunter2' is wrong")),
    ];
    for (const failure of failures) {
      const told = JSON.stringify([
        failure.message,
        failure.stack,
        failure.cause,
        (failure as ApplicationFailure).details,
      ]);
      expect(told).not.toContain('hunter2');
    }
  });

  it('passes cancellation and asynchronous completion', () => {
    for (const error of [new CancelledFailure('ended'), new CompleteAsyncError()]) expect(asFailure(error)).toBe(error);
  });
});

describe('reportFailures', () => {
  class Activities {
    #word = 'own state';
    async works(): Promise<string> {
      return this.#word;
    }
    async fails(): Promise<void> {
      throw new SluiceError('table_missing', 'no such table', 'Name another.');
    }
    async aborts(signal: AbortSignal): Promise<void> {
      await new Promise((_, reject) =>
        signal.addEventListener('abort', () => reject(new DOMException('', 'AbortError'))),
      );
    }
  }

  it('wraps methods of objects and of classes', async () => {
    const wrapped = reportFailures(new Activities());
    expect(await wrapped.works()).toBe('own state');
    await expect(wrapped.fails()).rejects.toMatchObject({ type: 'table_missing', nonRetryable: true });
    const plain = reportFailures({ fails: async () => Promise.reject(new Error('oh')) });
    await expect(plain.fails()).rejects.toBeInstanceOf(ApplicationFailure);
  });

  it('reports an activity alive while it works, unless it does so itself', async () => {
    const slow = { slow: () => new Promise((resolve) => setTimeout(resolve, 1300)) };
    const beats = async (activities: typeof slow) => {
      const environment = new MockActivityEnvironment({ heartbeatTimeoutMs: 10_000 }, quiet);
      let count = 0;
      environment.on('heartbeat', () => {
        count += 1;
      });
      await environment.run(() => activities.slow());
      return count;
    };
    expect(await beats(reportFailures(slow))).toBe(1);
    expect(await beats(reportFailures(slow, ['slow']))).toBe(0);
  });

  it('tells an abort by Temporal from others', async () => {
    const environment = new MockActivityEnvironment({}, quiet);
    const wrapped = reportFailures(new Activities());
    const running = environment.run(() => wrapped.aborts(environment.context.cancellationSignal));
    environment.cancel();
    await expect(running).rejects.toBeInstanceOf(CancelledFailure);
    const own = new AbortController();
    const other = new MockActivityEnvironment({}, quiet).run(() => wrapped.aborts(own.signal));
    own.abort();
    await expect(other).rejects.toMatchObject({ type: 'unexpected' });
  });
});
