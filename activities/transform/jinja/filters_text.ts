/** Filters of Jinja2 that work on the text of a value. */
import { claimScan, claimText, failure, made, spend, watchText } from './limits.ts';
import { elements, isTrue, lengthOf } from './operators.ts';
import { formatPercent } from './percent_format.ts';
import { type Argument, indexArgument, type Routine, routine, textArgument, variadicRoutine } from './routine.ts';
import { textLength, toText, unitOffset } from './text.ts';
import { capitalize, center, joinTexts, lower, replace, split, splitLines, strip, upper } from './text_methods.ts';
import { onlySpace } from './unicode.ts';
import { Dict, Tuple, typeName, Undefined, type Value } from './values.ts';

/** A value that must be a text as it is; other values have no meaning for this filter. */
export function wantText(value: Value, filter: string): string {
  if (typeof value === 'string') return value;
  if (value instanceof Undefined) return value.fail();
  throw failure(`the filter ${filter} wants a text, not ${typeName(value)}`);
}

function title(text: string): string {
  claimScan(text.length);
  // Jinja2's own idea of words: they begin behind white space, hyphens and opening brackets.
  return made(
    text
      .split(/([-\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000({[<]+)/)
      .map((word) => {
        const first = unitOffset(word, 1);
        return word.slice(0, first).toUpperCase() + word.slice(first).toLowerCase();
      })
      .join(''),
  );
}

function truncate(value: Value, length: Argument, killWords: Argument, end: Argument, leeway: Argument): Value {
  const most = length === undefined ? 255 : indexArgument(length, 'length');
  const tail = end === undefined ? '...' : textArgument(end, 'end');
  const slack = leeway === undefined || leeway === null ? 5 : indexArgument(leeway, 'leeway');
  const tailLength = textLength(tail);
  if (most < tailLength) throw failure('argument "length" must be at least the length of "end"');
  if (slack < 0) throw failure('argument "leeway" must not be negative');
  if (lengthOf(value) <= most + slack) return value;
  const text = wantText(value, 'truncate');
  const head = text.slice(0, unitOffset(text, most - tailLength));
  if (killWords !== undefined && isTrue(killWords)) return head + tail;
  const space = head.lastIndexOf(' ');
  return (space < 0 ? head : head.slice(0, space)) + tail;
}

function indent(value: Value, width: Argument, first: Argument, blank: Argument): string {
  const text = wantText(value, 'indent');
  const indention =
    typeof width === 'string' ? width : repeatSpace(width === undefined ? 4 : indexArgument(width, 'width'));
  const lines = splitLines(`${text}\n`, false);
  claimText(text.length + lines.length * (indention.length + 1));
  const all = blank !== undefined && isTrue(blank);
  const rest = lines.slice(1).map((line) => (all || line !== '' ? indention + line : line));
  const body = [lines[0]!, ...rest].join('\n');
  return first !== undefined && isTrue(first) ? indention + body : body;
}

function repeatSpace(count: number): string {
  claimText(count);
  return ' '.repeat(Math.max(0, count));
}

const htmlEscapes: Record<string, string> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', "'": '&#39;', '"': '&#34;' };

function escapeHtml(text: string): string {
  claimScan(text.length);
  return made(text.replace(/[&<>'"]/g, (sign) => htmlEscapes[sign]!));
}

const entities: Record<string, string> = { amp: '&', lt: '<', gt: '>', quot: '"', apos: "'", nbsp: '\xa0' };

/** Text without tags, comments and surplus white space. */
function stripTags(text: string): string {
  claimScan(text.length);
  let result = '';
  let at = 0;
  for (;;) {
    const open = text.indexOf('<', at);
    if (open < 0) break;
    const comment = text.startsWith('<!--', open);
    const close = text.indexOf(comment ? '-->' : '>', open);
    if (close < 0) break;
    result += text.slice(at, open);
    at = close + (comment ? 3 : 1);
  }
  const words = split(result + text.slice(at), undefined, undefined);
  return words.join(' ').replace(/&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|(\w{2,6}));/g, decodeEntity);
}

function decodeEntity(whole: string, decimal?: string, hex?: string, name?: string): string {
  if (name !== undefined) return Object.hasOwn(entities, name) ? entities[name]! : whole;
  const code = decimal === undefined ? Number.parseInt(hex!, 16) : Number(decimal);
  return code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff) || code === 0 ? '\ufffd' : String.fromCodePoint(code);
}

function quoteUrl(value: Value, form: boolean): string {
  const text = toText(value);
  claimScan(text.length);
  // JSON can name halves of characters, which no URL has.
  if (/\p{Surrogate}/u.test(text)) throw failure('the text has half a character, which has no form in UTF-8');
  const quoted = encodeURIComponent(text).replace(
    /[!'()*]/g,
    (sign) => `%${sign.charCodeAt(0).toString(16).toUpperCase()}`,
  );
  return made(form ? quoted.replaceAll('%20', '+') : quoted.replaceAll('%2F', '/'));
}

function urlEncode(value: Value): string {
  if (typeof value === 'string' || value === null || typeof value !== 'object') return quoteUrl(value, false);
  const isIterable =
    Array.isArray(value) || value instanceof Tuple || value instanceof Dict || value instanceof Undefined;
  if (!isIterable) return quoteUrl(value, false);
  spend(lengthOf(value) * 2);
  const pairs = value instanceof Dict ? value.entries() : elements(value).map((pair) => elements(pair));
  return joinTexts(
    '&',
    pairs.map((pair) => {
      if (pair.length !== 2) throw failure('the filter urlencode wants pairs');
      return `${quoteUrl(pair[0]!, true)}=${quoteUrl(pair[1]!, true)}`;
    }),
  );
}

function xmlAttributes(value: Value, autospace: Argument): string {
  if (!(value instanceof Dict)) throw failure(`the filter xmlattr wants a dict, not ${typeName(value)}`);
  spend(value.size * 2);
  const parts: string[] = [];
  for (const [key, item] of value.entries()) {
    if (item === null || item instanceof Undefined) continue;
    if (/[\t-\r />=]/.test(wantText(key, 'xmlattr'))) throw failure('an attribute has a name that XML does not allow');
    parts.push(`${escapeHtml(key as string)}="${escapeHtml(toText(item))}"`);
  }
  const text = joinTexts(' ', parts);
  return text !== '' && (autospace === undefined || isTrue(autospace)) ? ` ${text}` : text;
}

/** Where Python's textwrap may break a line: white space, hyphens between letters, dashes. */
const wrapPiece =
  /[\t\n\v\f\r ]+|(?<=[\p{L}\p{N}_!"'&.,?])-{2,}(?=[\p{L}\p{N}_])|[^\t\n\v\f\r ]+?(?:-(?:(?<=[\p{L}_]{2}-)|(?<=[\p{L}_]-[\p{L}_]-))(?=[\p{L}_]-?[\p{L}_])|(?=[\t\n\v\f\r ]|$)|(?<=[\p{L}\p{N}_!"'&.,?])(?=-{2,}[\p{L}\p{N}_]))/gu;

function wrapLine(line: string, width: number, breakWords: boolean, breakHyphens: boolean): string[] {
  const pieces = (breakHyphens ? line.match(wrapPiece) : line.match(/[\t\n\v\f\r ]+|[^\t\n\v\f\r ]+/g)) ?? [];
  const waiting = [...pieces].reverse();
  const lines: string[] = [];
  while (waiting.length > 0) {
    spend(1);
    let current: string[] = [];
    let length = 0;
    if (lines.length > 0 && onlyWhite(waiting.at(-1)!)) waiting.pop();
    while (waiting.length > 0) {
      const size = textLength(waiting.at(-1)!);
      if (length + size > width) break;
      current.push(waiting.pop()!);
      length += size;
    }
    if (waiting.length > 0 && textLength(waiting.at(-1)!) > width) {
      const room = width - length;
      const long = waiting.pop()!;
      if (breakWords) {
        const cut = breakAt(long, room, breakHyphens);
        current.push(long.slice(0, cut));
        waiting.push(long.slice(cut));
      } else if (current.length === 0) current.push(long);
      else waiting.push(long);
    }
    if (current.length > 0 && onlyWhite(current.at(-1)!)) current = current.slice(0, -1);
    if (current.length > 0) lines.push(current.join(''));
  }
  return lines;
}

/** A word that is too long breaks behind a hyphen where one is left of the edge. */
function breakAt(word: string, room: number, hyphens: boolean): number {
  const edge = unitOffset(word, room);
  if (!hyphens || textLength(word) <= room) return edge;
  const hyphen = word.slice(0, edge).lastIndexOf('-');
  return hyphen > 0 && /[^-]/.test(word.slice(0, hyphen)) ? hyphen + 1 : edge;
}

function onlyWhite(piece: string): boolean {
  return onlySpace.test(piece);
}

function wordWrap(
  value: Value,
  width: Argument,
  breakWords: Argument,
  wrapString: Argument,
  breakHyphens: Argument,
): string {
  const text = wantText(value, 'wordwrap');
  const most = width === undefined ? 79 : indexArgument(width, 'width');
  if (most <= 0) throw failure('argument "width" must be above zero');
  const newline = wrapString === undefined || wrapString === null ? '\n' : textArgument(wrapString, 'wrapstring');
  const long = breakWords === undefined || isTrue(breakWords);
  const hyphens = breakHyphens === undefined || isTrue(breakHyphens);
  spend(text.length);
  return joinTexts(
    newline,
    splitLines(text, false).map((line) => joinTexts(newline, wrapLine(line, most, long, hyphens))),
  );
}

function format(self: Value, positional: Value[], named: Map<string, Value>): string {
  if (positional.length > 0 && named.size > 0) throw failure('format takes values in order or by name, not both');
  if (named.size === 0) return formatPercent(toText(self), new Tuple(positional));
  const values = new Dict();
  for (const [name, value] of named) values.set(name, value);
  return formatPercent(toText(self), values);
}

function countWords(text: string): number {
  claimScan(text.length);
  return text.match(/[\p{L}\p{N}_]+/gu)?.length ?? 0;
}

/** Texts of the elements with a separator between them. */
export function joined(items: readonly Value[], separator: Argument): string {
  spend(items.length);
  let size = 0;
  const texts = items.map((item) => {
    const text = toText(item);
    size += text.length;
    watchText(size);
    return text;
  });
  return joinTexts(separator === undefined ? '' : toText(separator), texts);
}

/** A filter that looks only at the text of its value. */
function ofText(name: string, run: (text: string) => Value, type: 'text' | 'int' = 'text'): Routine {
  return routine(name, '', type, (self) => run(toText(self)));
}

export const textFilters: Routine[] = [
  ofText('upper', upper),
  ofText('lower', lower),
  ofText('capitalize', capitalize),
  ofText('title', title),
  ofText('string', (text) => text),
  ofText('escape', escapeHtml),
  ofText('safe', (text) => text),
  ofText('striptags', stripTags),
  ofText('wordcount', countWords, 'int'),
  routine('trim', 'chars?', 'text', (self, chars) => strip(toText(self), chars, true, true)),
  routine('center', 'width?', 'text', (self, width = 80) => center(toText(self), width)),
  routine('replace', 'old new count?', 'text', (self, old, fresh, count) =>
    replace(
      toText(self),
      toText(old!),
      toText(fresh!),
      count === undefined || count === null ? -1 : indexArgument(count, 'count'),
    ),
  ),
  routine('truncate', 'length? killwords? end? leeway?', 'text', truncate),
  routine('indent', 'width? first? blank?', 'text', indent),
  routine('wordwrap', 'width? break_long_words? wrapstring? break_on_hyphens?', 'text', wordWrap),
  routine('urlencode', '', 'text', urlEncode),
  routine('xmlattr', 'autospace?', 'text', xmlAttributes),
  variadicRoutine('format', 'text', format),
];
