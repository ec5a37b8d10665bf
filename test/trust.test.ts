/** What people can rely on, by REST and command line, on real parts: cuts, queries that wait, and the audit trail. */
import { spawn } from 'node:child_process';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import type { RowLineage } from '../api/control/lineage_shapes.ts';
import type { AuditAnswer, CutAnswer, QueryAnswer, SourceAnswer } from '../api/control/shapes.ts';
import type { Problem } from '../api/problems.ts';
import { nodeArguments } from '../workers/child.ts';
import { projectFolder } from '../workers/settings.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;

beforeAll(async () => {
  stack = await startControlStack();
  await sql(`CREATE TABLE public.accounts (id int PRIMARY KEY, name text);
    CREATE TABLE public.orders (id int PRIMARY KEY, note int);
    INSERT INTO public.accounts SELECT i, 'name ' || i FROM generate_series(1, 50) i`);
  const config = { tables: ['accounts', 'orders'], poll_interval: 0.2 };
  const body = { id: 'shop', type: 'postgresql', connection_string: '${DATABASE_URL}', config };
  expect((await call('POST', '/api/v1/sources/connect', body)).status).toBe(201);
  expect((await call('POST', '/api/v1/sources/shop/start')).status).toBe(202);
}, 120_000);

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

async function sql(text: string): Promise<{ rows: Record<string, string>[] }> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return await withConnection(options, async (client) => await client.query(text));
}

async function call<Body = unknown>(
  method: string,
  url: string,
  body?: unknown,
): Promise<{ status: number; body: Body }> {
  const sent =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
  const answer = await fetch(`${stack.api}${url}`, { method, ...sent });
  return { status: answer.status, body: (await answer.json()) as Body };
}

const ask = (statement: string, more: object = {}) =>
  call<QueryAnswer & Problem>('POST', '/api/v1/query', { sql: statement, ...more });
