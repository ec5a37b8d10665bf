/** Input whose parts are wrong, each with its place in it. */
import { type ErrorKind, SluiceError } from './errors.ts';

/** What is wrong with one part of an input. */
export interface ShapeIssue {
  /** JSON pointer into the input, '' for all of it. */
  pointer: string;
  detail: string;
  code?: string;
}

/** Thrown for input with one or more wrong parts; the first is in the message. */
export class ShapeError extends SluiceError {
  readonly issues: ShapeIssue[];

  constructor(what: string, issues: ShapeIssue[], remedy: string, kind: ErrorKind = 'configuration') {
    const [first] = issues;
    const more = issues.length > 1 ? ` (and ${issues.length - 1} more)` : '';
    super(kind, `${what}: ${first?.pointer ? `${first.pointer}: ` : ''}${first?.detail ?? ''}${more}`, remedy);
    this.issues = issues;
  }
}

/** A key as a part of a JSON pointer. */
export function pointerPart(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1');
}
