/**
 * Every call that programs may rely on, as they send it, against the product as `npm start -- --no-demo` starts it: codes, shapes, and
 * what is true of the answers. The calls are in the order in which somebody would send them.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { openControl } from '../api/control/control.ts';
import { deploy } from '../api/control/deploy.ts';
import { type AssetApi, startAssetApi } from '../workers/demo/asset_api.ts';
import { readDeployments } from '../workers/deployment_files.ts';
import { type Endpoints, endpointsFile, projectFolder, readSettings } from '../workers/settings.ts';
import { endChild, until } from './control_stack.ts';

const home = mkdtempSync(path.join(tmpdir(), 'sluice-contract-'));
let child: ChildProcess;
let stack: Endpoints;
let assets: AssetApi;
let output = '';

beforeAll(async () => {
  assets = await startAssetApi({ rate: 0 });
  const { DATABASE_URL: _d, CLICKHOUSE_URL: _c, TEMPORAL_ADDRESS: _t, SLUICE_API_TOKEN: _a, ...rest } = process.env;
  const names = ['API', 'TEMPORAL', 'TEMPORAL_UI', 'CLICKHOUSE', 'POSTGRES', 'ASSET_API'];
  const ports = Object.fromEntries(names.map((name) => [`SLUICE_${name}_PORT`, '0']));
  child = spawn(process.execPath, [path.join(projectFolder, 'cli', 'start.js'), '--no-demo'], {
    env: { ...rest, ...ports, SLUICE_HOME: home, ASSET_API_URL: assets.url },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (bytes: Buffer) => {
      output += bytes.toString();
    });
  }
  await until(() => existsSync(endpointsFile(home)) || child.exitCode !== null, Boolean, 100);
  if (child.exitCode !== null) throw new Error(`it ended before it was up:\n${output}`);
  stack = JSON.parse(readFileSync(endpointsFile(home), 'utf8')) as Endpoints;
  await withConnection({ connectionString: stack.postgres, applicationName: 'test' }, (client) =>
    client.query(`SET search_path = public;
      CREATE TABLE accounts (id int PRIMARY KEY, email text, country text);
      INSERT INTO accounts SELECT i, 'a' || i || '@example.org', 'DE' FROM generate_series(1, 40) i;
      CREATE TABLE transactions (id int PRIMARY KEY, account_id int, amount numeric(12,2));
      INSERT INTO transactions SELECT i, i % 40 + 1, i FROM generate_series(1, 100) i;
      CREATE TABLE later (id int PRIMARY KEY)`),
  );
}, 150_000);

afterAll(async () => {
  if (child) await endChild(child);
  await assets?.close();
  rmSync(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 200 });
}, 60_000);

/** One call; what is answered is JSON, or text. */
async function call<Answer = Record<string, unknown>>(
  method: string,
  url: string,
  status: number,
  body?: unknown,
): Promise<Answer> {
  const text = typeof body === 'string' ? body : JSON.stringify(body);
  const init = body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: text };
  const answer = await fetch(`${stack.api}${url}`, { method, ...init });
  const got = await answer.text();
  expect([method, url, answer.status, answer.status === status ? '' : got]).toEqual([method, url, status, '']);
  const type = answer.headers.get('content-type') ?? '';
  if (status >= 400) {
    const problem = JSON.parse(got) as Record<string, unknown>;
    if (url !== '/health') {
      expect(type).toContain('application/problem+json');
      expect(problem).toMatchObject({ status, title: expect.any(String), remedy: expect.stringMatching(/./) });
    }
    return problem as Answer;
  }
  return (type.includes('json') ? JSON.parse(got) : got) as Answer;
}

const get = <Answer = Record<string, unknown>>(url: string, status = 200) => call<Answer>('GET', url, status);
const post = <Answer = Record<string, unknown>>(url: string, status: number, body?: unknown) =>
  call<Answer>('POST', url, status, body);

interface Source {
  status: string;
  tables: { asset_id: string; table: string; status: string; rows: number | null }[];
}
const inState = (status: string) =>
  until(
    () => get<Source>('/api/v1/sources/shop'),
    (source) => source.status === status,
    60,
  );
const config = { poll_interval: 0.1, tables: ['accounts', 'transactions'] };
const connection = () => ({ id: 'shop', type: 'postgresql', connection_string: stack.postgres, config });

