/** Calls of methods and functions, and the arguments of filters and tests, bound when the template is compiled. */
import { nearest } from '../../../model/nearest_word.ts';
import { type Compiled, compileExpression, fold, refuseInnerName } from './compile_expression.ts';
import { functions } from './functions.ts';
import { SyntaxProblem } from './lexer.ts';
import { EvaluationError, failure } from './limits.ts';
import { allMethods, methodsOf } from './methods.ts';
import { type Argument, ArgumentProblem, bindArguments, type Routine, type Routines } from './routine.ts';
import type { Run, Scope } from './scope.ts';
import { eitherType, ofKind, type StaticType } from './static_type.ts';
import type { Arguments, Call } from './syntax_tree.ts';
import { textMethods } from './text_methods.ts';
import { typeName, Undefined, type Value } from './values.ts';

interface CompiledArguments {
  positional: Compiled[];
  named: { name: string; value: Compiled }[];
}

function compileArguments({ positional, keyword }: Arguments, scope: Scope): CompiledArguments {
  return {
    positional: positional.map((argument) => compileExpression(argument, scope)),
    named: keyword.map(({ name, value }) => ({ name, value: compileExpression(value, scope) })),
  };
}

/** Runs a routine on a value, with arguments from the row. */
type Apply = (self: Value, row: readonly Value[]) => Value;

/** A routine with its arguments. */
interface Bound {
  apply: Apply;
  arguments: readonly (Compiled | undefined)[];
}

function bind(routine: Routine, args: CompiledArguments): Bound {
  if (routine.variadic) return bindVariadic(routine, args);
  const bound = bindArguments(routine, args.positional, args.named);
  routine.check?.(bound.map((argument) => argument?.constant?.value));
  // Arguments that were left out at the end need not be passed.
  const given = bound.slice(0, bound.findLastIndex((argument) => argument !== undefined) + 1);
  return { apply: applied(routine, given.map(runOrNothing)), arguments: bound };
}

type RunArgument = (row: readonly Value[]) => Argument;

function runOrNothing(argument: Compiled | undefined): RunArgument {
  return argument === undefined ? () => undefined : argument.run;
}

/** A closure for each small number of arguments: a general one would make a list for each row. */
function applied({ run }: Routine, args: readonly RunArgument[]): Apply {
  const [a, b, c] = args;
  if (a === undefined) return (self) => run(self);
  if (b === undefined) return (self, row) => run(self, a(row));
  if (c === undefined) return (self, row) => run(self, a(row), b(row));
  return (self, row) => run(self, ...args.map((argument) => argument(row)));
}

function bindVariadic(routine: Routine, { positional, named }: CompiledArguments): Bound {
  const apply: Apply = (self, row) =>
    routine.runVariadic(
      self,
      positional.map((argument) => argument.run(row)),
      new Map(named.map(({ name, value }) => [name, value.run(row)])),
    );
  return { apply, arguments: [...positional, ...named.map(({ value }) => value)] };
}

/** Runs what finds mistakes in arguments, and says where they stand. */
function locating<T>(at: number, action: () => T): T {
  try {
    return action();
  } catch (error) {
    if (error instanceof ArgumentProblem || error instanceof EvaluationError)
      throw new SyntaxProblem(error.message, at);
    throw error;
  }
}

function argumentTypes(bound: Bound): (StaticType | undefined)[] {
  return bound.arguments.map((argument) => argument?.type);
}

/** A filter, test or function with its operand. */
export function compileRoutine(
  routine: Routine,
  operand: Compiled,
  args: Arguments,
  at: number,
  scope: Scope,
): Compiled {
  const { run, type, parts } = routineParts(routine, operand, args, at, scope);
  return fold(scope, at, parts, run, type);
}

function routineParts(routine: Routine, operand: Compiled, args: Arguments, at: number, scope: Scope) {
  const compiled = compileArguments(args, scope);
  const bound = locating(at, () => bind(routine, compiled));
  const { apply } = bound;
  const { run } = operand;
  const type = routine.type(operand.type, argumentTypes(bound));
  return { run: (row: readonly Value[]) => apply(run(row), row), type, parts: [operand, ...bound.arguments] };
}

