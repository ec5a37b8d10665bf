/** The shapes of the registry of schemas, for REST and its OpenAPI page. What they mean is checked by model/schema.ts. */
import { z } from 'zod';
import { type ReasonCode, reasonCodes } from '../../model/compatibility.ts';
import { allowedTypes } from '../../model/field_type.ts';
import { compatibilityModes, defaultMode, schemaLimits } from '../../model/schema.ts';
import { problemAnswer } from './shapes.ts';

const name = z.string().min(1).max(schemaLimits.name);
const typeName = z
  .string({ error: `must be the name of a type; for a union with null say "nullable": true (${allowedTypes})` })
  .describe(`Type: ${allowedTypes}`);

export const compatibilityMode = z
  .enum(compatibilityModes)
  .describe(
    'BACKWARD: the new version reads rows of the latest; FORWARD: the other way; FULL: both; _TRANSITIVE: all versions',
  );

const field = z.strictObject({
  name,
  type: typeName,
  nullable: z.boolean().optional().describe('Default false'),
  default: z.unknown().optional().describe('A value of the type; nullable fields without one have null'),
  aliases: z.array(name).max(schemaLimits.aliases).optional().describe('Names that the field had before'),
});

/** A schema as people write it. */
export const schemaBody = z.strictObject({ fields: z.array(field).min(1).max(schemaLimits.fields) });

/** A schema as the registry keeps it. */
const schemaAnswer = z
  .object({
    fields: z.array(
      z.object({
        name: z.string(),
        type: z.string(),
        nullable: z.boolean(),
        default: z.unknown().optional(),
        aliases: z.array(z.string()).optional(),
      }),
    ),
  })
  .describe('In its canonical form');

export const subjectName = z
  .string()
  .min(1)
  .max(schemaLimits.subject)
  .describe('Name of a subject; that of a copy is its asset id');
const subject = z.string();
const version = z.int().min(1);

export const registerBody = z.strictObject({
  subject: subjectName,
  schema: schemaBody,
  compatibility: compatibilityMode.optional().describe(`Becomes the subject’s mode; a new subject has ${defaultMode}`),
});
export type RegisterBody = z.infer<typeof registerBody>;

export const registeredAnswer = z.object({
  subject,
  version,
  id: z.int().describe('Of this version, unique in the registry'),
  compatibility: compatibilityMode,
});
export type RegisteredAnswer = z.infer<typeof registeredAnswer>;

export const checkBody = z
  .strictObject({
    subject: subjectName.optional(),
    old_schema: schemaBody.optional(),
    schema: schemaBody,
    mode: compatibilityMode.optional().describe(`Default: the subject’s, or ${defaultMode}`),
  })
  .refine((body) => (body.subject === undefined) !== (body.old_schema === undefined), {
    error: 'name either a subject or an old_schema',
  });
export type CheckBody = z.infer<typeof checkBody>;

const reasons = z.array(
  z.object({
    code: z.enum(Object.keys(reasonCodes) as [ReasonCode, ...ReasonCode[]]),
    field: z.string(),
    detail: z.string(),
    direction: z.enum(['backward', 'forward']),
    version: version.optional().describe('The version that it does not go with'),
  }),
);

export const checkAnswer = z.object({ compatible: z.boolean(), mode: compatibilityMode, reasons });
export type CheckAnswer = z.infer<typeof checkAnswer>;

/** The problem of a schema that is refused. */
export const incompatibleAnswer = problemAnswer
  .extend({ mode: compatibilityMode, reasons })
  .describe('RFC 9457 problem details, with the reasons');

export const subjectAnswer = registeredAnswer.extend({ registered_at: z.string() });
export type SubjectAnswer = z.infer<typeof subjectAnswer>;

export const versionAnswer = z.object({
  subject,
  version,
  id: z.int(),
  registered_at: z.string(),
  schema: schemaAnswer,
});
export type VersionAnswer = z.infer<typeof versionAnswer>;

export const compatibilityBody = z.strictObject({ compatibility: compatibilityMode });
export const compatibilityAnswer = z.object({ subject, compatibility: compatibilityMode });
export type CompatibilityAnswer = z.infer<typeof compatibilityAnswer>;

const wantedVersion = z.union([version, z.literal('latest')]);

export const migrateBody = z.strictObject({
  rows: z.array(z.unknown()).describe('Objects by field'),
  from: wantedVersion.describe('The version that the rows have'),
  to: wantedVersion.default('latest').describe('The version that they are to have'),
});
export type MigrateBody = z.infer<typeof migrateBody>;

export const migrateAnswer = z.object({ subject, from: version, to: version, rows: z.array(z.unknown()) });
export type MigrateAnswer = z.infer<typeof migrateAnswer>;
