/**
 * A text as the engine for patterns reads it, that notes how far it was read. The engine takes linear time for one match: but
 * to find all matches it may read to the end of the text again for each of them, and tells nobody.
 */
import { MatcherInputBase } from 're2js';

/** What the engine calls of a text. Others of its methods are not here, so that none is read without being noted. */
export class WatchedText {
  readonly length: number;
  readonly #text: string;
  /** One past the last character that was read. */
  furthest = 0;
  /** Characters that were searched for literal text, which is many times quicker. */
  searched = 0;

  constructor(text: string) {
    this.#text = text;
    this.length = text.length;
  }

  /** The engine asks by this whether it is a text. */
  get [Symbol.toStringTag](): string {
    return 'String';
  }

  charCodeAt(at: number): number {
    if (at >= this.furthest) this.furthest = at + 1;
    return this.#text.charCodeAt(at);
  }

  indexOf(wanted: string, from: number): number {
    const found = this.#text.indexOf(wanted, from);
    this.searched += (found < 0 ? this.length : found) - from + wanted.length;
    return found;
  }

  substring(start: number, end: number): string {
    return this.#text.substring(start, end);
  }
}

/** The form in which the engine takes a text that is not a string. */
export class WatchedInput extends MatcherInputBase {
  readonly text: WatchedText;

  constructor(text: string) {
    super();
    this.text = new WatchedText(text);
  }

  override getEncoding() {
    return MatcherInputBase.Encoding.UTF_16;
  }

  override asCharSequence(): string {
    return this.text as unknown as string;
  }

  override length(): number {
    return this.text.length;
  }
}
