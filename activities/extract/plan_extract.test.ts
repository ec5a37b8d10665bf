import { describe, expect, it } from 'vitest';
import { everyMinutes, scriptedSchedule } from '../../test/scripted_schedule.ts';
import { chooseInterval, lookBack } from './plan_extract.ts';

/** An instant of a day by its time, e.g. `02:30` or `02:30:01.5`. */
const on = (time: string) => (time === '' ? '' : `${new Date(`2026-03-02T${time}Z`).toISOString()}`);

/** What a run of the time `at` pulls, in short. It begins at `started`, and its interval is chosen at `now`. */
async function choose(run: {
  kept: string;
  at: string;
  started?: string;
  now?: string;
  minutes?: number;
  name?: string;
}) {
  const { kept, at, started = at, now = started, minutes = 15, name = 'assets' } = run;
  const { client } = scriptedSchedule('assets', everyMinutes(minutes));
  const position = { position: on(kept), since: '', etag: '' };
  const clock = { started: Date.parse(on(started)), now: Date.parse(on(now)) };
  const plan = await chooseInterval(client, name, position, { nominal: on(at), ...clock });
  return `${plan.kind} [${plan.from.slice(11, 16)}, ${plan.to.slice(11, 16)})`;
}

describe('a run that is due now', () => {
  it('pulls what has changed since the kept position', async () => {
    expect(await choose({ kept: '02:00', at: '02:15', now: '02:15:01' })).toBe('rows [02:00, 02:15)');
    expect(await choose({ kept: '', at: '02:15', now: '02:15:01' })).toBe('rows [, 02:15)');
    // Those between were left out, or have failed.
    expect(await choose({ kept: '00:15', at: '04:15', now: '04:15:01' })).toBe('rows [00:15, 04:15)');
    expect(await choose({ kept: '00:15', at: '04:15', now: '04:29:59' })).toBe('rows [00:15, 04:15)');
  });

  it('pulls that by hand too, between two times of the schedule', async () => {
    expect(await choose({ kept: '02:15', at: '02:20:30.123' })).toBe('rows [02:15, 02:20)');
    expect(await choose({ kept: '00:15', at: '02:20' })).toBe('rows [00:15, 02:20)');
    // It stands for the moment at which somebody asked, also when it had to wait.
    expect(await choose({ kept: '00:15', at: '02:20', now: '02:45' })).toBe('rows [00:15, 02:20)');
    expect(await choose({ kept: '00:15', at: '02:20', started: '04:00' })).toBe('rows [00:15, 02:20)');
  });

  it('needs no schedule', async () => {
    expect(await choose({ kept: '02:00', at: '02:30', now: '05:00', name: 'other' })).toBe('rows [02:00, 02:30)');
    expect(await choose({ kept: '02:30', at: '02:30', name: 'other' })).toBe('backfill [02:30, 02:30)');
  });
});

describe('a run of the past', () => {
  it('pulls its own interval when others lie between it and the kept position', async () => {
    const asked = { started: '05:00:00.5', now: '05:00:01' };
    expect(await choose({ kept: '02:00', at: '02:30', ...asked })).toBe('backfill [02:15, 02:30)');
    expect(await choose({ kept: '', at: '02:30', ...asked })).toBe('backfill [02:15, 02:30)');
    // However long it has waited, it is not the newest.
    expect(await choose({ kept: '02:00', at: '02:30', started: '02:30', now: '05:00' })).toBe(
      'backfill [02:15, 02:30)',
    );
  });

  it('that is pulled already pulls its own interval', async () => {
    for (const kept of ['02:30', '04:00'])
      expect(await choose({ kept, at: '02:30', started: '05:00' })).toBe('backfill [02:15, 02:30)');
  });

  it('goes on where the kept position is, when that is its turn', async () => {
    expect(await choose({ kept: '02:15', at: '02:30', started: '05:00' })).toBe('rows [02:15, 02:30)');
    expect(await choose({ kept: '02:20', at: '02:30', started: '05:00' })).toBe('rows [02:20, 02:30)');
  });

  it('is next in turn also when the clock of the API kept the position a little back', async () => {
    const asked = { started: '05:00', now: '05:00' };
    expect(await choose({ kept: '02:14:55', at: '02:30', ...asked })).toBe('rows [02:14, 02:30)');
    expect(await choose({ kept: '02:13:55', at: '02:30', ...asked })).toBe('backfill [02:15, 02:30)');
    expect(await choose({ kept: '02:15', at: '02:17', minutes: 1, ...asked })).toBe('backfill [02:16, 02:17)');
    expect(await choose({ kept: '02:15:20', at: '02:17', minutes: 1, ...asked })).toBe('rows [02:15, 02:17)');
  });

  it('of a time to come is none', async () => {
    expect(await choose({ kept: '02:00', at: '08:30', started: '05:00' })).toBe('rows [02:00, 08:30)');
  });

  it('that is the first one ever pulls all before it', async () => {
    const first = Date.parse(on('02:30'));
    const { client } = scriptedSchedule('assets', (time) => time >= first);
    const clock = { started: Date.parse(on('05:00')), now: Date.parse(on('05:00')) };
    const nothing = { position: '', since: '', etag: '' };
    const plan = await chooseInterval(client, 'assets', nothing, { nominal: on('02:30'), ...clock });
    expect(plan).toMatchObject({ kind: 'rows', from: '', to: on('02:30') });
  });
});

it('runs that have queued up for hours follow one another, without gap and without overlap', async () => {
  const times = [
    '02:15',
    '02:30',
    '02:45',
    '03:00',
    '03:15',
    '03:30',
    '03:45',
    '04:00',
    '04:15',
    '04:30',
    '04:45',
    '05:00',
  ];
  const pulled: string[] = [];
  let kept = '02:00';
  for (const at of times) {
    pulled.push(await choose({ kept, at, started: '05:07', now: '05:07:01' }));
    kept = at;
  }
  const begins = ['02:00', ...times];
  expect(pulled).toEqual(times.map((at, index) => `rows [${begins[index]}, ${at})`));
});

it('asks from as long before its interval as it is told to, and moves the position as ever', () => {
  const plan = { kind: 'rows', from: on('02:00'), to: on('02:15'), since: on('02:00'), etag: 'x' } as const;
  expect(lookBack(plan, undefined)).toEqual(plan);
  expect(lookBack(plan, '5m')).toEqual({ ...plan, since: on('01:55'), etag: '' });
  // Nothing had changed since long before.
  expect(lookBack({ ...plan, since: on('01:00') }, '5m')).toEqual({ ...plan, since: on('01:00') });
  expect(lookBack({ ...plan, from: '', since: '' }, '5m')).toEqual({ ...plan, from: '', since: '' });
  expect(lookBack({ ...plan, kind: 'backfill' }, '5m')).toEqual({ ...plan, kind: 'backfill' });
});
