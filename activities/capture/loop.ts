/**
 * The capture loop: one engine for every source. The order is the promise: write rows, write the batch record,
 * acknowledge. It stands here and nowhere else.
 */
import { performance } from 'node:perf_hooks';
import {
  type AppliedRules,
  type AssetEffects,
  addEffects,
  type BatchGlance,
  type BatchKind,
  type BatchRecord,
  glanceAt,
  noEffects,
} from '../../model/batch.ts';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import type { LogFigures } from '../../model/log.ts';
import type { LeaseProgress, LeaseSummary } from '../../model/source.ts';
import { tableName } from '../../model/table.ts';
import { type Scores, scoresOf } from '../check/scores.ts';
import { sealRecord } from '../load/batches.ts';
import { lostRows, repairInserts, type Sink } from '../load/sink.ts';
import type { StagedBatch, Stages } from '../transform/stages.ts';
import type { FoundTables, NewTables } from './new_tables.ts';
import type { SchemaKeeper } from './schema_keeper.ts';
import type { Alteration, ChangeBatch, ChangeStream, Doubt, TableChanges } from './stream.ts';

/** What of the keeper of schemas the loop uses. */
export type LoopSchemas = Pick<
  SchemaKeeper,
  'decide' | 'observe' | 'replaceComplete' | 'confirmPlaces' | 'isOutdated' | 'changed'
>;

export interface LoopOptions {
  source: string;
  stream: ChangeStream;
  sink: Sink;
  /** lease number * `attemptsLimit` + attempt. */
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
  /** By asset, the number of its copy's beginning. */
  generations: Map<string, number>;
  /** What the copies are made from, and what becomes of them when tables are defined otherwise. */
  schemas: LoopSchemas;
  /** Rules and checks of the tables. */
  stages: Pick<Stages, 'apply'>;
  /** Keeps what checks found. */
  keepScores: (scores: Scores[]) => Promise<void>;
  /** Looks for tables that the source's globs mean, where these are to be taken in. */
  newTables?: Pick<NewTables, 'look'>;
  /** For tests of crashes: called between the steps of a batch. */
  onStep?: (step: 'written' | 'recorded' | 'acknowledged', batch: ChangeBatch) => Promise<void> | void;
}

/** A summary is cut when the failed tables and sums of a lease could grow past what the history should hold. */
const summaryLimit = 400;
/** Milliseconds for which a lease may believe that it is the last: shorter than its heartbeat timeout. */
const fenceEvery = 5_000;
/** Milliseconds without a change after which the position is recorded, if the source has moved on: somebody may wait for it. */
const quiet = 250;
/** Milliseconds between two inserts of scores. */
const keepScoresEvery = 2_000;

/** Batches that a heartbeat tells of. */
const shownBatches = 5;

