/** `sluice rules …`: what is declared, what a rule would do, and who changed what. */
import { type Command, InvalidArgumentError } from 'commander';
import { knownTables } from '../activities/transform/rule_activities.ts';
import type { Control } from '../api/control/control.ts';
import { declaredRules, rulesHistory } from '../api/control/declared_rules.ts';
import { noTableYet } from '../api/control/figures.ts';
import { getCheck, removeCheck } from '../api/control/quality.ts';
import type { PreviewAnswer } from '../api/control/rule_shapes.ts';
import { getRule, listRules, preview, removeRule } from '../api/control/transformations.ts';
import { tableAssetOf } from '../model/asset.ts';
import type { Check } from '../model/checks.ts';
import { SluiceError } from '../model/errors.ts';
import { isRuleOf, type Rule, type RuleInput, readRule } from '../model/rules.ts';
import { createLog } from '../workers/log.ts';
import { loadOwnFunctions } from '../workers/own_functions.ts';
import { readRows, readYaml } from './input_files.ts';
import { print, printJson, table, wantsJson, withControl } from './print.ts';

type Done = (status: number) => void;

export function addRules(program: Command, done: Done): void {
  const rules = program
    .command('rules')
    .description('rules: see them, try them before they are used, take them away (checks: sluice quality)')
    .helpCommand(false);
  addLooks(rules, done);
  addPreview(rules, done);
  addRemove(rules, done);
}

function addLooks(rules: Command, done: Done): void {
  rules
    .command('list')
    .description('all rules, in the order in which they run')
    .option('--json', 'print JSON')
    .action(async (_options: object, command: Command) => {
      const answer = await withControl(listRules);
      if (wantsJson(command)) printJson(answer);
      else print(listText(answer));
      done(0);
    });
  rules
    .command('show <rule_id>')
    .description('a rule or check as it was declared, and its version')
    .option('--json', 'print JSON')
    .action(async (id: string, _options: object, command: Command) => {
      const [what, answer] = await withControl((control) => findDeclared(control, id));
      if (wantsJson(command)) printJson(answer);
      else print(shownText(what, answer));
      done(0);
    });
  rules
    .command('history')
    .description('who changed which rules and checks, the newest first')
    .option('--limit <changes>', 'at most so many; default 50', (text) => readCount(text, 1000), 50)
    .option('--json', 'print JSON')
    .action(async ({ limit }: { limit: number }, command: Command) => {
      const answer = await withControl((control) => rulesHistory(control, limit));
      if (wantsJson(command)) printJson(answer);
      else if (answer.length === 0) print('nothing was declared yet');
      else {
        const rows = answer.map((one) => [String(one.version), one.at, one.by, one.change]);
        print(table(['version', 'at', 'by', 'change'], rows));
      }
      done(0);
    });
}

interface PreviewFlags {
  file?: string;
  asset?: string;
  last?: number;
  rows?: string;
}

const previewExamples = `
Examples:
  $ npx sluice rules preview mask_email --last 200
  $ npx sluice rules preview --file rule.yaml --asset postgres_main_accounts
  $ npx sluice rules preview mask_email --file config/transformations.yaml
  $ npx sluice rules preview --file rule.json --rows rows.json

A rule is a file of YAML or JSON with the keys of docs/rules.md; - is the standard input. Rows are an array of JSON, or a line each.`;

function addPreview(rules: Command, done: Done): void {
  rules
    .command('preview [rule_id]')
    .description('what a rule would change in the newest rows of the copies that it is for; nothing is stored')
    .option('--file <file>', 'the rule as it is to be; default: the one that is declared')
    .option('--asset <id>', 'on this copy alone')
    .option('--last <rows>', 'on so many of the newest rows; default 1000', (text) => readCount(text, 10_000))
    .option('--rows <file>', 'on these rows instead')
    .option('--json', 'print JSON')
    .addHelpText('after', previewExamples)
    .action(async (id: string | undefined, flags: PreviewFlags, command: Command) => {
      const json = wantsJson(command);
      await withControl(async (control) => {
        await loadOwnFunctions(control.settings, createLog('rules', 'silent'));
        const rule = await wantedRule(control, id, flags.file);
        if (flags.rows !== undefined) await previewRows(control, rule, flags, json);
        else await previewCopies(control, rule, flags, json);
      });
      done(0);
    });
}

function addRemove(rules: Command, done: Done): void {
  rules
    .command('remove <rule_id>')
    .description('take a rule or check away; its copies are made anew without it')
    .option('--json', 'print JSON')
    .action(async (id: string, _options: object, command: Command) => {
      const what = await withControl(async (control) => {
        const [what] = await findDeclared(control, id);
        await (what === 'rule' ? removeRule(control, id) : removeCheck(control, id));
        return what;
      });
      if (wantsJson(command)) printJson({ removed: id, what });
      else print(`${what} ${id} is taken away`);
      done(0);
    });
}

/** They share one namespace. Errors: `not_found`. */
async function findDeclared(control: Control, id: string): Promise<['rule', Rule] | ['check', Check]> {
  const { checks } = await declaredRules(control);
  if (checks.some(({ rule_id }) => rule_id === id)) return ['check', await getCheck(control, id)];
  return ['rule', await getRule(control, id)];
}

