/**
 * What Sluice needs of a kind of source. A newcomer adds one by writing this interface in a folder of its own and naming
 * it in `sources` below; test/source_conformance.ts tries it. Positions are texts that only the source itself reads.
 * Everything here may be called again after a crash, by any worker.
 */
import type { ErrorReport } from '../../model/errors.ts';
import type { LogState } from '../../model/log.ts';
import type { ConnectRequest, Finding, SourceType } from '../../model/source.ts';
import type { TableSchema } from '../../model/table.ts';
import type { Block } from '../load/block.ts';
import type { Sink } from '../load/sink.ts';
import type { TableName, TableRef } from './contract.ts';
import type { FoundTables } from './new_tables.ts';
import type { ChangeStream, Reject } from './stream.ts';

/** A table to be looked at; `oid` tells it from another one of its name. */
export type NamedTable = Pick<TableSchema, 'asset_id' | 'schema' | 'table'> &
  Partial<Pick<TableSchema, 'oid' | 'columns'>>;

/** A source as it was connected, with its connection string in the open: never logged, thrown or returned. */
export interface Connected {
  request: ConnectRequest;
  connectionString: string;
  /** Columns that rules read though they are excluded from copies, by `schema.table`. */
  readable?: Record<string, string[]>;
}

/** Bounds of a chunk of a snapshot, as JSON text; '' is open. */
export interface Chunk {
  lower: string;
  upper: string;
}

export interface ChunkTask {
  table: TableSchema;
  chunk: Chunk;
  /** Where the table's stream begins. */
  startPosition: string;
  epoch: number;
  /** What rows bear as the time of their commit, in microseconds since 1970: by it a row's chunk is found again. */
  readAt: number;
  /** Of a table without a key: what tells the rows of this reading from those of others. */
  origin?: string;
  signal: AbortSignal;
  /** Opens where the rows go; their fields come in the order of these columns of the table, then Sluice's own. */
  target: (columns: string[]) => ChunkTarget;
  progress: (rows: number) => void;
}

/** What was read of a chunk. */
export interface ChunkRead {
  rows: number;
  bytes: number;
  rejected: number;
  /** Of a table without a key: which of the transactions that the stream brings the rows do not show. */
  view?: ReadView;
}

export interface ReadView {
  /** Transactions that were committed at this position, or later, are not shown. */
  position: string;
  /** Nor are these: those that were open, and the first that had not begun. All others before that one are. */
  unseen: string[];
}

/** Where the rows of a chunk go. */
export interface ChunkTarget {
  /** Takes rows, and resolves when it can take more. A block may be written to again when the call after it resolves. */
  write(block: Block, rejects: Reject[]): Promise<void>;
  /** Resolves when all rows are durable. The source's view of the rows stays held until then. */
  end(): Promise<void>;
  /** Takes back what is still under way, as far as that is possible. */
  cancel(cause: Error): void;
}

export interface StreamTask {
  /** Where to begin: the last recorded position. */
  position: string;
  epoch: number;
  tables: TableSchema[];
  /** Rows after which a batch is cut. */
  maxRows: number;
  /** By asset id, the lowest version (decimal text) of a row that was copied since the table's start. */
  floors: Record<string, string>;
  /** The copy's newest rows, for values that the source does not send. */
  newestRows: Sink['newestRows'];
}

/**
 * What another definition of a table means for its copy: nothing · it is altered, to be made from `next` (`what`, for people,
 * is empty when the copy stays as it is) · it must be made anew · its table cannot go on before somebody acts.
 */
export type TableChange =
  | { do: 'nothing' }
  | { do: 'alter'; next: TableSchema; what: string[] }
  | { do: 'resync'; reason: string }
  | { do: 'stop'; report: ErrorReport };

/** Definitions of tables at one moment. */
export interface Look {
  /** Behind that moment: a stream that has passed it has announced all that it ever will of these definitions. */
  position: string;
  /** True when the table of this asset is there and can be copied. */
  usable(asset: string): boolean;
  compare(known: TableSchema): TableChange;
}

