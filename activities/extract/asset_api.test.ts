import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import type { SluiceError } from '../../model/errors.ts';
import { AssetApi, readRetryAfter } from './asset_api.ts';

type Answer = (request: IncomingMessage, response: ServerResponse) => void;

let server: Server;
let answers: Answer[];
let asked: IncomingMessage[];
let api: AssetApi;
let waits: string[];

const page = (response: ServerResponse, headers: Record<string, string> = {}) =>
  response.writeHead(200, headers).end('{"items":[],"next_page":null}');

beforeEach(async () => {
  answers = [];
  asked = [];
  waits = [];
  server = createServer((request, response) => {
    asked.push(request);
    (answers.shift() ?? ((_, last) => page(last)))(request, response);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  api = open();
});

afterEach(async () => {
  await api.close();
  server.closeAllConnections();
  server.close();
});

function open(options: { token?: string; login?: string; signal?: AbortSignal } = {}): AssetApi {
  const { port } = server.address() as { port: number };
  const url = new URL(`http://${options.login ?? ''}127.0.0.1:${port}/v1/?key=7`);
  const signal = options.signal ?? AbortSignal.timeout(20_000);
  return new AssetApi({
    url,
    token: options.token,
    pageSize: 10,
    signal,
    firstPause: 1,
    onWait: (text) => waits.push(text),
  });
}

const ask = (etag?: string) => api.page('2026-01-01T00:00:00.000Z', 2, 10, etag);
const status =
  (code: number, headers: Record<string, string> = {}): Answer =>
  (_, response) =>
    response.writeHead(code, headers).end('<h1>no</h1>');

describe('the way to an asset API', () => {
  it('asks as the contract says, and keeps what the address has', async () => {
    await ask();
    expect(asked[0]!.url).toBe('/v1/assets?key=7&updated_since=2026-01-01T00%3A00%3A00.000Z&page=2&page_size=10');
    expect(asked[0]!.headers.authorization).toBeUndefined();
  });

  it('waits as Retry-After says, in seconds or as a date', async () => {
    const begun = performance.now();
    answers.push(status(429, { 'retry-after': '1' }), (_, response) => {
      const now = Math.floor(Date.now() / 1000) * 1000;
      const headers = { date: new Date(now).toUTCString(), 'retry-after': new Date(now + 1000).toUTCString() };
      response.writeHead(503, headers).end();
    });
    await ask();
    expect(performance.now() - begun).toBeGreaterThanOrEqual(2_900);
    expect(waits).toEqual([
      expect.stringMatching(/429; asks again in 1.0 s/),
      expect.stringMatching(/503; asks again in 2/),
    ]);
  });

  it('tries again what may pass, and gives up with a kind that is tried later', async () => {
    answers.push(status(500), status(408), (_, response) => response.destroy());
    answers.push((_, response) => response.end('{"items":['));
    await ask();
    expect(asked.length).toBe(5);
    answers.push(...Array.from({ length: 6 }, () => status(502)));
    await expect(ask()).rejects.toMatchObject({ kind: 'source_unreachable', transient: true });
    answers.push(status(429, { 'retry-after': '3600' }));
    await expect(ask()).rejects.toMatchObject({ kind: 'source_unreachable' });
  });

  it('hands on what Retry-After says when it waits no longer itself, and a day at most', async () => {
    const handedOn = async (given: Answer[]) => {
      answers = given;
      return (await ask().then(
        () => expect.unreachable(),
        (reason: unknown) => reason,
      )) as SluiceError;
    };
    const long = await handedOn([status(429, { 'retry-after': '3600' })]);
    expect(long).toMatchObject({ kind: 'source_unreachable', retryDelay: 3_600_000 });
    expect(long.message).toMatch(/^the asset API answered 429 \(http:/);
    expect(long.remedy).toMatch(/in 3600 s/);
    const often = await handedOn([
      ...Array.from({ length: 5 }, () => status(500)),
      status(429, { 'retry-after': '7' }),
    ]);
    expect(often).toMatchObject({ message: expect.stringContaining('6 times'), retryDelay: 7_000 });
    for (const endless of ['999999999', '9'.repeat(400), 'Fri, 31 Dec 9999 23:59:59 GMT'])
      expect(await handedOn([status(503, { 'retry-after': endless })])).toMatchObject({ retryDelay: 86_400_000 });
    expect((await handedOn(Array.from({ length: 6 }, () => status(502)))).retryDelay).toBeUndefined();
  });

  it('reads seconds and dates of HTTP from Retry-After, and nothing else', () => {
    const now = BigInt(Date.UTC(1994, 10, 6, 8, 49, 27)) * 1_000_000n;
    const read = (header: string) => readRetryAfter(header, now);
    expect(['0', '7', '1.5', '0.01'].map(read)).toEqual([0, 7_000, 2_000, 1_000]);
    for (const date of [
      'Sun, 06 Nov 1994 08:49:37 GMT', 'Sunday, 06-Nov-94 08:49:37 GMT', 'Sun Nov  6 08:49:37 1994',
    ]) // biome-ignore format: one line
      expect(read(date), date).toBe(11_000);
    expect(read('Sun, 06 Nov 1994 08:49:07 GMT')).toBe(0);
    for (const text of ['', '-1', '1e3', '1.', '2 s', 'soon', '1994-11-06T08:49:37Z', 'Sun, 99 Nov 1994 08:49:37 GMT'])
      expect(read(text), text).toBeUndefined();
  });

  it('does not take 304 for an answer when it asked without a tag', async () => {
    answers.push(status(304));
    expect(await ask()).toMatchObject({ unchanged: false });
    expect(asked.length).toBe(2);
    answers.push(...Array.from({ length: 6 }, () => status(304)));
    await expect(ask()).rejects.toMatchObject({
      kind: 'source_unreachable',
      message: expect.stringContaining('304'),
    });
  });

  it('says at once what no patience mends', async () => {
    for (const code of [400, 401, 403, 404, 302]) {
      answers.push(status(code, code === 302 ? { location: 'http://127.0.0.1:1/' } : {}));
      await expect(ask()).rejects.toMatchObject({
        kind: 'source_refused',
        message: expect.stringContaining(String(code)),
      });
    }
    answers.push((_, response) => response.end('{"data":[]}'));
    await expect(ask()).rejects.toMatchObject({ kind: 'source_refused' });
    expect(asked.length).toBe(6);
  });

  it('asks whether anything has changed, by the tag of the answer before', async () => {
    answers.push((_, response) => page(response, { etag: '"x1"', date: 'Sat, 01 Jan 2000 00:00:00 GMT' }));
    const first = await ask();
    expect(first).toMatchObject({ etag: '"x1"', unchanged: false });
    // What it shows may be as old as the question.
    const shown = Number(first.time! / 1_000_000n);
    expect(shown).toBeLessThanOrEqual(Date.UTC(2000, 0, 1));
    expect(shown).toBeGreaterThan(Date.UTC(2000, 0, 1) - 5_000);
    answers.push(status(304));
    expect(await ask('"x1"')).toMatchObject({ etag: '"x1"', unchanged: true, items: [] });
    expect(asked[1]!.headers['if-none-match']).toBe('"x1"');
  });

  it('sends a token or a login as a header, and shows neither in errors', async () => {
    const secret = 'hunter2';
    for (const [options, header] of [
      [{ token: secret }, `Bearer ${secret}`],
      [{ login: `ada:${secret}@` }, `Basic ${Buffer.from(`ada:${secret}`).toString('base64')}`],
    ] as const) {
      await api.close();
      api = open(options);
      answers.push(status(401));
      const error = (await ask().catch((reason: unknown) => reason)) as Error;
      expect(asked.at(-1)!.headers.authorization).toBe(header);
      expect(`${error.message} ${JSON.stringify(error)} ${error.stack}`).not.toContain(secret);
    }
  });

  it('ends when it is told to, also while it waits', async () => {
    await api.close();
    const stop = new AbortController();
    api = open({ signal: stop.signal });
    answers.push(status(429, { 'retry-after': '60' }));
    setTimeout(() => stop.abort(), 100);
    const begun = performance.now();
    await expect(ask()).rejects.toMatchObject({ name: 'AbortError' });
    expect(performance.now() - begun).toBeLessThan(5_000);
  });
});
