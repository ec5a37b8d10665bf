/** An asset as one row of a CSV file, and what a row must be to enter the copy. */
import { formatInstant, parseInstant } from '../../model/instant.ts';
import type { Found } from './asset_walk.ts';

/** Columns of the files, in order: the asset's, and the version of its row in the copy, so that a file can be loaded again at any time. */
export const csvColumns = ['id', 'name', 'kind', 'value', 'updated_at', 'deleted', '_version'] as const;

/** Texts of a row, in the order of `csvColumns`; null is no value. */
export type Fields = (string | null)[];

/** Whole digits and decimals that a value of the copy has: its type is Decimal(38, 10). */
const wholeDigits = 28;
const decimals = 10;

/** The texts of an asset: exact, and alike for alike assets. What cannot be right is kept as it is, for the reject. */
export function fieldsOf({ item, at }: Found, version: bigint): Fields {
  const updated = at === undefined ? textOf(item.updated_at) : formatInstant(at);
  const value = plainNumber(textOf(item.value));
  const deleted = flagOf(item.deleted);
  // Whatever is left of an asset that is gone: it must leave the copy.
  const kept = deleted === '1' && value !== null && !fits(value) ? null : value;
  return [textOf(item.id), textOf(item.name), textOf(item.kind), kept, updated, deleted, String(version)];
}

function textOf(value: unknown): string | null {
  if (value === null || value === undefined) return null;
  if (typeof value !== 'string') return typeof value === 'object' ? JSON.stringify(value) : String(value);
  // Half of a surrogate pair has no bytes in UTF-8: its escape says what it was.
  return value.isWellFormed() ? value : JSON.stringify(value).slice(1, -1);
}

/** As ClickHouse has it: 1 or 0. */
function flagOf(value: unknown): string | null {
  if (value === null || value === false) return '0';
  return value === true ? '1' : textOf(value);
}

/** A number without exponent and without zeros at its end; any other text as it is. */
function plainNumber(text: string | null): string | null {
  const [, sign, whole = '', fraction = '', exponent = '0'] =
    /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,4}))?$/.exec(text ?? '') ?? [];
  if (sign === undefined || Math.abs(Number(exponent)) > 100) return text;
  const digits = whole + fraction;
  const point = whole.length + Number(exponent);
  const padded = point < 0 ? '0'.repeat(-point) + digits : digits.padEnd(point, '0');
  const cut = Math.max(0, point);
  const before = padded.slice(0, cut).replace(/^0+(?=\d)/, '') || '0';
  const after = padded.slice(cut).replace(/0+$/, '');
  const number = after === '' ? before : `${before}.${after}`;
  return /[1-9]/.test(number) ? sign + number : '0';
}

/** Why a row cannot enter the copy, and the column; undefined when it can. */
export function findFault(fields: Fields): { column: string; reason: string } | undefined {
  const [id, , , value, updated, deleted] = fields;
  const columns = csvColumns.length;
  if (fields.length !== columns)
    return { column: '', reason: `it has ${fields.length} fields, and ${columns} are needed` };
  if (!id) return { column: 'id', reason: 'the id is missing' };
  const at = parseInstant(updated ?? '');
  if (at === undefined) return { column: 'updated_at', reason: 'updated_at is no instant with a zone' };
  if (at < 0n || at >= latest) return { column: 'updated_at', reason: 'updated_at is not between 1970 and 2262' };
  if (value !== null && !fits(value ?? '')) return { column: 'value', reason: valueReason };
  if (deleted !== '1' && deleted !== '0') return { column: 'deleted', reason: 'deleted is not true or false' };
  if (!/^\d{1,39}$/.test(fields[6] ?? '')) return { column: '_version', reason: 'the version is no number' };
  return undefined;
}

/** What DateTime64(9) holds. */
const latest = 9_214_646_400_000_000_000n;
const valueReason = `value is no number of up to ${wholeDigits} digits with up to ${decimals} decimals`;

function fits(value: string): boolean {
  const [, whole, fraction = ''] = /^-?(\d+)(?:\.(\d+))?$/.exec(value) ?? [];
  return whole !== undefined && whole.length <= wholeDigits && fraction.length <= decimals;
}

/** A line of CSV: texts are quoted always, so that an empty one is no missing one, and `\N` is only NULL. */
export function csvLine(fields: Fields): string {
  const [id, name, kind, value, updated, deleted, version] = fields;
  const plain = value && /^-?[\d.]+$/.test(value) ? value : quoted(value);
  const flag = deleted === '1' || deleted === '0' ? deleted : quoted(deleted);
  return `${quoted(id)},${quoted(name)},${quoted(kind)},${plain},${quoted(updated)},${flag},${version}\n`;
}

function quoted(text: string | null | undefined): string {
  return text === null || text === undefined ? '\\N' : `"${text.replaceAll('"', '""')}"`;
}
