/** Sources as cdc.yaml says: connected when they are not there; else their settings changed, and tables added that it names. */
import { asSluiceError, describeError } from '../../model/errors.ts';
import {
  captureMessages,
  captureWorkflowId,
  catalogMessages,
  catalogWorkflowId,
  type SourcePlan,
} from '../../model/messages.ts';
import type { CaptureStatus, ConnectRequest } from '../../model/source.ts';
import { settingsOf, sourceChanges } from '../../model/source_changes.ts';
import { tableName } from '../../model/table.ts';
import type { SourceFile } from '../../workers/config.ts';
import { acted } from './actions.ts';
import { fieldChanges, type Planned } from './apply_plan.ts';
import type { Control } from './control.ts';
import { connectBodyOf } from './declared.ts';
import { connectSource, orderSource } from './sources.ts';
import { query, update } from './temporal.ts';

/** What becomes of a source, and of tables of one that is there. */
export interface PlannedSource {
  source: Planned;
  tables: Planned[];
  /** Names of the tables that are taken out. */
  taken: string[];
}

/**
 * Says what becomes of a source. Its flow is asked, so that the same is said as is done then. Never throws: what is wrong with a
 * source is told with it.
 */
export async function planSource(
  control: Control,
  file: SourceFile,
  known: readonly ConnectRequest[],
  prune: boolean,
): Promise<PlannedSource> {
  const { id, config } = connectBodyOf(file);
  const source: Planned = { what: 'source', id, action: 'create', differences: [], error: null };
  const there = known.find((one) => one.id === id);
  if (!there) return { source, tables: [], taken: [] };
  source.action = 'unchanged';
  try {
    // Connection strings are sealed, and cannot be compared.
    const status = await query<CaptureStatus>(control, captureWorkflowId(id), captureMessages.status);
    const asked = sourceChanges(status.config, config, status.tables);
    const isSame = asked.changed.length === 0 && asked.missing === undefined;
    const plan = isSame ? { ...asked, added: [] } : await askPlan(control, id, config);
    const { added, extra } = plan;
    source.differences = fieldChanges(settingsOf(status.config), settingsOf(config), plan.changed);
    if (plan.changed.length > 0) source.action = 'update';
    if (plan.fixed.length > 0) {
      source.action = 'conflict';
      source.error = `${plan.fixed.join(', ')} cannot change in place: npx sluice sources delete ${id}, then apply again`;
      return { source, tables: [], taken: [] };
    }
    const planned =
      (action: Planned['action']) =>
      (table: SourcePlan['added'][number]): Planned => {
        return { what: 'table', id: table.asset_id, action, differences: [], error: null };
      };
    const tables = [...added.map(planned('create')), ...extra.map(planned(prune ? 'delete' : 'extra'))];
    return { source, tables, taken: prune ? extra.map(tableName) : [] };
  } catch (error) {
    source.error = describeError(asSluiceError(error));
    return { source, tables: [], taken: [] };
  }
}

function askPlan(control: Control, id: string, config: ConnectRequest['config']): Promise<SourcePlan> {
  return update<SourcePlan>(control, captureWorkflowId(id), captureMessages.plan, { config });
}

/** Does what was planned; what fails is told in the plan. */
export async function applySource(
  control: Control,
  file: SourceFile,
  { source, tables, taken }: PlannedSource,
): Promise<void> {
  if (source.error !== null) return;
  try {
    if (source.action === 'create') {
      await connectSource(control, connectBodyOf(file));
      if (file.start) await orderSource(control, file.id, 'start');
      return;
    }
    if (source.action === 'update' || tables.some(({ action }) => action === 'create')) await configure(control, file);
    if (taken.length > 0) await orderSource(control, file.id, 'removeTables', taken);
  } catch (error) {
    source.error = describeError(asSluiceError(error));
    for (const table of tables)
      if (table.action !== 'extra') table.error = 'not done, since the source was not changed';
  }
}

async function configure(control: Control, file: SourceFile): Promise<void> {
  const { id, config } = connectBodyOf(file);
  await acted(control, { action: captureMessages.configure, target: id, input: { config } }, async () => {
    await update(control, captureWorkflowId(id), captureMessages.configure, { config });
    const there = await query<ConnectRequest | null>(control, catalogWorkflowId, catalogMessages.source, id);
    // The flow tells the catalog too, a moment later; whoever looks now should see it.
    if (there) await update(control, catalogWorkflowId, catalogMessages.registerSource, { ...there, config });
  });
}
