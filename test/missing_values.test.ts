/** Values that the source leaves out of a change, where they cannot be held, or are large. */
import { describe, expect, it } from 'vitest';
import { capture, client, expectEqual, sql } from './capture_fixture.ts';
import { checkRecords } from './oracle/compare.ts';

describe('values that a change leaves out', () => {
  it('are held back again when a change leaves them out, and never taken for a row that is gone', async () => {
    await sql(
      'CREATE TABLE hollow_held (pk int PRIMARY KEY, n int, day date, m float8[] NOT NULL, big text)',
      'ALTER TABLE hollow_held ALTER COLUMN m SET STORAGE EXTERNAL, ALTER COLUMN big SET STORAGE EXTERNAL',
      "INSERT INTO hollow_held VALUES (2, 0, '2024-01-01', '{1}', repeat('b', 5000))",
    );
    const harness = capture(['hollow_held']);
    await harness.begin();
    const deep = 'array_fill(1.5::float8, ARRAY[20, 20])';
    await sql(`INSERT INTO hollow_held VALUES (1, 0, '2024-01-01', ${deep}, 'x')`);
    await harness.drain(client);
    await sql('UPDATE hollow_held SET n = 7 WHERE pk = 1');
    // The value that cannot be held comes with the second change: the first is written as it was.
    await sql(
      'BEGIN',
      'UPDATE hollow_held SET n = 5 WHERE pk = 2',
      "UPDATE hollow_held SET day = 'infinity' WHERE pk = 2",
      'COMMIT',
    );
    await harness.drain(client);
    const clickhouse = harness.context.clickhouse('read');
    const asset = harness.tables[0]!.asset_id;
    const rejects = await clickhouse.rows<{ key: string; column: string; n: string }>(
      `SELECT key, column, JSONExtractString(row, 'n') AS n FROM ${clickhouse.name('_rejects')} FINAL
       WHERE asset = {asset:String} AND state = 'open' ORDER BY key, version DESC LIMIT 1 BY key`,
      { params: { asset } },
    );
    expect(rejects).toEqual([
      { key: '{"pk":"1"}', column: 'm', n: '7' },
      { key: '{"pk":"2"}', column: 'day', n: '5' },
    ]);
    const { rows } = await clickhouse.table(`SELECT pk, n, _deleted FROM ${clickhouse.name(asset)} FINAL ORDER BY pk`);
    expect(rows).toEqual([[2, 5, 0]]);
    expect(await checkRecords(clickhouse, harness.options.source)).toEqual([]);
    await sql("UPDATE hollow_held SET m = '{1,2}', day = NULL");
    await expectEqual(harness);
  });

  it('that are large and left out make small batches', async () => {
    await sql(
      'CREATE TABLE hollow_large (pk int PRIMARY KEY, n int, big text)',
      'ALTER TABLE hollow_large ALTER COLUMN big SET STORAGE EXTERNAL',
      'INSERT INTO hollow_large SELECT g, 0, repeat(g::text, 40000 / length(g::text)) FROM generate_series(1, 2000) g',
    );
    const harness = capture(['hollow_large']);
    await harness.begin();
    await harness.drain(client);
    await sql('UPDATE hollow_large SET n = 1', 'UPDATE hollow_large SET n = 2');
    await harness.drain(client);
    const largest = Math.max(...(await harness.records()).map((record) => record.changes));
    // Two batches' worth of bytes (16 MB) of values of 40 KB, and some.
    expect(largest).toBeLessThan(700);
    const { source, copy } = await harness.bothSides(client, 'hollow_large');
    expect(copy).toEqual(source);
  });
});
