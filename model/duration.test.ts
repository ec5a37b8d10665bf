import { describe, expect, it } from 'vitest';
import { formatDuration, parseDuration } from './duration.ts';

describe('durations', () => {
  it('are read in seconds, and written back', () => {
    for (const [text, seconds] of [
      ['1s', 1],
      ['90s', 90],
      ['15m', 900],
      ['1h30m', 5400],
      ['2d', 172_800],
      ['1w', 604_800],
      ['1d1h1m1s', 90_061],
    ] as const) {
      expect(parseDuration(text), text).toBe(seconds);
      expect(parseDuration(formatDuration(seconds)), text).toBe(seconds);
    }
    expect([0, 900, 5400, 1_209_600, 0.25].map(formatDuration)).toEqual(['0s', '15m', '1h30m', '14d', '0.25s']);
  });

  it('that are none are refused', () => {
    for (const text of ['', '15', 'm', '15 m', '-15m', '1.5h', '15M', '15min', '30m1h', '1h1h', 'PT15M'])
      expect(parseDuration(text), text).toBeUndefined();
  });
});