describe('the product without demo', () => {
  it('is healthy, and has no source, deployment or rule', async () => {
    const health = await get<{ checks: Record<string, unknown> }>('/health');
    expect(health).toMatchObject({
      status: 'ok',
      checks: { temporal: 'ok', clickhouse: 'ok', worker: 'ok', sources: {} },
    });
    expect(health.checks).toMatchObject({
      memory: { rss_bytes: expect.any(Number) },
      cpu: { load: expect.any(Number) },
    });
    expect(await get('/api/v1/sources')).toEqual([]);
    expect(await get('/api/v1/deployments')).toEqual([]);
    expect(await get('/api/v1/pipeline/status')).toEqual({ status: 'stopped', sources: [], deployments: [] });
    expect(await get('/api/v1/lineage/flow')).toEqual({ assets: [], edges: [] });
    expect(await get('/api/v1/lineage/audit')).toEqual({ items: [], next_cursor: null });
    expect(await get('/metrics')).toContain('# TYPE sluice_');
    const page = await get<{ openapi: string; paths: object }>('/openapi.json');
    expect(page.openapi).toMatch(/^3\.1/);
    expect(await get<string>('/docs/')).toContain('Sluice');
  });

  it('refuses what is no request: malformed, too large, unknown', async () => {
    await post('/api/v1/sources/connect', 400, '{"id": ');
    await post('/api/v1/sources/connect', 422, { id: 'Shop' });
    await post('/api/v1/sources/connect', 422, { ...connection(), unknown_key: 1 });
    await post('/api/v1/query', 413, { sql: 'x'.repeat(1_100_000) });
    await get('/api/v1/nothing', 404);
    for (const url of [
      '/api/v1/sources/no',
      '/api/v1/lineage/impact/no',
      '/api/v1/verify/no',
      '/api/v1/schema/no/versions',
    ])
      await get(url, 404);
  });
});

describe('sources', () => {
  it('are connected: new 201, the same 200, other 409, what cannot be captured 422 with remedies', async () => {
    const made = await post('/api/v1/sources/connect', 201, connection());
    expect(made).toMatchObject({ id: 'shop', type: 'postgresql', status: 'connected' });
    expect(JSON.stringify(made)).not.toContain(new URL(stack.postgres).password);
    await post('/api/v1/sources/connect', 200, connection());
    await post('/api/v1/sources/connect', 409, { ...connection(), config: { ...config, tables: ['later'] } });
    const refused = await post<{ errors: { detail: string; remedy: string }[] }>('/api/v1/sources/connect', 422, {
      ...connection(),
      id: 'other',
      config: { tables: ['missing'] },
    });
    expect(refused.errors[0]?.remedy).toMatch(/./);
  }, 60_000);

  it('are looked at without being connected', async () => {
    const found = await post<{ tables: object[]; findings: object[] }>('/api/v1/sources/discover', 200, {
      ...connection(),
      id: 'other',
      config: { tables: ['later', 'missing'] },
    });
    expect(found.tables).toEqual([{ asset_id: 'other_later', table: 'later' }]);
    expect(found.findings).toContainEqual(expect.objectContaining({ blocking: true, remedy: expect.any(String) }));
    // Without a body, of what a reference means; nothing that is secret stands in an address.
    await get('/api/v1/sources/discover?connection_string=postgresql://user:secret@127.0.0.1/x', 422);
    await get('/api/v1/sources/discover?connection_string=$%7BSLUICE_NO_SUCH_URL%7D', 422);
    expect(await get<object[]>('/api/v1/sources')).toHaveLength(1);
  }, 60_000);

  it('start, and copy what is there', async () => {
    await post('/api/v1/sources/shop/start', 202);
    const source = await inState('streaming');
    for (const key of [
      'position',
      'lag_bytes',
      'lag_seconds',
      'changes_total',
      'last_batch_at',
      'last_error',
      'workflow',
    ])
      expect(source).toHaveProperty(key);
    await until(
      () => get<Source>('/api/v1/sources/shop'),
      ({ tables }) => tables.map((table) => table.rows).join() === '40,100',
      30,
    );
    expect(await get<Source[]>('/api/v1/sources')).toHaveLength(1);
    expect((await get<{ status: string }>('/api/v1/pipeline/status')).status).toBe('running');
    expect(await get('/metrics')).toContain('sluice_lag_bytes{source="shop"}');
  }, 90_000);

  it('take tables in and out, pause, resume, stop, and copy again', async () => {
    await post('/api/v1/sources/shop/start', 202, ['later']);
    await post('/api/v1/sources/shop/start', 422, ['nowhere']);
    await post('/api/v1/sources/shop/add-tables', 202, ['later']);
    const tables = async () => (await get<Source>('/api/v1/sources/shop')).tables.map((table) => table.table).sort();
    expect(await tables()).toEqual(['accounts', 'later', 'transactions']);
    await post('/api/v1/sources/shop/remove-tables', 202, ['later']);
    expect(await tables()).toEqual(['accounts', 'transactions']);
    await post('/api/v1/sources/shop/pause', 202);
    await inState('paused');
    await post('/api/v1/sources/shop/resume', 202);
    await inState('streaming');
    await post('/api/v1/sources/shop/resync', 202, ['transactions']);
    await inState('streaming');
    await post('/api/v1/sources/shop/stop', 202);
    await inState('stopped');
    const all = await post('/api/v1/pipeline/start', 202);
    expect(all).toHaveProperty('status');
    await inState('streaming');
    await post('/api/v1/pipeline/stop', 202);
    await inState('stopped');
    await post('/api/v1/sources/shop/start', 202);
    await inState('streaming');
    expect(await get('/api/v1/cuts/shop')).toMatchObject({ source: 'shop' });
  }, 120_000);

  it('are identical to their copies', async () => {
    await post('/api/v1/verify/shop', 202, {});
    const found = await until(
      () => get<{ status: string }>('/api/v1/verify/shop'),
      ({ status }) => status !== 'running',
      60,
    );
    expect(found).toMatchObject({ source: 'shop', status: 'finished', identical: true });
  }, 90_000);
});

