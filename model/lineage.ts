/**
 * The graph of assets: what flows from where to where, column by column. Pure: whoever has nodes and edges may ask it what
 * lies before and behind an asset, and what a change of one would reach. Graphs may have cycles (a window that is sent to a
 * topic that is captured again), so that every walk remembers where it was.
 */

/** `copy` is a table in ClickHouse; `source_table`, `api` and `kafka` are what others own. */
export type AssetType = 'source_table' | 'api' | 'csv' | 'kafka' | 'copy' | 'window';

export interface LineageNode {
  asset_id: string;
  type: AssetType;
  columns: string[];
}

/** Values of column `from` are in column `to`. `to` is `*` where `from` decides which rows there are, as in a filter. */
export interface ColumnPair {
  from: string;
  to: string;
}

/** One way from an asset to another. Two assets may be joined by several: each has another `via`. */
export interface LineageEdge {
  from: string;
  to: string;
  /** `capture`, `extract`, `load`, or the id of a rule or a window. */
  via: string;
  columns: ColumnPair[];
}

export interface LineageGraph {
  nodes: LineageNode[];
  edges: LineageEdge[];
}

/** Towards what is made from an asset, or towards what it is made from. */
export type Direction = 'downstream' | 'upstream';

/** An asset that a walk has reached, by its shortest way. */
export interface Reached {
  asset_id: string;
  type: AssetType;
  depth: number;
}

export interface Affected extends Reached {
  /** Columns whose values, or whose rows, depend on the asset that was asked about. */
  columns: string[];
  /** Assets at the beginnings of all that flows into this one: nothing that is known makes them. */
  sources_of_record: string[];
}

export interface Impact {
  total_affected: number;
  affected: Affected[];
  critical_path: string[];
}

/** Every row of an asset, where a column stands. */
export const allColumns = '*';

/** Puts graphs together: an asset that several know has the columns of all. In order of ids, each edge once. */
export function mergeGraphs(graphs: LineageGraph[]): LineageGraph {
  const nodes = new Map<string, LineageNode>();
  const edges = new Map<string, LineageEdge>();
  for (const graph of graphs) {
    for (const node of graph.nodes) {
      const columns = [...(nodes.get(node.asset_id)?.columns ?? []), ...node.columns];
      nodes.set(node.asset_id, { ...node, columns: [...new Set(columns)] });
    }
    for (const edge of graph.edges) {
      const key = edgeKey(edge);
      const pairs = [...(edges.get(key)?.columns ?? []), ...edge.columns];
      edges.set(key, { ...edge, columns: distinctPairs(pairs) });
    }
  }
  return {
    nodes: [...nodes.values()].sort((a, b) => order(a.asset_id, b.asset_id)),
    edges: [...edges.values()].sort((a, b) => order(edgeKey(a), edgeKey(b))),
  };
}

function distinctPairs(pairs: ColumnPair[]): ColumnPair[] {
  return [...new Map(pairs.map((pair) => [JSON.stringify([pair.from, pair.to]), pair])).values()];
}

function edgeKey({ from, to, via }: LineageEdge): string {
  return JSON.stringify([from, to, via]);
}

/** The same everywhere, unlike an order by language. */
function order(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}

/** Finds its way in a graph. Edges whose ends are not among the nodes are left out. */
export class Lineage {
  readonly graph: LineageGraph;
  readonly #nodes: Map<string, LineageNode>;
  readonly #out = new Map<string, LineageEdge[]>();
  readonly #in = new Map<string, LineageEdge[]>();

