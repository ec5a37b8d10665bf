import { describe, expect, it } from 'vitest';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import { verifyTable } from '../activities/check/verify.ts';
import { auditSource } from '../activities/lineage/audit.ts';
import { lastRecord, loadSchemas } from '../activities/load/batches.ts';
import { storeRules } from '../activities/transform/rule_store.ts';
import type { CheckInput } from '../model/checks.ts';
import { behindPageHeader, parseLsn } from '../model/position.ts';
import type { RuleInput } from '../model/rules.ts';
import { type Random, seededRandom } from '../workers/demo/random.ts';
import { capture, client, parts, sql } from './capture_fixture.ts';
import { type CaptureHarness, openClient } from './capture_harness.ts';

let number = 0;

/** A source of these tables, nothing captured yet. */
async function sourceOf(tables: string[], options: Partial<CaptureHarness['options']> = {}): Promise<CaptureHarness> {
  // Rules are in force for all of a database.
  const own = { source: `rules${++number}`, database: `rules${number}` };
  const harness = capture(tables, { ...own, ...options });
  await harness.context.sink('write').createOwnTables();
  return harness;
}

const versions = new WeakMap<CaptureHarness, number>();

/** Makes these the rules and checks that are in force, as the catalog does. */
async function declare(harness: CaptureHarness, rules: RuleInput[], checks: Omit<CheckInput, 'asset'>[] = []) {
  const version = (versions.get(harness) ?? 0) + 1;
  versions.set(harness, version);
  const asset = harness.tables[0]!.asset_id;
  const set = {
    version,
    // A rule's own version rises when it is another one.
    rules: rules.map((rule) => ({ ...rule, version: 1 })),
    checks: checks.map((check) => ({ ...check, asset, version: 1 })),
  };
  await storeRules(harness.context.clickhouse('write'), set, { by: 'test', change: 'declared' });
}

async function copyRows(harness: CaptureHarness, columns: string, where = '1', table = 0): Promise<string[]> {
  const clickhouse = harness.context.clickhouse('read');
  const name = clickhouse.name(harness.tables[table]!.asset_id);
  const rows = await clickhouse.table(
    `SELECT ${columns} FROM ${name} FINAL WHERE ${where} SETTINGS output_format_decimal_trailing_zeros = 1`,
  );
  return rows.rows.map((row) => JSON.stringify(row.map((value) => (value === null ? null : String(value))))).sort();
}

async function sourceRows(query: string): Promise<string[]> {
  const { rows } = await client.query({ text: query, rowMode: 'array' });
  return (rows as unknown[][])
    .map((row) => JSON.stringify(row.map((value) => (value === null ? null : String(value)))))
    .sort();
}

async function rejects(harness: CaptureHarness) {
  const clickhouse = harness.context.clickhouse('read');
  return await clickhouse.rows<Record<string, string>>(
    `SELECT asset, key, \`check\`, column, reason, row, state FROM ${clickhouse.name('_rejects')} FINAL ORDER BY key, version`,
  );
}

async function verify(harness: CaptureHarness, table = 0) {
  const { context, request, tables } = harness;
  const schemas = await loadSchemas(context.clickhouse('read'), request.id);
  return await verifyTable({
    connectionString: parts.postgres.url,
    clickhouse: context.clickhouse('verify'),
    table: schemas.get(tables[table]!.asset_id)!,
    appliedPosition: async () => {
      const record = await lastRecord(context.clickhouse('read'), request.id);
      return record ? behindPageHeader(parseLsn(record.position_to)) : 0n;
    },
  });
}

async function expectAudited(harness: CaptureHarness): Promise<void> {
  const source = new PostgresSource();
  const passed = (position: string, target: string) => source.passed(position, target);
  const { faults } = await auditSource(harness.context.clickhouse('read'), harness.request.id, passed);
  expect(faults).toEqual([]);
}

const map = (target: string, expression: string, more: Partial<RuleInput> = {}): RuleInput => ({
  rule_id: `map_${target}`,
  rule_type: 'map',
  assets: ['rules*'],
  target_field: target,
  expression,
  ...more,
});