export class CaptureLoop {
  readonly #options: LoopOptions;
  /** What checks found since it was kept last. */
  readonly #scores: Scores[] = [];
  #keptAt = performance.now();
  #seq = 0;
  #hash: string;
  #lastKind: BatchKind = 'begin';
  /** Where the last record began. */
  #from = '';
  #safe: string;
  #lastBatchAt: string | null = null;
  #recent: BatchGlance[] = [];
  #fencedAt = performance.now();
  batches = 0;
  changes = 0;
  readonly assets: Record<string, AssetEffects> = {};
  readonly failed: Record<string, ErrorReport> = {};
  /** Assets whose tables were gone and are there again. */
  readonly returned: string[] = [];
  /** Tables that came, when there are any that the flow does not know of. */
  news: FoundTables | undefined;
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
      last_batch_at: this.#lastBatchAt,
      recent: this.#recent,
      log,
    };
  }

  /** The last recorded position. */
  get position(): string {
    return this.#safe;
  }

  get hash(): string {
    return this.#hash;
  }

  /** Runs until time is up, the signal is given, or a table fails, comes back or is new; answers which. */
  async run(): Promise<LeaseSummary['ended']> {
    const { duration, failed } = this.#options;
    const end = performance.now() + duration;
    const streamed = Object.fromEntries(this.#options.assets.map((asset) => [asset, noEffects()]));
    // Whoever slept until now, and has a successor, must not write behind that one's records.
    await this.#lookForSuccessor(0);
    // The fence: when this is written, no insert of a predecessor is still under way.
    await this.#record('begin', undefined, streamed, failed, untimed);
    await this.#lookForSuccessor(0);
    if (Object.keys(failed).length > 0) return 'table_failed';
    if (this.returned.length > 0) return 'table_returned';
    try {
      return await this.#runBatches(end);
    } finally {
      await this.#keepScores();
    }
  }

  /** Scores of some batches at once: a batch of few rows would else cost two inserts more. They are no promise. */
  async #keepScores(): Promise<void> {
    this.#keptAt = performance.now();
    const scores = this.#scores.splice(0);
    if (scores.length > 0) await this.#options.keepScores(scores).catch(() => {});
  }

  async #runBatches(end: number): Promise<LeaseSummary['ended']> {
    const { stream, signal } = this.#options;
    let atTransactionEnd = true;
    for (;;) {
      if (signal.aborted) return 'cancelled';
      if (atTransactionEnd && performance.now() >= end) return 'time';
      const batch = await stream.next(quiet, signal);
      if (batch) {
        await this.#lookForSuccessor(fenceEvery);
        await (batch.alteration ? this.#alter(batch, batch.alteration) : this.#process(batch));
        atTransactionEnd = batch.inner === '' && !batch.alteration;
      }
      const doubt = atTransactionEnd ? stream.takeDoubt() : 'none';
      if (atTransactionEnd) await this.#observe(doubt);
      if (Object.keys(this.failed).length > 0) return 'table_failed';
      if (this.returned.length > 0) return 'table_returned';
      if (atTransactionEnd) this.news = this.#options.newTables?.look(doubt === 'altered');
      if (this.news) return 'tables_found';
      if (Object.keys(this.assets).length >= summaryLimit) return 'summary_full';
    }
  }

  /**
   * A lease that Temporal has given up, but that does not know, stops writing: its successor's first record says so. The
   * slot alone would only stop it from reading.
   */
  async #lookForSuccessor(every: number): Promise<void> {
    if (performance.now() - this.#fencedAt < every) return;
    const { sink, source, lease } = this.#options;
    expectNoSuccessor(await sink.newestLease(source), lease, source);
    this.#fencedAt = performance.now();
  }

  /** Another definition of a table travels alone: what was before is recorded, what comes behind is not read yet. */
  async #alter(batch: ChangeBatch, alteration: Alteration): Promise<void> {
    const { stream, schemas, onStep } = this.#options;
    const { altered, failed } = await schemas.decide(alteration, () => this.#lookForSuccessor(0));
    await onStep?.('written', batch);
    await this.#record('schema', batch, {}, failed, untimed, { altered });
    await onStep?.('recorded', batch);
    stream.acknowledge(batch.to);
  }

  /** What the catalog shows that the stream does not; at a transaction's end only, where nothing is half written. */
  async #observe(doubt: Doubt): Promise<void> {
    const { stream, schemas } = this.#options;
    const fence = () => this.#lookForSuccessor(0);
    await schemas.replaceComplete(this.#safe, fence);
    const found = await schemas.observe(stream, doubt, this.#safe, fence);
    if (!found) return;
    const { altered, failed, returned } = found;
    this.returned.push(...returned);
    if (Object.keys(altered).length + Object.keys(failed).length === 0) return;
    await fence();
    await this.#record('schema', undefined, {}, failed, untimed, { altered });
  }

  async #process(batch: ChangeBatch): Promise<void> {
    const { stream, schemas, onStep } = this.#options;
    const startedAt = performance.now();
    const failed = await this.#fill(batch);
    const rules = await this.#transform(batch, failed);
    const filledAt = performance.now();
    const id = this.#id(this.#seq);
    const assets: Record<string, AssetEffects> = {};
    await Promise.all(batch.tables.map((changes, part) => this.#write(batch, changes, { id, part }, assets, failed)));
    await schemas.confirmPlaces();
    await onStep?.('written', batch);
    const durations = {
      fill: batch.cutAt - batch.openedAt,
      resolve: filledAt - startedAt,
      write: performance.now() - filledAt,
    };
    await this.#record(batch.kind, batch, assets, failed, durations, rules);
    await onStep?.('recorded', batch);
    stream.acknowledge(batch.to);
    await onStep?.('acknowledged', batch);
    this.#scores.push(...rules.checked.map(({ asset, ...found }) => scoresOf(asset, id, batch.committedLast, found)));
    if (performance.now() - this.#keptAt > keepScoresEvery) await this.#keepScores();
    stream.recycle(batch);
  }

  /** Fills what the source left out; a table that was altered meanwhile cannot be asked, and is left out. */
  async #fill(batch: ChangeBatch): Promise<Record<string, ErrorReport>> {
    const { stream, schemas } = this.#options;
    const failed: Record<string, ErrorReport> = {};
    if (!batch.tables.some((changes) => changes.hollow.length > 0)) return failed;
    for (const [asset, reason] of Object.entries(await stream.fill(batch)))
      failed[asset] = schemas.changed(asset, reason);
    batch.tables = batch.tables.filter((changes) => !(changes.table.asset_id in failed));
    return failed;
  }

  /** Rules and checks, over rows that have all their values. A table that they stop is left out. */
  async #transform(batch: ChangeBatch, failed: Record<string, ErrorReport>): Promise<Omit<StagedBatch, 'failed'>> {
    const { source, stages } = this.#options;
    const { failed: stopped, ...staged } = await stages.apply(batch.tables);
    for (const { table } of batch.tables) {
      const report = stopped[table.asset_id];
      if (report) failed[table.asset_id] = resyncAfter(report, source, tableName(table));
    }
    batch.tables = batch.tables.filter(({ table }) => !(table.asset_id in stopped));
    return staged;
  }

  /** Writes one table's part. A refusal of its rows stops this table alone. */
  async #write(
    batch: ChangeBatch,
    changes: TableChanges,
    { id, part }: { id: string; part: number },
    assets: Record<string, AssetEffects>,
    failed: Record<string, ErrorReport>,
  ): Promise<void> {
    const { sink, schemas, source } = this.#options;
    const { table, block, effects, rejects } = changes;
    try {
      const version = batch.truncated[table.asset_id];
      if (version !== undefined) {
        // A repair holds a TRUNCATE up until it is done; one that died may still be writing rows of before.
        await sink.endInserts([repairInserts(source, table.asset_id)]);
        const committed = timeOf(batch.committedFirst)!.replace('T', ' ').replace('Z', '');
        // Before the sweep: a release that still finds its reject open has written the row by then, and it is swept.
        await sink.supersedeRejects(table.asset_id, version);
        await sink.sweepBelow(table, version, committed, `${id}/${table.asset_id}`, batch.xid);
      }
      if (rejects.length > 0) await sink.reject(table.asset_id, rejects, id);
      if (block.rows > 0) {
        const written = await sink.write(table, block, `${id}/${table.asset_id}/${part}`);
        // Attached views count too, so more is right; fewer is a loss.
        if (!(written >= block.rows)) throw lostRows(table.asset_id, block.rows, written, table.asset_id);
        effects.written = block.rows;
        effects.bytes = block.length;
      }
      // Partitions of other shapes than their table's come by themselves.
      const before = assets[table.asset_id];
      if (before) addEffects(before, effects);
      else assets[table.asset_id] = effects;
    } catch (error) {
      // Only what speaks of these rows stops the table alone; all else stops the lease before anything is acknowledged.
      const own = error instanceof SluiceError && (error.kind === 'rows_refused' || error.kind === 'conservation');
      if (!own) throw error;
      if (await schemas.isOutdated(table.asset_id)) {
        const reason = `another lease has altered the copy ${table.asset_id}`;
        throw new SluiceError('slot_in_use', reason, 'It is tried again.', { source }, error);
      }
      failed[table.asset_id] = resyncAfter(error.report(), source, tableName(table));
    }
  }

  async #record(
    kind: BatchKind,
    batch: ChangeBatch | undefined,
    assets: Record<string, AssetEffects>,
    failed: Record<string, ErrorReport>,
    durations: BatchRecord['durations'],
    {
      altered,
      version = 0,
      applied,
    }: { altered?: Record<string, string[]>; version?: number; applied?: AppliedRules } = {},
  ): Promise<void> {
    const { source, sink, lease, cluster, epoch, workflow, generations } = this.#options;
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
      ...(altered && { altered }),
      failed: Object.fromEntries(
        Object.entries(failed).map(([asset, report]) => [asset, { ...report, generation: generations.get(asset) }]),
      ),
      rules: version,
      ...(version > 0 && { applied }),
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
    Object.assign(this.failed, failed);
    this.#count(record);
  }

  #count(record: BatchRecord): void {
    if (record.kind === 'begin' || record.kind === 'idle') return;
    this.#lastBatchAt = new Date().toISOString();
    this.#recent = [glanceAt(record, this.#lastBatchAt), ...this.#recent.slice(0, shownBatches - 1)];
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

/** Throws `slot_in_use` when a later lease, or a later attempt of this one, has recorded something. */
export function expectNoSuccessor(newest: number, lease: number, source: string): void {
  if (newest <= lease) return;
  const reason = `lease ${newest} has taken over from lease ${lease}`;
  throw new SluiceError('slot_in_use', reason, 'Nothing is to be done.', { source });
}

function resyncAfter(report: ErrorReport, source: string, table: string): ErrorReport {
  return { ...report, remedy: `${report.remedy} Then: sluice sources resync ${source} ${table}` };
}

const untimed = { fill: 0, resolve: 0, write: 0 };

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
