/** The way to an asset API: one page at a time, with patience for what real ones do on a bad day. */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { Agent, type Dispatcher, request } from 'undici';
import { SluiceError } from '../../model/errors.ts';
import { type AssetPage, readPage } from './asset_page.ts';

/** Bytes of a page's body at most. */
const bodyBound = 64 * 1024 * 1024;
/** Tries of one page before the caller hears of it; it may try again later. */
const tries = 6;
const usualPause = 500;
const longestPause = 20_000;
/** A longer Retry-After is not waited for here, but between two attempts of the activity (milliseconds). */
const longestRetryAfter = 900_000;
/** And no longer than this there: who says more is asked again all the same (milliseconds). */
const longestRetryDelay = 86_400_000;
const requestPatience = 30_000;

export interface AssetApiOptions {
  /** The API's base; `/assets` is added. */
  url: URL;
  token?: string;
  pageSize: number;
  signal: AbortSignal;
  /** Milliseconds before the second try; each later pause is twice as long. */
  firstPause?: number;
  /** Told what is being waited for. */
  onWait?: (text: string) => void;
}

export interface PageAnswer extends AssetPage {
  /** True for 304: nothing has changed since the answer with that tag; `items` is empty. */
  unchanged: boolean;
  etag: string | undefined;
  /**
   * What the API's own clock showed at the latest when it was asked, nanoseconds since 1970; undefined when it does not
   * say.
   */
  time: bigint | undefined;
}

export class AssetApi {
  readonly #options: AssetApiOptions;
  readonly #agent = new Agent({
    connect: { timeout: 10_000 },
    headersTimeout: requestPatience,
    bodyTimeout: requestPatience,
    maxResponseSize: bodyBound,
  });
  /** Requests that were sent. */
  requests = 0;

  constructor(options: AssetApiOptions) {
    this.#options = options;
  }

  /**
   * One page of the assets updated at or after `since` (ISO text). Tries again what may pass by itself, as late as
   * Retry-After says. Errors: `source_unreachable`, which carries on a Retry-After that was not waited for, and
   * `source_refused`; the signal's reason when it is aborted.
   */
  async page(since: string, page: number, size: number, etag?: string): Promise<PageAnswer> {
    const { signal, onWait, firstPause = usualPause } = this.#options;
    for (let tried = 1; ; tried++) {
      signal.throwIfAborted();
      const trouble = await this.#try(since, page, size, etag);
      if (!(trouble instanceof Trouble)) return trouble;
      const pause = trouble.retryAfter ?? Math.min(longestPause, firstPause * 2 ** (tried - 1));
      if (tried >= tries || pause > longestRetryAfter) throw trouble.error(this.#options.url, tried);
      onWait?.(`${trouble.reason}; asks again in ${(pause / 1000).toFixed(1)} s`);
      await sleep(pause, undefined, { signal });
    }
  }

  async close(): Promise<void> {
    await this.#agent.destroy();
  }

  /** One request: its answer, or what stands in the way for now. */
  async #try(since: string, page: number, size: number, etag: string | undefined): Promise<PageAnswer | Trouble> {
    this.requests++;
    const asked = performance.now();
    try {
      const answer = await this.#send(since, page, size, etag);
      // An answer may bear the time of its end: what it shows may be as old as the question.
      const time = before(readDate(answer.headers.date), performance.now() - asked);
      if (answer.statusCode === 304 && etag !== undefined) {
        await answer.body.dump();
        return { items: [], nextPage: null, unchanged: true, etag, time };
      }
      if (answer.statusCode !== 200) {
        const retryAfter = readRetryAfter(answer.headers['retry-after'], time);
        await answer.body.dump({ limit: 64 * 1024 }).catch(() => {});
        return this.#refusal(answer.statusCode, retryAfter);
      }
      const read = readPage(await answer.body.text());
      if (!read) return new Trouble('the asset API answered something that is no JSON');
      const tag = answer.headers.etag;
      return { ...read, unchanged: false, etag: typeof tag === 'string' ? tag : undefined, time };
    } catch (error) {
      if (error instanceof SluiceError) throw error;
      this.#options.signal.throwIfAborted();
      const { code, message } = error as { code?: string; message?: string };
      if (code === 'UND_ERR_RES_EXCEEDED_MAX_SIZE') throw tooLarge();
      return new Trouble(`the asset API does not answer (${code ?? message ?? 'no reason given'})`);
    }
  }

  async #send(since: string, page: number, size: number, etag: string | undefined): Promise<Dispatcher.ResponseData> {
    const { url, token, signal } = this.#options;
    const target = new URL(url);
    target.pathname = `${target.pathname.replace(/\/$/, '')}/assets`;
    target.searchParams.set('updated_since', since);
    target.searchParams.set('page', String(page));
    target.searchParams.set('page_size', String(size));
    const headers: Record<string, string> = { accept: 'application/json' };
    if (etag !== undefined) headers['if-none-match'] = etag;
    if (token !== undefined) headers.authorization = `Bearer ${token}`;
    else if (url.username !== '') headers.authorization = basic(url);
    target.username = '';
    target.password = '';
    // Redirects are not followed: they would lead past the list of allowed hosts, with the token.
    return await request(target, { dispatcher: this.#agent, signal, headers });
  }

  #refusal(status: number, retryAfter: number | undefined): Trouble {
    // "Unchanged" answers no question that was not asked: taken as an answer, it would be the end of everything.
    if (status === 304) return new Trouble('the asset API answered 304, though no If-None-Match was sent', retryAfter);
    if (status === 429 || status === 408 || status === 425 || status >= 500)
      return new Trouble(`the asset API answered ${status}`, retryAfter);
    const remedy =
      status === 401 || status === 403
        ? 'Set the parameter `token` of the deployment to a reference such as "${ASSET_API_TOKEN}", and that variable where the worker runs.'
        : 'See that the address is right: GET {api_url}/assets must answer; redirects are not followed.';
    throw new SluiceError('source_refused', `the asset API at ${this.#options.url.origin} answered ${status}`, remedy);
  }
}

