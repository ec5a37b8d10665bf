import { describe, expect, it } from 'vitest';
import { SluiceError } from '../../model/errors.ts';
import type { RuleInput } from '../../model/rules.ts';
import { parseDecimal } from './jinja/decimal.ts';
import type { Value } from './jinja/values.ts';
import { compileRules } from './rules.ts';

const columns = [
  { name: 'id', type: 'bigint' },
  { name: 'email', type: 'text' },
  { name: 'amount', type: 'numeric(12,2)' },
  { name: 'note', type: 'text' },
];

function map(rule_id: string, target_field: string, expression: string, more: Partial<RuleInput> = {}): RuleInput {
  return { rule_id, rule_type: 'map', target_field, expression, ...more };
}

function filter(rule_id: string, expression: string, more: Partial<RuleInput> = {}): RuleInput {
  return { rule_id, rule_type: 'filter', expression, ...more };
}

function row(email: string | null, amount = '10.00'): Value[] {
  return [1, email, parseDecimal(amount)!, null];
}

function mistake(rules: RuleInput[]): SluiceError {
  try {
    compileRules(rules, columns);
  } catch (error) {
    expect(error).toBeInstanceOf(SluiceError);
    return error as SluiceError;
  }
  throw new Error('the rules compile');
}

describe('maps', () => {
  it('fill their targets, as text for the type of the column', () => {
    const rules = compileRules(
      [
        map('mask', 'masked', '{{ email.split("@")[0][:3] }}***@{{ email.split("@")[1] }}'),
        map('double', 'twice', '{{ amount * 2 }}'),
        map('json', 'doc', '{"e": "{{ email }}", "a": "{{ amount }}"}'),
        map('typed', 'cents', '{{ amount * 100 }}', { target_type: 'Int64' }),
      ],
      columns,
    );
    expect(rules.uses).toEqual([1, 2]);
    expect(rules.targets).toEqual([
      { name: 'masked', clickhouse: 'Nullable(String)', replaces: false },
      { name: 'twice', clickhouse: 'Nullable(Decimal(13, 2))', replaces: false },
      { name: 'doc', clickhouse: 'Nullable(String)', replaces: false },
      { name: 'cents', clickhouse: 'Nullable(Int64)', replaces: false },
    ]);
    expect(rules.apply(row('john@x.org', '10.25'))).toBe('kept');
    expect(rules.fields).toEqual(['joh***@x.org', '20.50', '{"e":"john@x.org","a":10.25}', '1025']);
    expect(rules.apply(row('tab\t@x\\', '-0.05'))).toBe('kept');
    expect(rules.fields).toEqual(['tab***@x\\\\', '-0.10', '{"e":"tab\\\\t@x\\\\\\\\","a":-0.05}', '-5']);
  });

  it.each([
    ['DateTime', "Nullable(DateTime('UTC'))"],
    ["DateTime('UTC')", "Nullable(DateTime('UTC'))"],
    ['DateTime64(3)', "Nullable(DateTime64(3, 'UTC'))"],
    ["Nullable(DateTime64(3,'UTC'))", "Nullable(DateTime64(3,'UTC'))"],
    ['Array(Nullable(DateTime64( 6 )))', "Array(Nullable(DateTime64(6, 'UTC')))"],
  ])('of type %s have moments in UTC, whatever zone the server has', (target_type, clickhouse) => {
    expect(compileRules([map('at', 'at', '{{ none }}', { target_type })], columns).targets).toMatchObject([
      { clickhouse },
    ]);
  });

  it('see the targets of those before them', () => {
    const rules = compileRules(
      [
        map('a', 'domain', '{{ email.split("@")[1] }}'),
        map('b', 'kind', '{{ "own" if domain == "x.org" else "other" }}'),
        map('c', 'domain', '{{ domain.upper() }}'),
        map('d', 'email', '{{ domain }}'),
        map('e', 'last', '{{ email }}'),
      ],
      columns,
    );
    expect(rules.targets.map(({ name, replaces }) => [name, replaces])).toEqual([
      ['domain', false],
      ['kind', false],
      ['email', true],
      ['last', false],
    ]);
    expect(rules.apply(row('a@x.org'))).toBe('kept');
    expect(rules.fields).toEqual(['X.ORG', 'own', 'X.ORG', 'X.ORG']);
    // What the last row left behind is not seen by the next.
    expect(rules.apply(row(null))).toBe('kept');
    expect(rules.fields).toEqual(['\\N', 'other', '\\N', '\\N']);
  });

  it('give NULL where a source field is NULL', () => {
    const rules = compileRules([map('mask', 'masked', '{{ email[:1] }}***')], columns);
    expect(rules.apply(row(null))).toBe('kept');
    expect(rules.fields).toEqual(['\\N']);
    expect(rules.values).toEqual([null]);
  });
});

