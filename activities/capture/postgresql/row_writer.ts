/** Writes the changes of one table as rows of its copy: new rows, tombstones, holes and rejects. */
import { createHash } from 'node:crypto';
import { noEffects } from '../../../model/batch.ts';
import { isMultiset, type TableSchema } from '../../../model/table.ts';
import { Block, type VersionWriter } from '../../load/block.ts';
import type { Hole, TableChanges } from '../stream.ts';
import { copyBytes, RowEncoder, rowBound } from './encode.ts';
import { type Match, Tuple } from './pgoutput.ts';

/** What all rows of a transaction have in common. */
export interface Transaction {
  version: VersionWriter;
  /** Version of the transaction with its low 48 bits zero. */
  base: bigint;
  xid: number;
  /** What stands behind the commit time of every row of a multiset, but for its sign: the transaction's id. */
  origin: Buffer;
  /** Commit time as TSV. */
  committedAt: Buffer;
}

export class RowWriter {
  readonly table: TableSchema;
  /** Column of the copy by column of the relation; -1 is left out. */
  readonly #columns: Int32Array;
  readonly #encoder: RowEncoder;
  /** Rows without a key have signs instead of tombstones; see ../../load/multiset.ts. */
  readonly #signed: boolean;
  readonly #fresh = new Tuple();
  readonly #old = new Tuple();
  #block = new Block(4096);
  #spare: Block | undefined;
  changes: TableChanges;

  /** @param columns in the order in which rows come: their places in `table`, in rising order. */
  constructor(table: TableSchema, columns: Int32Array) {
    this.table = table;
    this.#columns = columns;
    this.#encoder = new RowEncoder(table);
    this.#signed = isMultiset(table);
    this.changes = this.#empty();
  }

  #empty(): TableChanges {
    return { table: this.table, block: this.#block, effects: noEffects(), hollow: [], rejects: [] };
  }

