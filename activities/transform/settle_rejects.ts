/** What people decide of rows that were held back. */
import { SluiceError } from '../../model/errors.ts';
import type { SettleAnswer, SettleRequest } from '../../model/rejects.ts';
import { copyName, isMultiset, type TableSchema, tableName } from '../../model/table.ts';
import { loadKnownSchemas } from '../load/batches.ts';
import { Block } from '../load/block.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { lookUpIn } from '../load/look_up.ts';
import { markRejects, readRejects, type StoredReject } from '../load/rejects.ts';
import { lostRows } from '../load/sink.ts';
import { copyColumns, sweepBelow } from '../load/tables.ts';
import { restage } from './held_row.ts';

/** Rows that are looked at and written at once. */
const atOnce = 500;

/** Releases or discards the open rejects of an asset that bear these versions. May run again after a crash. */
export async function settleRejects(clickhouse: ClickHouse, request: SettleRequest): Promise<SettleAnswer> {
  const { asset, action, versions } = request;
  const answer: SettleAnswer = { asset_id: asset, released: 0, discarded: 0, still_open: 0, superseded: 0 };
  const table = action === 'release' ? await releasable(clickhouse, asset) : undefined;
  for (let from = 0; from < versions.length; from += atOnce) {
    const some = versions.slice(from, from + atOnce);
    // One version may be held back by several rules, one after another.
    const open = await readRejects(clickhouse, { asset, state: 'open', versions: some }, some.length * 100);
    if (table) await release(clickhouse, table, open, answer);
    else {
      await markRejects(clickhouse, open, { state: 'discarded' });
      answer.discarded += open.length;
    }
  }
  return answer;
}

/** What the asset's copy is made from. Errors: `not_found`, `configuration` for copies whose rows come otherwise. */
async function releasable(clickhouse: ClickHouse, asset: string): Promise<TableSchema> {
  const table = (await loadKnownSchemas(clickhouse, asset)).get(asset);
  if (!table) throw new SluiceError('not_found', `there is no copy ${asset}`, 'See: npx sluice status');
  if (table.schema === '') {
    const remedy = `Mend the asset where it is, then pull it again: npx sluice backfill ${asset} --from … --to …`;
    throw new SluiceError('configuration', `${asset} is filled by a deployment, whose rows are not released`, remedy);
  }
  if (!isMultiset(table)) return table;
  const remedy = `Copy it anew: npx sluice sources resync <source> ${tableName(table)}`;
  throw new SluiceError('configuration', `${asset} has no key, and its rows are not released one by one`, remedy);
}

async function release(
  clickhouse: ClickHouse,
  table: TableSchema,
  open: StoredReject[],
  answer: SettleAnswer,
): Promise<void> {
  const oldest = BigInt(table.copy?.from ?? 0);
  const past = open.filter(({ version }) => BigInt(version) < oldest);
  // The copy was made anew since, from what the source has now.
  await markRejects(clickhouse, past, { state: 'discarded' });
  answer.superseded += past.length;
  const right: { reject: StoredReject; bytes: Buffer }[] = [];
  const present = open.filter((one) => !past.includes(one));
  const held = present.map((reject) => ({ ...reject, committed_at: copyTime(reject.committed_at) }));
  const rows = await restage(table, held, lookUpIn(clickhouse));
  for (const [i, row] of rows.entries()) {
    const reject = present[i]!;
    if (row instanceof SluiceError) throw row;
    if (row instanceof Block) right.push({ reject, bytes: Buffer.from(row.content()) });
    else {
      const { reason, column } = row;
      const { check = 'type' } = row;
      await markRejects(clickhouse, [{ ...reject, check }], { state: 'open', reason, column });
      if (check !== reject.check) await markRejects(clickhouse, [reject], { state: 'discarded' });
      answer.still_open++;
    }
  }
  if (right.length === 0) return;
  const rejects = right.map(({ reject }) => reject);
  await write(
    clickhouse,
    table,
    right.map(({ bytes }) => bytes),
    rejects,
  );
  const swept = await sweepOvertaken(clickhouse, table, rejects);
  const released = rejects.filter((reject) => !swept.has(reject));
  await markRejects(clickhouse, released, { state: 'released' });
  answer.released += released.length;
  answer.superseded += swept.size;
}

/** ClickHouse's text of a time. */
export function copyTime(iso: string): string {
  return iso.replace('T', ' ').replace('Z', '');
}

async function write(
  clickhouse: ClickHouse,
  table: TableSchema,
  rows: Buffer[],
  [first]: StoredReject[],
): Promise<void> {
  const id = `release/${table.asset_id}/${first!.version}/${Date.now()}`;
  const written = await clickhouse.insertTsv(copyName(table), copyColumns(table), rows, id);
  if (!(written >= rows.length)) throw lostRows(table.asset_id, rows.length, written, tableName(table));
}

/**
 * A truncate that came meanwhile has discarded rejects, and swept what was in the copy before they were: so it is swept again up
 * to them. All that is older than a discarded row is of before the truncate.
 */
async function sweepOvertaken(
  clickhouse: ClickHouse,
  table: TableSchema,
  rejects: StoredReject[],
): Promise<Set<StoredReject>> {
  const versions = rejects.map(({ version }) => version);
  const states = await readRejects(clickhouse, { asset: table.asset_id, versions }, versions.length * 100);
  const overtaken = rejects.filter((reject) =>
    states.some(
      ({ key, version, check, state }) =>
        state === 'discarded' && key === reject.key && version === reject.version && check === reject.check,
    ),
  );
  if (overtaken.length === 0) return new Set();
  const newest = overtaken
    .map(({ version }) => BigInt(version))
    .sort((a, b) => (a < b ? -1 : 1))
    .at(-1)!;
  const committed = copyTime(overtaken[0]!.committed_at);
  await sweepBelow(clickhouse, table, String(newest + 1n), committed, `release/${table.asset_id}/${newest}/sweep`);
  return new Set(overtaken);
}
