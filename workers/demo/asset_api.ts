/**
 * A simulated asset API on loopback: a process of its own in the embedded stack, and the peer of tests.
 *
 *   GET  /assets?updated_since=&page=&page_size=   { items: [{id, name, kind, value, updated_at, deleted}], next_page }
 *   GET  /health
 *   GET | POST | DELETE /faults                    switch faults on (asset_faults.ts), list them, switch all off
 *   POST /changes  {"per_second": 0}               from now on, assets change at this rate; 0 stops them
 *
 * Items are ordered by (updated_at, id); `updated_since` includes its own instant; `next_page` is a number, or null on
 * the last page. Pages are cut from the assets as they are at that moment, as with most real APIs: an asset that changes
 * between two pages moves to the end, and those after it move up by one. A reader that must not miss any goes on by the
 * last `updated_at` it saw instead of by the page number.
 */
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { z } from 'zod';
import { asSluiceError, describeError, SluiceError } from '../../model/errors.ts';
import { isEntryPoint, whenUnwanted } from '../child.ts';
import { readPort, readSettings } from '../settings.ts';
import { type Fault, Faults, faultSchema } from './asset_faults.ts';
import { type Asset, Market } from './asset_market.ts';
import { changeRate, openPlan, rateSchema } from './asset_plan.ts';
import { seededRandom } from './random.ts';

export const defaultPageSize = 100;
/** A larger page_size is served as this one. */
export const largestPageSize = 1_000;

export interface AssetApiOptions {
  /** 0 = any free one. */
  port?: number;
  /** Where `asset_api.json` is kept; without it nothing is kept. */
  home?: string;
  /** What the assets follow from; default: the kept one, else `1`. */
  seed?: string;
  /** Changes a second; default: the kept one, else 0.5. 0 = none. */
  rate?: number;
  /** Milliseconds since 1970; for tests. */
  now?: () => number;
}

export interface AssetApi {
  /** e.g. `http://127.0.0.1:8088` */
  url: string;
  port: number;
  close(): Promise<void>;
}

