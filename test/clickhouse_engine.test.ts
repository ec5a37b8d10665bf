/** The embedded engine answers as a ClickHouse server does, keeps its roles apart, and survives bad requests and kills. */
import { randomBytes } from 'node:crypto';
import { connect as connectSocket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { gunzipSync, gzipSync } from 'node:zlib';
import { createClient } from '@clickhouse/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { sweepBelow } from '../activities/load/tables.ts';
import type { TableSchema } from '../model/table.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';

let parts: StartedParts<'clickhouse'>;
let write: ClickHouse;
let read: ClickHouse;

beforeAll(async () => {
  parts = await startParts(['clickhouse']);
  write = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'write' });
  read = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'read' });
  await write.command('CREATE DATABASE sluice');
});

afterAll(async () => {
  await Promise.all([write?.close(), read?.close()]);
  await parts?.[Symbol.asyncDispose]();
});

/** A raw request, as curl makes it. */
async function post(query: string, body?: string | Buffer, headers: Record<string, string> = {}, more = '') {
  const url = `${parts.clickhouse.url}/?query=${encodeURIComponent(query)}${more}`;
  const answer = await fetch(url, { method: 'POST', body: body as unknown as string, headers });
  return { status: answer.status, headers: answer.headers, text: await answer.text() };
}

const count = async (table: string) => (await read.tsv(`SELECT count() FROM sluice.${table}`)).toString().trim();

