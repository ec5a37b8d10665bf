/** Stands between Sluice and the source: sessions are cut, go silent without an end (half-open), or become slow. */
import { type AddressInfo, createServer, connect as dial, type Server, type Socket } from 'node:net';

interface Pair {
  near: Socket;
  far: Socket;
}

export class SocketProxy {
  readonly #server: Server;
  readonly #pairs = new Set<Pair>();
  /** Bytes a second in each direction of each session; infinite as usual. */
  #rate = Number.POSITIVE_INFINITY;

  private constructor(target: () => number) {
    this.#server = createServer((near) => this.#join(near, dial(target(), '127.0.0.1')));
  }

  /** `target`: the port, asked for each session. */
  static async start(target: () => number): Promise<SocketProxy> {
    const proxy = new SocketProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve));
    return proxy;
  }

  get port(): number {
    return (this.#server.address() as AddressInfo).port;
  }

  /** Ends all sessions, or one of them: both sides are told. */
  cut(which: 'all' | 'one'): void {
    const [one] = this.#pairs;
    for (const pair of which === 'all' || !one ? this.#pairs : [one]) this.#end(pair);
  }

  /** From now on nobody of the sessions that are open hears of the other; new ones are as usual. Nothing is ended. */
  freeze(): () => void {
    const frozen = [...this.#pairs];
    for (const { near, far } of frozen) {
      near.unpipe();
      far.unpipe();
      near.removeAllListeners('data').pause();
      far.removeAllListeners('data').pause();
    }
    return () => {
      for (const pair of frozen) this.#end(pair);
    };
  }

  slow(bytesPerSecond: number): void {
    this.#rate = bytesPerSecond;
  }

  async close(): Promise<void> {
    this.cut('all');
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #join(near: Socket, far: Socket): void {
    const pair = { near, far };
    this.#pairs.add(pair);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      from.setNoDelay(true);
      from.on('data', (bytes) => this.#pass(bytes, from, to));
      from.on('error', () => {});
      from.on('close', () => this.#end(pair));
    }
  }

  #pass(bytes: Buffer, from: Socket, to: Socket): void {
    const room = to.write(bytes);
    const pause = (bytes.length / this.#rate) * 1000;
    if (room && pause < 1) return;
    from.pause();
    const goOn = () => void from.resume();
    if (room) setTimeout(goOn, pause).unref();
    else to.once('drain', goOn);
  }

  #end(pair: Pair): void {
    this.#pairs.delete(pair);
    pair.near.destroy();
    pair.far.destroy();
  }
}
