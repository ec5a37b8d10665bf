/** What `--for` ends with: streams drain, every copy is compared with its source, and the result is told. */
import { setTimeout as sleep } from 'node:timers/promises';
import { asSluiceError, describeError } from '../../model/errors.ts';
import type { SourceState, StackApi, Verification } from './stack_api.ts';

type Say = (line: string) => void;

/**
 * Compares all sources that copy. True when all copies are identical, and `expected` (a source that should copy) is
 * among them.
 */
export async function finalCheck(api: StackApi, say: Say, expected?: string): Promise<boolean> {
  const { sources } = await api.pipeline();
  const copying = sources.filter((source) => source.status !== 'connected');
  await drain(api, copying, say);
  const lines: string[] = [];
  let identical = expected === undefined || copying.some(({ id }) => id === expected);
  if (!identical) lines.push(`  ${expected}: NOT copied`);
  for (const { id } of copying) {
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
