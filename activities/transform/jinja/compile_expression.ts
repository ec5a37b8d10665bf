/**
 * From the parsed tree to closures: each node becomes a function of the row, made once. No code is generated. What does
 * not depend on the row is computed at once.
 */
import { nearest } from '../../../model/nearest_word.ts';
import { attributeOf, itemOf } from './attributes.ts';
import { compileCall, compileRoutine } from './compile_call.ts';
import { DateTime, Duration, PlainDate } from './dates.ts';
import { Decimal } from './decimal.ts';
import { filters } from './filters.ts';
import { roundedTo } from './filters_values.ts';
import { isTests } from './is_tests.ts';
import { SyntaxProblem } from './lexer.ts';
import { EvaluationError, failure, limits, made, spend, watchText } from './limits.ts';
import { allMethods, methodsOf } from './methods.ts';
import {
  add,
  contains,
  divide,
  divideWhole,
  equal,
  isTrue,
  multiply,
  negate,
  order,
  plus,
  raise,
  remainder,
  subtract,
} from './operators.ts';
import type { Run, Scope } from './scope.ts';
import { slice } from './slices.ts';
import { bigintDigits, binaryType, eitherType, type Kind, ofKind, type StaticType } from './static_type.ts';
import type {
  Attribute,
  Binary,
  BinaryOperator,
  Compare,
  CompareOperator,
  Concat,
  Conditional,
  DictLiteral,
  Expression,
  Filter,
  Item,
  Logical,
  Name,
  Sequence,
  Slice,
  Test,
  Unary,
} from './syntax_tree.ts';
import { toText } from './text.ts';
import { Dict, Float, Tuple, typeName, Undefined, type Value } from './values.ts';

/** An expression, ready to run. */
export interface Compiled {
  run: Run;
  type: StaticType;
  /** Set where the value does not depend on the row. */
  constant?: { value: Value };
}

/** How deep compiled expressions may nest: each level is a call on JavaScript's stack. */
const deepest = limits.depth * 5;

const noRow: readonly Value[] = [];

/** The static type of a value. */
function typeOf(value: Value): StaticType {
  if (typeof value === 'number' || typeof value === 'bigint')
    return { kind: 'int', digits: Math.min(String(value).replace('-', '').length, bigintDigits) };
  if (typeof value === 'string') return ofKind('text');
  if (typeof value === 'boolean') return ofKind('bool');
  if (value === null) return ofKind('none');
  if (value instanceof Float) return ofKind('float');
  if (value instanceof Decimal)
    return { kind: 'decimal', digits: String(value.coefficient).length, scale: value.scale };
  if (Array.isArray(value)) return ofKind('list');
  if (value instanceof Tuple) return ofKind('tuple');
  if (value instanceof Dict) return ofKind('dict');
  if (value instanceof Undefined) return ofKind('undefined');
  if (value instanceof DateTime) return ofKind('datetime');
  if (value instanceof PlainDate) return ofKind('date');
  return value instanceof Duration ? ofKind('duration') : ofKind('any');
}

export function constantOf(value: Value): Compiled {
  return { run: () => value, type: typeOf(value), constant: { value } };
}

/** True for values that nothing can change. */
function isFixed(value: Value): boolean {
  if (value === null || typeof value !== 'object') return true;
  if (value instanceof Tuple) return value.items.every(isFixed);
  return !Array.isArray(value) && !(value instanceof Dict);
}

/**
 * The compiled form of a node, computed at once where all its parts are constant. An error stays for the rows, where a
 * branch that is never taken does no harm; but reaching a limit without any row is a mistake of the template.
 */
export function fold(
  scope: Scope,
  at: number,
  parts: readonly (Compiled | undefined)[],
  run: Run,
  type: StaticType,
): Compiled {
  if (parts.some((part) => part !== undefined && part.constant === undefined)) return { run, type };
  try {
    const value = run(noRow);
    return scope.program.changing && !isFixed(value) ? { run, type } : constantOf(value);
  } catch (error) {
    if (!(error instanceof EvaluationError)) throw error;
    if (error.limit !== undefined) throw new SyntaxProblem(error.message, at);
    return { run, type };
  }
}

export function compileExpression(node: Expression, scope: Scope): Compiled {
  const { program } = scope;
  program.parts++;
  if (++program.depth > deepest)
    throw new SyntaxProblem(`limit "depth" reached: an expression has more than ${deepest} steps in a row`, node.at);
  const compiled = compileNode(node, scope);
  program.depth--;
  return compiled;
}