  constructor(graph: LineageGraph) {
    this.graph = mergeGraphs([graph]);
    this.#nodes = new Map(this.graph.nodes.map((node) => [node.asset_id, node]));
    this.graph.edges = this.graph.edges.filter(({ from, to }) => this.#nodes.has(from) && this.#nodes.has(to));
    for (const edge of this.graph.edges) {
      this.#out.set(edge.from, [...(this.#out.get(edge.from) ?? []), edge]);
      this.#in.set(edge.to, [...(this.#in.get(edge.to) ?? []), edge]);
    }
  }

  has(asset: string): boolean {
    return this.#nodes.has(asset);
  }

  /**
   * What lies in a direction within `depth` steps, nearest first and then by name, and the edges that lead there: those that
   * leave the asset, or anything nearer than `depth`. The asset itself is not among what is reached.
   */
  walk(
    asset: string,
    direction: Direction,
    depth = Number.POSITIVE_INFINITY,
  ): { assets: Reached[]; edges: LineageEdge[] } {
    const depths = new Map([[asset, 0]]);
    const edges: LineageEdge[] = [];
    // Grows while it is read: a queue.
    const queue = [asset];
    for (const at of queue) {
      const far = depths.get(at)!;
      if (far >= depth) continue;
      for (const edge of this.#edges(at, direction)) {
        edges.push(edge);
        const next = direction === 'downstream' ? edge.to : edge.from;
        if (depths.has(next)) continue;
        depths.set(next, far + 1);
        queue.push(next);
      }
    }
    const assets = [...depths].filter(([id]) => id !== asset).map(([id, far]) => this.#reached(id, far));
    assets.sort((a, b) => a.depth - b.depth || order(a.asset_id, b.asset_id));
    return { assets, edges: edges.sort((a, b) => order(edgeKey(a), edgeKey(b))) };
  }

  /**
   * Everything that a change of an asset would reach, or of one of its columns: then assets that none of the column's values
   * come to, and whose rows do not depend on it, are left out.
   */
  impact(asset: string, column?: string): Impact {
    const touched = this.#touchedColumns(asset, column === undefined ? undefined : [column]);
    const { assets } = this.walk(asset, 'downstream');
    const reached =
      column === undefined ? assets : assets.filter(({ asset_id: id }) => (touched.get(id)?.size ?? 0) > 0);
    const affected = reached.map((one) => ({
      ...one,
      columns: (this.#nodes.get(one.asset_id)?.columns ?? []).filter((name) => touched.get(one.asset_id)?.has(name)),
      sources_of_record: this.#origins(one.asset_id),
    }));
    const inside = new Set([asset, ...affected.map((one) => one.asset_id)]);
    return { total_affected: affected.length, affected, critical_path: this.#longestChain(asset, inside) };
  }

  #edges(asset: string, direction: Direction): LineageEdge[] {
    return (direction === 'downstream' ? this.#out : this.#in).get(asset) ?? [];
  }

  #reached(asset: string, depth: number): Reached {
    return { asset_id: asset, type: this.#nodes.get(asset)!.type, depth };
  }

  /** Columns that values of these columns (none named: of any) come to, by asset. */
  #touchedColumns(asset: string, columns: string[] | undefined): Map<string, Set<string>> {
    const touched = new Map<string, Set<string>>();
    const queue: [string, string][] = (columns ?? this.#nodes.get(asset)?.columns ?? []).map((name) => [asset, name]);
    for (const [at, name] of queue) {
      const there = touched.get(at) ?? new Set();
      touched.set(at, there);
      if (there.has(name)) continue;
      there.add(name);
      for (const edge of this.#edges(at, 'downstream')) {
        for (const pair of edge.columns) {
          if (pair.from !== name) continue;
          const all = pair.to === allColumns ? (this.#nodes.get(edge.to)?.columns ?? []) : [pair.to];
          for (const next of all) queue.push([edge.to, next]);
        }
      }
    }
    return touched;
  }

  /** Assets without anything before them that flow into this one; itself when nothing does. */
  #origins(asset: string): string[] {
    const before = [asset, ...this.walk(asset, 'upstream').assets.map((one) => one.asset_id)];
    const origins = before.filter((id) => this.#edges(id, 'upstream').every((edge) => edge.from === id));
    return origins.sort(order);
  }

  /**
   * The longest chain of assets from this one on, by the number of steps; of several, the first by names. Where there are
   * cycles, an edge that leads back to an asset of the chain that is being followed is left out, so that none comes twice.
   */
  #longestChain(start: string, inside: Set<string>): string[] {
    const longest = new Map<string, string[]>();
    const open = new Set<string>();
    const stack: { asset: string; next: string[]; best: string[] }[] = [];
    const enter = (asset: string) => {
      open.add(asset);
      const next = [...new Set(this.#edges(asset, 'downstream').map((edge) => edge.to))].filter((id) => inside.has(id));
      stack.push({ asset, next: next.sort(order), best: [] });
    };
    enter(start);
    for (;;) {
      const top = stack.at(-1)!;
      const [next] = top.next;
      if (next !== undefined && !open.has(next) && !longest.has(next)) {
        enter(next);
        continue;
      }
      if (next !== undefined) {
        top.next.shift();
        const chain = open.has(next) ? [] : longest.get(next)!;
        if (chain.length > top.best.length) top.best = chain;
        continue;
      }
      stack.pop();
      open.delete(top.asset);
      longest.set(top.asset, [top.asset, ...top.best]);
      if (stack.length === 0) return longest.get(start)!;
    }
  }
}
