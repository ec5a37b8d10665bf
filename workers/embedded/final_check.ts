/**
 * What `--for` ends with: streams drain, deployments of assets run once more, every copy is compared with its source, and
 * the result is told.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { asSluiceError, describeError, SluiceError } from '../../model/errors.ts';
import type { DeploymentState, RunState, SourceState, StackApi, Verification } from './stack_api.ts';

type Say = (line: string) => void;

/**
 * Compares all sources that copy, and all deployments of assets after one more run. True when all copies are identical,
 * and `expected` (ids of sources and deployments that should copy) are among them.
 */
export async function finalCheck(api: StackApi, say: Say, expected: string[] = []): Promise<boolean> {
  const { sources } = await api.pipeline();
  const sourcesCopying = sources.filter((source) => source.status !== 'connected');
  const deployments = (await api.deployments()).filter(({ flow }) => flow === 'extractAssets');
  const lines: string[] = [];
  const ran = runAll(api, deployments, lines);
  await drain(api, sourcesCopying, say);
  await ran;
  const copying = [...sourcesCopying.map(({ id }) => id), ...deployments.map(({ name }) => name)];
  const left = expected.filter((id) => !copying.includes(id));
  for (const id of left) lines.push(`  ${id}: NOT copied`);
  let identical = left.length === 0;
  for (const id of copying) {
    try {
      const result = await verify(api, id);
      identical &&= result.identical === true;
      lines.push(...result.tables.map(describeTable));
      if (result.status !== 'finished') lines.push(`  ${id}: the comparison ${result.status}`);
    } catch (error) {
      identical = false;
      lines.push(`  ${id}: not compared: ${describeError(asSluiceError(error))}`);
    }
  }
  const after = (await api.pipeline()).sources;
  say('');
  say('Summary');
  for (const source of after)
    say(`  ${source.id}: ${source.changes_total?.toLocaleString('en') ?? 'unknown'} changes, ${source.status}`);
  if (copying.length === 0 && identical) say('  nothing was copied, so nothing is compared');
  for (const line of lines) say(line);
  if (copying.length > 0 || !identical) say(identical ? 'verify: all copies are identical' : 'verify: NOT identical');
  return identical;
}

/** Each deployment once; one that fails is told, and its comparison is the judge. */
async function runAll(api: StackApi, deployments: DeploymentState[], lines: string[]): Promise<void> {
  const results = await Promise.allSettled(deployments.map(({ name }) => runOnce(api, name)));
  for (const [index, result] of results.entries()) {
    if (result.status === 'fulfilled') continue;
    lines.push(`  ${deployments[index]?.name}: its run failed: ${describeError(asSluiceError(result.reason))}`);
  }
}

/** Runs a deployment and waits for the end, at most two minutes. */
async function runOnce(api: StackApi, name: string): Promise<void> {
  const path = `/api/v1/deployments/${encodeURIComponent(name)}`;
  const { workflow } = await api.ask<{ workflow: RunState['workflow'] }>('POST', `${path}/run`, {});
  for (const deadline = Date.now() + 120_000; Date.now() < deadline; await sleep(300)) {
    const answer = await api.call<DeploymentState>('GET', path);
    if (answer.status !== 200) continue;
    const { last_runs, running, last_error } = answer.body;
    const run = [...running, ...last_runs].find((one) => one.workflow.id === workflow.id);
    // The list of runs lags behind a little.
    if (run === undefined || run.status === 'running') continue;
    if (run.status === 'completed') return;
    throw new SluiceError('unexpected', last_error?.reason ?? `it is ${run.status}`, last_error?.remedy ?? '');
  }
  throw new SluiceError('timeout', 'it has not ended in two minutes', `See the run ${workflow.id} in Temporal UI.`);
}

function describeTable(table: Verification['tables'][number]): string {
  const { asset_id, identical, source_rows, copy_rows, missing, extra, different, rejected } = table;
  const rows = `${source_rows.toLocaleString('en')} rows`;
  if (identical) return `  ${asset_id}: identical, ${rows}${rejected > 0 ? `, ${rejected} of them rejected` : ''}`;
  return `  ${asset_id}: NOT identical: ${rows} in the source, ${copy_rows} in the copy; ${missing} missing, ${extra} extra, ${different} different`;
}

/** Waits until everything that was written has been stored, at most two minutes; the comparison is the judge. */
async function drain(api: StackApi, sources: SourceState[], say: Say): Promise<void> {
  const deadline = Date.now() + 120_000;
  for (let told = 0; Date.now() < deadline; await sleep(500)) {
    const now = (await api.pipeline()).sources.filter((source) => sources.some(({ id }) => id === source.id));
    const behind = now.filter((source) => !isDrained(source));
    if (behind.length === 0) return;
    if (Date.now() - told < 10_000) continue;
    told = Date.now();
    say(
      `draining: ${behind.map((source) => `${source.id} (${source.status}, ${source.lag_bytes ?? '?'} bytes)`).join(', ')}`,
    );
  }
}

function isDrained(source: SourceState): boolean {
  if (source.status === 'snapshotting') return false;
  // What cannot advance does not drain either.
  if (source.status !== 'streaming') return true;
  return source.lag_bytes !== null && source.lag_bytes < 4096;
}

async function verify(api: StackApi, source: string): Promise<Verification> {
  const path = `/api/v1/verify/${encodeURIComponent(source)}`;
  let result = await api.ask<Verification>('POST', path, {});
  // Large tables take their time; a comparison of which nothing is heard does not.
  for (let heard = Date.now(); Date.now() - heard < 120_000; await sleep(300)) {
    const answer = await api.call<Verification>('GET', path);
    // Not stored yet, or for the moment nobody to ask.
    if (answer.status === 404 || answer.status >= 500) continue;
    result = answer.body;
    if (result.status !== 'running') return result;
    heard = Date.now();
  }
  return { ...result, status: 'was not finished: nothing was heard of it for two minutes' };
}
