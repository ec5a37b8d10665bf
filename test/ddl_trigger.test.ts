/** The event trigger of a source: what it makes sooner, whom it must never disturb, and that it goes with the source. */
import { afterEach, describe, expect, it } from 'vitest';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import { capture, client, expectEqual, parts, sql } from './capture_fixture.ts';
import { type CaptureHarness, openClient } from './capture_harness.ts';

/** Nobody looks at the catalog by himself while a test runs. */
const never = 3_600_000;
let number = 0;

afterEach(() => sql('RESET ROLE', 'RESET session_replication_role'));

/** A source with one table, whose trigger is made. */
async function told(
  create = 'id int PRIMARY KEY, v text, old text',
): Promise<{ harness: CaptureHarness; table: string }> {
  const table = `told_${++number}`;
  await sql(`CREATE TABLE ${table} (${create})`);
  const harness = capture([table], { lookEvery: never, sourceOptions: { ddl_trigger: true } });
  await harness.begin();
  await expectEqual(harness, table);
  return { harness, table };
}

async function columnsOf(harness: CaptureHarness, table: string): Promise<string[]> {
  const clickhouse = harness.context.clickhouse('read');
  const rows = await clickhouse.rows<{ name: string }>(
    "SELECT name FROM system.columns WHERE database = {database:String} AND table = {asset:String} AND NOT startsWith(name, '_') ORDER BY name",
    { params: { database: clickhouse.database, asset: `${harness.options.source}_${table}` } },
  );
  return rows.map((row) => row.name);
}

async function triggersOf({ options }: CaptureHarness): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    'SELECT evtname AS name FROM pg_event_trigger WHERE starts_with(evtname, $1) ORDER BY 1',
    [`sluice_${options.source}_`],
  );
  return rows.map((row) => row.name);
}

const withinSeconds = { timeout: 5_000, interval: 100 };

