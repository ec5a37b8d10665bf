/** `sluice quality`, `sluice rejects …`: what checks say, and rows that are held back. */
import { type Command, InvalidArgumentError, Option } from 'commander';
import { checkQuality, listChecks, listScores } from '../api/control/quality.ts';
import { listRejects, settleRejects } from '../api/control/rejects.ts';
import type { QualityAnswer, RejectsAnswer, SettleBody } from '../api/control/rule_shapes.ts';
import { rejectStates } from '../api/control/rule_shapes.ts';
import type { Check } from '../model/checks.ts';
import { SluiceError } from '../model/errors.ts';
import type { SettleAnswer } from '../model/rejects.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

type Done = (status: number) => void;

export function addQuality(program: Command, done: Done): void {
  program
    .command('quality [asset]')
    .description(
      'run the checks of an asset on its whole copy (exit status 1 when a row fails, or a check cannot run); without one: all checks',
    )
    .option('--scores', 'scores over time instead, the newest first')
    .option('--limit <scores>', 'at most so many; default 50', readLimit, 50)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice quality postgres_main_transactions\n  $ npx sluice quality --scores',
    )
    .action(async (asset: string | undefined, flags: { scores?: boolean; limit: number }, command: Command) => {
      if (flags.scores) return done(await showScores(asset, flags.limit, command));
      if (asset === undefined) return done(await showChecks(command));
      const answer = await withControl((control) => checkQuality(control, { asset_id: asset }));
      if (wantsJson(command)) printJson(answer);
      else print(qualityText(answer));
      done(answer.failed === 0 && !answer.rules.some(({ error }) => error) ? 0 : 1);
    });
}

async function showChecks(command: Command): Promise<number> {
  const checks = await withControl(listChecks);
  if (wantsJson(command)) printJson(checks);
  else
    print(
      checks.length > 0 ? checksText(checks) : 'no checks yet. Declare them in config/quality.yaml: npx sluice apply',
    );
  return 0;
}

async function showScores(asset: string | undefined, limit: number, command: Command): Promise<number> {
  const answer = await withControl((control) => listScores(control, { asset, limit }));
  if (wantsJson(command)) printJson(answer);
  else {
    const rows = answer.items.map((one) => [
      one.at,
      one.asset_id,
      one.rule_id ?? '(all)',
      one.checked,
      one.failed,
      one.score,
    ]);
    print(
      rows.length > 0 ? table(['at', 'asset', 'check', 'checked', 'failed', 'score'], rows) : 'nothing was checked yet',
    );
  }
  return 0;
}

function checksText(checks: Check[]): string {
  const rows = checks.map(({ rule_id, asset, field, rule_type, parameters, severity }) => [
    rule_id,
    asset,
    field ?? null,
    rule_type,
    JSON.stringify(parameters),
    severity,
  ]);
  return table(['check', 'asset', 'field', 'type', 'parameters', 'severity'], rows);
}

function qualityText({ asset_id, score, checked, failed, rules }: QualityAnswer): string {
  const head = `${asset_id}: score ${score.toFixed(4)}, ${failed} of ${checked} rows fail`;
  if (rules.length === 0) return `${asset_id} has no checks`;
  const rows = rules.map((rule) => [rule.rule_id, rule.checked, rule.failed, rule.score, noteOf(rule)]);
  const samples = rules.flatMap(({ rule_id, samples }) => samples.map((row) => `  ${rule_id}: ${JSON.stringify(row)}`));
  return [
    head,
    table(['check', 'checked', 'failed', 'score', ''], rows),
    ...(samples.length > 0 ? ['rows that fail:', ...samples] : []),
  ].join('\n');
}

function noteOf({ error, notice = '' }: QualityAnswer['rules'][number]): string {
  return error ? `could not run: ${error.reason}. ${error.remedy}` : notice;
}

