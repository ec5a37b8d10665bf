/** What every sink must do: the suite that a new one is run through. */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { sealRecord } from '../../activities/load/batches.ts';
import { Block } from '../../activities/load/block.ts';
import type { Sink } from '../../activities/load/sink.ts';
import { type BatchRecord, noEffects } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import type { Column, TableSchema } from '../../model/table.ts';

export interface SinkUnderTest {
  sink: Sink;
  /** Rows of a copy as people see it: the newest of each key, tombstones left out, fields as text, ordered by key. */
  visible(asset: string): Promise<string[][]>;
  /** Rows of a copy without a key, as people see them: each as often as the table has it, in order. */
  counted(asset: string): Promise<string[][]>;
  /** Kills and restarts what keeps the data. */
  crash(): Promise<void>;
  close(): Promise<void>;
}

const column = { typeOid: 0, typmod: -1, notNull: false, key: false, encoding: 'text' as const };

const table: TableSchema = {
  asset_id: 'conform_t',
  schema: 'public',
  table: 't',
  oid: 1,
  relfilenode: 1,
  identity: 'default',
  columns: [
    {
      ...column,
      attnum: 1,
      name: 'id',
      type: 'bigint',
      key: true,
      notNull: true,
      encoding: 'plain',
      clickhouse: 'Int64',
    },
    { ...column, attnum: 2, name: 'note', type: 'text', clickhouse: 'Nullable(String)' },
  ],
};

/** The table with one more column; `initial`: what rows from before show, as a TSV field. */
function withMore(initial?: string): TableSchema {
  const more = { ...column, attnum: 3, name: 'more', type: 'text', clickhouse: 'Nullable(String)' };
  return { ...table, columns: [...table.columns, initial === undefined ? more : { ...more, initial }] };
}

/** A block of rows `[id, note, version, deleted]`; notes are TSV as they stand. */
function block(rows: [number, string, bigint, 0 | 1][]): Block {
  const made = new Block();
  for (const [id, note, version, deleted] of rows) {
    const text = `${id}\t${note}\t${version}\t${deleted}\t2026-01-02 03:04:05.678901\t`;
    made.reserve(text.length * 2);
    made.beginRow();
    made.length += made.bytes.write(text, made.length);
    made.endRow();
  }
  return made;
}

function record(lease: number, seq: number, more: Partial<BatchRecord> = {}): BatchRecord {
  return sealRecord({
    id: `conform/${lease}/${seq}`,
    source: 'conform',
    kind: 'rows',
    lease,
    seq,
    position_from: '0/1',
    position_to: `0/${(lease + seq).toString(16)}`,
    inner: '',
    cluster: 'c/1',
    epoch: 1,
    committed_first: '2026-01-02T03:04:05.678901Z',
    committed_last: null,
    changes: 2,
    assets: { conform_t: { ...noEffects(), inserts: 2, effects: 2, written: 2 } },
    truncated: { conform_t: '340282366920938463463374607431768211455' },
    failed: { conform_u: { kind: 'table_changed', reason: 'it was', remedy: 'mend it' } },
    rules: 0,
    durations: { fill: 1.5, resolve: 0, write: 2 },
    workflow_id: 'w',
    run_id: 'r',
    attempt: 1,
    previous_hash: '',
    ...more,
  });
}

