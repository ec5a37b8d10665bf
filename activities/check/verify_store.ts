/** Results of comparisons, kept in ClickHouse: they hold keys of rows, so they never pass through a workflow. */
import type { ErrorReport } from '../../model/errors.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { durable } from '../load/tables.ts';
import type { TableVerification } from './verify.ts';
import type { Key } from './verify_keys.ts';

/** A comparison of one or more tables of a source. */
export interface Verification {
  id: string;
  source: string;
  /** ISO 8601 in UTC. */
  started_at: string;
  /** Null while it runs. */
  finished_at: string | null;
  status: 'running' | 'finished' | 'failed';
  /** True only when it finished and every table is. */
  identical: boolean;
  tables: TableVerification[];
  /** Why it failed, or null. */
  error: ErrorReport | null;
}

/** Makes `_verifications` when it is not there. */
export async function createVerificationTable(clickhouse: ClickHouse): Promise<void> {
  await clickhouse.command(
    `CREATE TABLE IF NOT EXISTS ${clickhouse.name('_verifications')} (
       source LowCardinality(String), started_at DateTime64(6, 'UTC'), id String,
       finished_at Nullable(DateTime64(6, 'UTC')), status LowCardinality(String), identical Bool, result String,
       revision UInt64
     ) ENGINE = ReplacingMergeTree(revision) ORDER BY (source, started_at, id) SETTINGS ${durable}`,
  );
}

/** How far the comparison of one table is. */
export interface StoredProgress {
  /** Its asset. */
  table: string;
  /** Everything up to this key is done. */
  after: Key;
  found: TableVerification;
}

/** Keeps a comparison as it stands now; a later call for the same id replaces it. */
export async function storeVerification(
  clickhouse: ClickHouse,
  verification: Verification,
  progress?: StoredProgress,
): Promise<void> {
  const { tables, error, ...row } = verification;
  // Rows compared rise, and the end is above all.
  const rows = tables.reduce((sum, table) => sum + table.source_rows + 1, progress?.found.source_rows ?? 0);
  const revision = String(row.status === 'running' ? rows : 1e18);
  const result = JSON.stringify({ tables, error, progress });
  await clickhouse.insertObjects('_verifications', [{ ...row, result, revision }]);
}

type Row = Omit<Verification, 'tables' | 'error'> & { result: string };
type Stored = Pick<Verification, 'tables' | 'error'> & { progress?: StoredProgress };

/** The newest comparison of a source, running or not; undefined when there is none. */
export async function lastVerification(clickhouse: ClickHouse, source: string): Promise<Verification | undefined> {
  return await oneVerification(clickhouse, 'source = {value:String}', source);
}

/** The comparison with this id; undefined when there is none. */
export async function readVerification(clickhouse: ClickHouse, id: string): Promise<Verification | undefined> {
  return await oneVerification(clickhouse, 'id = {value:String}', id);
}

/** A comparison that was not finished, and how far it is; undefined when there is none of this id. */
export async function readProgress(
  clickhouse: ClickHouse,
  id: string,
): Promise<{ verification: Verification; progress: StoredProgress | undefined } | undefined> {
  const row = await oneRow(clickhouse, `id = {value:String} AND status = 'running'`, id);
  if (!row) return undefined;
  const { result, ...rest } = row;
  const { progress, ...stored } = JSON.parse(result) as Stored;
  return { verification: { ...rest, ...stored }, progress };
}

async function oneVerification(
  clickhouse: ClickHouse,
  where: string,
  value: string,
): Promise<Verification | undefined> {
  const row = await oneRow(clickhouse, where, value);
  if (!row) return undefined;
  const { result, ...rest } = row;
  const { tables, error } = JSON.parse(result) as Stored;
  return { ...rest, tables, error };
}

async function oneRow(clickhouse: ClickHouse, where: string, value: string): Promise<Row | undefined> {
  const [row] = await clickhouse.rows<Row>(
    `SELECT id, source, ${isoTime('started_at')}, ${isoTime('finished_at')}, status, identical, result
     FROM ${clickhouse.name('_verifications')} AS v FINAL WHERE ${where} ORDER BY v.started_at DESC, id DESC LIMIT 1`,
    { params: { value } },
  );
  return row;
}

function isoTime(column: string): string {
  return `formatDateTime(v.${column}, '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC') AS ${column}`;
}
