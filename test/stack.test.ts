/** `npm start` as people use it: it starts, refuses what cannot work, repairs what dies, and leaves nothing behind. */
import { type ChildProcess, execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { processIdentity } from '../workers/embedded/process_identity.ts';
import { type Endpoints, endpointsFile, projectFolder } from '../workers/settings.ts';

let home: string;
let runs: Run[];

beforeEach(() => {
  home = mkdtempSync(path.join(tmpdir(), 'sluice-stack-'));
  runs = [];
});

afterEach(async () => {
  for (const run of runs) await run.end();
  rmSync(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
});

/** One `npm start`. */
class Run {
  readonly child: ChildProcess;
  output = '';
  readonly ended: Promise<number | null>;

  constructor(args: string[] = [], env: Record<string, string> = {}) {
    const { DATABASE_URL: _d, CLICKHOUSE_URL: _c, TEMPORAL_ADDRESS: _t, ...rest } = process.env;
    const names = ['API', 'TEMPORAL', 'TEMPORAL_UI', 'CLICKHOUSE', 'POSTGRES', 'ASSET_API'];
    const ports = Object.fromEntries(names.map((name) => [`SLUICE_${name}_PORT`, '0']));
    this.child = spawn(process.execPath, [path.join(projectFolder, 'cli', 'start.js'), ...args], {
      env: { ...rest, ...ports, SLUICE_HOME: home, ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.on('data', (chunk: Buffer) => {
        this.output += chunk.toString();
      });
    }
    this.ended = new Promise((resolve) => this.child.once('close', (code) => resolve(code)));
    runs.push(this);
  }

  async up(): Promise<Endpoints> {
    await until(
      () => existsSync(endpointsFile(home)) || this.child.exitCode !== null,
      90_000,
      () => this.output,
    );
    if (!existsSync(endpointsFile(home))) throw new Error(`it ended before it was up:\n${this.output}`);
    return endpoints();
  }

  async says(text: string, timeoutMs = 60_000): Promise<void> {
    await until(
      () => this.output.includes(text),
      timeoutMs,
      () => this.output,
    );
  }

  async end(): Promise<void> {
    if (this.child.exitCode === null && this.child.signalCode === null) this.child.kill('SIGKILL');
    await this.ended;
  }
}

const endpoints = () => JSON.parse(readFileSync(endpointsFile(home), 'utf8')) as Endpoints;

async function until(holds: () => boolean | Promise<boolean>, timeoutMs: number, about: () => string): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`not after ${timeoutMs} ms:\n${about()}`);
    await sleep(50);
  }
}

/** Every process that works for this state folder. */
function identities(pids: number[]): Map<number, string> {
  return new Map(pids.map((pid) => [pid, processIdentity(pid) ?? 'gone']));
}

async function allGone(before: Map<number, string>, timeoutMs: number): Promise<void> {
  const left = () => [...before].filter(([pid, identity]) => processIdentity(pid) === identity).map(([pid]) => pid);
  await until(
    () => left().length === 0,
    timeoutMs,
    () => `left: ${left()}`,
  );
}

async function streams(api: string): Promise<boolean> {
  const answer = await fetch(`${api}/api/v1/sources/postgres_main`);
  return answer.ok && ((await answer.json()) as { status: string }).status === 'streaming';
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  client.on('error', () => {});
  try {
    await client.connect();
    return true;
  } catch {
    return false;
  } finally {
    await client.end().catch(() => {});
  }
}

describe('npm start', () => {
  it('copies the demo, ends after --for with a comparison, and leaves no process and no endpoints', async () => {
    const run = new Run(['--for', '5s']);
    const { pids, pid, api } = await run.up();
    expect(statSync(endpointsFile(home)).mode & 0o777).toBe(0o600);
    expect(pid).toBe(run.child.pid);
    expect((await fetch(`${api}/health`)).status).toBe(200);
    const before = identities([...Object.values(pids), pid]);
    expect(await run.ended, run.output).toBe(0);
    for (const table of ['accounts', 'transactions', 'currencies']) {
      expect(run.output).toMatch(new RegExp(`postgres_main_${table}: identical, [\\d,]+ rows`));
    }
    // The last two are made at once, and either may be the last.
    expect(run.output).toMatch(/\[(\d+)\/\1\] (source postgres_main|deployment assets) … ready in/);
    expect(run.output).toMatch(/source postgres_main … ready in/);
    await allGone(before, 1000);
    expect(existsSync(endpointsFile(home))).toBe(false);
    expect(statSync(path.join(home, 'secret.key')).mode & 0o777).toBe(0o600);
  });

  it('refuses a second start on the same state folder, a time that is none, and to be thrown away while it runs', async () => {
    const run = new Run(['--no-demo']);
    const { pid } = await run.up();
    const second = new Run(['--no-demo']);
    expect(await second.ended).toBe(1);
    expect(second.output).toContain(`Sluice runs already on ${home} (pid ${pid})`);
    expect(existsSync(endpointsFile(home))).toBe(true);
    const early = reset('--yes');
    expect([early.status, early.stderr]).toEqual([
      1,
      expect.stringContaining(`Sluice runs already on ${home} (pid ${pid})`),
    ]);
    const wrong = new Run(['--for', 'soon']);
    expect(await wrong.ended).toBe(2);
    expect(wrong.output).toContain('--for soon');

    // Ctrl-C as npm passes it on: twice at once is one.
    run.child.kill('SIGINT');
    run.child.kill('SIGINT');
    expect(await run.ended, run.output).toBe(0);
    expect(existsSync(endpointsFile(home))).toBe(false);

    // Now it can be thrown away: what the stack has made, and nothing else.
    writeFileSync(path.join(home, 'notes.txt'), 'mine');
    const asked = reset();
    expect(asked.stdout).toMatch(/would throw away[\s\S]*postgresql[\s\S]*--yes/);
    expect(existsSync(path.join(home, 'temporal.db'))).toBe(true);
    expect(reset('--yes').status).toBe(0);
    expect(readdirSync(home)).toEqual(['notes.txt']);
    expect(reset('--yes').stdout).toContain('nothing to throw away');
  });

  it('names a port in use and its variable before anything starts', async () => {
    const server = await listen();
    const { port } = server.address() as { port: number };
    try {
      for (const variable of ['SLUICE_API_PORT', 'SLUICE_POSTGRES_PORT']) {
        const run = new Run([], { [variable]: String(port) });
        expect(await run.ended).toBe(1);
        expect(run.output).toContain(`port ${port} (${variable}) is in use`);
        expect(run.output).not.toContain('ready in');
        expect(existsSync(path.join(home, 'run.json'))).toBe(false);
      }
    } finally {
      server.close();
    }
  });

  it('starts again what dies, and says so', async () => {
    const run = new Run();
    const { pids, api, postgres } = await run.up();
    await until(
      () => streams(api),
      60_000,
      () => run.output,
    );
    for (const [part, title] of [
      ['worker', 'worker'],
      ['postgres', 'PostgreSQL 18'],
      ['clickhouse', 'ClickHouse engine'],
      ['temporal', 'Temporal with its UI'],
    ] as const) {
      process.kill(pids[part] ?? 0, 'SIGKILL');
      await run.says(`${title} has ended (signal 9); it is started again`);
      await run.says(`${title} is back`);
      expect(endpoints().pids[part]).not.toBe(pids[part]);
    }
    expect(await answers(postgres)).toBe(true);
    await until(
      async () => (await fetch(`${api}/health`)).status === 200,
      60_000,
      () => run.output,
    );
    run.child.kill('SIGINT');
    expect(await run.ended, run.output).toBe(0);
  });
});

describe('kill -9', () => {
  it('of the parent leaves no child', async () => {
    const run = new Run();
    const { pids } = await run.up();
    await run.says('generator of transactions');
    const before = identities(Object.values({ ...pids, ...endpoints().pids }));
    run.child.kill('SIGKILL');
    await allGone(before, 5000);
    // It left endpoints and a record behind: the next start sees that they are stale, and goes on with the data.
    expect(existsSync(endpointsFile(home))).toBe(true);
    const next = new Run(['--for', '2s']);
    expect(await next.ended, next.output).toBe(0);
    expect(next.output).toContain('was killed');
    expect(next.output).toContain('all copies are identical');
  });

  it('of everything at once is survived', async () => {
    const run = new Run();
    const { api } = await run.up();
    await until(
      () => streams(api),
      60_000,
      () => run.output,
    );
    await sleep(1000);
    const all = [...Object.values(endpoints().pids), run.child.pid ?? 0];
    const before = identities(all);
    for (const pid of all) process.kill(pid, 'SIGKILL');
    await allGone(before, 5000);
    const next = new Run(['--for', '3s']);
    expect(await next.ended, next.output).toBe(0);
    expect(next.output).toContain('all copies are identical');
  });

  it('ends what a run left whose guards were killed too, and nothing else', async () => {
    const run = new Run(['--no-demo']);
    const { pids } = await run.up();
    const bystander = spawn('sleep', ['600']);
    try {
      const record = path.join(home, 'run.json');
      const groups = guardsOf(Object.values(pids));
      // The guards first: nobody is left to end the parts when the parent dies.
      for (const pid of groups) process.kill(pid, 'SIGSTOP');
      run.child.kill('SIGKILL');
      await run.ended;
      for (const pid of groups) process.kill(pid, 'SIGKILL');
      const left = identities(Object.values(pids));
      expect([...left.values()]).not.toContain('gone');
      // A pid of the record that belongs to another process now.
      const written = JSON.parse(readFileSync(record, 'utf8')) as { parts: Record<string, unknown> };
      written.parts.other = { pid: bystander.pid, identity: 'of a process that is long gone' };
      writeFileSync(record, JSON.stringify(written));

      const next = new Run(['--no-demo', '--for', '1s']);
      expect(await next.ended, next.output).toBe(0);
      expect(next.output).toMatch(/ended what it left: .*clickhouse/);
      await allGone(left, 1000);
      expect(bystander.exitCode).toBeNull();
    } finally {
      bystander.kill('SIGKILL');
    }
  });
});

function reset(...args: string[]) {
  const sluice = path.join(projectFolder, 'cli', 'sluice.js');
  const env = { ...process.env, SLUICE_HOME: home };
  return spawnSync(process.execPath, [sluice, 'reset', ...args], { env, encoding: 'utf8' });
}

function listen(): Promise<Server> {
  const server = createServer();
  return new Promise((resolve) => server.listen(0, '127.0.0.1', () => resolve(server)));
}

/** The shells that guard these processes: all else of their process groups. */
function guardsOf(pids: number[]): number[] {
  const lines = execFileSync('ps', ['-eo', 'pid=,pgid='], { encoding: 'utf8' }).trim().split('\n');
  const rows = lines.map((line) => line.trim().split(/\s+/).map(Number) as [number, number]);
  const groups = new Set(rows.filter(([pid]) => pids.includes(pid)).map(([, group]) => group));
  return rows.filter(([pid, group]) => groups.has(group) && !pids.includes(pid)).map(([pid]) => pid);
}
