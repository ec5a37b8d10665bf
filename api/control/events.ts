/**
 * What happens, as it happens: batches as they are recorded, states of sources, alarms, runs of deployments. One look serves all
 * who listen, and nobody looks while nobody listens.
 *
 * Batches come at least once, also to who was away and says since when: each event bears the time up to which all was told. States
 * are told whole at the beginning, and then when they change.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { readRecords } from '../../activities/load/batches.ts';
import { type AssetEffects, glanceAt } from '../../model/batch.ts';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import type { Control } from './control.ts';
import type { DeploymentRun } from './deployment_shapes.ts';
import { listDeployments } from './deployments.ts';
import { noTableYet } from './figures.ts';
import type { SourceAnswer } from './shapes.ts';
import { listSources } from './sources.ts';

/**
 * `batch` was recorded · `source` has another state · `alarm` was raised, or ended · `run` of a deployment began, or ended · `gap`
 * more has happened than is told · `trouble` it cannot be looked at the moment.
 */
export interface FeedEvent {
  event: 'batch' | 'source' | 'alarm' | 'run' | 'gap' | 'trouble';
  /** Up to this time all batches were told: what to come back with. */
  id: string;
  /** The source or deployment that it is about; '' = all. */
  about: string;
  data: Record<string, unknown>;
}

export type Listener = (event: FeedEvent) => void;

/** Milliseconds between two looks. */
const batchPause = 1_000;
const statePause = 2_000;
const runPause = 5_000;
/** An insert may show so much later than the time that it bears. */
const overlap = 10_000;
/** Batches that are told at most to who was away. */
const mostBatches = 5_000;
export const mostListeners = 32;

const shownKinds = `('rows', 'truncate', 'schema', 'chunk', 'snapshot', 'complete', 'repair', 'release', 'released', 'removed', 'backfill', 'extract')`;

const feeds = new WeakMap<Control, Feed>();

/**
 * Tells a listener all that happens from now on, or since a time (the `id` of an event). Answers how to end it. Errors:
 * `conflict` when there are too many, `configuration` for a time that is none.
 */
export function listen(control: Control, listener: Listener, since?: string): () => void {
  if (since !== undefined && Number.isNaN(Date.parse(since)))
    throw new SluiceError('configuration', 'it is no id of an event', 'Send the id of the last event, or none.');
  const feed = feeds.get(control) ?? new Feed(control);
  feeds.set(control, feed);
  return feed.add(listener, since);
}

class Feed {
  readonly #control: Control;
  readonly #listeners = new Set<Listener>();
  /** Batches of the overlap that were told. */
  #told = new Map<string, number>();
  /** Of the newest batch that was told, in milliseconds. */
  #upTo = 0;
  #sources = new Map<string, FeedEvent>();
  #alarms = new Map<string, FeedEvent>();
  #runs = new Map<string, FeedEvent>();
  #trouble = '';
  /** Ends the looks when the last listener has gone. */
  #looks: AbortController | undefined;
  #started: Promise<void> | undefined;
  /** When somebody began to listen, in milliseconds: batches of before are told only to who asks for them. */
  #begun = 0;

  constructor(control: Control) {
    this.#control = control;
  }

