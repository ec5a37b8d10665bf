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

interface Named {
  schema: string;
  table: string;
}

/** True when a name, as people write it, is that of a table: in `public` the schema may be left out. */
export function isNamed(name: string, { schema, table }: Named): boolean {
  return name === `${schema}.${table}` || (schema === 'public' && name === table);
}

/** `*` alone stays inside `public`; with a dot the first part is the schema's. Names may hold dots themselves. */
export function isMatched(pattern: string, { schema, table }: Named): boolean {
  if (schema === 'public' && matchesGlob(pattern, table)) return true;
  for (let dot = pattern.indexOf('.'); dot >= 0; dot = pattern.indexOf('.', dot + 1)) {
    if (matchesGlob(pattern.slice(0, dot), schema) && matchesGlob(pattern.slice(dot + 1), table)) return true;
  }
  return false;
}
