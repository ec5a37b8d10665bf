/** Changes of the declared rules: each gives the next set, or the same one where nothing changes. */
import type { Check, CheckInput } from './checks.ts';
import { SluiceError } from './errors.ts';
import { ruleLimits } from './rule_input.ts';
import { type DeclaredRules, isTooLarge, type Rule, type RuleInput } from './rules.ts';

/** `create`: a new id · `replace`: an id that is there · `either`. */
export type PutMode = 'create' | 'replace' | 'either';

/** What was done to one rule or check. */
export interface RuleChange {
  what: 'rule' | 'check';
  rule_id: string;
  how: 'added' | 'replaced' | 'removed';
}

export interface RuleChanges {
  /** The set afterwards: its version is one higher when anything changed, else it is the one of before. */
  set: DeclaredRules;
  changes: RuleChange[];
}

/** Input of the update `applyRules`: a list that is missing leaves its part as it is. */
export interface ApplyRequest {
  rules?: RuleInput[];
  checks?: CheckInput[];
  /** Takes away what the lists do not name. */
  prune?: boolean;
}

/** Adds or replaces a rule. Errors: `conflict` (create: other content under its id), `not_found` (replace). */
export function putRule(set: DeclaredRules, rule: RuleInput, mode: PutMode): RuleChanges {
  refuseTwin(set.checks, rule.rule_id, 'check');
  const { items, changes } = put<Rule>(set.rules, rule, mode, 'rule');
  return changed({ ...set, rules: items }, changes);
}

/** Adds or replaces a check. Errors: `conflict` (create: other content under its id), `not_found` (replace). */
export function putCheck(set: DeclaredRules, check: CheckInput, mode: PutMode): RuleChanges {
  refuseTwin(set.rules, check.rule_id, 'rule');
  const { items, changes } = put<Check>(set.checks, check, mode, 'check');
  return changed({ ...set, checks: items }, changes);
}

/** Takes a rule away. Errors: `not_found`. */
export function removeRule(set: DeclaredRules, id: string): RuleChanges {
  const rules = without(set.rules, id, 'rule');
  return changed({ ...set, rules }, [{ what: 'rule', rule_id: id, how: 'removed' }]);
}

/** Takes a check away. Errors: `not_found`. */
export function removeCheck(set: DeclaredRules, id: string): RuleChanges {
  const checks = without(set.checks, id, 'check');
  return changed({ ...set, checks }, [{ what: 'check', rule_id: id, how: 'removed' }]);
}

/**
 * Makes the set as the lists say: theirs come first, in their order; others follow, unless they are pruned. Errors: `conflict`
 * where one's id is the other's.
 */
export function applyRules(set: DeclaredRules, { rules, checks, prune = false }: ApplyRequest): RuleChanges {
  const changes: RuleChange[] = [];
  const next = {
    ...set,
    rules: arrange<Rule>(set.rules, rules, prune, 'rule', changes),
    checks: arrange<Check>(set.checks, checks, prune, 'check', changes),
  };
  for (const { rule_id } of next.rules) refuseTwin(next.checks, rule_id, 'check');
  const moved = next.rules.some((rule, index) => rule.rule_id !== set.rules[index]?.rule_id);
  return changed(next, changes, moved);
}

/** Input of the updates `putRule` (with `rule`) and `putCheck` (with `check`) of `catalog`. */
export interface PutRequest {
  rule?: RuleInput;
  check?: CheckInput;
  mode?: PutMode;
  /** Who asks for it; kept with the version. */
  by?: string;
}

/** Answer of all updates of rules: the version of the set, and what was changed; nothing when all was so already. */
export interface RulesAnswer {
  version: number;
  changes: RuleChange[];
  /** What the request put there, as it is now. */
  rule?: Rule;
  check?: Check;
}

/** One line for people. */
export function describeChange({ what, rule_id, how }: RuleChange): string {
  return `${what} ${rule_id} ${how}`;
}

function changed(set: DeclaredRules, changes: RuleChange[], moved = false): RuleChanges {
  if (changes.length === 0 && !moved) return { set, changes };
  if (isTooLarge(set))
    throw new SluiceError(
      'configuration',
      `rules and checks would be larger than ${ruleLimits.bytes / 1024} KiB`,
      'Remove some that are not needed.',
    );
  return { set: { ...set, version: set.version + 1 }, changes };
}

type Versioned = { rule_id: string; version: number };

/** The same content, whatever its version. Readers give each declaration one order of keys. */
function isSame(known: Versioned, input: object): boolean {
  const { version: _, ...content } = known;
  return JSON.stringify(content) === JSON.stringify(input);
}

function put<Item extends Versioned>(
  items: readonly Item[],
  input: Omit<Item, 'version'> & { rule_id: string },
  mode: PutMode,
  what: RuleChange['what'],
): { items: Item[]; changes: RuleChange[] } {
  const id = input.rule_id;
  const known = items.find((item) => item.rule_id === id);
  if (known === undefined) {
    if (mode === 'replace') throw unknown(id, what);
    return { items: [...items, versioned(input, 1)], changes: [{ what, rule_id: id, how: 'added' }] };
  }
  if (isSame(known, input)) return { items: [...items], changes: [] };
  if (mode === 'create')
    throw new SluiceError('conflict', `there is another ${what} with the id ${id}`, 'Use PUT to replace it.');
  const replaced = versioned<Item>(input, known.version + 1);
  return {
    items: items.map((item) => (item === known ? replaced : item)),
    changes: [{ what, rule_id: id, how: 'replaced' }],
  };
}

function versioned<Item extends Versioned>(input: Omit<Item, 'version'>, version: number): Item {
  return { ...input, version } as Item;
}

function arrange<Item extends Versioned>(
  items: readonly Item[],
  inputs: readonly (Omit<Item, 'version'> & { rule_id: string })[] | undefined,
  prune: boolean,
  what: RuleChange['what'],
  changes: RuleChange[],
): Item[] {
  if (inputs === undefined) return [...items];
  const arranged = inputs.map((input) => {
    const result = put<Item>(items, input, 'either', what);
    changes.push(...result.changes);
    return result.items.find((item) => item.rule_id === input.rule_id)!;
  });
  const named = new Set(inputs.map((input) => input.rule_id));
  const others = items.filter((item) => !named.has(item.rule_id));
  if (!prune) return [...arranged, ...others];
  changes.push(...others.map(({ rule_id }) => ({ what, rule_id, how: 'removed' as const })));
  return arranged;
}

function without<Item extends Versioned>(items: readonly Item[], id: string, what: RuleChange['what']): Item[] {
  if (!items.some((item) => item.rule_id === id)) throw unknown(id, what);
  return items.filter((item) => item.rule_id !== id);
}

function refuseTwin(others: readonly Versioned[], id: string, what: RuleChange['what']): void {
  if (!others.some((other) => other.rule_id === id)) return;
  throw new SluiceError('conflict', `there is a ${what} with the id ${id}`, 'Rules and checks share one namespace.');
}

function unknown(id: string, what: RuleChange['what']): SluiceError {
  const list = what === 'rule' ? 'GET /api/v1/transformations' : 'GET /api/v1/quality/rules';
  return new SluiceError('not_found', `there is no ${what} ${id}`, `See what there is: ${list}.`);
}
