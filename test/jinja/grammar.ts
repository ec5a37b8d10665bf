/**
 * Expressions and templates by chance: a grammar of all that rules know. Most are well typed, so that they compute
 * something; a part is not, so that errors are compared, too.
 */
import fc from 'fast-check';
import { oddText, text as someText } from './rows.ts';

type Source = fc.Arbitrary<string>;

/** A string literal of Jinja. */
export function literal(text: string): string {
  const mark = text.includes("'") ? '"' : "'";
  const body = [...text].map((c) => {
    if (c === '\\' || c === mark) return `\\${c}`;
    if (c === '\n') return '\\n';
    if (c === '\r') return '\\r';
    return c;
  });
  return mark + body.join('') + mark;
}

const pick = fc.constantFrom;
const small = fc.integer({ min: -4, max: 9 }).map(String);
const width = fc.integer({ min: 0, max: 30 }).map(String);
const textLiteral = fc.oneof(someText, oddText).map(literal);
const sign = pick('@', ',', ' ', '-', 'a', 'e', '.', '', '  ', 'ab', 'X').map(literal);
const flagLiteral = pick('true', 'false');

/** Fills `{}` of a pattern with sources, in order. */
function form(pattern: string, ...parts: Source[]): Source {
  return fc.tuple(...parts).map((values) => {
    let i = 0;
    return pattern.replace(/\{\}/g, () => values[i++]!);
  });
}

const noArgumentTextMethods = pick(
  'upper',
  'lower',
  'title',
  'capitalize',
  'casefold',
  'swapcase',
  'strip',
  'lstrip',
  'rstrip',
  'expandtabs',
);
const textPredicates = pick(
  'isalnum',
  'isalpha',
  'isascii',
  'isdecimal',
  'isdigit',
  'isidentifier',
  'islower',
  'isnumeric',
  'isprintable',
  'isspace',
  'istitle',
  'isupper',
);
const plainTextFilters = pick(
  'upper',
  'lower',
  'title',
  'capitalize',
  'trim',
  'string',
  'escape',
  'e',
  'urlencode',
  'safe',
  'reverse',
  'forceescape',
);
const patterns = pick('[0-9]+', '@.*$', '(\\w+)@(\\w+)', 'a|b', '\\s+', '[^a-z]', 'x*', '(a)(b)?', '^.', '[A-Z]').map(
  literal,
);
const replacements = pick('', '#', '<\\1>', '\\g<1>!', 'x\\\\y', '-').map(literal);
const dateFormats = pick(
  '%Y-%m-%d',
  '%d.%m.%y %H:%M',
  '%j %U %W %V %G',
  '%A, %d %B %Y',
  '%a %b %I %p',
  '%H:%M:%S.%f%%',
).map(literal);
const formatFlags = fc.tuple(
  pick('', '-', '0', '+', ' ', '#', '0+', '- '),
  pick('', '5', '12'),
  pick('', '.0', '.1', '.3', '.10'),
);
const braceSpec = fc
  .tuple(
    pick('', '<', '>', '^', '*^', '=', '0>'),
    pick('', '+', ' '),
    pick('', '#'),
    pick('', '0'),
    pick('', '8', '14'),
    pick('', ',', '_'),
    pick('', '.0', '.2', '.5'),
  )
  .map((parts) => parts.join(''));
const tests = pick(
  'defined',
  'undefined',
  'none',
  'boolean',
  'true',
  'false',
  'integer',
  'float',
  'number',
  'string',
  'mapping',
  'sequence',
  'iterable',
  'callable',
  'odd',
  'even',
  'lower',
  'upper',
  'escaped',
  'date',
);
const argumentTests = pick(
  'eq',
  '==',
  'ne',
  'equalto',
  'lt',
  'lessthan',
  'gt',
  'ge',
  'le',
  'in',
  'sameas',
  'divisibleby',
);
const comparison = pick('==', '!=', '<', '<=', '>', '>=');

