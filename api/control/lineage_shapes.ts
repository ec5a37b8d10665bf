/** What the REST API answers about lineage. */
import { z } from 'zod';

export const rowLineageQuery = z.strictObject({
  key: z.string().min(1).max(10_000).describe('Plain text for a key of one column, a JSON object by column for any'),
});

const rowVersion = z.object({
  version: z.string().describe('Decimal text of 128 bits: the higher wins'),
  op: z.enum(['snapshot', 'upsert', 'delete']).describe('What it did to the copy'),
  source_op: z
    .enum(['insert', 'update', 'delete'])
    .nullable()
    .describe('What the source did; null where the batch did several things, or read rows of a snapshot'),
  filtered_by: z
    .array(z.string())
    .nullable()
    .describe('Rules that took the row out of the copy though the source has it; null where that cannot be told'),
  position: z.string().describe('Where its commit, or its snapshot, stands in the source'),
  committed_at: z.string(),
  batch_id: z.string().nullable().describe('The batch that wrote it; null when no record tells'),
  rules_version: z.number().nullable(),
  workflow: z
    .object({
      id: z.string(),
      run_id: z.string(),
      event_id: z.number().nullable().describe('Of the activity, in the workflow history; null when that is gone'),
      url: z.string(),
    })
    .nullable(),
});

export const rowLineage = z.object({
  asset_id: z.string(),
  key: z.string(),
  complete: z.boolean().describe('False where only a copy is kept: it forgets versions that were overtaken'),
  versions: z.array(rowVersion).describe('Newest first'),
});
export type RowLineage = z.infer<typeof rowLineage>;

const assetType = z
  .enum(['source_table', 'api', 'csv', 'kafka', 'copy', 'window'])
  .describe('`copy` is a table in ClickHouse');
const edge = z.object({
  from: z.string(),
  to: z.string(),
  via: z.string().describe('capture, extract, load, or the id of a rule or a window'),
  columns: z
    .array(z.object({ from: z.string(), to: z.string() }))
    .describe('Values of `from` are in `to`; `*` = it decides which rows there are'),
});
const reached = z.object({ asset_id: z.string(), type: assetType, depth: z.number() });

export const walkQuery = z.strictObject({
  max_depth: z.coerce.number().int().min(0).max(1000).optional().describe('Steps at most; default all'),
});
export const walkAnswer = z.object({
  asset_id: z.string(),
  assets: z.array(reached).describe('Nearest first'),
  edges: z.array(edge),
});
export type WalkAnswer = z.infer<typeof walkAnswer>;

export const impactQuery = z.strictObject({
  column: z.string().min(1).max(300).optional().describe('Of this column alone; default all'),
});
export const impactAnswer = z.object({
  asset_id: z.string(),
  total_affected: z.number(),
  affected: z.array(
    reached.extend({
      columns: z.array(z.string()).describe('Columns that depend on the asset'),
      sources_of_record: z.array(z.string()).describe('Assets where all that flows into it begins'),
    }),
  ),
  critical_path: z.array(z.string()).describe('The longest chain from the asset on, by its steps'),
});
export type ImpactAnswer = z.infer<typeof impactAnswer>;

export const flowQuery = z.strictObject({ format: z.enum(['json', 'dot', 'mermaid']).default('json') });
export const flowAnswer = z.object({
  assets: z.array(z.object({ asset_id: z.string(), type: assetType, columns: z.array(z.string()) })),
  edges: z.array(
    edge.extend({
      definition: z
        .object({
          version: z.number().describe('Counts the definitions of the asset'),
          generation: z.number().describe('Counts the copies that were made of it'),
          since: z.string(),
          workflow: z.object({ id: z.string(), run_id: z.string(), url: z.string() }).nullable(),
        })
        .nullable()
        .describe('Which definition made it, since when, by which run'),
    }),
  ),
});
export type FlowAnswer = z.infer<typeof flowAnswer>;
