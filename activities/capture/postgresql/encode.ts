/**
 * From PostgreSQL's text of a value to ClickHouse's TSV, byte by byte. ClickHouse wraps, truncates and clamps in
 * silence, so whatever it could alter is refused here, with a reason.
 */
import type { Column, Encoding, TableSchema } from '../../../model/table.ts';
import type { Block } from '../../load/block.ts';
import { encodeArray } from './array_text.ts';

/** Encodings as small integers, for the switch in the inner loop. */
const code = {
  plain: 0,
  text: 1,
  date: 2,
  timestamp: 3,
  timestamptz: 4,
  numeric: 5,
  bytea: 6,
  array: 7,
} as const satisfies Record<Encoding, number>;

const tab = 0x09;
const backslash = 0x5c;
const digit0 = 0x30;
const digit9 = 0x39;
const dash = 0x2d;

/** Second byte of the escape of a byte that TSV cannot hold as it is; 0 for those that it can. */
const escapes = new Uint8Array(256);
for (const [byte, letter] of [
  [0x00, '0'],
  [0x08, 'b'],
  [0x09, 't'],
  [0x0a, 'n'],
  [0x0c, 'f'],
  [0x0d, 'r'],
  [0x5c, '\\'],
] as const) {
  escapes[byte] = letter.charCodeAt(0);
}

/** A row cannot be stored exactly: it becomes a reject, and its neighbours go on. */
export class Unrepresentable {
  readonly column: string;
  readonly reason: string;
  constructor(column: string, reason: string) {
    this.column = column;
    this.reason = reason;
  }
}

/** Bytes that a row of `size` source bytes and `columns` columns can need at most, arrays aside. */
export function rowBound(size: number, columns: number): number {
  return size * 2 + columns * 3 + 128;
}

/** Copies bytes, short ones without the cost of a call. Returns the end. */
export function copyBytes(target: Buffer, at: number, source: Buffer, start: number, end: number): number {
  if (end - start > 48) {
    source.copy(target, at, start, end);
    return at + end - start;
  }
  for (let i = start; i < end; i++) target[at++] = source[i]!;
  return at;
}

/** Copies text, escaped for TSV. Returns the end. */
export function copyEscaped(target: Buffer, at: number, source: Buffer, start: number, end: number): number {
  for (let i = start; i < end; i++) {
    const byte = source[i]!;
    if (byte > backslash || escapes[byte] === 0) target[at++] = byte;
    else {
      target[at++] = backslash;
      target[at++] = escapes[byte]!;
    }
  }
  return at;
}

function hexDigit(byte: number): number {
  return byte <= digit9 ? byte - digit0 : (byte | 0x20) - 0x57;
}

/** Decodes hexadecimal digits to bytes, escaped for TSV. Returns the end. */
function copyHex(target: Buffer, at: number, source: Buffer, start: number, end: number): number {
  for (let i = start; i < end; i += 2) {
    const byte = (hexDigit(source[i]!) << 4) | hexDigit(source[i + 1]!);
    if (escapes[byte] === 0) target[at++] = byte;
    else {
      target[at++] = backslash;
      target[at++] = escapes[byte]!;
    }
  }
  return at;
}

function isDigit(byte: number | undefined): boolean {
  return byte !== undefined && byte >= digit0 && byte <= digit9;
}

/** The year of an ISO date with four digits, or -1 for anything else (infinity, BC, five digits). */
function plainYear(source: Buffer, start: number, end: number): number {
  if (end - start < 10 || source[start + 4] !== dash || source[end - 1] === 0x43 /* the C of BC */) return -1;
  let year = 0;
  for (let i = start; i < start + 4; i++) {
    if (!isDigit(source[i])) return -1;
    year = year * 10 + source[i]! - digit0;
  }
  return year;
}

/** Encodes the rows of one table. */
export class RowEncoder {
  readonly table: TableSchema;
  readonly #codes: Uint8Array;
  readonly #isKey: Uint8Array;
  readonly #isArray: Uint8Array;
  readonly hasArrays: boolean;
  #refused: Unrepresentable | undefined;

  constructor(table: TableSchema) {
    this.table = table;
    this.#codes = Uint8Array.from(table.columns, (column) => code[column.encoding]);
    this.#isKey = Uint8Array.from(table.columns, (column) => (column.key ? 1 : 0));
    this.#isArray = Uint8Array.from(table.columns, (column) => (column.clickhouse.startsWith('Array(') ? 1 : 0));
    this.hasArrays = this.#isArray.includes(1);
  }

