/** The shapes of what is said about all sources and deployments at once. */
import { z } from 'zod';
import { deploymentAnswer } from './deployment_shapes.ts';
import { sourceAnswer } from './shapes.ts';

export const pipelineAnswer = z.object({
  status: z.enum(['running', 'stopped', 'degraded']),
  sources: z.array(sourceAnswer),
  deployments: z.array(deploymentAnswer),
});
export type PipelineAnswer = z.infer<typeof pipelineAnswer>;

/** What became of one order to all. */
export const pipelineOrder = z.object({
  status: pipelineAnswer.shape.status,
  sources: z.array(z.string()).describe('Ids that the order went to'),
  deployments: z.array(z.string()).describe('Names that the order went to'),
  failed: z.array(z.object({ id: z.string(), reason: z.string() })),
});
export type PipelineOrder = z.infer<typeof pipelineOrder>;
