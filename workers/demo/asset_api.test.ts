import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { afterEach, describe, expect, it, vi } from 'vitest';
import { nodeArguments } from '../child.ts';
import { type AssetApi, type AssetApiOptions, startAssetApi } from './asset_api.ts';
import type { Asset } from './asset_market.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

const beginning = Date.UTC(2026, 0, 1);
const cleanups: (() => unknown)[] = [];

afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function start(options: AssetApiOptions = {}): Promise<AssetApi> {
  const api = await startAssetApi({ now: () => beginning, ...options });
  cleanups.push(() => api.close());
  return api;
}

function folder(): string {
  const made = mkdtempSync(path.join(tmpdir(), 'sluice-asset-api-'));
  cleanups.push(() => rmSync(made, { recursive: true, force: true }));
  return made;
}

interface Page {
  items: Asset[];
  next_page: number | null;
}

async function page(api: AssetApi, query: string): Promise<Page> {
  const answer = await fetch(`${api.url}/assets?${query}`);
  expect(answer.status).toBe(200);
  return (await answer.json()) as Page;
}

async function all(api: AssetApi, query = ''): Promise<Asset[]> {
  const items: Asset[] = [];
  for (let number: number | null = 1; number !== null; ) {
    const answer: Page = await page(api, `page=${number}&page_size=500&${query}`);
    items.push(...answer.items);
    number = answer.next_page;
  }
  return items;
}

function post(api: AssetApi, route: string, body: unknown, type = 'application/json'): Promise<Response> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  return fetch(`${api.url}${route}`, { method: 'POST', headers: { 'Content-Type': type }, body: text });
}

describe('assets', () => {
  it('come in pages, ordered, each once', async () => {
    const api = await start();
    const items = await all(api);
    expect(items.length).toBe(1200);
    expect(new Set(items.map((item) => item.id)).size).toBe(items.length);
    const order = items.map((item) => `${item.updated_at} ${item.id}`);
    expect(order).toEqual([...order].sort());
    expect(new Set(items.map((item) => item.updated_at)).size).toBeLessThan(items.length);
    expect(Object.keys(items[0]!)).toEqual(['id', 'name', 'kind', 'value', 'updated_at', 'deleted']);
    expect(await page(api, 'page=99')).toEqual({ items: [], next_page: null });
  });

  it('since a time include that time and nothing before it', async () => {
    const api = await start();
    const items = await all(api);
    const since = items[700]!.updated_at;
    const later = await all(api, `updated_since=${since}`);
    expect(later).toEqual(items.filter((item) => item.updated_at >= since));
    const justAfter = since.replace('Z', '001Z');
    expect(await all(api, `updated_since=${justAfter}`)).toEqual(items.filter((item) => item.updated_at > since));
  });

  it('follow from seed and time alone: new, changed, deleted, many at once', async () => {
    let now = beginning;
    const api = await start({ seed: 'a', rate: 2, now: () => now });
    const before = new Map((await all(api)).map((item) => [item.id, item]));
    now += 600_000;
    const changed = await all(api, `updated_since=${new Date(beginning).toISOString()}`);
    expect(changed.some((item) => item.deleted)).toBe(true);
    expect(changed.some((item) => !before.has(item.id))).toBe(true);
    expect(changed.some((item) => before.has(item.id) && before.get(item.id)!.value !== item.value)).toBe(true);
    const instants = new Set(changed.map((item) => item.updated_at));
    expect(instants.size).toBeLessThan(changed.length - 20);

    const twin = await start({ seed: 'a', rate: 2, now: () => beginning });
    expect(await all(twin)).toEqual([...before.values()]);
    const other = await start({ seed: 'b', rate: 2, now: () => beginning });
    expect(await all(other)).not.toEqual([...before.values()]);
  });

  it('stay what they were over restarts and changes of rate', async () => {
    const home = folder();
    let now = beginning;
    const options = { home, seed: 's', rate: 5, now: () => now };
    const first = await startAssetApi(options);
    now += 12_345;
    await all(first);
    expect((await post(first, '/changes', { per_second: 1 })).status).toBe(200);
    now += 60_000;
    await post(first, '/changes', { per_second: 0 });
    const served = await all(first);
    await first.close();

    now += 3_600_000;
    const second = await start({ home, now: () => now });
    expect(await all(second)).toEqual(served);
    await post(second, '/changes', { per_second: 1 });
    now += 10_000;
    expect(await all(second)).not.toEqual(served);
  });

  it('are never taken back when the clock goes back', async () => {
    let now = beginning;
    const api = await start({ rate: 5, now: () => now });
    now += 60_000;
    const served = await all(api);
    now -= 50_000;
    expect(await all(api)).toEqual(served);
  });

  it('refuse another seed and a damaged file', async () => {
    const home = folder();
    await (await startAssetApi({ home, seed: 'x' })).close();
    await expect(startAssetApi({ home, seed: 'y' })).rejects.toMatchObject({ kind: 'configuration' });
    const file = path.join(home, 'asset_api.json');
    expect(JSON.parse(readFileSync(file, 'utf8')).seed).toBe('x');
    writeFileSync(file, '{"seed":"x","rates":[');
    await expect(startAssetApi({ home })).rejects.toMatchObject({ kind: 'configuration', place: { file } });
  });
});

