/** Errors in the description of the API: each as what it is sent as, and those that any call may end with. */
import type { FastifySchema } from 'fastify';
import { incompatibleAnswer } from './control/schema_shapes.ts';
import { problemAnswer } from './control/shapes.ts';

/** A route's schema with its errors as problems: `application/problem+json`. */
export function withProblems(schema: FastifySchema, url: string): FastifySchema {
  const {
    response = {},
    hide,
    body,
  } = schema as FastifySchema & { response?: Record<string, unknown>; hide?: boolean };
  if (hide) return schema;
  const answers = { ...anyProblems(url, body !== undefined), ...response };
  const isProblem = (answer: unknown) => answer === problemAnswer || answer === incompatibleAnswer;
  const described = Object.entries(answers).map(([status, answer]) => [
    status,
    isProblem(answer) ? asProblem(Number(status), answer) : answer,
  ]);
  return { ...schema, response: Object.fromEntries(described) };
}

/** What a call may end with before anybody looks at what it asks for. Health is open to all, and its 503 is no problem. */
function anyProblems(url: string, hasBody: boolean): Record<string, unknown> {
  if (url === '/health') return {};
  const statuses = url.startsWith('/api/v1/') ? [401, 422, ...(hasBody ? [400, 413, 415] : [])] : [401];
  return Object.fromEntries(statuses.map((status) => [status, problemAnswer]));
}

const meanings: Record<number, string> = {
  400: 'Malformed JSON',
  401: 'The token is missing or wrong',
  404: 'There is no such thing',
  409: 'Something else is there, or the state forbids it',
  413: 'The body is larger than 1 MiB',
  415: 'The body is not declared as JSON',
  422: 'Not as it should be: errors tells where',
  503: 'A part is away: see Retry-After',
  504: 'No answer in time; what was asked for may still happen',
};

function asProblem(status: number, schema: unknown) {
  return { description: meanings[status] ?? 'Problem', content: { 'application/problem+json': { schema } } };
}
