/** Times as ClickHouse's TSV has them. */

let lastSecond = -1;
let lastSecondText = '';

/** Microseconds since 1970 as ClickHouse's text of DateTime64(6, 'UTC'). */
export function timeText(microseconds: number): string {
  const second = Math.floor(microseconds / 1e6);
  if (second !== lastSecond) {
    lastSecond = second;
    lastSecondText = new Date(second * 1000).toISOString().slice(0, 19).replace('T', ' ');
  }
  return `${lastSecondText}.${String(microseconds - second * 1e6).padStart(6, '0')}`;
}

/** As `isoTime`; null where there is no time. */
export function isoTimeOrNull(text: string | null): string | null {
  return text ? isoTime(text) : null;
}

/** ClickHouse's text of a time (UTC) as ISO 8601. */
export function isoTime(text: string): string {
  return `${text.replace(' ', 'T')}Z`;
}
