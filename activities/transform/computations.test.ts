import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { RuleInput } from '../../model/rules.ts';
import { loadFunctions, runnableBeside } from './custom_functions.ts';
import { decoderFor } from './decode.ts';
import type { Value } from './jinja/values.ts';
import { compileRules } from './rules.ts';

const columns = [
  { name: 'a', type: 'integer' },
  { name: 'b', type: 'numeric(10,2)' },
  { name: 'c', type: 'double precision' },
  { name: 'd', type: 'timestamp with time zone' },
  { name: 'e', type: 'jsonb' },
];

function rowOf(texts: (string | null)[]): Value[] {
  return texts.map((text, i) => {
    if (text === null) return null;
    const bytes = Buffer.from(text);
    return decoderFor(columns[i]!.type)(bytes, 0, bytes.length);
  });
}

/** The text that a rule writes for a row, its type, or why it fails. */
function resultOf(rule: Omit<RuleInput, 'rule_id' | 'target_field'>, texts: (string | null)[]): [string, string] {
  const rules = compileRules([{ rule_id: 'r', target_field: 'x', ...rule }], columns);
  const outcome = rules.apply(rowOf(texts));
  return [outcome === 'kept' ? rules.fields[0]! : rules.rejection.reason, rules.targets[0]!.clickhouse];
}

const aggregate = (type: 'sum' | 'avg' | 'min' | 'max' | 'count', source_fields: string[]) =>
  ({ rule_type: 'aggregate', source_fields, parameters: { type } }) as const;

describe('an aggregate', () => {
  it('is exact, of the fields that are not NULL', () => {
    const row = ['7', '0.10', '1.5', null, null];
    expect(resultOf(aggregate('sum', ['a', 'b']), row)).toEqual(['7.10', 'Nullable(Decimal(13, 2))']);
    expect(resultOf(aggregate('avg', ['a', 'b']), row)[0]).toBe('3.55');
    expect(resultOf(aggregate('min', ['a', 'b', 'c']), row)[0]).toBe('0.10');
    expect(resultOf(aggregate('max', ['a', 'b']), row)).toEqual(['7', 'Nullable(Decimal(12, 2))']);
    expect(resultOf(aggregate('max', ['d', 'd']), ['1', '1', '1', '2024-01-02 03:04:05+00', null])[0]).toContain(
      '2024',
    );
    expect(resultOf(aggregate('count', ['a', 'b', 'd', 'e']), row)).toEqual(['2', 'Nullable(Int64)']);
  });

  it('of nothing but NULL is NULL, and a count 0', () => {
    const row = [null, null, null, null, null];
    for (const type of ['sum', 'avg', 'min', 'max'] as const)
      expect(resultOf(aggregate(type, ['a', 'b']), row)[0]).toBe('\\N');
    expect(resultOf(aggregate('count', ['a', 'b']), row)[0]).toBe('0');
  });

  it('has a budget of its own for each row', () => {
    const texts = ['a', 'b'].map((name) => ({ name, type: 'text' }));
    const rules = compileRules([{ rule_id: 'r', target_field: 'x', ...aggregate('min', ['a', 'b']) }], texts);
    const row = [`${'x'.repeat(100_000)}a`, `${'x'.repeat(100_000)}b`];
    for (let i = 0; i < 100; i++) expect(rules.apply([...row])).toBe('kept');
  });

  it('fails for what has no sum or order', () => {
    const row = ['1', '1', '1', '2024-01-02 03:04:05+00', null];
    for (const type of ['sum', 'avg'] as const)
      expect(() => resultOf(aggregate(type, ['a', 'd']), row)).toThrow(
        `rule r: source_fields names d, a datetime, which has no ${type}`,
      );
    const free = [{ name: 't', type: { kind: 'any' as const } }];
    const rules = compileRules([{ rule_id: 'r', target_field: 'x', ...aggregate('sum', ['t']) }], free);
    expect([rules.apply(['a']), rules.rejection.reason]).toEqual(['rejected', 'only numbers and durations have a sum']);
    expect(rules.apply([7])).toBe('kept');
    const text = [{ name: 't', type: 'text' }];
    expect(() => compileRules([{ rule_id: 'r', target_field: 'x', ...aggregate('sum', ['t']) }], text)).toThrow(
      'source_fields names t, a text, which has no sum',
    );
    expect(resultOf(aggregate('max', ['a', 'd']), row)[0]).toMatch(/int|datetime/);
  });
});

