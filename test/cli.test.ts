/** The command line as people run it: output, exit status, and no stack traces. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { nodeArguments } from '../workers/child.ts';
import { projectFolder } from '../workers/settings.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;

beforeAll(async () => {
  stack = await startControlStack();
  await sql(`CREATE TABLE public.accounts (id int PRIMARY KEY, name text);
    INSERT INTO public.accounts SELECT i, 'name ' || i FROM generate_series(1, 50) i`);
}, 120_000);

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

function sql(text: string): Promise<unknown> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, (client) => client.query(text));
}

/** What a command that waits writes to stderr when all goes well: nothing, or on a busy machine how far it is. */
const progressAlone = expect.stringMatching(/^(\S+ \d+ s · .*\n)*$/);

interface Ran {
  code: number | null;
  out: string;
  err: string;
}

function sluice(args: string[], environment: NodeJS.ProcessEnv = stack.environment): Promise<Ran> {
  const file = path.join(projectFolder, 'cli', 'main.ts');
  const child = spawn(process.execPath, nodeArguments(file, ...args), { cwd: projectFolder, env: environment });
  const ran: Ran = { code: null, out: '', err: '' };
  child.stdout.on('data', (bytes) => {
    ran.out += bytes;
  });
  child.stderr.on('data', (bytes) => {
    ran.err += bytes;
  });
  return new Promise((resolve) => child.once('close', (code) => resolve({ ...ran, code })));
}

describe('sluice', () => {
  it('explains itself, and refuses what it does not know with status 2', async () => {
    const help = await sluice(['--help']);
    expect([help.code, help.err]).toEqual([0, '']);
    expect(help.out).toContain('Examples:');
    expect((await sluice(['sources', 'connect', '--help'])).out).toContain('--connection-string');
    expect(await sluice(['statsu'])).toMatchObject({ code: 2, err: expect.stringContaining('Did you mean status?') });
    expect((await sluice([])).code).toBe(2);
    expect((await sluice(['sources', 'start'])).code).toBe(2);
    expect((await sluice(['sources', 'connect', 'Shop', '--connection-string', 'x'])).code).toBe(2);
    const bench = await sluice(['bench', '../x']);
    expect(bench).toMatchObject({ code: 2, err: expect.stringContaining('no benchmark') });
    const option = await sluice(['bench', 'transform', '--nope']);
    expect(option).toMatchObject({ code: 2, err: expect.stringContaining('bench transform --help') });
  }, 60_000);

  it('connects, starts, shows, verifies and deletes a source', async () => {
    const made = await sluice([
      'sources',
      'connect',
      'shop',
      '--connection-string',
      '${DATABASE_URL}',
      '--tables',
      'accounts',
      '--start',
    ]);
    expect([made.code, made.err]).toEqual([0, '']);
    expect(made.out).toContain('shop is connected');
    await until(
      async () => JSON.parse((await sluice(['sources', 'list', '--json'])).out),
      ([shop]) => shop.status === 'streaming',
    );
    const status = await sluice(['status']);
    expect(status.out).toMatch(/^pipeline running\n\nshop \(postgresql\) streaming/);
    expect(status.out).toMatch(/^accounts {2}streaming +50 +0 {2}shop_accounts$/m);

    const same = await sluice(['verify', 'shop']);
    expect([same.code, same.err]).toEqual([0, progressAlone]);
    expect(same.out).toMatch(/^shop_accounts {2}identical +50 +50/m);
    await fetch(stack.parts.clickhouse.url, {
      method: 'POST',
      body: "INSERT INTO sluice.shop_accounts SELECT * REPLACE ('wrong' AS name, _version + 1 AS _version) FROM sluice.shop_accounts FINAL WHERE id = 7",
    });
    const different = await sluice(['verify', 'shop', 'accounts']);
    expect(different.code).toBe(1);
    expect(different.out).toContain('shop_accounts different {"id":7}');
    expect(different.out).toMatch(/shop: NOT identical\n$/);

    const rows = await sluice(['query', 'SELECT count() AS n FROM shop_accounts']);
    expect(rows.out).toBe('n\n50\n(1 row)\n');
    expect(await sluice(['query', 'DROP TABLE shop_accounts'])).toMatchObject({ code: 2, out: '' });
    expect((await sluice(['sources', 'pause', 'shop'])).out).toContain(' paused ');
    expect((await sluice(['sources', 'resync', 'shop', 'nowhere'])).code).toBe(1);
    expect((await sluice(['doctor'])).out).toContain('✓ source shop: paused, 1 tables');
    expect((await sluice(['doctor'])).out).toMatch(/✓ ClickHouse: 26\.\d+/);
    expect(await sluice(['sources', 'delete', 'shop', '--drop-copies'])).toMatchObject({ code: 0, err: '' });
    expect((await sluice(['sources', 'list'])).out).toContain('no sources yet');
  }, 120_000);

  it('tells errors in one line, or as JSON', async () => {
    const missing = await sluice(['verify', 'nobody']);
    expect(missing).toMatchObject({ code: 1, out: '' });
    expect(missing.err).toMatch(/^source nobody: there is no source nobody \(not_found\)\. .+\n$/);
    const json = await sluice(['sources', 'stop', 'nobody', '--json']);
    expect([json.code, JSON.parse(json.out).error.kind]).toEqual([1, 'not_found']);
    const refused = await sluice([
      'sources',
      'connect',
      'shop',
      '--connection-string',
      'postgresql://u:hunter2@127.0.0.1:1/x',
    ]);
    expect(refused.code).toBe(1);
    expect(refused.err.trim().split('\n')).toHaveLength(1);
    expect(refused.err).not.toContain('hunter2');
  }, 60_000);

  it('says within seconds that nothing runs, and what to do', async () => {
    const environment = { ...stack.environment, TEMPORAL_ADDRESS: '127.0.0.1:1', CLICKHOUSE_URL: 'http://127.0.0.1:1' };
    const began = Date.now();
    const status = await sluice(['status'], environment);
    expect(Date.now() - began).toBeLessThan(20_000);
    expect(status).toMatchObject({ code: 1, out: '' });
    expect(status.err).toMatch(
      /^Temporal does not answer at 127\.0\.0\.1:1 \(temporal_unreachable\)\. .*npm start.*\n$/,
    );
    const doctor = await sluice(['doctor', '--json'], environment);
    expect(doctor.code).toBe(1);
    const checks = JSON.parse(doctor.out) as { name: string; state: string; remedy: string }[];
    const problems = checks.filter((check) => check.state === 'problem');
    expect(problems.map((check) => check.name)).toEqual(['ClickHouse', 'Temporal']);
    expect(problems.every((check) => check.remedy !== '')).toBe(true);
  }, 60_000);
});
