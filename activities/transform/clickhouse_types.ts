/** ClickHouse's types as far as rules fill columns of them: parsed from their text, and inferred for results. */
import { SluiceError } from '../../model/errors.ts';
import { bigintDigits, decimalOf, ofKind, type StaticType } from './jinja/static_type.ts';

/** A type without Nullable and LowCardinality. */
export type ClickhouseType =
  | { name: 'String' }
  | { name: 'FixedString'; length: number }
  | { name: 'Int'; bits: number; signed: boolean }
  | { name: 'Float'; bits: 32 | 64 }
  | { name: 'Decimal'; precision: number; scale: number }
  | { name: 'Bool' }
  | { name: 'UUID' }
  | { name: 'Date'; wide: boolean }
  | { name: 'DateTime'; places: number | undefined }
  | { name: 'Array'; element: ParsedType };

/** A column's type. */
export interface ParsedType {
  type: ClickhouseType;
  nullable: boolean;
}

const widths: Record<string, number> = { Decimal32: 9, Decimal64: 18, Decimal128: 38, Decimal256: 76 };

/** The text of a type without Nullable and LowCardinality. */
export function bareType(text: string): string {
  const inner = /^(?:Nullable|LowCardinality)\((.*)\)$/s.exec(text.trim())?.[1];
  return inner === undefined ? text.trim() : bareType(inner);
}

/** Parses a type's text. Throws SluiceError `configuration` for types that rules cannot fill, or read of other copies. */
export function parseClickhouseType(text: string): ParsedType {
  const outer = /^(Nullable|LowCardinality)\((.*)\)$/.exec(text.trim());
  if (outer) {
    const inner = parseClickhouseType(outer[2]!);
    return { type: inner.type, nullable: inner.nullable || outer[1] === 'Nullable' };
  }
  const type = plainType(text.trim());
  if (type?.name === 'DateTime') expectUtc(text.trim());
  if (type === undefined)
    throw new SluiceError(
      'configuration',
      `rules cannot fill a column of type ${text}`,
      'Use String, Bool, UUID, Int8 … Int256, UInt8 … UInt256, Float32, Float64, Decimal(p, s), Date32, DateTime64(6), or an Array of one of them.',
    );
  return { type, nullable: false };
}

/** Times are written and read as texts in UTC: in a column of another zone, these would be other moments. */
function expectUtc(text: string): void {
  const zone = /'.*'/.exec(text)?.[0];
  if (zone === undefined || zone === "'UTC'") return;
  throw new SluiceError(
    'configuration',
    `rules cannot fill a column of type ${text}: moments are in UTC`,
    `Write ${text.replace(zone, "'UTC'")}, and have queries show them in another zone: toTimeZone(column, ${zone}).`,
  );
}

/** The type with its time zone, which is the server's where none is named. */
export function inUtc(text: string): string {
  return text
    .replace(/\bDateTime64\(\s*(\d+)\s*\)/g, "DateTime64($1, 'UTC')")
    .replace(/\bDateTime\b(?!\s*\()/g, "DateTime('UTC')");
}

function plainType(text: string): ClickhouseType | undefined {
  const [, name = '', list] = /^(\w+)(?:\((.*)\))?$/.exec(text) ?? [];
  const numbers = (list ?? '').split(',').map((part) => Number(part.trim()));
  const integer = /^(U?)Int(8|16|32|64|128|256)$/.exec(name);
  if (integer && list === undefined) return { name: 'Int', bits: Number(integer[2]), signed: integer[1] === '' };
  switch (name) {
    case 'String':
      return { name };
    case 'FixedString':
      return numbers[0]! > 0 ? { name, length: numbers[0]! } : undefined;
    case 'Float32':
      return { name: 'Float', bits: 32 };
    case 'Float64':
      return { name: 'Float', bits: 64 };
    case 'Bool':
    case 'UUID':
      return { name };
    case 'Date':
    case 'Date32':
      return { name: 'Date', wide: name === 'Date32' };
    case 'DateTime':
      return list === undefined || /^'.*'$/.test(list) ? { name, places: undefined } : undefined;
    case 'DateTime64':
      if (!/^\d(?:\s*,\s*'.*')?$/.test((list ?? '').trim())) return undefined;
      return numbers[0]! >= 0 && numbers[0]! <= 9 ? { name: 'DateTime', places: numbers[0]! } : undefined;
    case 'Array':
      return { name, element: parseClickhouseType(list ?? '') };
    default:
      return decimalType(name, list, numbers);
  }
}

function decimalType(name: string, list: string | undefined, numbers: number[]): ClickhouseType | undefined {
  const fixed = Object.hasOwn(widths, name) ? widths[name] : undefined;
  if (list === undefined || (name !== 'Decimal' && fixed === undefined)) return undefined;
  const precision = fixed ?? numbers[0]!;
  const scale = fixed === undefined ? (numbers[1] ?? 0) : numbers[0]!;
  const valid = precision >= 1 && precision <= 76 && scale >= 0 && scale <= precision;
  return valid ? { name: 'Decimal', precision, scale } : undefined;
}

/** ClickHouse's widest Decimal. */
const widest = 76;

/** The type for a column that holds all results of an expression, as far as that is known; String where it is not. */
export function inferType({ kind, digits, scale }: StaticType): string {
  switch (kind) {
    case 'int':
      return 'Int64';
    case 'float':
      return 'Float64';
    case 'bool':
      return 'Bool';
    case 'date':
      return 'Date32';
    case 'datetime':
      return "DateTime64(6, 'UTC')";
    case 'decimal':
      // Quotients and the like: as many places as digits before the point.
      if (scale === undefined || digits === undefined) return `Decimal(${widest}, ${widest / 2})`;
      return `Decimal(${Math.min(Math.max(digits, scale, 1), widest)}, ${Math.min(scale, widest)})`;
    default:
      return 'String';
  }
}

/** What is known of values that were computed for a column of a type of ClickHouse. */
export function typeOfTarget(text: string): StaticType {
  const { type } = parseClickhouseType(text);
  switch (type.name) {
    case 'Int':
      return { kind: 'int', digits: type.bits > 64 ? 78 : bigintDigits };
    case 'Float':
      return ofKind('float');
    case 'Decimal':
      return decimalOf(type.precision, type.scale);
    case 'Bool':
      return ofKind('bool');
    case 'Date':
      return ofKind('date');
    case 'DateTime':
      return ofKind('datetime');
    case 'Array':
      return ofKind('list');
    default:
      return ofKind('text');
  }
}