/** The table of the workload, with the same rules in both languages. */
const columns = `id int, email text, name text, amount numeric(12,2), note text, tags text[] NOT NULL, raw bytea, big text, at timestamptz, ok bool`;
const rules: RuleInput[] = [
  map('masked', '{{ email.split("@")[0][:3] }}***@{{ email.split("@")[1] }}'),
  map('note', '{{ note.upper() }}'),
  map('total', '{{ amount * 2 }}'),
  map('size', '{{ big | length }}'),
  map('first', '{{ tags[0] }}', { on_error: 'null' }),
  map('hex', '{{ raw }}'),
  map('year', '{{ at.year }}'),
  map('again', '{{ masked }} {{ ok }}', { source_fields: ['masked', 'ok'] }),
  { rule_id: 'positive', rule_type: 'filter', assets: ['rules*'], expression: '{{ amount > 0 }}' },
];
const inCopy = `id, email, name, amount, note, arrayStringConcat(tags, ','), lower(hex(MD5(big))), ok,
  masked, total, size, first, hex, year, again`;
const inSource = `SELECT id, email, name, amount, upper(note), CASE WHEN tags = '{}' THEN '' ELSE array_to_string(tags, ',') END,
  md5(big), ok, left(split_part(email, '@', 1), 3) || '***@' || split_part(email, '@', 2), amount * 2, length(big),
  tags[1], raw::text, extract(year FROM at at time zone 'UTC')::int,
  coalesce(left(split_part(email, '@', 1), 3) || '***@' || split_part(email, '@', 2), 'None') || ' ' ||
    CASE WHEN ok THEN 'True' WHEN NOT ok THEN 'False' ELSE 'None' END
  FROM people WHERE amount > 0`;

function someRow(random: Random): (string | null)[] {
  const maybe = (value: string) => (random.between(0, 5) === 0 ? null : value);
  const word = () => random.pick(['ann', 'bé\t', 'c\\d', "o'x", '', 'ünï\n', 'zz top', 'x'.repeat(70)]);
  return [
    maybe(`${random.pick(['jo', 'maria', 'äöü', 'a.b'])}@${random.pick(['x.org', 'y\\z.com'])}`),
    maybe(word()),
    maybe((random.between(-500, 5000) / 100).toFixed(2)),
    maybe(word()),
    `{${Array.from({ length: random.between(0, 3) }, () => random.pick(['a', 'bc', 'd']))}}`,
    maybe(`\\x${random.pick(['', '00', 'ff0a5c09', '27'])}`),
    maybe(random.pick(['z', 'é', '\\']).repeat(random.pick([1, 10, 3000, 20_000]))),
    maybe(`20${random.between(10, 40)}-0${random.between(1, 9)}-11 12:34:56.${random.between(0, 999)}+00`),
    maybe(random.pick(['t', 'f'])),
  ];
}

const names = ['email', 'name', 'amount', 'note', 'tags', 'raw', 'big', 'at', 'ok'];

async function someChange(random: Random): Promise<void> {
  const id = random.between(1, 60);
  const row = someRow(random);
  const kind = random.between(0, 9);
  if (kind < 3) {
    const places = names.map((_, i) => `$${i + 2}`);
    const set = names.map((name) => `${name} = EXCLUDED.${name}`).join(', ');
    await client.query(
      `INSERT INTO people (id, ${names}) VALUES ($1, ${places}) ON CONFLICT (id) DO UPDATE SET ${set}`,
      [id, ...row],
    );
  } else if (kind < 7) {
    // Some columns only: large values of the others are not sent.
    const some = names.map((name, i) => [name, row[i]] as const).filter(() => random.between(0, 3) === 0);
    if (some.length === 0) return;
    const set = some.map(([name], i) => `${name} = $${i + 2}`).join(', ');
    await client.query(`UPDATE people SET ${set} WHERE id = $1`, [id, ...some.map(([, value]) => value)]);
  } else if (kind < 8) await client.query('DELETE FROM people WHERE id = $1', [id]);
  else if (kind < 9) {
    await client.query(`UPDATE people SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM people WHERE id = $2)`, [
      id,
      random.between(1, 60),
    ]);
  } else await client.query(`UPDATE people SET amount = -amount WHERE id % 7 = $1`, [id % 7]);
}