/** Starts the API. Errors: `port_in_use`, `configuration`. */
export async function startAssetApi(options: AssetApiOptions = {}): Promise<AssetApi> {
  const api = new Api(options);
  const server = createServer((request, response) => {
    api.answer(request, response).catch(() => response.destroy());
  });
  const port = await listen(server, options.port ?? 0);
  return {
    url: `http://127.0.0.1:${port}`,
    port,
    close: () =>
      new Promise((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  };
}

async function listen(server: Server, port: number): Promise<number> {
  try {
    server.listen(port, '127.0.0.1');
    await once(server, 'listening');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw asSluiceError(error);
    const remedy = 'Stop what listens there, or set SLUICE_ASSET_API_PORT to another port (0 = any free one).';
    throw new SluiceError('port_in_use', `port ${port} of the asset API is in use`, remedy, {}, error);
  }
  return (server.address() as AddressInfo).port;
}

/** A request that cannot be served; becomes an answer. */
class Refusal extends Error {
  readonly status: number;
  readonly headers: Record<string, string>;

  constructor(status: number, detail: string, headers: Record<string, string> = {}) {
    super(detail);
    this.status = status;
    this.headers = headers;
  }
}

interface PageRequest {
  since: number;
  page: number;
  size: number;
}

class Api {
  readonly #options: AssetApiOptions;
  readonly #plan: ReturnType<typeof openPlan>;
  readonly #market: Market;
  readonly #faults = new Faults();
  /** The market of a while ago, for `clock_behind`. */
  #behind: { by: number; market: Market } | undefined;
  #time = 0;

  constructor(options: AssetApiOptions) {
    this.#options = options;
    this.#plan = openPlan(options.home, options, this.#now());
    this.#market = new Market(this.#plan);
  }

  async answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      const url = new URL(request.url ?? '/', 'http://127.0.0.1');
      const route = `${request.method === 'HEAD' ? 'GET' : request.method} ${url.pathname}`;
      if (route === 'GET /assets') await this.#assets(request, response, url.searchParams);
      else if (route === 'GET /health') sendJson(response, 200, this.#health());
      else if (route === 'GET /faults') sendJson(response, 200, this.#faults.list());
      else if (route === 'POST /faults') await this.#addFaults(request, response);
      else if (route === 'DELETE /faults') this.#clearFaults(response);
      else if (route === 'POST /changes') await this.#setRate(request, response);
      else throw notServed(url.pathname);
    } catch (error) {
      refuse(response, error);
    }
  }

  /** The clock, never going back: what was served cannot be taken back. */
  #now(): number {
    this.#time = Math.max(this.#time, (this.#options.now ?? Date.now)());
    return this.#time;
  }

  #health(): Record<string, unknown> {
    this.#market.advance(this.#now());
    return {
      status: 'ok',
      seed: this.#plan.seed,
      per_second: this.#plan.rates.at(-1)!.per_second,
      assets: this.#market.size,
      changes: this.#market.changes,
      faults: this.#faults.list().filter((fault) => fault.left !== 0).length,
    };
  }

  async #addFaults(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const given = await readJson(request, z.union([faultSchema, z.array(faultSchema).max(100)]));
    for (const fault of [given].flat()) this.#faults.add(fault);
    sendJson(response, 201, this.#faults.list());
  }

  #clearFaults(response: ServerResponse): void {
    this.#faults.clear();
    response.writeHead(204).end();
  }

  async #setRate(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { per_second } = await readJson(request, z.strictObject({ per_second: rateSchema }));
    const now = this.#now();
    this.#market.advance(now);
    changeRate(this.#options.home, this.#plan, per_second, now);
    sendJson(response, 200, { per_second });
  }

  async #assets(request: IncomingMessage, response: ServerResponse, query: URLSearchParams): Promise<void> {
    const wanted = readPageRequest(query);
    const fault = this.#faults.take();
    if (fault?.kind === 'rate_limit') throw rateLimited(fault);
    if (fault?.kind === 'server_error') {
      response.writeHead(500, { 'Content-Type': 'text/html' }).end('<h1>500 Internal Server Error</h1>\n');
      return;
    }
    if (fault?.kind === 'slow' && !(await waited(response, fault.delay_ms))) return;
    const time = this.#now() - (fault?.kind === 'clock_behind' ? fault.behind_ms : 0);
    const body = Buffer.from(JSON.stringify(this.#page(wanted, fault, time)));
    this.#sendPage(request, response, body, fault, time);
  }

  #page(wanted: PageRequest, fault: Fault | undefined, time: number): { items: Asset[]; next_page: number | null } {
    const size = fault?.kind === 'page_size' ? Math.min(fault.page_size, wanted.size) : wanted.size;
    const repeated = fault?.kind === 'repeat';
    const page = repeated ? Math.max(1, wanted.page - 1) : wanted.page;
    const assets = this.#marketFor(fault, time).since(wanted.since);
    const items = assets.slice((page - 1) * size, page * size);
    if (fault?.kind === 'reorder') shuffle(items, `${fault.seed ?? 1}/${wanted.page}`);
    const following = repeated ? wanted.page : page + 1;
    return { items, next_page: assets.length > (following - 1) * size ? following : null };
  }

  #marketFor(fault: Fault | undefined, time: number): Market {
    if (fault?.kind !== 'clock_behind') {
      this.#market.advance(time);
      return this.#market;
    }
    const by = fault.behind_ms;
    if (this.#behind?.by !== by) this.#behind = { by, market: new Market(this.#plan) };
    this.#behind.market.advance(time);
    return this.#behind.market;
  }

  /** `time`: what the clock said when the page was cut, so that nobody takes a later one for it. */
  #sendPage(
    request: IncomingMessage,
    response: ServerResponse,
    body: Buffer,
    fault: Fault | undefined,
    time: number,
  ): void {
    const tag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 27)}"`;
    const headers: Record<string, string> = {
      ETag: tag,
      'Cache-Control': 'no-cache',
      Date: new Date(time).toUTCString(),
    };
    if (matches(request.headers['if-none-match'], tag)) {
      response.writeHead(304, headers).end();
      return;
    }
    headers['Content-Type'] = 'application/json; charset=utf-8';
    const half = body.subarray(0, body.length >> 1);
    const sent = fault?.kind === 'broken_json' ? half : body;
    response.writeHead(200, { ...headers, 'Content-Length': String(sent.length) });
    // The length promises the whole body; the connection ends in its middle.
    if (fault?.kind === 'cut') response.write(half, () => response.destroy());
    else response.end(sent);
  }
}

/** False when the client has gone meanwhile. */
async function waited(response: ServerResponse, milliseconds: number): Promise<boolean> {
  const gone = new AbortController();
  const stop = (): void => gone.abort();
  response.once('close', stop);
  try {
    await sleep(milliseconds, undefined, { signal: gone.signal });
    return true;
  } catch {
    return false;
  } finally {
    response.off('close', stop);
  }
}

function shuffle(items: Asset[], seed: string): void {
  const random = seededRandom(`reorder/${seed}`);
  for (let last = items.length - 1; last > 0; last--) {
    const other = random.between(0, last);
    [items[last], items[other]] = [items[other]!, items[last]!];
  }
}

function readPageRequest(query: URLSearchParams): PageRequest {
  const since = query.get('updated_since');
  return {
    since: since ? readTime(since) : 0,
    page: readCount(query, 'page', 1),
    size: Math.min(largestPageSize, readCount(query, 'page_size', defaultPageSize)),
  };
}

const timePattern = /^\d{4}-\d\d-\d\d(T\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d))?$/;

