/**
 * What people decide of rows that were held back.
 *
 * A release goes in steps, each durable before the next: the rows are written, a record of kind `release` says so, the
 * rejects are marked and bear the record's id. Whatever it dies between, it comes again: rows are written again at their own
 * versions, and those that a record names are only marked.
 */
import { performance } from 'node:perf_hooks';
import type { RuleCounts } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import type { SettleAnswer, SettleRequest } from '../../model/rejects.ts';
import { copyName, isMultiset, type TableSchema, tableName } from '../../model/table.ts';
import type { Reject } from '../capture/stream.ts';
import { loadKnownSchemas } from '../load/batches.ts';
import { Block } from '../load/block.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { lookUpIn } from '../load/look_up.ts';
import { overtaken, takeBack } from '../load/overtaken.ts';
import { markRejects, type RejectState, rejectPages, type StoredReject } from '../load/rejects.ts';
import { type Releaser, recordedReleases, recordRelease, rowMark } from '../load/releases.ts';
import { lostRows } from '../load/sink.ts';
import { copyColumns } from '../load/tables.ts';
import { restage } from './held_row.ts';

/** Rows that are looked at and written at once. */
const atOnce = 500;

/** What rejects are released into, and by whom. */
interface Releasing {
  clickhouse: ClickHouse;
  table: TableSchema;
  source: string;
  by: Releaser;
}

/** A row that is right by now, as it goes into the copy. */
interface RightRow {
  bytes: Buffer;
  /** One, or several when more than one rule has held it back. */
  rejects: StoredReject[];
}

/**
 * Releases or discards open rejects of an asset. May run again after a crash.
 * Errors: `not_found`, `configuration` for copies whose rows come otherwise.
 */
export async function settleRejects(
  clickhouse: ClickHouse,
  request: SettleRequest,
  by: Releaser,
): Promise<SettleAnswer> {
  const { asset, action, versions, rows, rule } = request;
  const named = rows && new Set(rows);
  const answer: SettleAnswer = { asset_id: asset, released: 0, discarded: 0, still_open: 0, superseded: 0 };
  const releasing = action === 'release' ? { clickhouse, by, ...(await releasable(clickhouse, asset)) } : undefined;
  for (const some of slices([...new Set(versions)])) {
    // A row may be held back by several rules, one after another, and all rows of a snapshot bear one version.
    for await (const page of rejectPages(clickhouse, { asset, states: ['open'], versions: some }, readAtOnce)) {
      const open = named ? page.filter((reject) => named.has(rowMark(reject))) : page;
      if (releasing) for (const part of slices(open)) await release(releasing, part, answer);
      else await discard(clickhouse, open, rule, answer);
    }
  }
  return answer;
}

/** Rejects that are read at once. */
const readAtOnce = atOnce * 10;

async function discard(
  clickhouse: ClickHouse,
  open: StoredReject[],
  rule: string | undefined,
  answer: SettleAnswer,
): Promise<void> {
  const chosen = rule === undefined ? open : open.filter(({ check }) => check === rule);
  for (const part of slices(chosen)) await markRejects(clickhouse, part, { state: 'discarded' });
  answer.discarded += chosen.length;
}

function slices<Item>(items: readonly Item[]): Item[][] {
  const count = Math.ceil(items.length / atOnce);
  return Array.from({ length: count }, (_, i) => items.slice(i * atOnce, (i + 1) * atOnce));
}

/** What the asset's copy is made from, and by which source. Errors: as `settleRejects`. */
async function releasable(clickhouse: ClickHouse, asset: string): Promise<{ table: TableSchema; source: string }> {
  const table = (await loadKnownSchemas(clickhouse, asset)).get(asset);
  const source = await sourceOf(clickhouse, asset);
  if (!table || source === undefined)
    throw new SluiceError('not_found', `there is no copy ${asset}`, 'See: npx sluice status');
  if (table.schema === '') {
    const remedy = `Mend the asset where it is, then pull it again: npx sluice backfill ${asset} --from … --to …`;
    throw new SluiceError('configuration', `${asset} is filled by a deployment, whose rows are not released`, remedy);
  }
  if (!isMultiset(table)) return { table, source };
  const remedy = `Copy it anew: npx sluice sources resync ${source} ${tableName(table)}`;
  throw new SluiceError('configuration', `${asset} has no key, and its rows are not released one by one`, remedy);
}

async function sourceOf(clickhouse: ClickHouse, asset: string): Promise<string | undefined> {
  const [saved] = await clickhouse.rows<{ source: string }>(
    `SELECT source FROM ${clickhouse.name('_schemas')} FINAL WHERE asset = {asset:String} ORDER BY generation DESC LIMIT 1`,
    { params: { asset } },
  );
  return saved?.source;
}

async function release(releasing: Releasing, open: StoredReject[], answer: SettleAnswer): Promise<void> {
  const { clickhouse, table } = releasing;
  const recorded = await markRecorded(releasing, open);
  answer.released += recorded.size;
  const present = open.filter((one) => !recorded.has(one));
  const past = await overtaken(clickhouse, table, present);
  await markRejects(clickhouse, [...past], { state: 'superseded' });
  answer.superseded += past.size;
  const applied: Record<string, RuleCounts> = {};
  const waiting = present.filter((one) => !past.has(one));
  await writeRight(releasing, await stillRight(releasing, waiting, applied, answer), applied, answer);
}

