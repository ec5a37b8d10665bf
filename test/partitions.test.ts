import { beforeAll, describe, expect, it } from 'vitest';
import { readTableByName } from '../activities/capture/postgresql/catalog.ts';
import { preflight } from '../activities/capture/postgresql/preflight.ts';
import { verifyTable } from '../activities/check/verify.ts';
import { lastRecord, loadSchemas } from '../activities/load/batches.ts';
import { parseLsn } from '../model/position.ts';
import type { CaptureConfig } from '../model/source.ts';
import { capture as captureOf, client, expectEqual as expectSame, parts, sql } from './capture_fixture.ts';
import type { CaptureHarness } from './capture_harness.ts';
import { checkRecords } from './oracle/compare.ts';

const capture = (...tables: string[]) => captureOf(tables);

async function expectEqual(harness: CaptureHarness, ...tables: string[]): Promise<void> {
  await expectSame(harness, ...tables);
  expect(await checkRecords(harness.context.clickhouse('read'), harness.options.source)).toEqual([]);
}

const assetOf = (harness: CaptureHarness, table: string) => `${harness.options.source}_${table}`;

/** The lease ends because of this table; then it is copied anew, as the flow does. Answers why. */
async function copiedAnew(harness: CaptureHarness, table: string): Promise<string> {
  const { ended, failed } = await harness.leaseEnd();
  expect(ended).toBe('table_failed');
  expect(Object.keys(failed)).toEqual([assetOf(harness, table)]);
  await harness.resync(table);
  return failed[assetOf(harness, table)]!.reason;
}

/** How many leases began: one more with each copy that is made anew. */
async function leases(harness: CaptureHarness): Promise<number> {
  return (await harness.records()).filter((record) => record.kind === 'begin').length;
}

/**
 * A table of orders by region and number: ranges, a list below one of them, a partition whose columns stand in another
 * order behind dropped ones, an empty one, and one for the rest.
 */
async function makeOrders(table: string, key = 'id, region'): Promise<void> {
  await sql(
    `CREATE TABLE ${table} (gone int, id int, region text, v text, n int DEFAULT 0, big text, PRIMARY KEY (${key})) PARTITION BY RANGE (id)`,
    `ALTER TABLE ${table} DROP COLUMN gone`,
    `CREATE TABLE ${table}_low PARTITION OF ${table} FOR VALUES FROM (0) TO (100)`,
    `CREATE TABLE ${table}_mid PARTITION OF ${table} FOR VALUES FROM (100) TO (200) PARTITION BY LIST (region)`,
    `CREATE TABLE ${table}_mid_north PARTITION OF ${table}_mid FOR VALUES IN ('north', 'east')`,
    `CREATE TABLE ${table}_mid_rest PARTITION OF ${table}_mid DEFAULT`,
    `CREATE TABLE ${table}_high (big text, old int, region text NOT NULL, n int DEFAULT 0, older int, id int NOT NULL, v text)`,
    `ALTER TABLE ${table}_high DROP COLUMN old`,
    `ALTER TABLE ${table}_high DROP COLUMN older`,
    `ALTER TABLE ${table} ATTACH PARTITION ${table}_high FOR VALUES FROM (200) TO (300)`,
    `CREATE TABLE ${table}_empty PARTITION OF ${table} FOR VALUES FROM (300) TO (400)`,
    `CREATE TABLE ${table}_rest PARTITION OF ${table} DEFAULT`,
    ...['low', 'mid_north', 'mid_rest', 'high', 'empty', 'rest'].map(
      (leaf) => `ALTER TABLE ${table}_${leaf} ALTER COLUMN big SET STORAGE EXTERNAL`,
    ),
    `INSERT INTO ${table} SELECT g, (ARRAY['north', 'south', 'east', 'west'])[1 + g % 4], 'row ' || g, g, repeat(g::text, 2000)
     FROM generate_series(1, 290, 3) g UNION ALL SELECT 1000 + g, 'far', NULL, NULL, NULL FROM generate_series(1, 5) g`,
  );
}

