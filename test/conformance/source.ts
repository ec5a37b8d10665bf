/**
 * What every source must do: the suite that a new one is run through. It reads the stream into a ten-line model of a
 * versioned copy, from different positions and in different cuts, and compares that with the source itself.
 */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { Connected, Source } from '../../activities/capture/source.ts';
import type { ChangeBatch, ChangeStream } from '../../activities/capture/stream.ts';
import type { TableSchema } from '../../model/table.ts';
import { seededRandom } from '../../workers/demo/random.ts';

/** A source with one table: key `id` (integer), value `note` (text). */
export interface SourceUnderTest {
  source: Source;
  connected: Connected;
  table: TableSchema;
  /** Runs changes as one transaction; `null` deletes, a pair `[from, to]` changes a key. */
  change(changes: ({ id: number; note: string | null } | { from: number; to: number })[]): Promise<void>;
  truncate(): Promise<void>;
  rows(): Promise<Map<string, string>>;
  /** What the source believes to be durable here. */
  acknowledged(): Promise<string>;
  /** Cuts all connections, or kills the server and starts it again. */
  disturb(): Promise<void>;
  close(): Promise<void>;
}

/** A model of a copy: the newest version of each key stands. */
class Model {
  readonly rows = new Map<string, { version: bigint; note: string; deleted: boolean }>();
  /** Every row ever seen, as text: two readings must bring the same. */
  readonly seen = new Set<string>();

  apply(batch: ChangeBatch): void {
    for (const { block } of batch.tables) {
      for (const line of block.content().toString('utf8').split('\n')) {
        if (line === '') continue;
        this.seen.add(line);
        const [id, note, version, deleted] = line.split('\t') as [string, string, string, string];
        const known = this.rows.get(id);
        if (!known || known.version <= BigInt(version))
          this.rows.set(id, { version: BigInt(version), note, deleted: deleted === '1' });
      }
    }
    for (const version of Object.values(batch.truncated)) {
      for (const row of this.rows.values())
        if (row.version < BigInt(version)) Object.assign(row, { version: BigInt(version), deleted: true });
    }
  }

  visible(): Map<string, string> {
    return new Map([...this.rows].filter(([, row]) => !row.deleted).map(([id, row]) => [id, row.note]));
  }
}

