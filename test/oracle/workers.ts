/** Workers as the stack runs them, in processes of their own, that are killed, stopped, or told to end. */
import { type ChildProcess, spawn } from 'node:child_process';
import { nodeArguments } from '../../workers/child.ts';
import { projectFolder } from '../../workers/settings.ts';

class WorkerProcess {
  readonly #child: ChildProcess;
  readonly gone: Promise<void>;
  /** What it wrote last. */
  said = '';
  expected = false;

  constructor(environment: NodeJS.ProcessEnv, onCrash: (said: string) => void) {
    this.#child = spawn(process.execPath, nodeArguments('workers/worker.ts'), {
      cwd: projectFolder,
      env: environment,
      stdio: ['ignore', 'ignore', 'pipe', 'ipc'],
    });
    this.#child.stderr!.on('data', (bytes: Buffer) => {
      this.said = (this.said + bytes.toString()).slice(-4000);
    });
    this.gone = new Promise((resolve) => {
      this.#child.once('exit', (code, signal) => {
        if (!this.expected) onCrash(`exit ${code ?? signal}: ${this.said}`);
        resolve();
      });
    });
  }

  signal(signal: NodeJS.Signals): void {
    if (signal === 'SIGKILL' || signal === 'SIGTERM') this.expected = true;
    this.#child.kill(signal);
  }
}

export class Workers {
  readonly #environment: NodeJS.ProcessEnv;
  readonly #running: WorkerProcess[] = [];
  /** What workers said that ended by themselves: none ever should. */
  readonly crashes: string[] = [];

  constructor(count: number, environment: NodeJS.ProcessEnv) {
    this.#environment = environment;
    for (let i = 0; i < count; i++) this.#start();
  }

  #start(): void {
    const worker = new WorkerProcess(this.#environment, (said) => {
      this.crashes.push(said);
      this.#forget(worker);
      this.#start();
    });
    this.#running.push(worker);
  }

  #forget(worker: WorkerProcess): void {
    this.#running.splice(this.#running.indexOf(worker), 1);
  }

  /** kill -9 of the oldest; answers what starts another in its place. */
  kill(): () => void {
    const worker = this.#running[0];
    if (!worker) return () => {};
    worker.signal('SIGKILL');
    this.#forget(worker);
    return () => this.#start();
  }

  /** Another one is started, and the oldest told to end. */
  async replace(): Promise<void> {
    const worker = this.#running[0];
    if (!worker) return;
    this.#forget(worker);
    this.#start();
    worker.signal('SIGTERM');
    const patience = setTimeout(() => worker.signal('SIGKILL'), 20_000);
    await worker.gone;
    clearTimeout(patience);
  }

  /** The oldest stands still; answers what lets it go on. */
  stall(): () => void {
    const worker = this.#running[0];
    worker?.signal('SIGSTOP');
    return () => worker?.signal('SIGCONT');
  }

  /** What those say that run. */
  get said(): string {
    return this.#running.map(({ said }) => said).join('\n');
  }

  async end(): Promise<void> {
    const running = this.#running.splice(0);
    for (const worker of running) worker.signal('SIGKILL');
    await Promise.all(running.map(({ gone }) => gone));
  }
}
