import { describe, expect, it } from 'vitest';
import { type CronTimes, formatCron, parseCron } from './cron.ts';

const any = { minute: [{ start: 0, end: 59, step: 1 }], hour: [{ start: 0, end: 23, step: 1 }] };

function times(text: string): CronTimes {
  const read = parseCron(text);
  if ('mistake' in read) throw new Error(read.mistake);
  return read;
}

function mistake(text: string): string {
  const read = parseCron(text);
  return 'mistake' in read ? read.mistake : 'none';
}

describe('cron texts', () => {
  it('are read', () => {
    expect(times('* * * * *')).toMatchObject({ ...any, dayOfWeek: [{ start: 0, end: 6, step: 1 }] });
    expect(times('0 */6 * * *')).toMatchObject({
      minute: [{ start: 0, end: 0, step: 1 }],
      hour: [{ start: 0, end: 23, step: 6 }],
    });
    expect(times('5,10-20/5 9-17 1,15 JAN-mar *')).toMatchObject({
      minute: [
        { start: 5, end: 5, step: 1 },
        { start: 10, end: 20, step: 5 },
      ],
      dayOfMonth: [
        { start: 1, end: 1, step: 1 },
        { start: 15, end: 15, step: 1 },
      ],
      month: [{ start: 1, end: 3, step: 1 }],
    });
    expect(times(' 0  0 * * mon-fri ').dayOfWeek).toEqual([{ start: 1, end: 5, step: 1 }]);
  });

  it('know Sunday by both its numbers', () => {
    const days = (text: string) => times(`0 0 * * ${text}`).dayOfWeek;
    expect(days('7')).toEqual([{ start: 0, end: 0, step: 1 }]);
    expect(days('5-7')).toEqual([
      { start: 0, end: 0, step: 1 },
      { start: 5, end: 6, step: 1 },
    ]);
    expect(days('1-7/2')).toEqual([
      { start: 0, end: 0, step: 1 },
      { start: 1, end: 6, step: 2 },
    ]);
    expect(days('1-7/4')).toEqual([{ start: 1, end: 6, step: 4 }]);
    expect(days('0-7')).toEqual([{ start: 0, end: 6, step: 1 }]);
  });

  it('are written back as they were', () => {
    for (const text of ['* * * * *', '0 */6 * * *', '5,10-20/5 9-17 1,15 1-3 *', '30 2 * * 1-5', '0 0 29 2 *'])
      expect(formatCron(times(text))).toBe(text);
  });

  it('that are wrong say where', () => {
    expect(mistake('0 * * *')).toMatch(/five fields/);
    expect(mistake('@daily')).toMatch(/five fields/);
    expect(mistake('60 * * * *')).toBe('minute `60`: values are 0 to 59');
    expect(mistake('0 25 * * *')).toBe('hour `25`: values are 0 to 23');
    expect(mistake('0 0 0 * *')).toBe('day of the month `0`: values are 1 to 31');
    expect(mistake('0 0 * foo *')).toBe('month `foo`: values are 1 to 12, or jan to dec');
    expect(mistake('0 0 * * 8')).toMatch(/^day of the week `8`: values are 0 to 7, or sun to sat/);
    expect(mistake('*/0 * * * *')).toMatch(/a step is at least 1/);
    expect(mistake('30-10 * * * *')).toMatch(/ends before it begins/);
    expect(mistake('1-2-3 * * * *')).toMatch(/values are/);
    expect(mistake('5/10 * * * *')).toMatch(/write 5-59\/10/);
    for (const text of [
      '1, * * * *',
      '/5 * * * *',
      '*/ * * * *',
      'L * * * *',
      '? * * * *',
      '1.5 * * * *',
      '-1 * * * *',
    ])
      expect(mistake(text), text).toMatch(/^minute/);
  });

  it('that cron programs understand differently, or that are never due, are refused', () => {
    expect(mistake('0 0 1 * mon')).toMatch(/Write two schedules/);
    expect(mistake('0 0 31 2 *')).toMatch(/never be due/);
    expect(mistake('0 0 31 4,6,9,11 *')).toMatch(/never be due/);
    expect(mistake('0 0 1-31 * mon')).toBe('none');
    expect(mistake('0 0 31 * *')).toBe('none');
  });
});
