/** Rows that are held back. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import type { Control } from '../control/control.ts';
import { answeredOnce } from '../control/orders.ts';
import { listRejects, settleRejects } from '../control/rejects.ts';
import { rejectsAnswer, rejectsQuery, settleAnswer, settleBody } from '../control/rule_shapes.ts';
import { problemAnswer } from '../control/shapes.ts';
import { keyed, orderHeaders } from './idempotency.ts';

const tags = ['rejects'];
const problems = { 404: problemAnswer, 409: problemAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };
const path = '/api/v1/rejects';

export function addRejectRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    path,
    {
      schema: {
        tags,
        summary: 'Rows that are held back, the newest first, each with its reason',
        querystring: rejectsQuery,
        response: { 200: rejectsAnswer, 422: problemAnswer, 503: problemAnswer },
      },
    },
    async (request) => await listRejects(control, request.query),
  );
  const actions = {
    release: 'Write rows into their copy, as far as they are right by now; later changes of them win',
    discard: 'Take rows off the list, until they change or the table is copied anew; the copy stays as it is',
  } as const;
  for (const action of ['release', 'discard'] as const) {
    routes.post(
      `${path}/${action}`,
      {
        schema: {
          tags,
          summary: actions[action],
          headers: orderHeaders,
          body: settleBody,
          response: { 200: settleAnswer, ...problems },
        },
      },
      async ({ headers, body }) =>
        await answeredOnce(keyed(control, headers), () => settleRejects(control, action, body)),
    );
  }
}
