/** The embedded stack: all parts, started in order, kept running, written down, stopped in order. */
import { renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../model/errors.ts';
import { type Endpoints, endpointsFile } from '../settings.ts';
import { startClickhouse } from './clickhouse_server.ts';
import { startNodePart } from './node_part.ts';
import { type Addresses, addressesOf, keepSecretKey, type Plan, partEnvironment } from './plan.ts';
import { startPostgresql } from './postgresql.ts';
import type { RunRecord } from './run_record.ts';
import { type Part, Supervisor } from './supervisor.ts';
import { findTemporal } from './temporal_binary.ts';
import { startTemporal } from './temporal_server.ts';

/** The database of the demo's bank in the embedded server. */
const demoDatabase = 'sluice_demo';

export class Stack {
  readonly plan: Plan;
  readonly #say: (line: string) => void;
  readonly #record: RunRecord;
  readonly #supervisor: Supervisor;
  #addresses: Addresses;
  #environment: NodeJS.ProcessEnv = {};
  /** True while endpoints.json is there, and has to follow the pids. */
  #announced = false;
  #step = 0;

  /** `record` holds the state folder; it is given free when the stack stops. */
  constructor(plan: Plan, record: RunRecord, say: (line: string) => void) {
    this.plan = plan;
    this.#say = say;
    this.#addresses = addressesOf(plan, undefined);
    this.#record = record;
    // What a run before this one wrote would mislead everybody until the end of the start.
    rmSync(endpointsFile(plan.home), { force: true });
    this.#supervisor = new Supervisor(say, (part, child) => {
      this.#record.add(part, child);
      if (this.#announced) this.#writeEndpoints();
    });
  }

  get addresses(): Addresses {
    return this.#addresses;
  }

  /** How many steps the start tells of. */
  get steps(): number {
    const { ports, demo } = this.plan;
    const embedded = [ports.temporal, ports.postgres, ports.clickhouse, ports.assetApi].filter(Boolean).length;
    return embedded + 2 + (demo && ports.postgres ? 1 : 0) + (demo ? 2 : 0);
  }

  /** Tells that a step is done. */
  step(title: string, milliseconds: number): void {
    this.#step++;
    this.#say(`[${this.#step}/${this.steps}] ${title} … ready in ${(milliseconds / 1000).toFixed(1)} s`);
  }

  /** Starts everything but the demo's source; endpoints.json is written at the end. Errors: those of the parts. */
  async start(): Promise<void> {
    const { ports } = this.plan;
    const binary = ports.temporal ? await findTemporal(this.#say, this.plan.environment) : '';
    const servers = [
      ports.temporal ? this.#temporal(binary, ports.temporal, ports.temporalUi ?? 0) : undefined,
      ports.postgres ? this.#postgres(ports.postgres) : undefined,
      ports.clickhouse ? this.#clickhouse(ports.clickhouse) : undefined,
    ];
    await this.#startAll(servers);
    this.#environment = partEnvironment(this.plan, this.#addresses, keepSecretKey(this.plan));
    const own = [
      ports.assetApi ? this.#node('asset_api', 'asset API', 'workers/demo/asset_api.ts') : undefined,
      this.#node('worker', 'worker', 'workers/worker.ts'),
      this.#node('api', 'API and console', 'workers/api_server.ts'),
    ];
    await this.#startAll(own);
    await this.#healthy();
    this.#announced = true;
    this.#writeEndpoints();
    if (this.plan.demo && ports.postgres) {
      const generator = this.#node('generator', 'generator of transactions', 'workers/demo/generator.ts');
      await this.#startAll([generator]);
    }
  }

  async stopPart(key: string): Promise<void> {
    await this.#supervisor.stopPart(key);
  }

  /** Clean stop: parts in reverse order, then the files that say that it runs. */
  async stop(): Promise<void> {
    this.#announced = false;
    rmSync(endpointsFile(this.plan.home), { force: true });
    await this.#supervisor.stop();
    this.#record.release();
  }

  /** Ends everything now; the next start recovers. */
  kill(): void {
    this.#supervisor.kill();
    rmSync(endpointsFile(this.plan.home), { force: true });
    this.#record.release();
  }

  /** Parts that do not need each other start side by side: the first failure counts. */
  async #startAll(parts: (Part | undefined)[]): Promise<void> {
    const results = await Promise.allSettled(
      parts.map(async (part) => {
        if (part) this.step(part.title, await this.#supervisor.start(part));
      }),
    );
    for (const result of results) if (result.status === 'rejected') throw result.reason;
  }

  #temporal(binary: string, port: number, uiPort: number): Part {
    const { home, namespace } = this.plan;
    const start = async () => (await startTemporal({ home, binary, port, uiPort, namespace })).child;
    return { key: 'temporal', title: 'Temporal with its UI', start, stopSignal: 'SIGTERM', grace: 10_000 };
  }

  #postgres(port: number): Part {
    const start = async () => {
      const { child, url } = await startPostgresql({ home: this.plan.home, port, database: demoDatabase });
      this.#addresses = addressesOf(this.plan, url);
      return child;
    };
    // Fast shutdown: sessions are ended, replication gets the last of the log.
    return { key: 'postgres', title: 'PostgreSQL 18', start, stopSignal: 'SIGINT', grace: 15_000 };
  }

  #clickhouse(port: number): Part {
    const start = async () => (await startClickhouse({ home: this.plan.home, port })).child;
    return { key: 'clickhouse', title: 'ClickHouse engine', start, stopSignal: 'SIGTERM', grace: 15_000 };
  }

  #node(key: string, title: string, file: string): Part {
    const logFile = path.join(this.plan.home, 'logs', `${key}.log`);
    const start = () => startNodePart({ name: title, file, env: this.#environmentOf(key), logFile });
    return { key, title, start, stopSignal: 'SIGTERM', grace: 15_000 };
  }

  #environmentOf(key: string): NodeJS.ProcessEnv {
    if (key !== 'generator') return this.#environment;
    // It writes: it gets the embedded database, and never one that a person named.
    return { ...this.#environment, SLUICE_DEMO_DATABASE_URL: this.#addresses.postgres };
  }

  async #healthy(): Promise<void> {
    const deadline = Date.now() + 60_000;
    let last = 'no answer';
    while (Date.now() < deadline) {
      try {
        const answer = await fetch(`${this.#addresses.api}/health`, { signal: AbortSignal.timeout(10_000) });
        if (answer.status === 200) return;
        last = (await answer.text()).slice(0, 500);
      } catch (error) {
        last = error instanceof Error ? error.message : String(error);
      }
      await sleep(200);
    }
    const log = path.join(this.plan.home, 'logs', 'api.log');
    throw new SluiceError('missing_part', `the API is not healthy after 60 s: ${last}`, `See ${log}.`, { file: log });
  }

  #writeEndpoints(): void {
    const { api, temporal, temporalUi, clickhouse, postgres, assetApi } = this.#addresses;
    const endpoints: Endpoints = {
      api,
      console: `${api}/`,
      temporal,
      temporal_ui: temporalUi,
      clickhouse,
      postgres,
      asset_api: assetApi,
      pid: process.pid,
      pids: this.#record.pids,
      asset_data: this.plan.assetData,
      home: this.plan.home,
    };
    const file = endpointsFile(this.plan.home);
    // Renamed into place: nobody reads half of it.
    writeFileSync(`${file}.draft`, `${JSON.stringify(endpoints, null, 2)}\n`, { mode: 0o600 });
    renameSync(`${file}.draft`, file);
  }
}
