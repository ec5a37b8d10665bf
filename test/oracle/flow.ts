/**
 * What the flow of a source does, for the oracle: numbers leases and attempts, tries again what is transient, takes
 * snapshots beside leases, adds tables. Its workers are processes that die at any moment, or are believed dead.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import type { PreparedSource, SnapshotPlan, TableRef } from '../../activities/capture/contract.ts';
import type { ConnectRequest, LeaseSummary } from '../../model/source.ts';
import { nodeArguments } from '../../workers/child.ts';
import type { Random } from '../../workers/demo/random.ts';
import type { ProcessCommand, ProcessError, ProcessStart } from './capture_process.ts';

const program = fileURLToPath(new URL('./capture_process.ts', import.meta.url));

class WorkerDied extends Error {}
/** Nobody wants the snapshot any more: its table is made ready anew. */
class Abandoned extends Error {}

/** What an activity reported. */
export class ActivityFailed extends Error {
  readonly error: ProcessError;
  constructor(command: string, error: ProcessError) {
    super(`${command}: ${error.kind}: ${error.reason}`);
    this.error = error;
  }
}

class Worker {
  readonly #child: ChildProcess;
  readonly #calls = new Map<
    number,
    { resolve: (value: unknown) => void; reject: (error: Error) => void; name: string }
  >();
  #next = 0;
  dead = false;
  /** What it wrote to stderr, in case it ended by itself. */
  #said = '';
  readonly #onCrash: (said: string) => void;
  #killed = false;

  constructor(start: ProcessStart, env: NodeJS.ProcessEnv, onCrash: (said: string) => void) {
    this.#onCrash = onCrash;
    this.#child = spawn(process.execPath, nodeArguments(program, JSON.stringify(start)), {
      stdio: ['pipe', 'pipe', 'pipe'],
      env,
    });
    this.#child.stdin!.on('error', () => {});
    createInterface({ input: this.#child.stdout! }).on('line', (line) => this.#answer(line));
    this.#child.stderr!.on('data', (bytes: Buffer) => {
      this.#said = (this.#said + bytes.toString()).slice(-4000);
    });
    this.#child.once('exit', (code) => this.#ended(code));
  }

  call<T>(command: ProcessCommand, attempt = 1): { id: number; result: Promise<T> } {
    const id = this.#next++;
    const result = new Promise<T>((resolve, reject) => {
      if (this.dead) return reject(new WorkerDied());
      this.#calls.set(id, { resolve: resolve as (value: unknown) => void, reject, name: command.do });
      this.#child.stdin!.write(`${JSON.stringify({ ...command, id, attempt })}\n`);
    });
    result.catch(() => {});
    return { id, result };
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL') this.#killed = true;
    if (!this.dead) this.#child.kill(signal);
  }

  /** What it was told to do and has not answered. */
  get pending(): string[] {
    return [...this.#calls.values()].map((call) => call.name);
  }

  async end(): Promise<void> {
    this.#killed = true;
    if (this.dead) return;
    const exited = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.kill('SIGKILL');
    await exited;
  }

  #answer(line: string): void {
    const { id, result, error } = JSON.parse(line) as { id: number; result: unknown; error?: ProcessError };
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    if (error) call?.reject(new ActivityFailed(call.name, error));
    else call?.resolve(result);
  }

  #ended(code: number | null): void {
    this.dead = true;
    for (const call of this.#calls.values()) call.reject(new WorkerDied());
    this.#calls.clear();
    if (!this.#killed && code !== 0) this.#onCrash(this.#said);
  }
}

export interface FlowTable {
  ref: TableRef;
  /** Where the stream has to be for the table to be complete; undefined while its snapshot is taken. */
  completeAt: string | undefined;
  /** Another entry has taken its place. */
  abandoned: boolean;
  /** Settles when nothing is done for its snapshot any more. */
  snapshot: Promise<void>;
}

function pending(ref: TableRef): FlowTable {
  return { ref, completeAt: undefined, abandoned: false, snapshot: Promise.resolve() };
}

export interface FlowOptions {
  start: ProcessStart;
  env: NodeJS.ProcessEnv;
  random: Random;
  /** Cuts the stored plan of a table's snapshot smaller; answers the number of chunks. */
  cut: (table: TableRef, chunks: number) => Promise<number>;
  leaseSeconds: number;
}

export class OracleFlow {
  readonly #options: FlowOptions;
  readonly request: ConnectRequest;
  readonly tables: FlowTable[];
  readonly #workers = new Set<Worker>();
  #worker: Worker | undefined;
  #lease = 0;
  #attempt = 0;
  #attemptAt = 0;
  readonly #errors: string[] = [];
  #running: { worker: Worker; id: number } | undefined;
  #moved: (() => void) | undefined;
  #prepareAgain = false;
  readonly #changing = new Set<string>();
  readonly #abandoned = new Set<Promise<void>>();
  #ended = false;
  readonly #tasks = new Set<Promise<void>>();
  /** What must not happen, and ended it. */
  fatal: string | undefined;
  readonly figures = { leases: 0, attempts: 0, chunks: 0, snapshots: 0, retries: 0, serverFaults: 0, altered: 0 };

