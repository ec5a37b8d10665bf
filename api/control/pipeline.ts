/** All sources and deployments at once. */
import { asSluiceError, describeError } from '../../model/errors.ts';
import { acted } from './actions.ts';
import type { Control } from './control.ts';
import type { DeploymentAnswer } from './deployment_shapes.ts';
import {
  activeDeployments,
  listDeployments,
  startDeployment,
  stopDeployment,
  stoppedDeployments,
} from './deployments.ts';
import type { PipelineAnswer, PipelineOrder } from './pipeline_shapes.ts';
import type { SourceAnswer } from './shapes.ts';
import { listSources, orderSource, type SourceOrder } from './sources.ts';

type SourceGlance = Pick<SourceAnswer, 'status' | 'last_error' | 'tables'>;
type DeploymentGlance = Pick<DeploymentAnswer, 'status' | 'last_error'>;

/** The state of everything: running = something advances and nothing failed. */
export async function pipelineStatus(control: Control): Promise<PipelineAnswer> {
  // Sources first: they need a worker, and its absence is what people should hear.
  const sources = await listSources(control);
  const deployments = await listDeployments(control);
  return { status: pipelineState(sources, deployments), sources, deployments };
}

/** Of sources and deployments, the pipeline's state. */
export function pipelineState(sources: SourceGlance[], deployments: DeploymentGlance[]): PipelineAnswer['status'] {
  if (sources.some(isFailing) || deployments.some(isFailingDeployment)) return 'degraded';
  const moves = sources.some((source) => source.status === 'streaming' || source.status === 'snapshotting');
  return moves || deployments.some((deployment) => deployment.status === 'active') ? 'running' : 'stopped';
}

/** True when the source, its lease or one of its tables does not advance because of an error. */
export function isFailing(source: SourceGlance): boolean {
  const moves = source.status === 'streaming' || source.status === 'snapshotting';
  if (source.status === 'failed' || (moves && source.last_error !== null)) return true;
  return moves && source.tables.some((table) => table.status === 'failed');
}

/** True when it should run and its newest run failed. */
export function isFailingDeployment(deployment: DeploymentGlance): boolean {
  return deployment.status === 'active' && deployment.last_error !== null;
}

/** Starts what is connected, stopped or failed, and deployments; what people have paused stays paused. */
export async function startPipeline(control: Control): Promise<PipelineOrder> {
  const states = ['connected', 'stopped', 'failed'] as const;
  return await acted(control, { action: 'start', target: 'pipeline' }, () => orderAll(control, 'start', states));
}

/** Stops all; slots and positions are kept. */
export async function stopPipeline(control: Control): Promise<PipelineOrder> {
  const states = ['connected', 'snapshotting', 'streaming', 'paused', 'failed'] as const;
  return await acted(control, { action: 'stop', target: 'pipeline' }, () => orderAll(control, 'stop', states));
}

async function orderAll(
  control: Control,
  order: SourceOrder & ('start' | 'stop'),
  states: readonly SourceAnswer['status'][],
): Promise<PipelineOrder> {
  const sources = (await listSources(control)).filter((source) => states.includes(source.status)).map(({ id }) => id);
  const deployments = order === 'start' ? await stoppedDeployments(control) : await activeDeployments(control);
  const orderDeployment = order === 'start' ? startDeployment : stopDeployment;
  const results = await Promise.allSettled([
    ...sources.map((id) => orderSource(control, id, order)),
    ...deployments.map((name) => orderDeployment(control, name)),
  ]);
  const failed = results.flatMap((result, index) => {
    if (result.status === 'fulfilled') return [];
    const id = [...sources, ...deployments][index] ?? '';
    return [{ id, reason: describeError(asSluiceError(result.reason)) }];
  });
  const { status } = await pipelineStatus(control);
  return { status, sources, deployments, failed };
}
