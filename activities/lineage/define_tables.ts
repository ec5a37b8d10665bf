/** Stores what lineage follows from the definitions of a source's tables. */
import type { LineageGraph } from '../../model/lineage.ts';
import { loadSchemas } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { digestOf, graphOf } from './definition.ts';
import type { Happening } from './happenings.ts';

/**
 * Stores the graphs of a source's (or deployment's) tables that are others than those in force, and answers their digests by
 * asset. `registration`: what an earlier try of it has stored is answered again.
 */
export async function defineTables(
  clickhouse: ClickHouse,
  owner: string,
  registration: number,
): Promise<Record<string, string>> {
  const inForce = await lastDefinitions(clickhouse, owner);
  const changed = new Map<string, { digest: string; graph: LineageGraph }>();
  for (const [asset, table] of await loadSchemas(clickhouse, owner)) {
    const graph = graphOf(owner, table);
    const digest = digestOf(graph);
    const known = inForce.get(asset);
    if (known?.definition !== digest || known.mark === String(registration)) changed.set(asset, { digest, graph });
  }
  const rows = [...changed].map(([asset, { digest, graph }]) => ({ asset, digest, body: JSON.stringify(graph) }));
  if (rows.length > 0) await clickhouse.insertObjects('_definitions', rows);
  return Object.fromEntries([...changed].map(([asset, { digest }]) => [asset, digest]));
}

async function lastDefinitions(clickhouse: ClickHouse, owner: string): Promise<Map<string, Happening>> {
  const rows = await clickhouse.rows<Happening>(
    `SELECT asset, argMax(l.definition, toUInt64OrZero(l.mark)) AS definition, toString(max(toUInt64OrZero(l.mark))) AS mark
     FROM (SELECT * FROM ${clickhouse.name('_lineage')} FINAL) AS l
     WHERE owner = {owner:String} AND kind = 'defined' AND gone = 0 GROUP BY asset`,
    { params: { owner } },
  );
  return new Map(rows.map((row) => [row.asset, row]));
}