function compileNode(node: Expression, scope: Scope): Compiled {
  switch (node.type) {
    case 'constant':
      return constantOf(node.value);
    case 'name':
      return compileName(node, scope);
    case 'list':
    case 'tuple':
      return compileSequence(node, scope);
    case 'dict':
      return compileDict(node, scope);
    case 'attribute':
      return compileAttribute(node, scope);
    case 'item':
      return compileItem(node, scope);
    case 'slice':
      return compileSlice(node, scope);
    case 'call':
      return compileCall(node, scope);
    case 'filter':
      return compileFilter(node, scope, undefined);
    case 'test':
      return compileTest(node, scope);
    case 'binary':
      return compileBinary(node, scope);
    case 'unary':
      return compileUnary(node, scope);
    case 'logical':
      return compileLogical(node, scope);
    case 'compare':
      return compileCompare(node, scope);
    case 'concat':
      return compileConcat(node, scope);
    case 'conditional':
      return compileConditional(node, scope);
  }
}

// ---- names, literals, items

function compileName({ name, at }: Name, scope: Scope): Compiled {
  const found = scope.find(name) ?? scope.program.readColumn(name);
  if (found) return found;
  if (name === 'row') throw new SyntaxProblem('"row" is only for columns with unusual names: row["Order ID"]', at);
  return scope.unknown(name, at);
}

/** `row["Order ID"]` and `row.name`: a column, whatever characters its name has. */
function columnOfRow(object: Expression, name: Value, at: number, scope: Scope): Compiled | undefined {
  if (object.type !== 'name' || object.name !== 'row' || typeof name !== 'string') return undefined;
  if (scope.find('row') || scope.program.columns.has('row')) return undefined;
  return compileName({ type: 'name', name, at }, scope);
}

function compileSequence({ type, items, at }: Sequence, scope: Scope): Compiled {
  const parts = items.map((item) => compileExpression(item, scope));
  const runs = parts.map((part) => part.run);
  const all = (row: readonly Value[]) => {
    spend(runs.length);
    return runs.map((run) => run(row));
  };
  if (type === 'list') return fold(scope, at, parts, all, ofKind('list'));
  return fold(scope, at, parts, (row) => new Tuple(all(row)), ofKind('tuple'));
}

function compileDict({ entries, at }: DictLiteral, scope: Scope): Compiled {
  const parts = entries.map(
    ({ key, value }) => [compileExpression(key, scope), compileExpression(value, scope)] as const,
  );
  const run: Run = (row) => {
    // Making one costs as much as many steps.
    spend(10 + parts.length * 2);
    const dict = new Dict();
    for (const [key, value] of parts) dict.set(key.run(row), value.run(row));
    return dict;
  };
  return fold(scope, at, parts.flat(), run, ofKind('dict'));
}

/** Python's inner names lead out of the data; nothing here has them. */
export function refuseInnerName(name: string, at: number): void {
  if (name.startsWith('__'))
    throw new SyntaxProblem(`"${name}": names that begin with two underscores cannot be reached`, at);
}

function compileAttribute({ object, name, at }: Attribute, scope: Scope): Compiled {
  refuseInnerName(name, at);
  const column = columnOfRow(object, name, at, scope);
  if (column) return column;
  const target = compileExpression(object, scope);
  refuseAttributes(target.type, name, at);
  const { run } = target;
  const isMethod = allMethods.some((methods) => methods.has(name));
  return fold(
    scope,
    at,
    [target],
    isMethod ? (row) => notCalled(run(row), name) : (row) => attributeOf(run(row), name),
    attributeType(target.type, name),
  );
}

/** Types whose values have no attributes at all. */
const plainKinds: ReadonlySet<Kind> = new Set(['text', 'int', 'float', 'decimal', 'bool']);

/** Jinja2 answers Undefined here for every row; but then somebody has mistyped, or expects what is not there. */
function refuseAttributes({ kind }: StaticType, name: string, at: number): void {
  if (!plainKinds.has(kind)) return;
  const method = allMethods.some((methods) => methods.has(name));
  const hint = method ? `: if it is a method, write ${name}()` : '';
  throw new SyntaxProblem(`a value of type ${kind} has no attribute "${name}"${hint}`, at);
}

const calendarFields = new Set(['year', 'month', 'day', 'hour', 'minute', 'second', 'microsecond']);

function attributeType(type: StaticType, name: string): StaticType {
  const isField = (type.kind === 'date' || type.kind === 'datetime') && calendarFields.has(name);
  return isField ? { kind: 'int', digits: 6 } : ofKind('any');
}

