/** `sluice status`. */
import { setTimeout as sleep } from 'node:timers/promises';
import type { Command } from 'commander';
import type { Control } from '../api/control/control.ts';
import { pipelineStatus } from '../api/control/pipeline.ts';
import type { PipelineAnswer } from '../api/control/pipeline_shapes.ts';
import type { SourceAnswer } from '../api/control/shapes.ts';
import { asSluiceError, describeError } from '../model/errors.ts';
import { size } from '../model/log.ts';
import { deploymentsText } from './deployments.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

export function addStatus(program: Command, done: (status: number) => void): void {
  program
    .command('status')
    .description('state, rows and lag of every source and table, and what runs by schedule')
    .option('--json', 'print JSON')
    .option('-w, --watch', 'again each second, until Ctrl-C')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice status\n  $ npx sluice status --watch\n  $ npx sluice status --json',
    )
    .action(async (options: { watch?: boolean }, command: Command) => {
      await withControl((control) => (options.watch ? watch(control) : once(control, wantsJson(command))));
      done(0);
    });
}

async function once(control: Control, json: boolean): Promise<void> {
  const answer = await pipelineStatus(control);
  if (json) printJson(answer);
  else print(statusText(answer));
}

async function watch(control: Control): Promise<void> {
  for (;;) {
    const text = await pipelineStatus(control).then(statusText, (error) => describeError(asSluiceError(error)));
    process.stdout.write(process.stdout.isTTY ? `\u001b[H\u001b[2J${text}\n` : `${text}\n\n`);
    await sleep(1000);
  }
}

/** The status as people read it. */
export function statusText(answer: PipelineAnswer): string {
  const { status, sources, deployments } = answer;
  if (sources.length + deployments.length === 0)
    return `${status}: no sources yet. Connect one: npx sluice sources connect --help`;
  const texts = sources.map(sourceText);
  if (deployments.length > 0) texts.push(deploymentsText(deployments));
  return [`pipeline ${status}`, ...texts].join('\n\n');
}

/** A source with its tables and what is wrong with them. */
export function sourceText(source: SourceAnswer): string {
  const lag =
    source.lag_seconds === null ? '' : ` · lag ${source.lag_seconds.toFixed(1)} s, ${size(source.lag_bytes ?? 0)}`;
  const head = `${source.id} (${source.type}) ${source.status} · ${source.changes_total?.toLocaleString('en-GB') ?? '?'} changes${lag} · at ${source.position || 'its beginning'}`;
  const rows = source.tables.map((one) => [one.table, progress(one), one.rows, one.rejected, one.asset_id]);
  const problems = source.tables.flatMap((one) => {
    const affects = one.affects?.length ? ` It affects ${one.affects.join(', ')}.` : '';
    if (one.error) return [`! ${one.table}: ${one.error.reason}. ${one.error.remedy}${affects}`];
    return one.notice ? [`  ${one.table} is copied anew: ${one.notice}`] : [];
  });
  if (source.last_error)
    problems.unshift(`! ${source.last_error.kind}: ${source.last_error.reason}. ${source.last_error.remedy}`);
  if (source.warning) problems.push(`! ${source.warning}`);
  for (const one of source.left_out) problems.push(`! ${one.table} is left out: ${one.reason}. ${one.remedy}`);
  for (const { kind, reason, remedy } of source.alarms) problems.push(`! ${kind}: ${reason}. ${remedy}`);
  return [
    head,
    table(['table', 'state', 'rows', 'rejected', 'copy'], rows),
    ...problems,
    `flow: ${source.workflow.url}`,
  ].join('\n');
}

function progress(one: SourceAnswer['tables'][number]): string {
  return one.status === 'snapshotting' ? `snapshotting ${Math.floor(one.progress * 100)} %` : one.status;
}
