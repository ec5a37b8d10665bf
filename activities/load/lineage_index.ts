/**
 * The index of lineage in ClickHouse. It outlives what Temporal keeps: which run of which flow brought which definition of an
 * asset into force, from when to when. `_lineage` holds what happened, `_definitions` the graphs by their digests.
 */
import type { LineageGraph } from '../../model/lineage.ts';
import type { Happening } from '../lineage/happenings.ts';
import type { ClickHouse } from './clickhouse.ts';
import { durable } from './tables.ts';
import { isoTime } from './time_text.ts';

const tables: Record<string, string> = {
  // A row that is `gone` was wrong: no history tells it.
  _lineage: `(
    owner LowCardinality(String), asset String, kind LowCardinality(String), mark String, definition String,
    at DateTime64(3, 'UTC'), workflow_id String, run_id String, told_workflow String, told_run String, gone UInt8,
    written_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
  ) ENGINE = ReplacingMergeTree(written_at) ORDER BY (owner, asset, kind, mark, at, workflow_id, run_id, told_run)`,
  _definitions: `(
    asset String, digest String, body String, written_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
  ) ENGINE = ReplacingMergeTree(written_at) ORDER BY (asset, digest)`,
};

/** Makes both tables when they are not there; the database must be. */
export async function createLineageTables(clickhouse: ClickHouse): Promise<void> {
  for (const [name, definition] of Object.entries(tables))
    await clickhouse.command(`CREATE TABLE IF NOT EXISTS ${clickhouse.name(name)} ${definition} SETTINGS ${durable}`);
}

/** Writes what happened; again changes nothing. `gone`: takes it back. */
export async function writeHappenings(clickhouse: ClickHouse, happenings: Happening[], gone = false): Promise<void> {
  if (happenings.length === 0) return;
  await clickhouse.insertObjects(
    '_lineage',
    happenings.map((one) => ({ ...one, gone: gone ? 1 : 0 })),
  );
}

/** All that happened. */
export async function readHappenings(clickhouse: ClickHouse): Promise<Happening[]> {
  const rows = await clickhouse.rows<Happening>(
    `SELECT owner, asset, kind, mark, definition, toString(at) AS at, workflow_id, run_id, told_workflow, told_run
     FROM (SELECT * FROM ${clickhouse.name('_lineage')} FINAL) WHERE gone = 0`,
  );
  return rows.map((row) => ({ ...row, at: isoTime(row.at) }));
}

/** When something of a source has begun last, as ISO 8601; '' when nothing has. */
export async function newestBeginning(clickhouse: ClickHouse, owner: string): Promise<string> {
  const [row] = await clickhouse.rows<{ at: string | null }>(
    `SELECT toString(maxOrNull(l.at)) AS at FROM ${clickhouse.name('_lineage')} AS l
     WHERE l.owner = {owner:String} AND l.kind = 'begun'`,
    { params: { owner } },
  );
  return row?.at ? isoTime(row.at) : '';
}

/** Graphs by asset and digest, as `asset/digest`. */
export async function readDefinitions(clickhouse: ClickHouse, digests: string[]): Promise<Map<string, LineageGraph>> {
  const rows = await clickhouse.rows<{ asset: string; digest: string; body: string }>(
    `SELECT asset, digest, body FROM ${clickhouse.name('_definitions')} FINAL WHERE digest IN {digests:Array(String)}`,
    { params: { digests: [...new Set(digests)] } },
  );
  return new Map(rows.map(({ asset, digest, body }) => [`${asset}/${digest}`, JSON.parse(body) as LineageGraph]));
}
