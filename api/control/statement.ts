/**
 * What people may ask ClickHouse: one statement that only reads, told by how ClickHouse itself parses it (EXPLAIN AST),
 * because `readonly` alone lets INTO OUTFILE, file() and DESCRIBE of remote tables through.
 */
import { SluiceError } from '../../model/errors.ts';

/** Table functions that compute and reach nothing. All others that ClickHouse knows are refused. */
const harmless = new Set([
  'numbers', 'numbers_mt', 'zeros', 'zeros_mt', 'primes', 'generateseries', 'generate_series', 'generaterandom',
  'values', 'sqlstandardvalues', 'format', 'null', 'view',
]); // biome-ignore format: a list

/** Functions of expressions that read files, settings or other sources, count something up, or waste time. */
const harmful =
  /^(file|catboostevaluate|dict.*|joinget.*|sleep.*|hascolumnintable|nontransactional.*|initialize.*|executable|evaluate.*|getclienthttpheader|getserversetting|generateserialid|ai.*|embed.*|llm.*)$/;

const systemTables = new Set([
  'one', 'numbers', 'zeros', 'tables', 'columns', 'databases', 'parts', 'parts_columns', 'detached_parts', 'functions',
  'table_functions', 'formats', 'data_type_families', 'time_zones', 'merges', 'mutations', 'metrics', 'events',
  'asynchronous_metrics', 'data_skipping_indices', 'projections', 'table_engines', 'collations', 'build_options',
]); // biome-ignore format: a list