describe('rules', () => {
  const seeds = [process.env.RULES_SEED ?? '1', String(Math.floor(Math.random() * 1e9))];
  it.each(seeds)(
    'make of rows what SQL makes of them: RULES_SEED=%s',
    async (seed) => {
      const random = seededRandom(seed);
      await sql(
        'DROP TABLE IF EXISTS people',
        `CREATE TABLE people (${columns}, PRIMARY KEY (id)); ALTER TABLE people ALTER big SET STORAGE EXTERNAL`,
      );
      for (let i = 0; i < 150; i++) await someChange(random);
      const harness = await sourceOf(['people']);
      await declare(harness, rules);
      await harness.prepare();
      harness.startLease();
      for (let i = 0; i < 50; i++) await someChange(random);
      await harness.snapshot('people');
      for (let round = 0; round < 6; round++) {
        if (random.between(0, 2) === 0) {
          await harness.stop();
          harness.startLease();
        }
        await client.query('BEGIN');
        for (let i = 0; i < 40; i++) await someChange(random);
        await client.query(random.between(0, 4) === 0 ? 'ROLLBACK' : 'COMMIT');
        for (let i = 0; i < 40; i++) await someChange(random);
        await harness.drain(client);
        expect(await copyRows(harness, inCopy)).toEqual(await sourceRows(inSource));
      }
      expect(await rejects(harness)).toEqual([]);
      expect(await verify(harness)).toMatchObject({ identical: true, missing: 0, extra: 0, different: 0 });
      await expectAudited(harness);
    },
    120_000,
  );
});

/** A table with these rows, under these rules and checks, that streams. */
async function streaming(
  definition: string,
  rows: string,
  declared: RuleInput[],
  checks: Omit<CheckInput, 'asset'>[] = [],
  options: Partial<CaptureHarness['options']> = {},
): Promise<{ harness: CaptureHarness; table: string }> {
  const table = `t${number + 1}`;
  await sql(`CREATE TABLE ${table} (${definition})`, `INSERT INTO ${table} ${rows}`);
  const harness = await sourceOf([table, ...(options.tables ?? [])], {
    ...options,
    tables: [table, ...(options.tables ?? [])],
  });
  await declare(harness, declared, checks);
  await harness.begin();
  await harness.drain(client);
  return { harness, table };
}

const check = (
  rule_type: CheckInput['rule_type'],
  field: string,
  parameters: CheckInput['parameters'],
  severity: CheckInput['severity'] = 'reject',
) => ({
  rule_id: `${field}_${rule_type}`,
  field,
  rule_type,
  parameters,
  severity,
});

