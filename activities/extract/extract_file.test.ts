import { tmpdir } from 'node:os';
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import { expect, it } from 'vitest';
import type { CaptureContext } from '../capture/context.ts';
import { endOf, extractFile } from './extract_file.ts';

const minute = 60_000;
const fromNow = (milliseconds: number) => new Date(Date.now() + milliseconds).toISOString();

/** What pulling the first file of an interval throws when there is no API to ask. */
async function refusal(kind: 'rows' | 'backfill', to: string): Promise<unknown> {
  const from = fromNow(-60 * minute);
  const request = { deployment: 'assets', api_url: '${NO_SUCH_API}', page_size: 10 };
  const plan = { kind, from, to, since: from, etag: '' };
  const input = { request, plan, started: Date.now(), number: 1, since: from, previous_hash: '' };
  const environment = new MockActivityEnvironment({}, { logger: new DefaultLogger('ERROR') });
  return await environment.run(extractFile, {} as CaptureContext, tmpdir(), input).catch((error: unknown) => error);
}

it('refuses a backfill that ends in the future, before the API is asked', async () => {
  const to = fromNow(2 * minute);
  expect(await refusal('backfill', to)).toMatchObject({
    kind: 'configuration',
    message: `\`to\` lies in the future: ${to}`,
  });
  // Clocks differ a little; what a run of the schedule has reached, the clock of the API decides.
  for (const asked of [await refusal('backfill', fromNow(minute / 2)), await refusal('rows', fromNow(2 * minute))])
    expect(asked).toMatchObject({ message: expect.stringContaining('NO_SUCH_API') });
});

it('believes no API that it has shown what was to come', () => {
  const second = 1_000_000_000n;
  const plan = { from: '2026-03-02T00:00:00Z', to: '2026-03-02T00:00:30Z' };
  const from = 1_772_409_600n * second;
  /** Seconds of the interval that were read, by the API's clock (none = it shows none) and ours. */
  const read = (shown: number | undefined, asked: number) => {
    const apiTime = shown === undefined ? undefined : from + BigInt(shown) * second;
    return Number((endOf(plan, apiTime, Number(from / 1_000_000n) + asked * 1000) - from) / second);
  };
  expect([read(undefined, 31), read(undefined, 20), read(undefined, -5)]).toEqual([30, 20, 0]);
  expect([read(40, 31), read(40, 20), read(25, 31), read(-5, 31)]).toEqual([30, 20, 25, 0]);
});
