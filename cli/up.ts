/** `sluice up`: the whole stack on this machine, until Ctrl-C or for a time. */
import { asSluiceError, describeError, SluiceError } from '../model/errors.ts';
import { demoDeployment, deployDemoAssets } from '../workers/demo/deployment.ts';
import { connectDemoSource, demoSource } from '../workers/demo/source.ts';
import { finalCheck } from '../workers/embedded/final_check.ts';
import { makePlan } from '../workers/embedded/plan.ts';
import { RunRecord } from '../workers/embedded/run_record.ts';
import { Stack } from '../workers/embedded/stack.ts';
import { StackApi } from '../workers/embedded/stack_api.ts';
import { StatusLine } from '../workers/embedded/status_line.ts';
import { readSettings } from '../workers/settings.ts';

export interface UpOptions {
  /** `90`, `60s` or `5m`: ends by itself, and compares. */
  for?: string;
  /** False starts no generator and no source. */
  demo: boolean;
}

/** Runs the stack. Answers the exit code: 0 done or identical, 1 failed or not identical, 2 wrong usage. */
export async function up(options: UpOptions): Promise<number> {
  const seconds = options.for === undefined ? undefined : readDuration(options.for);
  if (Number.isNaN(seconds)) {
    process.stderr.write(`--for ${options.for}: give a time as 90, 60s or 5m\n`);
    return 2;
  }
  // State holds passwords and data: it is nobody else's to read.
  process.umask(0o077);
  const run = new Run(options.demo);
  try {
    return await run.go(seconds);
  } catch (error) {
    if (run.stopped) return 0;
    const known = asSluiceError(error);
    run.say(describeError(known));
    return known.kind === 'configuration' ? 2 : 1;
  } finally {
    await run.end();
  }
}

/** Seconds; NaN when it is no time. */
export function readDuration(text: string): number {
  const [, count, unit] = /^(\d{1,6})(s|m|h)?$/.exec(text) ?? [];
  return Number(count) * (unit === 'h' ? 3600 : unit === 'm' ? 60 : 1);
}

/** npm passes Ctrl-C on to a process that the terminal has told already: what comes so soon is the same one. */
const sameSignal = 1000;

class Run {
  readonly #demo: boolean;
  readonly #stop = new AbortController();
  #stoppedAt = 0;
  #stack: Stack | undefined;
  #record: RunRecord | undefined;
  #status: StatusLine | undefined;

  constructor(demo: boolean) {
    this.#demo = demo;
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => this.#onSignal());
  }

  /** True after a signal asked for the end. */
  get stopped(): boolean {
    return this.#stop.signal.aborted;
  }

  say(line: string): void {
    if (this.#status) this.#status.say(line);
    else process.stdout.write(`${line}\n`);
  }

  async go(seconds: number | undefined): Promise<number> {
    const say = (line: string) => this.say(line);
    // The folder first: a running stack, or the rest of a killed one, also holds the ports.
    this.#record = await RunRecord.take(readSettings().home, say);
    const stack = new Stack(await makePlan(this.#demo), this.#record, say);
    this.#stack = stack;
    await this.#untilStopped(stack.start());
    const begun = Date.now();
    const api = new StackApi(stack.addresses.api, stack.plan.apiToken);
    if (this.#demo) await this.#untilStopped(this.#connect(stack, api));
    for (const line of describe(stack, this.#demo)) say(line);
    this.#status = new StatusLine(api, process.stdout);
    if (seconds === undefined) return await this.#forever();
    await this.#untilStopped(pause(seconds * 1000 - (Date.now() - begun), this.#stop.signal));
    this.#endStatus();
    const simulated = this.#demo && stack.plan.ports.postgres !== undefined;
    say(`${seconds} s are over: ${simulated ? 'the generator stops, ' : ''}streams drain, copies are compared`);
    await this.#untilStopped(stack.stopPart('generator'));
    return (await this.#untilStopped(finalCheck(api, say, simulated ? [demoSource, demoDeployment] : []))) ? 0 : 1;
  }

  /** Stops what was started. */
  async end(): Promise<void> {
    this.#endStatus();
    if (this.#stack) {
      this.say('stopping');
      await this.#stack.stop();
      this.say('stopped');
    } else this.#record?.release();
  }

  async #forever(): Promise<number> {
    await this.#untilStopped(new Promise(() => {})).catch((error: unknown) => {
      if (!this.stopped) throw error;
    });
    return 0;
  }

  /** The demo's source and deployment, one beside the other. */
  async #connect(stack: Stack, api: StackApi): Promise<void> {
    const own = stack.plan.ports.postgres === undefined;
    await Promise.all([
      this.#step(stack, `source ${demoSource}`, () => connectDemoSource(api, own)),
      this.#step(stack, `deployment ${demoDeployment}`, () => deployDemoAssets(readSettings())),
    ]);
  }

  /** The stack is of use without what fails here, and its state can be looked at. */
  async #step(stack: Stack, title: string, work: () => Promise<void>): Promise<void> {
    const begun = performance.now();
    try {
      await work();
      stack.step(title, performance.now() - begun);
    } catch (error) {
      this.say(`${title}: ${describeError(asSluiceError(error))}`);
    }
  }

  /** The result, unless a signal comes first: then it throws, and `stopped` is true. */
  #untilStopped<T>(work: Promise<T>): Promise<T> {
    const { signal } = this.#stop;
    return new Promise((resolve, reject) => {
      const stopped = () => reject(new SluiceError('unexpected', 'a signal asked for the end', ''));
      if (signal.aborted) stopped();
      signal.addEventListener('abort', stopped, { once: true });
      work.then(resolve, reject).finally(() => signal.removeEventListener('abort', stopped));
    });
  }

  #onSignal(): void {
    if (!this.stopped) {
      this.#stoppedAt = Date.now();
      this.#stop.abort();
    } else if (Date.now() - this.#stoppedAt > sameSignal) {
      this.say('ending at once');
      this.#stack?.kill();
      process.exit(1);
    }
  }

  #endStatus(): void {
    this.#status?.end();
    this.#status = undefined;
  }
}

function pause(milliseconds: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, Math.max(0, milliseconds));
    signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  });
}

/** What a person can do now. */
function describe(stack: Stack, demo: boolean): string[] {
  const { api, temporalUi, temporal, clickhouse, postgres } = stack.addresses;
  const embedded = stack.plan.ports;
  const lines = [
    '',
    `Console      ${api}/`,
    `API          ${api}/docs`,
    `Temporal UI  ${temporalUi || `of ${temporal}`}`,
  ];
  if (embedded.clickhouse) {
    const table = demo && embedded.postgres ? 'sluice.postgres_main_transactions FINAL' : 'system.tables';
    lines.push(`ClickHouse   ${clickhouse}    curl '${clickhouse}' -d 'SELECT count() FROM ${table}'`);
  }
  if (embedded.postgres) lines.push(`PostgreSQL   psql '${postgres}'`);
  else if (demo)
    lines.push(`PostgreSQL   yours: connected, not started; to copy it: npx sluice sources start ${demoSource}`);
  if (demo)
    lines.push(`Assets       every 15 minutes; now: npx sluice run ${demoDeployment}; files: ${stack.plan.assetData}`);
  lines.push(`State, logs  ${stack.plan.home}`, 'Ctrl-C stops; the next start goes on from there', '');
  return lines;
}
