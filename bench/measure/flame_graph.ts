/** A V8 profile as a flame graph: one SVG without scripts, each bar's title telling its share. */
import path from 'node:path';
import { fileURLToPath } from 'node:url';

/** What of a profile (Chrome's `.cpuprofile` format) is used. */
export interface Profile {
  nodes: { id: number; callFrame: { functionName: string; url: string; lineNumber: number }; children?: number[] }[];
  samples: number[];
  timeDeltas: number[];
}

/** A function as it was called from its parent, with all that it called. */
interface Frame {
  name: string;
  /** Microseconds. */
  time: number;
  children: Map<string, Frame>;
}

const project = fileURLToPath(new URL('../..', import.meta.url));
const width = 1200;
const rowHeight = 17;
/** Bars narrower than this are left out, in pixels. */
const narrowest = 1.5;
/** Where samples stand when the thread has no work. */
const idle = new Set(['(idle)', '(root)']);

/** Where a function stands, as people find it: file of ours, package, or Node. */
function placeOf(url: string): string {
  const file = url.startsWith('file:') ? fileURLToPath(url) : url;
  const packaged = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1];
  if (packaged) return packaged;
  return file.startsWith(project) ? path.relative(project, file) : file.replace(/^node:.*/, 'node');
}

/** The calls of a profile as one tree. Recursion and anonymous functions are kept as they are. */
function treeOf(profile: Profile): Frame {
  const parents = new Map<number, number>();
  const nodes = new Map(profile.nodes.map((node) => [node.id, node]));
  for (const node of profile.nodes) for (const child of node.children ?? []) parents.set(child, node.id);
  const root: Frame = { name: 'all', time: 0, children: new Map() };
  for (const [i, sample] of profile.samples.entries()) {
    if (idle.has(nodes.get(sample)!.callFrame.functionName)) continue;
    const stack: string[] = [];
    for (let id: number | undefined = sample; id !== undefined; id = parents.get(id)) {
      const { functionName, url } = nodes.get(id)!.callFrame;
      if (functionName !== '(root)') stack.unshift(`${functionName || 'anonymous'} ${placeOf(url)}`.trim());
    }
    const time = profile.timeDeltas[i] ?? 0;
    root.time += time;
    for (let frame = root, depth = 0; depth < stack.length; depth++) {
      const name = stack[depth]!;
      const next = frame.children.get(name) ?? { name, time: 0, children: new Map() };
      frame.children.set(name, next);
      next.time += time;
      frame = next;
    }
  }
  return root;
}

/** Draws a profile; what is idle is left out. `title` stands above it. */
export function drawFlameGraph(profile: Profile, title: string): string {
  const root = treeOf(profile);
  const bars: string[] = [];
  let deepest = 0;
  const draw = (frame: Frame, x: number, depth: number) => {
    const size = (frame.time / root.time) * width;
    if (size < narrowest) return;
    deepest = Math.max(deepest, depth);
    const share = ((frame.time / root.time) * 100).toFixed(1);
    const y = 30 + depth * rowHeight;
    const shown = escapeText(frame.name.slice(0, Math.max(0, Math.floor(size / 6.4) - 1)));
    const label = shown.length > 2 ? `<text x="${(x + 3).toFixed(1)}" y="${y + 12}">${shown}</text>` : '';
    bars.push(
      `<g><title>${escapeText(frame.name)}: ${share} %</title><rect x="${x.toFixed(1)}" y="${y}" width="${size.toFixed(1)}" ` +
        `height="${rowHeight - 1}" fill="${colorOf(frame.name)}"/>${label}</g>`,
    );
    let at = x;
    for (const child of [...frame.children.values()].sort((a, b) => b.time - a.time)) {
      draw(child, at, depth + 1);
      at += (child.time / root.time) * width;
    }
  };
  draw(root, 0, 0);
  const height = 40 + (deepest + 1) * rowHeight;
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" font-family="monospace" font-size="10.5">` +
    `<title>${escapeText(title)}</title><rect width="${width}" height="${height}" fill="#fff"/><text x="3" y="18" font-size="13">${escapeText(title)}</text>` +
    `${bars.join('\n')}</svg>\n`
  );
}

/** Ours in orange, packages in blue, Node and V8 in grey. */
function colorOf(name: string): string {
  if (/ (activities|flows|model|workers|api)\//.test(name)) return '#f4a259';
  return / (node|)$/.test(name) || !name.includes(' ') || name.startsWith('(') ? '#cfd4da' : '#8cb4d9';
}

function escapeText(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;');
}
