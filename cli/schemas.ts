/** `sluice schemas …`: the registry of schemas. */
import { Argument, type Command, InvalidArgumentError, Option } from 'commander';
import { IncompatibleError } from '../api/control/incompatible.ts';
import type { CheckAnswer, SubjectAnswer, VersionAnswer } from '../api/control/schema_shapes.ts';
import {
  checkSchema,
  getSubject,
  getVersion,
  listSubjects,
  migrate,
  registerSchema,
  setCompatibility,
  type WantedVersion,
} from '../api/control/schemas.ts';
import { type CompatibilityMode, compatibilityModes, readSchema } from '../model/schema.ts';
import { readJson, readRows } from './input_files.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

type Done = (status: number) => void;

const schemaExample =
  '\nA schema is a file of JSON, or - for the standard input:\n' +
  '  {"fields": [{"name": "id", "type": "long"}, {"name": "note", "type": "string", "nullable": true}]}';

export function addSchemas(program: Command, done: Done): void {
  const schemas = program
    .command('schemas')
    .description('the registry of schemas: versions, and whether they go together')
    .helpCommand(false);
  addLooks(schemas, done);
  addRegister(schemas, done);
  addCheck(schemas, done);
  addCompatibility(schemas, done);
  addMigrate(schemas, done);
}

function addLooks(schemas: Command, done: Done): void {
  schemas
    .command('list')
    .description('all subjects with their latest versions; those of copies bear their asset ids')
    .option('--json', 'print JSON')
    .action(async (_options: object, command: Command) => {
      const answer = await withControl(listSubjects);
      if (wantsJson(command)) printJson(answer);
      else print(listText(answer));
      done(0);
    });
  schemas
    .command('show <subject>')
    .description('the fields of a subject’s latest version, or of another one')
    .option('--version <n>', 'which version', readVersion, 'latest')
    .option('--json', 'print JSON')
    .action(async (name: string, { version }: { version: WantedVersion }, command: Command) => {
      const [subject, one] = await withControl((control) =>
        Promise.all([getSubject(control, name), getVersion(control, name, version)]),
      );
      if (wantsJson(command)) printJson({ ...one, compatibility: subject.compatibility });
      else print(versionText(subject, one));
      done(0);
    });
}

function addRegister(schemas: Command, done: Done): void {
  schemas
    .command('register <subject> <file>')
    .description('register a schema as the next version of a subject')
    .addOption(new Option('--compatibility <mode>', 'the subject’s mode from now on').choices(compatibilityModes))
    .option('--json', 'print JSON')
    .addHelpText('after', schemaExample)
    .action(async (subject: string, file: string, flags: { compatibility?: CompatibilityMode }, command: Command) => {
      const schema = readSchema(readJson(file));
      try {
        const { created, answer } = await withControl((control) =>
          registerSchema(control, { subject, schema, compatibility: flags.compatibility }),
        );
        if (wantsJson(command)) printJson(answer);
        else
          print(
            `${subject}: ${created ? 'registered as' : 'is'} version ${answer.version}${created ? '' : ' already'}`,
          );
        done(0);
      } catch (error) {
        if (!(error instanceof IncompatibleError) || wantsJson(command)) throw error;
        print(checkText({ compatible: false, mode: error.mode, reasons: error.reasons }));
        done(1);
      }
    });
}

function addCheck(schemas: Command, done: Done): void {
  schemas
    .command('check <subject> <file>')
    .description('would this schema go with the versions of a subject? Exit status 0 yes, 1 no; nothing is stored')
    .addOption(new Option('--mode <mode>', 'default: the subject’s').choices(compatibilityModes))
    .option('--json', 'print JSON')
    .addHelpText('after', schemaExample)
    .action(async (subject: string, file: string, { mode }: { mode?: CompatibilityMode }, command: Command) => {
      const schema = readSchema(readJson(file));
      const answer = await withControl((control) => checkSchema(control, { subject, schema, mode }));
      if (wantsJson(command)) printJson(answer);
      else print(checkText(answer));
      done(answer.compatible ? 0 : 1);
    });
}

function addCompatibility(schemas: Command, done: Done): void {
  schemas
    .command('compatibility <subject>')
    .description('the mode by which versions of a subject must go together, from now on')
    .addArgument(new Argument('<mode>', 'the mode').choices(compatibilityModes))
    .option('--json', 'print JSON')
    .action(async (subject: string, mode: CompatibilityMode, _options: object, command: Command) => {
      const answer = await withControl((control) => setCompatibility(control, subject, mode));
      if (wantsJson(command)) printJson(answer);
      else print(`${answer.subject}: ${answer.compatibility}`);
      done(0);
    });
}

interface MigrateFlags {
  from: WantedVersion;
  to: WantedVersion;
}

function addMigrate(schemas: Command, done: Done): void {
  schemas
    .command('migrate <subject> <file>')
    .description('rewrite rows from one version to another; all or none')
    .requiredOption('--from <n>', 'the version that the rows have', readVersion)
    .option('--to <n>', 'the version that they are to have', readVersion, 'latest')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nRows are a file of JSON: an array, or a line each; - is the standard input.')
    .action(async (subject: string, file: string, { from, to }: MigrateFlags, command: Command) => {
      const rows = readRows(file);
      const answer = await withControl((control) => migrate(control, subject, { rows, from, to }));
      if (wantsJson(command)) printJson(answer);
      else for (const row of answer.rows) print(JSON.stringify(row));
      done(0);
    });
}

function listText(subjects: SubjectAnswer[]): string {
  if (subjects.length === 0) return 'no subjects yet. Register one: npx sluice schemas register --help';
  const rows = subjects.map((one) => [one.subject, one.version, one.id, one.compatibility, one.registered_at]);
  return table(['subject', 'version', 'id', 'compatibility', 'registered'], rows);
}

function versionText(
  { compatibility }: SubjectAnswer,
  { subject, version, id, registered_at, schema }: VersionAnswer,
): string {
  const rows = schema.fields.map((field) => [
    field.name,
    field.type,
    field.nullable ? 'yes' : 'no',
    field.default === undefined ? null : JSON.stringify(field.default),
    field.aliases?.join(', ') ?? null,
  ]);
  const head = `${subject}, version ${version} (id ${id}), registered ${registered_at}, compatibility ${compatibility}`;
  return `${head}\n${table(['field', 'type', 'nullable', 'default', 'aliases'], rows)}`;
}

function checkText({ compatible, mode, reasons }: CheckAnswer): string {
  if (compatible) return `compatible by ${mode}`;
  const rows = reasons.map(({ field, code, detail }) => [field, code, detail]);
  return `not compatible by ${mode}\n${table(['field', 'code', 'why'], rows)}`;
}

function readVersion(text: string): WantedVersion {
  if (text === 'latest') return text;
  if (!/^[1-9]\d{0,8}$/.test(text)) throw new InvalidArgumentError('a version is a number from 1 on, or latest');
  return Number(text);
}
