/** Frames over real sockets, cut anywhere; and frames that are not taken yet. */
import { once } from 'node:events';
import { type AddressInfo, createServer, Socket } from 'node:net';
import type pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { ReceivingSocket } from './receiving_socket.ts';
import { RawSession } from './wire.ts';

const closers: (() => void)[] = [];

afterEach(() => {
  for (const close of closers.splice(0)) close();
});

/** A socket of ours and the server's end of its connection. */
async function connection(socket: Socket): Promise<{ server: Socket; client: pg.Client }> {
  const listener = createServer().listen(0, '127.0.0.1');
  await once(listener, 'listening');
  socket.connect((listener.address() as AddressInfo).port, '127.0.0.1');
  const [server] = (await once(listener, 'connection')) as [Socket];
  if (socket.connecting) await once(socket, 'connect');
  server.setNoDelay(true);
  closers.push(() => {
    socket.destroy();
    server.destroy();
    listener.close();
  });
  return { server, client: { connection: { stream: socket }, end: async () => {} } as unknown as pg.Client };
}

function frame(type: string, body: Buffer): Buffer {
  const bytes = Buffer.alloc(5 + body.length);
  bytes.write(type, 0, 'latin1');
  bytes.writeInt32BE(4 + body.length, 1);
  body.copy(bytes, 5);
  return bytes;
}

/** Bodies of all lengths that matter: none, small ones, one larger than what is read at once. */
function bodies(): Buffer[] {
  const lengths = [0, 1, 2, 3, 4, 5, 6, 7, 100, 1000, 70_000, 0, 3, 700_000, 5, 0];
  return lengths.map((length, i) => Buffer.alloc(length, i + 1));
}

async function until(done: () => boolean): Promise<void> {
  for (const end = Date.now() + 10_000; !done(); ) {
    if (Date.now() > end) throw new Error('it never came');
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

describe.each([
  ['a plain socket', () => new Socket()],
  ['a receiving socket', () => new ReceivingSocket()],
])('frames over %s', (_, makeSocket) => {
  it('are handed out whole and in order, wherever what is received is cut', async () => {
    const sent = bodies();
    const bytes = Buffer.concat(sent.map((body) => frame('d', body)));
    for (const size of [1, 2, 3, 7, 64, 5_000, 300_000, bytes.length]) {
      const { server, client } = await connection(makeSocket());
      const got: Buffer[] = [];
      new RawSession(
        client,
        (type, chunk, start, end) => {
          expect(type).toBe(0x64);
          got.push(Buffer.from(chunk.subarray(start, end)));
          return true;
        },
        (error) => got.push(Buffer.from(error.message)),
      );
      // Small cuts for the first frames only: each is a packet.
      const head = Math.min(bytes.length, size * 200);
      for (let at = 0; at < head; at += size) {
        server.write(bytes.subarray(at, Math.min(head, at + size)));
        if (at < size * 50) await new Promise((resolve) => setImmediate(resolve));
      }
      server.write(bytes.subarray(head));
      await until(() => got.length >= sent.length);
      expect(Buffer.concat(got).equals(Buffer.concat(sent))).toBe(true);
      expect(got.map((body) => body.length)).toEqual(sent.map((body) => body.length));
    }
  });

  it('that are not taken come again after release, and nothing before', async () => {
    const { server, client } = await connection(makeSocket());
    const got: number[] = [];
    let open = false;
    const session = new RawSession(
      client,
      (_type, chunk, start) => {
        const number = chunk.readInt32BE(start);
        if (number % 3 === 0 && !open) return false;
        open = false;
        got.push(number);
        return true;
      },
      () => {},
    );
    const numbers = Array.from({ length: 60 }, (_, i) => i);
    const bytes = Buffer.concat(
      numbers.map((number) => {
        const body = Buffer.alloc(4 + ((number * 7919) % 3000));
        body.writeInt32BE(number);
        return frame('d', body);
      }),
    );
    for (let at = 0; at < bytes.length; at += 1777) {
      server.write(bytes.subarray(at, at + 1777));
      await new Promise((resolve) => setImmediate(resolve));
    }
    for (let released = 0; released < 20; released++) {
      const before = got.length;
      await new Promise((resolve) => setTimeout(resolve, 10));
      expect(got.length).toBe(before);
      open = true;
      session.release();
      await until(() => got.length >= Math.min(numbers.length, (released + 1) * 3));
    }
    expect(got).toEqual(numbers);
  });

  it('stop while the session is paused, and end with an error when the connection does', async () => {
    const { server, client } = await connection(makeSocket());
    let got = 0;
    let failed: string | undefined;
    const session = new RawSession(
      client,
      () => {
        got++;
        return true;
      },
      (error) => {
        failed = error.kind;
      },
    );
    server.write(frame('d', Buffer.alloc(10)));
    await until(() => got === 1);
    session.pause();
    expect(session.paused).toBe(true);
    server.write(frame('d', Buffer.alloc(10)));
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(got).toBe(1);
    session.resume();
    await until(() => got === 2);
    server.destroy();
    await until(() => failed !== undefined);
    expect(failed).toBe('source_unreachable');
  });

  it.each([
    ['58P01', 'replication slot "sluice_x" does not exist', 'slot_lost'],
    ['55000', 'can no longer get changes from replication slot "sluice_x"', 'slot_lost'],
    ['XX000', 'could not map filenumber "base/5/16398" to relation OID', 'slot_lost'],
    // As PostgreSQL 15 and before say it.
    ['42704', 'publication "sluice_x" does not exist', 'slot_lost'],
    ['XX000', 'could not map filenode "base/5/16398" to relation OID', 'slot_lost'],
    ['57P01', 'terminating connection due to administrator command', 'source_unreachable'],
  ])('end with what the server says: %s %s', async (code, message, kind) => {
    const { server, client } = await connection(makeSocket());
    let failed: string | undefined;
    new RawSession(
      client,
      () => true,
      (error) => {
        failed = error.kind;
      },
    );
    server.write(frame('E', Buffer.from(`SERROR\0C${code}\0M${message}\0\0`)));
    await until(() => failed !== undefined);
    expect(failed).toBe(kind);
  });
});

it('a receiving socket gives copies to whoever listens for data, as the login does', async () => {
  const socket = new ReceivingSocket();
  const { server } = await connection(socket);
  const got: Buffer[] = [];
  socket.on('data', (chunk: Buffer) => got.push(chunk));
  for (const text of ['first', 'second', 'third']) {
    server.write(text);
    await until(() => Buffer.concat(got).toString().endsWith(text));
  }
  expect(Buffer.concat(got).toString()).toBe('firstsecondthird');
});
