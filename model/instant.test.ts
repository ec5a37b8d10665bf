import { expect, test } from 'vitest';
import { compactInstant, formatInstant, parseInstant } from './instant.ts';

test('texts and instants are the same thing', () => {
  for (const [text, same] of [
    ['2026-01-31', '2026-01-31T00:00:00.000Z'],
    ['2026-01-31T09:30:00Z', '2026-01-31T09:30:00.000Z'],
    ['2026-01-31T09:30Z', '2026-01-31T09:30:00.000Z'],
    ['2026-01-31T09:30:00.5+02:00', '2026-01-31T07:30:00.500Z'],
    ['2026-01-31T09:30:00.123456789-0130', '2026-01-31T11:00:00.123456789Z'],
    ['1969-12-31T23:59:59.999999Z', '1969-12-31T23:59:59.999999Z'],
    ['2026-01-31T09:30:00.000001Z', '2026-01-31T09:30:00.000001Z'],
  ] as const) {
    const instant = parseInstant(text);
    expect(instant, text).toBeDefined();
    expect(formatInstant(instant!)).toBe(same);
    expect(parseInstant(same)).toBe(instant);
  }
});

test('what is no instant is not guessed', () => {
  const wrong = ['', 'now', '2026-02-30', '2026-13-01', '2026-01-31T25:00:00Z', '2026-01-31T24:00:00Z', '20260131'];
  wrong.push('2026-01-31T09:30:00', '2026-01-31T09:30:00.1234567890Z', '2026-01-31T09:30:00+99:00', '2026-1-1');
  for (const text of wrong) expect(parseInstant(text), text).toBeUndefined();
});

test('file names hold them without colons', () => {
  expect(compactInstant(parseInstant('2026-01-31T09:30:00Z')!)).toBe('20260131T093000Z');
  expect(compactInstant(parseInstant('2026-01-31T09:30:00.12Z')!)).toBe('20260131T093000.12Z');
});
