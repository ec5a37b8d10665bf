/**
 * Flow `captureSource`, one for each source: connects, copies tables, then streams for ever.
 *
 *   connected ─start→ prepareSource → leases, one after another ─pause→ paused, ─stop→ stopped
 *                                   ‖ snapshots of tables that have none yet, a few at once
 *
 * A lease ends before anything changes that it reads by: tables, publication, pause, removal. Then the next step
 * follows from the state alone (captureState.ts), so that messages only change the state and end the step.
 */
import {
  allHandlersFinished,
  CancellationScope,
  condition,
  continueAsNew,
  patched,
  sleep,
  upsertSearchAttributes,
  workflowInfo,
} from '@temporalio/workflow';
import { captureWorkflowId } from '../model/messages.ts';
import type { ConnectRequest } from '../model/source.ts';
import { Capture } from './capture.ts';
import { listen } from './captureMessages.ts';
import { listenToSettings } from './captureSettings.ts';
import { type FlowState, type Limits, newState, usualLimits } from './captureState.ts';
import { Connection } from './connect.ts';
import { readConnectRequest } from './input.ts';
import { refuse } from './refuse.ts';
import { sourceAttributes } from './searchAttributes.ts';

/** The state of an earlier run, or other limits for a first one. */
export type Carried = FlowState | { limits: Partial<Limits> };

/** Captures one source. `carried` is the flow's own: people start it with the connect request alone. */
export async function captureSource(input: ConnectRequest, carried?: Carried): Promise<void> {
  const request = readConnectRequest(input);
  const id = captureWorkflowId(request.id);
  if (workflowInfo().workflowId !== id) {
    throw refuse(
      'configuration',
      `the flow of source ${request.id} bears one id`,
      `Start it with --workflow-id ${id}.`,
    );
  }
  const limits = { ...usualLimits, ...carried?.limits };
  const goesOn = carried !== undefined && 'tables' in carried;
  const capture = new Capture(goesOn ? { ...carried, request, limits } : newState(request, limits));
  upsertSearchAttributes(sourceAttributes(request.id, 'captureSource'));
  const connection = new Connection(capture.state, goesOn);
  listen(capture, connection);
  listenToSettings(capture, connection);
  if (!goesOn && !(await connection.establish())) return;
  capture.announce();
  await run(capture);
}

async function run(capture: Capture): Promise<void> {
  for (;;) {
    capture.refresh();
    await condition(() => capture.removed || capture.next() !== 'wait' || capture.wantsNewRun());
    if (capture.removed) break;
    if (capture.wantsNewRun()) {
      await goOnAsNew(capture);
      continue;
    }
    const began = Date.now();
    const step = await capture.doStep();
    // A lease that ends at once, and nobody asked it to, must not fill the history.
    if (step.name === 'lease' && !step.interrupted && Date.now() - began < 1000) await sleep('1s');
    if (CancellationScope.current().consideredCancelled) await CancellationScope.current().cancelRequested;
  }
  await condition(allHandlersFinished);
}

async function goOnAsNew(capture: Capture): Promise<void> {
  capture.closing = true;
  capture.snapshots.stop();
  if (patched('children that do not end')) {
    await condition(() => capture.stepEnded && allHandlersFinished());
    // A chunk that waits for somebody's lock may do so for hours; with this run its children end, and begin again.
    if (!capture.idle) await condition(() => capture.idle, '10s');
  } else await condition(() => capture.idle && allHandlersFinished());
  if (capture.removed) return;
  await continueAsNew<typeof captureSource>(capture.state.request, capture.state);
}
