/**
 * Expressions of rules: Jinja2 as in Python, compiled once to closures and run on each row. See docs/expressions.md for
 * what they can do, and limits.ts for what they may cost.
 */
import { SluiceError } from '../../model/errors.ts';
import { inferType } from './clickhouse_types.ts';
import { typeOfSource } from './decode.ts';
import { compileExpression as compileNode } from './jinja/compile_expression.ts';
import { compileBody } from './jinja/compile_statement.ts';
import { parseJson } from './jinja/json_text.ts';
import { normalizeSource, SyntaxProblem, type Token, tokenize } from './jinja/lexer.ts';
import { beginEvaluation, EvaluationError, failure, limits, spend } from './jinja/limits.ts';
import { changingMethods } from './jinja/methods.ts';
import { parseTemplate } from './jinja/parser.ts';
import { Program, type Run, type TemplateColumn } from './jinja/scope.ts';
import { ofKind, type StaticType } from './jinja/static_type.ts';
import type { Statement } from './jinja/syntax_tree.ts';
import { Dict, Undefined, type Value } from './jinja/values.ts';

/** A column that an expression may name. */
export interface ExpressionColumn {
  name: string;
  /** Its type as PostgreSQL prints it, e.g. `numeric(12,2)`; or what is known of the results of an earlier rule. */
  type: string | StaticType;
  /** Part of the table's key: rules can read it, and not fill it. */
  key?: boolean;
}

/** Values of a row, one for each column that was given when the expression was compiled; those not used may be missing. */
export type Row = readonly Value[];

/** What computes one value of a row. */
export interface Computation {
  /** Columns that it reads, by index: only these must be decoded. */
  usedColumns: number[];
  /** What is known of its results. */
  type: StaticType;
  /** ClickHouse's type for its results, without Nullable. */
  inferType(): string;
  /** The result for a row. Throws EvaluationError where it fails. */
  evaluate(row: Row): Value;
}

export interface Expression extends Computation {
  /** Columns that it reads. */
  uses: string[];
  /** `value`: one `{{ }}`, which keeps its type · `text`: text around it · `json`: JSON with templates in its strings. */
  kind: 'value' | 'text' | 'json';
  /**
   * The result for a row. NULL where a column that it uses is NULL and the expression fails for that row. Throws
   * EvaluationError where it fails otherwise.
   */
  evaluate(row: Row): Value;
}

/** A mistake in an expression, and where it stands in its text. Lines and columns begin at 1. */
export class ExpressionError extends SluiceError {
  /** What is wrong, without the place. */
  readonly problem: string;
  readonly line: number;
  readonly column: number;

  constructor(problem: string, line: number, column: number, rule?: string) {
    const place = `line ${line}, column ${column}: ${problem}`;
    super(
      'configuration',
      rule === undefined ? place : `rule ${rule}, ${place}`,
      'Mend the expression; docs/expressions.md says what it can hold.',
    );
    this.problem = problem;
    this.line = line;
    this.column = column;
  }

  /** The same mistake, as that of a rule. */
  ofRule(rule: string): ExpressionError {
    return new ExpressionError(this.problem, this.line, this.column, rule);
  }
}

function mistakeAt(problem: string, source: string, at: number): ExpressionError {
  const before = source.slice(0, at).split('\n');
  return new ExpressionError(problem, before.length, before.at(-1)!.length + 1);
}

/** Compiles an expression for rows with these columns. Throws ExpressionError. */
export function compileExpression(text: string, columns: readonly ExpressionColumn[]): Expression {
  const source = normalizeSource(text);
  try {
    if (source.length > limits.source)
      throw new SyntaxProblem(`limit "source" reached: a template may have ${limits.source} characters`, 0);
    beginEvaluation();
    const compiler = new ExpressionCompiler(columns);
    return compiler.json(source) ?? compiler.template(source);
  } catch (error) {
    if (error instanceof SyntaxProblem) throw mistakeAt(error.message, source, error.at);
    if (error instanceof EvaluationError) throw mistakeAt(error.message, source, 0);
    if (error instanceof RangeError) throw mistakeAt(beyondEngine(error).message, source, 0);
    throw error;
  }
}

/** The stack of JavaScript, or its longest text: the limits should be reached before. */
function beyondEngine({ message }: RangeError): EvaluationError {
  return failure(`limit "depth" reached: ${message}`, 'depth');
}

/** Names in an expression that may be columns: all of them but those that are called. None where it cannot be read. */
export function possibleColumns(text: string): string[] {
  const names = new Set<string>();
  for (const source of templatesIn(normalizeSource(text))) {
    for (const name of namesIn(source)) names.add(name);
  }
  return [...names];
}

