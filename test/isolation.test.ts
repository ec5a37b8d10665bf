import { describe, expect, it } from 'vitest';
import type { ErrorReport } from '../model/errors.ts';
import { capture, expectEqual, sql } from './capture_fixture.ts';
import type { CaptureHarness } from './capture_harness.ts';

const failing = ['typed', 'constrained', 'by_policy', 'unsent'] as const;
const tables = ['healthy', ...failing];

/** Runs leases as the flow does, without the tables that have failed, until each of these has. */
async function untilFailed(harness: CaptureHarness): Promise<Record<string, ErrorReport>> {
  const failed: Record<string, ErrorReport> = {};
  while (Object.keys(failed).length < failing.length) {
    const { ended, failed: some } = await harness.leaseEnd();
    expect(ended).toBe('table_failed');
    Object.assign(failed, some);
    for (const asset of Object.keys(some)) harness.dropTable(asset.replace('iso_', ''));
    harness.startLease();
  }
  return failed;
}

describe('tables that fail', () => {
  it('by type, constraint of the copy, policy or publication stop alone; a re-sync heals each while the others stream', async () => {
    for (const table of tables)
      await sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v text, n int)`, `INSERT INTO ${table} VALUES (1, '1', 1)`);
    const harness = capture(tables, { source: 'iso', sourceOptions: { schema_changes: 'stop' } });
    await harness.begin();
    await expectEqual(harness, ...tables);

    const clickhouse = harness.context.clickhouse('read');
    const copy = (table: string) => clickhouse.name(`iso_${table}`);
    await clickhouse.command(
      `ALTER TABLE ${copy('typed')} MODIFY COLUMN v Nullable(Int64) SETTINGS mutations_sync = 2`,
    );
    await clickhouse.command(`ALTER TABLE ${copy('constrained')} ADD CONSTRAINT few CHECK n < 100`);
    await sql('ALTER TABLE by_policy ADD COLUMN more int', 'ALTER PUBLICATION sluice_iso DROP TABLE unsent');
    await sql('BEGIN');
    for (const table of tables) await sql(`INSERT INTO ${table} (id, v, n) VALUES (2, 'two', 200)`);
    await sql('COMMIT');

    const failed = await untilFailed(harness);
    expect(failed).toMatchObject({
      iso_typed: { kind: 'rows_refused' },
      iso_constrained: { kind: 'rows_refused', reason: expect.stringMatching(/VIOLATED_CONSTRAINT/) },
      iso_by_policy: { kind: 'table_changed', reason: expect.stringMatching(/column more was added/) },
      iso_unsent: { kind: 'table_unusable', reason: expect.stringMatching(/taken out of the publication/) },
    });
    for (const table of failing) expect(failed[`iso_${table}`]!.remedy).toContain(`sluice sources resync iso ${table}`);
    for (let id = 3; id < 6; id++)
      for (const table of tables) await sql(`INSERT INTO ${table} VALUES (${id}, 'x', 300)`);
    await expectEqual(harness, 'healthy');

    // What the remedies ask for besides: nothing but a new copy, since the publication gets the table back by that.
    for (const table of failing) {
      await harness.stop();
      await harness.addTable(table, 2);
      harness.startLease();
      await sql(`UPDATE healthy SET v = 'beside ${table}'`);
      await expectArrived(harness, `beside ${table}`);
      await sql(`UPDATE ${table} SET v = 'changed meanwhile' WHERE id = 1`, `DELETE FROM ${table} WHERE id = 2`);
      await harness.snapshot(table);
      await expectEqual(harness, table, 'healthy');
    }
    for (const table of tables) await sql(`INSERT INTO ${table} (id, v, n) VALUES (9, 'text', 900)`);
    await expectEqual(harness, ...tables);
    await harness.close();
  });
});

describe('a table that failed', () => {
  it('is told again to a flow that never heard of it, and not once it began anew', async () => {
    await sql(`CREATE TABLE untold (id int PRIMARY KEY, n int)`, `INSERT INTO untold VALUES (1, 1)`);
    const first = capture(['untold'], { source: 'unheard' });
    await first.begin();
    await expectEqual(first, 'untold');
    await first.stop();
    const second = capture(['untold'], { source: 'unheard' });
    second.takeOver(first);
    const clickhouse = first.context.clickhouse('read');
    const copy = clickhouse.name('unheard_untold');
    await clickhouse.command(`ALTER TABLE ${copy} ADD CONSTRAINT few CHECK n < 100`);
    first.startLease();
    await sql(`INSERT INTO untold VALUES (2, 200)`);
    expect((await first.leaseEnd()).failed).toMatchObject({ unheard_untold: { kind: 'rows_refused' } });
    await clickhouse.command(`ALTER TABLE ${copy} DROP CONSTRAINT few`);

    // The stream has passed what was refused, and nobody knows: as after a pause under which the worker died.
    await second.prepare();
    second.startLease();
    const { failed } = await second.leaseEnd();
    expect(failed).toMatchObject({ unheard_untold: { kind: 'rows_refused' } });
    await second.resync('untold', false);
    await expectEqual(second, 'untold');
    await second.stop();

    // Somebody who has heard of nothing but the new copy.
    const third = capture(['untold'], { source: 'unheard' });
    await third.prepare();
    third.startLease();
    await sql(`INSERT INTO untold VALUES (3, 300)`);
    await expectEqual(third, 'untold');
    for (const harness of [first, second, third]) await harness.close();
  });
});

/** The healthy table streams, while another one's copy has only begun. */
async function expectArrived(harness: CaptureHarness, text: string): Promise<void> {
  const clickhouse = harness.context.clickhouse('read');
  const count = `SELECT count() AS n FROM ${clickhouse.name('iso_healthy')} FINAL WHERE v = {text:String}`;
  await expect
    .poll(async () => Number((await clickhouse.rows<{ n: string }>(count, { params: { text } }))[0]!.n), {
      timeout: 20_000,
    })
    .toBeGreaterThan(0);
}