describe('requests', () => {
  it('with If-None-Match are answered 304 until something changes', async () => {
    let now = beginning;
    const api = await start({ rate: 1, now: () => now });
    const url = `${api.url}/assets?updated_since=${new Date(beginning).toISOString()}`;
    const tag = (await fetch(url)).headers.get('etag')!;
    const again = await fetch(url, { headers: { 'If-None-Match': `"other", W/${tag}` } });
    expect([again.status, await again.text(), again.headers.get('etag')]).toEqual([304, '', tag]);
    now += 10_000;
    expect((await fetch(url, { headers: { 'If-None-Match': tag } })).status).toBe(200);
  });

  it('with bad parameters are refused, large pages are bounded', async () => {
    const api = await start();
    for (const query of [
      'page=0',
      'page=x',
      'page=1.5',
      'page_size=-1',
      'updated_since=yesterday',
      'updated_since=1',
    ]) {
      const answer = await fetch(`${api.url}/assets?${query}`);
      expect([query, answer.status]).toEqual([query, 400]);
      expect(answer.headers.get('content-type')).toBe('application/problem+json');
    }
    const large = await page(api, 'page_size=100000');
    expect([large.items.length, large.next_page]).toEqual([1000, 2]);
    expect((await fetch(`${api.url}/nothing`)).status).toBe(404);
    expect((await fetch(`${api.url}/assets`, { method: 'DELETE' })).headers.get('allow')).toBe('GET, HEAD');
    expect(await (await fetch(`${api.url}/health`)).json()).toMatchObject({ status: 'ok', assets: 1200, faults: 0 });
  });
});

describe('faults', () => {
  it('are refused when malformed', async () => {
    const api = await start();
    expect((await post(api, '/faults', '{')).status).toBe(400);
    expect((await post(api, '/faults', { kind: 'earthquake' })).status).toBe(422);
    expect((await post(api, '/faults', { kind: 'slow', typo: 1 })).status).toBe(422);
    expect((await post(api, '/faults', { kind: 'slow' }, 'text/plain')).status).toBe(415);
    expect((await post(api, '/faults', `"${'x'.repeat(70_000)}"`)).status).toBe(413);
    expect(await (await fetch(`${api.url}/faults`)).json()).toEqual([]);
  });

  it('show for as many requests as told, in order, then end', async () => {
    const api = await start();
    await post(api, '/faults', [
      { kind: 'rate_limit', count: 2, retry_after: 3 },
      { kind: 'rate_limit', retry_after: 60, retry_after_form: 'date' },
      { kind: 'server_error' },
    ]);
    const answers: Response[] = [];
    for (let i = 0; i < 5; i++) answers.push(await fetch(`${api.url}/assets`));
    expect(answers.map((answer) => answer.status)).toEqual([429, 429, 429, 500, 200]);
    expect(answers[0]!.headers.get('retry-after')).toBe('3');
    const wait = Date.parse(answers[2]!.headers.get('retry-after')!) - Date.now();
    expect(wait).toBeGreaterThan(57_000);
    expect(wait).toBeLessThanOrEqual(60_000);
  });

  it('with a probability repeat themselves by seed, until cleared', async () => {
    const statuses = async (): Promise<number[]> => {
      const api = await start();
      await post(api, '/faults', { kind: 'server_error', probability: 0.4, seed: 7 });
      const seen: number[] = [];
      for (let i = 0; i < 30; i++) seen.push((await fetch(`${api.url}/health?`)).status);
      for (let i = 0; i < 30; i++) seen.push((await fetch(`${api.url}/assets?page_size=1`)).status);
      await fetch(`${api.url}/faults`, { method: 'DELETE' });
      for (let i = 0; i < 5; i++) seen.push((await fetch(`${api.url}/assets?page_size=1`)).status);
      return seen;
    };
    const seen = await statuses();
    expect(seen).toEqual(await statuses());
    expect(seen.slice(0, 30)).not.toContain(500);
    expect(new Set(seen.slice(30, 60))).toEqual(new Set([200, 500]));
    expect(seen.slice(60)).toEqual([200, 200, 200, 200, 200]);
  });

  it('break bodies: cut in the middle, no JSON', async () => {
    const api = await start();
    await post(api, '/faults', [{ kind: 'cut' }, { kind: 'broken_json' }]);
    await expect(fetch(`${api.url}/assets`).then((answer) => answer.text())).rejects.toThrow();
    const broken = await fetch(`${api.url}/assets`);
    expect(broken.status).toBe(200);
    await expect(broken.json()).rejects.toThrow(SyntaxError);
    expect((await page(api, '')).items.length).toBe(100);
  });

  it('change pages: size, repetition, order', async () => {
    const api = await start();
    const second = await page(api, 'page=2&page_size=50');
    await post(api, '/faults', [{ kind: 'page_size', page_size: 9 }, { kind: 'repeat' }, { kind: 'reorder' }]);
    const small = await page(api, 'page=2&page_size=50');
    expect([small.items.length, small.next_page]).toEqual([9, 3]);
    expect(await page(api, 'page=2&page_size=50')).toEqual({
      items: (await page(api, 'page=1&page_size=50')).items.toSorted(byUpdate),
      next_page: 2,
    });
    await post(api, '/faults', { kind: 'reorder' });
    const shuffled = await page(api, 'page=2&page_size=50');
    expect(shuffled.items).not.toEqual(second.items);
    expect(shuffled.items.toSorted(byUpdate)).toEqual(second.items);
  });

  it('show the assets of a while ago', async () => {
    let now = beginning;
    const api = await start({ rate: 2, now: () => now });
    now += 60_000;
    const then = await all(api);
    now += 20_000;
    expect(await all(api)).not.toEqual(then);
    await post(api, '/faults', { kind: 'clock_behind', behind_ms: 20_000, count: 3 });
    expect(await all(api)).toEqual(then);
  });

  it('answer late, and give up when the client has gone', async () => {
    const api = await start();
    await post(api, '/faults', [
      { kind: 'slow', delay_ms: 150 },
      { kind: 'slow', delay_ms: 60_000 },
    ]);
    const begun = Date.now();
    await page(api, '');
    expect(Date.now() - begun).toBeGreaterThanOrEqual(145);
    await expect(fetch(`${api.url}/assets`, { signal: AbortSignal.timeout(100) })).rejects.toThrow();
    await page(api, '');
  });
});

