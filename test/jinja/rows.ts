/** Rows that expressions are tried on: columns of all types, with NULLs, odd texts and extreme numbers. */
import fc from 'fast-check';
import type { Row } from '../../activities/transform/expression.ts';
import { parseIso } from '../../activities/transform/jinja/date_format.ts';
import { PlainDate } from '../../activities/transform/jinja/dates.ts';
import { parseDecimal } from '../../activities/transform/jinja/decimal.ts';
import { Dict, Float, integerFromText, type Value } from '../../activities/transform/jinja/values.ts';
import type { Encoded } from './python.ts';

export const columns = [
  { name: 'name', type: 'text' },
  { name: 'email', type: 'character varying(100)' },
  { name: 'note', type: 'text' },
  { name: 'gone', type: 'text' },
  { name: 'n', type: 'bigint' },
  { name: 'k', type: 'integer' },
  { name: 'big', type: 'numeric(40,0)' },
  { name: 'amount', type: 'numeric(12,2)' },
  { name: 'rate', type: 'double precision' },
  { name: 'flag', type: 'boolean' },
  { name: 'tags', type: 'text[]' },
  { name: 'numbers', type: 'integer[]' },
  { name: 'doc', type: 'jsonb' },
  { name: 'born', type: 'date' },
  { name: 'at', type: 'timestamp with time zone' },
  { name: 'local', type: 'timestamp without time zone' },
] as const;

/** Texts as people have them, and as they should not: white space of all kinds, letters whose case is special, pairs. */
export const oddText = fc
  .array(
    fc.oneof(
      { weight: 6, arbitrary: fc.constantFrom(...'abcXYZ 019') },
      { weight: 2, arbitrary: fc.constantFrom(...'.,;:!?-_@/\\\'"<>&%{}[]()+=*#$') },
      { weight: 1, arbitrary: fc.constantFrom(...'éÉßÄçñΣςσİıǆǅŉﬁЖж中😀𝒳²½Ⅷ\u0301\xa0\x85\x1f\t\n\r\u2028\u200b') },
    ),
    { maxLength: 14 },
  )
  .map((parts) => parts.join(''));

const niceText = fc.constantFrom(
  'Ann Lee',
  'john.doe@example.com',
  'a,b,,c',
  '  padded  ',
  'The quick brown fox jumps over the lazy dog',
  "it's a well-known fact -- isn't it?",
  'line one\nline two\n\nline four',
  '12',
  '-3.50',
  '007',
  '1_000',
  '2024-02-29',
  '2024-02-29T12:30:45.123456+02:00',
  'true',
  '',
);

export const text: fc.Arbitrary<string> = fc.oneof({ weight: 2, arbitrary: niceText }, oddText);

const str = text.map((v): Encoded => ({ t: 'str', v }));
const none: Encoded = { t: 'none' };
const orNull = (arbitrary: fc.Arbitrary<Encoded>) =>
  fc.oneof({ weight: 9, arbitrary }, { weight: 1, arbitrary: fc.constant(none) });

const integers = fc.oneof(
  fc.integer({ min: -20, max: 60 }),
  fc.constantFrom(0, 1, -1, 255, 1e12, 9007199254740991, -9007199254740991),
);
const int = integers.map((v): Encoded => ({ t: 'int', v: String(v) }));
const bigint = fc.oneof(
  int,
  fc.bigInt(-(2n ** 63n), 2n ** 63n - 1n).map((v): Encoded => ({ t: 'int', v: String(v) })),
);
const huge = fc.bigInt(-(10n ** 39n), 10n ** 39n).map((v): Encoded => ({ t: 'decimal', v: String(v) }));
const decimal = fc
  .tuple(fc.bigInt(-(10n ** 9n), 10n ** 9n), fc.constantFrom('00', '10', '50', '99', '05', '25'))
  .map(([whole, places]): Encoded => ({ t: 'decimal', v: `${whole}.${places}` }));