/** A name that some types have a method for; others may have an attribute of that name. */
function notCalled(value: Value, name: string): Value {
  if (value instanceof Undefined) return value.fail();
  if (methodsOf(value).has(name))
    throw failure(`"${name}" is a method of ${typeName(value)}: write ${name}() or ["${name}"]`);
  return attributeOf(value, name);
}

function compileItem({ object, key, at }: Item, scope: Scope): Compiled {
  const constantKey = key.type === 'constant' ? key.value : undefined;
  const column = constantKey === undefined ? undefined : columnOfRow(object, constantKey, at, scope);
  if (column) return column;
  const target = compileExpression(object, scope);
  if (typeof constantKey === 'string') refuseAttributes(target.type, constantKey, at);
  const index = compileExpression(key, scope);
  const type = target.type.kind === 'text' ? ofKind('text') : ofKind('any');
  const part = typeof constantKey === 'number' ? splitPart(object, constantKey, scope) : undefined;
  const { run } = target;
  const keyOf = index.run;
  return fold(
    scope,
    at,
    [target, index],
    part ?? ((row) => itemOf(run(row), keyOf(row))),
    part ? ofKind('text') : type,
  );
}

/**
 * `text.split("x")[n]`, which is common in rules: finds the one part without making a list of all. Undefined for other
 * expressions, which are compiled as they stand.
 */
function splitPart(object: Expression, index: number, scope: Scope): Run | undefined {
  if (object.type !== 'call' || object.callee.type !== 'attribute' || object.callee.name !== 'split') return undefined;
  const [separator, ...more] = object.args.positional;
  if (separator?.type !== 'constant' || more.length > 0 || object.args.keyword.length > 0) return undefined;
  const sign = separator.value;
  if (typeof sign !== 'string' || sign === '' || index < 0 || index > 100) return undefined;
  const whole = compileExpression(object, scope).run;
  const { run } = compileExpression(object.callee.object, scope);
  return (row) => {
    const text = run(row);
    // Other types, and texts that are long enough to count, take the long way.
    if (typeof text !== 'string' || text.length > 256) return itemOf(whole(row), index);
    let start = 0;
    for (let i = 0; i < index; i++) {
      const at = text.indexOf(sign, start);
      if (at < 0) return itemOf([], index);
      start = at + sign.length;
    }
    const end = text.indexOf(sign, start);
    return end < 0 ? (start === 0 ? text : text.slice(start)) : text.slice(start, end);
  };
}

function compileSlice({ object, start, stop, step, at }: Slice, scope: Scope): Compiled {
  const target = compileExpression(object, scope);
  const bound = (node: Expression | undefined) =>
    node === undefined ? constantOf(null) : compileExpression(node, scope);
  const bounds = [bound(start), bound(stop), bound(step)] as const;
  const [from, to, stride] = bounds.map((part) => part.run) as [Run, Run, Run];
  const { run } = target;
  const { kind } = target.type;
  const type = kind === 'text' || kind === 'list' || kind === 'tuple' ? ofKind(kind) : ofKind('any');
  if (bounds.every((part) => part.constant !== undefined)) {
    const [first, last, by] = bounds.map((part) => part.constant!.value) as [Value, Value, Value];
    return fold(scope, at, [target], (row) => slice(run(row), first, last, by), type);
  }
  return fold(scope, at, [target, ...bounds], (row) => slice(run(row), from(row), to(row), stride(row)), type);
}

// ---- filters and tests

/** A filter; `text` stands for its operand where it works on the text of a block. */
export function compileFilter(node: Filter, scope: Scope, text: Compiled | undefined): Compiled {
  const { name, at, args } = node;
  const filter = filters.get(name);
  if (filter === undefined) {
    const meant = nearest(name, [...filters.keys()]);
    throw new SyntaxProblem(
      `there is no filter "${name}"${meant === undefined ? '' : `: did you mean "${meant}"?`}`,
      at,
    );
  }
  const inner =
    node.operand?.type === 'filter' && text !== undefined ? compileFilter(node.operand, scope, text) : undefined;
  const operand = inner ?? (node.operand === undefined ? text! : compileExpression(node.operand, scope));
  const compiled = compileRoutine(filter, operand, args, at, scope);
  const [places] = args.positional;
  if (name !== 'round' || places?.type !== 'constant' || typeof places.value !== 'number') return compiled;
  return { ...compiled, type: roundedTo(operand.type, places.value) };
}

function compileTest({ operand, name, args, at }: Test, scope: Scope): Compiled {
  const test = isTests.get(name);
  if (test === undefined) {
    const meant = nearest(name, [...isTests.keys()]);
    throw new SyntaxProblem(`there is no test "${name}"${meant === undefined ? '' : `: did you mean "${meant}"?`}`, at);
  }
  return compileRoutine(test, compileExpression(operand, scope), args, at, scope);
}

