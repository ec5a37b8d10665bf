/**
 * PostgreSQL log positions (LSN): 64-bit, written as `hi/lo` in hexadecimal. In payloads, records and answers a
 * position is always that text; only its source reads it.
 */

const pattern = /^([0-9A-Fa-f]{1,8})\/([0-9A-Fa-f]{1,8})$/;

/** The LSN as an integer. Throws RangeError when the text is not an LSN. */
export function parseLsn(text: string): bigint {
  const match = pattern.exec(text);
  if (!match) throw new RangeError(`not a log position: ${text.slice(0, 40)}`);
  return (BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`);
}

/** PostgreSQL's own text of an LSN, e.g. `0/16B3748`. */
export function formatLsn(lsn: bigint): string {
  return `${(lsn >> 32n).toString(16).toUpperCase()}/${(lsn & 0xffffffffn).toString(16).toUpperCase()}`;
}

/** Negative, zero or positive as `a` is before, at or after `b`. */
export function compareLsn(a: string, b: string): number {
  const difference = parseLsn(a) - parseLsn(b);
  return difference < 0n ? -1 : difference > 0n ? 1 : 0;
}

/**
 * A position at a page's beginning and one behind that page's header are the same place in the log: servers answer
 * either. This is the later of the two, for comparing what was passed with what was to be passed.
 */
export function behindPageHeader(lsn: bigint): bigint {
  return lsn % 8192n === 0n ? lsn + 40n : lsn;
}
