/**
 * Up to where copies are complete, by what is recorded. A table is complete from its `complete` record on, as long as
 * leases stream it (their `begin` records name it), until it fails, is released, or is made anew: then it was complete
 * up to the record before.
 *
 * Positions are texts that only the source reads, so they are ordered by their records: lease, then sequence.
 */
import { attemptsLimit, streamKinds } from '../../model/batch.ts';
import type { ClickHouse } from './clickhouse.ts';
import { isoTimeOrNull } from './time_text.ts';

/**
 * No FINAL: records that are written twice say the same, and of idle ones, which replace each other, the last counts. So
 * only few columns of all records are read. `of`: the one source that is asked for, as trusted SQL: without it all records are
 * looked at, which are many after some months.
 *
 * Leases whose attempt is 0 are no leases: such a `begin` says that the stream began anew, and copies with it.
 */
function tableCuts(batches: string, schemas: string, of?: string): string {
  const stream = `kind IN (${streamKinds.map((kind) => `'${kind}'`).join(', ')})`;
  const wanted = of ?? 'true';
  const last = of
    ? `SELECT source, lease FROM ${batches} WHERE ${of} AND ${stream} ORDER BY lease DESC LIMIT 1`
    : `SELECT source, max(lease) FROM ${batches} WHERE ${stream} GROUP BY source`;
  return `WITH
    sources AS (
      SELECT source,
        argMax(kind, (lease, recorded_at)) != 'removed' AS connected,
        maxIf(lease, lease % ${attemptsLimit} = 0) AS fresh,
        max(lease) AS last_lease
      FROM ${batches} WHERE ${wanted} AND kind IN ('begin', 'removed') GROUP BY source HAVING connected
    ),
    ends AS (
      SELECT source, argMax((position_to, recorded_at), (lease, seq, recorded_at)) AS at, max((lease, seq)) AS place
      FROM ${batches} WHERE ${wanted} AND ${stream}
        AND (source, lease) IN (${last})
      GROUP BY source
    ),
    wanted AS (
      SELECT source, asset, max(generation) AS generation, max(recorded_at) AS wanted_at
      FROM ${schemas} WHERE ${wanted} GROUP BY source, asset
    ),
    completed AS (
      SELECT source, arrayJoin(JSONExtractKeys(assets)) AS asset, max((lease, recorded_at)) AS since,
        argMax(toUInt32OrZero(splitByChar('/', id)[-2]), (lease, recorded_at)) AS generation
      FROM ${batches} WHERE ${wanted} AND kind = 'complete' GROUP BY source, asset
    ),
    released AS (
      SELECT source, arrayJoin(JSONExtractKeys(assets)) AS asset, max((lease, recorded_at)) AS since
      FROM ${batches} WHERE ${wanted} AND kind = 'released' GROUP BY source, asset
    ),
    failures AS (
      SELECT source, arrayJoin(JSONExtractKeys(failed)) AS asset,
        groupArray(((lease, recorded_at), (lease, seq), position_from, recorded_at)) AS list
      FROM ${batches} WHERE ${wanted} AND failed NOT IN ('', '{}') GROUP BY source, asset
    ),
    streamed AS (
      SELECT source, arrayJoin(JSONExtractKeys(assets)) AS asset, max(lease) AS last_lease
      FROM ${batches} WHERE ${wanted} AND kind = 'begin' GROUP BY source, asset
    ),
    begins AS (
      SELECT source, arraySort(groupArray((lease, position_from, recorded_at))) AS list
      FROM ${batches} WHERE ${wanted} AND kind = 'begin' GROUP BY source
    ),
    known AS (
      SELECT w.source AS source, w.asset AS asset,
        c.generation >= w.generation AND c.since.1 >= s.fresh AND c.since.1 > 0 AND c.since > r.since AS has_snapshot,
        r.since >= c.since AND r.since.2 > w.wanted_at AS is_released,
        arraySort(arrayFilter(one -> one.1 > c.since, f.list))[1] AS failure,
        arrayFirst(one -> one.1 > m.last_lease, b.list) AS left_out,
        m.last_lease AS streamed_lease, s.last_lease AS last_lease, e.at AS last_at, e.place AS last_place
      FROM wanted AS w
      INNER JOIN sources AS s ON s.source = w.source
      INNER JOIN ends AS e ON e.source = w.source
      INNER JOIN begins AS b ON b.source = w.source
      LEFT JOIN completed AS c ON c.source = w.source AND c.asset = w.asset
      LEFT JOIN released AS r ON r.source = w.source AND r.asset = w.asset
      LEFT JOIN failures AS f ON f.source = w.source AND f.asset = w.asset
      LEFT JOIN streamed AS m ON m.source = w.source AND m.asset = w.asset
    )
    SELECT source, asset,
      multiIf(NOT has_snapshot, 'incomplete', failure.1.1 > 0, 'failed', streamed_lease < last_lease, 'left_out', 'complete') AS state,
      multiIf(state = 'complete', last_at.1, state = 'failed', failure.3, state = 'left_out', left_out.2, NULL) AS position,
      multiIf(state = 'complete', last_at.2, state = 'failed', failure.4, state = 'left_out', left_out.3, NULL) AS recorded_at,
      multiIf(state = 'complete', last_place, state = 'failed', failure.2, (left_out.1, toUInt64(0))) AS place
    FROM known WHERE NOT is_released`;
}