/** Where a version comes from: a commit and the change in it, or a snapshot, whose rows stand at its start position. */
export interface VersionPlace {
  epoch: number;
  /** Position of the commit, or of the snapshot's start. */
  position: string;
  /** Position of the change in the log. */
  change: string;
  fromSnapshot: boolean;
}

export interface Source {
  /** Whether two connection strings lead to the same place, whoever logs in. */
  samePlace(a: string, b: string): boolean;
  /**
   * What stands in the way of capturing, and what the request's tables are. Changes nothing. `beside`: names of tables that
   * are captured already.
   */
  preflight(connected: Connected, beside?: string[]): Promise<{ findings: Finding[]; tables: TableSchema[] }>;
  /** The tables as they are now; those that are gone or have no usable key are left out. */
  readTables(connected: Connected, tables: TableRef[]): Promise<TableSchema[]>;
  /** Looks how tables are defined now. Cheap: this is done every few seconds. */
  look(connected: Connected, tables: NamedTable[]): Promise<Look>;
  /**
   * Tables that the request's globs mean and that are neither among `known` nor called as in `except`: those that can be
   * captured, and why the others cannot. Some may be left for another look. Cheap when there are none: this is done every
   * few seconds.
   */
  findTables(connected: Connected, known: TableName[], except: string[]): Promise<FoundTables>;
  /** By asset, of those tables whose changes the log sends at present: see TableSchema.published. */
  publishedAs(connected: Connected, tables: TableSchema[]): Promise<Map<string, string>>;
  /** Which database this is: positions mean nothing in another one. */
  identity(connected: Connected): Promise<string>;

  /**
   * Makes the source keep its log for us and send `tables` in it. `resume`: the recorded position from which the log
   * must still be whole; undefined makes a new beginning (`known`: an earlier one was recorded). Answers where the
   * stream begins. Errors: `slot_lost`, `slot_ahead`, when changes behind `resume` are missing.
   */
  prepare(connected: Connected, tables: TableSchema[], resume: string | undefined, known: boolean): Promise<string>;
  /** A position behind everything that `prepare` has changed: where the stream of an added table begins. */
  startPosition(connected: Connected): Promise<string>;
  /** Stops sending these tables. */
  release(connected: Connected, tables: TableRef[]): Promise<void>;
  /** Lets the log go: nothing of Sluice stays in the source. */
  remove(connected: Connected): Promise<void>;

  /** Ends whoever else reads our log; afterwards nobody but us acknowledges. */
  claim(connected: Connected): Promise<void>;
  /** Sees that the log is whole from `position`. Errors: `slot_lost`, `slot_ahead`. */
  checkLog(connected: Connected, position: string): Promise<void>;
  /** Where the log stands now, and how much of it the source keeps for us. Never fails for a log that is lost. */
  logState(connected: Connected): Promise<LogState>;
  /** Opens the stream of changes. */
  openStream(connected: Connected, task: StreamTask): Promise<ChangeStream>;
  /** Waits for what began before the start position, then cuts the table into chunks. */
  planChunks(
    connected: Connected,
    table: TableSchema,
    signal: AbortSignal,
    progress: (text: string) => void,
  ): Promise<{ chunks: Chunk[]; estimatedRows: number }>;
  copyChunk(connected: Connected, task: ChunkTask): Promise<ChunkRead>;
  /** A position that the stream must pass for all that was read until now to be complete; the source will pass it. */
  completePosition(connected: Connected): Promise<string>;

  /** True when a recorded position is at or past another. */
  passed(position: string, target: string): boolean;
  /** Version of the rows of a snapshot that begins at `position`, decimal text. */
  snapshotVersion(epoch: number, position: string): string;
  /** Where a row's version (decimal text) comes from. */
  placeOf(version: string): VersionPlace;
}

/** All kinds of sources, loaded when they are first needed. */
const sources: Record<SourceType, () => Promise<Source>> = {
  postgresql: async () => new (await import('./postgresql/source.ts')).PostgresSource(),
};

/** The source of a kind. */
export function openSource(type: SourceType): Promise<Source> {
  return sources[type]();
}
