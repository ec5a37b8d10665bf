/** Expressions that would take all time or memory, or reach what is not theirs, are refused at once. */
import { describe, expect, it } from 'vitest';
import { processorTime, slowness } from '../../../test/processor_time.ts';
import { compileExpression, ExpressionError } from '../expression.ts';
import { EvaluationError } from './limits.ts';
import { Dict, Float, type Value } from './values.ts';

const columns = [
  { name: 'name', type: 'text' },
  { name: 'long', type: 'text' },
  { name: 'amount', type: 'numeric(12,2)' },
  { name: 'doc', type: 'jsonb' },
  { name: 'tags', type: 'text[]' },
];

const doc = new Dict();
doc.set('a', 1);
const row: Value[] = ['Ann', 'x'.repeat(2_000_000), 5, doc, ['a']];

/** Milliseconds of the processor: twice what the slowest takes on a quiet machine. Without limits it would be minutes. */
const atOnce = 100;

/** Runs an expression; answers the error's text or the result, and how much of the processor it took. */
function attempt(text: string): { outcome: Value; failed: boolean; milliseconds: number } {
  const before = process.cpuUsage();
  let outcome: Value;
  let failed = false;
  try {
    outcome = compileExpression(text, columns).evaluate(row);
  } catch (error) {
    if (!(error instanceof EvaluationError) && !(error instanceof ExpressionError)) throw error;
    outcome = error.message;
    failed = true;
  }
  return { outcome, failed, milliseconds: processorTime(before) };
}

/** The quickest of some attempts: others may have met a garbage collection, or code that was not compiled yet. */
function quickest(text: string) {
  const attempts = Array.from({ length: 5 }, () => attempt(text));
  const best = attempts.reduce((a, b) => (b.milliseconds < a.milliseconds ? b : a));
  return best.milliseconds < atOnce ? best : { ...best, milliseconds: best.milliseconds / slowness() };
}

/** Sets `ns.t` to a tuple in a tuple, so many times. */
function nestedTuple(depth: number): string {
  return `{% set ns = namespace(t=(1,)) %}{% for i in range(${depth}) %}{% set ns.t = (ns.t,) %}{% endfor %}`;
}

/** Does something 150,000 times with texts and a list of 100,000 characters and items. */
function again(statement: string): string {
  const large = "{% set t = 'x' * 100000 %}{% set u = 'x' * 100000 %}{% set l = [0] * 10000 %}";
  return `${large}{% for i in range(150000) %}{% ${statement} %}{% endfor %}`;
}

