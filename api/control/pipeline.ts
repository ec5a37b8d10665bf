/** All sources at once. */
import { asSluiceError, describeError } from '../../model/errors.ts';
import type { Control } from './control.ts';
import type { PipelineAnswer, SourceAnswer } from './shapes.ts';
import { listSources, orderSource, type SourceOrder } from './sources.ts';

/** The state of everything: running = something advances and nothing failed. */
export async function pipelineStatus(control: Control): Promise<PipelineAnswer> {
  const sources = await listSources(control);
  return { status: pipelineState(sources), sources, deployments: [] };
}

/** Of sources, the pipeline's state. */
export function pipelineState(
  sources: Pick<SourceAnswer, 'status' | 'last_error' | 'tables'>[],
): PipelineAnswer['status'] {
  if (sources.some(isFailing)) return 'degraded';
  const moves = sources.some((source) => source.status === 'streaming' || source.status === 'snapshotting');
  return moves ? 'running' : 'stopped';
}

/** True when the source, its lease or one of its tables does not advance because of an error. */
export function isFailing(source: Pick<SourceAnswer, 'status' | 'last_error' | 'tables'>): boolean {
  const moves = source.status === 'streaming' || source.status === 'snapshotting';
  if (source.status === 'failed' || (moves && source.last_error !== null)) return true;
  return moves && source.tables.some((table) => table.status === 'failed');
}

/** What became of one order to all sources. */
export interface PipelineOrder {
  status: PipelineAnswer['status'];
  sources: string[];
  failed: { id: string; reason: string }[];
}

/** Starts what is connected, stopped or failed; what people have paused stays paused. */
export async function startPipeline(control: Control): Promise<PipelineOrder> {
  return await orderAll(control, 'start', ['connected', 'stopped', 'failed']);
}

/** Stops all; slots and positions are kept. */
export async function stopPipeline(control: Control): Promise<PipelineOrder> {
  return await orderAll(control, 'stop', ['connected', 'snapshotting', 'streaming', 'paused', 'failed']);
}

async function orderAll(
  control: Control,
  order: SourceOrder,
  states: SourceAnswer['status'][],
): Promise<PipelineOrder> {
  const chosen = (await listSources(control)).filter((source) => states.includes(source.status));
  const results = await Promise.allSettled(chosen.map((source) => orderSource(control, source.id, order)));
  const failed = results.flatMap((result, index) => {
    if (result.status === 'fulfilled') return [];
    return [{ id: chosen[index]?.id ?? '', reason: describeError(asSluiceError(result.reason)) }];
  });
  const now = await listSources(control);
  return { status: pipelineState(now), sources: chosen.map((source) => source.id), failed };
}
