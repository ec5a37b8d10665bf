/**
 * Flow `snapshotTable`, a child of `captureSource`: copies the rows that a table has at its start position, chunk by
 * chunk, a few at once. Chunks are recorded where they are written, so that any may be copied again: after a crash or
 * a pause the flow goes on at the first chunk that it does not know to be done.
 */
import {
  CancellationScope,
  continueAsNew,
  defineSignal,
  getExternalWorkflowHandle,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow';
import type { TableRef } from '../activities/capture/contract.ts';
import type { ConnectRequest } from '../model/source.ts';
import { tableName } from '../model/table.ts';
import { activities, prepareOptions, waitOptions } from './activities.ts';
import { isObject } from './input.ts';
import { refuse } from './refuse.ts';

export interface SnapshotRequest {
  request: ConnectRequest;
  table: TableRef;
  /** Chunks of the stored plan; -1 when it is not made yet. */
  chunks: number;
  /** All chunks before this one are done. */
  next_chunk: number;
  /** Chunks copied at once. */
  at_once: number;
}

export interface SnapshotAnswer {
  /** Source position that the stream must pass for the copy to be complete. */
  complete_at: string;
  rows: number;
}

export interface SnapshotProgress {
  asset_id: string;
  generation: number;
  chunks_done: number;
  chunks_total: number;
  next_chunk: number;
  /** Rows copied by this run of the flow. */
  rows: number;
}

/** Sent to the parent: at most a hundred times a snapshot, and not more often than every two seconds. */
export const snapshotProgress = defineSignal<[SnapshotProgress]>('snapshotProgress');
const progressPause = 2000;

/** Copies one table. Fails with the kind of error that stopped a chunk for good. */
export async function snapshotTable(input: SnapshotRequest): Promise<SnapshotAnswer> {
  const { request, table, at_once: atOnce } = readSnapshotRequest(input);
  const name = tableName(table);
  const chunks = input.chunks >= 0 ? input.chunks : await plan(request, table);
  const progress = new Progress(table, chunks, input.next_chunk);
  progress.tell();

  await copy(request, table, progress, atOnce);
  if (progress.next < chunks) {
    await continueAsNew<typeof snapshotTable>({ ...input, chunks, next_chunk: progress.next });
  }
  const answer = await activities.finishSnapshot.executeWithOptions(
    { ...waitOptions, summary: `finish the snapshot of ${name}` },
    [{ request, table }],
  );
  setCurrentDetails(`**done** · ${answer.rows} rows, complete when the stream has passed \`${answer.complete_at}\``);
  return answer;
}

async function plan(request: ConnectRequest, table: TableRef): Promise<number> {
  const summary = `wait for older transactions, then plan ${tableName(table)}`;
  setCurrentDetails(`**planning** · waits until transactions older than the snapshot have ended, then cuts chunks`);
  const answer = await activities.planSnapshot.executeWithOptions({ ...waitOptions, summary }, [{ request, table }]);
  return answer.chunks;
}

/** Copies chunks until all are done, or until the history is so long that a new run must go on. */
async function copy(request: ConnectRequest, table: TableRef, progress: Progress, atOnce: number): Promise<void> {
  let chunk = progress.next;
  const lane = async () => {
    while (chunk < progress.chunks && !workflowInfo().continueAsNewSuggested) {
      const mine = chunk++;
      const summary = `${tableName(table)} chunk ${mine + 1} of ${progress.chunks}`;
      const { rows } = await activities.copyChunk.executeWithOptions({ ...prepareOptions, summary }, [
        { request, table, chunk: mine },
      ]);
      progress.add(mine, rows);
    }
  };
  // One chunk that fails for good ends the others, and all have ended before the flow does.
  await CancellationScope.cancellable(async () => {
    const scope = CancellationScope.current();
    const failures: unknown[] = [];
    const stop = (error: unknown) => {
      failures.push(error);
      scope.cancel();
    };
    await Promise.all(Array.from({ length: atOnce }, () => lane().catch(stop)));
    if (failures.length > 0) throw failures[0];
  });
}

/** Which chunks are done, and what the parent was told. */
class Progress {
  readonly chunks: number;
  readonly #table: TableRef;
  readonly #ahead = new Set<number>();
  #rows = 0;
  #toldAt = 0;
  #told = 0;
  /** Every chunk before this one is done. */
  next: number;

  constructor(table: TableRef, chunks: number, next: number) {
    this.#table = table;
    this.chunks = chunks;
    this.next = next;
    this.#told = next;
  }

  get done(): number {
    return this.next + this.#ahead.size;
  }

  add(chunk: number, rows: number): void {
    this.#ahead.add(chunk);
    this.#rows += rows;
    while (this.#ahead.delete(this.next)) this.next += 1;
    const enough = this.done - this.#told >= Math.max(1, this.chunks / 100);
    if (enough && Date.now() - this.#toldAt >= progressPause) this.tell();
  }

  /** Says how far the snapshot is, to people here and to the parent. */
  tell(): void {
    this.#told = this.done;
    this.#toldAt = Date.now();
    const percent = this.chunks === 0 ? 100 : Math.floor((100 * this.done) / this.chunks);
    setCurrentDetails(`**copying** ${tableName(this.#table)} · ${this.done} of ${this.chunks} chunks (${percent} %)`);
    const parent = workflowInfo().parent;
    if (!parent) return;
    const signal = getExternalWorkflowHandle(parent.workflowId).signal(snapshotProgress, {
      asset_id: this.#table.asset_id,
      generation: this.#table.generation,
      chunks_done: this.done,
      chunks_total: this.chunks,
      next_chunk: this.next,
      rows: this.#rows,
    });
    // The parent may have closed: then this flow ends too, and nobody misses the news.
    signal.catch(() => {});
  }
}

function readSnapshotRequest(input: unknown): SnapshotRequest {
  const right = isObject(input) && isObject(input.request) && isObject(input.table);
  if (right && workflowInfo().parent) return input as unknown as SnapshotRequest;
  throw refuse(
    'configuration',
    'a snapshot is started by the flow of its source',
    'Send the update `resync` with {"tables": ["…"]} to `capture/{source}` instead.',
  );
}
