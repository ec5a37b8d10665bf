/** All sources and deployments at once. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { pipelineStatus, startPipeline, stopPipeline } from '../control/pipeline.ts';
import { pipelineAnswer, problemAnswer } from '../control/shapes.ts';

const ordered = z.object({
  status: pipelineAnswer.shape.status,
  sources: z.array(z.string()).describe('Ids that the order went to'),
  failed: z.array(z.object({ id: z.string(), reason: z.string() })),
});

export function addPipelineRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ['pipeline'];
  const response = { 202: ordered, 503: problemAnswer };
  routes.post(
    '/api/v1/pipeline/start',
    { schema: { tags, summary: 'Start all sources; paused ones stay paused', response } },
    async (_request, reply) => reply.code(202).send(await startPipeline(control)),
  );
  routes.post(
    '/api/v1/pipeline/stop',
    { schema: { tags, summary: 'Stop all sources; slots and positions are kept', response } },
    async (_request, reply) => reply.code(202).send(await stopPipeline(control)),
  );
  routes.get(
    '/api/v1/pipeline/status',
    { schema: { tags, summary: 'The state of everything', response: { 200: pipelineAnswer, 503: problemAnswer } } },
    async () => await pipelineStatus(control),
  );
}
