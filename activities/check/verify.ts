/**
 * Whether a copy equals its table, while both move.
 *
 * Part by part, both databases sum digests of their rows (verify_parts.ts). Equal sums: the part is identical, however
 * far the stream is. Otherwise the copy is read again once it has applied all that the source showed (verify_pace.ts);
 * then its rows are compared one by one, and those that differ closely, between two looks at the source (verify_rows.ts):
 * a row that stood still there, and differs in the copy, twice, is a real difference.
 */
import type pg from 'pg';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import { isMultiset, type TableSchema, tableName } from '../../model/table.ts';
import type { VerifySum } from '../capture/contract.ts';
import { connect, withConnection } from '../capture/postgresql/connection.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { lookUpIn } from '../load/look_up.ts';
import { CountComparison } from './verify_counts.ts';
import type { Key } from './verify_keys.ts';
import { NotCaughtUp, Pace } from './verify_pace.ts';
import { PartComparison } from './verify_parts.ts';
import { heldVersions } from './verify_rejects.ts';
import { Rest } from './verify_rest.ts';
import { type Difference, RowComparison } from './verify_rows.ts';
import { copySide, keyId, sourceFacts, sourceSide } from './verify_sides.ts';

/** `moving`: changed faster than it could be compared · `rejected`: missing or different because a change is held back, or was discarded. */
export type Problem = 'missing' | 'extra' | 'different' | 'moving' | 'rejected';

export interface DifferingKey {
  problem: Problem;
  /** By column; of a table without a key all values, long ones cut. */
  key: Record<string, string | number | boolean | null>;
  /** Of a table without a key: how many rows there are that are so. */
  source_rows?: number;
  copy_rows?: number;
  /** Of a `different` row: the columns whose values differ. */
  columns?: string[];
  /** True when it was read again from the source, and is as there now. */
  repaired?: boolean;
}

/** What comparing one table found. Counts of a moving table are of the moments at which its parts were read. */
export interface TableVerification {
  asset_id: string;
  /**
   * Proven equal: nothing is missing, extra, different or still moving, or what was has been repaired. Rows held back by a
   * reject do not count.
   */
  identical: boolean;
  source_rows: number;
  copy_rows: number;
  /** Rows of the source that are not in the copy. */
  missing: number;
  /** Rows of the copy that are not in the source. */
  extra: number;
  /** Rows that are in both with other values. */
  different: number;
  /** Rows that changed faster than they could be compared. */
  moving: number;
  /** Rows that are missing or different because a change of theirs is held back, or somebody has discarded it. */
  rejected: number;
  /** Of those that were missing, extra or different: how many are right now. */
  repaired?: number;
  /** Why others are not, or null. */
  unrepaired?: string | null;
  /** True when too many rows differed, and the copy is made anew. */
  resynced?: boolean;
  /** When its rows had been compared, ISO 8601 in UTC; the comparison of other tables may have gone on. */
  compared_at?: string;
  /** True when it stopped looking at single rows: the counts are at least so high. */
  at_least: boolean;
  /** At most 100. */
  keys: DifferingKey[];
  /** Why the comparison could not be finished, or null. */
  error: ErrorReport | null;
  duration_ms: number;
}

/** What a comparison of tables comes to, without keys: what a flow may hold. */
export function verifySum(tables: TableVerification[], id: string): VerifySum {
  const found = tables.map(
    ({ asset_id, identical, source_rows, missing, extra, different, moving, rejected, repaired }) => {
      return { asset_id, identical, source_rows, missing, extra, different, moving, rejected, repaired };
    },
  );
  found.sort((a, b) => Number(a.identical) - Number(b.identical));
  const identical = tables.every((table) => table.identical);
  return { identical, tables: tables.length, id, found: found.slice(0, 60) };
}

export interface VerifyOptions {
  connectionString: string;
  /** With role `verify`. */
  clickhouse: ClickHouse;
  table: TableSchema;
  /** Position in the source's log up to which the copy holds everything. */
  appliedPosition: () => Promise<bigint>;
  signal?: AbortSignal;
  /** Rows of the source that are summed, and parts; at least once a second, so that a caller can heartbeat. */
  onProgress?: (progress: { checked: number; chunks: number }) => void;
  /** Seconds that the copy may stand still while it is behind; 60 by default. */
  patience?: number;
  /** Rows of a part; 10,000 by default. */
  partRows?: number;
  /** The part of the time that the comparison may take, above 0; 1 by default. */
  share?: number;
  /** Reads rows again from the source; answers why it could not, or null. What became of them is looked at afterwards. */
  repair?: (keys: Key[]) => Promise<string | null>;
  /** Where an earlier comparison of the table ended, and what it had found. */
  after?: Key;
  found?: TableVerification;
  /** Called when everything up to a key has been compared, and repaired. */
  onReached?: (after: Key, found: TableVerification) => Promise<void>;
}

/**
 * Compares a table with its copy. Throws what either side throws, `table_missing` when the table is gone; a copy that
 * does not catch up is an answer with `error`.
 */
