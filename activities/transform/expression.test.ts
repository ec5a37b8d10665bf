import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { SluiceError } from '../../model/errors.ts';
import { decoderFor } from './decode.ts';
import { storedText } from './encode.ts';
import { compileExpression, type ExpressionError } from './expression.ts';
import { PlainDate } from './jinja/dates.ts';
import { parseDecimal } from './jinja/decimal.ts';
import { filters } from './jinja/filters.ts';
import { limits } from './jinja/limits.ts';
import { Dict, Float, type Value } from './jinja/values.ts';

const columns = [
  { name: 'email', type: 'text' },
  { name: 'name', type: 'character varying(50)' },
  { name: 'amount', type: 'numeric(12,2)' },
  { name: 'price', type: 'numeric' },
  { name: 'id', type: 'bigint' },
  { name: 'small', type: 'smallint' },
  { name: 'rate', type: 'double precision' },
  { name: 'active', type: 'boolean' },
  { name: 'born', type: 'date' },
  { name: 'created_at', type: 'timestamp with time zone' },
  { name: 'doc', type: 'jsonb' },
  { name: 'tags', type: 'text[]' },
  { name: 'Order ID', type: 'text' },
];

const doc = new Dict();
doc.set('city', 'Bern');
doc.set('n', null);

const row: Value[] = [
  'john.doe@example.com',
  'Ann',
  parseDecimal('19.99')!,
  parseDecimal('0.5')!,
  9223372036854775807n,
  7,
  new Float(0.1),
  true,
  new PlainDate(0),
  null,
  doc,
  ['a', 'b'],
  'A-1',
];

function evaluate(text: string, changes: Record<string, Value> = {}): Value {
  const values = [...row];
  for (const [name, value] of Object.entries(changes))
    values[columns.findIndex((column) => column.name === name)] = value;
  return compileExpression(text, columns).evaluate(values);
}

function mistake(text: string): ExpressionError {
  try {
    compileExpression(text, columns);
  } catch (error) {
    return error as ExpressionError;
  }
  throw new Error(`${text} compiles`);
}

describe('what an expression makes', () => {
  it('keeps the type of a single {{ }}', () => {
    expect(evaluate('{{ email.split("@")[0][:3] }}***@{{ email.split("@")[1] }}')).toBe('joh***@example.com');
    expect(evaluate('{{ small * 2 }}')).toBe(14);
    expect(evaluate('{{ id + 1 }}')).toBe(9223372036854775808n);
    expect(evaluate('{{ amount * 2 }}')).toEqual(parseDecimal('39.98'));
    expect(evaluate('{{ active }}')).toBe(true);
    expect(evaluate('{{ small }}\n')).toBe(7);
    expect(evaluate('{# note #}{{ small }}')).toBe(7);
  });

  it('makes text of anything around it', () => {
    expect(evaluate('{{ small }} ')).toBe('7 ');
    expect(evaluate('{{ amount }}{{ id }}')).toBe('19.999223372036854775807');
    expect(evaluate('{% if active %}{{ small }}{% endif %}')).toBe('7');
    expect(evaluate('plain')).toBe('plain');
  });

  it('says which kind it is, and which columns it reads', () => {
    const kindOf = (text: string) => compileExpression(text, columns).kind;
    expect(kindOf('{{ small }}')).toBe('value');
    expect(kindOf('{{ small }}.')).toBe('text');
    expect(kindOf('{"a": "{{ small }}"}')).toBe('json');
    expect(kindOf('{"a": 1}')).toBe('text');
    expect(kindOf('{{ {"a": small} }}')).toBe('value');
    const { uses, usedColumns } = compileExpression('{{ name if active else email | upper }}', columns);
    expect(uses).toEqual(['email', 'name', 'active']);
    expect(usedColumns).toEqual([0, 1, 7]);
  });

  it('parses JSON before it puts values in: no data can break it', () => {
    const name = 'say "hi", \\ }} {{ 1 }}';
    const json = storedText(
      evaluate('{"name": "{{ name }}", "n": ["{{ amount }}", 2], "x": "<{{ name }}>", "{{ k }}": null}', { name }),
    );
    expect(json).toBe(
      '{"name":"say \\"hi\\", \\\\ }} {{ 1 }}","n":[19.99,2],"x":"<say \\"hi\\", \\\\ }} {{ 1 }}>","{{ k }}":null}',
    );
    expect(JSON.parse(json)).toEqual({ name, n: [19.99, 2], x: `<${name}>`, '{{ k }}': null });
    expect(storedText(evaluate('["{{ id }}", "{{ doc.missing }}", 12345678901234567890]'))).toBe(
      '[9223372036854775807,null,12345678901234567890]',
    );
    // Quotes around a template inside of the JSON string are escaped there.
    expect(storedText(evaluate('{"d": "{{ email.split(\\"@\\")[1] }}"}'))).toBe('{"d":"example.com"}');
  });

  it('finds columns with unusual names', () => {
    expect(evaluate('{{ row["Order ID"] | lower }}')).toBe('a-1');
    expect(compileExpression('{{ row.name }}', columns).uses).toEqual(['name']);
  });

  it('does not change the values of the row', () => {
    const tags = ['x'];
    expect(evaluate('{% set _ = tags.append("y") %}{{ tags }}', { tags })).toBe("['x', 'y']");
    expect(tags).toEqual(['x']);
    const expression = compileExpression('{% set l = [] %}{% set _ = l.append(small) %}{{ l }}', columns);
    expect(expression.evaluate(row)).toBe('[7]');
    expect(expression.evaluate(row)).toBe('[7]');
  });
});