describe('what sends no rows is seen at once', () => {
  it('columns that are added, dropped and renamed', async () => {
    const { harness, table } = await told();
    await sql(`ALTER TABLE ${table} DROP COLUMN old, ADD COLUMN more int DEFAULT 7`);
    await expect.poll(() => columnsOf(harness, table), withinSeconds).toEqual(['id', 'more', 'v']);
    await sql(`ALTER TABLE ${table} RENAME COLUMN v TO w`);
    await expect.poll(() => columnsOf(harness, table), withinSeconds).toEqual(['id', 'more', 'w']);
    await sql(`INSERT INTO ${table} VALUES (1, 'x')`);
    await expectEqual(harness, table);
  });

  it('a table that is dropped', async () => {
    const { harness, table } = await told();
    const asked = Date.now();
    await sql(`DROP TABLE ${table}`);
    const { failed } = await harness.leaseEnd();
    expect(Object.values(failed)).toMatchObject([{ kind: 'table_missing' }]);
    expect(Date.now() - asked).toBeLessThan(5_000);
  });

  it('a partition that is detached, or dropped', async () => {
    for (const statement of [
      'ALTER TABLE whole DETACH PARTITION part',
      'DROP TABLE part',
      'ALTER TABLE whole_mid DETACH PARTITION whole_leaf',
      'DROP TABLE whole_mid',
    ]) {
      const whole = `whole_${++number}`;
      await sql(
        `CREATE TABLE ${whole} (id int PRIMARY KEY) PARTITION BY RANGE (id)`,
        `CREATE TABLE ${whole}_part PARTITION OF ${whole} FOR VALUES FROM (0) TO (9)`,
        `CREATE TABLE ${whole}_mid PARTITION OF ${whole} FOR VALUES FROM (10) TO (29) PARTITION BY RANGE (id)`,
        `CREATE TABLE ${whole}_leaf PARTITION OF ${whole}_mid FOR VALUES FROM (10) TO (19)`,
      );
      const harness = capture([whole], { lookEvery: never, sourceOptions: { ddl_trigger: true } });
      await harness.begin();
      await expectEqual(harness, whole);
      await sql(statement.replaceAll('whole', whole).replace(/\bpart\b/, `${whole}_part`));
      const { failed } = await harness.leaseEnd();
      expect(Object.values(failed), statement).toMatchObject([{ kind: 'table_changed' }]);
    }
  });

  it('but a copy that was begun only just is not made anew for the next partition that goes', async () => {
    const { harness, table } = await told('id int PRIMARY KEY) PARTITION BY RANGE (id');
    for (const from of [0, 10, 20])
      await sql(`CREATE TABLE ${table}_${from} PARTITION OF ${table} FOR VALUES FROM (${from}) TO (${from + 10})`);
    await sql(`INSERT INTO ${table} VALUES (1), (11), (21)`);
    await expectEqual(harness, table);
    await sql(`DROP TABLE ${table}_0`);
    await harness.leaseEnd();
    await harness.resync(table);
    await sql(`DROP TABLE ${table}_10`);
    await new Promise((resolve) => setTimeout(resolve, 4_000));
    // It still runs: somebody stops it, and the next look, which is not asked for, sees the change.
    expect(await harness.stop()).toMatchObject({ ended: 'cancelled' });
    harness.startLease();
    expect(Object.values((await harness.leaseEnd()).failed)).toMatchObject([{ kind: 'table_changed' }]);
  });

  it('also where triggers are off for the session, and by a role that may nothing else', async () => {
    const { harness, table } = await told();
    await sql(
      'CREATE ROLE plain_owner',
      `GRANT CREATE, USAGE ON SCHEMA public TO plain_owner`,
      `ALTER TABLE ${table} OWNER TO plain_owner`,
      'SET session_replication_role = replica',
      'SET ROLE plain_owner',
      `ALTER TABLE ${table} ADD COLUMN more int`,
    );
    await expect.poll(() => columnsOf(harness, table), withinSeconds).toEqual(['id', 'more', 'old', 'v']);
  });

  it('and nothing is told of what is rolled back, or temporary', async () => {
    const { harness, table } = await told();
    const slot = `sluice_${harness.options.source}`;
    await harness.stop();
    const from = await client.query('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    await sql(
      'BEGIN',
      `ALTER TABLE ${table} ADD COLUMN more int`,
      'ROLLBACK',
      'CREATE TEMPORARY TABLE fleeting (id int)',
      'ALTER TABLE fleeting ADD COLUMN n int',
      'DROP TABLE fleeting',
      `COMMENT ON TABLE ${table} IS 'nothing'`,
    );
    const messages = await client.query(
      `SELECT encode(data, 'escape') AS text FROM pg_logical_slot_peek_binary_changes($1::name, NULL, NULL, 'proto_version', '1', 'publication_names', $1::text, 'messages', 'true')
       WHERE get_byte(data, 0) = ascii('M') AND lsn > $2::pg_lsn`,
      [slot, from.rows[0].lsn],
    );
    expect(messages.rows).toEqual([]);
  });
});

