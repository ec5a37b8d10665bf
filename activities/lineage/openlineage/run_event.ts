/**
 * Run events of OpenLineage 2-0-2. Facets name the version of the specification that they are made by; only those that Sluice
 * fills are here. https://openlineage.io/spec/2-0-2/OpenLineage.json
 */
import { createHash } from 'node:crypto';
import { allColumns, type LineageEdge } from '../../../model/lineage.ts';

export type EventType = 'START' | 'RUNNING' | 'COMPLETE' | 'FAIL' | 'ABORT';

export interface Facet {
  _producer: string;
  _schemaURL: string;
  [key: string]: unknown;
}
export type Facets = Record<string, Facet>;

export interface DatasetName {
  namespace: string;
  name: string;
}

export interface InputDataset extends DatasetName {
  facets?: Facets;
  inputFacets?: Facets;
}

export interface OutputDataset extends DatasetName {
  facets?: Facets;
  outputFacets?: Facets;
}

export interface RunEvent {
  eventType: EventType;
  eventTime: string;
  producer: string;
  schemaURL: string;
  run: { runId: string; facets: Facets };
  job: DatasetName & { facets: Facets };
  inputs: InputDataset[];
  outputs: OutputDataset[];
}

export const version = '0.1.0';
const producer = `urn:sluice:${version}`;
const specification = 'https://openlineage.io/spec';

/** Names and versions of facets, as the specification has them. */
const facets = {
  schema: ['1-2-0', 'SchemaDatasetFacet'],
  columnLineage: ['1-2-0', 'ColumnLineageDatasetFacet'],
  dataSource: ['1-0-1', 'DatasourceDatasetFacet'],
  outputStatistics: ['1-0-2', 'OutputStatisticsOutputDatasetFacet'],
  inputStatistics: ['1-0-0', 'InputStatisticsInputDatasetFacet'],
  dataQualityMetrics: ['1-0-3', 'DataQualityMetricsInputDatasetFacet'],
  dataQualityAssertions: ['1-1-0', 'DataQualityAssertionsDatasetFacet'],
  nominalTime: ['1-0-1', 'NominalTimeRunFacet'],
  parent: ['1-2-0', 'ParentRunFacet'],
  errorMessage: ['1-0-1', 'ErrorMessageRunFacet'],
  processing_engine: ['1-1-1', 'ProcessingEngineRunFacet'],
  jobType: ['2-0-4', 'JobTypeJobFacet'],
} as const satisfies Record<string, readonly [string, string]>;

/** A facet under its name. */
export function facet(name: keyof typeof facets, content: Record<string, unknown>): Facets {
  const [at, type] = facets[name];
  const schemaUrl = `${specification}/facets/${at}/${type}.json#/$defs/${type}`;
  return { [name]: { _producer: producer, _schemaURL: schemaUrl, ...content } };
}

/** Always the same for the same parts; no two things share one. */
export function runIdOf(...parts: (string | number)[]): string {
  const hex = createHash('sha256').update(JSON.stringify(parts)).digest('hex').slice(0, 32).split('');
  // As an UUID that is made by its maker's own rules (version 8).
  hex[12] = '8';
  hex[16] = ((Number.parseInt(hex[16]!, 16) & 3) | 8).toString(16);
  return hex.join('').replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');
}

/** What a run is, at all of its events. */
export interface Run {
  runId: string;
  job: DatasetName & { type: 'CAPTURE' | 'SNAPSHOT' | 'EXTRACT' };
  /** The run of the flow that it is part of. */
  parent: { runId: string; job: DatasetName };
  nominal?: { from: string; to: string };
}

/** One event of a run. */
export function runEvent(
  eventType: EventType,
  { runId, job, parent, nominal }: Run,
  what: { at: string; inputs: InputDataset[]; outputs: OutputDataset[]; error?: string },
): RunEvent {
  const { type, ...name } = job;
  const processingType = type === 'CAPTURE' ? 'STREAMING' : 'BATCH';
  return {
    eventType,
    eventTime: what.at,
    producer,
    schemaURL: `${specification}/2-0-2/OpenLineage.json#/$defs/RunEvent`,
    run: {
      runId,
      facets: {
        ...facet('parent', { run: { runId: parent.runId }, job: parent.job }),
        ...facet('processing_engine', { name: 'sluice', version }),
        ...(nominal && facet('nominalTime', { nominalStartTime: nominal.from, nominalEndTime: nominal.to })),
        ...(what.error !== undefined &&
          facet('errorMessage', { message: what.error, programmingLanguage: 'TypeScript' })),
      },
    },
    job: { ...name, facets: facet('jobType', { processingType, integration: 'SLUICE', jobType: type }) },
    inputs: what.inputs,
    outputs: what.outputs,
  };
}

/** Columns as consumers show them. */
export function schemaFacet(columns: { name: string; type: string }[]): Facets {
  const fields = columns.map(({ name, type }, index) => ({ name, type, ordinal_position: index + 1 }));
  return facet('schema', { fields });
}

/** Which columns of the inputs each column of an output comes from. `nameOf`: the datasets of assets. */
export function columnLineageFacet(edges: LineageEdge[], nameOf: (asset: string) => DatasetName | undefined): Facets {
  const fields: Record<string, { inputFields: unknown[] }> = {};
  const dataset: unknown[] = [];
  for (const edge of edges) {
    const source = nameOf(edge.from);
    if (!source) continue;
    for (const { from, to } of edge.columns) {
      const indirect = to === allColumns;
      const type = indirect ? 'INDIRECT' : 'DIRECT';
      const subtype = indirect ? 'FILTER' : isRule(edge) ? 'TRANSFORMATION' : 'IDENTITY';
      const field = { ...source, field: from, transformations: [{ type, subtype, masking: false }] };
      if (indirect) dataset.push(field);
      else fields[to] = { inputFields: [...(fields[to]?.inputFields ?? []), field] };
    }
  }
  return facet('columnLineage', dataset.length > 0 ? { fields, dataset } : { fields });
}

function isRule({ via }: LineageEdge): boolean {
  return via !== 'capture' && via !== 'extract' && via !== 'load';
}
