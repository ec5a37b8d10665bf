/**
 * What an event of OpenLineage 2-0-2 must be: its parts, and of each facet the version and the fields that the specification asks
 * for. Stricter than that: unknown facets and fields are refused. With OPENLINEAGE_SPEC, a folder that holds the published JSON
 * schemas (spec/OpenLineage.json and spec/facets/*.json side by side), events are validated by those too.
 */
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { z } from 'zod';

const uri = z.string().regex(/^[a-z][a-z0-9+.-]*:\S+$/);
const count = z.number().int().min(0);
const time = z.iso.datetime();
const uuid = z.uuid();

function facet<Shape extends z.ZodRawShape>(version: string, name: string, fields: Shape) {
  const url = `https://openlineage.io/spec/facets/${version}/${name}.json#/$defs/${name}`;
  return z.strictObject({ _producer: uri, _schemaURL: z.literal(url), ...fields });
}

const transformation = z.strictObject({
  type: z.enum(['DIRECT', 'INDIRECT']),
  subtype: z.enum(['IDENTITY', 'TRANSFORMATION', 'FILTER']),
  masking: z.boolean(),
});
const inputField = z.strictObject({
  namespace: z.string().min(1),
  name: z.string().min(1),
  field: z.string().min(1),
  transformations: z.array(transformation).min(1),
});

const datasetFacets = z.strictObject({
  schema: facet('1-2-0', 'SchemaDatasetFacet', {
    fields: z.array(z.strictObject({ name: z.string(), type: z.string(), ordinal_position: z.number().int().min(1) })),
  }).optional(),
  columnLineage: facet('1-2-0', 'ColumnLineageDatasetFacet', {
    fields: z.record(z.string(), z.strictObject({ inputFields: z.array(inputField).min(1) })),
    dataset: z.array(inputField).optional(),
  }).optional(),
  dataSource: facet('1-0-1', 'DatasourceDatasetFacet', { name: z.string(), uri: uri.optional() }).optional(),
});
const statistics = { rowCount: count.optional(), size: count.optional(), fileCount: count.optional() };
const name = { namespace: z.string().min(1), name: z.string().min(1) };

const inputDataset = z.strictObject({
  ...name,
  facets: datasetFacets.optional(),
  inputFacets: z
    .strictObject({
      inputStatistics: facet('1-0-0', 'InputStatisticsInputDatasetFacet', statistics).optional(),
      dataQualityMetrics: facet('1-0-3', 'DataQualityMetricsInputDatasetFacet', {
        rowCount: count.optional(),
        columnMetrics: z.record(z.string(), z.strictObject({ nullCount: count.optional() })),
      }).optional(),
      dataQualityAssertions: facet('1-1-0', 'DataQualityAssertionsDatasetFacet', {
        assertions: z.array(
          z.strictObject({
            assertion: z.string(),
            success: z.boolean(),
            severity: z.enum(['error', 'warn']).optional(),
            expected: z.string().optional(),
            actual: z.string().optional(),
          }),
        ),
      }).optional(),
    })
    .optional(),
});
const outputDataset = z.strictObject({
  ...name,
  facets: datasetFacets.optional(),
  outputFacets: z
    .strictObject({ outputStatistics: facet('1-0-2', 'OutputStatisticsOutputDatasetFacet', statistics).optional() })
    .optional(),
});

const runEvent = z.strictObject({
  eventType: z.enum(['START', 'RUNNING', 'COMPLETE', 'FAIL', 'ABORT']),
  eventTime: time,
  producer: uri,
  schemaURL: z.literal('https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent'),
  run: z.strictObject({
    runId: uuid,
    facets: z.strictObject({
      parent: facet('1-2-0', 'ParentRunFacet', { run: z.strictObject({ runId: uuid }), job: z.strictObject(name) }),
      processing_engine: facet('1-1-1', 'ProcessingEngineRunFacet', { name: z.string(), version: z.string() }),
      nominalTime: facet('1-0-1', 'NominalTimeRunFacet', { nominalStartTime: time, nominalEndTime: time }).optional(),
      errorMessage: facet('1-0-1', 'ErrorMessageRunFacet', {
        message: z.string().min(1),
        programmingLanguage: z.string(),
      }).optional(),
    }),
  }),
  job: z.strictObject({
    ...name,
    facets: z.strictObject({
      jobType: facet('2-0-4', 'JobTypeJobFacet', {
        processingType: z.enum(['BATCH', 'STREAMING']),
        integration: z.literal('SLUICE'),
        jobType: z.string(),
      }),
    }),
  }),
  inputs: z.array(inputDataset),
  outputs: z.array(outputDataset),
});
export type ShapedEvent = z.infer<typeof runEvent>;

/** What is wrong with an event; nothing when it is right. */
export type Judge = (event: unknown) => string[];

/** A judge by the shapes above, and by the published schemas where they are. */
export async function openLineageJudge(): Promise<Judge> {
  const published = process.env.OPENLINEAGE_SPEC ? await publishedJudge(process.env.OPENLINEAGE_SPEC) : () => [];
  return (event) => {
    const read = runEvent.safeParse(event);
    const shaped = read.success ? [] : read.error.issues.map((issue) => `${issue.path.join('.')}: ${issue.message}`);
    return [...shaped, ...published(event)];
  };
}

/** Ajv comes with the web server: only this optional look needs it. */
async function publishedJudge(folder: string): Promise<Judge> {
  const { Ajv2020 } = await import('ajv/dist/2020.js');
  const { default: formats } = await import('ajv-formats');
  const ajv = new Ajv2020({ strict: false, allErrors: true });
  (formats as unknown as (ajv: object) => void)(ajv);
  const files = readdirSync(folder).filter((file) => file.endsWith('.json'));
  if (!existsSync(path.join(folder, 'OpenLineage.json'))) throw new Error(`there is no OpenLineage.json in ${folder}`);
  const known = new Set<string>();
  for (const file of files) {
    const schema = JSON.parse(readFileSync(path.join(folder, file), 'utf8')) as { $id?: string };
    if (!schema.$id || known.has(schema.$id)) continue;
    known.add(schema.$id);
    ajv.addSchema(schema);
  }
  const check = (id: string, value: unknown): string[] => {
    const validate = ajv.getSchema(id);
    if (!validate) return [`there is no schema ${id}`];
    return validate(value) ? [] : (validate.errors ?? []).map((one) => `${id}${one.instancePath}: ${one.message}`);
  };
  return (event) => {
    const found = check('https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent', event);
    const look = (value: unknown) => {
      if (typeof value !== 'object' || value === null) return;
      const { _schemaURL: url } = value as { _schemaURL?: string };
      if (url) found.push(...check(url, value));
      for (const inner of Object.values(value)) look(inner);
    };
    look(event);
    return found;
  };
}
