/** The flows when processes die: workers killed or ended, Temporal killed, and started again. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { type Client, WithStartWorkflowOperation } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { SluiceError } from '../model/errors.ts';
import { type ConnectAnswer, captureWorkflowId, flowNames } from '../model/messages.ts';
import type { CaptureStatus, ConnectRequest } from '../model/source.ts';
import { nodeArguments } from '../workers/child.ts';
import { projectFolder } from '../workers/settings.ts';
import { askFlow, connectTemporal, updateFlow, updateWithStart } from '../workers/temporal_client.ts';
import { type Call, newScript, type Script } from './scripted_capture.ts';
import { startTemporal, type TemporalServer } from './temporal_server.ts';

let server: TemporalServer;
let client: Client;
const workers: WorkerProcess[] = [];

beforeAll(async () => {
  server = await startTemporal();
  client = await connectTemporal({ temporalAddress: server.address, temporalNamespace: 'default' });
}, 60_000);

afterAll(async () => {
  for (const worker of workers) await worker.end('SIGKILL');
  await client?.connection.close();
  await server?.stop();
});

/** A worker in a process of its own, and what it says. */
class WorkerProcess {
  readonly calls: Call[] = [];
  readonly log: string[] = [];
  ready = false;
  readonly #child: ChildProcess;
  readonly #gone: Promise<number | null>;

