/** What finished runs have pulled, taken together: where one has ended another may have gone on. */

/** [from, to), in nanoseconds since 1970. */
export interface Stretch {
  from: bigint;
  to: bigint;
}

/** The same time in as few stretches as there can be, in order. */
export function joinStretches(stretches: Stretch[]): Stretch[] {
  const joined: Stretch[] = [];
  for (const { from, to } of [...stretches].sort((a, b) => (a.from < b.from ? -1 : 1))) {
    const last = joined.at(-1);
    if (from >= to) continue;
    if (last === undefined || from > last.to) joined.push({ from, to });
    else if (to > last.to) last.to = to;
  }
  return joined;
}

/** True when all of [from, to) lies in one of the joined stretches. */
export function isCovered(joined: Stretch[], { from, to }: Stretch): boolean {
  return joined.some((one) => one.from <= from && to <= one.to);
}
