/**
 * COPY's lines on their way into a copy. PostgreSQL itself says of each row whether it is exact as it stands: of such
 * a row no field is looked at, and its bytes are copied as they are. Only the others are taken apart.
 */
import type pg from 'pg';
import { parseLsn } from '../../../model/position.ts';
import { type Column, isMultiset, type TableSchema } from '../../../model/table.ts';
import { snapshotVersion } from '../../../model/version.ts';
import { Block, copyWords } from '../../load/block.ts';
import { timeText } from '../../load/time_text.ts';
import { unescapeBytes } from '../../load/tsv.ts';
import type { ChunkTarget, ChunkTask } from '../source.ts';
import type { Reject } from '../stream.ts';
import { quoteName } from './connection.ts';
import { durablePosition } from './durable.ts';
import { RowEncoder, rowBound } from './encode.ts';
import { ofKnownLeaves, rowsOf } from './partitions.ts';
import { contentKey } from './row_writer.ts';
import { frameType, RawSession } from './wire.ts';

const tab = 0x09;
const newline = 0x0a;
const backslash = 0x5c;
const letterT = 0x74;

/** Bytes of TSV after which a piece of an insert is handed over. */
const pieceBytes = 1024 * 1024;
/** Room for a piece and what is received at once: a block that outgrows the small one it begins with is made so large. */
const pieceRoom = pieceBytes + 512 * 1024;
const smallRoom = 64 * 1024;
/** Milliseconds after which a piece is handed over that is not full: a server gives up an insert that brings nothing for long. */
const slowPiece = 5_000;
/** Rows above this are copied by a call, which costs as much as `copyWords` of so many bytes. */
const longRow = 160;

/** What each row is preceded by: whether all its values can be stored as COPY writes them. */
function exactness(columns: Column[]): string {
  const conditions = columns.flatMap((column) => {
    const name = quoteName(column.name);
    const inKey = column.key ? [`${name} IS NOT NULL`] : [];
    switch (column.encoding) {
      case 'date':
        return [...inKey, `(${name} >= date '1900-01-01' AND ${name} < date '2300-01-01') IS NOT FALSE`];
      // Read as the same types, in UTC: see `selected`. Infinities are beyond.
      case 'timestamp':
        return [...inKey, `(${name} >= timestamp '0001-01-01' AND ${name} < timestamp '10000-01-01') IS NOT FALSE`];
      case 'timestamptz':
        return [
          ...inKey,
          `(${name} >= timestamptz '0001-01-01Z' AND ${name} < timestamptz '10000-01-01Z') IS NOT FALSE`,
        ];
      case 'numeric':
        return [...inKey, `(${name} <> numeric 'NaN') IS NOT FALSE`];
      default:
        return inKey;
    }
  });
  return conditions.length === 0 ? 'true' : conditions.join(' AND ');
}

/** A column as COPY writes it: times with a zone lose it, since the copy's zone is UTC too. */
function selected(column: Column): string {
  const name = quoteName(column.name);
  return column.encoding === 'timestamptz' ? `pg_catalog.timezone('UTC', ${name})` : name;
}

/** Reads COPY's lines and writes them in pieces, pausing the source while no piece is free. */
export class ChunkReader {
  readonly #client: pg.Client;
  readonly #watcher: pg.Client;
  readonly #task: Omit<ChunkTask, 'chunk'>;
  /** Columns that are read, as they are called now: first those whose text becomes another in TSV. */
  readonly #present: Column[];
  /** How many those are. */
  readonly #rewritten: number;
  /** Places of the columns that are read in the table that the copy was made from. */
  readonly #places: number[];
  /** Columns of the copy that the source has no more. */
  readonly #absent: number[];
  readonly #encoder: RowEncoder;
  readonly #version: string;
  /** What stands behind every row: absent columns, version, not deleted, and when it was read. */
  readonly #trailer: DataView;
  readonly #trailerLength: number;
  /** Rows without a key are numbered instead. */
  readonly #numbered: boolean;
  #number = 0;
  #session: RawSession | undefined;
  /** The memory that was received into last. */
  #received: DataView = new DataView(new ArrayBuffer(0));
  #block = new Block(smallRoom);
  readonly #free: Block[] = [new Block(smallRoom), new Block(smallRoom)];
  #rows = 0;
  #bytes = 0;
  #rejected = 0;
  #rejects: Reject[] = [];
  #wake: (() => void) | undefined;
  #done = false;
  #error: unknown;

