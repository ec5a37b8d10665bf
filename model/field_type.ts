/**
 * Types of fields: Avro's primitive names, Avro's logical types that rows of databases need, and names that people know from
 * SQL. Each type has one canonical text, such as `long`, `decimal(12,2)` or `array<string>`.
 */
import { nearest } from './nearest_word.ts';

/** Types that are a name alone. */
export const simpleTypes = [
  'null', 'boolean', 'int', 'long', 'float', 'double', 'bytes', 'string',
  'date', 'timestamp', 'uuid', 'json',
] as const; // biome-ignore format: a list
export type SimpleType = (typeof simpleTypes)[number];

export type FieldType =
  | { kind: SimpleType }
  | { kind: 'decimal'; precision: number; scale: number }
  | { kind: 'array'; items: FieldType };

/** As many digits as a decimal of ClickHouse has at most. */
const maxPrecision = 76;
/** Arrays in arrays. */
const maxDepth = 8;
const maxLength = 200;

/** Other names of a type. Sizes of texts, and digits of seconds, say nothing about which values are read. */
const aliases = new Map<string, SimpleType>(
  Object.entries({
    bool: 'boolean',
    integer: 'int',
    int2: 'int',
    int4: 'int',
    smallint: 'int',
    serial: 'int',
    smallserial: 'int',
    int8: 'long',
    bigint: 'long',
    bigserial: 'long',
    real: 'float',
    float4: 'float',
    float8: 'double',
    'double precision': 'double',
    bytea: 'bytes',
    binary: 'bytes',
    varbinary: 'bytes',
    blob: 'bytes',
    text: 'string',
    varchar: 'string',
    char: 'string',
    character: 'string',
    'character varying': 'string',
    bpchar: 'string',
    citext: 'string',
    jsonb: 'json',
    timestamptz: 'timestamp',
    datetime: 'timestamp',
    'timestamp with time zone': 'timestamp',
    'timestamp without time zone': 'timestamp',
  }),
);

/** Names that may be followed by a size, e.g. `varchar(20)` or `timestamp(3) with time zone`. */
const sized = new Set([
  'varchar', 'char', 'character', 'character varying', 'bpchar', 'binary', 'varbinary',
  'timestamp', 'timestamptz', 'datetime', 'timestamp with time zone', 'timestamp without time zone',
]); // biome-ignore format: a list

const known = [...simpleTypes, 'decimal', 'array', ...aliases.keys(), 'numeric'];

/** What every complaint about a type ends with. */
export const allowedTypes =
  `allowed are ${simpleTypes.join(', ')}, decimal(p,s), array<T>, and names of SQL such as bigint, varchar(20), ` +
  'numeric(12,2), double precision, timestamptz, text[]';

/** Reads a type. Answers what is wrong with it as a text. */
export function readType(text: string): FieldType | string {
  if (text.length > maxLength) return `a type has at most ${maxLength} characters`;
  return parse(text.trim().replace(/\s+/g, ' '), 0);
}

/** The type of a canonical text, or of any that `readType` has accepted. */
export function typeOf(text: string): FieldType {
  const type = readType(text);
  if (typeof type === 'string') throw new Error(type);
  return type;
}

/** The one text of a type. */
export function typeText(type: FieldType): string {
  if (type.kind === 'decimal') return `decimal(${type.precision},${type.scale})`;
  if (type.kind === 'array') return `array<${typeText(type.items)}>`;
  return type.kind;
}

function parse(text: string, depth: number): FieldType | string {
  if (depth > maxDepth) return `arrays are at most ${maxDepth} deep`;
  const inner = /^array ?< ?(.*?) ?>$/i.exec(text)?.[1] ?? /^(.+?) ?\[\]$/.exec(text)?.[1];
  if (inner !== undefined) {
    const items = parse(inner, depth + 1);
    if (typeof items === 'string') return items;
    return items.kind === 'null' ? `an array of null says nothing; ${allowedTypes}` : { kind: 'array', items };
  }
  const match = /^([a-z][a-z0-9]*(?: [a-z]+)*) ?(?:\( ?(\d{1,9}) ?(?:, ?(-?\d{1,9}) ?)?\))?((?: [a-z]+)*)$/i.exec(text);
  if (match === null) return unknown(text);
  const [, head = '', first, second, tail = ''] = match;
  const name = `${head}${tail}`.toLowerCase();
  if (name === 'decimal' || name === 'numeric') return decimal(text, first, second);
  const kind = aliases.get(name) ?? simpleTypes.find((simple) => simple === name);
  if (kind === undefined) return unknown(text, name);
  if (first !== undefined && (second !== undefined || !sized.has(name))) return `\`${name}\` takes no (…)`;
  return { kind };
}

function decimal(text: string, first: string | undefined, second: string | undefined): FieldType | string {
  if (first === undefined) {
    return `\`${text}\` names no precision and scale: write e.g. decimal(12,2), or string when there is no limit`;
  }
  const [precision, scale] = [Number(first), Number(second ?? 0)];
  if (precision < 1 || precision > maxPrecision) return `the precision of \`${text}\` must be 1 to ${maxPrecision}`;
  if (scale < 0 || scale > precision) return `the scale of \`${text}\` must be 0 to its precision`;
  return { kind: 'decimal', precision, scale };
}

function unknown(text: string, name?: string): string {
  const meant = name === undefined ? undefined : nearest(name, known);
  return `\`${text.slice(0, 60)}\` is no type${meant === undefined ? '' : `; did you mean ${meant}?`} (${allowedTypes})`;
}
