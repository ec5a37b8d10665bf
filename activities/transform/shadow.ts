/**
 * A rule run beside a copy: what would be another in its newest rows, had the rule been there. Nothing is written.
 *
 * A copy has what rules in force made of the source. Where that is not what the rule would see in its place, rows are read from the
 * source, and put through all rules: those in force, and this one instead of its earlier version.
 */
import type { JoinedTypes, RuleInput } from '../../model/rules.ts';
import { isMultiset, keyColumns, type TableSchema } from '../../model/table.ts';
import { type CheckedColumn, readCopyRows } from '../check/copy_columns.ts';
import type { CheckedCopy } from '../check/copy_conditions.ts';
import { quoteName } from '../load/clickhouse.ts';
import { encoderFor } from './encode.ts';
import type { ExpressionColumn } from './expression.ts';
import { EvaluationError } from './jinja/limits.ts';
import type { Value } from './jinja/values.ts';
import { type JsonRow, jsonOf } from './json_rows.ts';
import { lookUpJoins, type Preview, type PreviewJoins } from './preview.ts';
import { compileRules, type RuleSet } from './rules.ts';
import { plainKey, type SourceRows, type WantedRows } from './source_rows.ts';
import { readableColumns } from './table_rules.ts';
import { fieldDecoder, isNull } from './tsv_field.ts';
import { forEachRow, Turns } from './turns.ts';

/** A row that would be another. */
export interface Difference {
  /** Its key. */
  row: JsonRow;
  outcome: 'changed' | 'added' | 'filtered' | 'rejected';
  /** The fields that the rule fills, as the copy has them; those that it does not have yet are missing. null where it lacks the row. */
  before: JsonRow | null;
  /** The same fields as they would be; null where the copy would not have the row. */
  after: JsonRow | null;
  reason?: string;
}

export interface Shadow extends Preview {
  differences: {
    /** Where the rows that the rule was run on came from. */
    rows_from: 'copy' | 'source';
    checked: number;
    changed: number;
    added: number;
    filtered: number;
    rejected: number;
    samples: Difference[];
  };
}

/** A rule, and what it is tried on. */
export interface ShadowTask {
  copy: CheckedCopy;
  rule: RuleInput;
  /** So many of the newest rows. */
  last: number;
  joins: PreviewJoins;
  /** Reads rows of the copy's source. Errors: those of reaching it. */
  readSource(wanted: WantedRows): Promise<SourceRows>;
}

/** A row that the rules are run on. */
interface TriedRow {
  key: JsonRow;
  /** Of the copy, by column; undefined where it does not have the row. */
  before: Map<string, Value> | undefined;
  /** What the rules see, or why it cannot be read. */
  values: Value[] | EvaluationError;
}

/** The rows, and the rules that they are put through. */
interface Trial {
  rowsFrom: 'copy' | 'source';
  rules: RuleSet;
  /** What the tried rule fills. */
  fills: ReadonlySet<string>;
  /** Columns of the copy. */
  columns: readonly CheckedColumn[];
  rows: TriedRow[];
}

/** Rows that are shown. */
const samplesLimit = 100;

/** Runs a rule on the newest rows of a copy. Errors: `configuration` for a rule that cannot be compiled, or takes too long; those of `readSource`. */
export async function shadowRun(task: ShadowTask): Promise<Shadow> {
  const { table } = task.copy;
  const trial = table && needsSource(task, table) ? await trialOfSource(task, table) : await trialOfCopy(task);
  const { rules, rows } = trial;
  const readable = rows.flatMap(({ values }) => (Array.isArray(values) ? [values] : []));
  const turns = new Turns();
  await lookUpJoins(rules, readable, task.joins.lookUp, turns);
  const counts = { checked: rows.length, changed: 0, added: 0, filtered: 0, rejected: 0 };
  const shadow: Shadow = {
    rows: [],
    rejected: [],
    rows_per_second: 0,
    differences: { rows_from: trial.rowsFrom, ...counts, samples: [] },
  };
  await turns.pass();
  const before = turns.worked;
  await forEachRow(rows, turns, (row, number) => compareRow(shadow, trial, row, number));
  await turns.pass();
  const seconds = (turns.worked - before) / 1000;
  shadow.rows_per_second = rows.length === 0 ? 0 : Math.round(rows.length / Math.max(seconds, 1e-6));
  return shadow;
}

/** What fails is told, and stops nothing. */
function tried(rule: RuleInput): RuleInput {
  return { ...rule, on_error: rule.on_error === 'null' ? 'null' : 'reject' };
}