describe('NULL', () => {
  it('comes of a NULL that makes the expression fail', () => {
    expect(evaluate('{{ email.split("@")[0] }}', { email: null })).toBeNull();
    expect(evaluate('{{ email.split("@")[0][:3] }}***', { email: null })).toBeNull();
    expect(evaluate('{{ amount * 2 }}', { amount: null })).toBeNull();
    expect(evaluate('{{ name + email }}', { email: null })).toBeNull();
    expect(evaluate('{"a": "{{ email.upper() }}"}', { email: null })).toBeNull();
  });

  it('is a value like any other where nothing fails', () => {
    expect(evaluate('{{ email }}', { email: null })).toBeNull();
    expect(evaluate('{{ email | default("none", true) }}', { email: null })).toBe('none');
    expect(evaluate('{{ email is none }}', { email: null })).toBe(true);
    expect(evaluate('Hello {{ email }}', { email: null })).toBe('Hello None');
    expect(evaluate('{{ doc.missing }}')).toBeNull();
    expect(evaluate('{{ doc.n }}')).toBeNull();
  });

  it('does not hide a failure that has nothing to do with NULL', () => {
    expect(() => evaluate('{{ name + small }}')).toThrow('does not work between str and int');
    expect(() => evaluate('{{ (name ~ "x") * 10 ** 7 }}', { name: null })).toThrow('limit "text"');
  });
});

describe('mistakes', () => {
  it('have a line and a column', () => {
    expect(mistake('{{ emial }}')).toMatchObject({ line: 1, column: 4, kind: 'configuration' });
    expect(mistake('{{ emial }}').message).toBe('line 1, column 4: there is no column "emial": did you mean "email"?');
    expect(mistake('{{ emial }}')).toBeInstanceOf(SluiceError);
    expect(mistake('a\nb {{ name |\n   uper }}')).toMatchObject({ line: 3, column: 4 });
    expect(mistake('a\r\nb {{ name | }}').message).toBe('line 2, column 13: expected a name, got "}}"');
    expect(mistake('{% if active %}\n{{ name }}').message).toBe(
      'line 2, column 11: unexpected end of template, expected {% elif %} or {% else %} or {% endif %}',
    );
    expect(mistake('{{ name.uper() }}').message).toContain('there is no method "uper": did you mean "upper"?');
    expect(mistake('{{ name | truncate(lenght=3) }}').message).toContain('takes no argument "lenght"');
    expect(mistake('{{ name is divisibelby(3) }}').message).toContain('did you mean "divisibleby"?');
    expect(mistake('{{ name | regex_replace("(", "") }}').message).toContain('the pattern is not valid');
    expect(mistake('{{ zzz }}').message).toContain('there are email, name, amount');
    expect(mistake('{{ now() }}').message).toContain('the same result whenever it runs');
  });

  it('stand where they are inside of JSON', () => {
    expect(mistake('{\n  "a": "x",\n  "b": "{{ emial }}"\n}')).toMatchObject({ line: 3, column: 12 });
  });

  it('in loops and blocks: names of the template are known there and nowhere else', () => {
    expect(evaluate('{% for c in name %}{{ c }}{{ loop.index }}{% endfor %}')).toBe('A1n2n3');
    expect(mistake('{% for c in name %}{% endfor %}{{ c }}').message).toContain('there is no column "c"');
    expect(mistake('{{ loop.index }}').message).toContain('there is no column "loop"');
  });
});