/** Declares the suite for one sink. */
export function sinkConformance(name: string, open: () => Promise<SinkUnderTest>): void {
  describe(`sink ${name}`, () => {
    let test: SinkUnderTest;
    let sink: Sink;
    beforeAll(async () => {
      test = await open();
      sink = test.sink;
      await sink.createOwnTables();
    });
    afterAll(() => test.close());

    const fresh = async () => {
      await sink.dropCopy(table.asset_id);
      await sink.createCopy(table);
    };
    const write = (rows: [number, string, bigint, 0 | 1][], id = 'conform/1/1/conform_t') =>
      sink.write(table, block(rows), id);

    it('makes its tables and a copy again without harm', async () => {
      await fresh();
      await write([[1, 'a', 10n, 0]]);
      await sink.createOwnTables();
      await sink.createCopy(table);
      expect(await test.visible(table.asset_id)).toEqual([['1', 'a']]);
    });

    it('refuses a copy that has other columns, and leaves it as it is', async () => {
      await fresh();
      await write([[1, 'a', 10n, 0]]);
      await expect(sink.createCopy(withMore())).rejects.toThrow(SluiceError);
      expect(await test.visible(table.asset_id)).toEqual([['1', 'a']]);
    });

    it('alters a copy: adds with what rows from before show, renames, drops, and again without harm', async () => {
      await fresh();
      await write([[1, 'a', 10n, 0]]);
      const wider = withMore('tab\\tslash\\\\');
      await sink.alterCopy(wider);
      await sink.alterCopy(wider);
      // A row of before, again, and one in the new shape.
      await write([[2, 'b', 20n, 0]]);
      const text = `3\tc\t\\N\t30\t0\t2026-01-02 03:04:05.678901\t`;
      const third = new Block();
      third.reserve(text.length);
      third.beginRow();
      third.length += third.bytes.write(text, third.length);
      third.endRow();
      await sink.write(wider, third, 'conform/1/1/conform_t');
      expect(await test.visible(table.asset_id)).toEqual([
        ['1', 'a', 'tab\tslash\\'],
        ['2', 'b', 'tab\tslash\\'],
        ['3', 'c', null],
      ]);
      const [id, note, more] = wider.columns as [Column, Column, Column];
      const former = { attnum: 2, name: 'note', typeOid: 0, typmod: -1 };
      const renamed = { ...wider, columns: [id, { ...note, name: 'remark' }, more], former: [former] };
      await sink.alterCopy(renamed);
      await sink.alterCopy(renamed);
      expect(await test.visible(table.asset_id)).toHaveLength(3);
      const dropped = { ...renamed, columns: [id, more], former: [former, { ...former, name: 'remark' }] };
      await sink.alterCopy(dropped);
      await sink.alterCopy(dropped);
      expect(await test.visible(table.asset_id)).toEqual([
        ['1', 'tab\tslash\\'],
        ['2', 'tab\tslash\\'],
        ['3', null],
      ]);
    });

    it('makes a copy beside the old one, which readers see until the new one takes its place', async () => {
      await fresh();
      await write([
        [1, 'old', 10n, 0],
        [2, 'gone', 10n, 0],
      ]);
      const beside = (): TableSchema => ({ ...table, copy: { name: '_next_conform_t_2', from: '100' } });
      const next = beside();
      await sink.createCopy(next);
      await sink.createCopy(next);
      await sink.write(next, block([[1, 'new', 100n, 0]]), 'conform/2/1/conform_t');
      expect(await sink.placedCopies([next])).toEqual(new Set());
      expect(await sink.highestSideCopy(table.asset_id)).toBe(2);
      // What another try has made, for another beginning, is none of this one's.
      const other = { ...table, copy: { name: '_next_conform_t_2', from: '200' } };
      await expect(sink.createCopy(other)).rejects.toMatchObject({ transient: true });
      expect(await test.visible(table.asset_id)).toEqual([
        ['1', 'old'],
        ['2', 'gone'],
      ]);
      await sink.replaceCopy(next);
      expect(next.copy?.name).toBe('conform_t');
      expect(await test.visible(table.asset_id)).toEqual([['1', 'new']]);
      // Whoever died before he could say that it was done does it again.
      const again = beside();
      expect(await sink.placedCopies([again])).toEqual(new Set(['conform_t']));
      await sink.replaceCopy(again);
      expect(again.copy?.name).toBe('conform_t');
      // Late rows of the copy before have no place in this one.
      await expect(write([[2, 'gone', 10n, 0]])).rejects.toMatchObject({ kind: 'rows_refused' });
      await write([[3, 'late', 101n, 0]]);
      expect(await test.visible(table.asset_id)).toEqual([
        ['1', 'new'],
        ['3', 'late'],
      ]);
      await sink.createCopy({ ...table, copy: { name: '_next_conform_t_3', from: '200' } });
      await sink.createCopy({ ...table, copy: { name: '_next_conform_t_4', from: '300' } });
      await sink.dropSideCopies(table.asset_id, 4);
      const left = { ...table, copy: { name: '_next_conform_t_4', from: '300' } };
      expect(await sink.highestSideCopy(table.asset_id)).toBe(4);
      await sink.dropSideCopies(table.asset_id);
      expect(await sink.highestSideCopy(table.asset_id)).toBe(0);
      expect(await sink.placedCopies([left])).toEqual(new Set());
    });

    it('keeps the highest version of a key, whatever comes first, twice or late', async () => {
      await fresh();
      expect(
        await write([
          [1, 'old', 10n, 0],
          [2, 'gone', 10n, 0],
        ]),
      ).toBeGreaterThanOrEqual(2);
      await write([
        [1, 'newest', 30n, 0],
        [2, '\\N', 20n, 1],
      ]);
      await write([
        [1, 'between', 20n, 0],
        [2, 'gone', 10n, 0],
      ]);
      await write([[1, 'newest', 30n, 0]]);
      expect(await test.visible(table.asset_id)).toEqual([['1', 'newest']]);
      await write([[2, 'back', 40n, 0]]);
      expect(await test.visible(table.asset_id)).toEqual([
        ['1', 'newest'],
        ['2', 'back'],
      ]);
    });

    it('takes identical blocks twice: two equal batches may both be meant', async () => {
      await fresh();
      await write([[1, 'x', 10n, 0]]);
      await write([[1, '\\N', 20n, 1]]);
      await write([[1, 'x', 30n, 0]]);
      expect(await test.visible(table.asset_id)).toEqual([['1', 'x']]);
    });

    it('orders versions as 128-bit numbers', async () => {
      await fresh();
      const top = (1n << 127n) + 5n;
      await write([[1, 'top', top, 0]]);
      await write([
        [1, 'below', top - 1n, 0],
        [2, 'nine', 9n, 0],
      ]);
      await write([[2, 'ten', 10n, 0]]);
      expect(await test.visible(table.asset_id)).toEqual([
        ['1', 'top'],
        ['2', 'ten'],
      ]);
    });

    it('keeps texts exactly: NULL, empty, tabs, lines, backslashes', async () => {
      await fresh();
      await write([
        [1, '\\N', 1n, 0],
        [2, '', 1n, 0],
        [3, 'a\\tb\\nc\\\\d\\re', 1n, 0],
        [4, '\\\\N', 1n, 0],
        [5, 'ŝ水', 1n, 0],
      ]);
      const seen = new Map((await test.visible(table.asset_id)).map(([id, note]) => [id, note]));
      expect(seen.get('1')).toBeNull();
      expect(seen.get('2')).toBe('');
      expect(seen.get('3')).toBe('a\tb\nc\\d\re');
      expect(seen.get('4')).toBe('\\N');
      expect(seen.get('5')).toBe('ŝ水');
    });

    it('refuses a block that it would have to alter, and writes none of it', async () => {
      await fresh();
      const broken = block([[1, 'a', 10n, 0]]);
      broken.bytes.write('x', broken.starts[0]!);
      await expect(sink.write(table, broken, 'conform/1/2/conform_t')).rejects.toMatchObject({ kind: 'rows_refused' });
      expect(await test.visible(table.asset_id)).toEqual([]);
    });

    it('sweeps what is below a version, once and for late rows again, and nothing above', async () => {
      await fresh();
      await write([
        [1, 'below', 10n, 0],
        [2, 'above', 30n, 0],
        [3, 'gone', 12n, 1],
      ]);
      const sweep = () => sink.sweepBelow(table, '20', '2026-01-02 03:04:05.000000', 'conform/1/3/conform_t');
      await sweep();
      expect(await test.visible(table.asset_id)).toEqual([['2', 'above']]);
      await write([
        [1, 'below', 10n, 0],
        [4, 'late', 15n, 0],
      ]);
      await sweep();
      expect(await test.visible(table.asset_id)).toEqual([['2', 'above']]);
      await write([[1, 'again', 21n, 0]]);
      expect(await test.visible(table.asset_id)).toEqual([
        ['1', 'again'],
        ['2', 'above'],
      ]);
    });

    describe('a copy without a key', () => {
      const multiset: TableSchema = {
        ...table,
        asset_id: 'conform_m',
        identity: 'full',
        columns: [{ ...table.columns[1]!, name: 'note' }],
      };
      const committed = '2026-01-02 03:04:05.678901';
      const [reading, dead] = [String(2n ** 62n + 1n), String(2n ** 62n + 2n)];
      const wrap = 2n ** 32n;

      /** Rows `[note, version, origin, sign, row]`. */
      const writeRows = async (rows: [string, bigint, bigint | string, 1 | -1, number][]) => {
        const made = new Block();
        for (const [note, version, origin, sign, row] of rows) {
          const text = `${note}\t${version}\t0\t${committed}\t${origin}\t${sign}\t${row}\t`;
          made.reserve(text.length * 2);
          made.beginRow();
          made.length += made.bytes.write(text, made.length);
          made.endRow();
        }
        expect(await sink.write(multiset, made, `conform/1/${rows[0]![1]}/conform_m`)).toBe(rows.length);
      };
      const shown = async () => (await test.counted('conform_m')).map(([note]) => note);
      const read = async (origin: string) => {
        // The first transaction that had not begun has a number behind the end of the 32 bits, an open one before it.
        const unseen = [String(wrap - 3n), String(wrap + 10n)];
        await sink.completeReading(multiset, { origin, version: '2000', unseen }, committed, 'conform/snapshot/m/1/0');
      };

      beforeEach(async () => {
        await sink.dropCopy('conform_m');
        await sink.createCopy(multiset);
      });

      it('shows nothing before a reading is complete, and then its rows, each as often as it was read', async () => {
        await writeRows([['lost', 1000n, dead, 1, 1]]);
        await writeRows([
          ['a', 1000n, reading, 1, 1],
          ['a', 1000n, reading, 1, 2],
          ['\\N', 1000n, reading, 1, 3],
        ]);
        await writeRows([['b', 3000n, 20n, 1, 0]]);
        expect(await shown()).toEqual([]);
        await read(reading);
        await read(reading);
        expect(await shown()).toEqual(['a', 'a', 'b', null]);
      });

      it('counts what came and went, once however often it is written', async () => {
        await writeRows([['a', 1000n, reading, 1, 1]]);
        await read(reading);
        for (let times = 0; times < 2; times++) {
          await writeRows([
            ['a', 3000n, 20n, 1, 0],
            ['a', 3001n, 20n, -1, 0],
            ['b', 3001n, 20n, 1, 0],
          ]);
        }
        expect(await shown()).toEqual(['a', 'b']);
      });

      it('leaves out transactions that the reading has seen, and no others', async () => {
        await writeRows([['read', 1000n, reading, 1, 1]]);
        await writeRows([
          ['seen before the end', 1500n, wrap - 5n, 1, 0],
          ['open', 1501n, wrap - 3n, 1, 0],
          ['seen behind the end', 1502n, 5n, 1, 0],
          ['not begun', 1503n, 10n, 1, 0],
          ['later', 1504n, 11n, 1, 0],
          ['same number, later', 2500n, 5n, 1, 0],
        ]);
        await read(reading);
        expect(await shown()).toEqual(['later', 'not begun', 'open', 'read', 'same number, later']);
      });

      it('is emptied by a sweep, unless the reading has seen it', async () => {
        await writeRows([['read', 1000n, reading, 1, 1]]);
        await sink.sweepBelow(multiset, '1600', committed, 'conform/1/2/conform_m', 5);
        await read(reading);
        expect(await shown()).toEqual(['read']);
        await sink.sweepBelow(multiset, '1700', committed, 'conform/1/3/conform_m', 12);
        expect(await shown()).toEqual([]);
        await writeRows([
          ['below', 1650n, 12n, 1, 0],
          ['above', 1701n, 12n, 1, 0],
        ]);
        expect(await shown()).toEqual(['above']);
      });
    });

    it('answers the newest row of a key, tombstones too, but nothing while rows are held back', async () => {
      await fresh();
      await write([
        [1, 'a\\tb', 10n, 0],
        [2, 'x', 10n, 0],
      ]);
      await write([
        [1, 'c\\td', 20n, 0],
        [2, '\\N', 30n, 1],
      ]);
      const found = await sink.newestRows(table, ['1', '2', '3']);
      expect(found.get('1')).toEqual({ fields: ['1', 'c\\td'], version: '20', deleted: false });
      expect(found.get('2')).toMatchObject({ version: '30', deleted: true });
      expect(found.has('3')).toBe(false);
      const reject = {
        key: '{"id":"9"}',
        version: '40',
        column: 'note',
        reason: 'test',
        row: '{}',
        committed_at: '2026-01-02 03:04:05.000000',
      };
      await sink.reject(table.asset_id, [reject], 'conform/1/4');
      await sink.reject(table.asset_id, [reject], 'conform/1/4');
      expect((await sink.newestRows(table, ['1'])).size).toBe(0);
      await sink.supersedeRejects(table.asset_id, '41');
      expect((await sink.newestRows(table, ['1'])).size).toBe(1);
    });

    it('answers the last record of the highest lease, whoever wrote last', async () => {
      await sink.record(record(65_537, 0));
      await sink.record(record(131_073, 3));
      await sink.record(record(131_073, 2));
      await sink.record(record(65_537, 9));
      const last = record(131_073, 3);
      expect(await sink.lastRecord('conform')).toMatchObject({
        id: last.id,
        position_to: last.position_to,
        truncated: last.truncated,
        failed: last.failed,
        assets: last.assets,
      });
      expect(await sink.lastRecord('nobody')).toBeUndefined();
      await sink.record(record(196_608, 0, { kind: 'removed' }));
      expect(await sink.lastRecord('conform')).toBeUndefined();
    });

    it('loses nothing that it has confirmed when it is killed', async () => {
      await fresh();
      for (let i = 0; i < 20; i++) await write([[i, `row ${i}`, BigInt(i + 1), 0]]);
      await sink.record(record(262_144, 0));
      await test.crash();
      expect(await test.visible(table.asset_id)).toHaveLength(20);
      expect(await sink.lastRecord('conform')).toMatchObject({ lease: 262_144 });
      await sink.checkDamage('conform', [table.asset_id]);
    });

    it('ends inserts of older leases without ado when there are none', async () => {
      await sink.endInserts(['conform/'], 5);
      await sink.endInserts(['conform/nothing/', 'conform/snapshot/conform_t/1/']);
    });
  });
}
