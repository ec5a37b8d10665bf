/** Names of copies are put together from ids that hold underscores themselves: two sources may mean one table. */
import { expect, it } from 'vitest';
import { capture, expectEqual, sql } from './capture_fixture.ts';

it('a copy of another source, and a table of somebody else, are never written into', async () => {
  for (const table of ['b_c', 'c', 'other'])
    await sql(`CREATE TABLE ${table} (id int PRIMARY KEY, v text)`, `INSERT INTO ${table} VALUES (1, '${table}')`);
  const first = capture(['b_c'], { source: 'a', database: 'shared' });
  await first.begin();
  await expectEqual(first, 'b_c');

  const second = capture(['c', 'other'], { source: 'a_b', database: 'shared' });
  const refusal = { kind: 'table_unusable', message: expect.stringMatching(/a_b_c.* is a copy of the source a$/) };
  await expect(second.prepare()).rejects.toMatchObject(refusal);
  const clickhouse = first.context.clickhouse('write');
  const theirs = clickhouse.name('a_b_other');
  await clickhouse.command(`CREATE TABLE ${theirs} (id Int64) ENGINE = MergeTree ORDER BY id AS SELECT 7 AS id`);
  second.dropTable('c');
  await expect(second.prepare()).rejects.toMatchObject({ message: expect.stringMatching(/has not written$/) });
  await clickhouse.command(`DROP TABLE ${theirs} SYNC`);
  await second.begin();
  await expectEqual(second, 'other');

  await first.stop();
  await first.resyncAll();
  await expectEqual(first, 'b_c');
  for (const harness of [first, second]) await harness.close();
});
