/** Reads just enough of a ClickHouse statement to know where an INSERT's data begins, and what is not allowed over HTTP. */

export type Statement =
  /** `prefix` ends with `FORMAT name`; the data begin at byte `dataStart`. */
  | { kind: 'insert'; prefix: string; format: string; dataStart: number }
  /** INSERT … SELECT: no data, but rows are written. */
  | { kind: 'insertSelect' }
  | { kind: 'kill'; condition: string }
  /** `format` is the one that the statement itself names; `reads` when nothing is lost by cancelling it. */
  | { kind: 'other'; format: string | undefined; reads: boolean }
  | { kind: 'refused'; code: number; name: string; reason: string };

interface Token {
  kind: 'word' | 'quoted' | 'sign';
  text: string;
  start: number;
  end: number;
}

/*
 * One token after blanks and comments. Text is read as latin1, so that offsets are those of bytes; all signs that matter
 * are ASCII, and no byte of a longer UTF-8 sequence is.
 */
const blank = /(?:\s+|--[^\n]*(?:\n|$)|#[! ][^\n]*(?:\n|$)|\/\*[\s\S]*?(?:\*\/|$))*/y;
const token =
  /(?<word>[A-Za-z_\x80-\xff][\w\x80-\xff]*)|(?<quoted>'(?:[^'\\]|\\[\s\S]|'')*'|"(?:[^"\\]|\\[\s\S]|"")*"|`(?:[^`\\]|\\[\s\S]|``)*`|(?<heredoc>\$\w*\$)[\s\S]*?\k<heredoc>)|(?<sign>[\s\S])/y;

const readers = new Set(['SELECT', 'WITH', 'FROM', '(', 'SHOW', 'DESCRIBE', 'DESC', 'EXISTS', 'EXPLAIN']);

const inputReason = 'The embedded engine has no input(): insert into the table itself.';

class Tokens {
  readonly #text: string;
  at = 0;

  constructor(text: string) {
    this.#text = text;
  }

  next(): Token | undefined {
    blank.lastIndex = this.at;
    blank.exec(this.#text);
    token.lastIndex = blank.lastIndex;
    const start = token.lastIndex;
    const match = start < this.#text.length ? token.exec(this.#text) : null;
    if (match?.groups === undefined || match === null) return undefined;
    this.at = token.lastIndex;
    const kind = match.groups.word !== undefined ? 'word' : match.groups.quoted !== undefined ? 'quoted' : 'sign';
    return { kind, text: match[0], start, end: this.at };
  }
}

/**
 * Reads a statement, given as bytes. Only its head has to be there: the words up to an INSERT's data, or all of any other
 * statement.
 */
export function readStatement(bytes: Buffer): Statement {
  const text = bytes.toString('latin1');
  const tokens = new Tokens(text);
  const first = tokens.next();
  if (first === undefined) return { kind: 'refused', code: 62, name: 'SYNTAX_ERROR', reason: 'Empty query' };
  const word = first.text.toUpperCase();
  if (word === 'INSERT') return readInsert(bytes, text, tokens);
  const other = readOther(tokens, readers.has(word));
  if (word !== 'KILL' || other.kind === 'refused') return other;
  return readKill(bytes) ?? other;
}

function readInsert(bytes: Buffer, text: string, tokens: Tokens): Statement {
  for (let depth = 0, found = tokens.next(); found !== undefined; found = tokens.next()) {
    if (found.text === '(' || found.text === '[') depth++;
    if (found.text === ')' || found.text === ']') depth--;
    if (found.kind !== 'word' || depth > 0) continue;
    const word = found.text.toUpperCase();
    if (word === 'FORMAT') {
      const name = tokens.next();
      if (name?.kind !== 'word') break;
      if (name.text.toUpperCase() === 'VALUES') return values(bytes, found.start, name.end);
      const prefix = bytes.subarray(0, name.end).toString('utf8');
      return { kind: 'insert', prefix, format: name.text, dataStart: afterLineEnd(text, name.end) };
    }
    if (word === 'VALUES') return values(bytes, found.start, found.end);
    if (word === 'SELECT' || word === 'WITH' || word === 'FROM') {
      const selectStart = tokens.at;
      if (selectsFromInput(tokens)) return { kind: 'refused', code: 48, name: 'NOT_IMPLEMENTED', reason: inputReason };
      tokens.at = selectStart;
      const rest = readOther(tokens);
      return rest.kind === 'refused' ? rest : { kind: 'insertSelect' };
    }
  }
  return { kind: 'refused', code: 62, name: 'SYNTAX_ERROR', reason: 'INSERT without FORMAT, VALUES or SELECT' };
}

/** The engine would answer without having read the data that follow `INSERT … SELECT … FROM input('…') FORMAT …`. */
function selectsFromInput(tokens: Tokens): boolean {
  for (let found = tokens.next(), before = ''; found !== undefined; found = tokens.next()) {
    if (found.text === '(' && before.toUpperCase() === 'INPUT') return true;
    before = found.text;
  }
  return false;
}

function values(bytes: Buffer, prefixEnd: number, dataStart: number): Statement {
  const prefix = `${bytes.subarray(0, prefixEnd).toString('utf8')} FORMAT Values`;
  return { kind: 'insert', prefix, format: 'Values', dataStart };
}

/** Blanks up to the end of the line that names the format are not data; everything after it is. */
function afterLineEnd(text: string, at: number): number {
  return at + (/^[ \t\f]*(?:\r?\n)?/.exec(text.slice(at, at + 1000))?.[0].length ?? 0);
}

/** The rest of a statement that is no INSERT with data: exactly one statement, nothing written into files. */
function readOther(tokens: Tokens, reads = false): Statement {
  let format: string | undefined;
  let depth = 0;
  for (let found = tokens.next(), before = ''; found !== undefined; found = tokens.next()) {
    const word = found.kind === 'word' ? found.text.toUpperCase() : found.text;
    if (word === '(') depth++;
    if (word === ')') depth--;
    if (word === ';' && tokens.next() !== undefined)
      return { kind: 'refused', code: 62, name: 'SYNTAX_ERROR', reason: 'Multi-statements are not allowed' };
    if (before === 'INTO' && word === 'OUTFILE')
      return { kind: 'refused', code: 1, name: 'UNSUPPORTED_METHOD', reason: 'INTO OUTFILE is not allowed' };
    if (before === 'FORMAT' && found.kind === 'word' && depth === 0) format = found.text;
    before = word;
  }
  return { kind: 'other', format, reads };
}

function readKill(bytes: Buffer): Statement | undefined {
  const match = /^\s*KILL\s+QUERY\s+WHERE\s+([\s\S]*?)\s*(?:\s(?:SYNC|ASYNC))?\s*;?\s*$/i.exec(bytes.toString('utf8'));
  return match?.[1] === undefined ? undefined : { kind: 'kill', condition: match[1] };
}
