/** What readers of rules and of checks share: names, texts and lists, with a complaint for each that is wrong. */
import { Issues } from './shape_error.ts';

/** Limits of what is declared. */
export const ruleLimits = {
  /** Characters of an id, of a name and of a field. */
  id: 100,
  name: 200,
  /** Entries of a list, such as source fields. */
  list: 200,
  /** Characters of an expression. */
  expression: 20_000,
  /** Values that a field may be limited to. */
  values: 1_000,
  /** Bytes of all rules and checks, as JSON. */
  bytes: 256 * 1024,
} as const;

/** What ids of rules and checks must look like; they share one namespace. */
export const ruleIdPattern = /^[A-Za-z][A-Za-z0-9_.-]{0,99}$/;

/** What was found wrong with rules or checks so far. */
export class RuleIssues extends Issues {
  /** An id, or ''. */
  id(input: unknown, at: string): string {
    if (typeof input === 'string' && ruleIdPattern.test(input)) return input;
    this.add(at, 'must be a letter, then up to 99 letters, digits or any of _ . -');
    return '';
  }

  /** A name of one to `limit` characters without control characters; undefined where it is missing or wrong. */
  name(input: unknown, at: string, limit: number = ruleLimits.name): string | undefined {
    if (input === undefined) return undefined;
    if (typeof input === 'string' && input !== '' && input.length <= limit && !/[\u0000-\u001f\u007f]/.test(input))
      return input;
    this.add(at, `must be a text of 1 to ${limit} characters`);
    return undefined;
  }

  /** A list of names without repetition; undefined where it is missing or wrong. */
  names(input: unknown, at: string): string[] | undefined {
    if (input === undefined) return undefined;
    if (!Array.isArray(input) || input.length === 0 || input.length > ruleLimits.list) {
      this.add(at, `must be a list of 1 to ${ruleLimits.list} names`);
      return undefined;
    }
    const names = input.flatMap((item, index) => this.name(item ?? null, `${at}/${index}`) ?? []);
    return [...new Set(names)];
  }

  /** One of some words; undefined where it is missing or wrong. */
  word<Word extends string>(input: unknown, at: string, words: readonly Word[]): Word | undefined {
    if (input === undefined) return undefined;
    const found = words.find((word) => word === input);
    if (found === undefined) this.add(at, `must be one of ${words.join(', ')}`);
    return found;
  }

  /** An expression; undefined where it is missing or wrong. What it says is read when it is compiled. */
  expression(input: unknown, at: string): string | undefined {
    if (input === undefined) return undefined;
    if (typeof input === 'string' && input.trim() !== '' && input.length <= ruleLimits.expression) return input;
    this.add(at, `must be a text of 1 to ${ruleLimits.expression} characters`);
    return undefined;
  }

  /** Complains where what is needed is not there. */
  needed(value: unknown, at: string, why: string): void {
    if (value === undefined && !this.found.some(({ pointer }) => pointer.endsWith(at)))
      this.add(at, `is missing: ${why}`);
  }
}

/** Leaves out what is not set, so that the same declaration is the same JSON. */
export function withoutGaps<T extends object>(parts: T): T {
  return Object.fromEntries(Object.entries(parts).filter(([, value]) => value !== undefined)) as T;
}
