/** A template's text as tokens, by the rules of Jinja2's default environment. Every token knows where it stands. */
import { limits } from './limits.ts';

export type TokenType =
  | 'data'
  | 'variable_begin'
  | 'variable_end'
  | 'block_begin'
  | 'block_end'
  | 'name'
  | 'string'
  | 'integer'
  | 'float'
  | 'operator'
  | 'eof';

export interface Token {
  type: TokenType;
  /** Text of data and strings (unescaped), names, operators; a number's text without underscores. */
  value: string;
  /** Offset in the source. */
  at: number;
}

/** What is wrong with a template, and where. */
export class SyntaxProblem extends Error {
  readonly at: number;
  constructor(reason: string, at: number) {
    super(reason);
    this.name = 'SyntaxProblem';
    this.at = at;
  }
}

/** Jinja2 reads \r\n and \r as \n, and leaves one newline at the end out. Offsets of tokens are in this text. */
export function normalizeSource(source: string): string {
  return source.replace(/\r\n?/g, '\n').replace(/\n$/, '');
}

const space = '[\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
const spacesAtEnd = new RegExp(`${space}+$`);
const spaces = new RegExp(`${space}+`, 'y');
const rawBegin = new RegExp(`\\{%([-+]?)${space}*raw${space}*(-%\\}${space}*|%\\})`, 'y');
const rawEnd = new RegExp(`\\{%([-+]?)${space}*endraw${space}*(?:\\+%\\}|-%\\}${space}*|%\\})`, 'g');
const commentEnd = new RegExp(`\\+#\\}|-#\\}${space}*|#\\}`, 'g');
const variableEnd = new RegExp(`-\\}\\}${space}*|\\}\\}`, 'y');
const blockEnd = new RegExp(`\\+%\\}|-%\\}${space}*|%\\}`, 'y');

const float = /(?<!\.)(?:[0-9]+_)*[0-9]+(?:(?:\.(?:[0-9]+_)*[0-9]+)?e[+-]?(?:[0-9]+_)*[0-9]+|\.(?:[0-9]+_)*[0-9]+)/iy;
const integer = /0b(?:_?[01])+|0o(?:_?[0-7])+|0x(?:_?[0-9a-f])+|[1-9](?:_?[0-9])*|0(?:_?0)*/iy;
const name = /[\p{ID_Continue}\p{No}]+/uy;
const validName = /^[\p{ID_Start}_]\p{ID_Continue}*$/u;
const string = /'(?:[^'\\]|\\[\s\S])*'|"(?:[^"\\]|\\[\s\S])*"/y;
const operator = /\*\*|\/\/|==|!=|>=|<=|[-+*/%~[\](){}<>=.:|,;]/y;

const closing: Record<string, string> = { '(': ')', '[': ']', '{': '}' };

/** The tokens of a source that `normalizeSource` answered. */
export function tokenize(source: string): Token[] {
  return new Lexer(source).run();
}

class Lexer {
  readonly #source: string;
  readonly #tokens: Token[] = [];
  #at = 0;

  constructor(source: string) {
    this.#source = source;
  }

  run(): Token[] {
    while (this.#at < this.#source.length) this.#data();
    this.#push('eof', '', this.#source.length);
    return this.#tokens;
  }

  #push(type: TokenType, value: string, at: number): void {
    this.#tokens.push({ type, value, at });
  }

