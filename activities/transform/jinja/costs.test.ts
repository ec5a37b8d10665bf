/**
 * Every operation pays for what it does: run over and over on large values, each is done soon or refused soon. An operation
 * that forgets to pay fails here, also one that is new: it is found in its table.
 */
import { describe, expect, it } from 'vitest';
import { processorTime, slowness } from '../../../test/processor_time.ts';
import { attributeOf, itemOf } from './attributes.ts';
import { DateTime, Duration, PlainDate } from './dates.ts';
import { Decimal } from './decimal.ts';
import { filters } from './filters.ts';
import { isTests } from './is_tests.ts';
import { beginEvaluation, EvaluationError, limits, spend } from './limits.ts';
import { allMethods, methodsOf } from './methods.ts';
import {
  add,
  contains,
  divide,
  divideWhole,
  elements,
  equal,
  multiply,
  negate,
  order,
  raise,
  remainder,
  subtract,
} from './operators.ts';
import type { Argument, Routine } from './routine.ts';
import { slice } from './slices.ts';
import { toText } from './text.ts';
import { Dict, Float, Loop, Range, Tuple, type Value } from './values.ts';

const size = 100_000;

/** A text of that size, always another object: equal ones can only be told by their letters. */
function filled(part: string, end = ''): string {
  return Buffer.from(part.repeat(Math.ceil(size / part.length)) + end).toString();
}

function dictOf(entries: [Value, Value][]): Dict {
  const dict = new Dict();
  for (const [key, value] of entries) dict.set(key, value);
  return dict;
}

const numbers = Array.from({ length: 20_000 }, (_, i) => i);
const pairs = numbers.map((i) => new Tuple([String(i), i]));
const long = 10n ** 999n + 1n;
const many = dictOf(numbers.map((i) => [String(i), i]));
const texts: Record<string, () => Value> = {
  prose: () => filled('Ab,c 1-x\n'),
  'white space': () => filled(' '),
  letters: () => filled('a', 'b'),
  digits: () => filled('1', 'x'),
  'other letters': () => filled('é😀ß'),
  tags: () => filled('<a>&amp;'),
  braces: () => filled('{0}'),
  'open brackets': () => `{${filled('[')}}`,
  'open braces': () => filled('{'),
  directives: () => filled('%%'),
  'directives of dates': () => '%F%D%Y'.repeat(40),
  'short text': () => 'Ab, c-d é '.repeat(25),
  'short directives': () => '%%{0}'.repeat(50),
  'short brackets': () => `{${'['.repeat(40)}]!xy}`,
  tabs: () => filled('\t\r'),
  JSON: () => `[${filled('{},')}1]`,
  word: () => 'upper',
};
const operands: Record<string, () => Value> = {
  ...texts,
  list: () => [...numbers],
  'list of texts': () => numbers.map(() => 'Ab'),
  'list of long texts': () => [filled('a'), filled('a')],
  'list of pairs': () => [...pairs],
  'list of dicts': () => Array.from({ length: 2000 }, () => dictOf([['a', 1]])),
  tuple: () => new Tuple(numbers),
  'tuple of texts': () => new Tuple(numbers.map(() => 'ab')),
  dict: () => many.copy(),
  range: () => new Range(0, 20_000, 1),
  loop: () => new Loop(numbers),
  int: () => long,
  'small int': () => 7,
  zero: () => 0,
  bool: () => true,
  none: () => null,
  float: () => new Float(1e-300),
  'large float': () => new Float(1e300),
  'small float': () => new Float(0.1),
  decimal: () => new Decimal(10n ** 999n, 0),
  'decimal with places': () => new Decimal(10n ** 998n + 5n, 500),
  'small decimal': () => new Decimal(1, 1000),
  date: () => new PlainDate(20_000),
  datetime: () => new DateTime(20_000, 5, true),
  duration: () => new Duration(20_000, 5),
};

