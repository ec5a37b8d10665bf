/** The page about a source in Temporal UI: what is wrong and what to do first, then tables, batches, and what can be done. */
import type { BatchGlance } from '../model/batch.ts';
import { size } from '../model/log.ts';
import { captureWorkflowId, flowNames, verifyWorkflowId } from '../model/messages.ts';
import type { CaptureStatus, LeftOutTable, SourceState } from '../model/source.ts';
import { tableName } from '../model/table.ts';
import { type FlowState, type FlowTable, statusOf } from './captureState.ts';
import {
  activitiesLink,
  code,
  count,
  flowsLink,
  grouped,
  page,
  plain,
  section,
  startLink,
  timeOfDay,
  trouble,
} from './markdown.ts';

const mostTables = 60;
const mostTroubles = 5;

/** Current details of `captureSource`. */
export function captureDetails(state: FlowState, taskQueue: string): string {
  const status = statusOf(state);
  const log = state.last_lease?.log;
  const failed = state.tables.filter((table) => table.started && table.error !== null);
  return page(
    `**${status.status}** · ${tablesLine(state)}`,
    state.last_error && trouble('it stands still', state.last_error),
    ...failed.slice(0, mostTroubles).map((table) => trouble(`table ${tableName(table)} stands still`, table.error!)),
    ...leftOut(state).map((table) => trouble(`table ${table.table} is left out`, { kind: 'table_unusable', ...table })),
    state.warning && `**Mind**: ${plain(state.warning)}`,
    log?.warning && trouble('mind its log', log.warning),
    nextLine(state, failed[0]),
    nowLine(state),
    section('Tables', tableLines(state.tables, moves(status))),
    section('Last batches, UTC', batchLines(state, moves(status))),
    section('Last lease that ended', leaseLines(state)),
    section('More', moreLines(state, status, taskQueue)),
  );
}

function leftOut({ left_out: tables = [] }: FlowState): LeftOutTable[] {
  return tables.slice(0, mostTroubles);
}

function tablesLine({ tables }: FlowState): string {
  const streaming = tables.filter((table) => table.status === 'streaming').length;
  const failed = tables.filter((table) => table.status === 'failed').length;
  const parts = [
    streaming === tables.length ? count(streaming, 'table') : `${streaming} of ${count(tables.length, 'table')} stream`,
    failed > 0 && `**${failed} failed**`,
  ];
  return parts.filter(Boolean).join(' · ');
}

/** What a person does next; nothing while all is well. */
function nextLine(state: FlowState, failed: FlowTable | undefined): string {
  const { status } = statusOf(state);
  const send = '**More Actions → Send an Update**';
  const next: Partial<Record<SourceState, string>> = {
    connected: `${send}: \`start\` begins to copy.`,
    paused: `${send}: \`resume\` goes on where it stopped, without a new snapshot.`,
    stopped: `${send}: \`start\` goes on where it stopped, without a new snapshot.`,
  };
  if (next[status] !== undefined) return next[status];
  if (state.last_error !== null) return `Then ${send}: \`resume\` tries again.`;
  if (failed === undefined) return '';
  const updates = [...(failed.error?.kind === 'table_changed' ? ['approveSchema'] : []), 'resync', 'removeTables'];
  const input = code(JSON.stringify({ tables: [tableName(failed)] }));
  return `From here: ${send}, ${updates.map(code).join(' or ')} with ${input}. The other tables go on meanwhile.`;
}

function nowLine(state: FlowState): string {
  if (!moves(statusOf(state))) return state.position && `All is recorded up to ${code(state.position)}.`;
  const live = activitiesLink(captureWorkflowId(state.request.id), 'Live');
  const began = state.position && `; it began at ${code(state.position)}`;
  return `${live}: position, lag and last batches of lease ${state.lease}, each second${began}.`;
}

/** True while changes are being copied. */
function moves({ status }: Pick<CaptureStatus, 'status'>): boolean {
  return status === 'streaming' || status === 'snapshotting';
}

