/** Which rules and checks are for a table, and what they make of its copy. */
import { isDeepStrictEqual } from 'node:util';
import { tableAssetOf } from '../../model/asset.ts';
import { type Check, isRowCheck } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import { checksOf, type DeclaredRules, type JoinedTypes, type Rule, rulesOf } from '../../model/rules.ts';
import { isMultiset, type TableSchema, type Target, tableName } from '../../model/table.ts';
import { compileChecks } from '../check/row_checks.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { columnTypes } from '../load/tables.ts';
import type { ExpressionColumn } from './expression.ts';
import { ofKind } from './jinja/static_type.ts';
import { loadRules } from './rule_store.ts';
import { compileRules } from './rules.ts';

/** The rules and checks of a set that are for this table; undefined when there are none. Errors: as `withRules`. */
function declaredFor(table: TableSchema, set: DeclaredRules): DeclaredRules | undefined {
  const { asset_id, columns } = table;
  const names = columns.map((column) => column.name);
  const rules = rulesOf(set.rules, asset_id, names);
  // Checks of the whole copy say nothing of a row on its way.
  const checks = checksOf(set.checks, asset_id).filter(isRowCheck);
  if (isMultiset(table)) return refuseFor(table, [...rules, ...checks.filter(({ severity }) => severity !== 'warn')]);
  if (rules.length + checks.length === 0) return undefined;
  if (table.schema === '') for (const rule of rules) expectNewColumn(table, rule);
  return { version: set.version, rules, checks };
}

/**
 * Rows without a key are told apart by all their values: none of them may be another one, or left out. Nor may a rule that is
 * meant for such a table be passed over: it may be there to mask what nobody should see. Checks that only warn look at the
 * whole copy, when they are asked to.
 */
function refuseFor(table: TableSchema, [first]: (Rule | Check)[]): undefined {
  if (!first) return undefined;
  const name = tableName(table);
  const rule = first.rule_id;
  const reason = `${rule} is for ${table.asset_id}, and a table without a key takes no rules, and no checks but those that warn`;
  const remedy =
    'severity' in first
      ? `Give ${name} a key; or let ${rule} warn (severity: warn).`
      : `Give ${name} a key; or name the assets that ${rule} is for, without ${table.asset_id}.`;
  throw new SluiceError('rule_failed', reason, remedy, { table: name });
}

/** Assets are compared with their API by all their columns, and by which there are: rules can only add columns there. */
function expectNewColumn({ asset_id, columns }: TableSchema, rule: Rule): void {
  const replaces = columns.some((column) => column.name === rule.target_field);
  if (rule.rule_type !== 'filter' && !replaces) return;
  const what = replaces ? `fills ${rule.target_field}, which assets have themselves` : 'filters';
  const reason = `${rule.rule_id} ${what}: rules of a deployment's copy, as ${asset_id}, can only add columns`;
  const remedy = `Give ${rule.rule_id} another target; or name the assets that it is for, without ${asset_id}.`;
  throw new SluiceError('rule_failed', reason, remedy, { table: asset_id });
}

/** Excluded columns that rules and checks of a set use, by `schema.table`: they are read, and stored nowhere. */
export function readableFor(tables: Iterable<TableSchema>, { rules, joined }: RulesInForce): Record<string, string[]> {
  const readable: Record<string, string[]> = {};
  for (const table of tables) {
    const names = excludedUses(table, rules, joined);
    if (names.length > 0) readable[`${table.schema}.${table.table}`] = names;
  }
  return readable;
}

/** Names of excluded columns that are not read yet, and that rules or checks of the set use. */
function excludedUses(table: TableSchema, set: DeclaredRules, joined: JoinedTypes): string[] {
  const all = readableColumns(table);
  if (all.length === table.columns.length || isMultiset(table)) return [];
  const names = all.map((column) => column.name);
  try {
    const compiled = compileRules(rulesOf(set.rules, table.asset_id, names), all, joined);
    const checks = compileChecks(checksOf(set.checks, table.asset_id), compiled.columns);
    const used = new Set([...compiled.uses, ...checks.uses]);
    return names.filter((_, index) => index >= table.columns.length && used.has(index));
  } catch (error) {
    // What is wrong is told when they are compiled for good.
    if (error instanceof SluiceError) return [];
    throw error;
  }
}

/**
 * The table with the rules and checks of a set, and the columns that they fill. Throws SluiceError `rule_failed` when one of
 * them does not go with the table.
 */
export function withRules(table: TableSchema, set: DeclaredRules, joined: JoinedTypes = {}): TableSchema {
  const { rules: _, targets: __, joined: ___, ...bare } = table;
  const rules = declaredFor(table, set);
  if (!rules) return bare;
  const targets = targetsOf({ ...bare, joined }, rules);
  const mine = joinedBy(rules, joined);
  return { ...bare, rules, ...(targets.length > 0 && { targets }), ...(mine && { joined: mine }) };
}

