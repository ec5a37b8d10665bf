/** What is known of an expression's result before it runs: the base for the type of a column that a rule fills. */

export type Kind =
  | 'any'
  | 'none'
  | 'undefined'
  | 'bool'
  | 'int'
  | 'float'
  | 'decimal'
  | 'text'
  | 'list'
  | 'tuple'
  | 'dict'
  | 'date'
  | 'datetime'
  | 'duration';

export interface StaticType {
  kind: Kind;
  /** Of an int and a decimal: most digits that it has. */
  digits?: number;
  /** Of a decimal: most places behind the point; undefined where they are not known. */
  scale?: number;
}

/** Digits of the largest bigint. */
export const bigintDigits = 19;

const kinds = new Map<Kind, StaticType>();

/** A type of which only the kind is known. */
export function ofKind(kind: Kind): StaticType {
  let type = kinds.get(kind);
  if (type === undefined) {
    type = kind === 'int' ? { kind, digits: bigintDigits } : { kind };
    kinds.set(kind, type);
  }
  return type;
}

export function decimalOf(digits: number, scale: number): StaticType {
  return { kind: 'decimal', digits, scale };
}

/** An int as the decimal that it becomes beside one. */
function asDecimal(type: StaticType): StaticType {
  return type.kind === 'int' ? decimalOf(type.digits ?? bigintDigits, 0) : type;
}

const numbers = new Set<Kind>(['bool', 'int', 'float', 'decimal']);

/** The type of `a operator b`. */
export function binaryType(operator: string, a: StaticType, b: StaticType): StaticType {
  if (a.kind === 'text' && operator === '%') return ofKind('text');
  if (operator === '*' && (a.kind === 'text' || b.kind === 'text')) return ofKind('text');
  if (operator === '+' && a.kind === b.kind && (a.kind === 'text' || a.kind === 'list' || a.kind === 'tuple'))
    return ofKind(a.kind);
  if (!numbers.has(a.kind) || !numbers.has(b.kind)) return dateArithmetic(operator, a, b);
  if (a.kind === 'decimal' || b.kind === 'decimal') return decimalArithmetic(operator, asDecimal(a), asDecimal(b));
  if (a.kind === 'float' || b.kind === 'float' || operator === '/') return ofKind('float');
  return operator === '**' ? ofKind('any') : ofKind('int');
}

function dateArithmetic(operator: string, a: StaticType, b: StaticType): StaticType {
  const isMoment = (type: StaticType) => type.kind === 'date' || type.kind === 'datetime';
  if (operator === '-' && isMoment(a) && a.kind === b.kind) return ofKind('duration');
  if ((operator === '+' || operator === '-') && b.kind === 'duration' && (isMoment(a) || a.kind === 'duration'))
    return a;
  return ofKind('any');
}

function decimalArithmetic(operator: string, a: StaticType, b: StaticType): StaticType {
  const unknown = ofKind('decimal');
  // A float becomes the decimal that it prints: nobody knows how long that is.
  if (a.scale === undefined || b.scale === undefined) return unknown;
  const whole = (type: StaticType) => type.digits! - type.scale!;
  switch (operator) {
    case '+':
    case '-': {
      const scale = Math.max(a.scale, b.scale);
      return decimalOf(Math.max(whole(a), whole(b)) + 1 + scale, scale);
    }
    case '*':
      return decimalOf(a.digits! + b.digits!, a.scale + b.scale);
    case '//':
      return decimalOf(whole(a) + b.scale, 0);
    case '%': {
      const scale = Math.max(a.scale, b.scale);
      return decimalOf(Math.min(whole(a), whole(b)) + scale, scale);
    }
    default:
      return unknown;
  }
}

/** The type of a value that is either of the two. */
export function eitherType(a: StaticType, b: StaticType): StaticType {
  if (a.kind === 'none' || a.kind === 'undefined') return b;
  if (b.kind === 'none' || b.kind === 'undefined') return a;
  if (a.kind === b.kind && a.kind === 'int') return { kind: 'int', digits: Math.max(a.digits!, b.digits!) };
  const [x, y] = [asDecimal(a), asDecimal(b)];
  if (x.kind === 'decimal' && y.kind === 'decimal' && a.kind !== 'float' && b.kind !== 'float') {
    if (x.scale === undefined || y.scale === undefined) return ofKind('decimal');
    const scale = Math.max(x.scale, y.scale);
    return decimalOf(Math.max(x.digits! - x.scale, y.digits! - y.scale) + scale, scale);
  }
  return a.kind === b.kind ? a : ofKind('any');
}