describe('a custom function', () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), 'sluice-functions-'));
    await mkdir(path.join(folder, 'broken'));
    await writeFile(
      path.join(folder, 'shop.ts'),
      `export const label = { type: 'String', run: (row: { a: number | null; b: string | null }) => row.a + ':' + row.b };
       export const seen = { type: 'String', run: (row: object) => JSON.stringify(row) };
       export const twice = { type: 'Int64', run: (row: { a: number }) => BigInt(row.a) * 2n };
       export const bad = { type: 'Int64', run: () => { throw new RangeError('secret'); } };
       export const list = { type: 'Array(Int64)', run: () => [1, 2] };`,
    );
    await writeFile(path.join(folder, 'wrong.ts'), 'export const number = 5;');
    await writeFile(path.join(folder, 'worse.ts'), 'export const = ;');
  });
  afterAll(async () => await rm(folder, { recursive: true }));

  const custom = (name: string, source_fields: string[] = ['a', 'b']) =>
    ({ rule_type: 'custom', source_fields, parameters: { function: name } }) as const;
  const row = ['7', '0.10', '1.5', '2024-01-02 03:04:05.5+00', '{"k": [1, null]}'];

  it('gets the fields of a row, and answers what goes into its column', async () => {
    const { names, errors } = await loadFunctions(folder);
    expect(names.sort()).toEqual(['bad', 'label', 'list', 'seen', 'twice']);
    expect(errors.map(({ place, message }) => [path.basename(place.file!), message])).toEqual([
      ['worse.ts', expect.stringContaining('cannot be loaded')],
      ['wrong.ts', 'number is no function for rules'],
    ]);
    expect(resultOf(custom('label'), row)).toEqual(['7:0.10', 'Nullable(String)']);
    expect(resultOf(custom('twice'), row)).toEqual(['14', 'Nullable(Int64)']);
    expect(resultOf(custom('list'), row)).toEqual(['[1,2]', 'Array(Int64)']);
    expect(JSON.parse(resultOf(custom('seen', ['a', 'b', 'c', 'd', 'e']), row)[0])).toEqual({
      a: 7,
      b: '0.10',
      c: 1.5,
      d: '2024-01-02T03:04:05.500000Z',
      e: { k: [1, null] },
    });
  });

  it('that throws fails for that row, without a word of its values; one that is not there is a mistake', async () => {
    await loadFunctions(folder);
    expect(resultOf(custom('bad'), row)[0]).toBe('the function threw RangeError');
    expect(() => resultOf(custom('labl'), row)).toThrow('there is no function labl');
    expect(await loadFunctions(path.join(folder, 'none'))).toEqual({ names: [], errors: [] });
  });

  it('that is not there does not keep other rules from being tried', async () => {
    await loadFunctions(folder);
    const known: RuleInput = { rule_id: 'known', ...custom('label'), target_field: 'l' };
    const elsewhere: RuleInput = { rule_id: 'elsewhere', ...custom('risk'), target_field: 'r' };
    const tried: RuleInput = { rule_id: 'tried', rule_type: 'map', source_fields: ['a'], target_field: 't' };
    expect(runnableBeside(tried, [known, elsewhere, tried])).toEqual([known, tried]);
    expect(runnableBeside({ ...tried, source_fields: ['r'] }, [elsewhere])).toEqual([elsewhere]);
    expect(runnableBeside(elsewhere, [elsewhere])).toEqual([elsewhere]);
  });
});
