/**
 * The capture loop: one engine for every source. The order is the promise: write rows, write the batch record,
 * acknowledge. It stands here and nowhere else.
 */
import { performance } from 'node:perf_hooks';
import { type AssetEffects, addEffects, type BatchKind, type BatchRecord, noEffects } from '../../model/batch.ts';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import type { LogFigures } from '../../model/log.ts';
import type { LeaseProgress } from '../../model/source.ts';
import { sealRecord } from '../load/batches.ts';
import type { Sink } from '../load/sink.ts';
import type { ChangeBatch, ChangeStream, TableChanges } from './stream.ts';

export interface LoopOptions {
  source: string;
  stream: ChangeStream;
  sink: Sink;
  /** lease number * 65536 + attempt. */
  lease: number;
  cluster: string;
  epoch: number;
  /** Where the stream begins: the last recorded position. */
  position: string;
  /** Hash of the record that this lease goes on from; '' when there is none. */
  previous: string;
  /** Assets that the stream brings. */
  assets: string[];
  workflow: { id: string; runId: string; attempt: number };
  /** Ends the loop after the running batch. */
  signal: AbortSignal;
  /** Milliseconds after which the loop ends, at a transaction's end. */
  duration: number;
  /** Tables that failed before the loop began: they stand in its first record. */
  failed: Record<string, ErrorReport>;
  /** Looks whether the tables are still what their copies were made from; answers those that are not. */
  checkTables: () => Promise<Record<string, ErrorReport>>;
  /** For tests of crashes: called between the steps of a batch. */
  onStep?: (step: 'written' | 'recorded' | 'acknowledged', batch: ChangeBatch) => Promise<void> | void;
}

/** A summary is cut when the failed tables and sums of a lease could grow past what the history should hold. */
const summaryLimit = 400;
/** Milliseconds between two looks at the definitions of tables. */
const lookEvery = 5_000;
/** Milliseconds for which a lease may believe that it is the last: shorter than its heartbeat timeout. */
const fenceEvery = 5_000;

export class CaptureLoop {
  readonly #options: LoopOptions;
  #seq = 0;
  #hash: string;
  #lastKind: BatchKind = 'begin';
  /** Where the last record began. */
  #from = '';
  #safe: string;
  #lastBatchAt: string | null = null;
  #doubt = false;
  #fencedAt = performance.now();
  #lookedAt = Number.NEGATIVE_INFINITY;
  batches = 0;
  changes = 0;
  readonly assets: Record<string, AssetEffects> = {};
  readonly failed: Record<string, ErrorReport> = {};
  first: BatchRecord | undefined;
  last: BatchRecord | undefined;

  constructor(options: LoopOptions) {
    this.#options = options;
    this.#safe = options.position;
    this.#hash = options.previous;
  }

  /** Live figures for the heartbeat. */
  progress(log: LogFigures | null): LeaseProgress {
    const lag = this.#options.stream.lag();
    return {
      position: this.#safe,
      changes: this.changes,
      batches: this.batches,
      lag_bytes: lag.bytes,
      lag_seconds: Math.round(lag.seconds * 1000) / 1000,
      retained_bytes: log?.retained_bytes ?? null,
      log,
      last_batch_at: this.#lastBatchAt,
    };
  }

  /** The last recorded position. */
  get position(): string {
    return this.#safe;
  }

  get hash(): string {
    return this.#hash;
  }