export async function verifyTable(options: VerifyOptions): Promise<TableVerification> {
  const started = performance.now();
  const { connectionString, table, signal } = options;
  const found = options.found ?? nothingFound(table.asset_id);
  const progress = { checked: 0, chunks: 0 };
  const client = await connect({ connectionString, applicationName });
  const tell = setInterval(() => options.onProgress?.(progress), 1000);
  const cancel = () => void cancelStatement(client, connectionString);
  signal?.addEventListener('abort', cancel);
  try {
    signal?.throwIfAborted();
    await (isMultiset(table) ? compareCounts : compare)(client, options, found, (checked) => {
      progress.checked = checked;
      progress.chunks += 1;
      options.onProgress?.(progress);
    });
  } catch (error) {
    signal?.throwIfAborted();
    // What the other side failed in, this one still works on.
    await cancelStatement(client, connectionString);
    if (!(error instanceof NotCaughtUp)) throw error;
    found.error = error.report();
  } finally {
    signal?.removeEventListener('abort', cancel);
    clearInterval(tell);
    await client.end().catch(() => {});
  }
  found.duration_ms = Math.round(performance.now() - started);
  found.compared_at = new Date().toISOString();
  return found;
}

const applicationName = 'sluice verify';

async function compare(
  client: pg.Client,
  options: VerifyOptions,
  found: TableVerification,
  onPart: (checked: number) => void,
): Promise<void> {
  const { clickhouse, table, signal } = options;
  const facts = await sourceFacts(client, table);
  if (!facts) throw tableIsGone(table);
  const source = sourceSide(client, table, lookUpIn(clickhouse));
  const copy = copySide(clickhouse, table, signal);
  const pace = new Pace(client, options);
  const rejects = await heldVersions(clickhouse, table);
  const differences: Difference[] = [];
  const sides = { source, copy, pace, table, signal, rejects };
  const rows = new RowComparison({ ...sides, found, onDifference: (one) => differences.push(one) });
  const settle = async (end: Key | undefined) => {
    await rows.nameColumns();
    const some = differences.splice(0);
    // Too many: the copy is made anew.
    if (options.repair && some.length > 0 && !rows.enough) await repair(some, options.repair, sides, found);
    if (end) await options.onReached?.(end, found);
  };
  const rest = options.share !== undefined && options.share < 1 ? new Rest(options.share, signal) : undefined;
  await new PartComparison({ source, copy, pace, found, rows, facts, options, onPart, settle, rest }).run();
  await settle(undefined);
  const { missing, extra, different, moving, repaired = 0 } = found;
  found.identical = missing + extra + different + moving - repaired === 0 && !found.at_least;
}

/** A table without a key: its rows are counted. Nothing is repaired but by a copy that is made anew. */
async function compareCounts(
  client: pg.Client,
  options: VerifyOptions,
  found: TableVerification,
  onPart: (checked: number) => void,
): Promise<void> {
  const { clickhouse, table, signal } = options;
  const facts = await sourceFacts(client, table);
  if (!facts) throw tableIsGone(table);
  const source = sourceSide(client, table, lookUpIn(clickhouse));
  const copy = copySide(clickhouse, table, signal);
  const pace = new Pace(client, options);
  const rows = new CountComparison({ source, copy, pace, table, signal, found });
  const rest = options.share !== undefined && options.share < 1 ? new Rest(options.share, signal) : undefined;
  const settle = async () => {};
  await new PartComparison({ source, copy, pace, found, rows, facts, options, onPart, settle, rest }).run();
  await rows.showValues();
  found.identical = found.missing + found.extra + found.moving === 0 && !found.at_least;
}

/** Rows that are repaired at once. */
const keysPerRepair = 500;

/** Has rows read again, and looks whether they are right then. */
async function repair(
  differences: Difference[],
  read: (keys: Key[]) => Promise<string | null>,
  sides: Omit<ConstructorParameters<typeof RowComparison>[0], 'found'>,
  found: TableVerification,
): Promise<void> {
  for (let from = 0; from < differences.length; from += keysPerRepair) {
    const some = differences.slice(from, from + keysPerRepair);
    const keys = some.map(({ key }) => key);
    const refused = await read(keys);
    const wrong = new Set<string>();
    const still = nothingFound(found.asset_id);
    const onDifference = ({ key }: Difference) => wrong.add(keyId(key));
    await new RowComparison({ ...sides, found: still, onDifference }).lookAt(keys);
    const right = some.filter(({ key }) => !wrong.has(keyId(key)));
    // One that moves now was brought by the stream, or will be.
    found.repaired = (found.repaired ?? 0) + right.length - still.moving;
    found.moving += still.moving;
    found.rejected += still.rejected;
    for (const { shown } of still.moving === 0 ? right : []) if (shown) shown.repaired = true;
    if (wrong.size > 0) found.unrepaired = refused ?? 'they differ again, though they were read from the source';
  }
}

/** Ends what a session is doing: a pass over a large table would otherwise go on for nobody. */
async function cancelStatement(client: pg.Client, connectionString: string): Promise<void> {
  const { processID } = client as unknown as { processID: number };
  await withConnection({ connectionString, applicationName }, async (other) => {
    await other.query('SELECT pg_cancel_backend($1)', [processID]);
  }).catch(() => {});
}

/** The result of a comparison that has not looked at anything yet. */
export function nothingFound(asset_id: string): TableVerification {
  const counts = { source_rows: 0, copy_rows: 0, missing: 0, extra: 0, different: 0, moving: 0, rejected: 0 };
  return { asset_id, identical: false, ...counts, at_least: false, keys: [], error: null, duration_ms: 0 };
}

function tableIsGone(table: TableSchema): SluiceError {
  return new SluiceError(
    'table_missing',
    `the table ${tableName(table)} is not in the source`,
    'Remove it from the source’s tables, or make it again.',
    { table: tableName(table) },
  );
}
