/** What people do is recorded: by REST, by the CLI, and by the `temporal` CLI; with who it was, and what came of it. */
import { execFile, spawn } from 'node:child_process';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import type { ActionsAnswer } from '../api/control/action_shapes.ts';
import { thisUser } from '../api/control/caller.ts';
import { nodeArguments } from '../workers/child.ts';
import { findTemporal } from '../workers/embedded/temporal_binary.ts';
import { projectFolder } from '../workers/settings.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;

beforeAll(async () => {
  stack = await startControlStack();
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  await withConnection(options, (client) => client.query('CREATE TABLE public.orders (id int PRIMARY KEY)'));
}, 120_000);

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

async function post(call: string, body?: unknown): Promise<number> {
  const json = { 'content-type': 'application/json' };
  const init = body === undefined ? { method: 'POST' } : { method: 'POST', headers: json, body: JSON.stringify(body) };
  return (await fetch(`${stack.api}/api/v1/${call}`, init)).status;
}

async function actions(query = ''): Promise<ActionsAnswer> {
  const answer = await fetch(`${stack.api}/api/v1/audit/actions${query}`);
  expect(answer.status).toBe(200);
  return (await answer.json()) as ActionsAnswer;
}

async function sluice(...args: string[]): Promise<{ code: number | null; out: string }> {
  const file = path.join(projectFolder, 'cli', 'main.ts');
  const child = spawn(process.execPath, nodeArguments(file, ...args), {
    cwd: projectFolder,
    env: stack.environment,
  });
  let out = '';
  child.stdout.on('data', (bytes) => {
    out += bytes;
  });
  return await new Promise((resolve) => child.once('close', (code) => resolve({ code, out })));
}

it('tells who did what, by which way, and what came of it; nothing twice, nothing secret', async () => {
  const secret = 'h1dden-w0rd';
  const url = new URL(stack.parts.postgres.url);
  const bad = `postgresql://nobody:${secret}@${url.host}/nothing`;
  expect(await post('sources/connect', { id: 'bad', type: 'postgresql', connection_string: bad })).toBe(422);
  const body = {
    id: 'shop',
    type: 'postgresql',
    connection_string: stack.parts.postgres.url,
    config: { tables: ['orders'] },
  };
  expect(await post('sources/connect', body)).toBe(201);
  expect(await post('sources/shop/start')).toBe(202);
  expect((await sluice('sources', 'pause', 'shop')).code).toBe(0);
  expect(await post('sources/nowhere/start')).toBe(404);

  const program = await findTemporal(() => {});
  const order = ['workflow', 'update', 'execute', '--workflow-id', 'capture/shop', '--name', 'resume'];
  await promisify(execFile)(program, [...order, '--address', stack.parts.temporal.url]);

  const wanted = [
    ['rest', 'loopback', 'connect', 'bad', 'failed'],
    ['rest', 'loopback', 'connect', 'shop', 'done'],
    ['rest', 'loopback', 'start', 'shop', 'done'],
    ['cli', thisUser(), 'pause', 'shop', 'done'],
    ['rest', 'loopback', 'start', 'nowhere', 'failed'],
    ['temporal', expect.stringContaining(os.hostname()), 'resume', 'shop', 'done'],
  ];
  const all = await until(
    () => actions(),
    ({ items }) => items.length >= wanted.length,
    15,
  );
  const seen = all.items
    .toReversed()
    .map(({ via, who, action, target, outcome }) => [via, who, action, target, outcome]);
  expect(seen).toEqual(wanted);
  expect(all.items.find(({ target }) => target === 'nowhere')?.reason).toContain('no source nowhere');
  expect(all.items.find(({ action, target }) => action === 'connect' && target === 'shop')?.input).toMatchObject({
    type: 'postgresql',
    config: { tables: ['orders'] },
  });
  const stored = await fetch(
    `${stack.parts.clickhouse.url}/?query=${encodeURIComponent('SELECT * FROM sluice._actions')}`,
  );
  for (const text of [JSON.stringify(all), await stored.text()]) {
    expect(text).not.toContain(secret);
    expect(text).not.toContain(url.password);
    expect(text).not.toContain('sealed:');
  }

  // Pages hold each once.
  const paged: string[] = [];
  for (let cursor: string | null = ''; cursor !== null; ) {
    const page: ActionsAnswer = await actions(`?limit=2${cursor ? `&cursor=${cursor}` : ''}`);
    paged.push(...page.items.map((one) => one.id));
    cursor = page.next_cursor;
  }
  expect(paged).toEqual(all.items.map((one) => one.id));
  expect((await actions('?target=nowhere')).items).toHaveLength(1);
  expect((await actions(`?to=${all.items.at(-1)!.at}`)).items).toEqual([]);
  expect((await fetch(`${stack.api}/api/v1/audit/actions?cursor=x`)).status).toBe(422);

  const listed = await sluice('audit', '--actions', '--source', 'shop');
  expect(listed.out).toContain('temporal');
  expect(listed.out).not.toContain('nowhere');
  expect(await post('sources/shop/stop')).toBe(202);
}, 90_000);

it('goes on while ClickHouse is away, and records it when that is back', async () => {
  // It takes connections, and answers nothing.
  stack.parts.clickhouse.signal('SIGSTOP');
  const begun = Date.now();
  await post('schema/register', { subject: 'x', schema: { fields: [{ name: 'id', type: 'nothing' }] } });
  expect(await post('deployments/nowhere/pause')).toBe(404);
  expect(Date.now() - begun).toBeLessThan(20_000);
  stack.parts.clickhouse.signal('SIGCONT');
  await stack.parts.clickhouse.stop();
  const away = await post('sources/shop/stop');
  await stack.parts.clickhouse.restart();
  await post('sources/shop/stop');
  expect(away).toBeLessThan(600);
  const { items } = await until(
    () => actions('?target=shop'),
    (answer) => answer.items.filter(({ action }) => action === 'stop').length >= 3,
    20,
  );
  expect(items.filter(({ action }) => action === 'stop').map(({ via }) => via)).toEqual(['rest', 'rest', 'rest']);
}, 60_000);
