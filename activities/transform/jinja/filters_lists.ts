/** Filters of Jinja2 that work on lists and dicts. Where Python makes a generator, these make a list. */
import { fieldOf, itemOf } from './attributes.ts';
import { joined } from './filters_text.ts';
import { claimScan, failure, spend } from './limits.ts';
import { dictItems } from './methods.ts';
import { add, elements, equal, isTrue, lengthOf, order } from './operators.ts';
import {
  type Argument,
  indexArgument,
  prepared,
  type Routine,
  type Routines,
  routine,
  textArgument,
  variadicRoutine,
} from './routine.ts';
import { sortedBy } from './sorting.ts';
import { ofKind } from './static_type.ts';
import { lower } from './text_methods.ts';
import { Dict, Group, keyId, typeName, Undefined, type Value } from './values.ts';

type Pick = (item: Value) => Value;

/** Tables of filters and tests, which `map` and `select` find theirs in. Given later: they hold these filters too. */
export const known: { filters: Routines; tests: Routines } = { filters: new Map(), tests: new Map() };

function steps(path: Value): Value[] {
  if (path === null) return [];
  if (typeof path !== 'string') return [path];
  claimScan(path.length);
  return path.split('.').map((part) => (/^[0-9]+$/.test(part) ? Number(part) : part));
}

/** Looks an attribute up by a path such as `address.city` or `0.name`. */
function picker(path: Argument, fallback?: Argument): Pick | undefined {
  if (path === undefined || path === null) return undefined;
  const parts = steps(path);
  return (item) => {
    spend(parts.length);
    let value = item;
    for (const part of parts) {
      value = itemOf(value, part);
      if (value instanceof Undefined && fallback !== undefined && fallback !== null) value = fallback;
    }
    return value;
  };
}

function ignoreCase(value: Value): Value {
  return typeof value === 'string' ? lower(value) : value;
}

/** What items are compared by: an attribute or themselves, without regard to case unless asked for. */
function keyPicker(path: Argument, caseSensitive: Argument, fallback?: Argument): Pick {
  const pick = picker(path, fallback) ?? ((item: Value) => item);
  return caseSensitive !== undefined && isTrue(caseSensitive) ? pick : (item) => ignoreCase(pick(item));
}

function sort(value: Value, reverse: Argument, caseSensitive: Argument, attribute: Argument): Value[] {
  const paths = typeof attribute === 'string' ? attribute.split(',') : [attribute];
  spend(paths.length);
  const picks = paths.map((path) => keyPicker(path, caseSensitive));
  // Python compares lists of keys: in a list, equal values need no order.
  return sortedBy(elements(value), (item) => allPicked(picks, item), reverse !== undefined && isTrue(reverse));
}

function allPicked(picks: readonly Pick[], item: Value): Value[] {
  if (picks.length > 1) spend(picks.length);
  return picks.map((pick) => pick(item));
}

function unique(value: Value, caseSensitive: Argument, attribute: Argument): Value[] {
  const key = keyPicker(attribute, caseSensitive);
  const items = elements(value);
  spend(items.length);
  const seen = new Set<unknown>();
  return items.filter((item) => {
    const id = keyId(key(item));
    if (seen.has(id)) return false;
    seen.add(id);
    return true;
  });
}

/** The first of the items that comes before (-1) or behind (1) all others. */
function extreme(value: Value, caseSensitive: Argument, attribute: Argument, side: -1 | 1): Value {
  const items = elements(value);
  if (items.length === 0) return new Undefined('there is no smallest or largest item, the list is empty');
  spend(items.length);
  const key = keyPicker(attribute, caseSensitive);
  let best = items[0]!;
  let bestKey = key(best);
  for (let i = 1; i < items.length; i++) {
    const candidate = key(items[i]!);
    if (order(candidate, bestKey, side < 0 ? '<' : '>') * side > 0) {
      best = items[i]!;
      bestKey = candidate;
    }
  }
  return best;
}

