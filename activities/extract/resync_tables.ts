/** Re-syncing tables as a step of a backfill: asks the source's own flow, and waits until they stream again. */
import { Context } from '@temporalio/activity';
import type { Client } from '@temporalio/client';
import { SluiceError } from '../../model/errors.ts';
import { captureMessages, captureWorkflowId } from '../../model/messages.ts';
import type { CapturedTable, CaptureStatus } from '../../model/source.ts';
import { tableName } from '../../model/table.ts';
import { askFlow, updateFlow } from '../../workers/temporal_client.ts';
import type { ExtractActivities } from './contract.ts';

const pause = 500;

/** See ExtractActivities.resyncTables. */
export async function resyncTables(
  client: Client,
  { source, tables, request_id }: Parameters<ExtractActivities['resyncTables']>[0],
): Promise<{ tables: number }> {
  const activity = Context.current();
  const flow = captureWorkflowId(source);
  const asked = tables.length === 0 ? {} : { tables };
  // Sent again by a later attempt it is the same request.
  await updateFlow<CaptureStatus>(client, flow, captureMessages.resync, asked, request_id);
  for (;;) {
    const status = await askFlow<CaptureStatus>(client, flow, captureMessages.status);
    const wanted = status.tables.filter((table) => tables.length === 0 || tables.some((name) => isMeant(table, name)));
    const failed = wanted.find((table) => table.status === 'failed');
    if (failed?.error) {
      const { kind, reason, remedy } = failed.error;
      throw new SluiceError(kind, reason, remedy, { source, table: tableName(failed) });
    }
    const done = wanted.filter((table) => table.status === 'streaming').length;
    if (done === wanted.length) return { tables: done };
    const chunks = wanted.map((table) => `${tableName(table)} ${table.chunks_done}/${table.chunks_total} chunks`);
    activity.heartbeat(chunks.slice(0, 10).join(', '));
    await activity.sleep(pause);
  }
}

function isMeant(table: CapturedTable, name: string): boolean {
  return [table.asset_id, tableName(table), `${table.schema}.${table.table}`].includes(name);
}
