/** The graph of assets as it is now, and questions about it. */

import { type Stretch, stretchesOf } from '../../activities/lineage/happenings.ts';
import { type KnownGraph, readGraph } from '../../activities/lineage/known_graph.ts';
import { readHappenings } from '../../activities/load/lineage_index.ts';
import { copyAssetId } from '../../model/asset.ts';
import { SluiceError } from '../../model/errors.ts';
import { type Direction, Lineage, type LineageEdge, type LineageGraph } from '../../model/lineage.ts';
import { toDot, toMermaid } from '../../model/lineage_text.ts';
import { nearest } from '../../model/nearest_word.ts';
import { type Control, workflowUrl } from './control.ts';
import { noTableYet, shared } from './figures.ts';
import type { FlowAnswer, ImpactAnswer, WalkAnswer } from './lineage_shapes.ts';

/** What lies before or behind an asset, within `depth` steps. Errors: `not_found`. */
export async function walkLineage(
  control: Control,
  asset: string,
  direction: Direction,
  depth?: number,
): Promise<WalkAnswer> {
  const { lineage } = await knownLineage(control);
  const id = resolveAsset(lineage, asset);
  return { asset_id: id, ...lineage.walk(id, direction, depth) };
}

/** What a change of an asset, or of one of its columns, would reach. Errors: `not_found`. */
export async function impactOf(control: Control, asset: string, column?: string): Promise<ImpactAnswer> {
  const { lineage } = await knownLineage(control);
  const id = resolveAsset(lineage, asset);
  if (column !== undefined) expectColumn(lineage, id, column);
  return { asset_id: id, ...lineage.impact(id, column) };
}

/** The whole graph, and since when each edge is there by which run. */
export async function wholeFlow(control: Control): Promise<FlowAnswer> {
  const known = await knownLineage(control);
  const { nodes, edges } = known.lineage.graph;
  return { assets: nodes, edges: edges.map((edge) => ({ ...edge, definition: originOf(control, known, edge) })) };
}

/** The whole graph for programs that draw. */
export async function drawnFlow(control: Control, format: 'dot' | 'mermaid'): Promise<string> {
  const { lineage } = await knownLineage(control);
  return draw(lineage.graph, format);
}

/** A part of the graph for programs that draw. */
export function draw(graph: LineageGraph, format: 'dot' | 'mermaid'): string {
  return format === 'dot' ? toDot(graph) : toMermaid(graph);
}

/** The assets of a walk, with all columns, as a graph of its own. */
export async function walkGraph(control: Control, walk: WalkAnswer): Promise<LineageGraph> {
  const { lineage } = await knownLineage(control);
  const inside = new Set([walk.asset_id, ...walk.assets.map((one) => one.asset_id)]);
  return { nodes: lineage.graph.nodes.filter((node) => inside.has(node.asset_id)), edges: walk.edges };
}

/** All stretches of the index: also of what is not in force any more. */
export async function indexedStretches(control: Control): Promise<Stretch[]> {
  try {
    return stretchesOf(await readHappenings(control.clickhouse));
  } catch (error) {
    if (noTableYet(error)) return [];
    throw error;
  }
}

function knownLineage(control: Control): Promise<KnownGraph> {
  return shared(control, 'lineage', async () => {
    try {
      return await readGraph(control.clickhouse);
    } catch (error) {
      if (noTableYet(error)) return { lineage: new Lineage({ nodes: [], edges: [] }), originOf: () => undefined };
      throw error;
    }
  });
}

function originOf(control: Control, known: KnownGraph, edge: LineageEdge): FlowAnswer['edges'][number]['definition'] {
  const stretch = known.originOf(edge);
  if (!stretch) return null;
  const { version, generation, since, workflow_id: id, run_id } = stretch;
  const workflow = id === '' ? null : { id, run_id, url: workflowUrl(control.settings, id, run_id) };
  return { version, generation, since, workflow };
}

/** An asset by its id; what has none of its own by the table of its copy, as deployments. Errors: `not_found`. */
function resolveAsset(lineage: Lineage, asset: string): string {
  const found = [asset, copyAssetId(asset)].find((id) => lineage.has(id));
  if (found !== undefined) return found;
  const known = lineage.graph.nodes.map((node) => node.asset_id);
  const meant = nearest(asset, known);
  const some =
    known.length === 0
      ? 'Nothing is captured yet: `sluice sources list`.'
      : `Known are ${known.slice(0, 20).join(', ')}.`;
  const remedy = meant === undefined ? some : `Did you mean ${meant}?`;
  throw new SluiceError('not_found', `there is no asset ${asset}`, remedy);
}

function expectColumn(lineage: Lineage, asset: string, column: string): void {
  const { columns } = lineage.graph.nodes.find((node) => node.asset_id === asset)!;
  if (columns.includes(column)) return;
  const meant = nearest(column, columns);
  const remedy = meant === undefined ? `It has ${columns.slice(0, 30).join(', ')}.` : `Did you mean ${meant}?`;
  throw new SluiceError('not_found', `${asset} has no column ${column}`, remedy);
}
