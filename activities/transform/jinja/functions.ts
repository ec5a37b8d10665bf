/** Functions of Jinja2 that a template may call. Each gets None as its value, and its arguments. */
import { failure } from './limits.ts';
import { dictOf } from './methods.ts';
import { indexArgument, type Routines, routines, variadicRoutine } from './routine.ts';
import { Namespace, Range, type Value } from './values.ts';

function range(positional: Value[], named: ReadonlyMap<string, Value>): Range {
  if (named.size > 0) throw failure('range takes no named arguments');
  if (positional.length < 1 || positional.length > 3) throw failure('range takes one to three arguments');
  const [first, second, third] = positional.map((value) => indexArgument(value, 'range'));
  const [start, stop, step] = second === undefined ? [0, first!, 1] : [first!, second, third ?? 1];
  if (step === 0) throw failure('the step of a range cannot be zero');
  if (![start, stop, step].every(Number.isSafeInteger)) throw failure('the bounds of a range are too large');
  return new Range(start, stop, step);
}

export const functions: Routines = routines([
  variadicRoutine('range', 'any', (_, positional, named) => range(positional, named)),
  variadicRoutine('dict', 'dict', (_, positional, named) => dictOf(positional, named)),
  variadicRoutine('namespace', 'any', (_, positional, named) => new Namespace(dictOf(positional, named))),
]);
