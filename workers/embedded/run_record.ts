/**
 * `$home/run.json`: who runs in this state folder. It is the lock of the folder, and tells the next start which processes
 * of a run that was killed are still there.
 */
import { linkSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { SluiceError } from '../../model/errors.ts';
import { endpointsFile } from '../settings.ts';
import type { GuardedProcess } from './guarded_process.ts';
import { killExactly, processIdentity } from './process_identity.ts';

interface ProcessRecord {
  pid: number;
  /** With it the pid cannot be mistaken for that of a later process. */
  identity: string | undefined;
}

interface Run extends ProcessRecord {
  parts: Record<string, ProcessRecord>;
}

export class RunRecord {
  readonly #file: string;
  readonly #run: Run;

  private constructor(file: string, run: Run) {
    this.#file = file;
    this.#run = run;
  }

  /**
   * Takes the state folder for this process. What a killed run left is ended and removed, told through `say`. Error:
   * `conflict` when another stack runs there.
   */
  static async take(home: string, say: (line: string) => void): Promise<RunRecord> {
    mkdirSync(home, { recursive: true, mode: 0o700 });
    const file = path.join(home, 'run.json');
    const run: Run = { pid: process.pid, identity: processIdentity(process.pid), parts: {} };
    // Linked, not written: of two that start at once, one fails.
    const draft = `${file}.${process.pid}`;
    writeFileSync(draft, JSON.stringify(run), { mode: 0o600 });
    try {
      for (let attempt = 0; ; attempt++) {
        try {
          linkSync(draft, file);
          return new RunRecord(file, run);
        } catch (error) {
          if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || attempt > 3) throw error;
          await cleanUp(home, file, say);
        }
      }
    } finally {
      rmSync(draft, { force: true });
    }
  }

  /** Records a part's process; called again after a restart. */
  add(part: string, child: GuardedProcess): void {
    this.#run.parts[part] = { pid: child.pid, identity: child.identity };
    const draft = `${this.#file}.${process.pid}`;
    writeFileSync(draft, JSON.stringify(this.#run), { mode: 0o600 });
    renameSync(draft, this.#file);
  }

  get pids(): Record<string, number> {
    return Object.fromEntries(Object.entries(this.#run.parts).map(([part, { pid }]) => [part, pid]));
  }

  /** Gives the folder free. */
  release(): void {
    if (readRun(this.#file)?.pid === process.pid) rmSync(this.#file, { force: true });
  }
}

/** The pid of the stack that runs in this folder, if one does. */
export function runningStack(home: string): number | undefined {
  const run = readRun(path.join(home, 'run.json'));
  return run?.identity !== undefined && processIdentity(run.pid) === run.identity ? run.pid : undefined;
}

async function cleanUp(home: string, file: string, say: (line: string) => void): Promise<void> {
  const running = runningStack(home);
  if (running !== undefined) {
    throw new SluiceError(
      'conflict',
      `Sluice runs already on ${home} (pid ${running})`,
      'Stop that one (Ctrl-C there), or set SLUICE_HOME to another folder and the SLUICE_…_PORT variables to other ports.',
    );
  }
  const ended = Object.entries(readRun(file)?.parts ?? {}).filter(([, { pid, identity }]) =>
    killExactly(pid, identity),
  );
  for (const [, { pid, identity }] of ended) await gone(pid, identity);
  const names = ended.map(([part, { pid }]) => `${part} (pid ${pid})`);
  say(`the last run in ${home} was killed${names.length > 0 ? `; ended what it left: ${names.join(', ')}` : ''}`);
  rmSync(endpointsFile(home), { force: true });
  rmSync(file, { force: true });
}

/** A killed process keeps its ports and locks until the system has taken it down. */
async function gone(pid: number, identity: string | undefined): Promise<void> {
  for (let wait = 0; wait < 100 && processIdentity(pid) === identity; wait++) await sleep(50);
}

function readRun(file: string): Run | undefined {
  try {
    const run = JSON.parse(readFileSync(file, 'utf8')) as Partial<Run>;
    return typeof run.pid === 'number' ? { pid: run.pid, identity: run.identity, parts: run.parts ?? {} } : undefined;
  } catch {
    return undefined;
  }
}
