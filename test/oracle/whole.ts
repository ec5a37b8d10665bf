/**
 * The oracle over the whole system: real flows in Temporal, workers in processes of their own, the source behind a proxy. A plan
 * (plan.ts) kills one part, some, or all of them at once, and pauses, re-syncs and alters meanwhile; then the source says
 * whether its copies are right. What is planned follows from the seed; when it meets what, from the machine.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, WithStartWorkflowOperation } from '@temporalio/client';
import { ClickHouse } from '../../activities/load/clickhouse.ts';
import { SluiceError } from '../../model/errors.ts';
import { type ConnectAnswer, captureMessages, captureWorkflowId, flowNames } from '../../model/messages.ts';
import type { CaptureStatus, ConnectRequest } from '../../model/source.ts';
import { seededRandom } from '../../workers/demo/random.ts';
import type { StartedParts } from '../../workers/embedded/start_parts.ts';
import { askFlow, connectTemporal, updateFlow, updateWithStart } from '../../workers/temporal_client.ts';
import { alterTable } from './alterations.ts';
import { endClient, readClient } from './compare.ts';
import { Judge, persist } from './judge.ts';
import { type Act, type Plan, planOf, type WholePart } from './plan.ts';
import { ClickHouseProxy, randomTrouble } from './proxy.ts';
import { type RunResult, startDurableParts } from './run_result.ts';
import { SocketProxy } from './socket_proxy.ts';
import { oracleTables } from './tables.ts';
import { Workers } from './workers.ts';
import { Workload } from './workload.ts';

export type WholeParts = StartedParts<'postgres' | 'clickhouse' | 'temporal'>;

export function startWholeParts(): Promise<WholeParts> {
  return startDurableParts(['postgres', 'clickhouse', 'temporal']);
}

export interface WholeOptions {
  /** A whole number. */
  seed: string;
  /** Seconds of changes and faults, about. */
  seconds: number;
  log?: (line: string) => void;
}

export interface WholeResult extends RunResult {
  /** The last lease, and how often tables were copied. */
  leases: number;
  generations: number;
}

/** The same for all runs: the catalog is one for all sources of a Temporal. */
const taskQueue = 'whole';

let runs = 0;

/** Runs one seed on parts that may be used again. */
export async function runWhole(parts: WholeParts, options: WholeOptions): Promise<WholeResult> {
  return new Whole(parts, options, `w${process.pid}_${++runs}`).run();
}

/** Nothing of the copies has moved for so many milliseconds: it stands still. Several timeouts of Temporal's fit in. */
const patience = 120_000;

class Whole {
  readonly #parts: WholeParts;
  readonly #options: WholeOptions;
  readonly #source: string;
  readonly #flow: string;
  readonly #plan: Plan;
  readonly #clickhouse: ClickHouse;
  readonly #judge: Judge;
  readonly #problems: string[] = [];
  readonly #faults: Record<string, number> = {};
  /** What has begun and is to be undone: parts that are away, sources that are paused. */
  readonly #underWay = new Set<Promise<void>>();
  readonly #away = new Set<WholePart>();
  #trouble = 0;
  #client!: Client;
  #sockets!: SocketProxy;
  #inserts!: ClickHouseProxy;
  #workers!: Workers;
  #workload!: Workload;

