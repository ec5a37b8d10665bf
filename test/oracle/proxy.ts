/**
 * Stands between Sluice and ClickHouse and spoils inserts: cuts the connection before they are passed on, or after they
 * were carried out and before the answer, or passes them on late, when the sender has long given up.
 */
import http from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Random } from '../../workers/embedded/random.ts';

export interface ProxyFigures {
  passed: number;
  lost: number;
  unanswered: number;
  late: number;
}

export class ClickHouseProxy {
  readonly #target: URL;
  readonly #random: Random;
  readonly #server: http.Server;
  readonly #agent = new http.Agent({ keepAlive: true });
  /** Requests that are still to be passed on late. */
  readonly #late = new Set<Promise<void>>();
  /** Probability that an insert is spoiled. */
  trouble = 0;
  readonly figures: ProxyFigures = { passed: 0, lost: 0, unanswered: 0, late: 0 };

  private constructor(target: string, random: Random) {
    this.#target = new URL(target);
    this.#random = random;
    this.#server = http.createServer((request, response) => {
      this.#handle(request, response).catch(() => request.socket.destroy());
    });
  }

  static async start(target: string, random: Random): Promise<ClickHouseProxy> {
    const proxy = new ClickHouseProxy(target, random);
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
    const query = new URL(request.url ?? '/', 'http://x').searchParams.get('query') ?? body.toString('latin1', 0, 20);
    const spoiled = query.startsWith('INSERT') && this.#random.chance(this.trouble);
    if (!spoiled) {
      const { answer, bytes } = await this.#pass(request, body);
      this.figures.passed++;
      response.writeHead(answer.statusCode ?? 500, answer.headers).end(bytes);
      return;
    }
    // A chunk that comes after its table's snapshot has ended is another story: only the stream's inserts come late.
    const kinds = ['lost', 'unanswered', ...(request.headers['x-sluice-role'] === 'write' ? ['late'] : [])] as const;
    const kind = this.#random.pick(kinds);
    if (kind === 'lost') this.figures.lost++;
    else if (kind === 'unanswered') {
      await this.#pass(request, body);
      this.figures.unanswered++;
    } else {
      const late: Promise<void> = sleep(this.#random.between(50, 1500))
        .then(() => this.#pass(request, body))
        .then(
          () => {
            this.figures.late++;
          },
          () => {},
        )
        .finally(() => this.#late.delete(late));
      this.#late.add(late);
    }
    request.socket.destroy();
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
