/** Texts as numbers: what Python's int(), float() and Decimal() accept. */
import { type Decimal, parseDecimal } from './decimal.ts';
import { claimScan, limits, overLimit } from './limits.ts';
import { strip } from './text_methods.ts';
import { type Integer, integer } from './values.ts';

const digitsOfBase = '0123456789abcdefghijklmnopqrstuvwxyz';
const prefixes = new Map([
  ['0b', 2],
  ['0o', 8],
  ['0x', 16],
]);

/** An int written in a base from 2 to 36; base 0 takes it from the prefix. Undefined for anything else. */
export function parseInteger(text: string, base: number): Integer | undefined {
  const trimmed = strip(text, undefined, true, true);
  if (trimmed.length > limits.digits) throw overLimit('digits');
  const match = /^([+-]?)([0-9a-zA-Z_]+)$/.exec(trimmed);
  if (!match) return undefined;
  const negative = match[1] === '-';
  const digits = match[2]!.toLowerCase();
  const prefixed = prefixes.get(digits.slice(0, 2));
  if (prefixed !== undefined && (base === 0 || base === prefixed))
    return fromDigits(negative, digits.slice(2).replace(/^_/, ''), prefixed);
  // Without a prefix a zero in front may only be followed by zeros.
  if (base === 0) return /^0[0_]*[1-9]/.test(digits) ? undefined : fromDigits(negative, digits, 10);
  return fromDigits(negative, digits, base);
}

function fromDigits(negative: boolean, text: string, base: number): Integer | undefined {
  if (!/^[0-9a-z]+(?:_[0-9a-z]+)*$/.test(text)) return undefined;
  const digits = text.replaceAll('_', '');
  let value = 0n;
  if (base === 10) {
    if (!/^[0-9]+$/.test(digits)) return undefined;
    value = BigInt(digits);
  } else {
    for (const digit of digits) {
      const number = digitsOfBase.indexOf(digit);
      if (number >= base) return undefined;
      value = value * BigInt(base) + BigInt(number);
    }
  }
  return integer(negative ? -value : value);
}

// Digits behind a point belong to that point: else a run of digits could be parted anywhere, which takes quadratic time.
const floatPattern =
  /^[+-]?(?:[0-9](?:_?[0-9])*(?:\.(?:[0-9](?:_?[0-9])*)?)?|\.[0-9](?:_?[0-9])*)(?:e[+-]?[0-9](?:_?[0-9])*)?$/i;
const wordPattern = /^([+-]?)(?:(inf|infinity)|nan)$/i;

/** A float in any notation of Python, also `inf` and `nan`; undefined for anything else. */
export function parseFloatText(text: string): number | undefined {
  claimScan(text.length);
  if (!/[0-9nf]/i.test(text)) return undefined;
  const trimmed = strip(text, undefined, true, true);
  if (floatPattern.test(trimmed)) return Number(trimmed.replaceAll('_', ''));
  const word = wordPattern.exec(trimmed);
  if (!word) return undefined;
  if (word[2] === undefined) return Number.NaN;
  return word[1] === '-' ? Number.NEGATIVE_INFINITY : Number.POSITIVE_INFINITY;
}

/** A Decimal in any notation of Python; undefined for anything else. */
export function parseDecimalText(text: string): Decimal | undefined {
  return parseDecimal(strip(text, undefined, true, true).replaceAll('_', ''));
}
