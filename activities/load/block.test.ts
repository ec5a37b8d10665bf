import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { streamVersion } from '../../model/version.ts';
import { Block, VersionWriter } from './block.ts';

describe('VersionWriter', () => {
  it('writes what a big integer would print, for any transaction and place in it', () => {
    const writer = new VersionWriter();
    const bytes = Buffer.alloc(64);
    fc.assert(
      fc.property(
        fc.integer({ min: 1, max: 65_535 }),
        fc.bigInt({ min: 1n << 40n, max: (1n << 64n) - 1n }),
        fc.bigInt({ min: 1n, max: (1n << 39n) - 2n }),
        fc.integer({ min: 0, max: 511 }),
        (epoch, commit, distance, index) => {
          const version = streamVersion(epoch, commit, commit - distance, index);
          const base = version - (version & 0xffffffffffffn);
          writer.setBase(base);
          const end = writer.write(bytes, 3, Number(version - base));
          expect(bytes.toString('latin1', 3, end)).toBe(String(version));
        },
      ),
      { numRuns: 2000 },
    );
  });
});

describe('Block', () => {
  it('keeps what was written while it grows, and takes a row back', () => {
    const block = new Block(8);
    const rows: string[] = [];
    for (let i = 0; i < 3000; i++) {
      const text = `${'x'.repeat(i % 17)}${i}\t`;
      block.reserve(text.length);
      block.beginRow();
      block.length += block.bytes.write(text, block.length, 'latin1');
      if (i % 3 === 0) block.dropRow();
      else {
        block.endRow();
        rows.push(`${text.slice(0, -1)}\n`);
      }
    }
    expect(block.rows).toBe(2000);
    expect(block.content().toString('latin1')).toBe(rows.join(''));
  });
});
