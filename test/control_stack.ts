/** The parts, a worker and an API server as processes, for tests of what people call: REST and the command line. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { nodeArguments } from '../workers/child.ts';
import { freePort } from '../workers/embedded/free_port.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { projectFolder } from '../workers/settings.ts';

export interface ControlStack {
  parts: StartedParts<'postgres' | 'clickhouse' | 'temporal'>;
  /** What processes of this stack need in their environment. */
  environment: NodeJS.ProcessEnv;
  /** `http://127.0.0.1:…` */
  api: string;
  /** `http://127.0.0.1:…` */
  temporalUi: string;
  /** The worker that was started first. */
  worker: ChildProcess;
  startWorker(): Promise<ChildProcess>;
  startApi(more?: NodeJS.ProcessEnv): Promise<{ child: ChildProcess; url: string }>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts all; about 5 s. `more` goes into the environment of the API, `shared` into that of all: it may ask the parts. */
export async function startControlStack(
  more: NodeJS.ProcessEnv = {},
  shared: (parts: ControlStack['parts']) => NodeJS.ProcessEnv | Promise<NodeJS.ProcessEnv> = () => ({}),
): Promise<ControlStack> {
  const temporalUiPort = await freePort();
  const parts = await startParts(['postgres', 'clickhouse', 'temporal'], { temporalUiPort });
  const children: ChildProcess[] = [];
  const environment = {
    PATH: process.env.PATH,
    HOME: process.env.HOME,
    SLUICE_HOME: parts.home,
    TEMPORAL_ADDRESS: parts.temporal.url,
    CLICKHOUSE_URL: parts.clickhouse.url,
    DATABASE_URL: parts.postgres.url,
    SLUICE_SECRET_KEY: 'a key for tests',
    SLUICE_API_PORT: '0',
    // What happens at leisure elsewhere is waited for here.
    SLUICE_LOOK_SECONDS: '1',
    SLUICE_TEMPORAL_UI_PORT: String(temporalUiPort),
    LOG_LEVEL: process.env.LOG_LEVEL ?? 'error',
    ...(await shared(parts)),
  };
  const start = async (file: string, env: NodeJS.ProcessEnv) => {
    const child = spawnNode(file, env);
    children.push(child);
    return { child, ready: await readyLine(child, file) };
  };
  const startWorker = async () => (await start('workers/worker.ts', environment)).child;
  const startApi = async (added: NodeJS.ProcessEnv = {}) => {
    const { child, ready } = await start('workers/api_server.ts', { ...environment, ...added });
    return { child, url: `http://127.0.0.1:${ready.port}` };
  };
  const dispose = async () => {
    await Promise.all(children.map(endChild));
    await parts[Symbol.asyncDispose]();
  };
  try {
    const [worker, { url }] = await Promise.all([startWorker(), startApi(more)]);
    const temporalUi = `http://127.0.0.1:${temporalUiPort}`;
    return { parts, environment, api: url, temporalUi, worker, startWorker, startApi, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  }
}

function spawnNode(file: string, env: NodeJS.ProcessEnv): ChildProcess {
  const options = {
    cwd: projectFolder,
    env,
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'] as ('ignore' | 'pipe' | 'inherit' | 'ipc')[],
  };
  return spawn(process.execPath, nodeArguments(file), options);
}

/** The line with which a process says that it is ready. */
async function readyLine(child: ChildProcess, file: string): Promise<{ port?: number }> {
  for await (const line of createInterface({ input: child.stdout! })) {
    if (line.startsWith('{"ready":true')) return JSON.parse(line);
  }
  throw new Error(`${file} ended before it was ready`);
}

/** Ends a process in order, and by force after ten seconds. */
export async function endChild(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const gone = new Promise((resolve) => child.once('exit', resolve));
  child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), 10_000);
  await gone;
  clearTimeout(timer);
}

/**
 * Waits until `look` gives something that is `right`; tells what was seen last when it never is. A look that fails is none:
 * on a machine that does much at once a question may go without an answer for the two seconds that it is given.
 */
export async function until<T>(look: () => Promise<T> | T, right: (value: T) => boolean, seconds = 30): Promise<T> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    let last: string;
    try {
      const seen = await look();
      if (right(seen)) return seen;
      last = JSON.stringify(seen);
    } catch (error) {
      last = String(error);
    }
    if (Date.now() > end) throw new Error(`not within ${seconds} s: ${last}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}
