/** An insert whose rows come in pieces: one statement and one part, without all its bytes in memory at once. */
import { Readable } from 'node:stream';

/**
 * Bytes of data after which an insert of many rows ends. Each becomes a part of the copy, and parts that are large from
 * the beginning are merged less often; the embedded engine takes 64 MB.
 */
export const insertBytes = 48 * 1024 * 1024;

/** Sockets take smaller pieces without saying when they are sent: those are copied. */
const smallPiece = 128 * 1024;

export class RowsInsert {
  readonly #stream: Readable;
  readonly #written: Promise<number>;
  /** True when the statement has ended, well or not. */
  #over = false;
  /** True while the reader wants more than it has. */
  #wanted = false;
  #wake: (() => void) | undefined;

  /** @param insert begins the statement with these bytes as its data; answers the number of rows that were written. */
  constructor(insert: (values: Readable) => Promise<number>) {
    // One piece is held at most: the next is asked for when it was handed on, and handed on when the one before is sent.
    this.#stream = new Readable({ highWaterMark: 1, read: () => this.#askedForMore() });
    // What becomes of the body is told by the statement.
    this.#stream.on('error', () => {});
    this.#written = insert(this.#stream);
    const over = () => {
      this.#over = true;
      this.#askedForMore();
    };
    this.#written.then(over, over);
  }

  #askedForMore(): void {
    this.#wanted = true;
    this.#wake?.();
  }

  /**
   * Hands over a piece, which holds whole rows, and resolves when another can come. The bytes may be changed when the
   * call after this one resolves. Errors: those of the statement.
   */
  async write(bytes: Buffer): Promise<void> {
    if (!this.#over) {
      this.#wanted = false;
      this.#stream.push(bytes.length < smallPiece ? Buffer.from(bytes) : bytes);
      if (!this.#wanted) await new Promise<void>((resolve) => (this.#wake = resolve));
    }
    if (this.#over) await this.#written;
  }

  /** Resolves when all is written, with the number of rows. */
  end(): Promise<number> {
    if (!this.#over) this.#stream.push(null);
    return this.#written;
  }

  /** Ends the request in mid-body: a statement that has not got all its data writes nothing, or whole rows only. */
  cancel(cause: Error): void {
    this.#stream.destroy(cause);
    this.#written.catch(() => {});
  }
}
