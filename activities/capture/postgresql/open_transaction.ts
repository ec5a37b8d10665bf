/** The transaction that is being read from the log, and the versions of its changes: their places in it. */
import { formatLsn } from '../../../model/position.ts';
import { rowsPerRecordLimit, streamOffset } from '../../../model/version.ts';
import { VersionWriter } from '../../load/block.ts';
import { timeText } from '../../load/time_text.ts';
import type { Transaction } from './row_writer.ts';
import { postgresEpoch } from './standby.ts';

export class OpenTransaction implements Transaction {
  readonly #epoch: bigint;
  /** Between its begin and its commit. */
  isOpen = false;
  commitLsn = 0n;
  /** Commit time in microseconds. */
  commitTime = 0;
  xid = 0;
  // What is written into each of its rows is made at the first one: most transactions may be of other tables.
  readonly version = new VersionWriter();
  base = 0n;
  origin = Buffer.alloc(0);
  committedAt = Buffer.alloc(0);
  #ready = false;
  /** The commit's position, and the last change's, in halves of 32 bits. */
  #commitHigh = 0;
  #commitLow = 0;
  #changeHigh = 0;
  #changeLow = 0;
  /** Of several rows of one log record, which one. */
  #index = 0;
  #offsetBase = 0;

  constructor(epoch: number) {
    this.#epoch = BigInt(epoch);
  }

  /** BEGIN: `B`, commit's position (8), commit's time (8), id (4). */
  begin(bytes: Buffer, at: number): void {
    this.commitLsn = bytes.readBigUInt64BE(at + 1);
    this.#commitHigh = bytes.readUInt32BE(at + 1);
    this.#commitLow = bytes.readUInt32BE(at + 5);
    this.commitTime = Number(bytes.readBigInt64BE(at + 9)) + postgresEpoch;
    this.xid = bytes.readUInt32BE(at + 17);
    this.isOpen = true;
    this.#ready = false;
    this.#changeHigh = this.#changeLow = -1;
  }

  /** Low 48 bits of the version of the change whose frame begins at `start`: its place in the log, from the commit. */
  changeAt(bytes: Buffer, start: number): number {
    const high = bytes.readUInt32BE(start + 1);
    const low = bytes.readUInt32BE(start + 5);
    if (!this.#ready) this.#prepare();
    if (low === this.#changeLow && high === this.#changeHigh) {
      if (++this.#index >= rowsPerRecordLimit)
        throw new Error(`more than ${rowsPerRecordLimit} rows in one log record`);
    } else {
      this.#changeHigh = high;
      this.#changeLow = low;
      this.#index = 0;
      this.#offsetBase = streamOffset((this.#commitHigh - high) * 2 ** 32 + (this.#commitLow - low));
    }
    return this.#offsetBase + this.#index;
  }

  /** Position of the last change that was read; '' when there was none. */
  get lastChange(): string {
    if (!this.#ready) return '';
    return formatLsn((BigInt(this.#changeHigh) << 32n) | BigInt(this.#changeLow));
  }

  #prepare(): void {
    this.#ready = true;
    this.base = (this.#epoch << 112n) | (this.commitLsn << 48n);
    this.version.setBase(this.base);
    this.committedAt = Buffer.from(timeText(this.commitTime));
    this.origin = Buffer.from(`\t${this.xid}\t`);
  }
}
