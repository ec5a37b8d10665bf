/** Statements of a template as closures that answer the text which they print. */
import { type Compiled, compileExpression, compileFilter } from './compile_expression.ts';
import { failure, made, spend, watchText } from './limits.ts';
import { elements, isTrue } from './operators.ts';
import { type Run, type Scope, widen } from './scope.ts';
import { ofKind, type StaticType } from './static_type.ts';
import type { For, If, SetBlock, SetValue, Statement, Target, With } from './syntax_tree.ts';
import { toText } from './text.ts';
import { Loop, Namespace, typeName, Undefined, type Value } from './values.ts';

/** Prints a part of a template for a row. */
export type Render = (row: readonly Value[]) => string;

/** Gives a value to a target. */
type Assign = (value: Value, row: readonly Value[]) => void;

const nothing: Render = () => '';

/** Statements one after the other. */
export function compileBody(body: readonly Statement[], scope: Scope): Render {
  return sequence(body.map((statement) => compileStatement(statement, scope)));
}

function sequence(parts: readonly Render[]): Render {
  const [a, b, c, d] = parts;
  switch (parts.length) {
    case 0:
      return nothing;
    case 1:
      return a!;
    case 2:
      return (row) => made(a!(row) + b!(row));
    case 3:
      return (row) => made(a!(row) + b!(row) + c!(row));
    case 4:
      return (row) => made(a!(row) + b!(row) + c!(row) + d!(row));
    default:
      return (row) => {
        let text = '';
        for (const part of parts) {
          text += part(row);
          watchText(text.length);
        }
        return made(text);
      };
  }
}

function compileStatement(statement: Statement, scope: Scope): Render {
  scope.program.parts++;
  switch (statement.type) {
    case 'text': {
      const { text } = statement;
      return () => text;
    }
    case 'output':
      return printed(compileExpression(statement.expression, scope));
    case 'if':
      return compileIf(statement, scope);
    case 'for':
      return compileFor(statement, scope);
    case 'set':
      return compileSet(statement, scope);
    case 'set block':
      return compileSetBlock(statement, scope);
    case 'with':
      return compileWith(statement, scope);
    case 'filter block': {
      const render = compileInner(statement.body, scope);
      return onlyText(compileFilter(statement.filter, scope, { run: render, type: ofKind('text') }).run);
    }
  }
}

function printed({ run, constant, type }: Compiled): Render {
  if (constant !== undefined) {
    const text = toText(constant.value);
    return () => text;
  }
  if (type.kind !== 'text') return (row) => toText(run(row));
  return (row) => {
    const value = run(row);
    return typeof value === 'string' ? value : toText(value);
  };
}

/** What a filtered block prints must be text, as in Python. */
function onlyText(run: Run): Render {
  return (row) => {
    const value = run(row);
    if (typeof value !== 'string') throw failure(`a filtered block must be a text, not ${typeName(value)}`);
    return value;
  };
}

/** A body with variables of its own. */
function compileInner(body: readonly Statement[], outer: Scope): Render {
  const scope = outer.inner(body);
  const render = compileBody(body, scope);
  const enter = scope.enter();
  return (row) => {
    enter(row);
    return render(row);
  };
}

function compileIf({ branches, otherwise }: If, scope: Scope): Render {
  const compiled = branches.map(({ test, body }) => ({
    test: compileExpression(test, scope).run,
    render: compileBody(body, scope),
  }));
  const rest = compileBody(otherwise, scope);
  return (row) => {
    for (const { test, render } of compiled) if (isTrue(test(row))) return render(row);
    return rest(row);
  };
}

