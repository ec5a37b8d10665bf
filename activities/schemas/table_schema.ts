/** The schema of a copy, from what the copy is made from. */
import { readSchema, type Schema } from '../../model/schema.ts';
import { type Column, copiedColumns, type TableSchema, withCopiedValues } from '../../model/table.ts';

/** Types of ClickHouse without arguments. */
const types: Record<string, string> = {
  Bool: 'boolean',
  Int8: 'int',
  Int16: 'int',
  Int32: 'int',
  Int64: 'long',
  UInt8: 'int',
  UInt16: 'int',
  UInt32: 'long',
  Float32: 'float',
  Float64: 'double',
  Date: 'date',
  Date32: 'date',
  UUID: 'uuid',
  String: 'string',
};

/**
 * The schema of a table's copy: what readers of the copy find. A column is nullable where the copy's is, because a source may
 * drop NOT NULL without a word. Names from before a rename are aliases.
 */
export function schemaOfTable(table: TableSchema): Schema {
  const columns = copiedColumns(table);
  const definitions = new Map(withCopiedValues(table).columns.map((column) => [column.name, column]));
  const taken = new Set(columns.map((column) => column.name));
  const fields = columns.map((column) => {
    const former = (table.former ?? []).filter(({ attnum }) => attnum === column.attnum).map(({ name }) => name);
    const aliases = former.filter((name) => !taken.has(name) && taken.add(name));
    const nullable = /^(LowCardinality\()?Nullable\(/.test(column.clickhouse);
    // What rules fill has ClickHouse's type alone.
    const { type, encoding } = definitions.get(column.name) ?? { type: '', encoding: 'plain' };
    return { name: column.name, type: fieldType({ type, encoding, clickhouse: column.clickhouse }), nullable, aliases };
  });
  return readSchema({ fields });
}

function fieldType({ type, clickhouse, encoding }: Pick<Column, 'type' | 'clickhouse' | 'encoding'>): string {
  const inner = /^(?:Nullable|LowCardinality)\((.*)\)$/s.exec(clickhouse)?.[1];
  if (inner !== undefined) return fieldType({ type, clickhouse: inner, encoding });
  const items = /^Array\((.*)\)$/s.exec(clickhouse)?.[1];
  if (items !== undefined) {
    return `array<${fieldType({ type: type.replace(/\[\]$/, ''), clickhouse: items, encoding })}>`;
  }
  // Copies hold these as texts, and their values say more.
  if (type === 'json' || type === 'jsonb') return 'json';
  if (type === 'bytea') return 'bytes';
  const decimal = /^Decimal\((\d+), ?(\d+)\)$/.exec(clickhouse);
  if (decimal !== null) return `decimal(${decimal[1]},${decimal[2]})`;
  return clickhouse.startsWith('DateTime') ? 'timestamp' : (types[clickhouse] ?? 'string');
}
