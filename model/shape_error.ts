/** Input whose parts are wrong, each with its place in it. */
import { type ErrorKind, SluiceError } from './errors.ts';

/** What is wrong with one part of an input. */
export interface ShapeIssue {
  /** JSON pointer into the input, '' for all of it. */
  pointer: string;
  detail: string;
  code?: string;
  /** Where in a text it stands, from 1. */
  line?: number;
  column?: number;
}

/** As many complaints about one input as anybody reads. */
const issuesLimit = 100;

/** What was found wrong with an input so far. */
export class Issues {
  readonly found: ShapeIssue[] = [];
  readonly #pointer: string;

  /** `pointer`: where the input stands in what was sent. */
  constructor(pointer = '') {
    this.#pointer = pointer;
  }

  add(at: string, detail: string): void {
    if (this.found.length < issuesLimit) this.found.push({ pointer: `${this.#pointer}${at}`, detail });
  }

  /** True for an object; unknown keys are complained about. */
  object(input: unknown, at: string, allowed: readonly string[]): input is Record<string, unknown> {
    if (typeof input !== 'object' || input === null || Array.isArray(input)) {
      this.add(at, 'must be an object');
      return false;
    }
    for (const key of Object.keys(input)) {
      if (allowed.includes(key)) continue;
      this.add(`${at}/${pointerPart(key.slice(0, 60))}`, `unknown key; known are ${allowed.join(', ')}`);
    }
    return true;
  }
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