/** Arguments that a parameter is tried with, by its name. */
const choices: Record<string, string[]> = {
  attribute: ['word', 'small int', 'paths'],
  blank: ['bool'],
  boolean: ['bool'],
  break_long_words: ['bool'],
  break_on_hyphens: ['bool'],
  by: [],
  bytes: ['bool'],
  case_sensitive: ['bool'],
  count: ['small int'],
  d: ['short text', 'prose'],
  default: ['small int'],
  default_value: ['small int'],
  end: ['zero', 'short text'],
  fill_with: ['small int'],
  fillchar: ['letter'],
  first: ['bool'],
  format: ['directives of dates', 'short text', 'directives'],
  ignorecase: ['bool'],
  index: ['small int', 'zero'],
  iterable: ['list of texts', 'list'],
  keepends: ['bool'],
  key: ['prose', 'small int', 'decimal', 'tuple of texts'],
  killwords: ['bool'],
  length: ['small int'],
  leeway: ['small int'],
  linecount: ['small int'],
  mapping: ['dict'],
  maxsplit: ['small int'],
  method: ['ceil'],
  multiline: ['bool'],
  name: ['word', 'prose'],
  new: ['short text'],
  num: ['small int', 'int', 'decimal'],
  object: ['small int'],
  old: ['letter', 'half', 'reversed half', 'nothing'],
  other: ['datetime', 'prose', 'letters', 'list', 'tuple', 'dict', 'int', 'decimal', 'small float'],
  pattern: ['letter', 'pattern'],
  precision: ['small int'],
  prefix: ['letters', 'half', 'tuple of texts'],
  replacement: ['letter'],
  reverse: ['bool'],
  sep: ['letter', 'half', 'reversed half'],
  seq: ['prose', 'list', 'tuple', 'dict', 'list of long texts', 'range'],
  slices: ['small int'],
  start: ['small int', 'zero'],
  stop: ['small int', 'far'],
  sub: ['letter', 'half', 'reversed half', 'nothing'],
  suffix: ['letters', 'half', 'tuple of texts'],
  tabsize: ['zero', 'small int'],
  unit: ['days'],
  value: ['small int', 'letters', 'decimal'],
  width: ['small int'],
  wrapstring: ['letter'],
  autospace: ['bool'],
  base: ['small int'],
  binary: ['bool'],
  chars: ['letter', 'prose'],
  group: ['zero'],
  indent: ['small int'],
};
const spans = ['years', 'months', 'weeks', 'days', 'hours', 'minutes', 'seconds', 'milliseconds', 'microseconds'];
for (const name of [...spans, ...spans.map((span) => span.slice(0, -1))]) choices[name] ??= ['small int', 'decimal'];

const values: Record<string, () => Value> = {
  ...operands,
  letter: () => 'a',
  nothing: () => '',
  days: () => 'days',
  ceil: () => 'ceil',
  paths: () => filled('a,'),
  pattern: () => 'a*b|a',
  half: () => 'a'.repeat(size / 2),
  'reversed half': () => `b${'a'.repeat(size / 2)}`,
};

type Run = (self: Value, ...args: Argument[]) => Value | boolean | undefined | readonly Value[];

interface Operation {
  name: string;
  run: Run;
  /** Names of operands that it is tried on, and of arguments. */
  on: string[];
  args: string[][];
}

/** Each parameter with each of its choices, the others as they are first. */
function argumentLists(parameters: readonly { name: string; optional: boolean }[]): string[][] {
  const first = parameters.map(({ name, optional }) => {
    if (choices[name] === undefined) throw new Error(`say above which arguments "${name}" is to be tried with`);
    return optional ? 'left out' : choices[name][0]!;
  });
  const varied = parameters.flatMap(({ name }, i) => choices[name]!.map((choice) => first.with(i, choice)));
  return [first, ...varied];
}

function ofRoutine(kind: string, routine: Routine, on: string[], lists?: string[][]): Operation {
  const run: Run = routine.variadic
    ? (self, ...args) => routine.runVariadic(self, args as Value[], new Map())
    : routine.run;
  const args = lists ?? (routine.variadic ? variadicArguments[routine.name]! : argumentLists(routine.parameters));
  return { name: `${kind} ${routine.name}`, run, on, args };
}

const variadicArguments: Record<string, string[][]> = {
  map: [['word'], ['string filter'], ['int filter'], ['default filter']],
  select: [[], ['string filter'], ['odd test'], ['lower test']],
  reject: [[], ['odd test'], ['lower test']],
  selectattr: [['word'], ['zero', 'odd test']],
  rejectattr: [['word'], ['zero', 'odd test']],
  format: [[], ['small int'], ['int'], ['decimal'], ['prose']],
  update: [['dict'], ['list of pairs']],
  cycle: [['small int']],
  changed: [['small int'], ['prose'], ['list']],
};
Object.assign(values, {
  'string filter': () => 'string',
  'int filter': () => 'int',
  'default filter': () => 'default',
  'odd test': () => 'odd',
  'lower test': () => 'lower',
});

const everything = Object.keys(operands);
const methods = allMethods.flatMap((table) => {
  const on = everything.filter((name) => methodsOf(operands[name]!()) === table);
  return [...table.values()].map((routine) => ofRoutine(`method of ${on[0]}:`, routine, on));
});

const two =
  (run: (a: Value, b: Value) => ReturnType<Run>): Run =>
  (a, b) =>
    run(a, b!);
