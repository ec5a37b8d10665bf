/** Starts parts, starts again what dies, and stops all in the reverse order. */
import { setTimeout as sleep } from 'node:timers/promises';
import { asSluiceError, describeError } from '../../model/errors.ts';
import type { GuardedProcess } from './guarded_process.ts';

export interface Part {
  /** Key in `pids` of endpoints.json. */
  key: string;
  title: string;
  /** Starts it on the same data and ports each time; resolves when it is ready. */
  start(): Promise<GuardedProcess>;
  stopSignal: NodeJS.Signals;
  /** Milliseconds between the stop signal and SIGKILL. */
  grace: number;
}

interface Running {
  part: Part;
  child: GuardedProcess;
}

/** Milliseconds before a dead part is started again: doubled with each death in a row, up to the second. */
const backOff = [250, 30_000] as const;
/** A part that lived so long did not die in a row. */
const settled = 60_000;

export class Supervisor {
  readonly #running: Running[] = [];
  readonly #say: (line: string) => void;
  readonly #onStart: (part: string, child: GuardedProcess) => void;
  #stopping = false;

  /** `onStart` is told each process, those started again too. */
  constructor(say: (line: string) => void, onStart: (part: string, child: GuardedProcess) => void) {
    this.#say = say;
    this.#onStart = onStart;
  }

  /** Starts a part and keeps it running. Answers the milliseconds it took. Errors: those of the part. */
  async start(part: Part): Promise<number> {
    const begun = performance.now();
    const child = await part.start();
    const running = { part, child };
    this.#running.push(running);
    this.#onStart(part.key, child);
    if (this.#stopping) await stop(running);
    else void this.#keep(running);
    return performance.now() - begun;
  }

  /** Ends one part for good, before the others. */
  async stopPart(key: string): Promise<void> {
    const index = this.#running.findIndex(({ part }) => part.key === key);
    const [running] = index < 0 ? [] : this.#running.splice(index, 1);
    if (running) await stop(running);
  }

  /** Stops all, last started first, one after the other. */
  async stop(): Promise<void> {
    this.#stopping = true;
    for (let running = this.#running.pop(); running; running = this.#running.pop()) await stop(running);
  }

  /** SIGKILL to all at once. */
  kill(): void {
    this.#stopping = true;
    for (const { child } of this.#running) child.signal('SIGKILL');
  }

  async #keep(running: Running): Promise<void> {
    for (let deaths = 0; ; ) {
      const begun = Date.now();
      const { code, signal } = await running.child.exited;
      if (!this.#wanted(running)) return;
      if (Date.now() - begun > settled) deaths = 0;
      const { title } = running.part;
      this.#say(`${title} has ended (${signal ?? describeCode(code)}); it is started again`);
      const child = await this.#again(running, deaths);
      if (child === undefined) return;
      deaths++;
      running.child = child;
      this.#onStart(running.part.key, child);
      this.#say(`${title} is back (pid ${child.pid})`);
    }
  }

  /** Tries until it runs. Undefined when it is not wanted any more. */
  async #again(running: Running, deaths: number): Promise<GuardedProcess | undefined> {
    for (let failures = deaths; ; failures++) {
      await sleep(Math.min(backOff[0] * 2 ** failures, backOff[1]));
      if (!this.#wanted(running)) return undefined;
      try {
        const child = await running.part.start();
        if (this.#wanted(running)) return child;
        await stop({ part: running.part, child });
        return undefined;
      } catch (error) {
        if (!this.#wanted(running)) return undefined;
        this.#say(`${running.part.title} does not start: ${describeError(asSluiceError(error))}`);
      }
    }
  }

  #wanted(running: Running): boolean {
    return !this.#stopping && this.#running.includes(running);
  }
}

async function stop({ part, child }: Running): Promise<void> {
  await child.stop(part.stopSignal, part.grace);
}

/** The guard reports a signal as a shell does. */
function describeCode(code: number | null): string {
  return code !== null && code > 128 ? `signal ${code - 128}` : `exit code ${code}`;
}
