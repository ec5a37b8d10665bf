/**
 * Where the stream of a table begins, with the definition that it has there. Both must be of one moment: a row of before
 * another definition would be copied wrongly, and a change of the definition that nobody sees would never be made up for.
 */
import { SluiceError } from '../../model/errors.ts';
import { schemaPolicy } from '../../model/source.ts';
import { sideCopyName, type TableSchema, tableName } from '../../model/table.ts';
import { loadSaved, saveSchema } from '../load/batches.ts';
import { quoteName } from '../load/clickhouse.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { readableFor, rulesInForce, withRules } from '../transform/table_rules.ts';
import type { TableRef } from './contract.ts';
import type { Connected, Source } from './source.ts';

/** Times that tables may change under our eyes before somebody has to look at them. */
const mostLooks = 10;

export interface BeginOptions {
  source: Source;
  connected: Connected;
  sink: ClickHouseSink;
  epoch: number;
  /** How the tables were defined before the log began to send them, and where it begins, when it is new. */
  before: Map<string, TableSchema>;
  position: string | undefined;
}

/**
 * Makes these tables ready to be copied from their beginning: definition, start position, and a copy beside the old one
 * when there was one. Answers them with start and generation. Errors: `table_missing`, `table_changed`, `table_unusable`.
 */
export async function beginTables(tables: TableRef[], options: BeginOptions): Promise<TableRef[]> {
  if (tables.length === 0) return [];
  const { source, connected, sink, epoch } = options;
  const { id } = connected.request;
  const saved = await loadSaved(sink.clickhouse, id);
  const declared = await rulesInForce(sink.clickhouse);
  const { rules, joined } = declared;
  const begun: TableRef[] = [];
  const readable = readableFor(options.before.values(), declared);
  // Before their start positions: whoever takes them out and puts them back from here on leaves a gap.
  const published = await source.publishedAs(connected, [...options.before.values()]);
  const others = await sink.tablesOfOthers(id);
  for (const table of tables) expectOwn(connected, table, others.get(table.asset_id));
  const settled = await settle(tables, { ...options, connected: { ...connected, readable } });
  // Tables that begin together may join with each other.
  for (const [{ asset_id }, { columns }] of settled)
    joined[asset_id] ??= Object.fromEntries(columns.map(({ name, clickhouse }) => [name, clickhouse]));
  for (const [table, schema, start] of settled) {
    const asset = table.asset_id;
    // Whatever an earlier try has left is none of this one's: what was to begin elsewhere in the log bears another number.
    const left = await sink.highestSideCopy(asset);
    const former = Math.max(saved.get(asset)?.generation ?? 0, left);
    const generation = Math.max(table.generation, former + 1);
    const next = withRules(
      table.automatic ? withoutNew(schema, saved.get(asset)?.schema, connected) : schema,
      rules,
      joined,
    );
    next.published = published.get(asset) ?? '';
    if (generation > 1) {
      // What was copied before stays to be read until the new copy is complete.
      const beside = await sink.hasCopy(asset);
      const from = source.snapshotVersion(epoch, start);
      next.copy = { name: beside ? sideCopyName(asset, generation) : asset, from };
    }
    if (left > 0) await sink.dropSideCopies(asset, generation);
    await sink.createCopy(next);
    await saveSchema(sink.clickhouse, id, next, generation);
    begun.push({ ...table, start_position: start, generation });
  }
  return begun;
}

/** Each table with a definition and a position at which it was defined so. */
async function settle(
  tables: TableRef[],
  { source, connected, before, position }: BeginOptions,
): Promise<[TableRef, TableSchema, string][]> {
  const settled: [TableRef, TableSchema, string][] = [];
  let known = before;
  let start = position;
  let left = tables;
  for (let looks = 0; left.length > 0; looks++) {
    if (looks === mostLooks) throw restless(connected.request.id, left[0]!);
    start ??= await source.startPosition(connected);
    const now = await definitionsOf(source, connected, left);
    for (const table of left) {
      const schema = now.get(table.asset_id)!;
      // Another table under the name is not published yet: all is prepared anew.
      if (schema.oid !== known.get(table.asset_id)?.oid) throw restless(connected.request.id, table);
      if (JSON.stringify(schema) === JSON.stringify(known.get(table.asset_id))) settled.push([table, schema, start]);
    }
    left = left.filter((table) => !settled.some(([done]) => done === table));
    known = now;
    start = undefined;
  }
  return settled;
}

/** Definitions by asset id, as they are now. Errors: `table_missing`. */
export async function definitionsOf(
  source: Source,
  connected: Connected,
  tables: TableRef[],
): Promise<Map<string, TableSchema>> {
  if (tables.length === 0) return new Map();
  const { id } = connected.request;
  const schemas = new Map((await source.readTables(connected, tables)).map((schema) => [schema.asset_id, schema]));
  for (const table of tables) {
    if (schemas.has(table.asset_id)) continue;
    throw new SluiceError(
      'table_missing',
      `the table ${tableName(table)} is not in the source, or has no usable key any more`,
      `Make it again, and it is copied by itself; or take it out: sluice sources remove-tables ${id} ${tableName(table)}`,
      { source: id, table: tableName(table) },
    );
  }
  return schemas;
}

/** Policy `ignore`: columns that the copy of before did not have stay out, until somebody re-syncs the table. */
function withoutNew(schema: TableSchema, before: TableSchema | undefined, { request }: Connected): TableSchema {
  if (!before || schemaPolicy(request.config) !== 'ignore') return schema;
  const had = new Set(before.columns.map((column) => (before.oid === schema.oid ? column.attnum : column.name)));
  const stays = (column: { attnum: number; name: string; key: boolean }) =>
    column.key || had.has(before.oid === schema.oid ? column.attnum : column.name);
  const ignored = schema.columns.filter((column) => !stays(column));
  const leftOut = ignored.map(({ attnum, name }) => ({ attnum, name, why: 'ignored' as const }));
  return {
    ...schema,
    columns: schema.columns.filter(stays),
    leftOut: [...(schema.leftOut ?? []), ...leftOut].sort((a, b) => a.attnum - b.attnum),
  };
}

/** Refuses to write into a table that is another's. Errors: `table_unusable`. */
function expectOwn({ request: { id } }: Connected, table: TableRef, other: string | undefined): void {
  if (other === undefined) return;
  throw new SluiceError(
    'table_unusable',
    `its copy would be called ${table.asset_id}, and the table of that name in ClickHouse ${other}`,
    `Give it another name (options.asset_ids), or the source another id. If nobody needs that table: DROP TABLE ${quoteName(table.asset_id)}`,
    { source: id, table: tableName(table) },
  );
}

function restless(source: string, table: TableRef): SluiceError {
  return new SluiceError(
    'source_unreachable',
    `the definition of ${tableName(table)} changes all the time`,
    'It is tried again.',
    { source, table: tableName(table) },
  );
}