  /** Matches a sticky pattern at the current place, and moves behind it. */
  #match(pattern: RegExp): RegExpExecArray | null {
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#source);
    if (match) this.#at += match[0].length;
    return match;
  }

  /** Text up to the next tag, and that tag. */
  #data(): void {
    const begin = this.#at;
    let tag = this.#source.indexOf('{', begin);
    while (tag >= 0 && !'{%#'.includes(this.#source[tag + 1] || '\n')) tag = this.#source.indexOf('{', tag + 1);
    if (tag < 0) {
      this.#push('data', this.#source.slice(begin), begin);
      this.#at = this.#source.length;
      return;
    }
    this.#at = tag;
    const raw = this.#match(rawBegin);
    const sign = raw ? raw[1] : this.#source[tag + 2];
    this.#text(begin, tag, sign === '-');
    if (raw) return this.#raw(tag);
    this.#at = tag + (sign === '-' || sign === '+' ? 3 : 2);
    const kind = this.#source[tag + 1];
    if (kind === '#') return this.#comment(tag);
    this.#push(kind === '{' ? 'variable_begin' : 'block_begin', '', tag);
    this.#code(tag, kind === '{');
  }

  #text(begin: number, end: number, strip: boolean): void {
    const text = this.#source.slice(begin, end);
    const kept = strip ? text.replace(spacesAtEnd, '') : text;
    if (kept !== '') this.#push('data', kept, begin);
  }

  #raw(tag: number): void {
    rawEnd.lastIndex = this.#at;
    const end = rawEnd.exec(this.#source);
    if (!end) throw new SyntaxProblem('missing end of raw block', tag);
    this.#text(this.#at, end.index, end[1] === '-');
    this.#at = end.index + end[0].length;
  }

  #comment(tag: number): void {
    commentEnd.lastIndex = this.#at;
    const end = commentEnd.exec(this.#source);
    if (!end) throw new SyntaxProblem('missing end of comment', tag);
    this.#at = end.index + end[0].length;
  }

  /** Tokens inside `{{ }}` or `{% %}`, up to and with its end. The end counts only where all brackets are closed. */
  #code(tag: number, variable: boolean): void {
    const open: string[] = [];
    while (this.#at < this.#source.length) {
      const at = this.#at;
      if (open.length === 0 && this.#match(variable ? variableEnd : blockEnd)) {
        return this.#push(variable ? 'variable_end' : 'block_end', '', at);
      }
      if (this.#match(spaces)) continue;
      this.#token(open);
    }
    const missing = open.length > 0 ? open.at(-1)! : variable ? '}}' : '%}';
    throw new SyntaxProblem(`unexpected end of template, expected "${missing}"`, tag);
  }

  #token(open: string[]): void {
    const at = this.#at;
    let match = this.#match(float);
    if (match) return this.#push('float', match[0].replaceAll('_', ''), at);
    match = this.#match(integer);
    if (match) return this.#integer(match[0].replaceAll('_', ''), at);
    match = this.#match(name);
    if (match) {
      if (!validName.test(match[0])) throw new SyntaxProblem('invalid character in a name', at);
      return this.#push('name', match[0], at);
    }
    match = this.#match(string);
    if (match) return this.#push('string', unescapeString(match[0].slice(1, -1), at + 1), at);
    match = this.#match(operator);
    if (!match) throw new SyntaxProblem(`unexpected character ${JSON.stringify(charAt(this.#source, at))}`, at);
    this.#balance(match[0], open, at);
    this.#push('operator', match[0], at);
  }

  #integer(digits: string, at: number): void {
    if (digits.length > limits.digits) throw new SyntaxProblem(`a number of more than ${limits.digits} digits`, at);
    this.#push('integer', digits, at);
  }

  #balance(sign: string, open: string[], at: number): void {
    if (closing[sign] !== undefined) {
      open.push(closing[sign]);
      if (open.length > limits.depth)
        throw new SyntaxProblem(`limit "depth" reached: brackets nest deeper than ${limits.depth} levels`, at);
    } else if (sign === ')' || sign === ']' || sign === '}') {
      const expected = open.pop();
      if (expected !== sign)
        throw new SyntaxProblem(`unexpected "${sign}"${expected === undefined ? '' : `, expected "${expected}"`}`, at);
    }
  }
}

function charAt(source: string, at: number): string {
  return String.fromCodePoint(source.codePointAt(at) ?? 0);
}

const simpleEscapes: Record<string, string> = {
  '\n': '',
  '\\': '\\',
  "'": "'",
  '"': '"',
  a: '\x07',
  b: '\b',
  f: '\f',
  n: '\n',
  r: '\r',
  t: '\t',
  v: '\v',
};

/** Escapes of Python's string literals. `at` is where the text begins in the source. */
function unescapeString(text: string, at: number): string {
  if (!text.includes('\\')) return text;
  return text.replace(
    /\\(?:([0-7]{1,3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([\s\S]))/gu,
    (whole: string, ...groups: unknown[]) => {
      const [octal, x, u, long, other] = groups as (string | undefined)[];
      const offset = at + (groups[5] as number);
      if (octal !== undefined) return String.fromCharCode(Number.parseInt(octal, 8));
      const hex = x ?? u ?? long;
      if (hex !== undefined) return codePoint(Number.parseInt(hex, 16), whole, offset);
      if ('xuUN'.includes(other!))
        throw new SyntaxProblem(`a string cannot hold the escape "\\${other}" like this`, offset);
      if (simpleEscapes[other!] !== undefined) return simpleEscapes[other!]!;
      // Python keeps the backslash before a character that needs none; one that is not ASCII it has escaped before.
      return other! <= '\x7f' ? whole : `\\${pythonEscape(other!)}`;
    },
  );
}

function codePoint(code: number, written: string, at: number): string {
  if (code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
    throw new SyntaxProblem(`the escape "${written}" is no character`, at);
  return String.fromCodePoint(code);
}

function pythonEscape(character: string): string {
  const code = character.codePointAt(0)!;
  if (code <= 0xff) return `x${code.toString(16).padStart(2, '0')}`;
  return code <= 0xffff ? `u${code.toString(16).padStart(4, '0')}` : `U${code.toString(16).padStart(8, '0')}`;
}
