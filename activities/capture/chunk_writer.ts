/** Rows that were read from a table, on their way into its copy: few large inserts, each checked by what it confirms. */
import { type Column, type TableSchema, tableName } from '../../model/table.ts';
import type { Block } from '../load/block.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { lookUpIn } from '../load/look_up.ts';
import { insertBytes, type RowsInsert } from '../load/rows_insert.ts';
import { lostRows, type Sink } from '../load/sink.ts';
import { ownColumnsOf } from '../load/tables.ts';
import type { LookUp } from '../transform/join.ts';
import { type Filtered, type StageCounts, type Staged, TableStage } from '../transform/stage.ts';
import type { ChunkTarget } from './source.ts';
import type { Reject } from './stream.ts';

export class ChunkWriter implements ChunkTarget {
  readonly #sink: Sink;
  readonly #table: TableSchema;
  readonly #columns: string[];
  readonly #batch: string;
  readonly #insertId: (number: number) => string;
  readonly #stage: TableStage | undefined;
  readonly #filtered: Filtered;
  readonly #lookUp: LookUp;
  /** Rows that rules and checks have left out so far. */
  readonly staged: Staged = { filtered: 0, rejected: 0 };
  #insert: RowsInsert | undefined;
  #inserts = 0;
  #rows = 0;
  #bytes = 0;

  /**
   * @param columns of the table, in the order in which rows come.
   * @param ids of the record that will tell of the rows, and of each insert.
   * @param filtered what becomes of rows that a filter does not let through. Throws SluiceError `rule_failed`.
   */
  constructor(
    sink: Sink & Pick<ClickHouseSink, 'clickhouse'>,
    table: TableSchema,
    columns: string[],
    ids: { batch: string; insert: (number: number) => string },
    filtered: Filtered = 'nothing',
  ) {
    this.#sink = sink;
    this.#table = table;
    this.#stage =
      table.rules &&
      new TableStage(
        table,
        columns.map((name) => columnOf(table, name)),
      );
    this.#columns = [...(this.#stage?.names ?? columns), ...ownColumnsOf(table)];
    this.#batch = ids.batch;
    this.#insertId = ids.insert;
    this.#filtered = filtered;
    this.#lookUp = lookUpIn(sink.clickhouse);
  }

  /** What rules and checks did; undefined where there are none. */
  takeCounts(): StageCounts | undefined {
    return this.#stage?.takeCounts();
  }

  async write(block: Block, rejects: Reject[]): Promise<void> {
    if (this.#stage) {
      await this.#stage.lookUp([block], this.#lookUp);
      const { filtered, rejected } = await this.#stage.apply(block, rejects, this.#filtered);
      this.staged.filtered += filtered;
      this.staged.rejected += rejected;
    }
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

function columnOf(table: TableSchema, name: string): Column {
  return table.columns.find((column) => column.name === name)!;
}