function groupBy(value: Value, attribute: Argument, fallback: Argument, caseSensitive: Argument): Value[] {
  const key = keyPicker(attribute, caseSensitive, fallback);
  const name = picker(attribute, fallback) ?? ((item: Value) => item);
  const groups: { key: Value; items: Value[] }[] = [];
  for (const item of sortedBy(elements(value), key, false)) {
    const itemKey = key(item);
    const last = groups.at(-1);
    if (last !== undefined && equal(last.key, itemKey)) last.items.push(item);
    else groups.push({ key: itemKey, items: [item] });
  }
  return groups.map(({ items }) => new Group([name(items[0]!), items]));
}

function sum(value: Value, attribute: Argument, start: Argument = 0): Value {
  const pick = picker(attribute);
  const items = elements(value);
  spend(items.length);
  if (typeof start === 'string') throw failure('texts cannot be summed: use join');
  let total: Value = start;
  for (const item of items) total = add(total, pick === undefined ? item : pick(item));
  return total;
}

function batch(value: Value, count: Argument, fill: Argument): Value[] {
  const size = indexArgument(count, 'linecount');
  const items = elements(value);
  spend(items.length);
  const batches: Value[][] = [];
  let current: Value[] = [];
  for (const item of items) {
    if (current.length === size) {
      batches.push(current);
      current = [];
    }
    current.push(item);
  }
  if (current.length === 0) return batches;
  if (fill !== undefined && fill !== null && current.length < size) {
    spend(size - current.length);
    while (current.length < size) current.push(fill);
  }
  batches.push(current);
  return batches;
}

function sliceInto(value: Value, count: Argument, fill: Argument): Value[] {
  const slices = indexArgument(count, 'slices');
  const items = elements(value);
  if (slices === 0) throw failure('division by zero');
  spend(items.length + Math.max(0, slices));
  const size = Math.floor(items.length / slices);
  const larger = items.length % slices;
  const result: Value[] = [];
  for (let i = 0, at = 0; i < slices; i++) {
    const end = at + size + (i < larger ? 1 : 0);
    const part = items.slice(at, end);
    if (fill !== undefined && fill !== null && i >= larger) part.push(fill);
    result.push(part);
    at = end;
  }
  return result;
}

function dictSort(value: Value, caseSensitive: Argument, by: Argument, reverse: Argument): Value[] {
  const side = by === undefined ? 'key' : textArgument(by, 'by');
  if (side !== 'key' && side !== 'value') throw failure('argument "by" must be "key" or "value"');
  if (!(value instanceof Dict)) return failForDict(value, 'dictsort');
  const key = keyPicker(side === 'key' ? 0 : 1, caseSensitive);
  return sortedBy(dictItems(value), key, reverse !== undefined && isTrue(reverse));
}

function failForDict(value: Value, filter: string): never {
  if (value instanceof Undefined) value.fail();
  throw failure(`the filter ${filter} wants a dict, not ${typeName(value)}`);
}

function items(value: Value): Value[] {
  if (value instanceof Undefined) return [];
  return value instanceof Dict ? dictItems(value) : failForDict(value, 'items');
}

function first(value: Value): Value {
  const items = elements(value);
  return items.length > 0 ? items[0]! : new Undefined('there is no first item');
}

function last(value: Value): Value {
  const items = elements(value);
  return items.length > 0 ? items.at(-1)! : new Undefined('there is no last item');
}

function reverse(value: Value): Value {
  const list = [...elements(value)];
  spend(list.length);
  list.reverse();
  return typeof value === 'string' ? list.join('') : list;
}

/** The elements of a value that is not false: `map` and `select` look at no others. */
function elementsOfTrue(value: Value): readonly Value[] {
  if (!isTrue(value)) return [];
  const list = elements(value);
  spend(list.length * 2);
  return list;
}

function map(value: Value, positional: Value[], named: Map<string, Value>): Value[] {
  const list = elementsOfTrue(value);
  if (list.length === 0) return [];
  return list.map(mapper(positional, named));
}

