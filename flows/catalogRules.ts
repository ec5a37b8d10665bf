/**
 * The part of the catalog that keeps the declared rules and checks. It lets one change happen at a time, and gives each set its
 * version. Every version is in ClickHouse; what is kept here can be lost, and is read from there again. When the set has changed, the
 * flows of all sources are told.
 */
import {
  ActivityFailure,
  defineQuery,
  defineSignal,
  defineUpdate,
  getExternalWorkflowHandle,
  setHandler,
} from '@temporalio/workflow';
import { type CheckInput, readCheck } from '../model/checks.ts';
import { SluiceError } from '../model/errors.ts';
import { captureMessages, captureWorkflowId, catalogMessages } from '../model/messages.ts';
import {
  type ApplyRequest,
  applyRules as applyTo,
  describeChange,
  type PutMode,
  type PutRequest,
  putCheck as putCheckIn,
  putRule as putRuleIn,
  type RuleChanges,
  type RulesAnswer,
  removeCheck as removeCheckFrom,
  removeRule as removeRuleFrom,
} from '../model/rule_changes.ts';
import { type DeclaredRules, noRules, type RuleInput, readRule, readRules } from '../model/rules.ts';
import { ShapeError, type ShapeIssue } from '../model/shape_error.ts';
import { askOptions, ruleActivities } from './activities.ts';
import { expectKeys, isObject, refusalOf } from './input.ts';
import { readFailure, refuse } from './refuse.ts';

type Removal = { rule_id: string; by?: string };
type Apply = ApplyRequest & { by?: string };

export const putRule = defineUpdate<RulesAnswer, [PutRequest]>(catalogMessages.putRule);
export const removeRule = defineUpdate<RulesAnswer, [Removal]>(catalogMessages.removeRule);
export const putCheck = defineUpdate<RulesAnswer, [PutRequest]>(catalogMessages.putCheck);
export const removeCheck = defineUpdate<RulesAnswer, [Removal]>(catalogMessages.removeCheck);
export const applyRules = defineUpdate<RulesAnswer, [Apply]>(catalogMessages.applyRules);
export const checkRules = defineUpdate<RulesAnswer, [Apply]>(catalogMessages.checkRules);
export const rules = defineQuery<Omit<DeclaredRules, 'checks'>>(catalogMessages.rules);
export const checks = defineQuery<Omit<DeclaredRules, 'rules'>>(catalogMessages.checks);
/** Sent to the flow of each source when the set has another version. */
export const rulesChanged = defineSignal<[{ version: number }]>(captureMessages.rulesChanged);

const putExample =
  'Right is e.g. {"rule": {"rule_id": "domain", "rule_type": "map", "source_fields": ["email"], "target_field": ' +
  '"domain", "expression": "{{ email.split(\\"@\\")[1] }}"}, "mode": "create"}; mode is create, replace or either.';
const checkExample =
  'Right is e.g. {"check": {"rule_id": "amount_positive", "asset": "postgres_main_transactions", "field": "amount", ' +
  '"rule_type": "range", "parameters": {"min": 0}, "severity": "reject"}}.';
const removeExample = 'Right is e.g. {"rule_id": "mask_email"}.';
const applyExample =
  'Right is e.g. {"rules": [], "checks": [], "prune": false}; a list that is missing stays as it is.';
const modes: readonly PutMode[] = ['create', 'replace', 'either'];

export class CatalogRules {
  /** Undefined until it is read from ClickHouse, at the first change. */
  #set: DeclaredRules | undefined;
  /** The last change that was begun. */
  #last: Promise<unknown> = Promise.resolve();
  readonly #sources: () => string[];

  /** `sources`: ids of those whose flows are told of changes. */
  constructor(carried: unknown, sources: () => string[]) {
    if (isSet(carried)) this.#set = carried;
    this.#sources = sources;
  }

  /** What the next run goes on with. */
  get state(): DeclaredRules | undefined {
    return this.#set;
  }

