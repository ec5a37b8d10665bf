/** What joins make of the fields that are found, and of those that nobody can compute with. */
import { describe, expect, it } from 'vitest';
import type { RuleInput } from '../../model/rules.ts';
import { longestKey } from '../load/key_lists.ts';
import type { Value } from './jinja/values.ts';
import { keyId, type LookUp } from './join.ts';
import { compileRules, type RuleSet } from './rules.ts';

const fields = { price: 'Nullable(Float64)', many: 'Array(Nullable(Float32))', day: 'Nullable(Date32)' };
const joined = { shop_prices: { id: 'Int32', ...fields } };

function joining(onError: RuleInput['on_error'], names: (keyof typeof fields)[]): RuleSet {
  const rule: RuleInput = {
    rule_id: 'price',
    rule_type: 'join',
    on_error: onError,
    parameters: { asset: 'shop_prices', on: { of: 'id' }, fields: names },
  };
  return compileRules([rule], [{ name: 'of', type: 'integer' }], joined);
}

/** A copy with these rows: key, then fields as TSV. */
function copyOf(...rows: [string, ...string[]][]): LookUp {
  return async () => new Map(rows.map(([key, ...found]) => [keyId([key]), found]));
}

/** What becomes of rows with these keys: their fields as TSV, or why not. */
async function outcomes(rules: RuleSet, lookUp: LookUp, ...keys: number[]): Promise<string[]> {
  const rows = keys.map((key): Value[] => [key]);
  for (const join of rules.joins) {
    for (const row of rows) rules.want(join, row);
    await join.lookUp(lookUp);
  }
  return rows.map((row) => {
    const outcome = rules.apply(row);
    return outcome === 'rejected' ? rules.rejection.reason : rules.fields.join(' ');
  });
}

describe('a join', () => {
  it('takes floats that are no numbers, as ClickHouse writes them', async () => {
    const lookUp = copyOf(['1', 'nan', '[nan,NULL,-inf]'], ['2', 'inf', '[]'], ['3', '-inf', '[inf,1.5]']);
    expect(await outcomes(joining('reject', ['price', 'many']), lookUp, 1, 2, 3)).toEqual([
      'nan [nan,NULL,-inf]',
      'inf []',
      '-inf [inf,1.5]',
    ]);
  });

  it('fails for those rows alone that take a field which cannot be read', async () => {
    const lookUp = copyOf(['1', '2024-01-01'], ['2', 'soon']);
    expect(await outcomes(joining('reject', ['day']), lookUp, 1, 2, 1)).toEqual([
      '2024-01-01',
      'a date outside of the years 1 … 9999',
      '2024-01-01',
    ]);
    expect(await outcomes(joining('null', ['day']), lookUp, 1, 2)).toEqual(['2024-01-01', '\\N']);
    await expect(outcomes(joining('stop', ['day']), lookUp, 2)).rejects.toMatchObject({ kind: 'rule_failed' });
  });

  it('asks for no key that fits into no statement', async () => {
    const rule: RuleInput = {
      rule_id: 'name',
      rule_type: 'join',
      parameters: { asset: 'shop_names', on: { of: 'code' }, fields: ['name'] },
    };
    const types = { shop_names: { code: 'String', name: 'String' } };
    const rules = compileRules([rule], [{ name: 'of', type: 'text' }], types);
    const asked: string[][] = [];
    const lookUp: LookUp = async (_, keys) => {
      asked.push(...keys);
      return new Map(keys.map((key) => [keyId(key), ['found']]));
    };
    const [short, long] = ['x'.repeat(longestKey), 'x'.repeat(longestKey + 1)];
    const rows: Value[][] = [[short], [long]];
    for (const row of rows) rules.want(rules.joins[0]!, row);
    await rules.joins[0]!.lookUp(lookUp);
    expect(rows.map((row) => rules.apply(row))).toEqual(['kept', 'rejected']);
    expect(rules.rejection.reason).toBe('a key of shop_names has 262144 characters at most');
    expect(asked).toEqual([[short]]);
  });
});