/** Records are on the left of the join, which is read piece by piece: there are millions. */
function sourceCuts(batches: string, tables: string): string {
  return `SELECT t.source AS source, any(t.cut_position) AS position,
      maxIf(b.committed_last, (b.lease, b.seq) < t.cut_end AND b.kind != 'chunk') AS committed_at,
      any(t.cut_recorded_at) AS recorded_at, any(t.complete_tables) AS complete, any(t.all_tables) AS tables
    FROM ${batches} AS b
    INNER JOIN (
      SELECT source, countIf(state = 'complete') AS complete_tables, count() AS all_tables, countIf(position IS NULL) AS open_tables,
        if(open_tables > 0, NULL, argMin(position, place)) AS cut_position,
        if(open_tables > 0, NULL, argMin(recorded_at, place)) AS cut_recorded_at,
        if(open_tables > 0, (toUInt64(0), toUInt64(0)), (min(place).1, min(place).2 + (complete_tables = all_tables))) AS cut_end
      FROM ${tables} GROUP BY source
    ) AS t ON b.source = t.source
    GROUP BY t.source`;
}

/** Makes the views `_table_cuts` and `_cuts`, or brings them up to date. */
export async function createCutViews(clickhouse: ClickHouse): Promise<void> {
  const [batches, tables] = [clickhouse.name('_batches'), clickhouse.name('_table_cuts')];
  await clickhouse.command(`CREATE OR REPLACE VIEW ${tables} AS ${tableCuts(batches, clickhouse.name('_schemas'))}`);
  await clickhouse.command(`CREATE OR REPLACE VIEW ${clickhouse.name('_cuts')} AS ${sourceCuts(batches, tables)}`);
}

/** `left_out`: leases do not stream it any more, though no record says why. */
export type CutState = 'complete' | 'incomplete' | 'failed' | 'left_out';

/** Up to where the copy of one table is complete. */
export interface TableCut {
  asset: string;
  state: CutState;
  /** Null while it has never been complete since its last beginning. */
  position: string | null;
  /** When the record of that position was written. */
  recorded_at: string | null;
}

/** A row of `_cuts`: up to where all tables of a source are complete. */
export interface SourceCut {
  /** Null while there is no such position. */
  position: string | null;
  /** Commit time of the last change up to there. */
  committed_at: string | null;
  recorded_at: string | null;
  /** How many tables are complete up to the stream's last record, of how many. */
  complete: number;
  tables: number;
}

/** The tables of a source, as records tell. */
export async function readTableCuts(clickhouse: ClickHouse, source: string): Promise<TableCut[]> {
  return (await readPlaces(clickhouse, source)).map(({ place: _, ...cut }) => cut);
}

/** Cuts with the lease and sequence of the record behind the last that they hold. */
async function readPlaces(
  clickhouse: ClickHouse,
  source: string,
): Promise<(TableCut & { place: [lease: string, seq: string] })[]> {
  const [batches, schemas] = [clickhouse.name('_batches'), clickhouse.name('_schemas')];
  const rows = await clickhouse.rows<TableCut & { place: [string, string] }>(
    `SELECT asset, state, position, recorded_at, place FROM (${tableCuts(batches, schemas, 'source = {source:String}')}) ORDER BY asset`,
    { params: { source } },
  );
  return rows.map((row) => ({ ...row, recorded_at: isoTimeOrNull(row.recorded_at) }));
}

/** The cut of a source, as `_cuts` has it; undefined when nothing of it is recorded. */
export async function readSourceCut(clickhouse: ClickHouse, source: string): Promise<SourceCut | undefined> {
  const tables = await readPlaces(clickhouse, source);
  if (tables.length === 0) return undefined;
  const complete = tables.filter(({ state }) => state === 'complete').length;
  const counts = { complete, tables: tables.length };
  if (tables.some(({ position }) => position === null))
    return { position: null, committed_at: null, recorded_at: null, ...counts };
  const [first] = tables.sort((a, b) => comparePlaces(a.place, b.place));
  const { position, recorded_at, place } = first!;
  // The last record of a stream that is complete up to there counts too.
  const end = [place[0], String(BigInt(place[1]) + (complete === tables.length ? 1n : 0n))];
  // Commits come in the order of the log, and their times nearly so.
  const [last] = await clickhouse.rows<{ committed_at: string | null }>(
    `SELECT max(committed_last) AS committed_at FROM (
       SELECT committed_last FROM ${clickhouse.name('_batches')}
       WHERE source = {source:String} AND committed_last IS NOT NULL AND kind != 'chunk'
         AND (lease, seq) < ({lease:UInt64}, {seq:UInt64})
       ORDER BY lease DESC, seq DESC LIMIT 1000
     )`,
    { params: { source, lease: end[0], seq: end[1] } },
  );
  return { position, committed_at: isoTimeOrNull(last!.committed_at), recorded_at, ...counts };
}

function comparePlaces(a: [string, string], b: [string, string]): number {
  const difference = BigInt(a[0]) - BigInt(b[0]) || BigInt(a[1]) - BigInt(b[1]);
  return Number(difference > 0n) - Number(difference < 0n);
}
