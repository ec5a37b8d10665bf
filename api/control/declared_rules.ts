/** Declared rules and checks: changes go through the catalog, reads come from ClickHouse. */
import { loadRules } from '../../activities/transform/rule_store.ts';
import { catalogMessages, catalogWorkflowId, flowNames } from '../../model/messages.ts';
import type { ApplyRequest, PutRequest, RulesAnswer } from '../../model/rule_changes.ts';
import { type DeclaredRules, noRules } from '../../model/rules.ts';
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

/** Adds or replaces a rule or check. Errors: ShapeError with pointers, `conflict`, `not_found`. */
export function putDeclared(control: Control, request: PutRequest): Promise<RulesAnswer> {
  const message = request.rule ? catalogMessages.putRule : catalogMessages.putCheck;
  return updateOrStart<RulesAnswer>(control, catalog, message, { by: 'API', ...request });
}

/** Takes a rule or check away. Errors: `not_found`. */
export function removeDeclared(control: Control, what: 'rule' | 'check', rule_id: string): Promise<RulesAnswer> {
  const message = what === 'rule' ? catalogMessages.removeRule : catalogMessages.removeCheck;
  return updateOrStart<RulesAnswer>(control, catalog, message, { rule_id, by: 'API' });
}

/** Makes rules and checks as lists say. Errors: ShapeError with pointers, `conflict`. */
export function applyDeclared(control: Control, request: ApplyRequest, by: string): Promise<RulesAnswer> {
  return updateOrStart<RulesAnswer>(control, catalog, catalogMessages.applyRules, { ...request, by });
}
