/**
 * What `captureSource` does to its state: steps that exclude each other (release, prepare, lease), beside them the
 * snapshots of tables. Messages call the public methods; flows/captureSource.ts runs the steps.
 */
import {
  CancellationScope,
  condition,
  type ExternalWorkflowHandle,
  getExternalWorkflowHandle,
  patched,
  setCurrentDetails,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import type { PreparedSource } from '../activities/capture/contract.ts';
import { catalogWorkflowId } from '../model/messages.ts';
import { type CaptureStatus, healsItself, type LeaseSummary, schemaRemedy } from '../model/source.ts';
import { tableName } from '../model/table.ts';
import { activities, askOptions, glanceOptions, leaseOptions, prepareOptions } from './activities.ts';
import { captureDetails } from './captureDetails.ts';
import {
  absentTables,
  type FlowState,
  type FlowTable,
  findTable,
  healTable,
  knownTables,
  liveTables,
  nameOf,
  nextStep,
  refOf,
  resetTable,
  type Step,
  sourceState,
  statusOf,
  takeInFound,
} from './captureState.ts';
import { announceSource, forgetSource } from './catalog.ts';
import { count } from './markdown.ts';
import { readFailure, refuse, type Trouble, wasCancelled } from './refuse.ts';
import { searchAttributes } from './searchAttributes.ts';
import { Snapshots } from './snapshots.ts';

export class Capture {
  readonly state: FlowState;
  readonly snapshots: Snapshots;
  /** This run of the flow gives over to the next: nothing new begins. */
  closing = false;
  removing = false;
  removed = false;
  readonly #root = CancellationScope.current();
  #step: CancellationScope | undefined;
  #doing: Step | undefined;
  #stepsBegun = 0;
  #stepsDone = 0;
  #leasesInRun = 0;
  #phase = '';

  constructor(state: FlowState) {
    this.state = state;
    this.snapshots = new Snapshots(state, {
      mayBegin: () => !this.closing && !this.removing && state.wish === 'running' && state.last_error === null,
      failed: (table, trouble) => this.#troubleWith(table, trouble),
      changed: () => this.refresh(),
    });
  }

  next(): Step {
    return this.removing || this.closing ? 'wait' : nextStep(this.state);
  }

  get stepEnded(): boolean {
    return this.#step === undefined;
  }

  /** True when nothing runs for the source. */
  get idle(): boolean {
    return this.#step === undefined && this.snapshots.idle;
  }

  wantsNewRun(): boolean {
    if (this.removing) return false;
    const limit = this.state.limits.leases_per_run;
    return workflowInfo().continueAsNewSuggested || (limit > 0 && this.#leasesInRun >= limit);
  }

  /** Does the next step, to its end or until it is interrupted. */
  async doStep(): Promise<{ name: Step; interrupted: boolean }> {
    const name = this.next();
    const scope = new CancellationScope({ cancellable: true, parent: this.#root });
    this.#step = scope;
    this.#doing = name;
    this.#stepsBegun += 1;
    try {
      await scope.run(() => this.#perform(name));
    } catch (error) {
      const trouble = readFailure(error);
      // An interrupted activity is not tried again: what would have passed by itself is no failure then.
      const ended = wasCancelled(error) || (scope.consideredCancelled && !trouble.final);
      if (!ended) this.#stumble(name, trouble);
    } finally {
      this.#step = undefined;
      this.#doing = undefined;
      this.#stepsDone += 1;
    }
    return { name, interrupted: scope.consideredCancelled };
  }

  /** Ends the running step; what comes next follows from the state. */
  interrupt(): void {
    this.#step?.cancel();
  }

  /** Ends the running step, and returns when it has ended: a lease has then written its last batch. */
  async endStep(): Promise<void> {
    const mine = this.#stepsBegun;
    this.interrupt();
    await condition(() => this.#stepsDone >= mine);
  }

  #perform(step: Step): Promise<void> {
    if (step === 'release') return this.#release();
    if (step === 'prepare') return this.#prepare();
    if (step === 'lease') return this.#lease();
    return Promise.resolve();
  }

  async #release(): Promise<void> {
    const tables = [...this.state.releasing];
    const summary = `take ${count(tables.length, 'table')} out of the publication`;
    await activities.releaseTables.executeWithOptions({ ...prepareOptions, summary }, [
      { request: this.state.request, tables },
    ]);
    this.state.releasing = this.state.releasing.filter((table) => !tables.includes(table));
  }

  async #prepare(): Promise<void> {
    const { request } = this.state;
    const tables = liveTables(this.state).map(refOf);
    const summary = `publication, slot and copies for ${count(tables.length, 'table')}`;
    const answer = await activities.prepareSource.executeWithOptions({ ...prepareOptions, summary }, [
      { request: this.state.request, tables, ...(this.state.renew && { renew: true }) },
    ]);
    delete this.state.renew;
    this.state.position = answer.position;
    this.state.lease = Math.max(this.state.lease, answer.last_lease);
    for (const prepared of answer.tables) this.#takeIn(prepared);
    // Other settings that came meanwhile are for the next time.
    this.state.prepared = request === this.state.request || !patched('configured while it was prepared');
    this.refresh();
  }

  /** A table as the source and the records know it. */
  #takeIn(prepared: PreparedSource['tables'][number]): void {
    const table = this.state.tables.find((known) => known.asset_id === prepared.asset_id);
    // Re-synced or failed while the source was being prepared: the next step prepares it.
    if (!table || table.status === 'failed' || prepared.generation < table.generation) return;
    if (table.start_position !== '' && table.start_position !== prepared.start_position) {
      // The slot is new, so the stream has a gap: what was copied from the old start is not complete.
      this.snapshots.stop(table.asset_id);
      resetTable(table, Math.max(prepared.generation, table.generation + 1));
      table.notice = prepared.notice ?? null;
    }
    table.generation = Math.max(prepared.generation, table.generation);
    table.start_position = prepared.start_position;
    // Recorded by an earlier flow of this source. Where this flow was interrupted, the child asks for the end again.
    if (prepared.snapshot_done && table.chunks_total === 0) table.status = 'streaming';
    if (!prepared.snapshot_done && table.status === 'streaming') resetTable(table, table.generation);
    table.start_position = prepared.start_position;
  }

  async #lease(): Promise<void> {
    const { state } = this;
    state.lease += 1;
    this.#leasesInRun += 1;
    this.snapshots.pump();
    this.refresh();
    const summary = `copy changes of ${state.request.id}, lease ${state.lease}`;
    const absent = absentTables(state).map(refOf);
    const generations = new Map(state.tables.map((table) => [table.asset_id, table.generation]));
    const known = knownTables(state);
    const ended = await activities.captureLease.executeWithOptions({ ...leaseOptions, summary }, [
      {
        request: state.request,
        lease: state.lease,
        tables: liveTables(state)
          .filter((table) => table.start_position !== '')
          .map(refOf),
        ...(absent.length > 0 && { absent }),
        ...(known && { known }),
        seconds: state.limits.lease_seconds,
        told: state.last_lease?.lease ?? 0,
      },
    ]);
    this.#absorb(ended, generations);
  }

  /** `generations`: of the tables, by asset, when the lease began. */
  #absorb(ended: LeaseSummary, generations: Map<string, number>): void {
    const { state } = this;
    state.position = ended.position_to || state.position;
    const rows = Object.values(ended.assets).reduce((sum, effects) => sum + effects.written, 0);
    const { batches, changes, log = null } = ended;
    state.last_lease = { lease: state.lease, ended: ended.ended, batches, changes, rows, log };
    for (const [asset, report] of Object.entries(ended.failed)) {
      const table = state.tables.find((known) => known.asset_id === asset);
      // Somebody has asked for a new copy while the lease ended: what it says is of the old one.
      const isOld = table && table.generation !== generations.get(asset) && patched('lease of an old copy');
      if (table && !isOld) this.#troubleWith(table, { report, place: {}, final: true });
    }
    for (const asset of ended.returned ?? []) {
      const table = state.tables.find((known) => known.asset_id === asset);
      const report = { kind: 'table_changed', reason: 'the table was gone, and is there again', remedy: '' } as const;
      if (table?.error?.kind === 'table_missing') this.#troubleWith(table, { report, place: {}, final: true });
    }
    takeInFound(state, ended);
    void this.#glance();
  }

  /** Fetches the last batches for the page in Temporal UI; their absence harms nothing. */
  async #glance(): Promise<void> {
    const input = { source: this.state.request.id, limit: 5 };
    try {
      const ask = () =>
        activities.recentBatches.executeWithOptions({ ...glanceOptions, summary: 'last batches' }, [input]);
      this.state.recent = await new CancellationScope({ cancellable: true, parent: this.#root }).run(ask);
      this.refresh();
    } catch {}
  }

  #stumble(step: Step, trouble: Trouble): void {
    const { report, place } = trouble;
    const table = place.table === undefined ? undefined : findTable(this.state, place.table);
    if (step === 'release') {
      const names = this.state.releasing.map((released) => released.asset_id).join(', ');
      this.state.warning = `${names} may still be in the publication: ${report.reason}. ${report.remedy}`;
      this.state.releasing = [];
    } else if (step === 'lease' && report.kind === 'conflict') {
      // This flow was set back: what its source has come to since, it must ask anew.
      this.state.prepared = false;
    } else if (table && (report.kind.startsWith('table_') || report.kind === 'rule_failed')) {
      this.#failTable(table, trouble);
    } else {
      this.state.last_error = report;
      this.snapshots.stop();
    }
  }

  /** A table whose copy does not fit any more is copied anew where the policy says so; any other trouble stops it. */
  #troubleWith(table: FlowTable, trouble: Trouble): void {
    const { config, id } = this.state.request;
    const { report } = trouble;
    // Whoever changes rules wants them: however often, and whatever the source may change.
    if (report.kind === 'rules_changed') return this.#copyAnew(table, report.reason);
    if (report.kind !== 'table_changed') return this.#failTable(table, trouble);
    const heals = healsItself(config);
    if (heals && this.#heal(table, report.reason)) return;
    const name = tableName(table);
    const remedy = heals
      ? `It was copied anew too often lately. When it has come to rest: sluice sources resync ${id} ${name}`
      : schemaRemedy(config, id, name);
    this.#failTable(table, { ...trouble, report: { ...report, remedy } });
  }

  /** Has a table copied anew without anybody having asked for it; false when that happened too often. */
  #heal(table: FlowTable, notice: string): boolean {
    this.snapshots.stop(table.asset_id);
    if (!healTable(table, notice, Date.now())) return false;
    this.reconfigure();
    return true;
  }

  #copyAnew(table: FlowTable, notice: string): void {
    this.snapshots.stop(table.asset_id);
    resetTable(table, table.generation + 1);
    table.notice = notice.slice(0, 600);
    this.reconfigure();
  }

  /** Tables that their rules have stopped may go on under others; a lease sees by itself whether its tables do. */
  tryRulesAgain(): void {
    for (const table of this.state.tables)
      if (table.started && table.error?.kind === 'rule_failed') this.#copyAnew(table, 'other rules are in force');
  }

  /** A poisoned table stops alone; the next lease leaves it out. */
  #failTable(table: FlowTable, { report }: Trouble): void {
    table.status = 'failed';
    table.error = report;
    this.snapshots.stop(table.asset_id);
    this.interrupt();
    this.refresh();
  }

  // ── what people ask for ──

  /** Runs, from wherever the source is. Tries again what has failed. */
  begin(): void {
    const { state } = this;
    const halted = state.wish !== 'running' || state.last_error !== null;
    state.wish = 'running';
    state.last_error = null;
    state.warning = null;
    if (halted) state.prepared = false;
    this.refresh();
  }

  /** Ends the lease and the snapshots, and returns when the lease has ended. */
  async halt(wish: 'paused' | 'stopped'): Promise<CaptureStatus> {
    const { state } = this;
    const started = state.wish !== 'connected';
    state.wish = wish;
    this.snapshots.stop();
    await this.endStep();
    // Chunks may take longer; they harm nobody, and resume waits for them.
    await condition(() => this.snapshots.idle, '3s');
    // Somebody may have let it go on meanwhile.
    if (state.wish === wish && started) state.warning = retainedLog(state);
    this.refresh();
    return statusOf(state);
  }

  /** Other tables, or the same from their beginning: the lease ends, and the source is prepared for them. */
  reconfigure(): void {
    this.state.prepared = false;
    this.interrupt();
    this.refresh();
  }

  resync(tables: FlowTable[]): void {
    for (const table of tables) {
      this.snapshots.stop(table.asset_id);
      resetTable(table, table.generation + 1);
    }
    // What the server said may stay with a slot that looks whole.
    if (this.state.last_error?.kind === 'slot_lost') this.state.renew = true;
    this.state.last_error = null;
    this.reconfigure();
  }

  release(tables: FlowTable[]): void {
    for (const table of tables) this.snapshots.stop(table.asset_id);
    this.state.tables = this.state.tables.filter((table) => !tables.includes(table));
    this.state.taken_out = [...(this.state.taken_out ?? []), ...tables.map(nameOf)];
    // A table without start has never been in the publication, unless it is on its way into it at this moment.
    const coming = this.#doing === 'prepare' && patched('release what is being prepared');
    this.state.releasing.push(...tables.filter((table) => coming || table.start_position !== '').map(refOf));
    this.interrupt();
    this.refresh();
  }

  /** Ends everything and drops what Sluice has in the source. On failure the source stays, stopped. */
  async remove(options: { drop_copies: boolean; force: boolean }): Promise<CaptureStatus> {
    const { state } = this;
    this.removing = true;
    this.snapshots.stop();
    await this.endStep();
    await condition(() => this.snapshots.idle, '10s');
    const tables = [...state.tables, ...state.releasing].map(refOf);
    try {
      await activities.removeSource.executeWithOptions({ ...askOptions, summary: `remove ${state.request.id}` }, [
        { request: state.request, tables, ...options },
      ]);
    } catch (error) {
      const { report } = readFailure(error);
      this.removing = false;
      state.wish = 'stopped';
      state.warning = `it could not be removed: ${report.reason}`;
      this.refresh();
      throw refuse(report.kind, report.reason, `${report.remedy} Or remove it with force.`);
    }
    state.wish = 'stopped';
    // Waited for: a flow that has ended sends nothing more.
    await this.#tellCatalog((catalog) => catalog.signal(forgetSource, { id: state.request.id }));
    this.removed = true;
    this.refresh();
    return statusOf(state);
  }

  /** Makes the source known to the catalog, whoever started this flow. */
  announce(): void {
    void this.#tellCatalog((catalog) => catalog.signal(announceSource, this.state.request));
  }

  async #tellCatalog(tell: (catalog: ExternalWorkflowHandle) => Promise<void>): Promise<void> {
    // Without a catalog the source works all the same; each new run announces it again.
    await tell(getExternalWorkflowHandle(catalogWorkflowId)).catch(() => {});
  }

  /** Shows the state to people: current details, and the phase to filter by. */
  refresh(): void {
    setCurrentDetails(captureDetails(this.state, workflowInfo().taskQueue));
    const phase = this.removed ? 'removed' : sourceState(this.state);
    if (phase === this.#phase) return;
    this.#phase = phase;
    upsertSearchAttributes([{ key: searchAttributes.phase, value: phase }]);
  }
}

function retainedLog(state: FlowState): string {
  const from = state.position ? `position ${state.position}` : 'the position of its slot';
  return (
    `while this source is ${state.wish}, its database keeps the log from ${from} on: ` +
    'watch its disk, and go on or remove the source in time'
  );
}