describe('deployments', () => {
  it('run, pause, resume and are backfilled', async () => {
    const folder = path.join(home, 'own_deployments');
    const file =
      'name: assets\nflow: extractAssets\nschedule: { interval: 1h }\nparameters: { api_url: "${ASSET_API_URL}" }\n';
    await import('node:fs/promises').then(({ mkdir }) => mkdir(folder, { recursive: true }));
    writeFileSync(path.join(folder, 'assets.yaml'), file);
    const control = openControl(readSettings({ ...process.env, SLUICE_HOME: home }));
    await deploy(control, readDeployments(folder)).finally(() => control[Symbol.asyncDispose]());
    await post('/api/v1/deployments/assets/run', 202, {});
    const query = { sql: 'SELECT count() AS n FROM assets' };
    await until(
      async () =>
        (
          await fetch(`${stack.api}/api/v1/query`, {
            method: 'POST',
            headers: { 'content-type': 'application/json' },
            body: JSON.stringify(query),
          })
        ).json() as Promise<{ rows?: number[][] }>,
      ({ rows }) => (rows?.[0]?.[0] ?? 0) > 0,
      60,
    );
    await post('/api/v1/deployments/assets/pause', 202, {});
    expect(await get('/api/v1/deployments')).toMatchObject([{ name: 'assets', status: 'paused' }]);
    await post('/api/v1/deployments/assets/resume', 202);
    await post('/api/v1/deployments/assets/backfill', 202, {
      from: '2026-01-01T00:00:00Z',
      to: '2026-01-01T02:00:00Z',
    });
    await post('/api/v1/deployments/nothing/run', 404, {});
  }, 120_000);
});

