/**
 * Stands between Sluice and ClickHouse and spoils inserts: loses them, or carries them out and loses the answer, or
 * passes them on late, when the sender has long given up.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../workers/demo/random.ts';

export interface ProxyFigures {
  passed: number;
  lost: number;
  unanswered: number;
  late: number;
}

export interface Insert {
  /** The statement, or its beginning. */
  query: string;
  queryId: string;
  role: string;
  /** What is inserted. */
  body: Buffer;
}

/** A statement that changes something, and what became of it. */
export interface Told {
  /** When it came, and when it was answered, if it was. */
  at: string;
  end?: string;
  verdict: Verdict;
  status?: number;
  role: string;
  queryId: string;
  query: string;
  /** What was inserted, if it is not much. */
  body?: string;
}

export type Verdict = 'passed' | 'lost' | 'unanswered' | 'late';

const mostTold = 5_000;

const now = () => new Date().toISOString().slice(11, 23);

/** Spoils inserts with the probability that `trouble` tells. */
export function randomTrouble(random: Random, trouble: () => number): (insert: Insert) => Verdict {
  return ({ role }) => {
    if (!random.chance(trouble())) return 'passed';
    // A chunk that comes after its table's snapshot has ended is another story: only the stream's inserts come late.
    return random.pick(role === 'write' ? ['lost', 'unanswered', 'late'] : ['lost', 'unanswered']);
  };
}

export class ClickHouseProxy {
  readonly #target: URL;
  readonly #decide: (insert: Insert) => Verdict;
  readonly #server: http.Server;
  readonly #agent = new http.Agent({ keepAlive: true });
  /** Requests that are still to be passed on late. */
  readonly #late = new Set<Promise<void>>();
  readonly figures: ProxyFigures = { passed: 0, lost: 0, unanswered: 0, late: 0 };
  /** The last statements that change something: what went wrong may have to be understood afterwards. */
  readonly told: Told[] = [];

  private constructor(target: string, decide: (insert: Insert) => Verdict) {
    this.#target = new URL(target);
    this.#decide = decide;
    this.#server = http.createServer((request, response) => {
      this.#handle(request, response).catch(() => request.socket.destroy());
    });
  }

  static async start(target: string, decide: (insert: Insert) => Verdict): Promise<ClickHouseProxy> {
    const proxy = new ClickHouseProxy(target, decide);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** Resolves when nothing is under way any more that was reported failed. */
  async settled(): Promise<void> {
    await Promise.all(this.#late);
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
    this.#agent.destroy();
  }

  async #handle(request: http.IncomingMessage, response: http.ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk);
    const body = Buffer.concat(chunks);
    const params = new URL(request.url ?? '/', 'http://x').searchParams;
    const query = params.get('query') ?? body.toString('utf8', 0, 200);
    const insert = {
      query,
      queryId: params.get('query_id') ?? '',
      role: String(request.headers['x-sluice-role'] ?? ''),
      body,
    };
    const verdict = query.startsWith('INSERT') ? this.#decide(insert) : 'passed';
    const told = this.#tell(insert, verdict);
    if (verdict === 'passed') {
      const { answer, bytes } = await this.#pass(request, body);
      told.end = now();
      told.status = answer.statusCode;
      this.figures.passed++;
      response.writeHead(answer.statusCode ?? 500, answer.headers).end(bytes);
      return;
    }
    this.figures[verdict]++;
    if (verdict === 'unanswered') await this.#pass(request, body);
    if (verdict === 'late') this.#passLate(request, body);
    request.socket.destroy();
  }

  #tell({ query, queryId, role, body }: Insert, verdict: Verdict): Told {
    const text = body.length > 2000 ? undefined : body.toString();
    const told: Told = { at: now(), verdict, role, queryId, query: query.slice(0, 300), ...(text && { body: text }) };
    if (/^(SELECT|SHOW|DESC)/.test(query)) return told;
    this.told.push(told);
    if (this.told.length > mostTold) this.told.splice(0, mostTold / 10);
    return told;
  }

  #passLate(request: http.IncomingMessage, body: Buffer): void {
    const late: Promise<void> = sleep(50 + Math.random() * 1500)
      .then(() => this.#pass(request, body))
      .then(
        () => {},
        () => {},
      )
      .finally(() => this.#late.delete(late));
    this.#late.add(late);
  }

  #pass(request: http.IncomingMessage, body: Buffer): Promise<{ answer: http.IncomingMessage; bytes: Buffer }> {
    return new Promise((resolve, reject) => {
      const { connection: _, 'transfer-encoding': __, ...headers } = request.headers;
      const onwards = http.request({
        host: this.#target.hostname,
        port: this.#target.port,
        method: request.method,
        path: request.url,
        headers: { ...headers, 'content-length': String(body.length) },
        agent: this.#agent,
      });
      onwards.once('error', reject);
      onwards.once('response', (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk));
        answer.once('error', reject);
        answer.once('end', () => resolve({ answer, bytes: Buffer.concat(chunks) }));
      });
      onwards.end(body);
    });
  }
}
