import { describe, expect, it } from 'vitest';
import { everyMinutes, scriptedSchedule } from '../../test/scripted_schedule.ts';
import type { Stretch } from './coverage.ts';
import { planIntervals } from './plan_backfill.ts';
import { nanoseconds } from './schedule_times.ts';

/** An instant of a day by its time, e.g. `02:30`; '' = the beginning of time. */
const on = (time: string) => (time === '' || time.includes('-') ? time : `2026-03-02T${time}Z`);
const stretch = ([from, to]: [string, string]): Stretch => ({ from: nanoseconds(on(from)), to: nanoseconds(on(to)) });

interface Asked {
  from: string;
  to: string;
  after?: string;
  limit?: number;
  minutes?: number;
  /** What finished runs have pulled; undefined = run all intervals. */
  finished?: [string, string][];
  now?: string;
}

async function plan({ from, to, after = '', limit = 100, minutes = 15, finished, now = '2026-11-01' }: Asked) {
  const { client } = scriptedSchedule('assets', everyMinutes(minutes));
  const input = { deployment: 'assets', from: on(from), to: on(to), after: on(after), limit };
  const read = async () => (finished ?? []).map(stretch);
  return await planIntervals(client, { ...input, only_missing: finished !== undefined }, read, Date.parse(on(now)));
}

/** The intervals that are to be run, in short, and how many are left out. */
async function missing(asked: Asked): Promise<string> {
  const { intervals, skipped } = await plan(asked);
  return `${intervals.map(({ from, to }) => `${from.slice(11, 16)}–${to.slice(11, 16)}`).join(' ')} | ${skipped}`;
}

describe('the intervals of a backfill', () => {
  it('are those of the schedule, cut at both ends', async () => {
    expect(await missing({ from: '00:00', to: '00:30' })).toBe('00:00–00:15 00:15–00:30 | 0');
    expect(await missing({ from: '00:10', to: '00:35' })).toBe('00:10–00:15 00:15–00:30 00:30–00:35 | 0');
  });

  it('come in portions, each behind the one before', async () => {
    const first = await plan({ from: '00:00', to: '01:00', limit: 3 });
    expect([first.intervals.length, first.through]).toEqual([3, '2026-03-02T00:45:00.000Z']);
    const second = await plan({ from: '00:00', to: '01:00', limit: 3, after: first.through });
    expect([second.intervals.length, second.through]).toEqual([1, '']);
  });
});

describe('only the missing intervals', () => {
  const hours = { from: '00:00', to: '02:00' };

  it('are those that no finished run covers, however long it was', async () => {
    expect(await missing({ ...hours, finished: [['00:00', '02:00']] })).toBe(' | 8');
    expect(await missing({ ...hours, finished: [['2026-03-01', '03:07']] })).toBe(' | 8');
    expect(await missing({ ...hours, finished: [['', '02:00']] })).toBe(' | 8');
    expect(await missing({ ...hours, finished: [['', '01:40']] })).toBe('01:30–01:45 01:45–02:00 | 6');
    expect(await missing({ ...hours, to: '00:30', finished: [] })).toBe('00:00–00:15 00:15–00:30 | 0');
  });

  it('are those that several together do not cover', async () => {
    const quarter = { from: '00:00', to: '00:15' };
    const runs: [string, string][] = [
      ['00:07', '00:15'],
      ['00:00', '00:07'],
    ];
    expect(await missing({ ...quarter, finished: runs })).toBe(' | 1');
    expect(await missing({ ...quarter, finished: [...runs, ['00:03', '00:05']] })).toBe(' | 1');
    expect(await missing({ ...quarter, finished: [runs[0]!, ['00:00', '00:06:59.999999999']] })).toBe(
      '00:00–00:15 | 0',
    );
    // A run that came no further than where it began has pulled nothing.
    expect(await missing({ ...quarter, finished: [['00:00', '00:00']] })).toBe('00:00–00:15 | 0');
    expect(await missing({ from: '00:00', to: '00:45', finished: [['00:15', '00:30']] })).toBe(
      '00:00–00:15 00:30–00:45 | 1',
    );
  });

  it('of a part of an interval are that part', async () => {
    const finished: [string, string][] = [['00:10', '00:30']];
    expect(await missing({ from: '00:10', to: '00:30', finished })).toBe(' | 2');
    expect(await missing({ from: '00:00', to: '00:30', finished })).toBe('00:00–00:15 | 1');
    expect(await missing({ from: '00:10', to: '00:20', finished })).toBe(' | 2');
  });
});

describe('a backfill is refused', () => {
  it('when its intervals would be too many, with how many there would be', async () => {
    const year = { from: '2025-03-01', to: '2026-03-01', minutes: 1 };
    await expect(plan(year)).rejects.toMatchObject({
      kind: 'configuration',
      message: 'that are about 525,600 intervals, and a backfill runs at most 100,000',
      remedy: expect.stringContaining('2025-05-09T10:40:00.000Z'),
    });
    expect((await plan({ ...year, to: '2025-05-09T10:40:00Z' })).intervals).toHaveLength(100);
    // It has begun: it goes on.
    expect((await plan({ ...year, after: '2025-03-02' })).intervals).toHaveLength(100);
  });

  it('when it would end in the future', async () => {
    const asked = { from: '00:00', to: '02:00' };
    await expect(plan({ ...asked, now: '01:58:59' })).rejects.toMatchObject({
      kind: 'configuration',
      message: '`to` lies in the future: 2026-03-02T02:00:00.000Z',
    });
    // Clocks differ a little.
    expect((await plan({ ...asked, now: '01:59' })).intervals).toHaveLength(8);
  });
});