describe('lineage', () => {
  it('tells what is made from what', async () => {
    const copied = await until(
      () => get<{ assets: { asset_id: string }[] }>('/api/v1/lineage/flow'),
      ({ assets: nodes }) => nodes.some((node) => node.asset_id === 'clickhouse_assets'),
      30,
    );
    const ids = copied.assets.map((one) => one.asset_id);
    for (const id of ['shop_accounts', 'clickhouse_shop_accounts', 'api_assets', 'csv_assets'])
      expect(ids).toContain(id);
    expect(ids).not.toContain('shop_later');
    const down = await get('/api/v1/lineage/asset/shop_accounts/downstream?max_depth=3');
    expect(down).toEqual({
      asset_id: 'shop_accounts',
      assets: [{ asset_id: 'clickhouse_shop_accounts', type: 'copy', depth: 1 }],
      edges: [
        {
          from: 'shop_accounts',
          to: 'clickhouse_shop_accounts',
          via: 'capture',
          columns: ['id', 'email', 'country'].map((name) => ({ from: name, to: name })),
        },
      ],
    });
    expect(await get('/api/v1/lineage/asset/clickhouse_shop_accounts/upstream')).toMatchObject({
      assets: [{ asset_id: 'shop_accounts', type: 'source_table', depth: 1 }],
    });
    expect(await get('/api/v1/lineage/impact/shop_accounts')).toEqual({
      asset_id: 'shop_accounts',
      total_affected: 1,
      affected: [
        {
          asset_id: 'clickhouse_shop_accounts',
          type: 'copy',
          depth: 1,
          columns: ['id', 'email', 'country'],
          sources_of_record: ['shop_accounts'],
        },
      ],
      critical_path: ['shop_accounts', 'clickhouse_shop_accounts'],
    });
    expect(await get('/api/v1/lineage/flow?format=dot')).toContain('"shop_accounts" -> "clickhouse_shop_accounts"');
    expect(await get('/api/v1/lineage/flow?format=mermaid')).toContain('clickhouse_shop_accounts');
    await get('/api/v1/lineage/flow?format=svg', 422);
  }, 60_000);

  it('tells what made a row, what each batch did, and what people did', async () => {
    for (const asset of ['shop_accounts', 'clickhouse_shop_accounts']) {
      const row = await get<{ versions: object[] }>(`/api/v1/lineage/row/${asset}?key=7`);
      expect(row).toMatchObject({ asset_id: 'shop_accounts', key: '7', complete: false });
      expect(row.versions[0]).toMatchObject({
        op: 'snapshot',
        position: expect.stringMatching(/./),
        batch_id: expect.stringContaining('shop/snapshot/shop_accounts'),
        workflow: { id: expect.stringContaining('snapshot/shop'), event_id: expect.any(Number) },
      });
    }
    const page = await get<{ items: { source: string; hash: string }[]; next_cursor: string }>(
      '/api/v1/lineage/audit?source=shop&limit=2',
    );
    expect(page.items).toHaveLength(2);
    const next = await get<{ items: { hash: string }[] }>(
      `/api/v1/lineage/audit?source=shop&limit=2&cursor=${page.next_cursor}`,
    );
    expect(page.items.map((one) => one.hash)).not.toContain(next.items[0]?.hash);
    const { items } = await get<{ items: { action: string; via: string; target: string }[] }>(
      '/api/v1/audit/actions?target=shop&limit=1000',
    );
    const done = items.filter(({ via }) => via === 'rest').map(({ action }) => action);
    expect(done).toEqual(
      expect.arrayContaining([
        'connect',
        'start',
        'addTables',
        'removeTables',
        'pause',
        'resume',
        'resync',
        'stop',
        'verify',
      ]),
    );
  }, 60_000);

  it('is heard of as it happens', async () => {
    const stop = new AbortController();
    const answer = await fetch(`${stack.api}/api/v1/events?source=shop`, { signal: stop.signal });
    expect(answer.headers.get('content-type')).toContain('text/event-stream');
    const reader = answer.body!.pipeThrough(new TextDecoderStream()).getReader();
    let text = '';
    await until(
      async () => (text += (await reader.read()).value ?? ''),
      (seen) => seen.includes('event: source'),
      20,
    );
    await withConnection({ connectionString: stack.postgres, applicationName: 'test' }, (client) =>
      client.query(`UPDATE public.accounts SET country = 'FR' WHERE id = 7`),
    );
    await until(
      async () => (text += (await reader.read()).value ?? ''),
      (seen) => seen.includes('event: batch'),
      20,
    );
    stop.abort();
  }, 60_000);
});