/** The rules of a table with the tried one in its place: that of its earlier version, or behind all. */
function rulesWith({ rules }: TableSchema, rule: RuleInput): RuleInput[] {
  const inForce = rules?.rules ?? [];
  const isThere = inForce.some(({ rule_id }) => rule_id === rule.rule_id);
  const all = isThere ? inForce.map((one) => (one.rule_id === rule.rule_id ? rule : one)) : [...inForce, rule];
  return all.map(tried);
}

/**
 * True when the copy does not have what the rule would see: it reads what is excluded, or what its earlier version or a later rule fills;
 * a later rule fills what it fills; or one of these keeps rows out.
 */
function needsSource({ copy, rule, joins: { types } }: ShadowTask, table: TableSchema): boolean {
  if (isMultiset(table)) return false;
  const known = readableColumns(table);
  const mine = compileRules(rulesWith(table, rule), known, types).parts.filter(
    ({ rule_id }) => rule_id === rule.rule_id,
  );
  const reads = new Set(mine.flatMap((part) => part.reads));
  const fills = new Set(mine.map((part) => part.fills));
  const inCopy = new Set(copy.columns.map(({ name }) => name));
  if ([...reads].some((name) => !inCopy.has(name))) return true;
  const { parts } = compileRules(table.rules?.rules ?? [], known, types);
  const place = parts.findIndex(({ rule_id }) => rule_id === rule.rule_id);
  const later = place < 0 ? [] : parts.slice(place);
  return later.some(
    (part) =>
      part.fills === undefined || reads.has(part.fills) || (part.rule_id !== rule.rule_id && fills.has(part.fills)),
  );
}

/** The rule alone, on rows as the copy has them. */
async function trialOfCopy({ copy, rule, last, joins: { types } }: ShadowTask): Promise<Trial> {
  const columns = neededColumns(copy, tried(rule), types);
  const rules = compileRules([tried(rule)], columns, types);
  const read = await readCopyRows(copy, columns, { rest: `${copy.newest} LIMIT ${last}` });
  const rows = read.map(({ values }) => ({
    key: shown(columns, values, (column) => column.key),
    before: new Map(columns.map(({ name }, i) => [name, values[i]!])),
    values,
  }));
  return { rowsFrom: 'copy', rules, fills: new Set(rules.targets.map(({ name }) => name)), columns, rows };
}

/** Columns that it reads, keys, and what it fills. */
function neededColumns({ columns }: CheckedCopy, rule: RuleInput, types: JoinedTypes): CheckedColumn[] {
  const { uses, targets } = compileRules([rule], columns, types);
  const named = new Set([...targets.map(({ name }) => name), ...(rule.source_fields ?? [])]);
  return columns.filter((column, index) => column.key || uses.includes(index) || named.has(column.name));
}

/** All rules, on rows as the source has them. Keys that it does not have any more are left out. */
async function trialOfSource(task: ShadowTask, table: TableSchema): Promise<Trial> {
  const { copy, joins } = task;
  const all = rulesWith(table, task.rule);
  const readable = readableColumns(table);
  const { uses, parts } = compileRules(all, readable, joins.types);
  const excluded = uses.filter((index) => index >= table.columns.length).map((index) => readable[index]!.name);
  const fills = new Set(parts.flatMap((part) => (part.rule_id === task.rule.rule_id ? (part.fills ?? []) : [])));
  const columns = copy.columns.filter(({ key, name }) => key || fills.has(name));
  const newest = await newestKeys(task, table, columns);
  const source = await task.readSource({ table, excluded, keys: newest.map(({ id }) => id) });
  const rules = compileRules(all, source.columns, joins.types);
  const decode = rowDecoder(source.columns, rules);
  const rows = newest.flatMap(({ id, key, before }) => {
    const fields = source.rows.get(plainKey(id));
    return fields ? [{ key, before, values: decode(fields) }] : [];
  });
  return { rowsFrom: 'source', rules, fills, columns, rows };
}

/** A key of the copy, and what that has of its row. */
interface CopiedKey {
  /** As `keyOf` has it. */
  id: string;
  version: bigint;
  key: JsonRow;
  before: Map<string, Value> | undefined;
}

