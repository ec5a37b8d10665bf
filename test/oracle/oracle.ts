/**
 * The oracle: changes a source at random while everything that can break is broken, and then asks the source itself
 * whether the copy is right. What is done follows from the seed; when it meets what, from the machine.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import type { TableRef } from '../../activities/capture/contract.ts';
import { ClickHouse } from '../../activities/load/clickhouse.ts';
import { tableAssetId } from '../../model/asset.ts';
import { attemptsLimit } from '../../model/batch.ts';
import { formatLsn, parseLsn } from '../../model/position.ts';
import { type Random, seededRandom } from '../../workers/demo/random.ts';
import type { StartedParts } from '../../workers/embedded/start_parts.ts';
import { alterTable } from './alterations.ts';
import { endClient, readClient } from './compare.ts';
import { OracleFlow } from './flow.ts';
import { Judge, persist } from './judge.ts';
import type { OracleTable } from './oracle_table.ts';
import { ClickHouseProxy, randomTrouble } from './proxy.ts';
import { type RunResult, startDurableParts } from './run_result.ts';
import { oracleTables } from './tables.ts';
import { Workload } from './workload.ts';

export interface OracleOptions {
  seed: string;
  /** Seconds of changes and faults before each comparison. */
  seconds: number;
  comparisons: number;
  /** Names of faults to take part; default all. */
  faults?: FaultName[];
  /** Names of tables; default all. */
  tables?: string[];
  log?: (line: string) => void;
}

export interface OracleResult extends RunResult {
  leases: number;
  attempts: number;
  chunks: number;
  snapshots: number;
  retries: number;
  /** Times that a table was found to be another one, and copied anew. */
  altered: number;
  /** Errors of the source's own decoding. */
  serverFaults: number;
}

export type OracleParts = StartedParts<'postgres' | 'clickhouse'>;

export function startOracleParts(): Promise<OracleParts> {
  return startDurableParts(['postgres', 'clickhouse']);
}

const faultNames = [
  'kill',
  'clickhouse',
  'stall',
  'postgres',
  'backend',
  'cut',
  'lease',
  'zombie',
  'trouble',
  'table',
  'alter',
] as const;
export type FaultName = (typeof faultNames)[number];

let runs = 0;

/** Runs one seed on parts that may be used again. */
export async function runOracle(parts: OracleParts, options: OracleOptions): Promise<OracleResult> {
  const oracle = new Oracle(parts, options, `o${process.pid}_${++runs}`);
  return oracle.run();
}

class Oracle {
  readonly #parts: OracleParts;
  readonly #options: OracleOptions;
  readonly #source: string;
  readonly #random: Random;
  readonly #tables: OracleTable[];
  readonly #problems: string[] = [];
  readonly #faults: Record<string, number> = {};
  readonly #clickhouse: ClickHouse;
  readonly #judge: Judge;
  #proxy!: ClickHouseProxy;
  #flow!: OracleFlow;
  #workload!: Workload;
  /** Probability that an insert is spoiled on its way. */
  #trouble = 0;

