/** Makes sources, rules and checks as the files of config/ say: everything is looked at first, then changed. */
import { isDeepStrictEqual } from 'node:util';
import { columnTypes } from '../../activities/load/tables.ts';
import { knownTables } from '../../activities/transform/rule_activities.ts';
import { newIssues } from '../../activities/transform/rule_check.ts';
import { joinedAssets } from '../../activities/transform/table_rules.ts';
import { asSluiceError, describeError, SluiceError } from '../../model/errors.ts';
import { applyRules } from '../../model/rule_changes.ts';
import type { DeclaredRules } from '../../model/rules.ts';
import type { ConnectRequest } from '../../model/source.ts';
import type { Config, SourceFile } from '../../workers/config.ts';
import type { Control } from './control.ts';
import { connectBodyOf } from './declared.ts';
import { applyDeclared, declaredRules } from './declared_rules.ts';
import { noTableYet } from './figures.ts';
import { connectSource, orderSource, registered } from './sources.ts';

/** One field that is another. */
export interface FieldChange {
  field: string;
  /** Null: there is none. */
  from: unknown;
  to: unknown;
}

/** What becomes of one thing that the files declare, or that is declared and not in them. */
export interface Planned {
  what: 'source' | 'rule' | 'check';
  id: string;
  /** `extra`: not in the files, and kept · `conflict`: it cannot be made as the file says. */
  action: 'create' | 'update' | 'delete' | 'unchanged' | 'extra' | 'conflict';
  differences: FieldChange[];
  error: string | null;
}

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
  await refuseMistakes(control, set, next, files);
  const sources = files.sources.map((source) => plannedSource(source, known));
  const changes = [
    ...sources,
    ...planned('rule', set.rules, next.rules, rules),
    ...planned('check', set.checks, next.checks, checks),
  ];
  if (dryRun) return { dry_run: true, rules_version: next.version, changes };
  for (const [index, source] of files.sources.entries()) await applySource(control, source, sources[index]!);
  const version =
    next.version === set.version ? set.version : (await applyDeclared(control, { rules, checks, prune })).version;
  return { dry_run: false, rules_version: version, changes };
}

function plannedSource(source: SourceFile, known: ConnectRequest[]): Planned {
  const plan: Planned = { what: 'source', id: source.id, action: 'create', differences: [], error: null };
  const there = known.find(({ id }) => id === source.id);
  if (!there) return plan;
  // Connection strings are sealed, and cannot be compared.
  const { type, config } = connectBodyOf(source);
  plan.differences = differencesOf({ type: there.type, ...there.config }, { type, ...config });
  plan.action = plan.differences.length === 0 ? 'unchanged' : 'conflict';
  if (plan.action === 'conflict')
    plan.error = `it is connected with other settings: npx sluice sources delete ${source.id}, then apply again`;
  return plan;
}

async function applySource(control: Control, source: SourceFile, plan: Planned): Promise<void> {
  if (plan.action !== 'create') return;
  try {
    await connectSource(control, connectBodyOf(source));
    if (source.start) await orderSource(control, source.id, 'start');
  } catch (error) {
    plan.error = describeError(asSluiceError(error));
  }
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
  return fields
    .filter((field) => !isDeepStrictEqual(from[field], to[field]))
    .map((field) => ({ field, from: from[field] ?? null, to: to[field] ?? null }));
}

/** What cannot be compiled for a copy is told with its place in the files, before anything changes. */
async function refuseMistakes(
  control: Control,
  before: DeclaredRules,
  set: DeclaredRules,
  { places }: Files,
): Promise<void> {
  const joined = await columnTypes(control.clickhouse, joinedAssets(set));
  const tables = await knownTables(control.clickhouse).catch((error: unknown) => {
    if (noTableYet(error)) return [];
    throw error;
  });
  const [issue] = newIssues(before, set, tables, joined);
  if (issue === undefined) return;
  const [, list, index, ...part] = issue.pointer.split('/');
  const item = (list === 'rules' ? set.rules : set.checks)[Number(index)];
  const what = `${list === 'rules' ? 'rule' : 'check'} ${item?.rule_id}`;
  const detail = issue.detail.replace(`${what}: `, '');
  const reason = `${what}${part.length > 0 ? `, ${part.join('.')}` : ''}: ${detail}`;
  throw new SluiceError(
    'configuration',
    reason,
    'Mend it; docs/rules.md says what is right.',
    places.get(item?.rule_id ?? ''),
  );
}
