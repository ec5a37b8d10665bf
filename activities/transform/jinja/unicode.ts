/** Facts about characters as Python's `str` has them, where JavaScript has no word for them. */

const spaceClass = '\\t-\\r\\x1c-\\x20\\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000';

/** What Python strips and splits at. */
export const spaceAtStart = new RegExp(`^[${spaceClass}]+`);
export const spaceAtEnd = new RegExp(`[${spaceClass}]+$`);
export const spaceRun = new RegExp(`[${spaceClass}]+`, 'g');
export const onlySpace = new RegExp(`^[${spaceClass}]+$`);

/** Characters that are digits but not decimal digits: superscripts, circled digits and such. */
const otherDigits =
  '\\xb2\\xb3\\xb9\\u1369-\\u1371\\u19da\\u2070\\u2074-\\u2079\\u2080-\\u2089\\u2460-\\u2468\\u2474-\\u247c\\u2488-\\u2490' +
  '\\u24ea\\u24f5-\\u24fd\\u24ff\\u2776-\\u277e\\u2780-\\u2788\\u278a-\\u2792\\u{10a40}-\\u{10a43}\\u{10e60}-\\u{10e68}' +
  '\\u{11052}-\\u{1105a}\\u{1f100}-\\u{1f10a}';

/** Ideographs that stand for numbers. */
const numberIdeographs =
  '\\u3405\\u3483\\u382a\\u3b4d\\u4e00\\u4e03\\u4e07\\u4e09\\u4e5d\\u4e8c\\u4e94\\u4e96\\u4ebf-\\u4ec0\\u4edf' +
  '\\u4ee8\\u4f0d\\u4f70\\u5104\\u5146\\u5169\\u516b\\u516d\\u5341\\u5343-\\u5345\\u534c\\u53c1-\\u53c4\\u56db' +
  '\\u58f1\\u58f9\\u5e7a\\u5efe-\\u5eff\\u5f0c-\\u5f0e\\u5f10\\u62fe\\u634c\\u67d2\\u6f06\\u7396\\u767e\\u8086' +
  '\\u842c\\u8cae\\u8cb3\\u8d30\\u9621\\u9646\\u964c\\u9678\\u96f6\\uf96b\\uf973\\uf978\\uf9b2\\uf9d1\\uf9d3' +
  '\\uf9fd\\u{20001}\\u{20064}\\u{200e2}\\u{20121}\\u{2092a}\\u{20983}\\u{2098c}\\u{2099c}\\u{20aea}\\u{20afd}' +
  '\\u{20b19}\\u{22390}\\u{22998}\\u{23b1b}\\u{2626d}\\u{2f890}';

export const onlyDigits = new RegExp(`^[\\p{Nd}${otherDigits}]+$`, 'u');
export const onlyNumeric = new RegExp(`^[\\p{N}${numberIdeographs}]+$`, 'u');
export const onlyDecimals = /^\p{Nd}+$/u;
export const onlyLetters = /^\p{L}+$/u;
export const onlyLettersAndNumbers = /^[\p{L}\p{N}]+$/u;
export const identifier = /^[\p{XIDS}_]\p{XIDC}*$/u;
export const notPrintable = /(?! )[\p{C}\p{Z}]/gu;

/** The one character in title case: as at the head of a word. */
export function titleCase(character: string): string {
  const code = character.codePointAt(0)!;
  if (code < 0x80) return character.toUpperCase();
  // Georgian letters have capitals, but titles are not written with them.
  if (code >= 0x10d0 && code <= 0x10ff) return character;
  if (code >= 0x1c4 && code <= 0x1cc) return 'ǅǈǋ'[Math.floor((code - 0x1c4) / 3)]!;
  if (code >= 0x1f1 && code <= 0x1f3) return 'ǲ';
  if (code >= 0x1f80 && code <= 0x1fff) return greekTitleCase(code, character);
  const upper = character.toUpperCase();
  const [first = '', ...rest] = upper;
  return rest.length === 0 || code === 0x149 ? upper : first + rest.join('').toLowerCase();
}

/** Greek vowels with a small iota below: in titles it stays below, in capitals it stands beside. */
function greekTitleCase(code: number, character: string): string {
  if (code <= 0x1faf) return String.fromCharCode(code | 8);
  const upper = character.toUpperCase();
  const family = { b: 'ᾼ', c: 'ῌ', f: 'ῼ' }[((code >> 4) & 15).toString(16)];
  const last = code & 15;
  if (family === undefined || upper.length === 1) return upper;
  if (last === 3 || last === 12) return family;
  if (last === 7) return `${family}\u0342`;
  if (last === 2 || last === 4) return `${upper[0]}\u0345`;
  return upper[0] + upper.slice(1).toLowerCase();
}

/** For comparing without case. */
export function caseFold(text: string): string {
  if (/^[\x00-\x7f]*$/.test(text)) return text.toLowerCase();
  let folded = '';
  for (const character of text) folded += foldCharacter(character);
  return folded;
}

function foldCharacter(character: string): string {
  const code = character.codePointAt(0)!;
  if (code === 0x131 || (code >= 0x13a0 && code <= 0x13f5)) return character;
  if (code === 0x1e9e) return 'ss';
  // Cherokee folds to its capitals.
  if (code >= 0x13f8 && code <= 0x13fd) return String.fromCharCode(code - 8);
  if (code >= 0xab70 && code <= 0xabbf) return String.fromCharCode(code - 0xab70 + 0x13a0);
  return character.toUpperCase().toLowerCase();
}
