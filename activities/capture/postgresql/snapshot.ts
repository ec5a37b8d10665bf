/**
 * The snapshot of a table, in chunks by key: read at any time after the barrier, beside the stream, again after a crash,
 * by any worker. Every row carries the version of the table's start position, so whatever the stream brings wins.
 */
import type pg from 'pg';
import { parseLsn } from '../../../model/position.ts';
import { keyColumns, type TableSchema } from '../../../model/table.ts';
import { snapshotVersion } from '../../../model/version.ts';
import { Block } from '../../load/block.ts';
import { timeText } from '../../load/time_text.ts';
import type { Chunk, ChunkTask } from '../source.ts';
import type { Reject } from '../stream.ts';
import { type ConnectOptions, quoteName, quoteTable, quoteText, wasAltered, withConnection } from './connection.ts';
import { durablePosition } from './durable.ts';
import { RowEncoder, rowBound } from './encode.ts';
import { presentTable, tableChanged } from './present_table.ts';
import { frameType, RawSession } from './wire.ts';

/** Rows of a chunk. Small enough to be read again without regret, large enough to cost little besides its rows. */
export const chunkRows = 200_000;

/** Bounds of a chunk: the key's texts, `lower` exclusive and `upper` inclusive; null is open. */
interface Bounds {
  lower: string[] | null;
  upper: string[] | null;
}

function parseBounds({ lower, upper }: Chunk): Bounds {
  const parse = (text: string) => (text === '' ? null : (JSON.parse(text) as string[]));
  return { lower: parse(lower), upper: parse(upper) };
}

/**
 * Walks the key's index and cuts it every `chunkRows` rows. Rows that come later fall into a chunk all the same: the
 * first and the last are open. Errors: `table_changed`.
 */
export async function planChunks(
  client: pg.Client,
  known: TableSchema,
  publication: string,
  planned: (chunks: number) => void,
): Promise<Chunk[]> {
  const table = await presentTable(client, known, publication);
  const chunks: Chunk[] = [];
  const text = (bound: string[] | null) => (bound === null ? '' : JSON.stringify(bound));
  let lower: string[] | null = null;
  for (;;) {
    const upper: string[] | null = await boundBehind(client, table, lower);
    chunks.push({ lower: text(lower), upper: text(upper) });
    if (upper === null) return chunks;
    lower = upper;
    planned(chunks.length);
  }
}

/** The key of the last row of the chunk that begins behind `lower`, or null when the table ends before. */
async function boundBehind(client: pg.Client, table: TableSchema, lower: string[] | null): Promise<string[] | null> {
  const key = keyColumns(table).map((column) => quoteName(column.name));
  try {
    const behind = lower ? `WHERE ${range(table, { lower, upper: null })}` : '';
    // The key's text is made of one row only: outside of the OFFSET.
    const { rows } = (await client.query({
      text:
        `SELECT ${key.map((name) => `bound.${name}::text`).join(', ')} FROM (SELECT ${key.join(', ')} ` +
        `FROM ONLY ${quoteTable(table)} ${behind} ORDER BY ${key.join(', ')} OFFSET ${chunkRows - 1} LIMIT 1) AS bound`,
      rowMode: 'array',
    })) as { rows: string[][] };
    return rows[0] ?? null;
  } catch (error) {
    throw wasAltered(error) ? tableChanged(table, 'was altered while its chunks were planned') : error;
  }
}

/** A condition for the rows of a chunk; row comparison, so that a composite key uses its index. */
function range(table: TableSchema, { lower, upper }: Bounds): string {
  const key = keyColumns(table);
  const names = `(${key.map((column) => quoteName(column.name)).join(', ')})`;
  const values = (bound: string[]) => `(${bound.map((text, i) => `${quoteText(text)}::${key[i]!.type}`).join(', ')})`;
  const conditions = [];
  if (lower) conditions.push(`${names} > ${values(lower)}`);
  if (upper) conditions.push(`${names} <= ${values(upper)}`);
  return conditions.join(' AND ');
}

const tab = 0x09;
const newline = 0x0a;
const backslash = 0x5c;

/** Bytes of TSV after which a part of a chunk is written. */
const partBytes = 8 * 1024 * 1024;
/** Room for a part and its last row: a block that outgrows the small one that it begins with is made so large at once. */
const partRoom = partBytes + 64 * 1024;
const smallRoom = 256 * 1024;

/**
 * Reads one chunk and has it written. Its reading transaction stays open until the last insert is acknowledged (a
 * TRUNCATE has to wait for it), and nothing is inserted before what it read is on the source's disk: a crash there could
 * take back a commit that was read. Errors: `table_changed`, as `connect`.
 */
