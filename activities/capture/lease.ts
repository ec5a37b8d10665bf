/** A lease: one run of the capture loop as an activity, fenced against its predecessors. */
import { Context } from '@temporalio/activity';
import {
  type AssetEffects,
  addEffects,
  attemptsLimit,
  type BatchRecord,
  noEffects,
  streamKinds,
  type TableFailure,
} from '../../model/batch.ts';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import { addSample, type LogFigures, type LogSample, logFigures } from '../../model/log.ts';
import type { ConnectRequest, LeaseProgress, LeaseSummary } from '../../model/source.ts';
import { copyName, isBeside } from '../../model/table.ts';
import { storeScores } from '../check/scores.ts';
import { madeFrom } from '../lineage/known_graph.ts';
import { headAt, readRecords } from '../load/batches.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { lookUpIn } from '../load/look_up.ts';
import { keepSums } from '../load/sums.ts';
import { LateRows } from '../transform/late_rows.ts';
import { Stages } from '../transform/stages.ts';
import { activityError, type CaptureContext } from './context.ts';
import type { KnownTables, TableRef } from './contract.ts';
import { CaptureLoop, expectNoSuccessor } from './loop.ts';
import { NewTables } from './new_tables.ts';
import { checkIdentity } from './prepare.ts';
import { SchemaKeeper } from './schema_keeper.ts';
import { type Connected, openSource, type Source } from './source.ts';
import type { ChangeStream } from './stream.ts';

/** How long a stream is kept open for the next lease: attaching anew reads the log again from the restart point. */
const keepOpen = 30_000;
/** A copy that was begun less than so many milliseconds ago is not made anew before an ordinary look: who drops many partitions drops on. */
const settlesWithin = 60_000;
/** How often the source is asked how much log it keeps. */
const askLog = 15_000;

interface Attached {
  /** What the stream was opened for: another one is needed when it differs. */
  key: string;
  stream: ChangeStream;
  cluster: string;
  epoch: number;
  expires: NodeJS.Timeout | undefined;
}

/** What a lease needs a stream for. */
interface Wanted {
  source: Source;
  connected: Connected;
  sink: ClickHouseSink;
  tables: TableRef[];
  keeper: SchemaKeeper;
  /** Number and attempt of the lease. */
  lease: number;
}

/** A stream, and the end of the records that it goes on from. */
interface Beginning {
  attached: Attached;
  position: string;
  /** Head of the chain of records. */
  previous: string;
}

export interface LeaseInput {
  request: ConnectRequest;
  lease: number;
  tables: TableRef[];
  /** Tables that are gone from the source, and are looked for. */
  absent?: TableRef[];
  /** Nothing when no new tables are looked for. */
  known?: KnownTables;
  seconds: number;
  /** The last lease whose summary the flow has; 0 = none. */
  told?: number;
}

export class Leases {
  readonly #context: CaptureContext;
  /** Streams between two leases, by source. */
  readonly #kept = new Map<string, Attached>();
  /** By asset, since when its copy is of which generation, as far as this process knows. */
  readonly #begun = new Map<string, { generation: number; at: number }>();
  /** How much log each source kept lately. */
  readonly #samples = new Map<string, LogSample[]>();
  /** The lease that runs for a source in this process: a successor ends it and waits. */
  readonly #running = new Map<string, { abort: AbortController; ended: Promise<void> }>();

  constructor(context: CaptureContext) {
    this.#context = context;
  }

