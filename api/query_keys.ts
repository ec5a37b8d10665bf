/** What a call may have behind its `?`: a name that is mistyped would otherwise choose everything. */
import type { FastifyInstance } from 'fastify';
import type { z } from 'zod';
import { pointerPart, ShapeError } from '../model/shape_error.ts';

/** Refuses parameters that a call of the API does not know; one that has none has none to mistype. */
export function refuseUnknownQuery(app: FastifyInstance): void {
  app.addHook('preValidation', async ({ routeOptions: { url, schema }, query }) => {
    if (!url?.startsWith('/api/v1/')) return;
    const known = Object.keys((schema?.querystring as z.ZodObject | undefined)?.shape ?? {});
    const wrong = Object.keys(query as object).filter((key) => !known.includes(key));
    if (wrong.length === 0 || known.length === 0) return;
    const detail = `unknown parameter; known are ${known.join(', ')}`;
    const issues = wrong.slice(0, 100).map((key) => ({ pointer: `/${pointerPart(key.slice(0, 60))}`, detail }));
    throw new ShapeError('the querystring is not as it should be', issues, 'See /docs for what is right.');
  });
}
