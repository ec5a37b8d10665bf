import { describe, expect, it } from 'vitest';
import { releaseTables, removeSource } from '../activities/capture/prepare.ts';
import { lastRecord } from '../activities/load/batches.ts';
import { readSourceCut, readTableCuts } from '../activities/load/cuts.ts';
import { compareLsn } from '../model/position.ts';
import { capture, client, copied, sql, unreadSlot } from './capture_fixture.ts';
import type { CaptureHarness } from './capture_harness.ts';

const clickhouseOf = (harness: CaptureHarness) => harness.context.clickhouse('read');
const cutOf = (harness: CaptureHarness) => readSourceCut(clickhouseOf(harness), harness.options.source);
const lastOf = async (harness: CaptureHarness) =>
  (await lastRecord(clickhouseOf(harness), harness.options.source))!.position_to;

/** State by table. */
async function states(harness: CaptureHarness): Promise<Record<string, string>> {
  const cuts = await readTableCuts(clickhouseOf(harness), harness.options.source);
  return Object.fromEntries(cuts.map(({ asset, state }) => [asset.slice(harness.options.source.length + 1), state]));
}

describe('a cut', () => {
  it('is none while a table is being copied, and then follows the stream', async () => {
    await sql('CREATE TABLE one (id int PRIMARY KEY)', 'CREATE TABLE two (id int PRIMARY KEY)');
    await sql('INSERT INTO one VALUES (1)', 'INSERT INTO two VALUES (1)');
    const harness = capture(['one', 'two']);
    await harness.prepare();
    expect(await cutOf(harness)).toMatchObject({ position: null, complete: 0, tables: 2 });
    harness.startLease();
    await copied(harness, 'one');
    // The whole snapshot of the other is there, but the stream has not been seen to pass it.
    await harness.snapshot('two');
    expect(await states(harness)).toEqual({ one: 'complete', two: 'incomplete' });
    expect(await cutOf(harness)).toMatchObject({ position: null, committed_at: null, complete: 1, tables: 2 });
    await copied(harness, 'two');
    await sql('INSERT INTO one VALUES (2)');
    await harness.drain(client);
    await harness.stop();
    const cut = (await cutOf(harness))!;
    expect(cut).toMatchObject({ position: await lastOf(harness), complete: 2, tables: 2 });
    const { rows } = await client.query(`SELECT extract(epoch FROM now() - $1::timestamptz) AS age`, [
      cut.committed_at,
    ]);
    expect(Number(rows[0].age)).toBeLessThan(60);
    expect(Date.parse(cut.recorded_at!)).toBeGreaterThanOrEqual(Date.parse(cut.committed_at!));
  });

  it('stays where a table failed while its neighbours go on, and is none while it is copied anew', async () => {
    await sql('CREATE TABLE good (id int PRIMARY KEY)', 'CREATE TABLE bad (id int PRIMARY KEY, v int)');
    const harness = capture(['good', 'bad']);
    await harness.prepare();
    harness.startLease();
    for (const table of ['good', 'bad']) await copied(harness, table);
    await sql('INSERT INTO bad VALUES (1, 1)');
    await harness.drain(client);
    const before = await lastOf(harness);
    await sql('ALTER TABLE bad ALTER COLUMN v TYPE text', `INSERT INTO bad VALUES (2, 'two')`);
    expect((await harness.leaseEnd()).ended).toBe('table_failed');
    harness.dropTable('bad');
    harness.startLease();
    await sql('INSERT INTO good VALUES (3)');
    await harness.drain(client);
    expect(await states(harness)).toEqual({ good: 'complete', bad: 'failed' });
    const cut = (await cutOf(harness))!;
    expect(cut).toMatchObject({ complete: 1, tables: 2 });
    expect(compareLsn(cut.position!, before)).toBeGreaterThanOrEqual(0);
    expect(compareLsn(cut.position!, await lastOf(harness))).toBeLessThan(0);
    await harness.stop();
    await harness.addTable('bad', 2);
    harness.startLease();
    expect(await states(harness)).toEqual({ good: 'complete', bad: 'incomplete' });
    expect((await cutOf(harness))!.position).toBeNull();
    await copied(harness, 'bad');
    await harness.stop();
    expect(await cutOf(harness)).toMatchObject({ position: await lastOf(harness), complete: 2, tables: 2 });
  });

  it('stays where leases left a table out, whatever their reason', async () => {
    await sql('CREATE TABLE kept (id int PRIMARY KEY)', 'CREATE TABLE lost (id int PRIMARY KEY)');
    const harness = capture(['kept', 'lost']);
    await harness.prepare();
    harness.startLease();
    for (const table of ['kept', 'lost']) await copied(harness, table);
    await harness.stop();
    const before = await lastOf(harness);
    harness.dropTable('lost');
    harness.startLease();
    await sql('INSERT INTO kept VALUES (1)', 'INSERT INTO lost VALUES (1)');
    await harness.drain(client);
    await harness.stop();
    expect(await states(harness)).toEqual({ kept: 'complete', lost: 'left_out' });
    expect(await cutOf(harness)).toMatchObject({ position: before, complete: 1, tables: 2 });
  });

  it('forgets tables that are released, and comes back with them', async () => {
    await sql('CREATE TABLE stays (id int PRIMARY KEY)', 'CREATE TABLE goes (id int PRIMARY KEY)');
    const harness = capture(['stays', 'goes']);
    await harness.prepare();
    harness.startLease();
    for (const table of ['stays', 'goes']) await copied(harness, table);
    await harness.stop();
    const { request } = harness;
    const goes = harness.tables.filter(({ table }) => table === 'goes');
    await releaseTables(harness.context, { request, tables: goes });
    harness.dropTable('goes');
    harness.startLease();
    await expect.poll(() => states(harness)).toEqual({ stays: 'complete' });
    await harness.stop();
    expect(await cutOf(harness)).toMatchObject({ position: await lastOf(harness), complete: 1, tables: 1 });
    await harness.addTable('goes');
    expect(await states(harness)).toEqual({ stays: 'complete', goes: 'incomplete' });
    harness.startLease();
    await copied(harness, 'goes');
    expect(await states(harness)).toEqual({ stays: 'complete', goes: 'complete' });
  });

  it('is none after the log was lost, until all is copied anew; and nothing when the source is removed', async () => {
    await sql('CREATE TABLE again (id int PRIMARY KEY)', 'INSERT INTO again VALUES (1)');
    const harness = capture(['again']);
    await harness.prepare();
    harness.startLease();
    await copied(harness, 'again');
    await harness.stop();
    await sql(`SELECT pg_drop_replication_slot('${await unreadSlot(harness)}')`);
    harness.dropTable('again');
    await harness.addTable('again', 2);
    expect(await cutOf(harness)).toMatchObject({ position: null, tables: 1 });
    harness.startLease();
    await copied(harness, 'again');
    await harness.stop();
    expect(await cutOf(harness)).toMatchObject({ position: await lastOf(harness), complete: 1 });
    const { request, tables } = harness;
    await removeSource(harness.context, { request, tables, drop_copies: false, force: false });
    expect(await cutOf(harness)).toBeUndefined();
  });
});