const changes = (t: string) => [
  // Moves: into another range, into and out of the other shape, below one table, into the empty one, there and back.
  `UPDATE ${t} SET id = id + 101, n = n + 1 WHERE id IN (1, 4, 7)`,
  `UPDATE ${t} SET id = 201 WHERE id = 102 AND region = 'south'`,
  `UPDATE ${t} SET region = 'nowhere' WHERE id BETWEEN 110 AND 120`,
  `UPDATE ${t} SET id = 350 WHERE id = 202`,
  `UPDATE ${t} SET id = 251 WHERE id = 10`,
  `UPDATE ${t} SET n = n + 1 WHERE id = 251`,
  `UPDATE ${t} SET id = 10 WHERE id = 251`,
  // Large values that are not sent again, in each shape.
  `UPDATE ${t} SET n = n + 10 WHERE id % 2 = 0`,
  `UPDATE ${t} SET region = 'up' WHERE id = 211`,
  `DELETE FROM ${t} WHERE id % 5 = 0`,
  `INSERT INTO ${t} VALUES (50, 'x', 'new', 1, 'b'), (150, 'x', E'n\\t''ew', 2, NULL), (250, 'x', NULL, 3, 'b'), (399, 'x', 'new', 4, 'b'), (9999, 'x', 'new', 5, 'b')`,
];

describe('a partitioned table', () => {
  it('is copied in chunks over all partitions, and follows rows wherever they move', async () => {
    await makeOrders('orders');
    const harness = capture('orders');
    await harness.prepare();
    const chunks = await harness.plan('orders', [
      ['40', 'east'],
      ['112', 'west'],
      ['205', 'x'],
      ['1002', 'far'],
    ]);
    // Beside the snapshot, too.
    await harness.copyChunk('orders', 1);
    await sql(`UPDATE orders SET id = id + 1 WHERE id = 100`, `DELETE FROM orders WHERE id = 103`);
    harness.startLease();
    for (let chunk = 0; chunk < chunks; chunk++) await harness.copyChunk('orders', chunk);
    const { rows } = await harness.finish('orders');
    expect(rows).toBeGreaterThan(90);
    await expectEqual(harness);
    await sql('BEGIN', ...changes('orders'), 'COMMIT');
    await expectEqual(harness);
    await sql(...changes('orders').slice(0, -1));
    await expectEqual(harness);
    expect(await leases(harness)).toBe(2);
    // Partitions of another shape than the table's are written by themselves, and accounted for with the others.
    await sql(`INSERT INTO orders VALUES (51, 'y'), (251, 'y'), (151, 'y'), (252, 'y'), (9998, 'y')`);
    await harness.drain(client);
    const last = (await harness.records()).findLast(({ kind }) => kind === 'rows');
    const account = { inserts: 5, effects: 5, written: 5 };
    expect(last).toMatchObject({ changes: 5, assets: { [assetOf(harness, 'orders')]: account } });
  });

  it('is compared as a whole, in its partitions alone, and not with what inherits', async () => {
    await makeOrders('compared');
    const harness = capture('compared');
    await harness.begin();
    await expectEqual(harness);
    const clickhouse = harness.context.clickhouse('read');
    const [schema] = [...(await loadSchemas(clickhouse, harness.options.source)).values()];
    const appliedPosition = async () => parseLsn((await lastRecord(clickhouse, harness.options.source))!.position_to);
    const look = () =>
      verifyTable({ connectionString: parts.postgres.url, clickhouse, table: schema!, appliedPosition });
    expect(await look()).toMatchObject({ identical: true, source_rows: 102 });
    await clickhouse.command(
      `INSERT INTO ${clickhouse.name(schema!.asset_id)} SELECT * REPLACE (1 AS _deleted, _version + 1 AS _version) FROM ${clickhouse.name(schema!.asset_id)} WHERE id BETWEEN 200 AND 210`,
    );
    expect(await look()).toMatchObject({ identical: false, missing: 3 });
  });
});

