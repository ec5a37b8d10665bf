/** Checks and their scores. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import {
  addCheck,
  checkQuality,
  getCheck,
  listChecks,
  listScores,
  removeCheck,
  replaceCheck,
} from '../control/quality.ts';
import {
  checkAnswer,
  checkBody,
  checkPut,
  qualityAnswer,
  qualityBody,
  scoresAnswer,
  scoresQuery,
} from '../control/rule_shapes.ts';
import { problemAnswer } from '../control/shapes.ts';
import { keyed, orderHeaders } from './idempotency.ts';

const tags = ['quality'];
const params = z.object({ rule_id: z.string().describe('Id of the check') });
const problems = { 404: problemAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };
const path = '/api/v1/quality';

export function addQualityRoutes(app: FastifyInstance, control: Control): void {
  addDeclarations(app, control);
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    `${path}/check`,
    {
      schema: {
        tags,
        summary: 'Run all checks of an asset: on rows that are sent, or on its whole copy in ClickHouse',
        body: qualityBody,
        response: { 200: qualityAnswer, ...problems },
      },
    },
    async (request) => await checkQuality(control, request.body),
  );
  routes.get(
    `${path}/scores`,
    {
      schema: {
        tags,
        summary: 'Scores over time, the newest first: of each batch that was checked, and of each call of check',
        querystring: scoresQuery,
        response: { 200: scoresAnswer, 422: problemAnswer, 503: problemAnswer },
      },
    },
    async (request) => await listScores(control, request.query),
  );
}

function addDeclarations(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    `${path}/add-rule`,
    {
      schema: {
        tags,
        summary: 'Add a check: 201 new, 200 when it is there already, 409 when another one has its id',
        headers: orderHeaders,
        body: checkBody,
        response: { 200: checkAnswer, 201: checkAnswer, 409: problemAnswer, ...problems },
      },
    },
    async (request, reply) => {
      const { created, check } = await addCheck(keyed(control, request.headers), request.body);
      return reply.code(created ? 201 : 200).send(check);
    },
  );
  routes.get(
    `${path}/rules`,
    { schema: { tags, summary: 'All checks', response: { 200: z.array(checkAnswer), 503: problemAnswer } } },
    async () => await listChecks(control),
  );
  routes.get(
    `${path}/rules/:rule_id`,
    { schema: { tags, summary: 'One check', params, response: { 200: checkAnswer, ...problems } } },
    async (request) => await getCheck(control, request.params.rule_id),
  );
  routes.put(
    `${path}/rules/:rule_id`,
    {
      schema: {
        tags,
        summary: 'Replace a check; its version rises by one',
        params,
        headers: orderHeaders,
        body: checkPut,
        response: { 200: checkAnswer, ...problems },
      },
    },
    async (request) => await replaceCheck(keyed(control, request.headers), request.params.rule_id, request.body),
  );
  routes.delete(
    `${path}/rules/:rule_id`,
    { schema: { tags, summary: 'Take a check away', params, response: { 204: z.null(), ...problems } } },
    async (request, reply) => {
      await removeCheck(control, request.params.rule_id);
      return reply.code(204).send(null);
    },
  );
}
