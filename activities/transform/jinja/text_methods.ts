/** The methods of Python's str. */
import { formatBraces } from './brace_format.ts';
import { claimScan, claimSearch, claimText, failure, made, spend } from './limits.ts';
import { elements } from './operators.ts';
import {
  type Argument,
  indexArgument,
  type Routine,
  routine,
  routines,
  textArgument,
  variadicRoutine,
} from './routine.ts';
import { sliceBounds } from './slices.ts';
import { characterIndex, characters, isPlain, textLength, unitOffset } from './text.ts';
import {
  caseFold,
  identifier,
  notPrintable,
  onlyDecimals,
  onlyDigits,
  onlyLetters,
  onlyLettersAndNumbers,
  onlyNumeric,
  onlySpace,
  spaceAtStart,
  spaceRun,
  titleCase,
} from './unicode.ts';
import { Dict, Tuple, typeName, type Value } from './values.ts';

// ---- case

export function upper(text: string): string {
  return text.length > 256 ? made(text.toUpperCase()) : text.toUpperCase();
}

export function lower(text: string): string {
  return text.length > 256 ? made(text.toLowerCase()) : text.toLowerCase();
}

export function capitalize(text: string): string {
  if (text === '') return '';
  const first = text.slice(0, unitOffset(text, 1));
  // Lowered as a whole: what a letter becomes may depend on its neighbours.
  return made(titleCase(first) + lower(text).slice(first.toLowerCase().length));
}

function title(text: string): string {
  claimScan(text.length);
  const titled = text.replace(/(\p{Cased})(\p{Cased}*)/gu, (word, first: string, rest: string) =>
    rest === '' ? titleCase(first) : titleCase(first) + word.toLowerCase().slice(first.toLowerCase().length),
  );
  return made(titled);
}

function swapCase(text: string): string {
  claimScan(text.length * 2);
  return made(
    text.replace(/\p{Uppercase}|\p{Lowercase}/gu, (letter) =>
      /\p{Uppercase}/u.test(letter) ? letter.toLowerCase() : letter.toUpperCase(),
    ),
  );
}

// ---- what a text is

export function isLower(text: string): boolean {
  claimScan(text.length);
  return /\p{Lowercase}/u.test(text) && !/[\p{Uppercase}\p{Lt}]/u.test(text);
}

export function isUpper(text: string): boolean {
  claimScan(text.length);
  return /\p{Uppercase}/u.test(text) && !/[\p{Lowercase}\p{Lt}]/u.test(text);
}

function isTitle(text: string): boolean {
  let cased = false;
  let inWord = false;
  for (const letter of characters(text)) {
    if (/[\p{Uppercase}\p{Lt}]/u.test(letter)) {
      if (inWord) return false;
      inWord = true;
    } else if (/\p{Lowercase}/u.test(letter)) {
      if (!inWord) return false;
    } else {
      inWord = false;
      continue;
    }
    cased = true;
  }
  return cased;
}

function isPrintable(text: string): boolean {
  claimScan(text.length);
  notPrintable.lastIndex = 0;
  return !notPrintable.test(text);
}

function matching(name: string, pattern: RegExp): Routine {
  return routine(name, '/', 'bool', (self) => {
    claimScan((self as string).length);
    return pattern.test(self as string);
  });
}

// ---- ends

/** Without these characters, or white space, at its ends. */
export function strip(text: string, chars: Argument, start: boolean, end: boolean): string {
  claimScan(text.length);
  if (chars === undefined || chars === null) {
    let result = text;
    if (start) result = result.replace(spaceAtStart, '');
    return end ? trimEnd(result) : result;
  }
  const set = new Set(characters(textArgument(chars, 'chars')));
  const list = characters(text);
  let from = 0;
  let to = list.length;
  if (start) while (from < to && set.has(list[from]!)) from++;
  if (end) while (to > from && set.has(list[to - 1]!)) to--;
  return from === 0 && to === list.length ? text : list.slice(from, to).join('');
}

/** A pattern that looks for the end of the text would take quadratic time on much white space inside. */
function trimEnd(text: string): string {
  let end = text.length;
  while (end > 0 && onlySpace.test(text[end - 1]!)) end--;
  return end === text.length ? text : text.slice(0, end);
}

