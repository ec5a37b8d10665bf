/** Sources: connecting, looking, ordering. States come from flows, figures from records and heartbeats. */
import { seal } from '../../activities/secrets.ts';
import { SluiceError } from '../../model/errors.ts';
import {
  type ConnectAnswer,
  captureMessages,
  captureWorkflowId,
  catalogMessages,
  catalogWorkflowId,
  flowNames,
} from '../../model/messages.ts';
import type { CapturedTable, CaptureStatus, ConnectRequest, Finding } from '../../model/source.ts';
import { sourceChanges } from '../../model/source_changes.ts';
import { tableName } from '../../model/table.ts';
import { acted } from './actions.ts';
import {
  type CheckFigures,
  checkAlarms,
  copyAlarms,
  failingChecks,
  type VerifyFigures,
  verifyFigures,
} from './alarms.ts';
import { type Control, workflowUrl } from './control.ts';
import { countRows } from './counts.ts';
import { leaseGlance, type SourceFigures, sourceFigures } from './figures.ts';
import { FindingsError } from './findings.ts';
import { impactOf } from './lineage.ts';
import { restingLog } from './log.ts';
import { openRejects } from './rejects.ts';
import type { ConnectBody, SourceAnswer } from './shapes.ts';
import { refuseDeployment } from './shared_ids.ts';
import { type Flow, query, requireWorker, update, updateOrStart } from './temporal.ts';

export interface Connected {
  created: boolean;
  source: SourceAnswer;
  /** What preflight found and does not block. */
  findings: Finding[];
}

/**
 * Connects a source: preflight, then it is known and waits for `start`. The connection string is sealed before it
 * leaves this process. Errors: FindingsError, `conflict` (the id has another configuration, or is a deployment’s),
 * `configuration`, `no_worker`.
 */
export function connectSource(control: Control, body: ConnectBody): Promise<Connected> {
  const { connection_string: _, ...input } = body;
  return acted(control, { action: 'connect', target: body.id, input }, () => connect(control, body));
}

async function connect(control: Control, body: ConnectBody): Promise<Connected> {
  const request = sealed(control, body);
  await requireWorker(control);
  await refuseDeployment(control, body.id);
  const answer = await updateOrStart<ConnectAnswer>(control, captureFlow(request), captureMessages.connect, request);
  if (answer.outcome === 'refused') throw new FindingsError(answer.findings, body.id);
  if (answer.outcome === 'conflict') {
    const { changed } = sourceChanges(answer.status!.config, body.config, []);
    const other = changed.join(', ') || 'connection_string';
    const remedy = `Write it into cdc.yaml and say \`sluice apply\`, which changes what can change in place; or delete it first (\`sluice sources delete ${body.id}\`), or use another id.`;
    throw new SluiceError('conflict', `the source ${body.id} exists with another configuration: ${other}`, remedy, {
      source: body.id,
    });
  }
  await update(control, catalogWorkflowId, catalogMessages.registerSource, request);
  return {
    created: answer.outcome === 'created',
    source: await getSource(control, body.id),
    findings: answer.findings,
  };
}

/** The request with its connection string sealed, or as a reference. Errors: `configuration` without a key. */
export function sealed(control: Control, body: ConnectBody): ConnectRequest {
  const { secretKey } = control.settings;
  if (!secretKey && !body.connection_string.startsWith('${')) {
    const remedy =
      'Set SLUICE_SECRET_KEY here and where the worker runs, or write a reference such as ${DATABASE_URL}.';
    throw new SluiceError('configuration', 'there is no key to seal the connection string with', remedy);
  }
  return { ...body, connection_string: seal(body.connection_string, secretKey) };
}

function captureFlow(request: ConnectRequest): Flow {
  const id = captureWorkflowId(request.id);
  return { type: flowNames.captureSource, id, input: request, summary: `Copies ${request.id} (${request.type})` };
}

/** All sources. */
export async function listSources(control: Control): Promise<SourceAnswer[]> {
  const [requests, records] = await Promise.all([registered(control), recorded(control)]);
  return await Promise.all(requests.map((request) => describeSource(control, request, records)));
}

/** One source. Errors: `not_found`. */
export async function getSource(control: Control, id: string): Promise<SourceAnswer> {
  const [request, records] = await Promise.all([registeredSource(control, id), recorded(control)]);
  return await describeSource(control, request, records);
}

