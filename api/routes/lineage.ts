/** Where assets, columns and rows come from. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { drawnFlow, impactOf, walkLineage, wholeFlow } from '../control/lineage.ts';
import {
  flowAnswer,
  flowQuery,
  impactAnswer,
  impactQuery,
  rowLineage,
  rowLineageQuery,
  walkAnswer,
  walkQuery,
} from '../control/lineage_shapes.ts';
import { getRowLineage } from '../control/row_lineage.ts';
import { problemAnswer } from '../control/shapes.ts';

const tags = ['lineage'];
const problems = { 404: problemAnswer, 422: problemAnswer, 503: problemAnswer };

export function addLineageRoutes(app: FastifyInstance, control: Control): void {
  addGraphRoutes(app, control);
  addFlowRoute(app, control);
  app.withTypeProvider<ZodTypeProvider>().get(
    '/api/v1/lineage/row/:asset_id',
    {
      schema: {
        tags,
        summary: 'The versions of a row, the batch that wrote each, and its place in the workflow history',
        params: z.object({ asset_id: z.string() }),
        querystring: rowLineageQuery,
        response: { 200: rowLineage, ...problems },
      },
    },
    async (request) => await getRowLineage(control, request.params.asset_id, request.query.key),
  );
}

const assetParams = z.object({
  asset_id: z.string().describe('Of the table, or of its copy (clickhouse_…), file (csv_…), API (api_…)'),
});

function addGraphRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  for (const direction of ['downstream', 'upstream'] as const) {
    const summary = direction === 'downstream' ? 'What is made from an asset' : 'What an asset is made from';
    routes.get(
      `/api/v1/lineage/asset/:asset_id/${direction}`,
      {
        schema: {
          tags,
          summary,
          params: assetParams,
          querystring: walkQuery,
          response: { 200: walkAnswer, ...problems },
        },
      },
      async (request) => await walkLineage(control, request.params.asset_id, direction, request.query.max_depth),
    );
  }
  routes.get(
    '/api/v1/lineage/impact/:asset_id',
    {
      schema: {
        tags,
        summary: 'What a change of an asset, or of one of its columns, would reach',
        params: assetParams,
        querystring: impactQuery,
        response: { 200: impactAnswer, ...problems },
      },
    },
    async (request) => await impactOf(control, request.params.asset_id, request.query.column),
  );
}

/** As JSON with its shape; as text for programs that draw. */
function addFlowRoute(app: FastifyInstance, control: Control): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    '/api/v1/lineage/flow',
    {
      schema: {
        tags,
        summary: 'The whole graph of assets, as JSON, or as text for Graphviz or Mermaid',
        querystring: flowQuery,
        response: { 200: z.union([flowAnswer, z.string()]), ...problems },
      },
    },
    async (request, reply) => {
      const { format } = request.query;
      if (format === 'json') return await wholeFlow(control);
      const type = format === 'dot' ? 'text/vnd.graphviz' : 'text/plain';
      return reply
        .type(`${type}; charset=utf-8`)
        .serializer(String)
        .send(await drawnFlow(control, format));
    },
  );
}
