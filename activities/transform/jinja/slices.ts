/** Python's slices: `value[start:stop:step]`. */
import { failure, spend } from './limits.ts';
import { isInteger } from './numbers.ts';
import { characters, textLength, unitOffset } from './text.ts';
import { Range, Tuple, typeName, Undefined, type Value } from './values.ts';

function bound(value: Value, name: string): number | undefined {
  if (typeof value === 'number') return value;
  if (value === null) return undefined;
  if (isInteger(value)) return Number(value);
  throw failure(`the ${name} of a slice must be an int, not ${typeName(value)}`);
}

/** First and end index of a slice with step 1, cut to the length. */
export function sliceBounds(length: number, start: Value, stop: Value): [number, number] {
  const from = bound(start, 'start') ?? 0;
  const to = bound(stop, 'end') ?? length;
  return [
    from < 0 ? Math.max(0, from + length) : Math.min(from, length),
    to < 0 ? Math.max(0, to + length) : Math.min(to, length),
  ];
}

/** First and end index of a slice with any step. */
function steppedBounds(length: number, start: Value, stop: Value, step: number): [number, number] {
  const last = step < 0 ? length - 1 : length;
  const cut = (value: number) => Math.max(step < 0 ? -1 : 0, Math.min(value < 0 ? value + length : value, last));
  const from = bound(start, 'start');
  const to = bound(stop, 'end');
  return [
    from === undefined ? (step < 0 ? last : 0) : cut(from),
    to === undefined ? (step < 0 ? -1 : length) : cut(to),
  ];
}

function sliceIndexes(length: number, start: Value, stop: Value, step: number): number[] {
  const [first, end] = steppedBounds(length, start, stop, step);
  const indexes: number[] = [];
  for (let i = first; step > 0 ? i < end : i > end; i += step) indexes.push(i);
  return indexes;
}

export function slice(value: Value, start: Value, stop: Value, step: Value): Value {
  const stride = bound(step, 'step') ?? 1;
  if (stride === 0) throw failure('the step of a slice cannot be zero');
  if (typeof value === 'string')
    return stride === 1 ? sliceText(value, start, stop) : stepText(value, start, stop, stride);
  if (Array.isArray(value)) return sliceList(value, start, stop, stride);
  if (value instanceof Tuple) return new Tuple(sliceList(value.items, start, stop, stride));
  if (value instanceof Range) return sliceRange(value, start, stop, stride);
  if (value instanceof Undefined) return value.fail();
  throw failure(`a value of type ${typeName(value)} has no slices`);
}

function sliceText(text: string, start: Value, stop: Value): string {
  const from = bound(start, 'start') ?? 0;
  const to = bound(stop, 'end') ?? Number.POSITIVE_INFINITY;
  // The common case looks only at the characters up to the end of the slice.
  if (from >= 0 && to >= 0) {
    if (to <= from) return '';
    const first = from === 0 ? 0 : unitOffset(text, from);
    return to === Number.POSITIVE_INFINITY ? text.slice(first) : text.slice(first, unitOffset(text, to - from, first));
  }
  const length = textLength(text);
  const [first, end] = sliceBounds(length, start, stop);
  if (end <= first) return '';
  if (length === text.length) return text.slice(first, end);
  const offset = unitOffset(text, first);
  return text.slice(offset, unitOffset(text, end - first, offset));
}

function stepText(text: string, start: Value, stop: Value, step: number): string {
  const list = characters(text);
  let result = '';
  for (const index of sliceIndexes(list.length, start, stop, step)) result += list[index];
  return result;
}

function sliceList(items: readonly Value[], start: Value, stop: Value, step: number): Value[] {
  spend(items.length);
  if (step === 1) return items.slice(...sliceBounds(items.length, start, stop));
  return sliceIndexes(items.length, start, stop, step).map((index) => items[index]!);
}

function sliceRange(range: Range, start: Value, stop: Value, step: number): Range {
  const [first, end] = steppedBounds(range.length, start, stop, step);
  const at = (index: number) => range.start + index * range.step;
  return new Range(at(first), at(end), range.step * step);
}
