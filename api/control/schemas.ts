/** The registry of schemas: changes go through the catalog, reads come from ClickHouse. */
import { listSubjects as allSubjects, readSubject, type Subject } from '../../activities/load/subjects.ts';
import { checkCompatibility } from '../../model/compatibility.ts';
import { SluiceError } from '../../model/errors.ts';
import { catalogMessages, catalogWorkflowId, flowNames } from '../../model/messages.ts';
import { migrateRows } from '../../model/migration.ts';
import { type CompatibilityMode, defaultMode, readSchema, subjectProblem } from '../../model/schema.ts';
import { ShapeError } from '../../model/shape_error.ts';
import type { CompatibilityRequest, RegisterAnswer, RegisterRequest, SubjectState } from '../../model/subject.ts';
import { acted } from './actions.ts';
import type { Control } from './control.ts';
import { ifThere } from './figures.ts';
import { IncompatibleError } from './incompatible.ts';
import type {
  CheckAnswer,
  CheckBody,
  CompatibilityAnswer,
  MigrateAnswer,
  MigrateBody,
  RegisterBody,
  RegisteredAnswer,
  SubjectAnswer,
  VersionAnswer,
} from './schema_shapes.ts';
import { type Flow, updateOrStart } from './temporal.ts';

/** Somebody may have ended it a moment ago: then it is made again from ClickHouse. */
const catalog: Flow = {
  type: flowNames.catalog,
  id: catalogWorkflowId,
  summary: 'The registry of sources and schemas',
};

/** A number, or the newest. */
export type WantedVersion = number | 'latest';

/**
 * Registers a schema; `created` is false when it is registered already. Errors: `configuration` (a schema that is none),
 * IncompatibleError.
 */
export async function registerSchema(
  control: Control,
  { subject, schema: input, compatibility }: RegisterBody,
): Promise<{ created: boolean; answer: RegisteredAnswer }> {
  expectSubject(subject);
  const schema = readSchema(input, '/schema');
  const request: RegisterRequest = { subject, schema, ...(compatibility && { compatibility }) };
  const mode = compatibility === undefined ? {} : { compatibility };
  return await acted(control, { action: catalogMessages.registerSchema, target: subject, input: mode }, async () => {
    const { outcome, reasons, ...answer } = await updateOrStart<RegisterAnswer>(
      control,
      catalog,
      catalogMessages.registerSchema,
      request,
    );
    if (outcome === 'incompatible') throw new IncompatibleError(subject, schema, answer.compatibility, reasons);
    return { created: outcome === 'created', answer };
  });
}

/** Whether a schema goes with a subject's versions, or with another schema. Nothing is stored. Errors: `not_found`. */
export async function checkSchema(control: Control, body: CheckBody): Promise<CheckAnswer> {
  const schema = readSchema(body.schema, '/schema');
  if (body.subject === undefined) {
    return checkCompatibility([readSchema(body.old_schema, '/old_schema')], schema, body.mode ?? defaultMode);
  }
  const { compatibility, versions } = await findSubject(control, body.subject);
  const numbers = versions.map((one) => one.version);
  const schemas = versions.map((one) => one.schema);
  return checkCompatibility(schemas, schema, body.mode ?? compatibility, numbers);
}

/** All subjects by name. */
export async function listSubjects(control: Control): Promise<SubjectAnswer[]> {
  return (await ifThere(() => allSubjects(control.clickhouse))) ?? [];
}

/** One subject. Errors: `not_found`. */
export async function getSubject(control: Control, name: string): Promise<SubjectAnswer> {
  const { subject, compatibility, versions } = await findSubject(control, name);
  const { version, id, registered_at } = versions.at(-1)!;
  return { subject, version, id, compatibility, registered_at };
}

/** All versions of a subject, the newest last. Errors: `not_found`. */
export async function listVersions(control: Control, name: string): Promise<VersionAnswer[]> {
  const { subject, versions } = await findSubject(control, name);
  return versions.map((one) => ({ subject, ...one }));
}

/** One version of a subject. Errors: `not_found`. */
export async function getVersion(control: Control, name: string, wanted: WantedVersion): Promise<VersionAnswer> {
  return versionOf(await findSubject(control, name), wanted);
}

/** The mode of a subject. Errors: `not_found`. */
export async function getCompatibility(control: Control, name: string): Promise<CompatibilityAnswer> {
  const { subject, compatibility } = await findSubject(control, name);
  return { subject, compatibility };
}

/** Sets the mode of a subject, for versions from now on. Errors: `not_found`. */
export async function setCompatibility(
  control: Control,
  subject: string,
  compatibility: CompatibilityMode,
): Promise<CompatibilityAnswer> {
  const request: CompatibilityRequest = { subject, compatibility };
  await findSubject(control, subject);
  const what = { action: catalogMessages.setCompatibility, target: subject, input: { compatibility } };
  const set = await acted(control, what, () =>
    updateOrStart<SubjectState>(control, catalog, catalogMessages.setCompatibility, request),
  );
  return { subject, compatibility: set.compatibility };
}

/** Rewrites rows from one version to another. Errors: `not_found`, ShapeError with a pointer for each value. */
export async function migrate(control: Control, name: string, body: MigrateBody): Promise<MigrateAnswer> {
  const subject = await findSubject(control, name);
  const [from, to] = [versionOf(subject, body.from), versionOf(subject, body.to)];
  const rows = migrateRows(body.rows, from.schema, to.schema, '/rows');
  return { subject: name, from: from.version, to: to.version, rows };
}

async function findSubject(control: Control, name: string): Promise<Subject> {
  const subject = await ifThere(() => readSubject(control.clickhouse, name));
  if (subject) return subject;
  throw new SluiceError('not_found', `there is no subject ${name}`, 'See what there is: `npx sluice schemas list`.');
}

function versionOf({ subject, versions }: Subject, wanted: WantedVersion): VersionAnswer {
  const found = wanted === 'latest' ? versions.at(-1) : versions.find(({ version }) => version === wanted);
  if (found) return { subject, ...found };
  const there = `${versions.at(0)?.version} to ${versions.at(-1)?.version}`;
  throw new SluiceError('not_found', `${subject} has no version ${wanted}`, `It has the versions ${there}.`);
}

function expectSubject(subject: string): void {
  const problem = subjectProblem(subject);
  if (problem === undefined) return;
  throw new ShapeError('the subject is none', [{ pointer: '/subject', detail: problem }], 'Right is e.g. "orders".');
}
