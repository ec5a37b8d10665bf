/**
 * Chosen parts of the embedded stack, for tests and benchmarks, each on a free port in a folder that goes away:
 *
 * ```ts
 * await using parts = await startParts(['postgres', 'clickhouse']);          // about 2.5 s; 'temporal' too
 * const client = await connect({ connectionString: parts.postgres.url, applicationName: 'test' });
 * const clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'write' });
 * await parts.clickhouse.kill();                                             // SIGKILL, resolves when it is gone
 * await parts.clickhouse.restart();                                          // same data, same port, same url
 * ```
 * With `home`, data stay there. Parts end with the test's process, also when that is killed.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { startClickhouse } from './clickhouse_server.ts';
import { freePort } from './free_port.ts';
import type { GuardedProcess } from './guarded_process.ts';
import { startPostgresql } from './postgresql.ts';
import { findTemporal } from './temporal_binary.ts';
import { startTemporal } from './temporal_server.ts';

export type PartName = 'postgres' | 'clickhouse' | 'temporal';

export interface StartedPart {
  /** PostgreSQL: connection string with password; ClickHouse: http://…; Temporal: host:port. */
  readonly url: string;
  readonly port: number;
  /** Of the running process; another one after `restart`. */
  readonly pid: number;
  readonly logFile: string;
  /** SIGKILL; resolves when the process is gone. PostgreSQL's sessions end with it. */
  kill(): Promise<void>;
  /** Ends it in order; resolves when the process is gone. */
  stop(): Promise<void>;
  /** Ends it in order if it still runs, and starts it anew on the same data and port. */
  restart(): Promise<void>;
  /** Any other signal, e.g. SIGSTOP and SIGCONT. */
  signal(signal: NodeJS.Signals): void;
}

export type StartedParts<Name extends PartName> = Record<Name, StartedPart> & {
  readonly home: string;
  [Symbol.asyncDispose](): Promise<void>;
};

export interface StartPartsOptions {
  /** Kept at the end. Default: a new folder that is removed. */
  home?: string;
  /** More settings of PostgreSQL, `name=value`. */
  postgresSettings?: string[];
  /** Database of PostgreSQL; default `sluice_test`. */
  database?: string;
  namespace?: string;
  /** Port of Temporal UI; default: any free one. */
  temporalUiPort?: number;
}

/** Starts the parts side by side and returns when all are ready. Errors: `missing_part`, naming the log file. */
export async function startParts<Name extends PartName>(
  names: Name[],
  options: StartPartsOptions = {},
): Promise<StartedParts<Name>> {
  const home = options.home ? path.resolve(options.home) : mkdtempSync(path.join(tmpdir(), 'sluice-test-'));
  mkdirSync(home, { recursive: true });
  const parts = new Map<PartName, Part>();
  const end = async () => {
    await Promise.all([...parts.values()].map((part) => part.stop()));
    if (options.home === undefined) rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  };
  const made = await Promise.allSettled(
    names.map(async (name) => parts.set(name, await Part.start(await starterOf(name, home, options)))),
  );
  const failed = made.find((result) => result.status === 'rejected');
  if (failed !== undefined) {
    await end();
    throw failed.reason;
  }
  return { ...(Object.fromEntries(parts) as unknown as Record<Name, StartedPart>), home, [Symbol.asyncDispose]: end };
}

interface Starter {
  port: number;
  stopSignal: NodeJS.Signals;
  start(): Promise<{ child: GuardedProcess; url: string }>;
}

async function starterOf(name: PartName, home: string, options: StartPartsOptions): Promise<Starter> {
  const port = await freePort();
  if (name === 'clickhouse') return { port, stopSignal: 'SIGTERM', start: () => startClickhouse({ home, port }) };
  if (name === 'postgres') {
    const database = options.database ?? 'sluice_test';
    const settings = options.postgresSettings;
    const start = () => startPostgresql({ home, port, database, durable: false, settings });
    return { port, stopSignal: 'SIGINT', start };
  }
  const binary = await findTemporal((line) => console.error(line));
  const uiPort = options.temporalUiPort ?? (await freePort());
  const namespace = options.namespace ?? 'default';
  const start = async () => {
    const { child, address } = await startTemporal({ home, binary, port, uiPort, namespace });
    return { child, url: address };
  };
  return { port, stopSignal: 'SIGTERM', start };
}

class Part implements StartedPart {
  readonly port: number;
  readonly #starter: Starter;
  #running: { child: GuardedProcess; url: string };

  private constructor(starter: Starter, running: { child: GuardedProcess; url: string }) {
    this.port = starter.port;
    this.#starter = starter;
    this.#running = running;
  }

  static async start(starter: Starter): Promise<Part> {
    return new Part(starter, await starter.start());
  }

  get url(): string {
    return this.#running.url;
  }

  get pid(): number {
    return this.#running.child.pid;
  }

  get logFile(): string {
    return this.#running.child.logFile;
  }

  signal(signal: NodeJS.Signals): void {
    this.#running.child.signal(signal);
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL');
    await this.#running.child.exited;
  }

  async stop(): Promise<void> {
    await this.#running.child.stop(this.#starter.stopSignal, 10_000);
  }

  async restart(): Promise<void> {
    await this.stop();
    // A killed PostgreSQL's last sessions may hold its shared memory for a moment longer.
    for (let attempt = 1; ; attempt++) {
      try {
        this.#running = await this.#starter.start();
        return;
      } catch (error) {
        if (attempt === 10) throw error;
        await sleep(300);
      }
    }
  }
}
