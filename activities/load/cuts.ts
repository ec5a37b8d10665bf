/**
 * Up to where copies are complete, by what is recorded. A table is complete from its `complete` record on, as long as
 * leases stream it (their `begin` records name it), until it fails, is released, or is made anew: then it was complete
 * up to the record before.
 *
 * Positions are texts that only the source reads, so they are ordered by their records: lease, then sequence.
 */
import { streamKinds } from '../../model/batch.ts';
import type { ClickHouse } from './clickhouse.ts';
import { isoTime } from './time_text.ts';

/** Leases whose attempt is 0 are no leases: such a `begin` says that the stream began anew, and copies with it. */
const attempts = 65_536;

/**
 * No FINAL: records that are written twice say the same, and of idle ones, which replace each other, the last counts. So
 * only few columns of all records are read.
 */
function tableCuts(batches: string, schemas: string): string {
  const stream = `kind IN (${streamKinds.map((kind) => `'${kind}'`).join(', ')})`;
  return `WITH
    sources AS (
      SELECT source,
        argMax(kind, (lease, recorded_at)) != 'removed' AS connected,
        maxIf(lease, lease % ${attempts} = 0) AS fresh,
        max(lease) AS last_lease
      FROM ${batches} WHERE kind IN ('begin', 'removed') GROUP BY source HAVING connected
    ),
    ends AS (
      SELECT source, argMax((position_to, recorded_at), (lease, seq, recorded_at)) AS at, max((lease, seq)) AS place
      FROM ${batches} WHERE ${stream} GROUP BY source
    ),
    wanted AS (
      SELECT source, asset, max(generation) AS generation, max(recorded_at) AS wanted_at
      FROM ${schemas} GROUP BY source, asset
    ),
    completed AS (
      SELECT source, arrayJoin(JSONExtractKeys(assets)) AS asset, max((lease, recorded_at)) AS since,
        argMax(toUInt32OrZero(splitByChar('/', id)[-2]), (lease, recorded_at)) AS generation
      FROM ${batches} WHERE kind = 'complete' GROUP BY source, asset
    ),
    released AS (
      SELECT source, arrayJoin(JSONExtractKeys(assets)) AS asset, max((lease, recorded_at)) AS since
      FROM ${batches} WHERE kind = 'released' GROUP BY source, asset
    ),
    failures AS (
      SELECT source, arrayJoin(JSONExtractKeys(failed)) AS asset,
        groupArray(((lease, recorded_at), (lease, seq), position_from, recorded_at)) AS list
      FROM ${batches} WHERE failed NOT IN ('', '{}') GROUP BY source, asset
    ),
    streamed AS (
      SELECT source, arrayJoin(JSONExtractKeys(assets)) AS asset, max(lease) AS last_lease
      FROM ${batches} WHERE kind = 'begin' GROUP BY source, asset
    ),
    begins AS (
      SELECT source, arraySort(groupArray((lease, position_from, recorded_at))) AS list
      FROM ${batches} WHERE kind = 'begin' GROUP BY source
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

function sourceCuts(batches: string, tables: string): string {
  return `SELECT t.source AS source, any(t.cut_position) AS position,
      maxIf(b.committed_last, (b.lease, b.seq) < t.cut_end) AS committed_at,
      any(t.cut_recorded_at) AS recorded_at, any(t.complete_tables) AS complete, any(t.all_tables) AS tables
    FROM (
      SELECT source, countIf(state = 'complete') AS complete_tables, count() AS all_tables, countIf(position IS NULL) AS open_tables,
        if(open_tables > 0, NULL, argMin(position, place)) AS cut_position,
        if(open_tables > 0, NULL, argMin(recorded_at, place)) AS cut_recorded_at,
        if(open_tables > 0, (toUInt64(0), toUInt64(0)), (min(place).1, min(place).2 + (complete_tables = all_tables))) AS cut_end
      FROM ${tables} GROUP BY source
    ) AS t
    LEFT JOIN (SELECT source, lease, seq, committed_last FROM ${batches} WHERE committed_last IS NOT NULL AND kind != 'chunk') AS b
      ON b.source = t.source
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
  const rows = await clickhouse.rows<TableCut>(
    `SELECT asset, state, position, recorded_at FROM ${clickhouse.name('_table_cuts')}
     WHERE source = {source:String} ORDER BY asset`,
    { params: { source } },
  );
  return rows.map((row) => ({ ...row, recorded_at: timeOrNull(row.recorded_at) }));
}

/** The cut of a source; undefined when nothing of it is recorded. */
export async function readSourceCut(clickhouse: ClickHouse, source: string): Promise<SourceCut | undefined> {
  const [row] = await clickhouse.rows<Record<keyof SourceCut, string | null>>(
    `SELECT position, committed_at, recorded_at, complete, tables FROM ${clickhouse.name('_cuts')} WHERE source = {source:String}`,
    { params: { source } },
  );
  if (!row) return undefined;
  return {
    position: row.position,
    committed_at: timeOrNull(row.committed_at),
    recorded_at: timeOrNull(row.recorded_at),
    complete: Number(row.complete),
    tables: Number(row.tables),
  };
}

function timeOrNull(text: string | null): string | null {
  return text === null ? null : isoTime(text);
}