type Kind = 'text' | 'int' | 'number' | 'bool' | 'list' | 'dict' | 'date' | 'any';

const floatLiteral = pick('0.5', '1.5', '2.0', '0.1', '1e3', '1_0.2_5', '100.0', '3.14159', '1e-7', '2.675');
const decimalSource = pick('amount', 'amount', 'big', '("1.25" | decimal)', '(7 | decimal)', '("-0.001" | decimal)');

export const expressions: Record<Kind, Source> = fc.letrec((tie) => {
  const part = (kind: Kind) => tie(kind) as Source;
  const [t, i, x, b] = [part('text'), part('int'), part('number'), part('bool')];
  const [l, d, m, a] = [part('list'), part('dict'), part('date'), part('any')];
  const options = { depthSize: 'small', depthIdentifier: 'expression', withCrossShrink: true } as const;
  const text = fc.oneof(
    options,
    textLiteral,
    pick('name', 'email', 'note', 'name', 'email', 'gone'),
    form('({}[{}:{}])', t, small, small),
    form('({}[{}:{}:{}])', t, pick('', '1', '-1', '5'), pick('', '3', '-2'), pick('-1', '2', '-2', '1', '3')),
    form('({}[{}])', t, small),
    form('{}.{}()', form('({})', t), noArgumentTextMethods),
    form('({} | {})', t, plainTextFilters),
    form('({} ~ {})', a, a),
    form('({} + {})', t, t),
    form('({} * {})', t, pick('0', '1', '2', '3', '-1')),
    form('({} if {} else {})', t, b, t),
    form('({} if {})', t, b),
    form('({} or {})', t, t),
    form('({}).{}({})', t, pick('strip', 'lstrip', 'rstrip'), sign),
    form('({}).{}({}, {})', t, pick('replace'), sign, sign),
    form('({}).replace({}, {}, {})', t, sign, textLiteral, small),
    form('({}).{}({})', t, pick('zfill', 'ljust', 'rjust', 'center', 'expandtabs'), width),
    form('({}).{}({}, {})', t, pick('ljust', 'rjust', 'center'), width, pick("'*'", "'é'", "'😀'")),
    form('({}).{}({})', t, pick('removeprefix', 'removesuffix'), sign),
    form('({}).join({})', sign, l),
    form('({}).split({})[{}]', t, sign, pick('0', '1', '-1')),
    form('({} | replace({}, {}))', a, sign, sign),
    form('({} | replace({}, {}, {}))', t, sign, t, small),
    form('({} | trim({}))', t, sign),
    form('({} | truncate({}, {}, {}, {}))', t, width, flagLiteral, pick("'...'", "''", "'…'"), pick('0', '2', '5')),
    form('({} | truncate({}))', t, width),
    form('({} | indent({}, {}, {}))', t, pick('2', '4', "'> '"), flagLiteral, flagLiteral),
    form('({} | center({}))', t, width),
    form('({} | wordwrap({}, {}))', t, pick('1', '5', '10', '20'), flagLiteral),
    form('({} | default({}, {}))', a, t, flagLiteral),
    form('({} | d({}))', a, t),
    form('({} | string)', a),
    form('({} | join({}))', l, sign),
    form('({} | tojson)', a),
    form('({} | tojson(indent={}))', a, pick('0', '2')),
    form('({} | first)', t),
    form('({} | last)', t),
    form('({} | regex_replace({}, {}))', t, patterns, replacements),
    form('({} | regex_search({}))', t, patterns),
    form('({} | date_format({}))', m, dateFormats),
    form('{}.strftime({})', m, dateFormats),
    form('({}).isoformat()', m),
    form('({} | filesizeformat({}))', fc.oneof(i, pick('rate', '12345678.9')), flagLiteral),
    formatPercent(a, x),
    formatBraces(a, x),
    form('{}.format_map({})', pick("'{a}-{b!r}'", "'{x}'"), d),
    form('({} | striptags)', pick("'<p>a &amp; <b>b</b></p> c'", "'x <!-- y --> z &lt; &#65;'", "'no tags'")),
    form('({} | xmlattr)', pick("{'a': 1, 'b': none, 'c': '<'}", "{'class': name}")),
  );
  const int = fc.oneof(
    options,
    fc.integer({ min: 0, max: 50 }).map(String),
    pick('0x1f', '0b101', '0o17', '1_000', '9007199254740993', '123456789012345678901234567890'),
    pick('n', 'k', 'k'),
    form('({} {} {})', i, pick('+', '-', '*'), i),
    form('({} {} {})', i, pick('//', '%'), i),
    form('({} ** {})', pick('2', '-3', '10', 'k'), pick('0', '1', '2', '5')),
    form('(-{})', i),
    form('(+{})', i),
    form('({} | length)', fc.oneof(t, l, d)),
    form('({} | count)', l),
    form('({} | int)', a),
    form('({} | int({}, {}))', t, small, pick('10', '16', '2', '0', '36')),
    form('({} | wordcount)', t),
    form('({} | abs)', i),
    form('({} | round({}))', i, pick('0', '-1', '-2', '2')),
    form('({}).{}({})', t, pick('find', 'rfind', 'count', 'index', 'rindex'), sign),
    form('({}).{}({}, {}, {})', t, pick('find', 'rfind', 'count'), sign, small, small),
    form('({} | sum)', pick('numbers', '[1, 2, 3]', '[k, k]')),
    form('({}).{}', m, pick('year', 'month', 'day')),
    form('({}).{}()', m, pick('weekday', 'isoweekday', 'toordinal')),
    form('({} | epoch({}))', m, pick("'s'", "'ms'", "'us'")),
    form('({} | date_diff({}, {}))', m, m, pick("'days'", "'hours'", "'seconds'", "'weeks'", "'microseconds'")),
    form('({} if {} else {})', i, b, i),
    form('({}).bit_length()', i),
    form('({} | max)', pick('numbers', '[3, 1, 2]')),
  );
  const number = fc.oneof(
    options,
    i,
    floatLiteral,
    pick('rate', 'rate'),
    decimalSource,
    form('({} {} {})', x, pick('+', '-', '*', '/'), x),
    form('({} {} {})', x, pick('//', '%'), x),
    form('({} ** {})', x, pick('0', '1', '2', '3', '-1', '-2')),
    form('(-{})', x),
    form('({} | float)', a),
    form('({} | float({}))', t, floatLiteral),
    form('({} | decimal)', fc.oneof(x, t)),
    form('({} | abs)', x),
    form('({} | round)', x),
    form('({} | round({}, {}))', x, pick('0', '1', '2', '3', '-1', '-2', '10'), pick("'common'", "'ceil'", "'floor'")),
    form('({} | sum)', pick('[0.1, 0.2, 0.3]', '[amount, 1]', '[amount, amount]', '[rate, rate]')),
    form('({} | round(precision={}, method={}))', x, pick('1', '0'), pick("'ceil'", "'floor'")),
    form('({}).timestamp()', pick('at', 'local', 'at')),
    form('({} - {}).total_seconds()', m, m),
    form('({} | min)', pick('[k, rate]', '[amount, 0]', 'numbers')),
    form('({} if {} else {})', x, b, x),
  );
  const bool = fc.oneof(
    options,
    pick('true', 'false', 'flag', 'flag', 'True', 'none'),
    form('({} {} {})', a, comparison, a),
    form('({} {} {})', x, comparison, x),
    form('({} {} {})', t, comparison, t),
    form('({} {} {} {} {})', x, comparison, x, comparison, x),
    form('({} == {})', a, a),
    form('({} in {})', t, t),
    form('({} not in {})', a, l),
    form('({} in {})', a, fc.oneof(l, d)),
    form('(not {})', a),
    form('({} and {})', a, b),
    form('({} or {})', b, a),
    form('({} is {})', a, tests),
    form('({} is not {})', a, tests),
    form(
      '({} is {}({}))',
      a,
      argumentTests.filter((name) => name !== 'sameas'),
      a,
    ),
    form('({} is not in {})', a, pick('tags', "['a', 1, none]", "'abc'")),
    form('({} is divisibleby {})', i, pick('2', '3', '0')),
    form('({} is sameas {})', a, pick('none', 'true', 'false')),
    form('({}).{}()', t, textPredicates),
    form('({}).{}({})', t, pick('startswith', 'endswith'), fc.oneof(sign, form('({}, {})', sign, sign))),
    form('({}).{}({}, {})', t, pick('startswith', 'endswith'), sign, small),
    form('({} | regex_match({}))', t, patterns),
    form('({} is {}({}))', t, pick('match', 'search'), patterns),
    form('({} {} {})', m, comparison, m),
    form('({}).is_integer()', pick('rate', '2.0', '(k / 2)', '(k | float)')),
    form('({} is test)', pick("'odd'", "'nothing'")),
    form('({} is {} {})', x, pick('greaterthan', 'lessthan', 'ge'), pick('k', '1', 'rate')),
    form('({} is filter)', pick("'upper'", "'nothing'")),
  );
  const list = fc.oneof(
    options,
    fc.array(a, { maxLength: 3 }).map((items) => `[${items.join(', ')}]`),
    fc.array(a, { minLength: 1, maxLength: 3 }).map((items) => `(${items.join(', ')},)`),
    pick(
      'tags',
      'numbers',
      'tags',
      '[]',
      '()',
      "['b', 'A', 'c', 'a']",
      '[3, 1, 2, 1]',
      "[{'a': 2, 'b': 'x'}, {'a': 1, 'b': 'y'}, {'a': 2, 'b': 'z'}]",
    ),
    form('({}).{}({})', t, pick('split', 'rsplit', 'partition', 'rpartition'), sign),
    form('({}).{}({}, {})', t, pick('split', 'rsplit'), fc.oneof(sign, pick('none')), small),
    form('({}).{}()', t, pick('split', 'rsplit', 'splitlines')),
    form('({}).splitlines({})', t, flagLiteral),
    form('({} | list)', fc.oneof(l, t, d)),
    form('({} | {})', l, pick('sort', 'unique', 'reverse', 'list')),
    form('({} | sort({}, {}))', l, flagLiteral, flagLiteral),
    form("({} | sort(attribute='a'))", l),
    form("({} | sort(attribute='a,b', reverse=true))", l),
    form('({} | unique({}))', l, flagLiteral),
    form(
      '({} | map({}))',
      l,
      pick(
        "'upper'",
        "'string'",
        "'length'",
        "'int'",
        "attribute='a'",
        "attribute='a', default='?'",
        "'replace', 'a', 'b'",
        "'default', 0",
        "'first'",
        "'join', '-'",
      ),
    ),
    form(
      '({} | {}({}))',
      l,
      pick('select', 'reject'),
      pick('', "'string'", "'odd'", "'none'", "'gt', 1", "'in', [1, 2, 'a']", "'defined'"),
    ),
    form(
      '({} | {}({}))',
      l,
      pick('selectattr', 'rejectattr'),
      pick("'a'", "'a', 'eq', 2", "'b', 'string'", "'a', 'defined'"),
    ),
    form('({} | batch({}, {}))', l, pick('1', '2', '3'), pick('none', "'x'", '0')),
    form('({} | slice({}, {}))', l, pick('1', '2', '3'), pick('none', "'x'")),
    form("({} | groupby('a'))", l),
    form("({} | groupby('b', default='none', case_sensitive={}))", l, flagLiteral),
    form('({}[{}:{}])', l, small, small),
    form('({}[::{}])', l, pick('-1', '2', '-2')),
    form('({} + {})', l, l),
    form('({} * {})', l, pick('0', '1', '2')),
    form('(range({}) | list)', pick('0', '3', '5, 0, -2', '2, 8', '0, 10, 3')),
    form('range({})', pick('0', '3', '5, 0, -2', '2, 8')),
    form('({}).{}()', d, pick('keys', 'values', 'items')),
    form('({} | items)', d),
    form('({} | dictsort({}, {}))', d, flagLiteral, pick("'key'", "'value'")),
    form('({}).isocalendar()', m),
    form('({}).copy()', l),
    form('({} | regex_findall({}))', t, patterns),
  );
  const dict = fc.oneof(
    options,
    pick('doc', '{}', "{'a': 1, 'b': 'x'}", "{1: 'one', 2.5: 'f', true: 't', none: 'n'}", "{'B': 1, 'a': 2, 'c': 0}"),
    form("{'a': {}, 'b': {}, 'city': {}}", a, a, t),
    form('{{}: {}}', a, a),
    form('dict(a={}, b={})', a, a),
    form('({}).copy()', d),
    form(
      '({} | from_json)',
      pick('\'{"a": [1, 2.50, null, true], "b": {}}\'', '\'{"a": 12345678901234567890}\'', "'[1'"),
    ),
    form('dict({})', d),
  );
  const date = fc.oneof(
    options,
    pick('born', 'at', 'local', 'at'),
    form(
      '({} | date_add({}={}))',
      m,
      pick('years', 'months', 'days', 'hours', 'minutes', 'seconds', 'weeks'),
      fc.integer({ min: -50, max: 50 }).map(String),
    ),
    form(
      '({} | to_datetime)',
      fc.oneof(m, pick("'2024-02-29'", "'2023-12-31 23:59:59.5'", "'2024-05-05T10:00:00Z'", "'nonsense'")),
    ),
    form('({} | to_date)', m),
    form('({} | to_datetime({}))', pick("'29.02.2024 10:11'", "'1.2.1999 1:2'"), pick("'%d.%m.%Y %H:%M'")),
    form('({} | from_epoch({}))', i, pick("'s'", "'ms'", "'us'")),
    form('({}).replace({}={})', m, pick('year', 'month', 'day'), pick('1', '12', '28', '2000')),
    form('({}).date()', pick('at', 'local')),
  );
  const any = fc.oneof(
    options,
    x,
    t,
    i,
    b,
    l,
    d,
    pick('none', 'doc', 'gone', 'born', 'at'),
    m,
    form('{}[{}]', d, pick("'a'", "'b'", "'city'", '1', "'missing'")),
    form('doc.{}', pick('a', 'b', 'city', 'missing')),
    form('{}.get({})', d, pick("'a'", "'city'", "'missing'", "'missing', 7")),
    form('{}[{}]', l, small),
    form('({} | {})', l, pick('first', 'last', 'min', 'max', 'sum')),
    form('({} | attr({}))', a, pick("'year'", "'missing'")),
    form('({} | tojson | from_json)', fc.oneof(d, l)),
    form('({} - {})', m, m),
    form('({} {} {})', a, pick('+', '-', '*', '/', '//', '%'), a),
    form(
      '({} | {})',
      a,
      pick(
        'upper',
        'length',
        'list',
        'sort',
        'first',
        'sum',
        'abs',
        'round',
        'int',
        'float',
        'join',
        'title',
        'wordcount',
        'dictsort',
        'unique',
        'reverse',
        'max',
        'trim',
        'items',
      ),
    ),
    form('({})[{}]', fc.oneof(l, d), a),
    form('{}[{}:{}]', fc.oneof(l, t, d), a, small),
  );
  return { text, int, number, bool, list, dict, date, any };
}) as Record<Kind, Source>;

