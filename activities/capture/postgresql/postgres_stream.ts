/**
 * Changes of a PostgreSQL database through one replication slot: decodes pgoutput, cuts batches at transactions' ends
 * (or inside, when a transaction is larger than a batch), pauses the socket when the consumer is behind, and
 * acknowledges only what it is told.
 */
import { performance } from 'node:perf_hooks';
import { asSluiceError, SluiceError } from '../../../model/errors.ts';
import { formatLsn, parseLsn } from '../../../model/position.ts';
import type { TableSchema } from '../../../model/table.ts';
import type { TableChange } from '../source.ts';
import type { Alteration, ChangeBatch, ChangeStream, Doubt } from '../stream.ts';
import { connect, quoteName, quoteText } from './connection.ts';
import type { MissingValues } from './missing_values.ts';
import { OpenTransaction } from './open_transaction.ts';
import { relationsOf } from './partitions.ts';
import {
  type Match,
  message,
  newTupleAt,
  type RelationMessage,
  readLogicalMessage,
  readRelation,
  tuple,
} from './pgoutput.ts';
import type { RowWriter } from './row_writer.ts';
import { Standby } from './standby.ts';
import { StreamTables } from './stream_tables.ts';
import { frameType, RawSession } from './wire.ts';

export interface StreamOptions {
  connectionString: string;
  source: string;
  slot: string;
  publication: string;
  /** Prefix of messages that tell of altered tables, where the source sends any. */
  ddlPrefix: string | undefined;
  /** Where to begin: the last recorded position. */
  position: string;
  epoch: number;
  tables: TableSchema[];
  /** By asset id, the version at which its table's stream begins (decimal text): what was committed before is copied already. */
  floors: Record<string, string>;
  /** What follows from an announced table that is not the known one, once transaction `xid` is visible. */
  resolve: (known: TableSchema, relation: RelationMessage, xid: number) => Promise<TableChange>;
  /** The partitioned tables that a relation is part of, the nearest first, once transaction `xid` is visible. */
  rootsOf: (relation: number, xid: number) => Promise<number[]>;
  /** Milliseconds that a change may wait at most for others before its batch is cut. */
  maxAge: number;
  maxRows: number;
  /** Bytes of TSV after which a batch is cut at the next transaction's end; inside a transaction at twice as many. */
  maxBytes: number;
  missing: MissingValues;
  /** True while the server works on what it reads from the log, and so does not answer. Errors: as `connect`. */
  isDecoding: () => Promise<boolean>;
  /** Milliseconds after which a connection that is silent, though asked, is looked into; default 30 s. */
  silence?: number;
}

/** A batch that is not full waits this long for more, as long as more is coming: many small inserts cost more than one. */
const gather = 20;
/** Batches that are not full follow each other at least so far apart: a trickle else makes a part a change. */
const apart = 40;
const statusEvery = 5_000;
const askEvery = 250;
/**
 * While the socket is paused nobody answers the server's questions, and a status goes out every few seconds only: a server
 * of less patience would cut the stream each time that a batch takes its time.
 */
const patientSender = `SELECT pg_catalog.set_config(name, '60s', false) FROM pg_catalog.pg_settings
  WHERE name = 'wal_sender_timeout' AND setting::pg_catalog.int8 BETWEEN 1 AND 59999`;
const usualSilence = 30_000;

export class PostgresStream implements ChangeStream {
  readonly #options: StreamOptions;
  #session: RawSession | undefined;
  #error: SluiceError | undefined;
  #wake: (() => void) | undefined;
  readonly #timers: NodeJS.Timeout[] = [];

  readonly #tables: StreamTables;
  /** A relation of which it was just found out that it is not ours. */
  #stranger = -1;
  /** The relation of the last change, and who writes its rows. */
  #lastOid = -1;
  #lastWriter: RowWriter | null = null;

  readonly #transaction: OpenTransaction;
  /** It was committed before the stream of some table begins. */
  #early = false;

