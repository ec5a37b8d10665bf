/** Declared rules and checks: changes go through the catalog, reads come from ClickHouse. */
import { loadRules, type RulesChange, readRulesHistory } from '../../activities/transform/rule_store.ts';
import { catalogMessages, catalogWorkflowId, flowNames } from '../../model/messages.ts';
import type { ApplyRequest, PutRequest, RulesAnswer } from '../../model/rule_changes.ts';
import { type DeclaredRules, noRules } from '../../model/rules.ts';
import { acted } from './actions.ts';
import type { Control } from './control.ts';
import { noTableYet } from './figures.ts';
import { type Flow, updateOrStart } from './temporal.ts';

/** Somebody may have ended it a moment ago: then it is made again from ClickHouse. */
const catalog: Flow = {
  type: flowNames.catalog,
  id: catalogWorkflowId,
  summary: 'The registry of sources, schemas and rules',
};

/** All rules and checks that are in force. */
export async function declaredRules(control: Control): Promise<DeclaredRules> {
  try {
    return await loadRules(control.clickhouse);
  } catch (error) {
    if (noTableYet(error)) return noRules;
    throw error;
  }
}

/** Who changed rules and checks, the newest change first. */
export async function rulesHistory({ clickhouse }: Control, limit: number): Promise<RulesChange[]> {
  try {
    return await readRulesHistory(clickhouse, limit);
  } catch (error) {
    if (noTableYet(error)) return [];
    throw error;
  }
}

/** Adds or replaces a rule or check. Errors: ShapeError with pointers, `conflict`, `not_found`. */
export function putDeclared(control: Control, request: PutRequest): Promise<RulesAnswer> {
  const action = request.rule ? catalogMessages.putRule : catalogMessages.putCheck;
  const target = (request.rule ?? request.check)!.rule_id;
  return order(control, { action, target }, { ...request, by: changedBy(control) });
}

/** Takes a rule or check away. Errors: `not_found`. */
export function removeDeclared(control: Control, what: 'rule' | 'check', rule_id: string): Promise<RulesAnswer> {
  const action = what === 'rule' ? catalogMessages.removeRule : catalogMessages.removeCheck;
  return order(control, { action, target: rule_id }, { rule_id, by: changedBy(control) });
}

/** Makes rules and checks as lists say. Errors: ShapeError with pointers, `conflict`. */
export function applyDeclared(control: Control, request: ApplyRequest): Promise<RulesAnswer> {
  const what = { action: catalogMessages.applyRules, target: catalogWorkflowId };
  return order(control, what, { ...request, by: changedBy(control) });
}

/** What `applyDeclared` would answer; nothing is changed. Errors: as it. */
export function checkDeclared(control: Control, request: ApplyRequest): Promise<RulesAnswer> {
  return updateOrStart<RulesAnswer>(control, catalog, catalogMessages.checkRules, request);
}

function order(control: Control, what: { action: string; target: string }, input: object): Promise<RulesAnswer> {
  return acted(control, { ...what, input: input as Record<string, unknown> }, () =>
    updateOrStart<RulesAnswer>(control, catalog, what.action, input),
  );
}

/** Who changes rules, as it is kept with their versions. */
function changedBy({ caller }: Control): string {
  return `${caller.via}: ${caller.who}`.slice(0, 200);
}
