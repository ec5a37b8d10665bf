import { expect, it } from 'vitest';
import {
  code,
  count,
  flowLink,
  grouped,
  instant,
  page,
  percentOf,
  plain,
  section,
  stretch,
  trouble,
} from './markdown.ts';

it('puts blocks apart, leaves out empty ones, and ends with a line of nothing', () => {
  expect(page('a', '', null, false, undefined, section('T', []), section('T', ['x', 'y']))).toBe(
    'a\n\n**T**\n\n- x\n- y\n\n\u00a0',
  );
});

it('shows what is wrong, then what to do', () => {
  const report = { kind: 'slot_lost', reason: 'the slot of <b> is gone', remedy: 'Run `resync *`.' } as const;
  expect(trouble('it stands still', report)).toBe(
    '**it stands still** (slot_lost): the slot of \\<b> is gone\n\n**What to do**: Run `resync *`.',
  );
});

it('keeps text from being read as Markdown', () => {
  expect(plain('sales_* and `a*` <i>')).toBe('sales_\\* and `a*` \\<i>');
  expect(code('a`b')).toBe("`a'b`");
  expect(flowLink('capture/shop', 'flow')).toBe('[flow](/namespaces/{namespace}/workflows/capture%2Fshop)');
});

it('writes numbers, times and stretches of time in few words', () => {
  expect([0, 999, 1000, 1234567].map(grouped)).toEqual(['0', '999', '1,000', '1,234,567']);
  expect([count(1, 'batch', 'batches'), count(2, 'batch', 'batches'), count(0, 'row')]).toEqual([
    '1 batch',
    '2 batches',
    '0 rows',
  ]);
  expect(instant('2026-01-31T09:30:00.000Z')).toBe('2026-01-31 09:30:00');
  expect(instant('2026-01-31T09:30:00.250Z')).toBe('2026-01-31 09:30:00.25');
  expect(instant('2026-01-31T09:30:00Z')).toBe('2026-01-31 09:30:00');
  expect(stretch('2026-01-31T09:30:00Z', '2026-01-31T09:45:00.5Z')).toBe('2026-01-31 09:30:00 – 09:45:00.5');
  expect(stretch('2026-01-31T09:30:00.000Z', '2026-01-31T09:45:00Z')).toBe('2026-01-31 09:30 – 09:45');
  expect(stretch('2026-01-30T09:30:00Z', '2026-01-31T00:00:00Z')).toBe('2026-01-30 09:30 – 2026-01-31 00:00');
  const month = ['2026-10-01T00:00:00.000Z', '2026-10-31T00:00:00.000Z'] as const;
  expect(percentOf(...month, month[0])).toBe('0 %');
  expect(percentOf(...month, '2026-10-10T23:45:00.000Z')).toBe('33 %');
  expect(stretch('', '2026-01-31T00:00:00Z')).toBe('beginning – 2026-01-31 00:00');
});