  // The batch being filled.
  #from: string;
  #safe: bigint;
  #rows = 0;
  #changes = 0;
  #committedFirst = 0;
  #committedLast = 0;
  #openedAt = 0;
  #doubt: Doubt = 'none';
  readonly #ready: ChangeBatch[] = [];
  #wanted = false;
  #lastData = 0;
  #lastFrame = performance.now();
  #looking = false;
  #lastCut = 0;
  #bytes = 0;

  readonly #standby: Standby;

  private constructor(options: StreamOptions) {
    this.#options = options;
    this.#tables = new StreamTables(options.tables, options.floors);
    this.#from = options.position;
    this.#safe = parseLsn(options.position);
    this.#standby = new Standby(this.#safe);
    this.#transaction = new OpenTransaction(options.epoch);
  }

  /** Opens the stream at the recorded position. Errors: as `connect`, `slot_lost`, `slot_in_use`. */
  static async open(options: StreamOptions): Promise<PostgresStream> {
    const stream = new PostgresStream(options);
    const client = await connect({
      connectionString: options.connectionString,
      applicationName: `sluice ${options.source}`,
      replication: true,
      bulk: true,
      first: patientSender,
    });
    const session = new RawSession(
      client,
      (type, bytes, start) => stream.#frame(type, bytes, start),
      (error) => stream.#fail(error),
    );
    stream.#session = session;
    session.query(
      `START_REPLICATION SLOT ${quoteName(options.slot)} LOGICAL ${options.position} ` +
        `(proto_version '1', publication_names ${quoteText(quoteName(options.publication))}, messages '${options.ddlPrefix !== undefined}')`,
    );
    stream.#timers.push(setInterval(() => stream.#sendStatus(stream.#quiet() > stream.#silence / 2), statusEvery));
    stream.#timers.push(setInterval(() => stream.#askWhenQuiet(), askEvery));
    return stream;
  }

