/** Activities that wait until the stream has passed a position: of many tables they may be hundreds at once. */
import { performance } from 'node:perf_hooks';
import { Context } from '@temporalio/activity';
import type { BatchRecord } from '../../model/batch.ts';
import { isBeside } from '../../model/table.ts';
import { lastRecord, loadSchemas } from '../load/batches.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import type { CaptureContext } from './context.ts';
import type { CaptureActivities, TableRef } from './contract.ts';
import { recordComplete } from './snapshots.ts';
import { openSource } from './source.ts';

/** Milliseconds between two looks for the end of a source's records, however many wait for it. */
const lookEvery = 200;

/** The last records of sources, asked for once for all who wait. */
export class LastRecords {
  readonly #clickhouse: ClickHouse;
  readonly #asked = new Map<string, { at: number; record: Promise<BatchRecord | undefined> }>();

  constructor(clickhouse: ClickHouse) {
    this.#clickhouse = clickhouse;
  }

  /** The last record of a source, or what it was a moment ago. Errors: as those of ClickHouse. */
  of(source: string): Promise<BatchRecord | undefined> {
    const known = this.#asked.get(source);
    if (known && performance.now() - known.at < lookEvery) return known.record;
    const record = lastRecord(this.#clickhouse, source);
    this.#asked.set(source, { at: performance.now(), record });
    return record;
  }
}

/**
 * Returns when the stream of a source is recorded beyond `position`, and the copy of `table` stands where readers see it.
 * Records that it is complete.
 */
export async function waitForPosition(
  context: CaptureContext,
  records: LastRecords,
  { source: id, type, position, table }: Parameters<CaptureActivities['awaitPosition']>[0],
): Promise<void> {
  const activity = Context.current();
  const source = await openSource(type ?? (await context.request(id)).type);
  for (;;) {
    const record = await records.of(id);
    const reached = record && source.passed(record.position_to, position) && !hasFailed(record, table);
    if (reached && !(await isStillBeside(context, id, table))) {
      if (table) await recordComplete(context.clickhouse('snapshot'), id, table, record);
      return;
    }
    activity.heartbeat(record?.position_to);
    await activity.sleep(lookEvery);
  }
}

/** True when the last record says that the table failed: the flow is about to hear of it, and end this. */
function hasFailed(record: BatchRecord, table: TableRef | undefined): boolean {
  return table !== undefined && record.failed?.[table.asset_id]?.generation === table.generation;
}

/** True while readers do not see the new copy of a table yet. */
async function isStillBeside(context: CaptureContext, source: string, table: TableRef | undefined): Promise<boolean> {
  if (!table) return false;
  const schema = (await loadSchemas(context.clickhouse('read'), source, table.asset_id)).get(table.asset_id);
  return schema !== undefined && isBeside(schema);
}
