/** Rows that were read from a table, on their way into its copy: few large inserts, each checked by what it confirms. */
import { type TableSchema, tableName } from '../../model/table.ts';
import type { Block } from '../load/block.ts';
import { insertBytes, type RowsInsert } from '../load/rows_insert.ts';
import { lostRows, type Sink } from '../load/sink.ts';
import { ownColumnsOf } from '../load/tables.ts';
import type { ChunkTarget } from './source.ts';
import type { Reject } from './stream.ts';

export class ChunkWriter implements ChunkTarget {
  readonly #sink: Sink;
  readonly #table: TableSchema;
  readonly #columns: string[];
  readonly #batch: string;
  readonly #insertId: (number: number) => string;
  #insert: RowsInsert | undefined;
  #inserts = 0;
  #rows = 0;
  #bytes = 0;

  /** @param ids of the record that will tell of the rows, and of each insert. */
  constructor(
    sink: Sink,
    table: TableSchema,
    columns: string[],
    ids: { batch: string; insert: (number: number) => string },
  ) {
    this.#sink = sink;
    this.#table = table;
    this.#columns = [...columns, ...ownColumnsOf(table)];
    this.#batch = ids.batch;
    this.#insertId = ids.insert;
  }

  async write(block: Block, rejects: Reject[]): Promise<void> {
    if (rejects.length > 0) await this.#sink.reject(this.#table.asset_id, rejects, this.#batch);
    if (block.rows === 0) return;
    this.#insert ??= this.#sink.openInsert(this.#table, this.#columns, this.#insertId(this.#inserts++));
    this.#rows += block.rows;
    this.#bytes += block.length;
    await this.#insert.write(block.content());
    if (this.#bytes >= insertBytes) await this.end();
  }

  /** Errors: `conservation` when fewer rows are confirmed than were sent, and those of the sink. */
  async end(): Promise<void> {
    const written = (await this.#insert?.end()) ?? 0;
    const sent = this.#rows;
    this.#insert = undefined;
    this.#rows = 0;
    this.#bytes = 0;
    if (!(written >= sent)) throw lostRows(this.#table.asset_id, sent, written, tableName(this.#table));
  }

  cancel(cause: Error): void {
    this.#insert?.cancel(cause);
    this.#insert = undefined;
  }
}
