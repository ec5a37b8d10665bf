/**
 * Flow `snapshotTable`, a child of `captureSource`: copies the rows that a table has at its start position, chunk by
 * chunk, a few at once. Chunks are recorded where they are written, so that any may be copied again: after a crash or
 * a pause the flow goes on at the first chunk that it does not know to be done.
 */
import {
  CancellationScope,
  ContinueAsNew,
  continueAsNew,
  defineSignal,
  getExternalWorkflowHandle,
  setCurrentDetails,
  workflowInfo,
} from '@temporalio/workflow';
import type { TableRef } from '../activities/capture/contract.ts';
import { captureWorkflowId } from '../model/messages.ts';
import type { ConnectRequest } from '../model/source.ts';
import { tableName } from '../model/table.ts';
import { activities, chunkOptions, waitOptions } from './activities.ts';
import { isObject } from './input.ts';
import { code, count, flowLink, page, trouble } from './markdown.ts';
import { readFailure, refuse, wasCancelled } from './refuse.ts';

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
  const request = readSnapshotRequest(input);
  try {
    return await snapshot(request);
  } catch (error) {
    if (!(error instanceof ContinueAsNew) && !wasCancelled(error)) {
      describe(request, trouble('failed', readFailure(error).report));
    }
    throw error;
  }
}

async function snapshot(input: SnapshotRequest): Promise<SnapshotAnswer> {
  const { request, table, at_once: atOnce } = input;
  const name = tableName(table);
  const chunks = input.chunks >= 0 ? input.chunks : await plan(input);
  const progress = new Progress(input, chunks);
  progress.tell();

  await copy(request, table, progress, atOnce);
  if (progress.next < chunks) {
    await continueAsNew<typeof snapshotTable>({ ...input, chunks, next_chunk: progress.next });
  }
  const answer = await activities.finishSnapshot.executeWithOptions(
    { ...waitOptions, summary: `finish the snapshot of ${name}` },
    [{ request, table }],
  );
  describe(
    input,
    `**done** · ${count(answer.rows, 'row')} in ${count(chunks, 'chunk')}`,
    `The copy is complete when the stream has passed ${code(answer.complete_at)}.`,
  );
  return answer;
}

async function plan(input: SnapshotRequest): Promise<number> {
  const { request, table } = input;
  const summary = `wait for older transactions, then plan ${tableName(table)}`;
  describe(
    input,
    '**planning** · waits until transactions that are older than the snapshot have ended, then cuts chunks',
    'When it stays here: which transactions are open is said by `SELECT * FROM pg_stat_activity ORDER BY xact_start` in the source.',
  );
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
      const { rows } = await activities.copyChunk.executeWithOptions({ ...chunkOptions, summary }, [
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
  readonly #input: SnapshotRequest;
  readonly #ahead = new Set<number>();
  #rows = 0;
  #toldAt = 0;
  #told = 0;
  /** Every chunk before this one is done. */
  next: number;

  constructor(input: SnapshotRequest, chunks: number) {
    this.#input = input;
    this.chunks = chunks;
    this.next = input.next_chunk;
    this.#told = this.next;
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
    const done = `${this.done} of ${count(this.chunks, 'chunk')}, ${count(this.#rows, 'row')} by this run`;
    describe(this.#input, `**copying** · ${percent} % · ${done}`);
    const parent = workflowInfo().parent;
    if (!parent) return;
    const signal = getExternalWorkflowHandle(parent.workflowId).signal(snapshotProgress, {
      asset_id: this.#input.table.asset_id,
      generation: this.#input.table.generation,
      chunks_done: this.done,
      chunks_total: this.chunks,
      next_chunk: this.next,
      rows: this.#rows,
    });
    // The parent may have closed: then this flow ends too, and nobody misses the news.
    signal.catch(() => {});
  }
}

/** What people see: the state, whatever there is to say about it, and where to go on. */
function describe({ request, table }: SnapshotRequest, ...blocks: string[]): void {
  const source = flowLink(captureWorkflowId(request.id), `flow of ${code(request.id)}`);
  const what = `Snapshot ${table.generation} of ${code(tableName(table))} as of ${code(table.start_position)}: what changes later comes by the stream.`;
  setCurrentDetails(page(...blocks, what, `Pause it, or begin anew: by the ${source}.`));
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
