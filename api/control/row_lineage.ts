/** Where a row of a copy comes from: its versions, the batch that wrote each, and the place of that in Temporal's history. */
import type { WorkflowHandle } from '@temporalio/client';
import { openSource } from '../../activities/capture/source.ts';
import { assetTable, explainAssetVersion } from '../../activities/extract/asset_copy.ts';
import { changeOf } from '../../activities/lineage/row_change.ts';
import {
  assetBatchOf,
  batchOf,
  type Recorded,
  type RowVersion,
  rowVersions,
} from '../../activities/lineage/row_versions.ts';
import { tableAssetOf } from '../../model/asset.ts';
import { attemptsLimit } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import { formatInstant } from '../../model/instant.ts';
import type { TableSchema } from '../../model/table.ts';
import { type Control, workflowUrl } from './control.ts';
import { rowsIfThere } from './figures.ts';
import type { RowLineage } from './lineage_shapes.ts';

type History = Awaited<ReturnType<WorkflowHandle['fetchHistory']>>;
type HistoryEvent = NonNullable<History['events']>[number];

/** How long Temporal may take to send a history; without it the event's number is left out. */
const historyPatience = 5_000;

/** How the rows of one copy are explained. */
interface Explained {
  table: TableSchema;
  /** Position of a version in its source, for people. */
  position(version: RowVersion): string;
  fromSnapshot(version: RowVersion): boolean;
  batch(version: RowVersion): Promise<Recorded | undefined>;
}

/**
 * The versions of a row that its copy still holds, newest first. `asset`: an asset, or its copy. `key`: plain text for a
 * key of one column, a JSON object for any. Errors: `not_found`, `configuration` for what is no key of the table.
 */
export async function getRowLineage(control: Control, asset: string, key: string): Promise<RowLineage> {
  const id = tableAssetOf(asset);
  // Deployments keep the schema of their copy too, so they are asked first.
  const explained = (await ofDeployment(control, id)) ?? (await ofSource(control, id));
  if (!explained) {
    const remedy = 'Its id is {source}_{table}, or the name of a deployment: `sluice status` lists them.';
    throw new SluiceError('not_found', `there is no copy ${id}`, remedy);
  }
  const events = new Events(control);
  const found = await rowVersions(control.clickhouse, explained.table, key);
  const versions = await Promise.all(
    found.map(async (row) => {
      const batch = await explained.batch(row);
      return {
        version: row.version,
        op: row.deleted
          ? ('delete' as const)
          : explained.fromSnapshot(row)
            ? ('snapshot' as const)
            : ('upsert' as const),
        ...changeOf(batch, id, row.deleted),
        position: explained.position(row),
        committed_at: row.committed_at,
        batch_id: batch?.id ?? null,
        rules_version: batch?.rules ?? null,
        workflow: batch && batch.workflow_id !== '' ? await events.place(batch) : null,
      };
    }),
  );
  // The copy keeps the newest version, and others only until they are merged.
  return { asset_id: id, key, complete: false, versions };
}

async function ofSource(control: Control, asset: string): Promise<Explained | undefined> {
  const { clickhouse } = control;
  const [saved] = await rowsIfThere<{ source: string; body: string }>(
    control,
    `SELECT source, body FROM ${clickhouse.name('_schemas')} FINAL WHERE asset = {asset:String} ORDER BY generation DESC LIMIT 1`,
    { asset },
  );
  if (!saved) return undefined;
  // The only kind that there is.
  const reader = await openSource('postgresql');
  const table = JSON.parse(saved.body) as TableSchema;
  return {
    table,
    position: ({ version }) => reader.placeOf(version).position,
    fromSnapshot: ({ version }) => reader.placeOf(version).fromSnapshot,
    batch: (row) => batchOf(clickhouse, { id: saved.source, reader }, table, row),
  };
}

async function ofDeployment(control: Control, name: string): Promise<Explained | undefined> {
  const { clickhouse } = control;
  const [record] = await rowsIfThere(
    control,
    `SELECT 1 FROM ${clickhouse.name('_batches')} WHERE source = {name:String} AND kind IN ('extract', 'backfill') LIMIT 1`,
    { name },
  );
  if (!record) return undefined;
  return {
    table: assetTable(name),
    position: ({ version }) => formatInstant(explainAssetVersion(BigInt(version)).updated),
    fromSnapshot: () => false,
    batch: (row) => assetBatchOf(clickhouse, name, row),
  };
}

/** Finds the events of activities in histories; each history is read once. */
class Events {
  readonly #control: Control;
  readonly #histories = new Map<string, Promise<HistoryEvent[]>>();

  constructor(control: Control) {
    this.#control = control;
  }

  /** The event that scheduled the activity which wrote a batch; its number is null when Temporal has forgotten the run. */
  async place(batch: Recorded): Promise<RowLineage['versions'][number]['workflow']> {
    const { workflow_id: id, run_id: run } = batch;
    const history = `${id}/${run}`;
    const events = this.#histories.get(history) ?? this.#read(id, run);
    this.#histories.set(history, events);
    const event = (await events).find((one) => isActivityOf(one, batch));
    const url = workflowUrl(this.#control.settings, id, run);
    if (!event) return { id, run_id: run, event_id: null, url };
    return {
      id,
      run_id: run,
      event_id: Number(event.eventId),
      url: url.replace(/history$/, `history/events/${event.eventId}`),
    };
  }

  async #read(id: string, run: string): Promise<HistoryEvent[]> {
    try {
      const history = await this.#control.temporal.withDeadline(Date.now() + historyPatience, () =>
        this.#control.temporal.workflow.getHandle(id, run).fetchHistory(),
      );
      return history.events ?? [];
    } catch {
      return [];
    }
  }
}

/** True for the event that scheduled the activity which wrote this batch. */
function isActivityOf(event: HistoryEvent, batch: Recorded): boolean {
  const scheduled = event.activityTaskScheduledEventAttributes;
  if (!scheduled) return false;
  const bytes = scheduled.input?.payloads?.[0]?.data;
  const input = (bytes ? JSON.parse(Buffer.from(bytes).toString('utf8')) : {}) as { lease?: number; chunk?: number };
  switch (scheduled.activityType?.name) {
    case 'captureLease':
      return (
        ['rows', 'truncate', 'release'].includes(batch.kind) && input.lease === Math.floor(batch.lease / attemptsLimit)
      );
    case 'copyChunk':
      return batch.kind === 'chunk' && input.chunk === batch.seq;
    case 'finishSnapshot':
      return batch.kind === 'snapshot';
    case 'verifySource':
      return batch.kind === 'repair';
    case 'settleRejects':
      return batch.kind === 'release';
    default:
      return /^(extract|load)/.test(scheduled.activityType?.name ?? '') && ['rows', 'backfill'].includes(batch.kind);
  }
}