/** How a target takes its value. `declare`: the name is new in this scope, as that of a loop. */
function compileTarget(target: Target, scope: Scope, declare: boolean, type: StaticType): Assign {
  const { slots } = scope.program;
  if (target.type === 'field') return compileField(target.object, target.name, target.at, scope);
  if (target.type === 'name') {
    const slot = declare ? scope.own(target.name) : scope.slot(target.name);
    widen(slot, type);
    const { index } = slot;
    return (value) => {
      slots[index] = value;
    };
  }
  const parts = target.items.map((item) => compileTarget(item, scope, declare, ofKind('any')));
  return (value, row) => {
    const items = elements(value);
    if (items.length !== parts.length)
      throw failure(`${parts.length} values are wanted, the ${typeName(value)} has ${items.length}`);
    for (const [i, part] of parts.entries()) part(items[i]!, row);
  };
}

/** `ns.name`: only what `namespace()` made can be set like this. */
function compileField(object: string, name: string, at: number, scope: Scope): Assign {
  const { run } = compileExpression({ type: 'name', name: object, at }, scope);
  return (value, row) => {
    const owner = run(row);
    if (owner instanceof Undefined) owner.fail();
    if (!(owner instanceof Namespace)) throw failure('only attributes of a namespace can be set');
    owner.fields.set(name, value);
  };
}

function compileSet({ target, value }: SetValue, scope: Scope): Render {
  const compiled = compileExpression(value, scope);
  const { run } = compiled;
  const assign = compileTarget(target, scope, false, compiled.type);
  return (row) => {
    assign(run(row), row);
    return '';
  };
}

function compileSetBlock({ target, filter, body }: SetBlock, scope: Scope): Render {
  const text: Compiled = { run: compileInner(body, scope), type: ofKind('text') };
  const compiled = filter === undefined ? text : compileFilter(filter, scope, text);
  const { run } = compiled;
  const assign = compileTarget(target, scope, false, compiled.type);
  return (row) => {
    assign(run(row), row);
    return '';
  };
}

function compileWith({ entries, body }: With, outer: Scope): Render {
  // All values are computed outside; only then do the names exist.
  const values = entries.map(({ value }) => compileExpression(value, outer));
  const scope = outer.inner(body);
  const assigns = entries.map(({ target }, i) => compileTarget(target, scope, true, values[i]!.type));
  const render = compileBody(body, scope);
  const enter = scope.enter();
  return (row) => {
    const computed = values.map(({ run }) => run(row));
    enter(row);
    for (const [i, assign] of assigns.entries()) assign(computed[i]!, row);
    return render(row);
  };
}

function compileFor(node: For, outer: Scope): Render {
  const { program } = outer;
  const iterable = compileExpression(node.iterable, outer).run;
  const before = program.parts;
  const test = node.test === undefined ? undefined : compileLoopTest(node, outer);
  const scope = outer.inner(node.body);
  const assign = compileTarget(node.target, scope, true, ofKind('any'));
  const { index: loopSlot } = scope.own('loop');
  const render = compileBody(node.body, scope);
  const enter = scope.enter();
  const cost = costOfRound(program.parts - before);
  const otherwise = compileInner(node.otherwise, outer);
  const { slots } = program;
  return (row) => {
    let items = elements(iterable(row));
    if (test !== undefined) items = items.filter((item) => test(item, row));
    if (items.length === 0) return otherwise(row);
    const loop = new Loop(items);
    let text = '';
    for (; loop.index < items.length; loop.index++) {
      spend(cost);
      enter(row);
      slots[loopSlot] = loop;
      assign(items[loop.index]!, row);
      text += render(row);
      watchText(text.length);
    }
    return made(text);
  };
}

/** Steps of one round of a loop whose body has so many parts. Few parts are quick, and loops are seldom long. */
function costOfRound(parts: number): number {
  return 1 + (parts >> 3);
}

/** The condition of `{% for … if … %}`: looks at each element before the loop begins. */
function compileLoopTest(node: For, outer: Scope): (item: Value, row: readonly Value[]) => boolean {
  const scope = outer.inner([]);
  const assign = compileTarget(node.target, scope, true, ofKind('any'));
  const before = scope.program.parts;
  const { run } = compileExpression(node.test!, scope);
  const cost = costOfRound(scope.program.parts - before);
  return (item, row) => {
    spend(cost);
    assign(item, row);
    return isTrue(run(row));
  };
}