describe('checks', () => {
  it('hold rows back with their reasons, and let later ones of the same key through', async () => {
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, amount numeric(10,2), tags int[] NOT NULL, raw bytea, at timestamptz',
      `VALUES (1, 5, '{1,2}', '\\x00', '2024-01-01'), (2, -5, '{}', '\\x0a', '2024-01-02'), (3, 7, '{3}', NULL, NULL)`,
      [map('twice', '{{ amount * 2 }}')],
      [
        check('range', 'amount', { min: 0 }),
        check('not_null', 'at', {}, 'warn'),
        check('range', 'twice', { max: 100 }),
      ],
    );
    expect(await copyRows(harness, 'id, amount, twice')).toEqual(['["1","5.00","10.00"]', '["3","7.00","14.00"]']);
    expect(await rejects(harness)).toMatchObject([
      {
        key: '{"id":"2"}',
        check: 'amount_range',
        column: 'amount',
        row: JSON.stringify({ id: '2', amount: '-5.00', tags: '{}', raw: '\\x0a', at: '2024-01-02 00:00:00+00' }),
        state: 'open',
      },
    ]);
    await sql(
      `UPDATE ${table} SET amount = 60 WHERE id = 3`,
      `UPDATE ${table} SET amount = 8 WHERE id = 2`,
      `INSERT INTO ${table} VALUES (4, -1, '{4}', NULL, now()), (5, 1, '{5}', NULL, now())`,
      `DELETE FROM ${table} WHERE id = 5`,
    );
    await harness.drain(client);
    // What is held back leaves the row as it was, until a change of it passes.
    expect(await copyRows(harness, 'id, amount, twice')).toEqual([
      '["1","5.00","10.00"]',
      '["2","8.00","16.00"]',
      '["3","7.00","14.00"]',
    ]);
    expect((await rejects(harness)).map(({ key, check, reason }) => [key, check, reason])).toEqual([
      ['{"id":"2"}', 'amount_range', expect.any(String)],
      ['{"id":"3"}', 'twice_range', expect.any(String)],
      ['{"id":"4"}', 'amount_range', expect.any(String)],
    ]);
    expect(await verify(harness)).toMatchObject({ missing: 0, different: 0, extra: 0, rejected: 2 });
    const counts: Record<string, number[]> = {};
    for (const { applied } of await harness.records())
      for (const [id, { in: all, out, errors }] of Object.entries(applied?.[harness.tables[0]!.asset_id] ?? {}))
        counts[id] = [all, out, errors].map((count, i) => (counts[id]?.[i] ?? 0) + count);
    // The row that was deleted counts, too: it came.
    const failing = [4, 3, 1];
    expect(counts).toEqual({ map_twice: [4, 4, 0], amount_range: failing, at_not_null: failing, twice_range: failing });
    await expectAudited(harness);
  }, 60_000);

  it('stop their table alone, with a reason; a key that changes leaves its tombstone', async () => {
    await sql('CREATE TABLE beside (id int PRIMARY KEY, amount int)');
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, amount int',
      'VALUES (1, 1), (2, 2)',
      [],
      [check('range', 'amount', { max: 10 }, 'stop'), check('range', 'id', { max: 50 })],
      { tables: ['beside'] },
    );
    await sql(`UPDATE ${table} SET id = 99 WHERE id = 2`);
    await harness.drain(client);
    expect(await copyRows(harness, 'id, amount')).toEqual(['["1","1"]']);
    // In one transaction: the lease may end before it has read another one.
    await sql(`UPDATE ${table} SET amount = 11 WHERE id = 1; INSERT INTO beside VALUES (1, 1000)`);
    const { failed } = await harness.leaseEnd();
    expect(failed).toEqual({
      [harness.tables[0]!.asset_id]: {
        kind: 'rule_failed',
        reason: expect.stringContaining('amount_range'),
        remedy: expect.stringContaining(`sluice sources resync ${harness.request.id} ${table}`),
      },
    });
    expect(await copyRows(harness, 'id, amount', '1', 1)).toEqual(['["1","1000"]']);
    expect(await copyRows(harness, 'id, amount')).toEqual(['["1","1"]']);
  }, 60_000);
});