/** Keys of the newest changes, of those too by which a row left the copy: a filter may have sent it away. */
async function newestKeys(
  { copy, last }: ShadowTask,
  table: TableSchema,
  columns: readonly CheckedColumn[],
): Promise<CopiedKey[]> {
  const more = [...keyColumns(table).map(({ name }) => quoteName(name)), 'toString(_version)'];
  const read = async (rows: string, where: string, isThere: boolean): Promise<CopiedKey[]> => {
    const from = { clickhouse: copy.clickhouse, rows };
    const found = await readCopyRows(from, columns, { rest: `${where} ORDER BY _version DESC LIMIT ${last}`, more });
    return found.map(({ values, more: texts }) => ({
      id: texts.slice(0, -1).join('\t'),
      version: BigInt(texts.at(-1)!),
      key: shown(columns, values, (column) => column.key),
      before: isThere ? new Map(columns.map(({ name }, i) => [name, values[i]!])) : undefined,
    }));
  };
  const there = await read(copy.rows, '', true);
  const left = await read(copy.clickhouse.name(copy.asset), 'WHERE _deleted = 1', false);
  const newest = new Map<string, CopiedKey>();
  for (const one of [...there, ...left]) {
    const known = newest.get(one.id);
    if (known === undefined || known.version < one.version) newest.set(one.id, one);
  }
  return [...newest.values()].sort((a, b) => (a.version > b.version ? -1 : 1)).slice(0, last);
}

/** Decodes the fields that rules use. */
function rowDecoder(columns: SourceRows['columns'], rules: RuleSet): (fields: string[]) => TriedRow['values'] {
  const used = rules.uses.map((index) => ({ index, decode: fieldDecoder(columns[index]!) }));
  return (fields) => {
    const values = new Array<Value>(rules.columns.length).fill(null);
    try {
      for (const { index, decode } of used) {
        const bytes = Buffer.from(fields[index]!, 'latin1');
        values[index] = isNull(bytes, 0, bytes.length) ? null : decode(bytes, 0, bytes.length);
      }
      return values;
    } catch (error) {
      if (error instanceof EvaluationError) return error;
      throw error;
    }
  };
}

function compareRow(shadow: Shadow, trial: Trial, row: TriedRow, number: number): void {
  const { differences } = shadow;
  const { outcome, reason } = outcomeOf(trial, row);
  if (outcome === undefined) return;
  differences[outcome]++;
  if (reason !== undefined && shadow.rejected.length < samplesLimit) shadow.rejected.push({ row: number, reason });
  if (differences.samples.length >= samplesLimit) return;
  const after = outcome === 'changed' || outcome === 'added' ? afterOf(trial) : null;
  const before = row.before ? beforeOf(trial, row.before) : null;
  differences.samples.push({ row: row.key, outcome, before, after, ...(reason !== undefined && { reason }) });
  if (after) shadow.rows.push({ ...row.key, ...after });
}

/** What would become of a row; undefined where the copy would stay as it is. */
function outcomeOf(trial: Trial, { values, before }: TriedRow): { outcome?: Difference['outcome']; reason?: string } {
  if (!Array.isArray(values)) return { outcome: 'rejected', reason: values.message };
  const outcome = trial.rules.apply([...values]);
  if (outcome === 'rejected') return { outcome, reason: trial.rules.rejection.reason };
  if (outcome === 'filtered') return before ? { outcome } : {};
  if (!before) return { outcome: 'added' };
  return isSame(trial, before) ? {} : { outcome: 'changed' };
}

function shown(
  columns: readonly ExpressionColumn[],
  values: readonly Value[],
  which: (column: ExpressionColumn) => boolean | undefined,
): JsonRow {
  const row: JsonRow = Object.create(null);
  for (const [index, column] of columns.entries()) if (which(column)) row[column.name] = jsonOf(values[index]!);
  return row;
}

function beforeOf({ columns, fills }: Trial, before: ReadonlyMap<string, Value>): JsonRow {
  const row: JsonRow = Object.create(null);
  for (const { name } of columns) if (fills.has(name)) row[name] = jsonOf(before.get(name)!);
  return row;
}

function afterOf({ rules, fills }: Trial): JsonRow {
  const row: JsonRow = Object.create(null);
  for (const [i, { name }] of rules.targets.entries()) if (fills.has(name)) row[name] = jsonOf(rules.values[i]!);
  return row;
}

/** True when the copy has what the rule makes, in the form in which it would be stored. */
function isSame({ rules, fills }: Trial, before: ReadonlyMap<string, Value>): boolean {
  return rules.targets.every(({ name, clickhouse }, i) => {
    if (!fills.has(name)) return true;
    const there = before.get(name);
    if (there === undefined) return false;
    try {
      return encoderFor(clickhouse)(there) === rules.fields[i];
    } catch (error) {
      if (error instanceof EvaluationError) return false;
      throw error;
    }
  });
}
