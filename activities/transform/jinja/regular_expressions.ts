/** Regular expressions of users, on an engine that takes linear time whatever the pattern (RE2). */
import { type Matcher, RE2JS } from 're2js';
import { currentEvaluation, failure, limits, made, overLimit, spend, watchText } from './limits.ts';
import type { Value } from './values.ts';
import { WatchedInput } from './watched_text.ts';

/** A pattern may become so many instructions: counted repetitions multiply them. */
const largestProgram = 1000;

/** Instructions times characters that take as long as one step does. */
const workOfStep = 3;

export interface Pattern {
  expression: RE2JS;
  size: number;
  /** The evaluation that paid for it last. */
  paidIn: number;
}

const compiled = new Map<string, Pattern>();

/** The compiled form of a pattern. `g` of JavaScript and look-around do not exist. */
export function compilePattern(source: string, ignoreCase: boolean, multiline: boolean): Pattern {
  const id = `${ignoreCase ? 'i' : ''}${multiline ? 'm' : ''}:${source}`;
  const known = compiled.get(id);
  if (known) return paidFor(known);
  if (source.length > limits.pattern || estimatedSize(source) > largestProgram) throw overLimit('pattern');
  const flags = (ignoreCase ? RE2JS.CASE_INSENSITIVE : 0) | (multiline ? RE2JS.MULTILINE : 0);
  let expression: RE2JS;
  try {
    expression = RE2JS.compile(source, flags);
  } catch (error) {
    throw failure(`the pattern is not valid: ${(error as Error).message.replace('error parsing regexp: ', '')}`);
  }
  const pattern = { expression, size: expression.programSize(), paidIn: -1 };
  if (pattern.size > largestProgram * 4) throw overLimit('pattern');
  // Patterns that come from rows could be many.
  if (compiled.size >= 500) compiled.clear();
  compiled.set(id, pattern);
  return paidFor(pattern);
}

/** Each evaluation pays once for compiling a pattern, also for one that was there already: so that the same row costs the same. */
function paidFor(pattern: Pattern): Pattern {
  if (pattern.paidIn !== currentEvaluation()) {
    pattern.paidIn = currentEvaluation();
    spend(100 + pattern.size * 10);
  }
  return pattern;
}

/** About how many characters a pattern stands for when its counted repetitions are written out. */
export function estimatedSize(source: string): number {
  const outer: number[] = [];
  let size = 0;
  let last = 0;
  const token = /\\[\s\S]|\[\^?\]?(?:\\[\s\S]|\[:\w+:\]|[^\]\\])*\]?|\{(\d+)(?:,(\d*))?\}|[\s\S]/g;
  for (const [text, least, most] of source.matchAll(token)) {
    if (least !== undefined) {
      const times = Math.max(1, Number(most || least));
      size += last * (times - 1);
      last *= times;
    } else if (text === '(') {
      outer.push(size);
      size = 0;
      last = 0;
    } else if (text === ')') {
      last = size + 1;
      size = last + (outer.pop() ?? 0);
    } else if (!'*+?|'.includes(text)) {
      last = 1;
      size += 1;
    }
  }
  return outer.reduce((sum, part) => sum + part, size);
}

function chargeMatch(pattern: Pattern, text: string): void {
  spend(Math.ceil((text.length * pattern.size) / workOfStep));
}

/** All matches of a pattern in a text, one after the other; each is paid for by how far the engine read for it. */
class Matches {
  readonly matcher: Matcher;
  readonly #input: WatchedInput;
  readonly #workOfCharacter: number;
  /** Characters that were read, all matches together, and how many of them are paid for. */
  #read = 0;
  #paid: number;
  #end = 0;

