import { describe, expect, it } from 'vitest';
import { type ErrorKind, errorTable, SluiceError } from '../model/errors.ts';
import { FindingsError } from './control/findings.ts';
import { problemOf } from './problems.ts';

const statusOf = (kind: ErrorKind) => problemOf(new SluiceError(kind, 'reason', 'remedy')).status;

describe('problems', () => {
  it('have the status of their kind', () => {
    expect(statusOf('configuration')).toBe(422);
    expect(statusOf('preflight')).toBe(422);
    expect(statusOf('not_found')).toBe(404);
    expect(statusOf('conflict')).toBe(409);
    expect(statusOf('timeout')).toBe(504);
    for (const kind of ['no_worker', 'temporal_unreachable', 'sink_unreachable', 'source_unreachable'] as const) {
      expect(statusOf(kind), kind).toBe(503);
    }
    expect(statusOf('unexpected')).toBe(500);
    for (const kind of Object.keys(errorTable) as ErrorKind[]) expect(statusOf(kind)).toBeGreaterThanOrEqual(400);
  });

  it('say what, where and what to do', () => {
    expect(problemOf(new SluiceError('not_found', 'there is no source x', 'List them.'), '/api/v1/sources/x')).toEqual({
      type: 'urn:sluice:error:not_found',
      title: 'no such thing',
      status: 404,
      detail: 'there is no source x',
      kind: 'not_found',
      remedy: 'List them.',
      instance: '/api/v1/sources/x',
    });
  });

  it('list each blocking finding with its remedy', () => {
    const findings = [
      { code: 'wal_level', blocking: true, detail: 'wal_level is replica', remedy: 'Set it.' },
      { code: 'wide', blocking: false, table: 'public.t', detail: 'wide', remedy: '' },
      { code: 'no_key', blocking: true, table: 'public.t', detail: 'no key', remedy: 'Add one.' },
    ];
    const problem = problemOf(new FindingsError(findings, 'shop'));
    expect(problem.status).toBe(422);
    expect(problem.detail).toBe('wal_level is replica (and 1 more)');
    expect(problem.errors).toEqual([
      { pointer: '', code: 'wal_level', detail: 'wal_level is replica', remedy: 'Set it.' },
      { pointer: '/config/tables', code: 'no_key', detail: 'public.t: no key', remedy: 'Add one.' },
    ]);
  });
});
