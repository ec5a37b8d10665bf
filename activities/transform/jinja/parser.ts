/** Jinja2's grammar: precedences, tuples, slices, tests with arguments and chained comparisons are those of Jinja2 3.1. */
import { SyntaxProblem, type Token, type TokenType } from './lexer.ts';
import { limits } from './limits.ts';
import type {
  Arguments,
  BinaryOperator,
  CompareOperator,
  Expression,
  Filter,
  For,
  If,
  SetBlock,
  SetValue,
  Statement,
  Target,
  With,
} from './syntax_tree.ts';
import { Float, integerFromText } from './values.ts';

/** Parses the tokens of a template. Throws SyntaxProblem. */
export function parseTemplate(tokens: Token[]): Statement[] {
  return new Parser(tokens).template();
}

const comparisons = new Set(['==', '!=', '<', '<=', '>', '>=']);

/** Statements of Jinja2 that rules have no use for, and why. */
const refused: Record<string, string> = {
  macro: 'macros are not supported',
  call: 'macros are not supported',
  import: 'a rule is one template: it cannot import others',
  from: 'a rule is one template: it cannot import others',
  include: 'a rule is one template: it cannot include others',
  extends: 'a rule is one template: it cannot extend others',
  block: 'a rule is one template: it has no blocks',
  autoescape: 'nothing is escaped by itself: use the filter escape',
  print: 'use {{ }}',
  do: 'it is no statement of Jinja2 by default: use {% set _ = … %}',
  break: 'it is no statement of Jinja2 by default: use {% for … if … %}',
  continue: 'it is no statement of Jinja2 by default: use {% for … if … %}',
  trans: 'it is no statement of Jinja2 by default',
};

class Parser {
  readonly #tokens: Token[];
  #at = 0;
  #depth = 0;

  constructor(tokens: Token[]) {
    this.#tokens = tokens;
  }

  template(): Statement[] {
    return this.#body([]);
  }

  // ---- tokens

