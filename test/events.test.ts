/** Who listens hears what happens: batches, states, runs; also what happened while nobody listened; and `sluice tail` shows it. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { mostListeners } from '../api/control/events.ts';
import { nodeArguments } from '../workers/child.ts';
import { projectFolder } from '../workers/settings.ts';
import { type ControlStack, endChild, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;

beforeAll(async () => {
  stack = await startControlStack();
  await sql('CREATE TABLE public.orders (id int PRIMARY KEY, note text)');
}, 120_000);

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

function sql(text: string): Promise<unknown> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, (client) => client.query(text));
}

async function post(call: string, body?: unknown): Promise<void> {
  const json = { 'content-type': 'application/json' };
  const init = body === undefined ? { method: 'POST' } : { method: 'POST', headers: json, body: JSON.stringify(body) };
  const answer = await fetch(`${stack.api}/api/v1/${call}`, init);
  expect([call, answer.ok]).toEqual([call, true]);
}

interface Heard {
  id: string;
  event: string;
  data: Record<string, unknown> & { assets?: Record<string, { inserts: number }> };
}

/** Listens as a browser does. */
class Ear {
  readonly heard: Heard[] = [];
  readonly #end = new AbortController();
  readonly done: Promise<void>;
  status = 0;
  type = '';

  constructor(query = '', last?: string) {
    const headers: Record<string, string> = last === undefined ? {} : { 'last-event-id': last };
    this.done = this.#read(`${stack.api}/api/v1/events${query}`, headers).catch(() => {});
  }

  async #read(url: string, headers: Record<string, string>): Promise<void> {
    const answer = await fetch(url, { headers, signal: this.#end.signal });
    this.status = answer.status;
    this.type = answer.headers.get('content-type') ?? '';
    let text = '';
    for await (const chunk of answer.body!.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      const parts = text.split('\n\n');
      text = parts.pop()!;
      for (const part of parts) {
        const fields = Object.fromEntries(part.split('\n').map((one) => one.split(/: (.*)/s).slice(0, 2)));
        if (fields.event) this.heard.push({ id: fields.id, event: fields.event, data: JSON.parse(fields.data) });
      }
    }
  }

  async end(): Promise<void> {
    this.#end.abort();
    await this.done;
  }

  of(event: string): Heard[] {
    return this.heard.filter((one) => one.event === event);
  }

  /** Inserts that batches told, each batch once. */
  inserts(asset: string): number {
    const batches = new Map(this.of('batch').map((one) => [one.data.id, one]));
    return [...batches.values()].reduce((sum, { data }) => sum + (data.assets?.[asset]?.inserts ?? 0), 0);
  }
}

const connection = '${DATABASE_URL}';

describe('events', () => {
  it('tell states and batches, and to who comes back what was missed', async () => {
    const ear = new Ear();
    await until(
      () => ear.status,
      (status) => status === 200,
    );
    expect(ear.type).toContain('text/event-stream');
    const config = { tables: ['orders'], poll_interval: 0.05, options: { verify: 'off' } };
    await post('sources/connect', { id: 'shop', type: 'postgresql', connection_string: connection, config });
    await post('sources/shop/start');
    const states = () => ear.of('source').map((one) => one.data.status);
    await until(states, (all) => all.at(-1) === 'streaming');
    expect(JSON.stringify(ear.heard)).not.toContain('sealed');
    await sql('INSERT INTO public.orders SELECT i FROM generate_series(1, 100) i');
    await until(
      () => ear.inserts('shop_orders'),
      (count) => count === 100,
      15,
    );
    const last = ear.heard.at(-1)!.id;
    await ear.end();

    await sql('INSERT INTO public.orders SELECT i FROM generate_series(101, 150) i');
    await post('sources/shop/pause');
    const back = new Ear('', last);
    await until(
      () => back.inserts('shop_orders'),
      (count) => count >= 50,
      15,
    );
    // Once each, but for those of the moments before it went, which may come again.
    const missed = back.of('batch').filter(({ data }) => !ear.of('batch').some((one) => one.data.id === data.id));
    expect(missed.reduce((sum, { data }) => sum + (data.assets?.shop_orders?.inserts ?? 0), 0)).toBe(50);
    await until(
      () => back.of('source').at(-1)?.data.status,
      (status) => status === 'paused',
    );
    const other = new Ear('?source=other');
    await until(
      () => other.status,
      (status) => status === 200,
    );
    await post('sources/shop/resume');
    await until(
      () => back.of('source').at(-1)?.data.status,
      (status) => status === 'streaming',
    );
    await sql('INSERT INTO public.orders VALUES (1000)');
    await until(() => back.inserts('shop_orders') >= 51, Boolean, 15);
    expect(other.heard).toEqual([]);
    await Promise.all([back.end(), other.end()]);
  }, 90_000);

  it('refuse one listener too many, what is no id, and forget who has gone', async () => {
    const ears = Array.from({ length: mostListeners }, () => new Ear());
    await until(() => ears.every((ear) => ear.status === 200), Boolean);
    const refused = await fetch(`${stack.api}/api/v1/events`);
    expect(refused.status).toBe(409);
    await Promise.all(ears.map((ear) => ear.end()));
    await until(
      async () => {
        const again = new Ear();
        await until(
          () => again.status,
          (status) => status > 0,
        );
        await again.end();
        return again.status;
      },
      (status) => status === 200,
    );
    expect((await fetch(`${stack.api}/api/v1/events`, { headers: { 'last-event-id': 'x' } })).status).toBe(422);
  }, 60_000);

  it('say that ClickHouse is away, and go on when it is back', async () => {
    const ear = new Ear();
    await until(
      () => ear.status,
      (status) => status === 200,
    );
    await stack.parts.clickhouse.stop();
    await until(
      () => ear.of('trouble').length,
      (count) => count > 0,
    );
    await stack.parts.clickhouse.restart();
    await sql('INSERT INTO public.orders SELECT i FROM generate_series(2000, 2009) i');
    await until(
      () => ear.inserts('shop_orders'),
      (count) => count === 10,
      60,
    );
    await ear.end();
  }, 120_000);
});

describe('sluice tail', () => {
  it('shows the last batches, then what happens, until it is interrupted', async () => {
    const file = path.join(projectFolder, 'cli', 'main.ts');
    const args = nodeArguments(file, 'tail', 'shop', '--limit', '3');
    const child = spawn(process.execPath, args, { cwd: projectFolder, env: stack.environment });
    let out = '';
    child.stdout.on('data', (bytes) => {
      out += bytes;
    });
    await until(
      () => out.split('\n').length,
      (lines) => lines > 3,
      30,
    );
    await sql(
      'INSERT INTO public.orders SELECT i FROM generate_series(3001, 3007) i; DELETE FROM public.orders WHERE id < 3',
    );
    await until(
      () => out,
      (text) => /shop_orders \+7 -2|shop_orders \+7\n(.|\n)*shop_orders -2/.test(text),
      20,
    );
    const lines = out.trim().split('\n');
    expect(new Set(lines).size).toBe(lines.length);
    child.kill('SIGINT');
    await until(
      () => child.exitCode,
      (code) => code === 0,
      10,
    );
    await endChild(child);
  }, 90_000);
});
