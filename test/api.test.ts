/** The REST API on real parts: every answer that the contract names. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import type { SourceAnswer } from '../api/control/shapes.ts';
import type { Problem } from '../api/problems.ts';
import { connectTemporal } from '../workers/temporal_client.ts';
import { type ControlStack, endChild, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;
const config = { tables: ['accounts', 'orders'], poll_interval: 0.2 };

beforeAll(async () => {
  stack = await startControlStack();
  await sql(`CREATE TABLE public.accounts (id int PRIMARY KEY, name text, balance numeric(12,2));
    CREATE TABLE public.orders (id bigint PRIMARY KEY, account int, note text);
    CREATE TABLE public.later (id int PRIMARY KEY, v text);
    CREATE TABLE public.keyless (v text);
    INSERT INTO public.accounts SELECT i, 'name ' || i, i * 1.5 FROM generate_series(1, 200) i;
    INSERT INTO public.orders SELECT i, i % 200, 'note' FROM generate_series(1, 500) i;
    INSERT INTO public.later VALUES (1, 'a')`);
}, 120_000);

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

function sql(text: string): Promise<unknown> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, (client) => client.query(text));
}

interface Answer<Body> {
  status: number;
  body: Body;
  headers: Headers;
}

async function call<Body = SourceAnswer>(
  method: string,
  path: string,
  body?: unknown,
  headers: Record<string, string> = {},
): Promise<Answer<Body>> {
  const withBody = body === undefined ? {} : { body: typeof body === 'string' ? body : JSON.stringify(body) };
  const type: Record<string, string> = body === undefined ? {} : { 'content-type': 'application/json' };
  const answer = await fetch(`${stack.api}${path}`, { method, headers: { ...type, ...headers }, ...withBody });
  const text = await answer.text();
  const isJson = answer.headers.get('content-type')?.includes('json');
  return { status: answer.status, body: (isJson ? JSON.parse(text) : text) as Body, headers: answer.headers };
}

const connect = (id: string, more: object = {}) =>
  call<Omit<SourceAnswer, 'status'> & Omit<Problem, 'status'> & { status: unknown }>(
    'POST',
    '/api/v1/sources/connect',
    {
      id,
      type: 'postgresql',
      connection_string: stack.parts.postgres.url,
      config,
      ...more,
    },
  );
const source = async (id = 'shop') => (await call(`GET`, `/api/v1/sources/${id}`)).body;
const streaming = (one: SourceAnswer) => one.status === 'streaming';

describe('requests', () => {
  it('that are malformed, too large or elsewhere are problems', async () => {
    const post = (body: unknown, headers = {}) => call<Problem>('POST', '/api/v1/query', body, headers);
    expect((await post('{x')).status).toBe(400);
    expect((await post({ sql: 1 })).status).toBe(422);
    expect((await post({ sql: `SELECT '${'x'.repeat(1 << 20)}'` })).status).toBe(413);
    expect((await post('sql=1', { 'content-type': 'application/x-www-form-urlencoded' })).status).toBe(415);
    expect((await post({ sql: 'SELECT 1' }, { origin: 'http://evil.example' })).status).toBe(403);
    const nowhere = await call<Problem>('GET', '/api/v1/nowhere');
    expect([nowhere.status, nowhere.headers.get('content-type')]).toEqual([
      404,
      'application/problem+json; charset=utf-8',
    ]);
    const wrong = await connect('Shop!', { colour: 'red' });
    expect(wrong.status).toBe(422);
    expect(wrong.body.errors?.map((error) => error.pointer).sort()).toEqual(['/colour', '/id']);
  });

  it('find the pages', async () => {
    const openapi = await call<{ openapi: string; paths: Record<string, unknown> }>('GET', '/openapi.json');
    expect(openapi.body.openapi).toBe('3.1.0');
    expect(Object.keys(openapi.body.paths)).toContain('/api/v1/sources/{id}/add-tables');
    const run = openapi.body.paths['/api/v1/deployments/{name}/run'] as { post: { parameters: object[] } };
    expect(run.post.parameters).toContainEqual(
      expect.objectContaining({ in: 'header', name: 'idempotency-key', required: false }),
    );
    expect((await call('GET', '/docs')).status).toBe(200);
    const console = await call<string>('GET', '/');
    expect(console.headers.get('content-security-policy')).toMatch(/script-src 'sha256-/);
    expect(console.body).toContain('<title>Sluice</title>');
  });
});

describe('a source', () => {
  it('that cannot be captured is refused with a remedy for each finding', async () => {
    const missing = await connect('shop', { config: { tables: ['nowhere'] } });
    expect(missing.status).toBe(422);
    expect(missing.body.errors?.[0]).toMatchObject({ pointer: '/config/tables', remedy: expect.stringMatching(/./) });
    const away = await connect('shop', { connection_string: 'postgresql://u:hunter2@127.0.0.1:1/x' });
    expect(away.status).toBe(422);
    expect(JSON.stringify(away.body)).not.toContain('hunter2');
    expect((await call('GET', '/api/v1/sources')).body).toEqual([]);
  }, 30_000);

  it('is connected once, and is the same again', async () => {
    const made = await connect('shop');
    expect([made.status, made.headers.get('location')]).toEqual([201, '/api/v1/sources/shop']);
    expect(made.body).toMatchObject({ id: 'shop', status: 'connected', last_error: null, lag_bytes: null });
    expect(made.body.tables.map((table) => [table.asset_id, table.status, table.progress])).toEqual([
      ['shop_accounts', 'pending', 0],
      ['shop_orders', 'pending', 0],
    ]);
    expect((await connect('shop')).status).toBe(200);
    const other = await connect('shop', { config: { tables: ['accounts'] } });
    expect([other.status, other.body.kind]).toEqual([409, 'conflict']);
    expect((await call('GET', '/api/v1/sources')).body).toHaveLength(1);
  }, 30_000);

  it('shows its secret nowhere', async () => {
    const password = new URL(stack.parts.postgres.url).password;
    expect(password.length).toBeGreaterThan(5);
    const all = await Promise.all(
      ['/api/v1/sources', '/api/v1/pipeline/status', '/metrics', '/health'].map((path) => call<unknown>('GET', path)),
    );
    expect(JSON.stringify(all.map((one) => one.body))).not.toContain(password);
  });

  it('streams after start, and its figures are right', async () => {
    const started = await call('POST', '/api/v1/sources/shop/start');
    // Its slot was not made yet: that it is not there is no alarm.
    expect([started.status, started.body.alarms, started.body.log]).toEqual([202, [], null]);
    await until(source, streaming);
    await sql(
      "UPDATE public.accounts SET balance = 7 WHERE id <= 10; DELETE FROM public.orders WHERE id = 1; INSERT INTO public.orders VALUES (1000, 1, 'new')",
    );
    const state = await until(source, (one) => (one.changes_total ?? 0) >= 12 && one.lag_bytes !== null);
    expect(state.changes_total).toBe(12);
    expect(state.last_batch_at).toMatch(/^\d{4}-\d\d-\d\dT.*Z$/);
    expect(state.position).toMatch(/^[0-9A-F]+\/[0-9A-F]+$/);
    expect(state.lag_seconds).toBeGreaterThanOrEqual(0);
    const rows = await until(source, (one) => one.tables.every((table) => (table.rows ?? 0) > 0));
    expect(rows.tables.map((table) => [table.table, table.rows, table.rejected, table.progress])).toEqual([
      ['accounts', 200, 0, 1],
      ['orders', 500, 0, 1],
    ]);
  }, 60_000);

  it('is counted in the metrics', async () => {
    // Figures are shared for a second.
    const page = async () => (await call<string>('GET', '/metrics')).body;
    const body = await until(page, (text) => text.includes('asset="shop_accounts",op="update"} 10\n'), 5);
    expect(body).toContain('sluice_up 1\n');
    expect(body).toContain('sluice_changes_total{source="shop",asset="shop_accounts",op="update"} 10\n');
    expect(body).toContain('sluice_changes_total{source="shop",asset="shop_orders",op="delete"} 1\n');
    expect(body).toMatch(/^sluice_lag_bytes\{source="shop"\} \d+$/m);
    expect(body).toMatch(/^sluice_batch_seconds_bucket\{source="shop",le="\+Inf"\} [1-9]\d*$/m);
    expect(body).toMatch(/^process_resident_memory_bytes \d+$/m);
  });

  it('is healthy', async () => {
    const { status, body } = await call<Record<string, unknown>>('GET', '/health');
    expect([status, body.status]).toEqual([200, 'ok']);
    expect(body.checks).toMatchObject({
      temporal: 'ok',
      clickhouse: 'ok',
      worker: 'ok',
      sources: { shop: 'streaming' },
    });
    expect((await call<Record<string, unknown>>('GET', '/api/v1/pipeline/status')).body.status).toBe('running');
  });

  it('carries an order with a key out once', async () => {
    const order = (key: string) => {
      return call<SourceAnswer>('POST', '/api/v1/sources/shop/resync', ['accounts'], { 'idempotency-key': key });
    };
    const answers = await Promise.all([order('again-1'), order('again-1')]);
    expect([...answers, await order('again-1'), await order('again-2')].map(({ status }) => status)).toEqual([
      202, 202, 202, 202,
    ]);
    const client = await connectTemporal({ temporalAddress: stack.parts.temporal.url, temporalNamespace: 'default' });
    const { events } = await client.workflow.getHandle('capture/shop').fetchHistory();
    await client.connection.close();
    const ids = (events ?? []).map((event) => event.workflowExecutionUpdateAcceptedEventAttributes?.protocolInstanceId);
    expect(ids.filter((id) => id?.startsWith('resync/'))).toEqual(['resync/again-1', 'resync/again-2']);
    expect((await order('two words')).status).toBe(422);
    const send = (path: string, body: unknown) => call<Problem>('POST', path, body, { 'idempotency-key': 'again-1' });
    for (const other of [
      await send('/api/v1/sources/shop/resync', ['orders']),
      await send('/api/v1/sources/shop/start', ['accounts']),
    ])
      expect([other.status, other.body.errors]).toEqual([
        422,
        [{ pointer: '/idempotency-key', detail: 'was sent with another order before' }],
      ]);
    await until(source, (one) => streaming(one) && one.tables.every(({ status }) => status === 'streaming'), 60);
  }, 90_000);

  it('takes tables in and out while it streams', async () => {
    expect((await call('POST', '/api/v1/sources/shop/add-tables', ['later'])).status).toBe(202);
    await until(
      source,
      (one) => streaming(one) && one.tables.some((table) => table.table === 'later' && table.status === 'streaming'),
    );
    expect((await call('POST', '/api/v1/sources/shop/remove-tables', { tables: ['later'] })).status).toBe(202);
    expect((await source()).tables).toHaveLength(2);
    const keyless = await call<Problem>('POST', '/api/v1/sources/shop/add-tables', ['keyless']);
    expect([keyless.status, keyless.body.errors?.length]).toEqual([422, 1]);
    expect((await call('POST', '/api/v1/sources/shop/remove-tables', ['nowhere'])).status).toBe(404);
    expect((await call('POST', '/api/v1/sources/shop/add-tables')).status).toBe(422);
  }, 60_000);

  it('is paused, left alone by pipeline/start, and resumed; stop and start go on', async () => {
    expect((await call('POST', '/api/v1/sources/shop/pause')).body.status).toBe('paused');
    await sql("INSERT INTO public.orders VALUES (1001, 1, 'while paused')");
    expect((await call<{ sources: string[] }>('POST', '/api/v1/pipeline/start')).body.sources).toEqual([]);
    expect((await source()).status).toBe('paused');
    expect((await call('POST', '/api/v1/sources/shop/resume')).status).toBe(202);
    await until(source, (one) => (one.changes_total ?? 0) >= 13);
    expect((await call<object>('POST', '/api/v1/pipeline/stop')).body).toMatchObject({
      status: 'stopped',
      sources: ['shop'],
      failed: [],
    });
    expect((await call<object>('POST', '/api/v1/pipeline/start')).body).toMatchObject({
      status: 'running',
      sources: ['shop'],
    });
    await until(source, streaming);
  }, 60_000);

  it('that is unknown is not found', async () => {
    for (const [method, path] of [
      ['GET', '/api/v1/sources/nobody'],
      ['DELETE', '/api/v1/sources/nobody'],
      ['POST', '/api/v1/sources/nobody/start'],
      ['GET', '/api/v1/verify/nobody'],
      ['POST', '/api/v1/verify/nobody'],
    ] as const) {
      const { status, body } = await call<Problem>(method, path);
      expect([status, body.kind], path).toEqual([404, 'not_found']);
    }
  });
});

describe('verify', () => {
  it('finds the copy identical, then a row that was tampered with', async () => {
    expect((await call<Problem>('GET', '/api/v1/verify/shop')).status).toBe(404);
    expect((await call<object>('POST', '/api/v1/verify/shop')).status).toBe(202);
    const get = async () => (await call<Record<string, unknown>>('GET', '/api/v1/verify/shop')).body;
    const first = await until(get, (one) => one.status === 'finished');
    expect(first).toMatchObject({ source: 'shop', identical: true });
    expect(first.tables).toHaveLength(2);
    await fetch(stack.parts.clickhouse.url, {
      method: 'POST',
      body: 'INSERT INTO sluice.shop_accounts SELECT * REPLACE (0 AS balance, _version + 1 AS _version) FROM sluice.shop_accounts FINAL WHERE id = 77',
    });
    expect((await call<object>('POST', '/api/v1/verify/shop', { table: 'accounts' })).status).toBe(202);
    const second = await until(get, (one) => one.status === 'finished' && one.id !== first.id);
    expect(second.identical).toBe(false);
    expect(second.tables).toMatchObject([{ asset_id: 'shop_accounts', different: 1, keys: [{ key: { id: 77 } }] }]);
    expect((await call<object>('POST', '/api/v1/verify/shop', { table: 'nowhere' })).status).toBe(404);
    const told = await until(source, (one) => one.alarms.length > 0);
    expect(told.alarms).toMatchObject([{ kind: 'copy_differs', remedy: expect.stringContaining('--repair') }]);
    expect((await call<object>('POST', '/api/v1/verify/shop', { repair: true })).status).toBe(202);
    const third = await until(get, (one) => one.status === 'finished' && one.id !== second.id);
    expect(third).toMatchObject({ identical: true, tables: [{ different: 1, repaired: 1 }, { different: 0 }] });
    expect((await call<object>('POST', '/api/v1/verify/shop')).status).toBe(202);
    await until(source, (one) => one.alarms.length === 0);
  }, 90_000);
});

describe('query', () => {
  const ask = (text: string) =>
    call<
      { columns: { name: string; type: string }[]; rows: unknown[][]; row_count: number; truncated: boolean } & Problem
    >('POST', '/api/v1/query', { sql: text });

  it('answers exactly, by FINAL, and says when it cut', async () => {
    const counted = await ask('SELECT count() AS n FROM shop_orders');
    expect(counted.body).toEqual({
      columns: [{ name: 'n', type: 'UInt64' }],
      rows: [[501]],
      row_count: 1,
      truncated: false,
    });
    const exact = await ask(
      "SELECT toInt64(9007199254740993), toDecimal128('1.10', 2), toUInt8(3), [toUInt64(5)], 'x\ty', NULL",
    );
    expect(exact.body.rows).toEqual([['9007199254740993', '1.1', 3, [5], 'x\ty', null]]);
    const many = await ask('SELECT number FROM numbers(1000000);');
    expect([many.body.row_count, many.body.rows.length, many.body.truncated]).toEqual([10_000, 10_000, true]);
    for (const right of [
      'SHOW TABLES',
      'DESCRIBE TABLE shop_orders',
      'EXPLAIN SELECT 1',
      'WITH a AS (SELECT 1 AS x) SELECT x FROM a',
      'EXISTS TABLE shop_orders',
      'SHOW CREATE TABLE shop_orders',
    ]) {
      expect((await ask(right)).status, right).toBe(200);
    }
  }, 30_000);

  it('refuses what writes, reaches out, or is more than one statement', async () => {
    for (const wrong of [
      'DROP TABLE shop_orders',
      'INSERT INTO shop_orders SELECT * FROM shop_orders',
      'SELECT 1; DROP TABLE shop_orders',
      "SELECT * FROM file('/etc/passwd', 'LineAsString')",
      "SELECT file('/etc/passwd')",
      "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')",
      "SELECT * FROM remote('127.0.0.1', system.one)",
      "SELECT 1 WHERE 1 IN (SELECT 1 FROM file('x', 'CSV', 'a Int8'))",
      "SELECT 1 INTO OUTFILE '/tmp/x'",
      'SELECT 1 FORMAT CSV',
      'SELECT 1 SETTINGS max_result_rows = 0',
      "DESCRIBE file('/etc/passwd')",
      "SHOW TABLES INTO OUTFILE '/tmp/x'",
      'SELECT * FROM system.query_log',
      'KILL QUERY WHERE 1',
      'SYSTEM SHUTDOWN',
      'SET final = 0',
      'SELECT * FRM x',
      'SELECT * FROM nowhere',
    ]) {
      const { status, body } = await ask(wrong);
      expect([status, body.kind], wrong).toEqual([422, 'configuration']);
      expect(body.remedy, wrong).toMatch(/./);
    }
    expect((await ask('SELECT count() FROM shop_orders')).body.rows).toEqual([[501]]);
  }, 30_000);
});

describe('access', () => {
  it('needs the token when there is one', async () => {
    const { child, url } = await stack.startApi({ SLUICE_API_TOKEN: 'let me in' });
    const status = async (path: string, authorization?: string) =>
      (await fetch(`${url}${path}`, { headers: authorization ? { authorization } : {} })).status;
    expect(await status('/api/v1/sources')).toBe(401);
    expect(await status('/metrics')).toBe(401);
    expect(await status('/api/v1/sources', 'Bearer let me out')).toBe(401);
    expect(await status('/api/v1/sources', 'Bearer let me in')).toBe(200);
    expect(await status('/health')).toBe(200);
    await endChild(child);
  }, 30_000);

  it('from outside is refused to start without one', async () => {
    await expect(stack.startApi({ SLUICE_HOST: '0.0.0.0' })).rejects.toThrow(/ended before/);
  }, 30_000);
});

describe('when a part is away', () => {
  const health = () =>
    call<{ status: string; checks: Record<string, unknown>; problems: { check: string; remedy: string }[] }>(
      'GET',
      '/health',
    );

  it('a source that does not answer shows why, and goes on by itself', async () => {
    await stack.parts.postgres.kill();
    const failing = await until(source, (one) => one.last_error !== null);
    expect(failing.last_error).toMatchObject({ kind: 'source_unreachable', remedy: expect.stringMatching(/./) });
    expect(failing.lag_bytes).toBeNull();
    expect(await health()).toMatchObject({ status: 200, body: { status: 'degraded' } });
    expect((await call<object>('GET', '/api/v1/pipeline/status')).body).toMatchObject({ status: 'degraded' });
    await stack.parts.postgres.restart();
    await until(source, (one) => one.last_error === null && one.lag_bytes !== null, 60);
  }, 120_000);

  it('a source out of reach is not deleted without force, and goes on when it is started', async () => {
    await stack.parts.postgres.kill();
    const kept = await call<Problem>('DELETE', '/api/v1/sources/shop');
    expect([kept.status, kept.body.kind]).toEqual([409, 'conflict']);
    expect(kept.body.remedy).toMatch(/force/);
    await stack.parts.postgres.restart();
    expect((await call('POST', '/api/v1/sources/shop/start')).status).toBe(202);
    await until(source, (one) => streaming(one) && one.lag_bytes !== null, 60);
  }, 120_000);

  it('ClickHouse away is down; states and the last figures still show', async () => {
    const { changes_total } = await source();
    await stack.parts.clickhouse.kill();
    const { status, body } = await health();
    expect([status, body.status, body.checks.clickhouse, body.checks.worker]).toEqual([503, 'down', 'down', 'ok']);
    expect((await source()).changes_total).toBe(changes_total);
    expect((await call<Problem>('POST', '/api/v1/query', { sql: 'SELECT 1' })).status).toBe(503);
    await stack.parts.clickhouse.restart();
    await until(health, (one) => one.body.status === 'ok', 60);
  }, 120_000);

  it('Temporal away is down, said within seconds', async () => {
    await stack.parts.temporal.kill();
    const began = Date.now();
    const { status, body } = await health();
    expect([status, body.checks.temporal, body.checks.worker]).toEqual([503, 'down', 'down']);
    expect(body.problems.some((problem) => problem.check === 'temporal')).toBe(true);
    const refused = await call<Problem>('GET', '/api/v1/sources');
    expect([refused.status, refused.body.kind]).toEqual([503, 'temporal_unreachable']);
    expect(refused.headers.get('retry-after')).toMatch(/^\d+$/);
    expect(Date.now() - began).toBeLessThan(20_000);
    await stack.parts.temporal.restart();
    await until(health, (one) => one.body.status === 'ok', 60);
  }, 120_000);

  it('without a worker everything answers 503 at once', async () => {
    await endChild(stack.worker);
    await until(health, (one) => one.status === 503, 20);
    for (const [method, path] of [
      ['GET', '/api/v1/sources'],
      ['POST', '/api/v1/sources/shop/stop'],
      ['POST', '/api/v1/pipeline/start'],
    ] as const) {
      const { status, body } = await call<Problem>(method, path);
      expect([status, body.kind], path).toEqual([503, 'no_worker']);
    }
    expect((await health()).body.checks).toMatchObject({ temporal: 'ok', clickhouse: 'ok', worker: 'down' });
    await stack.startWorker();
    await until(health, (one) => one.body.status === 'ok', 60);
  }, 120_000);
});

describe('in the end, a source', () => {
  it('is deleted with its slot and copies', async () => {
    const { status } = await call('DELETE', '/api/v1/sources/shop?drop_copies=true');
    expect(status).toBe(204);
    expect((await call('GET', '/api/v1/sources')).body).toEqual([]);
    const slots = (await sql('SELECT slot_name FROM pg_replication_slots')) as { rows: unknown[] };
    expect(slots.rows).toEqual([]);
    const body = await call<{ rows: unknown[][] }>('POST', '/api/v1/query', { sql: "SHOW TABLES LIKE 'shop%'" });
    // The copy of a table that was taken out before is somebody's now.
    expect(body.body.rows).toEqual([['shop_later'], ['shop_later_current']]);
  }, 30_000);
});