  constructor(parts: OracleParts, options: OracleOptions, source: string) {
    this.#parts = parts;
    this.#options = options;
    this.#source = source;
    this.#random = seededRandom(`${options.seed}/oracle`);
    const wanted = options.tables;
    this.#tables = oracleTables.filter((table) => !wanted || wanted.includes(table.name));
    this.#clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: `copy_${source}`, role: 'read' });
    this.#judge = new Judge({
      seed: options.seed,
      source,
      url: () => this.#url,
      clickhouse: this.#clickhouse,
      tables: this.#tables,
      told: () => this.#proxy.told,
    });
  }

  #log(line: string): void {
    this.#options.log?.(line);
  }

  get #url(): string {
    const url = new URL(this.#parts.postgres.url);
    url.pathname = `/${this.#source}`;
    return url.href;
  }

  async run(): Promise<OracleResult> {
    const startedAt = performance.now();
    let rows = 0;
    const { seed, seconds, comparisons } = this.#options;
    try {
      await this.#begin();
      for (let round = 0; round < comparisons && this.#problems.length === 0; round++) {
        await this.#disturb(seconds * 1000);
        rows = await this.#compare();
      }
    } catch (error) {
      this.#problems.push(error instanceof Error ? (error.stack ?? error.message) : String(error));
      this.#log(this.#problems.at(-1)!);
    } finally {
      await this.#end().catch((error) => this.#problems.push(`end: ${String(error)}`));
    }
    return {
      seed,
      ok: this.#problems.length === 0,
      problems: this.#problems,
      seconds: Math.round((performance.now() - startedAt) / 1000),
      rows,
      transactions: this.#workload?.committed ?? 0,
      faults: this.#faults,
      proxy: this.#proxy?.figures,
      ...this.#flow?.figures,
    };
  }

  async #begin(): Promise<void> {
    const client = await readClient(this.#parts.postgres.url);
    await client.query(`CREATE DATABASE ${this.#source}`);
    await endClient(client);
    const session = await readClient(this.#url);
    for (const statement of this.#tables.flatMap((table) => table.create)) await session.query(statement);
    await endClient(session);
    this.#proxy = await ClickHouseProxy.start(
      this.#parts.clickhouse.url,
      randomTrouble(seededRandom(`${this.#options.seed}/proxy`), () => this.#trouble),
    );
    // Small batches follow slowly: a backlog that is only read when all faults are over tells nothing more.
    const longestLag = this.#random.pick([500_000, 2_000_000, Number.POSITIVE_INFINITY]);
    this.#workload = new Workload({
      url: () => this.#url,
      tables: this.#tables,
      seed: this.#options.seed,
      sessions: this.#random.between(2, 5),
      waits: () => this.#judge.lag > longestLag,
    });
    // Rows of before, for the snapshots.
    this.#workload.resume();
    await sleep(500);
    this.#flow = this.#makeFlow();
    this.#flow.start();
    await this.#alterWhileBegun();
    while (this.#flow.figures.leases === 0 && !this.#flow.fatal) await sleep(20);
    void this.#judge.watchSlot().then((problems) => this.#problems.push(...problems));
  }

  #makeFlow(): OracleFlow {
    const random = this.#random;
    // Some tables are there from the beginning, others are added while all is under way.
    const first = this.#tables.filter(() => random.chance(0.8));
    const env = { ...process.env, SLUICE_ORACLE_URL: this.#url };
    const settings = {
      clickhouseUrl: this.#proxy.url,
      clickhouseDatabase: this.#clickhouse.database,
      secretKey: 'test',
      bufferSize: random.pick([10, 100, 1_000, 10_000]),
      lookEvery: random.pick([500, 2_000, 10_000]),
    };
    const request = {
      id: this.#source,
      type: 'postgresql' as const,
      connection_string: '${SLUICE_ORACLE_URL}',
      config: {
        tables: this.#tables.map((table) => table.name),
        poll_interval: 1,
        mode: 'copy' as const,
        exclude_columns: {},
        options: { ddl_trigger: random.chance(0.5) },
      },
    };
    this.#log(`buffer ${settings.bufferSize}`);
    return new OracleFlow(
      {
        start: { settings, request },
        env,
        random,
        cut: (table, chunks) => this.#cut(table, chunks),
        leaseSeconds: random.pick([1, 3, 600]),
      },
      (first.length > 0 ? first : this.#tables).map((table) => this.#ref(table)),
    );
  }

  #ref(table: OracleTable): TableRef {
    return {
      asset_id: tableAssetId(this.#source, 'public', table.name),
      schema: 'public',
      table: table.name,
      start_position: '',
      generation: 1,
    };
  }

  /** Small tables would have one chunk: their stored plan is replaced by one with random cuts. */
  async #cut(ref: TableRef, chunks: number): Promise<number> {
    const table = this.#tables.find((known) => known.name === ref.table)!;
    if (table.key.length === 0) return chunks;
    const keys = await persist(() => this.#keysOf(table));
    const cuts = keys.filter(() => this.#random.chance(4 / (keys.length + 1)));
    if (cuts.length === 0) return chunks;
    const bounds = [null, ...cuts, null].map((cut) => (cut === null ? '' : JSON.stringify(cut)));
    const plan = bounds.slice(1).map((upper, chunk) => ({
      source: this.#source,
      asset: ref.asset_id,
      generation: ref.generation,
      start: ref.start_position,
      // The first plan for a start counts: this one was there before all.
      plan: 'oracle',
      planned_at: '1970-01-01 00:00:00.000000',
      chunk,
      lower: bounds[chunk],
      upper,
    }));
    // Done and reported failed, it is done again: with the same cuts, or chunks of the first would be left out.
    await persist(() => this.#clickhouse.insertObjects('_chunks', plan));
    return plan.length;
  }

  /** Keys of a table in order, as the server writes them. */
  async #keysOf(table: OracleTable): Promise<string[][]> {
    const key = table.key.map((column) => `"${column}"`).join(', ');
    const client = await readClient(this.#url);
    try {
      const { rows } = await client.query({
        text: `SELECT ${key} FROM "${table.name}" ORDER BY ${key}`,
        rowMode: 'array',
        types: { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig,
      });
      return rows as string[][];
    } finally {
      await endClient(client);
    }
  }

  /** Changes and faults for a while; then all is healed. */
  async #disturb(milliseconds: number): Promise<void> {
    const random = this.#random;
    const end = Date.now() + milliseconds;
    const wanted = this.#options.faults ?? faultNames;
    this.#workload.resume();
    while (Date.now() < end && !this.#flow.fatal) {
      await sleep(Math.min(random.between(30, 1200), Math.max(0, end - Date.now())));
      const fault = random.pick(wanted);
      this.#faults[fault] = (this.#faults[fault] ?? 0) + 1;
      this.#judge.noteFault(fault);
      this.#log(`fault ${fault}`);
      await this.#fault(fault);
    }
    this.#trouble = 0;
  }

  async #fault(fault: FaultName): Promise<void> {
    const random = this.#random;
    const { postgres, clickhouse } = this.#parts;
    switch (fault) {
      case 'kill':
        return this.#flow.kill();
      case 'clickhouse':
        await clickhouse.kill();
        await sleep(random.between(0, 300));
        return clickhouse.restart();
      case 'stall':
        clickhouse.signal('SIGSTOP');
        await sleep(random.between(100, 2500));
        return clickhouse.signal('SIGCONT');
      case 'postgres':
        await postgres.kill();
        this.#log('postgres is gone');
        await sleep(random.between(0, 300));
        return postgres.restart();
      case 'backend':
        return this.#killBackend();
      case 'cut':
        return this.#cutConnections();
      case 'lease':
        return this.#flow.endLease();
      case 'zombie':
        return this.#flow.takeOver(random.pick([0, 0, 300, 1500]), random.between(0, 2000));
      case 'trouble':
        this.#trouble = random.pick([0, 0.02, 0.1, 0.3]);
        return;
      case 'table':
        return this.#flow.copyAnew(this.#ref(random.pick(this.#tables)));
      case 'alter':
        return this.#alter(random.pick(this.#tables));
    }
  }

  /** Alters some tables while the slot is made and the tables are first looked at. */
  async #alterWhileBegun(): Promise<void> {
    const made = 'SELECT FROM pg_replication_slots WHERE slot_name = $1';
    const client = await readClient(this.#parts.postgres.url);
    while (this.#flow.figures.leases === 0 && !this.#flow.fatal) {
      if ((await client.query(made, [`sluice_${this.#source}`])).rowCount === 1) break;
      await sleep(10);
    }
    await endClient(client);
    for (let alters = this.#random.between(0, 3); alters > 0; alters--) {
      await this.#alter(this.#random.pick(this.#tables));
      await sleep(this.#random.between(0, 100));
    }
  }

  /** Alters a table; nobody tells Sluice. */
  async #alter(table: OracleTable): Promise<void> {
    this.#flow.mayChange(this.#ref(table));
    const client = await readClient(this.#url).catch(() => undefined);
    if (!client) return;
    await alterTable(client, table, this.#random).catch(() => {});
    await endClient(client);
  }

  /** kill -9 of one server process: the server takes all sessions down and recovers from its log. */
  async #killBackend(): Promise<void> {
    const client = await readClient(this.#url).catch(() => undefined);
    if (!client) return;
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    process.kill(rows[0]!.pid, 'SIGKILL');
    await endClient(client);
  }

  /** Ends one of Sluice's sessions, or all of them. */
  async #cutConnections(): Promise<void> {
    const one = this.#random.chance(0.6) ? 'ORDER BY random() LIMIT 1' : '';
    const client = await readClient(this.#url).catch(() => undefined);
    await client
      ?.query(
        `SELECT pg_terminate_backend(pid) FROM (SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'sluice %' AND datname = current_database() ${one})`,
      )
      .catch(() => {});
    await endClient(client);
  }

  /** Waits until everything has arrived, and compares every table. Answers the number of rows. */
  async #compare(): Promise<number> {
    await this.#workload.pause();
    await this.#proxy.settled();
    // What sent no rows is seen by the next lease; it must also be seen by one that runs, ten seconds later.
    if (this.#random.chance(0.8)) await this.#begun(await this.#flow.nextLease());
    else await sleep(16_000);
    await this.#drain();
    const { rows, problems } = await this.#judge.compare(this.#flow.tables.map(({ ref }) => ref));
    this.#problems.push(...problems);
    this.#log(`compared ${rows} rows: ${this.#problems.length} problems`);
    return rows;
  }

  /** Until all that is committed is recorded, and all snapshots are complete. */
  async #drain(): Promise<void> {
    const client = await persist(() => readClient(this.#url));
    try {
      // Small batches take their time: only standing still is wrong.
      let moved = Date.now();
      let before: bigint | undefined;
      for (;;) {
        if (this.#flow.fatal) throw new Error(this.#flow.fatal);
        const targets = [await this.#judge.endOfLog(client), ...this.#completions()];
        const settled = this.#flow.settled && (await this.#judge.recordedWithin(targets, 3_000));
        const copies = this.#flow.tables.map(({ ref }) => ref);
        if (settled && this.#flow.settled && (await this.#judge.copiesFollowed(client, copies))) return;
        const now = await this.#judge.recordedEnd();
        if (now !== before) moved = Date.now();
        before = now;
        if (Date.now() - moved > 40_000)
          throw new Error(`nothing moves on from ${formatLsn(now ?? 0n)}: ${await this.#whereabouts(client)}`);
        await sleep(300);
      }
    } finally {
      await endClient(client);
    }
  }

  /** Returns when a lease has looked at its tables, and said that it begins. */
  async #begun(lease: number): Promise<void> {
    const until = Date.now() + 40_000;
    while (Date.now() < until && !this.#flow.fatal) {
      const [last] = await this.#clickhouse.rows<{ lease: string }>(
        `SELECT max(lease) AS lease FROM ${this.#clickhouse.name('_batches')} WHERE source = {source:String} AND kind = 'begin'`,
        { params: { source: this.#source } },
      );
      if (Number(last!.lease) >= lease * attemptsLimit) return;
      await sleep(150);
    }
  }

  /** What the flow and the source's sessions do. */
  async #whereabouts(client: pg.Client): Promise<string> {
    return `${this.#flow.describe()}; ${await this.#judge.whereabouts(client)}`;
  }

  /** Positions that complete snapshots. A table that is copied anew since has none yet: the flow is not settled then. */
  #completions(): bigint[] {
    return this.#flow.tables.flatMap(({ completeAt }) => completeAt ?? []).map(parseLsn);
  }

  async #end(): Promise<void> {
    this.#judge.endWatch();
    await this.#workload?.end();
    await this.#flow?.end();
    if (this.#flow?.fatal && !this.#problems.some((problem) => problem.includes(this.#flow.fatal!)))
      if (this.#problems.length === 0) this.#problems.push(this.#flow.fatal);
    await this.#proxy?.close();
    const client = await readClient(this.#parts.postgres.url);
    for (let tries = 0; tries < 50; tries++) {
      try {
        await client.query(
          'SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1',
          [`sluice_${this.#source}`],
        );
        await client.query(`DROP DATABASE IF EXISTS ${this.#source} WITH (FORCE)`);
        break;
      } catch {
        await sleep(100);
      }
    }
    await endClient(client);
    if (this.#problems.length === 0)
      await this.#clickhouse.command(`DROP DATABASE IF EXISTS ${this.#clickhouse.database}`).catch(() => {});
    await this.#clickhouse.close();
  }
}
