/** The index of lineage made anew, from the histories that Temporal still keeps. */
import type { Client } from '@temporalio/client';
import { defaultPayloadConverter } from '@temporalio/common';
import { tsToMs } from '@temporalio/common/lib/time.js';
import { flowNames } from '../../model/messages.ts';
import type { ClickHouse } from '../load/clickhouse.ts';
import { createLineageTables, readHappenings, writeHappenings } from '../load/lineage_index.ts';
import { type FlowRun, firsts, type Happening, happeningsOf, tellingActivities, tellsAtOnce } from './happenings.ts';

/** Flows whose activities tell something. Snapshots and backfills tell it by the flows that they belong to, or start. */
const tellingFlows = [flowNames.captureSource, flowNames.catalog, flowNames.extractAssets];

export interface Rebuilt {
  /** Histories that were read. */
  histories: number;
  happenings: number;
  /** Told by a history, and missing in the index. */
  added: number;
  /** In the index, and not told by the history that it was said to be from. */
  dropped: number;
  /** From histories that Temporal does not keep any more. */
  kept: number;
}

/**
 * Reads all kept histories, and makes the index what they tell. What is from histories that are gone stays as it is. `progress` is
 * told the histories that are read.
 */
export async function rebuildLineage(
  client: Client,
  clickhouse: ClickHouse,
  progress: (histories: number) => void = () => {},
): Promise<Rebuilt> {
  await createLineageTables(clickhouse);
  const read = new Set<string>();
  const told: Happening[] = [];
  const list = `WorkflowType IN (${tellingFlows.map((flow) => `'${flow}'`).join(', ')})`;
  for await (const { workflowId, runId } of client.workflow.list({ query: list })) {
    const run = { workflow_id: workflowId, run_id: runId };
    told.push(...(await happeningsIn(client, run)));
    read.add(runId);
    progress(read.size);
  }
  const indexed = await readHappenings(clickhouse);
  const right = firsts(told);
  const [all, known] = [new Set(told.map(textOf)), new Set(indexed.map(textOf))];
  const wrong = indexed.filter((one) => read.has(one.told_run) && !all.has(textOf(one)));
  const missing = right.filter((one) => !known.has(textOf(one)));
  await writeHappenings(clickhouse, missing);
  await writeHappenings(clickhouse, wrong, true);
  const kept = indexed.filter((one) => !read.has(one.told_run)).length;
  return { histories: read.size, happenings: right.length, added: missing.length, dropped: wrong.length, kept };
}

function textOf(one: Happening): string {
  const { owner, asset, kind, mark, definition, at, workflow_id, run_id, told_run } = one;
  return JSON.stringify([owner, asset, kind, mark, definition, at, workflow_id, run_id, told_run]);
}

/** What the activities of one run tell. A run that is gone by now tells nothing. */
export async function happeningsIn(client: Client, run: FlowRun): Promise<Happening[]> {
  const { events } = await client.workflow.getHandle(run.workflow_id, run.run_id).fetchHistory();
  const scheduled = new Map<string, { name: string; input: unknown; at: number }>();
  const found: Happening[] = [];
  for (const event of events ?? []) {
    const begins = event.activityTaskScheduledEventAttributes;
    if (begins && tellingActivities.has(begins.activityType?.name ?? '')) {
      const name = begins.activityType!.name!;
      const [input] = (begins.input?.payloads ?? []).map((one) => defaultPayloadConverter.fromPayload(one));
      const at = tsToMs(event.eventTime);
      scheduled.set(String(event.eventId), { name, input, at });
      if (tellsAtOnce.has(name)) found.push(...happeningsOf({ name, input, result: undefined, at, run }));
    }
    const ends = event.activityTaskCompletedEventAttributes;
    const activity = ends && scheduled.get(String(ends.scheduledEventId));
    if (!activity || tellsAtOnce.has(activity.name)) continue;
    const [result = null] = (ends.result?.payloads ?? []).map((one) => defaultPayloadConverter.fromPayload(one));
    found.push(...happeningsOf({ ...activity, result: result ?? null, run }));
  }
  return found;
}