export function addRejects(program: Command, done: Done): void {
  const rejects = program
    .command('rejects')
    .description('rows that are held back: see them, release or discard them')
    .helpCommand(false);
  rejects
    .command('list [asset]')
    .description('rows that are held back, the newest first, each with its reason')
    .option('--rule <id>', 'held back by this rule or check')
    .addOption(new Option('--state <state>', 'which ones').choices(rejectStates).default('open'))
    .option('--limit <rows>', 'at most so many; default 50', readLimit, 50)
    .option('--json', 'print JSON')
    .action(async (asset: string | undefined, flags: ListFlags, command: Command) => {
      const answer = await withControl((control) => listRejects(control, { asset, ...flags }));
      if (wantsJson(command)) printJson(answer);
      else print(rejectsText(answer));
      done(0);
    });
  addSettle(
    rejects,
    'release',
    'write rows into their copy, as far as they are right by now; later changes of them win',
    done,
  );
  addSettle(
    rejects,
    'discard',
    'take rows off the list, until they change or the table is copied anew; the copy stays as it is',
    done,
  );
}

interface ListFlags {
  rule?: string;
  state: (typeof rejectStates)[number];
  limit: number;
}

function addSettle(rejects: Command, action: 'release' | 'discard', description: string, done: Done): void {
  rejects
    .command(`${action} <asset> [keys...]`)
    .description(`${description}; exit status 1 when some stay open`)
    .option('--all', 'all that are open')
    .option('--rule <id>', 'only those that this rule or check held back')
    .option('--json', 'print JSON')
    .addHelpText('after', `\nA key is plain text, or JSON where it has several columns: '{"order_id": 7, "line": 2}'.`)
    .action(async (asset: string, keys: string[], flags: { all?: boolean; rule?: string }, command: Command) => {
      if (keys.length > 0 === Boolean(flags.all || (flags.rule && keys.length === 0))) {
        const remedy = `Write e.g. npx sluice rejects ${action} ${asset} 17, or --all.`;
        throw new SluiceError('configuration', 'name keys, or --all, or --rule', remedy);
      }
      const named = keys.length > 0 ? { keys: keys.map(readKey) } : {};
      const body: SettleBody = { asset_id: asset, ...named, ...(flags.rule && { rule: flags.rule }) };
      const answer = await withControl((control) => settleRejects(control, action, body));
      if (wantsJson(command)) printJson(answer);
      else print(settledText(answer));
      done(answer.still_open > 0 ? 1 : 0);
    });
}

function readKey(text: string): string | Record<string, unknown> {
  if (!text.startsWith('{')) return text;
  try {
    return JSON.parse(text) as Record<string, unknown>;
  } catch {
    throw new SluiceError('configuration', `${text} is neither a key nor JSON`, 'Write e.g. \'{"id": 7}\'.');
  }
}

function rejectsText({ items, next_cursor: more }: RejectsAnswer): string {
  if (items.length === 0) return 'no such rows';
  const rows = items.map((one) => [
    one.asset_id,
    JSON.stringify(one.key),
    one.check,
    one.reason,
    one.state,
    one.committed_at,
  ]);
  const text = table(['asset', 'key', 'held back by', 'why', 'state', 'committed (UTC)'], rows);
  return more === null ? text : `${text}\n(older ones are not shown: --limit)`;
}

function settledText({ asset_id, released, discarded, still_open, superseded }: SettleAnswer): string {
  const parts = [
    released > 0 ? `${released} released` : '',
    discarded > 0 ? `${discarded} discarded` : '',
    superseded > 0 ? `${superseded} of the past` : '',
    still_open > 0 ? `${still_open} are not right by now either (npx sluice rejects list ${asset_id})` : '',
  ];
  return `${asset_id}: ${parts.filter(Boolean).join(', ')}`;
}

function readLimit(text: string): number {
  const limit = Number(text);
  if (Number.isSafeInteger(limit) && limit >= 1 && limit <= 1000) return limit;
  throw new InvalidArgumentError('a number from 1 to 1000');
}
