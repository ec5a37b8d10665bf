/** Declared rules and checks against the tables that are known: what could not be compiled, and where it stands. */

import { tableAssetOf } from '../../model/asset.ts';
import { type CheckInput, isRowCheck } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import { checksOf, type DeclaredRules, type JoinedTypes, type RuleInput, rulesOf } from '../../model/rules.ts';
import { ShapeError, type ShapeIssue } from '../../model/shape_error.ts';
import { compileChecks } from '../check/row_checks.ts';
import { type ExpressionColumn, ExpressionError, possibleColumns } from './expression.ts';
import { ofKind } from './jinja/static_type.ts';
import { compileRules } from './rules.ts';

/** A table that rules and checks may be for. */
export interface KnownTable {
  asset: string;
  /** As the source has them, with those that are not copied. */
  columns: ExpressionColumn[];
}

/** As many mistakes as anybody reads at once. */
const issuesLimit = 20;

/**
 * What is wrong with a set. Pointers begin at `/rules/{index}` or `/checks/{index}`. What is for no known table is compiled as far
 * as that is possible.
 */
export function checkDeclared(
  set: Pick<DeclaredRules, 'rules' | 'checks'>,
  tables: readonly KnownTable[],
  known: JoinedTypes = {},
): ShapeIssue[] {
  const joined = withUnknown(set.rules, known);
  const issues: ShapeIssue[] = [];
  const met = new Set<RuleInput | CheckInput>();
  for (const table of tables) {
    checkTable(set, table, { met, joined }, issues);
    if (issues.length >= issuesLimit) return issues.slice(0, issuesLimit);
  }
  for (const [index, rule] of set.rules.entries()) if (!met.has(rule)) checkAlone(rule, index, joined, issues);
  for (const [index, check] of set.checks.entries()) {
    if (met.has(check) || !isRowCheck(check)) continue;
    const text = check.parameters.expression;
    const columns = text === undefined ? [{ name: check.field ?? '', type: ofKind('any') }] : freeColumns(text);
    tryCheck(check, `/checks/${index}`, columns, '', issues);
  }
  return issues.slice(0, issuesLimit);
}

/**
 * What is wrong with a set that was not wrong before: a table that was altered since must not keep people from changing, or
 * taking away, what has nothing to do with it.
 */
export function newIssues(
  before: DeclaredRules,
  set: DeclaredRules,
  tables: readonly KnownTable[],
  joined: JoinedTypes = {},
): ShapeIssue[] {
  const issues = checkDeclared(set, tables, joined);
  if (issues.length === 0) return [];
  const known = new Set(checkDeclared(before, tables, joined).map((issue) => issueId(before, issue)));
  return issues.filter((issue) => !known.has(issueId(set, issue)));
}

/** The same for mistakes of the same part of the same version of a rule or check, for the same asset. */
function issueId({ rules, checks }: DeclaredRules, { pointer, detail }: ShapeIssue): string {
  const [, list, index, ...part] = pointer.split('/');
  const { rule_id, version } = (list === 'rules' ? rules : checks)[Number(index)]!;
  const [asset] = /^for [^:]*: /.exec(detail) ?? [];
  return [rule_id, version, ...part, asset].join('/');
}

function checkTable(
  { rules, checks }: Pick<DeclaredRules, 'rules' | 'checks'>,
  { asset, columns }: KnownTable,
  { met, joined }: { met: Set<RuleInput | CheckInput>; joined: JoinedTypes },
  issues: ShapeIssue[],
): void {
  const names = columns.map((column) => column.name);
  const applied = rulesOf(rules, asset, names);
  for (const rule of applied) met.add(rule);
  let after: readonly ExpressionColumn[] = columns;
  const right: (typeof rules)[number][] = [];
  const withoutKey = columns.every((column) => column.key === false);
  // One after another: an error then belongs to the last of them.
  for (const rule of applied) {
    const at = `/rules/${rules.indexOf(rule)}`;
    try {
      if (withoutKey) throw keyless();
      after = compileRules([...right, rule], columns, joined).columns;
      right.push(rule);
    } catch (error) {
      issues.push(...issuesOf(error, at, '/expression', `for ${asset}: `));
    }
  }
  for (const check of checksOf(checks, asset)) {
    met.add(check);
    const at = `/checks/${checks.indexOf(check)}`;
    if (withoutKey && check.severity !== 'warn') issues.push(...issuesOf(keyless(), at, '', `for ${asset}: `));
    else tryCheck(check, at, after, `for ${asset}: `, issues);
  }
}

