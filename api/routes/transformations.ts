/** Rules. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { previewAnswer, previewBody, ruleAnswer, ruleBody, rulePut } from '../control/rule_shapes.ts';
import { problemAnswer } from '../control/shapes.ts';
import { addRule, getRule, listRules, preview, removeRule, replaceRule } from '../control/transformations.ts';
import { keyed, orderHeaders } from './idempotency.ts';

const tags = ['transformations'];
const params = z.object({ rule_id: z.string().describe('Id of the rule') });
const problems = { 404: problemAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };
const path = '/api/v1/transformations';

export function addTransformationRoutes(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    path,
    {
      schema: {
        tags,
        summary: 'All rules, in the order in which they run',
        response: { 200: z.array(ruleAnswer), 503: problemAnswer },
      },
    },
    async () => await listRules(control),
  );
  routes.post(
    path,
    {
      schema: {
        tags,
        summary: 'Add a rule: 201 new, 200 when it is there already, 409 when another one has its id',
        headers: orderHeaders,
        body: ruleBody,
        response: { 200: ruleAnswer, 201: ruleAnswer, 409: problemAnswer, ...problems },
      },
    },
    async (request, reply) => {
      const { created, rule } = await addRule(keyed(control, request.headers), request.body);
      return reply.code(created ? 201 : 200).send(rule);
    },
  );
  routes.post(
    `${path}/preview`,
    {
      schema: {
        tags,
        summary: 'What a rule would make of rows, or of the newest rows of a copy; nothing is stored',
        body: previewBody,
        response: { 200: previewAnswer, ...problems },
      },
    },
    async (request) => await preview(control, request.body),
  );
  addOne(app, control);
}

function addOne(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    `${path}/:rule_id`,
    { schema: { tags, summary: 'One rule', params, response: { 200: ruleAnswer, ...problems } } },
    async (request) => await getRule(control, request.params.rule_id),
  );
  routes.put(
    `${path}/:rule_id`,
    {
      schema: {
        tags,
        summary: 'Replace a rule; its version rises by one',
        params,
        headers: orderHeaders,
        body: rulePut,
        response: { 200: ruleAnswer, ...problems },
      },
    },
    async (request) => await replaceRule(keyed(control, request.headers), request.params.rule_id, request.body),
  );
  routes.delete(
    `${path}/:rule_id`,
    { schema: { tags, summary: 'Take a rule away', params, response: { 204: z.null(), ...problems } } },
    async (request, reply) => {
      await removeRule(control, request.params.rule_id);
      return reply.code(204).send(null);
    },
  );
}
