/** What the server is told of a stream, as of a standby: how far it was received, and how far it is recorded. */
import { parseLsn } from '../../../model/position.ts';

/** Microseconds between 1970 and 2000, where PostgreSQL's clock begins. */
export const postgresEpoch = 946_684_800_000_000;

export class Standby {
  #received: bigint;
  #acknowledged: bigint;
  #walEnd: bigint;
  /** Commit times (µs) of the oldest change that is not acknowledged yet, by the position of its batch. */
  readonly #pending: { to: bigint; committedFirst: number }[] = [];

  constructor(position: bigint) {
    this.#received = this.#acknowledged = this.#walEnd = position;
  }

  get acknowledged(): bigint {
    return this.#acknowledged;
  }

  /** How far the server's log goes, as it said last. */
  get walEnd(): bigint {
    return this.#walEnd;
  }

  /** A keepalive frame: `k`, log end (8), clock (8), whether it wants an answer. Answers the last. */
  keepalive(bytes: Buffer, start: number): boolean {
    this.#walEnd = bytes.readBigUInt64BE(start + 1);
    if (this.#received < this.#walEnd) this.#received = this.#walEnd;
    return bytes[start + 17] === 1;
  }

  /** A transaction was read whose end is here. */
  receive(end: bigint): void {
    if (this.#walEnd < end) this.#walEnd = end;
    this.#received = end;
  }

  /** A batch up to here will be acknowledged, whose oldest change was committed then (µs). */
  expect(to: bigint, committedFirst: number): void {
    this.#pending.push({ to, committedFirst });
  }

  /** False when more than this was acknowledged already. */
  acknowledge(position: string): boolean {
    const lsn = parseLsn(position);
    if (lsn < this.#acknowledged) return false;
    this.#acknowledged = lsn;
    while (this.#pending.length > 0 && this.#pending[0]!.to <= lsn) this.#pending.shift();
    return true;
  }

  /** `open`: when the oldest change was committed (µs) of those that are in no batch yet; 0 = there is none. */
  lag(open: number): { bytes: number; seconds: number } {
    const bytes = this.#walEnd > this.#acknowledged ? Number(this.#walEnd - this.#acknowledged) : 0;
    const oldest = this.#pending[0]?.committedFirst || open;
    return { bytes, seconds: oldest === 0 ? 0 : Math.max(0, Date.now() / 1000 - oldest / 1e6) };
  }

  /** Standby status: written, flushed and applied positions, clock; asks for an answer when `ask`. */
  status(ask: boolean): Buffer {
    const status = Buffer.alloc(34);
    status[0] = 0x72; // r
    status.writeBigUInt64BE(this.#received, 1);
    status.writeBigUInt64BE(this.#acknowledged, 9);
    status.writeBigUInt64BE(this.#acknowledged, 17);
    status.writeBigInt64BE(BigInt(Date.now()) * 1000n - BigInt(postgresEpoch), 25);
    status[33] = ask ? 1 : 0;
    return status;
  }
}