  /** @param client in a transaction whose view of the rows stands already; `watcher` is beside it. */
  constructor(client: pg.Client, watcher: pg.Client, task: Omit<ChunkTask, 'chunk'>, present: TableSchema) {
    this.#client = client;
    this.#watcher = watcher;
    this.#task = task;
    const { columns } = task.table;
    const isRewritten = ({ encoding }: Column) => encoding === 'array' || encoding === 'bytea';
    const verbatim = present.columns.filter((column) => !isRewritten(column));
    const rewritten = present.columns.filter(isRewritten);
    this.#present = [...rewritten, ...verbatim];
    this.#rewritten = rewritten.length;
    this.#places = this.#present.map(({ attnum }) => columns.findIndex((column) => column.attnum === attnum));
    this.#absent = columns.flatMap((_, place) => (this.#places.includes(place) ? [] : [place]));
    // Lines have times with a zone as they have those without one.
    const withoutZones = columns.map((column) =>
      column.encoding === 'timestamptz' ? { ...column, encoding: 'timestamp' as const } : column,
    );
    this.#encoder = new RowEncoder({ ...task.table, columns: withoutZones });
    this.#version = String(snapshotVersion(task.epoch, parseLsn(task.startPosition)));
    const trailer = new Block(this.#absent.length * 3 + 128);
    for (const column of this.#absent) this.#encoder.absent(trailer, column);
    this.#numbered = isMultiset(task.table);
    const end = this.#numbered ? `\t${task.origin}\t1\t` : '\n';
    trailer.length += trailer.bytes.write(
      `${this.#version}\t0\t${timeText(task.readAt)}${end}`,
      trailer.length,
      'latin1',
    );
    this.#trailer = trailer.view;
    this.#trailerLength = trailer.length;
  }

  /** Reads all rows that the condition ('' = all) chooses, and resolves when they are durable. */
  async run(condition: string): Promise<{ rows: number; bytes: number; rejected: number }> {
    const { table, signal } = this.#task;
    const names = [...this.#places, ...this.#absent].map((place) => table.columns[place]!.name);
    const target = this.#task.target(names);
    this.#session = new RawSession(
      this.#client,
      (type, bytes, start, end) => {
        this.#frame(type, bytes, start, end);
        return true;
      },
      (error) => this.#fail(error),
    );
    const columns = [exactness(this.#present), ...this.#present.map(selected)].join(', ');
    const conditions = [condition, ofKnownLeaves(table)].filter(Boolean).join(' AND ');
    const where = conditions ? ` WHERE ${conditions}` : '';
    this.#session.query(`COPY (SELECT ${columns} FROM ${rowsOf(table)}${where}) TO STDOUT`);
    const abort = () => this.#fail(signal.reason);
    signal.addEventListener('abort', abort);
    if (signal.aborted) abort();
    try {
      await this.#writeAll(target);
      return { rows: this.#rows, bytes: this.#bytes, rejected: this.#rejected };
    } catch (error) {
      target.cancel(error as Error);
      throw error;
    } finally {
      signal.removeEventListener('abort', abort);
      // Only now may the reading transaction end.
      this.#session.close();
    }
  }

  #fail(error: unknown): void {
    this.#error ??= error;
    this.#wake?.();
  }

  /** Hands pieces over as they fill, until all are durable. */
  async #writeAll(target: ChunkTarget): Promise<void> {
    // A crash of the source could take back a commit that was read: nothing is written before all of them are on its disk.
    await durablePosition(this.#watcher);
    let sending: Block | undefined;
    let handedOver = performance.now();
    while (!this.#done || this.#block.rows > 0 || this.#rejects.length > 0) {
      if (this.#error) throw this.#error;
      const due = this.#block.rows > 0 && performance.now() - handedOver >= slowPiece;
      if (this.#block.length < pieceBytes && !this.#done && !due) {
        await this.#woken(slowPiece);
        continue;
      }
      handedOver = performance.now();
      const block = this.#block;
      const rejects = this.#rejects;
      this.#rejects = [];
      this.#block = this.#free.pop()!;
      if (this.#session!.paused) this.#session!.resume();
      await target.write(block, rejects);
      this.#rows += block.rows;
      this.#bytes += block.length;
      this.#task.progress(this.#rows);
      // The one before has left, and can be filled again.
      if (sending) this.#giveBack(sending);
      sending = block;
    }
    await target.end();
  }

  #woken(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  #giveBack(block: Block): void {
    block.length = 0;
    block.rows = 0;
    this.#free.push(block);
  }

  #frame(type: number, bytes: Buffer, start: number, end: number): void {
    if (type === frameType.copyData) {
      this.#line(bytes, start, end);
      if (this.#block.length < pieceBytes) return;
      this.#wake?.();
      // One piece may fill while others are sent.
      this.#session!.pause();
    } else if (type === frameType.ready) {
      this.#done = true;
      this.#wake?.();
    }
  }

  /** One line of COPY. */
  #line(bytes: Buffer, start: number, end: number): void {
    const block = this.#block;
    const needed = rowBound(end - start, this.#present.length) + this.#trailerLength;
    if (block.length + needed > smallRoom && block.bytes.length < pieceRoom) block.reserve(pieceRoom - block.length);
    block.reserve(needed);
    block.beginRow();
    const exact = bytes[start] === letterT;
    const looked = exact ? this.#rewritten : this.#present.length;
    let at = start + 2;
    for (let column = 0; column < looked; column++) {
      const from = block.length;
      const to = copyField(block.bytes, from, bytes, at);
      at += to - from;
      if (this.#field(block, this.#places[column]!, from, to - 1)) continue;
      block.dropRow();
      return this.#reject(bytes, start + 2, end);
    }
    this.#copyRest(block, bytes, at, end);
    // The line's end, where its last field was copied as it stands.
    block.bytes[block.length - 1] = tab;
    block.length = copyWords(block.view, block.length, this.#trailer, 0, this.#trailerLength);
    if (this.#numbered) block.length += block.bytes.write(`${++this.#number}\n`, block.length, 'latin1');
    block.rows++;
  }

  #copyRest(block: Block, bytes: Buffer, start: number, end: number): void {
    if (this.#received.buffer !== bytes.buffer) this.#received = new DataView(bytes.buffer);
    const from = bytes.byteOffset + start;
    const length = end - start;
    if (length > longRow || from + length + 3 > this.#received.byteLength) {
      block.bytes.set(bytes.subarray(start, end), block.length);
      block.length += length;
    } else block.length = copyWords(block.view, block.length, this.#received, from, from + length);
  }

  /** Makes a field of COPY, which stands in the block already, one of TSV. False when it cannot be stored exactly. */
  #field(block: Block, place: number, start: number, end: number): boolean {
    const { bytes } = block;
    block.length = start;
    if (end - start === 2 && bytes[start] === backslash && bytes[start + 1] === 0x4e)
      return this.#encoder.missing(block, place);
    if (!this.#encoder.isVerbatim(place)) {
      const plain = unescapeBytes(bytes, start, end);
      return this.#encoder.value(block, place, plain, 0, plain.length);
    }
    const stop = this.#encoder.exactEnd(place, bytes, start, end);
    if (stop < 0) return false;
    bytes[stop] = tab;
    block.length = stop + 1;
    return true;
  }

  #reject(bytes: Buffer, start: number, end: number): void {
    const { column, reason } = this.#encoder.refused;
    const fields = bytes.toString('latin1', start, end - 1).split('\t');
    const texts = new Map(
      this.#present.map((definition, i) => [definition.attnum, sourceText(definition, fields[i]!)]),
    );
    const row: Record<string, string | null> = Object.create(null);
    const key: Record<string, string | null> = Object.create(null);
    for (const { attnum, name, hidden, key: inKey } of this.#task.table.columns) {
      const text = texts.get(attnum);
      if (text === undefined) continue;
      if (!hidden) row[name] = text;
      if (inKey) key[name] = text;
    }
    this.#rejected++;
    this.#rejects.push({
      key: this.#numbered ? contentKey(row) : JSON.stringify(key),
      version: this.#version,
      column,
      reason,
      row: JSON.stringify(row),
      committed_at: timeText(this.#task.readAt),
    });
  }
}

/** A field of COPY (bytes as latin1) as the source's own text, as the stream has it too. */
function sourceText({ encoding }: Column, field: string): string | null {
  if (field === '\\N') return null;
  const bytes = Buffer.from(field, 'latin1');
  const text = unescapeBytes(bytes, 0, bytes.length).toString('utf8');
  if (encoding !== 'timestamptz' || text.endsWith('infinity')) return text;
  return text.endsWith(' BC') ? `${text.slice(0, -3)}+00 BC` : `${text}+00`;
}

/** Copies a field and the tab or newline behind it; returns the end. A function of its own: its loop is compiled best alone. */
function copyField(target: Buffer, to: number, source: Buffer, at: number): number {
  for (;;) {
    const byte = source[at++]!;
    target[to++] = byte;
    if (byte === tab || byte === newline) return to;
  }
}
