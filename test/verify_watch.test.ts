/** Copies are compared with their source by themselves, for ever: what is damaged is found, repaired and told. */
import { Client, Connection } from '@temporalio/client';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import type { HealthAnswer, SourceAnswer, VerifyAnswer } from '../api/control/shapes.ts';
import type { VerifyAnswer as RunAnswer } from '../model/messages.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;
let temporal: Client;
let changing = true;
let changes: Promise<void> | undefined;

beforeAll(async () => {
  stack = await startControlStack();
  const connection = await Connection.connect({ address: stack.parts.temporal.url });
  temporal = new Client({ connection });
  await sql(`CREATE TABLE public.numbers (id int PRIMARY KEY, v text);
    CREATE TABLE public.texts (id text PRIMARY KEY, v int);
    INSERT INTO public.numbers SELECT i, 'v' || i FROM generate_series(1, 25000) i;
    INSERT INTO public.texts SELECT 'key ' || i, i FROM generate_series(1, 500) i`);
  const verify = { interval: '1h', share: 0.5 };
  const config = { tables: ['numbers', 'texts'], poll_interval: 0.2, options: { verify } };
  const body = { id: 'shop', type: 'postgresql', connection_string: '${DATABASE_URL}', config };
  expect((await call('POST', '/api/v1/sources/connect', body)).status).toBe(201);
  expect((await call('POST', '/api/v1/sources/shop/start')).status).toBe(202);
  await until(source, (one) => one.status === 'streaming', 60);
  changes = keepChanging();
}, 180_000);

