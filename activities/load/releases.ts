/**
 * Records of kind `release`: rows that were held back, and are in their copy by now. A record names each of its rows, so
 * that a release which died before it could mark them is known for what it was, whatever else is open by then.
 */
import { createHash } from 'node:crypto';
import { type AssetEffects, type BatchRecord, noEffects, type RuleCounts } from '../../model/batch.ts';
import type { TableSchema } from '../../model/table.ts';
import { headAt, lastRecord, lastRecordEver, readRecords, sealRecord, writeRecord } from './batches.ts';
import type { ClickHouse } from './clickhouse.ts';
import type { StoredReject } from './rejects.ts';

/** Who releases: the run and the attempt of an activity. */
export interface Releaser {
  id: string;
  runId: string;
  attempt: number;
}

/** What a release did. */
export interface Release {
  table: TableSchema;
  /** Those that are in the copy now; several of one row count once. */
  released: readonly StoredReject[];
  /** Rows that a truncate had overtaken by the time they were written. */
  superseded: number;
  /** Bytes of TSV sent. */
  bytes: number;
  /** What rules and checks did to the rows. */
  applied: Record<string, RuleCounts>;
  milliseconds: number;
}

type Named = Pick<StoredReject, 'asset' | 'key' | 'version'>;

/** A row by its asset, its key as it was held back, and its version: what a record says of it, since keys are data. */
export function rowMark({ asset, key, version }: Named): string {
  return createHash('sha256')
    .update(JSON.stringify([asset, key, version]))
    .digest('base64url')
    .slice(0, 16);
}

/** The marks of the rows that a record of kind `release` released. */
export function marksOf({ inner }: Pick<BatchRecord, 'inner'>): string[] {
  return inner === '' ? [] : inner.split(' ');
}

/** Of these rows, those that a record says were released: ids of the records by `rowMark`. */
export async function recordedReleases(
  clickhouse: ClickHouse,
  source: string,
  rows: readonly Named[],
): Promise<Map<string, string>> {
  const wanted = new Set(rows.map(rowMark));
  const found = new Map<string, string>();
  if (wanted.size === 0) return found;
  const records = await clickhouse.rows<Pick<BatchRecord, 'id' | 'inner'>>(
    `SELECT id, inner FROM ${clickhouse.name('_batches')} FINAL
     WHERE source = {source:String} AND kind = 'release' AND hasAny(splitByChar(' ', inner), {marks:Array(String)})
     ORDER BY recorded_at`,
    { params: { source, marks: [...wanted] } },
  );
  for (const record of records)
    for (const mark of marksOf(record)) if (wanted.has(mark) && !found.has(mark)) found.set(mark, record.id);
  return found;
}

/** The record of a release; undefined when there is none of that id. */
export async function readRelease(
  clickhouse: ClickHouse,
  source: string,
  id: string,
): Promise<(BatchRecord & { recorded_at: string }) | undefined> {
  const where = `source = {source:String} AND kind = 'release' AND id = {id:String}`;
  return (await readRecords(clickhouse, where, { source, id }))[0];
}

/** Writes the record, durably; answers its id. The same rows again make the same record. */
export async function recordRelease(
  clickhouse: ClickHouse,
  source: string,
  by: Releaser,
  done: Release,
): Promise<string> {
  const { table, released } = done;
  const last = (await lastRecord(clickhouse, source)) ?? (await lastRecordEver(clickhouse, source));
  const marks = [...new Set(released.map(rowMark))].sort();
  const account = accountOf(done, marks.length);
  const record = sealRecord({
    id: releaseId(source, table.asset_id, released, marks),
    source,
    kind: 'release',
    lease: last?.lease ?? 0,
    seq: 0,
    position_from: last?.position_to ?? '',
    position_to: last?.position_to ?? '',
    inner: marks.join(' '),
    cluster: last?.cluster ?? '',
    epoch: last?.epoch ?? 0,
    committed_first: null,
    committed_last: null,
    // They were counted when they came, and were held back.
    changes: 0,
    assets: { [table.asset_id]: account },
    truncated: {},
    failed: {},
    rules: table.rules?.version ?? 0,
    ...(table.rules && { applied: { [table.asset_id]: done.applied } }),
    durations: { fill: 0, resolve: 0, write: Math.round(done.milliseconds) },
    workflow_id: by.id,
    run_id: by.runId,
    attempt: by.attempt,
    previous_hash: last ? headAt(last) : '',
  });
  await writeRecord(clickhouse, record);
  return record.id;
}

function accountOf({ superseded, bytes }: Release, written: number): AssetEffects {
  return { ...noEffects(), effects: written + superseded, written, superseded, bytes };
}

function releaseId(source: string, asset: string, rows: readonly Named[], marks: string[]): string {
  const [first] = rows.map(({ version }) => BigInt(version)).sort((a, b) => (a < b ? -1 : 1));
  const all = createHash('sha256').update(marks.join(' ')).digest('hex').slice(0, 12);
  return `${source}/release/${asset}/${first}-${all}`;
}