/** The requests of all sources, sealed, in order of their ids. */
export async function registered(control: Control): Promise<ConnectRequest[]> {
  await requireWorker(control);
  return await query<ConnectRequest[]>(control, catalogWorkflowId, catalogMessages.sources);
}

/** The request of one source, sealed. Errors: `not_found`. */
export async function registeredSource(control: Control, id: string): Promise<ConnectRequest> {
  await requireWorker(control);
  const request = await query<ConnectRequest | null>(control, catalogWorkflowId, catalogMessages.source, id);
  if (request) return request;
  throw new SluiceError('not_found', `there is no source ${id}`, 'See what there is: `sluice sources list`.', {
    source: id,
  });
}

/** What ClickHouse knows of sources. */
interface Records {
  /** Undefined when it could not be asked: the states still show. */
  figures: Map<string, SourceFigures> | undefined;
  /** Rejects that are open, by asset. */
  open: Map<string, number>;
  verified: VerifyFigures[];
  failing: CheckFigures[];
}

async function recorded(control: Control): Promise<Records> {
  const [figures, open, verified, failing] = await Promise.all([
    sourceFigures(control).catch(() => undefined),
    openRejects(control).catch(() => new Map<string, number>()),
    verifyFigures(control).catch(() => []),
    failingChecks(control).catch(() => []),
  ]);
  return { figures, open, verified, failing };
}

async function describeSource(
  control: Control,
  request: ConnectRequest,
  { figures, open, verified, failing }: Records,
): Promise<SourceAnswer> {
  const workflowId = captureWorkflowId(request.id);
  const [asked, lease] = await Promise.all([
    query<CaptureStatus>(control, workflowId, captureMessages.status).catch((error) => lostFlow(request, error)),
    leaseGlance(control, request.id).catch(() => undefined),
  ]);
  // A flow that has ended still answers what it was when it did.
  const status: CaptureStatus = lease?.runs === false ? { ...asked, ...notRunning(request) } : asked;
  const figure = figures?.get(request.id);
  // Without a lease nobody tells how much log is kept, and then it grows. Before the slot was ever made, none is.
  const began = status.position !== '' || (status.status === 'failed' && Boolean(figure?.position));
  const rests = began && status.status !== 'connected' && !lease?.progress;
  const log = lease?.progress?.log ?? (rests ? await restingLog(control, request.id) : null);
  return {
    id: request.id,
    type: request.type,
    status: status.status,
    tables: await Promise.all(status.tables.map((table) => describeTable(control, table, open))),
    config: { ...status.config },
    position: lease?.progress?.position || figure?.position || status.position,
    lag_bytes: lease?.progress?.lag_bytes ?? null,
    lag_seconds: lease?.progress?.lag_seconds ?? null,
    changes_total: figures ? (figure?.changes ?? 0) : null,
    last_batch_at: figure?.last_batch_at ?? null,
    last_error: status.last_error ?? lease?.failing ?? null,
    warning: status.warning,
    left_out: status.left_out ?? [],
    log,
    alarms: [
      ...(log?.warning ? [log.warning] : []),
      ...copyAlarms(verified, request.id, new Set(status.tables.map((table) => table.asset_id))),
      ...checkAlarms(failing, new Set(status.tables.map((table) => table.asset_id))),
    ],
    workflow: {
      id: workflowId,
      run_id: lease?.run_id ?? null,
      url: workflowUrl(control.settings, workflowId, lease?.run_id ?? undefined),
    },
  };
}

/** The catalog knows the source, but its flow has gone: everything to make it again is there. */
function lostFlow(request: ConnectRequest, error: unknown): CaptureStatus {
  if (!(error instanceof SluiceError) || error.kind !== 'not_found') throw error;
  return {
    id: request.id,
    type: request.type,
    config: request.config,
    tables: [],
    lease: 0,
    position: '',
    warning: null,
    left_out: [],
    ...notRunning(request),
  };
}

function notRunning({ id }: ConnectRequest): Pick<CaptureStatus, 'status' | 'last_error'> {
  const remedy = `Start it again: \`sluice sources start ${id}\`. It goes on where the last batch ended.`;
  const reason = `the flow ${captureWorkflowId(id)} does not run`;
  return { status: 'failed', last_error: { kind: 'not_found', reason, remedy } };
}

