/** The schedule by which a source is compared with its copies, for ever and at a low rate. */
import { ScheduleNotFoundError, type ScheduleOptions } from '@temporalio/client';
import { sourceAttributes } from '../../flows/searchAttributes.ts';
import { flowNames, type VerifyRequest, verifyScheduleId, verifyWorkflowId } from '../../model/messages.ts';
import type { ConnectRequest } from '../../model/source.ts';
import { verifySettings } from '../../model/verify.ts';
import type { CaptureContext } from '../capture/context.ts';

/** Makes the schedule what the source's options say; what people paused stays paused. */
export async function scheduleVerification(
  context: CaptureContext,
  request: ConnectRequest,
  taskQueue: string,
): Promise<void> {
  const wanted = scheduleOf(request, taskQueue);
  if (!wanted) return unscheduleVerification(context, request.id);
  const handle = context.schedules.getHandle(wanted.scheduleId);
  try {
    await handle.update(({ state }) => ({ ...wanted, state: { paused: state.paused, note: state.note } }) as never);
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error;
    await context.schedules.create(wanted);
  }
}

/** Removes the schedule; none is no error. */
export async function unscheduleVerification(context: CaptureContext, source: string): Promise<void> {
  try {
    await context.schedules.getHandle(verifyScheduleId(source)).delete();
  } catch (error) {
    if (!(error instanceof ScheduleNotFoundError)) throw error;
  }
}

function scheduleOf({ id, config }: ConnectRequest, taskQueue: string): ScheduleOptions | undefined {
  const settings = verifySettings(config.options);
  if (!settings) return undefined;
  const { interval, share, repair } = settings;
  const input: VerifyRequest = { source: id, scheduled: true, share, repair };
  const attributes = sourceAttributes(id, flowNames.verifyCopy);
  return {
    scheduleId: verifyScheduleId(id),
    // Not all sources at the same moment.
    spec: { intervals: [{ every: interval * 1000, offset: offsetOf(id, interval) * 1000 }] },
    action: {
      type: 'startWorkflow',
      workflowType: flowNames.verifyCopy,
      workflowId: verifyWorkflowId(id),
      args: [input],
      taskQueue,
      staticSummary: `Compares ${id} with its copies, by schedule`,
      typedSearchAttributes: attributes as never,
    },
    // One that takes longer than the interval is followed by the next one, and misses nothing.
    policies: { overlap: 'SKIP', catchupWindow: '1m', pauseOnFailure: false },
    typedSearchAttributes: attributes as never,
  };
}

/** Seconds into the interval, the same for a source at all times. */
function offsetOf(id: string, interval: number): number {
  let sum = 0;
  for (const letter of id) sum = (sum * 31 + letter.charCodeAt(0)) % 1_000_003;
  return sum % interval;
}