  /** Runs until time is up, the signal is given, or a table fails; answers which. */
  async run(): Promise<'time' | 'cancelled' | 'table_failed' | 'summary_full'> {
    const { stream, signal, duration, failed } = this.#options;
    const end = performance.now() + duration;
    const streamed = Object.fromEntries(this.#options.assets.map((asset) => [asset, noEffects()]));
    // The fence: when this is written, no insert of a predecessor is still under way.
    await this.#record('begin', undefined, streamed, failed, { fill: 0, resolve: 0, write: 0 });
    if (Object.keys(failed).length > 0) return 'table_failed';
    let atTransactionEnd = true;
    for (;;) {
      if (signal.aborted) return 'cancelled';
      if (atTransactionEnd && performance.now() >= end) return 'time';
      const batch = await stream.next(1000, signal);
      if (!batch) continue;
      await this.#lookForSuccessor();
      await this.#lookAtTables(batch);
      await this.#process(batch);
      atTransactionEnd = batch.inner === '';
      if (Object.keys(this.failed).length > 0) return 'table_failed';
      if (Object.keys(this.assets).length >= summaryLimit) return 'summary_full';
    }
  }

  /**
   * A lease that Temporal has given up, but that does not know, stops writing: its successor's first record says so. The
   * slot alone would only stop it from reading.
   */
  async #lookForSuccessor(): Promise<void> {
    if (performance.now() - this.#fencedAt < fenceEvery) return;
    const { sink, source, lease } = this.#options;
    const last = await sink.lastRecord(source);
    if (last && last.lease > lease) {
      throw new SluiceError(
        'slot_in_use',
        `lease ${last.lease} has taken over from lease ${lease}`,
        'Nothing is to be done.',
        { source },
      );
    }
    this.#fencedAt = performance.now();
  }

  /** Tables that the source announced again are looked at, at most every few seconds: any maintenance announces them. */
  async #lookAtTables(batch: ChangeBatch): Promise<void> {
    this.#doubt = this.#options.stream.takeDoubt() || this.#doubt;
    if (!this.#doubt || performance.now() - this.#lookedAt < lookEvery) return;
    this.#doubt = false;
    this.#lookedAt = performance.now();
    const failed = await this.#options.checkTables();
    Object.assign(batch.failed, failed);
    batch.tables = batch.tables.filter((changes) => !(changes.table.asset_id in failed));
  }

  async #process(batch: ChangeBatch): Promise<void> {
    const { stream, onStep } = this.#options;
    const startedAt = performance.now();
    if (batch.tables.some((changes) => changes.hollow.length > 0)) await stream.fill(batch);
    const filledAt = performance.now();
    const id = this.#id(this.#seq);
    const assets: Record<string, AssetEffects> = {};
    const failed = { ...batch.failed };
    await Promise.all(batch.tables.map((changes) => this.#write(batch, changes, id, assets, failed)));
    await onStep?.('written', batch);
    const durations = {
      fill: batch.cutAt - batch.openedAt,
      resolve: filledAt - startedAt,
      write: performance.now() - filledAt,
    };
    await this.#record(batch.kind, batch, assets, failed, durations);
    await onStep?.('recorded', batch);
    stream.acknowledge(batch.to);
    await onStep?.('acknowledged', batch);
    stream.recycle(batch);
  }

  /** Writes one table's part. A refusal of its rows stops this table alone. */
  async #write(
    batch: ChangeBatch,
    changes: TableChanges,
    id: string,
    assets: Record<string, AssetEffects>,
    failed: Record<string, ErrorReport>,
  ): Promise<void> {
    const { sink } = this.#options;
    const { table, block, effects, rejects } = changes;
    try {
      const version = batch.truncated[table.asset_id];
      if (version !== undefined) {
        const committed = timeOf(batch.committedFirst)!.replace('T', ' ').replace('Z', '');
        await sink.sweepBelow(table, version, committed, `${id}/${table.asset_id}`);
        await sink.discardRejects(table.asset_id, version);
      }
      if (rejects.length > 0) await sink.reject(table.asset_id, rejects, id);
      if (block.rows > 0) {
        const written = await sink.write(table, block, `${id}/${table.asset_id}`);
        // Attached views count too, so more is right; fewer is a loss.
        if (!(written >= block.rows)) throw lostRows(table.asset_id, block.rows, written);
        effects.written = block.rows;
        effects.bytes = block.length;
      }
      assets[table.asset_id] = effects;
    } catch (error) {
      // Only what speaks of these rows stops the table alone; all else stops the lease before anything is acknowledged.
      const own = error instanceof SluiceError && (error.kind === 'rows_refused' || error.kind === 'conservation');
      if (!own) throw error;
      failed[table.asset_id] = {
        ...error.report(),
        remedy: `${error.remedy} Then: sluice sources resync ${this.#options.source} ${table.table}`,
      };
    }
  }

  async #record(
    kind: BatchKind,
    batch: ChangeBatch | undefined,
    assets: Record<string, AssetEffects>,
    failed: Record<string, ErrorReport>,
    durations: BatchRecord['durations'],
  ): Promise<void> {
    const { source, sink, lease, cluster, epoch, workflow } = this.#options;
    // An idle record only moves the position: it takes the place of the idle one before.
    // It also covers what that one did, or the records would show a gap.
    const replaces = kind === 'idle' && this.#lastKind === 'idle';
    const seq = replaces ? this.#seq - 1 : this.#seq;
    if (!replaces) this.#from = batch?.from ?? this.#safe;
    const record = sealRecord({
      id: this.#id(seq),
      source,
      kind,
      lease,
      seq,
      position_from: this.#from,
      position_to: batch?.to ?? this.#safe,
      inner: batch?.inner ?? '',
      cluster,
      epoch,
      committed_first: timeOf(batch?.committedFirst ?? 0),
      committed_last: timeOf(batch?.committedLast ?? 0),
      changes: batch?.changes ?? 0,
      assets,
      truncated: batch?.truncated ?? {},
      failed,
      rules: 0,
      durations: round(durations),
      workflow_id: workflow.id,
      run_id: workflow.runId,
      attempt: workflow.attempt,
      previous_hash: this.#hash,
    });
    await sink.record(record);
    // The chain leaves idle records out: they are replaced.
    if (kind !== 'idle') this.#hash = record.hash;
    this.#seq = seq + 1;
    this.#lastKind = kind;
    this.#safe = record.position_to;
    this.#count(record);
  }

  #count(record: BatchRecord): void {
    Object.assign(this.failed, record.failed);
    if (record.kind === 'begin' || record.kind === 'idle') return;
    this.#lastBatchAt = new Date().toISOString();
    this.batches++;
    this.changes += record.changes;
    this.first ??= record;
    this.last = record;
    for (const [asset, effects] of Object.entries(record.assets)) {
      this.assets[asset] ??= noEffects();
      addEffects(this.assets[asset], effects);
    }
  }

  #id(seq: number): string {
    return `${this.#options.source}/${this.#options.lease}/${seq}`;
  }
}

function lostRows(asset: string, sent: number, written: number): SluiceError {
  return new SluiceError(
    'conservation',
    `${sent} rows were sent to ${asset} and ClickHouse confirmed ${written}`,
    'Look at ClickHouse’s log.',
    {
      table: asset,
    },
  );
}

/** Microseconds since 1970 as ISO 8601 with microseconds; null for 0. */
function timeOf(microseconds: number): string | null {
  if (microseconds === 0) return null;
  const seconds = Math.floor(microseconds / 1e6);
  return `${new Date(seconds * 1000).toISOString().slice(0, 19)}.${String(microseconds - seconds * 1e6).padStart(6, '0')}Z`;
}

function round(durations: BatchRecord['durations']): BatchRecord['durations'] {
  const rounded = (milliseconds: number) => Math.round(milliseconds * 100) / 100;
  return { fill: rounded(durations.fill), resolve: rounded(durations.resolve), write: rounded(durations.write) };
}