const bombs: [limit: string, text: string][] = [
  ['text', "{{ 'a' * 10**9 }}"],
  ['text', '{{ name * 10**9 }}'],
  ['text', '{{ name | center(10**9) }}{{ name.ljust(10**9) }}'],
  ['text', '{{ name.zfill(10**9) }}'],
  ['text', "{{ '%1000000000d' % 1 }}"],
  ['text', "{{ '{:>1000000000}'.format(name) }}"],
  ['text', "{{ '{:{}}'.format(1, 10**9) }}"],
  ['text', "{{ '\\t'.expandtabs(10**9) }}"],
  ['text', "{{ ('a' * 100000) | replace('a', 'b' * 100000) }}"],
  ['text', "{{ ('a' * 100000) | replace('', 'b' * 100000) }}"],
  ['text', "{{ ('a\\n' * 100000) | indent(100000) }}"],
  ['text', "{{ (range(1000) | list) | join('a' * 1000000) }}"],
  ['text', "{{ ('a' * 100000) | regex_replace('', 'x' * 1000) }}"],
  ['text', "{{ ('{0}' * 100000).format('a' * 1000) }}"],
  ['text', "{% set ns = namespace(s='a') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}"],
  ['steps', '{{ range(10**9) | list }}'],
  ['steps', '{{ [0] * 10**9 }}'],
  ['steps', '{% for a in range(10**5) %}{% for b in range(10**5) %}x{% endfor %}{% endfor %}'],
  ['steps', '{% for a in range(1000) %}{% for b in range(1000) %}{% set z = a * b %}{% endfor %}{% endfor %}'],
  [
    'steps',
    "{% set ns = namespace(s='ab') %}{% for i in range(10**5) %}{% set ns.s = (ns.s ~ 'x') | upper | title %}{% endfor %}",
  ],
  ['steps', '{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = ns.l + ns.l %}{% endfor %}'],
  ['steps', '{% set l = [1] %}{% for x in l %}{% set _ = l.append(x) %}{% endfor %}'],
  ['steps', '{{ ([3, 1, 2] * 60000) | sort }}'],
  ['steps', '{% for i in range(3000) %}{{ i in (range(3000) | list) }}{% endfor %}'],
  ['steps', "{{ ('a,' * 400000).split(',') | length }}"],
  ['steps', '{{ range(190000)|list|length }}'.repeat(500)],
  ['steps', "{{ ('a' * 100000 ~ '!') | regex_match('(a|aa)+$') }}"],
  // One match takes linear time, but each of them may look at the rest of the text.
  ['steps', "{{ ('a' * 8000) | regex_replace('a*b|a', 'y') }}"],
  ['steps', "{{ ('a' * 8000) | regex_findall('a*b|(a)') }}"],
  ['steps', "{{ ('a' * 100000) | regex_findall('a*b|a') }}"],
  ['steps', "{{ ('a' * 250) | regex_findall('(a?){30}a*b|a') }}"],
  // What looks cheap, on large values again and again.
  ['steps', again('set x = t[50000]')],
  ['steps', again('set x = t[-50000]')],
  ['steps', again('set x = t[50000:50001]')],
  ['steps', again('set x = t.startswith(t) or t.endswith(t)')],
  ['steps', again('set x = t.removeprefix(t)')],
  ['steps', again("set x = ' '.strip(t)")],
  ['steps', again('set x = t == u')],
  ['steps', again('set x = t | float')],
  ['steps', again('set x = l.copy()')],
  ['steps', again('set x = [t] | max')],
  ['steps', again('set x = 10**998 // 10**499')],
  ['steps', again('set x = (10**998) | decimal / 7')],
  ['steps', "{{ ('1' * 100000 ~ 'x') | float }}".repeat(20)],
  ['steps', "{% set s = 'a' * 50000 %}{% for i in range(1000) %}{% set x = s.find('b' ~ s[:25000]) %}{% endfor %}"],
  [
    'text',
    '{% set ns = namespace(l=[1] * 3000) %}{% for i in range(150) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l | tojson(100) }}',
  ],
  ['steps', `{% for i in range(90000) %}${'{% if name > "B" %}{% endif %}'.repeat(200)}{% endfor %}`],
  ['steps', "{% for i in range(90000) %}{% set x = 'x' | regex_search('a(b|c)*d{1,50}' ~ i) %}{% endfor %}"],
  ['steps', "{% for i in range(90000) %}{% set x = ('2020' ~ i) | to_datetime('%Y' ~ i) %}{% endfor %}"],
  ['digits', '{{ 10**10**10**10 }}'],
  ['digits', '{{ 9**999999999 }}'],
  ['digits', '{{ (10**999) * (10**999) }}'],
  ['digits', '{{ (amount | decimal) ** 100000 }}'],
  ['digits', "{{ '1e1000000000' | decimal }}"],
  ['digits', "{{ ('9' * 100000) | int }}"],
  ['digits', "{{ '%.1000000000f' % 1.0 }}"],
  ['digits', '{% set ns = namespace(n=3) %}{% for i in range(100) %}{% set ns.n = ns.n * ns.n %}{% endfor %}'],
  ['nesting', '{% set l = [] %}{% set _ = l.append(l) %}{{ l }}'],
  ['nesting', '{% set d = {} %}{% set _ = d.update(a=d) %}{{ d | tojson }}'],
  ['nesting', '{% set ns = namespace(l=[]) %}{% for i in range(1000) %}{% set ns.l = [ns.l] %}{% endfor %}{{ ns.l }}'],
  ['nesting', `${'{"a":'.repeat(3000)}"{{ 1 }}"${'}'.repeat(3000)}`],
  ['nesting', "{{ ('[' * 100000) | from_json }}"],
  ['nesting', `${nestedTuple(250)}{{ {ns.t: 1} }}`],
  ['nesting', `${nestedTuple(250)}{{ {}[ns.t] }}`],
  [
    'steps',
    '{% set ns = namespace(t=(1,)) %}{% for i in range(40) %}{% set ns.t = (ns.t, ns.t) %}{% endfor %}{{ ns.t in {} }}',
  ],
  ['depth', `{{ ${'('.repeat(5000)}1${')'.repeat(5000)} }}`],
  ['depth', `{{ ${'['.repeat(5000)}${']'.repeat(5000)} }}`],
  ['depth', `{{ ${'-'.repeat(5000)}1 }}`],
  ['depth', `{{ ${'not '.repeat(4000)}1 }}`],
  ['depth', `{{ ${'1+'.repeat(9000)}1 }}`],
  ['depth', `{{ name${'|upper'.repeat(3000)} }}`],
  ['depth', `{{ doc${'.a'.repeat(9000)} }}`],
  ['depth', `{{ doc${'[0]'.repeat(6000)} }}`],
  ['depth', `{{ ${'1 if name else '.repeat(1200)}1 }}`],
  ['depth', '{% if 1 %}'.repeat(900) + '{% endif %}'.repeat(900)],
  ['source', 'x'.repeat(100_000)],
  ['pattern', "{{ name | regex_search('((a{100}){100}){100}') }}"],
  ['pattern', "{{ name | regex_search('(a{1000}){1000}') }}"],
  ['pattern', "{{ name | regex_replace('(a?){500}a{600}', '') }}"],
  ['pattern', `{{ name | regex_search('${'a'.repeat(2000)}') }}`],
];

