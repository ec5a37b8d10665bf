/** Results of comparisons, kept in ClickHouse: they hold keys of rows, so they never pass through a workflow. */
import type { ErrorReport } from '../../model/errors.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { durable } from '../load/tables.ts';
import type { TableVerification } from './verify.ts';

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

/** Keeps a comparison as it stands now; a later call for the same id replaces it. */
export async function storeVerification(clickhouse: ClickHouse, verification: Verification): Promise<void> {
  const { tables, error, ...row } = verification;
  const revision = String(row.status === 'running' ? tables.length : 1_000_000_000);
  await clickhouse.insertObjects('_verifications', [{ ...row, result: JSON.stringify({ tables, error }), revision }]);
}

type Row = Omit<Verification, 'tables' | 'error'> & { result: string };

/** The newest comparison of a source, running or not; undefined when there is none. */
export async function lastVerification(clickhouse: ClickHouse, source: string): Promise<Verification | undefined> {
  return await oneVerification(clickhouse, 'source = {value:String}', source);
}

/** The comparison with this id; undefined when there is none. */
export async function readVerification(clickhouse: ClickHouse, id: string): Promise<Verification | undefined> {
  return await oneVerification(clickhouse, 'id = {value:String}', id);
}

async function oneVerification(
  clickhouse: ClickHouse,
  where: string,
  value: string,
): Promise<Verification | undefined> {
  const [row] = await clickhouse.rows<Row>(
    `SELECT id, source, ${isoTime('started_at')}, ${isoTime('finished_at')}, status, identical, result
     FROM ${clickhouse.name('_verifications')} AS v FINAL WHERE ${where} ORDER BY v.started_at DESC, id DESC LIMIT 1`,
    { params: { value } },
  );
  if (!row) return undefined;
  const { result, ...rest } = row;
  return { ...rest, ...(JSON.parse(result) as Pick<Verification, 'tables' | 'error'>) };
}

function isoTime(column: string): string {
  return `formatDateTime(v.${column}, '%Y-%m-%dT%H:%i:%S.%fZ', 'UTC') AS ${column}`;
}