// ---- operators

const binaryOperators: Record<BinaryOperator, (a: Value, b: Value) => Value> = {
  '+': add,
  '-': subtract,
  '*': multiply,
  '/': divide,
  '//': divideWhole,
  '%': remainder,
  '**': raise,
};

function compileBinary({ operator, left, right, at }: Binary, scope: Scope): Compiled {
  const a = compileExpression(left, scope);
  const b = compileExpression(right, scope);
  const operate = binaryOperators[operator];
  const x = a.run;
  const y = b.run;
  const type = binaryType(operator, a.type, b.type);
  if (b.constant === undefined) return fold(scope, at, [a, b], (row) => operate(x(row), y(row)), type);
  const { value } = b.constant;
  return fold(scope, at, [a], (row) => operate(x(row), value), type);
}

function compileUnary({ operator, operand, at }: Unary, scope: Scope): Compiled {
  const part = compileExpression(operand, scope);
  const { run } = part;
  if (operator === 'not') return fold(scope, at, [part], (row) => !isTrue(run(row)), ofKind('bool'));
  const type = part.type.kind === 'bool' ? ofKind('int') : part.type;
  if (operator === '-') return fold(scope, at, [part], (row) => negate(run(row)), type);
  return fold(scope, at, [part], (row) => plus(run(row)), type);
}

function compileLogical({ operator, left, right }: Logical, scope: Scope): Compiled {
  const a = compileExpression(left, scope);
  const b = compileExpression(right, scope);
  const stopsAt = operator === 'or';
  if (a.constant !== undefined) return isTrue(a.constant.value) === stopsAt ? a : b;
  const x = a.run;
  const y = b.run;
  const type = eitherType(a.type, b.type);
  if (stopsAt) {
    return {
      run: (row) => {
        const value = x(row);
        return isTrue(value) ? value : y(row);
      },
      type,
    };
  }
  return {
    run: (row) => {
      const value = x(row);
      return isTrue(value) ? y(row) : value;
    },
    type,
  };
}

const comparisons: Record<CompareOperator, (a: Value, b: Value) => boolean> = {
  '==': equal,
  '!=': (a, b) => !equal(a, b),
  '<': (a, b) => order(a, b, '<') < 0,
  '<=': (a, b) => order(a, b, '<=') <= 0,
  '>': (a, b) => order(a, b, '>') > 0,
  '>=': (a, b) => order(a, b, '>=') >= 0,
  in: (a, b) => contains(b, a),
  'not in': (a, b) => !contains(b, a),
};

function compileCompare({ first, rest, at }: Compare, scope: Scope): Compiled {
  const start = compileExpression(first, scope);
  const links = rest.map(({ operator, operand }) => ({
    compare: comparisons[operator],
    operand: compileExpression(operand, scope),
  }));
  const parts = [start, ...links.map((link) => link.operand)];
  const x = start.run;
  if (links.length === 1) {
    const { compare, operand } = links[0]!;
    const y = operand.run;
    return fold(scope, at, parts, (row) => compare(x(row), y(row)), ofKind('bool'));
  }
  const run: Run = (row) => {
    let value = x(row);
    for (const { compare, operand } of links) {
      const next = operand.run(row);
      if (!compare(value, next)) return false;
      value = next;
    }
    return true;
  };
  return fold(scope, at, parts, run, ofKind('bool'));
}

function compileConcat({ parts, at }: Concat, scope: Scope): Compiled {
  const compiled = parts.map((part) => compileExpression(part, scope));
  const runs = compiled.map((part) => part.run);
  const run: Run = (row) => {
    let text = '';
    for (const part of runs) {
      text += toText(part(row));
      watchText(text.length);
    }
    return made(text);
  };
  return fold(scope, at, compiled, run, ofKind('text'));
}

function compileConditional({ test, whenTrue, whenFalse }: Conditional, scope: Scope): Compiled {
  const condition = compileExpression(test, scope);
  const yes = compileExpression(whenTrue, scope);
  const no =
    whenFalse === undefined
      ? constantOf(new Undefined('the condition of the inline "if" is false, and there is no "else"'))
      : compileExpression(whenFalse, scope);
  if (condition.constant !== undefined) return isTrue(condition.constant.value) ? yes : no;
  const when = condition.run;
  const x = yes.run;
  const y = no.run;
  return { run: (row) => (isTrue(when(row)) ? x(row) : y(row)), type: eitherType(yes.type, no.type) };
}
