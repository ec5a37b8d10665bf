/** The two answers to one request, ours and Python's, and whether they agree. */
import { compileExpression, ExpressionError } from '../../activities/transform/expression.ts';
import { EvaluationError } from '../../activities/transform/jinja/limits.ts';
import { toRepr } from '../../activities/transform/jinja/text.ts';
import { typeName, type Value } from '../../activities/transform/jinja/values.ts';
import type { Answer, Request } from './python.ts';
import { columns, rowOf } from './rows.ts';

export type Outcome =
  | { ok: true; type: string; repr: string; nullOfFailure: boolean }
  | { ok: false; reason: string; limit: boolean };

/** Our answer. */
export function evaluate(request: Request): Outcome {
  const source = request.mode === 'value' ? `{{ ${request.source} }}` : request.source;
  const values = rowOf(request.row);
  try {
    const expression = compileExpression(source, columns);
    const value = expression.evaluate(values);
    const usesNull = expression.usedColumns.some((index) => values[index] === null);
    return { ok: true, ...described(value, request.mode), nullOfFailure: value === null && usesNull };
  } catch (error) {
    if (!(error instanceof EvaluationError) && !(error instanceof ExpressionError)) throw error;
    const limit = error.message.includes('limit "');
    return { ok: false, reason: error.message, limit };
  }
}

function described(value: Value, mode: Request['mode']): { type: string; repr: string } {
  // A template with one {{ }} keeps its value; Jinja2 renders it.
  if (mode === 'text' && typeof value !== 'string') return { type: 'value', repr: toRepr(value) };
  return { type: value === null ? 'NoneType' : typeName(value), repr: toRepr(value) };
}

/** Why the two answers do not agree; undefined where they do. */
export function difference({ source }: Request, ours: Outcome, theirs: Answer): string | undefined {
  if (!theirs.ok && theirs.tooLarge) return undefined;
  if (!theirs.ok)
    return ours.ok && !ours.nullOfFailure ? `Python fails (${theirs.error}), we answer ${ours.repr}` : undefined;
  if (!ours.ok) {
    // A limit may stop us where Python goes on, but only at results of that size.
    if (ours.limit && theirs.repr.length > 900) return undefined;
    return `Python answers ${theirs.repr}, we fail: ${ours.reason}`;
  }
  if (ours.type === theirs.type && ours.repr === theirs.repr) return undefined;
  if (source.includes('**') && nearlyEqual(ours.repr, theirs.repr)) return undefined;
  return `Python answers ${theirs.type} ${theirs.repr}, we ${ours.type} ${ours.repr}`;
}

/** Powers of floats: C's pow is wrong in the last digit now and then, and which digit depends on its library. */
function nearlyEqual(a: string, b: string): boolean {
  const number = /-?\d+\.\d+(?:e[-+]\d+)?|-?\d+e[-+]\d+/g;
  const x = (a.match(number) ?? []).map(Number);
  const y = (b.match(number) ?? []).map(Number);
  if (a.replace(number, '#') !== b.replace(number, '#')) return false;
  return x.every((value, i) => Math.abs(value - y[i]!) <= Math.abs(value) * 1e-15);
}
