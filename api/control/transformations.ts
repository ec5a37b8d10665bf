/** Rules: declared, and tried before they are. */
import type { CheckedCopy } from '../../activities/check/copy_conditions.ts';
import { lookUpIn } from '../../activities/load/look_up.ts';
import { columnTypes } from '../../activities/load/tables.ts';
import { runnableBeside } from '../../activities/transform/custom_functions.ts';
import { type PreviewJoins, previewRule } from '../../activities/transform/preview.ts';
import { issuesOf } from '../../activities/transform/rule_check.ts';
import { shadowRun } from '../../activities/transform/shadow.ts';
import type { WantedRows } from '../../activities/transform/source_rows.ts';
import { joinedAssets } from '../../activities/transform/table_rules.ts';
import { tableAssetOf } from '../../model/asset.ts';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import { type Rule, type RuleInput, readRule } from '../../model/rules.ts';
import { ShapeError } from '../../model/shape_error.ts';
import type { Control } from './control.ts';
import { declaredRules, putDeclared, removeDeclared } from './declared_rules.ts';
import { readPreviewRows } from './preview_rows.ts';
import { copyOf } from './quality.ts';
import type { PreviewAnswer, PreviewBody, RuleBody } from './rule_shapes.ts';

/** All rules, in the order in which they run. */
export async function listRules(control: Control): Promise<Rule[]> {
  return (await declaredRules(control)).rules;
}

/** One rule. Errors: `not_found`. */
export async function getRule(control: Control, id: string): Promise<Rule> {
  const found = (await listRules(control)).find(({ rule_id }) => rule_id === id);
  if (found) return found;
  throw new SluiceError('not_found', `there is no rule ${id}`, 'See what there is: GET /api/v1/transformations.');
}

/** Adds a rule; `created` is false when it is there already. Errors: ShapeError, `conflict` for other content. */
export async function addRule(control: Control, body: RuleBody): Promise<{ created: boolean; rule: Rule }> {
  const { changes, rule } = await putDeclared(control, { rule: readRule(body), mode: 'create' });
  return { created: changes.length > 0, rule: rule! };
}

/** Replaces a rule. Errors: ShapeError, `not_found`. */
export async function replaceRule(control: Control, id: string, body: Partial<RuleBody>): Promise<Rule> {
  return (await putDeclared(control, { rule: readRule(withId(body, id)), mode: 'replace' })).rule!;
}

/** Takes a rule away. Errors: `not_found`. */
export async function removeRule(control: Control, id: string): Promise<void> {
  await removeDeclared(control, 'rule', id);
}

/** A body whose id stands in the path. Errors: ShapeError when it names another one. */
export function withId<Body extends { rule_id?: string }>(body: Body, id: string): Body & { rule_id: string } {
  if (body.rule_id === undefined || body.rule_id === id) return { ...body, rule_id: id };
  const issue = { pointer: '/rule_id', detail: `is not ${id}, which the path names` };
  throw new ShapeError('the body names another rule', [issue], 'Leave rule_id out, or add a new rule.');
}

/** What a rule would make of rows that are sent, or of the newest ones of a copy. Errors: ShapeError, `not_found`. */
export async function preview(control: Control, body: PreviewBody): Promise<PreviewAnswer> {
  const rule = readRule(body.rule, '/rule');
  return await located(async () => {
    if (body.rows) {
      const joins = await joinsOf(control, [rule]);
      return await previewRule(rule, body.rows, await columnsOf(control, body.asset_id), joins);
    }
    const copy = runnableWith(rule, await copyOf(control, tableAssetOf(body.asset_id!)));
    const joins = await joinsOf(control, [...(copy.table?.rules?.rules ?? []), rule]);
    const readSource = (wanted: WantedRows) => readPreviewRows(control, wanted);
    return await shadowRun({ copy, rule, last: body.last ?? 1000, joins, readSource });
  });
}

/** A shell has not the functions that workers have: that must not keep a rule from being tried that has nothing to do with them. */
function runnableWith(rule: RuleInput, copy: CheckedCopy): CheckedCopy {
  const { table } = copy;
  if (!table?.rules) return copy;
  const rules = runnableBeside(rule, table.rules.rules);
  return { ...copy, table: { ...table, rules: { ...table.rules, rules } } };
}

/** The copies that rules join with. */
async function joinsOf(control: Control, rules: RuleInput[]): Promise<PreviewJoins> {
  const assets = joinedAssets({ rules: rules.map((rule) => ({ ...rule, version: 1 })) });
  return { types: await columnTypes(control.clickhouse, assets), lookUp: lookUpIn(control.clickhouse) };
}

async function columnsOf(control: Control, asset: string | undefined): Promise<{ name: string; type: string }[]> {
  if (asset === undefined) return [];
  const { columns } = await copyOf(control, tableAssetOf(asset));
  return columns.map(({ name, type }) => ({ name, type }));
}

/** A mistake of the rule as one of the body. */
async function located<Answer>(run: () => Promise<Answer>): Promise<Answer> {
  try {
    return await run();
  } catch (error) {
    const known = asSluiceError(error);
    // What names a source is no mistake of the rule.
    const isOfRule = known.kind === 'configuration' && known.place.source === undefined;
    if (!isOfRule || known instanceof ShapeError) throw error;
    throw new ShapeError('the rule cannot be run', issuesOf(known, '/rule', '/expression', ''), known.remedy);
  }
}