function pad(text: string, width: Argument, fill: Argument, side: 'left' | 'right' | 'both'): string {
  const room = indexArgument(width, 'width');
  const filler = fill === undefined ? ' ' : textArgument(fill, 'fillchar');
  if (textLength(filler) !== 1) throw failure('the fill of a text must be one character');
  const missing = room - textLength(text);
  if (missing <= 0) return text;
  claimText(room * filler.length);
  if (side === 'right') return text + filler.repeat(missing);
  if (side === 'left') return filler.repeat(missing) + text;
  const before = Math.floor(missing / 2) + (missing % 2 === 1 && room % 2 === 1 ? 1 : 0);
  return filler.repeat(before) + text + filler.repeat(missing - before);
}

export function center(text: string, width: Argument): string {
  return pad(text, width, undefined, 'both');
}

function zeroFill(text: string, width: Argument): string {
  const room = indexArgument(width, 'width');
  const missing = room - textLength(text);
  if (missing <= 0) return text;
  claimText(room);
  const sign = text.startsWith('-') || text.startsWith('+') ? text[0]! : '';
  return sign + '0'.repeat(missing) + text.slice(sign.length);
}

function expandTabs(text: string, size: Argument): string {
  const width = size === undefined ? 8 : indexArgument(size, 'tabsize');
  claimScan(text.length);
  claimText(text.length * Math.max(1, Math.min(width, 1e9)));
  let column = 0;
  return text.replace(/\t|\r|\n|[^\t\r\n]+/g, (part) => {
    if (part === '\t') {
      const spaces = width > 0 ? width - (column % width) : 0;
      column += spaces;
      return ' '.repeat(spaces);
    }
    column = part === '\r' || part === '\n' ? 0 : column + textLength(part);
    return part;
  });
}

// ---- parts

/** The text between separators; white space when there is none. `most`: how many splits at most, below zero any. */
export function split(text: string, separator: Argument, maxsplit: Argument): string[] {
  const most = maxsplit === undefined ? -1 : indexArgument(maxsplit, 'maxsplit');
  if (separator === undefined || separator === null) return splitAtSpace(text, most);
  const sign = textArgument(separator, 'sep');
  if (sign === '') throw failure('a text cannot be split at nothing');
  claimSearch(text.length, sign.length);
  const parts = text.split(sign);
  spend(parts.length);
  if (most < 0 || parts.length <= most + 1) return parts;
  return [...parts.slice(0, most), parts.slice(most).join(sign)];
}

function splitAtSpace(text: string, most: number): string[] {
  claimScan(text.length);
  const parts: string[] = [];
  let at = spaceAtStart.exec(text)?.[0].length ?? 0;
  for (const space of text.matchAll(spaceRun)) {
    if (space.index < at) continue;
    if (parts.length === most) break;
    parts.push(text.slice(at, space.index));
    at = space.index + space[0].length;
  }
  spend(parts.length);
  if (at < text.length) parts.push(text.slice(at));
  return parts;
}

function splitFromEnd(text: string, separator: Argument, maxsplit: Argument): string[] {
  const most = maxsplit === undefined ? -1 : indexArgument(maxsplit, 'maxsplit');
  if (separator === undefined || separator === null) return splitAtSpaceFromEnd(text, most);
  const sign = textArgument(separator, 'sep');
  if (sign === '') throw failure('a text cannot be split at nothing');
  claimSearch(text.length, sign.length);
  const parts: string[] = [];
  let end = text.length;
  while (parts.length !== most) {
    // Before the start there is nothing, which lastIndexOf would take for the start.
    const at = end < sign.length ? -1 : text.lastIndexOf(sign, end - sign.length);
    if (at < 0) break;
    parts.push(text.slice(at + sign.length, end));
    end = at;
  }
  spend(parts.length);
  parts.push(text.slice(0, end));
  return parts.reverse();
}

function splitAtSpaceFromEnd(text: string, most: number): string[] {
  claimScan(text.length);
  const parts: string[] = [];
  let end = trimEnd(text).length;
  const spaces = [...text.slice(0, end).matchAll(spaceRun)].reverse();
  spend(spaces.length);
  for (const space of spaces) {
    if (parts.length === most) break;
    parts.push(text.slice(space.index + space[0].length, end));
    end = space.index;
  }
  if (end > 0) parts.push(text.slice(0, end));
  return parts.reverse().filter((part) => part !== '');
}

const lineEnd = /\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]/g;

/** The lines of a text, without their ends or with them. */
export function splitLines(text: string, keep: boolean): string[] {
  claimScan(text.length);
  const lines: string[] = [];
  let at = 0;
  for (const end of text.matchAll(lineEnd)) {
    lines.push(text.slice(at, keep ? end.index + end[0].length : end.index));
    at = end.index + end[0].length;
  }
  spend(lines.length);
  if (at < text.length) lines.push(text.slice(at));
  return lines;
}