describe('what exceeds JavaScript itself', () => {
  it('is a mistake of the expression', () => {
    const beyond = {
      name: 'name',
      get type(): string {
        throw new RangeError('Invalid string length');
      },
    };
    expect(() => compileExpression('{{ name }}', [beyond])).toThrow(
      'line 1, column 1: limit "depth" reached: Invalid string length',
    );
  });
});

describe('the inferred type', () => {
  it.each([
    ['{{ email }}', 'String'],
    ['{{ email | length }}', 'Int64'],
    ['{{ small + 1 }}', 'Int64'],
    ['{{ id / 2 }}', 'Float64'],
    ['{{ rate * 2 }}', 'Float64'],
    ['{{ amount }}', 'Decimal(12, 2)'],
    ['{{ amount + 1.5 }}', 'Decimal(76, 38)'],
    ['{{ amount + ("1.25" | decimal) }}', 'Decimal(13, 2)'],
    ['{{ amount * 2 }}', 'Decimal(13, 2)'],
    ['{{ amount + small }}', 'Decimal(13, 2)'],
    ['{{ amount * amount }}', 'Decimal(24, 4)'],
    ['{{ amount / 3 }}', 'Decimal(76, 38)'],
    ['{{ (amount / 3) | round(2) }}', 'Decimal(38, 2)'],
    ['{{ amount | round(1) }}', 'Decimal(12, 1)'],
    ['{{ amount | round }}', 'Decimal(11, 0)'],
    ['{{ price }}', 'Decimal(76, 38)'],
    ['{{ active and not active }}', 'Bool'],
    ['{{ amount > 1 }}', 'Bool'],
    ['{{ born }}', 'Date32'],
    ['{{ created_at }}', "DateTime64(6, 'UTC')"],
    ['{{ born.year }}', 'Int64'],
    ['{{ created_at | date_add(days=1) }}', "DateTime64(6, 'UTC')"],
    ['{{ email.split("@")[0] }}', 'String'],
    ['{{ amount if active else 0 }}', 'Decimal(12, 2)'],
    ['{{ amount if active }}', 'Decimal(12, 2)'],
    ['{{ amount if active else "none" }}', 'String'],
    ['{{ small or none }}', 'Int64'],
    ['{{ doc.city }}', 'String'],
    ['{{ tags }}', 'String'],
    ['{"a": "{{ small }}"}', 'String'],
    ['x{{ small }}', 'String'],
    ['{{ small | default(0) }}', 'Int64'],
    ['{{ email | int }}', 'Int64'],
  ])('%s: %s', (text, type) => {
    expect(compileExpression(text, columns).inferType()).toBe(type);
  });
});

describe('the examples of docs/expressions.md', () => {
  const page = readFileSync(new URL('../../docs/expressions.md', import.meta.url), 'utf8');
  const examples = page.slice(page.indexOf('## Examples'), page.indexOf('## Limits'));
  const rows = [...examples.matchAll(/^\| `(.*)` \| `(.*)` \|$/gm)].map(([, expression, result]) => [
    expression!.replaceAll('\\|', '|'),
    result!,
  ]);
  const known = [
    { name: 'name', type: 'text', text: 'Ann Lee' },
    { name: 'email', type: 'text', text: 'john.doe@example.com' },
    { name: 'amount', type: 'numeric(12,2)', text: '19.99' },
    { name: 'quantity', type: 'integer', text: '3' },
    { name: 'created_at', type: 'timestamp with time zone', text: '2024-02-29 23:30:00+00' },
    { name: 'tags', type: 'text[]', text: '{b,a,b}' },
    { name: 'doc', type: 'jsonb', text: '{"city": "Bern", "n": null}' },
  ];
  const values = known.map(({ type, text }) => decoderFor(type)(Buffer.from(text), 0, text.length));

  it('are many', () => expect(rows.length).toBeGreaterThan(12));

  it.each(rows)('%s', (expression, result) => {
    expect(storedText(compileExpression(expression!, known).evaluate(values))).toBe(result);
  });

  it('and its limits are those of the code', () => {
    for (const [name, value] of Object.entries(limits)) {
      const [, text] = new RegExp(`^\\| \`${name}\` \\| ([\\d,]+)`, 'm').exec(page) ?? [];
      expect([name, Number(text?.replaceAll(',', ''))]).toEqual([name, value]);
    }
  });

  it('and it names every filter', () => {
    const text = page.slice(page.indexOf('- Filters of Jinja2'), page.indexOf('- Tests:'));
    expect([...filters.keys()].filter((name) => !new RegExp(`\\b${name}\\b`).test(text))).toEqual([]);
  });
});
