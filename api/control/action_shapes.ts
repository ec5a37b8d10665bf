/** What the REST API answers about what people did. */
import { z } from 'zod';
import { auditQuery } from './shapes.ts';

export const actionsQuery = z.object({
  target: z.string().min(1).max(300).optional().describe('Id of the source or deployment that it was about'),
  from: auditQuery.shape.from.describe('Asked for at this time or later'),
  to: auditQuery.shape.to.describe('Asked for before this time'),
  limit: auditQuery.shape.limit,
  cursor: auditQuery.shape.cursor,
});
export type ActionsQuery = z.input<typeof actionsQuery> & { limit?: number };

export const actionsAnswer = z.object({
  items: z.array(
    z.object({
      id: z.string(),
      at: z.string(),
      via: z
        .string()
        .describe('rest, cli, configuration, temporal (its UI, its CLI, or a program), worker (Sluice itself)'),
      who: z.string().describe('The user, `token` or `loopback` of a REST call, or an identity of Temporal'),
      action: z.string(),
      target: z.string(),
      input: z.record(z.string(), z.unknown()).describe('Without anything secret'),
      outcome: z.enum(['done', 'failed', 'running']),
      reason: z.string().describe('Why it failed'),
      milliseconds: z.number(),
    }),
  ),
  next_cursor: z.string().nullable(),
});
export type ActionsAnswer = z.infer<typeof actionsAnswer>;
