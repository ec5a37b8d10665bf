import { describe, expect, it } from 'vitest';
import { checkRows } from '../check/quality_rows.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { previewRule } from './preview.ts';

const mask = {
  rule_id: 'mask_email',
  rule_type: 'map',
  source_fields: ['email'],
  target_field: 'masked_email',
  expression: '{{ email.split("@")[0][:3] }}***@{{ email.split("@")[1] }}',
} as const;

describe('a preview', () => {
  it('shows rows with what the rule makes of them', async () => {
    const preview = await previewRule({ ...mask, source_fields: ['email'] }, [
      { id: 1, email: 'john.doe@example.com' },
      { id: 2, email: null },
      { id: 3, email: 'nobody' },
    ]);
    expect(preview.rows).toEqual([
      { id: 1, email: 'john.doe@example.com', masked_email: 'joh***@example.com' },
      { id: 2, email: null, masked_email: null },
      // A second part that is not there prints as nothing.
      { id: 3, email: 'nobody', masked_email: 'nob***@' },
    ]);
    expect(preview.rejected).toEqual([]);
    expect(preview.rows_per_second).toBeGreaterThan(1000);
  });

  it('tells rejected rows by their number', async () => {
    const rule = { rule_id: 'n', rule_type: 'map', target_field: 'm', expression: '{{ n + 1 }}' } as const;
    const preview = await previewRule(rule, [{ n: 1 }, { n: 'x' }, { n: null }, {}, { n: 9007199254740991 }]);
    expect(preview.rejected).toEqual([{ row: 1, reason: '"+" does not work between str and int' }]);
    expect(preview.rows).toEqual([
      { n: 1, m: 2 },
      { n: null, m: null },
      { m: null },
      { n: 9007199254740991, m: '9007199254740992' },
    ]);
  });

  it('leaves out what a filter stops', async () => {
    const rule = { rule_id: 'f', rule_type: 'filter', expression: '{{ amount > 10 }}' } as const;
    const rows = [{ amount: 5 }, { amount: 10.5 }, { amount: 11 }];
    expect((await previewRule(rule, rows)).rows).toEqual([{ amount: 10.5 }, { amount: 11 }]);
  });

  it('takes the types of the columns where they are given', async () => {
    const rule = { rule_id: 'd', rule_type: 'map', target_field: 't', expression: '{{ a * 3 }}' } as const;
    expect((await previewRule(rule, [{ a: 0.1 }])).rows).toEqual([{ a: 0.1, t: 0.30000000000000004 }]);
    expect(
      await previewRule(rule, [{ a: 0.1 }, { a: '0.2' }, { a: 'x' }], [{ name: 'a', type: 'numeric(5,2)' }]),
    ).toMatchObject({
      rows: [
        { a: 0.1, t: '0.3' },
        { a: '0.2', t: '0.6' },
      ],
      rejected: [{ row: 2, reason: 'a has a text that is no numeric(5,2)' }],
    });
  });

  it('shows nested values, and names of JavaScript as data', async () => {
    const rule = {
      rule_id: 'j',
      rule_type: 'map',
      target_field: 't',
      expression: '{"a": "{{ d }}", "b": "{{ d.list[0] }}"}',
    } as const;
    const row = JSON.parse('{"d": {"__proto__": 1, "list": [1.5, null]}}');
    const [shown] = (await previewRule(rule, [row])).rows;
    expect(JSON.stringify(shown)).toBe(
      '{"d":{"__proto__":1,"list":[1.5,null]},"t":{"a":{"__proto__":1,"list":[1.5,null]},"b":1.5}}',
    );
  });

  it('refuses a rule that does not compile', async () => {
    await expect(
      previewRule({ ...mask, source_fields: [], expression: '{{ emial }}' }, [{ email: 'x' }]),
    ).rejects.toThrow('rule mask_email, line 1, column 4');
  });

  const endless = '{% for i in range(60000) %}{% set x = (i ~ "") | upper %}{% endfor %}{{ n }}';
  const tooMany = Array.from({ length: 10_000 }, (_, n) => ({ n }));

  it('ends when its time is out, and keeps nobody else waiting', async () => {
    const rule = { rule_id: 'e', rule_type: 'map', target_field: 't', expression: endless } as const;
    let longest = 0;
    let before = performance.now();
    const others = setInterval(() => {
      longest = Math.max(longest, performance.now() - before);
      before = performance.now();
    }, 1);
    await expect(previewRule(rule, tooMany)).rejects.toMatchObject({
      kind: 'configuration',
      message: expect.stringMatching(/^it took longer than 2 s: \d+ of 10000 rows were done$/),
    });
    clearInterval(others);
    expect(longest).toBeGreaterThan(0);
    expect(longest).toBeLessThan(500);
  });

  it('of checks ends likewise', async () => {
    const check = {
      rule_id: 'e',
      asset: 'a',
      rule_type: 'expression',
      severity: 'warn',
      parameters: { expression: `${endless.replace('{{ n }}', '')}true` },
    } as const;
    await expect(checkRows({} as ClickHouse, [check], tooMany, [])).rejects.toThrow('of 10000 rows were done');
  });

  it('refuses numbers that JSON may have rounded, with their places', async () => {
    const rule = { rule_id: 'n', rule_type: 'map', target_field: 'm', expression: '{{ big + 1 }}' } as const;
    const rows = JSON.parse(
      '[{"big": 9007199254740993}, {"big": 7, "deep": {"a/b": [1e300]}}, {"big": 9007199254740991}]',
    );
    await expect(previewRule(rule, rows)).rejects.toMatchObject({
      issues: [
        { pointer: '/rows/0/big', detail: expect.stringContaining('not exact in JSON') },
        { pointer: '/rows/1/deep/a~1b/0' },
      ],
    });
    const typed = (type: string, text: string) => {
      const sent = JSON.parse(`[{"big": ${text}}]`);
      return previewRule(rule, sent, [{ name: 'big', type }]).then(({ rows }) => rows[0]!.m);
    };
    expect(await typed('bigint', '"9007199254740993"')).toBe('9007199254740994');
    expect(await typed('numeric', '"0.1234567890123456789"')).toBe('1.1234567890123456789');
    await expect(typed('numeric', '0.1234567890123456789')).rejects.toMatchObject({ kind: 'configuration' });
    expect(await typed('numeric', '-0.00123456789012345')).toBe('0.99876543210987655');
    expect(await typed('double precision', '1e300')).toBe(1e300);
    const check = {
      rule_id: 'c',
      asset: 'a',
      rule_type: 'not_null',
      field: 'big',
      severity: 'warn',
      parameters: {},
    } as const;
    await expect(checkRows({} as ClickHouse, [check], rows, [])).rejects.toMatchObject({ kind: 'configuration' });
  });

  it('refuses rows of which each has other columns', async () => {
    const rule = { rule_id: 'n', rule_type: 'map', target_field: 'm', expression: '{{ 1 }}' } as const;
    const rows = Array.from({ length: 5000 }, (_, n) => ({ [`a${n}`]: 1 }));
    await expect(previewRule(rule, rows)).rejects.toThrow('the rows have more than 1000 columns');
  });

  it('has no speed without rows', async () => {
    const rule = { rule_id: 'n', rule_type: 'map', target_field: 'm', expression: '{{ 1 }}' } as const;
    expect(await previewRule(rule, [])).toEqual({ rows: [], rejected: [], rows_per_second: 0 });
  });
});