  /** Why the last `value` or `missing` answered -1. */
  get refused(): Unrepresentable {
    return this.#refused!;
  }

  isKey(column: number): boolean {
    return this.#isKey[column] === 1;
  }

  /**
   * Writes one value and a tab behind it. `source[start, end)` is PostgreSQL's text, not escaped. Room must have been
   * reserved (arrays reserve their own). Returns false when the value cannot be stored exactly.
   */
  value(block: Block, column: number, source: Buffer, start: number, end: number): boolean {
    const encoding = this.#codes[column]!;
    if (encoding === code.array) return this.#array(block, column, source, start, end);
    const target = block.bytes;
    let at = block.length;
    if (encoding === code.text) at = copyEscaped(target, at, source, start, end);
    // bytea: \x and hexadecimal digits.
    else if (encoding === code.bytea) at = copyHex(target, at, source, start + 2, end);
    else {
      const stop = this.exactEnd(column, source, start, end);
      if (stop < 0) return false;
      at = copyBytes(target, at, source, start, stop);
    }
    target[at] = tab;
    block.length = at + 1;
    return true;
  }

  /** As `value`, of a text that stands alone, and with room for it. */
  text(block: Block, column: number, text: string): boolean {
    const bytes = Buffer.from(text);
    block.reserve(rowBound(bytes.length, 1));
    return this.value(block, column, bytes, 0, bytes.length);
  }

  /** True when a value's text stands in TSV as it does in COPY's lines, up to `exactEnd`. */
  isVerbatim(column: number): boolean {
    const encoding = this.#codes[column]!;
    return encoding !== code.array && encoding !== code.bytea;
  }

  /** True when every value of the column is stored as its text is, NULL too. */
  takesAny(column: number): boolean {
    const encoding = this.#codes[column]!;
    return (encoding === code.plain || encoding === code.text) && this.#isKey[column] === 0;
  }

  /** Up to where a value's text is stored, whose bytes stay as they are; -1 when it cannot be stored exactly. */
  exactEnd(column: number, source: Buffer, start: number, end: number): number {
    switch (this.#codes[column]) {
      case code.date: {
        const year = plainYear(source, start, end);
        if (year >= 1900 && year <= 2299) return end;
        return this.#refuseEnd(column, 'a date outside of 1900-01-01 … 2299-12-31');
      }
      case code.timestamp:
        if (plainYear(source, start, end) >= 1) return end;
        return this.#refuseEnd(column, 'a timestamp outside of the years 1 … 9999');
      case code.timestamptz: {
        // Sessions run in UTC, so the text always ends in +00; it is left out, since the column's zone is UTC too.
        const zone = end - 3;
        const inUtc = source[zone] === 0x2b && source[zone + 1] === digit0 && source[zone + 2] === digit0;
        if (inUtc && plainYear(source, start, zone) >= 1) return zone;
        return this.#refuseEnd(column, 'a timestamp outside of the years 1 … 9999');
      }
      case code.numeric:
        return isDigit(source[end - 1]) ? end : this.#refuseEnd(column, 'NaN or an infinity in a numeric column');
      default:
        return end;
    }
  }

  /** Writes a NULL. Returns false where the copy cannot hold one. */
  missing(block: Block, column: number): boolean {
    if (this.#isKey[column] === 1) return this.#refuse(column, 'NULL in a key column');
    if (this.#isArray[column] === 1) return this.#refuse(column, 'NULL in an array column that was NOT NULL');
    this.#nothing(block);
    return true;
  }

  /** Writes what stands for a column in a tombstone, where only the key counts. */
  absent(block: Block, column: number): void {
    if (this.#isArray[column] === 0) return this.#nothing(block);
    block.bytes[block.length++] = 0x5b;
    block.bytes[block.length++] = 0x5d;
    block.bytes[block.length++] = tab;
  }

  #nothing(block: Block): void {
    block.bytes[block.length++] = backslash;
    block.bytes[block.length++] = 0x4e;
    block.bytes[block.length++] = tab;
  }

  #array(block: Block, column: number, source: Buffer, start: number, end: number): boolean {
    const definition = this.table.columns[column] as Column;
    const refused = encodeArray(block, definition, source, start, end);
    if (refused !== undefined) return this.#refuse(column, refused);
    return true;
  }

  #refuse(column: number, reason: string): false {
    this.#refused = new Unrepresentable(this.table.columns[column]!.name, reason);
    return false;
  }

  #refuseEnd(column: number, reason: string): -1 {
    this.#refuse(column, reason);
    return -1;
  }
}
