/** Python's Jinja2 beside the tests: installed once into a cache folder, then one process that answers requests. */
import { type ChildProcessByStdio, execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdir, rm, writeFile } from 'node:fs/promises';
import { homedir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import type { Readable, Writable } from 'node:stream';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';

const versions = ['jinja2==3.1.6', 'markupsafe==3.0.2'];

/** A value for the oracle: its type and its content. */
export type Encoded =
  | { t: 'none' }
  | { t: 'int' | 'float' | 'decimal' | 'date' | 'datetime'; v: string }
  | { t: 'str'; v: string }
  | { t: 'bool'; v: boolean }
  | { t: 'list'; v: Encoded[] }
  | { t: 'dict'; v: [Encoded, Encoded][] };

export interface Request {
  /**
   * `value`: an expression, as it stands inside of `{{ }}` · `text`: a whole template · `plain`: a whole template, in a
   * Jinja2 that does not know of the differences that rules make.
   */
  mode: 'value' | 'text' | 'plain';
  source: string;
  row: Record<string, Encoded>;
}

export type Answer =
  | { ok: true; type: string; repr: string }
  /** `tooLarge`: Python ran out of time or memory, which says nothing about the result. */
  | { ok: false; error: string; tooLarge?: boolean };

const run = promisify(execFile);

async function findPython(): Promise<string> {
  for (const program of ['python3', 'python']) {
    const found = await run(program, ['-c', 'import sys; assert sys.version_info >= (3, 9)']).then(
      () => true,
      () => false,
    );
    if (found) return program;
  }
  throw new Error('no python3 of version 3.9 or newer: install it, the tests compare with its Jinja2');
}

/** Where Jinja2 is, as PYTHONPATH; installed with pip when it is not there yet. */
async function installJinja(python: string): Promise<string> {
  const cache = path.join(process.env.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'sluice', 'jinja2');
  const { stdout } = await run(python, ['-c', 'import sys; print("%d.%d" % sys.version_info[:2])']);
  const folder = path.join(cache, `${versions.join('-').replaceAll('==', '-')}-python${stdout.trim()}`);
  const complete = path.join(folder, 'complete');
  if (existsSync(complete)) return path.join(folder, 'packages');
  await rm(folder, { recursive: true, force: true });
  await mkdir(folder, { recursive: true });
  const pip = await findPip(python, path.join(folder, 'venv'));
  await run(pip, ['-m', 'pip', 'install', '--quiet', '--target', path.join(folder, 'packages'), ...versions], {
    timeout: 150_000,
  });
  await writeFile(complete, '');
  return path.join(folder, 'packages');
}

/** A Python that has pip: a virtual environment where one can be made, since many systems keep pip from their own. */
async function findPip(python: string, folder: string): Promise<string> {
  try {
    await run(python, ['-m', 'venv', folder], { timeout: 120_000 });
    return path.join(folder, 'bin', 'python');
  } catch {
    return python;
  }
}

/** The running Python. Requests are answered in their order. */
export class Python {
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  readonly #waiting: { resolve: (answer: Answer) => void; reject: (error: Error) => void }[] = [];

  private constructor(child: ChildProcessByStdio<Writable, Readable, null>) {
    this.#child = child;
    createInterface({ input: child.stdout }).on('line', (line) => this.#waiting.shift()?.resolve(JSON.parse(line)));
    child.on('exit', (code) => {
      for (const { reject } of this.#waiting.splice(0))
        reject(new Error(`the Python of the oracle ended with ${code}`));
    });
  }

  static async start(): Promise<Python> {
    const python = await findPython();
    const packages = await installJinja(python);
    const script = path.join(path.dirname(fileURLToPath(import.meta.url)), 'oracle.py');
    const child = spawn(python, ['-X', 'utf8', script], {
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, PYTHONPATH: packages, PYTHONDONTWRITEBYTECODE: '1', PYTHONHASHSEED: '0', TZ: 'UTC' },
    });
    const started = new Python(child);
    const answer = await started.ask({ mode: 'value', source: '1 + 1', row: {} });
    if (!answer.ok || answer.repr !== '2') throw new Error(`the oracle does not work: ${JSON.stringify(answer)}`);
    return started;
  }

  ask(request: Request): Promise<Answer> {
    return new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      this.#child.stdin.write(`${JSON.stringify(request)}\n`);
    });
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once('exit', resolve));
    this.#child.stdin.end();
    await ended;
  }
}