describe('partitions that come', () => {
  it('join when they are made as such, without another snapshot', async () => {
    await makeOrders('joined');
    const harness = capture('joined');
    await harness.begin();
    await harness.drain(client);
    await sql(
      `CREATE TABLE joined_400 PARTITION OF joined FOR VALUES FROM (400) TO (500)`,
      `INSERT INTO joined SELECT g, 'x', 'new', g FROM generate_series(380, 420) g`,
      'BEGIN',
      `INSERT INTO joined VALUES (5, 'y', 'before')`,
      `CREATE TABLE joined_500 PARTITION OF joined FOR VALUES FROM (500) TO (600) PARTITION BY LIST (region)`,
      `CREATE TABLE joined_500_x PARTITION OF joined_500 FOR VALUES IN ('x')`,
      `INSERT INTO joined VALUES (501, 'x', 'same transaction'), (6, 'y', 'behind')`,
      `UPDATE joined SET id = 502 WHERE id = 6`,
      `UPDATE joined SET region = 'x' WHERE id = 420`,
      'COMMIT',
      `ALTER TABLE joined_500_x REPLICA IDENTITY FULL`,
      `UPDATE joined SET v = 'changed' WHERE id = 501`,
      `DELETE FROM joined WHERE id = 410`,
    ).catch((error) => {
      // The row (502, y) has no partition below joined_500: the whole transaction fails, and is no part of the test.
      expect(String(error)).toContain('no partition of relation');
    });
    await sql('ROLLBACK');
    await sql(
      'BEGIN',
      `CREATE TABLE joined_600 PARTITION OF joined FOR VALUES FROM (600) TO (700) PARTITION BY LIST (region)`,
      `CREATE TABLE joined_600_x PARTITION OF joined_600 FOR VALUES IN ('x')`,
      `CREATE TABLE joined_600_rest PARTITION OF joined_600 DEFAULT`,
      `INSERT INTO joined VALUES (601, 'x', 'same transaction'), (6, 'y', 'behind')`,
      `UPDATE joined SET id = 602 WHERE id = 6`,
      'COMMIT',
      `ALTER TABLE joined_600_x REPLICA IDENTITY FULL`,
      `UPDATE joined SET v = 'changed' WHERE id = 601`,
      `UPDATE joined SET id = 603 WHERE id = 601`,
      `DELETE FROM joined WHERE id = 410`,
    );
    await expectEqual(harness);
    expect(await leases(harness)).toBe(2);
    // The next lease knows them.
    await harness.stop();
    await sql(`UPDATE joined SET n = 7 WHERE id > 390`);
    harness.startLease();
    await expectEqual(harness);
    const [schema] = [...(await loadSchemas(harness.context.clickhouse('read'), harness.options.source)).values()];
    expect(schema!.partitions).toHaveLength(9);
  });

  it('leave nothing when they went before anybody saw them', async () => {
    await makeOrders('passing');
    const harness = capture('passing');
    await harness.prepare();
    await sql(
      `CREATE TABLE passing_400 PARTITION OF passing FOR VALUES FROM (400) TO (500)`,
      `INSERT INTO passing SELECT g, 'x', 'new', g FROM generate_series(390, 410) g`,
      `UPDATE passing SET id = 450 WHERE id = 1 AND region = 'south'`,
    );
    // Its rows are there when the snapshot is taken, and gone when the stream comes.
    await harness.snapshot('passing');
    await sql(
      `UPDATE passing SET id = 2 WHERE id = 450`,
      `CREATE TABLE passing_none (LIKE passing)`,
      `DROP TABLE passing_400`,
    );
    harness.startLease();
    await expectEqual(harness);
    expect(await leases(harness)).toBe(2);
  });

  it('bring their rows when they are attached', async () => {
    await makeOrders('attached');
    const harness = capture('attached');
    await harness.begin();
    await harness.drain(client);
    await sql(
      `CREATE TABLE attached_400 (LIKE attached)`,
      `INSERT INTO attached_400 SELECT g, 'x', 'from before', g FROM generate_series(400, 450) g`,
      `ALTER TABLE attached ATTACH PARTITION attached_400 FOR VALUES FROM (400) TO (500)`,
      `UPDATE attached SET n = 0 WHERE id = 401`,
    );
    expect(await copiedAnew(harness, 'attached')).toContain('attached_400 was attached');
    await expectEqual(harness);
    // Made, filled and attached at once: nothing tells it from one that was made as a partition, but its columns' age.
    await sql(
      'BEGIN',
      `CREATE TABLE attached_500 (LIKE attached)`,
      `INSERT INTO attached_500 VALUES (501, 'x', 'from before')`,
      `ALTER TABLE attached ATTACH PARTITION attached_500 FOR VALUES FROM (500) TO (600)`,
      `INSERT INTO attached VALUES (502, 'x')`,
      'COMMIT',
    );
    expect(await copiedAnew(harness, 'attached')).toContain('attached_500 was attached');
    await expectEqual(harness);
    // Nothing is sent at all: the catalog shows it.
    await sql(
      `CREATE TABLE attached_600 (LIKE attached) PARTITION BY LIST (region)`,
      `CREATE TABLE attached_600_x PARTITION OF attached_600 FOR VALUES IN ('x')`,
      `INSERT INTO attached_600 VALUES (601, 'x', 'from before')`,
      `ALTER TABLE attached_600 ADD CHECK (id IS NOT NULL), ADD CHECK (id >= 600 AND id < 700)`,
      `ALTER TABLE attached ATTACH PARTITION attached_600 FOR VALUES FROM (600) TO (700)`,
    );
    expect(await copiedAnew(harness, 'attached')).toContain('attached_600_x was attached');
    await expectEqual(harness);
  });
});