  constructor(pattern: Pattern, text: string) {
    chargeMatch(pattern, text);
    // Once through the text is paid for now: an ordinary pattern hardly needs more, however often it matches.
    this.#paid = text.length;
    this.#input = new WatchedInput(text);
    this.matcher = pattern.expression.matcher(this.#input);
    // The engine runs once more over a match whose groups are asked for.
    this.#workOfCharacter = (pattern.size * (this.matcher.groupCount() > 0 ? 2 : 1)) / workOfStep;
  }

  /** Goes to the next match; false where there is none. */
  next(): boolean {
    const { text } = this.#input;
    text.furthest = this.#end;
    const found = this.matcher.find();
    this.#read += text.furthest - this.#end;
    if (found) this.#end = this.matcher.end();
    spend(1 + (text.searched >> 5));
    text.searched = 0;
    if (this.#read > this.#paid) {
      spend(Math.ceil((this.#read - this.#paid) * this.#workOfCharacter));
      this.#paid = this.#read;
    }
    return found;
  }
}

/** Whether the pattern is found: anywhere, or at the start of the text. */
export function isFound(pattern: Pattern, text: string, atStart: boolean): boolean {
  chargeMatch(pattern, text);
  return atStart ? pattern.expression.matcher(text).lookingAt() : pattern.expression.test(text);
}

/** The first match: its text, or that of one of its groups by number or name; None where there is none. */
export function firstMatch(pattern: Pattern, text: string, group: number | string): string | null {
  chargeMatch(pattern, text);
  const matcher = pattern.expression.matcher(text);
  const known = typeof group === 'number' ? group <= matcher.groupCount() && group >= 0 : hasGroup(pattern, group);
  if (!known) throw failure('the pattern has no such group');
  return matcher.find() ? (matcher.group(group as string) ?? null) : null;
}

function hasGroup(pattern: Pattern, name: string): boolean {
  return Object.hasOwn(pattern.expression.namedGroups(), name);
}

/** All matches: their texts, those of the one group, or lists of the groups' texts. */
export function allMatches(pattern: Pattern, text: string): Value[] {
  const matches = new Matches(pattern, text);
  const { matcher } = matches;
  const groups = matcher.groupCount();
  const found: Value[] = [];
  while (matches.next()) {
    spend(groups);
    if (groups < 2) found.push(matcher.group(groups) ?? '');
    else found.push(Array.from({ length: groups }, (_, i) => matcher.group(i + 1) ?? ''));
  }
  return found;
}

/** A piece of a replacement: text, or a group. */
type Piece = string | { group: number | string };

const controls: Record<string, string> = {
  n: '\n',
  t: '\t',
  r: '\r',
  a: '\x07',
  b: '\b',
  f: '\f',
  v: '\v',
  '\\': '\\',
};

/** Python's replacement texts: `\1`, `\g<1>` and `\g<name>` are groups. */
function parseReplacement(pattern: Pattern, text: string): Piece[] {
  const pieces: Piece[] = [];
  let at = 0;
  for (const match of text.matchAll(/\\(?:g<(\w+)>|([1-9][0-9]?)|([\s\S]?))/g)) {
    pieces.push(text.slice(at, match.index));
    at = match.index + match[0].length;
    const [whole, named, numbered, other] = match;
    const group = named ?? numbered;
    if (group !== undefined) pieces.push({ group: checkGroup(pattern, group) });
    else if (other === '0') pieces.push('\0');
    else if (controls[other!] !== undefined) pieces.push(controls[other!]!);
    else if (/[a-zA-Z0-9]/.test(other!) || other === '')
      throw failure(`the replacement has an unknown escape ${whole}`);
    else pieces.push(whole);
  }
  pieces.push(text.slice(at));
  return pieces;
}

function checkGroup(pattern: Pattern, group: string): number | string {
  const number = /^[0-9]+$/.test(group) ? Number(group) : undefined;
  const known = number === undefined ? hasGroup(pattern, group) : number <= pattern.expression.groupCount();
  if (!known) throw failure('the replacement names a group that the pattern does not have');
  return number ?? group;
}

/** The text with all matches replaced, or the first `most` of them. */
export function replaceMatches(pattern: Pattern, text: string, replacement: string, most: number): string {
  const matches = new Matches(pattern, text);
  const { matcher } = matches;
  const pieces = replacement.includes('\\') ? parseReplacement(pattern, replacement) : [replacement];
  let result = '';
  let at = 0;
  for (let done = 0; (most <= 0 || done < most) && matches.next(); done++) {
    result += text.slice(at, matcher.start());
    for (const piece of pieces)
      result += typeof piece === 'string' ? piece : (matcher.group(piece.group as string) ?? '');
    watchText(result.length);
    at = matcher.end();
  }
  return made(result + text.slice(at));
}
