import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Lineage, type LineageEdge, type LineageGraph, mergeGraphs } from './lineage.ts';
import { toDot, toMermaid } from './lineage_text.ts';

const ids = ['a', 'b', 'c', 'd', 'e', 'f', 'g'];
const columns = ['x', 'y', 'z'];
const asset = fc.constantFrom(...ids);
const column = fc.constantFrom(...columns);
const edge: fc.Arbitrary<LineageEdge> = fc.record({
  from: asset,
  to: asset,
  via: fc.constantFrom('capture', 'mask', 'join'),
  columns: fc.array(fc.record({ from: column, to: fc.constantFrom(...columns, '*') }), { maxLength: 3 }),
});
const nodes = ids.map((id) => ({ asset_id: id, type: 'copy' as const, columns }));
const anyGraph: fc.Arbitrary<LineageGraph> = fc.array(edge, { maxLength: 14 }).map((edges) => ({ nodes, edges }));
/** Edges lead from smaller names to larger ones: no cycle. */
const acyclic = anyGraph.map((graph) => ({ ...graph, edges: graph.edges.filter(({ from, to }) => from < to) }));

/** Every chain without an asset that comes twice, from one on: the definition, and slow. */
function allChains({ edges }: LineageGraph, start: string, back = false): string[][] {
  const found: string[][] = [];
  const follow = (chain: string[]) => {
    found.push(chain);
    const at = chain.at(-1)!;
    const next = new Set(
      edges.filter((one) => (back ? one.to : one.from) === at).map((one) => (back ? one.from : one.to)),
    );
    for (const id of next) if (!chain.includes(id)) follow([...chain, id]);
  };
  follow([start]);
  return found;
}

function naiveDepths(graph: LineageGraph, start: string, back: boolean): Map<string, number> {
  const depths = new Map<string, number>();
  for (const chain of allChains(graph, start, back)) {
    const [last, far] = [chain.at(-1)!, chain.length - 1];
    if (far > 0) depths.set(last, Math.min(far, depths.get(last) ?? far));
  }
  return depths;
}

/** Columns that can be reached, by repeating one step until nothing new comes. */
function naiveTouched({ edges }: LineageGraph, start: string, from: string[]): Set<string> {
  const touched = new Set(from.map((name) => `${start}.${name}`));
  for (let before = -1; before !== touched.size; ) {
    before = touched.size;
    for (const one of edges)
      for (const pair of one.columns)
        if (touched.has(`${one.from}.${pair.from}`))
          for (const to of pair.to === '*' ? columns : [pair.to]) touched.add(`${one.to}.${to}`);
  }
  return touched;
}

describe('walks', () => {
  it('reach what chains reach, by the shortest of them, within the depth', () => {
    fc.assert(
      fc.property(
        anyGraph,
        asset,
        fc.boolean(),
        fc.option(fc.nat(4), { nil: undefined }),
        (graph, start, back, most) => {
          const depths = [...naiveDepths(graph, start, back)].filter(([, far]) => far <= (most ?? ids.length));
          const walked = new Lineage(graph).walk(start, back ? 'upstream' : 'downstream', most);
          expect(new Map(walked.assets.map((one) => [one.asset_id, one.depth]))).toEqual(new Map(depths));
          const near = new Map([[start, 0], ...naiveDepths(graph, start, back)]);
          const leaves = (id: string) =>
            (near.get(id) ?? Number.POSITIVE_INFINITY) < (most ?? Number.POSITIVE_INFINITY);
          const wanted = mergeGraphs([graph]).edges.filter((one) => leaves(back ? one.to : one.from));
          expect(walked.edges).toEqual(wanted);
        },
      ),
    );
  });
});

describe('impact', () => {
  it('names the columns that values come to, and where each asset comes from', () => {
    fc.assert(
      fc.property(anyGraph, asset, fc.option(column, { nil: undefined }), (graph, start, only) => {
        const { affected, total_affected } = new Lineage(graph).impact(start, only);
        const touched = naiveTouched(graph, start, only === undefined ? columns : [only]);
        const reached = [...naiveDepths(graph, start, false).keys()];
        const kept = reached.filter((id) => only === undefined || columns.some((name) => touched.has(`${id}.${name}`)));
        expect(affected.map((one) => one.asset_id).sort()).toEqual(kept.sort());
        expect(total_affected).toBe(kept.length);
        for (const one of affected) {
          expect(one.columns).toEqual(columns.filter((name) => touched.has(`${one.asset_id}.${name}`)));
          const before = [one.asset_id, ...naiveDepths(graph, one.asset_id, true).keys()];
          const made = (id: string) => graph.edges.some(({ from, to }) => to === id && from !== id);
          expect(one.sources_of_record).toEqual(before.filter((id) => !made(id)).sort());
        }
      }),
    );
  });

  it('has the longest chain as critical path', () => {
    fc.assert(
      fc.property(acyclic, asset, (graph, start) => {
        const { critical_path: path } = new Lineage(graph).impact(start);
        const chains = allChains(graph, start);
        const most = Math.max(...chains.map((chain) => chain.length));
        const best = chains.filter((chain) => chain.length === most).map((chain) => chain.join());
        expect(path.join()).toBe(best.sort()[0]);
      }),
    );
  });

  it('has a chain of its own where there are cycles', () => {
    fc.assert(
      fc.property(anyGraph, asset, (graph, start) => {
        const { critical_path: path } = new Lineage(graph).impact(start);
        expect(allChains(graph, start).map((chain) => chain.join())).toContain(path.join());
        const leaves = graph.edges.some(({ from, to }) => from === start && to !== start);
        expect(path.length > 1).toBe(leaves);
      }),
    );
  });

  it('follows chains of any length', () => {
    const many = Array.from({ length: 20_000 }, (_, i) => ({
      asset_id: `n${i}`,
      type: 'copy' as const,
      columns: ['x'],
    }));
    const edges = many.slice(1).map((_, i) => ({ from: `n${i}`, to: `n${i + 1}`, via: 'load', columns: [] }));
    const lineage = new Lineage({ nodes: many, edges });
    expect(lineage.walk('n0', 'downstream').assets).toHaveLength(19_999);
    expect(lineage.impact('n19990').critical_path).toHaveLength(10);
  });
});

describe('texts', () => {
  it('hold every asset and edge, whatever they are called', () => {
    const odd = ['a"b', 'x]y', 'p|q', 'new\nline', 'back\\slash', 'end'];
    const graph = mergeGraphs([
      {
        nodes: odd.map((id) => ({ asset_id: id, type: 'copy' as const, columns: [] })),
        edges: odd.map((from) => ({ from, to: 'end', via: 'mask "1"', columns: [{ from: 'a', to: 'b' }] })),
      },
    ]);
    const [dot, mermaid] = [toDot(graph), toMermaid(graph)];
    expect(dot.split('\n')).toHaveLength(2 + 6 + 6 + 2);
    expect(dot).toContain('"a\\"b" -> "end" [label="mask \\"1\\": a → b"];');
    expect(mermaid.split('\n')).toHaveLength(1 + 6 + 6 + 1);
    expect(mermaid).not.toMatch(/\["[^"]*"[^"\]]/);
  });
});
