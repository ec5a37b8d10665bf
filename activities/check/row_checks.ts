/**
 * The checks of one table that rows pass or fail by themselves, compiled: run on rows of decoded values, behind the rules. A
 * row that passes costs no allocation.
 */
import { type Check, type CheckInput, isRowCheck } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import { nearest } from '../../model/nearest_word.ts';
import { typeOfSource } from '../transform/decode.ts';
import { compileExpression, type Expression, type ExpressionColumn, ExpressionError } from '../transform/expression.ts';
import { beginEvaluation, EvaluationError } from '../transform/jinja/limits.ts';
import { isTrue } from '../transform/jinja/operators.ts';
import type { Value } from '../transform/jinja/values.ts';
import { isPlainText, type Rejection } from '../transform/rules.ts';
import { compileTest, type FieldTest } from './value_tests.ts';

/** How many rows a check looked at, and how many of them failed it. */
export interface CheckCounts {
  checked: number;
  failed: number;
}

interface CompiledCheck {
  check: CheckInput;
  uses: readonly number[];
  /** Why the row fails; undefined when it passes. */
  run: (row: readonly Value[]) => Rejection | undefined;
  failed: number;
}

/**
 * Compiles the checks of rows among these for rows with these columns: those of the table, then targets of rules. Throws
 * SluiceError `configuration`; for a bad expression with its place.
 */
export function compileChecks(
  checks: readonly (CheckInput | Check)[],
  columns: readonly ExpressionColumn[],
): CompiledChecks {
  return new CompiledChecks(checks, columns);
}

export class CompiledChecks {
  /** Columns that must be decoded, by index; those of targets are among them. */
  readonly uses: readonly number[];
  readonly #checks: CompiledCheck[];
  #rows = 0;
  #failedRows = 0;

  constructor(checks: readonly CheckInput[], columns: readonly ExpressionColumn[]) {
    this.#checks = checks.filter(isRowCheck).map((check) => compileCheck(check, columns));
    this.uses = [...new Set(this.#checks.flatMap((check) => check.uses))].sort((a, b) => a - b);
  }

  /**
   * Runs all checks on a row. Answers why it is to be held back: the first check of severity `reject` that it fails. Throws
   * SluiceError `rule_failed` where it fails one of severity `stop`.
   */
  apply(row: readonly Value[]): Rejection | undefined {
    let held: Rejection | undefined;
    let failed = false;
    this.#rows++;
    for (const compiled of this.#checks) {
      const rejection = compiled.run(row);
      if (rejection === undefined) continue;
      failed = true;
      compiled.failed++;
      if (compiled.check.severity === 'stop') throw stopped(rejection);
      if (compiled.check.severity === 'reject') held ??= rejection;
    }
    if (failed) this.#failedRows++;
    return held;
  }

  /** Why a row fails a check, for each that it fails; nothing is counted, whatever the severity. */
  failures(row: readonly Value[]): Rejection[] {
    return this.#checks.flatMap((compiled) => compiled.run(row) ?? []);
  }

  /** What each check did since the last call. */
  takeCounts(): Map<string, CheckCounts> {
    const taken = new Map(this.#checks.map(({ check, failed }) => [check.rule_id, { checked: this.#rows, failed }]));
    for (const compiled of this.#checks) compiled.failed = 0;
    this.#rows = 0;
    this.#failedRows = 0;
    return taken;
  }

  /** Rows since the last call of `takeCounts`, and those of them that failed any check. Ask before that. */
  get rows(): CheckCounts {
    return { checked: this.#rows, failed: this.#failedRows };
  }
}

function stopped({ rule_id, reason }: Rejection): SluiceError {
  return new SluiceError(
    'rule_failed',
    `a row failed check ${rule_id}: ${reason}`,
    'Mend the row or the check, then start the table again; or choose severity: reject.',
  );
}

function compileCheck(check: CheckInput, columns: readonly ExpressionColumn[]): CompiledCheck {
  if (check.rule_type === 'expression') return compileExpressionCheck(check, columns);
  const index = columnOf(check, columns);
  const { type } = columns[index]!;
  const { passes, must } = compileTest(check, (typeof type === 'string' ? typeOfSource(type) : type).kind);
  const rejection = rejectionOf(check, must);
  const run = check.rule_type === 'not_null' ? notNull(index, rejection) : tested(index, passes, rejection);
  return { check, uses: [index], run, failed: 0 };
}

function rejectionOf({ rule_id, field }: CheckInput, reason: string): Rejection {
  return { rule_id, field, reason };
}

function notNull(index: number, rejection: Rejection): CompiledCheck['run'] {
  return (row) => (row[index] === null ? rejection : undefined);
}

function tested(index: number, passes: FieldTest['passes'], rejection: Rejection): CompiledCheck['run'] {
  return (row) => {
    const value = row[index]!;
    if (value === null) return undefined;
    try {
      beginEvaluation();
      return passes(value) ? undefined : rejection;
    } catch (error) {
      if (error instanceof EvaluationError) return { ...rejection, reason: error.message };
      throw error;
    }
  };
}

/** NULL passes, as with SQL's CHECK; and so does a row on which the expression fails because of a NULL. */
function compileExpressionCheck(check: CheckInput, columns: readonly ExpressionColumn[]): CompiledCheck {
  const expression = conditionOf(check, columns);
  const rejection = rejectionOf(check, 'the expression is not true');
  const run = (row: readonly Value[]) => {
    try {
      const value = expression.evaluate(row);
      return value === null || isTrue(value) ? undefined : rejection;
    } catch (error) {
      if (error instanceof EvaluationError) return { ...rejection, reason: error.message };
      throw error;
    }
  };
  return { check, uses: expression.usedColumns, run, failed: 0 };
}

function conditionOf(check: CheckInput, columns: readonly ExpressionColumn[]): Expression {
  const text = check.parameters.expression!;
  // `amount > 0` means `{{ amount > 0 }}`: as a text it would be true for every row.
  const bare = !/\{[{%]/.test(text);
  try {
    const expression = compileExpression(bare ? `{{ ${text} }}` : text, columns);
    if (!isPlainText(text, expression) || bare) return expression;
    throw new ExpressionError('a text is always true: write the check as one {{ … }}', 1, 1);
  } catch (error) {
    if (!(error instanceof ExpressionError)) throw error;
    const column = bare && error.line === 1 ? Math.max(1, error.column - 3) : error.column;
    throw new ExpressionError(error.problem, error.line, column, check.rule_id);
  }
}

function columnOf(check: CheckInput, columns: readonly ExpressionColumn[]): number {
  const names = columns.map((column) => column.name);
  const index = names.indexOf(check.field!);
  if (index >= 0) return index;
  const meant = nearest(check.field!, names);
  throw new SluiceError(
    'configuration',
    `check ${check.rule_id}: field names ${check.field}, which is no column`,
    meant === undefined ? `Its columns are ${names.slice(0, 100).join(', ')}.` : `Did you mean ${meant}?`,
  );
}
