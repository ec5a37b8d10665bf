import { createHash, randomBytes } from 'node:crypto';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClickHouse } from './clickhouse.ts';

/** Takes the body slowly, and answers what it received. */
const received: string[] = [];
let refuse = false;
const server = createServer(async (request, response) => {
  const hash = createHash('sha256');
  let chunks = 0;
  try {
    for await (const chunk of request) {
      hash.update(chunk);
      if (refuse) break;
      if (++chunks % 5 === 0) await sleep(1);
    }
    received.push(hash.digest('hex'));
  } catch {
    received.push('cut off');
    return;
  }
  if (refuse) response.writeHead(400, { 'X-ClickHouse-Exception-Code': '27', connection: 'close' });
  else response.writeHead(200, { 'X-ClickHouse-Summary': '{"written_rows":"7"}' });
  response.end(refuse ? 'Code: 27. DB::Exception: Cannot parse (INCORRECT_DATA)' : '');
});
let clickhouse: ClickHouse;

beforeAll(async () => {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  clickhouse = new ClickHouse({ url: `http://127.0.0.1:${port}`, database: 'd', role: 'snapshot' });
});

afterAll(async () => {
  await clickhouse.close();
  server.closeAllConnections();
  server.close();
});

describe('an insert in pieces', () => {
  it('sends every byte, from two buffers in turn and whatever their size', async () => {
    const sent = createHash('sha256');
    const insert = clickhouse.openInsert('t', ['a'], 'id');
    const buffers = [Buffer.alloc(300_000), Buffer.alloc(300_000)];
    for (let piece = 0; piece < 60; piece++) {
      const bytes = buffers[piece % 2]!.subarray(0, 1 + ((piece * 104_729) % 300_000));
      randomBytes(bytes.length).copy(bytes);
      sent.update(bytes);
      // When this resolves, the buffer of the piece before is written to again.
      await insert.write(bytes);
    }
    expect(await insert.end()).toBe(7);
    expect(received.at(-1)).toBe(sent.digest('hex'));
  });

  it('leaves the request incomplete when it is cancelled', async () => {
    const insert = clickhouse.openInsert('t', ['a'], 'id');
    await insert.write(Buffer.from('1\n'));
    insert.cancel(new Error('enough'));
    const before = received.length;
    await expect(insert.end()).rejects.toThrow();
    while (received.length === before) await sleep(5);
    expect(received.at(-1)).toBe('cut off');
  });

  it('ends with the statement’s error, also while more is to come', async () => {
    refuse = true;
    const insert = clickhouse.openInsert('t', ['a'], 'id');
    const bytes = Buffer.alloc(500_000, '1\n');
    await expect(
      (async () => {
        for (;;) await insert.write(bytes);
      })(),
    ).rejects.toMatchObject({ name: 'SluiceError' });
    refuse = false;
  });
});