describe('statements', () => {
  it('inserts rows under any names, byte for byte, and reports how many', async () => {
    await write.command(
      'CREATE TABLE sluice.`we`, (`a b` Int64, `naïve\\`x` String) ENGINE = MergeTree ORDER BY `a b`'.replace(
        '`we`,',
        '`wéird; name`',
      ),
    );
    const bytes = Buffer.from([0x31, 0x09, 0xff, 0x00, 0xfe, 0x0a]);
    expect(await write.insertTsv('wéird; name', ['a b', 'naïve`x'], [bytes, Buffer.from('2\tx\\ty\n')], 'bytes')).toBe(
      2,
    );
    const hex = await read.tsv('SELECT hex(`naïve\\`x`) FROM sluice.`wéird; name` ORDER BY `a b`');
    expect(hex.toString()).toBe('FF00FE\n780979\n');
  });

  it('takes data as data, whatever SQL they look like', async () => {
    const texts = [
      '',
      '\t',
      "*/ '",
      '/* "',
      '-- `',
      '$$ ;',
      'FORMAT TSV',
      '); DROP TABLE sluice.looks',
      '\\',
      '*/',
      '\r',
      '“',
      '” )',
      '‘’',
    ];
    const rows = texts.map((text, i) => [text, String(i)] as const);
    const field = (text: string) => text.replaceAll('\\', '\\\\').replaceAll('\t', '\\t').replaceAll('\r', '\\r');
    const quoted = (text: string) => `"${text.replaceAll('"', '""')}"`;
    const tsv = rows.map(([text, i]) => `${field(text)}\t${i}\n`).join('');
    const csv = rows.map(([text, i]) => `${quoted(text)},${i}\r\n`).join('');
    const wanted = rows.map(([text, i]) => `${Buffer.from(text).toString('hex').toUpperCase()}\t${i}\n`).join('');
    for (const [insert, data, more] of [
      ['FORMAT TabSeparated', tsv, ''],
      ['FORMAT tsv', `left out\n${tsv}`, '&input_format_tsv_skip_first_lines=1'],
      ['SETTINGS input_format_tsv_skip_first_lines = 2 FORMAT TSV', `left\nout\n${tsv}`, ''],
      ['FORMAT CSV', csv, ''],
      ['FORMAT CSV', `left out\n${csv}`, '&input_format_csv_skip_first_lines=1'],
      ['FORMAT TSVWithNames', `s\ti\n${tsv}`, ''],
    ] as const) {
      await write.command('CREATE OR REPLACE TABLE sluice.looks (s String, i Int32) ENGINE = MergeTree ORDER BY i');
      const sent = await post(`INSERT INTO sluice.looks ${insert}`, data, {}, more);
      expect(sent.status, sent.text).toBe(200);
      expect((await read.tsv('SELECT hex(s), i FROM sluice.looks ORDER BY i')).toString(), insert).toBe(wanted);
    }
  });

  it('takes more data than one thread reads, each row once', async () => {
    await write.command('CREATE TABLE sluice.large (i Int64, s String) ENGINE = MergeTree ORDER BY i');
    const rows = Array.from(
      { length: 300_000 },
      (_, i) => `${i}\tsome "text" of row ${i}, as long as texts are /* */\n`,
    );
    const bytes = Buffer.from(rows.join(''));
    expect(bytes.length).toBeGreaterThan(15_000_000);
    expect(await write.insertTsv('large', ['i', 's'], [bytes], 'large')).toBe(rows.length);
    const sums = await read.tsv('SELECT count(), uniqExact(i), sum(i), uniqExact(length(s)) FROM sluice.large');
    expect(sums.toString()).toBe(`300000\t300000\t${(300_000 * 299_999) / 2}\t6\n`);
  });

  it('binds parameters of every kind, and forgets them', async () => {
    const params = {
      n: null,
      list: ["x'y", 'z\\'],
      text: "a\tb\\'\n",
      id: 'z',
      big: '340282366920938463463374607431768211455',
    };
    const sql =
      'SELECT {n:Nullable(String)} AS n, {list:Array(String)} AS list, {text:String} AS text, {id:Identifier} AS id, {big:UInt128} AS big FROM (SELECT 7 AS z)';
    const { n, list, text, big } = params;
    expect(await read.rows(sql, { params })).toEqual([{ n, list, text, id: 7, big }]);
    await expect(read.rows('SELECT {text:String}')).rejects.toThrow(/UNKNOWN_QUERY_PARAMETER/);
  });

  it('keeps settings and the database to their request', async () => {
    const changed = await post(
      "SELECT value FROM system.settings WHERE name = 'max_threads'",
      '',
      {},
      '&max_threads=1&database=sluice',
    );
    expect(changed.text).toBe('1\n');
    expect((await post('SELECT currentDatabase()', '', {}, '&database=sluice')).text).toBe('sluice\n');
    const after = await post("SELECT changed FROM system.settings WHERE name = 'max_threads'");
    expect(after.text).toBe('0\n');
    expect((await post('SELECT currentDatabase()')).text).toBe('default\n');
  });

  it('is waited for while it empties a large copy, however long it says nothing', async () => {
    const columns = '`id` Int64, `_version` UInt128, `_deleted` UInt8, `_committed_at` DateTime64(6)';
    // The rows that it writes make it slow, as many of them would.
    const slow = '`slow` UInt8 DEFAULT sleepEachRow(0.02)';
    await write.command(
      `CREATE TABLE sluice.swept (${columns}, ${slow}) ENGINE = ReplacingMergeTree(_version) ORDER BY id`,
    );
    await write.command('INSERT INTO sluice.swept SELECT number, 1, 0, now64(6), 0 FROM numbers(100)');
    const hasty = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'write', patience: 1_000 });
    const id = { name: 'id', attnum: 1, type: 'bigint', clickhouse: 'Int64', key: true };
    const table = { asset_id: 'swept', columns: [id] } as unknown as TableSchema;
    await sweepBelow(hasty, table, '2', '2026-01-01 00:00:00', 'sweep');
    expect(await count('swept FINAL WHERE _deleted')).toBe('100');
    await expect(hasty.command('SELECT sleep(2)')).rejects.toMatchObject({ kind: 'sink_unreachable' });
    await hasty.close();
  });

  it('takes inserts as curl sends them: all in the body, VALUES, SELECT, empty', async () => {
    await write.command('CREATE TABLE sluice.curl (a Int32, s String) ENGINE = MergeTree ORDER BY a');
    const send = async (body: string) => {
      const answer = await fetch(parts.clickhouse.url, { method: 'POST', body });
      expect(answer.status, await answer.text()).toBe(200);
      return JSON.parse(answer.headers.get('x-clickhouse-summary') ?? '{}').written_rows;
    };
    expect(await send('INSERT INTO sluice.curl FORMAT TSV\n1\tx\n2\ty\n')).toBe('2');
    expect(await send("INSERT INTO sluice.curl (a, s) VALUES (3, 'FORMAT'), (4, ';')")).toBe('2');
    expect(await send("INSERT INTO sluice.curl SELECT number, 'n' FROM numbers(10)")).toBe('10');
    expect(await send('INSERT INTO sluice.curl FORMAT JSONEachRow\n{"a":5,"s":"ü"}\n{"a":6}\n')).toBe('2');
    expect((await post('INSERT INTO sluice.curl FORMAT TSV', '')).headers.get('x-clickhouse-summary')).toContain(
      '"written_rows":"0"',
    );
    expect(await count('curl')).toBe('16');
  });

  it('answers in the format of the statement, of default_format, or as TSV', async () => {
    expect((await post('SELECT 1 AS a FORMAT JSONEachRow')).text).toBe('{"a":1}\n');
    const csv = await post("SELECT 'x' AS a", '', {}, '&default_format=CSV');
    expect([csv.text, csv.headers.get('x-clickhouse-format')]).toEqual(['"x"\n', 'CSV']);
    expect((await post('SELECT 1, 2', '', {}, '&query_id=mine')).headers.get('x-clickhouse-query-id')).toBe('mine');
  });

  it('takes and gives gzip', async () => {
    await write.command('CREATE TABLE sluice.zipped (a Int64) ENGINE = MergeTree ORDER BY a');
    const zipped = gzipSync(Array.from({ length: 5000 }, (_, i) => `${i}\n`).join(''));
    const sent = await post('INSERT INTO sluice.zipped FORMAT TSV', zipped, { 'Content-Encoding': 'gzip' });
    expect(sent.status, sent.text).toBe(200);
    const client = createClient({ url: parts.clickhouse.url, compression: { response: true, request: true } });
    await client.insert({ table: 'sluice.zipped', values: [{ a: 5000 }], format: 'JSONEachRow' });
    const rows = await (
      await client.query({ query: 'SELECT a FROM sluice.zipped ORDER BY a', format: 'JSONEachRow' })
    ).json();
    expect(rows).toHaveLength(5001);
    await client.close();
    const url = `${parts.clickhouse.url}/?enable_http_compression=1&query=SELECT+number+FROM+numbers(5000)`;
    const { request } = await import('node:http');
    const raw = await new Promise<Buffer>((resolve, reject) => {
      const asked = request(url, { headers: { 'Accept-Encoding': 'gzip' } }, (answer) => {
        const chunks: Buffer[] = [];
        answer.on('data', (chunk: Buffer) => chunks.push(chunk)).on('end', () => resolve(Buffer.concat(chunks)));
        expect(answer.headers['content-encoding']).toBe('gzip');
      });
      asked.on('error', reject).end();
    });
    expect(gunzipSync(raw).toString().split('\n')).toHaveLength(5001);
  });
});

