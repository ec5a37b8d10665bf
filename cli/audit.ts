/** `sluice audit`: batch records, and whether they are whole. */
import type { Command } from 'commander';
import type { AuditResult } from '../activities/lineage/audit.ts';
import type { ActionsAnswer } from '../api/control/action_shapes.ts';
import { listActions } from '../api/control/actions.ts';
import { checkAudit, listAudit } from '../api/control/audit.ts';
import type { AuditAnswer } from '../api/control/shapes.ts';
import { parseDuration } from '../model/duration.ts';
import { SluiceError } from '../model/errors.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

interface AuditOptions {
  source?: string;
  asset?: string;
  since?: string;
  limit?: string;
  check?: boolean;
  actions?: boolean;
}

export function addAudit(program: Command, done: (status: number) => void): void {
  program
    .command('audit')
    .description(
      'what each batch did; with --check the proof that nothing is missing (exit status 1 when something is)',
    )
    .option('--source <id>', 'of this source or deployment only')
    .option('--asset <id>', 'of this asset only')
    .option('--since <time>', 'a time, or how long ago: 2026-01-31T12:00:00Z, 1h')
    .option('--limit <records>', 'at most so many; default 50')
    .option(
      '--check',
      'prove that records are whole: nothing changed, missing, unaccounted for or acknowledged too early',
    )
    .option('--actions', 'what people did instead: who, when, what, with which outcome')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice audit --source postgres_main --since 10m\n  $ npx sluice audit --actions --since 1d\n  $ npx sluice audit --check',
    )
    .action(async (options: AuditOptions, command: Command) => {
      const since = readSince(options.since);
      const { source } = options;
      if (options.check) {
        const results = await withControl((control) => checkAudit(control, { source, since }));
        if (wantsJson(command)) printJson(results);
        else print(checkText(results));
        return done(results.every((result) => result.faults.length === 0) ? 0 : 1);
      }
      const limit = readLimit(options.limit);
      if (options.actions) {
        const which = { target: source, from: since, limit };
        const answer = await withControl((control) => listActions(control, which));
        if (wantsJson(command)) printJson(answer);
        else print(actionsText(answer));
        return done(0);
      }
      const wanted = { source, asset: options.asset, from: since, limit };
      const answer = await withControl((control) => listAudit(control, wanted));
      if (wantsJson(command)) printJson(answer);
      else print(listText(answer));
      done(0);
    });
}

/** An instant, or a duration before now. */
function readSince(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const seconds = parseDuration(text);
  const at = seconds === undefined ? Date.parse(text) : Date.now() - seconds * 1000;
  if (!Number.isNaN(at)) return new Date(at).toISOString();
  throw new SluiceError(
    'configuration',
    `--since ${text} is neither a time nor a duration`,
    'Write e.g. 1h, or 2026-01-31.',
  );
}

function readLimit(text: string | undefined): number {
  const limit = Number(text ?? 50);
  if (Number.isSafeInteger(limit) && limit >= 1 && limit <= 1000) return limit;
  throw new SluiceError('configuration', `--limit ${text} is not a number from 1 to 1000`, 'Write e.g. --limit 100.');
}

function listText(answer: AuditAnswer): string {
  const rows = answer.items.toReversed().map((record) => {
    const accounts = Object.values(record.assets);
    const sum = (name: 'effects' | 'written' | 'rejected') => accounts.reduce((all, account) => all + account[name], 0);
    const time = record.recorded_at.slice(0, 19).replace('T', ' ');
    return [time, record.id, record.kind, record.position_to, sum('effects'), sum('written'), sum('rejected')];
  });
  const more = answer.next_cursor === null ? '' : '\n(older ones are not shown: --limit)';
  return `${table(['recorded (UTC)', 'batch', 'kind', 'up to', 'effects', 'written', 'rejected'], rows)}${more}`;
}

function actionsText(answer: ActionsAnswer): string {
  const rows = answer.items
    .toReversed()
    .map(({ at, via, who, action, target, input, outcome, reason, milliseconds }) => {
      const time = at.slice(0, 19).replace('T', ' ');
      const given = Object.keys(input).length > 0 ? JSON.stringify(input).slice(0, 80) : '';
      const came = outcome === 'failed' ? `failed: ${reason.slice(0, 100)}` : outcome;
      return [time, via, who, action, target, given, milliseconds, came];
    });
  const more = answer.next_cursor === null ? '' : '\n(older ones are not shown: --limit)';
  return `${table(['asked (UTC)', 'via', 'who', 'what', 'of', 'with', 'ms', 'outcome'], rows)}${more}`;
}

const shownFaults = 100;

function checkText(results: AuditResult[]): string {
  if (results.length === 0) return 'there are no records yet';
  return results.map(resultText).join('\n');
}

function resultText(result: AuditResult): string {
  const { source, records, leases, effects, released, from, to, faults, notes } = result;
  const range = from === null ? '' : `, ${from} to ${to} without gap`;
  const after = released === 0 ? '' : `, ${released} rows released`;
  const count = `${records} records of ${leases} leases, ${effects} effects${after}`;
  const head =
    faults.length === 0
      ? `✓ ${source}: ${count}${range}`
      : `✗ ${source}: ${count}, ${faults.length} of them or about them wrong`;
  const lines = faults
    .slice(0, shownFaults)
    .map(({ fault, batch, detail }) => `  ${fault} ${batch ? `${batch}: ` : ''}${detail}`);
  const more = faults.length > shownFaults ? [`  and ${faults.length - shownFaults} more (--json lists them)`] : [];
  return [head, ...lines, ...more, ...notes.slice(-5).map((note) => `  note: ${note}`)].join('\n');
}