const float = fc
  .oneof(
    fc.double({ noNaN: true, noDefaultInfinity: true, min: -1e6, max: 1e6 }),
    fc.double({ noNaN: true, noDefaultInfinity: true }),
    fc.constantFrom(0, 1, -1, 0.1, 0.5, 2.5, 1.005, 2.675, 1e15, 1e16, 1e17, 1e-4, 1e-5, 123456.789, 1e22, 1e300),
  )
  .map((v): Encoded => ({ t: 'float', v: Object.is(v, -0) ? '-0.0' : String(v) }));
const bool = fc.boolean().map((v): Encoded => ({ t: 'bool', v }));

const pad = (value: number, width: number) => String(value).padStart(width, '0');
const day = fc
  .tuple(
    fc.oneof(fc.integer({ min: 1, max: 9999 }), fc.integer({ min: 1990, max: 2030 })),
    fc.integer({ min: 1, max: 12 }),
    fc.integer({ min: 1, max: 28 }),
  )
  .map(([y, m, d]) => `${pad(y, 4)}-${pad(m, 2)}-${pad(d, 2)}`);
const clock = fc
  .tuple(
    fc.integer({ min: 0, max: 23 }),
    fc.integer({ min: 0, max: 59 }),
    fc.integer({ min: 0, max: 59 }),
    fc.constantFrom(0, 1, 123456, 500000),
  )
  .map(([h, m, s, f]) => `${pad(h, 2)}:${pad(m, 2)}:${pad(s, 2)}${f === 0 ? '' : `.${pad(f, 6)}`}`);
const date = day.map((v): Encoded => ({ t: 'date', v }));
const moment = (zone: string) =>
  fc.tuple(day, clock).map(([d, c]): Encoded => ({ t: 'datetime', v: `${d} ${c}${zone}` }));

const key = fc
  .constantFrom('a', 'b', 'city', 'items', 'Name', 'x y', '__class__')
  .map((v): Encoded => ({ t: 'str', v }));
const json = fc.letrec<{ value: Encoded }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constant(none),
    bool,
    int,
    float,
    str,
    fc.array(tie('value'), { maxLength: 3 }).map((v): Encoded => ({ t: 'list', v })),
    fc
      .uniqueArray(fc.tuple(key, tie('value')), { maxLength: 3, selector: ([k]) => JSON.stringify(k) })
      .map((v): Encoded => ({ t: 'dict', v })),
  ),
})).value;
const doc = fc.oneof(
  json,
  fc.tuple(str, json, int).map(
    ([city, a, b]): Encoded => ({
      t: 'dict',
      v: [
        [{ t: 'str', v: 'city' }, city],
        [{ t: 'str', v: 'a' }, a],
        [{ t: 'str', v: 'b' }, b],
      ],
    }),
  ),
);

const listOf = (arbitrary: fc.Arbitrary<Encoded>) =>
  fc.array(arbitrary, { maxLength: 5 }).map((v): Encoded => ({ t: 'list', v }));

export const row: fc.Arbitrary<Record<string, Encoded>> = fc.record({
  name: orNull(str),
  email: orNull(str),
  note: orNull(str),
  gone: fc.constant(none),
  n: orNull(bigint),
  k: orNull(int),
  big: orNull(huge),
  amount: orNull(decimal),
  rate: orNull(float),
  flag: orNull(bool),
  tags: orNull(listOf(str)),
  numbers: orNull(listOf(int)),
  doc: orNull(doc),
  born: orNull(date),
  at: orNull(moment('+00:00')),
  local: orNull(moment('')),
});

/** The value that the decoders of rules make of it. */
export function decode(value: Encoded): Value {
  switch (value.t) {
    case 'none':
      return null;
    case 'int':
      return integerFromText(value.v);
    case 'float':
      return new Float(Number(value.v));
    case 'decimal':
      return parseDecimal(value.v)!;
    case 'date':
      return new PlainDate(parseIso(value.v).days);
    case 'datetime':
      return parseIso(value.v);
    case 'list':
      return value.v.map(decode);
    case 'dict': {
      const dict = new Dict();
      for (const [key, item] of value.v) dict.set(decode(key), decode(item));
      return dict;
    }
    default:
      return value.v;
  }
}

export function rowOf(encoded: Record<string, Encoded>): Row {
  return columns.map(({ name }) => decode(encoded[name]!));
}