describe('refusals', () => {
  it('gives ClickHouse’s codes with its statuses', async () => {
    for (const [sql, status, code] of [
      ['SELECT * FROM nosuch', 404, '60'],
      ['SELECT nosuch', 404, '47'],
      ['SELECT * FROM nosuch.t', 404, '81'],
      ['SELEC 1', 400, '62'],
      ['SELECT 1; SELECT 2', 400, '62'],
      ['SELECT throwIf(1)', 500, '395'],
      ["SELECT toInt8('x')", 400, '6'],
    ] as const) {
      const answer = await post(sql);
      expect([sql, answer.status, answer.headers.get('x-clickhouse-exception-code')]).toEqual([sql, status, code]);
      expect(answer.text).toMatch(new RegExp(`^Code: ${code}\\. DB::Exception: [^]*\\([A-Z_0-9]+\\) \\(version `));
    }
    expect((await post('SELECT 1', '', {}, '&no_such_setting=1')).headers.get('x-clickhouse-exception-code')).toBe(
      '115',
    );
  });

  it('writes nothing when a row is bad, and says which column', async () => {
    await write.command('CREATE TABLE sluice.strict (a Int32) ENGINE = MergeTree ORDER BY a');
    await expect(write.insertTsv('strict', ['a'], [Buffer.from('1\nx\n')], 'bad')).rejects.toThrow(/CANNOT_PARSE/);
    expect(await count('strict')).toBe('0');
  });

  it('honours readonly, and reads only by GET', async () => {
    await write.command('CREATE TABLE sluice.kept (a Int32) ENGINE = MergeTree ORDER BY a');
    for (const readonly of ['1', '2']) {
      const refused = await post('DROP TABLE sluice.kept', '', {}, `&readonly=${readonly}`);
      expect(refused.headers.get('x-clickhouse-exception-code')).toBe('164');
    }
    const get = await fetch(`${parts.clickhouse.url}/?query=${encodeURIComponent('DROP TABLE sluice.kept')}`);
    expect(get.headers.get('x-clickhouse-exception-code')).toBe('164');
    expect((await post('SELECT 1', '', {}, '&readonly=1&max_threads=1')).text).toBe('1\n');
    expect(await count('kept')).toBe('0');
  });

  it('refuses requests of web pages and for other hosts', async () => {
    expect((await post('SELECT 1', '', { Origin: 'http://evil.example' })).status).toBe(403);
    const { port } = new URL(parts.clickhouse.url);
    const head = await rawRequest(
      Number(port),
      'GET /?query=SELECT+1 HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n',
    );
    expect(head).toMatch(/^HTTP\/1\.1 403/);
  });

  it('bounds bodies and answers', async () => {
    const huge = await post('SELECT 1', Buffer.alloc(65 * 1024 * 1024, 0x20)).catch(() => ({ status: 413 }));
    expect(huge.status).toBe(413);
    const bomb = gzipSync(Buffer.alloc(70 * 1024 * 1024));
    expect((await post('INSERT INTO sluice.kept FORMAT TSV', bomb, { 'Content-Encoding': 'gzip' })).status).toBe(413);
    const long = await post('SELECT repeat(toString(number % 10), 1000000) FROM numbers(2000)');
    expect(long.headers.get('x-clickhouse-exception-code')).toBe('396');
  });

  it('goes on after nonsense of every sort', async () => {
    const { port } = new URL(parts.clickhouse.url);
    const before = parts.clickhouse.pid;
    for (let round = 0; round < 30; round++) await rawRequest(Number(port), randomBytes(200).toString('latin1'));
    await post('INSERT INTO sluice.kept FORMAT Nosuch', '1\n');
    await post('INSERT INTO sluice.kept FORMAT Native', randomBytes(1000));
    await post('INSERT INTO sluice.kept FORMAT RowBinary', randomBytes(3));
    await post('SELECT 1', randomBytes(1000), { 'Content-Encoding': 'gzip' });
    await post('SELECT 1', '', {}, '&param_a%27=1&x%20y=2');
    await fetch(`${parts.clickhouse.url}/%ff?query=%ff`).catch(() => {});
    expect((await post('SELECT 1')).text).toBe('1\n');
    expect(parts.clickhouse.pid).toBe(before);
  });
});

