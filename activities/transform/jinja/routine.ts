/** Filters, tests, methods and functions: what they are called, which arguments they take, and what they do. */
import { failure } from './limits.ts';
import { isInteger, toInteger } from './numbers.ts';
import { type Kind, ofKind, type StaticType } from './static_type.ts';
import { type Integer, typeName, Undefined, type Value } from './values.ts';

/** An argument that was left out is undefined. */
export type Argument = Value | undefined;

export interface Parameter {
  name: string;
  optional: boolean;
}

export interface Routine {
  name: string;
  parameters: readonly Parameter[];
  /** Arguments have no names, as in many of Python's own methods. */
  positionalOnly: boolean;
  /** Takes any number of arguments, and gets them as one array and one map. */
  variadic: boolean;
  run: (self: Value, ...args: Argument[]) => Value;
  runVariadic: (self: Value, positional: Value[], named: Map<string, Value>) => Value;
  /** Type of the result, from the types of the value and of its arguments. */
  type: (self: StaticType, args: readonly (StaticType | undefined)[]) => StaticType;
  /** Looks at those arguments that are constants when the template is compiled; throws what is wrong with them. */
  check?: (constants: readonly Argument[]) => void;
}

export type Routines = ReadonlyMap<string, Routine>;

type ResultType = Kind | Routine['type'];

function resultType(type: ResultType): Routine['type'] {
  if (typeof type === 'function') return type;
  const known = ofKind(type);
  return () => known;
}

function neverCalled(): never {
  throw new Error('a routine was called with arguments of the wrong form');
}

/**
 * A routine with named parameters. `signature`: their names in order, optional ones with `?`; it begins with `/` where
 * arguments cannot be given by name.
 */
export function routine(name: string, signature: string, type: ResultType, run: Routine['run']): Routine {
  const words = signature.split(' ').filter((word) => word !== '');
  const positionalOnly = words[0] === '/';
  const parameters = words
    .filter((word) => word !== '/')
    .map((word) => ({ name: word.replace('?', ''), optional: word.endsWith('?') }));
  return { name, parameters, positionalOnly, variadic: false, run, runVariadic: neverCalled, type: resultType(type) };
}

/** A routine with any number of arguments. */
export function variadicRoutine(name: string, type: ResultType, run: Routine['runVariadic']): Routine {
  const rest = { parameters: [], positionalOnly: false, variadic: true, run: neverCalled };
  return { name, ...rest, runVariadic: run, type: resultType(type) };
}

/** A table of routines by name; `aliases` are further names. */
export function routines(list: Routine[], aliases: Record<string, string> = {}): Routines {
  const table = new Map(list.map((entry) => [entry.name, entry]));
  for (const [alias, name] of Object.entries(aliases)) table.set(alias, table.get(name)!);
  return table;
}

/** A mistake in how a routine is called: found when the template is compiled. */
export class ArgumentProblem extends Error {}

/** Which of the given arguments goes to which parameter. */
export function bindArguments<T>(
  target: Pick<Routine, 'name' | 'parameters' | 'positionalOnly'>,
  positional: readonly T[],
  named: readonly { name: string; value: T }[],
): (T | undefined)[] {
  const { parameters } = target;
  if (positional.length > parameters.length)
    throw new ArgumentProblem(`"${target.name}" takes at most ${parameters.length} arguments`);
  const bound: (T | undefined)[] = parameters.map((_, i) => positional[i]);
  for (const { name, value } of named) {
    const index = target.positionalOnly ? -1 : parameters.findIndex((parameter) => parameter.name === name);
    if (index < 0) throw new ArgumentProblem(`"${target.name}" takes no argument "${name}"`);
    if (bound[index] !== undefined) throw new ArgumentProblem(`"${target.name}" gets its argument "${name}" twice`);
    bound[index] = value;
  }
  const missing = parameters.find((parameter, i) => !parameter.optional && bound[i] === undefined);
  if (missing) throw new ArgumentProblem(`"${target.name}" needs its argument "${missing.name}"`);
  return bound;
}

/** An argument that must be a text. */
export function textArgument(value: Argument, name: string): string {
  if (typeof value === 'string') return value;
  return wrongArgument(value, name, 'a str');
}

/** An argument that must be an int. */
export function integerArgument(value: Argument, name: string): Integer {
  if (value !== undefined && isInteger(value)) return toInteger(value);
  return wrongArgument(value, name, 'an int');
}

/** An int as a number that indexes something: beyond all lengths it is only large. */
export function indexArgument(value: Argument, name: string): number {
  return Number(integerArgument(value, name));
}

function wrongArgument(value: Argument, name: string, wanted: string): never {
  if (value instanceof Undefined) value.fail();
  throw failure(`argument "${name}" must be ${wanted}, not ${value === undefined ? 'nothing' : typeName(value)}`);
}

/** A routine with its arguments, ready for many values: for filters that are named by a value. */
export function prepared(
  target: Routine,
  positional: Value[],
  named: ReadonlyMap<string, Value>,
): (self: Value) => Value {
  if (target.variadic) return (self) => target.runVariadic(self, positional, new Map(named));
  const list = [...named].map(([name, value]) => ({ name, value }));
  let args: Argument[];
  try {
    args = bindArguments<Value>(target, positional, list);
  } catch (error) {
    if (error instanceof ArgumentProblem) throw failure(error.message);
    throw error;
  }
  return (self) => target.run(self, ...args);
}