describe('bombs', () => {
  it.each(bombs)('are refused by the limit "%s": %.80s', (limit, text) => {
    const { outcome, failed, milliseconds } = quickest(text);
    expect(outcome).toContain(`limit "${limit}" reached`);
    expect(failed).toBe(true);
    expect(milliseconds).toBeLessThan(atOnce);
  });

  it('that only look like some are computed', () => {
    expect(attempt('{{ range(10**15) | length }}').outcome).toBe(10 ** 15);
    expect(attempt("{{ 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa!' | regex_match('(a+)+$') }}").outcome).toBe(false);
    expect(attempt('{{ 10**10**10 }}').outcome).toBe(10n ** 100n);
  });
});

describe('large values of a row', () => {
  it('get a budget of their own size', () => {
    expect(attempt('{{ long | upper }}').outcome).toBe('X'.repeat(2_000_000));
    expect(attempt("{{ long | replace('x', 'yy') | length }}").outcome).toBe(4_000_000);
    expect(attempt('{{ long[::-1] | length }}').outcome).toBe(2_000_000);
    expect(attempt('{{ long ~ long ~ long ~ long ~ long ~ long ~ long ~ long ~ long ~ long }}').outcome).toContain(
      'limit "text"',
    );
  });
});

describe('malformed texts', () => {
  it.each([
    ["{{ '{[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]!xy}'.format(1) }}", 'malformed'],
    ["{{ ('{' ~ '[' * 100000 ~ '}').format(1) }}", 'malformed'],
    ["{{ ('1' * 30000 ~ 'x') | float(7) }}", 7],
    ['{{ 1e-300 ** 64 }}', 0],
    ['{{ \'"\\\\ud800"\' | from_json | urlencode }}', 'half a character'],
  ])('take no longer than others: %.60s', (text, expected) => {
    const { outcome, milliseconds } = quickest(text);
    if (typeof expected === 'string') expect(outcome).toContain(expected);
    else expect(outcome instanceof Float ? outcome.number : outcome).toBe(expected);
    expect(milliseconds).toBeLessThan(atOnce);
  });
});

describe('keys that are tuples', () => {
  const nested = (depth: number) => `${'('.repeat(depth)}1${',)'.repeat(depth)}`;

  it.each([
    [`{{ {${nested(28)}: 1} | length }}`, 1],
    [`{{ [${nested(28)}, ${nested(28)}, ${nested(27)}] | unique | list | length }}`, 2],
    [`{{ ${nested(28)} in {} }}`, false],
    [`{% set d = {} %}{% set _ = d.update([(${nested(28)}, 1)]) %}{{ d | length }}`, '1'],
  ])('may nest: %.60s', (text, expected) => {
    const { outcome, milliseconds } = quickest(text);
    expect(outcome).toBe(expected);
    expect(milliseconds).toBeLessThan(atOnce);
  });

  it.each([
    ["('a', 'b') in {('a,sb',): 1}", false],
    ["('1',) in {(1,): 1}", false],
    ['(1.0, True) in {(1, 1): 1}', true],
    ["('a', ('b',)) in {(('a', 'b'),): 1}", false],
    ["('', 's0:') in {('s0:', ''): 1}", false],
    ['(None, (none,)) in {(None, (none,)): 1}', true],
  ])('are told apart: %s', (condition, expected) => {
    expect(attempt(`{{ ${condition} }}`).outcome).toBe(expected);
  });
});

