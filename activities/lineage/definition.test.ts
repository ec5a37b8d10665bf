import { describe, expect, it } from 'vitest';
import { Lineage } from '../../model/lineage.ts';
import type { RuleInput } from '../../model/rules.ts';
import type { Column, TableSchema } from '../../model/table.ts';
import { assetTable } from '../extract/asset_copy.ts';
import { digestOf, graphOf } from './definition.ts';

const column = (name: string, attnum: number, type = 'text'): Column => ({
  attnum,
  name,
  type,
  typeOid: 25,
  typmod: -1,
  notNull: false,
  key: name === 'id',
  encoding: 'text',
  clickhouse: 'Nullable(String)',
});

const accounts: TableSchema = {
  asset_id: 'shop_accounts',
  schema: 'public',
  table: 'accounts',
  oid: 1,
  relfilenode: 1,
  identity: 'default',
  columns: [column('id', 1, 'integer'), column('email', 2), column('country', 4), column('amount', 5, 'numeric(12,2)')],
  leftOut: [{ attnum: 3, name: 'password', why: 'excluded' }],
};

const map = (rule_id: string, expression: string, target_field: string): RuleInput => ({
  rule_id,
  rule_type: 'map',
  expression,
  target_field,
});

describe('a table', () => {
  it('is captured column by column', () => {
    const { nodes, edges } = graphOf('shop', accounts);
    expect(nodes.map(({ asset_id, type }) => [asset_id, type])).toEqual([
      ['shop_accounts', 'source_table'],
      ['clickhouse_shop_accounts', 'copy'],
    ]);
    expect(edges.map(({ via, columns }) => [via, columns.map(({ from }) => from)])).toEqual([
      ['capture', ['id', 'email', 'country', 'amount']],
    ]);
    expect(digestOf(graphOf('shop', accounts))).not.toBe(digestOf(graphOf('shop', { ...accounts, columns: [] })));
  });

  it('has edges for its rules: what each reads, also by way of earlier ones, and of columns that are stored nowhere', () => {
    const rules: RuleInput[] = [
      map('domain', '{{ email.split("@")[1] }}', 'domain'),
      map('place', '{{ domain }} in {{ country }}', 'place'),
      map('strong', '{{ password | length > 8 }}', 'strong'),
      map('mask', '***@{{ domain }}', 'email'),
      { rule_id: 'only_de', rule_type: 'filter', expression: '{{ country == "DE" }}' },
      {
        rule_id: 'total',
        rule_type: 'aggregate',
        source_fields: ['amount'],
        target_field: 'total',
        parameters: { type: 'sum' },
      },
      {
        rule_id: 'rate',
        rule_type: 'join',
        target_field: 'their_rate',
        parameters: { asset: 'clickhouse_shop_rates', on: { country: 'code' }, fields: ['rate'] },
      },
    ];
    const { edges, nodes } = graphOf('shop', {
      ...accounts,
      rules: { version: 1, rules: rules.map((rule) => ({ ...rule, version: 1 })), checks: [] },
    });
    const found = edges.map(({ from, via, columns }) => [
      from,
      via,
      columns.map(({ from: a, to: b }) => `${a}>${b}`).join(' '),
    ]);
    expect(found).toEqual([
      ['shop_accounts', 'capture', 'id>id country>country amount>amount'],
      ['shop_accounts', 'domain', 'email>domain'],
      ['shop_accounts', 'place', 'country>place email>place'],
      ['shop_accounts', 'strong', 'password>strong'],
      ['shop_accounts', 'mask', 'email>email'],
      ['shop_accounts', 'only_de', 'country>*'],
      ['shop_accounts', 'total', 'amount>total'],
      ['shop_accounts', 'rate', 'country>their_rate'],
      ['clickhouse_shop_rates', 'rate', 'rate>their_rate code>their_rate'],
    ]);
    expect(nodes[0]?.columns).toEqual(['id', 'email', 'country', 'amount', 'password']);
    expect(nodes[1]?.columns).toEqual([
      'id',
      'email',
      'country',
      'amount',
      'domain',
      'place',
      'strong',
      'total',
      'their_rate',
    ]);
    const { affected } = new Lineage({ nodes, edges }).impact('shop_accounts', 'password');
    expect(affected.map((one) => one.columns)).toEqual([['strong']]);
    const all = new Lineage({ nodes, edges }).impact('shop_accounts', 'country').affected[0]?.columns;
    expect(all).toEqual(nodes[1]?.columns);
  });
});

describe('a deployment', () => {
  it('leads from its API by its files to its copy', () => {
    const { edges } = graphOf('assets', assetTable('assets'));
    expect(edges.map(({ from, to, via }) => [from, to, via])).toEqual([
      ['api_assets', 'csv_assets', 'extract'],
      ['csv_assets', 'clickhouse_assets', 'load'],
    ]);
    expect(edges[1]?.columns.at(-1)).toEqual({ from: 'deleted', to: '*' });
    const rules = [{ ...map('upper', '{{ name | upper }}', 'name'), version: 1 }];
    const ruled = graphOf('assets', { ...assetTable('assets'), rules: { version: 1, rules, checks: [] } });
    expect(ruled.edges[1]?.columns).not.toContainEqual({ from: 'name', to: 'name' });
    expect(ruled.edges[2]).toMatchObject({ from: 'csv_assets', via: 'upper', columns: [{ from: 'name', to: 'name' }] });
  });
});
