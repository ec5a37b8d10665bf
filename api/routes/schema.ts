/** The registry of schemas. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import { SluiceError } from '../../model/errors.ts';
import type { Control } from '../control/control.ts';
import {
  checkAnswer,
  checkBody,
  compatibilityAnswer,
  compatibilityBody,
  incompatibleAnswer,
  migrateAnswer,
  migrateBody,
  registerBody,
  registeredAnswer,
  subjectAnswer,
  versionAnswer,
} from '../control/schema_shapes.ts';
import {
  checkSchema,
  getCompatibility,
  getSubject,
  getVersion,
  listSubjects,
  listVersions,
  migrate,
  registerSchema,
  setCompatibility,
  type WantedVersion,
} from '../control/schemas.ts';
import { problemAnswer } from '../control/shapes.ts';
import { keyed, orderHeaders } from './idempotency.ts';

const tags = ['schema'];
/** Names in paths: what cannot be a name is simply not there. */
const params = z.object({ subject: z.string().describe('Name of the subject; that of a copy is its asset id') });
const problems = { 404: problemAnswer, 422: problemAnswer, 503: problemAnswer, 504: problemAnswer };

export function addSchemaRoutes(app: FastifyInstance, control: Control): void {
  addChanges(app, control);
  addSubjects(app, control);
  addVersions(app, control);
}

function addChanges(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.post(
    '/api/v1/schema/register',
    {
      schema: {
        tags,
        summary: 'Register a schema: 201 a new version, 200 when it is one already, 409 with reasons when incompatible',
        headers: orderHeaders,
        body: registerBody,
        response: { 200: registeredAnswer, 201: registeredAnswer, 409: incompatibleAnswer, ...problems },
      },
    },
    async (request, reply) => {
      const { created, answer } = await registerSchema(keyed(control, request.headers), request.body);
      return reply.code(created ? 201 : 200).send(answer);
    },
  );
  routes.post(
    '/api/v1/schema/check-compatibility',
    {
      schema: {
        tags,
        summary: 'Would this schema go with a subject’s versions, or with another schema? Nothing is stored',
        body: checkBody,
        response: { 200: checkAnswer, ...problems },
      },
    },
    async (request) => await checkSchema(control, request.body),
  );
}

function addSubjects(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    '/api/v1/schema',
    { schema: { tags, summary: 'All subjects', response: { 200: z.array(subjectAnswer), 503: problemAnswer } } },
    async () => await listSubjects(control),
  );
  routes.get(
    '/api/v1/schema/:subject',
    { schema: { tags, summary: 'One subject', params, response: { 200: subjectAnswer, ...problems } } },
    async (request) => await getSubject(control, request.params.subject),
  );
  routes.get(
    '/api/v1/schema/:subject/compatibility',
    { schema: { tags, summary: 'The mode of a subject', params, response: { 200: compatibilityAnswer, ...problems } } },
    async (request) => await getCompatibility(control, request.params.subject),
  );
  routes.put(
    '/api/v1/schema/:subject/compatibility',
    {
      schema: {
        tags,
        summary: 'Set the mode of a subject, for versions from now on',
        params,
        headers: orderHeaders,
        body: compatibilityBody,
        response: { 200: compatibilityAnswer, ...problems },
      },
    },
    async ({ params, headers, body }) =>
      await setCompatibility(keyed(control, headers), params.subject, body.compatibility),
  );
}

function addVersions(app: FastifyInstance, control: Control): void {
  const routes = app.withTypeProvider<ZodTypeProvider>();
  routes.get(
    '/api/v1/schema/:subject/versions',
    {
      schema: {
        tags,
        summary: 'All versions of a subject, the newest last',
        params,
        response: { 200: z.array(versionAnswer), ...problems },
      },
    },
    async (request) => await listVersions(control, request.params.subject),
  );
  routes.get(
    '/api/v1/schema/:subject/versions/:version',
    {
      schema: {
        tags,
        summary: 'One version of a subject',
        params: params.extend({ version: z.string().describe('Its number, or latest') }),
        response: { 200: versionAnswer, ...problems },
      },
    },
    async (request) => await getVersion(control, request.params.subject, wantedVersion(request.params.version)),
  );
  routes.post(
    '/api/v1/schema/:subject/migrate',
    {
      schema: {
        tags,
        summary: 'Rewrite rows from one version to another; all or none',
        params,
        body: migrateBody,
        response: { 200: migrateAnswer, ...problems },
      },
    },
    async (request) => await migrate(control, request.params.subject, request.body),
  );
}

function wantedVersion(text: string): WantedVersion {
  if (text === 'latest') return text;
  if (/^\d{1,9}$/.test(text)) return Number(text);
  throw new SluiceError('not_found', `there is no version ${text}`, 'Versions are numbers from 1 on, or `latest`.');
}
