/** The audit trail. */
import type { FastifyInstance } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
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
}
