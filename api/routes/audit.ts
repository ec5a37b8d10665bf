/** The audit trail. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { actionsAnswer, actionsQuery } from '../control/action_shapes.ts';
import { listActions } from '../control/actions.ts';
import { listAudit } from '../control/audit.ts';
import type { Control } from '../control/control.ts';
import { auditAnswer, auditQuery, problemAnswer } from '../control/shapes.ts';

export function addAuditRoutes(app: FastifyInstance, control: Control): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    '/api/v1/lineage/audit',
    {
      schema: {
        tags: ['lineage'],
        summary: 'Batch records, the newest first: what was read, written, rejected, and up to which position',
        querystring: auditQuery,
        response: { 200: auditAnswer, 422: problemAnswer, 503: problemAnswer },
      },
    },
    async (request) => await listAudit(control, request.query),
  );
  app.withTypeProvider<ZodTypeProvider>().get(
    '/api/v1/audit/actions',
    {
      schema: {
        tags: ['lineage'],
        summary:
          'What people did, the newest first: by REST, CLI, Temporal’s UI and CLI; who, when, what, with which outcome',
        querystring: actionsQuery,
        response: { 200: actionsAnswer, 422: problemAnswer, 503: problemAnswer },
      },
    },
    async (request) => await listActions(control, request.query),
  );
}
