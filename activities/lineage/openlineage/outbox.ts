/**
 * Events on their way to whoever collects them. Each is on disk before it counts as sent, and is taken away when it was taken: so it
 * arrives at least once, also after a crash, and nobody waits for it. What a process leaves behind, the next one delivers.
 */
import { randomUUID } from 'node:crypto';
import { appendFile, mkdir, readdir, readFile, rename, rm, stat, truncate, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RunEvent } from './run_event.ts';

/** Takes one event; throws when it could not. */
export type Deliver = (event: RunEvent) => Promise<void>;

/** It will never be taken as it is. */
export class Undeliverable extends Error {}

export interface OutboxOptions {
  folder: string;
  deliver: Deliver;
  /** Told what is dropped, and why delivery waits. */
  warn: (text: string) => void;
  /** Milliseconds before a delivery is tried again, at first and at most. */
  pauses?: { first: number; longest: number };
}

/** An outbox does not grow beyond this: newer events are dropped, and that is said. */
const mostBytes = 64 << 20;

export class Outbox {
  readonly #options: Required<OutboxOptions>;
  readonly #file: string;
  /** Writes happen one after another. */
  #last: Promise<unknown> = Promise.resolve();
  #bytes = 0;
  #delivering: Promise<void> | undefined;
  readonly #closed = new AbortController();
  /** Runs that began here and have not ended, with what they began with. */
  readonly #open = new Map<string, RunEvent>();

  constructor(options: OutboxOptions) {
    this.#options = { pauses: { first: 1_000, longest: 60_000 }, ...options };
    this.#file = path.join(options.folder, `${process.pid}-${randomUUID().slice(0, 8)}.ndjson`);
  }

  /** Delivers what earlier processes left, and ends the runs that died with them. */
  async adopt(): Promise<void> {
    const { folder } = this.#options;
    await mkdir(folder, { recursive: true, mode: 0o700 });
    // Events of a process come before the runs that it left open.
    for (const name of (await readdir(folder)).sort()) {
      const pid = Number(/^(\d+)-[0-9a-f]+\.(ndjson|open)$/.exec(name)?.[1]);
      if (!Number.isInteger(pid) || (pid !== process.pid && isAlive(pid)) || name.startsWith(this.#name)) continue;
      await this.#take(path.join(folder, name)).catch(() => {});
    }
  }

  get #name(): string {
    return path.basename(this.#file, '.ndjson');
  }

  /** Another process may take it at the same moment: whoever renames it has it. */
  async #take(file: string): Promise<void> {
    const mine = path.join(this.#options.folder, `${process.pid}-${randomUUID().slice(0, 8)}${path.extname(file)}`);
    await rename(file, mine);
    const events = parse(await readFile(mine, 'utf8'));
    const died = file.endsWith('.open');
    await this.#append(died ? events.map(aborted) : events);
    await rm(mine);
  }

  /** Puts an event in; never throws, and returns at once. */
  send(event: RunEvent): void {
    const { runId } = event.run;
    if (event.eventType === 'START') this.#open.set(runId, event);
    else if (event.eventType !== 'RUNNING') this.#open.delete(runId);
    const changed = event.eventType !== 'RUNNING';
    void this.#append([event], changed).catch((error: Error) =>
      this.#options.warn(`an event was lost: ${error.message}`),
    );
  }

  /** Returns when all that was put in is on disk. */
  async settled(): Promise<void> {
    await this.#last.catch(() => {});
  }

  /** Returns when all was delivered, or delivery was given up for now. */
  async delivered(): Promise<void> {
    await this.settled();
    await this.#delivering;
  }

  close(): void {
    this.#closed.abort();
  }

  #append(events: RunEvent[], changed = false): Promise<unknown> {
    return this.#alone(async () => {
      const text = events.map((event) => `${JSON.stringify(event)}\n`).join('');
      if (this.#bytes + text.length > mostBytes) throw new Error(`${mostBytes} bytes wait already in ${this.#file}`);
      await mkdir(this.#options.folder, { recursive: true, mode: 0o700 });
      await appendFile(this.#file, text, { mode: 0o600 });
      this.#bytes += text.length;
      if (changed) await this.#noteOpen();
      this.#delivering ??= this.#deliverAll();
    });
  }

  async #noteOpen(): Promise<void> {
    const file = this.#file.replace(/ndjson$/, 'open');
    if (this.#open.size === 0) return await rm(file, { force: true });
    await writeFile(file, [...this.#open.values()].map((event) => `${JSON.stringify(event)}\n`).join(''), {
      mode: 0o600,
    });
  }

  #alone<Answer>(work: () => Promise<Answer>): Promise<Answer> {
    const next = this.#last.then(work, work);
    this.#last = next.catch(() => {});
    return next;
  }

  /** In order, until nothing is left. What was delivered before a crash is delivered again after it. */
  async #deliverAll(): Promise<void> {
    let done = 0;
    for (;;) {
      const waiting = parse(await this.#alone(() => readFile(this.#file, 'utf8')).catch(() => ''));
      if (waiting.length === done) {
        const emptied = await this.#alone(() => this.#empty(done));
        if (emptied) return;
        continue;
      }
      for (const event of waiting.slice(done)) {
        if (!(await this.#deliver(event))) return;
        done += 1;
      }
    }
  }

  /** Takes the file away, unless more came meanwhile. */
  async #empty(done: number): Promise<boolean> {
    const { size } = await stat(this.#file).catch(() => ({ size: 0 }));
    if (size > 0 && parse(await readFile(this.#file, 'utf8')).length > done) return false;
    if (size > 0) await truncate(this.#file);
    await rm(this.#file, { force: true });
    this.#bytes = 0;
    // Here, where nobody appends: the next event begins anew.
    this.#delivering = undefined;
    return true;
  }

  /** False when this process ends. */
  async #deliver(event: RunEvent): Promise<boolean> {
    const { deliver, warn, pauses } = this.#options;
    for (let pause = pauses.first; !this.#closed.signal.aborted; pause = Math.min(2 * pause, pauses.longest)) {
      try {
        await deliver(event);
        return true;
      } catch (error) {
        const reason = error instanceof Error ? error.message : String(error);
        if (error instanceof Undeliverable) {
          warn(`an event was refused, and is left out: ${reason}`);
          return true;
        }
        if (pause === pauses.first) warn(`events wait: ${reason}`);
      }
      await sleep(pause, undefined, { ref: false, signal: this.#closed.signal }).catch(() => {});
    }
    return false;
  }
}

/** Half of a line is what a crash left of an event that was not sent. */
function parse(text: string): RunEvent[] {
  return text.split('\n').flatMap((line) => {
    try {
      return line === '' ? [] : [JSON.parse(line) as RunEvent];
    } catch {
      return [];
    }
  });
}

function aborted(begun: RunEvent): RunEvent {
  return { ...begun, eventType: 'ABORT', eventTime: new Date().toISOString() };
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}
