/**
 * Rules as people declare them, and the set of rules and checks that is in force. A rule computes columns, or says which rows
 * a copy has. Input is read into one form, so that the same rule is the same JSON however it was written.
 */
import { type Check, type CheckInput, readCheck } from './checks.ts';
import { isGlob, matchesGlob } from './glob.ts';
import { RuleIssues, ruleLimits, withoutGaps } from './rule_input.ts';
import { ShapeError, type ShapeIssue } from './shape_error.ts';

export const ruleTypes = ['map', 'filter', 'aggregate', 'join', 'custom'] as const;
export type RuleType = (typeof ruleTypes)[number];

/** What happens to a row on which a rule fails. */
export const errorChoices = ['reject', 'null', 'stop'] as const;

export const aggregateTypes = ['sum', 'avg', 'min', 'max', 'count'] as const;

/** Parameters of the types that have some. */
export interface RuleParameters {
  /** Of aggregate: what is made of the source fields of a row. */
  type?: (typeof aggregateTypes)[number];
  /** Of join: the asset whose row is looked up, by which of its key fields, and the fields that are taken from it. */
  asset?: string;
  on?: Record<string, string>;
  fields?: string[];
  /** Of custom: the function's name. */
  function?: string;
}

/** A rule as transformations.yaml and the API have it. */
export interface RuleInput {
  rule_id: string;
  name?: string;
  rule_type: RuleType;
  /** Ids or globs of the assets that it is for; without it those that have all its source fields. */
  assets?: string[];
  source_fields?: string[];
  target_field?: string;
  /** ClickHouse's type of the target; inferred from the expression where it is missing. */
  target_type?: string;
  /** Of map and filter. */
  expression?: string;
  on_error?: (typeof errorChoices)[number];
  parameters?: RuleParameters;
  /** `new`: rows that are there already stay as they are. */
  apply_to?: 'new';
}

/** A rule that is in force; `version` rises by one when it is replaced. */
export interface Rule extends RuleInput {
  version: number;
}

/** All rules and checks that are in force, in their order; `version` rises by one with each change of any. */
export interface DeclaredRules {
  version: number;
  rules: Rule[];
  checks: Check[];
}

/** Types in ClickHouse of the columns of copies that are joined with, by asset. */
export type JoinedTypes = Record<string, Record<string, string>>;

/** Before anything was declared. */
export const noRules: DeclaredRules = { version: 0, rules: [], checks: [] };

export const ruleKeys = [
  'rule_id', 'name', 'rule_type', 'assets', 'source_fields', 'target_field', 'target_type', 'expression', 'on_error',
  'parameters', 'apply_to',
] as const; // biome-ignore format: a list

const parametersOf: Record<RuleType, readonly (keyof RuleParameters)[]> = {
  map: [],
  filter: [],
  aggregate: ['type'],
  join: ['asset', 'on', 'fields'],
  custom: ['function'],
};

const remedy =
  'Right is e.g. {"rule_id": "domain", "rule_type": "map", "source_fields": ["email"], "target_field": "domain", ' +
  '"expression": "{{ email.split(\\"@\\")[1] }}"}.';

/** A rule in its one form. `pointer`: where the input stands. Throws ShapeError. */
export function readRule(input: unknown, pointer = ''): RuleInput {
  const issues = new RuleIssues(pointer);
  const rule = readParts(input, issues);
  if (rule !== undefined && issues.found.length === 0) return rule;
  throw new ShapeError('the rule is not as it should be', issues.found, remedy);
}

/** Lists of rules and checks, each in its one form. Throws ShapeError with the pointers of all that is wrong. */
export function readRules(input: { rules?: unknown; checks?: unknown }): {
  rules?: RuleInput[];
  checks?: CheckInput[];
} {
  const issues: ShapeIssue[] = [];
  const rules = readList(input.rules, '/rules', readRule, issues);
  const checks = readList(input.checks, '/checks', readCheck, issues);
  refuseTwins([...twinsIn(rules, '/rules'), ...twinsIn(checks, '/checks')], issues);
  if (issues.length > 0) throw new ShapeError('the rules are not as they should be', issues.slice(0, 100), remedy);
  return withoutGaps({ rules, checks });
}

/**
 * True when a rule is for an asset with these columns: one of its `assets` means it, where it has some, and it has all its
 * source fields. Whoever names an asset in full means it: what it lacks is then a mistake, told when the rule is compiled.
 */
export function isRuleOf(rule: RuleInput, asset: string, columns: ReadonlySet<string>): boolean {
  if (rule.assets?.some((name) => !isGlob(name) && name === asset)) return true;
  if (rule.assets !== undefined && !rule.assets.some((name) => matchesGlob(name, asset))) return false;
  return (rule.source_fields ?? []).every((field) => columns.has(field));
}

/** The rules of an asset with these columns, in their order. Later ones find the targets of earlier ones. */
export function rulesOf<R extends RuleInput>(rules: readonly R[], asset: string, columns: readonly string[]): R[] {
  const known = new Set(columns);
  return rules.filter((rule) => {
    const applies = isRuleOf(rule, asset, known);
    if (applies && rule.target_field !== undefined) known.add(rule.target_field);
    return applies;
  });
}

