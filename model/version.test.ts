import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { behindPageHeader, compareLsn, formatLsn, parseLsn } from './position.ts';
import { explainVersion, snapshotVersion, streamVersion } from './version.ts';

const lsn = fc.bigInt({ min: 1n << 24n, max: (1n << 60n) - 1n });

describe('versions', () => {
  it('order changes as the log does: by commit, then by place in the log, then by row of a record', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(lsn, fc.bigInt({ min: 1n, max: 1n << 30n }), fc.integer({ min: 0, max: 511 })), {
          minLength: 2,
        }),
        (changes) => {
          const known = changes.map(([commit, distance, index]) => ({
            commit,
            at: commit - distance,
            index,
            version: streamVersion(1, commit, commit - distance, index),
          }));
          for (const a of known) {
            for (const b of known) {
              const order =
                a.commit !== b.commit ? a.commit < b.commit : a.at !== b.at ? a.at < b.at : a.index < b.index;
              if (order) expect(a.version < b.version).toBe(true);
            }
          }
        },
      ),
      { numRuns: 300 },
    );
  });

  it('put any change at or behind a start position above the rows of its snapshot', () => {
    fc.assert(
      fc.property(lsn, fc.bigInt({ min: 1n, max: 1n << 30n }), (start, distance) => {
        // A commit record can stand exactly at the start position.
        expect(streamVersion(1, start, start - distance, 0) > snapshotVersion(1, start)).toBe(true);
        expect(streamVersion(1, start - 1n, start - 1n - distance, 511) < snapshotVersion(1, start)).toBe(true);
      }),
    );
  });

  it('tell where they come from', () => {
    fc.assert(
      fc.property(lsn, fc.bigInt({ min: 1n, max: 1n << 38n }), fc.nat(511), (commitLsn, distance, index) => {
        const changeLsn = commitLsn - distance;
        fc.pre(changeLsn > 0n);
        const streamed = explainVersion(streamVersion(7, commitLsn, changeLsn, index));
        expect(streamed).toEqual({ epoch: 7, commitLsn, changeLsn, fromSnapshot: false });
        const read = explainVersion(snapshotVersion(7, commitLsn));
        expect(read).toEqual({ epoch: 7, commitLsn, changeLsn: commitLsn, fromSnapshot: true });
      }),
    );
  });

  it('refuse what would not fit', () => {
    expect(() => streamVersion(1, 1n << 50n, 1n, 0)).toThrow(RangeError);
    expect(() => streamVersion(1, 100n, 100n, 0)).toThrow(RangeError);
    expect(() => streamVersion(1, 100n, 90n, 512)).toThrow(RangeError);
  });
});

describe('positions', () => {
  it('read and write as PostgreSQL does', () => {
    fc.assert(
      fc.property(fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }), (value) => {
        expect(parseLsn(formatLsn(value))).toBe(value);
      }),
    );
    expect(formatLsn(parseLsn('16/b374d848'))).toBe('16/B374D848');
    expect(compareLsn('1/0', '0/FFFFFFFF')).toBe(1);
    for (const wrong of ['', '0', '0/', 'x/1', '0/123456789']) expect(() => parseLsn(wrong)).toThrow(RangeError);
  });

  it('take both sides of a page header for one place', () => {
    expect(behindPageHeader(parseLsn('0/3000000')) >= parseLsn('0/3000028')).toBe(true);
    expect(behindPageHeader(parseLsn('0/3000008'))).toBe(parseLsn('0/3000008'));
  });
});
