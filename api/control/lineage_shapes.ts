/** What the REST API answers about lineage. */
import { z } from 'zod';

export const rowLineageQuery = z.strictObject({
  key: z.string().min(1).max(10_000).describe('Plain text for a key of one column, a JSON object by column for any'),
});

const rowVersion = z.object({
  version: z.string().describe('Decimal text of 128 bits: the higher wins'),
  op: z.enum(['snapshot', 'upsert', 'delete']),
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
