/** Cursors of lists that are read page by page: where a page ended, in a text that nobody needs to understand. */
import { SluiceError } from '../../model/errors.ts';

/** A part of a place: a time of ISO 8601, any text, or a whole number as text. */
type Part = 'time' | 'text' | 'whole';

/** The cursor of a place. */
export function pageCursor(place: readonly string[]): string {
  return Buffer.from(JSON.stringify(place)).toString('base64url');
}

/** The place of a cursor, whose parts are these. Errors: `configuration`. */
export function readCursor(cursor: string, parts: readonly Part[]): string[] {
  try {
    const place = JSON.parse(Buffer.from(cursor, 'base64url').toString()) as string[];
    if (place.length === parts.length && parts.every((part, i) => isPart(place[i], part))) return place;
  } catch {}
  throw new SluiceError('configuration', 'the cursor is none of this list', 'Take next_cursor of the page before.');
}

function isPart(value: unknown, part: Part): boolean {
  if (typeof value !== 'string') return false;
  if (part === 'time') return !Number.isNaN(Date.parse(value));
  return part === 'text' || /^\d{1,39}$/.test(value);
}