/** `'%5.1f …' % (…)` and the same as filter. */
function formatPercent(any: Source, number: Source): Source {
  const directive = fc.oneof(
    fc
      .tuple(formatFlags, pick('s', 'r', 'a'), any)
      .map(([flags, type, value]) => ({ text: `%${flags.join('')}${type}`, value })),
    fc
      .tuple(
        formatFlags,
        pick('d', 'i', 'x', 'X', 'o', 'e', 'f', 'g', 'G', 'E'),
        pick('k', 'rate', 'n', '42', '-3', '0.5', '2.675', '1e10', 'true'),
      )
      .map(([flags, type, value]) => ({ text: `%${flags.join('')}${type}`, value })),
    fc.tuple(pick('d', 's'), number).map(([type, value]) => ({ text: `%${type}`, value })),
  );
  return fc.tuple(fc.array(directive, { minLength: 1, maxLength: 3 }), fc.boolean()).map(([parts, filter]) => {
    const pattern = literal(parts.map((part) => part.text).join(' 100%% '));
    const values = parts.map((part) => part.value);
    return filter ? `(${pattern} | format(${values.join(', ')}))` : `(${pattern} % (${values.join(', ')},))`;
  });
}

/** `'{:>8.2f}'.format(…)` */
function formatBraces(any: Source, number: Source): Source {
  const field = fc.oneof(
    fc
      .tuple(
        braceSpec,
        pick('', 'd', 'f', 'e', 'g', '%', 'x', 'b', 'n'),
        pick('k', 'rate', 'n', '42', '-3', '0.5', '1e10', '12345678.9'),
      )
      .map(([spec, type, value]) => ({ spec: spec + type, value })),
    fc
      .tuple(braceSpec, pick('f', '%'), pick('amount', 'amount', '("1.25" | decimal)'))
      .filter(([spec]) => !/[#_]/.test(spec))
      .map(([spec, type, value]) => ({ spec: spec + type, value })),
    fc
      .tuple(pick('', '<10', '>10', '^9', '.3', '*^12.4'), pick('name', 'email', "'abc'"))
      .map(([spec, value]) => ({ spec, value })),
    fc.tuple(fc.constant(''), fc.oneof(any, number)).map(([spec, value]) => ({ spec, value })),
  );
  return fc.tuple(fc.array(field, { minLength: 1, maxLength: 2 }), pick('', '!r', '!s')).map(([fields, conversion]) => {
    const pattern = fields
      .map(({ spec }) => `{${spec === '' ? conversion : ''}${spec === '' ? '' : `:${spec}`}}`)
      .join(' {{x}} ');
    return `(${literal(pattern)}.format(${fields.map(({ value }) => value).join(', ')}))`;
  });
}

// ---- templates

const plainText = fc.oneof(
  pick(' ', '\n', '  \n', 'text', ', ', '{', '}', '%', '\r\n', '# no comment', '\t'),
  oddText.map((text) => text.replace(/[{}%#]/g, '')),
);
const open = pick('{%', '{%-', '{%+');
const close = pick('%}', '-%}', '%}');

export const template: Source = fc.letrec((tie) => {
  const { any, bool, list, text, int, dict } = expressions;
  const body = tie('body') as Source;
  const options = { depthSize: 'small', depthIdentifier: 'template', withCrossShrink: true } as const;
  const variable = pick('x', 'y');
  const tag = (inside: Source) => fc.tuple(open, inside, close).map(([o, i, c]) => `${o} ${i} ${c}`);
  const statement = fc.oneof(
    options,
    plainText,
    form('{{ {} }}', any).map((source) => source),
    form('{{- {} -}}', text),
    form('{}{}{}', tag(form('if {}', bool)), body, tag(pick('endif'))),
    form('{}{}{}{}{}', tag(form('if {}', bool)), body, tag(pick('else')), body, tag(pick('endif'))),
    form(
      '{}{}{}{}{}{}{}',
      tag(form('if {}', bool)),
      body,
      tag(form('elif {}', bool)),
      body,
      tag(pick('else')),
      body,
      tag(pick('endif')),
    ),
    form(
      '{}{}{}{}{}',
      tag(form('for item in {}', fc.oneof(list, text, dict))),
      body,
      pick(
        '{{ item }}',
        '{{ loop.index }}/{{ loop.length }}',
        '{{ loop.first }}{{ loop.last }}{{ loop.revindex0 }}',
        "{{ loop.cycle('a', 'b') }}",
        '{{ loop.previtem }}|{{ loop.nextitem }}',
        '{{ loop.changed(item) }}',
        '{{ loop.depth }}',
      ),
      body,
      tag(pick('endfor')),
    ),
    form(
      '{}{}{}{}{}',
      tag(form('for item in {} if {}', list, pick('item', 'item is string', 'item is not none and item != 1'))),
      pick('{{ item }},'),
      tag(pick('else')),
      body,
      tag(pick('endfor')),
    ),
    form(
      '{}{{ key }}={{ value }};{}',
      tag(form('for key, value in {}', fc.oneof(form('{}.items()', dict), form('{} | dictsort', dict), list))),
      tag(pick('endfor')),
    ),
    tag(form('set {} = {}', variable, any)),
    tag(form('set {}, {} = {}', pick('x'), pick('y'), fc.oneof(form('{}, {}', any, any), list))),
    form('{}{}{}', tag(form('set {}', variable)), body, tag(pick('endset'))),
    form(
      '{}{}{}',
      tag(form('set {} | {}', variable, pick('upper', 'trim', 'length', 'replace("a", "b")'))),
      body,
      tag(pick('endset')),
    ),
    form('{}{}{}', tag(form('with {} = {}', variable, any)), body, tag(pick('endwith'))),
    form(
      '{}{}{}',
      tag(form('filter {}', pick('upper', 'trim', 'replace("a", "b") | lower', 'length', 'indent(2)'))),
      body,
      tag(pick('endfilter')),
    ),
    form(
      '{}{}',
      pick(
        '{# a comment #}',
        '{#- {{ x }} -#}',
        '{% raw %}{{ raw }} {% if %}{% endraw %}',
        '{%- raw -%} {# x #} {%- endraw -%}',
      ),
      plainText,
    ),
    form(
      '{% set ns = namespace(total=0) %}{% for item in {} %}{% set ns.total = ns.total + {} %}{% endfor %}{{ ns.total }}',
      list,
      int,
    ),
    form('{% set l = [{}] %}{% for item in {} %}{% set _ = l.append(item) %}{% endfor %}{{ l }}', any, list),
    form("{% set d = {} %}{% set _ = d.update({'z': {}}) %}{{ d | dictsort }}", dict, any),
    form(
      '{% set l = {} | list %}{% set r = l.{} %}{{ l }}{{ r }}',
      list,
      pick(
        'pop()',
        'pop(0)',
        "insert(1, 'z')",
        'extend([1, 2])',
        "remove('a')",
        'clear()',
        'copy()',
        'reverse()',
        'sort()',
        'sort(reverse=true)',
        "index('a')",
        'count(1)',
      ),
    ),
    form(
      '{% set d = dict({}) %}{% set r = d.{} %}{{ d }}{{ r }}',
      dict,
      pick(
        "pop('a')",
        "pop('a', 0)",
        'popitem()',
        "setdefault('q', 1)",
        "setdefault('a')",
        'clear()',
        'copy()',
        'update(a=1)',
        "update({'x': 2})",
        "update([('k', 1)])",
      ),
    ),
    form('{% set _ = tags.append({}) %}{% set _ = numbers.reverse() %}{{ tags }}{{ numbers }}', any),
    form('{% for item in {} %}{{ loop.cycle({}, {}) }}{% endfor %}', list, any, any),
    form('{{ x }}{{ y }}{% set x = {} %}{{ x }}', any),
    form(
      '{% set name = name | default({}) %}{{ name }}{% for item in {} %}{% set name = item ~ name %}{{ name }}{% endfor %}{{ name }}',
      text,
      list,
    ),
  );
  return {
    statement,
    body: fc.array(statement, { maxLength: 3 }).map((parts) => parts.join('')),
  };
}).body as Source;
