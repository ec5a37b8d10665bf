/**
 * A child process that cannot outlive this one, even when this one is killed with -9 or the child hangs: a small shell
 * stands between them and blocks on a pipe whose other end only this process holds. When the pipe closes, the shell ends
 * the child. Children get no other end of any such pipe (Node opens them close-on-exec).
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { closeSync, mkdirSync, openSync, readFileSync, renameSync, statSync } from 'node:fs';
import path from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { redact } from '../../activities/secrets.ts';
import { SluiceError } from '../../model/errors.ts';
import { killExactly, processIdentity } from './process_identity.ts';

/*
 * $1 is the signal that ends the child when its parent is gone; three seconds later the whole group is killed.
 * fd 3 is the pipe from the parent, fd 4 takes the child's pid.
 */
const guardScript = `
signal=$1; shift
exec 3<&0 </dev/null
"$@" 3<&- 4>&- &
child=$!
echo "$child" >&4
exec 4>&-
{ read -r _ <&3; kill -s "$signal" "$child"; sleep 3; kill -s KILL -$$; } >/dev/null 2>&1 &
watcher=$!
exec 3<&-
wait "$child"
code=$?
kill -s KILL "$watcher" 2>/dev/null
exit "$code"
`;

export interface GuardedOptions {
  /** Shown in messages. */
  name: string;
  command: string;
  args: string[];
  /** The whole environment of the child. Default: that of this process. */
  env?: NodeJS.ProcessEnv;
  cwd?: string;
  /** Where stdout and stderr go, appended. */
  logFile: string;
  /** Runs the child as this user (only root can). */
  user?: { uid: number; gid: number };
  /** Sent to the child when this process has died. Default SIGKILL. */
  orphanSignal?: NodeJS.Signals;
}

export interface Exit {
  code: number | null;
  signal: NodeJS.Signals | null;
}

/** Log files larger than this are set aside (one old one is kept) when their part starts. */
const logLimit = 20_000_000;

export class GuardedProcess {
  readonly name: string;
  /** The child itself, not its guard. */
  readonly pid: number;
  readonly identity: string | undefined;
  readonly guardPid: number;
  readonly logFile: string;
  /** Resolves when the child has ended; never rejects. */
  readonly exited: Promise<Exit>;
  ended = false;

  private constructor(options: GuardedOptions, guard: ChildProcess, pid: number) {
    this.name = options.name;
    this.logFile = options.logFile;
    this.pid = pid;
    this.identity = processIdentity(pid);
    this.guardPid = guard.pid ?? 0;
    this.exited = new Promise((resolve) => {
      guard.once('exit', (code, signal) => {
        this.ended = true;
        // Somebody may have killed the guard alone: the child must not stay.
        killExactly(this.pid, this.identity);
        // The shell reports a child that a signal ended as 128 + its number.
        resolve({ code, signal });
      });
    });
  }

  /** Starts the child. Error: `missing_part` when it cannot be started at all. */
  static async start(options: GuardedOptions): Promise<GuardedProcess> {
    const log = openLog(options.logFile);
    let guard: ChildProcess;
    try {
      guard = spawn(
        '/bin/sh',
        [
          '-c',
          guardScript,
          'sluice-guard',
          (options.orphanSignal ?? 'SIGKILL').slice(3),
          options.command,
          ...options.args,
        ],
        {
          stdio: ['pipe', log, log, 'ignore', 'pipe'],
          env: options.env ?? process.env,
          cwd: options.cwd,
          // A group of its own: Ctrl-C in the terminal reaches this process alone, which then stops parts in order.
          detached: true,
          ...options.user,
        },
      );
    } finally {
      closeSync(log);
    }
    const pid = await readPid(guard, options.name);
    guard.stdin?.on('error', () => {});
    return new GuardedProcess(options, guard, pid);
  }

  /** Sends a signal to the child, if it still runs. */
  signal(signal: NodeJS.Signals): void {
    if (!this.ended) killExactly(this.pid, this.identity, signal);
  }

  /** Asks by `signal`, and kills after `graceMs`. Resolves when the child has ended. */
  async stop(signal: NodeJS.Signals = 'SIGTERM', graceMs = 10_000): Promise<Exit> {
    this.signal(signal);
    const timer = setTimeout(() => this.signal('SIGKILL'), graceMs);
    try {
      return await this.exited;
    } finally {
      clearTimeout(timer);
    }
  }
}

/**
 * Waits until `ready` answers true. Error: `missing_part` when the child ends before, or the time is over; it names the
 * log file and quotes its last line, redacted.
 */
export async function waitReady(
  child: GuardedProcess,
  ready: () => Promise<boolean>,
  timeoutMs: number,
): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    if (child.ended) {
      const { code, signal } = await child.exited;
      throw failed(child, `ended at once (${signal ?? `code ${code}`})`);
    }
    if (await ready().catch(() => false)) return;
    if (Date.now() > deadline) throw failed(child, `was not ready after ${Math.round(timeoutMs / 1000)} s`);
    await sleep(50);
  }
}

function failed(child: GuardedProcess, what: string): SluiceError {
  const line = lastLine(child.logFile);
  const reason = `${child.name} ${what}${line ? `: ${line}` : ''}`;
  return new SluiceError('missing_part', reason, `See ${child.logFile}.`, { file: child.logFile });
}

function lastLine(file: string): string {
  try {
    const lines = readFileSync(file, 'utf8').trimEnd().split('\n');
    return redact(lines.at(-1) ?? '').slice(0, 300);
  } catch {
    return '';
  }
}

function openLog(file: string): number {
  mkdirSync(path.dirname(file), { recursive: true });
  if ((statSync(file, { throwIfNoEntry: false })?.size ?? 0) > logLimit) renameSync(file, `${file}.1`);
  return openSync(file, 'a', 0o600);
}

function readPid(guard: ChildProcess, name: string): Promise<number> {
  return new Promise((resolve, reject) => {
    const refuse = (reason: string) =>
      reject(new SluiceError('missing_part', `${name} cannot be started: ${reason}`, 'See that /bin/sh works.'));
    guard.once('error', (error) => refuse(error.message));
    const pipe = guard.stdio[4] as Readable;
    let text = '';
    pipe.on('data', (chunk: Buffer) => {
      text += chunk.toString('latin1');
    });
    pipe.once('close', () => {
      const pid = Number.parseInt(text, 10);
      if (pid > 0) resolve(pid);
      else refuse('its guard ended');
    });
  });
}
