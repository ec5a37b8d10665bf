import fc from 'fast-check';
import { afterAll, describe, expect, it } from 'vitest';
import { formatInstant, parseInstant } from '../../model/instant.ts';
import { type AssetApi as SimulatedApi, startAssetApi } from '../../workers/demo/asset_api.ts';
import { AssetApi } from './asset_api.ts';
import { type AssetItem, readPage } from './asset_page.ts';
import { AssetWalk } from './asset_walk.ts';

const seed = Number(process.env.SEED ?? 20261121);
const second = 1_000_000_000n;
const open: { close(): Promise<void> }[] = [];

afterAll(async () => {
  for (const one of open) await one.close();
});

/** Faults that only delay, and those that bend pages. */
const fault = fc.oneof(
  fc.constantFrom('server_error', 'cut', 'broken_json', 'repeat', 'reorder').map((kind) => ({ kind })),
  fc.record({ kind: fc.constant('page_size'), page_size: fc.integer({ min: 1, max: 40 }) }),
  fc.record({ kind: fc.constant('rate_limit'), retry_after: fc.constant(0) }),
  fc.record({ kind: fc.constant('clock_behind'), behind_ms: fc.integer({ min: 1_000, max: 90_000 }) }),
);

describe('a walk over a live API', () => {
  it(`loses nothing and doubles nothing, whatever the API does (seed ${seed})`, { timeout: 120_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.record({
          market: fc.integer({ min: 1, max: 1_000_000 }),
          rate: fc.constantFrom(0.5, 5, 50),
          pageSize: fc.constantFrom(3, 20, 100, 1000),
          pace: fc.integer({ min: 0, max: 3_000 }),
          runs: fc.array(
            fc.record({ gap: fc.integer({ min: 1, max: 60 }), faults: fc.array(fault, { maxLength: 6 }) }),
            {
              minLength: 1,
              maxLength: 6,
            },
          ),
        }),
        tryRuns,
      ),
      { numRuns: Number(process.env.RUNS ?? 10), seed },
    );
  });
});

describe('a walk over an API that answers in another order', () => {
  const day = Date.parse('2026-03-01T00:00:00Z');
  const assets = fc.array(fc.integer({ min: 0, max: 400 }), { maxLength: 120 });
  const served = fc.constantFrom(...(Object.keys(orders) as (keyof typeof orders)[]));

  it(`loses nothing and doubles nothing (seed ${seed})`, async () => {
    await fc.assert(
      fc.asyncProperty(assets, served, fc.integer({ min: 8, max: 30 }), async (seconds, order, pageSize) => {
        const all = seconds.map((at, id) => itemOf(`A${id}`, new Date(day + at * 1000).toISOString()));
        const walk = new AssetWalk(servedBy(all, orders[order]), { since: 0n, until: 1n << 62n, pageSize });
        const found: AssetItem[] = [];
        for (let page = await walk.next(); page; page = await walk.next()) found.push(...page.map(({ item }) => item));
        expect(found.map(({ id }) => id).sort()).toEqual(all.map(({ id }) => id).sort());
      }),
      { numRuns: 400, seed },
    );
  });

  it('asks once more than there are pages when they are in order', async () => {
    const all = Array.from({ length: 95 }, (_, at) => itemOf(`A${at}`, new Date(day + at * 1000).toISOString()));
    let asked = 0;
    const api = servedBy(all, (items) => {
      asked++;
      return items;
    });
    const walk = new AssetWalk(api, { since: 0n, until: 1n << 62n, pageSize: 11 });
    for (let page = await walk.next(); page; page = await walk.next());
    // Each page begins with the last of the one before.
    expect(asked).toBe(10 + 1);
  });

  it('hands out what was updated before the beginning of time, as what cannot be read', async () => {
    const walk = new AssetWalk(servedBy([itemOf('A', '0001-01-01T00:00:00Z')], orders.time), {
      since: 0n,
      until: 1n << 62n,
      pageSize: 10,
    });
    expect(await walk.next()).toMatchObject([{ item: { id: 'A' }, at: undefined }]);
  });
});

/** How an API puts items, which come by instant and id, into its pages; told how often it was asked before. */
const orders = {
  time: (items: AssetItem[]) => items,
  id: (items: AssetItem[]) => [...items].sort((a, b) => (String(a.id) < String(b.id) ? -1 : 1)),
  newest: (items: AssetItem[]) => [...items].reverse(),
  chance: (items: AssetItem[]) => [...items].sort((a, b) => (mixed(a.id) < mixed(b.id) ? -1 : 1)),
};

function mixed(id: unknown): string {
  return String((Number(String(id).slice(1)) * 7919) % 1009).padStart(4, '0') + String(id);
}

function itemOf(id: string, at: string): AssetItem {
  return { id, name: id, kind: 'x', value: 1, updated_at: at, deleted: false };
}

/** An API with these assets; `bend` may swap pages. */
function servedBy(
  all: AssetItem[],
  order: (items: AssetItem[]) => AssetItem[],
  bend: (page: number, asked: number) => number = (page) => page,
): Pick<AssetApi, 'page'> {
  let asked = 0;
  return {
    page: async (since, page, size) => {
      const behind = all.filter(
        ({ updated_at: at }) => parseInstant(String(at))! >= parseInstant(since)! || String(at) < '1970',
      );
      const sorted = order(behind.sort((a, b) => (`${a.updated_at} ${a.id}` < `${b.updated_at} ${b.id}` ? -1 : 1)));
      const given = bend(page, asked++);
      return {
        items: sorted.slice((given - 1) * size, given * size),
        nextPage: sorted.length > page * size ? page + 1 : null,
        unchanged: false,
        etag: undefined,
        time: undefined,
      };
    },
  };
}