describe('patterns', () => {
  const evaluate = (text: string, name: string) => compileExpression(text, columns).evaluate([name, '', 5, doc, []]);
  const prose = 'lorem ipsum dolor sit amet, '.repeat(3600);

  it('are found all over an ordinary text', () => {
    const page = prose.slice(0, 1024);
    expect(evaluate("{{ name | regex_replace('o+', '0') }}", page)).toBe(page.replace(/o+/g, '0'));
    expect(evaluate("{{ name | regex_findall('\\\\w+') | length }}", prose)).toBe(18_000);
    expect(evaluate("{{ name | regex_findall('(\\\\w)\\\\w*,') | length }}", prose)).toBe(3600);
    expect(evaluate("{{ name | regex_replace('(\\\\w+), ', '\\\\1;') | length }}", prose)).toBe(prose.length - 3600);
  });

  it('are found where they are in plain texts', () => {
    expect(evaluate("{{ name | regex_findall('a|b*') }}", 'xaabé😀b')).toEqual(['', 'a', 'a', 'b', '', '', 'b', '']);
    expect(evaluate("{{ name | regex_replace('^|\\\\b', '-') }}", 'to be')).toBe('-to- -be-');
  });
});

const escapes = [
  "{{ ''.__class__ }}",
  "{{ ''['__class__'] }}",
  '{{ name.constructor }}',
  "{{ name['constructor'] }}",
  '{{ name.__proto__ }}',
  '{{ name.prototype }}',
  '{{ name.length }}',
  '{{ doc.__proto__ }}',
  "{{ doc['__proto__'].polluted }}",
  "{{ doc.constructor.constructor('return process')() }}",
  "{{ doc['constructor']['constructor'] }}",
  "{{ range.constructor('return process')() }}",
  '{{ range.__globals__ }}',
  '{{ self }}',
  '{{ this }}',
  '{{ globalThis }}',
  '{{ process.env }}',
  '{{ constructor }}',
  '{{ __proto__ }}',
  '{{ hasOwnProperty }}',
  '{{ toString() }}',
  '{{ name.toString() }}',
  '{{ name.valueOf() }}',
  "{{ doc.hasOwnProperty('a') }}",
  "{{ [1].map('upper') }}",
  '{{ tags.constructor.name }}',
  '{{ tags.push(1) }}',
  "{{ '{0.__class__}'.format(name) }}",
  "{{ '{0.constructor}'.format(name) }}",
  "{{ '{0[constructor]}'.format(doc) }}",
  "{{ '%(__proto__)s' % doc }}",
  '{{ name.upper.call(1) }}',
  '{{ name.upper.__self__ }}',
  '{{ namespace.__init__ }}',
  '{{ cycler.__init__.__globals__.os }}',
  "{{ lipsum.__globals__['os'].popen('id').read() }}",
  '{{ ().__class__.__bases__[0].__subclasses__() }}',
  "{{ name | attr('__class__') | attr('x') }}",
  "{{ [doc] | map(attribute='__proto__.polluted') | join | upper + 1 }}",
  "{{ ['x'] | map('constructor') | list }}",
  "{{ ['x'] | select('__proto__') | list }}",
  '{{ name | constructor }}',
  '{{ name is constructor }}',
  '{% set ns = namespace() %}{{ ns.__class__ }}',
  '{% set doc.a = 1 %}',
];

describe('escapes', () => {
  it.each(escapes)('%s', (text) => {
    const { failed, milliseconds } = quickest(text);
    expect(failed).toBe(true);
    expect(milliseconds).toBeLessThan(atOnce);
  });

  it('names of JavaScript are plain data where they are data', () => {
    const odd = new Dict();
    odd.set('__proto__', 'p');
    odd.set('constructor', 'c');
    const run = (text: string) => compileExpression(text, columns).evaluate(['Ann', '', 5, odd, []]);
    expect(run("{{ doc['__proto__'] }}{{ doc.constructor }}{{ doc.keys() }}")).toBe("pc['__proto__', 'constructor']");
    expect(run("{{ doc['toString'] is defined }}")).toBe(false);
    expect(run('{{ {"__proto__": 1, "constructor": 2} | tojson }}')).toBe('{"__proto__": 1, "constructor": 2}');
    expect(
      run('{% set ns = namespace(constructor=1) %}{% set ns.prototype = 2 %}{{ ns.constructor + ns.prototype }}'),
    ).toBe('3');
    expect(({} as Record<string, unknown>).polluted).toBeUndefined();
  });
});
