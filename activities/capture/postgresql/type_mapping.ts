/** PostgreSQL types and what becomes of them in ClickHouse: one table, read by snapshot, stream and verify alike. */
import type { Column } from '../../../model/table.ts';

/** What pg_type and pg_attribute say about a column's type, domains resolved to their base. */
export interface TypeFacts {
  oid: number;
  /** Of the base type: a domain's modifier, not the column's. */
  typmod: number;
  /** pg_type.typtype: `b` base · `c` composite · `e` enum · `r` range · `m` multirange · `p` pseudo. */
  typtype: string;
  /** Set for true arrays only (int2vector is none), domains of elements resolved. */
  element?: { oid: number; typmod: number; typtype: string; delimiter: string };
  /** As declared; 0 where nothing was declared. PostgreSQL does not enforce it. */
  dimensions: number;
}

/** How a column's values travel, and the column's type in the copy. */
export type Mapping = Pick<Column, 'encoding' | 'element' | 'clickhouse'>;

interface ScalarMapping {
  /** Without Nullable. */
  clickhouse: string;
  encoding: Exclude<Column['encoding'], 'array'>;
  /** True when ClickHouse wants no quotes around it inside an array. */
  bare: boolean;
}

const text: ScalarMapping = { clickhouse: 'String', encoding: 'text', bare: false };
const number = (clickhouse: string): ScalarMapping => ({ clickhouse, encoding: 'plain', bare: true });

export const numericOid = 1700;

/**
 * By oid of pg_type, which is fixed for built-in types. What is not here is copied as the source's own text: exact for
 * every type, also for those of extensions.
 */
const scalars: ReadonlyMap<number, ScalarMapping> = new Map<number, ScalarMapping>([
  [16, { clickhouse: 'Bool', encoding: 'plain', bare: false }], // bool: t and f
  [17, { clickhouse: 'String', encoding: 'bytea', bare: false }], // bytea
  [20, number('Int64')], // bigint
  [21, number('Int16')], // smallint
  [23, number('Int32')], // integer
  [26, number('UInt32')], // oid
  // ClickHouse reads PostgreSQL's NaN, Infinity and -Infinity, in arrays too.
  [700, number('Float32')], // real
  [701, number('Float64')], // double precision
  [1082, { clickhouse: 'Date32', encoding: 'date', bare: false }], // date
  [1114, { clickhouse: "DateTime64(6, 'UTC')", encoding: 'timestamp', bare: false }], // timestamp
  [1184, { clickhouse: "DateTime64(6, 'UTC')", encoding: 'timestamptz', bare: false }], // timestamptz
  [2950, { clickhouse: 'UUID', encoding: 'plain', bare: false }], // uuid
]);

/** ClickHouse's widest Decimal. */
const widestDecimal = 76;

/** Precision and scale in a numeric's type modifier, or undefined for an unconstrained one. The scale may be negative. */
export function numericLimits(typmod: number): { precision: number; scale: number } | undefined {
  if (typmod < 4) return undefined;
  const packed = typmod - 4;
  // The scale is an 11-bit two's complement number (before PostgreSQL 15 it was never negative).
  return { precision: (packed >> 16) & 0xffff, scale: ((packed & 0x7ff) ^ 0x400) - 0x400 };
}

function mapNumeric(typmod: number): ScalarMapping {
  const asText: ScalarMapping = { clickhouse: 'String', encoding: 'plain', bare: false };
  const limits = numericLimits(typmod);
  if (!limits) return asText;
  // (5,-2) holds up to 7 digits before the point, (3,5) three digits at the fourth place after it and beyond.
  const scale = Math.max(limits.scale, 0);
  const precision = Math.max(limits.precision - Math.min(limits.scale, 0), scale);
  if (precision > widestDecimal) return asText;
  return { clickhouse: `Decimal(${precision}, ${scale})`, encoding: 'numeric', bare: true };
}

function mapScalar(type: { oid: number; typmod: number; typtype: string }): ScalarMapping {
  if (type.typtype === 'e') return { clickhouse: 'LowCardinality(String)', encoding: 'text', bare: false };
  if (type.oid === numericOid) return mapNumeric(type.typmod);
  return scalars.get(type.oid) ?? text;
}

function nullable(clickhouse: string): string {
  const inner = /^LowCardinality\((.*)\)$/.exec(clickhouse)?.[1];
  return inner === undefined ? `Nullable(${clickhouse})` : `LowCardinality(Nullable(${inner}))`;
}

function mapArray(element: NonNullable<TypeFacts['element']>): Mapping {
  const scalar = mapScalar(element);
  return {
    encoding: 'array',
    // Quoted, ClickHouse takes t, f and UUIDs inside an array; bare it does not.
    element: scalar.encoding === 'plain' && !scalar.bare ? 'text' : scalar.encoding,
    clickhouse: `Array(${nullable(scalar.clickhouse)})`,
  };
}

/**
 * How a column is copied. Key columns are never Nullable (ClickHouse sorts by them); all others are, because the stream
 * does not show DROP NOT NULL. Arrays become Array only when they are NOT NULL, of one dimension and no key.
 */
export function mapColumn(type: TypeFacts, use: { key: boolean; notNull: boolean }): Mapping {
  const { element } = type;
  // Boxes are separated by semicolons: as text they stay exact.
  if (element?.delimiter === ',' && type.dimensions <= 1 && use.notNull && !use.key) return mapArray(element);
  const scalar = element ? text : mapScalar(type);
  return { encoding: scalar.encoding, clickhouse: use.key ? scalar.clickhouse : nullable(scalar.clickhouse) };
}
