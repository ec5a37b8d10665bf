/** The page about a source in Temporal UI: bullets and bold only, since its bundled version renders no tables. */
import { tableName } from '../model/table.ts';
import { type FlowState, type FlowTable, statusOf } from './captureState.ts';

const mostTables = 60;

/** Current details of `captureSource`. */
export function captureDetails(state: FlowState): string {
  const status = statusOf(state);
  const head = [`**${status.status}**`, `lease ${state.lease}`, state.position && `position \`${state.position}\``];
  return [
    head.filter(Boolean).join(' · '),
    ...(status.last_error ? [`**${status.last_error.kind}**: ${status.last_error.reason}`] : []),
    ...(status.last_error ? [`**What to do**: ${status.last_error.remedy}`] : []),
    ...(state.warning ? [`**Mind**: ${state.warning}`] : []),
    ...(status.status === 'connected' ? ['**Next**: send the update `start`.'] : []),
    section('Tables', tableLines(state.tables)),
    ...(state.last_lease ? [section('Last lease', [leaseLine(state)])] : []),
    ...(state.recent.length > 0 ? [section('Last batches', batchLines(state))] : []),
  ].join('\n\n');
}

function section(title: string, lines: string[]): string {
  return [`**${title}**`, ...lines].join('\n');
}

function tableLines(tables: FlowTable[]): string[] {
  const lines = tables.slice(0, mostTables).map((table) => `- \`${tableName(table)}\` — ${tableText(table)}`);
  return tables.length > mostTables ? [...lines, `- and ${tables.length - mostTables} more`] : lines;
}

function tableText(table: FlowTable): string {
  if (table.error) return `**failed**: ${table.error.reason} — ${table.error.remedy}`;
  if (!table.started) return 'not started';
  if (table.status === 'streaming') return `streaming, ${table.snapshot_rows} rows by snapshot`;
  return table.notice ? `${progressText(table)} (copied anew: ${table.notice})` : progressText(table);
}

function progressText(table: FlowTable): string {
  if (table.complete_at) return `snapshot done, the stream has yet to pass \`${table.complete_at}\``;
  if (table.status === 'snapshotting') return `snapshotting, ${table.chunks_done} of ${table.chunks_total} chunks`;
  return table.status;
}

function leaseLine(state: FlowState): string {
  const last = state.last_lease!;
  return `- lease ${last.lease} ended (${last.ended}): ${last.batches} batches, ${last.changes} changes, ${last.rows} rows written`;
}

function batchLines(state: FlowState): string[] {
  return state.recent.map(
    (batch) =>
      `- \`${batch.id}\` · ${batch.changes} changes up to \`${batch.position_to}\`` +
      (batch.committed_last ? `, committed ${batch.committed_last}` : ''),
  );
}
