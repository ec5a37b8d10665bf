import { describe, expect, it } from 'vitest';
import { beginTables } from '../activities/capture/beginnings.ts';
import { publish } from '../activities/capture/postgresql/publication.ts';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import { prepareSource, releaseTables } from '../activities/capture/prepare.ts';
import { capture, client, expectEqual, parts, sql } from './capture_fixture.ts';
import { type CaptureHarness, openClient } from './capture_harness.ts';

let number = 0;

/** A source with two tables of one row each, copied and paused. */
async function paused(): Promise<{ harness: CaptureHarness; table: string; other: string; publication: string }> {
  const source = `out${++number}`;
  const [table, other] = [`${source}_t`, `${source}_u`];
  for (const name of [table, other])
    await client.query(`CREATE TABLE ${name} (id int PRIMARY KEY, v text); INSERT INTO ${name} VALUES (1, 'a')`);
  const harness = capture([table, other], { source });
  await harness.begin();
  for (const { table: name } of harness.tables) await harness.complete(client, name);
  await harness.stop();
  return { harness, table, other, publication: `sluice_${source}` };
}

describe('a table that somebody took out of the publication while its source was paused', () => {
  it('is copied anew, alone, and says why', async () => {
    const { harness, table, other, publication } = await paused();
    await client.query(`ALTER PUBLICATION ${publication} DROP TABLE ${table}`);
    await client.query(`UPDATE ${table} SET v = 'not sent'; INSERT INTO ${table} VALUES (2, 'not sent')`);
    const { tables } = await harness.prepare();
    expect(tables.find((found) => found.table === other)).toMatchObject({ snapshot_done: true, generation: 1 });
    const anew = tables.find((found) => found.table === table)!;
    expect(anew).toMatchObject({ snapshot_done: false, notice: expect.stringContaining('publication') });
    expect(anew.generation).toBeGreaterThan(1);
    harness.startLease();
    await harness.snapshot(table);
    await expectEqual(harness);
  });

  it('and put back is copied anew too', async () => {
    const { harness, table, other, publication } = await paused();
    await client.query(`ALTER PUBLICATION ${publication} DROP TABLE ${table}; UPDATE ${table} SET v = 'not sent'`);
    await client.query(`ALTER PUBLICATION ${publication} ADD TABLE ${table}`);
    const { tables } = await harness.prepare();
    expect(tables.find((found) => found.table === other)).toMatchObject({ snapshot_done: true, generation: 1 });
    expect(tables.find((found) => found.table === table)).toMatchObject({ snapshot_done: false });
    harness.startLease();
    await harness.snapshot(table);
    await expectEqual(harness);
  });

  it('is copied anew also by a worker that comes after one that died when it had put the table back', async () => {
    const { harness, table, publication } = await paused();
    const before = harness.tables;
    await client.query(`ALTER PUBLICATION ${publication} DROP TABLE ${table}`);
    await client.query(`UPDATE ${table} SET v = 'not sent'`);
    // Its answer is lost: the flow knows the tables as they were.
    await prepareSource(harness.context, { request: harness.request, tables: before });
    const { tables } = await prepareSource(harness.context, { request: harness.request, tables: before });
    expect(tables.find((found) => found.table === table)).toMatchObject({ snapshot_done: false });
    // A flow that lost its state too.
    const lost = before.map((ref) => ({ ...ref, start_position: '', generation: 1 }));
    const again = await prepareSource(harness.context, { request: harness.request, tables: lost });
    expect(again.tables.find((found) => found.table === table)).toMatchObject({ snapshot_done: false });
  });
});

describe('a publication that was altered while its source was paused, and altered back', () => {
  it.each([
    [
      'left out updates',
      (name: string) =>
        [`SET (publish = 'insert')`, `SET (publish = 'insert, update, delete, truncate')`].map(
          (what) => `ALTER PUBLICATION ${name} ${what}`,
        ),
    ],
    [
      'was made anew',
      (name: string, tables: string) => [`DROP PUBLICATION ${name}`, `CREATE PUBLICATION ${name} FOR TABLE ${tables}`],
    ],
  ])('has its tables copied anew: it %s', async (_, statements) => {
    const { harness, table, other, publication } = await paused();
    const [away, back] = statements(publication, `${table}, ${other}`);
    for (const statement of [away!, `UPDATE ${table} SET v = 'not sent'`, back!]) await client.query(statement);
    const { tables } = await harness.prepare();
    expect(tables.map((found) => found.snapshot_done)).toEqual([false, false]);
    harness.startLease();
    for (const name of [table, other]) await harness.snapshot(name);
    await expectEqual(harness);
  });
});

it('copies a table anew that was taken out and put back between two looks of the stream', async () => {
  const { harness, table, publication } = await paused();
  harness.startLease();
  await harness.drain(client);
  await client.query(`ALTER PUBLICATION ${publication} DROP TABLE ${table}; UPDATE ${table} SET v = 'not sent';
    ALTER PUBLICATION ${publication} ADD TABLE ${table}`);
  const { failed } = await harness.leaseEnd();
  expect(Object.values(failed)).toMatchObject([
    { kind: 'table_changed', reason: expect.stringContaining('out of the publication') },
  ]);
  await harness.resync(table);
  await expectEqual(harness);
});

