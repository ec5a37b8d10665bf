/** All sources and deployments at once. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Control } from '../control/control.ts';
import { pipelineStatus, startPipeline, stopPipeline } from '../control/pipeline.ts';
import { pipelineAnswer, pipelineOrder } from '../control/pipeline_shapes.ts';
import { problemAnswer } from '../control/shapes.ts';

export function addPipelineRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ['pipeline'];
  const response = { 202: pipelineOrder, 503: problemAnswer };
  routes.post(
    '/api/v1/pipeline/start',
    { schema: { tags, summary: 'Start all sources and deployments; what people paused stays paused', response } },
    async (_request, reply) => reply.code(202).send(await startPipeline(control)),
  );
  routes.post(
    '/api/v1/pipeline/stop',
    { schema: { tags, summary: 'Stop all sources and deployments; slots and positions are kept', response } },
    async (_request, reply) => reply.code(202).send(await stopPipeline(control)),
  );
  routes.get(
    '/api/v1/pipeline/status',
    { schema: { tags, summary: 'The state of everything', response: { 200: pipelineAnswer, 503: problemAnswer } } },
    async () => await pipelineStatus(control),
  );
}
