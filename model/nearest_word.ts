/** What somebody who mistyped a word probably meant. */

/** The allowed word that was probably meant: few letters differ. */
export function nearest(word: string, allowed: string[]): string | undefined {
  const scored = allowed.map((name) => ({ name, edits: editDistance(word.toLowerCase(), name.toLowerCase()) }));
  scored.sort((a, b) => a.edits - b.edits);
  const [best] = scored;
  return best && best.edits <= Math.max(1, Math.floor(best.name.length / 3)) ? best.name : undefined;
}

function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
