import { describe, expect, it } from 'vitest';
import { everyMinutes, scriptedSchedule } from '../../test/scripted_schedule.ts';
import { firingBefore, nanoseconds } from './schedule_times.ts';

const look = async (isDue: (time: number) => boolean, nominal: string) => {
  const schedule = scriptedSchedule('assets', isDue);
  return { at: await firingBefore(schedule.client, 'assets', nanoseconds(nominal)), asked: schedule.asked };
};

/** The five fields of a cron text, as far as they are needed here. */
const onWorkdays = (hours: [number, number], minutes: number) => (time: number) => {
  const at = new Date(time);
  const hour = at.getUTCHours();
  return at.getUTCDay() % 6 !== 0 && hour >= hours[0] && hour <= hours[1] && everyMinutes(minutes)(time);
};

describe('the firing before an instant', () => {
  it('is the last one, near or far', async () => {
    expect((await look(everyMinutes(1), '2026-03-02T08:00:00Z')).at).toBe('2026-03-02T07:59:00.000Z');
    expect((await look(everyMinutes(15), '2026-03-02T08:00:00Z')).at).toBe('2026-03-02T07:45:00.000Z');
    expect((await look(everyMinutes(15), '2026-03-02T08:00:00.000000001Z')).at).toBe('2026-03-02T08:00:00.000Z');
    expect((await look(everyMinutes(1440), '2026-03-02T00:00:00Z')).at).toBe('2026-03-01T00:00:00.000Z');
  });

  it('is that of Friday for the first one of Monday', async () => {
    const found = await look(onWorkdays([8, 17], 15), '2026-03-02T08:00:00Z');
    expect(found.at).toBe('2026-02-27T17:45:00.000Z');
    // Every minute of a Friday is more than Temporal answers at once.
    expect((await look(onWorkdays([0, 23], 1), '2026-03-02T00:00:00Z')).at).toBe('2026-02-27T23:59:00.000Z');
    expect(found.asked).toBeLessThan(20);
  });

  it('is the last of many thousands behind a long pause', async () => {
    const january = (time: number) => new Date(time).getUTCMonth() === 0;
    expect((await look(january, '2026-12-01T00:00:00Z')).at).toBe('2026-01-31T23:59:00.000Z');
  });

  it('is looked for in 400 days', async () => {
    const yearly = (time: number) => time % 86_400_000 === 0 && new Date(time).toISOString().includes('-01-01T');
    expect((await look(yearly, '2026-01-01T00:00:00Z')).at).toBe('2025-01-01T00:00:00.000Z');
    const once = (time: number) => time === Date.parse('2024-01-01T00:00:00Z');
    expect((await look(once, '2025-02-04T00:00:00Z')).at).toBe('2024-01-01T00:00:00.000Z');
    expect((await look(once, '2025-02-06T00:00:00Z')).at).toBeUndefined();
  });
});
