/** Durations as people write them: `30s`, `15m`, `1h30m`, `2d`. */

const units = [
  ['w', 604_800],
  ['d', 86_400],
  ['h', 3_600],
  ['m', 60],
  ['s', 1],
] as const;
const pattern = /^(?:(\d{1,9})w)?(?:(\d{1,9})d)?(?:(\d{1,9})h)?(?:(\d{1,9})m)?(?:(\d{1,9})s)?$/;

/** Seconds of a duration; undefined when the text is none. */
export function parseDuration(text: string): number | undefined {
  const match = pattern.exec(text);
  if (match === null || text === '') return undefined;
  return units.reduce((sum, [, seconds], index) => sum + Number(match[index + 1] ?? 0) * seconds, 0);
}

/** The shortest text of seconds; what is less than a second is a fraction of one. */
export function formatDuration(seconds: number): string {
  if (seconds === 0) return '0s';
  if (seconds < 0) return `-${formatDuration(-seconds)}`;
  let rest = seconds;
  let text = '';
  for (const [unit, length] of units) {
    // Days, but not weeks: `14d` is read more easily than `2w`.
    if (unit === 'w') continue;
    const count = unit === 's' ? rest : Math.floor(rest / length);
    rest -= count * length;
    if (count > 0) text += `${unit === 's' ? Math.round(count * 1000) / 1000 : count}${unit}`;
  }
  return text;
}