it('copies a table anew that was taken out when the source did not answer', async () => {
  const { harness, table, publication } = await paused();
  const released = harness.tables.filter((ref) => ref.table === table);
  const wrong = new URL(parts.postgres.url);
  wrong.port = '1';
  process.env.SLUICE_TEST_UNREACHABLE_URL = wrong.href;
  const request = { ...harness.request, connection_string: '${SLUICE_TEST_UNREACHABLE_URL}' };
  await expect(releaseTables(harness.context, { request, tables: released })).rejects.toThrow();
  // As when it had answered too late: the table is out, and comes back.
  await client.query(`ALTER PUBLICATION ${publication} DROP TABLE ${table}`);
  await client.query(`UPDATE ${table} SET v = 'not sent'`);
  await client.query(`ALTER PUBLICATION ${publication} ADD TABLE ${table}`);
  const refs = harness.tables.map((ref) => (ref.table === table ? { ...ref, start_position: '', generation: 1 } : ref));
  const { tables } = await prepareSource(harness.context, { request: harness.request, tables: refs });
  expect(tables.find((found) => found.table === table)).toMatchObject({ snapshot_done: false });
});

describe('publishing', () => {
  const named = async (table: string) => {
    const { rows } = await client.query<{ oid: number }>('SELECT $1::regclass::oid AS oid', [table]);
    return { schema: 'public', table, oid: rows[0]!.oid };
  };

  it('is tried again for a table that was dropped meanwhile', async () => {
    const { table, publication } = await paused();
    const gone = { ...(await named(table)), table: 'was_dropped' };
    await expect(publish(client, publication, [gone], 'any')).rejects.toMatchObject({
      kind: 'source_unreachable',
      transient: true,
    });
  });

  it('stops the one table that belongs to somebody else', async () => {
    await client.query(`CREATE ROLE lister LOGIN; CREATE ROLE "an owner";
      CREATE TABLE listed_own (id int PRIMARY KEY); ALTER TABLE listed_own OWNER TO lister;
      CREATE TABLE listed_other (id int PRIMARY KEY); ALTER TABLE listed_other OWNER TO "an owner";
      CREATE PUBLICATION lists; ALTER PUBLICATION lists OWNER TO lister`);
    await client.query('SET ROLE lister');
    try {
      const tables = [await named('listed_own'), await named('listed_other')];
      const error = await publish(client, 'lists', tables, 'any').catch((refused) => refused);
      expect(error).toMatchObject({ kind: 'table_unusable', place: { table: 'listed_other' } });
      expect(error.message).toContain('it belongs to an owner now');
    } finally {
      await client.query('RESET ROLE');
    }
  });
});

it('prepares a table again that was made again while it was prepared', async () => {
  const { harness, table } = await paused();
  const { context, request } = harness;
  const source = new PostgresSource();
  const connected = context.connected(request);
  const refs = harness.tables.filter((ref) => ref.table === table);
  const [schema] = await source.readTables(connected, refs);
  const before = new Map([[schema!.asset_id, schema!]]);
  await client.query(`DROP TABLE ${table}; CREATE TABLE ${table} (id int PRIMARY KEY, v text)`);
  const options = { source, connected, sink: context.sink('write'), epoch: 1, before, position: undefined };
  await expect(beginTables(refs, options)).rejects.toMatchObject({ kind: 'source_unreachable', transient: true });
});

it('a table that somebody holds for long stops alone when it is added, and one that is taken out stays in, with a word', async () => {
  await sql('CREATE TABLE held_one (id int PRIMARY KEY)', 'CREATE TABLE held_free (id int PRIMARY KEY)');
  const harness = capture(['held_free']);
  await harness.begin();
  await harness.stop();
  const other = await openClient(parts.postgres.url);
  await other.query('BEGIN; LOCK TABLE held_one, held_free IN SHARE MODE');
  const failure = {
    kind: 'table_unusable',
    message: expect.stringContaining('held_one'),
    place: { table: 'held_one' },
  };
  await expect(harness.addTable('held_one')).rejects.toMatchObject(failure);
  const source = new PostgresSource();
  const connected = { request: harness.request, connectionString: parts.postgres.url };
  await expect(source.release(connected, harness.tables)).rejects.toMatchObject({ kind: 'table_unusable' });
  await other.end();
  await harness.addTable('held_one');
}, 90_000);

it('a table that leases went on without is copied anew by a flow that lost its state', async () => {
  const { harness, table, other } = await paused();
  const lost = harness.tables.map((ref) => ({ ...ref, start_position: '', generation: 1 }));
  harness.dropTable(table);
  harness.startLease();
  await sql(`UPDATE ${table} SET v = 'passed by'`, `UPDATE ${other} SET v = 'b'`);
  await harness.drain(client);
  await harness.stop();
  const { tables } = await prepareSource(harness.context, { request: harness.request, tables: lost });
  expect(tables.find((found) => found.table === other)).toMatchObject({ snapshot_done: true, generation: 1 });
  expect(tables.find((found) => found.table === table)).toMatchObject({ snapshot_done: false });
});
