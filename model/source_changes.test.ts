import { describe, expect, it } from 'vitest';
import type { CaptureConfig } from './source.ts';
import { sourceChanges } from './source_changes.ts';

const usual: CaptureConfig = { tables: ['a', 'b'], poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} };
const captured = ['a', 'b'].map((table) => ({ asset_id: `s_${table}`, schema: 'public', table }));
const of = (next: Partial<CaptureConfig>, now: Partial<CaptureConfig> = {}) =>
  sourceChanges({ ...usual, ...now }, { ...usual, ...next }, captured);

describe('changes of a source', () => {
  it('are none for the same', () => {
    expect(of({})).toEqual({ changed: [], fixed: [], missing: undefined, extra: [] });
  });

  it('happen in place where a lease reads the setting anew', () => {
    const options = { verify: 'off', log_budget: '1GB', schema_changes: 'stop', failover: true };
    const { changed, fixed } = of({ poll_interval: 2, options });
    expect([changed.length, fixed]).toEqual([5, []]);
    for (const [name, value] of Object.entries({ slot: 'x', publication: 'x' }))
      expect(of({ options: { [name]: value } }).fixed).toEqual([`options.${name}`]);
    expect(of({ mode: 'log' }).fixed).toEqual(['mode']);
  });

  it('by table are free for tables that are not captured', () => {
    expect(of({ exclude_columns: { c: ['x'] }, options: { asset_ids: { 'sales.c': 's_c' } } }).fixed).toEqual([]);
    expect(of({ exclude_columns: { 'public.a': ['x'] } }).fixed).toEqual(['exclude_columns']);
    expect(of({}, { options: { asset_ids: { a: 's_a' } } }).fixed).toEqual(['options.asset_ids']);
  });

  it('name tables that are missing, and tables that nobody names', () => {
    expect(of({ tables: ['public.a', 'b', 'c'] })).toMatchObject({ missing: ['c'], extra: [] });
    expect(of({ tables: ['a'] })).toMatchObject({ missing: undefined, extra: [{ table: 'b' }] });
    expect(of({ tables: ['a', 'sales.*'] }).missing).toEqual(['sales.*']);
    expect(of({ tables: ['*'] }, { tables: ['*'] })).toMatchObject({ missing: undefined, extra: [] });
    expect(of({ tables: undefined })).toMatchObject({ missing: [], extra: [] });
    expect(of({ tables: undefined }, { tables: undefined })).toMatchObject({ missing: undefined, extra: [] });
  });
});
