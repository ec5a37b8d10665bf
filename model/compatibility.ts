/**
 * Whether schemas go together, by Avro's schema resolution: data that were written with one schema (the writer's) are read
 * with another (the reader's). BACKWARD: the new schema reads data of the old. FORWARD: the old schema reads data of
 * the new. FULL: both. These look at the latest version; with _TRANSITIVE at all versions.
 */
import { type FieldType, typeOf, typeText } from './field_type.ts';
import { type CompatibilityMode, type Field, hasDefault, type Schema } from './schema.ts';

/** Why schemas do not go together. */
export const reasonCodes = {
  missing_default: 'the reader has a field that the writer lacks, and no default for it',
  type_mismatch: 'the writer’s type cannot be promoted to the reader’s',
  decimal_mismatch: 'decimals match only with the same precision and scale',
  null_mismatch: 'the writer may have written null, and the reader’s field is not nullable',
  ambiguous_alias: 'name and aliases of a reader’s field stand for several fields of the writer',
} as const;
export type ReasonCode = keyof typeof reasonCodes;

export interface Reason {
  code: ReasonCode;
  /** Name of the field, as its reader has it. */
  field: string;
  detail: string;
  direction: 'backward' | 'forward';
  /** The version that the new schema does not go with; absent when the old schema is none of a subject. */
  version?: number;
}

export interface Compatibility {
  compatible: boolean;
  mode: CompatibilityMode;
  reasons: Reason[];
}

/**
 * Compares a new schema with those before it, the newest last. `versions` are their numbers, for what is said of them.
 * Without any schema before, all is compatible.
 */
export function checkCompatibility(
  old: readonly Schema[],
  next: Schema,
  mode: CompatibilityMode,
  versions: readonly number[] = [],
): Compatibility {
  const from = mode.endsWith('_TRANSITIVE') ? 0 : Math.max(0, old.length - 1);
  const reasons =
    mode === 'NONE'
      ? []
      : old.slice(from).flatMap((schema, index) => {
          const version = versions[from + index];
          const name = version === undefined ? 'the old schema' : `version ${version}`;
          const numbered = (reason: Reason) => (version === undefined ? reason : { ...reason, version });
          return [
            ...(mode.startsWith('FORWARD') ? [] : read(next, schema, 'backward', 'the new schema', name)),
            ...(mode.startsWith('BACKWARD') ? [] : read(schema, next, 'forward', name, 'the new schema')),
          ].map(numbered);
        });
  return { compatible: reasons.length === 0, mode, reasons };
}

/** The writer's field that a reader's field is read from: found by name and aliases. Several: nobody knows which. */
export function writerFields(writer: ReadonlyMap<string, Field>, field: Field): Field[] {
  return [field.name, ...(field.aliases ?? [])].flatMap((name) => writer.get(name) ?? []);
}

/** The fields of a schema by name. */
export function fieldsByName(schema: Schema): Map<string, Field> {
  return new Map(schema.fields.map((field) => [field.name, field]));
}

function read(
  reader: Schema,
  writer: Schema,
  direction: Reason['direction'],
  readerName: string,
  writerName: string,
): Reason[] {
  const written = fieldsByName(writer);
  return reader.fields.flatMap((field) => {
    const found = fieldMismatch(field, writerFields(written, field), readerName, writerName);
    return found === undefined ? [] : [{ ...found, field: field.name, direction }];
  });
}

type Mismatch = Pick<Reason, 'code' | 'detail'>;

function fieldMismatch(field: Field, found: Field[], reader: string, writer: string): Mismatch | undefined {
  const [source] = found;
  const name = `\`${field.name}\``;
  if (source === undefined) {
    if (hasDefault(field)) return undefined;
    return {
      code: 'missing_default',
      detail: `${writer} has no ${name}, and ${reader} has no default for it: give it one, or make it nullable`,
    };
  }
  if (found.length > 1) {
    const names = found.map((one) => `\`${one.name}\``).join(' and ');
    return { code: 'ambiguous_alias', detail: `${name} of ${reader} stands for ${names} of ${writer}` };
  }
  const [to, from] = [typeOf(field.type), typeOf(source.type)];
  const detail = `${reader} reads ${name} as ${describe(field)}, and ${writer} writes ${describe(source)}`;
  if (source.nullable && !field.nullable) return { code: 'null_mismatch', detail };
  if (source.type === 'null' || canRead(to, from)) return undefined;
  const decimals = to.kind === 'decimal' && from.kind === 'decimal';
  return { code: decimals ? 'decimal_mismatch' : 'type_mismatch', detail };
}

function describe({ type, nullable }: Field): string {
  return nullable && type !== 'null' ? `${type} or null` : type;
}

/** What a type is read from besides itself. */
const promotions: Partial<Record<FieldType['kind'], FieldType['kind'][]>> = {
  long: ['int'],
  float: ['int', 'long'],
  double: ['int', 'long', 'float'],
  // Both are texts with a form, as Avro's logical type is for UUIDs; a text need not have the form.
  string: ['bytes', 'uuid', 'json'],
  bytes: ['string'],
};

/**
 * True when each value of `writer` is read as `reader`. Logical types are read as they are: what they stand for as bare
 * numbers means nothing to others.
 */
export function canRead(reader: FieldType, writer: FieldType): boolean {
  if (reader.kind === 'array' && writer.kind === 'array') return canRead(reader.items, writer.items);
  return typeText(reader) === typeText(writer) || (promotions[reader.kind] ?? []).includes(writer.kind);
}
