/** Who may call: loopback names only, or a token; never a web page of another origin. */
import { createHash, timingSafeEqual } from 'node:crypto';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { SluiceError } from '../model/errors.ts';
import type { Settings } from '../workers/settings.ts';
import { type Problem, requestProblem, sendProblem } from './problems.ts';

const loopback = /^(localhost|127\.\d+\.\d+\.\d+|\[::1\])$/;

/** Throws `configuration` when the API would be open to others than this machine. */
export function requireTokenOutside(settings: Pick<Settings, 'apiHost' | 'apiToken'>): void {
  const host = settings.apiHost.includes(':') ? `[${settings.apiHost}]` : settings.apiHost;
  if (loopback.test(host) || settings.apiToken) return;
  const remedy =
    'Set SLUICE_API_TOKEN to a long random text (e.g. `openssl rand -hex 32`), or SLUICE_HOST to 127.0.0.1.';
  throw new SluiceError(
    'configuration',
    `SLUICE_HOST=${settings.apiHost} opens the API to others, and there is no token`,
    remedy,
  );
}

/** Pages that hold no data, so that a browser can load them and ask for the token. */
const openPages = /^\/(|health|openapi\.json|docs(\/.*)?|favicon\.ico)$/;

/** Checks Host, Origin and the token before anything else of a request is read. */
export function guard(app: FastifyInstance, settings: Pick<Settings, 'apiToken'>): void {
  app.addHook('onRequest', async (request, reply) => {
    const problem =
      hostProblem(request, settings.apiToken) ?? originProblem(request) ?? tokenProblem(request, settings.apiToken);
    if (problem) return sendProblem(reply, problem);
  });
}

/** Without a token only names of this machine: a web page whose name is pointed at loopback has another Host. */
function hostProblem(request: FastifyRequest, token: string | undefined): Problem | undefined {
  const name = (request.headers.host ?? '').replace(/:\d+$/, '').toLowerCase();
  if (token || loopback.test(name)) return undefined;
  return requestProblem(
    421,
    'Wrong host',
    `the Host ${name || '(none)'} is not this machine’s`,
    'Call 127.0.0.1 or localhost, or set SLUICE_API_TOKEN.',
  );
}

function originProblem(request: FastifyRequest): Problem | undefined {
  const { origin, host } = request.headers;
  if (origin === undefined) return undefined;
  try {
    if (new URL(origin).host === host) return undefined;
  } catch {}
  return requestProblem(
    403,
    'Wrong origin',
    'web pages of other origins may not call this API',
    'Use the console, the CLI, or a program.',
  );
}

function tokenProblem(request: FastifyRequest, token: string | undefined): Problem | undefined {
  const path = request.url.split('?', 1)[0] ?? '';
  if (!token || openPages.test(path)) return undefined;
  const given = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '')?.[1];
  if (given !== undefined && sameText(given, token)) return undefined;
  return requestProblem(
    401,
    'Not authorised',
    'the token is missing or wrong',
    'Send Authorization: Bearer with the value of SLUICE_API_TOKEN.',
  );
}

/** Compares in a time that says nothing about where the texts differ, or how long they are. */
function sameText(a: string, b: string): boolean {
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(a), digest(b));
}
