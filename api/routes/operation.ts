/** For those who keep watch: health and metrics. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { checkHealth } from '../control/health.ts';
import { metricsPage } from '../control/metrics.ts';
import { healthAnswer } from '../control/shapes.ts';

export function addOperationRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const tags = ['operation'];
  routes.get(
    '/health',
    {
      schema: {
        tags,
        summary: 'Is all there and moving? 503 = down',
        response: { 200: healthAnswer, 503: healthAnswer },
      },
    },
    async (_request, reply) => {
      const health = await checkHealth(control);
      return reply.code(health.status === 'down' ? 503 : 200).send(health);
    },
  );
  const page = z.string().describe('Prometheus text format');
  routes.get(
    '/metrics',
    {
      schema: { tags, summary: 'Metrics for Prometheus', response: { 200: page } },
      serializerCompiler: () => (text) => String(text),
    },
    async (_request, reply) => {
      return reply.type('text/plain; version=0.0.4; charset=utf-8').send(await metricsPage(control));
    },
  );
}
