/**
 * The rules of one table, compiled: maps that fill columns and filters that let rows through, in their order, over rows
 * of decoded values. Pure: the same row gives the same result, whenever and wherever it runs.
 */
import type { RuleCounts } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import { nearest } from '../../model/nearest_word.ts';
import type { JoinedTypes, RuleInput } from '../../model/rules.ts';
import type { Target } from '../../model/table.ts';
import { compileAggregate } from './aggregate.ts';
import { inUtc, parseClickhouseType } from './clickhouse_types.ts';
import { compileCustom } from './custom_functions.ts';
import { type Encoder, encoderFor } from './encode.ts';
import {
  type Computation,
  compileExpression,
  type Expression,
  type ExpressionColumn,
  ExpressionError,
} from './expression.ts';
import { EvaluationError } from './jinja/limits.ts';
import { isTrue } from './jinja/operators.ts';
import type { Value } from './jinja/values.ts';
import { compileJoin, type Join } from './join.ts';

/** What became of a row. */
export type Outcome = 'kept' | 'filtered' | 'rejected';

/** Why a row was held back. Holds no values of the row. */
export interface Rejection {
  rule_id: string;
  field: string | undefined;
  reason: string;
}

/** What a rule does with columns, by their names. */
export interface RulePart {
  rule_id: string;
  reads: string[];
  /** Undefined of a filter. */
  fills: string | undefined;
}

interface CompiledRule {
  rule: RuleInput;
  /** Of a join, one for each field that it fills. */
  join?: Join;
  onError: NonNullable<RuleInput['on_error']>;
  computation: Computation;
  /** Of a map: where the value goes in the row, and how it is written. */
  target: { index: number; field: number; encode: Encoder } | undefined;
  counts: RuleCounts;
}

/**
 * Compiles the rules of a table with these columns. `joined`: the copies that they join with. Throws SluiceError `configuration`, for a bad
 * expression with its place.
 */
export function compileRules(
  rules: readonly RuleInput[],
  columns: readonly ExpressionColumn[],
  joined: JoinedTypes = {},
): RuleSet {
  return new RuleSet(rules, columns, joined);
}

export class RuleSet {
  /** Columns of the table that must be decoded, by index. */
  readonly uses: readonly number[];
  /** All columns that a row has after `apply`: those of the table, then targets that take the place of none of them. */
  readonly columns: readonly ExpressionColumn[];
  /** Columns that the rules fill. */
  readonly targets: readonly Target[];
  /** For each target, its TSV field after `apply` kept a row. */
  readonly fields: string[];
  /** For each target, its value after `apply` kept a row. */
  readonly values: Value[];
  /** What each rule reads and fills, in their order; one that fills several columns has a part for each. */
  readonly parts: readonly RulePart[];
  /** What must be looked up for rows before the rules run on them, one after the other. */
  readonly joins: readonly Join[];
  readonly #rules: CompiledRule[] = [];
  #rejection: Rejection | undefined;

  constructor(rules: readonly RuleInput[], columns: readonly ExpressionColumn[], joined: JoinedTypes) {
    // Earlier targets stand behind the table's columns; one of the same name takes the place of a column.
    const known = [...columns];
    const targets: Target[] = [];
    for (const rule of rules)
      this.#rules.push(...compileRule(rule, { known, targets, tableColumns: columns.length, joined }));
    const used = new Set(this.#rules.flatMap(({ computation }) => computation.usedColumns));
    this.uses = [...used].filter((index) => index < columns.length).sort((a, b) => a - b);
    this.joins = [...new Set(this.#rules.flatMap(({ join }) => join ?? []))];
    this.parts = this.#rules.map(({ rule, computation, target }) => ({
      rule_id: rule.rule_id,
      reads: computation.usedColumns.map((index) => known[index]!.name),
      fills: target && targets[target.field]!.name,
    }));
    this.columns = known;
    this.targets = targets;
    this.fields = targets.map(() => '\\N');
    this.values = targets.map(() => null);
  }

  /** Why the last row was rejected. */
  get rejection(): Rejection {
    return this.#rejection!;
  }

