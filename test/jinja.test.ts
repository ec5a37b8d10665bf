/** Expressions of rules against Python's own Jinja2: argued cases, and expressions and rows made by chance. */
import { readFileSync } from 'node:fs';
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { filters } from '../activities/transform/jinja/filters.ts';
import { isTests } from '../activities/transform/jinja/is_tests.ts';
import { allMethods } from '../activities/transform/jinja/methods.ts';
import { caseRow, cases } from './jinja/cases.ts';
import { difference, evaluate } from './jinja/compare.ts';
import { differences } from './jinja/differences.ts';
import { expressions, template } from './jinja/grammar.ts';
import { type Encoded, Python, type Request } from './jinja/python.ts';
import { row } from './jinja/rows.ts';

const seed = Number(process.env.JINJA_SEED ?? 20_240_229);
/** Expressions of each kind; templates twice as many. */
const runs = Number(process.env.JINJA_RUNS ?? 500);

let python: Python;

beforeAll(async () => {
  python = await Python.start();
}, 180_000);

afterAll(async () => {
  await python?.stop();
});

const encodedRow = caseRow as unknown as Record<string, Encoded>;

/** Compares many expressions, and shrinks the first that differs. Answers how many had a value in Python. */
async function compare(mode: Request['mode'], source: fc.Arbitrary<string>, numRuns: number): Promise<number> {
  let values = 0;
  const property = fc.asyncProperty(source, row, async (text, encoded) => {
    const request: Request = { mode, source: text, row: encoded };
    const theirs = await python.ask(request);
    if (theirs.ok) values++;
    const problem = difference(request, evaluate(request), theirs);
    if (problem !== undefined) throw new Error(`${text}\n${problem}`);
  });
  await fc.assert(property, { numRuns, seed });
  return values;
}

describe('expressions are those of Jinja2 in Python', () => {
  for (const kind of ['text', 'int', 'number', 'bool', 'list', 'dict', 'date', 'any'] as const) {
    it(`${kind}: ${runs} expressions by chance`, async () => {
      // A grammar whose expressions all fail would prove nothing.
      expect(await compare('value', expressions[kind], runs)).toBeGreaterThan(runs * 0.4);
    });
  }

  it(`templates: ${runs * 2} by chance`, async () => {
    // Names that are set anywhere in a template are known everywhere.
    const text = template.map((source) => `{% if false %}{% set x = 0 %}{% set y = 0 %}{% endif %}${source}|`);
    expect(await compare('text', text, runs * 2)).toBeGreaterThan(runs * 0.5);
  });

  it.each(cases)('%j', async (source) => {
    const request: Request = { mode: 'text', source, row: encodedRow };
    expect(difference(request, evaluate(request), await python.ask(request))).toBeUndefined();
  });

  it('all filters, tests and methods stand in the grammar', () => {
    const grammar = readFileSync(new URL('./jinja/grammar.ts', import.meta.url), 'utf8');
    const words = new Set(grammar.match(/[a-z_]+|[<>=!]+/g));
    const names = [filters, isTests, ...allMethods].flatMap((routines) => [...routines.keys()]);
    expect(names.filter((name) => !words.has(name))).toEqual([]);
  });
});

describe('differences from Jinja2', () => {
  it.each(differences)('row $row: $source', async ({ source, jinja, rules }) => {
    const request: Request = { mode: 'plain', source, row: encodedRow };
    const theirs = await python.ask(request);
    if (jinja === undefined) expect(theirs.ok).toBe(false);
    else expect(theirs.ok && theirs.repr).toContain(jinja);
    const ours = evaluate({ ...request, mode: 'text' });
    if (rules === undefined) expect(ours.ok).toBe(false);
    else expect(ours.ok && ours.repr).toBe(pythonText(rules));
  });
});

/** As repr() writes it. */
function pythonText(text: string): string {
  return text.includes("'") && !text.includes('"') ? `"${text}"` : `'${text.replaceAll("'", "\\'")}'`;
}