it(`finds what stands on pages that were swapped, always or once (seed ${seed})`, async () => {
  const day = Date.parse('2026-03-01T00:00:00Z');
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 2, max: 100 }),
      fc.integer({ min: 2, max: 20 }),
      fc.option(fc.integer({ min: 0, max: 12 }), { nil: undefined }),
      async (count, pageSize, once) => {
        const all = Array.from({ length: count }, (_, at) => itemOf(`A${at}`, new Date(day + at * 1000).toISOString()));
        const pages = (size: number) => Math.ceil(count / size);
        const bend = (page: number, asked: number) => {
          if (pages(pageSize) < 2 || (once !== undefined && asked !== once)) return page;
          return page === 1 ? 2 : page === 2 ? 1 : page;
        };
        const walk = new AssetWalk(servedBy(all, orders.time, bend), { since: 0n, until: 1n << 62n, pageSize });
        const found: AssetItem[] = [];
        for (let page = await walk.next(); page; page = await walk.next()) found.push(...page.map(({ item }) => item));
        expect(found.map(({ id }) => id).sort()).toEqual(all.map(({ id }) => id).sort());
      },
    ),
    { numRuns: 300, seed },
  );
});

interface Script {
  market: number;
  rate: number;
  pageSize: number;
  pace: number;
  runs: { gap: number; faults: object[] }[];
}

async function tryRuns({ market, rate, pageSize, pace, runs }: Script): Promise<void> {
  let now = Date.parse('2026-03-01T00:00:00Z');
  // Time goes on at each request, so that assets change between two pages.
  const server = await startAssetApi({
    seed: String(market),
    rate,
    now: () => {
      now += pace;
      return now;
    },
  });
  open.push(server);
  const api = new AssetApi({ url: new URL(server.url), pageSize, signal: AbortSignal.timeout(60_000), firstPause: 1 });
  open.push(api);
  const copy = new Map<string, AssetItem>();
  let position = 0n;
  try {
    for (const { gap, faults } of runs) {
      now += gap * 1000;
      await post(server, '/faults', faults);
      position = await runOnce(api, position, BigInt(now) * 1_000_000n, pageSize, copy);
      await fetch(`${server.url}/faults`, { method: 'DELETE' });
    }
    await post(server, '/changes', { per_second: 0 });
    now += 1_000;
    await runOnce(api, position, BigInt(now + 1) * 1_000_000n, pageSize, copy);
    expect(alive(copy.values())).toEqual(alive(await everything(server)));
  } finally {
    await api.close();
    await server.close();
  }
}

/** One run as the activity does it; answers the position of the next. */
async function runOnce(
  api: AssetApi,
  since: bigint,
  until: bigint,
  pageSize: number,
  copy: Map<string, AssetItem>,
): Promise<bigint> {
  const walk = new AssetWalk(api, { since, until, pageSize });
  const seen = new Set<string>();
  for (let found = await walk.next(); found; found = await walk.next()) {
    for (const { item, at } of found) {
      const name = `${item.id} ${item.updated_at}`;
      expect(seen.has(name), `${name} twice`).toBe(false);
      seen.add(name);
      expect(at! >= since && at! < until, `${name} in [${formatInstant(since)}, ${formatInstant(until)})`).toBe(true);
      const known = copy.get(String(item.id));
      if (!known || String(known.updated_at) <= String(item.updated_at)) copy.set(String(item.id), item);
    }
  }
  const shown = walk.apiTime ?? until;
  const end = shown < until ? shown : until;
  return end < since ? since : end;
}

async function post(server: SimulatedApi, path: string, body: unknown): Promise<void> {
  const headers = { 'Content-Type': 'application/json' };
  const answer = await fetch(`${server.url}${path}`, { method: 'POST', headers, body: JSON.stringify(body) });
  expect(answer.ok, await answer.text()).toBe(true);
}

async function everything(server: SimulatedApi): Promise<AssetItem[]> {
  const items: AssetItem[] = [];
  for (let page = 1; ; page++) {
    const answer = await fetch(`${server.url}/assets?page=${page}&page_size=1000`);
    const read = readPage(await answer.text());
    items.push(...(read?.items ?? []));
    if (read?.nextPage === null) return items;
  }
}

function alive(items: Iterable<AssetItem>): AssetItem[] {
  return [...items].filter((item) => item.deleted !== true).sort((a, b) => (String(a.id) < String(b.id) ? -1 : 1));
}

it('reads numbers with all their digits', () => {
  const body =
    '{"items":[{"id":"a","value":1234567890123456789.25,"name":"x 12345678901234567890 \\" y"}],"next_page":null}';
  expect(readPage(body)!.items[0]).toMatchObject({
    value: '1234567890123456789.25',
    name: 'x 12345678901234567890 " y',
  });
  expect(readPage('{"items":[{"id":"a","value":12.5}],"next_page":2}')).toMatchObject({ nextPage: 2 });
  expect(readPage('{"items":[{"id"')).toBeUndefined();
  expect(() => readPage('{"error":"no"}')).toThrow(/another shape/);
  expect(parseInstant('2026-03-01T00:00:00Z')! % second).toBe(0n);
});
