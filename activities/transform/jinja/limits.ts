/**
 * What an expression may cost. Rules come from people and from the network, and run on every row: so each evaluation has
 * a budget. It counts work, not time, so that the same row always gives the same answer.
 */

export const limits = {
  /** Characters of a template's source. */
  source: 20_000,
  /** How deep expressions and blocks may nest in a template. */
  depth: 100,
  /**
   * Steps of one evaluation: an element of a loop or list is one step, 32 characters of a long text are another. A row
   * with much text gets 16 more for each of its characters, so that honest work on large values is not refused.
   */
  steps: 200_000,
  /** Characters of a text; a row with much text gets 8 more for each of its characters. */
  text: 1_048_576,
  /** Digits of an integer or decimal. */
  digits: 1_000,
  /** How deep lists and dicts may nest in a value. */
  nesting: 200,
  /** Characters of a regular expression. */
  pattern: 1_000,
} as const;

export type LimitName = keyof typeof limits;

/** A row on which an expression fails, as Jinja2 would raise an error in Python. Never holds values of the row. */
export class EvaluationError extends Error {
  /** Set when a limit was reached: then it is the expression that is at fault, not the row. */
  readonly limit: LimitName | undefined;

  constructor(reason: string, limit?: LimitName) {
    super(reason);
    this.name = 'EvaluationError';
    this.limit = limit;
  }
}

/** The error of a row. Made without a stack: that would cost more than all the rest when many rows fail. */
export function failure(reason: string, limit?: LimitName): EvaluationError {
  const before = Error.stackTraceLimit;
  Error.stackTraceLimit = 0;
  const error = new EvaluationError(reason, limit);
  Error.stackTraceLimit = before;
  return error;
}

const meanings: Record<LimitName, string> = {
  source: `a template may have ${limits.source} characters`,
  depth: `a template may nest ${limits.depth} levels deep`,
  steps: `an evaluation may take ${limits.steps} steps`,
  text: `a text may have ${limits.text} characters`,
  digits: `a number may have ${limits.digits} digits`,
  nesting: `lists and dicts may nest ${limits.nesting} levels deep`,
  pattern: `a regular expression may have ${limits.pattern} characters, and no large repetitions`,
};

/** The error that names a limit. */
export function overLimit(limit: LimitName): EvaluationError {
  return failure(`limit "${limit}" reached: ${meanings[limit]}`, limit);
}

// Evaluations run one at a time and never wait: so their budget can live here, where every function reaches it.
let steps: number = limits.steps;
let textRoom: number = limits.text;
let rowSize: (() => number) | undefined;
let extended = false;

let evaluation = 0;

/** Changes with each evaluation: what is kept beyond one can tell by it when it was last paid for. */
export function currentEvaluation(): number {
  return evaluation;
}

/** Starts the budget of one evaluation. `size` says how many characters its row has; asked only when the budget is out. */
export function beginEvaluation(size?: () => number): void {
  rowSize = size;
  evaluation++;
  renewBudget();
}

/** Gives the work on a result, such as writing it down, the same budget again that its evaluation had. */
export function renewBudget(): void {
  steps = limits.steps;
  textRoom = limits.text;
  extended = false;
}

function extendBudget(): boolean {
  if (extended || rowSize === undefined) return false;
  extended = true;
  const size = rowSize();
  steps += size * 16;
  textRoom += size * 8;
  return true;
}

/** Takes steps from the budget. */
export function spend(count: number): void {
  steps -= count;
  // Infinity and NaN must not pass.
  if (!(steps >= 0) && !(extendBudget() && steps >= 0)) throw overLimit('steps');
}

/** Refuses a text of that length, before or after it is made, and counts the work for it. */
export function claimText(length: number): void {
  if (length <= 256) return;
  if (!(length <= textRoom) && !(extendBudget() && length <= textRoom)) throw overLimit('text');
  spend(length >> 5);
}

/** Refuses a text that grows too long, while it grows. */
export function watchText(length: number): void {
  if (length > limits.text) claimText(length);
}

/** Counts work that looks at each character by itself. */
export function claimScan(length: number): void {
  if (length > 256) spend(length >> 2);
  else if (length > 15) spend(length >> 3);
}

/** Counts a search for one text in another, which may begin anew at each character. */
export function claimSearch(length: number, wanted: number): void {
  claimScan(length);
  // Most of it is skipped but for texts that repeat themselves.
  if (wanted > 1) spend(Math.floor((Math.max(0, length - wanted) * wanted) / 512));
}

/** Counts a comparison of two texts that may be equal. */
export function claimComparison(length: number, other: number): void {
  if (length > 256 && length === other) spend(length >> 5);
}

/** An int or coefficient beyond this many bits takes notable time to compute with, and to write. */
const longBits = 256;

/** Counts work on a long number. */
export function claimNumber(value: number | bigint): void {
  if (typeof value === 'bigint' && BigInt.asIntN(longBits, value) !== value) spend(40);
}

/** A text that was made, within the budget. */
export function made(text: string): string {
  if (text.length > 256) claimText(text.length);
  return text;
}