  get #token(): Token {
    return this.#tokens[this.#at]!;
  }

  #next(): Token {
    return this.#tokens[this.#at++]!;
  }

  #is(type: TokenType, value?: string): boolean {
    const token = this.#token;
    return token.type === type && (value === undefined || token.value === value);
  }

  #isOperator(sign: string): boolean {
    return this.#is('operator', sign);
  }

  #isName(...names: string[]): boolean {
    return this.#token.type === 'name' && names.includes(this.#token.value);
  }

  #skipOperator(sign: string): boolean {
    if (!this.#isOperator(sign)) return false;
    this.#at++;
    return true;
  }

  #skipName(name: string): boolean {
    if (!this.#isName(name)) return false;
    this.#at++;
    return true;
  }

  #expect(type: TokenType, value?: string): Token {
    if (!this.#is(type, value))
      this.#fail(`expected ${describe(type, value)}, got ${describe(this.#token.type, this.#token.value)}`);
    return this.#next();
  }

  #fail(reason: string, at = this.#token.at): never {
    throw new SyntaxProblem(reason, at);
  }

  /** Runs a part of the grammar that can contain itself, one level deeper. */
  #nested<T>(parse: () => T): T {
    if (++this.#depth > limits.depth)
      this.#fail(`limit "depth" reached: expressions and blocks may nest ${limits.depth} levels deep`);
    const result = parse();
    this.#depth--;
    return result;
  }

  // ---- statements

  /** Statements up to one of the end tags, whose name is the current token then; up to the end when there are none. */
  #body(ends: string[]): Statement[] {
    return this.#nested(() => {
      const body: Statement[] = [];
      for (;;) {
        const token = this.#token;
        if (token.type === 'eof') {
          if (ends.length > 0) this.#fail(`unexpected end of template, expected {% ${ends.join(' %} or {% ')} %}`);
          return body;
        }
        this.#at++;
        if (token.type === 'data') body.push({ type: 'text', text: token.value, at: token.at });
        else if (token.type === 'variable_begin') {
          body.push({ type: 'output', expression: this.#tuple(), at: token.at });
          this.#expect('variable_end');
        } else {
          if (this.#isName(...ends)) return body;
          body.push(this.#statement());
          this.#expect('block_end');
        }
      }
    });
  }

  /** The body behind a tag, whose end it expects first. */
  #bodyOfTag(...ends: string[]): Statement[] {
    this.#skipOperator(':');
    this.#expect('block_end');
    return this.#body(ends);
  }

  #statement(): Statement {
    const token = this.#expect('name');
    switch (token.value) {
      case 'if':
        return this.#if(token.at);
      case 'for':
        return this.#for(token.at);
      case 'set':
        return this.#set(token.at);
      case 'with':
        return this.#with(token.at);
      case 'filter': {
        const filter = this.#filters(undefined, true)!;
        const body = this.#bodyOfTag('endfilter');
        this.#at++;
        return { type: 'filter block', filter, body, at: token.at };
      }
      default: {
        const reason = Object.hasOwn(refused, token.value) ? refused[token.value] : 'there is no such statement';
        return this.#fail(`{% ${token.value} %}: ${reason}`, token.at);
      }
    }
  }

  #if(at: number): If {
    const branches: If['branches'] = [];
    for (;;) {
      const test = this.#tuple({ conditional: false });
      branches.push({ test, body: this.#bodyOfTag('elif', 'else', 'endif') });
      const end = this.#next().value;
      if (end === 'elif') continue;
      if (end === 'endif') return { type: 'if', branches, otherwise: [], at };
      const otherwise = this.#bodyOfTag('endif');
      this.#at++;
      return { type: 'if', branches, otherwise, at };
    }
  }

  #for(at: number): For {
    const target = this.#target({ ends: ['in'] });
    this.#expect('name', 'in');
    const iterable = this.#tuple({ conditional: false, ends: ['recursive'] });
    const test = this.#skipName('if') ? this.#expression() : undefined;
    if (this.#isName('recursive')) this.#fail('recursive loops are not supported');
    const body = this.#bodyOfTag('endfor', 'else');
    if (this.#next().value === 'endfor') return { type: 'for', target, iterable, test, body, otherwise: [], at };
    const otherwise = this.#bodyOfTag('endfor');
    this.#at++;
    return { type: 'for', target, iterable, test, body, otherwise, at };
  }

  #set(at: number): SetValue | SetBlock {
    const target = this.#target({ fields: true });
    if (this.#skipOperator('=')) return { type: 'set', target, value: this.#tuple(), at };
    const filter = this.#filters(undefined, false);
    const body = this.#bodyOfTag('endset');
    this.#at++;
    return { type: 'set block', target, filter, body, at };
  }

  #with(at: number): With {
    const entries: With['entries'] = [];
    while (!this.#is('block_end')) {
      if (entries.length > 0) this.#expect('operator', ',');
      const target = this.#target({});
      this.#expect('operator', '=');
      entries.push({ target, value: this.#expression() });
    }
    const body = this.#bodyOfTag('endwith');
    this.#at++;
    return { type: 'with', entries, body, at };
  }

  #target({ ends = [], fields = false }: { ends?: string[]; fields?: boolean }): Target {
    return this.#asTarget(this.#tuple({ simple: true, ends, fields }), fields);
  }

  #asTarget(expression: Expression, fields: boolean): Target {
    if (expression.type === 'name') return expression;
    if (expression.type === 'tuple')
      return {
        type: 'targets',
        at: expression.at,
        items: expression.items.map((item) => this.#asTarget(item, fields)),
      };
    if (fields && expression.type === 'attribute' && expression.object.type === 'name')
      return { type: 'field', at: expression.at, object: expression.object.name, name: expression.name };
    return this.#fail(`cannot assign to this ${expression.type}`, expression.at);
  }

  // ---- expressions, from the weakest binding to the strongest

  /** One expression, or several with commas between them, which make a tuple. */
  #tuple(
    options: { conditional?: boolean; ends?: string[]; simple?: boolean; fields?: boolean; parentheses?: boolean } = {},
  ): Expression {
    const { conditional = true, ends = [], simple = false, fields = false, parentheses = false } = options;
    const { at } = this.#token;
    const items: Expression[] = [];
    let tuple = false;
    for (;;) {
      if (items.length > 0) this.#expect('operator', ',');
      if (this.#isTupleEnd(ends)) break;
      items.push(simple ? this.#primary(fields) : conditional ? this.#expression() : this.#nested(() => this.#or()));
      if (!this.#isOperator(',')) break;
      tuple = true;
    }
    if (!tuple && items.length > 0) return items[0]!;
    if (!tuple && !parentheses)
      this.#fail(`expected an expression, got ${describe(this.#token.type, this.#token.value)}`);
    return { type: 'tuple', items, at };
  }

  #isTupleEnd(ends: string[]): boolean {
    const { type } = this.#token;
    return type === 'variable_end' || type === 'block_end' || this.#isOperator(')') || this.#isName(...ends);
  }

  #expression(): Expression {
    return this.#nested(() => {
      const { at } = this.#token;
      let result = this.#or();
      while (this.#skipName('if')) {
        const test = this.#or();
        const whenFalse = this.#skipName('else') ? this.#expression() : undefined;
        result = { type: 'conditional', test, whenTrue: result, whenFalse, at };
      }
      return result;
    });
  }

  #or(): Expression {
    let left = this.#and();
    while (this.#skipName('or')) left = { type: 'logical', operator: 'or', left, right: this.#and(), at: left.at };
    return left;
  }

  #and(): Expression {
    let left = this.#not();
    while (this.#skipName('and')) left = { type: 'logical', operator: 'and', left, right: this.#not(), at: left.at };
    return left;
  }

  #not(): Expression {
    const { at } = this.#token;
    if (!this.#skipName('not')) return this.#compare();
    return { type: 'unary', operator: 'not', operand: this.#nested(() => this.#not()), at };
  }

  #compare(): Expression {
    const first = this.#sum();
    const rest: { operator: CompareOperator; operand: Expression }[] = [];
    for (;;) {
      const operator = this.#comparison();
      if (operator === undefined) break;
      rest.push({ operator, operand: this.#sum() });
    }
    return rest.length === 0 ? first : { type: 'compare', first, rest, at: first.at };
  }

  #comparison(): CompareOperator | undefined {
    const { type, value } = this.#token;
    if (type === 'operator' && comparisons.has(value)) return this.#next().value as CompareOperator;
    if (this.#skipName('in')) return 'in';
    const following = this.#tokens[this.#at + 1];
    if (!this.#isName('not') || following?.type !== 'name' || following.value !== 'in') return undefined;
    this.#at += 2;
    return 'not in';
  }

  /** A chain of left-associative operators. */
  #binary(operators: BinaryOperator[], operand: () => Expression): Expression {
    let left = operand();
    while (this.#token.type === 'operator' && operators.includes(this.#token.value as BinaryOperator)) {
      const operator = this.#next().value as BinaryOperator;
      left = { type: 'binary', operator, left, right: operand(), at: left.at };
    }
    return left;
  }

  #sum(): Expression {
    return this.#binary(['+', '-'], () => this.#concat());
  }

  #concat(): Expression {
    const parts = [this.#product()];
    while (this.#skipOperator('~')) parts.push(this.#product());
    return parts.length === 1 ? parts[0]! : { type: 'concat', parts, at: parts[0]!.at };
  }

  #product(): Expression {
    // In Jinja2 ** binds from the left: 2 ** 3 ** 2 is 64.
    return this.#binary(['*', '/', '//', '%'], () => this.#binary(['**'], () => this.#unary(true)));
  }

  /** A sign binds stronger than ** and than filters: -2 ** 2 is 4, -1 | abs is 1. */
  #unary(withFilters: boolean): Expression {
    const { at } = this.#token;
    let node: Expression;
    if (this.#isOperator('-') || this.#isOperator('+')) {
      const operator = this.#next().value as '-' | '+';
      node = { type: 'unary', operator, operand: this.#nested(() => this.#unary(false)), at };
    } else node = this.#primary(false);
    node = this.#postfix(node);
    return withFilters ? this.#filterChain(node) : node;
  }

  #primary(fields: boolean): Expression {
    const token = this.#next();
    const { at } = token;
    switch (token.type) {
      case 'name':
        return this.#name(token, fields);
      case 'string': {
        let value = token.value;
        while (this.#is('string')) value += this.#next().value;
        return { type: 'constant', value, at };
      }
      case 'integer':
        return { type: 'constant', value: integerFromText(token.value), at };
      case 'float':
        return { type: 'constant', value: new Float(Number(token.value)), at };
      case 'operator':
        if (token.value === '(') {
          const inner = this.#tuple({ parentheses: true });
          this.#expect('operator', ')');
          return inner;
        }
        if (token.value === '[') return { type: 'list', items: this.#list(), at };
        if (token.value === '{') return this.#dict(at);
    }
    return this.#fail(`unexpected ${describe(token.type, token.value)}`, at);
  }

  #name(token: Token, fields: boolean): Expression {
    const { at, value } = token;
    if (value === 'true' || value === 'True') return { type: 'constant', value: true, at };
    if (value === 'false' || value === 'False') return { type: 'constant', value: false, at };
    if (value === 'none' || value === 'None') return { type: 'constant', value: null, at };
    const node: Expression = { type: 'name', name: value, at };
    if (!fields || !this.#skipOperator('.')) return node;
    return { type: 'attribute', object: node, name: this.#expect('name').value, at };
  }

  #list(): Expression[] {
    const items: Expression[] = [];
    while (!this.#isOperator(']')) {
      if (items.length > 0) this.#expect('operator', ',');
      if (this.#isOperator(']')) break;
      items.push(this.#expression());
    }
    this.#at++;
    return items;
  }

  #dict(at: number): Expression {
    const entries: { key: Expression; value: Expression }[] = [];
    while (!this.#isOperator('}')) {
      if (entries.length > 0) this.#expect('operator', ',');
      if (this.#isOperator('}')) break;
      const key = this.#expression();
      this.#expect('operator', ':');
      entries.push({ key, value: this.#expression() });
    }
    this.#at++;
    return { type: 'dict', entries, at };
  }

  /** Attributes, items and calls behind a value. */
  #postfix(start: Expression): Expression {
    let node = start;
    for (;;) {
      if (this.#isOperator('.') || this.#isOperator('[')) node = this.#subscript(node);
      else if (this.#isOperator('(')) node = { type: 'call', callee: node, args: this.#arguments(), at: node.at };
      else return node;
    }
  }

  #filterChain(start: Expression): Expression {
    let node = start;
    for (;;) {
      if (this.#isOperator('|')) node = this.#filters(node, false)!;
      else if (this.#isName('is')) node = this.#test(node);
      else if (this.#isOperator('(')) node = { type: 'call', callee: node, args: this.#arguments(), at: node.at };
      else return node;
    }
  }

  #subscript(object: Expression): Expression {
    const { at } = this.#token;
    if (this.#next().value === '.') {
      const token = this.#next();
      if (token.type === 'name') return { type: 'attribute', object, name: token.value, at };
      if (token.type !== 'integer') this.#fail('expected a name or number', token.at);
      return { type: 'item', object, key: { type: 'constant', value: integerFromText(token.value), at }, at };
    }
    const items: Expression[] = [];
    let node: Expression | undefined;
    while (!this.#isOperator(']')) {
      if (items.length > 0) this.#expect('operator', ',');
      if (this.#isOperator(':')) node = this.#slice(object, undefined, at);
      else {
        const key = this.#expression();
        if (this.#isOperator(':')) node = this.#slice(object, key, at);
        else items.push(key);
      }
      if (node && !this.#isOperator(']')) this.#fail('expected "]"');
    }
    this.#at++;
    if (node) {
      if (items.length > 0) this.#fail('a slice stands alone in its brackets', at);
      return node;
    }
    return { type: 'item', object, key: items.length === 1 ? items[0]! : { type: 'tuple', items, at }, at };
  }

  #slice(object: Expression, start: Expression | undefined, at: number): Expression {
    const bound = () => (this.#isOperator(':') || this.#isOperator(']') ? undefined : this.#expression());
    this.#expect('operator', ':');
    const stop = bound();
    const step = this.#skipOperator(':') ? bound() : undefined;
    return { type: 'slice', object, start, stop, step, at };
  }

  #arguments(): Arguments {
    const { at } = this.#next();
    const result: Arguments = { positional: [], keyword: [] };
    for (let first = true; !this.#isOperator(')'); first = false) {
      if (!first) this.#expect('operator', ',');
      if (this.#isOperator(')')) break;
      if (this.#isOperator('*') || this.#isOperator('**')) this.#fail('arguments cannot be unpacked with * or **');
      const following = this.#tokens[this.#at + 1];
      if (this.#is('name') && following?.type === 'operator' && following.value === '=') {
        const name = this.#next().value;
        this.#at++;
        if (result.keyword.some((argument) => argument.name === name))
          this.#fail(`argument "${name}" is given twice`, at);
        result.keyword.push({ name, value: this.#expression() });
      } else {
        if (result.keyword.length > 0) this.#fail('arguments without names come first');
        result.positional.push(this.#expression());
      }
    }
    this.#at++;
    return result;
  }

  /** A name with dots in it, as filters and tests may have. */
  #dottedName(): Token {
    const token = { ...this.#expect('name') };
    while (this.#skipOperator('.')) token.value += `.${this.#expect('name').value}`;
    return token;
  }

  /** A chain of filters. `inline`: the first one stands without a `|`. */
  #filters(operand: Expression | undefined, inline: boolean): Filter | undefined {
    let node: Filter | undefined;
    for (let bare = inline; bare || this.#isOperator('|'); bare = false) {
      if (!bare) this.#at++;
      const { value: name, at } = this.#dottedName();
      const args = this.#isOperator('(') ? this.#arguments() : { positional: [], keyword: [] };
      node = { type: 'filter', operand: node ?? operand, name, args, at };
    }
    return node;
  }

  #test(operand: Expression): Expression {
    this.#at++;
    const negated = this.#skipName('not');
    const { value: name, at } = this.#dottedName();
    const test: Expression = { type: 'test', operand, name, args: this.#testArguments(), at };
    return negated ? { type: 'unary', operator: 'not', operand: test, at } : test;
  }

  /** A test's one argument may stand without parentheses: `is divisibleby 3`. */
  #testArguments(): Arguments {
    if (this.#isOperator('(')) return this.#arguments();
    const { type } = this.#token;
    const begins =
      (type === 'name' && !this.#isName('else', 'or', 'and')) ||
      type === 'string' ||
      type === 'integer' ||
      type === 'float' ||
      this.#isOperator('[') ||
      this.#isOperator('{');
    if (!begins) return { positional: [], keyword: [] };
    if (this.#isName('is')) this.#fail('tests cannot be chained with "is"');
    return { positional: [this.#postfix(this.#primary(false))], keyword: [] };
  }
}

function describe(type: TokenType, value?: string): string {
  switch (type) {
    case 'operator':
      return `"${value}"`;
    case 'name':
      return value === undefined ? 'a name' : `"${value}"`;
    case 'variable_end':
      return '"}}"';
    case 'block_end':
      return '"%}"';
    case 'eof':
      return 'the end of the template';
    case 'string':
      return 'a string';
    default:
      return value ? `"${value}"` : type;
  }
}