describe('filters', () => {
  it('let rows through for which they are true', () => {
    const rules = compileRules([filter('big', '{{ amount > 5 }}'), map('m', 'x', '{{ amount }}')], columns);
    expect(rules.apply(row('a', '10.00'))).toBe('kept');
    expect(rules.apply(row('a', '5.00'))).toBe('filtered');
    // NULL is not true.
    expect(rules.apply([1, 'a', null, null])).toBe('filtered');
    expect(Object.fromEntries(rules.takeCounts())).toEqual({
      big: { in: 3, out: 1, errors: 0 },
      m: { in: 1, out: 1, errors: 0 },
    });
    expect(rules.takeCounts().get('big')).toEqual({ in: 0, out: 0, errors: 0 });
  });

  it('see targets, and stop the rules behind them', () => {
    const rules = compileRules(
      [
        map('d', 'domain', '{{ email.split("@")[1] }}'),
        filter('own', '{{ domain == "x.org" }}'),
        map('m', 'n', '{{ 1 }}'),
      ],
      columns,
    );
    expect(rules.apply(row('a@x.org'))).toBe('kept');
    expect(rules.apply(row('a@y.org'))).toBe('filtered');
  });
});

describe('a row on which a rule fails', () => {
  const failing = '{{ email.split("@")[1][0] + 1 }}';

  it('is rejected, with the reason and nothing of its values', () => {
    const rules = compileRules([map('bad', 'x', failing)], columns);
    expect(rules.apply(row('secret@secret'))).toBe('rejected');
    expect(rules.rejection).toEqual({
      rule_id: 'bad',
      field: 'x',
      reason: '"+" does not work between str and int',
    });
    expect(rules.takeCounts().get('bad')).toEqual({ in: 1, out: 0, errors: 1 });
  });

  it('gets NULL with on_error null', () => {
    const rules = compileRules(
      [map('bad', 'x', failing, { on_error: 'null' }), map('b', 'y', '{{ x is none }}')],
      columns,
    );
    expect(rules.apply(row('a@b'))).toBe('kept');
    expect(rules.fields).toEqual(['\\N', 'true']);
    expect(rules.takeCounts().get('bad')).toEqual({ in: 1, out: 1, errors: 1 });
    const filters = compileRules([filter('bad', failing, { on_error: 'null' })], columns);
    expect(filters.apply(row('a@b'))).toBe('filtered');
  });

  it('stops the table with on_error stop', () => {
    const rules = compileRules([map('bad', 'x', failing, { on_error: 'stop' })], columns);
    expect(() => rules.apply(row('a@b'))).toThrow(SluiceError);
    expect(() => rules.apply(row('a@b'))).toThrow('rule bad failed for a row');
  });

  it('is also one whose result the column cannot hold', () => {
    const rules = compileRules([map('small', 'x', '{{ amount * 100 }}', { target_type: 'UInt8' })], columns);
    expect(rules.apply(row('a', '2.55'))).toBe('kept');
    expect(rules.apply(row('a', '2.56'))).toBe('rejected');
    expect(rules.rejection.reason).toBe('a number does not fit into UInt8');
  });
});

describe('wrong rules', () => {
  it('are told with their id and their place', () => {
    expect(mistake([map('m', 'x', '{{ emial }}')]).message).toBe(
      'rule m, line 1, column 4: there is no column "emial": did you mean "email"?',
    );
    expect(mistake([map('m', 'x', '{{ email }}', { source_fields: ['mail'] })])).toMatchObject({
      message: 'rule m: source_fields names mail, which is no column',
      remedy: 'Did you mean email?',
    });
    expect(mistake([filter('f', 'amount > 5')]).message).toContain('always true');
    expect(mistake([{ rule_id: 'm', rule_type: 'map', target_field: 'x' }]).message).toContain('an expression');
    expect(mistake([map('m', '_version', '{{ 1 }}')]).message).toContain('begins with _');
    expect(mistake([{ rule_id: 'm', rule_type: 'map', expression: '{{ 1 }}' }]).message).toContain('target_field');
    expect(mistake([map('m', 'x', '{{ 1 }}', { target_type: 'Strin' })]).message).toContain(
      'rule m: rules cannot fill',
    );
    expect(mistake([map('m', 'x', '{{ 1 }}', { rule_type: 'aggregate' })]).message).toContain('parameters.type');
    expect(mistake([{ rule_id: 'm', rule_type: 'custom', target_field: 'x' }]).message).toContain(
      'parameters.function',
    );
    expect(mistake([map('m', 'x', '{{ y }}'), map('n', 'y', '{{ 1 }}')]).message).toContain('there is no column "y"');
    expect(mistake([map('m', 'x', '{{ [1] }}', { target_type: 'Array(Int64)', on_error: 'null' })]).message).toContain(
      'NULL',
    );
  });
});