export async function copyChunkRows(
  session: ConnectOptions,
  publication: string,
  { chunk, ...task }: ChunkTask,
): Promise<{ rows: number; bytes: number; rejected: number }> {
  return copyRows(session, publication, { ...task, rows: async ({ present }) => range(present, parseBounds(chunk)) });
}

/** What a reading transaction has to hand when the rows to be read are chosen. */
export interface Reading {
  /** In the reading transaction. */
  client: pg.Client;
  /** Beside it. */
  watcher: pg.Client;
  /** The table as it is called now. */
  present: TableSchema;
}

export interface ReadTask extends Omit<ChunkTask, 'chunk'> {
  /** Condition of the rows to be read ('' = all), or undefined for none. */
  rows: (reading: Reading) => Promise<string | undefined>;
}

/** Like `copyChunkRows`, with rows that are chosen in the reading transaction itself. */
export async function copyRows(
  session: ConnectOptions,
  publication: string,
  task: ReadTask,
): Promise<{ rows: number; bytes: number; rejected: number }> {
  return withConnection(session, (watcher) =>
    withConnection({ ...session, bulk: true }, async (client) => {
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
      await client.query(`LOCK TABLE ONLY ${quoteTable(task.table)} IN ACCESS SHARE MODE`);
      const present = await presentTable(client, task.table, publication);
      const condition = await task.rows({ client, watcher, present });
      if (condition === undefined) return { rows: 0, bytes: 0, rejected: 0 };
      return new ChunkReader(client, watcher, task, present).run(condition);
    }),
  ).catch((error: unknown) => {
    throw wasAltered(error) ? tableChanged(task.table, 'was altered while it was read') : error;
  });
}

/** Reads COPY's lines and writes them in parts, pausing the source while a part is being written. */
class ChunkReader {
  readonly #client: pg.Client;
  readonly #watcher: pg.Client;
  readonly #task: ReadTask;
  /** Columns that are read, as they are called now. */
  readonly #present: TableSchema;
  /** By column of the copy: 0 when any field is right as it stands, 1 when it is to be looked at, 2 when the source has none. */
  readonly #looks: Uint8Array;
  readonly #encoder: RowEncoder;
  readonly #signal: AbortSignal;
  readonly #trailer: Buffer;
  #session: RawSession | undefined;
  #block = new Block(smallRoom);
  #spare: Block | undefined;
  #part = 0;
  #rows = 0;
  #bytes = 0;
  #rejected = 0;
  #rejects: Reject[] = [];
  #writing: Promise<void> | undefined;
  #wake: (() => void) | undefined;
  #done = false;
  #error: unknown;

  constructor(client: pg.Client, watcher: pg.Client, task: ReadTask, present: TableSchema) {
    this.#client = client;
    this.#watcher = watcher;
    this.#task = task;
    this.#present = present;
    const attnums = new Set(present.columns.map((column) => column.attnum));
    this.#encoder = new RowEncoder(task.table);
    this.#looks = Uint8Array.from(task.table.columns, ({ attnum }, column) =>
      attnums.has(attnum) ? (this.#encoder.takesAny(column) ? 0 : 1) : 2,
    );
    this.#signal = task.signal;
    const version = snapshotVersion(task.epoch, parseLsn(task.startPosition));
    this.#trailer = Buffer.from(`${version}\t0\t${timeText(Date.now() * 1000)}\n`);
  }

