/** Deployments. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { backfillDeployment, runDeployment, triggerDeployment } from '../control/deployment_runs.ts';
import { backfillBody, deploymentAnswer, pauseBody, runBody, startedAnswer } from '../control/deployment_shapes.ts';
import {
  deleteDeployment,
  getDeployment,
  listDeployments,
  pauseDeployment,
  resumeDeployment,
} from '../control/deployments.ts';
import { answeredOnce } from '../control/orders.ts';
import { problemAnswer } from '../control/shapes.ts';
import { keyed, orderHeaders } from './idempotency.ts';

const tags = ['deployments'];
/** Names in paths: what cannot be a name is simply not there. */
const params = z.object({ name: z.string().describe('Name of the deployment') });
const problems = { 404: problemAnswer, 409: problemAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };

export function addDeploymentRoutes(app: FastifyInstance, control: Control): void {
  addReads(app, control);
  addStates(app, control);
  addRuns(app, control);
}

function addReads(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    '/api/v1/deployments',
    {
      schema: {
        tags,
        summary: 'All deployments: their schedules, and what ran',
        response: { 200: z.array(deploymentAnswer), 503: problemAnswer },
      },
    },
    async () => await listDeployments(control),
  );
  routes.get(
    '/api/v1/deployments/:name',
    {
      schema: {
        tags,
        summary: 'One deployment',
        params,
        response: { 200: deploymentAnswer, 404: problemAnswer, 503: problemAnswer },
      },
    },
    async (request) => await getDeployment(control, request.params.name),
  );
}

function addStates(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const response = { 202: deploymentAnswer, ...problems };
  const headers = orderHeaders;
  const summary = 'Pause: nothing runs by schedule until resume; pipeline/start leaves it alone';
  routes.post(
    '/api/v1/deployments/:name/pause',
    { schema: { tags, summary, params, headers, body: pauseBody, response } },
    async (request, reply) =>
      reply.code(202).send(await pauseDeployment(control, request.params.name, request.body?.note)),
  );
  routes.post(
    '/api/v1/deployments/:name/resume',
    { schema: { tags, summary: 'Resume, whoever has paused', params, headers, response } },
    async (request, reply) => reply.code(202).send(await resumeDeployment(control, request.params.name)),
  );
  routes.delete(
    '/api/v1/deployments/:name',
    {
      schema: {
        tags,
        summary: 'Delete the schedule; runs that are under way go on, and the copy stays',
        params,
        response: { 204: z.null().describe('Deleted'), ...problems },
      },
    },
    async (request, reply) => {
      await deleteDeployment(control, request.params.name);
      return reply.code(204).send(null);
    },
  );
}

function addRuns(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/api/v1/deployments/:name/run',
    {
      schema: {
        tags,
        summary: 'Run once now, beside the schedule, if need be with other parameters',
        params,
        headers: orderHeaders,
        body: runBody,
        response: { 202: startedAnswer, ...problems },
      },
    },
    async (request, reply) => {
      const { params, headers, body } = request;
      return reply.code(202).send(await runDeployment(keyed(control, headers), params.name, body?.parameters));
    },
  );
  routes.post(
    '/api/v1/deployments/:name/trigger',
    {
      schema: {
        tags,
        summary: 'Let the schedule make a run now, under its own overlap policy',
        params,
        headers: orderHeaders,
        response: { 202: deploymentAnswer, ...problems },
      },
    },
    async ({ params, headers }, reply) =>
      reply.code(202).send(await answeredOnce(keyed(control, headers), () => triggerDeployment(control, params.name))),
  );
  routes.post(
    '/api/v1/deployments/:name/backfill',
    {
      schema: {
        tags,
        summary: 'Run the intervals of [from, to) again, in order; the kept position stays',
        params,
        headers: orderHeaders,
        body: backfillBody,
        response: { 202: startedAnswer, ...problems },
      },
    },
    async (request, reply) => {
      const { params, headers, body } = request;
      return reply.code(202).send(await backfillDeployment(keyed(control, headers), params.name, body));
    },
  );
}
