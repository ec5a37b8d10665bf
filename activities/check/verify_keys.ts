/**
 * Keys as texts that both databases say alike, so that a row found in one is looked up in the other: numbers, dates and
 * the like in plain text, strings and bytes in hexadecimal, so that also a damaged string finds its way.
 */
import { SluiceError } from '../../model/errors.ts';
import type { Column } from '../../model/table.ts';
import { quoteText as quoteSourceText } from '../capture/postgresql/connection.ts';
import { quoteText as quoteCopyText } from '../load/clickhouse.ts';
import { bareType } from '../transform/clickhouse_types.ts';
import { sourceExpression } from './verify_values.ts';

/** Texts of the key's columns, in their order. */
export type Key = string[];

export type KeyKind = 'integer' | 'decimal' | 'float' | 'timestamp' | 'string' | 'bytes' | 'other';

export function keyKind(column: Column): KeyKind {
  const type = bareType(column.clickhouse);
  if (type === 'String') return column.encoding === 'bytea' ? 'bytes' : 'string';
  if (/^U?Int(8|16|32|64)$/.test(type)) return 'integer';
  if (type.startsWith('Decimal(')) return 'decimal';
  if (/^Float(32|64)$/.test(type)) return 'float';
  if (type.startsWith('DateTime64(')) return 'timestamp';
  if (type === 'Bool' || type === 'UUID' || type === 'Date32') return 'other';
  throw new SluiceError(
    'table_unusable',
    `the key column ${column.name} is copied as ${column.clickhouse}, which cannot be looked up`,
    'Report it with the column’s type in the source.',
  );
}

/** PostgreSQL: the text of a key's column. */
export function sourceKeyText(column: Column, x: string): string {
  switch (keyKind(column)) {
    case 'bytes':
      return `encode(${x}, 'hex')`;
    case 'string':
      return `encode(convert_to(${sourceExpression(column, x)}, 'UTF8'), 'hex')`;
    case 'decimal':
      return `trim_scale(${x})::pg_catalog.text`;
    case 'timestamp':
      return `${x}::pg_catalog.timestamp::pg_catalog.text`;
    default:
      return `${x}::pg_catalog.text`;
  }
}

/** ClickHouse: the same text. */
export function copyKeyText(column: Column, x: string): string {
  switch (keyKind(column)) {
    case 'bytes':
    case 'string':
      return `lower(hex(toString(${x})))`;
    case 'timestamp':
      // PostgreSQL prints no zeros at the end of a fraction.
      return `replaceRegexpOne(toString(${x}), '\\\\.?0*$', '')`;
    default:
      return `toString(${x})`;
  }
}

/** One name for one key: floats are printed differently by the two. */
export function readKeyText(column: Column, said: string): string {
  if (keyKind(column) !== 'float') return said;
  return String(Number(said.replace(/^(-?)inf$/, '$1Infinity')));
}

/** A key's column as PostgreSQL prints it, e.g. in a reject, as the text that is used here. */
export function keyTextOfOutput(column: Column, output: string): string {
  switch (keyKind(column)) {
    case 'bytes':
      return output.replace(/^\\x/, '');
    case 'string':
      return Buffer.from(output).toString('hex');
    case 'decimal':
      return output.includes('.') ? output.replace(/\.?0+$/, '') : output;
    case 'timestamp':
      return output.replace(/\+00$/, '');
    default:
      if (bareType(column.clickhouse) === 'Bool') return output === 't' ? 'true' : 'false';
      return readKeyText(column, output);
  }
}

/** A literal of the column's type for PostgreSQL, or undefined when no value of PostgreSQL has this text. */
export function sourceLiteral(column: Column, text: string): string | undefined {
  const kind = keyKind(column);
  if (kind === 'bytes') return `decode('${text}', 'hex')`;
  if (kind !== 'string') return `${quoteSourceText(text)}::${column.type}`;
  const decoded = decodeText(text);
  return decoded === undefined || decoded.includes('\0') ? undefined : `${quoteSourceText(decoded)}::${column.type}`;
}

/** A literal of the column's type for ClickHouse. */
export function copyLiteral(column: Column, text: string): string {
  const kind = keyKind(column);
  if (kind === 'bytes' || kind === 'string') return `unhex('${text}')`;
  return `CAST(${quoteCopyText(text)}, ${quoteCopyText(bareType(column.clickhouse))})`;
}

/** A key as people read it, by column: whole numbers that JSON holds exactly as numbers, other values as texts. */
export function showKey(columns: Column[], key: Key): Record<string, string | number | boolean> {
  return Object.fromEntries(columns.map((column, index) => [column.name, showText(column, key[index] ?? '')]));
}

function showText(column: Column, text: string): string | number | boolean {
  const kind = keyKind(column);
  if (kind === 'bytes') return `\\x${text}`;
  if (kind === 'string') return Buffer.from(text, 'hex').toString('utf8');
  if (kind === 'integer' && Number.isSafeInteger(Number(text))) return Number(text);
  if (bareType(column.clickhouse) === 'Bool') return text === 'true';
  return text;
}

function decodeText(hex: string): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(Buffer.from(hex, 'hex'));
  } catch {
    return undefined;
  }
}