  constructor(parts: WholeParts, options: WholeOptions, source: string) {
    this.#parts = parts;
    this.#options = options;
    this.#source = source;
    this.#flow = captureWorkflowId(source);
    this.#plan = planOf(options.seed, options.seconds);
    this.#clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: `copy_${source}`, role: 'read' });
    this.#judge = new Judge({
      seed: options.seed,
      source,
      url: () => this.#url,
      clickhouse: this.#clickhouse,
      tables: oracleTables,
      told: () => this.#inserts.told,
    });
  }

  get #url(): string {
    const url = new URL(this.#parts.postgres.url);
    url.pathname = `/${this.#source}`;
    return url.href;
  }

  async run(): Promise<WholeResult> {
    const startedAt = performance.now();
    let rows = 0;
    let status: CaptureStatus | undefined;
    try {
      await this.#begin();
      await this.#disturb();
      status = await this.#comeToRest();
      const compared = await this.#judge.compare(status.tables);
      rows = compared.rows;
      this.#problems.push(...compared.problems, ...this.#workers.crashes);
      if (this.#problems.length === 0) await this.#removeSource();
    } catch (error) {
      this.#problems.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
    }
    await this.#end().catch((error) => this.#problems.push(`end: ${String(error)}`));
    return {
      seed: this.#options.seed,
      ok: this.#problems.length === 0,
      problems: this.#problems,
      seconds: Math.round((performance.now() - startedAt) / 1000),
      rows,
      transactions: this.#workload?.committed ?? 0,
      faults: this.#faults,
      proxy: this.#inserts?.figures,
      leases: status?.lease ?? 0,
      generations: status?.tables.reduce((sum, { generation }) => sum + generation, 0) ?? 0,
    };
  }

  async #begin(): Promise<void> {
    const { seed } = this.#options;
    const server = await readClient(this.#parts.postgres.url);
    await server.query(`CREATE DATABASE ${this.#source}`);
    await endClient(server);
    const session = await readClient(this.#url);
    for (const statement of oracleTables.flatMap((table) => table.create)) await session.query(statement);
    await endClient(session);
    this.#sockets = await SocketProxy.start(() => this.#parts.postgres.port);
    this.#inserts = await ClickHouseProxy.start(
      this.#parts.clickhouse.url,
      randomTrouble(seededRandom(`${seed}/proxy`), () => this.#trouble),
    );
    this.#client = await connectTemporal({ temporalAddress: this.#parts.temporal.url, temporalNamespace: 'default' });
    this.#workers = new Workers(this.#plan.workers, this.#environment());
    this.#workload = new Workload({
      url: () => this.#url,
      tables: oracleTables,
      seed,
      sessions: this.#plan.sessions,
      waits: () => this.#judge.lag > 5_000_000,
    });
    this.#workload.resume();
    await sleep(500);
    await this.#connect();
    void this.#judge.watchSlot().then((problems) => this.#problems.push(...problems));
  }

  #environment(): NodeJS.ProcessEnv {
    const url = new URL(this.#url);
    url.port = String(this.#sockets.port);
    return {
      PATH: process.env.PATH,
      HOME: process.env.HOME,
      SLUICE_HOME: this.#parts.home,
      TEMPORAL_ADDRESS: this.#parts.temporal.url,
      TEMPORAL_TASK_QUEUE: taskQueue,
      CLICKHOUSE_URL: this.#inserts.url,
      CLICKHOUSE_DATABASE: this.#clickhouse.database,
      SLUICE_SECRET_KEY: 'test',
      SLUICE_ORACLE_URL: url.href,
      BUFFER_SIZE: String(this.#plan.bufferSize),
      SLUICE_LOOK_SECONDS: String(this.#plan.lookSeconds),
      LOG_LEVEL: 'error',
    };
  }

  async #connect(): Promise<void> {
    const { tables, ddlTrigger, leaseSeconds, leasesPerRun } = this.#plan;
    const request: ConnectRequest = {
      id: this.#source,
      type: 'postgresql',
      connection_string: '${SLUICE_ORACLE_URL}',
      config: { tables, poll_interval: 1, mode: 'copy', exclude_columns: {}, options: { ddl_trigger: ddlTrigger } },
    };
    const limits = { lease_seconds: leaseSeconds, leases_per_run: leasesPerRun };
    const start = () =>
      new WithStartWorkflowOperation(flowNames.captureSource, {
        workflowId: this.#flow,
        taskQueue,
        args: [request, { limits }],
        workflowIdConflictPolicy: 'USE_EXISTING',
      });
    await this.#tell('connect', () =>
      updateWithStart<ConnectAnswer>(this.#client, start(), captureMessages.connect, request),
    );
    await this.#order('start');
  }

  /** Sends until somebody answers; a refusal is an answer, too. */
  async #tell(what: string, send: () => Promise<unknown>): Promise<void> {
    for (const until = Date.now() + patience; ; ) {
      try {
        await send();
        return;
      } catch (error) {
        const kind = error instanceof SluiceError ? error.kind : 'unexpected';
        this.#log(`${what}: ${kind} ${String(error)}`);
        if (['conflict', 'configuration', 'not_found', 'table_missing', 'table_unusable'].includes(kind)) return;
        if (Date.now() > until) throw error;
        await sleep(300);
      }
    }
  }

  #order(order: keyof typeof captureMessages, input?: unknown): Promise<void> {
    return this.#tell(order, () => updateFlow(this.#client, this.#flow, captureMessages[order], input));
  }

  // --- Faults ---

  async #disturb(): Promise<void> {
    for (const { after, act } of this.#plan.acts) {
      await sleep(after);
      const { do: name, ...how } = act;
      this.#faults[name] = (this.#faults[name] ?? 0) + 1;
      this.#judge.noteFault(`${name} ${JSON.stringify(how)}`);
      this.#log(`${name} ${JSON.stringify(how)}`);
      const done: Promise<void> = this.#act(act)
        .catch((error) => void this.#problems.push(`${name}: ${String(error)}`))
        .finally(() => this.#underWay.delete(done));
      this.#underWay.add(done);
    }
  }

  async #act(act: Act): Promise<void> {
    switch (act.do) {
      case 'kill':
        await Promise.all(act.parts.map((part) => this.#kill(part, act.away)));
        return;
      case 'stall':
        return this.#stall(act.parts, act.for);
      case 'replace':
        return this.#workers.replace();
      case 'cut':
        return this.#sockets.cut(act.which);
      case 'freeze': {
        const end = this.#sockets.freeze();
        await sleep(act.for);
        return end();
      }
      case 'slow':
        this.#sockets.slow(act.bytesPerSecond);
        await sleep(act.for);
        return this.#sockets.slow(Number.POSITIVE_INFINITY);
      case 'trouble':
        this.#trouble = act.share;
        return;
      case 'pause':
      case 'stop':
        await this.#order(act.do);
        await sleep(act.for);
        return this.#order('resume');
      case 'addTable':
        return this.#order('addTables', { tables: [act.table] });
      case 'removeTable':
        return this.#order('removeTables', { tables: [act.table] });
      case 'resyncTable':
        return this.#order('resync', { tables: [act.table] });
      case 'resyncAll':
        return this.#order('resync');
      case 'alterTable':
        return this.#alter(act.table);
    }
  }

  async #kill(part: WholePart, away: number): Promise<void> {
    if (part === 'worker') {
      const again = this.#workers.kill();
      await sleep(away);
      return again();
    }
    if (this.#away.has(part)) return;
    this.#away.add(part);
    try {
      await this.#parts[part].kill();
      await sleep(away);
      await this.#parts[part].restart();
    } finally {
      this.#away.delete(part);
    }
  }

  async #stall(parts: readonly WholePart[], milliseconds: number): Promise<void> {
    const again = parts.map((part) => {
      if (part === 'worker') return this.#workers.stall();
      this.#parts[part].signal('SIGSTOP');
      return () => this.#parts[part].signal('SIGCONT');
    });
    await sleep(milliseconds);
    for (const goOn of again) goOn();
  }

  /** Nobody tells Sluice. */
  async #alter(table: string): Promise<void> {
    const client = await readClient(this.#url).catch(() => undefined);
    if (!client) return;
    const known = oracleTables.find(({ name }) => name === table)!;
    await alterTable(client, known, seededRandom(`${this.#options.seed}/${this.#faults.alterTable}`)).catch(() => {});
    await endClient(client);
  }

  // --- Rest ---

  /** Everything is whole again, nobody changes anything: waits until all of it is copied. */
  async #comeToRest(): Promise<CaptureStatus> {
    while (this.#underWay.size > 0) await Promise.all(this.#underWay);
    this.#trouble = 0;
    await this.#workload.pause();
    await this.#inserts.settled();
    this.#log('comes to rest');
    await this.#order('resume');
    // What sent no rows is seen by a look at the catalog.
    await sleep(this.#plan.lookSeconds * 1500);
    const client = await persist(() => readClient(this.#url));
    let status: CaptureStatus | undefined;
    let moved = { at: Date.now(), where: '' };
    try {
      for (;;) {
        const end = await this.#judge.endOfLog(client);
        status = await this.#heal();
        if (status && (await this.#isComplete(end, status))) {
          if ((await this.#judge.copiesFollowed(client, status.tables)) && (await this.#heal())) return status;
        }
        const where = `${await this.#judge.recordedEnd()} ${JSON.stringify(status?.tables)}`;
        if (where !== moved.where) moved = { at: Date.now(), where };
        if (Date.now() - moved.at > patience) throw new Error(await this.#stillness(client, status));
        await sleep(300);
      }
    } finally {
      await endClient(client);
    }
  }

  async #isComplete(end: bigint, { status, tables }: CaptureStatus): Promise<boolean> {
    const streams = status === 'streaming' && tables.every((table) => table.status === 'streaming');
    return streams && (await this.#judge.recordedWithin([end], 5_000));
  }

  /**
   * The source's state, once somebody did what people are told to: tables that were altered too often are re-synced. Undefined
   * when nobody answers. Throws what must not happen.
   */
  async #heal(): Promise<CaptureStatus | undefined> {
    const status = await askFlow<CaptureStatus>(this.#client, this.#flow, captureMessages.status).catch(
      () => undefined,
    );
    if (!status) return undefined;
    if (status.last_error) throw new Error(`the source failed: ${JSON.stringify(status.last_error)}`);
    const failed = status.tables.filter((table) => table.status === 'failed');
    for (const { table, error } of failed) {
      if (error?.kind !== 'table_changed') throw new Error(`${table} failed: ${JSON.stringify(error)}`);
      await this.#order('resync', { tables: [table] });
    }
    return failed.length > 0 ? undefined : status;
  }

  async #stillness(client: Parameters<Judge['whereabouts']>[0], status: CaptureStatus | undefined): Promise<string> {
    const where = await this.#judge.whereabouts(client);
    return `nothing moves on: ${JSON.stringify(status)}; ${where}; workers: ${this.#workers.said}`;
  }

  /** With the source goes all that was made in the database for it. */
  async #removeSource(): Promise<void> {
    await this.#order('remove', {});
    const client = await readClient(this.#url);
    const { rows } = await client.query<{ left: string }>(
      `SELECT 'slot ' || slot_name AS left FROM pg_replication_slots WHERE database = current_database()
       UNION ALL SELECT 'publication ' || pubname FROM pg_publication UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
       UNION ALL SELECT 'schema ' || nspname FROM pg_namespace WHERE nspname LIKE 'sluice%'`,
    );
    await endClient(client);
    for (const { left } of rows) this.#problems.push(`the source was removed, and left its ${left}`);
  }

  async #end(): Promise<void> {
    this.#judge.endWatch();
    await Promise.allSettled(this.#underWay);
    await this.#workload?.end();
    await this.#workers?.end();
    await this.#client?.workflow
      .getHandle(this.#flow)
      .terminate()
      .catch(() => {});
    await this.#client?.connection.close();
    await this.#sockets?.close();
    await this.#inserts?.close();
    const client = await readClient(this.#parts.postgres.url);
    const slot = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1`;
    await client.query(slot, [this.#source]).catch(() => {});
    await client.query(`DROP DATABASE IF EXISTS ${this.#source} WITH (FORCE)`).catch(() => {});
    await endClient(client);
    if (this.#problems.length === 0)
      await this.#clickhouse.command(`DROP DATABASE IF EXISTS ${this.#clickhouse.database}`).catch(() => {});
    await this.#clickhouse.close();
  }

  #log(line: string): void {
    this.#options.log?.(line);
  }
}