describe('order', () => {
  const slow = 'SELECT sum(cityHash64(number)) AS s FROM numbers(20000000000)';

  it('lets no read delay an insert, and no write overtake a write', async () => {
    await write.command('CREATE TABLE sluice.beside (a Int64) ENGINE = MergeTree ORDER BY a');
    const end = new AbortController();
    const reading = Promise.allSettled([1, 2, 3, 4, 5].map(() => read.rows(slow, { signal: end.signal })));
    await sleep(200);
    const begun = performance.now();
    await write.insertTsv('beside', ['a'], [Buffer.from('1\n')], 'beside');
    expect(performance.now() - begun).toBeLessThan(5000);
    end.abort();
    await reading;
    // Those who have gone are cancelled, so the role is free again at once.
    const free = performance.now();
    await read.rows('SELECT 1');
    expect(performance.now() - free).toBeLessThan(5000);

    const headers = { 'X-Sluice-Role': 'write' };
    const first = post('INSERT INTO sluice.beside SELECT sleepEachRow(0.5) + 10 FROM numbers(2)', '', headers);
    await sleep(100);
    const second = post('SELECT count() FROM sluice.beside', '', headers);
    expect((await second).text).toBe('3\n');
    expect((await first).status).toBe(200);
  });

  it('kills by query id what runs and what waits', async () => {
    const headers = { 'X-Sluice-Role': 'write' };
    const running = post(slow, '', headers, '&query_id=lease-1-a');
    const waiting = post('SELECT 1', '', headers, '&query_id=lease-1-b');
    const other = post('SELECT 2', '', headers, '&query_id=lease-2-a');
    await sleep(300);
    const again = await post('SELECT 1', '', {}, '&query_id=lease-1-a');
    expect(again.headers.get('x-clickhouse-exception-code')).toBe('216');
    const killed = await post("KILL QUERY WHERE query_id LIKE 'lease-1-%' SYNC");
    expect(killed.text.trim().split('\n')).toHaveLength(2);
    expect((await running).headers.get('x-clickhouse-exception-code')).toBe('394');
    expect((await waiting).headers.get('x-clickhouse-exception-code')).toBe('394');
    expect((await other).text).toBe('2\n');
    expect((await post("KILL QUERY WHERE query_id = 'nobody' SYNC")).text).toBe('');
  });

  it('ends inserts whose data are still on their way', async () => {
    await write.command('CREATE TABLE sluice.halfway (x Int64) ENGINE = MergeTree ORDER BY x');
    const insert = write.openInsert('halfway', ['x'], 'lease-7-1');
    await insert.write(Buffer.from('1\n'));
    const listed = async () => (await post("KILL QUERY WHERE query_id = 'lease-7-1' SYNC")).text;
    while (!(await listed()).includes('lease-7-1')) await sleep(10);
    await expect(insert.end()).rejects.toMatchObject({ kind: 'sink_unreachable' });
    expect(await count('halfway')).toBe('0');
  });

  it('inserts nothing of a body that breaks off', async () => {
    await write.command('CREATE TABLE sluice.broken (a Int64) ENGINE = MergeTree ORDER BY a');
    const { port } = new URL(parts.clickhouse.url);
    const query = encodeURIComponent('INSERT INTO sluice.broken FORMAT TSV');
    const head = `POST /?query=${query} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n`;
    const socket = connectSocket(Number(port), '127.0.0.1');
    socket.on('error', () => {});
    socket.write(`${head}4\r\n1\n2\n\r\n`);
    await sleep(300);
    socket.destroy();
    await sleep(300);
    expect(await count('broken')).toBe('0');
  });
});