describe('partitions that go', () => {
  it('take their rows with them', async () => {
    await makeOrders('leaving');
    const harness = capture('leaving');
    await harness.begin();
    await harness.drain(client);
    await sql(
      `ALTER TABLE leaving DETACH PARTITION leaving_high`,
      `INSERT INTO leaving_high (id, region) VALUES (299, 'x')`,
    );
    expect(await copiedAnew(harness, 'leaving')).toContain('a partition was detached or dropped');
    await expectEqual(harness);
    await sql(`DROP TABLE leaving_mid`);
    expect(await copiedAnew(harness, 'leaving')).toContain('2 partitions were detached or dropped');
    await expectEqual(harness);
    // Away and back between two looks: what happened meanwhile was not sent.
    await sql(
      `ALTER TABLE leaving DETACH PARTITION leaving_low CONCURRENTLY`,
      `DELETE FROM leaving_low WHERE id < 50`,
      `ALTER TABLE leaving ATTACH PARTITION leaving_low FOR VALUES FROM (0) TO (100)`,
    ).catch(async () => {
      // Beside a default partition only the other way is open.
      await sql(
        `ALTER TABLE leaving DETACH PARTITION leaving_low`,
        `DELETE FROM leaving_low WHERE id < 50`,
        `ALTER TABLE leaving ATTACH PARTITION leaving_low FOR VALUES FROM (0) TO (100)`,
      );
    });
    expect(await copiedAnew(harness, 'leaving')).toContain('leaving_low was detached, and attached again');
    await expectEqual(harness);
  });

  it('leave the copy empty when all are truncated, and are copied anew when some are', async () => {
    await makeOrders('emptied');
    await sql(`CREATE TABLE neighbour (id int PRIMARY KEY)`, `INSERT INTO neighbour VALUES (1)`);
    const harness = capture('emptied', 'neighbour');
    await harness.begin();
    await harness.drain(client);
    await sql(
      'BEGIN',
      `INSERT INTO emptied VALUES (20, 'x')`,
      'TRUNCATE emptied, neighbour',
      `INSERT INTO emptied VALUES (21, 'x'), (121, 'x'), (221, 'x')`,
      'COMMIT',
    );
    await expectEqual(harness);
    expect((await harness.bothSides(client, 'emptied')).copy).toHaveLength(3);
    expect(await leases(harness)).toBe(2);
    await sql(`INSERT INTO neighbour VALUES (1)`, 'BEGIN', `INSERT INTO emptied VALUES (22, 'x')`);
    await sql('TRUNCATE neighbour, emptied_high', `INSERT INTO emptied VALUES (222, 'x')`, 'COMMIT');
    expect(await copiedAnew(harness, 'emptied')).toContain('its partition emptied_high was truncated');
    await expectEqual(harness);
    expect((await harness.bothSides(client, 'emptied')).copy).toHaveLength(4);
    expect((await harness.bothSides(client, 'neighbour')).copy).toHaveLength(0);
  });
});

