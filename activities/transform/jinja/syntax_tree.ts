/** The parsed form of a template. `at` is the offset in the source where a node begins, for error messages. */
import type { Value } from './values.ts';

export type BinaryOperator = '+' | '-' | '*' | '/' | '//' | '%' | '**';
export type CompareOperator = '==' | '!=' | '<' | '<=' | '>' | '>=' | 'in' | 'not in';

/** Arguments of a call, filter or test. */
export interface Arguments {
  positional: Expression[];
  keyword: { name: string; value: Expression }[];
}

interface Node {
  at: number;
}

export interface Constant extends Node {
  type: 'constant';
  value: Value;
}
export interface Name extends Node {
  type: 'name';
  name: string;
}
export interface Sequence extends Node {
  type: 'list' | 'tuple';
  items: Expression[];
}
export interface DictLiteral extends Node {
  type: 'dict';
  entries: { key: Expression; value: Expression }[];
}
export interface Attribute extends Node {
  type: 'attribute';
  object: Expression;
  name: string;
}
export interface Item extends Node {
  type: 'item';
  object: Expression;
  key: Expression;
}
export interface Slice extends Node {
  type: 'slice';
  object: Expression;
  start: Expression | undefined;
  stop: Expression | undefined;
  step: Expression | undefined;
}
export interface Call extends Node {
  type: 'call';
  callee: Expression;
  args: Arguments;
}
export interface Filter extends Node {
  type: 'filter';
  /** Undefined where the filter works on the text of a block. */
  operand: Expression | undefined;
  name: string;
  args: Arguments;
}
export interface Test extends Node {
  type: 'test';
  operand: Expression;
  name: string;
  args: Arguments;
}
export interface Binary extends Node {
  type: 'binary';
  operator: BinaryOperator;
  left: Expression;
  right: Expression;
}
export interface Unary extends Node {
  type: 'unary';
  operator: '-' | '+' | 'not';
  operand: Expression;
}
export interface Logical extends Node {
  type: 'logical';
  operator: 'and' | 'or';
  left: Expression;
  right: Expression;
}
export interface Compare extends Node {
  type: 'compare';
  first: Expression;
  rest: { operator: CompareOperator; operand: Expression }[];
}
export interface Concat extends Node {
  type: 'concat';
  parts: Expression[];
}
export interface Conditional extends Node {
  type: 'conditional';
  test: Expression;
  whenTrue: Expression;
  whenFalse: Expression | undefined;
}

export type Expression =
  | Constant
  | Name
  | Sequence
  | DictLiteral
  | Attribute
  | Item
  | Slice
  | Call
  | Filter
  | Test
  | Binary
  | Unary
  | Logical
  | Compare
  | Concat
  | Conditional;

/** What can stand left of `=` and after `for`. */
export type Target =
  | Name
  | { type: 'targets'; at: number; items: Target[] }
  | { type: 'field'; at: number; object: string; name: string };

export interface Text extends Node {
  type: 'text';
  text: string;
}
export interface Output extends Node {
  type: 'output';
  expression: Expression;
}
export interface If extends Node {
  type: 'if';
  branches: { test: Expression; body: Statement[] }[];
  otherwise: Statement[];
}
export interface For extends Node {
  type: 'for';
  target: Target;
  iterable: Expression;
  test: Expression | undefined;
  body: Statement[];
  otherwise: Statement[];
}
export interface SetValue extends Node {
  type: 'set';
  target: Target;
  value: Expression;
}
export interface SetBlock extends Node {
  type: 'set block';
  target: Target;
  filter: Filter | undefined;
  body: Statement[];
}
export interface With extends Node {
  type: 'with';
  entries: { target: Target; value: Expression }[];
  body: Statement[];
}
export interface FilterBlock extends Node {
  type: 'filter block';
  filter: Filter;
  body: Statement[];
}

export type Statement = Text | Output | If | For | SetValue | SetBlock | With | FilterBlock;