function partition(text: string, separator: Argument, last: boolean): Tuple {
  const sign = textArgument(separator, 'sep');
  if (sign === '') throw failure('a text cannot be split at nothing');
  claimSearch(text.length, sign.length);
  const at = last ? text.lastIndexOf(sign) : text.indexOf(sign);
  if (at < 0) return new Tuple(last ? ['', '', text] : [text, '', '']);
  return new Tuple([text.slice(0, at), sign, text.slice(at + sign.length)]);
}

/** Texts with a separator between them. */
export function joinTexts(separator: string, texts: readonly string[]): string {
  let size = separator.length * Math.max(0, texts.length - 1);
  for (const text of texts) size += text.length;
  claimText(size);
  return texts.join(separator);
}

function join(separator: string, iterable: Argument): string {
  const items = elements(iterable!);
  spend(items.length);
  for (const item of items) {
    if (typeof item !== 'string') throw failure(`join wants texts only, not ${typeName(item)}`);
  }
  return joinTexts(separator, items as string[]);
}

// ---- search

/** Units where a search begins and ends, by optional character numbers. */
function searchRange(text: string, start: Argument, end: Argument): [number, number] | undefined {
  if (start === undefined && end === undefined) return [0, text.length];
  const length = textLength(text);
  const [from, to] = sliceBounds(length, start ?? null, end ?? null);
  // From beyond the end nothing is found, not even the empty text.
  if (from > to || (typeof start === 'number' && start > length)) return undefined;
  if (isPlain(text)) return [from, to];
  const first = unitOffset(text, from);
  return [first, unitOffset(text, to - from, first)];
}

function find(text: string, sub: Argument, start: Argument, end: Argument, last: boolean): number {
  const wanted = textArgument(sub, 'sub');
  claimSearch(text.length, wanted.length);
  const range = searchRange(text, start, end);
  if (range === undefined) return -1;
  const [from, to] = range;
  const part = text.slice(from, to);
  const found = last ? part.lastIndexOf(wanted) : part.indexOf(wanted);
  return found < 0 ? -1 : characterIndex(text, from + found);
}

function index(text: string, sub: Argument, start: Argument, end: Argument, last: boolean): number {
  const found = find(text, sub, start, end, last);
  if (found < 0) throw failure('the text is not found');
  return found;
}

function count(text: string, sub: Argument, start: Argument, end: Argument): number {
  const wanted = textArgument(sub, 'sub');
  const range = searchRange(text, start, end);
  if (range === undefined) return 0;
  return occurrences(text.slice(...range), wanted);
}

function occurrences(text: string, wanted: string): number {
  claimSearch(text.length, wanted.length);
  if (wanted === '') return textLength(text) + 1;
  let found = 0;
  for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + wanted.length)) found++;
  return found;
}

function hasEnd(text: string, wanted: Argument, start: Argument, end: Argument, atStart: boolean): boolean {
  const candidates = wanted instanceof Tuple ? wanted.items : [wanted];
  spend(candidates.length);
  const texts = candidates.map((candidate) => textArgument(candidate, atStart ? 'prefix' : 'suffix'));
  const range = searchRange(text, start, end);
  if (range === undefined) return false;
  const part = start === undefined && end === undefined ? text : text.slice(...range);
  return texts.some((candidate) => hasTextAt(part, candidate, atStart));
}

function hasTextAt(text: string, wanted: string, atStart: boolean): boolean {
  if (wanted.length > text.length) return false;
  claimScan(wanted.length);
  return atStart ? text.startsWith(wanted) : text.endsWith(wanted);
}

/** All occurrences replaced, or the first `most` of them. */
export function replace(text: string, old: string, fresh: string, most: number): string {
  if (most === 0) return text;
  const found = occurrences(text, old);
  const times = most < 0 ? found : Math.min(found, most);
  if (times === 0) return text;
  claimText(text.length + times * (fresh.length - old.length));
  if (old === '') return insertBetween(text, fresh, times);
  const parts = text.split(old);
  if (times === found) return parts.join(fresh);
  return [parts.slice(0, times + 1).join(fresh), ...parts.slice(times + 1)].join(old);
}

/** Python finds nothing before each character and at the end. */
function insertBetween(text: string, fresh: string, times: number): string {
  const list = characters(text);
  let result = '';
  for (let i = 0; i < list.length; i++) result += (i < times ? fresh : '') + list[i];
  return result + (times > list.length ? fresh : '');
}

function removeEnd(text: string, end: Argument, atStart: boolean): string {
  const wanted = textArgument(end, atStart ? 'prefix' : 'suffix');
  if (wanted === '' || !hasTextAt(text, wanted, atStart)) return text;
  return atStart ? text.slice(wanted.length) : text.slice(0, -wanted.length);
}