  constructor(options: FlowOptions, tables: TableRef[]) {
    this.#options = options;
    this.request = options.start.request;
    this.tables = tables.map(pending);
  }

  start(): void {
    this.#task(this.#run());
  }

  /** kill -9 of the process that runs everything. */
  kill(): void {
    this.#current().signal('SIGKILL');
  }

  /** The lease ends in order, as for a pause, and the next begins. */
  async endLease(): Promise<void> {
    const { worker, id } = this.#running ?? {};
    if (worker && !worker.dead) await worker.call({ do: 'cancel', target: id! }).result.catch(() => {});
  }

  /** Ends the lease; answers the number of the next one. */
  async nextLease(): Promise<number> {
    const before = this.figures.leases;
    const until = Date.now() + 30_000;
    await this.endLease();
    while (this.figures.leases <= before && !this.fatal && Date.now() < until) await sleep(20);
    return this.#lease;
  }

  /**
   * Another process takes the lease over while this one still lives: it is believed dead. Asleep for `asleep`
   * milliseconds, it goes on as if nothing had happened; `alive` milliseconds after that it is killed.
   */
  takeOver(asleep: number, alive: number): void {
    const old = this.#worker;
    if (!old || old.dead) return;
    this.#worker = undefined;
    if (asleep > 0) old.signal('SIGSTOP');
    this.#moved?.();
    setTimeout(() => old.signal('SIGCONT'), asleep).unref();
    setTimeout(() => old.signal('SIGKILL'), asleep + alive).unref();
  }

  /** Adds a table, or makes the copy of one anew; one whose snapshot is being taken only when that is `outdated`. */
  async copyAnew(ref: TableRef, outdated = false): Promise<void> {
    const known = this.tables.find((table) => table.ref.asset_id === ref.asset_id);
    if (known && known.completeAt === undefined && !outdated) return;
    const generation = (known?.ref.generation ?? 0) + 1;
    if (known) {
      known.abandoned = true;
      this.#abandoned.add(known.snapshot);
      this.tables.splice(this.tables.indexOf(known), 1);
    }
    this.tables.push(pending({ ...ref, start_position: '', generation }));
    this.#prepareAgain = true;
    await this.endLease();
  }

  /** From now on the table may be found to be another one: then its copy is made anew. */
  mayChange(ref: TableRef): void {
    this.#changing.add(ref.asset_id);
  }

  /** True when all tables have their snapshots and nothing waits to be prepared. */
  get settled(): boolean {
    return !this.#prepareAgain && this.tables.every((table) => table.completeAt !== undefined);
  }