const pairwise = everything.map((name) => [name]);
const operators: Operation[] = (
  [
    ['+', two(add), pairwise],
    ['-', two(subtract), pairwise],
    ['*', two(multiply), [['small int'], ['decimal'], ['int'], ['small float']]],
    ['/', two(divide), [['small int'], ['int'], ['decimal'], ['small decimal'], ['float']]],
    ['//', two(divideWhole), [['small int'], ['int'], ['decimal'], ['small decimal']]],
    ['%', two(remainder), [['small int'], ['int'], ['decimal'], ['small decimal'], ['tuple']]],
    ['**', two(raise), [['small int'], ['sixty'], ['minus sixty']]],
    ['==', two(equal), pairwise],
    ['<', two((a, b) => order(a, b) < 0), pairwise],
    ['in', two((a, b) => contains(b, a)), pairwise],
    ['negative', (a) => negate(a), [[]]],
    ['text', (a) => toText(a), [[]]],
    ['elements', (a) => elements(a), [[]]],
    ['item', two(itemOf), [['far'], ['far back'], ['prose'], ['decimal'], ['tuple of texts']]],
    ['attribute', (a) => attributeOf(a, 'a'), [[]]],
    [
      'slice',
      (a, b, c, d) => slice(a, b!, c!, d!),
      [
        ['far', 'none', 'none'],
        ['none', 'far', 'none'],
        ['far back', 'none', 'none'],
        ['none', 'none', 'small int'],
        ['none', 'none', 'minus sixty'],
      ],
    ],
  ] as [string, Run, string[][]][]
).map(([name, run, args]) => ({ name: `operator ${name}`, run, on: everything, args }));
Object.assign(values, {
  far: () => size - 10,
  'far back': () => 10 - size,
  sixty: () => 60,
  'minus sixty': () => -60,
});

const operations: Operation[] = [
  ...[...new Set(filters.values())].map((routine) => ofRoutine('filter', routine, everything)),
  ...[...new Set(isTests.values())].map((routine) => ofRoutine('test', routine, everything)),
  ...methods,
  ...operators,
];

const rounds = 2000;
/** Of a budget, most is gone before: its rest shows the same, and sooner. It is worth 5 ms of the processor. */
const rest = 20_000;
const most = 40;

/** Large values are made once, but for lists and dicts that an operation may change; arguments are others than operands. */
const made = { operand: new Map<string, Value>(), argument: new Map<string, Value>() };

function madeOnce(name: string, as: keyof typeof made): Value {
  const known = made[as].get(name);
  if (known !== undefined) return known;
  const value = values[name]!();
  if (as === 'argument' || !(Array.isArray(value) || value instanceof Dict)) made[as].set(name, value);
  return value;
}

/** Runs an operation again and again within one budget. Answers how long that took, and whether it ever worked. */
function repeated(run: Run, self: Value, args: Argument[]): { milliseconds: number; worked: boolean } {
  const begun = performance.now();
  const before = process.cpuUsage();
  let worked = false;
  beginEvaluation();
  spend(limits.steps - rest);
  try {
    // What is far too slow need not be waited for.
    for (let i = 0; i < rounds && performance.now() < begun + most * 4; i++) {
      spend(1);
      run(self, ...args);
      worked = true;
    }
  } catch (error) {
    if (!(error instanceof EvaluationError)) throw error;
    worked ||= error.limit !== undefined;
  }
  return { milliseconds: processorTime(before), worked };
}

/** The quickest of some attempts: a first one may meet a garbage collection, or code that was not compiled yet. */
function attempt(run: Run, on: string, args: string[]) {
  let best = { milliseconds: Number.POSITIVE_INFINITY, worked: false };
  for (let tries = 0; tries < 8 && best.milliseconds > most; tries++) {
    const given = args.map((name) => (name === 'left out' ? undefined : madeOnce(name, 'argument')));
    const found = repeated(run, madeOnce(on, 'operand'), given);
    if (tries > 0) found.milliseconds /= slowness();
    if (found.milliseconds < best.milliseconds) best = found;
  }
  return best;
}

describe('the price of', () => {
  it.each(operations)('$name', ({ run, on, args }) => {
    const slow: string[] = [];
    let worked = false;
    for (const operand of on) {
      for (const list of args) {
        const found = attempt(run, operand, list);
        worked ||= found.worked;
        if (found.milliseconds > most)
          slow.push(`${operand} (${list.join(', ')}): ${Math.round(found.milliseconds)} ms`);
      }
    }
    expect(slow).toEqual([]);
    expect(worked).toBe(true);
  });
});
