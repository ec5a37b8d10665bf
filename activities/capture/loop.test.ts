import { performance } from 'node:perf_hooks';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { noEffects } from '../../model/batch.ts';
import type { TableSchema } from '../../model/table.ts';
import { Block } from '../load/block.ts';
import type { Sink } from '../load/sink.ts';
import { CaptureLoop, type LoopSchemas } from './loop.ts';
import type { ChangeBatch, ChangeStream } from './stream.ts';

const table = {
  asset_id: 's_t',
  schema: 'public',
  table: 't',
  oid: 1,
  relfilenode: 1,
  identity: 'default',
  columns: [],
} satisfies TableSchema;

function batchOf(n: number): ChangeBatch {
  const block = new Block();
  block.reserve(8);
  block.beginRow();
  block.length += block.bytes.write(`${n}\t`, block.length);
  block.endRow();
  const effects = { ...noEffects(), inserts: 1, effects: 1 };
  const moment = { committedFirst: 1, committedLast: 1, openedAt: 0, cutAt: 0 };
  const changes = [{ table, block, effects, hollow: [], rejects: [] }];
  return {
    kind: 'rows',
    from: `0/${n}`,
    to: `0/${n + 1}`,
    inner: '',
    ...moment,
    changes: 1,
    tables: changes,
    truncated: {},
  };
}

/** Tables that nobody alters. */
const unchanged: LoopSchemas = {
  decide: async () => ({ altered: {}, failed: {} }),
  observe: async () => undefined,
  replaceComplete: async () => {},
  confirmPlaces: async () => {},
  isOutdated: async () => false,
  changed: (_asset, reason) => ({ kind: 'table_changed', reason, remedy: '' }),
};

/** A loop over an endless stream and a sink that only keeps a log of calls. */
function loopOver(log: string[], sink: Partial<Sink> = {}, duration = 60_000, make = batchOf): CaptureLoop {
  let n = 0;
  const stream: ChangeStream = {
    next: async () => make(++n),
    fill: async () => ({}),
    redefine: () => {},
    acknowledge: (position) => log.push(`acknowledge ${position}`),
    recycle: () => {},
    lag: () => ({ bytes: 0, seconds: 0 }),
    takeDoubt: () => 'none',
    continuesAt: () => true,
    close: () => {},
  };
  const kept: Partial<Sink> = {
    write: async (_table, block) => {
      log.push('write');
      return block.rows;
    },
    record: async (record) => {
      log.push(`record ${record.kind} ${record.position_to}`);
    },
    newestLease: async () => 65_537,
    ...sink,
  };
  return new CaptureLoop({
    source: 's',
    stream,
    sink: kept as Sink,
    lease: 65_537,
    cluster: 'c',
    epoch: 1,
    previous: '',
    assets: ['copy'],
    position: '0/1',
    workflow: { id: 'w', runId: 'r', attempt: 1 },
    signal: new AbortController().signal,
    duration,
    failed: {},
    generations: new Map(),
    schemas: unchanged,
    stages: { apply: async () => ({ version: 0, applied: {}, checked: [], failed: {} }) },
    keepScores: async () => {},
  });
}

/** Time passes by this many milliseconds at each look. */
function quickClock(step: number): void {
  let now = 0;
  vi.spyOn(performance, 'now').mockImplementation(() => (now += step));
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe('the capture loop', () => {
  it('writes, records, acknowledges, in this order and for every batch', async () => {
    quickClock(100);
    const log: string[] = [];
    expect(await loopOver(log, {}, 3_000).run()).toBe('time');
    expect(log.shift()).toBe('record begin 0/1');
    expect(log.length).toBeGreaterThan(6);
    for (let i = 0; i < log.length; i += 3) {
      const to = log[i + 1]!.split(' ')[2];
      expect(log.slice(i, i + 3)).toEqual(['write', `record rows ${to}`, `acknowledge ${to}`]);
    }
  });

  it('marks rejects as overtaken before a TRUNCATE is swept for: a release between the two would stay', async () => {
    quickClock(100);
    const log: string[] = [];
    const emptied = (n: number): ChangeBatch => ({ ...batchOf(n), kind: 'truncate', truncated: { s_t: '7' } });
    const sink: Partial<Sink> = {
      endInserts: async () => void log.push('end'),
      supersedeRejects: async () => void log.push('supersede'),
      sweepBelow: async () => void log.push('sweep'),
    };
    await loopOver(log, sink, 1_500, emptied).run();
    expect(log.slice(1, 5)).toEqual(['end', 'supersede', 'sweep', 'write']);
  });

  it('acknowledges nothing that could not be recorded', async () => {
    const log: string[] = [];
    const loop = loopOver(log, {
      record: async (record) => {
        if (record.kind === 'rows') throw new Error('no disk');
      },
    });
    await expect(loop.run()).rejects.toThrow('no disk');
    expect(log).toEqual(['write']);
  });

  it('takes fewer confirmed rows than were sent for a loss, and stops the table', async () => {
    const log: string[] = [];
    expect(await loopOver(log, { write: async (_table, block) => block.rows - 1 }).run()).toBe('table_failed');
    const unknown = loopOver(log, { write: async () => Number.NaN });
    expect(await unknown.run()).toBe('table_failed');
    expect(unknown.failed.s_t).toMatchObject({ kind: 'conservation' });
  });

  it('stops writing when a later lease has begun, though nobody told it', async () => {
    quickClock(300);
    const log: string[] = [];
    let asked = 0;
    // It asks twice when it begins.
    const loop = loopOver(log, { newestLease: async () => (++asked < 5 ? 65_537 : 131_073) });
    await expect(loop.run()).rejects.toMatchObject({ kind: 'slot_in_use' });
    expect(asked).toBe(5);
    expect(log.at(-1)).toMatch(/^acknowledge/);
  });

  it('records nothing at all when a later one began before it did', async () => {
    const log: string[] = [];
    const loop = loopOver(log, { newestLease: async () => 65_538 });
    await expect(loop.run()).rejects.toMatchObject({ kind: 'slot_in_use' });
    expect(log).toEqual([]);
  });
});
