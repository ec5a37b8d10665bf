/** The header by which an order that is sent again, because its answer was lost, is carried out once. */
import type { FastifyInstance } from 'fastify';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { claimKey } from '../control/orders.ts';

/** Other headers pass as they are. */
export const orderHeaders = z.looseObject({
  'idempotency-key': z
    .string()
    .regex(/^[\x21-\x7e]{1,200}$/, 'a key has 1 to 200 visible ASCII characters')
    .optional()
    .describe(
      'Sent again with the same key, the order is not carried out again: the answer is that of the first. With another order: 422',
    ),
});

/** Refuses a key that came with another order before. */
export function compareOrders(app: FastifyInstance, control: Control): void {
  app.addHook('preHandler', async ({ routeOptions, headers, method, url, body }) => {
    if (routeOptions.schema?.headers !== orderHeaders) return;
    const key = headers['idempotency-key'] as string | undefined;
    if (key !== undefined) await claimKey(control, key, JSON.stringify([method, url, body ?? null]));
  });
}

/** The control module as one order uses it. */
export function keyed(control: Control, headers: z.infer<typeof orderHeaders>): Control {
  const key = headers['idempotency-key'];
  return key === undefined ? control : { ...control, idempotencyKey: key };
}
