import { describe, expect, it } from 'vitest';
import { addSample, growthOf, type LogSample, type LogState, logFigures, parseSize, size } from './log.ts';

const state = (more: Partial<LogState> = {}): LogState => ({
  at: '2026-01-01T00:00:00.000Z',
  position: '0/1',
  acknowledged: '0/1',
  retained_bytes: 0,
  limit_bytes: null,
  danger: null,
  ...more,
});
const every = (seconds: number, kept: number[]): LogSample[] =>
  kept.map((retained, index) => ({ at: index * seconds * 1000, retained }));

describe('growth', () => {
  it('is what is kept more, second by second', () => {
    expect(growthOf(every(15, [0, 1500, 3000, 4500]))).toBe(100);
    expect(growthOf(every(15, [0, 1500]))).toBe(100);
  });

  it('is unknown at first, and none while the source lets go again and again', () => {
    expect(growthOf([])).toBeNull();
    expect(growthOf(every(5, [0, 100]))).toBeNull();
    expect(growthOf(every(15, [0, 5000, 10_000, 100, 5000, 10_000, 0, 5000, 10_000]))).toBeNull();
  });

  it('shows through the leaps', () => {
    const sawtooth = Array.from({ length: 40 }, (_, index) => 1000 * index + 5000 * (index % 5));
    expect(growthOf(every(15, sawtooth))).toBeCloseTo(1000 / 15, 0);
  });

  it('is seen over ten minutes, from samples that are apart', () => {
    let samples: LogSample[] = [];
    for (let second = 0; second < 1200; second += 1) {
      const at = new Date(second * 1000).toISOString();
      samples = addSample(samples, state({ at, retained_bytes: second * 10 }));
    }
    expect(samples.length).toBeLessThanOrEqual(122);
    expect(samples[0]!.at).toBeGreaterThan(500_000);
    expect(growthOf(samples)).toBeCloseTo(10, 5);
  });
});

describe('a warning', () => {
  const growing = every(15, [0, 15_000_000, 30_000_000]); // 1 MB/s
  const warned = (look: Partial<LogState>, samples: LogSample[] = [], moving = false) =>
    logFigures(state(look), samples, moving).warning?.reason ?? null;

  it('comes before the limit is reached, and says when', () => {
    const look = { retained_bytes: 30_000_000, limit_bytes: 3_630_000_000 };
    expect(logFigures(state(look), growing, false).limit_in_seconds).toBe(3600);
    expect(warned(look, growing)).toBe(
      'the source keeps 30.0 MB of log for us, and 1.0 MB/s more; it may keep 3.6 GB, which is reached in 1h',
    );
    expect(warned({ ...look, limit_bytes: 200_000_000_000 }, growing)).toBeNull();
    expect(warned({ retained_bytes: 90, limit_bytes: 100 })).toContain('it may keep 100 B');
    expect(warned({ retained_bytes: 70, limit_bytes: 100 })).toBeNull();
  });

  it('comes for much log where no limit is known, sooner while nothing reads it', () => {
    expect(warned({ retained_bytes: 2_000_000_000 })).toContain('nothing limits it but its disk');
    expect(warned({ retained_bytes: 2_000_000_000 }, [], true)).toBeNull();
    expect(warned({ retained_bytes: 20_000_000_000 }, [], true)).not.toBeNull();
    expect(warned({ retained_bytes: 1000 }, growing)).toBeNull();
  });

  it('comes for every danger', () => {
    expect(warned({ danger: 'the slot is gone' }, [], true)).toMatch(/^the slot is gone; /);
  });
});

describe('sizes', () => {
  it('are written and read', () => {
    expect([size(0), size(999), size(1500), size(2_500_000_000)]).toEqual(['0 B', '999 B', '1.5 kB', '2.5 GB']);
    expect(['20GB', '1.5 MB', '10B'].map(parseSize)).toEqual([20e9, 1.5e6, 10]);
    expect(['', '20', '-1GB', '1 gb', 'GB'].map(parseSize)).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
      undefined,
    ]);
  });
});