  /** Runs one lease; see CaptureActivities.captureLease. */
  async run(input: LeaseInput): Promise<LeaseSummary> {
    const source = input.request.id;
    const activity = Context.current();
    const abort = new AbortController();
    const cancelled = () => abort.abort();
    activity.cancellationSignal.addEventListener('abort', cancelled);
    if (activity.cancellationSignal.aborted) abort.abort();
    let progress: (() => LeaseProgress) | undefined;
    // Before the loop runs there is nothing to tell, but the attempt lives.
    const heartbeat = setInterval(() => activity.heartbeat(progress?.() ?? activity.info.heartbeatDetails), 1_000);
    let ended = () => {};
    try {
      await this.#endPredecessor(source);
      this.#running.set(source, { abort, ended: new Promise((resolve) => (ended = resolve)) });
      return await this.#lease(input, activity, abort, (live) => {
        progress = live;
      });
    } catch (error) {
      throw activityError(error, { source });
    } finally {
      clearInterval(heartbeat);
      activity.cancellationSignal.removeEventListener('abort', cancelled);
      if (this.#running.get(source)?.abort === abort) this.#running.delete(source);
      ended();
    }
  }

  /** Closes all kept streams, e.g. when the worker ends. */
  close(): void {
    for (const source of this.#kept.keys()) this.#discard(source);
  }

  async #lease(
    input: LeaseInput,
    activity: Context,
    abort: AbortController,
    live: (progress: () => LeaseProgress) => void,
  ): Promise<LeaseSummary> {
    const { request, tables } = input;
    const sink = this.#context.sink('write');
    const source = await openSource(request.type);
    const connected = this.#context.connected(request);
    const lease = input.lease * attemptsLimit + activity.info.attempt;
    // A worker of a later version may need more of them than the one that prepared the source has made.
    await sink.createOwnTables();
    const last = await sink.lastRecord(request.id);
    expectNewest(input, last);
    // An attempt that slept while its successor began would end that one's session, and write behind it.
    if (last) expectNoSuccessor(last.lease, lease, request.id);
    await sink.endInserts([`${request.id}/`], lease);
    const { absent = [] } = input;
    const defined = () => void this.#context.tablesDefined(request.id);
    const { lookEvery } = this.#context.settings;
    const settled = (asset: string) =>
      performance.now() - (this.#begun.get(asset)?.at ?? Number.NEGATIVE_INFINITY) > settlesWithin;
    this.#noteGenerations(tables);
    const options = { source, connected, sink, tables, absent, lookEvery, defined, settled };
    const { keeper, found } = await SchemaKeeper.open(options);
    const { failed } = found;
    const places = keeper.tables.filter(isBeside).map(copyName);
    await sink.checkDamage(request.id, [...tables.map((table) => table.asset_id), ...places]);
    const { attached, position, previous } = await this.#attach({ source, connected, sink, tables, keeper, lease });
    // A predecessor alters no copy any more.
    Object.assign(failed, await keeper.mend());
    // Only now: nobody else reads the log any more, so that a predecessor's last record is among them.
    const predecessors = await this.#predecessors(request.id, input.lease, lease);
    for (const record of [...(await this.#untold(input)), ...predecessors])
      Object.assign(failed, failuresOf(tables, record.failed));
    const workflow = {
      id: activity.info.workflowExecution?.workflowId ?? '',
      runId: activity.info.workflowExecution?.runId ?? '',
      attempt: activity.info.attempt,
    };
    const loop = new CaptureLoop({
      source: request.id,
      stream: attached.stream,
      sink,
      lease,
      cluster: attached.cluster,
      epoch: attached.epoch,
      position,
      previous,
      assets: keeper.tables.map((table) => table.asset_id).filter((asset) => !(asset in failed)),
      workflow,
      signal: abort.signal,
      duration: input.seconds * 1000,
      failed,
      generations: new Map(tables.map((table) => [table.asset_id, table.generation])),
      schemas: keeper,
      keepScores: (scores) => storeScores(sink.clickhouse, scores),
      stages: new Stages((asset) => keeper.table(asset), lookUpIn(sink.clickhouse)),
      newTables:
        input.known && new NewTables(source, connected, input.known, { streamed: [...tables, ...absent], lookEvery }),
    });
    loop.returned.push(...found.returned);
    let log: LogFigures | null = null;
    const ask = () => {
      source.logState(connected).then(
        (state) => {
          const samples = addSample(this.#samples.get(request.id) ?? [], state);
          this.#samples.set(request.id, samples);
          log = logFigures(state, samples, true);
        },
        () => (log = null), // the loop itself will say what is wrong with the source
      );
    };
    ask();
    const asking = setInterval(ask, askLog);
    const summing = new AbortController();
    // Beside the stream. What fails here is for the next lease: those who ask add up more until then.
    keepSums(this.#context.clickhouse('read'), request.id, input.lease * attemptsLimit, summing.signal).catch(() => {});
    const endLooks = new LateRows(this.#context.clickhouse('snapshot'), workflow).watch(() => keeper.tables);
    live(() => loop.progress(log));
    let ended: LeaseSummary['ended'] | undefined;
    try {
      ended = await loop.run();
    } finally {
      clearInterval(asking);
      summing.abort();
      endLooks();
      // A stream that a lease left in order waits for the next one; any other may hold what nobody will write.
      const goesOn = ended === 'tables_found' && loop.news?.found.length === 0;
      if (ended === 'time' || ended === 'summary_full' || goesOn)
        this.#keep(request.id, { ...attached, key: keyOf(keeper, request) });
      else attached.stream.close();
    }
    const summary = summarize(ended, input.lease, loop, predecessors, position);
    return { ...summary, failed: await this.#withReach(summary.failed), log };
  }

  #noteGenerations(tables: TableRef[]): void {
    for (const { asset_id, generation } of tables)
      if (this.#begun.get(asset_id)?.generation !== generation)
        this.#begun.set(asset_id, { generation, at: generation === 1 ? Number.NEGATIVE_INFINITY : performance.now() });
  }

  /** Whoever is to agree with a change of a table should see what is made from it. */
  async #withReach(failed: Record<string, ErrorReport>): Promise<Record<string, ErrorReport>> {
    const changed = Object.keys(failed).filter((asset) => failed[asset]!.kind === 'table_changed');
    // Without it the change is told all the same.
    const reach = await madeFrom(this.#context.clickhouse('read'), changed).catch(() => new Map<string, string[]>());
    const affects = (asset: string) => (reach.has(asset) ? { affects: reach.get(asset)! } : {});
    return Object.fromEntries(
      Object.entries(failed).map(([asset, report]) => [asset, { ...report, ...affects(asset) }]),
    );
  }

  /** What attempts of this lease recorded that died before they could say so. */
  async #predecessors(source: string, number: number, lease: number) {
    const first = number * attemptsLimit;
    if (lease <= first + 1) return [];
    // What stood beside them at the time, such as chunks and releases, begins elsewhere.
    const kinds = streamKinds.map((kind) => `'${kind}'`).join(', ');
    const where = `source = {source:String} AND lease >= {first:UInt64} AND lease < {lease:UInt64} AND kind IN (${kinds})`;
    return readRecords(this.#context.clickhouse('read'), where, { source, first, lease });
  }

  /** Records of failed tables by leases whose summary the flow never got: it was paused meanwhile, say, and a worker died. */
  async #untold({ request, lease, told }: LeaseInput) {
    if (told === undefined || told + 1 >= lease) return [];
    const where = `source = {source:String} AND lease >= {first:UInt64} AND lease < {own:UInt64} AND failed NOT IN ('', '{}')`;
    const leases = { first: (told + 1) * attemptsLimit, own: lease * attemptsLimit };
    return readRecords(this.#context.clickhouse('read'), where, { source: request.id, ...leases });
  }

  /** The kept stream when it goes on exactly where the records end, else a new one. */
  async #attach(wanted: Wanted): Promise<Beginning> {
    const { connected, sink, keeper, lease } = wanted;
    const { request } = connected;
    const key = keyOf(keeper, request);
    const kept = this.#take(request.id);
    const record = await sink.lastRecord(request.id);
    if (!record) throw noBeginning(request.id);
    expectNoSuccessor(record.lease, lease, request.id);
    // A copy beside an old one is about to move: its place is known to the stream and its keeper together only.
    const moving = keeper.tables.some(isBeside);
    if (kept?.key === key && !moving && kept.stream.continuesAt(record.position_to))
      return { attached: kept, position: record.position_to, previous: headAt(record) };
    kept?.stream.close();
    return this.#open(wanted, key);
  }

  async #open({ source, connected, sink, tables, keeper, lease }: Wanted, key: string): Promise<Beginning> {
    const { id } = connected.request;
    const identity = await source.identity(connected);
    // Once nobody else reads the log, nobody else can add a record that counts.
    await source.claim(connected);
    const record = await sink.lastRecord(id);
    if (!record) throw noBeginning(id);
    expectNoSuccessor(record.lease, lease, id);
    const { position_to: position, cluster, epoch } = record;
    checkIdentity(identity, cluster, id);
    await source.checkLog(connected, position);
    const stream = await source.openStream(connected, {
      position,
      epoch,
      tables: keeper.tables,
      maxRows: this.#context.settings.bufferSize,
      floors: Object.fromEntries(
        tables.map((table) => [table.asset_id, source.snapshotVersion(epoch, table.start_position)]),
      ),
      newestRows: (table, keys) => sink.newestRows(table, keys),
    });
    return { attached: { key, stream, cluster, epoch, expires: undefined }, position, previous: headAt(record) };
  }

  async #endPredecessor(source: string): Promise<void> {
    const running = this.#running.get(source);
    if (!running) return;
    running.abort.abort();
    await running.ended;
  }

  #take(source: string): Attached | undefined {
    const kept = this.#kept.get(source);
    this.#kept.delete(source);
    clearTimeout(kept?.expires);
    return kept;
  }

  #keep(source: string, attached: Attached): void {
    this.#discard(source);
    attached.expires = setTimeout(() => this.#discard(source), keepOpen);
    attached.expires.unref();
    this.#kept.set(source, attached);
  }

  #discard(source: string): void {
    const kept = this.#take(source);
    kept?.stream.close();
  }
}

function noBeginning(source: string): SluiceError {
  const remedy = `Make the copies anew: sluice sources resync ${source}`;
  return new SluiceError('slot_lost', 'there is no record of where the stream begins', remedy, { source });
}

/**
 * Leases are numbered for ever. A lower number than the last recorded one comes from a flow that somebody has set back
 * (Reset in Temporal UI), or from a worker that was forgotten: what it wrote would stand before what is there.
 */
function expectNewest({ request, lease }: LeaseInput, last: BatchRecord | undefined): void {
  const recorded = Math.floor((last?.lease ?? 0) / attemptsLimit);
  if (recorded <= lease) return;
  const reason = `lease ${recorded} has been recorded, so that lease ${lease} is out of date`;
  throw new SluiceError('conflict', reason, 'Nothing is to be done: the source goes on behind its last record.', {
    source: request.id,
  });
}

/** What a stream is opened for. */
function keyOf(keeper: SchemaKeeper, request: ConnectRequest): string {
  return JSON.stringify([keeper.tables, request]);
}

/** Recorded failures that still hold: a table that began anew since has failed no more. */
function failuresOf(tables: TableRef[], failed: Record<string, TableFailure>): Record<string, ErrorReport> {
  const found: Record<string, ErrorReport> = {};
  for (const { asset_id: asset, generation: current } of tables) {
    const { generation, ...report } = failed[asset] ?? {};
    if ('kind' in report && generation === current) found[asset] = report;
  }
  return found;
}

function summarize(
  ended: LeaseSummary['ended'],
  lease: number,
  loop: CaptureLoop,
  predecessors: Awaited<ReturnType<typeof readRecords>>,
  position: string,
): Omit<LeaseSummary, 'log'> {
  const assets: Record<string, AssetEffects> = { ...loop.assets };
  const { failed } = loop;
  const earlier = predecessors.filter((record) => record.kind === 'rows' || record.kind === 'truncate');
  let changes = loop.changes;
  for (const record of earlier) {
    changes += record.changes;
    for (const [asset, effects] of Object.entries(record.assets)) {
      assets[asset] ??= noEffects();
      addEffects(assets[asset], effects);
    }
  }
  const first = earlier[0] ?? loop.first;
  const last = loop.last ?? earlier.at(-1);
  return {
    ended: Object.keys(failed).length > 0 ? 'table_failed' : ended,
    lease,
    position_from: predecessors[0]?.position_from ?? position,
    position_to: loop.position,
    batches: loop.batches + earlier.length,
    changes,
    assets,
    first: first
      ? {
          id: first.id,
          position_from: first.position_from,
          position_to: first.position_to,
          committed_first: first.committed_first,
        }
      : null,
    last: last
      ? {
          id: last.id,
          position_from: last.position_from,
          position_to: last.position_to,
          committed_last: last.committed_last,
        }
      : null,
    hash: loop.hash,
    failed,
    ...(loop.returned.length > 0 && { returned: loop.returned }),
    ...(loop.news && { found: loop.news.found, left_out: loop.news.leftOut }),
  };
}
