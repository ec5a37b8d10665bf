/**
 * Where the versions of a row come from: of each that its copy still holds, the batch that wrote it. A version says at
 * which commit it stands; the batch is the one whose positions cover that. Unless that one held the row back: then it is the
 * release that has put it into the copy.
 */
import type { BatchRecord } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import { parseInstant } from '../../model/instant.ts';
import { type Column, copyName, isMultiset, keyColumns, type TableSchema } from '../../model/table.ts';
import type { Source, VersionPlace } from '../capture/source.ts';
import { copyKeyText, readKeyText } from '../check/verify_keys.ts';
import { keyId } from '../check/verify_sides.ts';
import { explainAssetVersion } from '../extract/asset_copy.ts';
import { readRecords } from '../load/batches.ts';
import { type ClickHouse, quoteName } from '../load/clickhouse.ts';
import { rejectKeyId } from '../load/overtaken.ts';
import { rejectsOfVersion } from '../load/rejects.ts';
import { readRelease, recordedReleases, rowMark } from '../load/releases.ts';
import { isoTime } from '../load/time_text.ts';

/** A version of a row, as the copy has it. */
export interface RowVersion {
  /** `keyId` of the row. */
  key: string;
  /** Decimal text. */
  version: string;
  deleted: boolean;
  /** ISO 8601; of a row that was not streamed, when its snapshot was planned. */
  committed_at: string;
}

/** A batch record, as it was read back. */
export type Recorded = BatchRecord & { recorded_at: string };

/** Versions of one row are few: those that no merge has taken yet. */
const mostVersions = 100;
/**
 * How far a commit's time may lie outside of what its batch says, in seconds: clocks go back, and commits overtake each
 * other. The second is looked for when the first finds nothing.
 */
const clockSlacks = [1, 300];

/**
 * The versions of a row that its copy still holds, newest first. `key`: plain text for a key of one column, a JSON object
 * by column for any. Errors: `configuration` when it is no key of the table, or the table has none.
 */
export async function rowVersions(clickhouse: ClickHouse, table: TableSchema, key: string): Promise<RowVersion[]> {
  if (isMultiset(table)) throw hasNoKey(table);
  const texts = readKey(table, key);
  const params: Record<string, string> = {};
  const conditions = keyColumns(table).map((column, i) => {
    params[`key${i}`] = keyText(column, texts[i]!);
    const value = column.encoding === 'bytea' ? `unhex({key${i}:String})` : `{key${i}:String}`;
    return `_r.${quoteName(column.name)} = CAST(${value} AS ${column.clickhouse})`;
  });
  try {
    // The key's columns may have any name, those of the answer too.
    const keys = keyColumns(table).map((column) => copyKeyText(column, `_r.${quoteName(column.name)}`));
    const rows = await clickhouse.rows<{ key: string[]; version: string; deleted: number; committed_at: string }>(
      `SELECT DISTINCT [${keys.join(', ')}] AS key, toString(_r._version) AS version, _r._deleted AS deleted, toString(_r._committed_at) AS committed_at
       FROM ${clickhouse.name(copyName(table))} AS _r WHERE ${conditions.join(' AND ')} ORDER BY _r._version DESC LIMIT ${mostVersions}`,
      { params },
    );
    return rows.map(({ key, version, deleted, committed_at }) => ({
      key: keyId(keyColumns(table).map((column, i) => readKeyText(column, key[i]!))),
      version,
      deleted: Number(deleted) === 1,
      committed_at: isoTime(committed_at),
    }));
  } catch (error) {
    if (!(error instanceof SluiceError) || error.transient) throw error;
    const names = keyColumns(table).map(({ name, type }) => `${name} (${type})`);
    throw new SluiceError('configuration', `${key} is no key of ${table.asset_id}`, `Its key is ${names.join(', ')}.`);
  }
}

function hasNoKey({ asset_id: asset }: TableSchema): SluiceError {
  const remedy = `Give the table a primary key; or ask the copy for all changes: SELECT * FROM ${asset} WHERE … ORDER BY _version, with _sign for what came (1) and went (-1).`;
  return new SluiceError('configuration', `the table of ${asset} has no key: none of its rows has a name`, remedy);
}

function readKey(table: TableSchema, key: string): string[] {
  const columns = keyColumns(table);
  const given = key.startsWith('{') ? parseObject(key) : undefined;
  if (
    given &&
    columns.every(({ name }) => Object.hasOwn(given, name)) &&
    Object.keys(given).length === columns.length
  ) {
    return columns.map(({ name }) => (typeof given[name] === 'string' ? given[name] : JSON.stringify(given[name])));
  }
  if (columns.length === 1) return [key];
  const example = JSON.stringify(Object.fromEntries(columns.map(({ name }) => [name, '…'])));
  throw new SluiceError(
    'configuration',
    `${table.asset_id} has a key of ${columns.length} columns`,
    `Write ${example}.`,
  );
}

function parseObject(text: string): Record<string, unknown> | undefined {
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    return undefined;
  }
}

function keyText(column: Column, text: string): string {
  return column.encoding === 'bytea' ? text.replace(/^\\x/, '') : text;
}

/** The batch that wrote a version, or the release, if it had been held back; undefined when no record tells. */
export async function batchOf(
  clickhouse: ClickHouse,
  source: { id: string; reader: Source },
  table: TableSchema,
  row: RowVersion,
): Promise<Recorded | undefined> {
  const { record, heldBy } = await releaseOf(clickhouse, source.id, table, row);
  if (record) return record;
  const batch = await committedBatch(clickhouse, source, table.asset_id, row);
  // It is being released, and no record says so yet.
  return batch && heldBy.has(batch.id) ? undefined : batch;
}

