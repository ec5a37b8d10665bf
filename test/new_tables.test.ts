/** Tables that come, go and are renamed under the globs of a source that streams, on real parts, as people see it. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import type { SourceAnswer } from '../api/control/shapes.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;

beforeAll(async () => {
  stack = await startControlStack();
  await sql(`CREATE TABLE shop_a (id int PRIMARY KEY, v text); INSERT INTO shop_a VALUES (1, 'a');
    CREATE TABLE other (id int PRIMARY KEY, v text)`);
}, 120_000);

afterAll(async () => {
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

/** Statements in a session that finds tables of public without their schema. */
async function sql(text: string): Promise<Record<string, unknown>[]> {
  const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
  return withConnection(options, async (client) => {
    await client.query('SET search_path = public');
    return (await client.query(text)).rows;
  });
}

async function call<Body>(method: string, path: string, body?: unknown): Promise<Body> {
  const sent =
    body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
  const answer = await fetch(`${stack.api}${path}`, { method, ...sent });
  const text = await answer.text();
  expect(answer.ok, text).toBe(true);
  return (text === '' ? undefined : JSON.parse(text)) as Body;
}

async function start(id: string, tables: string[] | undefined, options: object = {}): Promise<void> {
  const config = { ...(tables && { tables }), poll_interval: 0.2, options };
  const connection_string = stack.parts.postgres.url;
  await call('POST', '/api/v1/sources/connect', { id, type: 'postgresql', connection_string, config });
  await call('POST', `/api/v1/sources/${id}/start`);
}

const source = (id: string) => call<SourceAnswer>('GET', `/api/v1/sources/${id}`);
const states = ({ tables }: SourceAnswer) => Object.fromEntries(tables.map(({ table, status }) => [table, status]));
const untilStreams = (id: string, ...tables: string[]) =>
  until(
    () => source(id),
    (one) => JSON.stringify(Object.keys(states(one)).sort()) === JSON.stringify(tables.sort()) && isSettled(one),
    60,
  );
const isSettled = (one: SourceAnswer) =>
  one.status === 'streaming' && one.tables.every((t) => t.status === 'streaming');

async function lastLease(id: string): Promise<unknown> {
  const text = `SELECT toString(max(lease)) FROM _batches WHERE source = '${id}'`;
  return (await call<{ rows: unknown[][] }>('POST', '/api/v1/query', { sql: text })).rows[0]![0];
}

/** The copy's rows, when they are the ones that are wanted. */
async function untilCopied(asset: string, rows: unknown[][]): Promise<void> {
  const body = JSON.stringify({ sql: `SELECT id, v FROM \`${asset}_current\` ORDER BY id` });
  const read = async () => {
    // Its copy may not be there yet.
    const headers = { 'content-type': 'application/json' };
    const answer = await fetch(`${stack.api}/api/v1/query`, { method: 'POST', headers, body });
    return ((await answer.json()) as { rows?: unknown[][] }).rows;
  };
  await until(read, (found) => JSON.stringify(found) === JSON.stringify(rows), 60);
}

