/** Compatibility as Apache Avro itself judges it, on thousands of generated schemas. The seed is printed on failure. */
import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { checkCompatibility, type Reason } from '../model/compatibility.ts';
import { compatibilityModes, readSchema, type Schema } from '../model/schema.ts';
import { type Judge, startJudge, type Verdict } from './avro_judge.ts';

const runs = 3000;
let judge: Judge | string;

beforeAll(async () => {
  judge = await startJudge();
}, 180_000);

afterAll(async () => {
  if (typeof judge !== 'string') await judge[Symbol.asyncDispose]();
});

/** Primitive types and arrays of them: here nothing but Avro's own rules counts. */
const primitive = fc.constantFrom('boolean', 'int', 'long', 'float', 'double', 'bytes', 'string');
const plain = fc.oneof(
  { weight: 6, arbitrary: primitive },
  { weight: 1, arbitrary: fc.constant('null') },
  { weight: 1, arbitrary: primitive.map((type) => `array<${type}>`) },
  { weight: 1, arbitrary: primitive.map((type) => `array<array<${type}>>`) },
);
const logical = fc.constantFrom(
  'date', 'timestamp', 'uuid', 'json', 'decimal(10,2)', 'decimal(12,2)', 'decimal(10,3)', 'array<uuid>', 'array<date>',
); // biome-ignore format: a list
const every = fc.oneof(plain, logical);

const names = ['a', 'b', 'c', 'd', 'e'];
const defaults: Record<string, unknown> = {
  boolean: true, int: 1, long: 2, float: 0.5, double: 1.5, bytes: '\u00ff', string: 'x', null: null,
  date: undefined, timestamp: undefined, uuid: undefined, json: undefined,
}; // biome-ignore format: a list

function fieldOf(types: fc.Arbitrary<string>): fc.Arbitrary<Record<string, unknown>> {
  return fc
    .record({
      name: fc.constantFrom(...names),
      type: types,
      nullable: fc.boolean(),
      withDefault: fc.boolean(),
      aliases: fc.oneof(
        { weight: 3, arbitrary: fc.constant([]) },
        { weight: 1, arbitrary: fc.subarray([...names, 'z'], { maxLength: 2 }) },
      ),
    })
    .map(({ withDefault, type, ...field }) => {
      const value = type.startsWith('array') ? [] : defaults[type];
      return { ...field, type, ...(withDefault && value !== undefined ? { default: value } : {}) };
    });
}

/** Leaves out fields and aliases that stand for one of before. */
function toSchema(fields: Record<string, unknown>[]): Schema {
  const taken = new Set<unknown>();
  const distinct = fields.filter(({ name }) => !taken.has(name) && taken.add(name));
  return readSchema({
    fields: distinct.map((field) => {
      const aliases = (field.aliases as string[]).filter((alias) => !taken.has(alias) && taken.add(alias));
      return { ...field, aliases };
    }),
  });
}

/** Schemas one after another: each has most fields of the one before, some of them altered. */
function historyOf(types: fc.Arbitrary<string>): fc.Arbitrary<Schema[]> {
  const fields = fc.array(fieldOf(types), { minLength: 1, maxLength: 5 });
  const kept = { weight: 3, arbitrary: fc.constant(undefined) };
  const change = fc.array(fc.oneof(kept, { weight: 1, arbitrary: fieldOf(types) }), { minLength: 5, maxLength: 5 });
  return fc.tuple(fields, fc.array(change, { minLength: 1, maxLength: 3 })).map(([first, changes]) => {
    const history: Record<string, unknown>[][] = [first];
    for (const altered of changes) {
      const before = history.at(-1)!;
      history.push(altered.map((field, index) => field ?? before[index]).filter((field) => field !== undefined));
    }
    return history.filter((one) => one.length > 0).map(toSchema);
  });
}

/** What Avro says of a new schema and those before it, as [direction, version, reasons]. */
async function judged(ask: Judge, old: Schema[], next: Schema, mode: string): Promise<[string, number, Verdict][]> {
  if (mode === 'NONE') return [];
  const verdicts: [string, number, Verdict][] = [];
  for (const [index, schema] of old.entries()) {
    if (!mode.endsWith('_TRANSITIVE') && index < old.length - 1) continue;
    if (!mode.startsWith('FORWARD')) verdicts.push(['backward', index, await ask.read(next, schema)]);
    if (!mode.startsWith('BACKWARD')) verdicts.push(['forward', index, await ask.read(schema, next)]);
  }
  return verdicts;
}

/** Which fields of the reader are at fault, and whether for a missing default. */
function faults(reader: Schema, verdict: Verdict): string[] {
  if (verdict === 'ambiguous') return ['ambiguous'];
  const found = verdict.map(({ index, kind }) => {
    return `${reader.fields[index]!.name} ${kind === 'READER_FIELD_MISSING_DEFAULT_VALUE' ? 'missing' : 'type'}`;
  });
  return [...new Set(found)].sort();
}

function ownFaults(reasons: Reason[]): string[] {
  if (reasons.some(({ code }) => code === 'ambiguous_alias')) return ['ambiguous'];
  return reasons.map(({ code, field }) => `${field} ${code === 'missing_default' ? 'missing' : 'type'}`).sort();
}

const mode = fc.constantFrom(...compatibilityModes);

describe('compatibility', () => {
  it('is what Avro says, field by field', async (context) => {
    if (typeof judge === 'string') return context.skip(judge);
    const ask = judge;
    const seen = { compatible: 0, incompatible: 0, codes: new Set<string>() };
    await fc.assert(
      fc.asyncProperty(historyOf(plain), mode, async (history, mode) => {
        const next = history.at(-1)!;
        const old = history.slice(0, -1);
        const own = checkCompatibility(old, next, mode, [...old.keys()]);
        const verdicts = await judged(ask, old, next, mode);
        expect(own.compatible).toBe(verdicts.every(([, , verdict]) => verdict.length === 0));
        for (const [direction, version, verdict] of verdicts) {
          const reader = direction === 'backward' ? next : old[version]!;
          const reasons = own.reasons.filter((one) => one.direction === direction && one.version === version);
          expect(ownFaults(reasons)).toEqual(faults(reader, verdict));
        }
        seen[own.compatible ? 'compatible' : 'incompatible'] += 1;
        for (const { code } of own.reasons) seen.codes.add(code);
      }),
      { numRuns: runs },
    );
    // The pairs must be worth asking for.
    expect(seen.compatible).toBeGreaterThan(runs / 10);
    expect(seen.incompatible).toBeGreaterThan(runs / 10);
    expect([...seen.codes].sort()).toEqual(['ambiguous_alias', 'missing_default', 'null_mismatch', 'type_mismatch']);
  });

  it('is never granted where Avro sees none, with logical types too', async (context) => {
    if (typeof judge === 'string') return context.skip(judge);
    const ask = judge;
    let granted = 0;
    await fc.assert(
      fc.asyncProperty(historyOf(every), mode, async (history, mode) => {
        const [old, next] = [history.slice(0, -1), history.at(-1)!];
        if (mode === 'NONE' || !checkCompatibility(old, next, mode).compatible) return;
        granted += 1;
        for (const [, , verdict] of await judged(ask, old, next, mode)) expect(verdict).toEqual([]);
      }),
      { numRuns: runs },
    );
    expect(granted).toBeGreaterThan(runs / 20);
  });
});
