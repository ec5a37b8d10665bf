import { describe, expect, it } from 'vitest';
import { readCheck } from './checks.ts';
import { applyRules, putCheck, putRule, removeRule } from './rule_changes.ts';
import { isRuleOf, noRules, type RuleInput, readRule, readRules, rulesOf } from './rules.ts';
import { ShapeError } from './shape_error.ts';

const map: RuleInput = { rule_id: 'm', rule_type: 'map', target_field: 'x', expression: '{{ a }}' };
const check = { rule_id: 'c', asset: 't', field: 'a', rule_type: 'not_null' };

function mistakes(read: () => unknown): string[] {
  try {
    read();
  } catch (error) {
    expect(error).toBeInstanceOf(ShapeError);
    return (error as ShapeError).issues.map(({ pointer, detail }) => `${pointer}: ${detail}`);
  }
  return [];
}

describe('rules', () => {
  it('are the same JSON however they were written', () => {
    const first = readRule({
      expression: '{{ a }}',
      rule_id: 'm',
      rule_type: 'map',
      target_field: 'x',
      parameters: {},
    });
    expect(JSON.stringify(first)).toBe(JSON.stringify(readRule(map)));
    const join = { rule_id: 'j', rule_type: 'join', parameters: { fields: ['n'], asset: 'b', on: { y: 'k', x: 'l' } } };
    expect(JSON.stringify(readRule(join).parameters)).toBe('{"asset":"b","on":{"x":"l","y":"k"},"fields":["n"]}');
  });

  it('are told what is wrong, and where', () => {
    expect(mistakes(() => readRule({ ...map, expresion: 1, rule_id: '1', on_error: 'skip' }))).toEqual([
      expect.stringMatching(/^\/expresion: unknown key; known are rule_id, name, rule_type, /),
      '/rule_id: must be a letter, then up to 99 letters, digits or any of _ . -',
      '/on_error: must be one of reject, null, stop',
    ]);
    expect(mistakes(() => readRule({ rule_id: 'm', rule_type: 'map' }))).toEqual([
      '/expression: is missing: a map computes it',
      '/target_field: is missing: the column that it fills',
    ]);
    expect(mistakes(() => readRule({ ...map, rule_type: 'mop' }))).toEqual([
      '/rule_type: must be one of map, filter, aggregate, join, custom',
    ]);
    expect(mistakes(() => readRule({ ...map, rule_type: 'filter' }))).toEqual([
      '/target_field: a filter fills no column',
    ]);
    expect(mistakes(() => readRule({ ...map, target_field: '_version' }))).toHaveLength(1);
    expect(mistakes(() => readRule([]))).toEqual([': must be an object']);
    expect(mistakes(() => readRules({ rules: [map, { ...map, assets: [] }], checks: [{}] }))).toEqual([
      '/rules/1/assets: must be a list of 1 to 200 names',
      '/checks/0/rule_id: must be a letter, then up to 99 letters, digits or any of _ . -',
      '/checks/0/asset: must be a text of 1 to 200 characters',
      expect.stringMatching(/^\/checks\/0\/rule_type: must be one of not_null, /),
    ]);
    expect(mistakes(() => readRules({ rules: [map], checks: [{ ...check, rule_id: 'm' }] }))).toEqual([
      '/checks/0/rule_id: m is the id of two rules or checks',
    ]);
  });

  it('are for assets that their globs mean and that have their fields', () => {
    const rule = { ...map, assets: ['main_*', 'other'], source_fields: ['a', 'b'] };
    expect(isRuleOf(rule, 'main_x', new Set(['a', 'b', 'c']))).toBe(true);
    expect(isRuleOf(rule, 'main_x', new Set(['a']))).toBe(false);
    expect(isRuleOf(rule, 'second_x', new Set(['a', 'b']))).toBe(false);
    // Named in full: what it lacks is a mistake, not another table.
    expect(isRuleOf(rule, 'other', new Set(['a']))).toBe(true);
    expect(isRuleOf({ ...map, source_fields: ['a'] }, 'any', new Set(['a']))).toBe(true);
  });

  it('find the targets of those before them', () => {
    const second = { ...map, rule_id: 'n', source_fields: ['x'], target_field: 'y' };
    expect(rulesOf([map, second], 't', ['a']).map(({ rule_id }) => rule_id)).toEqual(['m', 'n']);
    expect(rulesOf([second, map], 't', ['a']).map(({ rule_id }) => rule_id)).toEqual(['m']);
  });
});