  /** Answers the messages of rules and checks. */
  listen(): void {
    setHandler(putRule, (input) => this.#putRule(readRule(input.rule), input), {
      description: 'Adds a rule, or replaces it: {"rule": {…}, "mode": "create" | "replace" | "either"}.',
      validator: (input) => readPut(input, 'rule', putExample, readRule),
    });
    setHandler(removeRule, ({ rule_id, by }) => this.#change(by, (set) => removeRuleFrom(set, rule_id)), {
      description: 'Takes a rule away, {"rule_id": "…"}; tables that it was for are made anew without it.',
      validator: readRemoval,
    });
    setHandler(putCheck, (input) => this.#putCheck(readCheck(input.check), input), {
      description: 'Adds a check, or replaces it: {"check": {…}, "mode": "create" | "replace" | "either"}.',
      validator: (input) => readPut(input, 'check', checkExample, readCheck),
    });
    setHandler(removeCheck, ({ rule_id, by }) => this.#change(by, (set) => removeCheckFrom(set, rule_id)), {
      description: 'Takes a check away, {"rule_id": "…"}.',
      validator: readRemoval,
    });
    setHandler(applyRules, ({ by, prune, ...lists }) => this.#apply({ ...readRules(lists), prune }, by), {
      description: 'Makes rules and checks as these lists say; with prune it takes away all others.',
      validator: readApply,
    });
    setHandler(checkRules, ({ by: _, prune, ...lists }) => this.#check({ ...readRules(lists), prune }), {
      description: 'What `applyRules` would change, or why it would refuse to; nothing is changed.',
      validator: readApply,
    });
    setHandler(rules, () => ({ version: this.#known.version, rules: this.#known.rules }), {
      description:
        'Rules in their order. After a loss of the catalog empty until the next change; all are in _rules in ClickHouse.',
    });
    setHandler(checks, () => ({ version: this.#known.version, checks: this.#known.checks }), {
      description: 'Checks in their order; see the query rules.',
    });
  }

  get #known(): DeclaredRules {
    return this.#set ?? noRules;
  }

  async #putRule(rule: RuleInput, { mode = 'either', by }: PutRequest): Promise<RulesAnswer> {
    const answer = await this.#change(by, (set) => putRuleIn(set, rule, mode), rule.rule_id);
    return { ...answer, rule: this.#known.rules.find(({ rule_id }) => rule_id === rule.rule_id) };
  }

  async #putCheck(check: CheckInput, { mode = 'either', by }: PutRequest): Promise<RulesAnswer> {
    const answer = await this.#change(by, (set) => putCheckIn(set, check, mode), check.rule_id);
    return { ...answer, check: this.#known.checks.find(({ rule_id }) => rule_id === check.rule_id) };
  }

  #apply(request: ApplyRequest, by: string | undefined): Promise<RulesAnswer> {
    return this.#change(by, (set) => applyTo(set, request));
  }

  /** Workers compile rules, so they are asked: functions of people's own are where they run. */
  async #check(request: ApplyRequest): Promise<RulesAnswer> {
    const before = await this.#read();
    const { set, changes } = refusing(() => applyTo(before, request));
    if (set.version === before.version) return { version: set.version, changes };
    const options = { ...askOptions, summary: 'look whether rules are right' };
    const issues = await ruleActivities.checkRules.executeWithOptions(options, [{ set }]).catch((error: unknown) => {
      const { kind, reason, remedy } = readFailure(error).report;
      throw refuse(kind, reason, remedy);
    });
    if (issues.length > 0) throw refused(set, issues, undefined);
    return { version: set.version, changes };
  }

  /** Runs a change when those before it have ended. `id`: mistakes of that rule or check are told as those of the input. */
  async #change(by: string | undefined, make: (set: DeclaredRules) => RuleChanges, id?: string): Promise<RulesAnswer> {
    const store = () => this.#store(by ?? 'Temporal', make, id);
    const running = this.#last.then(store).catch((error: unknown) => {
      // What is known here was outdated: it is read anew.
      if (this.#set === undefined && readFailure(error).report.kind === 'conflict') return store();
      throw error;
    });
    this.#last = running.catch(() => {});
    return running;
  }

  async #store(by: string, make: (set: DeclaredRules) => RuleChanges, id?: string): Promise<RulesAnswer> {
    const before = await this.#read();
    const { set, changes } = refusing(() => make(before));
    if (set.version === before.version) return { version: set.version, changes };
    const change = changes.map(describeChange).join(', ').slice(0, 2000) || 'other order';
    const options = { ...askOptions, summary: change.slice(0, 200) };
    try {
      const issues = await ruleActivities.declareRules.executeWithOptions(options, [{ set, by, change }]);
      if (issues.length > 0) throw refused(set, issues, id);
    } catch (error) {
      const trouble = readFailure(error).report;
      // Somebody stored a set that is not known here: it is read before the next change.
      if (trouble.kind === 'conflict') this.#set = undefined;
      throw error instanceof ActivityFailure ? refuse(trouble.kind, trouble.reason, trouble.remedy) : error;
    }
    this.#set = set;
    await this.#tell(set.version);
    return { version: set.version, changes };
  }

  async #read(): Promise<DeclaredRules> {
    if (this.#set) return this.#set;
    const options = { ...askOptions, summary: 'read the declared rules' };
    try {
      this.#set = await ruleActivities.readDeclaredRules.executeWithOptions(options, []);
    } catch (error) {
      const { kind, reason, remedy } = readFailure(error).report;
      throw refuse(kind, reason, remedy);
    }
    return this.#set;
  }

  /** A source whose flow does not run reads the rules when it starts. */
  async #tell(version: number): Promise<void> {
    const tell = (source: string) =>
      getExternalWorkflowHandle(captureWorkflowId(source)).signal(rulesChanged, { version });
    await Promise.all(this.#sources().map((source) => tell(source).catch(() => {})));
  }
}

