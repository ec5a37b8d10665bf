/** Other settings for a source that is connected: told before, or made so without a new slot and without copies from the start. */
import { defineUpdate, setHandler } from '@temporalio/workflow';
import { captureMessages, type SourcePlan } from '../model/messages.ts';
import type { CaptureConfig, CaptureStatus } from '../model/source.ts';
import { sourceChanges } from '../model/source_changes.ts';
import type { Capture } from './capture.ts';
import { expectReady, failing, findMissing, takeIn } from './captureMessages.ts';
import { nameOf, statusOf } from './captureState.ts';
import type { Connection } from './connect.ts';
import { expectKeys, isObject, readConnectRequest, refusalOf } from './input.ts';
import { refuse } from './refuse.ts';

interface Wanted {
  config: CaptureConfig;
}

export const plan = defineUpdate<SourcePlan, [Wanted]>(captureMessages.plan);
export const configure = defineUpdate<CaptureStatus, [Wanted]>(captureMessages.configure);

/** Registers both handlers. */
export function listenToSettings(capture: Capture, connection: Connection): void {
  const validator = (input: Wanted) => {
    expectReady(capture, connection);
    readWanted(capture, input);
  };
  setHandler(configure, (input) => failing(() => change(capture, readWanted(capture, input))), {
    description:
      'Other settings: {"config": {…}} whole, as it is to be. Tables that it means besides are copied; those that it means no more stay.',
    validator,
  });
  setHandler(plan, (input) => failing(() => planOf(capture, readWanted(capture, input))), {
    description: 'What `configure` would do with {"config": {…}}; nothing is changed.',
    validator,
  });
}

function readWanted({ state }: Capture, input: unknown): CaptureConfig {
  const bad = refusalOf(input, 'Right is e.g. {"config": {"tables": ["accounts", "orders"], "poll_interval": 2}}.');
  if (!isObject(input) || input.config === undefined) throw bad('the input has no `config`');
  expectKeys(input, ['config'], bad);
  return readConnectRequest({ ...state.request, config: input.config }).config;
}

/** Throws `preflight` for tables that cannot be copied. */
async function planOf({ state }: Capture, config: CaptureConfig): Promise<SourcePlan> {
  const { changed, fixed, missing, extra } = sourceChanges(state.request.config, config, state.tables);
  const found = missing && fixed.length === 0 ? await findMissing(state, missing, config) : [];
  const added = found.filter((table) => !state.tables.some((other) => other.asset_id === table.asset_id));
  return { changed, fixed, added: added.map(nameOf), extra: extra.map(nameOf) };
}

async function change(capture: Capture, config: CaptureConfig): Promise<CaptureStatus> {
  const { state } = capture;
  const { fixed, missing } = sourceChanges(state.request.config, config, state.tables);
  if (fixed.length > 0) {
    const remedy = 'Keep them as they are, or remove the source and connect it anew.';
    throw refuse('conflict', `${fixed.join(', ')} cannot change while the source is connected`, remedy);
  }
  if (missing) takeIn(capture, await findMissing(state, missing, config));
  state.request = { ...state.request, config };
  capture.announce();
  capture.reconfigure();
  return statusOf(state);
}
