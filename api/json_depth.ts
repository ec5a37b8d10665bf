/** How deep bodies may be: whatever reads them calls itself at each level, and would run out of stack. */
import { pointerPart, ShapeError } from '../model/shape_error.ts';

/** More than the 64 levels that a value of a row may have, and where it stands. */
const mostDeep = 100;

/** Throws ShapeError with the place where a body goes too deep. */
export function refuseDeep(body: unknown): void {
  const parts = deepPart(body, 1);
  if (parts === undefined) return;
  const issue = { pointer: `/${parts.join('/')}`, detail: `is more than ${mostDeep} deep` };
  throw new ShapeError('the body is too deep', [issue], 'Send what is nested deeper as a text.');
}

/** The way to a list or an object that is too deep. */
function deepPart(value: unknown, depth: number): string[] | undefined {
  if (typeof value !== 'object' || value === null) return undefined;
  if (depth > mostDeep) return [];
  for (const key of Object.keys(value)) {
    const inner = deepPart((value as Record<string, unknown>)[key], depth + 1);
    if (inner) return [pointerPart(key), ...inner];
  }
  return undefined;
}
