/** Names with wildcards: `*` stands for any characters, `?` for one. */

/** True for a text with wildcards. */
export function isGlob(text: string): boolean {
  return /[*?]/.test(text);
}

/** Without a regular expression: a pattern of many stars takes no more than length times length steps. */
export function matchesGlob(pattern: string, name: string): boolean {
  let at = 0;
  let star = -1;
  let retry = 0;
  for (let index = 0; index < name.length; ) {
    if (pattern[at] === '*') {
      star = at++;
      retry = index;
    } else if (at < pattern.length && (pattern[at] === '?' || pattern[at] === name[index])) {
      at++;
      index++;
    } else if (star >= 0) {
      at = star + 1;
      index = ++retry;
    } else return false;
  }
  while (pattern[at] === '*') at++;
  return at === pattern.length;
}