  constructor(
    program: [file: string, ...args: string[]],
    environment: NodeJS.ProcessEnv,
    stdio: 'ipc' | 'ignore' = 'ignore',
  ) {
    this.#child = spawn(process.execPath, nodeArguments(...program), {
      cwd: projectFolder,
      env: { ...process.env, SLUICE_HOME: server.folder, TEMPORAL_ADDRESS: server.address, ...environment },
      stdio: ['ignore', 'pipe', 'pipe', stdio],
    });
    this.#gone = new Promise((resolve) => this.#child.once('exit', (code) => resolve(code)));
    createInterface({ input: this.#child.stderr! }).on('line', (line) => this.log.push(line));
    createInterface({ input: this.#child.stdout! }).on('line', (line) => {
      const said = JSON.parse(line) as Call | { ready: true };
      if ('ready' in said) this.ready = true;
      else this.calls.push(said);
    });
    workers.push(this);
  }

  running(name: string): Call[] {
    const ended = new Set(this.calls.filter((call) => call.ended).map((call) => call.began));
    return this.calls.filter((call) => call.name === name && !call.ended && !ended.has(call.began));
  }

  async end(signal: NodeJS.Signals): Promise<number | null> {
    if (this.#child.exitCode === null && this.#child.signalCode === null) this.#child.kill(signal);
    return this.#gone;
  }

  disconnect(): Promise<number | null> {
    this.#child.disconnect();
    return this.#gone;
  }
}

async function scriptedWorker(queue: string, source: string, script: Script): Promise<WorkerProcess> {
  const file = 'test/flows_worker.ts';
  const worker = new WorkerProcess([file, JSON.stringify([source, script])], { TEMPORAL_TASK_QUEUE: queue });
  await until('ready', () => worker.ready);
  return worker;
}

async function until(what: string, look: () => boolean | Promise<boolean>, seconds = 30): Promise<void> {
  const end = Date.now() + seconds * 1000;
  while (!(await look())) {
    if (Date.now() > end) throw new Error(`not ${what} within ${seconds} s\n${workers.at(-1)?.log.join('\n')}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

async function connectAndStart(source: string, queue: string): Promise<string> {
  const request: ConnectRequest = {
    id: source,
    type: 'postgresql',
    connection_string: '${DATABASE_URL}',
    config: { poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} },
  };
  const flow = captureWorkflowId(source);
  const start = new WithStartWorkflowOperation(flowNames.captureSource, {
    workflowId: flow,
    taskQueue: queue,
    args: [request],
    workflowIdConflictPolicy: 'USE_EXISTING',
  });
  await updateWithStart<ConnectAnswer>(client, start, 'connect', request);
  await updateFlow(client, flow, 'start');
  return flow;
}

/** False also while nobody answers: a new worker needs a moment. */
async function isStreaming(flow: string): Promise<boolean> {
  try {
    return (await askFlow<CaptureStatus>(client, flow, 'status')).status === 'streaming';
  } catch {
    return false;
  }
}

describe.concurrent('a worker', () => {
  it('that is killed is followed by the next attempt of the same lease, within the heartbeat timeout', async () => {
    const script = newScript(['accounts']);
    const first = await scriptedWorker('killed', 'killed', script);
    const flow = await connectAndStart('killed', 'killed');
    await until('streaming', () => isStreaming(flow));
    await first.end('SIGKILL');
    const killed = Date.now();
    const second = await scriptedWorker('killed', 'killed', script);
    await until('a lease', () => second.running('captureLease').length > 0);
    expect(second.running('captureLease')).toMatchObject([{ lease: 1, attempt: 2 }]);
    expect(Date.now() - killed).toBeLessThan(30_000);
    const asked = Date.now();
    // The first task of a flow still goes to the queue of the dead worker, for a second; a heartbeat's timeout is 10.
    await updateFlow(client, flow, 'pause');
    expect(Date.now() - asked).toBeLessThan(8_000);
    expect(second.running('captureLease')).toEqual([]);
  });

  it('that is killed leaves a pause that was asked for meanwhile to the next worker', async () => {
    const script = newScript(['accounts']);
    const first = await scriptedWorker('meanwhile', 'meanwhile', script);
    const flow = await connectAndStart('meanwhile', 'meanwhile');
    await until('streaming', () => isStreaming(flow));
    await first.end('SIGKILL');
    const asked = updateFlow<CaptureStatus>(client, flow, 'pause');
    const late = asked.catch((error: SluiceError) => error.kind);
    const second = await scriptedWorker('meanwhile', 'meanwhile', script);
    const status = () => askFlow<CaptureStatus>(client, flow, 'status');
    await until('paused', () =>
      status().then(
        (it) => it.status === 'paused',
        () => false,
      ),
    );
    await late;
    await new Promise((resolve) => setTimeout(resolve, 12_000));
    expect(await status()).toMatchObject({ status: 'paused', last_error: null });
    expect(second.running('captureLease')).toEqual([]);
  });

  it('that is killed loses no chunk of a snapshot', async () => {
    const script = { ...newScript(['accounts']), chunks: 10, chunkMilliseconds: 400 };
    const first = await scriptedWorker('halfway', 'halfway', script);
    const flow = await connectAndStart('halfway', 'halfway');
    await until('some chunks', () => first.calls.filter((call) => call.name === 'copyChunk' && call.ended).length >= 3);
    await first.end('SIGKILL');
    const second = await scriptedWorker('halfway', 'halfway', script);
    await until('streaming', () => isStreaming(flow), 45);
    const all = [...first.calls, ...second.calls].filter((call) => call.name === 'copyChunk' && call.ended);
    expect(new Set(all.map((call) => call.chunk)).size).toBe(10);
    expect(second.calls.some((call) => call.name === 'planSnapshot')).toBe(false);
  });

  it('that is told to end lets its lease write the last batch; the next worker goes on with the next lease and the same chunk', async () => {
    const script = { ...newScript(['accounts']), chunks: 4, chunkMilliseconds: 3000 };
    const first = await scriptedWorker('ended', 'ended', script);
    const flow = await connectAndStart('ended', 'ended');
    await until('a chunk', () => first.running('copyChunk').length > 0);
    const asked = Date.now();
    expect(await first.end('SIGTERM')).toBe(0);
    expect(Date.now() - asked).toBeLessThan(10_000);
    expect(first.running('captureLease')).toEqual([]);
    const second = await scriptedWorker('ended', 'ended', script);
    await until('a lease', () => second.running('captureLease').length > 0);
    expect(second.running('captureLease')).toMatchObject([{ lease: 2, attempt: 1 }]);
    await until('streaming', () => isStreaming(flow), 45);
    const chunks = second.calls.filter((call) => call.name === 'copyChunk' && call.ended);
    expect(new Set(chunks.map((call) => call.chunk)).size).toBe(4);
  });
});

describe('Temporal', () => {
  it('is told by its address when it does not answer', async () => {
    const nowhere = connectTemporal({ temporalAddress: '127.0.0.1:1', temporalNamespace: 'default' });
    const failure = { kind: 'temporal_unreachable', message: 'Temporal does not answer at 127.0.0.1:1' };
    await expect(nowhere).rejects.toMatchObject(failure);
  });

  it('may be away when the worker starts, and go away while a lease runs', async () => {
    const script = newScript(['accounts']);
    let worker: WorkerProcess | undefined;
    await server.restart(async () => {
      worker = new WorkerProcess(['test/flows_worker.ts', JSON.stringify(['away', script])], {
        TEMPORAL_TASK_QUEUE: 'away',
      });
      await until('told', () => worker!.log.some((line) => line.includes('Temporal does not answer')));
    });
    await until('ready', () => worker!.ready);
    const flow = await connectAndStart('away', 'away');
    await until('streaming', () => isStreaming(flow));
    await server.restart(() => new Promise((resolve) => setTimeout(resolve, 3000)));
    await until('answering', () => isStreaming(flow));
    await until('a lease', () => worker!.running('captureLease').length > 0);
    await updateFlow(client, flow, 'pause');
    expect(worker!.running('captureLease')).toEqual([]);
  });
});

describe('the worker process', () => {
  it('says when it is ready, and exits at once when its parent has gone', async () => {
    const worker = new WorkerProcess(['workers/worker.ts'], { TEMPORAL_TASK_QUEUE: 'orphan' }, 'ipc');
    const asked = Date.now();
    await until('ready', () => worker.ready);
    expect(Date.now() - asked).toBeLessThan(40_000);
    const left = Date.now();
    expect(await worker.disconnect()).toBe(1);
    expect(Date.now() - left).toBeLessThan(5_000);
  });

  it('ends with 0 at SIGTERM, even when Temporal never answered', async () => {
    const nowhere = { TEMPORAL_TASK_QUEUE: 'nowhere', TEMPORAL_ADDRESS: '127.0.0.1:1' };
    const worker = new WorkerProcess(['workers/worker.ts'], nowhere);
    await until('told', () => worker.log.some((line) => line.includes('Temporal does not answer')));
    expect(await worker.end('SIGTERM')).toBe(0);
  });
});
