/** A rule that is tried on a copy whose columns rules in force have filled, left out or filtered: it sees what the source has. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import type { PreviewAnswer } from '../api/control/rule_shapes.ts';
import type { SourceAnswer } from '../api/control/shapes.ts';
import type { Problem } from '../api/problems.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;
let clickhouse: ClickHouse;

const rules = [
  {
    rule_id: 'mask_email',
    rule_type: 'map',
    assets: ['staff_people'],
    source_fields: ['email'],
    target_field: 'email',
    expression: '{{ email.split("@")[0][:3] }}***@{{ email.split("@")[1] }}',
  },
  { rule_id: 'no_trusts', rule_type: 'filter', assets: ['staff_people'], expression: '{{ kind != "trust" }}' },
  {
    rule_id: 'domain',
    rule_type: 'map',
    assets: ['staff_people'],
    source_fields: ['email'],
    target_field: 'domain',
    expression: '{{ email.split("@")[1] }}',
  },
];
const [mask, trusts, domain] = rules as [object, object, object];

beforeAll(async () => {
  stack = await startControlStack();
  clickhouse = new ClickHouse({ url: stack.parts.clickhouse.url, database: 'sluice', role: 'read' });
  await sql(`CREATE TABLE public.people (
      code numeric(8,2), part text, email text, kind text, password_hash text, big text, PRIMARY KEY (code, part));
    INSERT INTO public.people SELECT i, E'p\\t' || i, 'john' || i || '@example.com', 'person', 'h' || i, 'b' FROM generate_series(1, 20) i;
    INSERT INTO public.people VALUES (21, 'first', 'old@example.com', 'trust', 'h21', 'b')`);
  expect((await connect('staff', stack.parts.postgres.url)).status).toBe(201);
  for (const rule of rules) expect((await call('POST', '/transformations', rule)).status).toBe(201);
  await call('POST', '/sources/staff/start');
  await until(
    async () => (await call<SourceAnswer>('GET', '/sources/staff')).body,
    (source) => source.status === 'streaming',
    60,
  );
  await sql(`INSERT INTO public.people VALUES (1.5, 'it''s', 'john.doe@example.com', 'person', 'secret', 'b');
    INSERT INTO public.people VALUES (22, 'second', 'trust@example.com', 'trust', 'h22', 'b');
    INSERT INTO public.people VALUES (23, 'gone', 'gone@example.com', 'person', 'h23', 'b');
    DELETE FROM public.people WHERE code = 23`);
  await until(tombstones, (rows) => rows.length === 2);
}, 180_000);

afterAll(async () => {
  await clickhouse?.close();
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

function sql(text: string): Promise<unknown> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, (client) => client.query(text));
}

function tombstones(): Promise<unknown[]> {
  return clickhouse.rows(`SELECT code FROM ${clickhouse.name('staff_people')} WHERE _deleted = 1 GROUP BY code`);
}

async function call<Body = Problem>(method: string, path: string, body?: unknown, api = stack.api) {
  const answer = await fetch(`${api}/api/v1${path}`, {
    method,
    ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Body };
}

function connect(id: string, connection_string: string) {
  const config = { tables: ['people'], poll_interval: 0.2, exclude_columns: { people: ['password_hash'] } };
  return call('POST', '/sources/connect', { id, type: 'postgresql', connection_string, config });
}

async function shadow(rule: object, last?: number): Promise<PreviewAnswer & Problem> {
  const wanted = { rule, asset_id: 'staff_people', last };
  return (await call<PreviewAnswer & Problem>('POST', '/transformations/preview', wanted)).body;
}

describe('a shadow run', () => {
  it('of a rule that fills a column in place shows what it makes of the source', async () => {
    const same = await shadow(mask);
    expect(same.differences).toMatchObject({ rows_from: 'source', checked: 22, changed: 0, added: 0, rejected: 0 });
    const whole = await shadow({ ...mask, expression: '{{ email[:6] }}###' }, 3);
    // The newest three rows that there are: the trust is not let through, and the deleted one is not in the source.
    expect(whole.differences).toMatchObject({ rows_from: 'source', checked: 2, changed: 1 });
    expect(whole.differences!.samples).toEqual([
      {
        row: { code: '1.50', part: "it's" },
        outcome: 'changed',
        before: { email: 'joh***@example.com' },
        after: { email: 'john.d###' },
      },
    ]);
    expect(whole.rows).toEqual([{ code: '1.50', part: "it's", email: 'john.d###' }]);
    const rejected = await shadow({ ...mask, expression: '{{ "x@" ~ 1 // ((email | length) - 17) }}' });
    // The trust too: its address is as long, and it is masked before it is filtered.
    expect(rejected.differences).toMatchObject({ changed: 12, rejected: 10 });
  });

  it('of a filter shows the rows that another one lets through', async () => {
    const open = await shadow({ ...trusts, expression: '{{ kind != "club" }}' });
    expect(open.differences).toMatchObject({ rows_from: 'source', checked: 22, changed: 0, filtered: 0, added: 1 });
    expect(open.differences!.samples).toMatchObject([
      { row: { code: '22.00', part: 'second' }, outcome: 'added', before: null, after: {} },
    ]);
    const closed = await shadow({ ...trusts, expression: '{{ email != "john.doe@example.com" }}' });
    // It runs behind the mask.
    expect(closed.differences).toMatchObject({ filtered: 0, added: 1 });
  });

  it('of a rule that runs last takes what the copy has', async () => {
    const { differences } = await shadow({ ...domain, expression: '{{ email.split("@")[1] | upper }}' });
    expect(differences).toMatchObject({ rows_from: 'copy', checked: 21, changed: 21 });
    expect(differences!.samples[0]).toMatchObject({
      before: { domain: 'example.com' },
      after: { domain: 'EXAMPLE.COM' },
    });
  });

  it('reads excluded columns, and shows none', async () => {
    const peeking = {
      rule_id: 'peek',
      rule_type: 'map',
      source_fields: ['password_hash'],
      target_field: 'hashed',
      expression: '{{ password_hash | length }}',
    };
    const { differences, rows } = await shadow(peeking, 3);
    expect(differences).toMatchObject({ rows_from: 'source', checked: 2, changed: 1 });
    expect(rows).toEqual([{ code: '1.50', part: "it's", hashed: 6 }]);
    expect(await shadow({ ...peeking, expression: '{{ pasword_hash }}' })).toMatchObject({ status: 422 });
  });

  it('is refused where the source cannot be read', async () => {
    const { url, child } = await stack.startApi({ SLUICE_SECRET_KEY: 'another key' });
    const body = { rule: mask, asset_id: 'staff_people' };
    const refused = await call('POST', '/transformations/preview', body, url);
    expect([refused.status, refused.body.kind, refused.body.errors]).toEqual([422, 'configuration', undefined]);
    expect(refused.body.detail).toContain('staff');
    expect(refused.body.remedy).toContain('SLUICE_SECRET_KEY');
    const last = await call<PreviewAnswer>('POST', '/transformations/preview', { ...body, rule: domain }, url);
    expect(last.body.differences).toMatchObject({ rows_from: 'copy' });
    child.kill();
  });

  it('is refused while the table is another one than the copy is made from', async () => {
    await call('POST', '/sources/staff/pause');
    await sql('ALTER TABLE public.people RENAME TO persons');
    expect(await shadow(mask)).toMatchObject({ status: 409, kind: 'table_changed' });
  });
});
