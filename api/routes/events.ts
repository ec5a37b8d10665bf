/** What happens, as server-sent events. */
import type { FastifyInstance, FastifyReply } from 'fastify';
import type { ZodTypeProvider } from 'fastify-type-provider-zod';
import { z } from 'zod';
import type { Control } from '../control/control.ts';
import { type FeedEvent, listen } from '../control/events.ts';
import { problemAnswer } from '../control/shapes.ts';

/** Between two signs of life, in milliseconds: proxies end what is silent for a minute. */
const beat = 15_000;
/** Bytes that may wait for a client: who does not read loses the connection, and comes back with its last id. */
const mostWaiting = 1 << 20;

const query = z.strictObject({
  source: z.string().min(1).max(40).optional().describe('Of this source or deployment only'),
});

export function addEventRoutes(app: FastifyInstance, control: Control): void {
  app.withTypeProvider<ZodTypeProvider>().get(
    '/api/v1/events',
    {
      schema: {
        tags: ['operation'],
        summary: 'What happens, as server-sent events: batch, source, alarm, run. Last-Event-ID tells what was missed',
        querystring: query,
        response: { 200: z.string().describe('text/event-stream'), 409: problemAnswer, 422: problemAnswer },
      },
    },
    async (request, reply) => {
      const last = request.headers['last-event-id'];
      const since = typeof last === 'string' && last !== '' ? last : undefined;
      const { source } = request.query;
      const early: FeedEvent[] = [];
      let send = (event: FeedEvent): void => void early.push(event);
      // Refused as any request, before the answer begins.
      const end = listen(control, (event) => wanted(event, source) && send(event), since);
      send = stream(reply, end);
      for (const event of early) send(event);
      return reply;
    },
  );
}

function wanted({ about }: FeedEvent, source: string | undefined): boolean {
  return source === undefined || about === '' || about === source;
}

/** Begins the answer; answers how to send. `end` is called when the client has gone. */
function stream(reply: FastifyReply, end: () => void): (event: FeedEvent) => void {
  reply.hijack();
  const { raw } = reply;
  raw.writeHead(200, {
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    'x-accel-buffering': 'no',
  });
  raw.write('retry: 2000\n\n');
  const beats = setInterval(() => raw.write(': alive\n\n'), beat);
  raw.on('close', () => {
    clearInterval(beats);
    end();
  });
  raw.on('error', () => {});
  return ({ event, id, data }) => {
    if (raw.destroyed) return;
    raw.write(`id: ${id}\nevent: ${event}\ndata: ${JSON.stringify(data)}\n\n`);
    if (raw.writableLength > mostWaiting) raw.destroy();
  };
}