  async next(patience: number, signal: AbortSignal): Promise<ChangeBatch | undefined> {
    const deadline = performance.now() + patience;
    while (!signal.aborted) {
      const batch = this.#ready.shift();
      if (batch) {
        this.#resumeIfRoom();
        return batch;
      }
      if (this.#error) throw this.#error;
      const now = performance.now();
      const wait = this.#cutIfDue(now);
      if (this.#ready.length > 0) continue;
      if (now >= deadline) break;
      this.#wanted = true;
      await this.#sleep(Math.min(wait, deadline - now), signal);
      this.#wanted = false;
    }
    return this.#idleBatch();
  }

  fill(batch: ChangeBatch): Promise<Record<string, string>> {
    return this.#options.missing.fill(batch);
  }

  acknowledge(position: string): void {
    if (this.#standby.acknowledge(position)) this.#sendStatus(false);
  }

  recycle(batch: ChangeBatch): void {
    for (const changes of batch.tables) this.#tables.recycle(changes.table, changes.block);
  }

  lag(): { bytes: number; seconds: number } {
    return this.#standby.lag(this.#committedFirst);
  }

  close(): void {
    for (const timer of this.#timers) clearInterval(timer);
    this.#session?.close();
    this.#options.missing.close().catch(() => {});
    this.#error ??= new SluiceError('source_unreachable', 'the stream was closed', 'It is opened again.');
    this.#wake?.();
  }

  takeDoubt(): Doubt {
    const doubt = this.#doubt;
    this.#doubt = 'none';
    return doubt;
  }

  redefine(table: TableSchema): void {
    if (this.#tables.isTouched(table)) this.#cut('rows', this.#transaction.lastChange);
    this.#tables.define(table);
    this.#lastOid = -1;
  }

  /** True while the stream can go on from `position` without anything read again. */
  continuesAt(position: string): boolean {
    return this.#error === undefined && this.#standby.acknowledged === parseLsn(position);
  }

  #fail(error: SluiceError): void {
    for (const timer of this.#timers) clearInterval(timer);
    this.#error = error;
    this.#wake?.();
  }

  #sleep(milliseconds: number, signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', done);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(done, Math.max(0, milliseconds));
      signal.addEventListener('abort', done);
      this.#wake = done;
    });
  }

  // --- Cutting ---

  /** Cuts the batch when it is worth it; else answers how many milliseconds to wait before asking again. */
  #cutIfDue(now: number): number {
    if (this.#changes === 0) return 1_000;
    const age = now - this.#openedAt;
    const full = this.#bytes >= this.#options.maxBytes || this.#rows >= this.#options.maxRows;
    const quiet = now - this.#lastData >= 2;
    const due = full || age >= this.#options.maxAge || age >= gather || quiet;
    if (this.#transaction.isOpen) return due ? 1_000 : gather; // its commit, or its size, cuts
    if (!due) return Math.min(2, gather - age);
    const early = full ? 0 : apart - (now - this.#lastCut);
    if (early > 0) return early;
    this.#cut('rows', '');
    return 0;
  }

  #cut(
    kind: 'rows' | 'truncate' | 'schema',
    inner: string,
    {
      truncated = {},
      alteration,
      xid,
    }: { truncated?: Record<string, string>; alteration?: Alteration; xid?: number } = {},
  ): void {
    const to = formatLsn(this.#safe);
    this.#lastCut = performance.now();
    this.#ready.push({
      kind,
      from: this.#from,
      to,
      inner,
      committedFirst: this.#committedFirst,
      committedLast: this.#committedLast,
      changes: this.#changes,
      tables: this.#tables.take(),
      truncated,
      ...(xid !== undefined && { xid }),
      ...(alteration && { alteration }),
      openedAt: this.#openedAt,
      cutAt: performance.now(),
    });
    if (this.#committedFirst !== 0)
      this.#standby.expect(inner === '' ? this.#safe : this.#safe + 1n, this.#committedFirst);
    this.#from = to;
    this.#rows = this.#changes = this.#bytes = this.#committedFirst = this.#committedLast = 0;
    this.#wake?.();
  }

  /** The source has moved on without changes for us: recorded and acknowledged too, or its log fills the disk. */
  #idleBatch(): ChangeBatch | undefined {
    // Never past anything that was read and is not recorded yet.
    const unrecorded = this.#transaction.isOpen || this.#changes > 0 || this.#ready.length > 0;
    if (unrecorded || this.#error) return undefined;
    if (this.#safe < this.#standby.walEnd) this.#safe = this.#standby.walEnd;
    const from = this.#from;
    // The last batch may have been cut inside of a transaction that had nothing more for us: its end counts too.
    if (this.#safe <= parseLsn(from)) return undefined;
    this.#from = formatLsn(this.#safe);
    const now = performance.now();
    return {
      kind: 'idle',
      from,
      to: this.#from,
      inner: '',
      committedFirst: 0,
      committedLast: 0,
      changes: 0,
      tables: [],
      truncated: {},
      openedAt: now,
      cutAt: now,
    };
  }

  #pauseIfFull(): void {
    const full = this.#ready.length > 1 || (this.#ready.length === 1 && this.#bytes >= this.#options.maxBytes);
    if (full && !this.#session!.paused) this.#session!.pause();
  }

  #resumeIfRoom(): void {
    if (this.#ready.length > 1 || !this.#session?.paused) return;
    this.#lastFrame = performance.now();
    this.#session.resume();
  }

  // --- Frames ---

  /** False when the frame cannot be taken before its table's definition is settled. */
  #frame(type: number, bytes: Buffer, start: number): boolean {
    if (type !== frameType.copyData) {
      if (type === frameType.copyDone) throw new Error('the server ended the stream');
      return true;
    }
    this.#lastFrame = this.#session!.receivedAt;
    if (bytes[start] === 0x77) {
      this.#lastData = this.#lastFrame;
      return this.#message(bytes, start);
    }
    if (bytes[start] === 0x6b && this.#standby.keepalive(bytes, start)) this.#sendStatus(false);
    return true;
  }

  /** One XLogData frame: `w`, data start (8), log end (8), clock (8), then a pgoutput message. */
  #message(bytes: Buffer, start: number): boolean {
    const at = start + 25;
    switch (bytes[at]) {
      case message.insert: {
        const writer = this.#writerAt(bytes, at);
        if (!writer) return writer === null;
        const before = writer.changes.block.length;
        writer.insert(bytes, at + 6, this.#transaction, this.#transaction.changeAt(bytes, start));
        this.#counted(writer, before);
        return true;
      }
      case message.update: {
        const writer = this.#writerAt(bytes, at);
        if (!writer) return writer === null;
        const before = writer.changes.block.length;
        const hollow = writer.changes.hollow.length;
        const offset = this.#transaction.changeAt(bytes, start);
        if (bytes[at + 5] === tuple.new) writer.update(bytes, -1, at + 6, this.#transaction, offset);
        else writer.update(bytes, at + 6, newTupleAt(bytes, at + 6), this.#transaction, offset);
        // Values that are still to be looked up need memory, too.
        if (writer.changes.hollow.length > hollow) this.#bytes += this.#options.missing.weight;
        this.#counted(writer, before);
        return true;
      }
      case message.delete: {
        const writer = this.#writerAt(bytes, at);
        if (!writer) return writer === null;
        const before = writer.changes.block.length;
        writer.delete(bytes, at + 6, this.#transaction, this.#transaction.changeAt(bytes, start));
        this.#counted(writer, before);
        return true;
      }
      case message.begin:
        this.#begin(bytes, at);
        return true;
      case message.commit:
        this.#commit(bytes, at);
        return true;
      case message.relation:
        return this.#relation(bytes, at);
      case message.truncate:
        return this.#truncate(bytes, at, start);
      case message.logical:
        this.#told(bytes, at);
        return true;
      default: // origins, types: nothing to copy
        return true;
    }
  }

  /** Null for a table whose changes are not wanted; undefined until its definition is settled. */
  #writerAt(bytes: Buffer, at: number): RowWriter | null | undefined {
    const oid = bytes.readUInt32BE(at + 1);
    if (oid !== this.#lastOid) {
      const writer = this.#writerOf(oid);
      if (writer === undefined) return undefined;
      this.#lastWriter = writer;
      this.#lastOid = oid;
    }
    return this.#lastWriter;
  }

  #writerOf(oid: number): RowWriter | null | undefined {
    const table = this.#tables.ofRelation(oid);
    if (!table || this.#isEarly(table)) return null;
    const writer = this.#tables.writer(oid);
    if (writer) return writer;
    const relation = this.#tables.announced(oid);
    if (!relation) throw new Error(`a change of ${table.asset_id}, which was not announced`);
    const match = this.#match(relation, table);
    if (match) return this.#makeWriter(oid, match);
    this.#hold(relation, table);
    return undefined;
  }

  #begin(bytes: Buffer, at: number): void {
    this.#transaction.begin(bytes, at);
    const wasEarly = this.#early;
    this.#early = this.#tables.isBeforeSome(this.#transaction.commitLsn);
    if (wasEarly || this.#early) this.#lastOid = -1;
  }

  #commit(bytes: Buffer, at: number): void {
    this.#safe = bytes.readBigUInt64BE(at + 10);
    this.#standby.receive(this.#safe);
    this.#transaction.isOpen = false;
    if (this.#changes === 0) return;
    this.#committedLast = this.#transaction.commitTime;
    const full = this.#bytes >= this.#options.maxBytes || this.#rows >= this.#options.maxRows;
    if (full) this.#cut('rows', '');
    else if (this.#wanted) {
      const now = performance.now();
      if (now - this.#openedAt >= gather && now - this.#lastCut >= apart) this.#cut('rows', '');
      else this.#wake?.();
    }
    this.#pauseIfFull();
  }

  #counted(writer: RowWriter, before: number): void {
    if (this.#changes === 0) this.#openedAt = this.#lastData;
    if (this.#committedFirst === 0) this.#committedFirst = this.#transaction.commitTime;
    this.#changes++;
    this.#rows++;
    this.#bytes += writer.changes.block.length - before;
    if (this.#bytes >= this.#options.maxBytes * 2 || this.#rows >= this.#options.maxRows * 2) {
      this.#committedLast = this.#transaction.commitTime;
      this.#cut('rows', this.#transaction.lastChange);
      this.#pauseIfFull();
    }
  }

  // --- Definitions ---

  /** Somebody altered tables, by their oids, or what has none (`*`); only the catalog says what that means. */
  #told(bytes: Buffer, at: number): void {
    const content = readLogicalMessage(bytes, at, this.#options.ddlPrefix ?? '');
    if (content?.split(' ').some((oid) => oid === '*' || this.#tables.isOurs(Number(oid)))) this.#doubt = 'altered';
  }

  #relation(bytes: Buffer, at: number): boolean {
    const relation = readRelation(bytes, at);
    const { oid } = relation;
    this.#lastOid = -1;
    const table = this.#tables.ofRelation(oid);
    if (!table) return this.#ask(relation);
    const known = this.#tables.announced(oid);
    this.#tables.announce(relation);
    const match = this.#match(relation, table);
    if (match) {
      const writer = this.#tables.writer(oid);
      // Sent again: something about the table may be another now that this message does not show.
      if (known && this.#doubt === 'none') this.#doubt = 'announced';
      if (!writer?.fits(match)) this.#makeWriter(oid, match);
      return true;
    }
    if (this.#isEarly(table)) {
      // Perhaps it is another one again when its first change that is wanted comes.
      this.#tables.dropWriter(oid);
      return true;
    }
    this.#hold(relation, table);
    return false;
  }

  /** The transaction was committed before the stream of this table begins. */
  #isEarly(table: TableSchema): boolean {
    return this.#early && this.#tables.isBefore(table, this.#transaction.commitLsn);
  }

  /**
   * A relation that is not known may be a new partition, and only the catalog says of which table. Stands still until that
   * is known; one that joins a table travels alone then, as any change of a definition.
   */
  #ask(relation: RelationMessage): boolean {
    const { oid } = relation;
    const asked = this.#stranger === oid;
    this.#stranger = -1;
    if (asked || !this.#tables.anyPartitioned) return true;
    this.#options.rootsOf(oid, this.#transaction.xid).then(
      (roots) => {
        if (this.#error) return;
        const table = this.#tables.ofRoots(roots);
        if (table) return this.#hold(relation, table);
        this.#stranger = oid;
        this.#session!.release();
      },
      (error) => {
        this.#session?.close();
        this.#fail(asSluiceError(error));
      },
    );
    return false;
  }

  #match(relation: RelationMessage, table: TableSchema): Match | undefined {
    return this.#tables.match(relation, table, this.#transaction.commitLsn);
  }

  #makeWriter(oid: number, match: Match): RowWriter {
    if (this.#tables.writer(oid)?.touched) this.#cutBefore();
    return this.#tables.makeWriter(oid, match);
  }

  /** Ends the batch before what comes next in the same transaction. */
  #cutBefore(): void {
    this.#committedLast = this.#transaction.commitTime;
    this.#cut('rows', this.#transaction.lastChange);
  }

  /**
   * Stands still at a table that is not the one that is known: what was read before is a batch, the change of the
   * definition is another, and nothing behind it is read before that is settled. `verdict`: what follows is clear already.
   */
  #hold(relation: RelationMessage, table: TableSchema, verdict?: TableChange): void {
    if (this.#changes > 0) this.#cutBefore();
    const { xid } = this.#transaction;
    const alteredAt = formatLsn(this.#transaction.commitLsn);
    const alteration: Alteration = {
      asset: table.asset_id,
      resolve: async (known) => {
        if (verdict) return verdict;
        const fits = this.#match(relation, known) !== undefined;
        if (fits && relationsOf(known).includes(relation.oid)) return { do: 'nothing' };
        const change = await this.#options.resolve(known, relation, xid);
        // A partition that only joins leaves the table's definition as it was.
        return change.do === 'alter' && !fits ? { ...change, next: { ...change.next, alteredAt } } : change;
      },
      settle: (next) => {
        if (next && !this.#match(relation, next)) return false;
        if (next) this.#tables.define(next);
        else this.#tables.forget(table);
        this.#lastOid = -1;
        this.#session!.release();
        return true;
      },
    };
    this.#cut('schema', this.#transaction.lastChange, { alteration });
  }

  #truncate(bytes: Buffer, at: number, start: number): boolean {
    const count = bytes.readUInt32BE(at + 1);
    const relations = new Set<number>();
    const touched = new Map<number, RowWriter>();
    for (let i = 0; i < count; i++) {
      const oid = bytes.readUInt32BE(at + 6 + i * 4);
      const writer = this.#writerOf(oid);
      if (writer === undefined) return false;
      relations.add(oid);
      if (writer && !touched.has(writer.table.oid)) touched.set(writer.table.oid, writer);
    }
    if (touched.size === 0) return true;
    for (const oid of relations) if (!this.#isWhole(oid, relations)) return false;
    if (this.#changes > 0) this.#cut('rows', this.#transaction.lastChange);
    const offset = this.#transaction.changeAt(bytes, start);
    const truncated: Record<string, string> = {};
    for (const writer of touched.values()) {
      writer.changes.effects.truncates++;
      writer.changes.effects.effects++;
      truncated[writer.table.asset_id] = String(this.#transaction.base + BigInt(offset));
    }
    this.#changes = 1;
    this.#openedAt = this.#lastData;
    this.#committedFirst = this.#committedLast = this.#transaction.commitTime;
    this.#cut('truncate', this.#transaction.lastChange, { truncated, xid: this.#transaction.xid });
    this.#pauseIfFull();
    return true;
  }

  /**
   * False when a TRUNCATE of these relations leaves partitions of a table alone: the copy does not tell its rows apart by
   * partition. Rows are only ever written of partitions that are known, so that all known ones are all there are.
   */
  #isWhole(oid: number, truncated: Set<number>): boolean {
    const table = this.#tables.ofRelation(oid);
    if (!table || this.#isEarly(table) || relationsOf(table).every((other) => truncated.has(other))) return true;
    const relation = this.#tables.announced(oid)!;
    this.#hold(relation, table, { do: 'resync', reason: `its partition ${relation.table} was truncated` });
    return false;
  }

  // --- Status ---

  #sendStatus(ask: boolean): void {
    if (this.#session && !this.#error) this.#session.sendCopyData(this.#standby.status(ask));
  }

  /** A walsender that has nothing to send says so only when asked: then the position of an idle database moves on. */
  #askWhenQuiet(): void {
    if (!this.#session!.paused && this.#quiet() > this.#silence) void this.#lookIntoSilence();
    if (!this.#transaction.isOpen && this.#changes === 0 && this.#ready.length === 0) this.#sendStatus(true);
  }

  get #silence(): number {
    return this.#options.silence ?? usualSilence;
  }

  /** Milliseconds since the server has sent anything. */
  #quiet(): number {
    return performance.now() - this.#lastFrame;
  }

  /**
   * A connection without another end is silent for ever. So is, for long, a server that decodes a large transaction of which nothing
   * is for us: then it asks for a sign of life no more often than every half of its `wal_sender_timeout`.
   */
  async #lookIntoSilence(): Promise<void> {
    if (this.#looking) return;
    this.#looking = true;
    const since = this.#lastFrame;
    const quiet = this.#quiet();
    const found = await this.#options.isDecoding().catch(asSluiceError);
    this.#looking = false;
    if (this.#error || this.#lastFrame !== since) return;
    if (found === true) {
      this.#lastFrame = performance.now();
      return;
    }
    this.#session!.close();
    const reason = `the source has been silent for ${Math.round(quiet / 1000)} s`;
    this.#fail(found || new SluiceError('source_unreachable', reason, 'It is tried again.'));
  }
}
