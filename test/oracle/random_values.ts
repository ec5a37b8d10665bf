/** Random values for the oracle's statements, nasty ones above all. */
import type { Random } from '../../workers/demo/random.ts';

/** A string literal that needs no setting to be right. */
export function literal(text: string | null): string {
  if (text === null) return 'NULL';
  return `E'${text.replaceAll('\\', '\\\\').replaceAll("'", "''")}'`;
}

/** Pieces that escape rules, encodings and separators have stumbled over. */
const nastyPieces = [
  ...['', ' ', '\t', '\n', '\r', '\\', "'", '"', '\\N', '\\n', 'NULL', '\b', '\f', '\v', '\x01', '\x7f', '{', ',', '}'],
  ...[
    'ä',
    '漢',
    '😀',
    '\u00a0',
    '\u2028',
    '%',
    '_',
    '\\.',
    '/',
    '0',
    '-1',
    '[]',
    '$$',
    '`',
    '\x1b',
    '\\x41',
    ';',
    '--',
  ],
];

export function nastyText(random: Random, most = 6): string {
  let text = '';
  for (let i = random.between(0, most); i > 0; i--) text += random.pick(nastyPieces);
  return text;
}

/** Text that PostgreSQL stores out of line: large, and nothing that compresses. Its head tells where it came from. */
export function largeText(random: Random): string {
  const size = random.pick([2100, 2500, 9000]);
  return `'${random.hex(6)}' || repeat('${random.hex(50)}', ${Math.ceil(size / 100)})`;
}

export function maybeNull(random: Random, text: string): string {
  return random.chance(0.15) ? 'NULL' : text;
}

/** Rows of a key's range: sometimes one, sometimes many. */
export function range(random: Random, column: string, most: number): string {
  if (random.chance(0.7)) return `${column} = ${random.between(1, most)}`;
  const from = random.between(1, most);
  return `${column} BETWEEN ${from} AND ${from + random.between(0, 8)}`;
}