/** Milliseconds, rounded up: an instant finer than a millisecond includes only what is not before it. */
function readTime(text: string): number {
  const time = timePattern.test(text) ? Date.parse(text) : Number.NaN;
  if (Number.isNaN(time)) {
    throw new Refusal(400, 'updated_since is not an ISO 8601 time with a zone, e.g. 2026-01-31T09:30:00.000Z');
  }
  const finer = /\.\d{3}(\d+)/.exec(text)?.[1];
  return finer !== undefined && /[1-9]/.test(finer) ? time + 1 : time;
}

function readCount(query: URLSearchParams, name: string, otherwise: number): number {
  const text = query.get(name);
  if (text === null || text === '') return otherwise;
  if (/^[1-9]\d{0,8}$/.test(text)) return Number(text);
  throw new Refusal(400, `${name} is not a whole number from 1`);
}

function rateLimited(fault: Fault): Refusal {
  const date = new Date(Date.now() + fault.retry_after * 1000).toUTCString();
  const after = fault.retry_after_form === 'date' ? date : String(fault.retry_after);
  return new Refusal(429, 'too many requests', { 'Retry-After': after });
}

const methods: Record<string, string> = {
  '/assets': 'GET, HEAD',
  '/health': 'GET, HEAD',
  '/faults': 'GET, HEAD, POST, DELETE',
  '/changes': 'POST',
};

function notServed(path: string): Refusal {
  const allowed = Object.hasOwn(methods, path) ? methods[path] : undefined;
  if (allowed !== undefined) return new Refusal(405, `${path} takes ${allowed}`, { Allow: allowed });
  return new Refusal(404, `nothing here; see ${Object.keys(methods).join(', ')}`);
}

const bodyLimit = 64 * 1024;

/** The body as JSON of the schema's shape. A web page cannot send this content type without asking first. */
async function readJson<T>(request: IncomingMessage, schema: z.ZodType<T>): Promise<T> {
  if (!/^application\/json\b/i.test(request.headers['content-type'] ?? '')) {
    throw new Refusal(415, 'send the body as application/json');
  }
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of request as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > bodyLimit)
      throw new Refusal(413, `the body is larger than ${bodyLimit} bytes`, { Connection: 'close' });
    chunks.push(chunk);
  }
  let value: unknown;
  try {
    value = JSON.parse(Buffer.concat(chunks).toString('utf8'));
  } catch {
    throw new Refusal(400, 'the body is no JSON');
  }
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  throw new Refusal(422, z.prettifyError(parsed.error));
}

function matches(ifNoneMatch: string | undefined, tag: string): boolean {
  if (ifNoneMatch === undefined) return false;
  return ifNoneMatch.split(',').some((item) => ['*', tag].includes(item.trim().replace(/^W\//, '')));
}

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  const body = Buffer.from(`${JSON.stringify(value)}\n`);
  response.writeHead(status, { 'Content-Type': 'application/json; charset=utf-8', 'Content-Length': body.length });
  response.end(body);
}

function refuse(response: ServerResponse, error: unknown): void {
  if (response.headersSent || response.destroyed) {
    response.destroy();
    return;
  }
  const status = error instanceof Refusal ? error.status : 500;
  const headers = error instanceof Refusal ? error.headers : {};
  const detail = error instanceof Error ? error.message : String(error);
  response.writeHead(status, { 'Content-Type': 'application/problem+json', ...headers });
  response.end(`${JSON.stringify({ status, detail })}\n`);
}

/** Options of the process: flags first, then the environment. */
function readOptions(args: string[], environment: NodeJS.ProcessEnv): AssetApiOptions {
  const text = { type: 'string' } as const;
  const { values } = parseArgs({ args, options: { port: text, seed: text, rate: text } });
  const rate = values.rate ?? environment.SLUICE_ASSET_API_RATE;
  const parsedRate = rateSchema.safeParse(rate ? Number(rate) : 0);
  if (!parsedRate.success) {
    throw new SluiceError('configuration', `${rate} is not a rate of change`, 'Give changes a second, from 0 to 100.');
  }
  return {
    port: readPort(
      { SLUICE_ASSET_API_PORT: values.port ?? environment.SLUICE_ASSET_API_PORT },
      'SLUICE_ASSET_API_PORT',
      8088,
    ),
    home: readSettings(environment).home,
    seed: values.seed || environment.SLUICE_ASSET_API_SEED || undefined,
    rate: rate ? parsedRate.data : undefined,
  };
}

async function main(): Promise<void> {
  const api = await startAssetApi(readOptions(process.argv.slice(2), process.env));
  whenUnwanted(() => {
    void api.close().finally(() => process.exit(0));
  });
  process.stdout.write(`${JSON.stringify({ ready: true, port: api.port })}\n`);
}

if (isEntryPoint(import.meta.url)) {
  main().catch((error: unknown) => {
    process.stderr.write(`asset api: ${describeError(asSluiceError(error))}\n`);
    process.exit(1);
  });
}