describe('a source with globs', () => {
  it('takes in what is created, renamed into them, or made again, while its tables stream', async () => {
    await start('shop', ['shop_*']);
    await untilStreams('shop', 'shop_a');
    await sql(`CREATE TABLE shop_b (id int PRIMARY KEY, v text); INSERT INTO shop_b VALUES (1, 'before')`);
    await sql('ALTER TABLE other RENAME TO shop_other');
    await sql("INSERT INTO shop_other VALUES (1, 'x')");
    await untilStreams('shop', 'shop_a', 'shop_b', 'shop_other');
    await sql(
      "INSERT INTO shop_b VALUES (2, 'after'); UPDATE shop_other SET v = 'y'; INSERT INTO shop_a VALUES (2, 'b')",
    );
    await untilCopied('shop_shop_b', [
      [1, 'before'],
      [2, 'after'],
    ]);
    await untilCopied('shop_shop_other', [[1, 'y']]);
    await untilCopied('shop_shop_a', [
      [1, 'a'],
      [2, 'b'],
    ]);
    const published = await sql("SELECT tablename FROM pg_publication_tables WHERE pubname = 'sluice_shop' ORDER BY 1");
    expect(published.map((row) => row.tablename)).toEqual(['shop_a', 'shop_b', 'shop_other']);

    // Another table under the name, and one that moves to another name that the globs mean.
    await sql(
      "DROP TABLE shop_b; CREATE TABLE shop_b (id int PRIMARY KEY, v text); INSERT INTO shop_b VALUES (7, 'new')",
    );
    await untilCopied('shop_shop_b', [[7, 'new']]);
    await sql('ALTER TABLE shop_other RENAME TO shop_moved');
    await sql("INSERT INTO shop_moved VALUES (2, 'moved')");
    await untilCopied('shop_shop_moved', [
      [1, 'y'],
      [2, 'moved'],
    ]);
    const moved = (await source('shop')).tables.find((table) => table.table === 'shop_other')!;
    expect(moved).toMatchObject({ status: 'failed', error: { kind: 'table_missing' } });
    expect(moved.error!.reason).toContain('it is called shop_moved now');
  });

  it('tells once of tables that it cannot take in, until they can be; the others go on', async () => {
    await sql('CREATE TABLE shop_keyless (id int, v text)');
    // Its copy would bear the name of a view that is there.
    await sql('CREATE TABLE shop_a_current (id int PRIMARY KEY, v text)');
    const told = await until(
      () => source('shop'),
      (one) => one.left_out.length === 2,
    );
    expect(told.left_out).toMatchObject([
      { table: 'shop_a_current', reason: expect.stringContaining('a name that shop_a takes') },
      { table: 'shop_keyless', remedy: expect.stringContaining('ADD PRIMARY KEY') },
    ]);
    expect(told.alarms.filter(({ kind }) => kind === 'table_unusable')).toEqual([]);
    // The lease that told has ended; the next one begins.
    await new Promise((resolve) => setTimeout(resolve, 2_000));
    const lease = await lastLease('shop');
    await new Promise((resolve) => setTimeout(resolve, 6_000));
    expect(await lastLease('shop'), 'no lease ends for what was told').toBe(lease);
    await sql("INSERT INTO shop_keyless VALUES (1, 'k'); UPDATE shop_keyless SET v = 'l'");
    await sql("INSERT INTO shop_a VALUES (3, 'c')");
    await untilCopied('shop_shop_a', [
      [1, 'a'],
      [2, 'b'],
      [3, 'c'],
    ]);
    await sql('ALTER TABLE shop_keyless ADD PRIMARY KEY (id)');
    const taken = await until(
      () => source('shop'),
      (one) => states(one).shop_keyless === 'streaming',
      100,
    );
    expect(taken.left_out).toMatchObject([{ table: 'shop_a_current' }]);
    await sql('DROP TABLE shop_a_current');
    await untilCopied('shop_shop_keyless', [[1, 'l']]);
  });

  it('does not bring back what people took out, and waits for nobody who holds a new table', async () => {
    await call('POST', '/api/v1/sources/shop/remove-tables', ['shop_b', 'shop_other']);
    const options = { connectionString: stack.parts.postgres.url, applicationName: 'holder' };
    await withConnection(options, async (holder) => {
      await sql('CREATE TABLE shop_held (id int PRIMARY KEY, v text)');
      await holder.query('BEGIN; LOCK TABLE public.shop_held IN SHARE UPDATE EXCLUSIVE MODE');
      await new Promise((resolve) => setTimeout(resolve, 4_000));
      await sql("INSERT INTO shop_a VALUES (4, 'd')");
      await untilCopied('shop_shop_a', [
        [1, 'a'],
        [2, 'b'],
        [3, 'c'],
        [4, 'd'],
      ]);
      const seen = await source('shop');
      expect(Object.keys(states(seen)).sort()).toEqual(['shop_a', 'shop_keyless', 'shop_moved']);
      await holder.query('COMMIT');
    });
    await untilStreams('shop', 'shop_a', 'shop_held', 'shop_keyless', 'shop_moved');
  });

  it('takes in partitioned tables whole, and a table that becomes a partition stops in favour of the whole', async () => {
    await sql('CREATE TABLE shop_p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id)');
    await sql(
      "CREATE TABLE shop_p1 PARTITION OF shop_p FOR VALUES FROM (0) TO (10); INSERT INTO shop_p VALUES (1, 'a')",
    );
    await untilCopied('shop_shop_p', [[1, 'a']]);
    await sql("CREATE TABLE shop_p2 (id int PRIMARY KEY, v text); INSERT INTO shop_p2 VALUES (11, 'b')");
    await untilCopied('shop_shop_p2', [[11, 'b']]);
    await sql('ALTER TABLE shop_p ATTACH PARTITION shop_p2 FOR VALUES FROM (10) TO (20)');
    await sql("INSERT INTO shop_p VALUES (12, 'c')");
    await untilCopied('shop_shop_p', [
      [1, 'a'],
      [11, 'b'],
      [12, 'c'],
    ]);
    const part = (await source('shop')).tables.find((table) => table.table === 'shop_p2');
    expect(part?.error).toMatchObject({
      kind: 'table_unusable',
      reason: expect.stringContaining('partition of shop_p'),
    });
    expect((await source('shop')).tables.map(({ table }) => table)).not.toContain('shop_p1');
    await sql('DROP TABLE shop_p');
  });

  it('asks first under the policy approve, and the whole of public is such a glob', async () => {
    await call('DELETE', '/api/v1/sources/shop');
    await start('asking', undefined, { schema_changes: 'approve' });
    await sql('CREATE TABLE later (id int PRIMARY KEY, v text)');
    const told = await until(
      () => source('asking'),
      (one) => one.left_out.length === 1,
    );
    expect(told.left_out[0]).toMatchObject({
      table: 'later',
      remedy: 'To copy it: sluice sources add-tables asking later',
    });
    await call('POST', '/api/v1/sources/asking/add-tables', ['later']);
    const added = await until(
      () => source('asking'),
      (one) => states(one).later === 'streaming',
    );
    expect(added.left_out).toEqual([]);
    await call('DELETE', '/api/v1/sources/asking');

    await start('whole', undefined);
    await sql('CREATE TABLE latest (id int PRIMARY KEY, v text)');
    await until(
      () => source('whole'),
      (one) => states(one).latest === 'streaming',
      60,
    );
  });
});