function formatMap(text: string, mapping: Argument): string {
  if (!(mapping instanceof Dict)) throw failure('format_map wants a dict');
  spend(mapping.size);
  const named = new Map(mapping.entries().flatMap(([key, value]) => (typeof key === 'string' ? [[key, value]] : [])));
  return formatBraces(text, [], named as Map<string, Value>);
}

/** A method whose value is known to be a text. */
function method(
  name: string,
  signature: string,
  type: 'text' | 'list' | 'tuple' | 'int' | 'bool',
  run: (text: string, a: Argument, b: Argument, c: Argument) => Value,
): Routine {
  return routine(name, signature, type, (self, a, b, c) => run(self as string, a, b, c));
}

export const textMethods = routines([
  method('upper', '/', 'text', upper),
  method('lower', '/', 'text', lower),
  method('capitalize', '/', 'text', capitalize),
  method('casefold', '/', 'text', (text) => {
    claimScan(text.length);
    return made(caseFold(text));
  }),
  method('title', '/', 'text', title),
  method('swapcase', '/', 'text', swapCase),
  matching('isalnum', onlyLettersAndNumbers),
  matching('isalpha', onlyLetters),
  matching('isascii', /^[\x00-\x7f]*$/),
  matching('isdecimal', onlyDecimals),
  matching('isdigit', onlyDigits),
  matching('isidentifier', identifier),
  matching('isnumeric', onlyNumeric),
  matching('isspace', onlySpace),
  method('islower', '/', 'bool', isLower),
  method('isupper', '/', 'bool', isUpper),
  method('istitle', '/', 'bool', isTitle),
  method('isprintable', '/', 'bool', isPrintable),
  method('strip', '/ chars?', 'text', (text, chars) => strip(text, chars, true, true)),
  method('lstrip', '/ chars?', 'text', (text, chars) => strip(text, chars, true, false)),
  method('rstrip', '/ chars?', 'text', (text, chars) => strip(text, chars, false, true)),
  method('center', '/ width fillchar?', 'text', (text, width, fill) => pad(text, width, fill, 'both')),
  method('ljust', '/ width fillchar?', 'text', (text, width, fill) => pad(text, width, fill, 'right')),
  method('rjust', '/ width fillchar?', 'text', (text, width, fill) => pad(text, width, fill, 'left')),
  method('zfill', '/ width', 'text', zeroFill),
  method('expandtabs', 'tabsize?', 'text', expandTabs),
  method('split', 'sep? maxsplit?', 'list', split),
  method('rsplit', 'sep? maxsplit?', 'list', splitFromEnd),
  method('splitlines', 'keepends?', 'list', (text, keep) =>
    splitLines(text, keep !== undefined && indexArgument(keep, 'keepends') !== 0),
  ),
  method('partition', '/ sep', 'tuple', (text, separator) => partition(text, separator, false)),
  method('rpartition', '/ sep', 'tuple', (text, separator) => partition(text, separator, true)),
  method('join', '/ iterable', 'text', join),
  method('find', '/ sub start? end?', 'int', (text, sub, start, end) => find(text, sub, start, end, false)),
  method('rfind', '/ sub start? end?', 'int', (text, sub, start, end) => find(text, sub, start, end, true)),
  method('index', '/ sub start? end?', 'int', (text, sub, start, end) => index(text, sub, start, end, false)),
  method('rindex', '/ sub start? end?', 'int', (text, sub, start, end) => index(text, sub, start, end, true)),
  method('count', '/ sub start? end?', 'int', count),
  method('startswith', '/ prefix start? end?', 'bool', (text, prefix, start, end) =>
    hasEnd(text, prefix, start, end, true),
  ),
  method('endswith', '/ suffix start? end?', 'bool', (text, suffix, start, end) =>
    hasEnd(text, suffix, start, end, false),
  ),
  method('replace', '/ old new count?', 'text', (text, old, fresh, most) =>
    replace(
      text,
      textArgument(old, 'old'),
      textArgument(fresh, 'new'),
      most === undefined ? -1 : indexArgument(most, 'count'),
    ),
  ),
  method('removeprefix', '/ prefix', 'text', (text, prefix) => removeEnd(text, prefix, true)),
  method('removesuffix', '/ suffix', 'text', (text, suffix) => removeEnd(text, suffix, false)),
  variadicRoutine('format', 'text', (self, positional, named) => formatBraces(self as string, positional, named)),
  method('format_map', '/ mapping', 'text', formatMap),
]);
