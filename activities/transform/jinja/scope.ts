/** Names of a template: columns of the row, and what the template sets itself. */
import { nearest } from '../../../model/nearest_word.ts';
import { SyntaxProblem } from './lexer.ts';
import { limits, overLimit, spend } from './limits.ts';
import { eitherType, ofKind, type StaticType } from './static_type.ts';
import type { Statement, Target } from './syntax_tree.ts';
import { Dict, Undefined, type Value } from './values.ts';

/** A column that a template may name. Its value stands at `index` of the row. */
export interface TemplateColumn {
  name: string;
  type: StaticType;
  index: number;
}

/** Computes a value from a row. The row holds a value for each column, at its index. */
export type Run = (row: readonly Value[]) => Value;

/** A place for a variable of the template. */
export interface Slot {
  index: number;
  type: StaticType;
}

/** What all parts of one template share while it is compiled, and while it runs. */
export class Program {
  readonly columns: ReadonlyMap<string, TemplateColumn>;
  /** Columns that the template reads. */
  readonly used = new Set<number>();
  /** Values of the variables. Evaluations run one at a time, so one array serves them all. */
  readonly slots: Value[] = [];
  /** The template changes lists or dicts: then no constant and no value of the row may be shared. */
  readonly changing: boolean;
  readonly root: Scope;
  /** Parts of the template that are compiled so far: what a loop's body has of them, each round of it costs. */
  parts = 0;
  /** How deep the expression is that is being compiled. */
  depth = 0;
  /** Variables that hold a row's own copy of a column, by the column's index. */
  readonly #copies = new Map<number, Slot>();

  constructor(columns: readonly TemplateColumn[], body: readonly Statement[], changing: boolean) {
    this.columns = new Map(columns.map((column) => [column.name, column]));
    this.changing = changing;
    this.root = new Scope(this, undefined);
    for (const name of assignedNames(body)) this.root.declare(name);
  }

  newSlot(type: StaticType): Slot {
    const slot = { index: this.slots.length, type };
    this.slots.push(null);
    return slot;
  }

  /** How the column of that name is read, if there is one; it counts as used then. */
  readColumn(name: string): { run: Run; type: StaticType } | undefined {
    const column = this.columns.get(name);
    if (!column) return undefined;
    const { index, type } = column;
    this.used.add(index);
    if (this.changing && canChange(type)) return { run: this.#readCopy(index, type), type };
    return { run: (row) => row[index]!, type };
  }

  /** A template that changes lists or dicts works on copies: the row's own values are for other rules, too. */
  #readCopy(index: number, type: StaticType): Run {
    const slot = this.#copies.get(index) ?? this.newSlot(type);
    this.#copies.set(index, slot);
    const { slots } = this;
    const at = slot.index;
    return () => slots[at]!;
  }

  /** What has to happen before the template runs on a row. To be called when all of it is compiled. */
  begin(): (row: readonly Value[]) => void {
    const { slots } = this;
    const copies = [...this.#copies].map(([index, slot]) => ({ index, at: slot.index }));
    const enter = this.root.enter();
    if (copies.length === 0) return enter;
    return (row) => {
      for (const { index, at } of copies) slots[at] = copyDeep(row[index]!, 0);
      enter(row);
    };
  }
}

function canChange({ kind }: StaticType): boolean {
  return kind === 'list' || kind === 'dict' || kind === 'any';
}

function copyDeep(value: Value, depth: number): Value {
  if (depth > limits.nesting) throw overLimit('nesting');
  if (Array.isArray(value)) {
    spend(value.length);
    return value.map((item) => copyDeep(item, depth + 1));
  }
  if (!(value instanceof Dict)) return value;
  spend(value.size);
  const copy = new Dict();
  for (const [key, item] of value.entries()) copy.set(key, copyDeep(item, depth + 1));
  return copy;
}

/** A part of a template with variables of its own. */
export class Scope {
  readonly program: Program;
  readonly #outer: Scope | undefined;
  readonly #slots = new Map<string, Slot>();
  /** What gives each variable its first value when the scope is entered. */
  readonly #initial: { slot: Slot; run: Run }[] = [];

  constructor(program: Program, outer: Scope | undefined) {
    this.program = program;
    this.#outer = outer;
  }

  /** A scope inside of this one, in which these statements run. */
  inner(body: readonly Statement[]): Scope {
    const scope = new Scope(this.program, this);
    for (const name of assignedNames(body)) scope.declare(name);
    return scope;
  }

  /** A variable of this scope. Until it is set it has the value that the name has outside. */
  declare(name: string): Slot {
    const known = this.#slots.get(name);
    if (known) return known;
    const outside = this.#outer?.find(name) ?? this.program.readColumn(name);
    const slot = this.program.newSlot(outside?.type ?? ofKind('undefined'));
    const undefinedName = new Undefined(`"${name}" is not set`);
    this.#initial.push({ slot, run: outside?.run ?? (() => undefinedName) });
    this.#slots.set(name, slot);
    return slot;
  }

  /** A variable that is given its value before anything reads it. */
  own(name: string): Slot {
    const slot = this.program.newSlot(ofKind('undefined'));
    this.#slots.set(name, slot);
    return slot;
  }

  /** The variable of that name that a `set` in this scope sets. */
  slot(name: string): Slot {
    return this.#slots.get(name)!;
  }

  /** How a name is read, or undefined where nothing has that name. Columns of the row come last. */
  find(name: string): { run: Run; type: StaticType } | undefined {
    const slot = this.#slots.get(name);
    if (slot) {
      const { slots } = this.program;
      const { index } = slot;
      return { run: () => slots[index]!, type: slot.type };
    }
    return this.#outer?.find(name);
  }

  /** Gives each variable its first value. */
  enter(): (row: readonly Value[]) => void {
    const { slots } = this.program;
    const initial = this.#initial.map(({ slot, run }) => ({ index: slot.index, run }));
    if (initial.length === 0) return () => {};
    return (row) => {
      for (const { index, run } of initial) slots[index] = run(row);
    };
  }

  /** All names that can be read here, for suggestions. */
  names(): string[] {
    return [...this.#slots.keys(), ...(this.#outer?.names() ?? this.program.columns.keys())];
  }

  /** Fails for a name that nothing has. */
  unknown(name: string, at: number): never {
    const names = this.names();
    const meant = nearest(name, names);
    const known = names.length > 20 ? [...names.slice(0, 20), '…'] : names;
    const hint = meant === undefined ? `there are ${known.join(', ') || 'none'}` : `did you mean "${meant}"?`;
    throw new SyntaxProblem(`there is no column "${name}": ${hint}`, at);
  }
}

/** Remembers that a variable may also be of this type. */
export function widen(slot: Slot, type: StaticType): void {
  slot.type = eitherType(slot.type, type);
}

function targetNames(target: Target): string[] {
  if (target.type === 'name') return [target.name];
  return target.type === 'targets' ? target.items.flatMap(targetNames) : [];
}

/** Names that `set` gives values to, in these statements and in the branches of their `if`s. */
function assignedNames(body: readonly Statement[]): string[] {
  return body.flatMap((statement) => {
    if (statement.type === 'set' || statement.type === 'set block') return targetNames(statement.target);
    if (statement.type !== 'if') return [];
    return [
      ...statement.branches.flatMap((branch) => assignedNames(branch.body)),
      ...assignedNames(statement.otherwise),
    ];
  });
}
