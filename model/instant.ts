/** Instants as bigint nanoseconds since 1970, and their ISO 8601 texts: exact, and the same on every machine. */

const pattern = /^(\d{4})-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,9}))?)?(Z|[+-]\d\d:?\d\d)?)?$/;

/**
 * Nanoseconds since 1970 of an ISO 8601 text: a date (midnight UTC), or a date and time with a zone. Undefined when it
 * is no such text, names no real day, or is finer than a nanosecond.
 */
export function parseInstant(text: string): bigint | undefined {
  const match = pattern.exec(text);
  if (match === null) return undefined;
  const [, year, month, day, hour, minute, second = '00', fraction = '', zone] = match;
  if (hour !== undefined && zone === undefined) return undefined;
  const date = `${year}-${month}-${day}`;
  const milliseconds = Date.parse(hour === undefined ? `${date}T00:00:00Z` : `${date}T${hour}:${minute}:${second}Z`);
  // The 31st of a short month would be read as a day of the next one, and 24:00 as a time.
  if (Number.isNaN(milliseconds) || new Date(milliseconds).toISOString().slice(0, 10) !== date) return undefined;
  const offset = zone === undefined || zone === 'Z' ? 0 : offsetMinutes(zone);
  if (offset === undefined) return undefined;
  return BigInt(milliseconds - offset * 60_000) * 1_000_000n + BigInt(fraction.padEnd(9, '0'));
}

function offsetMinutes(zone: string): number | undefined {
  const [hours, minutes] = [Number(zone.slice(1, 3)), Number(zone.slice(-2))];
  if (hours > 23 || minutes > 59) return undefined;
  return (zone[0] === '-' ? -1 : 1) * (hours * 60 + minutes);
}

/** The text in UTC, with as many digits of a second as are needed: three, six or nine. */
export function formatInstant(nanoseconds: bigint): string {
  const rest = ((nanoseconds % 1_000_000n) + 1_000_000n) % 1_000_000n;
  const text = new Date(Number((nanoseconds - rest) / 1_000_000n)).toISOString();
  if (rest === 0n) return text;
  const digits = String(rest).padStart(6, '0');
  return `${text.slice(0, -1)}${digits.endsWith('000') ? digits.slice(0, 3) : digits}Z`;
}

/** The same in the form for names of files: `20260131T093000Z`, with a fraction only where there is one. */
export function compactInstant(nanoseconds: bigint): string {
  const [seconds, fraction] = formatInstant(nanoseconds).slice(0, -1).split('.') as [string, string];
  const rest = fraction.replace(/0+$/, '');
  return `${seconds.replaceAll('-', '').replaceAll(':', '')}${rest === '' ? '' : `.${rest}`}Z`;
}