describe('checks', () => {
  it('have the parameters of their type', () => {
    expect(readCheck(check)).toEqual({ ...check, parameters: {}, severity: 'warn' });
    const of = (rule_type: string, parameters: object, more: object = {}) =>
      mistakes(() => readCheck({ ...check, rule_type, parameters, ...more }));
    expect(of('range', {})).toEqual(['/parameters: must have min, max or both']);
    expect(of('range', { min: 2, max: 1 })).toEqual(['/parameters/max: is below min: no row would pass']);
    expect(of('range', { mni: 2 })[0]).toBe('/parameters/mni: unknown key; known are min, max');
    expect(of('length', { min: 1.5 })).toEqual(['/parameters/min: must be a whole number, 0 or more']);
    expect(of('accepted_values', { values: [] })).toHaveLength(1);
    expect(of('type', { type: 'lnog' })[0]).toContain('did you mean long?');
    expect(of('freshness', { max_age: 'soon' })).toHaveLength(1);
    expect(of('unique', {}, { field: undefined })[0]).toContain('/parameters/fields: is missing');
    expect(of('unique', { fields: ['a', 'b'] }, { field: undefined })).toEqual([]);
    expect(of('not_null', {}, { field: undefined })).toEqual([
      '/field: is missing: a check of type not_null looks at one',
    ]);
    expect(of('unique', { fields: ['a'] }, { severity: 'reject' })[0]).toContain('/severity: must be warn');
    expect(readCheck({ ...check, rule_type: 'freshness', parameters: { max_age: 90 } }).parameters).toEqual({
      max_age: '90s',
    });
  });
});

describe('changes', () => {
  const one = putRule(noRules, map, 'create').set;

  it('raise the version of the set, and of what is replaced', () => {
    expect(one).toEqual({ version: 1, rules: [{ ...map, version: 1 }], checks: [] });
    expect(putRule(one, map, 'create')).toEqual({ set: one, changes: [] });
    const two = putRule(one, { ...map, expression: '{{ b }}' }, 'replace');
    expect(two.set).toEqual({ version: 2, rules: [{ ...map, expression: '{{ b }}', version: 2 }], checks: [] });
    expect(two.changes).toEqual([{ what: 'rule', rule_id: 'm', how: 'replaced' }]);
    expect(removeRule(one, 'm').set).toEqual({ version: 2, rules: [], checks: [] });
  });

  it('are refused where an id is another’s, or unknown', () => {
    expect(() => putRule(one, { ...map, expression: '{{ b }}' }, 'create')).toThrow('another rule');
    expect(() => putRule(one, { ...map, rule_id: 'n' }, 'replace')).toThrow('there is no rule n');
    expect(() => removeRule(one, 'n')).toThrow('there is no rule n');
    expect(() => putCheck(one, readCheck({ ...check, rule_id: 'm' }), 'create')).toThrow('there is a rule');
  });

  it('of a whole list keep what it does not name, unless it is pruned', () => {
    const n = { ...map, rule_id: 'n' };
    const both = applyRules(one, { rules: [n] });
    expect(both.set.rules.map(({ rule_id }) => rule_id)).toEqual(['n', 'm']);
    expect(applyRules(both.set, { rules: [n] }).changes).toEqual([]);
    expect(applyRules(both.set, { rules: [n] }).set.version).toBe(2);
    expect(applyRules(both.set, { rules: [map, n] }).set).toMatchObject({ version: 3, rules: [{ rule_id: 'm' }, {}] });
    const pruned = applyRules(both.set, { rules: [n], checks: [], prune: true });
    expect(pruned.changes).toEqual([{ what: 'rule', rule_id: 'm', how: 'removed' }]);
  });

  it('have a limit', () => {
    let set = noRules;
    const add = (i: number) =>
      putRule(set, { ...map, rule_id: `r${i}`, expression: `{{ "${'x'.repeat(19_000)}" }}` }, 'create');
    for (let i = 0; i < 13; i++) set = add(i).set;
    expect(() => add(13)).toThrow('larger than 256 KiB');
  });
});