/** What stands in the way for now. */
class Trouble {
  readonly reason: string;
  /** Milliseconds. */
  readonly retryAfter: number | undefined;

  constructor(reason: string, retryAfter?: number) {
    this.reason = reason;
    this.retryAfter = retryAfter;
  }

  /** The error after `tried` tries. */
  error(url: URL, tried: number): SluiceError {
    const reason = `${this.reason}${tried > 1 ? `, ${tried} times` : ''} (${url.origin})`;
    // Without a pause of its own the activity's retry policy holds: "at once" must not become asking without end.
    const delay = this.retryAfter ? Math.min(longestRetryDelay, this.retryAfter) : undefined;
    const when = delay === undefined ? '' : ` in ${Math.ceil(delay / 1000)} s, as the API asks`;
    const remedy = `It is tried again by itself${when}; see what the API’s own log says.`;
    return new SluiceError('source_unreachable', reason, remedy, {}, undefined, delay);
  }
}

function basic(url: URL): string {
  const login = `${decodeURIComponent(url.username)}:${decodeURIComponent(url.password)}`;
  return `Basic ${Buffer.from(login).toString('base64')}`;
}

function tooLarge(): SluiceError {
  const reason = `a page of the asset API is larger than ${bodyBound / 1024 / 1024} MB`;
  return new SluiceError('source_refused', reason, 'Set a smaller `page_size` in the deployment.');
}

/** The three forms of a date in HTTP; the last one bears no zone, and means GMT. */
const httpDate = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)(?:[a-z]*, .* GMT| .* \d{4})$/;

/**
 * Milliseconds to wait: given in seconds, or as a date of the API's own clock, which showed `time`. Undefined for any
 * other text.
 */
export function readRetryAfter(header: string | string[] | undefined, time: bigint | undefined): number | undefined {
  if (typeof header !== 'string') return undefined;
  if (/^\d+(\.\d+)?$/.test(header)) return Math.ceil(Number(header)) * 1000;
  // Date.parse alone finds dates in nearly everything.
  if (!httpDate.test(header)) return undefined;
  const date = readDate(header.endsWith('GMT') ? header : `${header} GMT`);
  if (date === undefined) return undefined;
  const now = time === undefined ? Date.now() : Number(time / 1_000_000n);
  // A date has whole seconds: one more is surely late enough.
  return Math.max(0, Number(date / 1_000_000n) - now + 1000);
}

function before(time: bigint | undefined, milliseconds: number): bigint | undefined {
  return time === undefined ? undefined : time - BigInt(Math.ceil(milliseconds)) * 1_000_000n;
}

function readDate(header: string | string[] | undefined): bigint | undefined {
  const time = typeof header === 'string' ? Date.parse(header) : Number.NaN;
  return Number.isNaN(time) ? undefined : BigInt(time) * 1_000_000n;
}
