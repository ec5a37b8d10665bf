/** `sluice deploy` and `sluice deployments …`. */
import path from 'node:path';
import type { Command } from 'commander';
import type { Control } from '../api/control/control.ts';
import { type Change, type DeployAnswer, deploy } from '../api/control/deploy.ts';
import { triggerDeployment } from '../api/control/deployment_runs.ts';
import type { DeploymentAnswer } from '../api/control/deployment_shapes.ts';
import { deleteDeployment, listDeployments, pauseDeployment, resumeDeployment } from '../api/control/deployments.ts';
import { readDeployments } from '../workers/deployment_files.ts';
import { projectFolder } from '../workers/settings.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

type Done = (status: number) => void;

export function addDeployments(program: Command, done: Done): void {
  addDeploy(program, done);
  const deployments = program
    .command('deployments')
    .description('what runs by schedule: see it, pause it, run it')
    .helpCommand(false);
  deployments
    .command('list')
    .description('all deployments: what runs, what ran, what comes next')
    .option('--json', 'print JSON')
    .action(async (_options: object, command: Command) => {
      const answer = await withControl(listDeployments);
      if (wantsJson(command)) printJson(answer);
      else print(answer.length > 0 ? deploymentsText(answer) : 'no deployments yet. Make them: npx sluice deploy');
      done(0);
    });
  const order = (name: string, description: string) =>
    deployments.command(`${name} <name>`).description(description).option('--json', 'print JSON');
  const act = async (command: Command, run: (control: Control) => Promise<DeploymentAnswer>) => {
    const answer = await withControl(run);
    if (wantsJson(command)) printJson(answer);
    else print(deploymentsText([answer]));
    done(0);
  };
  order('pause', 'nothing runs by schedule until it is resumed; `pipeline start` leaves it alone')
    .option('--note <text>', 'why; shown in Temporal UI and in the list')
    .action((name: string, { note }: { note?: string }, command: Command) =>
      act(command, (control) => pauseDeployment(control, name, note || undefined)),
    );
  order('resume', 'go on by schedule').action((name: string, _options: object, command: Command) =>
    act(command, (control) => resumeDeployment(control, name)),
  );
  order('trigger', 'let the schedule make a run now, under its own overlap policy').action(
    (name: string, _options: object, command: Command) => act(command, (control) => triggerDeployment(control, name)),
  );
  order('delete', 'delete the schedule; runs under way go on, and the copy stays').action(
    async (name: string, _options: object, command: Command) => {
      await withControl((control) => deleteDeployment(control, name));
      if (wantsJson(command)) printJson({ name, deleted: true });
      else print(`${name} is deleted; its copy stays. From its file it is made again: npx sluice deploy`);
      done(0);
    },
  );
}

interface DeployFlags {
  dryRun?: boolean;
  prune?: boolean;
  dir: string;
}

function addDeploy(program: Command, done: Done): void {
  program
    .command('deploy')
    .description('make Temporal’s schedules equal to the files of deployments/')
    .option('--dry-run', 'only say what would change')
    .option('--prune', 'delete schedules of Sluice that have no file any more')
    .option('--dir <folder>', 'folder of the files', path.join(projectFolder, 'deployments'))
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice deploy --dry-run\n  $ npx sluice deploy --prune\n  $ npx sluice deploy --dir /etc/sluice/deployments',
    )
    .action(async ({ dryRun, prune, dir }: DeployFlags, command: Command) => {
      const files = readDeployments(path.relative(process.cwd(), path.resolve(dir)) || '.');
      const answer = await withControl((control) => deploy(control, files, { dryRun, prune }));
      if (wantsJson(command)) printJson(answer);
      else print(deployText(answer));
      done(answer.changes.some((change) => change.error !== null) ? 1 : 0);
    });
}

const said: Record<Change['action'], [future: string, past: string]> = {
  create: ['would create', 'created'],
  update: ['would update', 'updated'],
  delete: ['would delete', 'deleted'],
  unchanged: ['unchanged', 'unchanged'],
  extra: ['no file', 'no file'],
};

/** The difference as people read it: a line a deployment, and under it a line a field. */
export function deployText({ dry_run: dryRun, changes }: DeployAnswer): string {
  const word = ({ action, error }: Change) => (error === null ? said[action][dryRun ? 0 : 1] : 'FAILED');
  const width = Math.max(...changes.map((change) => word(change).length));
  const lines = changes.flatMap((change) => {
    const hint = change.action === 'extra' ? 'kept; --prune deletes it' : (change.file ?? '');
    return [
      `${word(change).padEnd(width)}  ${change.name}  ${hint}`.trimEnd(),
      ...change.differences.map(({ field, from, to }) => `    ${field}: ${valueText(from)} → ${valueText(to)}`),
      ...(change.error === null ? [] : [`    ! ${change.error}`]),
    ];
  });
  const changing = changes.filter(({ action }) => action !== 'unchanged' && action !== 'extra').length;
  const verdict = changing === 0 ? 'nothing to change' : dryRun ? 'nothing was changed (--dry-run)' : '';
  return [...lines, ...(verdict ? [verdict] : [])].join('\n');
}

function valueText(value: unknown): string {
  if (value === null) return '(none)';
  return typeof value === 'string' ? value : JSON.stringify(value);
}

/** Deployments as people read them: a table, then what needs a look. */
export function deploymentsText(deployments: DeploymentAnswer[]): string {
  const rows = deployments.map((one) => [
    one.name,
    one.running.length > 0 ? `${one.status}, ${one.running.length} running` : one.status,
    one.flow,
    scheduleText(one),
    one.next_runs[0] ?? null,
    lastRunText(one),
  ]);
  return [
    table(['deployment', 'state', 'flow', 'schedule', 'next run', 'last run'], rows),
    ...deployments.flatMap(remarks),
  ].join('\n');
}

function scheduleText({ schedule }: DeploymentAnswer): string {
  const texts = schedule.map((entry) =>
    'interval' in entry ? `every ${entry.interval}` : `${entry.cron} ${entry.timezone}`,
  );
  return texts.join(', ') || 'by hand';
}

function lastRunText({ last_runs: runs }: DeploymentAnswer): string | null {
  const last = runs.find((run) => run.closed_at !== null);
  return last ? `${last.status} ${last.closed_at}` : null;
}

function remarks(one: DeploymentAnswer): string[] {
  const { catchup_window: late, buffer, overlap, command } = one.missed;
  const lines = one.last_error ? [`! ${one.name}: ${one.last_error.reason}. ${one.last_error.remedy}`] : [];
  if (one.paused && one.note !== '') lines.push(`${one.name}: ${one.note}`);
  if (late + buffer > 0)
    lines.push(`! ${one.name}: ${late + buffer} runs were missed.${command ? ` Make up for them: ${command}` : ''}`);
  if (overlap > 0) lines.push(`${one.name}: ${overlap} runs were left out because another one ran (${one.overlap})`);
  if (one.drift.length > 0) {
    const fields = one.drift.map((difference) => difference.field).join(', ');
    lines.push(`! ${one.name}: changed by hand in Temporal: ${fields}. \`npx sluice deploy\` mends it`);
  }
  return lines;
}
