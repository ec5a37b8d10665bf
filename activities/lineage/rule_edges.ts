/** What rules add to lineage: which columns of a table decide on which of its copy. */
import { copyAssetId, tableAssetOf } from '../../model/asset.ts';
import { allColumns, type ColumnPair, type LineageEdge } from '../../model/lineage.ts';
import type { RuleInput } from '../../model/rules.ts';
import { compileExpression, type ExpressionColumn } from '../transform/expression.ts';
import { ofKind } from '../transform/jinja/static_type.ts';
import { targetName } from '../transform/join.ts';

/** What the rules of a table make of it. */
export interface RuleEdges {
  edges: LineageEdge[];
  /** Columns of the copy that a rule fills. */
  targets: string[];
}

/**
 * The edges of the rules on the way from an asset to its copy, each under the rule's id. `columns`: all that rules may read, also those that are stored nowhere.
 * What a rule reads of an earlier one counts as read from the columns that this one reads.
 */
export function ruleEdges(
  { asset, copy }: { asset: string; copy: string },
  columns: readonly ExpressionColumn[],
  rules: readonly RuleInput[],
): RuleEdges {
  const known = [...columns];
  /** By name, the columns of the asset that its value comes from. */
  const origins = new Map(columns.map(({ name }) => [name, new Set([name])]));
  const targets: string[] = [];
  const edges: LineageEdge[] = [];
  for (const rule of rules) {
    const read = readBy(rule, known);
    const from = [...new Set(read.flatMap((name) => [...(origins.get(name) ?? [])]))].sort();
    const filled = filledBy(rule);
    const to = rule.rule_type === 'filter' ? [allColumns] : filled;
    edges.push({ from: asset, to: copy, via: rule.rule_id, columns: pairs(from, to) });
    edges.push(...joinEdges(rule, copy));
    for (const name of filled) {
      origins.set(name, new Set(from));
      known.push({ name, type: ofKind('any') });
      targets.push(name);
    }
  }
  return { edges, targets: [...new Set(targets)] };
}

function pairs(from: string[], to: string[]): ColumnPair[] {
  return from.flatMap((one) => to.map((other) => ({ from: one, to: other })));
}

/** Names that a rule reads; the newest column of a name counts. */
export function readBy(rule: RuleInput, known: readonly ExpressionColumn[]): string[] {
  if (rule.rule_type === 'join') return Object.keys(rule.parameters?.on ?? {});
  const newest = [...new Map(known.map((column) => [column.name, column])).values()];
  if (rule.expression === undefined) return rule.source_fields ?? [];
  try {
    return compileExpression(rule.expression, newest).uses;
  } catch {
    // It names what is not there any more: what it declares is the best that is known.
    return rule.source_fields ?? [];
  }
}

/** Names that a rule fills. */
export function filledBy(rule: RuleInput): string[] {
  const { rule_type: type, target_field: target, parameters } = rule;
  if (type === 'filter') return [];
  if (type === 'join') return (parameters?.fields ?? []).map((field) => targetName(rule, field));
  return target === undefined ? [] : [target];
}

/** The other asset's row is looked up by its key, and some of its fields are taken. */
function joinEdges(rule: RuleInput, copy: string): LineageEdge[] {
  const { rule_type: type, rule_id: via, parameters } = rule;
  if (type !== 'join' || parameters?.asset === undefined) return [];
  const taken = (parameters.fields ?? []).map((name) => ({ from: name, to: targetName(rule, name) }));
  const keys = pairs(Object.values(parameters.on ?? {}), filledBy(rule));
  const other = copyAssetId(tableAssetOf(parameters.asset));
  return [{ from: other, to: copy, via, columns: [...taken, ...keys] }];
}