function tableLines(tables: FlowTable[], moving: boolean): string[] {
  const lines = tables.slice(0, mostTables).map((table) => `${code(tableName(table))} · ${tableText(table, moving)}`);
  return tables.length > mostTables ? [...lines, `and ${tables.length - mostTables} more`] : lines;
}

function tableText(table: FlowTable, moving: boolean): string {
  if (table.error) return `**failed** (${table.error.kind}): ${plain(table.error.reason)}`;
  if (!table.started) return 'not started';
  const rows = `${count(table.snapshot_rows, 'row')} by snapshot ${table.generation}`;
  if (table.status === 'streaming') return `**${moving ? 'streaming' : 'complete'}** · ${rows}`;
  const why = table.notice ? ` · copied anew: ${plain(table.notice)}` : '';
  if (table.complete_at)
    return `**snapshotting**: ${rows}, the stream has yet to pass ${code(table.complete_at)}${why}`;
  if (table.status !== 'snapshotting') return `${table.status}${why}`;
  if (table.chunks_total === 0) return `**snapshotting**: being planned${why}`;
  const percent = Math.floor((100 * table.chunks_done) / table.chunks_total);
  return `**snapshotting**: ${percent} %, ${table.chunks_done} of ${count(table.chunks_total, 'chunk')}, ${rows}${why}`;
}

/** Those that the flow has heard of, as of the end of a lease; what is newer, the running lease tells. */
function batchLines({ request, recent }: FlowState, moving: boolean): string[] {
  const lines = recent.map(batchLine);
  return moving && lines.length > 0
    ? [`newer ones: ${activitiesLink(captureWorkflowId(request.id), 'live')}`, ...lines]
    : lines;
}

/** Glances that earlier versions carried on have neither rows nor times. */
function batchLine(batch: BatchGlance): string {
  const { id, position_to: position, committed_last: committed, recorded_at: recorded, kind } = batch;
  // The id of a chunk: {source}/snapshot/{asset}/{generation}/{chunk}.
  const what =
    kind === 'chunk'
      ? `snapshot of ${code(id.split('/')[2] ?? '')}, ${count(batch.rows, 'row')}`
      : count(batch.changes, 'change');
  const rows = kind === 'chunk' || batch.rows === undefined ? '' : `, ${count(batch.rows, 'row')}`;
  const end = kind === 'chunk' ? '' : ` up to ${code(position)}`;
  const lag = recorded && committed ? `, ${lagText(recorded, committed)} after commit` : '';
  return `${recorded ? `${timeOfDay(recorded)} · ` : ''}${what}${rows}${end}${lag}`;
}

function lagText(recorded: string, committed: string): string {
  return `${Math.max(0, (Date.parse(recorded) - Date.parse(committed)) / 1000).toFixed(2)} s`;
}

const endings: Record<string, string> = {
  time: 'its time was over',
  cancelled: 'it was asked to end',
  table_failed: 'a table failed',
  table_returned: 'a table is there again',
  tables_found: 'there were new tables',
  summary_full: 'its summary was full',
};

function leaseLines({ last_lease: last }: FlowState): string[] {
  if (last === null) return [];
  const did = `${count(last.batches, 'batch', 'batches')}, ${count(last.changes, 'change')}, ${grouped(last.rows)} rows written`;
  const retained = last.log ? [`the source kept ${size(last.log.retained_bytes)} of its log for Sluice then`] : [];
  return [`lease ${last.lease}: ${did}; it ended because ${endings[last.ended] ?? last.ended}`, ...retained];
}

function moreLines({ request: { id } }: FlowState, status: CaptureStatus, taskQueue: string): string[] {
  const verify = startLink(flowNames.verifyCopy, verifyWorkflowId(id), taskQueue, 'start `verifyCopy`');
  return [
    ...(moves(status)
      ? ['**More Actions → Send an Update**: `pause`, `resync`, `addTables`, … each says what it needs']
      : []),
    `compare with the source: ${verify} with ${code(JSON.stringify({ source: id }))}, or ${code(`npx sluice verify ${id}`)}`,
    `${flowsLink(`SluiceSource = "${id}"`, 'all flows of this source')}; what each batch did: ${code(`SELECT * FROM _batches WHERE source = '${id}'`)}`,
  ];
}
