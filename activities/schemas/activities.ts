/** Builds the activities of the registry of schemas for a worker. */
import type { Client } from '@temporalio/client';
import { checkCompatibility } from '../../model/compatibility.ts';
import { SluiceError } from '../../model/errors.ts';
import { defaultMode, schemaText } from '../../model/schema.ts';
import {
  type CompatibilityRequest,
  type RegisterAnswer,
  type RegisterRequest,
  type RegistrySummary,
  type SubjectState,
  subjectsLimit,
} from '../../model/subject.ts';
import { CaptureContext, type CaptureSettings } from '../capture/context.ts';
import { createOwnTables, loadSchemas } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import {
  lastSchemaId,
  listSubjects,
  readLatest,
  readSubject,
  type Subject,
  type SubjectRow,
  writeSubjects,
} from '../load/subjects.ts';
import type { SchemaActivities } from './contract.ts';
import { schemaOfTable } from './table_schema.ts';

export function createSchemaActivities(options: { settings: CaptureSettings; client: Client }): SchemaActivities {
  const context = new CaptureContext(options.settings, options.client);
  const open = () => context.clickhouse('write');
  return {
    summariseRegistry: () => summariseRegistry(open()),
    registerSchema: (input) => registerSchema(open(), input),
    setCompatibility: (input) => setCompatibility(open(), input),
    registerTables: (input) => registerTables(open(), input),
  };
}

async function summariseRegistry(clickhouse: ClickHouse): Promise<RegistrySummary> {
  // The first that the catalog asks for: later ones find the tables.
  await createOwnTables(clickhouse);
  const subjects = new Map<string, SubjectState>();
  let bytes = 0;
  for (const { subject, version, id, compatibility } of await listSubjects(clickhouse)) {
    const state: SubjectState = { version, id, compatibility };
    bytes += JSON.stringify([subject, state]).length;
    if (bytes > subjectsLimit) break;
    subjects.set(subject, state);
  }
  return { last_id: await lastSchemaId(clickhouse), subjects: Object.fromEntries(subjects) };
}

async function registerSchema(
  clickhouse: ClickHouse,
  input: RegisterRequest & { id: number },
): Promise<RegisterAnswer> {
  const { subject, schema, id } = input;
  const known: Subject = (await readSubject(clickhouse, subject)) ?? {
    subject,
    compatibility: defaultMode,
    versions: [],
  };
  const { versions } = known;
  const compatibility = input.compatibility ?? known.compatibility;
  const mode: SubjectRow[] = compatibility === known.compatibility ? [] : [{ subject, version: 0, id, compatibility }];
  const text = schemaText(schema);
  const same = versions.findLast((one) => schemaText(one.schema) === text);
  if (same) {
    await writeSubjects(clickhouse, mode);
    // An earlier try of this very registration has stored it.
    const outcome = same.id === id ? 'created' : 'same';
    return { outcome, subject, version: same.version, id: same.id, compatibility, reasons: [] };
  }
  const numbers = versions.map((one) => one.version);
  const { compatible, reasons } = checkCompatibility(
    versions.map((one) => one.schema),
    schema,
    compatibility,
    numbers,
  );
  const latest = versions.at(-1);
  if (!compatible) {
    const { version, id: lastId } = latest!;
    return { outcome: 'incompatible', subject, version, id: lastId, compatibility, reasons };
  }
  const version = (latest?.version ?? 0) + 1;
  await writeSubjects(clickhouse, [{ subject, version, id, compatibility, schema }, ...mode]);
  return { outcome: 'created', subject, version, id, compatibility, reasons: [] };
}

async function setCompatibility(
  clickhouse: ClickHouse,
  { subject, compatibility, id }: CompatibilityRequest & { id: number },
): Promise<SubjectState> {
  const known = await readSubject(clickhouse, subject);
  if (!known) throw new SluiceError('not_found', `there is no subject ${subject}`, 'See: sluice schemas list');
  if (known.compatibility !== compatibility) {
    await writeSubjects(clickhouse, [{ subject, version: 0, id, compatibility }]);
  }
  const latest = known.versions.at(-1)!;
  return { version: latest.version, id: latest.id, compatibility };
}

async function registerTables(
  clickhouse: ClickHouse,
  { source, id }: { source: string; id: number },
): Promise<RegistrySummary> {
  const tables = await loadSchemas(clickhouse, source);
  const latest = await readLatest(clickhouse, source);
  const heads = new Map((await listSubjects(clickhouse)).map((head) => [head.subject, head.compatibility]));
  const subjects = new Map<string, SubjectState>();
  const rows: SubjectRow[] = [];
  for (const [subject, table] of tables) {
    const schema = schemaOfTable(table);
    const known = latest.get(subject);
    const compatibility = heads.get(subject) ?? defaultMode;
    if (known && schemaText(known.schema) === schemaText(schema)) {
      // Stored by an earlier try of this very registration.
      if (known.id >= id) subjects.set(subject, { version: known.version, id: known.id, compatibility });
      continue;
    }
    const state = { version: (known?.version ?? 0) + 1, id: id + rows.length, compatibility };
    rows.push({ subject, schema, ...state });
    subjects.set(subject, state);
  }
  await writeSubjects(clickhouse, rows);
  const last_id = Math.max(id + rows.length - 1, await lastSchemaId(clickhouse));
  return { last_id, subjects: Object.fromEntries(subjects) };
}