  /** What each rule did since the last call. */
  takeCounts(): Map<string, RuleCounts> {
    const taken = new Map<string, RuleCounts>();
    for (const { rule, counts } of this.#rules) if (!taken.has(rule.rule_id)) taken.set(rule.rule_id, { ...counts });
    for (const { counts } of this.#rules) Object.assign(counts, { in: 0, out: 0, errors: 0 });
    return taken;
  }

  /**
   * Runs the rules on a row. `row` holds the values of the used columns at their indexes, and gets those of the targets.
   * Throws SluiceError `rule_failed` where a rule with on_error `stop` fails.
   */
  apply(row: Value[]): Outcome {
    for (const compiled of this.#rules) {
      compiled.counts.in++;
      try {
        if (!this.#run(compiled, row)) return 'filtered';
      } catch (error) {
        if (!(error instanceof EvaluationError)) throw error;
        const outcome = this.#fail(compiled, row, error.message);
        if (outcome !== 'kept') return outcome;
      }
      compiled.counts.out++;
    }
    return 'kept';
  }

  /** Notes what of a join a row will ask for; earlier rules run for that, and joins among them must be looked up already. */
  want(join: Join, row: Value[]): void {
    for (const compiled of this.#rules) {
      if (compiled.join === join) return join.want(row);
      try {
        if (!this.#run(compiled, row)) return;
      } catch (error) {
        if (!(error instanceof EvaluationError)) throw error;
        if (compiled.onError !== 'null' || compiled.target === undefined) return;
        this.#set(compiled.target, '\\N', null, row);
      }
    }
  }

  /** False where a filter does not let the row through. */
  #run({ computation, target }: CompiledRule, row: Value[]): boolean {
    const value = computation.evaluate(row);
    if (target === undefined) return isTrue(value);
    this.#set(target, target.encode(value), value, row);
    return true;
  }

  #set({ index, field }: { index: number; field: number }, text: string, value: Value, row: Value[]): void {
    this.fields[field] = text;
    this.values[field] = value;
    row[index] = value;
  }

  #fail({ rule, onError, target, counts }: CompiledRule, row: Value[], reason: string): Outcome {
    counts.errors++;
    if (onError === 'stop')
      throw new SluiceError(
        'rule_failed',
        `rule ${rule.rule_id} failed for a row: ${reason}`,
        'Mend the rule or the row, then start the table again; or choose on_error: reject.',
      );
    if (onError === 'null') {
      // A filter that answers NULL lets nothing through, as in SQL.
      if (target === undefined) return 'filtered';
      this.#set(target, '\\N', null, row);
      return 'kept';
    }
    this.#rejection = { rule_id: rule.rule_id, field: rule.target_field, reason };
    return 'rejected';
  }
}

/** What a rule is compiled into: rows with what earlier rules fill. */
interface Compiling {
  known: ExpressionColumn[];
  targets: Target[];
  tableColumns: number;
  joined: JoinedTypes;
}

/** A rule in the parts that fill one column each, or filter. */
function compileRule(rule: RuleInput, compiling: Compiling): CompiledRule[] {
  const { known, joined } = compiling;
  checkRule(rule, known);
  const onError = rule.on_error ?? 'reject';
  const counts = { in: 0, out: 0, errors: 0 };
  if (rule.rule_type === 'join') {
    const wrongJoin = (reason: string, remedy: string) => new SluiceError('configuration', reason, remedy);
    const { join, targets } = located(rule, () => compileJoin(rule, known, joined, wrongJoin));
    return targets.map(({ name, computation }, i) => {
      const target = addTarget(rule, name, computation, compiling);
      // One of them counts for all.
      return { rule, join, onError, computation, target, counts: i === 0 ? counts : { ...counts } };
    });
  }
  const computation = computationOf(rule, known);
  if (rule.rule_type === 'filter') return [{ rule, onError, computation, target: undefined, counts }];
  return [{ rule, onError, computation, target: addTarget(rule, rule.target_field!, computation, compiling), counts }];
}

function addTarget(
  rule: RuleInput,
  name: string,
  computation: Computation,
  { known, targets, tableColumns }: Compiling,
): NonNullable<CompiledRule['target']> {
  const clickhouse = nullable(rule.target_type ?? computation.inferType(), rule);
  if (rule.on_error === 'null' && clickhouse.startsWith('Array('))
    throw wrong(rule, `${clickhouse} cannot hold NULL, which on_error: null would write`, 'Use on_error: reject.');
  let index = known.findIndex((column) => column.name === name);
  if (known[index]?.key)
    throw wrong(rule, `${name} is part of the key, by which rows are found`, 'Fill a column of another name.');
  if (index < 0) index = known.length;
  known[index] = { name, type: computation.type };
  let field = targets.findIndex((target) => target.name === name);
  if (field < 0) field = targets.length;
  targets[field] = { name, clickhouse, replaces: index < tableColumns };
  return { index, field, encode: encoderFor(clickhouse) };
}

/** True for a text around templates, or without any: as a condition it would say nothing. */
export function isPlainText(source: string, expression: Expression): boolean {
  return expression.kind === 'text' && !source.includes('{%');
}

/** Columns that rules fill can hold NULL, but for arrays: ClickHouse has no NULL for those. Their times are in UTC. */
function nullable(declared: string, rule: RuleInput): string {
  const parsed = located(rule, () => parseClickhouseType(declared));
  const type = inUtc(declared);
  if (parsed.nullable || parsed.type.name === 'Array') return type;
  const inner = /^LowCardinality\((.*)\)$/.exec(type)?.[1];
  return inner === undefined ? `Nullable(${type})` : `LowCardinality(Nullable(${inner}))`;
}

function checkRule(rule: RuleInput, known: readonly ExpressionColumn[]): void {
  const { rule_type: type, parameters } = rule;
  if ((type === 'map' || type === 'filter') && !rule.expression)
    throw wrong(rule, `a ${type} needs an expression`, 'Say what it computes.');
  if (type === 'aggregate' && (!parameters?.type || !rule.source_fields?.length))
    throw wrong(rule, 'an aggregate needs source_fields and parameters.type', 'Say what is made of which fields.');
  if (type === 'custom' && !parameters?.function)
    throw wrong(rule, 'a custom rule needs parameters.function', 'Name the function.');
  if (type !== 'filter' && type !== 'join' && !rule.target_field)
    throw wrong(rule, `a rule of type ${type} needs a target_field`, 'Name the column that it fills.');
  if (rule.target_field?.startsWith('_'))
    throw wrong(
      rule,
      `target_field ${rule.target_field} begins with _`,
      'Such names are for columns of Sluice itself.',
    );
  const names = known.map((column) => column.name);
  for (const field of rule.source_fields ?? []) {
    if (names.includes(field)) continue;
    const meant = nearest(field, names);
    throw wrong(
      rule,
      `source_fields names ${field}, which is no column`,
      meant === undefined ? `Its columns are ${names.slice(0, 100).join(', ')}.` : `Did you mean ${meant}?`,
    );
  }
}

function wrong(rule: RuleInput, reason: string, remedy: string): SluiceError {
  return new SluiceError('configuration', `rule ${rule.rule_id}: ${reason}`, remedy);
}

/** Says of which rule an error is. */
function located<T>(rule: RuleInput, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof SluiceError && !(error instanceof ExpressionError))
      throw wrong(rule, error.message, error.remedy);
    throw error;
  }
}

function computationOf(rule: RuleInput, known: readonly ExpressionColumn[]): Computation {
  if (rule.rule_type === 'aggregate') return compileAggregate(rule, known);
  if (rule.rule_type === 'custom') return located(rule, () => compileCustom(rule, known));
  const expression = compileOf(rule, known);
  if (rule.rule_type === 'filter' && isPlainText(rule.expression!, expression))
    throw wrong(rule, 'its expression is a text, which is always true', 'Write it as one {{ … }}.');
  return expression;
}

function compileOf(rule: RuleInput, known: readonly ExpressionColumn[]): Expression {
  try {
    return compileExpression(rule.expression!, known);
  } catch (error) {
    if (error instanceof ExpressionError) throw error.ofRule(rule.rule_id);
    throw error;
  }
}
