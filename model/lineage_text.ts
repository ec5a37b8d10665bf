/** The graph of assets as text: for Graphviz, and for Mermaid, which pages of code hosts draw. */
import type { AssetType, LineageEdge, LineageGraph } from './lineage.ts';

/** Shapes of Graphviz, and brackets of Mermaid, by what an asset is. */
const shapes: Record<AssetType, { dot: string; mermaid: [string, string] }> = {
  source_table: { dot: 'cylinder', mermaid: ['[(', ')]'] },
  api: { dot: 'component', mermaid: ['>', ']'] },
  csv: { dot: 'note', mermaid: ['[/', '/]'] },
  kafka: { dot: 'cds', mermaid: ['([', '])'] },
  copy: { dot: 'box', mermaid: ['[', ']'] },
  window: { dot: 'octagon', mermaid: ['{{', '}}'] },
};

/** Columns that are named on an edge; of more, their number. */
const shownColumns = 4;

/** For `dot -Tsvg`. */
export function toDot(graph: LineageGraph): string {
  const nodes = graph.nodes.map(({ asset_id: id, type }) => `  ${dotText(id)} [shape=${shapes[type].dot}];`);
  const edges = graph.edges.map(
    (edge) => `  ${dotText(edge.from)} -> ${dotText(edge.to)} [label=${dotText(label(edge))}];`,
  );
  return ['digraph lineage {', '  rankdir=LR;', ...nodes, ...edges, '}', ''].join('\n');
}

/** A flowchart from left to right. */
export function toMermaid(graph: LineageGraph): string {
  const names = new Map(graph.nodes.map(({ asset_id: id }, index) => [id, `a${index}`]));
  const nodes = graph.nodes.map(({ asset_id: id, type }) => {
    const [open, close] = shapes[type].mermaid;
    return `  ${names.get(id)}${open}"${mermaidText(id)}"${close}`;
  });
  const edges = graph.edges.map(
    (edge) => `  ${names.get(edge.from)} -->|"${mermaidText(label(edge))}"| ${names.get(edge.to)}`,
  );
  return ['flowchart LR', ...nodes, ...edges, ''].join('\n');
}

/** A capture hands on columns under their names: only what is made otherwise is worth its ink. */
function label({ via, columns }: LineageEdge): string {
  const changed = columns.filter(({ from, to }) => from !== to);
  if (changed.length === 0) return via;
  if (changed.length > shownColumns) return `${via}: ${changed.length} columns`;
  return `${via}: ${changed.map(({ from, to }) => `${from} → ${to}`).join(', ')}`;
}

function dotText(text: string): string {
  return `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')}"`;
}

/** Every letter that Mermaid might read otherwise goes by its number. */
function mermaidText(text: string): string {
  return text.replace(/[^A-Za-z0-9_ .,:→-]/gu, (letter) => `#${letter.codePointAt(0)};`);
}
