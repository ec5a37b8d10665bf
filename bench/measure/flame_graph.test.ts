import { expect, it } from 'vitest';
import { drawFlameGraph } from './flame_graph.ts';

const node = (id: number, functionName: string, children: number[] = []) => ({
  id,
  callFrame: { functionName, url: 'node:fs', lineNumber: 1 },
  children,
});

it('draws calls by their time, without what is idle, as well-formed text', () => {
  const drawn = drawFlameGraph(
    {
      nodes: [
        node(1, '(root)', [2, 3, 4]),
        node(2, 'a<b>', [5]),
        node(3, '(idle)'),
        node(4, 'short'),
        node(5, 'inner'),
      ],
      samples: [2, 3, 5, 4],
      timeDeltas: [100, 5000, 200, 100],
    },
    'work & more',
  );
  expect(drawn).toContain('work &amp; more');
  expect(drawn).toContain('<title>a&lt;b&gt; node: 75.0 %</title>');
  expect(drawn).toContain('<title>inner node: 50.0 %</title>');
  expect(drawn).toContain('<title>short node: 25.0 %</title>');
  expect(drawn).not.toContain('idle');
});
