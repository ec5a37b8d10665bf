/** Rows that are held back, as people see them, and what becomes of them. */
import type { ClickHouse } from './clickhouse.ts';
import { isoTime } from './time_text.ts';

/** `discarded`: somebody has said so · `superseded`: of the past, by a later change of the row or a new copy of the table. */
export type RejectState = 'open' | 'released' | 'discarded' | 'superseded';

/** A row that is held back. */
export interface StoredReject {
  asset: string;
  /** The row's key: a JSON object of the source's texts. */
  key: string;
  /** Decimal text. */
  version: string;
  /** Id of the rule or check; `type` when the copy cannot hold a value. */
  check: string;
  column: string;
  reason: string;
  /** The row: a JSON object of the source's texts. */
  row: string;
  /** Names of columns whose values the source did not send with the row; absent = not known: an earlier version wrote it. */
  unsent?: string[];
  state: RejectState;
  /** Id of the record of what held it back; once it is released, of the release. */
  batch: string;
  /** ISO 8601. */
  committed_at: string;
  changed_at: string;
}

export interface RejectFilter {
  asset?: string;
  check?: string;
  /** Any of these. */
  states?: RejectState[];
  /** Of rows with these versions. */
  versions?: string[];
  /** Behind this place in the list. */
  after?: RejectPlace;
}

/** Where a page of rejects ends. */
export type RejectPlace = [changedAt: string, asset: string, key: string, version: string, check: string];

/**
 * Rejects page by page, the newest first. Those whose state changes meanwhile move to the front, and are not seen again.
 */
export async function* rejectPages(
  clickhouse: ClickHouse,
  filter: RejectFilter,
  rows: number,
): AsyncGenerator<StoredReject[]> {
  for (let after = filter.after; ; ) {
    const page = await readRejects(clickhouse, { ...filter, after }, rows);
    yield page;
    const last = page.at(-1);
    if (!last || page.length < rows) return;
    after = [last.changed_at, last.asset, last.key, last.version, last.check];
  }
}

/** Rejects, the newest first. */
export async function readRejects(
  clickhouse: ClickHouse,
  filter: RejectFilter,
  limit: number,
): Promise<StoredReject[]> {
  const { asset, check, states, versions, after } = filter;
  const [at, afterAsset, afterKey, afterVersion, afterCheck] = after ?? [];
  const conditions = [
    'true',
    asset === undefined ? '' : 'asset = {asset:String}',
    check === undefined ? '' : '`check` = {check:String}',
    states === undefined ? '' : 'state IN {states:Array(String)}',
    versions === undefined ? '' : `r.version IN (${versions.map((one) => `toUInt128('${BigInt(one)}')`).join(', ')})`,
    after === undefined
      ? ''
      : `(r.changed_at, asset, key, r.version, \`check\`) <
         (parseDateTime64BestEffort({at:String}, 6, 'UTC'), {afterAsset:String}, {afterKey:String}, toUInt128({afterVersion:String}), {afterCheck:String})`,
  ];
  const params = { asset, check, states, at, afterAsset, afterKey, afterVersion, afterCheck };
  const rows = await clickhouse.rows<Omit<StoredReject, 'unsent'> & { unsent: string }>(
    `SELECT asset, key, toString(r.version) AS version, \`check\`, column, reason, row, unsent, state, batch,
       toString(r.committed_at) AS committed_at, toString(r.changed_at) AS changed_at
     FROM ${clickhouse.name('_rejects')} AS r FINAL WHERE ${conditions.filter(Boolean).join(' AND ')}
     ORDER BY r.changed_at DESC, asset DESC, key DESC, r.version DESC, \`check\` DESC LIMIT ${limit}`,
    { params: Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined)) },
  );
  return rows.map(({ unsent, ...row }) => ({
    ...row,
    ...readUnsent(unsent, row.check),
    committed_at: isoTime(row.committed_at),
    changed_at: isoTime(row.changed_at),
  }));
}

/** Rules and checks saw whole rows, also before it was written down what a row lacked. */
function readUnsent(text: string, check: string): Pick<StoredReject, 'unsent'> {
  if (text === '') return check === 'type' ? {} : { unsent: [] };
  return { unsent: JSON.parse(text) as string[] };
}

/** What became of the rejects that bear a version, without their rows: of a snapshot there may be many. */
export async function rejectsOfVersion(
  clickhouse: ClickHouse,
  asset: string,
  version: string,
): Promise<Pick<StoredReject, 'asset' | 'key' | 'version' | 'state' | 'batch'>[]> {
  const rows = await clickhouse.rows<Pick<StoredReject, 'key' | 'state' | 'batch'>>(
    `SELECT key, state, batch FROM ${clickhouse.name('_rejects')} FINAL
     WHERE asset = {asset:String} AND version = toUInt128('${BigInt(version)}')`,
    { params: { asset } },
  );
  return rows.map((row) => ({ asset, version, ...row }));
}

/** Writes rejects as they are now, all of them in another state; the newest one of each counts. */
export async function markRejects(
  clickhouse: ClickHouse,
  rejects: readonly StoredReject[],
  changes: Partial<Pick<StoredReject, 'state' | 'batch'>> = {},
): Promise<void> {
  const rows = rejects.map(({ changed_at: _, unsent, ...reject }) => {
    return { ...reject, unsent: unsent ? JSON.stringify(unsent) : '', ...changes };
  });
  if (rows.length > 0) await clickhouse.insertObjects('_rejects', rows);
}