function keyless(): SluiceError {
  const remedy = 'Give it a key, name other assets, or let a check warn.';
  return new SluiceError(
    'configuration',
    'a table without a key takes no rules, and no checks but those that warn',
    remedy,
  );
}

/** Copies that are joined with and are not there yet have whatever is wanted of them. */
function withUnknown(rules: readonly RuleInput[], known: JoinedTypes): JoinedTypes {
  const joined: JoinedTypes = { ...known };
  for (const { parameters } of rules) {
    const asset = parameters?.asset === undefined ? undefined : tableAssetOf(parameters.asset);
    if (asset === undefined || known[asset]) continue;
    for (const name of [...Object.values(parameters!.on ?? {}), ...(parameters!.fields ?? [])])
      joined[asset] = { ...joined[asset], [name]: 'String' };
  }
  return joined;
}

/** A rule that is for no known table: its columns may be anything. */
function checkAlone(rule: RuleInput, index: number, joined: JoinedTypes, issues: ShapeIssue[]): void {
  const named = [...(rule.source_fields ?? []), ...Object.keys(rule.parameters?.on ?? {})];
  const fields = [...new Set(named)].map((name) => ({ name, type: ofKind('any') }));
  const free = freeColumns(rule.expression ?? '').filter(({ name }) => !rule.source_fields?.includes(name));
  try {
    compileRules([rule], [...fields, ...free], joined);
  } catch (error) {
    issues.push(...issuesOf(error, `/rules/${index}`, '/expression', ''));
  }
}

function tryCheck(
  check: CheckInput,
  at: string,
  columns: readonly ExpressionColumn[],
  where: string,
  issues: ShapeIssue[],
): void {
  try {
    if (isRowCheck(check)) compileChecks([check], columns);
    else expectFields(check, columns);
  } catch (error) {
    issues.push(...issuesOf(error, at, '/parameters/expression', where));
  }
}

/** Fields that a check of the whole copy names must be there. */
function expectFields({ rule_id, field, parameters }: CheckInput, columns: readonly ExpressionColumn[]): void {
  for (const name of [field, ...(parameters.fields ?? [])]) {
    if (name === undefined || columns.some((column) => column.name === name)) continue;
    const known = columns.map((column) => column.name).slice(0, 100);
    throw new SluiceError(
      'configuration',
      `check ${rule_id}: ${name} is no column`,
      `Its columns are ${known.join(', ')}.`,
    );
  }
}

/** A mistake as issues below `at`; those of expressions stand at `expression`, with line and column. */
export function issuesOf(error: unknown, at: string, expression: string, where: string): ShapeIssue[] {
  if (error instanceof ExpressionError) {
    const { problem, line, column } = error;
    return [
      { pointer: `${at}${expression}`, detail: `${where}line ${line}, column ${column}: ${problem}`, line, column },
    ];
  }
  if (error instanceof ShapeError)
    return error.issues.map((issue) => ({
      ...issue,
      pointer: `${at}${issue.pointer}`,
      detail: `${where}${issue.detail}`,
    }));
  if (!(error instanceof SluiceError)) throw error;
  return [{ pointer: `${at}${partNamed(error.message)}`, detail: `${where}${error.message}. ${error.remedy}` }];
}

/** The part of a rule or check that a message is about. */
function partNamed(message: string): string {
  if (/source_fields names/.test(message)) return '/source_fields';
  if (/field names/.test(message)) return '/field';
  if (/rules cannot fill|cannot hold NULL/.test(message)) return '/target_type';
  if (/rules of type/.test(message)) return '/rule_type';
  return '';
}

/** Every name in an expression as a column of any type; that of a check may be without braces. */
function freeColumns(expression: string): ExpressionColumn[] {
  const template = /\{[{%]/.test(expression) ? expression : `{{ ${expression} }}`;
  return possibleColumns(template).map((name) => ({ name, type: ofKind('any') }));
}
