/** Rules, checks, scores and rejects through the REST API, on a real source and its copy. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { storeScores } from '../activities/check/scores.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import type {
  CheckAnswer,
  PreviewAnswer,
  QualityAnswer,
  RejectsAnswer,
  RuleAnswer,
  ScoresAnswer,
} from '../api/control/rule_shapes.ts';
import type { SourceAnswer } from '../api/control/shapes.ts';
import type { Problem } from '../api/problems.ts';
import type { SettleAnswer } from '../model/rejects.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;
let clickhouse: ClickHouse;

beforeAll(async () => {
  stack = await startControlStack();
  clickhouse = new ClickHouse({ url: stack.parts.clickhouse.url, database: 'sluice', role: 'write' });
  await sql(`CREATE TABLE public.kinds (code text PRIMARY KEY);
    INSERT INTO public.kinds VALUES ('a'), ('b');
    CREATE TABLE public.events (note text);
    ALTER TABLE public.events REPLICA IDENTITY FULL;
    INSERT INTO public.events VALUES ('a'), ('a'), ('b'), (NULL), (NULL);
    CREATE TABLE public.items (
      id bigint PRIMARY KEY, email text, kind text, amount numeric(12,2), big numeric(30,4), ratio double precision, ok boolean,
      day date, at timestamptz, tags text[] NOT NULL, doc jsonb, bytes bytea, ref uuid);
    INSERT INTO public.items SELECT i, 'user' || i || E'@x\\t.org', CASE WHEN i % 2 = 0 THEN 'a' ELSE 'b' END, i - 0.5,
      12345678901234567890.1234, i / 10.0, i % 3 = 0, date '2024-01-01' + i, timestamptz '2024-01-01' + i * interval '1 hour',
      ARRAY['t' || i, 'u"''\\'], jsonb_build_object('n', i), decode('00ff', 'hex'), md5(i::text)::uuid
      FROM generate_series(1, 98) i;
    INSERT INTO public.items VALUES (99, NULL, 'c', NULL, NULL, 'NaN', NULL, NULL, now(), ARRAY[]::text[], NULL, NULL, NULL),
      (100, 'user1@x', NULL, -0.01, 1, 'Infinity', NULL, '1950-01-01', NULL, '{}', '{"n": "x"}', NULL, NULL),
      (101, 'late', 'a', 1, 1, 1, true, 'infinity', NULL, '{}', NULL, NULL, NULL)`);
  const connected = await call('POST', '/sources/connect', {
    id: 'shop',
    type: 'postgresql',
    connection_string: stack.parts.postgres.url,
    config: { tables: ['items', 'kinds', 'events'], poll_interval: 0.2 },
  });
  expect(connected.status).toBe(201);
  await call('POST', '/sources/shop/start');
  await until(
    async () => (await call<SourceAnswer>('GET', '/sources/shop')).body,
    (source) => source.status === 'streaming',
    60,
  );
}, 180_000);

afterAll(async () => {
  await clickhouse?.close();
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

function sql(text: string): Promise<unknown> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, (client) => client.query(text));
}

async function call<Body = Problem>(method: string, path: string, body?: unknown, key?: string) {
  const headers = {
    ...(body !== undefined && { 'content-type': 'application/json' }),
    ...(key !== undefined && { 'idempotency-key': key }),
  };
  const sent = body === undefined ? {} : { body: JSON.stringify(body) };
  const answer = await fetch(`${stack.api}/api/v1${path}`, { method, headers, ...sent });
  const text = await answer.text();
  return { status: answer.status, body: (text === '' ? undefined : JSON.parse(text)) as Body };
}

const mask = {
  rule_id: 'mask',
  rule_type: 'map',
  assets: ['shop_*'],
  source_fields: ['email'],
  target_field: 'masked',
  expression: '{{ email.split("@")[0][:3] }}***',
};
const positive = {
  rule_id: 'positive',
  asset: 'clickhouse_shop_items',
  field: 'amount',
  rule_type: 'range',
  parameters: { min: 0 },
};

describe('rules', () => {
  it('are added, replaced and taken away, with the right codes', async () => {
    expect((await call('GET', '/transformations')).body).toEqual([]);
    const rule = { ...mask, assets: ['elsewhere_*'] };
    const made = await call<RuleAnswer>('POST', '/transformations', rule);
    expect(made).toEqual({ status: 201, body: { ...rule, version: 1 } });
    expect(await call('POST', '/transformations', rule)).toEqual({ status: 200, body: made.body });
    const other = await call('POST', '/transformations', { ...rule, target_field: 'm' });
    expect([other.status, other.body.kind]).toEqual([409, 'conflict']);
    const { rule_id: _, ...body } = rule;
    const put = await call<RuleAnswer>('PUT', '/transformations/mask', { ...body, target_field: 'm' }, 'put-1');
    expect(await call('PUT', '/transformations/mask', { ...body, target_field: 'm' }, 'put-1')).toEqual(put);
    expect((await call('PUT', '/transformations/mask', { ...body, target_field: 'o' }, 'put-1')).status).toBe(422);
    expect(put).toEqual({ status: 200, body: { ...rule, target_field: 'm', version: 2 } });
    expect((await call('PUT', '/transformations/none', body)).status).toBe(404);
    const twice = await call('PUT', '/transformations/mask', { ...rule, rule_id: 'other' });
    expect([twice.status, twice.body.errors?.[0]?.pointer]).toEqual([422, '/rule_id']);
    expect((await call<RuleAnswer[]>('GET', '/transformations')).body).toEqual([put.body]);
    expect((await call('GET', '/transformations/mask')).body).toEqual(put.body);
    expect(await call('DELETE', '/transformations/mask')).toEqual({ status: 204, body: undefined });
    expect((await call('DELETE', '/transformations/mask')).status).toBe(404);
    expect((await call('GET', '/transformations/mask')).status).toBe(404);
  });

  it('that are wrong are told with pointers, line and column', async () => {
    const post = (more: object) => call('POST', '/transformations', { ...mask, ...more });
    const syntax = await post({ expression: '{{ email.split("@")[0 }}***' });
    expect(syntax.status).toBe(422);
    expect(syntax.body.errors).toEqual([
      { pointer: '/expression', detail: expect.any(String), line: 1, column: expect.any(Number) },
    ]);
    const unknown = await post({ expression: '***\n{{ emial }}' });
    expect(unknown.body.errors).toMatchObject([
      { pointer: '/expression', line: 2, column: 4, detail: expect.stringContaining('did you mean "email"?') },
    ]);
    expect((await post({ colour: 1 })).body.errors).toMatchObject([{ pointer: '/colour' }]);
    expect((await post({ rule_type: 'mop' })).body.errors).toMatchObject([{ pointer: '/rule_type' }]);
    expect((await post({ target_field: undefined })).body.errors).toMatchObject([{ pointer: '/target_field' }]);
    expect((await post({ target_type: 'Strin' })).body.errors).toMatchObject([{ pointer: '/target_type' }]);
    expect((await call('GET', '/transformations')).body).toEqual([]);
  });

  it('are tried on rows that are sent', async () => {
    const rows = [{ email: 'john@x' }, { email: null }, { email: 5 }];
    const { status, body } = await call<PreviewAnswer>('POST', '/transformations/preview', { rule: mask, rows });
    expect(status).toBe(200);
    expect(body.rows).toEqual([
      { email: 'john@x', masked: 'joh***' },
      { email: null, masked: null },
    ]);
    expect(body.rejected).toEqual([{ row: 2, reason: expect.any(String) }]);
    expect(body.rows_per_second).toBeGreaterThan(0);
    const nothing = await call<PreviewAnswer>('POST', '/transformations/preview', { rule: mask, rows: [{ id: 1 }] });
    expect(nothing.body.rows).toEqual([{ id: 1, masked: null }]);
    const typed = { rule: { ...mask, expression: '{{ id + 1 }}', source_fields: ['id'] }, asset_id: 'shop_items' };
    const ids = [{ id: 1 }, { id: '9007199254740993' }, { id: 'one' }];
    const exact = (await call<PreviewAnswer>('POST', '/transformations/preview', { ...typed, rows: ids })).body;
    expect(exact.rows.map((row) => row.masked)).toEqual([2, '9007199254740994']);
    expect(exact.rejected).toEqual([{ row: 2, reason: 'id has a text that is no bigint' }]);
    const bad = await call('POST', '/transformations/preview', { rule: { ...mask, expression: '{{ x' }, rows });
    expect(bad.body.errors).toMatchObject([{ pointer: '/rule/expression', line: 1, column: expect.any(Number) }]);
    expect((await call('POST', '/transformations/preview', { rule: mask })).status).toBe(422);
    const shape = await call('POST', '/transformations/preview', { rule: { ...mask, rule_type: 'filter' }, rows });
    expect(shape.body.errors).toMatchObject([{ pointer: '/rule/target_field' }]);
  });

  it('of type join are tried too', async () => {
    const join = {
      rule_id: 'kind',
      rule_type: 'join',
      parameters: { asset: 'shop_kinds', on: { kind: 'code' }, fields: ['code'] },
    };
    const rows = [{ kind: 'a' }, { kind: 'z' }, { kind: null }];
    const sent = (await call<PreviewAnswer>('POST', '/transformations/preview', { rule: join, rows })).body;
    expect(sent.rows).toEqual([
      { kind: 'a', code: 'a' },
      { kind: null, code: null },
    ]);
    expect(sent.rejected).toMatchObject([{ row: 1 }]);
    const copy = await call<PreviewAnswer>('POST', '/transformations/preview', { rule: join, asset_id: 'shop_items' });
    expect(copy.body.differences).toMatchObject({ checked: 100, changed: 99, rejected: 1 });
  });

  it('are tried on the newest rows of a copy', async () => {
    const shadow = (rule: object, last?: number) =>
      call<PreviewAnswer>('POST', '/transformations/preview', { rule, asset_id: 'clickhouse_shop_items', last });
    const masked = (await shadow(mask)).body;
    expect(masked.differences).toMatchObject({ checked: 100, changed: 100, filtered: 0, rejected: 0 });
    expect(masked.rows.find((row) => row.id === 7)).toEqual({ id: 7, masked: 'use***' });
    const upper = {
      ...mask,
      target_field: 'kind',
      expression: '{{ "a" if kind == "b" else kind }}',
      source_fields: ['kind'],
    };
    const changed = (await shadow(upper)).body.differences!;
    expect(changed).toMatchObject({ checked: 100, changed: 49 });
    expect(changed.samples[0]).toEqual({
      row: { id: expect.any(Number) },
      outcome: 'changed',
      before: { kind: 'b' },
      after: { kind: 'a' },
    });
    const filter = { rule_id: 'f', rule_type: 'filter', expression: '{{ amount > 90 and tags[0] == "t" ~ id }}' };
    expect((await shadow(filter)).body.differences).toMatchObject({ checked: 100, filtered: 92 });
    const failing = { ...mask, expression: '{{ doc.n + 1 }}', source_fields: ['doc'] };
    const rejected = (await shadow(failing, 100)).body;
    expect(rejected.differences).toMatchObject({ rejected: 1, changed: 99 });
    expect(rejected.rejected).toHaveLength(1);
    expect((await shadow(mask, 3)).body.differences!.checked).toBe(3);
    const values = {
      ...mask,
      expression: '{{ [big, ratio, ok, day.isoformat(), at.isoformat(), tags, doc, bytes, ref] | tojson }}',
      source_fields: ['id'],
    };
    const seven = (await shadow(values)).body.rows.find((row) => row.id === 7)!.masked as string;
    expect(JSON.parse(seven.replace('12345678901234567890.1234', '1'))).toEqual([
      1,
      0.7,
      false,
      '2024-01-08',
      '2024-01-01T07:00:00+00:00',
      ['t7', 'u"\'\\'],
      { n: 7 },
      '\\x00ff',
      '8f14e45f-ceea-167a-5a36-dedd4bea2543',
    ]);
    expect((await call('POST', '/transformations/preview', { rule: mask, asset_id: 'shop_none' })).status).toBe(404);
    expect((await call('POST', '/transformations/preview', { rule: mask, asset_id: '_rules' })).status).toBe(404);
  });
});

describe('checks', () => {
  it('are added, replaced and taken away, with the right codes', async () => {
    const made = await call<CheckAnswer>('POST', '/quality/add-rule', positive);
    const stored = { ...positive, asset: 'shop_items', severity: 'warn', version: 1 };
    expect(made).toEqual({ status: 201, body: stored });
    expect((await call('POST', '/quality/add-rule', positive)).status).toBe(200);
    expect((await call('POST', '/quality/add-rule', { ...positive, field: 'ratio' })).status).toBe(409);
    const put = await call<CheckAnswer>('PUT', '/quality/rules/positive', { ...positive, parameters: { min: 1 } });
    expect(put.body).toMatchObject({ parameters: { min: 1 }, version: 2 });
    expect((await call('GET', '/quality/rules')).body).toEqual([put.body]);
    expect((await call('GET', '/quality/rules/positive')).body).toEqual(put.body);
    expect((await call('PUT', '/quality/rules/none', positive)).status).toBe(422);
    expect((await call('PUT', '/quality/rules/none', { ...positive, rule_id: 'none' })).status).toBe(404);
    expect((await call('DELETE', '/quality/rules/positive')).status).toBe(204);
    expect((await call('DELETE', '/quality/rules/positive')).status).toBe(404);
  });

  it('that are wrong are told with pointers', async () => {
    const post = (more: object) => call('POST', '/quality/add-rule', { ...positive, ...more });
    const pointers = async (more: object) => {
      const { status, body } = await post(more);
      return [status, body.errors?.map(({ pointer }) => pointer)];
    };
    expect(await pointers({ field: 'amuont' })).toEqual([422, ['/field']]);
    expect(await pointers({ parameters: { min: 'x' } })).toEqual([422, ['/parameters/min']]);
    expect(await pointers({ parameters: { mni: 1 } })).toEqual([422, ['/parameters/mni']]);
    expect(await pointers({ rule_type: 'pattern', parameters: { regex: '(' } })).toEqual([422, ['/parameters/regex']]);
    expect(await pointers({ severity: 'loud' })).toEqual([422, ['/severity']]);
    expect(await pointers({ rule_type: 'unique', severity: 'reject' })).toEqual([
      422,
      ['/severity', '/parameters/min'],
    ]);
    const expression = { field: undefined, rule_type: 'expression', parameters: { expression: 'amount >' } };
    expect((await post(expression)).body.errors).toMatchObject([
      { pointer: '/parameters/expression', line: 1, column: expect.any(Number) },
    ]);
    expect((await call('GET', '/quality/rules')).body).toEqual([]);
  });

  const declared: [string, string | undefined, string, object][] = [
    ['there', 'email', 'not_null', {}],
    ['min', 'amount', 'range', { min: 0 }],
    ['exact', 'amount', 'range', { max: '97.49' }],
    ['big', 'big', 'range', { max: '12345678901234567890.1234' }],
    ['ratio', 'ratio', 'range', { min: 0, max: 100 }],
    ['day', 'day', 'range', { min: '2000-01-01' }],
    ['at', 'at', 'range', { max: '2024-01-04T00:00:00Z' }],
    ['at_sign', 'email', 'pattern', { regex: '^[^@]+@x.\\.?' }],
    ['long', 'email', 'length', { min: 13 }],
    ['many', 'tags', 'length', { min: 1 }],
    ['known', 'kind', 'accepted_values', { values: ['a', 'b'] }],
    ['amounts', 'amount', 'accepted_values', { values: [0.5, '1.50'] }],
    ['okay', 'ok', 'accepted_values', { values: [true] }],
    ['alone', undefined, 'unique', { fields: ['kind', 'day'] }],
    ['kinds', 'kind', 'unique', {}],
    ['ref', 'kind', 'relationships', { asset: 'shop_kinds', field: 'code' }],
    ['number', 'doc', 'expression', { expression: 'doc.n > 0' }],
    ['typed', 'big', 'type', { type: 'decimal(10,4)' }],
    ['count', undefined, 'row_count', { min: 100, max: 100 }],
    ['more', undefined, 'row_count', { min: 101 }],
    ['fresh', 'at', 'freshness', { max_age: '1h' }],
    ['fresh_commit', undefined, 'freshness', { max_age: '1h' }],
    ['stale', 'day', 'freshness', { max_age: '1d' }],
  ];
  const expected = {
    there: 1, min: 1, exact: 1, big: 0, ratio: 2, day: 1, at: 27, at_sign: 1, long: 10, many: 2, known: 1, amounts: 97, okay: 66,
    alone: 0, kinds: 98, ref: 1, number: 1, typed: 98, count: 0, more: 1, fresh: 0, fresh_commit: 0, stale: 1,
  }; // biome-ignore format: a list

  it('run on the whole copy, each as it would on single rows', async () => {
    for (const [rule_id, field, rule_type, parameters] of declared) {
      const check = { rule_id, asset: 'shop_items', field, rule_type, parameters };
      const made = await call('POST', '/quality/add-rule', check);
      expect([made.status, rule_id, made.body.errors]).toEqual([201, rule_id, undefined]);
    }
    const { status, body } = await call<QualityAnswer>('POST', '/quality/check', { asset_id: 'shop_items' });
    expect([status, body.asset_id]).toEqual([200, 'shop_items']);
    expect(Object.fromEntries(body.rules.map(({ rule_id, failed }) => [rule_id, failed]))).toEqual(expected);
    const of = (id: string) => body.rules.find(({ rule_id }) => rule_id === id)!;
    expect(of('there')).toEqual({
      rule_id: 'there',
      checked: 100,
      failed: 1,
      score: 0.99,
      samples: [{ id: 99, email: null }],
    });
    expect(of('at').samples).toHaveLength(5);
    expect(of('number').samples).toEqual([{ id: 100, big: '1.0000', doc: { n: 'x' } }]);
    expect(of('count')).toMatchObject({ checked: 1, score: 1 });
    // All rows fail one check or another; of the five checks of the copy two fail.
    expect(body).toMatchObject({ checked: 105, failed: 102, passed: 3 });
    expect(body.score).toBeCloseTo(3 / 105);
  });

  it('give the same on rows that are sent', async () => {
    const rows = await clickhouse.rows<Record<string, unknown>>(
      `SELECT id, email, kind, amount, big, ratio, ok, day, formatDateTime(at, '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC') AS at, tags, doc, now64() AS _committed_at
       FROM ${clickhouse.name('shop_items')} FINAL`,
      { settings: { output_format_json_quote_denormals: 1 } },
    );
    const sent = rows.map((row) => ({ ...row, doc: row.doc === null ? null : JSON.parse(row.doc as string) }));
    const { body } = await call<QualityAnswer>('POST', '/quality/check', { asset_id: 'shop_items', rows: sent });
    expect(Object.fromEntries(body.rules.map(({ rule_id, failed }) => [rule_id, failed]))).toEqual(expected);
    expect(body).toMatchObject({ checked: 105, failed: 102 });
    expect((await call('POST', '/quality/check', { asset_id: 'shop_none', rows: [] })).status).toBe(404);
    expect((await call('POST', '/quality/check', { asset_id: 'shop_none' })).status).toBe(404);
    const none = await call<QualityAnswer>('POST', '/quality/check', { asset_id: 'shop_kinds' });
    expect(none.body).toEqual({ asset_id: 'shop_kinds', score: 1, checked: 0, passed: 0, failed: 0, rules: [] });
    for (const [rule_id] of declared) await call('DELETE', `/quality/rules/${rule_id}`);
  });

  it('that warn are for tables without a key, too', async () => {
    const check = { asset: 'shop_events', field: 'note' };
    const add = (more: object) => call('POST', '/quality/add-rule', { ...check, ...more });
    const refused = await add({ rule_id: 'filled', rule_type: 'not_null', severity: 'reject' });
    expect([refused.status, refused.body.errors?.[0]?.detail]).toEqual([422, expect.stringContaining('without a key')]);
    await add({ rule_id: 'once', rule_type: 'unique' });
    await add({ rule_id: 'filled', rule_type: 'not_null' });
    await add({ rule_id: 'five', field: undefined, rule_type: 'row_count', parameters: { min: 5, max: 5 } });
    const { body } = await call<QualityAnswer>('POST', '/quality/check', { asset_id: 'shop_events' });
    expect(body).toMatchObject({ checked: 6, failed: 4, rules: [{ failed: 2 }, { failed: 2 }, { failed: 0 }] });
    expect(body.rules[0]!.samples).toEqual([{ note: 'a' }, { note: 'a' }]);
    const source = await call<SourceAnswer>('GET', '/sources/shop');
    expect(source.body.tables.map((table) => table.status)).toEqual(['streaming', 'streaming', 'streaming']);
    for (const id of ['once', 'filled', 'five'])
      expect((await call('DELETE', `/quality/rules/${id}`)).status).toBe(204);
  });

  it('leave scores, page by page and in metrics', async () => {
    const since = new Date().toISOString();
    const counts = (failed: number) => ({ checked: 10, failed });
    for (const [minute, failed] of [1, 2, 3].entries())
      await storeScores(clickhouse, [
        {
          asset: 'shop_items',
          at: new Date(Date.now() + (minute + 1) * 60_000).toISOString(),
          batch: `b${minute}`,
          rows: counts(failed),
          rules: new Map([['r', counts(failed)]]),
        },
      ]);
    const items: ScoresAnswer['items'] = [];
    let cursor: string | null = '';
    for (let page = 0; cursor !== null && page < 10; page++) {
      const query: string = `asset=clickhouse_shop_items&since=${since}&limit=2${cursor ? `&cursor=${cursor}` : ''}`;
      const { body } = await call<ScoresAnswer>('GET', `/quality/scores?${query}`);
      items.push(...body.items);
      cursor = body.next_cursor;
    }
    expect(items.map(({ batch_id, rule_id, score }) => [batch_id, rule_id, score])).toEqual([
      ['b2', 'r', 0.7],
      ['b2', null, 0.7],
      ['b1', 'r', 0.8],
      ['b1', null, 0.8],
      ['b0', 'r', 0.9],
      ['b0', null, 0.9],
    ]);
    const all = await call<ScoresAnswer>('GET', '/quality/scores?asset=shop_items&limit=1000');
    expect(all.body.items.filter(({ batch_id }) => batch_id.startsWith('check/'))).toHaveLength(24);
    expect((await call('GET', '/quality/scores?cursor=x')).status).toBe(422);
    expect((await call('GET', '/quality/scores?since=soon')).status).toBe(422);
    const metrics = await (await fetch(`${stack.api}/metrics`)).text();
    expect(metrics).toContain('sluice_quality_score{asset="shop_items"} 0.7');
  });
});

describe('rejects', () => {
  it('are listed with their reason, and discarded', async () => {
    const { body } = await call<RejectsAnswer>('GET', '/rejects?asset=shop_items');
    expect(body.items).toMatchObject([
      {
        asset_id: 'shop_items',
        key: { id: '101' },
        check: 'type',
        column: 'day',
        state: 'open',
        row: { email: 'late' },
      },
    ]);
    expect(body.next_cursor).toBeNull();
    const wrong = await call('POST', '/rejects/discard', { asset_id: 'shop_items', keys: [5] });
    expect([wrong.status, wrong.body.kind]).toEqual([404, 'not_found']);
    expect((await call('POST', '/rejects/discard', {})).status).toBe(422);
    const discard = { asset_id: 'clickhouse_shop_items', keys: [101] };
    const done = await call<SettleAnswer>('POST', '/rejects/discard', discard, 'discard-1');
    expect(done).toEqual({
      status: 200,
      body: { asset_id: 'shop_items', released: 0, discarded: 1, still_open: 0, superseded: 0 },
    });
    expect(await call('POST', '/rejects/discard', discard, 'discard-1')).toEqual(done);
    expect((await call('POST', '/rejects/discard', { ...discard, keys: [102] }, 'discard-1')).status).toBe(422);
    expect((await call('POST', '/rejects/release', discard, 'discard-1')).status).toBe(422);
    expect((await call('POST', '/rejects/discard', discard, 'discard-2')).status).toBe(404);
    expect((await call<RejectsAnswer>('GET', '/rejects')).body.items).toEqual([]);
    const discarded = await call<RejectsAnswer>('GET', '/rejects?state=discarded&asset=shop_items');
    expect(discarded.body.items).toMatchObject([{ key: { id: '101' } }]);
  });

  it('are released when nothing holds them back any more, and lose to later changes', async () => {
    const rule = {
      rule_id: 'part',
      rule_type: 'map',
      assets: ['shop_kinds'],
      target_field: 'part',
      expression: '{{ code.split("-")[1] + "!" }}',
      apply_to: 'new',
    };
    const fix = { ...rule, expression: '{{ code ~ "!" }}' };
    const open = async () => (await call<RejectsAnswer>('GET', '/rejects?asset=shop_kinds')).body.items;
    const copy = () =>
      clickhouse.rows(`SELECT code, part FROM ${clickhouse.name('shop_kinds')} FINAL WHERE code > 'b' ORDER BY code`);
    expect((await call('POST', '/transformations', rule)).status).toBe(201);
    await until(
      async () => {
        // New rows come until the table has its rule.
        await sql("INSERT INTO public.kinds VALUES ('x-' || gen_random_uuid())");
        return await clickhouse.rows(`SELECT * FROM ${clickhouse.name('shop_kinds')} FINAL WHERE code LIKE 'x-%'`);
      },
      (rows) => rows.some((row) => (row as { part?: string | null }).part),
      60,
    );
    await sql("DELETE FROM public.kinds WHERE code LIKE 'x-%'; INSERT INTO public.kinds VALUES ('c'), ('d'), ('e')");
    await until(open, (items) => items.length === 3);
    expect(await open()).toMatchObject([{ check: 'part', column: 'part' }, {}, {}]);
    const early = await call<SettleAnswer>('POST', '/rejects/release', { asset_id: 'shop_kinds', keys: ['c'] });
    expect(early.body).toMatchObject({ released: 0, still_open: 1 });
    expect(await copy()).toEqual([]);
    expect((await call('PUT', '/transformations/part', fix)).status).toBe(200);
    await until(
      async () => {
        await sql("DELETE FROM public.kinds WHERE code = 'probe'; INSERT INTO public.kinds VALUES ('probe')");
        return await copy();
      },
      (rows) => rows.length === 1,
      60,
    );
    // What comes later wins: this row goes away before its reject is released.
    await sql("DELETE FROM public.kinds WHERE code IN ('e', 'probe')");
    await until(copy, (rows) => rows.length === 0);
    const held = (await open()).length;
    const all = await call<SettleAnswer>('POST', '/rejects/release', { asset_id: 'shop_kinds', rule: 'part' });
    expect(all.body).toMatchObject({ released: held, still_open: 0 });
    expect(await copy()).toEqual([
      { code: 'c', part: 'c!' },
      { code: 'd', part: 'd!' },
    ]);
    expect(await open()).toEqual([]);
    expect((await call('POST', '/rejects/release', { asset_id: 'shop_kinds' })).status).toBe(404);
    // Figures that took long to sum are answered from the last time, and summed behind that.
    const metrics = await until(
      async () => await (await fetch(`${stack.api}/metrics`)).text(),
      (text) => /sluice_transform_total{rule="part",outcome="passed"} [1-9]/.test(text),
    );
    expect(metrics).toMatch(/sluice_transform_total{rule="part",outcome="failed"} [1-9]/);
  });

  it('of one snapshot, which all bear one version, are discarded and released one by one', async () => {
    await sql(`CREATE TABLE public.days (id int, part text, day date, PRIMARY KEY (id, part));
      INSERT INTO public.days SELECT i, 'p', CASE WHEN i <= 8 THEN date 'infinity' ELSE '2024-01-01' END FROM generate_series(1, 10) i`);
    expect((await call('POST', '/sources/shop/add-tables', ['days'])).status).toBe(202);
    const keys = async (state: string) => {
      const { body } = await call<RejectsAnswer>('GET', `/rejects?asset=shop_days&state=${state}`);
      return body.items.map(({ key }) => Number(key.id)).sort();
    };
    await until(
      () => keys('open'),
      (open) => open.length === 8,
      60,
    );
    const settle = async (action: string, ...ids: number[]) => {
      const body = { asset_id: 'shop_days', keys: ids.map((id) => ({ id, part: 'p' })), rule: 'type' };
      return (await call<SettleAnswer>('POST', `/rejects/${action}`, body)).body;
    };
    expect(await settle('discard', 5)).toMatchObject({ discarded: 1 });
    expect(await settle('release', 6, 7)).toMatchObject({ released: 0, still_open: 2 });
    expect([await keys('open'), await keys('discarded')]).toEqual([[1, 2, 3, 4, 6, 7, 8], [5]]);
    const { body } = await call<RejectsAnswer>('GET', '/rejects?asset=shop_days&limit=2');
    // Only those that were named have been looked at.
    expect(body.items.map(({ key }) => Number(key.id)).sort()).toEqual([6, 7]);
    // What a source shows is what is held back now, not ever.
    const held = async () => {
      const { body } = await call<SourceAnswer>('GET', '/sources/shop');
      return body.tables.find(({ asset_id }) => asset_id === 'shop_days')!.rejected;
    };
    expect(await until(held, (rows) => rows === 7, 15)).toBe(7);
    await sql(`UPDATE public.days SET day = '2024-02-02' WHERE id = 1; DELETE FROM public.days WHERE id = 2`);
    expect(await until(held, (rows) => rows === 5, 15)).toBe(5);
    expect([await keys('open'), await keys('superseded')]).toEqual([
      [3, 4, 6, 7, 8],
      [1, 2],
    ]);
    expect(
      (await call('POST', '/rejects/release', { asset_id: 'shop_days', keys: [{ id: 1, part: 'p' }] })).status,
    ).toBe(404);
    // A copy that is made anew reads all again: what it holds back is new, and nobody has discarded the earlier ones.
    await call('POST', '/sources/shop/resync', ['days']);
    const anew = await until(
      () => keys('open'),
      (open) => open.length === 6,
      60,
    );
    expect(anew).toEqual([3, 4, 5, 6, 7, 8]);
    expect(
      await until(
        () => keys('superseded'),
        (past) => past.length === 7,
        30,
      ),
    ).toEqual([1, 2, 3, 4, 6, 7, 8]);
    expect([await keys('open'), await keys('discarded')]).toEqual([[3, 4, 5, 6, 7, 8], [5]]);
    expect(await until(held, (rows) => rows === 6, 15)).toBe(6);
  });
});
