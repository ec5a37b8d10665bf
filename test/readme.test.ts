/** Every command of the README, run as a reader would: the stack by its start script, then each line in order. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type Endpoints, projectFolder, readEndpoints } from '../workers/settings.ts';

const readme = readFileSync(path.join(projectFolder, 'README.md'), 'utf8');
const scripts = JSON.parse(readFileSync(path.join(projectFolder, 'package.json'), 'utf8')).scripts as Record<
  string,
  string
>;
/** Lines of all shell blocks, without their comments. */
const commands = [...readme.matchAll(/```sh\n([\s\S]*?)```/g)]
  .flatMap((block) => block[1]!.split('\n'))
  .map((line) => line.replace(/\s+#.*$/, '').trim())
  .filter(Boolean);

const home = mkdtempSync(path.join(tmpdir(), 'sluice-readme-'));
const ports = ['API', 'TEMPORAL', 'TEMPORAL_UI', 'CLICKHOUSE', 'POSTGRES', 'ASSET_API'].map((name) => [
  `SLUICE_${name}_PORT`,
  '0',
]);
const environment = { ...process.env, ...Object.fromEntries(ports), SLUICE_HOME: home };
for (const name of ['DATABASE_URL', 'CLICKHOUSE_URL', 'TEMPORAL_ADDRESS'])
  delete (environment as NodeJS.ProcessEnv)[name];

let stack: ChildProcess;
let output = '';
let endpoints: Endpoints;

function start(...args: string[]): ChildProcess {
  const [, script] = scripts.start!.split(' ');
  const child = spawn(process.execPath, [path.join(projectFolder, script!), ...args], {
    env: environment,
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => (output += text.toString()));
  return child;
}

const ended = (child: ChildProcess) => new Promise<number | null>((resolve) => child.once('close', resolve));

async function streaming(): Promise<boolean> {
  const answer = await fetch(`${endpoints.api}/api/v1/sources/postgres_main`);
  return answer.ok && ((await answer.json()) as { status: string }).status === 'streaming';
}

/** The arguments of a command line, quotes taken off. */
function words(command: string): string[] {
  return [...command.matchAll(/'([^']*)'|"([^"]*)"|(\S+)/g)].map(
    ([, single, double, bare]) => single ?? double ?? bare!,
  );
}

beforeAll(async () => {
  stack = start();
  const until = Date.now() + 150_000;
  while (!readEndpoints(home)) {
    if (stack.exitCode !== null || Date.now() > until) throw new Error(`npm start did not come up:\n${output}`);
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
  endpoints = readEndpoints(home)!;
  while (!(await streaming())) {
    if (Date.now() > until) throw new Error(`the demo is not copied:\n${output}`);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
});

afterAll(async () => {
  if (stack.exitCode === null) {
    const end = ended(stack);
    stack.kill('SIGINT');
    await end;
  }
  rmSync(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
});

it('has the two commands, and they are scripts', () => {
  expect(commands).toContain('npm start');
  expect(commands).toContain('npm test');
  expect(scripts.test).toBeDefined();
});

it.each(commands.filter((command) => command.startsWith('npx sluice')))('runs: %s', async (command) => {
  const args = words(
    command.replace('npx sluice', '').replace('postgresql://user:password@host:5432/db', endpoints.postgres),
  );
  const program = path.join(projectFolder, 'cli', 'sluice.js');
  const run = () => promisify(execFile)(process.execPath, [program, ...args], { env: environment });
  if (command.includes('sluice query')) {
    await expect
      .poll(async () => (await run()).stdout, { timeout: 10_000, interval: 300 })
      .toContain('ada@example.org');
  } else if (command.includes('sluice verify')) {
    expect((await run()).stdout).toMatch(/identical/);
  } else await run();
});

it.each([...readme.matchAll(/\]\((docs\/[^)]+)\)/g)].map((match) => match[1]!))(
  'links to %s, which is there',
  (file) => {
    expect(readFileSync(path.join(projectFolder, file), 'utf8').length).toBeGreaterThan(200);
  },
);

it('every other command is known to this test', () => {
  expect(
    commands.filter((command) => !command.startsWith('npx sluice') && !['npm start', 'npm test'].includes(command)),
  ).toEqual([]);
});

it('runs: npm start -- --for', async () => {
  expect(readme).toContain('npm start -- --for 60s');
  // Its address has the port of this run; the next one takes others.
  const program = path.join(projectFolder, 'cli', 'sluice.js');
  await promisify(execFile)(process.execPath, [program, 'sources', 'delete', 'my_db'], { env: environment });
  const end = ended(stack);
  stack.kill('SIGINT');
  expect(await end).toBe(0);
  output = '';
  const child = start('--for', '10s');
  expect(await ended(child), output).toBe(0);
  expect(output).toContain('all copies are identical');
});
