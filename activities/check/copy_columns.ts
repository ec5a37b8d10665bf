/** The columns of copies as rules and checks see them, and rows of copies as values that they compute with. */
import { keyColumns, type TableSchema } from '../../model/table.ts';
import { type ClickHouse, quoteName } from '../load/clickhouse.ts';
import { unescapeField } from '../load/tsv.ts';
import { type Decoder, decoderFor } from '../transform/decode.ts';
import type { ExpressionColumn } from '../transform/expression.ts';
import { parseJson } from '../transform/jinja/json_text.ts';
import type { Value } from '../transform/jinja/values.ts';

/** A column of a copy. */
export interface CheckedColumn extends ExpressionColumn {
  /** As PostgreSQL would print it: what decides how its values are compared. */
  type: string;
  clickhouse: string;
  key: boolean;
}

/**
 * The columns of a copy, without Sluice's own; empty when there is no such table. `table`: what the copy is made from, which knows
 * more of some types.
 */
export async function checkedColumns(
  clickhouse: ClickHouse,
  asset: string,
  table: TableSchema | undefined,
): Promise<CheckedColumn[]> {
  const rows = await clickhouse.rows<{ name: string; type: string; sorting: number }>(
    `SELECT name, type, is_in_sorting_key AS sorting FROM system.columns
     WHERE database = {database:String} AND table = {asset:String} AND name NOT LIKE '\\\\_%' ORDER BY position`,
    { params: { database: clickhouse.database, asset } },
  );
  const known = new Map((table?.columns ?? []).map((column) => [column.name, column]));
  const keys = table ? new Set(keyColumns(table).map((column) => column.name)) : undefined;
  return rows.map(({ name, type, sorting }) => {
    const source = known.get(name);
    const same = source?.clickhouse === type ? source.type : undefined;
    return { name, type: same ?? sourceType(type), clickhouse: type, key: keys?.has(name) ?? Boolean(sorting) };
  });
}

/** Where ClickHouse's types have others' names. */
const sourceTypes: Record<string, string> = {
  Bool: 'boolean',
  UUID: 'uuid',
  Date: 'date',
  Date32: 'date',
  Float32: 'real',
  Float64: 'double precision',
};

/** A type of PostgreSQL whose values are those of a type of ClickHouse. */
function sourceType(type: string): string {
  const inner = /^(?:Nullable|LowCardinality)\((.*)\)$/s.exec(type)?.[1];
  if (inner !== undefined) return sourceType(inner);
  const items = /^Array\((.*)\)$/s.exec(type)?.[1];
  if (items !== undefined) return `${sourceType(items)}[]`;
  const decimal = /^Decimal\((\d+), ?(\d+)\)$/.exec(type);
  if (decimal) return `numeric(${decimal[1]},${decimal[2]})`;
  if (/^U?Int\d+$/.test(type)) return 'bigint';
  if (type.startsWith('DateTime')) return 'timestamp with time zone';
  return sourceTypes[type] ?? 'text';
}

/** How a column is selected so that `readRows` can decode it. */
function selection({ name, type, clickhouse }: CheckedColumn): string {
  const column = quoteName(name);
  if (clickhouse.startsWith('Array(')) return `toJSONString(${column})`;
  return type === 'bytea' ? `concat('\\\\x', lower(hex(${column})))` : column;
}

function decoderOf({ type, clickhouse }: CheckedColumn): Decoder {
  if (clickhouse.startsWith('Array('))
    return (bytes, start, end) => parseJson(bytes.toString('utf8', start, end)) ?? null;
  return decoderFor(type);
}

/** Values of rows of a copy (`rows`: where it has them, trusted SQL), one for each of `columns`, and for each of `more` (trusted SQL) its text behind them. */
export async function readCopyRows(
  { clickhouse, rows }: { clickhouse: ClickHouse; rows: string },
  columns: readonly CheckedColumn[],
  how: { rest: string; more?: readonly string[]; params?: Record<string, unknown>; signal?: AbortSignal },
): Promise<{ values: Value[]; more: string[] }[]> {
  const selected = [...columns.map(selection), ...(how.more ?? [])].join(', ') || '1';
  const answer = await clickhouse.tsv(
    `SELECT ${selected} FROM ${rows} ${how.rest}
     SETTINGS output_format_decimal_trailing_zeros = 1, max_execution_time = 10, max_memory_usage = ${1 << 30}`,
    { params: how.params, signal: how.signal },
  );
  const decoders = columns.map(decoderOf);
  const lines = answer.toString('latin1').split('\n').slice(0, -1);
  return lines.map((line) => {
    const fields = line.split('\t');
    const values = decoders.map((decode, i) => decodeField(fields[i]!, decode));
    return { values, more: fields.slice(columns.length) };
  });
}

function decodeField(field: string, decode: Decoder): Value {
  if (field === '\\N') return null;
  const bytes = field.includes('\\') ? unescapeField(field) : Buffer.from(field, 'latin1');
  return decode(bytes, 0, bytes.length);
}
