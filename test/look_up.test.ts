/** Looking rows of copies up by key: many keys, long ones, and text that statements and TSV write otherwise. */
import { randomUUID } from 'node:crypto';
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import { checkRows } from '../activities/check/quality_rows.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { longestKey } from '../activities/load/key_lists.ts';
import { lookUpIn } from '../activities/load/look_up.ts';
import { encoderFor } from '../activities/transform/encode.ts';
import { keyId } from '../activities/transform/join.ts';
import type { CheckInput } from '../model/checks.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';

let parts: StartedParts<'clickhouse'>;
let clickhouse: ClickHouse;

beforeAll(async () => {
  parts = await startParts(['clickhouse']);
  clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'looked_up', role: 'write' });
}, 180_000);

afterAll(async () => {
  await clickhouse?.close();
  await parts?.[Symbol.asyncDispose]();
});

beforeEach(async () => {
  await clickhouse.command('DROP DATABASE IF EXISTS looked_up');
  await clickhouse.command('CREATE DATABASE looked_up');
});

/** A copy with a key of these types and the field `name`, and a function that finds names by keys. */
async function copyOf(types: string[], rows: { key: string[]; name: string }[]) {
  const keys = types.map((_, i) => `k${i}`);
  const columns = [...keys.map((key, i) => `${key} ${types[i]}`), 'name String', '_version UInt128', '_deleted UInt8'];
  const engine = `ENGINE = ReplacingMergeTree(_version, _deleted) ORDER BY (${keys}) SETTINGS allow_nullable_key = 1`;
  await clickhouse.command(`CREATE TABLE looked_up.copy (${columns}) ${engine}`);
  const encoders = types.map((type) => encoderFor(type));
  const field = (key: string[]) => key.map((value, i) => encoders[i]!(value));
  const lines = rows.map(({ key, name }, i) => `${[...field(key), name, i + 1, 0].join('\t')}\n`);
  await clickhouse.insertTsv('copy', [...keys, 'name', '_version', '_deleted'], [Buffer.from(lines.join(''))], 'rows');
  return async (asked: string[][]): Promise<(string | undefined)[]> => {
    const found = await lookUpIn(clickhouse)({ asset: 'copy', keys, fields: ['name'] }, asked.map(field));
    return asked.map((key) => found.get(keyId(field(key)))?.[0]);
  };
}

describe('rows of a copy', () => {
  it('are found by one statement, however many keys a batch has', async () => {
    const rows = Array.from({ length: 15_000 }, (_, i) => ({ key: [randomUUID(), `n${i}`], name: String(i) }));
    const find = await copyOf(['UUID', 'String'], rows);
    const statements = vi.spyOn(clickhouse, 'tsv');
    const names = await find(rows.map(({ key }) => key));
    expect(names).toEqual(rows.map(({ name }) => name));
    expect(statements).toHaveBeenCalledTimes(1);
    statements.mockRestore();
  });

  it('are found by one column and by several, also where keys are empty or hold what TSV escapes', async () => {
    const texts = ['', ' ', '\\N', '\t', "'", '\\', '0', '\n', '中'];
    const findOne = await copyOf(
      ['Nullable(String)'],
      texts.map((text, i) => ({ key: [text], name: String(i) })),
    );
    expect(await findOne([...texts.map((text) => [text]), ['1']])).toEqual([
      ...texts.map((_, i) => String(i)),
      undefined,
    ]);
    await clickhouse.command('DROP TABLE looked_up.copy');
    const rows = texts.map((text, i) => ({ key: [text, String(i), '2024-01-31'], name: String(i) }));
    const findMany = await copyOf(['LowCardinality(String)', 'Int8', 'Date32'], rows);
    expect(await findMany(rows.map(({ key }) => key))).toEqual(rows.map(({ name }) => name));
    expect(await findMany([['', '1', '2024-01-31']])).toEqual([undefined]);
  });

  it('are found by keys that are longer than statements commonly are', async () => {
    const letters = ['a', "'", 'é', '中', '\\', '\n'];
    const rows = letters.map((letter, i) => ({ key: [letter.repeat(longestKey / 2)], name: String(i) }));
    const find = await copyOf(['String'], rows);
    const found = await find([...rows.map(({ key }) => key), ['b'.repeat(longestKey)], ['中'.repeat(longestKey)]]);
    expect(found).toEqual([...rows.map(({ name }) => name), undefined, undefined]);
  });

  it('are found whatever way a key is written', async () => {
    const id = randomUUID();
    const findId = await copyOf(['UUID'], [{ key: [id], name: 'a' }]);
    expect(await findId([[id.toUpperCase()]])).toEqual(['a']);
    await clickhouse.command('DROP TABLE looked_up.copy');
    const findShort = await copyOf(['FixedString(4)'], [{ key: ['ab'], name: 'b' }]);
    expect(await findShort([['ab'], ['ac']])).toEqual(['b', undefined]);
  });
});

describe('a check of relationships on given rows', () => {
  it('finds values of another copy, however many and however long they are', async () => {
    const check: CheckInput = {
      rule_id: 'ref',
      asset: 'rows',
      field: 'ref',
      rule_type: 'relationships',
      parameters: { asset: 'shop_others', field: 'id' },
      severity: 'warn',
    };
    const many = Array.from({ length: 30_000 }, () => randomUUID());
    const there = [...many, "it's", '\\N', 'a\tb\n', '', '7', '中'.repeat(longestKey)];
    await clickhouse.command(
      'CREATE TABLE looked_up.shop_others_current (id Nullable(String)) ENGINE = MergeTree ORDER BY tuple()',
    );
    await clickhouse.insertObjects(
      'shop_others_current',
      there.map((id) => ({ id })),
    );
    const missing = ['none', 'A\tB\n'];
    const rows = [...there, ...missing, null, 7].map((ref) => ({ ref }));
    const { rules } = await checkRows(clickhouse, [check], rows, []);
    expect(rules).toMatchObject([{ checked: rows.length, failed: 2, samples: missing.map((ref) => ({ ref })) }]);
    const long = await checkRows(clickhouse, [check], [{ ref: 'x'.repeat(longestKey + 1) }], []);
    expect(long.rules).toMatchObject([{ checked: 0, error: { kind: 'configuration' } }]);
  });
});