describe('rules', () => {
  const rule = {
    rule_id: 'domain',
    name: 'Domain of the address',
    rule_type: 'map',
    assets: ['shop_accounts'],
    source_fields: ['email'],
    target_field: 'domain',
    expression: '{{ email.split("@")[1] }}',
  };

  it('are added, shown, tried, replaced and taken away, and the copy follows', async () => {
    expect(await get('/api/v1/transformations')).toEqual([]);
    const rows = [{ email: 'a@b.c' }];
    const tried = await post('/api/v1/transformations/preview', 200, { rule, rows });
    expect(tried).toMatchObject({ rows: [{ domain: 'b.c' }], rejected: [], rows_per_second: expect.any(Number) });
    const failing = { ...rule, expression: '{{ 1 // 0 }}' };
    const failed = await post('/api/v1/transformations/preview', 200, { rule: failing, rows });
    expect(failed).toMatchObject({ rows: [], rejected: [{ row: 0, reason: expect.stringMatching(/./) }] });
    const bad = await post<{ errors: object[] }>('/api/v1/transformations', 422, {
      ...rule,
      expression: '{{ emial }}',
    });
    expect(JSON.stringify(bad)).toMatch(/line 1, column 4/);
    expect(await post('/api/v1/transformations', 201, rule)).toMatchObject({ rule_id: 'domain', version: 1 });
    await post('/api/v1/transformations', 200, rule);
    await post('/api/v1/transformations', 409, { ...rule, target_field: 'other' });
    expect(await get<unknown[]>('/api/v1/transformations')).toHaveLength(1);
    const query = { sql: `SELECT DISTINCT domain FROM shop_accounts` };
    const ask = async () =>
      await fetch(`${stack.api}/api/v1/query`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify(query),
      }).then((answer) => answer.json() as Promise<{ rows?: unknown[][] }>);
    await until(ask, ({ rows }) => JSON.stringify(rows) === '[["example.org"]]', 60);
    await until(
      () => get<{ affected: { columns: string[] }[] }>('/api/v1/lineage/impact/shop_accounts?column=email'),
      ({ affected }) => affected[0]?.columns.includes('domain') === true,
      20,
    );
    await call('PUT', '/api/v1/transformations/domain', 200, { ...rule, name: 'Domain' });
    await call('DELETE', '/api/v1/transformations/domain', 204);
    await call('DELETE', '/api/v1/transformations/domain', 404);
  }, 120_000);

  it('of quality are added, run, and score; what they hold back is listed', async () => {
    const check = {
      rule_id: 'country_known',
      asset: 'shop_accounts',
      field: 'country',
      rule_type: 'accepted_values',
      parameters: { values: ['DE'] },
      severity: 'warn',
    };
    expect(await post('/api/v1/quality/add-rule', 201, check)).toMatchObject({ rule_id: 'country_known', version: 1 });
    await post('/api/v1/quality/add-rule', 200, check);
    await post('/api/v1/quality/add-rule', 422, { ...check, rule_id: 'x', rule_type: 'nothing' });
    expect(await get('/api/v1/quality/rules')).toMatchObject([{ rule_id: 'country_known' }]);
    await inState('streaming');
    const found = await post('/api/v1/quality/check', 200, { asset_id: 'shop_accounts' });
    expect(found).toMatchObject({ score: 39 / 40, checked: 40, passed: 39, failed: 1 });
    const sent = await post('/api/v1/quality/check', 200, {
      asset_id: 'shop_accounts',
      rows: [{ id: 1, country: 'XX' }],
    });
    expect(sent).toMatchObject({ checked: 1, failed: 1, score: 0, rules: [{ rule_id: 'country_known', failed: 1 }] });
    const scores = await get<{ items: { score: number }[] }>('/api/v1/quality/scores?asset=shop_accounts');
    expect(scores.items.map((one) => one.score)).toContain(39 / 40);
    expect(await get('/api/v1/rejects')).toEqual({ items: [], next_cursor: null });
    await post('/api/v1/rejects/release', 404, { asset_id: 'shop_accounts' });
    // From now on such rows wait outside of the copy.
    await call('PUT', '/api/v1/quality/rules/country_known', 200, { ...check, severity: 'reject' });
    const held = await until(
      () => get<{ items: object[] }>('/api/v1/rejects?asset=shop_accounts'),
      ({ items: all }) => all.length > 0,
      60,
    );
    expect(held.items).toMatchObject([
      { asset_id: 'shop_accounts', key: { id: '7' }, check: 'country_known', state: 'open' },
    ]);
    await inState('streaming');
    const body = { asset_id: 'shop_accounts', keys: ['7'] };
    expect(await post('/api/v1/rejects/release', 200, body)).toMatchObject({ released: 0, still_open: 1 });
    expect(await post('/api/v1/rejects/discard', 200, body)).toMatchObject({ discarded: 1 });
    expect(await get('/api/v1/rejects')).toEqual({ items: [], next_cursor: null });
    await call('DELETE', '/api/v1/quality/rules/country_known', 204);
    const { items } = await get<{ items: { action: string; target: string }[] }>('/api/v1/audit/actions?limit=1000');
    const done = items.map(({ action, target }) => `${action} ${target}`);
    expect(done).toEqual(
      expect.arrayContaining([
        'putRule domain',
        'removeRule domain',
        'putCheck country_known',
        'removeCheck country_known',
      ]),
    );
  }, 120_000);
});

