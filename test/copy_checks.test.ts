/** Checks of whole copies in ClickHouse, compared with what the same rows give when each is looked at by itself. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkedColumns, readCopyRows } from '../activities/check/copy_columns.ts';
import type { CheckedCopy } from '../activities/check/copy_conditions.ts';
import { checkCopy } from '../activities/check/quality.ts';
import { checkRows } from '../activities/check/quality_rows.ts';
import { compileChecks } from '../activities/check/row_checks.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { type CheckInput, readCheck } from '../model/checks.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';

let parts: StartedParts<'clickhouse'>;
let clickhouse: ClickHouse;

const types = {
  int: 'Int32', bigint: 'Int64', unsigned: 'UInt8', numeric: 'Decimal(12, 2)', wide: 'Decimal(76, 10)', real: 'Float32',
  double: 'Float64', text: 'String', day: 'Date32', at: "DateTime64(6, 'UTC')", ok: 'Bool',
}; // biome-ignore format: a list

beforeAll(async () => {
  parts = await startParts(['clickhouse']);
  clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'write' });
  const columns = Object.entries(types).map(([name, type]) => `${name} Nullable(${type})`);
  await clickhouse.command('CREATE DATABASE IF NOT EXISTS sluice');
  await clickhouse.command(
    `CREATE TABLE sluice.t (id Int32, ${columns.join(', ')}, _version UInt64) ENGINE = ReplacingMergeTree ORDER BY id`,
  );
  await clickhouse.command(
    `INSERT INTO sluice.t SELECT number, number, number, number, number / 4, number / 4, number / 4, number / 4, toString(number),
     toDate32('2024-01-01') + number, toDateTime64('2024-01-01 00:00:00', 6, 'UTC') + number, number % 2 = 0, 1 FROM numbers(60)`,
  );
  await clickhouse.command(`INSERT INTO sluice.t (id, text, _version) VALUES (100, 'a', 1), (101, '1.5', 1)`);
}, 60_000);

afterAll(async () => {
  await clickhouse?.close();
  await parts?.[Symbol.asyncDispose]();
});

const checkOf = (rule_id: string, more: object): CheckInput => readCheck({ rule_id, asset: 't', ...more });
const asked = async (): Promise<CheckedCopy> => {
  const columns = await checkedColumns(clickhouse, 't', undefined);
  return { clickhouse, asset: 't', columns, rows: 'sluice.t FINAL', newest: 'ORDER BY _version DESC' };
};

describe('a check of a copy', () => {
  const whole = [...Array(50).keys()];
  const numbers = [[1], [1, 2], [1, 2, 3], whole, [1.5, 1e30, -1e30, 3], ['1e100', '1e-100', 0], [300, -1, 0.25]];
  const days = ['2024-01-02', '2024-01-03', '2024-01-04'];
  const lists: Record<string, unknown[][]> = {
    text: [...numbers, ['a'], ['a', '1.5', 'x', '7']],
    day: [days],
    at: [days, ['2024-01-01T00:00:01Z', '2024-01-01T00:00:02Z', '2024-01-01T00:00:03Z']],
    ok: [[true], [true, false, true]],
  };

  it('accepts the values that single rows are accepted for, however many, whether or not the column can hold them', async () => {
    const copy = await asked();
    const rows = await readCopyRows(copy, copy.columns, { rest: '' });
    expect(rows).toHaveLength(62);
    for (const field of Object.keys(types))
      for (const values of lists[field] ?? numbers) {
        const check = checkOf('k', { field, rule_type: 'accepted_values', parameters: { values } });
        const single = compileChecks([check], copy.columns);
        const failed = rows.filter((row) => single.failures(row.values).length > 0).length;
        const { rules } = await checkCopy(copy, [check]);
        expect({ field, values, failed: rules[0]!.failed }).toEqual({ field, values, failed });
      }
  });

  it('takes bounds that the column cannot hold', async () => {
    const copy = await asked();
    const rows = await readCopyRows(copy, copy.columns, { rest: '' });
    const bounds = [
      { min: 1.5 },
      { max: 1.5 },
      { min: 0.13, max: 7.999 },
      { min: -1e80 },
      { max: 1e80 },
      { min: 1e80 },
    ];
    for (const field of ['int', 'bigint', 'unsigned', 'numeric', 'wide', 'real', 'double', 'text'])
      for (const parameters of [...bounds, { min: '1e75' }, { max: '1e75' }, { min: '-5e-90', max: '5e-90' }]) {
        if (field === 'text' && typeof Object.values(parameters)[0] === 'string') continue;
        const check = checkOf('k', { field, rule_type: 'range', parameters });
        const single = compileChecks([check], copy.columns);
        const failed = rows.filter((row) => single.failures(row.values).length > 0).length;
        const { rules } = await checkCopy(copy, [check]);
        expect({ field, parameters, failed: rules[0]!.failed }).toEqual({ field, parameters, failed });
      }
  });

  it('that cannot run says why, and takes no other down', async () => {
    const missing = checkOf('ref', {
      field: 'text',
      rule_type: 'relationships',
      parameters: { asset: 'clickhouse_none', field: 'id' },
    });
    const filled = checkOf('filled', { field: 'int', rule_type: 'not_null' });
    const column = checkOf('column', { ...missing, rule_id: 'column', parameters: { asset: 'u', field: 'x' } });
    const odd = checkOf('odd', { field: 'text', rule_type: 'freshness', parameters: { max_age: '1h' } });
    const gone = checkOf('gone', { field: 'gone', rule_type: 'range', parameters: { min: 0 } });
    const count = checkOf('count', { rule_type: 'row_count', parameters: { min: 100 } });
    const expression = checkOf('expression', { rule_type: 'expression', parameters: { expression: 'id < 100' } });
    await clickhouse.command('CREATE OR REPLACE VIEW sluice.u_current AS SELECT 1 AS id');
    const all = [missing, filled, column, odd, gone, count, expression];
    const copy = await asked();
    const { rules, checked, failed } = await checkCopy(copy, all);
    expect(rules.map(({ rule_id, failed, error }) => [rule_id, error?.kind ?? failed])).toEqual([
      ['ref', 'configuration'],
      ['filled', 2],
      ['column', 'configuration'],
      ['odd', 'sink_refused'],
      ['gone', 'configuration'],
      ['count', 1],
      ['expression', 2],
    ]);
    expect(rules[0]!.error).toMatchObject({ reason: 'check ref: there is no copy none' });
    expect(rules[2]!.error).toMatchObject({ reason: 'check column: u has no column x' });
    expect([checked, failed]).toEqual([63, 3]);
    const sent = await checkRows(clickhouse, [missing, filled, column], [{ int: null, text: 'a' }], copy.columns);
    expect(sent.rules.map(({ error, failed }) => error?.reason ?? failed)).toEqual([
      'check ref: there is no copy none',
      1,
      'check column: u has no column x',
    ]);
    const away = new ClickHouse({ url: 'http://127.0.0.1:9', database: 'sluice', role: 'write' });
    await expect(checkCopy({ ...copy, clickhouse: away }, all)).rejects.toMatchObject({ kind: 'sink_unreachable' });
  });
});