describe('a partitioned table that is altered', () => {
  it('is followed once, not once a partition', async () => {
    // Its key's index has another order than its columns, and than those of the one partition.
    await makeOrders('altered', 'region, id');
    const harness = capture('altered');
    await harness.begin();
    await harness.drain(client);
    await sql(
      'BEGIN',
      `UPDATE altered SET n = 1 WHERE id % 2 = 0`,
      `ALTER TABLE altered ADD COLUMN more int NOT NULL DEFAULT 7, DROP COLUMN v`,
      `ALTER TABLE altered RENAME COLUMN n TO m`,
      `UPDATE altered SET m = 2 WHERE id % 3 = 0`,
      'COMMIT',
      `CREATE TABLE altered_400 PARTITION OF altered FOR VALUES FROM (400) TO (500)`,
      `INSERT INTO altered (id, region) VALUES (401, 'x'), (41, 'x'), (241, 'x')`,
      `UPDATE altered SET id = id + 100 WHERE id % 7 = 0 AND id < 200`,
    );
    await harness.drain(client);
    await expectEqual(harness);
    const told = (await harness.records()).flatMap((record) => record.altered?.[assetOf(harness, 'altered')] ?? []);
    expect(told.sort()).toEqual(['column more was added', 'column n is called m', 'column v was dropped']);
    expect(await leases(harness)).toBe(2);
    // The first that announces it is the partition whose columns stand elsewhere.
    await sql(`ALTER TABLE altered ADD COLUMN last int`, `UPDATE altered SET last = 1 WHERE id BETWEEN 200 AND 299`);
    await expectEqual(harness);
    expect(await leases(harness)).toBe(2);
    // Nobody read meanwhile: rows of before come in the shape of before.
    await harness.stop();
    await sql(
      `UPDATE altered SET m = 3 WHERE id % 2 = 1`,
      `ALTER TABLE altered ADD COLUMN t text DEFAULT 'old'`,
      `UPDATE altered SET m = 4, t = NULL WHERE id % 4 = 1`,
    );
    harness.startLease();
    await expectEqual(harness);
    expect(await leases(harness)).toBe(3);
  });

  it('is copied anew when its partitions were rewritten', async () => {
    await makeOrders('rewritten');
    const harness = capture('rewritten');
    await harness.begin();
    await harness.drain(client);
    await sql(`ALTER TABLE rewritten ALTER COLUMN n TYPE int USING n + 1`);
    expect(await copiedAnew(harness, 'rewritten')).toContain('rewritten');
    await expectEqual(harness);
  });
});