/** The rule of a file, or the one that is declared. Errors: ShapeError, `not_found`, `configuration`. */
async function wantedRule(control: Control, id: string | undefined, file: string | undefined): Promise<RuleInput> {
  if (file !== undefined) return readRule(ruleOf(readYaml(file), id, file));
  if (id === undefined)
    throw new SluiceError('configuration', 'name a rule, or a file with one', 'See: npx sluice rules preview --help');
  const { version: _, ...rule } = await getRule(control, id);
  return rule;
}

/** A file is a rule, or a list of rules of which one is meant. */
function ruleOf(content: unknown, id: string | undefined, file: string): unknown {
  const { rules } = (content ?? {}) as { rules?: unknown };
  const all = (Array.isArray(rules) ? rules : [content]) as ({ rule_id?: unknown } | null)[];
  const meant = id === undefined ? all : all.filter((rule) => rule?.rule_id === id);
  if (meant.length === 1) return meant[0];
  const reason = meant.length === 0 ? `it has no rule ${id ?? ''}`.trim() : `it has ${meant.length} rules`;
  throw new SluiceError('configuration', reason, 'Name one: npx sluice rules preview <rule_id> --file …', { file });
}

async function previewRows(control: Control, rule: RuleInput, flags: PreviewFlags, json: boolean): Promise<void> {
  const rows = readRows(flags.rows!) as Record<string, unknown>[];
  const asset = flags.asset === undefined ? {} : { asset_id: flags.asset };
  const answer = await preview(control, { rule, rows, ...asset });
  if (json) printJson(answer);
  else print(rowsText(answer));
}

async function previewCopies(control: Control, rule: RuleInput, flags: PreviewFlags, json: boolean): Promise<void> {
  const assets = flags.asset === undefined ? await copiesOf(control, rule) : [tableAssetOf(flags.asset)];
  const answers: ({ asset_id: string } & PreviewAnswer)[] = [];
  for (const asset_id of assets)
    answers.push({ asset_id, ...(await preview(control, { rule, asset_id, last: flags.last })) });
  if (json) printJson(answers);
  else print(answers.map((answer) => differencesText(answer.asset_id, answer)).join('\n\n'));
}

/** The copies that a rule is for. Errors: `not_found` when it is for none. */
async function copiesOf(control: Control, rule: RuleInput): Promise<string[]> {
  const tables = await knownTables(control.clickhouse).catch((error: unknown) => {
    if (noTableYet(error)) return [];
    throw error;
  });
  const others = (await listRules(control)).flatMap(({ target_field: target }) => target ?? []);
  // What other rules fill can be read, too.
  const columnsOf = (columns: readonly { name: string }[]) => new Set([...columns.map(({ name }) => name), ...others]);
  const meant = tables.filter(({ asset, columns }) => isRuleOf(rule, asset, columnsOf(columns)));
  if (meant.length > 0) return meant.map(({ asset }) => asset).sort();
  const remedy = 'Name the copy to try it on: --asset; or rows: --rows.';
  throw new SluiceError('not_found', `the rule ${rule.rule_id} is for no copy that there is`, remedy);
}

function listText(rules: Rule[]): string {
  if (rules.length === 0) return 'no rules yet. Declare them in config/transformations.yaml: npx sluice apply';
  const rows = rules.map((rule) => [
    rule.rule_id,
    rule.rule_type,
    rule.assets?.join(', ') ?? null,
    rule.source_fields?.join(', ') ?? null,
    rule.target_field ?? null,
    String(rule.version),
  ]);
  return table(['rule', 'type', 'assets', 'reads', 'fills', 'version'], rows);
}

function shownText(what: string, { rule_id, version, ...rest }: Rule | Check): string {
  const lines = Object.entries(rest).map(
    ([key, value]) => `  ${key}: ${typeof value === 'string' ? value : JSON.stringify(value)}`,
  );
  return [`${what} ${rule_id}, version ${version}`, ...lines].join('\n');
}

function rowsText({ rows, rejected, rows_per_second: speed }: PreviewAnswer): string {
  return [
    ...rows.map((row) => JSON.stringify(row)),
    ...rejected.map(({ row, reason }) => `row ${row} would be held back: ${reason}`),
    `${rows.length} rows let through, ${rejected.length} held back; ${speed.toLocaleString('en-GB')} rows a second`,
  ].join('\n');
}

/** Rows that are shown. */
const shownDifferences = 20;

function differencesText(asset: string, { differences }: PreviewAnswer): string {
  const { rows_from: from, checked, changed, added, filtered, rejected, samples } = differences!;
  const head =
    `${asset}: of ${checked} rows (from the ${from}) ${changed} would be changed, ${added} added, ` +
    `${filtered} filtered, ${rejected} held back`;
  if (samples.length === 0) return head;
  const rows = samples.slice(0, shownDifferences).map(({ row, outcome, before, after, reason }) => {
    return [JSON.stringify(row), outcome, textOf(before), reason ?? textOf(after)];
  });
  return `${head}\n${table(['key', 'would be', 'is', 'then'], rows)}`;
}

function textOf(fields: Record<string, unknown> | null): string | null {
  return fields === null ? null : JSON.stringify(fields);
}

function readCount(text: string, most: number): number {
  const count = Number(text);
  if (Number.isSafeInteger(count) && count >= 1 && count <= most) return count;
  throw new InvalidArgumentError(`a number from 1 to ${most}`);
}
