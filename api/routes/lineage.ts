/** Where assets, columns and rows come from. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { rowLineage, rowLineageQuery } from '../control/lineage_shapes.ts';
import { getRowLineage } from '../control/row_lineage.ts';
import { problemAnswer } from '../control/shapes.ts';

export function addLineageRoutes(app: FastifyInstance, control: Control): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    '/api/v1/lineage/row/:asset_id',
    {
      schema: {
        tags: ['lineage'],
        summary: 'The versions of a row, the batch that wrote each, and its place in the workflow history',
        params: z.object({ asset_id: z.string() }),
        querystring: rowLineageQuery,
        response: { 200: rowLineage, 404: problemAnswer, 422: problemAnswer, 503: problemAnswer },
      },
    },
    async (request) => await getRowLineage(control, request.params.asset_id, request.query.key),
  );
}
