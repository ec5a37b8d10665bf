/** All sources and deployments at once. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Control } from '../control/control.ts';
import { pipelineStatus, startPipeline, stopPipeline } from '../control/pipeline.ts';
import { pipelineAnswer, pipelineOrder } from '../control/pipeline_shapes.ts';
import { problemAnswer } from '../control/shapes.ts';
import { keyed, orderHeaders } from './idempotency.ts';

export function addPipelineRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ['pipeline'];
  const headers = orderHeaders;
  const response = { 202: pipelineOrder, 503: problemAnswer };
  routes.post(
    '/api/v1/pipeline/start',
    {
      schema: {
        tags,
        summary: 'Start all sources and deployments; what people paused stays paused',
        headers,
        response,
      },
    },
    async (request, reply) => reply.code(202).send(await startPipeline(keyed(control, request.headers))),
  );
  routes.post(
    '/api/v1/pipeline/stop',
    { schema: { tags, summary: 'Stop all sources and deployments; slots and positions are kept', headers, response } },
    async (request, reply) => reply.code(202).send(await stopPipeline(keyed(control, request.headers))),
  );
  routes.get(
    '/api/v1/pipeline/status',
    { schema: { tags, summary: 'The state of everything', response: { 200: pipelineAnswer, 503: problemAnswer } } },
    async () => await pipelineStatus(control),
  );
}