export function compileCall(node: Call, scope: Scope): Compiled {
  const { callee, args, at } = node;
  if (callee.type === 'attribute') return compileMethod(node, callee.name, scope);
  if (callee.type === 'name' && scope.find(callee.name) === undefined && !scope.program.columns.has(callee.name)) {
    const target = functions.get(callee.name);
    if (target === undefined) return unknownFunction(callee.name, at);
    const nothing: Compiled = { run: () => null, type: ofKind('none'), constant: { value: null } };
    if (callee.name !== 'namespace') return compileRoutine(target, nothing, args, at, scope);
    // A namespace is there to be changed: each row needs its own.
    const { run, type } = routineParts(target, nothing, args, at, scope);
    return { run, type };
  }
  throw new SyntaxProblem('only methods and functions can be called', at);
}

function unknownFunction(name: string, at: number): never {
  const meant = nearest(name, [...functions.keys()]);
  const reasons: Record<string, string> = {
    now: ': a rule must give the same result whenever it runs',
    lipsum: ': it makes up text',
    cycler: ': use loop.cycle()',
    joiner: ': use loop.first, or the filter join',
  };
  const hint = meant === undefined ? (Object.hasOwn(reasons, name) ? reasons[name] : '') : `: did you mean "${meant}"?`;
  throw new SyntaxProblem(`there is no function "${name}"${hint}`, at);
}

function compileMethod({ callee, args, at }: Call, name: string, scope: Scope): Compiled {
  if (callee.type !== 'attribute') throw new SyntaxProblem('only methods and functions can be called', at);
  refuseInnerName(name, callee.at);
  const tables = allMethods.filter((methods) => methods.has(name));
  if (tables.length === 0) {
    const meant = nearest(
      name,
      allMethods.flatMap((methods) => [...methods.keys()]),
    );
    throw new SyntaxProblem(
      `there is no method "${name}"${meant === undefined ? '' : `: did you mean "${meant}"?`}`,
      callee.at,
    );
  }
  const object = compileExpression(callee.object, scope);
  const compiled = compileArguments(args, scope);
  const candidates = bindCandidates(tables, name, compiled, callee.at);
  const run = callMethod(object.run, name, candidates);
  const parts = [object, ...compiled.positional, ...compiled.named.map(({ value }) => value)];
  return fold(scope, callee.at, parts, run, methodType(object.type, candidates));
}

/** A method of one type, with its arguments; or why they do not fit. */
interface Candidate {
  methods: Routines;
  routine: Routine;
  bound: Bound | undefined;
  problem: string;
}

/** Which method it is depends on the value, so the arguments are bound for all that have that name. */
function bindCandidates(tables: Routines[], name: string, args: CompiledArguments, at: number): Candidate[] {
  const candidates = tables.map((methods): Candidate => {
    const routine = methods.get(name)!;
    try {
      return { methods, routine, bound: bind(routine, args), problem: '' };
    } catch (error) {
      if (!(error instanceof ArgumentProblem)) throw error;
      return { methods, routine, bound: undefined, problem: error.message };
    }
  });
  if (candidates.every(({ bound }) => bound === undefined)) throw new SyntaxProblem(candidates[0]!.problem, at);
  return candidates;
}

function methodType(object: StaticType, candidates: readonly Candidate[]): StaticType {
  const types = candidates.flatMap(({ routine, bound }) =>
    bound === undefined ? [] : [routine.type(object, argumentTypes(bound))],
  );
  return types.reduce(eitherType, ofKind('none'));
}

function callMethod(object: Run, name: string, candidates: readonly Candidate[]): Run {
  const [first] = candidates;
  if (candidates.length === 1 && first!.methods === textMethods && first!.bound) {
    const { apply } = first!.bound;
    return (row) => {
      const self = object(row);
      return typeof self === 'string' ? apply(self, row) : noMethod(self, name);
    };
  }
  return (row) => {
    const self = object(row);
    const methods = methodsOf(self);
    for (const candidate of candidates) {
      if (candidate.methods !== methods) continue;
      if (candidate.bound === undefined) throw failure(candidate.problem);
      return candidate.bound.apply(self, row);
    }
    return noMethod(self, name);
  };
}

function noMethod(self: Value, name: string): never {
  if (self instanceof Undefined) self.fail();
  throw failure(`a value of type ${typeName(self)} has no method "${name}"`);
}