  async end(): Promise<void> {
    this.#ended = true;
    await this.endLease();
    const patience = setTimeout(() => this.#killAll(), 10_000);
    await Promise.all(this.#tasks);
    clearTimeout(patience);
    await Promise.all([...this.#workers].map((worker) => worker.end()));
  }

  #killAll(): void {
    for (const worker of this.#workers) worker.signal('SIGKILL');
  }

  #task(work: Promise<void>): void {
    const task: Promise<void> = work
      .catch((error: unknown) => this.#fail(error))
      .finally(() => this.#tasks.delete(task));
    this.#tasks.add(task);
  }

  #fail(error: unknown): void {
    const more = error instanceof ActivityFailed ? `\n${error.error.stack}` : '';
    this.fatal ??= `${error instanceof Error ? (error.stack ?? error.message) : String(error)}${more}`;
    this.#ended = true;
  }

  #current(): Worker {
    if (!this.#worker || this.#worker.dead) {
      const { start, env } = this.#options;
      this.#worker = new Worker(start, env, (said) => this.#fail(new Error(`a worker ended by itself: ${said}`)));
      this.#workers.add(this.#worker);
    }
    return this.#worker;
  }

  async #run(): Promise<void> {
    await this.#prepare();
    while (!this.#ended) {
      if (this.#prepareAgain) await this.#prepare();
      await this.#leaseOnce();
    }
  }

  /** Tries until it succeeds; throws what is not transient. */
  async #persist<T>(command: ProcessCommand, table?: FlowTable): Promise<T> {
    for (let attempt = 1; ; attempt++) {
      if (table?.abandoned) throw new Abandoned();
      try {
        return await this.#current().call<T>(command, attempt).result;
      } catch (error) {
        this.#retry(error);
        await sleep(100);
      }
    }
  }

  /** Where it is, and what went wrong last: for people. */
  describe(): string {
    const tables = this.tables.filter((table) => table.completeAt === undefined).map((table) => table.ref.table);
    const doing = [...this.#workers].filter((worker) => !worker.dead).map((worker) => worker.pending.join(', '));
    return (
      `lease ${this.#lease}, attempt ${this.#attempt} since ${Math.round(performance.now() - this.#attemptAt)} ms; workers do: ` +
      `${doing.join(' | ')}; no snapshot yet: ${tables.join(', ')}; last errors: ${this.#errors.join(' · ')}`
    );
  }

  /** Counts a failure that is tried again; throws any other. */
  #retry(error: unknown): void {
    this.figures.retries++;
    this.#errors.push(String((error as Error).message || (error as Error).name).slice(0, 150));
    this.#errors.splice(0, this.#errors.length - 5);
    if (this.#ended) throw new Error('ended before it was done');
    if (error instanceof WorkerDied || (error instanceof ActivityFailed && error.error.transient)) return;
    // Seen once in many crashes of the server: its own decoding fails. Whether it lasts is worth knowing.
    if (error instanceof ActivityFailed && /could not map filen(umber|ode)/.test(error.message))
      if (++this.figures.serverFaults <= 20) return;
    throw error;
  }

  async #prepare(): Promise<void> {
    this.#prepareAgain = false;
    await Promise.all(this.#abandoned);
    this.#abandoned.clear();
    const asked = this.tables.map(({ ref }) => ref);
    const prepared = await this.#persist<PreparedSource>({ do: 'prepare', tables: asked });
    this.#lease = Math.max(this.#lease, prepared.last_lease);
    for (const { snapshot_done, ...ref } of prepared.tables) {
      const table = this.tables.find((known) => known.ref.asset_id === ref.asset_id)!;
      // Another generation was asked for meanwhile: it is made ready next.
      if (!asked.includes(table.ref)) continue;
      const begun = table.ref.start_position !== '';
      table.ref = ref;
      if (begun || snapshot_done) continue;
      table.snapshot = this.#snapshot(table).catch((error) => this.#snapshotFailed(table, error));
      this.#task(table.snapshot);
    }
  }

  async #leaseOnce(): Promise<void> {
    const lease = ++this.#lease;
    this.figures.leases++;
    // All attempts have one input; tables that nobody has prepared yet wait for the next lease.
    const tables = this.tables.map(({ ref }) => ref).filter((ref) => ref.start_position !== '');
    const input = { lease, tables, seconds: this.#options.leaseSeconds };
    // Between two attempts there is nothing to cancel: whoever waits for the lease's end has it then.
    for (let attempt = 1; !this.#ended && !this.#prepareAgain; attempt++) {
      this.figures.attempts++;
      this.#attempt = attempt;
      this.#attemptAt = performance.now();
      const worker = this.#current();
      const moved = new Promise<void>((resolve) => (this.#moved = resolve));
      const { id, result } = worker.call<LeaseSummary>({ do: 'lease', ...input }, attempt);
      this.#running = { worker, id };
      try {
        const summary = await Promise.race([result, moved]);
        if (!summary) continue;
        this.#tablesFailed(summary);
        return;
      } catch (error) {
        if (this.#ended) return;
        this.#retry(error);
        await sleep(50);
      } finally {
        this.#running = undefined;
      }
    }
  }

  /** Tables that were altered are copied anew, as people would after they read the remedy; others must not fail. */
  #tablesFailed({ failed }: LeaseSummary): void {
    for (const [asset, report] of Object.entries(failed)) {
      if (report.kind !== 'table_changed' || !this.#changing.has(asset))
        throw new Error(`${asset} failed: ${JSON.stringify(report)}`);
      const table = this.tables.find((known) => known.ref.asset_id === asset);
      this.figures.altered++;
      if (table && table.ref.start_position !== '') void this.copyAnew(table.ref, true);
    }
  }

  #snapshotFailed(table: FlowTable, error: unknown): void {
    if (error instanceof Abandoned || (this.#ended && !(error instanceof ActivityFailed))) return;
    const changed = error instanceof ActivityFailed && error.error.kind === 'table_changed';
    if (!changed || !this.#changing.has(table.ref.asset_id)) throw error;
    this.figures.altered++;
    if (!table.abandoned) void this.copyAnew(table.ref, true);
  }

  async #snapshot(table: FlowTable): Promise<void> {
    const { ref } = table;
    const { chunks } = await this.#persist<SnapshotPlan>({ do: 'plan', table: ref }, table);
    const waiting = Array.from({ length: await this.#options.cut(ref, chunks) }, (_, chunk) => chunk);
    const lane = async () => {
      while (waiting.length > 0 && !this.#ended) {
        const [chunk] = waiting.splice(this.#options.random.between(0, waiting.length - 1), 1);
        await this.#persist({ do: 'chunk', table: ref, chunk: chunk! }, table);
        this.figures.chunks++;
      }
    };
    const lanes = [lane(), lane()];
    // Both, also when one fails: whoever waits for the end wants nothing under way.
    await Promise.allSettled(lanes);
    await Promise.all(lanes);
    if (this.#ended) return;
    const { complete_at } = await this.#persist<{ complete_at: string }>({ do: 'finish', table: ref }, table);
    table.completeAt = complete_at;
    this.figures.snapshots++;
  }
}