describe('the trigger', () => {
  it('takes no id of a subtransaction: many of them would slow the server down', async () => {
    const { harness, table } = await told();
    await harness.stop();
    const id = async () => BigInt((await client.query('SELECT pg_current_xact_id()::text AS id')).rows[0].id);
    await sql('BEGIN');
    const first = await id();
    for (let i = 0; i < 20; i++) await sql(`ALTER TABLE ${table} ADD COLUMN more_${i} int`);
    await sql('COMMIT');
    // Some may have been taken by the server's own work.
    expect(Number((await id()) - first)).toBeLessThan(15);
  });

  it('does not mind what others put into the log, however large', async () => {
    const { harness, table } = await told();
    await sql(
      "SELECT pg_logical_emit_message(false, 'somebody else''s', repeat('x', 30000000))",
      `SELECT pg_logical_emit_message(true, 'sluice_${harness.options.source}', repeat('x', 30000000))`,
      `SELECT pg_logical_emit_message(true, 'sluice_${harness.options.source}', 'nonsense * -1')`,
      `INSERT INTO ${table} VALUES (1, 'x')`,
    );
    await expectEqual(harness, table);
  });

  it('is made again where somebody has dropped half of it', async () => {
    const { harness } = await told();
    const name = `sluice_${harness.options.source}`;
    await harness.stop();
    await sql(`DROP EVENT TRIGGER ${name}_sql_drop`);
    await harness.prepare();
    expect(await triggersOf(harness)).toHaveLength(2);
    // In a schema that somebody else has made, nothing is.
    await sql(`DROP SCHEMA ${name} CASCADE`, `CREATE SCHEMA ${name}`);
    await harness.prepare();
    expect(await triggersOf(harness)).toEqual([]);
    await sql(`DROP SCHEMA ${name}`);
  });

  it('never fails a statement', async () => {
    const { harness, table } = await told();
    const schema = `sluice_${harness.options.source}`;
    await sql(
      `CREATE OR REPLACE FUNCTION public.broken(boolean) RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RAISE EXCEPTION ''broken''; END'`,
      `DO $$ DECLARE body text := (SELECT prosrc FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = '${schema}'); BEGIN
         EXECUTE format('CREATE OR REPLACE FUNCTION ${schema}.tell_of_ddl() RETURNS event_trigger LANGUAGE plpgsql AS %L',
           replace(body, 'pg_catalog.bool_and(', 'public.broken(')); END $$`,
      `ALTER TABLE ${table} ADD COLUMN more int`,
      `DROP TABLE ${table}`,
    );
    const { rows } = await client.query('SELECT to_regclass($1) AS gone', [table]);
    expect(rows).toEqual([{ gone: null }]);
  });

  it('goes with the source, and where it is not wanted any more', async () => {
    const { harness, table } = await told();
    expect(await triggersOf(harness)).toHaveLength(2);
    const source = new PostgresSource();
    const connected = { request: structuredClone(harness.request), connectionString: parts.postgres.url };
    await harness.stop();
    connected.request.config.options.ddl_trigger = false;
    const { position_to: position } = (await harness.records()).at(-1)!;
    const tables = await source.readTables(connected, harness.tables);
    await source.prepare(connected, tables, position, true);
    expect(await triggersOf(harness)).toEqual([]);
    connected.request.config.options.ddl_trigger = true;
    await source.prepare(connected, tables, position, true);
    expect(await triggersOf(harness)).toHaveLength(2);
    await source.remove(connected);
    expect(await triggersOf(harness)).toEqual([]);
    const left = await client.query('SELECT FROM pg_namespace WHERE nspname = $1', [
      `sluice_${harness.options.source}`,
    ]);
    expect(left.rowCount).toBe(0);
    await sql(`ALTER TABLE ${table} ADD COLUMN more int`);
  });

  it('is not made by a role that may not, which captures all the same', async () => {
    const table = `told_${++number}`;
    await sql(
      "CREATE ROLE plain_reader LOGIN REPLICATION PASSWORD 'plain'",
      `GRANT CREATE ON DATABASE ${new URL(parts.postgres.url).pathname.slice(1)} TO plain_reader`,
      `CREATE TABLE ${table} (id int PRIMARY KEY)`,
      `ALTER TABLE ${table} OWNER TO plain_reader`,
    );
    const url = new URL(parts.postgres.url);
    [url.username, url.password] = ['plain_reader', 'plain'];
    const harness = capture([table], { postgres: url.href, sourceOptions: { ddl_trigger: true } });
    await harness.begin();
    expect(await triggersOf(harness)).toEqual([]);
    const plain = await openClient(url.href);
    await plain.query(`ALTER TABLE ${table} ADD COLUMN more int`);
    await plain.query(`INSERT INTO ${table} VALUES (1, 2)`);
    await plain.end();
    await expect.poll(() => columnsOf(harness, table), { timeout: 20_000 }).toEqual(['id', 'more']);
    await expectEqual(harness, table);
  });
});
