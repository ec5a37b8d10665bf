import { describe, expect, it } from 'vitest';
import { Repair } from '../activities/check/repair.ts';
import { auditSource } from '../activities/lineage/audit.ts';
import { loadSchemas, readRecords, saveSchema } from '../activities/load/batches.ts';
import type { Role } from '../activities/load/clickhouse.ts';
import { repairInserts } from '../activities/load/sink.ts';
import type { CaptureStatus } from '../model/source.ts';
import type { TableSchema } from '../model/table.ts';
import { capture, client, parts, sql } from './capture_fixture.ts';
import { type CaptureHarness, openClient } from './capture_harness.ts';

/** A table that streams, with some rows. */
async function streaming(table: string, definition: string, rows: string): Promise<CaptureHarness> {
  await sql(`CREATE TABLE ${table} (${definition})`, `INSERT INTO ${table} ${rows}`);
  const harness = capture([table]);
  await harness.begin();
  await harness.drain(client);
  return harness;
}

const assetOf = (harness: CaptureHarness) => harness.tables[0]!.asset_id;

/** Damages the copy: rows of a condition are written again, `set` instead of their values. */
async function damage(harness: CaptureHarness, where: string, set: string): Promise<void> {
  const clickhouse = harness.context.clickhouse('write');
  const name = clickhouse.name(assetOf(harness));
  await clickhouse.command(
    `INSERT INTO ${name} SELECT * REPLACE (${set}) FROM (SELECT * FROM ${name} FINAL WHERE ${where})`,
  );
}

/** What the copy is made from now. */
async function schemaOf({ context, request, tables }: CaptureHarness): Promise<TableSchema> {
  const schemas = await loadSchemas(context.clickhouse('read'), request.id);
  return schemas.get(tables[0]!.asset_id)!;
}

/**
 * Repairs keys. `meanwhile` runs when the source has been read, and nothing is written yet; the flow says `state` then.
 */
async function repair(
  harness: CaptureHarness,
  keys: string[][],
  meanwhile: () => Promise<void> = async () => {},
  state: object = {},
  schema?: TableSchema,
): Promise<string | null> {
  const { context, request } = harness;
  const [table] = harness.tables;
  const status = async () => {
    await meanwhile();
    return { status: 'streaming', tables: [{ ...table, status: 'streaming', ...state }] } as CaptureStatus;
  };
  const task = {
    context: {
      status,
      sink: (role: 'write' | 'snapshot') => context.sink(role),
      clickhouse: (role: Role) => context.clickhouse(role),
    },
    connected: context.connected(request),
    table: schema ?? (await schemaOf(harness)),
    generation: table!.generation,
    verification: 'v',
    workflow: { id: 'w', runId: 'r', attempt: 1 },
    numbers: { next: 0 },
    signal: new AbortController().signal,
  };
  return await new Repair(task).run(keys);
}

async function expectEqual(harness: CaptureHarness): Promise<void> {
  const [table] = harness.tables;
  const { source, copy } = await harness.bothSides(client, table!.table);
  expect(copy).toEqual(source);
}

async function expectEqualAfterAll(harness: CaptureHarness): Promise<void> {
  await harness.drain(client);
  await expectEqual(harness);
}