describe('preflight', () => {
  const look = (tables: string[] | undefined, beside: string[] = [], options = {}) =>
    preflight(
      client,
      'main',
      { tables, poll_interval: 1, mode: 'copy', exclude_columns: {}, options } satisfies CaptureConfig,
      beside,
    );
  const codes = async (tables: string[] | undefined, beside: string[] = [], options = {}) =>
    (await look(tables, beside, options)).findings.filter(({ blocking }) => blocking).map(({ code }) => code);
  const found = async (tables: string[] | undefined, beside: string[] = []) =>
    (await look(tables, beside)).tables.map(({ table }) => table);

  beforeAll(async () => {
    await makeOrders('pre_orders');
    await sql(
      'CREATE EXTENSION IF NOT EXISTS postgres_fdw',
      'CREATE SERVER elsewhere FOREIGN DATA WRAPPER postgres_fdw',
      `CREATE TABLE pre_foreign (id int, v text) PARTITION BY LIST (id)`,
      `CREATE FOREIGN TABLE pre_foreign_1 PARTITION OF pre_foreign FOR VALUES IN (1) SERVER elsewhere`,
      `CREATE TABLE pre_foreign_2 PARTITION OF pre_foreign FOR VALUES IN (2)`,
      `ALTER TABLE pre_foreign_2 ADD PRIMARY KEY (id)`,
      `CREATE TABLE pre_unlogged (id int PRIMARY KEY) PARTITION BY LIST (id)`,
      `CREATE UNLOGGED TABLE pre_unlogged_1 PARTITION OF pre_unlogged FOR VALUES IN (1)`,
      `CREATE TABLE pre_other (id int, code int NOT NULL, PRIMARY KEY (id), UNIQUE (id, code)) PARTITION BY LIST (id)`,
      `CREATE TABLE pre_other_1 PARTITION OF pre_other FOR VALUES IN (1)`,
      `ALTER TABLE pre_other REPLICA IDENTITY USING INDEX pre_other_id_code_key`,
      `CREATE TABLE pre_keyless (id int) PARTITION BY LIST (id)`,
    );
  });

  it('takes a table, and with a glob not its partitions as well', async () => {
    expect(await found(['pre_orders'])).toEqual(['pre_orders']);
    expect(await found(['pre_orders*'])).toEqual(['pre_orders']);
    expect(await found(['pre_orders_*'])).toEqual(
      ['empty', 'high', 'low', 'mid', 'rest'].map((leaf) => `pre_orders_${leaf}`),
    );
    expect(await found(['pre_orders', 'pre_orders_*'])).toEqual(['pre_orders']);
    expect(await found(['pre_orders_*'], ['public.pre_orders'])).toEqual([]);
    expect(await found(undefined)).toContain('pre_orders');
    expect(await found(undefined)).not.toContain('pre_orders_low');
  });

  it('takes a partition alone, and refuses to copy rows twice', async () => {
    expect(await codes(['pre_orders_low'])).toEqual([]);
    expect(await found(['pre_orders_low'])).toEqual(['pre_orders_low']);
    expect(await codes(['pre_orders', 'pre_orders_low'])).toEqual(['partition_twice']);
    expect(await codes(['pre_orders_mid_north'], ['public.pre_orders'])).toEqual(['partition_twice']);
    expect(await codes(['pre_orders'], ['public.pre_orders_low'])).toEqual(['partition_twice']);
    expect(await codes(['pre_orders_high'], ['public.pre_orders_low'])).toEqual([]);
  });

  it('refuses partitions of which the log says too little, with a remedy that works', async () => {
    expect(await codes(['pre_keyless'])).toEqual(['no_key']);
    expect(await codes(['pre_unlogged'])).toEqual(['partition_unlogged']);
    expect(await codes(['pre_other'])).toEqual(['partition_identity']);
    for (const table of ['pre_unlogged', 'pre_other']) {
      const { findings } = await look([table]);
      await sql(/Run (ALTER [^;]*);/.exec(findings.find(({ blocking }) => blocking)!.remedy)![1]!);
      expect(await codes([table])).toEqual([]);
    }
    // A foreign table keeps the whole from having a key at all.
    expect(await codes(['pre_foreign'])).toEqual(['no_key']);
    await sql(
      `CREATE TABLE pre_far (id int NOT NULL, v text) PARTITION BY LIST (id)`,
      `CREATE TABLE pre_far_1 PARTITION OF pre_far FOR VALUES IN (1)`,
      `ALTER TABLE pre_far ADD PRIMARY KEY (id)`,
    );
    expect(await codes(['pre_far'])).toEqual([]);
  });

  it('refuses a publication that hides partitions, and one that has only some of them', async () => {
    await sql(`CREATE PUBLICATION hides FOR TABLE pre_orders WITH (publish_via_partition_root = true)`);
    expect(await codes(['pre_orders'], [], { publication: 'hides' })).toEqual(['publication_via_root']);
    await sql(`ALTER PUBLICATION hides SET (publish_via_partition_root = false)`);
    expect(await codes(['pre_orders'], [], { publication: 'hides' })).toEqual([]);
    await sql(`ALTER PUBLICATION hides ADD TABLE pre_orders_low (id, region)`);
    expect(await codes(['pre_orders'], [], { publication: 'hides' })).toEqual(['publication_column_list']);
    await sql('DROP PUBLICATION hides');
  });

  it('says of each partition how it came', async () => {
    const born = async (table: string) => {
      const schema = await readTableByName(client, 'main', { schema: 'public', table });
      return schema!.partitions!.length;
    };
    expect(await born('pre_orders')).toBe(6);
  });
});

it('stops when the publication begins to hide partitions', async () => {
  await makeOrders('hidden');
  const harness = capture('hidden');
  await harness.begin();
  await harness.drain(client);
  await harness.stop();
  await sql(`ALTER PUBLICATION sluice_${harness.options.source} SET (publish_via_partition_root = true)`);
  harness.startLease();
  const { failed } = await harness.leaseEnd();
  expect(failed[assetOf(harness, 'hidden')]).toMatchObject({
    kind: 'table_unusable',
    reason: expect.stringContaining('without saying of which partition'),
  });
});

it('takes partitioned tables out of the publication again', async () => {
  await makeOrders('released');
  await sql('CREATE TABLE stays (id int PRIMARY KEY)');
  const harness = capture('released', 'stays');
  await harness.prepare();
  const { releaseTables } = await import('../activities/capture/prepare.ts');
  await releaseTables(harness.context, { request: harness.request, tables: harness.tables.slice(0, 1) });
  const { rows } = await client.query('SELECT tablename FROM pg_publication_tables WHERE pubname = $1', [
    `sluice_${harness.options.source}`,
  ]);
  expect(rows).toEqual([{ tablename: 'stays' }]);
});
