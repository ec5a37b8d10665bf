/** What stands behind `is`: Jinja2's tests. */
import { DateTime, PlainDate } from './dates.ts';
import { known } from './filters_lists.ts';
import { patternTests } from './filters_values.ts';
import { isNumber } from './numbers.ts';
import { contains, equal, isSame, order, remainder } from './operators.ts';
import { type Argument, type Routine, type Routines, routine, routines } from './routine.ts';
import { toText } from './text.ts';
import { isLower, isUpper } from './text_methods.ts';
import { Dict, Float, Loop, Range, Tuple, Undefined, type Value } from './values.ts';

function test(name: string, run: (value: Value) => boolean): Routine {
  return routine(name, '', 'bool', run);
}

function comparison(name: string, run: (a: Value, b: Value) => boolean): Routine {
  return routine(name, 'other', 'bool', (a: Value, b: Argument) => run(a, b!));
}

function isWhole(value: Value): boolean {
  return typeof value === 'number' || typeof value === 'bigint';
}

function isSequence(value: Value): boolean {
  return (
    typeof value === 'string' ||
    Array.isArray(value) ||
    value instanceof Tuple ||
    value instanceof Dict ||
    value instanceof Range ||
    value instanceof Undefined
  );
}

function divisible(value: Value, by: Value): boolean {
  return equal(remainder(value, by), 0);
}

export const isTests: Routines = routines(
  [
    test('defined', (value) => !(value instanceof Undefined)),
    test('undefined', (value) => value instanceof Undefined),
    test('none', (value) => value === null),
    test('boolean', (value) => typeof value === 'boolean'),
    test('true', (value) => value === true),
    test('false', (value) => value === false),
    test('integer', isWhole),
    test('float', (value) => value instanceof Float),
    test('number', isNumber),
    test('string', (value) => typeof value === 'string'),
    test('mapping', (value) => value instanceof Dict),
    test('sequence', isSequence),
    test('iterable', (value) => isSequence(value) || value instanceof Loop),
    // Nothing that an expression can hold can be called; only Jinja2's Undefined says that it could.
    test('callable', (value) => value instanceof Undefined),
    test('escaped', () => false),
    test('date', (value) => value instanceof DateTime || value instanceof PlainDate),
    test('odd', (value) => equal(remainder(value, 2), 1)),
    test('even', (value) => divisible(value, 2)),
    test('lower', (value) => isLower(toText(value))),
    test('upper', (value) => isUpper(toText(value))),
    test('filter', (value) => typeof value === 'string' && known.filters.has(value)),
    test('test', (value) => typeof value === 'string' && known.tests.has(value)),
    routine('divisibleby', 'num', 'bool', (value, by) => divisible(value, by!)),
    routine('sameas', 'other', 'bool', (value, other) => isSame(value, other!)),
    routine('in', 'seq', 'bool', (value, seq) => contains(seq!, value)),
    comparison('eq', equal),
    comparison('ne', (a, b) => !equal(a, b)),
    comparison('lt', (a, b) => order(a, b, '<') < 0),
    comparison('le', (a, b) => order(a, b, '<=') <= 0),
    comparison('gt', (a, b) => order(a, b, '>') > 0),
    comparison('ge', (a, b) => order(a, b, '>=') >= 0),
    ...patternTests,
  ],
  {
    equalto: 'eq',
    '==': 'eq',
    '!=': 'ne',
    lessthan: 'lt',
    '<': 'lt',
    '<=': 'le',
    greaterthan: 'gt',
    '>': 'gt',
    '>=': 'ge',
  },
);