/** Marks those that a release has recorded which died before it could. Answers them. */
async function markRecorded({ clickhouse, source }: Releasing, open: StoredReject[]): Promise<Set<StoredReject>> {
  const records = await recordedReleases(clickhouse, source, open);
  const recorded = open.filter((reject) => records.has(rowMark(reject)));
  await markRejects(
    clickhouse,
    recorded.map((reject) => ({ ...reject, batch: records.get(rowMark(reject))! })),
    { state: 'released' },
  );
  return new Set(recorded);
}

/** Puts rows through the rules as they are now. Those that are held back again stay open, with their new reasons. */
async function stillRight(
  { clickhouse, table }: Releasing,
  open: StoredReject[],
  applied: Record<string, RuleCounts>,
  answer: SettleAnswer,
): Promise<RightRow[]> {
  const groups = new Map<string, StoredReject[]>();
  for (const reject of open) groups.set(rowMark(reject), [...(groups.get(rowMark(reject)) ?? []), reject]);
  const held = [...groups.values()].map(([reject]) => ({ ...reject!, committed_at: copyTime(reject!.committed_at) }));
  const rows = await restage(table, held, lookUpIn(clickhouse), applied);
  const right: RightRow[] = [];
  const kept: StoredReject[] = [];
  for (const [i, rejects] of [...groups.values()].entries()) {
    const row = rows[i]!;
    if (row instanceof SluiceError) throw row;
    if (row instanceof Block) {
      right.push({ rejects, bytes: Buffer.from(row.content()) });
      continue;
    }
    kept.push(...rejects.flatMap((reject) => heldAgain(reject, row)));
    answer.still_open += rejects.length;
  }
  await markRejects(clickhouse, kept);
  return right;
}

/** The reject with its new reason; under another check when that holds it back now. */
function heldAgain(reject: StoredReject, { reason, column, check = 'type' }: Reject): StoredReject[] {
  const open: StoredReject = { ...reject, check, reason, column, state: 'open' };
  return check === reject.check ? [open] : [open, { ...reject, state: 'superseded' }];
}

/** Writes rows, records that, and marks their rejects, in this order. */
async function writeRight(
  releasing: Releasing,
  right: RightRow[],
  applied: Record<string, RuleCounts>,
  answer: SettleAnswer,
): Promise<void> {
  if (right.length === 0) return;
  const { clickhouse, table, source, by } = releasing;
  const started = performance.now();
  await write(clickhouse, table, right);
  const { late, others } = await whatBecame(clickhouse, table, right);
  await takeBack(clickhouse, table, rejectsOf(late));
  const mine = right.filter((row) => !late.includes(row) && !others.includes(row));
  answer.superseded += rejectsOf(late).length;
  answer.released += rejectsOf(others).length + rejectsOf(mine).length;
  if (mine.length === 0) return;
  const released = rejectsOf(mine);
  const bytes = mine.reduce((sum, row) => sum + row.bytes.length, 0);
  const milliseconds = performance.now() - started;
  const done = { table, released, superseded: late.length, bytes, applied, milliseconds };
  const batch = await recordRelease(clickhouse, source, by, done);
  await markRejects(clickhouse, released, { state: 'released', batch });
}

const rejectsOf = (rows: readonly RightRow[]): StoredReject[] => rows.flatMap(({ rejects }) => rejects);

/** ClickHouse's text of a time. */
export function copyTime(iso: string): string {
  return iso.replace('T', ' ').replace('Z', '');
}

async function write(clickhouse: ClickHouse, table: TableSchema, rows: RightRow[]): Promise<void> {
  const [first] = rejectsOf(rows);
  const id = `release/${table.asset_id}/${first!.version}/${Date.now()}`;
  const bytes = rows.map((row) => row.bytes);
  const written = await clickhouse.insertTsv(copyName(table), copyColumns(table), bytes, id);
  if (!(written >= rows.length)) throw lostRows(table.asset_id, rows.length, written, tableName(table));
}

/**
 * What happened to rejects while their rows were written. Late: a truncate has superseded them, and has swept the copy before
 * they were in it, so that they must go again. Others': somebody else has released them, such as a lease while people do; then
 * that one's record tells.
 */
async function whatBecame(
  clickhouse: ClickHouse,
  table: TableSchema,
  rows: RightRow[],
): Promise<{ late: RightRow[]; others: RightRow[] }> {
  const versions = [...new Set(rejectsOf(rows).map(({ version }) => version))];
  const states = new Map<string, RejectState>();
  for await (const page of rejectPages(clickhouse, { asset: table.asset_id, versions }, readAtOnce))
    for (const reject of page) states.set(placeOf(reject), reject.state);
  const isNow = ({ rejects }: RightRow, state: string) => rejects.some((one) => states.get(placeOf(one)) === state);
  const late = rows.filter((row) => isNow(row, 'superseded'));
  const others = rows.filter((row) => !late.includes(row) && isNow(row, 'released'));
  return { late, others };
}

function placeOf({ key, version, check }: StoredReject): string {
  return JSON.stringify([key, version, check]);
}