function mapper(positional: Value[], named: Map<string, Value>): Pick {
  if (positional.length === 0 && named.has('attribute')) {
    const other = [...named.keys()].find((name) => name !== 'attribute' && name !== 'default');
    if (other !== undefined) throw failure(`the filter map takes no argument "${other}" beside "attribute"`);
    return picker(named.get('attribute'), named.get('default')) ?? ((item) => item);
  }
  const [name, ...rest] = positional;
  if (name === undefined) throw failure('the filter map needs the name of a filter');
  const filter = typeof name === 'string' ? known.filters.get(name) : undefined;
  if (filter === undefined) throw failure('the filter map is given a filter that does not exist');
  return prepared(filter, rest, named);
}

/** The items of which a test, or their being true, is as wanted. */
function select(
  value: Value,
  positional: Value[],
  named: Map<string, Value>,
  wanted: boolean,
  ofAttribute: boolean,
): Value[] {
  const list = elementsOfTrue(value);
  if (list.length === 0) return [];
  const rest = [...positional];
  let pick: Pick = (item) => item;
  if (ofAttribute) {
    if (rest.length === 0) throw failure('the filter needs the name of an attribute');
    pick = picker(rest.shift()) ?? pick;
  }
  const test = rest.length === 0 ? undefined : testNamed(rest.shift()!, rest, named);
  return list.filter((item) => isTrue(test === undefined ? pick(item) : test(pick(item))) === wanted);
}

function testNamed(name: Value, rest: Value[], named: Map<string, Value>): Pick {
  const test = typeof name === 'string' ? known.tests.get(name) : undefined;
  if (test === undefined) throw failure('the filter is given a test that does not exist');
  return prepared(test, rest, named);
}

function join(value: Value, separator: Argument, attribute: Argument): string {
  const pick = picker(attribute);
  const list = elements(value);
  return joined(pick === undefined ? list : list.map(pick), separator);
}

function attr(value: Value, name: Argument): Value {
  const wanted = textArgument(name, 'name');
  const field = fieldOf(value, wanted);
  return field === undefined ? new Undefined(wanted, typeName(value)) : field;
}

export const listFilters: Routine[] = [
  routine('length', '', 'int', (self) => lengthOf(self)),
  routine('list', '', 'list', (self) => {
    const list = elements(self);
    spend(list.length);
    return [...list];
  }),
  routine('first', '', 'any', first),
  routine('last', '', 'any', last),
  routine('reverse', '', (self) => (self.kind === 'text' ? self : ofKind('list')), reverse),
  routine('sort', 'reverse? case_sensitive? attribute?', 'list', sort),
  routine('unique', 'case_sensitive? attribute?', 'list', unique),
  routine('min', 'case_sensitive? attribute?', 'any', (self, cased, attribute) => extreme(self, cased, attribute, -1)),
  routine('max', 'case_sensitive? attribute?', 'any', (self, cased, attribute) => extreme(self, cased, attribute, 1)),
  routine('sum', 'attribute? start?', 'any', sum),
  routine('join', 'd? attribute?', 'text', join),
  routine('groupby', 'attribute default? case_sensitive?', 'list', groupBy),
  routine('batch', 'linecount fill_with?', 'list', batch),
  routine('slice', 'slices fill_with?', 'list', sliceInto),
  routine('dictsort', 'case_sensitive? by? reverse?', 'list', dictSort),
  routine('items', '', 'list', items),
  routine('attr', 'name', 'any', attr),
  variadicRoutine('map', 'list', map),
  variadicRoutine('select', 'list', (self, positional, named) => select(self, positional, named, true, false)),
  variadicRoutine('reject', 'list', (self, positional, named) => select(self, positional, named, false, false)),
  variadicRoutine('selectattr', 'list', (self, positional, named) => select(self, positional, named, true, true)),
  variadicRoutine('rejectattr', 'list', (self, positional, named) => select(self, positional, named, false, true)),
];
