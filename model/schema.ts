/**
 * Schemas of the registry. A subject has versions of one schema; subjects of copies bear the asset's id. A schema is read
 * into its canonical form, so that the same schema is the same text however it was written.
 */
import { allowedTypes, type FieldType, readType, typeText } from './field_type.ts';
import { readValue } from './field_value.ts';
import { Issues, ShapeError } from './shape_error.ts';

/** One field, in its canonical form. */
export interface Field {
  name: string;
  /** Canonical text of its type, e.g. `decimal(12,2)`. */
  type: string;
  nullable: boolean;
  /** What a reader sees where the field was not written yet. Absent: there is none. */
  default?: unknown;
  /** Names that the field had before. */
  aliases?: string[];
}

export interface Schema {
  fields: Field[];
}

/** What a new version of a subject must be able to do with the versions before; see model/compatibility.ts. */
export const compatibilityModes = [
  'BACKWARD',
  'BACKWARD_TRANSITIVE',
  'FORWARD',
  'FORWARD_TRANSITIVE',
  'FULL',
  'FULL_TRANSITIVE',
  'NONE',
] as const;
export type CompatibilityMode = (typeof compatibilityModes)[number];
export const defaultMode: CompatibilityMode = 'BACKWARD';

/** Limits of what is registered. */
export const schemaLimits = { fields: 5000, bytes: 256 * 1024, name: 200, aliases: 50, subject: 200 } as const;

const remedy =
  'Right is e.g. {"fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string", "nullable": true}]}.';
const schemaKeys = ['fields'];
const fieldKeys = ['name', 'type', 'nullable', 'default', 'aliases'];

/** A schema in its canonical form. `pointer`: where the input stands. Throws ShapeError. */
export function readSchema(input: unknown, pointer = ''): Schema {
  const issues = new SchemaIssues(pointer);
  const schema = issues.object(input, '', schemaKeys) ? { fields: readFields(input.fields, issues) } : { fields: [] };
  if (issues.found.length === 0) issues.namesOf(schema);
  if (issues.found.length === 0 && schemaText(schema).length > schemaLimits.bytes) {
    issues.add('', `is larger than ${schemaLimits.bytes / 1024} KiB`);
  }
  if (issues.found.length > 0) throw new ShapeError('the schema is not as it should be', issues.found, remedy);
  return schema;
}

/** The text by which schemas are compared and kept; keys are always in the same order. */
export function schemaText(schema: Schema): string {
  return JSON.stringify({
    fields: schema.fields.map(({ name, type, nullable, default: value, aliases }) => {
      return { name, type, nullable, default: value, aliases };
    }),
  });
}

/** True when the field has a default, be it null. */
export function hasDefault(field: Field): boolean {
  return field.default !== undefined;
}

/** What is wrong with the name of a subject; undefined when nothing is. */
export function subjectProblem(subject: unknown): string | undefined {
  return nameProblem(subject, schemaLimits.subject);
}

function readFields(input: unknown, issues: Issues): Field[] {
  if (!Array.isArray(input)) issues.add('/fields', 'must be a list of fields');
  else if (input.length === 0) issues.add('/fields', 'names no field');
  else if (input.length > schemaLimits.fields) issues.add('/fields', `has more than ${schemaLimits.fields} fields`);
  else return input.flatMap((field, index) => readField(field, `/fields/${index}`, issues) ?? []);
  return [];
}

function readField(input: unknown, at: string, issues: Issues): Field | undefined {
  if (!issues.object(input, at, fieldKeys)) return undefined;
  const { name, type: typeInput, nullable: nullableInput = false, default: value, aliases } = input;
  const badName = nameProblem(name, schemaLimits.name);
  if (badName !== undefined) issues.add(`${at}/name`, badName);
  if (typeof nullableInput !== 'boolean') issues.add(`${at}/nullable`, 'must be true or false');
  const former = readAliases(aliases, `${at}/aliases`, issues);
  const type =
    typeof typeInput === 'string'
      ? readType(typeInput)
      : `must be the name of a type; for a union with null say "nullable": true (${allowedTypes})`;
  if (typeof type === 'string') {
    issues.add(`${at}/type`, type);
    return undefined;
  }
  const nullable = nullableInput === true || type.kind === 'null';
  const initial = readDefault(value, type, nullable, `${at}/default`, issues);
  return {
    name: String(name),
    type: typeText(type),
    nullable,
    ...(initial === undefined ? {} : { default: initial }),
    ...(former.length === 0 ? {} : { aliases: former }),
  };
}

/** Null is the default of what may be null, unless another one is named. */
function readDefault(value: unknown, type: FieldType, nullable: boolean, at: string, issues: Issues): unknown {
  if (value === undefined) return nullable ? null : undefined;
  if (value === null && nullable) return null;
  const reading = readValue(value, type);
  if ('value' in reading) return reading.value;
  issues.add(at, `does not fit the type ${typeText(type)}: ${reading.problem}`);
  return undefined;
}

function readAliases(input: unknown, at: string, issues: Issues): string[] {
  if (input === undefined) return [];
  if (!Array.isArray(input)) issues.add(at, 'must be a list of names');
  else if (input.length > schemaLimits.aliases) issues.add(at, `has more than ${schemaLimits.aliases} names`);
  else {
    for (const [index, alias] of input.entries()) {
      const problem = nameProblem(alias, schemaLimits.name);
      if (problem !== undefined) issues.add(`${at}/${index}`, problem);
    }
    return [...new Set(input.map(String))].sort();
  }
  return [];
}

/** Columns of databases may be called anything; only what no one could read or write is refused. */
function nameProblem(name: unknown, limit: number): string | undefined {
  if (typeof name !== 'string') return 'must be a name';
  if (name === '' || name.length > limit) return `must have 1 to ${limit} characters`;
  return /[\u0000-\u001f\u007f]/.test(name) ? 'has control characters' : undefined;
}

/** What was found wrong with a schema so far. */
class SchemaIssues extends Issues {
  /** Complains about names and aliases that stand for more than one field. */
  namesOf({ fields }: Schema): void {
    const names = new Map<string, string>();
    for (const [index, { name }] of fields.entries()) {
      const at = `/fields/${index}/name`;
      if (names.has(name)) this.add(at, `\`${name}\` is the name of two fields`);
      names.set(name, at);
    }
    for (const [index, { aliases = [] }] of fields.entries()) {
      for (const alias of aliases) {
        const at = `/fields/${index}/aliases`;
        if (names.has(alias)) this.add(at, `\`${alias}\` stands for another field already, or for this one`);
        names.set(alias, at);
      }
    }
  }
}
