/**
 * What the capture loop needs of a source, and nothing more. A source reads its log, cuts batches and encodes rows; it
 * never decides when to acknowledge. A newcomer adds a source by writing this interface once.
 */
import type { AssetEffects } from '../../model/batch.ts';
import type { TableSchema } from '../../model/table.ts';
import type { Block } from '../load/block.ts';
import type { TableChange } from './source.ts';

/** A value that the source did not send (unchanged and stored out of line), to be filled in before the row is written. */
export interface Hole {
  row: number;
  /** Index into the table's columns. */
  column: number;
  /** Where in the block the value belongs. */
  offset: number;
}

/** A row that has holes. */
export interface HollowRow {
  row: number;
  holes: Hole[];
  /** The row's version without its epoch, decimal text of all 128 bits. */
  version: string;
  /** Transaction id, 32 bits. */
  xid: number;
  /** Row (in the same block) of the tombstone of the key that this row had before, or -1. */
  replaced: number;
}

/** A row that is held back, with its reason. */
export interface Reject {
  /** Key of the row: its text fields as JSON object. */
  key: string;
  version: string;
  /** The rule or check that held it back; absent where the copy's type did. */
  check?: string;
  column: string;
  reason: string;
  /** The row's texts as JSON object. */
  row: string;
  /** Names of columns whose values the source did not send; absent = none. */
  unsent?: string[];
  committed_at: string;
}

/** What a batch has for one table. */
export interface TableChanges {
  table: TableSchema;
  block: Block;
  effects: AssetEffects;
  hollow: HollowRow[];
  rejects: Reject[];
}

/** A table that is announced otherwise than it is known. The stream stands still until it is settled. */
export interface Alteration {
  asset: string;
  /** What follows for the copy, given what that is made from now. */
  resolve(known: TableSchema): Promise<TableChange>;
  /**
   * Lets the stream go on, with rows of `next`; undefined: without the table. False when what was announced is no form of
   * `next`: then nothing goes on.
   */
  settle(next: TableSchema | undefined): boolean;
}

/** Changes that are written and acknowledged together. */
export interface ChangeBatch {
  kind: 'rows' | 'truncate' | 'schema' | 'idle';
  /** Resume points before and after: only positions where a whole transaction ended. */
  from: string;
  to: string;
  /** Position of the last change when the batch was cut inside a transaction, else ''. */
  inner: string;
  /** Microseconds since 1970 of the first and last commit; 0 when there is none. */
  committedFirst: number;
  committedLast: number;
  changes: number;
  tables: TableChanges[];
  /** For `truncate`: version per asset id, decimal text. */
  truncated: Record<string, string>;
  /** For `truncate`: its transaction, where the source has such numbers. */
  xid?: number;
  /** Of kind `schema`, which has no changes. */
  alteration?: Alteration;
  /** performance.now() when its first change arrived and when it was cut. */
  openedAt: number;
  cutAt: number;
}

/** Whether definitions may be others than known: tables were announced again, which has other causes too; or somebody altered them. */
export type Doubt = 'none' | 'announced' | 'altered';

/** An open stream of changes. One consumer at a time. */
export interface ChangeStream {
  /**
   * The next batch, or undefined after `patience` milliseconds without one. At most one more batch is read ahead.
   * Throws SluiceError when the stream has ended.
   */
  next(patience: number, signal: AbortSignal): Promise<ChangeBatch | undefined>;
  /**
   * Fills the holes of a batch. Called after the batch before has been written; may drop rows that are overtaken. Answers,
   * by asset, why the rows of a table could not be filled: it was altered since.
   */
  fill(batch: ChangeBatch): Promise<Record<string, string>>;
  /** Tells the source that everything up to `position` is durable. Never called before the record is. */
  acknowledge(position: string): void;
  /** Gives a written batch's memory back for the next one. */
  recycle(batch: ChangeBatch): void;
  /** How far the last recorded position is behind the source. */
  lag(): { bytes: number; seconds: number };
  /** Once, what the source has given cause for since it was asked last. */
  takeDoubt(): Doubt;
  /** A table is known by another definition from now on; nothing of it that came before is still under way. */
  redefine(table: TableSchema): void;
  /** True while the stream can go on from a recorded position without anything read again. */
  continuesAt(position: string): boolean;
  /** Ends the session; the slot and its position stay. */
  close(): void;
}
