/** PostgreSQL's text of a one-dimensional array, e.g. `{1,NULL,"a \"b\""}`, as ClickHouse's in TSV: `[1,NULL,'a "b"']`. */
import type { Column, Encoding } from '../../../model/table.ts';
import type { Block } from '../../load/block.ts';

const comma = 0x2c;
const quote = 0x22;
const backslash = 0x5c;
const close = 0x7d;

/** Encodings whose elements stand without quotes in ClickHouse's text. */
const bare = new Set<Encoding>(['plain', 'numeric']);

/**
 * Writes the array and a tab behind it; reserves its own room beside that of the row's rest. Returns a reason when the copy cannot hold the value:
 * several dimensions, bounds that do not begin at 1, elements out of range.
 */
export function encodeArray(
  block: Block,
  column: Column,
  source: Buffer,
  start: number,
  end: number,
): string | undefined {
  if (source[start] !== 0x7b) return 'an array whose lower bound is not 1';
  const parts: Buffer[] = [];
  let at = start + 1;
  while (source[at] !== close) {
    if (source[at] === 0x7b) return 'an array of several dimensions';
    const quoted = source[at] === quote;
    const element: number[] = [];
    if (quoted) {
      for (at++; source[at] !== quote; at++) {
        if (source[at] === backslash) at++;
        element.push(source[at]!);
      }
      at++;
    } else {
      for (; source[at] !== comma && source[at] !== close; at++) element.push(source[at]!);
    }
    const refused = pushElement(parts, column, Buffer.from(element), quoted);
    if (refused !== undefined) return refused;
    if (source[at] === comma) at++;
    if (at >= end) return 'an array that does not end';
  }
  const text = Buffer.concat(parts);
  block.reserve(text.length + 16 + block.room);
  block.bytes[block.length++] = 0x5b;
  // ClickHouse reads an array's text from TSV as it stands there, unescaped only once: by its own string literals.
  text.copy(block.bytes, block.length);
  block.length += text.length;
  block.bytes[block.length++] = 0x5d;
  block.bytes[block.length++] = 0x09;
  return undefined;
}

const separator = Buffer.from(',');
const nothing = Buffer.from('NULL');

function pushElement(parts: Buffer[], column: Column, element: Buffer, quoted: boolean): string | undefined {
  if (parts.length > 0) parts.push(separator);
  const text = element.toString('latin1');
  if (!quoted && text.toUpperCase() === 'NULL') {
    parts.push(nothing);
    return undefined;
  }
  const encoding = column.element ?? 'text';
  if (encoding === 'numeric' && !/\d$/.test(text)) return 'NaN or an infinity in a numeric array';
  if (encoding === 'date' && !/^(19|2[0-2])\d\d-\d\d-\d\d$/.test(text))
    return 'a date outside of 1900-01-01 … 2299-12-31 in an array';
  if (encoding.startsWith('timestamp') && !/^(?!0000)\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?(\+00)?$/.test(text))
    return 'a timestamp outside of the years 1 … 9999 in an array';
  if (column.clickhouse.includes('Bool')) parts.push(Buffer.from(text === 't' ? 'true' : 'false'));
  else if (bare.has(encoding) && !column.clickhouse.includes('UUID')) parts.push(element);
  else if (encoding === 'timestamptz') parts.push(quoteElement(element.subarray(0, element.length - 3)));
  else if (encoding === 'bytea') parts.push(quoteElement(Buffer.from(text.slice(2), 'hex')));
  else parts.push(quoteElement(element));
  return undefined;
}

/** In a string literal of ClickHouse, with what would end a field or a line of TSV. */
const escapes: Record<string, string> = {
  '\0': '\\0',
  '\b': '\\b',
  '\t': '\\t',
  '\n': '\\n',
  '\f': '\\f',
  '\r': '\\r',
  "'": "\\'",
  '\\': '\\\\',
};

/** A string literal inside of ClickHouse's array text. */
function quoteElement(element: Buffer): Buffer {
  const text = element.toString('latin1').replace(/[\0\b\t\n\f\r'\\]/g, (byte) => escapes[byte]!);
  return Buffer.from(`'${text}'`, 'latin1');
}