async function describeTable(control: Control, table: CapturedTable, open: Map<string, number>) {
  return {
    asset_id: table.asset_id,
    table: tableName(table),
    status: table.status,
    rows: table.start_position === '' ? 0 : await countRows(control, table.asset_id),
    rejected: open.get(table.asset_id) ?? 0,
    progress: progressOf(table),
    notice: table.notice ?? null,
    error: table.error,
    // Whoever is to agree with a change should see what it reaches.
    ...(table.error?.kind === 'table_changed' && { affects: await affectedBy(control, table.asset_id) }),
  };
}

async function affectedBy(control: Control, asset: string): Promise<string[]> {
  const impact = await impactOf(control, asset).catch(() => undefined);
  return impact?.affected.slice(0, 20).map((one) => one.asset_id) ?? [];
}

function progressOf(table: CapturedTable): number {
  if (table.status === 'streaming') return 1;
  return table.chunks_total > 0 ? Math.min(1, table.chunks_done / table.chunks_total) : 0;
}

/** Orders that take no tables or only some. */
export type SourceOrder =
  | 'start'
  | 'stop'
  | 'pause'
  | 'resume'
  | 'resync'
  | 'approveSchema'
  | 'addTables'
  | 'removeTables';

/** Carries an order to a source and answers how it is then. A source whose flow is lost is made again by `start`. */
export function orderSource(
  control: Control,
  id: string,
  order: SourceOrder,
  tables?: string[],
): Promise<SourceAnswer> {
  const what = { action: order, target: id, input: tables ? { tables } : {} };
  return acted(control, what, () => carryOrder(control, id, order, tables));
}

async function carryOrder(control: Control, id: string, order: SourceOrder, tables?: string[]): Promise<SourceAnswer> {
  const request = await registeredSource(control, id);
  const message = captureMessages[order];
  const argument = tables ? { tables } : ['start', 'resync', 'approveSchema'].includes(order) ? {} : undefined;
  try {
    await update(control, captureWorkflowId(id), message, argument);
  } catch (error) {
    if (order !== 'start' || !(error instanceof SluiceError) || error.kind !== 'not_found') throw error;
    await reviveFlow(control, request);
    await update(control, captureWorkflowId(id), message, argument);
  }
  return await getSource(control, id);
}

async function reviveFlow(control: Control, request: ConnectRequest): Promise<void> {
  const answer = await updateOrStart<ConnectAnswer>(control, captureFlow(request), captureMessages.connect, request);
  if (answer.outcome === 'refused') throw new FindingsError(answer.findings, request.id);
}

/**
 * Removes a source: its slot and publication, and with `dropCopies` its tables in ClickHouse. Errors: `not_found`,
 * `conflict` when the source is out of reach and `force` is not set.
 */
export function deleteSource(control: Control, id: string, options: Removal): Promise<void> {
  const input = { drop_copies: options.dropCopies, force: options.force };
  return acted(control, { action: 'remove', target: id, input }, () => removeSource(control, id, options));
}

interface Removal {
  dropCopies: boolean;
  force: boolean;
}

async function removeSource(control: Control, id: string, options: Removal): Promise<void> {
  await registeredSource(control, id);
  try {
    const argument = { drop_copies: options.dropCopies, force: options.force };
    await update(control, captureWorkflowId(id), captureMessages.remove, argument);
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    if (error.kind === 'source_unreachable' || error.kind === 'source_refused') {
      const remedy = `Bring the source back, or leave its slot behind: \`sluice sources delete ${id} --force\` (?force=true).`;
      throw new SluiceError(
        'conflict',
        `slot and publication cannot be dropped: ${error.message}`,
        remedy,
        { source: id },
        error,
      );
    }
    // Without its flow only the entry is left; slot and publication stay, which `force` accepts.
    if (error.kind !== 'not_found') throw error;
    if (!options.force) {
      const remedy = `Start it first (\`sluice sources start ${id}\`), or leave its slot behind: --force (?force=true).`;
      throw new SluiceError('conflict', 'the flow of the source does not run, so nothing drops its slot', remedy, {
        source: id,
      });
    }
  }
  await update(control, catalogWorkflowId, catalogMessages.removeSource, { id });
}