describe('other rules', () => {
  it('have the copy made anew, with the rows that are there; the others stream', async () => {
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, v int',
      'SELECT i, i FROM generate_series(1, 100) i',
      [map('w', '{{ v + 1 }}')],
    );
    await declare(harness, [
      map('w', '{{ v + 2 }}'),
      { rule_id: 'odd', rule_type: 'filter', expression: '{{ v % 2 == 1 }}' },
    ]);
    const { failed } = await harness.leaseEnd();
    expect(failed).toEqual({
      [harness.tables[0]!.asset_id]: {
        kind: 'rules_changed',
        reason: expect.stringContaining('map_w, odd'),
        remedy: expect.any(String),
      },
    });
    await sql(`UPDATE ${table} SET v = v + 1 WHERE id <= 10`);
    await harness.resync(table);
    await harness.drain(client);
    expect(await copyRows(harness, 'id, v, w')).toEqual(
      await sourceRows(`SELECT id, v, v + 2 FROM ${table} WHERE v % 2 = 1`),
    );
    expect(await verify(harness)).toMatchObject({ identical: true });
    await expectAudited(harness);
  }, 60_000);

  it('that are for new rows alone take over in the stream', async () => {
    const { harness, table } = await streaming('id int PRIMARY KEY, v int', 'VALUES (1, 1), (2, 2)', [
      map('w', '{{ v + 1 }}'),
    ]);
    const version = harness.tables[0]!.generation;
    await declare(
      harness,
      [map('w', '{{ v + 1 }}'), map('x', '{{ v * 10 }}', { apply_to: 'new' })],
      [check('range', 'v', { max: 5 }, 'warn')],
    );
    const until = Date.now() + 30_000;
    for (let id = 3; ; id++) {
      await sql(`INSERT INTO ${table} VALUES (${id}, ${id})`);
      await harness.drain(client);
      const rows = await copyRows(harness, '*', 'id > 2').catch(() => []);
      const clickhouse = harness.context.clickhouse('read');
      const name = harness.tables[0]!.asset_id;
      const there = await clickhouse.rows(
        `SELECT 1 FROM system.columns WHERE database = '${clickhouse.database}' AND table = '${name}' AND name = 'x'`,
      );
      if (there.length > 0) break;
      if (Date.now() > until) throw new Error(`no column x: ${rows.length} rows`);
      await new Promise((resolve) => setTimeout(resolve, 300));
    }
    await sql(`UPDATE ${table} SET v = 7 WHERE id = 2`, `INSERT INTO ${table} VALUES (1000, 4)`);
    await harness.drain(client);
    expect(await copyRows(harness, 'id, v, w, x', 'id IN (1, 2, 1000)')).toEqual([
      '["1","1","2",null]',
      '["1000","4","5","40"]',
      '["2","7","8","70"]',
    ]);
    expect(harness.tables[0]!.generation).toBe(version);
    // A lease that goes on knows them.
    await harness.stop();
    harness.startLease();
    await sql(`INSERT INTO ${table} VALUES (1001, 5)`);
    await harness.drain(client);
    expect(await copyRows(harness, 'x', 'id = 1001')).toEqual(['["50"]']);
    await expectAudited(harness);
  }, 90_000);

  it('that are for new rows alone take over in a stream that never stands still', async () => {
    const first = map('w', '{{ v + 1 }}');
    const { harness, table } = await streaming('id int PRIMARY KEY, v int', 'VALUES (1, 1)', [first]);
    let busy = true;
    let id = 10;
    const writer = await openClient(parts.postgres.url);
    const writing = (async () => {
      while (busy) await writer.query(`INSERT INTO ${table} VALUES (${id++}, 4)`);
    })();
    const newest = async () => (await copyRows(harness, 'x', `id = ${id - 200}`).catch(() => []))[0];
    await declare(harness, [first, map('x', '{{ v * 10 }}', { apply_to: 'new' })]);
    await expect.poll(newest, { timeout: 30_000 }).toBe('["40"]');
    busy = false;
    await writing;
    await writer.end();
    expect(await harness.stop()).toMatchObject({ ended: 'cancelled', failed: {} });
  }, 90_000);

  it('that come to mask a column take it from its first row on', async () => {
    const { harness, table } = await streaming('id int PRIMARY KEY', 'VALUES (1)', [
      map('email', '{{ email[:1] }}***', { source_fields: ['email'] }),
    ]);
    await sql(`ALTER TABLE ${table} ADD COLUMN email text`, `INSERT INTO ${table} VALUES (2, 'secret@x.org')`);
    const { failed } = await harness.leaseEnd();
    expect(Object.values(failed)).toMatchObject([{ kind: 'rules_changed' }]);
    await harness.resync(table);
    await harness.drain(client);
    expect(await copyRows(harness, 'id, email')).toEqual(['["1",null]', '["2","s***"]']);
    const clickhouse = harness.context.clickhouse('read');
    const seen = await clickhouse.rows(
      `SELECT * FROM ${clickhouse.name(harness.tables[0]!.asset_id)} WHERE toString(tuple(*)) LIKE '%secret%'`,
    );
    expect(seen).toEqual([]);
  }, 60_000);

  it('that lose a column, or come to fill another one, stop or remake their table', async () => {
    const { harness, table } = await streaming('id int PRIMARY KEY, v int, w int', 'VALUES (1, 1, 1)', [
      map('x', '{{ v + 1 }}', { assets: [`rules${number + 1}_t${number + 1}`] }),
    ]);
    await sql(`ALTER TABLE ${table} DROP COLUMN v`, `INSERT INTO ${table} VALUES (2, 2)`);
    const { failed } = await harness.leaseEnd();
    expect(Object.values(failed)).toEqual([
      { kind: 'rule_failed', reason: expect.stringContaining('map_x'), remedy: expect.stringContaining('resync') },
    ]);
  }, 60_000);
});