/** Declares the suite for one source. */
export function sourceConformance(name: string, open: () => Promise<SourceUnderTest>): void {
  describe(`source ${name}`, () => {
    let test: SourceUnderTest;
    let begin: string;
    beforeAll(async () => {
      test = await open();
      begin = await test.source.prepare(test.connected, [test.table], undefined, false);
    });
    afterAll(() => test.close());

    const openAt = async (position: string, maxRows = 1000): Promise<ChangeStream> => {
      await test.source.claim(test.connected);
      return test.source.openStream(test.connected, {
        position,
        epoch: 1,
        tables: [test.table],
        maxRows,
        floors: {},
        newestRows: async () => new Map(),
      });
    };

    /** Reads until everything that the source has now is passed. */
    const read = async (stream: ChangeStream, each: (batch: ChangeBatch) => void): Promise<string> => {
      const target = await test.source.completePosition(test.connected);
      const signal = AbortSignal.timeout(30_000);
      for (let position = ''; ; ) {
        const batch = await stream.next(500, signal);
        if (batch) each(batch);
        position = batch?.to ?? position;
        if (test.source.passed(position, target)) return position;
        signal.throwIfAborted();
      }
    };

    const randomChanges = async (seed: number, transactions: number): Promise<void> => {
      const { next: random } = seededRandom(seed);
      const below = (limit: number) => Math.floor(random() * limit);
      const free = () => 1_000_000 + below(1_000_000_000);
      for (let i = 0; i < transactions; i++) {
        if (random() < 0.05) await test.truncate();
        const present = [...(await test.rows()).keys()].map(Number);
        const size = random() < 0.1 ? 120 : 1 + below(6);
        const moved = new Set<number>();
        const changes = Array.from({ length: size }, () => {
          const known = present[below(present.length)];
          if (known !== undefined && random() < 0.15 && !moved.has(known)) {
            moved.add(known);
            return { from: known, to: free() };
          }
          const id = known !== undefined && random() < 0.5 && !moved.has(known) ? known : below(200);
          return { id: moved.has(id) ? free() : id, note: random() < 0.2 ? null : `note ${below(1e9)}` };
        });
        await test.change(changes);
      }
    };

    it('brings every change, so that the newest versions are the source', async () => {
      const stream = await openAt(begin);
      const model = new Model();
      await randomChanges(1, 60);
      await read(stream, (batch) => model.apply(batch));
      stream.close();
      expect(model.visible()).toEqual(await test.rows());
    });

    it('brings the same rows with the same versions again, from any position and in any cuts', async () => {
      const first = new Model();
      const positions: string[] = [begin];
      const whole = await openAt(begin);
      await read(whole, (batch) => {
        first.apply(batch);
        positions.push(batch.to);
      });
      whole.close();
      for (const [i, position] of [begin, positions[Math.floor(positions.length / 2)]!, positions.at(-2)!].entries()) {
        const again = new Model();
        const stream = await openAt(position, i === 0 ? 3 : 10);
        await read(stream, (batch) => again.apply(batch));
        stream.close();
        for (const line of again.seen) expect(first.seen.has(line), line).toBe(true);
        if (i === 0) expect(again.seen.size).toBe(first.seen.size);
      }
    });

    it('gives positions only where a transaction has ended, and never goes back', async () => {
      const stream = await openAt(begin, 3);
      const batches: ChangeBatch[] = [];
      await test.change(Array.from({ length: 50 }, (_, id) => ({ id, note: 'many' })));
      await read(stream, (batch) => batches.push(batch));
      stream.close();
      const inside = batches.filter((batch) => batch.inner !== '');
      expect(inside.length).toBeGreaterThan(5);
      for (const [i, batch] of batches.entries()) {
        if (i > 0) expect(batch.from).toBe(batches[i - 1]!.to);
        expect(test.source.passed(batch.to, batch.from)).toBe(true);
      }
    });

    it('acknowledges what it is told, nothing else, and also when nothing concerns us', async () => {
      const before = await test.acknowledged();
      const stream = await openAt(begin);
      await randomChanges(2, 5);
      const end = await read(stream, () => {});
      await new Promise((resolve) => setTimeout(resolve, 700));
      expect(await test.acknowledged()).toBe(before);
      stream.acknowledge(end);
      await expect.poll(() => test.acknowledged(), { timeout: 10_000 }).toBe(end);
      await test.source.completePosition(test.connected);
      const idle = await read(stream, () => {});
      expect(test.source.passed(idle, end)).toBe(true);
      stream.close();
      begin = end;
    });

    it('gives the rows of a snapshot a version below any later change, in chunks that miss none', async () => {
      const start = await test.source.startPosition(test.connected);
      const { chunks } = await test.source.planChunks(
        test.connected,
        test.table,
        AbortSignal.timeout(10_000),
        () => {},
      );
      await test.change([{ id: 7, note: 'later' }]);
      const found = new Map<string, string>();
      for (const chunk of chunks) {
        await test.source.copyChunk(test.connected, {
          table: test.table,
          chunk,
          startPosition: start,
          epoch: 1,
          readAt: 0,
          signal: AbortSignal.timeout(10_000),
          progress: () => {},
          target: () => ({
            write: async (block) => {
              for (const line of block.content().toString('utf8').split('\n').filter(Boolean)) {
                const [id, note, version] = line.split('\t') as [string, string, string];
                expect(version).toBe(test.source.snapshotVersion(1, start));
                found.set(id, note);
              }
            },
            end: async () => {},
            cancel: () => {},
          }),
        });
      }
      expect(found).toEqual(await test.rows());
      const stream = await openAt(begin);
      const model = new Model();
      await read(stream, (batch) => model.apply(batch));
      stream.close();
      expect(model.rows.get('7')!.version > BigInt(test.source.snapshotVersion(1, start))).toBe(true);
    });

    it('ends with an error that passes when it is cut off, and goes on from the last position', async () => {
      const stream = await openAt(begin);
      await test.disturb();
      await expect(
        (async () => {
          for (;;) await stream.next(200, AbortSignal.timeout(20_000));
        })(),
      ).rejects.toMatchObject({ transient: true });
      stream.close();
      const model = new Model();
      await randomChanges(3, 10);
      await test.source.claim(test.connected);
      const again = await openAt(begin);
      await read(again, (batch) => model.apply(batch));
      again.close();
      const rows = await test.rows();
      for (const [id, row] of model.rows) expect(row.deleted ? undefined : row.note).toBe(rows.get(id));
    });

    it('leaves nothing behind when it is removed, and says what is lost when asked again', async () => {
      await test.source.remove(test.connected);
      await test.source.remove(test.connected);
      await expect(test.source.checkLog(test.connected, begin)).rejects.toMatchObject({ kind: 'slot_lost' });
    });
  });
}