describe('schemas', () => {
  it('are registered, compared, listed and migrated', async () => {
    const first = { fields: [{ name: 'id', type: 'long' }] };
    const more = { fields: [...first.fields, { name: 'note', type: 'string', nullable: true }] };
    const breaking = { fields: [...first.fields, { name: 'must', type: 'string' }] };
    expect(await post('/api/v1/schema/register', 201, { subject: 'orders', schema: first })).toMatchObject({
      subject: 'orders',
      version: 1,
      id: expect.any(Number),
    });
    expect(await post('/api/v1/schema/register', 200, { subject: 'orders', schema: first })).toMatchObject({
      version: 1,
    });
    expect(await post('/api/v1/schema/register', 201, { subject: 'orders', schema: more })).toMatchObject({
      version: 2,
    });
    const refused = await post<{ reasons: unknown[] }>('/api/v1/schema/register', 409, {
      subject: 'orders',
      schema: breaking,
    });
    expect(refused.reasons).not.toEqual([]);
    expect(
      await post('/api/v1/schema/check-compatibility', 200, { subject: 'orders', schema: breaking }),
    ).toMatchObject({
      compatible: false,
      mode: 'BACKWARD',
      reasons: [{ code: expect.any(String), field: 'must', detail: expect.any(String) }],
    });
    expect(
      await post('/api/v1/schema/check-compatibility', 200, { old_schema: first, schema: more, mode: 'FULL' }),
    ).toMatchObject({
      compatible: true,
    });
    expect(await get<unknown[]>('/api/v1/schema/orders/versions')).toHaveLength(2);
    expect(await get('/api/v1/schema/orders/versions/1')).toMatchObject({ version: 1 });
    expect(await post('/api/v1/schema/orders/migrate', 200, { rows: [{ id: 1 }], from: 1, to: 2 })).toMatchObject({
      rows: [{ id: 1, note: null }],
    });
    const subjects = await get<{ subject: string }[]>('/api/v1/schema');
    expect(subjects.map((one) => one.subject)).toEqual(expect.arrayContaining(['orders', 'shop_accounts']));
  });
});

describe('queries', () => {
  it('read, and nothing else', async () => {
    const answer = await post('/api/v1/query', 200, {
      sql: 'SELECT count() AS n, toInt64(9007199254740993) AS big FROM shop_transactions',
    });
    expect(answer).toEqual({
      columns: [
        { name: 'n', type: 'UInt64' },
        { name: 'big', type: 'Int64' },
      ],
      rows: [[100, '9007199254740993']],
      row_count: 1,
      truncated: false,
    });
    for (const sql of ['DROP TABLE shop_accounts', 'SELECT 1; SELECT 2', "SELECT * FROM file('/etc/passwd')"])
      await post('/api/v1/query', 422, { sql });
  });
});

describe('at the end', () => {
  it('a source goes with its slot, and its id is free again', async () => {
    await call('DELETE', '/api/v1/sources/shop?drop_copies=true', 204);
    await get('/api/v1/sources/shop', 404);
    await call('DELETE', '/api/v1/sources/shop', 404);
    const slots = await withConnection({ connectionString: stack.postgres, applicationName: 'test' }, (client) =>
      client.query('SELECT slot_name FROM pg_replication_slots'),
    );
    expect(slots.rows).toEqual([]);
    await until(
      () => get<{ assets: { asset_id: string }[] }>('/api/v1/lineage/flow'),
      ({ assets: nodes }) => nodes.every((node) => !node.asset_id.includes('shop')),
      20,
    );
  }, 60_000);
});