/** With which words a statement may begin, in parentheses only the first two. */
const beginnings = /^(?:\(\s*)*(?:SELECT|WITH)\b|^(?:SHOW|DESCRIBE|DESC|EXISTS|EXPLAIN)\b/i;

/** Blanks and comments, as ClickHouse reads them. */
const blanks = /^(?:\s|--[^\n]*(?:\n|$)|#[! ][^\n]*(?:\n|$)|\/\*[\s\S]*?\*\/)+/;

/** SHOW with names and patterns only: its tree has neither WHERE nor LIMIT, which would be computed unseen. */
const plainShow =
  /^SHOW(?:\s+(?:(?!(?:WHERE|LIMIT)\b)[a-z_]\w*|`[^`\\]*`|"[^"\\]*")(?:\.(?:[a-z_]\w*|`[^`\\]*`|"[^"\\]*"))*|\s+'(?:[^'\\]|\\[_%])*')+$/i;

/**
 * How a statement is asked after without being carried out. The setting (it is the default) leaves no other way to read
 * the head: servers that complete a missing SELECT take `EXPLAIN AST FROM …` for a SELECT of a column EXPLAIN.
 */
export function askedAfter(statement: string): string {
  return `EXPLAIN AST graph = 0 ${statement}\n`;
}

/**
 * The statement from its first word on, without its final semicolon. Any other semicolon is refused before a server sees
 * the text: what follows one could be executed. Throws `configuration`.
 */
export function singleStatement(sql: string): string {
  const statement = sql.replace(blanks, '').trimEnd().replace(/;\s*$/, '').trimEnd();
  if (statement === '')
    throw refused('the statement is empty', 'Write e.g. SELECT count() FROM postgres_main_transactions.');
  if (statement.includes('\0')) throw refused('the statement has a NUL character', 'Take it out.');
  if (statement.includes(';')) {
    throw refused('the statement has a semicolon inside', 'Send one statement; inside a text write char(59).');
  }
  if (!beginnings.test(statement)) throw notReading();
  if (/^SHOW/i.test(statement) && !plainShow.test(statement)) {
    const remedy = 'Take LIKE with a text, or read system.tables and system.columns with SELECT.';
    throw refused('SHOW takes names and LIKE here, no WHERE, LIMIT or comments', remedy);
  }
  return statement;
}

/**
 * Throws `configuration` unless the tree is one reading statement over tables of `database` and harmless functions.
 * `tree` is ClickHouse’s answer to EXPLAIN AST; `tableFunctions` are all that the server knows. A name in the statement
 * may hold line breaks and so forge lines: forged lines can only add reasons to refuse.
 */
export function checkStatement(tree: string, tableFunctions: Iterable<string>, database: string): void {
  const lines = tree.split('\n').filter((line) => line.trim() !== '');
  checkRoot(lines, database);
  const known = new Set([...tableFunctions].map((name) => name.toLowerCase()));
  for (const [index, line] of lines.entries()) {
    const [node, name = ''] = line.trimStart().split(' ', 2);
    if (node === 'Set') throw refused('the statement changes settings', 'Leave SETTINGS out.');
    if (node === 'TableIdentifier') checkTable(name, database);
    // The function that APPLY names is not in the tree, nor is what its lambda does.
    if (/Transformer$/.test(node ?? '') && !/^Columns(Except|Replace)Transformer$/.test(node ?? ''))
      throw refused('APPLY is not allowed here', 'Write the function around each column.');
    if (node !== 'Function') continue;
    const lower = name.toLowerCase();
    if (harmful.test(lower) || (known.has(lower) && !harmless.has(lower))) {
      const remedy = 'Read tables of Sluice; numbers(), values() and generateSeries() are allowed.';
      throw refused(`the function ${shown(name)} is not allowed here`, remedy);
    }
    const member = membership.test(lower) ? memberTable(lines, index) : undefined;
    if (member !== undefined) checkTable(member, database);
  }
}

/**
 * Names of all tables that a statement reads, as they stand in it; names of its own WITH clauses too. `tree` as in
 * `checkStatement`.
 */
export function tablesRead(tree: string): string[] {
  const lines = tree.split('\n').filter((line) => line.trim() !== '');
  const names = lines.flatMap((line, index) => {
    const [node, name = ''] = line.trimStart().split(' ', 2);
    if (node === 'TableIdentifier') return [name];
    const member = node === 'Function' && membership.test(name) ? memberTable(lines, index) : undefined;
    return member === undefined ? [] : [member];
  });
  return [...new Set(names)];
}

const membership = /^(global)?(not)?(null)?in(ignoreset)?$/i;

/** `x IN db.table` names a table as a plain identifier: the second operand, two levels below the function. */
function memberTable(lines: string[], index: number): string | undefined {
  const depthOf = (line: string) => line.length - line.trimStart().length;
  const depth = depthOf(lines[index] ?? '');
  const end = lines.findIndex((line, at) => at > index && depthOf(line) <= depth);
  const operands = lines.slice(index + 1, end < 0 ? undefined : end).filter((line) => depthOf(line) === depth + 2);
  const [node, name = ''] = (operands[1] ?? '').trimStart().split(' ', 2);
  return node === 'Identifier' ? name : undefined;
}

function checkRoot(lines: string[], database: string): void {
  const [root = '', first = ''] = lines;
  const [node] = root.split(' ', 1);
  const children = Number(/\(children (\d+)\)$/.exec(root)?.[1] ?? 0);
  const below = lines
    .slice(1)
    .filter((line) => /^ \S/.test(line))
    .map((line) => line.slice(1));
  const output = below.some((line) => line.startsWith('Literal'));
  if (node === 'SelectWithUnionQuery') {
    if (children !== 1)
      throw refused('INTO OUTFILE, FORMAT and SETTINGS are not allowed here', 'Leave them out: the answer is JSON.');
    return;
  }
  if (node === 'Explain') {
    if (children === 1 && /^ SelectWithUnionQuery \(children 1\)$/.test(first)) return;
    throw refused('only EXPLAIN of a plain SELECT is allowed here', 'Leave INTO OUTFILE, FORMAT and settings out.');
  }
  if (node === 'DescribeQuery' && children === 1) return;
  if ((node === 'ShowTables' || node === 'ShowColumns') && !output) return;
  if ((node === 'ShowCreateTableQuery' || node === 'ShowCreateViewQuery' || node === 'ExistsTableQuery') && !output) {
    const names = below.map((line) => line.replace(/^Identifier /, ''));
    if (names.length <= 2) {
      checkTable(names.join('.'), database);
      return;
    }
  }
  throw notReading();
}

function checkTable(name: string, database: string): void {
  if (!name.includes('.') || name.startsWith(`${database}.`)) return;
  const [owner = '', table = ''] = name.split('.', 2);
  if (owner === 'system' && systemTables.has(table)) return;
  if (owner.toLowerCase() === 'information_schema') return;
  throw refused(
    `the table ${shown(name)} is not open to queries`,
    `Read tables of the database ${database}; of system only what describes them.`,
  );
}

/** A name as a refusal may show it: a short one of plain characters. */
function shown(name: string): string {
  return /^[\w.]{1,100}$/.test(name) ? name : 'of that name';
}

function notReading(): SluiceError {
  const remedy = 'Begin with SELECT, WITH, SHOW TABLES, SHOW CREATE TABLE, DESCRIBE, EXISTS or EXPLAIN.';
  return refused('only statements that read are allowed here', remedy);
}

function refused(reason: string, remedy: string): SluiceError {
  return new SluiceError('configuration', reason, remedy);
}
