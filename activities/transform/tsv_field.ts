/**
 * From a field of TSV, as rows stand in blocks, to the value that expressions compute with, and back to the source's own
 * text. Rows are looked at here when all their values are known, also those that the source did not send.
 */
import type { Column } from '../../model/table.ts';
import { unescapeBytes } from '../load/tsv.ts';
import { type Decoder, decoderFor } from './decode.ts';
import { failure } from './jinja/limits.ts';
import type { Value } from './jinja/values.ts';

/** What of a column says how its fields are read. */
type Typed = Pick<Column, 'type' | 'encoding' | 'element'>;

const backslash = 0x5c;
const letterN = 0x4e;

/** True for the field of a NULL. */
export function isNull(bytes: Buffer, start: number, end: number): boolean {
  return end - start === 2 && bytes[start] === backslash && bytes[start + 1] === letterN;
}

/** Decodes a field that is not NULL. Throws EvaluationError for what is no value of the column's type. */
export function fieldDecoder(column: Typed): Decoder {
  if (column.encoding === 'bytea') return hexText;
  if (column.encoding === 'array') return arrayDecoder(column);
  const decode = decoderFor(column.type);
  // Numbers, dates and truth values hold no backslash; of other fields most hold none.
  return (bytes, start, end) => {
    if (!holdsBackslash(bytes, start, end)) return decode(bytes, start, end);
    const plain = unescapeBytes(bytes, start, end);
    return decode(plain, 0, plain.length);
  };
}

function holdsBackslash(bytes: Buffer, start: number, end: number): boolean {
  for (let at = start; at < end; at++) if (bytes[at] === backslash) return true;
  return false;
}

/** Bytes are what PostgreSQL prints of them. */
function hexText(bytes: Buffer, start: number, end: number): Value {
  return `\\x${unescapeBytes(bytes, start, end).toString('hex')}`;
}

/** An item of an array as it stands in the field: its text and whether it is NULL. */
type Item = { text: Buffer; isNull: boolean };

/** ClickHouse's text of an array of one dimension: `[1,NULL]`, `['a','b\'c']`. */
function items(bytes: Buffer, start: number, end: number): Item[] {
  const found: Item[] = [];
  let at = start + 1;
  if (bytes[start] !== 0x5b || bytes[end - 1] !== 0x5d) throw failure('the text is no array');
  while (at < end - 1) {
    const quoted = bytes[at] === 0x27;
    const from = quoted ? at + 1 : at;
    let to = from;
    while (to < end - 1 && bytes[to] !== (quoted ? 0x27 : 0x2c)) to += bytes[to] === backslash ? 2 : 1;
    const text = unescapeBytes(bytes, from, to);
    found.push({ text, isNull: !quoted && text.toString('latin1') === 'NULL' });
    at = to + (quoted ? 2 : 1);
  }
  return found;
}

function arrayDecoder(column: Typed): Decoder {
  const element = decoderFor(column.type.replace(/\[\]$/, ''));
  const decode = column.element === 'bytea' ? hexOfPlain : element;
  return (bytes, start, end) =>
    items(bytes, start, end).map(({ text, isNull }) => (isNull ? null : decode(text, 0, text.length)));
}

function hexOfPlain(bytes: Buffer, start: number, end: number): Value {
  return `\\x${bytes.toString('hex', start, end)}`;
}

/** A field as the source's own text of the value; null for NULL. */
export function sourceTextOf(column: Column, bytes: Buffer, start: number, end: number): string | null {
  if (isNull(bytes, start, end)) return null;
  if (column.encoding === 'bytea') return hexText(bytes, start, end) as string;
  if (column.encoding === 'array') return arrayText(column, items(bytes, start, end));
  return zoned(column.encoding, unescapeBytes(bytes, start, end).toString('utf8'));
}

function arrayText({ element, clickhouse }: Column, all: Item[]): string {
  const isBool = clickhouse.includes('Bool');
  const texts = all.map(({ text, isNull: none }) => {
    if (none) return 'NULL';
    if (isBool) return text.toString('latin1', 0, 1);
    const plain = element === 'bytea' ? `\\x${text.toString('hex')}` : zoned(element, text.toString('utf8'));
    return `"${plain.replace(/["\\]/g, '\\$&')}"`;
  });
  return `{${texts.join(',')}}`;
}

/** Copies hold moments without their zone, which is always UTC. */
function zoned(encoding: Column['element'] | Column['encoding'], text: string): string {
  return encoding === 'timestamptz' ? `${text}+00` : text;
}
