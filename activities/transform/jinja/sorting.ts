/** Sorting as Python does it: stable, by `<`, and an error where two values have no order. */
import { failure, spend } from './limits.ts';
import { equal, order } from './operators.ts';
import { Float, type Value } from './values.ts';

function charge(count: number): void {
  spend(count * (2 + Math.ceil(Math.log2(count + 1))));
}

function holdsNotANumber(key: Value): boolean {
  return Array.isArray(key) ? key.some(holdsNotANumber) : key instanceof Float && Number.isNaN(key.number);
}

/** The order of two keys; of one-part keys without the detour over lists. */
function compareKeys(a: Value, b: Value): number {
  if (!Array.isArray(a) || !Array.isArray(b) || a.length !== 1 || b.length !== 1) return order(a, b);
  const [x, y] = [a[0]!, b[0]!];
  if (typeof x === typeof y && (typeof x === 'string' || typeof x === 'number')) return order(x, y);
  return equal(x, y) ? 0 : order(x, y);
}

/** Values in their order. */
export function sorted(items: readonly Value[], reverse: boolean): Value[] {
  return sortedBy(items, (item) => item, reverse);
}

/** Values in the order of their keys; equal ones stay as they were, also in reverse. */
export function sortedBy(items: readonly Value[], keyOf: (item: Value) => Value, reverse: boolean): Value[] {
  charge(items.length);
  const keyed = items.map((item) => ({ item, key: keyOf(item) }));
  if (keyed.some(({ key }) => holdsNotANumber(key))) throw failure('NaN has no place in an order');
  keyed.sort(reverse ? (a, b) => compareKeys(b.key, a.key) : (a, b) => compareKeys(a.key, b.key));
  return keyed.map(({ item }) => item);
}