const cut = async () => (await call<CutAnswer>('GET', '/api/v1/cuts/shop')).body;
const source = async () => (await call<SourceAnswer>('GET', '/api/v1/sources/shop')).body;
const position = async () => (await sql('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows[0]!.lsn!;

function sluice(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const file = path.join(projectFolder, 'cli', 'main.ts');
  const options = { cwd: projectFolder, env: stack.environment };
  const child = spawn(process.execPath, nodeArguments(file, ...args), options);
  const ran = { code: null as number | null, out: '', err: '' };
  child.stdout.on('data', (bytes) => {
    ran.out += bytes;
  });
  child.stderr.on('data', (bytes) => {
    ran.err += bytes;
  });
  return new Promise((resolve) => child.once('close', (code) => resolve({ ...ran, code })));
}

describe('a query that waits', () => {
  it('sees what was there before it, from the very first moment on', async () => {
    // The snapshot may not even have begun.
    const { status, body } = await ask('SELECT count() FROM shop_accounts', { wait_for: 'now', timeout: 60 });
    expect([status, body.rows]).toEqual([200, [[50]]]);
    expect(body.reached).toMatchObject([{ source: 'shop', position: expect.stringMatching(/^[0-9A-F]+\/[0-9A-F]+$/) }]);
  }, 90_000);

  it('sees its own writes, every time', async () => {
    for (let id = 1000; id < 1030; id += 1) {
      await sql(`INSERT INTO public.accounts VALUES (${id}, 'mine'); UPDATE public.orders SET note = note`);
      const { body } = await ask(`SELECT count() FROM shop_accounts_current WHERE id = ${id}`, { wait_for: 'now' });
      expect(body.rows, `account ${id}: ${JSON.stringify(body)}`).toEqual([[1]]);
    }
  }, 120_000);

  it('is answered by an idle source too, and when only other tables are written', async () => {
    await sql('CREATE TABLE public.unpublished (id int)');
    await sql('INSERT INTO public.unpublished SELECT generate_series(1, 1000)');
    const at = await position();
    expect((await ask('SELECT 1 FROM shop_accounts LIMIT 1', { wait_for: at })).status).toBe(200);
    const { body } = await ask('SELECT 1', { wait_for: 'now' });
    expect(body.reached?.[0]?.waited_ms).toBeLessThan(10_000);
  }, 60_000);

  it('that cannot be answered in time says how far the copies are', async () => {
    const { status, body } = await ask('SELECT count() FROM shop_orders', { wait_for: 'FFFF/0', timeout: 1 });
    expect([status, body.kind]).toEqual([504, 'timeout']);
    expect(body.detail).toMatch(/reach FFFF\/0; its stream stands at \S+, and shop_orders is complete up to \S+$/);
    expect(body.remedy).toContain('--timeout');
  }, 30_000);

  it('is refused for what is no position, no source, and more than one', async () => {
    const problem = async (more: object) => {
      const { status, body } = await ask('SELECT count() FROM shop_orders', more);
      return [status, body.kind];
    };
    expect(await problem({ wait_for: 'yesterday' })).toEqual([422, 'configuration']);
    expect(await problem({ wait_for: 'now', source: 'nobody' })).toEqual([404, 'not_found']);
    expect(await problem({ wait_for: 'now', timeout: 0 })).toEqual([422, 'configuration']);
    expect((await call<Problem>('GET', '/api/v1/cuts/nobody')).status).toBe(404);
  }, 30_000);

  it('is asked for by the command line too', async () => {
    await sql(`INSERT INTO public.orders VALUES (1, 1)`);
    const right = await sluice('query', '--wait-for', 'now', 'SELECT count() AS n FROM shop_orders');
    expect(right).toMatchObject({ code: 0, out: 'n\n1\n(1 row)\n' });
    const late = await sluice('query', '--wait-for', 'FFFF/0', '--timeout', '0.5', 'SELECT count() FROM shop_orders');
    expect(late).toMatchObject({ code: 1, out: '' });
    expect(late.err).toContain('its stream stands at');
    expect((await sluice('query', '--wait-for', 'now', '--timeout', 'x', 'SELECT 1')).code).toBe(2);
    const shown = await sluice('cuts', 'shop');
    expect(shown.out).toMatch(/^accounts +streaming +complete +[0-9A-F]+\/[0-9A-F]+$/m);
    expect(shown.out).toContain('shop: all is complete up to ');
  }, 60_000);

  it('waits for all sources where it reads a view beside a copy', async () => {
    await sql('CREATE TABLE public.depots (id int PRIMARY KEY)');
    const config = { tables: ['depots'], poll_interval: 0.2 };
    const body = { id: 'depot', type: 'postgresql', connection_string: '${DATABASE_URL}', config };
    expect((await call('POST', '/api/v1/sources/connect', body)).status).toBe(201);
    expect((await call('POST', '/api/v1/sources/depot/start')).status).toBe(202);
    await ask('SELECT count() FROM depot_depots', { wait_for: 'now', timeout: 60 });
    const clickhouse = new ClickHouse({ url: stack.parts.clickhouse.url, database: 'sluice', role: 'write' });
    await clickhouse.command('CREATE VIEW sluice.places AS SELECT id FROM sluice.depot_depots FINAL');
    await clickhouse.close();
    const waitedFor = async (statement: string) =>
      (await ask(statement, { wait_for: 'now' })).body.reached?.map((one) => one.source).sort();
    expect(await waitedFor('SELECT count() FROM shop_orders, places')).toEqual(['depot', 'shop']);
    expect(await waitedFor('WITH mine AS (SELECT 1) SELECT count() FROM shop_orders, mine')).toEqual(['shop']);
    const removed = await fetch(`${stack.api}/api/v1/sources/depot?drop_copies=true`, { method: 'DELETE' });
    expect(removed.status).toBe(204);
  }, 90_000);
});

describe('a row', () => {
  it('tells the batch, run and event that made it, by REST and command line', async () => {
    await sql(`INSERT INTO public.accounts VALUES (900, 'traced'); DELETE FROM public.accounts WHERE id = 50`);
    await ask('SELECT count() FROM shop_accounts', { wait_for: 'now' });
    const row = (key: string) => call<RowLineage & Problem>('GET', `/api/v1/lineage/row/shop_accounts?key=${key}`);
    const { status, body } = await row('900');
    expect([status, body.asset_id, body.complete]).toEqual([200, 'shop_accounts', false]);
    const [newest] = body.versions;
    const { items } = (await call<AuditAnswer>('GET', '/api/v1/lineage/audit?source=shop')).body;
    expect(newest).toMatchObject({ op: 'upsert', batch_id: items.find((one) => one.kind === 'rows')!.id });
    expect(newest!.workflow).toMatchObject({ id: 'capture/shop', event_id: expect.any(Number) });
    expect(newest!.workflow!.url).toContain(`/history/events/${newest!.workflow!.event_id}`);
    expect((await row('50')).body.versions[0]).toMatchObject({ op: 'delete' });
    const [copied] = (await row(encodeURIComponent('{"id": 1}'))).body.versions;
    expect(copied).toMatchObject({ op: 'snapshot', batch_id: expect.stringContaining('/snapshot/shop_accounts/') });
    expect(copied!.workflow!.event_id).toBeGreaterThan(0);
    expect((await row('none')).status).toBe(422);
    expect((await call('GET', '/api/v1/lineage/row/nothing?key=1')).status).toBe(404);
    const printed = await sluice('lineage', 'shop_accounts', '--row', '900');
    expect([printed.code, printed.out]).toEqual([0, expect.stringContaining(newest!.batch_id!)]);
  });
});

describe('the schemas of copies', () => {
  it('are registered by themselves, and again when a table has changed', async () => {
    type Version = { version: number; schema: { fields: { name: string; type: string }[] } };
    const versions = async () => (await call<Version[]>('GET', '/api/v1/schema/shop_orders/versions')).body;
    await until(versions, (found) => found.length === 1);
    await sql(
      'ALTER TABLE public.orders ADD COLUMN total numeric(10,2); INSERT INTO public.orders VALUES (77, 1, 2.50)',
    );
    const found = await until(versions, ({ length }) => length === 2);
    const newest = found.find(({ version }) => version === 2)!;
    expect(newest.schema.fields.at(-1)).toMatchObject({ name: 'total', type: 'decimal(10,2)' });
  });
});

describe('a cut', () => {
  it('is told by table, and follows', async () => {
    const before = await cut();
    expect(before).toMatchObject({ source: 'shop', complete: true, status: 'streaming' });
    expect(before.tables.map(({ asset_id, complete }) => [asset_id, complete])).toEqual([
      ['shop_accounts', true],
      ['shop_orders', true],
    ]);
    await sql(`INSERT INTO public.orders VALUES (2, 2)`);
    await ask('SELECT 1', { wait_for: 'now' });
    const after = await cut();
    expect(after.position).not.toBe(before.position);
    expect(Date.parse(after.committed_at!)).toBeGreaterThan(Date.parse(before.committed_at!));
    const paths = (await call<{ paths: object }>('GET', '/openapi.json')).body.paths;
    expect(Object.keys(paths)).toContain('/api/v1/cuts/{source}');
  }, 30_000);

  it('ends where a table failed; its neighbours are still answered', async () => {
    await sql(`ALTER TABLE public.orders DROP CONSTRAINT orders_pkey; INSERT INTO public.orders VALUES (3, 3)`);
    await until(source, (one) => one.tables.some((table) => table.status === 'failed'));
    await sql(`INSERT INTO public.accounts VALUES (5000, 'after')`);
    const neighbour = await ask('SELECT count() FROM shop_accounts WHERE id = 5000', { wait_for: 'now' });
    expect([neighbour.status, neighbour.body.rows]).toEqual([200, [[1]]]);
    const failed = await ask('SELECT count() FROM shop_orders', { wait_for: 'now' });
    expect([failed.status, failed.body.kind]).toEqual([409, 'conflict']);
    expect(failed.body.detail).toContain('the table orders has failed');
    const now = await cut();
    expect(now.complete).toBe(false);
    expect(now.tables.map(({ table, complete }) => [table, complete])).toEqual([
      ['accounts', true],
      ['orders', false],
    ]);
    expect(now.position).toBe(now.tables[1]!.position);
    expect(now.position).not.toBe(now.tables[0]!.position);
  }, 60_000);

  it('stays while the source is paused, and nobody waits in vain', async () => {
    expect((await call('POST', '/api/v1/sources/shop/pause')).status).toBe(202);
    const { status, body } = await ask('SELECT count() FROM shop_accounts', { wait_for: 'now' });
    expect([status, body.kind]).toEqual([409, 'conflict']);
    expect(body.remedy).toContain('sluice sources start shop');
    // The log is watched while nobody reads it, and the slot keeps it.
    const paused = await until(source, (one) => one.log !== null);
    expect(paused.log!.retained_bytes).toBeGreaterThanOrEqual(0);
    const metrics = await (await fetch(`${stack.api}/metrics`)).text();
    expect(metrics).toMatch(/^sluice_slot_retained_bytes\{source="shop"\} \d+$/m);
  }, 60_000);
});

describe('the audit trail', () => {
  const list = (query: string) => call<AuditAnswer & Problem>('GET', `/api/v1/lineage/audit?${query}`);

  it('lists records, page by page, of a source, an asset and a time', async () => {
    const all = (await list('source=shop&limit=1000')).body;
    expect(all.next_cursor).toBeNull();
    const ids = all.items.map((item) => item.id);
    expect(ids.length).toBeGreaterThan(30);
    const times = all.items.map((item) => item.recorded_at);
    expect(times).toEqual(times.toSorted().reverse());
    const paged: string[] = [];
    for (let cursor: string | null = ''; cursor !== null; ) {
      const page: AuditAnswer = (await list(`source=shop&limit=7${cursor ? `&cursor=${cursor}` : ''}`)).body;
      expect(page.items.length).toBeLessThanOrEqual(7);
      paged.push(...page.items.map((item) => item.id));
      cursor = page.next_cursor;
    }
    expect(paged).toEqual(ids);
    const orders = (await list('asset=clickhouse_shop_orders&limit=1000')).body.items;
    expect(orders.length).toBeGreaterThan(0);
    expect(orders.every((item) => 'shop_orders' in item.assets)).toBe(true);
    const middle = times[10]!;
    const later = (await list(`source=shop&from=${middle}&limit=1000`)).body.items;
    const earlier = (await list(`source=shop&to=${middle}&limit=1000`)).body.items;
    expect([...later, ...earlier].map((item) => item.id)).toEqual(ids);
    const batch = all.items.find((item) => item.kind === 'rows')!;
    expect(batch.workflow).toMatchObject({ id: 'capture/shop', url: expect.stringContaining(batch.workflow!.run_id) });
    expect((await list('source=nobody')).body).toEqual({ items: [], next_cursor: null });
    for (const wrong of ['limit=0', 'limit=x', 'from=yesterday', 'cursor=x', `cursor=${btoa('[1,2]')}`])
      expect((await list(wrong)).status, wrong).toBe(422);
  }, 60_000);

  it('proves to be whole, and shows what was tampered with', async () => {
    const right = await sluice('audit', '--check');
    expect(right).toMatchObject({ code: 0, err: '' });
    expect(right.out).toMatch(/^✓ shop: \d+ records of \d+ leases, \d+ effects, \S+ to \S+ without gap\n/m);
    expect((await sluice('audit', '--source', 'shop', '--since', '1h')).out).toMatch(/^recorded \(UTC\) +batch/);
    expect((await sluice('audit', '--since', 'x')).code).toBe(2);
    expect((await sluice('audit', '--check', '--source', 'nobody')).code).toBe(1);
    // The source believes more to be stored than is recorded: everything since would be skipped in silence.
    await sql(`INSERT INTO public.accounts VALUES (6000, 'skipped')`);
    await sql(`SELECT pg_replication_slot_advance('sluice_shop', pg_current_wal_flush_lsn())`);
    const { items } = (await list('source=shop&limit=200')).body;
    const victim = items.findLast((item) => item.kind === 'rows')!;
    const text = `INSERT INTO sluice._batches SELECT * REPLACE (changes + 1 AS changes) FROM sluice._batches FINAL WHERE id = '${victim.id}'`;
    await fetch(stack.parts.clickhouse.url, { method: 'POST', body: text });
    const wrong = await sluice('audit', '--check', '--source', 'shop');
    expect(wrong.code).toBe(1);
    expect(wrong.out).toContain('✗ shop: ');
    expect(wrong.out).toContain(`  content ${victim.id}: it is not as it was written`);
    expect(wrong.out).toMatch(
      /^ {2}slot shop\/\S+: the source believes all up to \S+ to be stored, and the last record ends at/m,
    );
    const json = JSON.parse((await sluice('audit', '--check', '--json')).out);
    const shop = json.find((one: { source: string }) => one.source === 'shop');
    expect(shop.faults.map(({ fault }: { fault: string }) => fault)).toEqual(['content', 'slot']);
  }, 90_000);
});
