/** The shapes of deployments that people and programs send and get: for REST and its OpenAPI page. */
import { z } from 'zod';
import { overlapPolicies } from '../../model/deployment.ts';
import { parseInstant } from '../../model/instant.ts';
import { errorReport, sourceId, workflowRef } from './shapes.ts';

const scheduleEntry = z.union([
  z.object({ interval: z.string().describe('e.g. 15m, counted from 1970') }),
  z.object({ cron: z.string(), timezone: z.string() }),
]);

/** A deployment as its file says, with defaults. */
export const definitionShape = z.object({
  name: sourceId.describe('Name of the deployment, and id of its schedule in Temporal'),
  description: z.string(),
  flow: z.string(),
  schedule: z.array(scheduleEntry).describe('Empty = it runs only by hand'),
  parameters: z.record(z.string(), z.unknown()),
  tags: z.array(z.string()),
  task_queue: z.string().optional(),
  overlap: z.enum(overlapPolicies).describe('What happens when a run is due while the one before still runs'),
  catchup_window: z.string().describe('How late a run may still be made up for by itself'),
  paused: z.boolean().optional(),
});

/** One field that differs. */
const difference = z.object({ field: z.string(), from: z.unknown(), to: z.unknown() });
export type Difference = z.infer<typeof difference>;

const run = z.object({
  workflow: workflowRef,
  status: z.string().describe('running, completed, failed, cancelled, terminated, timed_out or continued_as_new'),
  nominal: z.string().nullable().describe('The time that the run stands for; an interval ends there'),
  started_at: z.string(),
  closed_at: z.string().nullable(),
});
export type DeploymentRun = z.infer<typeof run>;

export const deploymentAnswer = definitionShape
  .extend({
    task_queue: z.string(),
    status: z.enum(['active', 'paused', 'manual']).describe('manual = it has no schedule'),
    paused: z.boolean().describe('True while nothing runs by schedule'),
    note: z.string().describe('Why it is paused, or what was last said about it'),
    next_runs: z.array(z.string()).describe('At most five; none while it is paused'),
    running: z.array(run),
    last_runs: z.array(run).describe('The newest ten'),
    last_error: errorReport.nullable().describe('Why the newest run failed; null when it did not'),
    missed: z
      .object({
        catchup_window: z.number().describe('Runs that were due longer ago than the catch-up window'),
        buffer: z.number().describe('Runs that found a thousand others waiting'),
        overlap: z.number().describe('Runs left out because another one ran, as the policy says'),
        command: z.string().nullable().describe('What makes up for the first two'),
      })
      .describe('Runs that the schedule did not make, since it was made'),
    drift: z.array(difference).describe('What somebody changed in Temporal since it was deployed; deploy mends it'),
    position: z.string().nullable().describe('Where the next scheduled run begins; null when it is not known'),
    rows: z.number().nullable().describe('Rows of its copy, at most some seconds old; null when not counted yet'),
    url: z.string().describe('The schedule in Temporal UI'),
  })
  .describe('A deployment: a flow with parameters and a schedule');
export type DeploymentAnswer = z.infer<typeof deploymentAnswer>;

export const runBody = z
  .strictObject({
    parameters: z.record(z.string(), z.unknown()).optional().describe('Replace those of the deployment, key by key'),
  })
  .nullish();

export const pauseBody = z.strictObject({ note: z.string().min(1).max(500).optional() }).nullish();

const instant = z
  .string()
  .refine((text) => parseInstant(text) !== undefined, 'write a date or an instant, e.g. 2026-01-31T09:30:00Z')
  .describe('A date (midnight UTC), or an instant with its zone');

export const backfillBody = z.strictObject({
  from: instant,
  to: instant.describe('The interval is half-open: from belongs to it, to does not. Not in the future'),
  only_missing: z.boolean().default(false).describe('Leave out intervals that a finished run has pulled'),
});
export type BackfillBody = z.infer<typeof backfillBody>;

/** A flow that was started, or runs already. */
export const startedAnswer = z.object({
  deployment: z.string(),
  flow: z.string(),
  status: z.literal('running'),
  input: z.looseObject({}).describe('What the flow was sent'),
  workflow: workflowRef,
});
export type StartedAnswer = z.infer<typeof startedAnswer>;
