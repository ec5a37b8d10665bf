/** The snapshots that `captureSource` runs beside its leases: one child flow a table, a few at once. */
import { WorkflowExecutionAlreadyStartedError } from '@temporalio/common';
import { CancellationScope, executeChild, ParentClosePolicy, patched, sleep } from '@temporalio/workflow';
import { snapshotWorkflowId } from '../model/messages.ts';
import { tableName } from '../model/table.ts';
import { activities, waitOptions } from './activities.ts';
import { type FlowState, type FlowTable, liveTables, refOf } from './captureState.ts';
import { isObject } from './input.ts';
import { readFailure, type Trouble, wasCancelled } from './refuse.ts';
import { sourceAttributes } from './searchAttributes.ts';
import { type SnapshotAnswer, type SnapshotProgress, snapshotTable } from './snapshotTable.ts';

interface Rules {
  /** False while nothing may begin: paused, failed, closing. */
  mayBegin(): boolean;
  failed(table: FlowTable, trouble: Trouble): void;
  changed(): void;
}

/** Work for one table: copying, then waiting for the stream. */
interface Work {
  scope: CancellationScope;
  copying: boolean;
}

/** Tables that wait for the stream at once: each holds a place of the worker's, and the lease that they wait for needs one. */
const mostWaiting = 100;

export class Snapshots {
  readonly #state: FlowState;
  readonly #rules: Rules;
  readonly #root = CancellationScope.current();
  readonly #work = new Map<string, Work>();

  constructor(state: FlowState, rules: Rules) {
    this.#state = state;
    this.#rules = rules;
  }

  get idle(): boolean {
    return this.#work.size === 0;
  }

  /** Begins what may begin: tables with a start position that do not stream yet. */
  pump(): void {
    for (const table of liveTables(this.#state)) {
      if (!this.#rules.mayBegin()) return;
      if (table.status === 'streaming' || table.start_position === '' || this.#work.has(table.asset_id)) continue;
      const copying = table.complete_at === '';
      if (copying && this.#copying() >= this.#state.limits.snapshots) continue;
      if (this.#work.size - this.#copying() >= mostWaiting && patched('many wait for the stream')) continue;
      this.#begin(table, copying);
    }
  }

  /** Ends the work for one table, or for all; chunks that are done stay done. */
  stop(asset?: string): void {
    for (const [id, work] of this.#work) if (asset === undefined || id === asset) work.scope.cancel();
  }

  /** Takes in what a child flow says. */
  heard(progress: SnapshotProgress): void {
    // A signal cannot be refused: what is wrong is left out.
    if (!isObject(progress)) return;
    const table = this.#state.tables.find((known) => known.asset_id === progress.asset_id);
    if (!table || table.generation !== progress.generation || table.complete_at !== '') return;
    table.chunks_done = progress.chunks_done;
    table.chunks_total = progress.chunks_total;
    table.next_chunk = progress.next_chunk;
    table.snapshot_rows = Math.max(table.snapshot_rows, progress.rows);
    this.#rules.changed();
  }

  #copying(): number {
    return [...this.#work.values()].filter((work) => work.copying).length;
  }

  #begin(table: FlowTable, copying: boolean): void {
    const { asset_id: asset, generation } = table;
    const scope = new CancellationScope({ cancellable: true, parent: this.#root });
    const work: Work = { scope, copying };
    this.#work.set(asset, work);
    table.status = 'snapshotting';
    scope
      .run(() => this.#bring(table, generation, work))
      .catch((error) => {
        const trouble = readFailure(error);
        const asked = wasCancelled(error) || (scope.consideredCancelled && !trouble.final);
        if (!asked && table.generation === generation) this.#rules.failed(table, trouble);
      })
      .finally(() => {
        this.#work.delete(asset);
        this.pump();
        this.#rules.changed();
      });
  }

  /** From wherever the table is to `streaming`. A re-sync meanwhile has its own generation: then nothing is kept. */
  async #bring(table: FlowTable, generation: number, work: Work): Promise<void> {
    if (work.copying) {
      const answer = await this.#copy(table);
      if (table.generation !== generation) return;
      table.complete_at = answer.complete_at;
      table.snapshot_rows = answer.rows;
      table.chunks_done = table.chunks_total;
      work.copying = false;
      this.pump();
      this.#rules.changed();
    }
    const summary = `${tableName(table)}: the stream passes ${table.complete_at}`;
    const { id, type } = this.#state.request;
    const recent = await activities.awaitPosition.executeWithOptions({ ...waitOptions, summary }, [
      { source: id, type, position: table.complete_at, table: refOf(table) },
    ]);
    // Earlier versions of the activity answered nothing.
    if (recent) this.#state.recent = recent;
    if (table.generation !== generation) return;
    // What has just ended may have been told to, since a batch of the table failed.
    if (table.status === 'failed' && patched('failed as its snapshot ended')) return;
    table.status = 'streaming';
    table.notice = null;
  }

  async #copy(table: FlowTable): Promise<SnapshotAnswer> {
    const { request, limits } = this.#state;
    const chunks = table.chunks_total > 0 ? table.chunks_total : -1;
    const input = { request, table: refOf(table), chunks, next_chunk: table.next_chunk, at_once: limits.chunks };
    for (let attempt = 1; ; attempt += 1) {
      try {
        return await executeChild(snapshotTable, {
          args: [input],
          workflowId: snapshotWorkflowId(request.id, table.asset_id, table.generation),
          parentClosePolicy: ParentClosePolicy.TERMINATE,
          typedSearchAttributes: sourceAttributes(request.id, 'snapshotTable'),
          staticSummary: `snapshot ${table.generation} of ${tableName(table)}`.slice(0, 190),
        });
      } catch (error) {
        // Left by a flow of the same source that was terminated a moment ago: it ends by itself.
        if (!(error instanceof WorkflowExecutionAlreadyStartedError) || attempt >= 30) throw error;
        await sleep('1s', { summary: 'the child flow of an earlier run still ends' });
      }
    }
  }
}
