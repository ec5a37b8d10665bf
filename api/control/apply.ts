/** Makes sources, rules and checks as the files of config/ say: everything is looked at first, then changed. */
import { isDeepStrictEqual } from 'node:util';
import { SluiceError } from '../../model/errors.ts';
import { type ApplyRequest, applyRules } from '../../model/rule_changes.ts';
import type { DeclaredRules } from '../../model/rules.ts';
import { ShapeError } from '../../model/shape_error.ts';
import type { Config } from '../../workers/config.ts';
import { type FieldChange, fieldChanges, type Planned } from './apply_plan.ts';
import { applySource, planSource } from './apply_sources.ts';
import type { Control } from './control.ts';
import { applyDeclared, checkDeclared, declaredRules } from './declared_rules.ts';
import { registered } from './sources.ts';

export interface ApplyAnswer {
  dry_run: boolean;
  /** Of the rules, afterwards. */
  rules_version: number;
  changes: Planned[];
}

type Files = Pick<Config, 'sources' | 'transformations' | 'quality' | 'places'>;

/**
 * Applies files, or with `dryRun` says what that would change. Errors: `configuration` with file and line for a rule or check that
 * does not go with a copy; then nothing was changed.
 */
export async function applyFiles(
  control: Control,
  files: Files,
  { dryRun = false, prune = false }: { dryRun?: boolean; prune?: boolean } = {},
): Promise<ApplyAnswer> {
  const { transformations: rules, quality: checks } = files;
  const [known, set] = await Promise.all([registered(control), declaredRules(control)]);
  const next = applyRules(set, { rules, checks, prune }).set;
  if (next.version !== set.version) await refuseMistakes(control, next, { rules, checks, prune }, files);
  const sources = await Promise.all(files.sources.map((source) => planSource(control, source, known, prune)));
  const changes = [
    ...sources.flatMap(({ source, tables }) => [source, ...tables]),
    ...planned('rule', set.rules, next.rules, rules),
    ...planned('check', set.checks, next.checks, checks),
  ];
  if (dryRun) return { dry_run: true, rules_version: next.version, changes };
  for (const [index, source] of files.sources.entries()) await applySource(control, source, sources[index]!);
  const version =
    next.version === set.version ? set.version : (await applyDeclared(control, { rules, checks, prune })).version;
  return { dry_run: false, rules_version: version, changes };
}

type Declared = { rule_id: string; version: number };

function planned(
  what: 'rule' | 'check',
  before: readonly Declared[],
  after: readonly Declared[],
  named: readonly { rule_id: string }[] | undefined,
): Planned[] {
  const plan = (id: string, action: Planned['action'], differences: FieldChange[] = []): Planned => {
    return { what, id, action, differences, error: null };
  };
  const made = after.map((one) => {
    const known = before.find(({ rule_id }) => rule_id === one.rule_id);
    if (!known) return plan(one.rule_id, 'create');
    const differences = differencesOf(content(known), content(one));
    const isNamed = named === undefined || named.some(({ rule_id }) => rule_id === one.rule_id);
    if (!isNamed) return plan(one.rule_id, 'extra');
    const [from, to] = [before.indexOf(known), after.indexOf(one)].map((index) => index + 1);
    // Rules run in their order; that of checks says nothing.
    if (what === 'rule' && from !== to) differences.push({ field: 'place', from, to });
    return plan(one.rule_id, differences.length === 0 ? 'unchanged' : 'update', differences);
  });
  const gone = before.filter((one) => !after.some(({ rule_id }) => rule_id === one.rule_id));
  return [...made, ...gone.map((one) => plan(one.rule_id, 'delete'))];
}

function content({ version: _, ...rest }: Declared): Record<string, unknown> {
  return rest;
}

function differencesOf(from: Record<string, unknown>, to: Record<string, unknown>): FieldChange[] {
  const fields = [...new Set([...Object.keys(from), ...Object.keys(to)])];
  const changed = fields.filter((field) => !isDeepStrictEqual(from[field], to[field]));
  return fieldChanges(from, to, changed);
}

/**
 * What workers cannot compile is told with its place in the files, before anything changes. They are asked, so that a dry run says
 * what the real one would: functions of people's own are where they run.
 */
async function refuseMistakes(
  control: Control,
  set: DeclaredRules,
  request: ApplyRequest,
  { places }: Files,
): Promise<void> {
  try {
    await checkDeclared(control, request);
  } catch (error) {
    const [issue] = error instanceof ShapeError ? error.issues : [];
    if (issue === undefined) throw error;
    const [, list, index, ...part] = issue.pointer.split('/');
    const item = (list === 'rules' ? set.rules : set.checks)[Number(index)];
    const what = `${list === 'rules' ? 'rule' : 'check'} ${item?.rule_id}`;
    const detail = issue.detail.replace(`${what}: `, '');
    const reason = `${what}${part.length > 0 ? `, ${part.join('.')}` : ''}: ${detail}`;
    const remedy = 'Mend it; docs/rules.md says what is right.';
    throw new SluiceError('configuration', reason, remedy, places.get(item?.rule_id ?? ''));
  }
}