describe('a repair', () => {
  it('reads the rows of partitions', async () => {
    const rootOf = 'id int PRIMARY KEY, v text) PARTITION BY RANGE (id';
    const harness = await streaming('parted', rootOf, 'SELECT 1 WHERE false');
    await sql(
      'CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10)',
      'CREATE TABLE parted_2 PARTITION OF parted DEFAULT',
      `INSERT INTO parted SELECT g, 'v' || g FROM generate_series(1, 20) g`,
    );
    await harness.drain(client);
    await damage(harness, 'id IN (1, 11)', `'wrong' AS v`);
    await damage(harness, 'id IN (2, 12)', `1 AS _deleted, _version + 1 AS _version`);
    await damage(harness, 'id = 3', `toInt32(900) AS id, _version + 5 AS _version`);
    expect(
      await repair(
        harness,
        ['1', '11', '2', '12', '900'].map((id) => [id]),
      ),
    ).toBeNull();
    await expectEqual(harness);
  });

  it('writes nothing under rules that are not in force any more', async () => {
    const harness = await streaming(
      'masked',
      'id int PRIMARY KEY, v text',
      "SELECT g, 'v' FROM generate_series(1, 3) g",
    );
    const schema = await schemaOf(harness);
    const rule = {
      rule_id: 'mask',
      version: 1,
      rule_type: 'map',
      target_field: 'v',
      expression: '***',
      apply_to: 'new',
    };
    const masked = { ...schema, rules: { version: 1, rules: [rule], checks: [] }, targets: ['v'] } as never;
    await damage(harness, 'id = 1', `'***' AS v`);
    const { request, context } = harness;
    const follow = () => saveSchema(context.clickhouse('write'), request.id, masked, harness.tables[0]!.generation);
    expect(await repair(harness, [['1']], follow, {}, schema)).toContain('other rules');
    const clickhouse = context.clickhouse('read');
    const { rows } = await clickhouse.table(`SELECT v FROM ${clickhouse.name(assetOf(harness))} FINAL WHERE id = 1`);
    expect(rows).toEqual([['***']]);
  });

  it('brings back what is missing, takes away what is extra, corrects what is different, and is recorded', async () => {
    const harness = await streaming(
      'mended',
      'id int PRIMARY KEY, v text',
      `SELECT g, 'v' || g FROM generate_series(1, 50) g`,
    );
    await sql(`UPDATE mended SET v = 'streamed' WHERE id <= 10`);
    await harness.drain(client);
    await damage(harness, 'id IN (1, 20)', `'wrong' AS v`);
    await damage(harness, 'id IN (2, 21)', `1 AS _deleted, _version + 1 AS _version`);
    await damage(harness, 'id = 3', `toInt32(900) AS id, _version + 5 AS _version`);
    const writer = harness.context.clickhouse('write');
    await writer.command(
      `ALTER TABLE ${writer.name(assetOf(harness))} DELETE WHERE id = 30 SETTINGS mutations_sync = 2`,
    );
    const keys = ['1', '20', '2', '21', '900', '30'].map((id) => [id]);
    const { source, copy } = await harness.bothSides(client, 'mended');
    expect(copy.filter((row) => !source.includes(row)).length).toBe(3);
    expect(source.filter((row) => !copy.includes(row)).length).toBe(5);
    expect(await repair(harness, keys)).toBeNull();
    await expectEqual(harness);
    const records = await readRecords(
      harness.context.clickhouse('read'),
      `kind = 'repair' AND source = {source:String}`,
      { source: harness.options.source },
    );
    expect(records).toMatchObject([
      { changes: 6, assets: { [assetOf(harness)]: { inserts: 5, deletes: 1, effects: 6, written: 6, rejected: 0 } } },
    ]);
    expect(records[0]!.id).toBe(`${harness.options.source}/repair/${assetOf(harness)}/v/0`);
    const audit = await auditSource(harness.context.clickhouse('read'), harness.options.source, () => true);
    expect(audit.faults).toEqual([]);
    // Again is no harm; and the stream goes on over it.
    expect(await repair(harness, keys)).toBeNull();
    await sql(`UPDATE mended SET v = 'later' WHERE id IN (1, 2, 30)`, 'DELETE FROM mended WHERE id IN (20, 21)');
    await sql(`INSERT INTO mended VALUES (900, 'really')`);
    await expectEqualAfterAll(harness);
  });

  it('holds keys of any type, also those that the source cannot even have', async () => {
    await sql(`CREATE TYPE mood AS ENUM ('sad', 'glad')`);
    const odd = `('sad', 'it''s', '\\x00ff', 1.50, '2026-01-01 00:00:00.5', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', 1),
      ('glad', E'tab\\t\\\\n "é" 漢', '\\x', 0, '1969-12-31', '00000000-0000-0000-0000-000000000000', 2)`;
    const harness = await streaming(
      'odd_keys',
      'm mood, t text, b bytea, n numeric(9,3), ts timestamp, u uuid, v int, PRIMARY KEY (m, t, b, n, ts, u)',
      `VALUES ${odd}`,
    );
    await damage(harness, 'v = 1', 'toInt32(100) AS v');
    await damage(harness, 'v = 2', `'angry' AS m`);
    const hex = (text: string) => Buffer.from(text).toString('hex');
    const rest = ['00ff', '1.5', '2026-01-01 00:00:00.5', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'];
    const second = [hex('tab\t\\n "é" 漢'), '', '0', '1969-12-31 00:00:00', '00000000-0000-0000-0000-000000000000'];
    expect(
      await repair(harness, [
        [hex('sad'), hex(`it's`), ...rest],
        [hex('angry'), ...second],
      ]),
    ).toBeNull();
    await expectEqual(harness);
  });

  it('loses to every change that it did not see, and wins over those that it saw', async () => {
    const harness = await streaming(
      'raced',
      'id int PRIMARY KEY, v text',
      `SELECT g, 'v' FROM generate_series(1, 20) g`,
    );
    await damage(harness, 'id <= 10', `'wrong' AS v`);
    await harness.stop();
    // Seen by the repair, and brought by the stream later, with versions below it.
    await sql(`UPDATE raced SET v = 'before' WHERE id IN (1, 2, 3)`, 'DELETE FROM raced WHERE id = 4');
    const keys = Array.from({ length: 10 }, (_, index) => [String(index + 1)]);
    const refused = await repair(harness, keys, async () => {
      await sql(`UPDATE raced SET v = 'after' WHERE id IN (2, 5)`, 'DELETE FROM raced WHERE id IN (3, 6)');
      await sql(`INSERT INTO raced VALUES (4, 'again')`, 'UPDATE raced SET id = 70 WHERE id = 7');
    });
    expect(refused).toBeNull();
    harness.startLease();
    await expectEqualAfterAll(harness);
    await sql(`UPDATE raced SET v = v || '!'`);
    await expectEqualAfterAll(harness);
  });

  it('is right while the very rows that are damaged change, come and go', async () => {
    const harness = await streaming(
      'restless',
      'id int PRIMARY KEY, v text',
      `SELECT g, 'v' FROM generate_series(1, 40) g`,
    );
    const keys = Array.from({ length: 40 }, (_, index) => [String(index + 1)]);
    const writer = await openClient(parts.postgres.url);
    let going = true;
    const writing = (async () => {
      for (let turn = 0; going; turn++) {
        const id = 1 + ((turn * 7) % 40);
        await writer.query(`DELETE FROM restless WHERE id = $1`, [id]);
        await writer.query(`UPDATE restless SET v = $2 WHERE id = $1`, [1 + ((id + 13) % 40), `turn ${turn}`]);
        await writer.query(`UPDATE restless SET id = $2 WHERE id = $1`, [1 + ((id + 20) % 40), id]).catch(() => {});
        await writer.query(`INSERT INTO restless VALUES ($1, $2) ON CONFLICT DO NOTHING`, [
          1 + ((id + 3) % 40),
          `new ${turn}`,
        ]);
        await new Promise((resolve) => setTimeout(resolve, 2));
      }
    })();
    try {
      for (let round = 0; round < 8; round++) {
        await damage(harness, 'id % 3 = 0', `'wrong' AS v, _version + 1 AS _version`);
        await damage(harness, 'id % 3 = 1', '1 AS _deleted, _version + 1 AS _version');
        await damage(harness, 'id % 3 = 2', 'toInt32(bitXor(id, 1)) AS id, _version + 1 AS _version');
        expect(await repair(harness, keys)).toBeNull();
      }
    } finally {
      going = false;
      await writing;
      await writer.end();
    }
    await expectEqualAfterAll(harness);
  });

  it('waits for transactions that were open before it, and lets a TRUNCATE wait until it is done', async () => {
    const harness = await streaming(
      'waited',
      'id int PRIMARY KEY, v text',
      `SELECT g, 'v' FROM generate_series(1, 9) g`,
    );
    await damage(harness, 'id <= 5', `'wrong' AS v`);
    const other = await openClient(parts.postgres.url);
    await other.query('BEGIN');
    await other.query(`UPDATE waited SET v = 'open' WHERE id = 1`);
    let committed = false;
    const commit = new Promise((resolve) => setTimeout(resolve, 700)).then(async () => {
      committed = true;
      await other.query('COMMIT');
    });
    const seen: boolean[] = [];
    await repair(harness, [['1'], ['2']], async () => {
      seen.push(committed);
    });
    await commit;
    expect(seen).toEqual([true]);
    let truncated: Promise<unknown> | undefined;
    const refused = await repair(harness, [['3'], ['4'], ['5']], async () => {
      truncated = other.query('TRUNCATE waited');
      await new Promise((resolve) => setTimeout(resolve, 300));
    });
    expect(refused).toBeNull();
    await truncated;
    await sql(`INSERT INTO waited VALUES (3, 'new')`);
    await expectEqualAfterAll(harness);
    await other.end();
  });

  it('gives values that the stream does not send to those who look for them', async () => {
    const big = (letter: string) => `repeat('${letter}', 3000)`;
    const harness = await streaming(
      'toasted',
      'id int PRIMARY KEY, big text, n int',
      `SELECT g, ${big('a')}, 0 FROM generate_series(1, 4) g`,
    );
    await sql('ALTER TABLE toasted ALTER COLUMN big SET STORAGE EXTERNAL', `UPDATE toasted SET big = ${big('b')}`);
    await harness.drain(client);
    await damage(harness, 'id <= 2', `'wrong' AS big`);
    await harness.stop();
    await sql('UPDATE toasted SET n = 1 WHERE id = 1');
    await repair(harness, [['1'], ['2']], () =>
      sql(
        'UPDATE toasted SET n = 2',
        `UPDATE toasted SET big = ${big('c')} WHERE id = 2`,
        'UPDATE toasted SET n = 3 WHERE id = 2',
      ),
    );
    harness.startLease();
    await expectEqualAfterAll(harness);
  });

  it('leaves alone what it cannot prove to be right, and says why', async () => {
    const harness = await streaming('left_alone', 'id int PRIMARY KEY, v text', `VALUES (1, 'a'), (2, 'b'), (3, 'c')`);
    await damage(harness, 'id = 1', `'foreign' AS v, bitShiftLeft(toUInt128(2), 112) AS _version`);
    await damage(harness, 'id = 2', `'wrong' AS v`);
    expect(await repair(harness, [['1'], ['2']])).toContain('1 rows of the copy bear versions of the future');
    const { copy } = await harness.bothSides(client, 'left_alone');
    expect(copy.some((row) => row.includes(Buffer.from('foreign').toString('hex').toUpperCase()))).toBe(true);
    expect(copy.some((row) => row.includes(Buffer.from('b').toString('hex')))).toBe(true);
    await damage(harness, 'id = 3', `'wrong' AS v`);
    for (const state of [{ status: 'snapshotting' }, { status: 'failed' }, { generation: 2 }])
      expect(await repair(harness, [['3']], undefined, state)).toContain('copied anew, or does not stream');
    const records = await readRecords(
      harness.context.clickhouse('read'),
      `kind = 'repair' AND source = {source:String}`,
      { source: harness.options.source },
    );
    expect(records.length).toBe(1);
    await harness.stop();
    await sql('ALTER TABLE left_alone ALTER COLUMN v TYPE varchar(9)');
    await expect(repair(harness, [['3']])).rejects.toMatchObject({ kind: 'table_changed' });
  });

  it('never overwrites values of columns that its definition of the table lacks', async () => {
    const harness = await streaming('altered', 'id int PRIMARY KEY, v text', `VALUES (1, 'a'), (2, 'b'), (3, 'c')`);
    await damage(harness, 'id <= 2', `'wrong' AS v`);
    const before = await schemaOf(harness);
    await harness.stop();
    // Neither stored nor done to the copy yet: what is stored is what the repair knows.
    await sql('ALTER TABLE altered ADD COLUMN n int DEFAULT 7', 'UPDATE altered SET n = 1 WHERE id = 1');
    expect(await repair(harness, [['1'], ['2']], undefined, {}, before)).toMatch(/was altered, and its copy/);
    harness.startLease();
    await harness.drain(client);
    // Done to the copy, while the repair still knows what was stored before.
    expect(await repair(harness, [['1'], ['2']], undefined, {}, before)).toMatch(/was altered, and its copy/);
    const { source, copy } = await harness.bothSides(client, 'altered');
    expect(copy.filter((row) => !source.includes(row)).length).toBe(1);
    expect(await repair(harness, [['1'], ['2']])).toBeNull();
    await expectEqualAfterAll(harness);
  });

  it('that died brings nothing back behind a TRUNCATE', async () => {
    const harness = await streaming('emptied', 'id int PRIMARY KEY, v text', `VALUES (1, 'a'), (2, 'b')`);
    const asset = assetOf(harness);
    const clickhouse = harness.context.clickhouse('read');
    // What an insert looks like whose sender has died: it takes its time, and nobody waits for it.
    const late = clickhouse.command(
      `INSERT INTO ${clickhouse.name(asset)} SELECT * REPLACE (if(sleepEachRow(0.5) = 0, v, v) AS v)
       FROM (SELECT * FROM ${clickhouse.name(asset)} FINAL ARRAY JOIN range(10)) SETTINGS max_block_size = 1`,
      { queryId: `${repairInserts(harness.options.source, asset)}0-late` },
    );
    const ended = expect(late).rejects.toMatchObject({ kind: 'sink_unreachable', transient: true });
    await new Promise((resolve) => setTimeout(resolve, 500));
    await sql('TRUNCATE emptied', `INSERT INTO emptied VALUES (2, 'new')`);
    await harness.drain(client);
    await ended;
    await expectEqual(harness);
  });
});
