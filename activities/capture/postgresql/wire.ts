/**
 * The raw phase of a PostgreSQL session. `pg` logs in (TLS, SCRAM, settings); then this takes over its socket and hands
 * out protocol frames as places in the received chunks: no object, no copy and no event per message, and the socket can
 * be paused, which `pg` itself cannot.
 */
import type { Socket } from 'node:net';
import type pg from 'pg';
import { asSluiceError, SluiceError } from '../../../model/errors.ts';
import { sourceError } from './connection.ts';
import { ReceivingSocket } from './receiving_socket.ts';

/**
 * Called for each frame; `bytes[start, end)` is its body, valid only during the call. Answers false for a frame that it
 * cannot take yet: it is handed out again after `release`, and nothing before that.
 */
export type FrameHandler = (type: number, bytes: Buffer, start: number, end: number) => boolean;

export const frameType = {
  copyBoth: 0x57, // W
  copyOut: 0x48, // H
  copyData: 0x64, // d
  copyDone: 0x63, // c
  commandComplete: 0x43, // C
  ready: 0x5a, // Z
  error: 0x45, // E
} as const;

export class RawSession {
  readonly #client: pg.Client;
  readonly #socket: Socket;
  readonly #handler: FrameHandler;
  readonly #onEnd: (error: SluiceError) => void;
  /** Copies of what is not handed out yet: the beginning of a frame that is not complete, or all since one was not taken. */
  #rest: Buffer[] = [];
  #restLength = 0;
  /** Bytes that the incomplete frame needs; asked for again when its header was not complete either. */
  #wanted = 0;
  #held = false;
  #ended = false;
  /** When something was received last, by `performance.now()`: one look at the clock for all its frames. */
  receivedAt = performance.now();

  /**
   * Takes over a session that is ready for a query.
   * @param onEnd called once, when the server reports an error or the connection ends without `close`.
   */
  constructor(client: pg.Client, handler: FrameHandler, onEnd: (error: SluiceError) => void) {
    this.#client = client;
    this.#handler = handler;
    this.#onEnd = onEnd;
    this.#socket = (client as unknown as { connection: { stream: Socket } }).connection.stream;
    this.#socket.removeAllListeners('data');
    if (this.#socket instanceof ReceivingSocket) this.#socket.receive = (chunk) => this.#received(chunk);
    else this.#socket.on('data', (chunk: Buffer) => this.#received(chunk));
    this.#socket.on('error', (error) => this.#end(sourceError(error)));
    this.#socket.on('close', () => this.#end(sourceError(new Error('the connection was closed'))));
    this.#socket.setNoDelay(true);
  }

  /** Sends a query by the simple protocol; its answer comes as frames. */
  query(sql: string): void {
    const body = Buffer.from(sql);
    const message = Buffer.alloc(body.length + 6);
    message[0] = 0x51; // Q
    message.writeInt32BE(body.length + 5, 1);
    body.copy(message, 5);
    this.#socket.write(message);
  }

  /** Sends one CopyData frame. */
  sendCopyData(body: Buffer): void {
    const message = Buffer.alloc(body.length + 5);
    message[0] = frameType.copyData;
    message.writeInt32BE(body.length + 4, 1);
    body.copy(message, 5);
    if (!this.#socket.destroyed) this.#socket.write(message);
  }

  get paused(): boolean {
    return this.#socket.isPaused();
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    if (!this.#held) this.#socket.resume();
  }

  /** Hands out the frame that was not taken, and those behind it. */
  release(): void {
    if (!this.#held) return;
    this.#held = false;
    this.#socket.resume();
    this.#handOut(this.#takeRest(), 0);
  }

  /** Ends the session at once; nothing is called any more. */
  close(): void {
    this.#ended = true;
    this.#socket.destroy();
    this.#client.end().catch(() => {});
  }

  #end(error: SluiceError): void {
    if (this.#ended) return;
    this.close();
    this.#onEnd(error);
  }

  #received(chunk: Buffer): void {
    this.receivedAt = performance.now();
    let at = 0;
    // Only the frame that was not complete is put together; those behind it are handed out where they are.
    while (this.#restLength > 0 && at < chunk.length) {
      const end = this.#held ? chunk.length : Math.min(at + this.#wanted - this.#restLength, chunk.length);
      this.#keep(chunk, at, end);
      at = end;
      if (!this.#held && this.#restLength >= this.#wanted) this.#handOut(this.#takeRest(), 0);
    }
    if (at < chunk.length) this.#handOut(chunk, at);
  }

  #keep(bytes: Buffer, start: number, end: number): void {
    this.#rest.push(Buffer.from(bytes.subarray(start, end)));
    this.#restLength += end - start;
  }

  #takeRest(): Buffer {
    const rest = this.#rest.length === 1 ? this.#rest[0]! : Buffer.concat(this.#rest, this.#restLength);
    this.#rest = [];
    this.#restLength = 0;
    return rest;
  }

  /** Hands out whole frames from `at` on, and keeps what is left. */
  #handOut(bytes: Buffer, at: number): void {
    while (!this.#ended && bytes.length - at >= 5) {
      const end = frameEnd(bytes, at);
      if (end > bytes.length) break;
      const type = bytes[at]!;
      if (type === frameType.error) return this.#end(serverError(bytes, at + 5, end));
      try {
        this.#held = !this.#handler(type, bytes, at + 5, end);
      } catch (error) {
        // What the handler throws is no fault of the connection.
        return this.#end(asSluiceError(error));
      }
      if (this.#held) {
        if (!this.#ended) this.#socket.pause();
        break;
      }
      at = end;
    }
    if (this.#ended || at >= bytes.length) return;
    this.#wanted = bytes.length - at >= 5 ? frameEnd(bytes, at) - at : 5;
    this.#keep(bytes, at, bytes.length);
  }
}

/** Where the frame that begins at `at` ends: its type, then its length, which counts itself. */
function frameEnd(bytes: Buffer, at: number): number {
  return at + 1 + ((bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!);
}

/** The fields of an ErrorResponse as an error: severity, code and message; its detail may hold row values and stays out. */
function serverError(bytes: Buffer, start: number, end: number): SluiceError {
  const fields: Record<string, string> = {};
  for (const field of bytes.toString('utf8', start, end).split('\0')) if (field) fields[field[0]!] = field.slice(1);
  const error = Object.assign(new Error(fields.M ?? 'unknown error'), { code: fields.C });
  // The last two stay with the slot: a fault of the server's own decoding (see `wereAltered` in slot.ts), and, before PostgreSQL 18,
  // log of a time at which the publication was not there.
  const slotGone =
    /replication slot .* does not exist|can no longer (access|get changes from) replication slot|invalidated|could not map filen(umber|ode)|publication .* does not exist/i;
  if (slotGone.test(fields.M ?? '')) {
    return new SluiceError(
      'slot_lost',
      `PostgreSQL: ${fields.M}`,
      'Re-sync the source: `sluice sources resync <id>`.',
      {},
      error,
    );
  }
  return sourceError(error);
}
