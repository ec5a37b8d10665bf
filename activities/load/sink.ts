/**
 * What the capture loop and snapshots need of a place that copies are kept in. All writes are durable when they return,
 * and idempotent: any may be repeated, in other cuts, late, or by a predecessor that nobody believes alive; versions
 * decide which row stands. A newcomer adds a sink by writing this interface once; test/sink_conformance.ts tries it.
 */
import type { BatchRecord } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import type { TableSchema } from '../../model/table.ts';
import type { Reject } from '../capture/stream.ts';
import type { Block } from './block.ts';
import type { Reading } from './multiset.ts';
import type { RowsInsert } from './rows_insert.ts';

/** A row of a copy as TSV fields (bytes as latin1), without Sluice's own columns; those that rules fill are empty. */
export interface NewestRow {
  fields: string[];
  version: string;
  deleted: boolean;
}

export interface Sink {
  /** Makes what Sluice itself keeps there. */
  createOwnTables(): Promise<void>;
  /**
   * Makes the copy of a table, or sees that the one that is there fits. One that is to be made beside an old one
   * (`table.copy`) refuses rows of lower versions than it begins with, and is made under a name that nobody has used: else
   * `sink_unreachable`, and whoever tries again takes another.
   */
  createCopy(table: TableSchema): Promise<void>;
  /** True when there is a copy under the asset's own name. */
  hasCopy(assetId: string): Promise<boolean>;
  /** Gives the copy the columns that the table has now; rows from before show the initial values of new ones. */
  alterCopy(table: TableSchema): Promise<void>;
  /**
   * Puts a copy that was made beside the old one in its place: readers see the one or the other, and each complete. Then
   * `table`, and all that shares its `copy`, means the table of the asset's own name.
   */
  replaceCopy(table: TableSchema): Promise<void>;
  /** Of copies that are made beside old ones (`table.copy`), the assets of those that have taken their places. */
  placedCopies(tables: TableSchema[]): Promise<Set<string>>;
  /** The highest generation of the copies that were made beside the asset's and never took its place; 0 when there is none. */
  highestSideCopy(assetId: string): Promise<number>;
  /** Drops the copy, and what was made beside it. */
  dropCopy(assetId: string): Promise<void>;
  /** Drops copies that were made beside the asset's and never took its place; `below`: of lower generations only. */
  dropSideCopies(assetId: string, below?: number): Promise<void>;

  /**
   * When this returns, no insert that was sent before under an id with one of these prefixes is still under way. `below`:
   * only those of leases with lower numbers (the id's second part).
   */
  endInserts(prefixes: string[], below?: number): Promise<void>;
  /** Throws `sink_damaged` when what was acknowledged of these assets may be lost. */
  checkDamage(source: string, assetIds: string[]): Promise<void>;

  /** Writes a block of rows; answers how many the sink confirms (at least as many as were sent, or rows are lost). */
  write(table: TableSchema, block: Block, id: string): Promise<number>;
  /** Begins an insert of rows that come in pieces, the fields in the order of `columns`: each once, and `ownColumnsOf` it. */
  openInsert(table: TableSchema, columns: string[], id: string): RowsInsert;
  /**
   * A tombstone at `version` (decimal text) for every key whose newest row is older. `committedAt` as in blocks. A multiset
   * shows nothing older from then on, unless its snapshot has seen the transaction `xid`.
   */
  sweepBelow(table: TableSchema, version: string, committedAt: string, id: string, xid?: number): Promise<void>;
  /** Of a multiset: all rows of this reading are written, and are what its copy begins with. */
  completeReading(table: TableSchema, reading: Reading, committedAt: string, id: string): Promise<void>;
  /**
   * The newest row of each key, tombstones counted. Keys are the key columns' TSV fields, tabs between them, bytes as
   * latin1. Nothing is answered while rows of the table are held back: the newest row may be older than one of those.
   */
  newestRows(table: TableSchema, keys: string[]): Promise<Map<string, NewestRow>>;
  /** Keeps rows that were held back, with their reasons. */
  reject(assetId: string, rejects: Reject[], batch: string): Promise<void>;
  /** Held back rows below `version` will never be wanted: what they belonged to was truncated. */
  supersedeRejects(assetId: string, version: string): Promise<void>;

  /** Writes a batch record: when this returns, the batch has happened. */
  record(record: BatchRecord): Promise<void>;
  /** The last record of a source's stream since it was connected. */
  lastRecord(source: string): Promise<BatchRecord | undefined>;
  /** The highest lease that has recorded anything of a source, ever; 0 when none has. Cheaper than a whole record. */
  newestLease(source: string): Promise<number>;
}

/** How ids of inserts begin that repair rows of a copy; its records are named otherwise, and are not ended with them. */
export const repairInserts = (source: string, asset: string): string => `${source}/repair-rows/${asset}/`;

/** What is wrong when a sink confirms fewer rows than it was sent; `table`: as its errors name it. */
export function lostRows(asset: string, sent: number, written: number, table: string): SluiceError {
  const reason = `${sent} rows were sent to ${asset} and ClickHouse confirmed ${written}`;
  return new SluiceError('conservation', reason, 'Look at ClickHouse’s log.', { table });
}
