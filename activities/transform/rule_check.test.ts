import { describe, expect, it } from 'vitest';
import { readRules } from '../../model/rules.ts';
import { checkDeclared, type KnownTable, newIssues } from './rule_check.ts';

const tables: KnownTable[] = [
  {
    asset: 'main_accounts',
    columns: [
      { name: 'id', type: 'bigint' },
      { name: 'email', type: 'text' },
    ],
  },
  {
    asset: 'main_orders',
    columns: [
      { name: 'id', type: 'bigint' },
      { name: 'total', type: 'numeric(12,2)' },
    ],
  },
];

const map = { rule_id: 'm', rule_type: 'map', target_field: 'x', source_fields: ['email'], expression: '{{ email }}' };
const range = { rule_id: 'c', asset: 'main_orders', field: 'total', rule_type: 'range', parameters: { min: 0 } };

function issues(rules: object[], checks: object[] = []) {
  const read = readRules({ rules, checks });
  const version = 1;
  return checkDeclared(
    {
      rules: read.rules!.map((rule) => ({ ...rule, version })),
      checks: read.checks!.map((one) => ({ ...one, version })),
    },
    tables,
  );
}

describe('declared rules', () => {
  it('are right for the tables that they are for', () => {
    expect(
      issues([map, { ...map, rule_id: 'n', source_fields: ['x'], expression: '{{ x.upper() }}' }], [range]),
    ).toEqual([]);
  });

  it('are told with pointer, line and column', () => {
    expect(issues([map, { ...map, rule_id: 'n', expression: '{{ email.split( }}' }])).toEqual([
      {
        pointer: '/rules/1/expression',
        detail: expect.stringMatching(/^for main_accounts: line 1, column \d+: /),
        line: 1,
        column: expect.any(Number),
      },
    ]);
    expect(issues([{ ...map, assets: ['main_orders'] }])).toEqual([
      {
        pointer: '/rules/0/source_fields',
        detail: expect.stringContaining('for main_orders: rule m: source_fields names email'),
      },
    ]);
    expect(issues([{ ...map, target_type: 'Strin' }])[0]!.pointer).toBe('/rules/0/target_type');
    expect(issues([], [{ ...range, parameters: { min: 'x' } }])[0]!.pointer).toBe('/checks/0/parameters/min');
    expect(issues([], [{ ...range, field: 'totl' }])[0]!.pointer).toBe('/checks/0/field');
    const unique = { rule_id: 'u', asset: 'main_orders', rule_type: 'unique', parameters: { fields: ['id', 'no'] } };
    expect(issues([], [unique])[0]!.detail).toContain('no is no column');
  });

  it('are not kept from being changed by what was wrong before', () => {
    const version = 1;
    const old = { ...readRules({ rules: [map] }).rules![0]!, assets: ['main_orders'], version };
    const set = (rules: (typeof old)[]) => ({ version, rules, checks: [] });
    const other = { ...old, rule_id: 'n', source_fields: [], target_field: 'y' };
    const found = (rules: (typeof old)[]) => newIssues(set([old]), set(rules), tables).map(({ pointer }) => pointer);
    expect(found([{ ...other, expression: '{{ total }}' }, old])).toEqual([]);
    expect(found([old, { ...other, expression: '{{ totl }}' }])).toEqual(['/rules/1/expression']);
    // Another version of it must be right.
    expect(found([{ ...old, version: 2 }])).toEqual(['/rules/0/source_fields']);
  });

  it('are refused for tables without a key, but for checks that warn', () => {
    const log: KnownTable = { asset: 'main_log', columns: [{ name: 'email', type: 'text', key: false }] };
    const count = {
      rule_id: 'n',
      asset: 'main_log',
      rule_type: 'row_count',
      parameters: { min: 1 },
      severity: 'warn',
      version: 1,
    } as const;
    const there = {
      ...count,
      rule_id: 't',
      field: 'email',
      rule_type: 'not_null',
      parameters: {},
      severity: 'reject',
    } as const;
    const rule = { ...readRules({ rules: [map] }).rules![0]!, version: 1 };
    const found = checkDeclared({ rules: [rule], checks: [count, there] }, [log]);
    expect(found.map(({ pointer }) => pointer)).toEqual(['/rules/0', '/checks/1']);
    expect(found[0]!.detail).toContain('for main_log: a table without a key takes no rules');
  });

  it('of tables that nobody knows yet are read as far as they can be', () => {
    const later = { ...map, assets: ['later_*'], source_fields: ['name'] };
    expect(issues([{ ...later, expression: '{{ name ~ row["Order ID"] ~ other | upper }}' }])).toEqual([]);
    expect(issues([{ ...later, expression: '{"a": "{{ name.split(\\"x\\") }}", "b": "{{ z }}"}' }])).toEqual([]);
    expect(issues([{ ...later, expression: '{{ name | uper }}' }])[0]).toMatchObject({
      pointer: '/rules/0/expression',
      line: 1,
    });
    expect(issues([{ ...later, expression: '{{ name' }])[0]).toMatchObject({ pointer: '/rules/0/expression' });
    const expression = { rule_id: 'e', asset: 'later_x', rule_type: 'expression', parameters: { expression: 'a > b' } };
    expect(issues([], [expression])).toEqual([]);
    expect(issues([], [{ ...expression, parameters: { expression: 'a > ' } }])[0]).toMatchObject({
      pointer: '/checks/0/parameters/expression',
    });
    expect(issues([], [{ ...range, asset: 'later_x' }])).toEqual([]);
    const unique = { rule_id: 'u', asset: 'later_x', rule_type: 'unique', parameters: { fields: ['no'] } };
    expect(issues([], [unique])).toEqual([]);
  });
});
