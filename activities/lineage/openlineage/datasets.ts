/** Tables, files and APIs as datasets of OpenLineage, by its naming rules. Never a password among them. */
import path from 'node:path';
import { copyAssetId, tableAssetOf } from '../../../model/asset.ts';
import type { AssetEffects } from '../../../model/batch.ts';
import type { ConnectRequest } from '../../../model/source.ts';
import { copiedColumns, type TableSchema } from '../../../model/table.ts';
import type { CaptureContext } from '../../capture/context.ts';
import { csvColumns } from '../../extract/asset_row.ts';
import { resolveOutgoing } from '../../extract/outgoing.ts';
import { loadSchemas } from '../../load/batches.ts';
import { graphOf } from '../definition.ts';
import {
  columnLineageFacet,
  type DatasetName,
  type Facets,
  facet,
  type InputDataset,
  type OutputDataset,
  schemaFacet,
} from './run_event.ts';

/** What a run reads and writes. */
export interface Datasets {
  inputs: InputDataset[];
  outputs: OutputDataset[];
}

/** By asset, what was done to it; absent while that is not known. */
export type Done = Record<string, AssetEffects>;

/** Tables of a source and their copies; all, or those that are named. */
export async function sourceDatasets(
  context: CaptureContext,
  request: ConnectRequest,
  assets: string[],
  done?: Done,
): Promise<Datasets> {
  const schemas = await loadSchemas(context.clickhouse('read'), request.id);
  const place = sourcePlace(context.connectionString(request));
  const known = assets.flatMap((asset) => schemas.get(asset) ?? []);
  const names = new Map<string, DatasetName>();
  for (const { asset_id: asset, schema, table } of known) {
    names.set(asset, { namespace: place.namespace, name: `${place.database}.${schema}.${table}` });
    names.set(copyAssetId(asset), copyName(context, asset));
  }
  const inputs = known.map((table) => {
    const fields = table.columns.map(({ name, type }) => ({ name, type }));
    return input(names.get(table.asset_id)!, schemaFacet(fields), done?.[table.asset_id]);
  });
  const outputs = known.map((table) => {
    return output(
      names.get(copyAssetId(table.asset_id))!,
      copyFacets(context, request.id, table, names),
      done?.[table.asset_id],
    );
  });
  return { inputs, outputs };
}

/** An asset API, the files, and the copy of a deployment. `folder`: where the files are. */
export async function deploymentDatasets(
  context: CaptureContext,
  deployment: string,
  apiUrl: string,
  folder: string,
  done?: Done,
): Promise<Datasets> {
  const table = (await loadSchemas(context.clickhouse('read'), deployment)).get(deployment);
  const url = resolveOutgoing(apiUrl);
  const api = { namespace: url.origin, name: `${url.pathname.replace(/\/$/, '')}/assets` };
  const csv = { namespace: 'file', name: path.join(folder, deployment) };
  const copy = copyName(context, deployment);
  const names = new Map<string, DatasetName>([
    [`api_${deployment}`, api],
    [`csv_${deployment}`, csv],
    [copyAssetId(deployment), copy],
  ]);
  const effects = done?.[deployment];
  const edges = table ? graphOf(deployment, table).edges : [];
  const nameOf = (asset: string) => names.get(asset);
  const pulled = edges.filter(({ via }) => via === 'extract');
  const files = {
    ...schemaFacet(csvColumns.map((name) => ({ name, type: 'string' }))),
    ...(pulled.length > 0 && columnLineageFacet(pulled, nameOf)),
  };
  return {
    inputs: [
      input(
        api,
        schemaFacet(csvColumns.filter((name) => name !== '_version').map((name) => ({ name, type: 'string' }))),
        effects,
      ),
    ],
    outputs: [
      { ...csv, facets: files },
      output(copy, table ? copyFacets(context, deployment, table, names) : {}, effects),
    ],
  };
}

/** Rules may take values from other copies, too. */
function copyFacets(
  context: CaptureContext,
  owner: string,
  table: TableSchema,
  names: Map<string, DatasetName>,
): Facets {
  const copy = copyAssetId(table.asset_id);
  const edges = graphOf(owner, table).edges.filter(({ to }) => to === copy);
  const fields = copiedColumns(table).map(({ name, clickhouse }) => ({ name, type: clickhouse }));
  return {
    ...schemaFacet(fields),
    ...columnLineageFacet(edges, (asset) => names.get(asset) ?? copyName(context, tableAssetOf(asset))),
  };
}

/** Rows that were read, and whether ClickHouse's types could hold them. */
function input(name: DatasetName, facets: Facets, done: AssetEffects | undefined): InputDataset {
  const source = facet('dataSource', {
    name: name.namespace,
    ...(name.namespace.includes('://') && { uri: name.namespace }),
  });
  if (!done) return { ...name, facets: { ...source, ...facets } };
  const assertion = { assertion: 'fits_types_of_copy', success: done.rejected === 0, severity: 'error' };
  const inputFacets = {
    ...facet('inputStatistics', { rowCount: done.effects }),
    ...facet('dataQualityMetrics', { rowCount: done.effects, columnMetrics: {} }),
    ...facet('dataQualityAssertions', {
      assertions: [{ ...assertion, expected: '0 rejected rows', actual: `${done.rejected} rejected rows` }],
    }),
  };
  return { ...name, facets: { ...source, ...facets }, inputFacets };
}

function output(name: DatasetName, facets: Facets, done: AssetEffects | undefined): OutputDataset {
  const source = facet('dataSource', { name: name.namespace, uri: name.namespace });
  const all = { ...source, ...facets };
  if (!done) return { ...name, facets: all };
  return {
    ...name,
    facets: all,
    outputFacets: facet('outputStatistics', { rowCount: done.written, size: done.bytes }),
  };
}

function copyName(context: CaptureContext, asset: string): DatasetName {
  const { clickhouseUrl, clickhouseDatabase } = context.settings;
  const { hostname, port } = new URL(clickhouseUrl);
  return { namespace: `clickhouse://${hostname}:${port || 8123}`, name: `${clickhouseDatabase}.${asset}` };
}

function sourcePlace(connection: string): { namespace: string; database: string } {
  const { hostname, port, pathname, username } = new URL(connection);
  // As PostgreSQL itself: without a database's name, that of the user.
  const database = decodeURIComponent(pathname.slice(1)) || decodeURIComponent(username);
  return { namespace: `postgres://${hostname || 'localhost'}:${port || 5432}`, database };
}