  add(listener: Listener, since: string | undefined): () => void {
    if (this.#listeners.size >= mostListeners)
      throw new SluiceError('conflict', `${mostListeners} listen already`, 'Try again when one of them has gone.');
    let live = since === undefined;
    const waiting: FeedEvent[] = [];
    const mine: Listener = (event) => (live ? listener(event) : waiting.push(event));
    // Before anything else, so that who comes back has the states too.
    for (const event of [...this.#sources.values(), ...this.#alarms.values()]) listener(event);
    this.#listeners.add(mine);
    if (!this.#looks) this.#started = this.#run();
    if (since !== undefined) {
      void this.#catchUp(since, listener).then((told) => {
        live = true;
        for (const event of waiting) if (!told.has(String(event.data.id))) listener(event);
      });
    }
    return () => {
      this.#listeners.delete(mine);
      if (this.#listeners.size > 0) return;
      this.#looks?.abort();
      this.#looks = undefined;
    };
  }

  /** Tells what happened since a time; answers the ids of the batches. */
  async #catchUp(since: string, listener: Listener): Promise<Set<string>> {
    try {
      // What is recorded from then on is told live.
      await this.#started;
      const missed = await this.#batchesSince(Date.parse(since) - overlap, mostBatches + 1);
      if (missed.length > mostBatches) {
        const remedy = 'GET /api/v1/lineage/audit has all.';
        listener({ event: 'gap', id: since, about: '', data: { since, told: mostBatches, remedy } });
      }
      const told = missed.slice(0, mostBatches).reverse();
      for (const event of told) listener(event);
      return new Set(told.map((event) => String(event.data.id)));
    } catch (error) {
      listener(this.#troubleOf(error));
      return new Set();
    }
  }

  async #run(): Promise<void> {
    const looks = new AbortController();
    this.#looks = looks;
    const { signal } = looks;
    this.#told.clear();
    for (const known of [this.#sources, this.#alarms, this.#runs]) known.clear();
    this.#begun = this.#upTo = await this.#now();
    void this.#repeat(() => this.#lookAtBatches(), batchPause, signal);
    void this.#repeat(() => this.#lookAtSources(), statePause, signal);
    void this.#repeat(() => this.#lookAtRuns(), runPause, signal);
  }

  /** By the clock that stamps batches. */
  async #now(): Promise<number> {
    const ask = () => this.#control.clickhouse.rows<{ now: string }>(`SELECT toUnixTimestamp64Milli(now64(3)) AS now`);
    const [row] = await ask().catch(() => []);
    return Number(row?.now ?? Date.now());
  }

  async #repeat(look: () => Promise<void>, pause: number, signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      try {
        await look();
        this.#trouble = '';
      } catch (error) {
        const event = this.#troubleOf(error);
        const reason = String(event.data.reason);
        if (reason !== this.#trouble && !signal.aborted) this.#tell(event);
        this.#trouble = reason;
      }
      await sleep(pause, undefined, { ref: false, signal }).catch(() => {});
    }
  }

  #troubleOf(error: unknown): FeedEvent {
    return { event: 'trouble', id: this.#id, about: '', data: { ...asSluiceError(error).report() } };
  }

  get #id(): string {
    return new Date(this.#upTo).toISOString();
  }

  #tell(event: FeedEvent): void {
    for (const listener of this.#listeners) listener(event);
  }

  async #lookAtBatches(): Promise<void> {
    const from = this.#upTo - overlap;
    for (const event of (await this.#batchesSince(from, mostBatches)).reverse()) {
      const id = String(event.data.id) + String(event.data.recorded_at);
      if (this.#told.has(id) || Date.parse(String(event.data.recorded_at)) < this.#begun) continue;
      this.#told.set(id, Date.parse(String(event.data.recorded_at)));
      this.#tell(event);
    }
    this.#told = new Map([...this.#told].filter(([, at]) => at >= this.#upTo - 2 * overlap));
  }

  /** Newest first, so that of too many the newest are told. */
  async #batchesSince(from: number, limit: number): Promise<FeedEvent[]> {
    const where = `recorded_at >= fromUnixTimestamp64Milli({from:Int64}, 'UTC') AND kind IN ${shownKinds}`;
    const order = 'recorded_at DESC, lease DESC, seq DESC, id DESC';
    const records = await readRecords(this.#control.clickhouse, where, { from }, order, limit).catch((error) => {
      if (noTableYet(error)) return [];
      throw error;
    });
    const newest = records[0];
    if (newest) this.#upTo = Math.max(this.#upTo, Date.parse(newest.recorded_at));
    return records.map((record) => {
      const { source, assets, position_from, failed } = record;
      const data = { ...glanceAt(record, record.recorded_at), source, position_from, assets: sums(assets), failed };
      return { event: 'batch', id: new Date(Date.parse(record.recorded_at)).toISOString(), about: source, data };
    });
  }

  async #lookAtSources(): Promise<void> {
    const sources = await listSources(this.#control);
    const states = sources.map((source) => this.#event('source', source.id, stateOf(source)));
    for (const event of changes(this.#sources, states, (one) => one.about)) this.#tell(event);
    const alarms = sources.flatMap((source) =>
      source.alarms.map((alarm) => this.#event('alarm', source.id, { source: source.id, state: 'raised', ...alarm })),
    );
    const before = [...this.#alarms.values()];
    for (const event of changes(this.#alarms, alarms, keyOf)) this.#tell(event);
    for (const ended of before.filter((one) => !this.#alarms.has(keyOf(one))))
      this.#tell({ ...ended, id: this.#id, data: { ...ended.data, state: 'ended' } });
  }

  async #lookAtRuns(): Promise<void> {
    const first = this.#runs.size === 0;
    const deployments = await listDeployments(this.#control);
    const runs = deployments.flatMap(({ name, running, last_runs }) => {
      const each = new Map([...last_runs, ...running].map((run) => [run.workflow.run_id, run]));
      return [...each.values()].map((run) => this.#event('run', name, runOf(name, run)));
    });
    const news = changes(this.#runs, runs, (one) => String((one.data.workflow as { run_id: string }).run_id));
    // Runs of before somebody listened are no news, but for those that run.
    for (const event of news) if (!first || event.data.status === 'running') this.#tell(event);
  }

  #event(event: FeedEvent['event'], about: string, data: FeedEvent['data']): FeedEvent {
    return { event, id: this.#id, about, data };
  }
}

function keyOf({ about, data }: FeedEvent): string {
  return JSON.stringify([about, data.kind, data.reason]);
}

/** Takes in what is now, and answers what was not so before. */
function changes(known: Map<string, FeedEvent>, now: FeedEvent[], keyed: (event: FeedEvent) => string): FeedEvent[] {
  const before = new Map(known);
  known.clear();
  for (const event of now) known.set(keyed(event), event);
  return now.filter((event) => JSON.stringify(before.get(keyed(event))?.data) !== JSON.stringify(event.data));
}

/** What of a source is its state: figures that always move are not. */
function stateOf({ id, type, status, tables, last_error, warning, workflow }: SourceAnswer): FeedEvent['data'] {
  const states = tables.map(({ asset_id, table, status: state, notice, error }) => ({
    asset_id,
    table,
    status: state,
    notice,
    error,
  }));
  return { id, type, status, tables: states, last_error, warning, workflow };
}

function runOf(deployment: string, run: DeploymentRun): FeedEvent['data'] {
  return { deployment, ...run };
}

function sums(assets: Record<string, AssetEffects>): Record<string, Partial<AssetEffects>> {
  const shown = Object.entries(assets).map(([asset, { inserts, updates, deletes, truncates, written, rejected }]) => {
    return [asset, { inserts, updates, deletes, truncates, written, rejected }];
  });
  return Object.fromEntries(shown);
}
