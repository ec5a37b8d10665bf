/** The tables of a stream as the log knows them: by the numbers of their relations, each with what writes its rows. */
import { parseLsn } from '../../../model/position.ts';
import type { TableSchema } from '../../../model/table.ts';
import { explainVersion } from '../../../model/version.ts';
import type { Block } from '../../load/block.ts';
import type { TableChanges } from '../stream.ts';
import { relationsOf } from './partitions.ts';
import { type Match, matchRelation, type RelationMessage } from './pgoutput.ts';
import { RowWriter } from './row_writer.ts';

export class StreamTables {
  /** What tables are known by: their relations in the log. Others are not ours, or have failed. */
  readonly #tables = new Map<number, TableSchema>();
  /** Partitioned ones, by their own oid. */
  readonly #partitioned = new Map<number, TableSchema>();
  /** Writers of the tables that are copied, by relation oid; partitions of one shape share that of their table. */
  readonly #writers = new Map<number, RowWriter>();
  /** How the server announced relations last. */
  readonly #announced = new Map<number, RelationMessage>();
  /** Commit positions from which on changes of a table (by its own oid) are wanted, and the highest of them. */
  readonly #starts: Map<number, bigint>;
  readonly #lastStart: bigint;

  /** `floors`: by asset id, the version at which its table's stream begins (decimal text). */
  constructor(tables: TableSchema[], floors: Record<string, string>) {
    for (const table of tables) this.define(table);
    const startOf = (table: TableSchema) => explainVersion(BigInt(floors[table.asset_id] ?? 0)).commitLsn;
    this.#starts = new Map(tables.map((table) => [table.oid, startOf(table)]));
    this.#lastStart = [...this.#starts.values()].reduce((last, start) => (start > last ? start : last), 0n);
  }

  /** From now on rows of this table are written as this definition says. */
  define(table: TableSchema): void {
    for (const oid of relationsOf(table)) {
      this.#tables.set(oid, table);
      this.#writers.delete(oid);
    }
    if (table.partitions) this.#partitioned.set(table.oid, table);
    this.#writers.delete(table.oid);
  }

  /** From now on rows of this table are not ours. */
  forget(table: TableSchema): void {
    for (const oid of [table.oid, ...relationsOf(table)]) {
      this.#tables.delete(oid);
      this.#writers.delete(oid);
    }
    this.#partitioned.delete(table.oid);
  }

  /** The table that a relation is, or is a part of; undefined when it is not ours. */
  ofRelation(oid: number): TableSchema | undefined {
    return this.#tables.get(oid);
  }

  /** True for a relation that is a table of ours, or a partition of one. */
  isOurs(oid: number): boolean {
    return this.#tables.has(oid) || this.#partitioned.has(oid);
  }

  /** The first of these relations that is a partitioned table of ours. */
  ofRoots(roots: number[]): TableSchema | undefined {
    return roots.map((root) => this.#partitioned.get(root)).find((table) => table !== undefined);
  }

  get anyPartitioned(): boolean {
    return this.#partitioned.size > 0;
  }

  /** The stream of some table begins behind this commit. */
  isBeforeSome(commitLsn: bigint): boolean {
    return commitLsn < this.#lastStart;
  }

  /** The stream of this table begins behind this commit: its snapshot has it. */
  isBefore(table: TableSchema, commitLsn: bigint): boolean {
    return commitLsn < this.#starts.get(table.oid)!;
  }

  announced(oid: number): RelationMessage | undefined {
    return this.#announced.get(oid);
  }

  announce(relation: RelationMessage): void {
    this.#announced.set(relation.oid, relation);
  }

  /** How rows of a relation, as it was announced for a transaction, fit the table; undefined when they do not. */
  match(relation: RelationMessage, table: TableSchema, commitLsn: bigint): Match | undefined {
    const again = table.alteredAt !== undefined && commitLsn <= parseLsn(table.alteredAt);
    return matchRelation(relation, table, again);
  }

  writer(oid: number): RowWriter | undefined {
    return this.#writers.get(oid);
  }

  /** A writer for a relation's rows: that of another partition of the same shape, where there is one. */
  makeWriter(oid: number, match: Match): RowWriter {
    // Kept under the table's own oid is the one that its partitions share.
    const shared = this.#writers.get(match.table.oid);
    const writer = shared?.fits(match) ? shared : new RowWriter(match.table, match.columns);
    if (match.table === this.#tables.get(oid)) this.#writers.set(match.table.oid, writer);
    this.#writers.set(oid, writer);
    return writer;
  }

  dropWriter(oid: number): void {
    this.#writers.delete(oid);
  }

  /** Some rows of the table were written since the last `take`. */
  isTouched(table: TableSchema): boolean {
    return relationsOf(table).some((oid) => this.#writers.get(oid)?.touched);
  }

  /** What was written since it was taken last. */
  take(): TableChanges[] {
    const taken = [];
    for (const writer of this.#writers.values()) if (writer.touched) taken.push(writer.take());
    return taken;
  }

  /** Gives a block that was read back to its writer. */
  recycle(table: TableSchema, block: Block): void {
    this.#writers.get(table.oid)?.recycle(block);
  }
}
