/** Errors as RFC 9457 problem details. */
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import { hasZodFastifySchemaValidationErrors } from 'fastify-type-provider-zod';
import type { Reason } from '../model/compatibility.ts';
import { asSluiceError, type ErrorKind, errorTable, SluiceError } from '../model/errors.ts';
import type { CompatibilityMode } from '../model/schema.ts';
import { pointerPart, ShapeError } from '../model/shape_error.ts';
import { FindingsError } from './control/findings.ts';
import { IncompatibleError } from './control/incompatible.ts';

export interface Problem {
  type: string;
  title: string;
  status: number;
  detail: string;
  kind: string;
  remedy: string;
  instance?: string;
  errors?: { pointer: string; detail: string; code?: string; remedy?: string; line?: number; column?: number }[];
  /** Of a schema that does not go with others: the mode, and each reason. */
  mode?: CompatibilityMode;
  reasons?: Reason[];
}

/** The status of each kind; what is not here is 500 (a bug) or, when it passes by itself, 503. */
const statusOf: Partial<Record<ErrorKind, number>> = {
  configuration: 422,
  preflight: 422,
  table_missing: 422,
  table_unusable: 422,
  source_refused: 422,
  not_found: 404,
  conflict: 409,
  slot_in_use: 409,
  slot_lost: 409,
  slot_ahead: 409,
  source_replaced: 409,
  table_changed: 409,
  sink_damaged: 409,
  conservation: 409,
  timeout: 504,
};

/** A SluiceError as a problem. */
export function problemOf(error: SluiceError, instance?: string): Problem {
  const { transient, meaning } = errorTable[error.kind];
  return {
    type: `urn:sluice:error:${error.kind}`,
    title: meaning,
    status: statusOf[error.kind] ?? (transient ? 503 : 500),
    detail: error.message,
    kind: error.kind,
    remedy: error.remedy,
    ...(instance ? { instance } : {}),
    ...(error instanceof FindingsError ? { errors: findingErrors(error) } : {}),
    ...(error instanceof ShapeError ? { errors: error.issues } : {}),
    ...(error instanceof IncompatibleError ? { mode: error.mode, reasons: error.reasons } : {}),
  };
}

function findingErrors(error: FindingsError): Problem['errors'] {
  return error.findings.map(({ code, table, detail, remedy }) => {
    return { pointer: table ? '/config/tables' : '', code, detail: table ? `${table}: ${detail}` : detail, remedy };
  });
}

/** A problem of the HTTP request itself. */
export function requestProblem(status: number, title: string, detail: string, remedy: string): Problem {
  return { type: 'about:blank', title, status, detail, kind: 'request', remedy };
}

/** Answers with a problem. */
export function sendProblem(reply: FastifyReply, problem: Problem): FastifyReply {
  if (problem.status === 503) reply.header('retry-after', '2');
  if (problem.status === 401) reply.header('www-authenticate', 'Bearer');
  return reply
    .code(problem.status)
    .header('content-type', 'application/problem+json; charset=utf-8')
    .serializer(JSON.stringify)
    .send(problem);
}

/** Fastify's error handler: every error of any route becomes a problem. */
export function handleError(error: FastifyError, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const instance = request.url.split('?', 1)[0];
  const problem = requestErrorProblem(error) ?? problemOf(asSluiceError(error), instance);
  // What is unforeseen needs its stack, and nobody else than the operator may see it.
  if (problem.status === 500) request.log.error({ err: error }, 'unexpected error');
  return sendProblem(reply, { ...problem, instance });
}

function requestErrorProblem(error: FastifyError): Problem | undefined {
  if (hasZodFastifySchemaValidationErrors(error)) return shapeProblem(error);
  switch (error.code) {
    case 'FST_ERR_CTP_BODY_TOO_LARGE':
      return requestProblem(413, 'Body too large', 'the body is larger than 1 MiB', 'Send less at once.');
    case 'FST_ERR_CTP_INVALID_MEDIA_TYPE':
      return requestProblem(
        415,
        'Not JSON',
        'the body is not declared as JSON',
        'Send Content-Type: application/json.',
      );
    case 'FST_ERR_CTP_INVALID_JSON_BODY':
    case 'FST_ERR_CTP_EMPTY_JSON_BODY':
      return requestProblem(400, 'Malformed JSON', 'the body is not valid JSON', 'Correct the JSON.');
  }
  if (error instanceof SyntaxError) {
    return requestProblem(400, 'Malformed JSON', 'the body is not valid JSON', 'Correct the JSON.');
  }
  const status = error.statusCode;
  if (!(error instanceof SluiceError) && status !== undefined && status >= 400 && status < 500) {
    return requestProblem(status, 'Bad request', error.message, 'Look at /docs.');
  }
  return undefined;
}

/** Wrong shapes: a pointer for each. Unknown keys point at themselves. */
function shapeProblem(error: {
  validation: { instancePath: string; message?: string; params?: unknown }[];
  validationContext?: string;
}): Problem {
  const errors = error.validation.flatMap((issue) => {
    const detail = issue.message ?? 'not as it should be';
    const pointer = issue.instancePath === '/' ? '' : issue.instancePath;
    const keys = (issue.params as { keys?: string[] } | undefined)?.keys ?? [];
    if (keys.length === 0) return [{ pointer, detail }];
    return keys.map((key) => ({ pointer: `${pointer}/${pointerPart(key)}`, detail: `unknown key ${key}` }));
  });
  const where = error.validationContext ?? 'body';
  const [first] = errors;
  const detail = `the ${where} is not as it should be: ${first?.pointer ? `${first.pointer}: ` : ''}${first?.detail ?? ''}`;
  const sluice = new SluiceError('configuration', detail, 'See /docs for what is right.');
  return { ...problemOf(sluice), errors };
}
