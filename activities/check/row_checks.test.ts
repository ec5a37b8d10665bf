import { describe, expect, it } from 'vitest';
import { type CheckInput, readCheck } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import { decoderFor } from '../transform/decode.ts';
import { ExpressionError } from '../transform/expression.ts';
import type { Value } from '../transform/jinja/values.ts';
import { compileRules } from '../transform/rules.ts';
import { compileChecks } from './row_checks.ts';

const types: Record<string, string> = {
  id: 'bigint',
  email: 'text',
  amount: 'numeric(12,2)',
  ratio: 'double precision',
  ok: 'boolean',
  day: 'date',
  at: 'timestamp with time zone',
  local: 'timestamp without time zone',
  tags: 'text[]',
  doc: 'jsonb',
};
const columns = Object.entries(types).map(([name, type]) => ({ name, type }));

/** A row of PostgreSQL's texts; what is not there is NULL. */
function row(texts: Record<string, string>): Value[] {
  return columns.map(({ name, type }) => {
    const bytes = Buffer.from(texts[name] ?? '');
    return texts[name] === undefined ? null : decoderFor(type)(bytes, 0, bytes.length);
  });
}

function check(rule_type: string, field: string | undefined, parameters: object = {}, more: object = {}): CheckInput {
  return readCheck({ rule_id: rule_type, asset: 't', field, rule_type, parameters, severity: 'reject', ...more });
}

/** Whether each of some texts of a field passes. */
function verdicts(one: CheckInput, ...texts: string[]): boolean[] {
  const checks = compileChecks([one], columns);
  return texts.map((text) => checks.apply(row({ [one.field!]: text })) === undefined);
}

describe('each type', () => {
  it('range compares exactly, whatever the type of the field', () => {
    expect(verdicts(check('range', 'amount', { min: 0 }), '-0.01', '0.00', '0.01')).toEqual([false, true, true]);
    expect(verdicts(check('range', 'amount', { max: 0.1 }), '0.10', '0.11')).toEqual([true, false]);
    expect(verdicts(check('range', 'id', { min: '9007199254740993' }), '9007199254740992', '9007199254740993')).toEqual(
      [false, true],
    );
    expect(verdicts(check('range', 'id', { min: 0.5, max: 2 }), '0', '1', '3')).toEqual([false, true, false]);
    expect(verdicts(check('range', 'ratio', { min: 0, max: 1 }), '0.5', 'NaN', 'Infinity')).toEqual([
      true,
      false,
      false,
    ]);
    expect(verdicts(check('range', 'day', { min: '2024-02-01' }), '2024-01-31', '2024-02-01')).toEqual([false, true]);
    for (const field of ['at', 'local']) {
      const bounds = check('range', field, { max: '2024-01-31T12:00:00+02:00' });
      expect(verdicts(bounds, '2024-01-31 10:00:00', '2024-01-31 10:00:00.000001')).toEqual([true, false]);
    }
    expect(verdicts(check('range', 'email', { min: 10 }), '9', '10.0', '10', 'x')).toEqual([false, true, true, false]);
    expect(verdicts(check('range', 'email', { min: 'b' }), 'a', 'b')).toEqual([false, true]);
  });

  it('pattern is found anywhere, in linear time', () => {
    expect(verdicts(check('pattern', 'email', { regex: '^[^@]+@[^@]+$' }), 'a@b', 'a')).toEqual([true, false]);
    expect(verdicts(check('pattern', 'id', { regex: '7' }), '175', '155')).toEqual([true, false]);
    const begun = performance.now();
    expect(verdicts(check('pattern', 'email', { regex: '(a+)+$' }), `${'a'.repeat(5000)}!`)).toEqual([false]);
    expect(performance.now() - begun).toBeLessThan(2000);
  });

  it('length counts characters and items', () => {
    expect(verdicts(check('length', 'email', { min: 2, max: 3 }), 'é', '😀😀', 'abcd')).toEqual([false, true, false]);
    expect(verdicts(check('length', 'tags', { max: 1 }), '{a}', '{a,b}')).toEqual([true, false]);
  });

  it('accepted_values compares as the field does', () => {
    expect(verdicts(check('accepted_values', 'email', { values: ['a', 5] }), 'a', '5', 'b')).toEqual([
      true,
      true,
      false,
    ]);
    expect(verdicts(check('accepted_values', 'amount', { values: [1.5, '2'] }), '1.50', '2.00', '3')).toEqual([
      true,
      true,
      false,
    ]);
    expect(verdicts(check('accepted_values', 'ok', { values: [true] }), 't', 'f')).toEqual([true, false]);
    expect(verdicts(check('accepted_values', 'day', { values: ['2024-01-31'] }), '2024-01-31', '2024-01-30')).toEqual([
      true,
      false,
    ]);
    const at = check('accepted_values', 'at', { values: ['2024-01-31T00:00:00Z'] });
    expect(verdicts(at, '2024-01-31 00:00:00+00', '2024-01-31 00:00:01+00')).toEqual([true, false]);
  });

  it('type takes what can be read as one', () => {
    const of = (field: string, type: string, ...texts: string[]) => verdicts(check('type', field, { type }), ...texts);
    expect(of('email', 'long', '12', '-9223372036854775808', '9223372036854775808', '1.5')).toEqual([
      true,
      true,
      false,
      false,
    ]);
    expect(of('email', 'uuid', '018f3b1e-0000-7000-8000-000000000000', 'x')).toEqual([true, false]);
    expect(of('email', 'timestamp', '2024-01-31 10:00:00+00', '31.1.2024')).toEqual([true, false]);
    expect(of('email', 'double', '1e5', '-.5', 'NaN', 'x')).toEqual([true, true, true, false]);
    expect(of('email', 'array<int>', '[1,2]', '[1.5]', '{}')).toEqual([true, false, false]);
    expect(of('email', 'json', '{"a":1}', '{')).toEqual([true, false]);
    expect(of('email', 'boolean', 'TRUE', '1')).toEqual([true, false]);
    expect(of('amount', 'int', '5.00', '5.10', '3000000000.00')).toEqual([true, false, false]);
    expect(of('amount', 'decimal(4,1)', '5.10', '5.11', '1000.00')).toEqual([true, false, false]);
    expect(of('id', 'int', '2147483647', '2147483648')).toEqual([true, false]);
    expect(of('day', 'date', '2024-01-31')).toEqual([true]);
    expect(of('ok', 'string', 't')).toEqual([false]);
    expect(of('doc', 'json', '[1]', '"x"')).toEqual([true, false]);
  });

  it('expression sees the whole row, with or without braces', () => {
    for (const expression of ['amount > 5 and email', '{{ amount > 5 and email }}']) {
      const checks = compileChecks([check('expression', undefined, { expression })], columns);
      expect(checks.uses).toEqual([1, 2]);
      expect(checks.apply(row({ amount: '6', email: 'x' }))).toBeUndefined();
      expect(checks.apply(row({ amount: '5', email: 'x' }))).toEqual({
        rule_id: 'expression',
        field: undefined,
        reason: 'the expression is not true',
      });
    }
    const failing = compileChecks([check('expression', undefined, { expression: 'email + 1' })], columns);
    expect(failing.apply(row({ email: 'secret' }))!.reason).toBe('"+" does not work between str and int');
  });

  it('not_null alone does not let NULL pass', () => {
    const all = [
      check('range', 'amount', { min: 0 }),
      check('pattern', 'email', { regex: 'x' }),
      check('length', 'email', { min: 1 }),
      check('accepted_values', 'id', { values: [1] }),
      check('type', 'email', { type: 'int' }),
      check('expression', undefined, { expression: 'amount > 5' }),
      check('expression', undefined, { expression: 'email.upper() == "X"' }, { rule_id: 'e2' }),
    ];
    expect(compileChecks(all, columns).failures(row({}))).toEqual([]);
    expect(compileChecks([check('not_null', 'email')], columns).apply(row({}))).toEqual({
      rule_id: 'not_null',
      field: 'email',
      reason: 'email must not be NULL',
    });
  });

  it('targets of rules are checked as columns are', () => {
    const rule = { rule_id: 'm', rule_type: 'map', target_field: 'twice', expression: '{{ amount * 2 }}' } as const;
    const rules = compileRules([rule], columns);
    const checks = compileChecks([check('range', 'twice', { max: 10 })], rules.columns);
    const values = row({ amount: '5.01' });
    rules.apply(values);
    expect(checks.apply(values)?.reason).toBe('twice must be at most 10');
  });
});