/** The checks of an asset, in their order. */
export function checksOf<C extends CheckInput>(checks: readonly C[], asset: string): C[] {
  return checks.filter((check) => check.asset === asset);
}

/** Bytes of rules and checks as they are carried and kept, about. */
export function isTooLarge({ rules, checks }: Pick<DeclaredRules, 'rules' | 'checks'>): boolean {
  return JSON.stringify([rules, checks]).length > ruleLimits.bytes;
}

function readParts(input: unknown, issues: RuleIssues): RuleInput | undefined {
  if (!issues.object(input, '', ruleKeys)) return undefined;
  const type = issues.word(input.rule_type ?? null, '/rule_type', ruleTypes);
  const rule: RuleInput = {
    rule_id: issues.id(input.rule_id, '/rule_id'),
    name: issues.name(input.name, '/name'),
    rule_type: type ?? 'map',
    assets: issues.names(input.assets, '/assets'),
    source_fields: issues.names(input.source_fields, '/source_fields'),
    target_field: issues.name(input.target_field, '/target_field'),
    target_type: issues.name(input.target_type, '/target_type'),
    expression: issues.expression(input.expression, '/expression'),
    on_error: issues.word(input.on_error, '/on_error', errorChoices),
    parameters: type && readParameters(input.parameters ?? {}, type, issues),
    apply_to: issues.word(input.apply_to, '/apply_to', ['new']),
  };
  if (type !== undefined) demandParts(rule, type, issues);
  if (rule.parameters && Object.keys(rule.parameters).length === 0) rule.parameters = undefined;
  return type && withoutGaps(rule);
}

/** Complains about parts that a type needs and does not have, or has and cannot use. */
function demandParts(rule: RuleInput, type: RuleType, issues: RuleIssues): void {
  const computes = type === 'map' || type === 'filter';
  if (computes) issues.needed(rule.expression, '/expression', `a ${type} computes it`);
  else if (rule.expression !== undefined) issues.add('/expression', `is not used by rules of type ${type}`);
  if (type === 'filter') {
    if (rule.target_field !== undefined) issues.add('/target_field', 'a filter fills no column');
    if (rule.target_type !== undefined) issues.add('/target_type', 'a filter fills no column');
  } else if (type !== 'join') issues.needed(rule.target_field, '/target_field', 'the column that it fills');
  if (rule.target_field?.startsWith('_')) issues.add('/target_field', 'begins with _: such names are of Sluice itself');
  if (type === 'aggregate') issues.needed(rule.source_fields, '/source_fields', 'the fields that are aggregated');
}

function readParameters(input: unknown, type: RuleType, issues: RuleIssues): RuleParameters {
  const at = '/parameters';
  if (!issues.object(input, at, parametersOf[type])) return {};
  if (type === 'aggregate') return withoutGaps({ type: issues.word(input.type ?? null, `${at}/type`, aggregateTypes) });
  if (type === 'custom') return withoutGaps({ function: issues.name(input.function ?? null, `${at}/function`) });
  if (type !== 'join') return {};
  return withoutGaps({
    asset: issues.name(input.asset ?? null, `${at}/asset`),
    on: readOn(input.on, `${at}/on`, issues),
    fields: issues.names(input.fields ?? null, `${at}/fields`),
  });
}

/** `{field: key}`: the fields of the row, and the key fields of the other asset that they are equal to. */
function readOn(input: unknown, at: string, issues: RuleIssues): Record<string, string> | undefined {
  const pairs = typeof input === 'object' && input !== null && !Array.isArray(input) ? Object.entries(input) : [];
  const valid = pairs.every(([field, key]) => field !== '' && typeof key === 'string' && key !== '');
  if (pairs.length > 0 && pairs.length <= 16 && valid)
    return Object.fromEntries(pairs.sort()) as Record<string, string>;
  issues.add(at, 'must name fields of the row and the key fields that they are equal to, e.g. {"currency": "code"}');
  return undefined;
}

function readList<T>(
  input: unknown,
  at: string,
  read: (item: unknown, pointer: string) => T,
  issues: ShapeIssue[],
): T[] | undefined {
  if (input === undefined || input === null) return undefined;
  if (!Array.isArray(input)) {
    issues.push({ pointer: at, detail: 'must be a list' });
    return undefined;
  }
  return input.flatMap((item, index) => {
    try {
      return [read(item, `${at}/${index}`)];
    } catch (error) {
      if (!(error instanceof ShapeError)) throw error;
      issues.push(...error.issues);
      return [];
    }
  });
}

function twinsIn(items: readonly { rule_id: string }[] | undefined, at: string): { id: string; at: string }[] {
  return (items ?? []).map(({ rule_id }, index) => ({ id: rule_id, at: `${at}/${index}/rule_id` }));
}

function refuseTwins(ids: { id: string; at: string }[], issues: ShapeIssue[]): void {
  if (issues.length > 0) return;
  const seen = new Set<string>();
  for (const { id, at } of ids) {
    if (seen.has(id)) issues.push({ pointer: at, detail: `${id} is the id of two rules or checks` });
    seen.add(id);
  }
}