  /** True when rows that are announced so go where this writer writes them. */
  fits(match: Match): boolean {
    return match.table === this.table && match.columns.every((column, i) => column === this.#columns[i]);
  }

  /** True when something was written since the last `take`. */
  get touched(): boolean {
    return this.changes.effects.effects > 0;
  }

  /** The changes so far, as part of a batch; the writer goes on with another block. */
  take(): TableChanges {
    const taken = this.changes;
    this.#block = this.#spare ?? new Block(4096);
    this.#spare = undefined;
    this.changes = this.#empty();
    return taken;
  }

  /** Takes a block back that nobody reads any more. */
  recycle(block: Block): void {
    block.length = 0;
    block.rows = 0;
    this.#spare = block;
  }

  /** An inserted row; its tuple is at `at`. `offset`: low 48 bits of its version. */
  insert(bytes: Buffer, at: number, transaction: Transaction, offset: number): void {
    const end = this.#fresh.read(bytes, at);
    this.changes.effects.inserts++;
    this.changes.effects.effects++;
    this.#row(bytes, end - at, transaction, offset, false, -1);
  }

  /** An updated row. `oldAt` is the place of the old tuple (key or whole row), or -1 when it was not sent. */
  update(bytes: Buffer, oldAt: number, newAt: number, transaction: Transaction, offset: number): void {
    const end = this.#fresh.read(bytes, newAt);
    const { effects } = this.changes;
    effects.updates++;
    effects.effects++;
    if (oldAt < 0) return this.#row(bytes, end - newAt, transaction, offset, false, -1);
    this.#old.read(bytes, oldAt);
    let replaced = -1;
    if (this.#signed) {
      effects.effects++;
      this.#takeAway(bytes, newAt - oldAt, transaction, offset);
    } else if (this.#keyChanged(bytes)) {
      // The key is another: a tombstone for the old one. It is written even when the new row is rejected.
      effects.effects++;
      if (this.#tombstone(bytes, newAt - oldAt, this.#old, transaction, offset)) replaced = this.#block.rows - 1;
      else effects.rejected++;
    }
    this.#row(bytes, end - oldAt, transaction, offset, true, replaced);
  }

  /** A deleted row; `at` is the place of its old tuple. */
  delete(bytes: Buffer, at: number, transaction: Transaction, offset: number): void {
    const end = this.#old.read(bytes, at);
    this.changes.effects.deletes++;
    this.changes.effects.effects++;
    if (this.#signed) return this.#takeAway(bytes, end - at, transaction, offset);
    if (!this.#tombstone(bytes, end - at, this.#old, transaction, offset)) this.changes.effects.rejected++;
  }

  #keyChanged(bytes: Buffer): boolean {
    const { starts, ends } = this.#fresh;
    for (let i = 0; i < this.#columns.length; i++) {
      const column = this.#columns[i]!;
      if (column < 0 || !this.#encoder.isKey(column) || starts[i] === -2) continue;
      const oldStart = this.#old.starts[i]!;
      if (oldStart < 0 || bytes.compare(bytes, oldStart, this.#old.ends[i], starts[i], ends[i]) !== 0) return true;
    }
    return false;
  }

  /** Writes the fresh tuple; values that it lacks come from the old one when there is one, else they become holes. */
  #row(bytes: Buffer, size: number, transaction: Transaction, offset: number, hasOld: boolean, replaced: number): void {
    const block = this.#block;
    const encoder = this.#encoder;
    const { starts, ends, count } = this.#fresh;
    block.reserve(rowBound(size, count));
    block.beginRow();
    let holes: Hole[] | undefined;
    for (let i = 0; i < count; i++) {
      const column = this.#columns[i]!;
      if (column < 0) continue;
      let start = starts[i]!;
      let end = ends[i]!;
      if (start === -2 && hasOld && this.#old.starts[i]! !== -2) {
        start = this.#old.starts[i]!;
        end = this.#old.ends[i]!;
        // An old key tuple holds NULL for what is not key: that is no value.
        if (start === -1 && !encoder.isKey(column) && !this.#oldIsWhole()) start = -2;
      }
      if (start === -2) {
        if (this.#signed) throw new Error(`an old row of ${this.table.asset_id} lacks a value`);
        holes ??= [];
        holes.push({ row: block.rows, column, offset: block.length });
        block.bytes[block.length++] = 0x09;
      } else if (start === -1 ? !encoder.missing(block, column) : !encoder.value(block, column, bytes, start, end)) {
        return this.#reject(bytes, this.#fresh, transaction, offset);
      }
    }
    this.#finish(transaction, offset, 0x30);
    if (holes) {
      const version = String(transaction.base + BigInt(offset));
      this.changes.hollow.push({ row: block.rows - 1, holes, version, xid: transaction.xid, replaced });
    }
  }

  /** A key tuple of a REPLICA IDENTITY other than FULL has text for key columns only. */
  #oldIsWhole(): boolean {
    return this.table.identity === 'full';
  }

  /** Of a multiset: the old row, which is one less. Where the copy cannot hold its values, it never had them. */
  #takeAway(bytes: Buffer, size: number, transaction: Transaction, offset: number): void {
    const block = this.#block;
    const encoder = this.#encoder;
    const { starts, ends, count } = this.#old;
    block.reserve(rowBound(size, count));
    block.beginRow();
    for (let i = 0; i < count; i++) {
      const column = this.#columns[i]!;
      if (column < 0) continue;
      if (starts[i] === -2) throw new Error(`an old row of ${this.table.asset_id} lacks a value`);
      const held =
        starts[i] === -1 ? encoder.missing(block, column) : encoder.value(block, column, bytes, starts[i]!, ends[i]!);
      if (!held) return this.#reject(bytes, this.#old, transaction, offset);
    }
    this.#finish(transaction, offset, 0x30, '-1');
  }

  #tombstone(bytes: Buffer, size: number, old: Tuple, transaction: Transaction, offset: number): boolean {
    const block = this.#block;
    const encoder = this.#encoder;
    block.reserve(rowBound(size, old.count));
    block.beginRow();
    for (let i = 0; i < old.count; i++) {
      const column = this.#columns[i]!;
      if (column < 0) continue;
      if (!encoder.isKey(column)) encoder.absent(block, column);
      else if (old.starts[i]! < 0 || !encoder.value(block, column, bytes, old.starts[i]!, old.ends[i]!)) {
        // A key that the copy cannot hold was never in it.
        block.dropRow();
        return false;
      }
    }
    this.#finish(transaction, offset, 0x31);
    return true;
  }

  #finish(transaction: Transaction, offset: number, deleted: number, sign = '1'): void {
    const block = this.#block;
    const target = block.bytes;
    let at = transaction.version.write(target, block.length, offset);
    target[at++] = 0x09;
    target[at++] = deleted;
    target[at++] = 0x09;
    at = copyBytes(target, at, transaction.committedAt, 0, transaction.committedAt.length);
    if (this.#signed) {
      at = copyBytes(target, at, transaction.origin, 0, transaction.origin.length);
      at += target.write(`${sign}\t0`, at, 'latin1');
    }
    block.length = at + 1;
    block.endRow();
  }

  #reject(bytes: Buffer, { starts, ends, count }: Tuple, transaction: Transaction, offset: number): void {
    const { column, reason } = this.#encoder.refused;
    this.#block.dropRow();
    this.changes.effects.rejected++;
    const row: Record<string, string | null> = Object.create(null);
    const key: Record<string, string | null> = Object.create(null);
    const unsent: string[] = [];
    for (let i = 0; i < count; i++) {
      const index = this.#columns[i]!;
      const start = starts[i]!;
      const definition = this.table.columns[index];
      if (!definition || definition.hidden) continue;
      if (start === -2) {
        unsent.push(definition.name);
        continue;
      }
      row[definition.name] = start === -1 ? null : bytes.toString('utf8', start, ends[i]!);
      if (definition.key) key[definition.name] = row[definition.name]!;
    }
    this.changes.rejects.push({
      key: this.#signed ? contentKey(row) : JSON.stringify(key),
      version: String(transaction.base + BigInt(offset)),
      column,
      reason,
      row: JSON.stringify(row),
      ...(unsent.length > 0 && { unsent }),
      committed_at: transaction.committedAt.toString('latin1'),
    });
  }
}

/** What a row without a key is called among rejects: equal rows are called the same. */
export function contentKey(row: Record<string, string | null>): string {
  const values = Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify({ md5: createHash('md5').update(JSON.stringify(values)).digest('hex') });
}