/** A template, or those in the strings of JSON. */
function templatesIn(source: string): string[] {
  if (!/^\s*[[{]/.test(source) || parseJson(source) === undefined) return [source];
  const texts: string[] = [];
  JSON.parse(source, (_key, value: unknown) => {
    if (typeof value === 'string') texts.push(value);
    return null;
  });
  return texts;
}

function namesIn(source: string): string[] {
  try {
    const tokens = tokenize(source);
    // `row["Order ID"]` names a column by a string.
    const named = (token: Token) => token.type === 'name' || token.type === 'string';
    return tokens.flatMap((token, i) => (named(token) && tokens[i + 1]?.value !== '(' ? [token.value] : []));
  } catch (error) {
    if (error instanceof SyntaxProblem) return [];
    throw error;
  }
}

interface Part {
  run: Run;
  type: StaticType;
}

class ExpressionCompiler {
  readonly #columns: TemplateColumn[];
  readonly #used = new Set<number>();

  constructor(columns: readonly ExpressionColumn[]) {
    this.#columns = columns.map(({ name, type }, index) => ({
      name,
      type: typeof type === 'string' ? typeOfSource(type) : type,
      index,
    }));
  }

  template(source: string): Expression {
    const { run, type, single } = this.#compile(source);
    return this.#expression(single ? 'value' : 'text', type, run);
  }

  /** JSON is parsed before anything is put into it: so no data can break it. Undefined for other text. */
  json(source: string): Expression | undefined {
    if (!/^\s*[[{]/.test(source) || !hasTemplate(source)) return undefined;
    const document = parseJson(source);
    if (document === undefined) return undefined;
    // A list of lists could as well be meant as text, but then it would not be JSON.
    const run = this.#leaves(document, source);
    return this.#expression('json', ofKind(document instanceof Dict ? 'dict' : 'list'), run);
  }

  #leaves(value: Value, source: string): Run {
    if (typeof value === 'string') return hasTemplate(value) ? this.#leaf(value, source) : () => value;
    if (Array.isArray(value)) {
      const runs = value.map((item) => this.#leaves(item, source));
      return (row) => {
        spend(runs.length);
        return runs.map((run) => run(row));
      };
    }
    if (!(value instanceof Dict)) return () => value;
    const entries = value.entries().map(([key, item]) => [key, this.#leaves(item, source)] as const);
    return (row) => {
      spend(entries.length);
      const result = new Dict();
      for (const [key, run] of entries) result.set(key, run(row));
      return result;
    };
  }

  /** One string of the JSON. Mistakes are told where the string stands, as well as escapes in it allow. */
  #leaf(text: string, source: string): Run {
    try {
      const { run } = this.#compile(normalizeSource(text));
      return (row) => known(run(row));
    } catch (error) {
      if (!(error instanceof SyntaxProblem)) throw error;
      const begin = source.indexOf(JSON.stringify(text));
      throw new SyntaxProblem(error.message, begin < 0 ? Math.max(0, source.indexOf('{{')) : begin + 1 + error.at);
    }
  }

  #compile(source: string): Part & { single: boolean } {
    const tokens = tokenize(source);
    const body = parseTemplate(tokens);
    const program = new Program(this.#columns, body, changesValues(tokens));
    const output = singleOutput(body);
    const part: Part =
      output === undefined
        ? { run: compileBody(body, program.root), type: ofKind('text') }
        : compileNode(output, program.root);
    for (const index of program.used) this.#used.add(index);
    return { run: begun(part.run, program), type: part.type, single: output !== undefined };
  }

  #expression(kind: Expression['kind'], type: StaticType, run: Run): Expression {
    const usedColumns = [...this.#used].sort((a, b) => a - b);
    return {
      kind,
      type,
      usedColumns,
      uses: usedColumns.map((index) => this.#columns[index]!.name),
      inferType: () => inferType(type),
      evaluate: evaluator(run, usedColumns),
    };
  }
}

function hasTemplate(text: string): boolean {
  return /\{[{%#]/.test(text);
}

/** The expression of a template that is one `{{ }}` and nothing else. */
function singleOutput(body: readonly Statement[]) {
  const [only] = body;
  return body.length === 1 && only!.type === 'output' ? only!.expression : undefined;
}

/** True when the template calls a method that changes a list or dict. */
function changesValues(tokens: readonly Token[]): boolean {
  return tokens.some(
    (token, i) =>
      (token.type === 'name' && tokens[i - 1]?.value === '.' && changingMethods.has(token.value)) ||
      // Methods can be named by texts, too.
      (token.type === 'string' && changingMethods.has(token.value)),
  );
}

/** A run that gives the template's variables their first values before. */
function begun(run: Run, program: Program): Run {
  const begin = program.begin();
  if (program.slots.length === 0) return run;
  return (row) => {
    begin(row);
    return run(row);
  };
}

/** What is not there becomes NULL. */
function known(value: Value): Value {
  return value instanceof Undefined ? null : value;
}

function evaluator(run: Run, used: readonly number[]): (row: Row) => Value {
  // Rows are evaluated one at a time, so the one that runs can stand here.
  let current: Row = [];
  const size = () => used.reduce((sum, index) => sum + sizeOf(current[index]!, 0), 0);
  return (row) => {
    current = row;
    beginEvaluation(size);
    try {
      const value = run(row);
      return value instanceof Undefined ? null : value;
    } catch (error) {
      return nullOrFail(error, row, used);
    }
  };
}

/** About how many characters a value of a row has. */
function sizeOf(value: Value, depth: number): number {
  if (typeof value === 'string') return value.length;
  if (depth > limits.nesting) return 0;
  if (Array.isArray(value)) return value.reduce<number>((sum, item) => sum + 1 + sizeOf(item, depth + 1), 0);
  if (!(value instanceof Dict)) return 1;
  return value.entries().reduce((sum, [key, item]) => sum + 1 + sizeOf(key, depth) + sizeOf(item, depth + 1), 0);
}

function nullOrFail(error: unknown, row: Row, used: readonly number[]): Value {
  if (error instanceof RangeError) throw beyondEngine(error);
  const ofRow = error instanceof EvaluationError && error.limit === undefined;
  if (ofRow && used.some((index) => row[index] === null)) return null;
  throw error;
}