describe('excluded columns', () => {
  it('can be read by rules, and are stored nowhere', async () => {
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, name text, secret text, other text',
      `VALUES (1, 'a', 's3cret', 'o'), (2, 'b', NULL, 'o')`,
      [map('has_secret', '{{ secret is not none }}', { assets: [`rules${number + 1}_t${number + 1}`] })],
      [check('length', 'secret', { max: 10 })],
      { excludeColumns: { [`t${number + 1}`]: ['secret', 'other'] } },
    );
    await sql(
      `INSERT INTO ${table} VALUES (3, 'c', 'tellno1', 'o'), (4, 'd', 'muchtoolong', 'o')`,
      `UPDATE ${table} SET secret = 'later' WHERE id = 2`,
      `DELETE FROM ${table} WHERE id = 1`,
    );
    await harness.drain(client);
    const clickhouse = harness.context.clickhouse('read');
    const asset = harness.tables[0]!.asset_id;
    const columns = await clickhouse.rows<{ name: string }>(
      `SELECT name FROM system.columns WHERE database = '${clickhouse.database}' AND table = '${asset}' ORDER BY position`,
    );
    expect(columns.map(({ name }) => name)).toEqual([
      'id',
      'name',
      'has_secret',
      '_version',
      '_deleted',
      '_committed_at',
    ]);
    expect(await copyRows(harness, 'id, name, has_secret')).toEqual(['["2","b","true"]', '["3","c","true"]']);
    expect(await rejects(harness)).toMatchObject([{ key: '{"id":"4"}', row: '{"id":"4","name":"d"}' }]);
    expect(await verify(harness)).toMatchObject({ missing: 0, different: 0, rejected: 1 });
    // The catalog is looked at again and again, and shows nothing new.
    await harness.stop();
    harness.startLease();
    await sql(
      `ALTER TABLE ${table} ADD COLUMN more int DEFAULT 7`,
      `INSERT INTO ${table} VALUES (5, 'e', NULL, 'o', 8)`,
    );
    await harness.drain(client);
    await expect
      .poll(() => copyRows(harness, 'id, has_secret, more').catch(() => []), { timeout: 20_000 })
      .toEqual(['["2","true","7"]', '["3","true","7"]', '["5","false","8"]']);
    await declare(harness, []);
    const { failed } = await harness.leaseEnd();
    expect(Object.values(failed)).toMatchObject([{ kind: 'rules_changed' }]);
    await harness.resync(table);
    await harness.drain(client);
    expect(await copyRows(harness, 'id, name, more')).toHaveLength(4);
  }, 90_000);
});

describe('a copy under rules', () => {
  it('is compared with what it is meant to have, and repaired', async () => {
    const { harness, table } = await streaming(
      'id text PRIMARY KEY, v int, note text',
      `SELECT 'k' || i, i, 'n' || i FROM generate_series(1, 500) i`,
      [
        map('note', '{{ note.upper() }}'),
        { rule_id: 'odd', rule_type: 'filter', assets: ['rules*'], expression: '{{ v % 2 == 1 }}' },
      ],
    );
    expect(await verify(harness)).toMatchObject({ identical: true, source_rows: 250, copy_rows: 250 });
    const clickhouse = harness.context.clickhouse('write');
    const name = clickhouse.name(harness.tables[0]!.asset_id);
    await clickhouse.command(
      `INSERT INTO ${name} SELECT * REPLACE ('k2' AS id) FROM (SELECT * FROM ${name} FINAL WHERE id = 'k1')`,
    );
    await clickhouse.command(
      `INSERT INTO ${name} SELECT * REPLACE (v + 2 AS v) FROM (SELECT * FROM ${name} FINAL WHERE id = 'k3')`,
    );
    expect(await verify(harness)).toMatchObject({ identical: false, extra: 1, different: 1, missing: 0 });
    await sql(`UPDATE ${table} SET v = v + 1`);
    await harness.drain(client);
    expect(await verify(harness)).toMatchObject({ identical: true });
  }, 60_000);
});

