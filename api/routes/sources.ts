/** Sources. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { discoverSource } from '../control/discover.ts';
import {
  connectBody,
  discoverAnswer,
  discoverQuery,
  maybeTables,
  namesIn,
  problemAnswer,
  someTables,
  sourceAnswer,
  sourceId,
} from '../control/shapes.ts';
import {
  connectSource,
  deleteSource,
  getSource,
  listSources,
  orderSource,
  type SourceOrder,
} from '../control/sources.ts';
import { keyed, orderHeaders } from './idempotency.ts';

const tags = ['sources'];
/** Ids in paths: what cannot be an id is simply not there. */
const params = z.object({ id: z.string().describe(sourceId.description ?? '') });
const problems = { 404: problemAnswer, 409: problemAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };
const flag = z.enum(['true', 'false']).default('false');

export function addSourceRoutes(app: FastifyInstance, control: Control): void {
  addReads(app, control);
  addOrders(app, control);
  addDiscovery(app, control);
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/api/v1/sources/connect',
    {
      schema: {
        tags,
        summary: 'Connect a source: preflight, then it waits for start. 201 new, 200 the same again',
        headers: orderHeaders,
        body: connectBody,
        response: { 200: sourceAnswer, 201: sourceAnswer, 409: problemAnswer, 422: problemAnswer, 503: problemAnswer },
      },
    },
    async (request, reply) => {
      const { created, source } = await connectSource(keyed(control, request.headers), request.body);
      if (!created) return reply.code(200).send(source);
      return reply.code(201).header('location', `/api/v1/sources/${source.id}`).send(source);
    },
  );
  routes.delete(
    '/api/v1/sources/:id',
    {
      schema: {
        tags,
        summary:
          'Remove a source with its slot and publication; ?drop_copies=true its copies too, ?force=true when it is out of reach',
        params,
        querystring: z.object({ drop_copies: flag, force: flag }),
        response: { 204: z.null().describe('Removed'), ...problems },
      },
    },
    async (request, reply) => {
      const { drop_copies, force } = request.query;
      await deleteSource(control, request.params.id, { dropCopies: drop_copies === 'true', force: force === 'true' });
      return reply.code(204).send(null);
    },
  );
}

function addReads(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    '/api/v1/sources',
    { schema: { tags, summary: 'All sources', response: { 200: z.array(sourceAnswer), 503: problemAnswer } } },
    async () => await listSources(control),
  );
  routes.get(
    '/api/v1/sources/:id',
    {
      schema: {
        tags,
        summary: 'One source',
        params,
        response: { 200: sourceAnswer, 404: problemAnswer, 503: problemAnswer },
      },
    },
    async (request) => await getSource(control, request.params.id),
  );
}

const orders: { path: string; order: SourceOrder; summary: string; body: typeof maybeTables | typeof someTables }[] = [
  { path: 'start', order: 'start', summary: 'Start; tables that are named and unknown are added', body: maybeTables },
  {
    path: 'resync',
    order: 'resync',
    summary: 'Copy tables again from their beginning; none named = all',
    body: maybeTables,
  },
  {
    path: 'approve',
    order: 'approveSchema',
    summary: 'Agree with changed definitions: tables that wait for it are copied as they are now; none named = all',
    body: maybeTables,
  },
  { path: 'add-tables', order: 'addTables', summary: 'Add tables beside the running stream', body: someTables },
  {
    path: 'remove-tables',
    order: 'removeTables',
    summary: 'Stop capturing tables; their copies stay',
    body: someTables,
  },
];

const plainOrders: { path: SourceOrder; summary: string }[] = [
  { path: 'stop', summary: 'Stop; slot and position are kept' },
  { path: 'pause', summary: 'Pause: pipeline/start leaves it alone' },
  { path: 'resume', summary: 'Go on where it was paused' },
];

function addOrders(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const headers = orderHeaders;
  const response = { 202: sourceAnswer, ...problems };
  for (const { path, order, summary, body } of orders) {
    routes.post(
      `/api/v1/sources/:id/${path}`,
      { schema: { tags, summary, params, headers, body, response } },
      async (request, reply) => {
        const asked = keyed(control, request.headers);
        return reply.code(202).send(await orderSource(asked, request.params.id, order, namesIn(request.body)));
      },
    );
  }
  for (const { path, summary } of plainOrders) {
    routes.post(
      `/api/v1/sources/:id/${path}`,
      { schema: { tags, summary, params, headers, response } },
      async (request, reply) => {
        return reply.code(202).send(await orderSource(keyed(control, request.headers), request.params.id, path));
      },
    );
  }
}

function addDiscovery(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  const path = '/api/v1/sources/discover';
  const summary = 'Tables and findings of a database, without connecting it';
  const response = { 200: discoverAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };
  routes.get(path, { schema: { tags, summary, querystring: discoverQuery, response } }, async ({ query }) => {
    const { tables, ...rest } = query;
    const names = tables?.split(',').map((name) => name.trim());
    const config = {
      poll_interval: 1,
      mode: 'copy' as const,
      exclude_columns: {},
      options: {},
      ...(names && { tables: names }),
    };
    return await discoverSource(control, { ...rest, config });
  });
  routes.post(path, { schema: { tags, summary, body: connectBody, response } }, async ({ body }) => {
    return await discoverSource(control, body);
  });
}
