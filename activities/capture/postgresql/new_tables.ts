/** Tables that a source's globs mean, and that came since it was connected. */
import type pg from 'pg';
import { isGlob } from '../../../model/glob.ts';
import { type CaptureConfig, type Finding, type LeftOutTable, schemaPolicy } from '../../../model/source.ts';
import { tableName } from '../../../model/table.ts';
import type { TableName } from '../contract.ts';
import type { FoundTables } from '../new_tables.ts';
import { listRelations, matchPatterns, type Relation } from './catalog.ts';
import { quoteTable, sqlState } from './connection.ts';
import { preflight } from './preflight.ts';

/** Tables that one look examines; the next one takes the others. */
const mostAtOnce = 200;

/** See Source.findTables. */
export async function findTables(
  client: pg.Client,
  source: string,
  config: CaptureConfig,
  known: TableName[],
  except: string[],
): Promise<FoundTables> {
  const { tables: patterns = [] } = config;
  const globs = patterns.filter(isGlob);
  if (patterns.length > 0 && globs.length === 0) return { found: [], leftOut: [] };
  const passed = new Set([...known.map(tableName), ...except]);
  const captured = known.map(fullName);
  const meant = matchPatterns(await listRelations(client), globs, captured).found;
  const fresh = meant.filter((relation) => !passed.has(tableName(relation))).slice(0, mostAtOnce);
  if (schemaPolicy(config) !== 'evolve')
    return { found: [], leftOut: fresh.map((one) => unasked(one, source, config)) };
  const examined = await examine(client, source, config, fresh, captured);
  const taken = new Map(known.flatMap((table) => names(table).map((name) => [name, tableName(table)])));
  const found: FoundTables = { found: [], leftOut: examined.leftOut };
  for (const table of examined.found) {
    const owner = names(table).flatMap((name) => taken.get(name) ?? [])[0];
    if (owner !== undefined) found.leftOut.push(clash(table, owner));
    else if (await isFree(client, table)) found.found.push(table);
  }
  return found;
}

/** What preflight says of these tables. */
async function examine(
  client: pg.Client,
  source: string,
  config: CaptureConfig,
  fresh: Relation[],
  captured: string[],
): Promise<FoundTables> {
  if (fresh.length === 0) return { found: [], leftOut: [] };
  const fullNames = new Set(fresh.map(fullName));
  const { findings, tables } = await preflight(client, source, { ...config, tables: [...fullNames] }, captured);
  const blockers = findings.filter((finding) => finding.blocking);
  // What is wrong with none in particular (who may add it to the publication) may be wrong with one of them. One may also be
  // the whole of a partition that is captured by itself.
  const isCommon = ({ table, code }: Finding) =>
    table === undefined || (code === 'partition_twice' && !fullNames.has(table));
  const common = blockers.filter(isCommon);
  if (common.length > 0 && fresh.length > 1) {
    const answers: FoundTables[] = [];
    for (const one of fresh) answers.push(await examine(client, source, config, [one], captured));
    return { found: answers.flatMap(({ found }) => found), leftOut: answers.flatMap(({ leftOut }) => leftOut) };
  }
  const leftOut = fresh.flatMap((relation) => {
    const why = [...blockers.filter((finding) => finding.table === fullName(relation)), ...common];
    return why.length > 0 ? [inWords(relation, why)] : [];
  });
  const refused = new Set(leftOut.map(({ table }) => table));
  const found = tables.filter((table) => fullNames.has(fullName(table)) && !refused.has(tableName(table)));
  return { found: found.map(({ asset_id, schema, table }) => ({ asset_id, schema, table })), leftOut };
}

function inWords(relation: Relation, why: Finding[]): LeftOutTable {
  return {
    table: tableName(relation),
    reason: why.map(({ detail }) => detail).join('; '),
    remedy: why.map(({ remedy }) => remedy).join(' '),
  };
}

function unasked(relation: Relation, source: string, config: CaptureConfig): LeftOutTable {
  const table = tableName(relation);
  return {
    table,
    reason: `it came after the source was connected, and under schema_changes: ${schemaPolicy(config)} nothing is taken in by itself`,
    remedy: `To copy it: sluice sources add-tables ${source} ${table}`,
  };
}

function clash(table: TableName, owner: string): LeftOutTable {
  return {
    table: tableName(table),
    reason: `it would become ${table.asset_id} in ClickHouse, a name that ${owner} takes`,
    remedy: 'Rename it; or capture it by another source, with options.asset_ids.',
  };
}

function fullName({ schema, table }: { schema: string; table: string }): string {
  return `${schema}.${table}`;
}

/** The names in ClickHouse that a table's copy takes. */
function names({ asset_id }: TableName): string[] {
  return [asset_id, `${asset_id}_current`];
}

/**
 * False while somebody holds the table, e.g. the very transaction that fills it: whoever adds it to the publication would
 * wait for that, and with it all other tables.
 */
async function isFree(client: pg.Client, table: TableName): Promise<boolean> {
  await client.query("BEGIN; SET LOCAL lock_timeout = '50ms'");
  try {
    await client.query(`LOCK TABLE ONLY ${quoteTable(table)} IN SHARE UPDATE EXCLUSIVE MODE`);
    return true;
  } catch (error) {
    // Held, or gone. Where the role may not lock it, the publication has it already.
    return !['55P03', '42P01'].includes(sqlState(error));
  } finally {
    await client.query('ROLLBACK');
  }
}