describe('severities', () => {
  const warn = check('range', 'amount', { min: 0 }, { rule_id: 'w', severity: 'warn' });
  const reject = check('range', 'amount', { min: -5 }, { rule_id: 'r' });
  const stop = check('range', 'amount', { min: -10 }, { rule_id: 's', severity: 'stop' });

  it('count, hold back, and stop', () => {
    const checks = compileChecks([warn, reject, stop], columns);
    expect(checks.apply(row({ amount: '1' }))).toBeUndefined();
    expect(checks.apply(row({ amount: '-1' }))).toBeUndefined();
    expect(checks.apply(row({ amount: '-6' }))).toEqual({
      rule_id: 'r',
      field: 'amount',
      reason: 'amount must be at least -5',
    });
    expect(() => checks.apply(row({ amount: '-11' }))).toThrow(SluiceError);
    expect(checks.rows).toEqual({ checked: 4, failed: 2 });
    expect(Object.fromEntries(checks.takeCounts())).toEqual({
      w: { checked: 4, failed: 3 },
      r: { checked: 4, failed: 2 },
      s: { checked: 4, failed: 1 },
    });
    expect(checks.takeCounts().get('w')).toEqual({ checked: 0, failed: 0 });
  });

  it('leave checks of whole copies to others', () => {
    const unique = check('unique', 'id', {}, { severity: 'warn' });
    expect(compileChecks([unique], columns).takeCounts().size).toBe(0);
  });
});

describe('wrong checks', () => {
  const mistake = (one: CheckInput) => {
    try {
      compileChecks([one], columns);
    } catch (error) {
      return error as SluiceError;
    }
    throw new Error('the check compiles');
  };

  it('are told with their id and their place', () => {
    expect(mistake(check('range', 'amuont', { min: 0 }))).toMatchObject({
      message: 'check range: field names amuont, which is no column',
      remedy: 'Did you mean amount?',
    });
    expect(mistake(check('range', 'day', { min: 'x' })).message).toContain('/parameters/min: must be a date');
    expect(mistake(check('range', 'amount', { max: 'x' })).message).toContain('/parameters/max: must be a number');
    expect(mistake(check('pattern', 'email', { regex: '(' })).message).toContain(
      '/parameters/regex: the pattern is not valid',
    );
    expect(mistake(check('length', 'amount', { min: 1 })).message).toContain('amount has no length');
    expect(mistake(check('accepted_values', 'id', { values: ['x'] })).message).toContain('/parameters/values');
    for (const expression of ['amount >', '{{ amount > }}']) {
      const error = mistake(check('expression', undefined, { expression })) as ExpressionError;
      expect(error).toBeInstanceOf(ExpressionError);
      expect(error.line).toBe(1);
    }
    expect(mistake(check('expression', undefined, { expression: 'emial' }))).toMatchObject({ line: 1, column: 1 });
    expect(mistake(check('expression', undefined, { expression: '{{ amount }} > 5' })).message).toContain(
      'always true',
    );
  });
});