/** Of the copies that rules join with, the columns that they use. */
function joinedBy({ rules }: DeclaredRules, joined: JoinedTypes): JoinedTypes | undefined {
  const used: JoinedTypes = {};
  for (const { rule_type, parameters } of rules) {
    if (rule_type !== 'join') continue;
    const asset = tableAssetOf(parameters!.asset!);
    for (const name of [...Object.values(parameters!.on!), ...parameters!.fields!])
      used[asset] = { ...used[asset], [name]: joined[asset]![name]! };
  }
  return Object.keys(used).length > 0 ? used : undefined;
}

/** What is declared now, and the copies that it joins with. */
export interface RulesInForce {
  rules: DeclaredRules;
  joined: JoinedTypes;
}

/** Errors: those of ClickHouse. */
export async function rulesInForce(clickhouse: ClickHouse): Promise<RulesInForce> {
  const rules = await loadRules(clickhouse);
  return { rules, joined: await columnTypes(clickhouse, joinedAssets(rules)) };
}

/** The columns of a table as rules see them: excluded ones can be read, and of their types nothing is kept. */
export function readableColumns({
  columns,
  leftOut = [],
}: Pick<TableSchema, 'columns' | 'leftOut'>): ExpressionColumn[] {
  const excluded = leftOut.filter(({ why }) => why === 'excluded');
  return [...columns, ...excluded.map(({ name }) => ({ name, type: ofKind('any') }))];
}

/** The copies that rules of a set join with. */
export function joinedAssets({ rules }: Pick<DeclaredRules, 'rules'>): string[] {
  return [
    ...new Set(
      rules.flatMap(({ rule_type, parameters }) => (rule_type === 'join' ? tableAssetOf(parameters!.asset!) : [])),
    ),
  ];
}

function targetsOf(table: TableSchema, { rules, checks }: DeclaredRules): Target[] {
  try {
    const compiled = compileRules(rules, table.columns, table.joined);
    compileChecks(checks, compiled.columns);
    return [...compiled.targets];
  } catch (error) {
    if (!(error instanceof SluiceError) || error.kind !== 'configuration') throw error;
    const remedy = `${error.remedy} Then: sluice sources resync <source> ${tableName(table)}`;
    throw new SluiceError('rule_failed', error.message, remedy, { table: tableName(table) }, error);
  }
}

/**
 * What other rules mean for a copy: nothing · it goes on from here, and rows from before show NULL in new columns
 * (`alter`) · it must be made anew.
 */
export type RulesChange =
  | { do: 'nothing' }
  | { do: 'alter'; next: TableSchema; what: string[] }
  | { do: 'resync'; reason: string };

/** What it means for a copy that these are the rules now. Errors: as `withRules`. */
export function compareRules(known: TableSchema, set: DeclaredRules, joined: JoinedTypes = {}): RulesChange {
  const unread = excludedUses(known, set, joined);
  if (unread.length > 0) return { do: 'resync', reason: `its rules read ${unread.join(', ')}, which was excluded` };
  const next = withRules(known, set, joined);
  if (!next.rules && known.columns.some((column) => column.hidden))
    return { do: 'resync', reason: 'no rule reads its excluded columns any more' };
  const [before, now] = [idsOf(known.rules), idsOf(next.rules)];
  const other = [...new Set([...before.keys(), ...now.keys()])].filter(
    (id) => !isDeepStrictEqual(before.get(id), now.get(id)),
  );
  const sameTargets = isDeepStrictEqual(known.targets ?? [], next.targets ?? []);
  const sameOrder = isDeepStrictEqual(order(known, next), order(next, known));
  if (other.length === 0 && sameTargets && sameOrder) return { do: 'nothing' };
  const reason = other.length > 0 ? `its rules are others: ${other.join(', ')}` : 'its rules are in another order';
  const keeps = (known.targets ?? []).every((target) => next.targets?.some((one) => isDeepStrictEqual(one, target)));
  const follows = other.every((id) => followsAlone(now.get(id)) && followsAlone(before.get(id)));
  if (!follows || !keeps || !sameOrder) return { do: 'resync', reason };
  return { do: 'alter', next, what: [reason] };
}

/** True for what says nothing of rows that are in the copy already: by its own word, or because it only looks. */
function followsAlone(rule: Rule | Check | undefined): boolean {
  if (rule === undefined) return true;
  return 'severity' in rule ? rule.severity === 'warn' : rule.apply_to === 'new';
}

function idsOf(rules: DeclaredRules | undefined): Map<string, Rule | Check> {
  return new Map([...(rules?.rules ?? []), ...(rules?.checks ?? [])].map((rule) => [rule.rule_id, rule]));
}

/** The order of the rules that both have. */
function order(table: TableSchema, other: TableSchema): string[] {
  const there = new Set(other.rules?.rules.map((rule) => rule.rule_id));
  return (table.rules?.rules ?? []).map((rule) => rule.rule_id).filter((id) => there.has(id));
}
