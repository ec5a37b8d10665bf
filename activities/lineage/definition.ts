/** What flows where because of one definition: of a source table and its copy, or of a deployment. */
import { createHash } from 'node:crypto';
import { copyAssetId } from '../../model/asset.ts';
import { allColumns, type ColumnPair, type LineageGraph } from '../../model/lineage.ts';
import { copiedColumns, type TableSchema } from '../../model/table.ts';
import { csvColumns } from '../extract/asset_row.ts';
import { readableColumns } from '../transform/table_rules.ts';
import { ruleEdges } from './rule_edges.ts';

/** Assets and edges of a table as it is copied now. `owner`: its source, or the deployment that fills it. */
export function graphOf(owner: string, table: TableSchema): LineageGraph {
  return isFilledByDeployment(owner, table) ? deploymentGraph(owner, table) : tableGraph(table);
}

/** Short and the same for the same graph. */
export function digestOf(graph: LineageGraph): string {
  return createHash('sha256').update(JSON.stringify(graph)).digest('hex').slice(0, 16);
}

function isFilledByDeployment(owner: string, { asset_id, schema }: TableSchema): boolean {
  return schema === '' && asset_id === owner;
}

/** A column that a rule fills comes from what the rule reads, and not from the column of its name. */
function tableGraph(schema: TableSchema): LineageGraph {
  const { asset_id: table, columns } = schema;
  const copy = copyAssetId(table);
  const readable = readableColumns(schema);
  const { edges, targets } = ruleEdges({ asset: table, copy }, readable, schema.rules?.rules ?? []);
  const names = columns.filter((column) => !column.hidden).map((column) => column.name);
  // Excluded columns can be read by rules, and are stored nowhere.
  const excluded = readable.map((column) => column.name).filter((name) => !names.includes(name));
  const captured = same(names.filter((name) => !targets.includes(name)));
  const copied = copiedColumns(schema).map((column) => column.name);
  return {
    nodes: [
      { asset_id: table, type: 'source_table', columns: [...names, ...excluded] },
      { asset_id: copy, type: 'copy', columns: [...new Set([...copied, ...targets])] },
    ],
    edges: [{ from: table, to: copy, via: 'capture', columns: captured }, ...edges],
  };
}

/** The API's answer becomes files, and these the copy. A file's `deleted` is a tombstone in the copy, its version the row's. */
function deploymentGraph(deployment: string, schema: TableSchema): LineageGraph {
  const [api, csv, copy] = [`api_${deployment}`, `csv_${deployment}`, copyAssetId(deployment)];
  const names = schema.columns.map((column) => column.name);
  const pulled = csvColumns.filter((name) => !name.startsWith('_'));
  const flags = pulled.filter((name) => !names.includes(name)).map((from) => ({ from, to: allColumns }));
  const { edges, targets } = ruleEdges({ asset: csv, copy }, schema.columns, schema.rules?.rules ?? []);
  const loaded = same(names.filter((name) => !targets.includes(name)));
  const copied = copiedColumns(schema).map((column) => column.name);
  return {
    nodes: [
      { asset_id: api, type: 'api', columns: [...pulled] },
      { asset_id: csv, type: 'csv', columns: [...csvColumns] },
      { asset_id: copy, type: 'copy', columns: [...new Set([...copied, ...targets])] },
    ],
    edges: [
      { from: api, to: csv, via: 'extract', columns: same(pulled) },
      { from: csv, to: copy, via: 'load', columns: [...loaded, ...flags] },
      ...edges,
    ],
  };
}

function same(names: readonly string[]): ColumnPair[] {
  return names.map((name) => ({ from: name, to: name }));
}