/** Errors of the model as those of an update. */
function refusing<Answer>(make: () => Answer): Answer {
  try {
    return make();
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    const issues = error instanceof ShapeError ? [error.issues] : [];
    throw refuse(error.kind, error.message, error.remedy, ...issues);
  }
}

/** What could not be compiled: the pointers of the one that was sent begin at it, those of others say whose they are. */
function refused(set: DeclaredRules, issues: ShapeIssue[], id: string | undefined): Error {
  const own = id === undefined ? undefined : pointerOf(set, id);
  const told = issues.map((issue) => {
    if (own === undefined) return issue;
    const isOwn = issue.pointer === own || issue.pointer.startsWith(`${own}/`);
    return isOwn ? { ...issue, pointer: issue.pointer.slice(own.length) } : { ...issue, pointer: '' };
  });
  const [first] = told;
  const more = told.length > 1 ? ` (and ${told.length - 1} more)` : '';
  const reason = `${first?.pointer ? `${first.pointer}: ` : ''}${first?.detail ?? ''}${more}`;
  return refuse('configuration', reason, 'Mend it; docs/rules.md says what is right.', told);
}

function pointerOf({ rules, checks }: DeclaredRules, id: string): string {
  const index = rules.findIndex(({ rule_id }) => rule_id === id);
  return index >= 0 ? `/rules/${index}` : `/checks/${checks.findIndex(({ rule_id }) => rule_id === id)}`;
}

function readPut(input: unknown, key: 'rule' | 'check', example: string, read: (input: unknown) => unknown): void {
  const bad = refusalOf(input, example);
  if (!isObject(input) || input[key] === undefined) throw bad(`the input has no \`${key}\``);
  expectKeys(input, [key, 'mode', 'by'], bad);
  expectNamed(input.by, bad);
  if (input.mode !== undefined && !modes.some((mode) => mode === input.mode)) throw bad(`\`mode\` is none of ${modes}`);
  refusing(() => read(input[key]));
}

function readRemoval(input: unknown): void {
  const bad = refusalOf(input, removeExample);
  if (!isObject(input) || typeof input.rule_id !== 'string') throw bad('the input names no rule');
  expectKeys(input, ['rule_id', 'by'], bad);
  expectNamed(input.by, bad);
}

function readApply(input: unknown): void {
  const bad = refusalOf(input, applyExample);
  if (!isObject(input)) throw bad('the input is not an object');
  expectKeys(input, ['rules', 'checks', 'prune', 'by'], bad);
  expectNamed(input.by, bad);
  if (input.prune !== undefined && typeof input.prune !== 'boolean') throw bad('`prune` must be true or false');
  refusing(() => readRules(input));
}

function expectNamed(by: unknown, bad: (reason: string) => Error): void {
  if (by !== undefined && (typeof by !== 'string' || by.length > 200)) throw bad('`by` must be a name');
}

function isSet(value: unknown): value is DeclaredRules {
  return (
    isObject(value) && Number.isSafeInteger(value.version) && Array.isArray(value.rules) && Array.isArray(value.checks)
  );
}
