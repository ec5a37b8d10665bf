/** The REST API: routes over the control module, their OpenAPI page, and the console. */
import fastifySwagger from '@fastify/swagger';
import fastifySwaggerUi from '@fastify/swagger-ui';
import Fastify, { type FastifyBaseLogger, type FastifyInstance, LogController } from 'fastify';
import { createJsonSchemaTransform, serializerCompiler, validatorCompiler } from 'fastify-type-provider-zod';
import { addConsole } from './console.ts';
import type { Control } from './control/control.ts';
import { withProblems } from './described_problems.ts';
import { guard, requireTokenOutside } from './guards.ts';
import { refuseDeep } from './json_depth.ts';
import { handleError, requestProblem, sendProblem } from './problems.ts';
import { refuseUnknownQuery } from './query_keys.ts';
import { addAuditRoutes } from './routes/audit.ts';
import { addDeploymentRoutes } from './routes/deployments.ts';
import { addEventRoutes } from './routes/events.ts';
import { compareOrders } from './routes/idempotency.ts';
import { addLineageRoutes } from './routes/lineage.ts';
import { addOperationRoutes } from './routes/operation.ts';
import { addPipelineRoutes } from './routes/pipeline.ts';
import { addQualityRoutes } from './routes/quality.ts';
import { addQueryRoutes } from './routes/query.ts';
import { addRejectRoutes } from './routes/rejects.ts';
import { addSchemaRoutes } from './routes/schema.ts';
import { addSourceRoutes } from './routes/sources.ts';
import { addTransformationRoutes } from './routes/transformations.ts';

const bodyLimit = 1024 * 1024;
const emptyLogo = { type: 'image/svg+xml', content: '<svg xmlns="http://www.w3.org/2000/svg"/>' };

/** Builds the server; `listen` is the caller's. Throws `configuration` when it would be open without a token. */
export async function buildServer(control: Control, logger?: FastifyBaseLogger): Promise<FastifyInstance> {
  requireTokenOutside(control.settings);
  const app = Fastify({
    ...(logger ? { loggerInstance: logger } : {}),
    logController: new LogController({ disableRequestLogging: true }),
    bodyLimit,
    routerOptions: { maxParamLength: 400 },
    forceCloseConnections: true,
    // What no route is looked for: paths that cannot be decoded, or are too long.
    frameworkErrors: handleError,
  });
  app.setValidatorCompiler(validatorCompiler);
  app.setSerializerCompiler(serializerCompiler);
  app.setErrorHandler(handleError);
  app.setNotFoundHandler((request, reply) => {
    const route = `${request.method} ${request.url.split('?', 1)[0]}`;
    return sendProblem(reply, {
      ...requestProblem(404, 'No such route', `there is no ${route}`, 'See /docs for what there is.'),
      instance: request.url,
    });
  });
  acceptJsonOnly(app);
  guard(app, control.settings);
  app.addHook('onSend', async (_request, reply) => {
    reply.header('x-content-type-options', 'nosniff').header('cache-control', 'no-store');
  });
  refuseUnknownQuery(app);
  compareOrders(app, control);
  await addDocs(app, Boolean(control.settings.apiToken));
  addOperationRoutes(app, control);
  addPipelineRoutes(app, control);
  addSourceRoutes(app, control);
  addDeploymentRoutes(app, control);
  addQueryRoutes(app, control);
  addAuditRoutes(app, control);
  addLineageRoutes(app, control);
  addEventRoutes(app, control);
  addSchemaRoutes(app, control);
  addTransformationRoutes(app, control);
  addQualityRoutes(app, control);
  addRejectRoutes(app, control);
  addConsole(app, control);
  return app;
}

/** JSON, or no body at all: forms and plain text are what other web pages could send. */
function acceptJsonOnly(app: FastifyInstance): void {
  const parse = app.getDefaultJsonParser('error', 'error');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(/^application\/(.+\+)?json/, { parseAs: 'string' }, (request, body, done) => {
    if (body === '') return done(null, undefined);
    parse(request, body as string, (error, value) => {
      try {
        if (!error) refuseDeep(value);
        done(error, value);
      } catch (deep) {
        done(deep as Error);
      }
    });
  });
}

async function addDocs(app: FastifyInstance, withToken: boolean): Promise<void> {
  const describe = createJsonSchemaTransform({ skipList: [] });
  await app.register(fastifySwagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Sluice',
        version: '0.1.0',
        description: 'Keeps copies of operational data true. Errors are RFC 9457 problems with a remedy.',
      },
      ...(withToken
        ? { components: { securitySchemes: { token: { type: 'http', scheme: 'bearer' } } }, security: [{ token: [] }] }
        : {}),
    },
    transform: (document) => describe({ ...document, schema: withProblems(document.schema, document.url) }),
  });
  await app.register(fastifySwaggerUi, {
    routePrefix: '/docs',
    staticCSP: true,
    logo: emptyLogo,
    theme: { title: 'Sluice API' },
  });
  app.get('/openapi.json', { schema: { hide: true } }, () => app.swagger());
}
