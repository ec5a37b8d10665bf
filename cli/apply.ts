/** `sluice apply`: the files of config/, made so. */
import path from 'node:path';
import type { Command } from 'commander';
import { type ApplyAnswer, applyFiles } from '../api/control/apply.ts';
import type { Planned } from '../api/control/apply_plan.ts';
import { readConfig } from '../workers/config.ts';
import { projectFolder } from '../workers/settings.ts';
import { print, printJson, wantsJson, withControl } from './print.ts';

interface ApplyFlags {
  dryRun?: boolean;
  prune?: boolean;
  dir?: string;
}

export function addApply(program: Command, done: (status: number) => void): void {
  program
    .command('apply')
    .description('make sources, rules and checks as the files of config/ say; what is so already stays as it is')
    .option('--dry-run', 'only say what would change')
    .option('--prune', 'take rules, checks and tables of sources away that are not in the files')
    .option('--dir <folder>', 'folder of the files; default SLUICE_CONFIG_DIR, or config/')
    .option('--json', 'print JSON')
    .addHelpText('after', '\nExamples:\n  $ npx sluice apply --dry-run\n  $ npx sluice apply --dir /etc/sluice --prune')
    .action(async ({ dryRun, prune, dir }: ApplyFlags, command: Command) => {
      const folder = dir ?? process.env.SLUICE_CONFIG_DIR ?? path.join(projectFolder, 'config');
      const answer = await withControl(async (control) => {
        // As where the stack runs.
        const { clickhouseUrl: CLICKHOUSE_URL } = control.settings;
        const files = readConfig(path.relative(process.cwd(), path.resolve(folder)) || '.', {
          CLICKHOUSE_URL,
          ...process.env,
        });
        return applyFiles(control, files, { dryRun, prune });
      });
      if (wantsJson(command)) printJson(answer);
      else print(applyText(answer));
      done(answer.changes.some(({ error }) => error !== null) ? 1 : 0);
    });
}

const said: Record<Planned['action'], [future: string, past: string]> = {
  create: ['would create', 'created'],
  update: ['would update', 'updated'],
  delete: ['would delete', 'deleted'],
  unchanged: ['unchanged', 'unchanged'],
  extra: ['not in the files', 'not in the files'],
  conflict: ['conflict', 'conflict'],
};

/** A line for each thing, and under it a line for each field that is another. */
function applyText({ dry_run: dryRun, changes, rules_version: version }: ApplyAnswer): string {
  const word = ({ action, error }: Planned) =>
    error !== null && action !== 'conflict' ? 'FAILED' : said[action][dryRun ? 0 : 1];
  const width = Math.max(0, ...changes.map((change) => word(change).length));
  const lines = changes.flatMap((change) => [
    `${word(change).padEnd(width)}  ${change.what} ${change.id}${change.action === 'extra' ? '  kept; --prune takes it away' : ''}`,
    ...change.differences.map(({ field, from, to }) => `    ${field}: ${valueText(from)} → ${valueText(to)}`),
    ...(change.error === null ? [] : [`    ! ${change.error}`]),
  ]);
  const changing = changes.some(({ action }) => action === 'create' || action === 'update' || action === 'delete');
  const verdict = changing
    ? dryRun
      ? 'nothing was changed (--dry-run)'
      : `rules are version ${version}`
    : 'nothing to change';
  return [...lines, verdict].join('\n');
}

function valueText(value: unknown): string {
  if (value === null) return '(none)';
  return typeof value === 'string' ? value : JSON.stringify(value);
}
