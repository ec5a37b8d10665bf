/** The graph of assets as it is now, from the index of lineage: what every definition in force says together. */
import { Lineage, type LineageEdge, type LineageGraph, mergeGraphs } from '../../model/lineage.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { readDefinitions, readHappenings } from '../load/lineage_index.ts';
import { type Stretch, stretchesOf } from './happenings.ts';

/** The graph, and by which definition each edge is there. */
export interface KnownGraph {
  lineage: Lineage;
  originOf(edge: Pick<LineageEdge, 'from' | 'to' | 'via'>): Stretch | undefined;
}

/** Errors: those of ClickHouse, also where nothing was ever captured and there is no index. */
export async function readGraph(clickhouse: ClickHouse): Promise<KnownGraph> {
  const current = stretchesOf(await readHappenings(clickhouse)).filter((stretch) => stretch.until === null);
  const digests = current.map((stretch) => stretch.definition);
  const bodies = digests.length === 0 ? new Map<string, LineageGraph>() : await readDefinitions(clickhouse, digests);
  const origins = new Map<string, Stretch>();
  const graphs = current.flatMap((stretch) => {
    const graph = bodies.get(`${stretch.asset}/${stretch.definition}`);
    for (const edge of graph?.edges ?? []) origins.set(keyOf(edge), stretch);
    return graph ?? [];
  });
  return { lineage: new Lineage(mergeGraphs(graphs)), originOf: (edge) => origins.get(keyOf(edge)) };
}

function keyOf({ from, to, via }: Pick<LineageEdge, 'from' | 'to' | 'via'>): string {
  return JSON.stringify([from, to, via]);
}

/** Assets that are made from each of these, nearest first, at most 20; nothing for those that nobody knows yet. */
export async function madeFrom(clickhouse: ClickHouse, assets: string[]): Promise<Map<string, string[]>> {
  if (assets.length === 0) return new Map();
  const { lineage } = await readGraph(clickhouse);
  const reached = (asset: string) => lineage.impact(asset).affected.map((one) => one.asset_id);
  return new Map(assets.filter((asset) => lineage.has(asset)).map((asset) => [asset, reached(asset).slice(0, 20)]));
}