describe('kill -9', () => {
  it('keeps every acknowledged row, and starts on the locks of the dead', async () => {
    await write.command(
      'CREATE TABLE sluice.durable (a Int64) ENGINE = MergeTree ORDER BY a SETTINGS fsync_after_insert = 1',
    );
    let acknowledged = 0;
    for (let round = 0; round < 3; round++) {
      const inserting = (async () => {
        for (;;) {
          await write.insertTsv('durable', ['a'], [Buffer.from(`${acknowledged}\n`)], `durable-${acknowledged}`);
          acknowledged++;
        }
      })().catch(() => {});
      await sleep(400);
      await parts.clickhouse.kill();
      await inserting;
      await parts.clickhouse.restart();
      const rows = Number((await read.tsv('SELECT uniqExact(a) FROM sluice.durable')).toString());
      expect(rows).toBeGreaterThanOrEqual(acknowledged);
      expect(rows).toBeLessThanOrEqual(acknowledged + 1);
    }
    expect(acknowledged).toBeGreaterThan(10);
  });

  it('shows broken parts that it set aside', async () => {
    const [part] = await read.rows<{ path: string }>(
      "SELECT path FROM system.parts WHERE table = 'durable' AND active LIMIT 1",
    );
    const { truncateSync, readdirSync } = await import('node:fs');
    const path = await import('node:path');
    await parts.clickhouse.kill();
    const folder = path.resolve(parts.home, 'clickhouse', part?.path ?? '');
    for (const file of readdirSync(folder)) truncateSync(path.join(folder, file), 0);
    await parts.clickhouse.restart();
    const detached = await read.rows<{ table: string; reason: string }>(
      'SELECT table, reason FROM system.detached_parts',
    );
    expect(detached).toContainEqual({ table: 'durable', reason: 'broken-on-start' });
  });
});

function rawRequest(port: number, text: string): Promise<string> {
  return new Promise((resolve) => {
    const socket = connectSocket(port, '127.0.0.1');
    let answer = '';
    socket.setTimeout(3000, () => socket.destroy());
    socket.on('data', (chunk) => {
      answer += chunk.toString('latin1');
    });
    socket.on('error', () => {});
    socket.on('close', () => resolve(answer));
    socket.end(text, 'latin1');
  });
}
