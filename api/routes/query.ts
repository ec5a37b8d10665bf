/** Reading copies, and comparing them with their sources. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { getCut } from '../control/cuts.ts';
import { runQuery } from '../control/query.ts';
import { cutAnswer, problemAnswer, queryAnswer, queryBody, verifyAnswer, verifyBody } from '../control/shapes.ts';
import { lastVerification, startVerification } from '../control/verify.ts';
import { keyed, orderHeaders } from './idempotency.ts';

const problems = { 404: problemAnswer, 409: problemAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };

export function addQueryRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/api/v1/query',
    {
      schema: {
        tags: ['query'],
        summary:
          'One reading statement on ClickHouse: 10,000 rows, 10 s, FINAL by itself; wait_for answers when the copies hold all that the source has',
        body: queryBody,
        response: { 200: queryAnswer, ...problems },
      },
    },
    async (request) => await runQuery(control, request.body),
  );
  const params = z.object({ source: z.string() });
  routes.get(
    '/api/v1/cuts/:source',
    {
      schema: {
        tags: ['query'],
        summary: 'Up to which commit all copies of a source are complete, and each of them',
        params,
        response: { 200: cutAnswer, ...problems },
      },
    },
    async (request) => await getCut(control, request.params.source),
  );
  routes.get(
    '/api/v1/verify/:source',
    {
      schema: {
        tags: ['verify'],
        summary: 'The last comparison of source and copy',
        params,
        response: { 200: verifyAnswer, ...problems },
      },
    },
    async (request) => await lastVerification(control, request.params.source),
  );
  routes.post(
    '/api/v1/verify/:source',
    {
      schema: {
        tags: ['verify'],
        summary: 'Compare source and copy now; repair: true reads rows that differ again from the source',
        params,
        headers: orderHeaders,
        body: verifyBody,
        response: { 202: verifyAnswer, ...problems },
      },
    },
    async (request, reply) => {
      const { params, headers, body } = request;
      return reply.code(202).send(await startVerification(keyed(control, headers), params.source, body ?? {}));
    },
  );
}