/** The release that put a version into the copy; or the batches that hold it back, as far as rejects are open. */
async function releaseOf(
  clickhouse: ClickHouse,
  source: string,
  table: TableSchema,
  { key, version }: RowVersion,
): Promise<{ record?: Recorded; heldBy: Set<string> }> {
  const { asset_id: asset } = table;
  const all = await rejectsOfVersion(clickhouse, asset, version);
  const rejects = all.filter((reject) => reject.state !== 'discarded' && rejectKeyId(table, reject.key) === key);
  const recorded = await recordedReleases(clickhouse, source, rejects);
  const heldBy = new Set(rejects.flatMap(({ state, batch }) => (state === 'released' ? [] : [batch])));
  for (const reject of rejects) {
    const id = reject.state === 'released' ? reject.batch : recorded.get(rowMark(reject));
    const record = id === undefined ? undefined : await readRelease(clickhouse, source, id);
    if (record) return { record, heldBy };
  }
  return { heldBy };
}

/** The batch that read a version. */
async function committedBatch(
  clickhouse: ClickHouse,
  source: { id: string; reader: Source },
  asset: string,
  row: RowVersion,
): Promise<Recorded | undefined> {
  const place = source.reader.placeOf(row.version);
  if (place.fromSnapshot) return snapshotBatch(await snapshotRecords(clickhouse, source.id, asset, place), row);
  for (const slack of clockSlacks) {
    const records = await streamRecords(clickhouse, source.id, place.epoch, row.committed_at, slack);
    const ends = await idleEnds(clickhouse, source.id, records);
    const inOrder = [...records, ...ends].sort((a, b) => a.lease - b.lease || a.seq - b.seq);
    const found = streamBatch(inOrder, place, source.reader);
    if (found && found.kind !== 'idle') return found;
  }
  return undefined;
}

function snapshotRecords(
  clickhouse: ClickHouse,
  source: string,
  asset: string,
  { epoch, position }: VersionPlace,
): Promise<Recorded[]> {
  return readRecords(
    clickhouse,
    `source = {source:String} AND epoch = {epoch:UInt16} AND JSONHas(assets, {asset:String})
     AND kind IN ('chunk', 'repair', 'snapshot') AND {position:String} IN (position_from, position_to)`,
    { source, epoch, asset, position },
    'lease, seq',
  );
}

/** Whatever they did: of a transaction that was cut, the last part need not have touched the asset. */
function streamRecords(
  clickhouse: ClickHouse,
  source: string,
  epoch: number,
  at: string,
  slack: number,
): Promise<Recorded[]> {
  const time = `parseDateTime64BestEffort({at:String}, 6, 'UTC')`;
  return readRecords(
    clickhouse,
    `source = {source:String} AND epoch = {epoch:UInt16} AND kind IN ('rows', 'truncate')
     AND committed_first <= ${time} + INTERVAL ${slack} SECOND AND committed_last >= ${time} - INTERVAL ${slack} SECOND`,
    { source, epoch, at },
    'lease, seq',
  );
}

/** Of a transaction that was cut behind its very last change, the commit is in a record without changes. */
async function idleEnds(clickhouse: ClickHouse, source: string, records: Recorded[]): Promise<Recorded[]> {
  const cut = records.filter((record) => record.inner !== '');
  if (cut.length === 0) return [];
  const leases = [...new Set(cut.map(({ lease }) => lease))];
  const positions = [...new Set(cut.map((record) => record.position_to))];
  return await readRecords(
    clickhouse,
    `source = {source:String} AND lease IN {leases:Array(UInt64)} AND kind = 'idle' AND position_from IN {positions:Array(String)}`,
    { source, leases, positions },
    'lease, seq',
  );
}

/** Rows of a chunk or repair bear the time that its record names; what is gone was swept when the snapshot ended. */
function snapshotBatch(records: Recorded[], { committed_at: at, deleted }: RowVersion): Recorded | undefined {
  const named = records.findLast((record) => record.inner !== '' && isoTime(record.inner) === at);
  return named ?? (deleted ? records.findLast((record) => record.kind === 'snapshot') : undefined);
}

/** The batch in which the commit ends; or, of a transaction that was cut, the part that holds the change. */
function streamBatch(records: Recorded[], { position, change }: VersionPlace, reader: Source): Recorded | undefined {
  const last = records.findLastIndex(
    (record) => reader.passed(position, record.position_from) && !reader.passed(position, record.position_to),
  );
  const end = records[last];
  if (!end) return undefined;
  let found = end;
  for (let i = last - 1; i >= 0; i--) {
    const part = records[i]!;
    const sameCut = part.lease === end.lease && part.inner !== '' && part.position_to === end.position_from;
    if (!sameCut) break;
    if (reader.passed(part.inner, change)) found = part;
  }
  return found;
}

/** The batch of a deployment that wrote a version: a file of the run that started at the moment which the version names. */
export async function assetBatchOf(
  clickhouse: ClickHouse,
  deployment: string,
  row: RowVersion,
): Promise<Recorded | undefined> {
  const { updated, started } = explainAssetVersion(BigInt(row.version));
  const records = await readRecords(
    clickhouse,
    `source = {deployment:String} AND lease = {started:UInt64} AND kind IN ('rows', 'backfill') AND JSONHas(assets, {deployment:String})`,
    { deployment, started },
  );
  // Runs may start in the same millisecond: then their intervals tell.
  const covers = (record: Recorded) => {
    const [from, to] = [parseInstant(record.position_from) ?? 0n, parseInstant(record.position_to)];
    return from <= updated && (to === undefined || updated <= to);
  };
  return records.find(covers) ?? records[0];
}
