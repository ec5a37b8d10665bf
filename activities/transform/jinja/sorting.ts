/** Sorting as Python does it: stable, by `<`, and an error where two values have no order. */
import { failure, spend } from './limits.ts';
import { order } from './operators.ts';
import { Float, type Value } from './values.ts';

function charge(count: number): void {
  spend(count * (2 + Math.ceil(Math.log2(count + 1))));
}

function isNotANumber(value: Value): boolean {
  return value instanceof Float && Number.isNaN(value.number);
}

/** Values in their order. */
export function sorted(items: readonly Value[], reverse: boolean): Value[] {
  return sortedBy(items, (item) => item, reverse);
}

/** Values in the order of their keys; equal ones stay as they were, also in reverse. */
export function sortedBy(items: readonly Value[], keyOf: (item: Value) => Value, reverse: boolean): Value[] {
  charge(items.length);
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  if (keyed.some(({ key }) => isNotANumber(key))) throw failure('NaN has no place in an order');
  keyed.sort(reverse ? (a, b) => order(b.key, a.key) : (a, b) => order(a.key, b.key));
  return keyed.map(({ item }) => item);
}