describe('a join', () => {
  it('takes fields of another copy, for rows of a snapshot and of the stream, and a filter may use them', async () => {
    const dimension = `countries_${number + 1}`;
    await sql(
      `CREATE TABLE ${dimension} (code text PRIMARY KEY, name text, vat numeric(5,2), since timestamptz, n bigint)`,
      `INSERT INTO ${dimension} VALUES ('DE', 'Germ''any\\', 19.5, '1990-10-03', 1), ('FR', 'Fränce', 20, NULL, 2), ('X', NULL, 0, NULL, 3)`,
    );
    const source = `rules${number + 1}`;
    const rules: RuleInput[] = [
      map('country', '{{ place[:2] }}', { rule_id: 'two_letters' }),
      {
        rule_id: 'country',
        rule_type: 'join',
        assets: ['rules*_t*'],
        target_field: 'c',
        parameters: { asset: `${source}_${dimension}`, on: { country: 'code' }, fields: ['name', 'vat', 'since', 'n'] },
        on_error: 'null',
      },
      map('gross', '{{ net * (100 + c_vat) / 100 }}', { assets: ['rules*_t*'], target_type: 'Decimal(12, 4)' }),
      { rule_id: 'taxed', rule_type: 'filter', assets: ['rules*_t*'], expression: '{{ c_vat is none or c_vat > 0 }}' },
    ].map((rule) => ({ ...rule, assets: ['rules*_t*'] }) as RuleInput);
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, place text, net numeric(10,2)',
      `VALUES (1, 'DE-BY', 10), (2, 'FR-75', 20), (3, 'IT-RM', 30), (4, NULL, 40), (5, 'X', 1)`,
      rules,
      [],
      { tables: [dimension] },
    );
    const expected = `SELECT t.id, c.name, c.vat, c.since at time zone 'UTC' IS NULL, c.n, round(t.net * (100 + c.vat) / 100, 4)
      FROM ${table} t LEFT JOIN ${dimension} c ON left(t.place, 2) = c.code WHERE c.vat IS NULL OR c.vat > 0`;
    const columns = `id, c_name, c_vat, if(c_since IS NULL, 'true', 'false'), c_n, gross`;
    const same = async () => {
      await harness.drain(client);
      expect(await copyRows(harness, columns)).toEqual(await sourceRows(expected));
    };
    // The snapshot of the one table may come before that of the other: then its rows have found nothing yet.
    await sql(`UPDATE ${table} SET net = net + 1`);
    await same();
    await sql(
      `INSERT INTO ${table} SELECT i, (ARRAY['DE', 'FR', 'X', 'IT'])[i % 4 + 1] || i, i FROM generate_series(10, 1500) i`,
      `UPDATE ${table} SET place = 'FR' WHERE id = 5`,
    );
    await same();
    expect(await verify(harness)).toMatchObject({ identical: true });
    await expectAudited(harness);
  }, 90_000);

  it('takes from a copy without a key what its table has, not what it had', async () => {
    const dimension = `rates_${number + 1}`;
    await sql(
      `CREATE TABLE ${dimension} (code text, rate int); ALTER TABLE ${dimension} REPLICA IDENTITY FULL`,
      `INSERT INTO ${dimension} VALUES ('a', 1), ('b', 1), ('c', 1), ('c', 1)`,
    );
    const parameters = { asset: `rules${number + 1}_${dimension}`, on: { code: 'code' }, fields: ['rate'] };
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, code text',
      `VALUES (0, NULL)`,
      [{ rule_id: 'rate', rule_type: 'join', assets: ['rules*_t*'], parameters, on_error: 'null' }],
      [],
      { tables: [dimension] },
    );
    await harness.complete(client, dimension);
    await sql(
      `UPDATE ${dimension} SET rate = 2 WHERE code = 'a'`,
      `DELETE FROM ${dimension} WHERE code = 'b'`,
      `DELETE FROM ${dimension} WHERE ctid = (SELECT min(ctid) FROM ${dimension} WHERE code = 'c')`,
      `INSERT INTO ${dimension} VALUES ('d', 4)`,
    );
    await harness.drain(client);
    await sql(`INSERT INTO ${table} VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')`);
    await harness.drain(client);
    expect(await copyRows(harness, 'id, rate')).toEqual([
      '["0",null]',
      '["1","2"]',
      '["2",null]',
      '["3","1"]',
      '["4","4"]',
    ]);
    // Several rows of one key: whichever it is, it is the same one each time.
    await sql(`INSERT INTO ${dimension} VALUES ('a', 7), ('a', 5)`, `UPDATE ${dimension} SET rate = 9 WHERE rate = 2`);
    await harness.drain(client);
    await sql(`UPDATE ${table} SET id = 11 WHERE id = 1`);
    await harness.drain(client);
    expect(await copyRows(harness, 'id, rate', 'id = 11')).toEqual(['["11","5"]']);
  }, 90_000);

  it('holds rows back until what they belong to has come', async () => {
    const dimension = `owners_${number + 1}`;
    await sql(`CREATE TABLE ${dimension} (id int PRIMARY KEY, name text)`);
    const parameters = { asset: `rules${number + 1}_${dimension}`, on: { owner: 'id' }, fields: ['name'] };
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, owner int',
      'VALUES (1, 7), (2, NULL)',
      [{ rule_id: 'owner', rule_type: 'join', assets: ['rules*_t*'], target_field: 'owner_name', parameters }],
      [],
      { tables: [dimension] },
    );
    expect(await copyRows(harness, 'id, owner_name')).toEqual(['["2",null]']);
    await sql(`INSERT INTO ${table} VALUES (3, 8), (4, 7)`, `DELETE FROM ${table} WHERE id = 4`);
    await harness.drain(client);
    expect((await rejects(harness)).map(({ key, check, state }) => [key, check, state])).toEqual([
      ['{"id":"1"}', 'owner', 'open'],
      ['{"id":"3"}', 'owner', 'open'],
      ['{"id":"4"}', 'owner', 'open'],
    ]);
    await sql(`INSERT INTO ${dimension} VALUES (7, 'seven')`);
    const came = () => copyRows(harness, 'id, owner_name');
    await expect.poll(came, { timeout: 20_000 }).toEqual(['["1","seven"]', '["2",null]']);
    await sql(`INSERT INTO ${dimension} VALUES (8, 'eight')`);
    await expect.poll(came, { timeout: 20_000 }).toEqual(['["1","seven"]', '["2",null]', '["3","eight"]']);
    expect(await verify(harness)).toMatchObject({ identical: true, source_rows: 3 });
  }, 90_000);

  it('brings rows that waited into a table that has got columns meanwhile', async () => {
    const dimension = `makers_${number + 1}`;
    await sql(`CREATE TABLE ${dimension} (id int PRIMARY KEY, name text)`);
    const parameters = { asset: `rules${number + 1}_${dimension}`, on: { maker: 'id' }, fields: ['name'] };
    const { harness, table } = await streaming(
      'id int PRIMARY KEY, maker int, big text, at timestamptz',
      `VALUES (0, NULL, repeat('x', 10000), now()); ALTER TABLE t${number + 1} ALTER big SET STORAGE EXTERNAL`,
      [{ rule_id: 'maker', rule_type: 'join', assets: ['rules*_t*'], target_field: 'maker_name', parameters }],
      [],
      { tables: [dimension] },
    );
    await sql(
      `INSERT INTO ${table} VALUES (1, 7, repeat('y', 10000), '2024-01-01')`,
      `UPDATE ${table} SET big = repeat('z', 10000) WHERE id = 0`,
      `UPDATE ${table} SET at = 'infinity' WHERE id = 0`,
    );
    await harness.drain(client);
    const clickhouse = harness.context.clickhouse('read');
    const held = () =>
      clickhouse.rows(
        `SELECT \`check\`, state, unsent FROM ${clickhouse.name('_rejects')} FINAL WHERE state = 'open' ORDER BY \`check\``,
      );
    expect(await held()).toEqual([
      { check: 'maker', state: 'open', unsent: '[]' },
      { check: 'type', state: 'open', unsent: '["big"]' },
    ]);
    await sql(
      `ALTER TABLE ${table} ADD COLUMN note text, ADD COLUMN level int DEFAULT 3`,
      `INSERT INTO ${table} VALUES (2, NULL, 'b', NULL, 'n', 4)`,
    );
    await harness.drain(client);
    await sql(`INSERT INTO ${dimension} VALUES (7, 'seven')`);
    await expect
      .poll(() => copyRows(harness, 'id, maker_name, note, level', 'id = 1'), { timeout: 20_000 })
      .toEqual(['["1","seven",null,"3"]']);
    await expect.poll(held).toEqual([{ check: 'type', state: 'open', unsent: '["big"]' }]);
  }, 90_000);
});
