/** Comparing a source with its copies: starts the flow, reads its stored result. */
import {
  lastVerification as lastStored,
  readVerification,
  type Verification,
} from '../../activities/check/verify_store.ts';
import { SluiceError } from '../../model/errors.ts';
import { flowNames, type VerifyRequest, verifyWorkflowId } from '../../model/messages.ts';
import { acted } from './actions.ts';
import { type Control, workflowUrl } from './control.ts';
import { ifThere } from './figures.ts';
import { findSchedule } from './schedules.ts';
import type { VerifyAnswer } from './shapes.ts';
import { getSource } from './sources.ts';
import { bounded, failureOf, startFlow } from './temporal.ts';

/** What to compare, and whether to mend it. */
export type VerifyWish = Pick<VerifyRequest, 'table' | 'repair'>;

/** Starts a comparison; one that runs already is the one. Errors: `not_found`, `no_worker`. */
export async function startVerification(
  control: Control,
  source: string,
  what: VerifyWish = {},
): Promise<VerifyAnswer> {
  return begun(control, source, await startRun(control, source, what));
}

function begun(control: Control, source: string, run: string): VerifyAnswer {
  const id = verifyWorkflowId(source);
  const workflow = { id, run_id: run, url: workflowUrl(control.settings, id, run) };
  return { source, status: 'running', identical: null, tables: [], workflow };
}

/** The run that somebody asked for and that has not ended; undefined also while Temporal cannot be asked. */
async function runningFlow(control: Control, source: string): Promise<string | undefined> {
  const id = verifyWorkflowId(source);
  const look = () => control.temporal.workflow.getHandle(id).describe();
  const found = await bounded(control, `the flow ${id}`, look).catch(() => undefined);
  return found?.status.name === 'RUNNING' ? found.runId : undefined;
}

function startRun(control: Control, source: string, what: VerifyWish): Promise<string> {
  return acted(control, { action: 'verify', target: source, input: { ...what } }, () =>
    startFlowOf(control, source, what),
  );
}

async function startFlowOf(control: Control, source: string, { table, repair }: VerifyWish): Promise<string> {
  const tables = await tablesOf(control, source);
  const known = tables.some(
    ({ asset_id, table: name }) =>
      table === asset_id || table === name || table === `clickhouse_${asset_id}` || table === `public.${name}`,
  );
  if (table !== undefined && !known) {
    const remedy = `It has ${tables
      .slice(0, 30)
      .map((one) => one.table)
      .join(', ')}.`;
    throw new SluiceError('not_found', `the source ${source} has no table ${table}`, remedy, { source, table });
  }
  const input: VerifyRequest = { source, ...(table === undefined ? {} : { table }), ...(repair ? { repair } : {}) };
  const id = verifyWorkflowId(source);
  return await startFlow(control, {
    type: flowNames.verifyCopy,
    id,
    input,
    summary: `Compares ${source} with its copies`,
    key: control.idempotencyKey,
  });
}

/** Tables of a source; of a deployment, which has one copy, that. Errors: `not_found`. */
async function tablesOf(control: Control, id: string): Promise<{ asset_id: string; table: string }[]> {
  const schedule = await findSchedule(control, id);
  if (schedule?.action.workflowType === flowNames.extractAssets) return [{ asset_id: id, table: id }];
  return (await getSource(control, id)).tables;
}

/** The newest comparison, running or not. Errors: `not_found` when there was none. */
export async function lastVerification(control: Control, source: string): Promise<VerifyAnswer> {
  const [stored, running] = await Promise.all([
    ifThere(() => lastStored(control.clickhouse, source)),
    runningFlow(control, source),
  ]);
  // One that was started a moment ago has stored nothing yet, and what is stored is of another.
  if (running !== undefined && stored?.status !== 'running') return begun(control, source, running);
  if (stored) return shape(stored);
  await tablesOf(control, source);
  const remedy = `Start one: \`sluice verify ${source}\`, or POST /api/v1/verify/${source}.`;
  throw new SluiceError('not_found', `the source ${source} was never compared`, remedy, { source });
}

/** Compares and waits for the result, however long it takes. Errors: what the comparison itself stopped at. */
export async function verifyNow(control: Control, source: string, what: VerifyWish = {}): Promise<VerifyAnswer> {
  const run = await startRun(control, source, what);
  const handle = control.temporal.workflow.getHandle(verifyWorkflowId(source), run);
  try {
    const { id } = (await handle.result()) as { id: string };
    const stored = await ifThere(() => readVerification(control.clickhouse, id));
    return stored ? shape(stored) : await lastVerification(control, source);
  } catch (error) {
    throw failureOf(error, `the comparison of ${source}`);
  }
}

function shape(stored: Verification): VerifyAnswer {
  const tables = stored.tables.map((table) => ({ ...table }));
  return { ...stored, tables, identical: stored.status === 'finished' ? stored.identical : null };
}
