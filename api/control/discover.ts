/** What could be captured: tables and findings of a database, without connecting it. */
import { randomUUID } from 'node:crypto';
import { type DiscoverAnswer as Discovered, flowNames } from '../../model/messages.ts';
import { tableName } from '../../model/table.ts';
import type { Control } from './control.ts';
import type { ConnectBody, DiscoverAnswer } from './shapes.ts';
import { sealed } from './sources.ts';
import { runFlow } from './temporal.ts';

/** Looks at a source as a connect request would take it. Errors: those of reaching it, `no_worker`. */
export async function discoverSource(control: Control, body: ConnectBody): Promise<DiscoverAnswer> {
  const { tables, findings } = await runFlow<Discovered>(control, {
    type: flowNames.discoverSource,
    id: `discover/${randomUUID()}`,
    input: sealed(control, body),
    summary: `What ${body.type} has to copy`,
  });
  return { tables: tables.map((table) => ({ asset_id: table.asset_id, table: tableName(table) })), findings };
}