  async run(condition: string): Promise<{ rows: number; bytes: number; rejected: number }> {
    const table = this.#present;
    const columns = table.columns.map((column) => quoteName(column.name)).join(', ');
    this.#session = new RawSession(
      this.#client,
      (type, bytes, start, end) => {
        this.#frame(type, bytes, start, end);
        return true;
      },
      (error) => this.#fail(error),
    );
    this.#session.query(
      `COPY (SELECT ${columns} FROM ONLY ${quoteTable(table)}${condition ? ` WHERE ${condition}` : ''}) TO STDOUT`,
    );
    const abort = () => this.#fail(this.#signal.reason);
    this.#signal.addEventListener('abort', abort);
    if (this.#signal.aborted) abort();
    try {
      while (!this.#done || this.#block.rows > 0 || this.#rejects.length > 0) {
        if (this.#error) throw this.#error;
        if (this.#block.length >= partBytes || this.#done) await this.#writePart();
        else await new Promise<void>((resolve) => (this.#wake = resolve));
      }
      return { rows: this.#rows, bytes: this.#bytes, rejected: this.#rejected };
    } finally {
      this.#signal.removeEventListener('abort', abort);
      // Only now may the reading transaction end.
      this.#session.close();
    }
  }

  #fail(error: unknown): void {
    this.#error ??= error;
    this.#wake?.();
  }

  #frame(type: number, bytes: Buffer, start: number, end: number): void {
    if (type === frameType.copyData) {
      this.#line(bytes, start, end);
      if (this.#block.length >= partBytes) {
        this.#wake?.();
        // One part may fill while the one before is written.
        if (this.#writing) this.#session!.pause();
      }
    } else if (type === frameType.ready) {
      this.#done = true;
      this.#wake?.();
    }
  }

  async #writePart(): Promise<void> {
    const block = this.#block;
    this.#block = this.#spare ?? new Block(block.bytes.length);
    this.#spare = undefined;
    const rejects = this.#rejects;
    this.#rejects = [];
    const part = this.#part++;
    this.#writing = durablePosition(this.#watcher).then(() => this.#task.write(block, rejects, part));
    if (this.#session!.paused) this.#session!.resume();
    await this.#writing;
    this.#writing = undefined;
    if (this.#session!.paused) this.#session!.resume();
    this.#rows += block.rows;
    this.#bytes += block.length;
    this.#task.progress(this.#rows);
    block.length = 0;
    block.rows = 0;
    this.#spare = block;
  }

  /** One line of COPY: copied as it stands, since most fields are escaped as TSV has them; the others are looked at. */
  #line(bytes: Buffer, start: number, end: number): void {
    const block = this.#block;
    const columns = this.#looks.length;
    const needed = rowBound(end - start, columns);
    if (block.length + needed > smallRoom && block.bytes.length < partRoom) block.reserve(partRoom - block.length);
    block.reserve(needed);
    block.beginRow();
    for (let column = 0, at = start; column < columns; column++) {
      const look = this.#looks[column];
      if (look === 2) {
        this.#encoder.absent(block, column);
        continue;
      }
      const from = block.length;
      const to = copyField(block.bytes, from, bytes, at);
      at += to - from;
      if (look === 0) block.length = to;
      else if (!this.#field(block, column, from, to - 1)) {
        block.dropRow();
        return this.#reject(bytes, start, end);
      }
    }
    // The line's end, where its last field was copied as it stands.
    block.bytes[block.length - 1] = tab;
    block.bytes.set(this.#trailer, block.length);
    block.length += this.#trailer.length;
    block.rows++;
  }

  /** Makes a field of COPY, which stands in the block already, one of TSV. False when it cannot be stored exactly. */
  #field(block: Block, column: number, start: number, end: number): boolean {
    const { bytes } = block;
    block.length = start;
    if (end - start === 2 && bytes[start] === backslash && bytes[start + 1] === 0x4e)
      return this.#encoder.missing(block, column);
    if (!this.#encoder.isVerbatim(column)) {
      const plain = unescapeCopy(bytes, start, end);
      return this.#encoder.value(block, column, plain, 0, plain.length);
    }
    const stop = this.#encoder.exactEnd(column, bytes, start, end);
    if (stop < 0) return false;
    bytes[stop] = tab;
    block.length = stop + 1;
    return true;
  }

  #reject(bytes: Buffer, start: number, end: number): void {
    const { column, reason } = this.#encoder.refused;
    const fields = bytes.toString('latin1', start, end - 1).split('\t');
    const row: Record<string, string | null> = Object.create(null);
    const key: Record<string, string | null> = Object.create(null);
    for (const [i, definition] of this.#present.columns.entries()) {
      const field = Buffer.from(fields[i]!, 'latin1');
      row[definition.name] = fields[i] === '\\N' ? null : unescapeCopy(field, 0, field.length).toString('utf8');
      if (definition.key) key[definition.name] = row[definition.name]!;
    }
    this.#rejected++;
    const version = this.#trailer.toString('latin1').split('\t', 1)[0]!;
    this.#rejects.push({
      key: JSON.stringify(key),
      version,
      column,
      reason,
      row: JSON.stringify(row),
      committed_at: timeText(Date.now() * 1000),
    });
  }
}

/** Copies a field and the tab or newline behind it; returns the end. A function of its own: its loop is compiled best alone. */
function copyField(target: Buffer, to: number, source: Buffer, at: number): number {
  for (;;) {
    const byte = source[at++]!;
    target[to++] = byte;
    if (byte === tab || byte === newline) return to;
  }
}

const letters: Record<number, number> = { 98: 0x08, 102: 0x0c, 110: 0x0a, 114: 0x0d, 116: 0x09, 118: 0x0b };

/** A field of COPY's text format as the plain text of its value. */
function unescapeCopy(bytes: Buffer, start: number, end: number): Buffer {
  const plain = Buffer.allocUnsafe(end - start);
  let length = 0;
  for (let at = start; at < end; at++) {
    let byte = bytes[at]!;
    if (byte === 0x5c) {
      byte = bytes[++at]!;
      byte = letters[byte] ?? byte;
    }
    plain[length++] = byte;
  }
  return plain.subarray(0, length);
}
