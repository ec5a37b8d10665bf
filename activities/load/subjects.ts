/** The registry of schemas in ClickHouse: bodies of versions, and the subjects' modes of compatibility. */
import { type CompatibilityMode, defaultMode, type Schema, schemaText } from '../../model/schema.ts';
import type { ClickHouse } from './clickhouse.ts';
import { durable } from './tables.ts';

/**
 * One row a version. Version 0 holds the subject's mode, in `compatibility`; of a version's own row this is the mode under
 * which it was taken. The catalog gives ids, and they only rise: where a registration that was given up is written late under
 * the number of another one, the one with the higher id counts, at any time and in any order.
 */
const definition = `(
  subject String, version UInt32, id UInt64, compatibility LowCardinality(String), body String,
  registered_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ReplacingMergeTree(id) ORDER BY (subject, version)`;

/** One version of a subject. */
export interface SubjectVersion {
  version: number;
  id: number;
  schema: Schema;
  /** ISO 8601 in UTC. */
  registered_at: string;
}

/** A subject with its versions, the newest last. */
export interface Subject {
  subject: string;
  compatibility: CompatibilityMode;
  versions: SubjectVersion[];
}

/** A subject without bodies. */
export interface SubjectHead {
  subject: string;
  version: number;
  id: number;
  compatibility: CompatibilityMode;
  registered_at: string;
}

/** A row to be written. */
export type SubjectRow = { subject: string; id: number; compatibility: CompatibilityMode } & (
  | { version: 0 }
  | { version: number; schema: Schema }
);

/** Makes `_subjects` when it is not there. */
export async function createSubjects(clickhouse: ClickHouse): Promise<void> {
  const name = clickhouse.name('_subjects');
  await clickhouse.command(`CREATE TABLE IF NOT EXISTS ${name} ${definition} SETTINGS ${durable}`);
}

/** Writes rows, all or none; writing them again changes nothing. When this returns, they are durable. */
export async function writeSubjects(clickhouse: ClickHouse, rows: SubjectRow[]): Promise<void> {
  const values = rows.map((row) => {
    const { subject, version, id, compatibility } = row;
    return { subject, version, id, compatibility, body: 'schema' in row ? schemaText(row.schema) : '' };
  });
  if (values.length > 0) await clickhouse.insertObjects('_subjects', values);
}

interface Row {
  subject: string;
  version: number;
  id: string;
  compatibility: CompatibilityMode;
  body: string;
  registered_at: string;
}

const at = `formatDateTime(s.registered_at, '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC') AS registered_at`;

/** One subject with all its versions; undefined when it has none. */
export async function readSubject(clickhouse: ClickHouse, subject: string): Promise<Subject | undefined> {
  const rows = await clickhouse.rows<Row>(
    `SELECT subject, version, id, compatibility, body, ${at} FROM ${clickhouse.name('_subjects')} AS s FINAL
     WHERE subject = {subject:String} ORDER BY version`,
    { params: { subject } },
  );
  const versions = rows.filter((row) => row.version > 0).map(versionOf);
  if (versions.length === 0) return undefined;
  const mode = rows.find((row) => row.version === 0)?.compatibility ?? defaultMode;
  return { subject, compatibility: mode, versions };
}

/** The latest versions of the subjects that are called as assets of this source. */
export async function readLatest(clickhouse: ClickHouse, source: string): Promise<Map<string, SubjectVersion>> {
  const rows = await clickhouse.rows<Row>(
    `SELECT subject, version, id, body, ${at} FROM ${clickhouse.name('_subjects')} AS s FINAL
     WHERE version > 0 AND subject IN (SELECT asset FROM ${clickhouse.name('_schemas')} WHERE source = {source:String})
     ORDER BY subject, version DESC LIMIT 1 BY subject`,
    { params: { source } },
  );
  return new Map(rows.map((row) => [row.subject, versionOf(row)]));
}

/** All subjects by name, with their latest versions. */
export async function listSubjects(clickhouse: ClickHouse): Promise<SubjectHead[]> {
  const rows = await clickhouse.rows<Omit<Row, 'body'>>(
    `SELECT subject, argMaxIf(s.id, s.version, s.version > 0) AS id, max(s.version) AS version,
       if(countIf(s.version = 0) = 0, {mode:String}, anyIf(s.compatibility, s.version = 0)) AS compatibility,
       formatDateTime(argMax(s.registered_at, s.version), '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC') AS registered_at
     FROM ${clickhouse.name('_subjects')} AS s FINAL GROUP BY subject HAVING max(s.version) > 0 ORDER BY subject`,
    { params: { mode: defaultMode } },
  );
  return rows.map((row) => ({ ...row, id: Number(row.id) }));
}

/** The highest id that was ever written; 0 when there is none. */
export async function lastSchemaId(clickhouse: ClickHouse): Promise<number> {
  const [row] = await clickhouse.rows<{ id: string }>(`SELECT max(id) AS id FROM ${clickhouse.name('_subjects')}`);
  return Number(row?.id ?? 0);
}

function versionOf({ version, id, body, registered_at }: Row): SubjectVersion {
  return { version, id: Number(id), schema: JSON.parse(body) as Schema, registered_at };
}