afterAll(async () => {
  changing = false;
  await changes;
  await temporal?.connection.close();
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

async function sql(text: string): Promise<void> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  await withConnection(options, async (client) => await client.query(text));
}

/** Rows change all the time, each of them now and then, and none of those that are damaged. */
async function keepChanging(): Promise<void> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  await withConnection(options, async (client) => {
    for (let turn = 0; changing; turn += 1) {
      const from = 15_000 + ((turn * 5) % 5_000);
      await client.query(`UPDATE public.numbers SET v = $2 WHERE id BETWEEN $1 AND $1 + 4`, [from, `turn ${turn}`]);
      await client.query(`INSERT INTO public.numbers VALUES ($1, 'new')`, [100_000 + turn]);
      await client.query('UPDATE public.texts SET v = v + 1 WHERE id = $1', [`key ${100 + (turn % 400)}`]);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  });
}

async function call<Body = unknown>(
  method: string,
  url: string,
  body?: unknown,
): Promise<{ status: number; body: Body }> {
  const sent =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
  const answer = await fetch(`${stack.api}${url}`, { method, ...sent });
  const text = await answer.text();
  return { status: answer.status, body: (text === '' ? null : JSON.parse(text)) as Body };
}

async function clickhouse(statement: string): Promise<string> {
  const answer = await fetch(stack.parts.clickhouse.url, { method: 'POST', body: statement });
  const text = await answer.text();
  if (!answer.ok) throw new Error(text);
  return text;
}

const source = async () => (await call<SourceAnswer>('GET', '/api/v1/sources/shop')).body;
const schedule = () => temporal.schedule.getHandle('verify/shop');
const metrics = async () => await (await fetch(`${stack.api}/metrics`)).text();

/** Lets the schedule make its next run now, and waits for what that answers. */
async function nextComparison(): Promise<RunAnswer> {
  const runs = async () => (await schedule().describe()).info.recentActions.map((action) => action.action.workflow);
  const before = (await runs()).length;
  await schedule().trigger();
  const after = await until(runs, (all) => all.length > before);
  const { workflowId, firstExecutionRunId } = after.at(-1)!;
  return (await temporal.workflow.getHandle(workflowId, firstExecutionRunId).result()) as RunAnswer;
}

const numbers = 'sluice.shop_numbers';
const texts = 'sluice.shop_texts';

/** Rows as they never were: altered, marked as gone, added, and taken away, with versions that win. */
async function damage(): Promise<void> {
  const change = (table: string, set: string, where: string) =>
    clickhouse(`INSERT INTO ${table} SELECT * REPLACE (${set}) FROM (SELECT * FROM ${table} FINAL WHERE ${where})`);
  await change(numbers, `'wrong' AS v, _version + 1 AS _version`, 'id IN (7, 14007)');
  await change(numbers, '1 AS _deleted, _version + 1 AS _version', 'id = 8');
  await change(numbers, 'toInt32(90000) AS id', 'id = 9');
  await clickhouse(`ALTER TABLE ${numbers} DELETE WHERE id = 24000 SETTINGS mutations_sync = 2`);
  await change(texts, 'toInt32(0) AS v', `id = 'key 1'`);
  await change(texts, `'no such key' AS id`, `id = 'key 2'`);
  await clickhouse(`ALTER TABLE ${texts} DELETE WHERE id = 'key 3' SETTINGS mutations_sync = 2`);
}

describe('a connected source', () => {
  it('has a schedule of its own, which compares it when nobody asks', async () => {
    const { action, spec, policies } = await schedule().describe();
    expect(action).toMatchObject({
      workflowType: 'verifyCopy',
      args: [{ source: 'shop', scheduled: true, share: 0.5, repair: true }],
    });
    expect(spec.intervals).toMatchObject([{ every: 3_600_000 }]);
    expect(policies.overlap).toBe('SKIP');
    expect(await nextComparison()).toMatchObject({ identical: true, tables: 2 });
    expect((await source()).alarms).toEqual([]);
  }, 90_000);

  it('has damaged rows found, repaired and told, while it changes all the time', async () => {
    await damage();
    expect(await nextComparison()).toMatchObject({ identical: true, tables: 2 });
    const { body } = await call<VerifyAnswer>('GET', '/api/v1/verify/shop');
    expect(body.tables).toMatchObject([
      { asset_id: 'shop_numbers', identical: true, missing: 2, extra: 1, different: 2, repaired: 5 },
      { asset_id: 'shop_texts', identical: true, missing: 1, extra: 1, different: 1, repaired: 3 },
    ]);
    expect(body.tables[0]!.keys).toContainEqual({
      problem: 'different',
      key: { id: 7 },
      columns: ['v'],
      repaired: true,
    });
    const wrong = await clickhouse(
      `SELECT count() FROM ${numbers} FINAL WHERE (id IN (7, 14007) AND v = 'wrong') OR id = 90000 UNION ALL
       SELECT 3 - count() FROM ${numbers} FINAL WHERE id IN (8, 9, 24000)`,
    );
    expect(wrong.trim().split('\n')).toEqual(['0', '0']);
    const kinds = await clickhouse(
      `SELECT DISTINCT kind, count() FROM sluice._batches FINAL WHERE kind = 'repair' GROUP BY kind`,
    );
    expect(kinds).toMatch(/^repair\t[2-5]\n$/);

    const alarms = await until(source, (one) => one.alarms.length === 2);
    expect(alarms.alarms[0]).toMatchObject({
      kind: 'copy_differs',
      reason: expect.stringMatching(/^5 rows of shop_numbers differed from the source at \S+, and were repaired$/),
    });
    const health = await call<HealthAnswer>('GET', '/health');
    expect([health.status, health.body.status]).toEqual([200, 'degraded']);
    expect(health.body.problems).toContainEqual(
      expect.objectContaining({ check: 'sources.shop', kind: 'copy_differs' }),
    );
    const page = await until(metrics, (text) =>
      text.includes('sluice_verify_differences_total{source="shop",asset="shop_numbers"} 5'),
    );
    expect(page).toContain('sluice_verify_repaired_total{source="shop",asset="shop_texts"} 3');
    expect(page).toContain('sluice_verify_differing{source="shop",asset="shop_numbers"} 0');
    expect(page).toContain('sluice_alarms{source="shop",kind="copy_differs"} 2');

    // The alarm ends with the next comparison that finds nothing.
    expect(await nextComparison()).toMatchObject({ identical: true });
    await until(source, (one) => one.alarms.length === 0);
    expect(await metrics()).toContain('sluice_verify_differences_total{source="shop",asset="shop_numbers"} 5');
  }, 120_000);

  it('has checks of its whole copies looked at as well, and told until they pass', async () => {
    const check = { rule_id: 'few', asset: 'shop_numbers', rule_type: 'row_count', parameters: { max: 10 } };
    expect((await call('POST', '/api/v1/quality/add-rule', { ...check, severity: 'warn' })).status).toBe(201);
    await nextComparison();
    const told = await until(source, (one) => one.alarms.length === 1);
    expect(told.alarms[0]).toMatchObject({
      kind: 'check_failed',
      reason: expect.stringMatching(/^the check few of shop_numbers failed at \S+: 1 of 1$/),
      remedy: expect.stringContaining('sluice quality shop_numbers'),
    });
    expect(await metrics()).toContain('sluice_alarms{source="shop",kind="check_failed"} 1');
    const scores = await call<{ items: object[] }>('GET', '/api/v1/quality/scores?asset=shop_numbers');
    expect(scores.body.items).toContainEqual(expect.objectContaining({ rule_id: 'few', score: 0 }));
    const wider = { ...check, parameters: { max: 1_000_000 }, severity: 'warn' };
    expect((await call('PUT', '/api/v1/quality/rules/few', wider)).status).toBe(200);
    await nextComparison();
    await until(source, (one) => one.alarms.length === 0);
    expect((await call('DELETE', '/api/v1/quality/rules/few')).status).toBe(204);
  }, 120_000);

  it('is repaired on demand, and told what cannot be', async () => {
    await clickhouse(
      `INSERT INTO ${numbers} SELECT * REPLACE ('foreign' AS v, bitShiftLeft(toUInt128(60000), 112) AS _version) FROM ${numbers} FINAL WHERE id = 11`,
    );
    await clickhouse(`INSERT INTO ${numbers} SELECT * REPLACE ('wrong' AS v) FROM ${numbers} FINAL WHERE id = 12`);
    expect((await call('POST', '/api/v1/verify/shop', { table: 'numbers', repair: true })).status).toBe(202);
    const get = async () => (await call<VerifyAnswer>('GET', '/api/v1/verify/shop')).body;
    const done = await until(get, (one) => one.status === 'finished' && one.tables.length === 1, 60);
    expect(done).toMatchObject({
      identical: false,
      tables: [{ different: 2, repaired: 1, unrepaired: expect.stringContaining('future') }],
    });
    const { alarms } = await until(source, (one) => one.alarms.length === 1);
    expect(alarms[0]!.reason).toMatch(
      /^2 rows of shop_numbers differed .*, and 1 row stayed so: 1 rows of the copy bear versions/,
    );
    await clickhouse(`ALTER TABLE ${numbers} DELETE WHERE v = 'foreign' SETTINGS mutations_sync = 2`);
  }, 90_000);

  it('has a copy made anew when too many rows differ', async () => {
    await clickhouse(
      `INSERT INTO ${numbers} SELECT * REPLACE (concat(v, '!') AS v) FROM ${numbers} FINAL WHERE id < 15000`,
    );
    expect(await nextComparison()).toMatchObject({ identical: false });
    const { body } = await call<VerifyAnswer>('GET', '/api/v1/verify/shop');
    expect(body.tables).toContainEqual(
      expect.objectContaining({ asset_id: 'shop_numbers', at_least: true, resynced: true }),
    );
    const noAlarm = () => until(source, (one) => one.status === 'streaming' && one.alarms.length === 0, 60);
    await noAlarm();
    // A comparison whose other tables took longer than the new copy: it ended after that, and says nothing of it.
    await clickhouse(
      `INSERT INTO sluice._verifications SELECT v.* REPLACE ('longer' AS id, now64(6) AS finished_at)
       FROM sluice._verifications AS v FINAL WHERE position(result, '"resynced":true') > 0`,
    );
    await noAlarm();
    expect(await nextComparison()).toMatchObject({ identical: true, tables: 2 });
  }, 180_000);

  it('has a copy made anew when rows without a key differ, of which none has a name', async () => {
    await sql(`CREATE TABLE public.notes (n int, v text); ALTER TABLE public.notes REPLICA IDENTITY FULL;
      INSERT INTO public.notes SELECT i % 3, 'alike' FROM generate_series(1, 300) i`);
    expect((await call('POST', '/api/v1/sources/shop/add-tables', ['notes'])).status).toBe(202);
    const notes = async () => (await source()).tables.find(({ table }) => table === 'notes');
    const all = (one: Awaited<ReturnType<typeof notes>>) => one?.status === 'streaming' && one.rows === 300;
    await until(notes, all, 60);
    const row = await call<{ detail: string; remedy: string }>('GET', '/api/v1/lineage/row/shop_notes?key=1');
    expect(row.status).toBe(422);
    expect(row.body.remedy).toContain('SELECT * FROM shop_notes');
    await clickhouse(
      `INSERT INTO sluice.shop_notes (n, v, _version, _origin, _sign) VALUES (1, 'alike', bitShiftLeft(toUInt128(1), 126), 3, -1)`,
    );
    expect(await nextComparison()).toMatchObject({ identical: false, tables: 3 });
    const { body } = await call<VerifyAnswer>('GET', '/api/v1/verify/shop');
    expect(body.tables.find(({ asset_id }) => asset_id === 'shop_notes')).toMatchObject({
      missing: 1,
      extra: 0,
      resynced: true,
      keys: [{ problem: 'missing', key: { n: 1, v: 'alike' }, source_rows: 100, copy_rows: 99 }],
    });
    await until(source, (one) => one.status === 'streaming' && one.alarms.length === 0, 60);
    await until(notes, all, 60);
    expect(await nextComparison()).toMatchObject({ identical: true, tables: 3 });
  }, 120_000);

  it('is left alone while it rests, and when it is gone', async () => {
    expect((await call('POST', '/api/v1/sources/shop/pause')).status).toBe(202);
    expect(await nextComparison()).toEqual({ identical: false, tables: 0, id: '', skipped: 'the source is paused' });
    expect((await call('DELETE', '/api/v1/sources/shop')).status).toBe(204);
    await expect(schedule().describe()).rejects.toThrow(/not found/i);
  }, 60_000);
});