function byUpdate(a: Asset, b: Asset): number {
  return `${a.updated_at} ${a.id}` < `${b.updated_at} ${b.id}` ? -1 : 1;
}

describe('the process', () => {
  const file = fileURLToPath(new URL('./asset_api.ts', import.meta.url));
  const run = (environment: Record<string, string>, stdio: ('pipe' | 'ipc')[]) => {
    const child = spawn(process.execPath, nodeArguments(file), {
      env: { ...process.env, SLUICE_ASSET_API_PORT: '0', SLUICE_HOME: folder(), ...environment },
      stdio,
    });
    cleanups.push(() => child.kill('SIGKILL'));
    const ended = new Promise<number | null>((resolve) => child.once('exit', resolve));
    return { child, ended };
  };
  const ready = async (child: ReturnType<typeof run>['child']): Promise<number> => {
    for await (const line of createInterface({ input: child.stdout! })) return JSON.parse(line).port;
    throw new Error('it never got ready');
  };

  it('prints its port and ends when its parent closes stdin', async () => {
    const { child, ended } = run({}, ['pipe', 'pipe', 'pipe']);
    const port = await ready(child);
    expect((await fetch(`http://127.0.0.1:${port}/health`)).status).toBe(200);
    child.stdin!.end();
    expect(await ended).toBe(0);
  });

  it('ends when the IPC channel closes, and at SIGTERM', async () => {
    const first = run({}, ['pipe', 'pipe', 'pipe', 'ipc']);
    await ready(first.child);
    first.child.disconnect();
    expect(await first.ended).toBe(0);
    const second = run({}, ['pipe', 'pipe', 'pipe']);
    await ready(second.child);
    second.child.kill('SIGTERM');
    expect(await second.ended).toBe(0);
  });

  it('names a port in use and a rate out of bounds', async () => {
    const api = await start();
    for (const environment of [{ SLUICE_ASSET_API_PORT: String(api.port) }, { SLUICE_ASSET_API_RATE: '1e9' }]) {
      const { child, ended } = run(environment as unknown as Record<string, string>, ['pipe', 'pipe', 'pipe']);
      let said = '';
      child.stderr!.on('data', (chunk) => {
        said += chunk;
      });
      expect(await ended).toBe(1);
      expect(said).toContain(Object.values(environment)[0]);
    }
  });
});
