/** Comparing all tables of a source with their copies: the activity behind `verifyCopy`. */
import { randomUUID } from 'node:crypto';
import { Context } from '@temporalio/activity';
import { copyAssetId } from '../../model/asset.ts';
import { asSluiceError, type ErrorReport, SluiceError } from '../../model/errors.ts';
import type { VerifyRequest } from '../../model/messages.ts';
import { behindPageHeader, parseLsn } from '../../model/position.ts';
import type { CapturedTable, CaptureStatus } from '../../model/source.ts';
import { isBeside, isMultiset, type TableSchema, tableName } from '../../model/table.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import type { VerifySum } from '../capture/contract.ts';
import { wasAltered } from '../capture/postgresql/connection.ts';
import type { Connected } from '../capture/source.ts';
import { createOwnTables, lastRecord, loadSchemas } from '../load/batches.ts';
import { Repair } from './repair.ts';
import { nothingFound, type TableVerification, type VerifyOptions, verifySum, verifyTable } from './verify.ts';
import {
  createVerificationTable,
  readProgress,
  type StoredProgress,
  storeVerification,
  type Verification,
} from './verify_store.ts';
import { watchCopies } from './watch_copies.ts';

/** A comparison of a source: what was asked, and what is needed for it. */
interface Run {
  context: CaptureContext;
  request: VerifyRequest;
  connected: Connected;
  verification: Verification;
  activity: Context;
  /** Where an attempt ended that died. */
  progress: StoredProgress | undefined;
  /** Counts its repairs. */
  numbers: { next: number };
}

/** A captured table with what its copy is made from. */
interface Wanted {
  table: CapturedTable;
  schema: TableSchema;
}

/** Milliseconds between two notes of how far a comparison is: a table larger than any patience is not begun again. */
const noteEvery = 10_000;

/** Compares, stores each table's result as it comes, and answers the sum. See CaptureActivities.verifySource. */
export async function verifySource(context: CaptureContext, request: VerifyRequest): Promise<VerifySum> {
  const { source } = request;
  const activity = Context.current();
  const clickhouse = context.clickhouse('verify');
  const connected = context.connected(await context.request(source));
  const status = await context.status(source);
  const resting = request.scheduled ? whyNotNow(status) : undefined;
  if (resting !== undefined) return { identical: false, tables: 0, id: '', found: [], skipped: resting };
  await createOwnTables(clickhouse);
  await createVerificationTable(clickhouse);
  // One run of the flow is one comparison, whatever happens to the worker.
  const id = activity.info.workflowExecution?.runId ?? randomUUID();
  const kept = activity.info.attempt > 1 ? await readProgress(clickhouse, id) : undefined;
  const verification: Verification = kept?.verification ?? {
    id,
    source,
    started_at: new Date().toISOString(),
    finished_at: null,
    status: 'running',
    identical: false,
    tables: [],
    error: null,
  };
  const run: Run = {
    context,
    request,
    connected,
    verification,
    activity,
    progress: kept?.progress,
    numbers: { next: 0 },
  };
  try {
    for (const wanted of await wantedTables(run, status)) {
      verification.tables.push(await compare(run, wanted));
      await storeVerification(clickhouse, verification);
    }
    const identical = verification.tables.every((result) => result.identical);
    const finished_at = new Date().toISOString();
    await storeVerification(clickhouse, { ...verification, status: 'finished', finished_at, identical });
    if (request.scheduled) await watch(run, status);
    return verifySum(verification.tables, verification.id);
  } catch (error) {
    const report = activityError(error, { source });
    // Tried again: the next attempt goes on where this one ends.
    if (report instanceof SluiceError && report.transient) throw report;
    const shown =
      report instanceof SluiceError
        ? report.report()
        : { kind: 'unexpected' as const, reason: 'it was cancelled', remedy: 'Start it again.' };
    const failed = { status: 'failed', finished_at: new Date().toISOString(), error: shown } as const;
    await storeVerification(clickhouse, { ...verification, ...failed }).catch(() => {});
    throw report;
  }
}

/** What checks find in the copies is no comparison, and does not fail one. */
async function watch({ context, activity }: Run, { tables }: CaptureStatus): Promise<void> {
  const assets = tables.filter((table) => table.status === 'streaming').map((table) => table.asset_id);
  await watchCopies(context.clickhouse('verify'), assets).catch((error: unknown) =>
    activity.log.warn('checks of whole copies could not run', { reason: asSluiceError(error).message }),
  );
}

/** Why a comparison by schedule makes no sense now; undefined when it does. */
function whyNotNow({ status, tables }: CaptureStatus): string | undefined {
  if (status !== 'streaming' && status !== 'snapshotting') return `the source is ${status}`;
  return tables.some((table) => table.status === 'streaming') ? undefined : 'no table streams yet';
}

/** The captured tables that the request means, but for those that are done. Errors: `not_found`. */
async function wantedTables({ context, request, verification }: Run, { tables }: CaptureStatus): Promise<Wanted[]> {
  const { source, table: name, scheduled } = request;
  const schemas = await loadSchemas(context.clickhouse('verify'), source);
  const meant = tables.filter(
    (table) =>
      name === undefined ||
      [table.asset_id, copyAssetId(table.asset_id), tableName(table), `${table.schema}.${table.table}`].includes(name),
  );
  if (meant.length === 0) {
    const known = tables.map(tableName).slice(0, 20).join(', ') || 'no tables';
    throw new SluiceError('not_found', `${source} has no table ${name ?? ''}`, `It has ${known}.`, { source });
  }
  const done = new Set(verification.tables.map((result) => result.asset_id));
  return meant.flatMap((table) => {
    const schema = schemas.get(table.asset_id);
    if (done.has(table.asset_id)) return [];
    if (scheduled && (table.status !== 'streaming' || !schema || isBeside(schema))) return [];
    if (schema) return [{ table, schema }];
    throw new SluiceError('not_found', `${tableName(table)} has no copy yet`, 'Wait until its snapshot has begun.', {
      source,
    });
  });
}

/** Attempts after which what passes by itself elsewhere is taken for lasting: a table that is too large for the memory, say. */
const enoughAttempts = 6;

/** Seconds in which the copy of a table that is being altered has to follow. */
const patience = 30;

/** Compares one table. While it is altered its copy may have other columns for a moment: then it is begun again. */
async function compare(run: Run, wanted: Wanted): Promise<TableVerification> {
  const { context, request, activity } = run;
  // The tables before it may have taken hours.
  const current = async () => (await loadSchemas(context.clickhouse('verify'), request.source, asset)).get(asset);
  const asset = wanted.schema.asset_id;
  let schema = (await current()) ?? wanted.schema;
  for (let waited = 0; ; waited++) {
    if (isBeside(schema)) return notComparable(schema, 'its copy is made anew beside the old one');
    try {
      return await compareOnce(run, { ...wanted, schema });
    } catch (error) {
      if (error instanceof SluiceError && error.kind === 'table_missing') return unfinished(schema, error.report());
      const altered = wasAltered(error) || copyWasAltered(error);
      // The other tables want their turn; a later comparison comes by itself.
      const lasting = error instanceof SluiceError && (!error.transient || activity.info.attempt >= enoughAttempts);
      if (!altered && request.scheduled && lasting) return unfinished(schema, error.report());
      if (!altered) throw error;
      if (waited === patience) return notComparable(schema, 'it is defined otherwise than its copy is made from');
    }
    activity.heartbeat(`${tableName(schema)}: its copy has yet to follow`);
    await activity.sleep('1s');
    schema = (await current()) ?? schema;
  }
}

/** ClickHouse does not know a column or table of the statement. */
function copyWasAltered(error: unknown): boolean {
  const { code } = ((error as Error).cause ?? {}) as { code?: unknown };
  return ['10', '16', '47', '60'].includes(String(code));
}

function notComparable(schema: TableSchema, why: string): TableVerification {
  const reason = `the table ${tableName(schema)} cannot be compared now: ${why}`;
  const remedy = 'Compare again when the table is streaming.';
  return unfinished(schema, { kind: 'conflict', reason, remedy });
}

function unfinished(schema: TableSchema, error: ErrorReport): TableVerification {
  return { ...nothingFound(schema.asset_id), error };
}

async function compareOnce(run: Run, wanted: Wanted): Promise<TableVerification> {
  const { request } = run;
  const { schema } = wanted;
  try {
    const found = await verifyTable(optionsOf(run, wanted));
    if (!request.scheduled || found.identical) return await mend(run, wanted, found);
    const now = await stateOf(run, wanted);
    // Copied anew meanwhile: what differed was another copy.
    if (now?.generation === wanted.table.generation) return await mend(run, wanted, found);
    return notComparable(schema, 'it was copied anew meanwhile');
  } catch (error) {
    throw activityError(asSluiceError(error), { source: request.source, table: tableName(schema) });
  }
}

function optionsOf(run: Run, { table, schema }: Wanted): VerifyOptions {
  const { context, request, connected, verification, activity, progress } = run;
  const { source, share, repair } = request;
  const clickhouse = context.clickhouse('verify');
  const goesOn =
    progress?.table === schema.asset_id ? { after: progress.after, found: structuredClone(progress.found) } : {};
  let noted = 0;
  return {
    connectionString: connected.connectionString,
    clickhouse,
    table: schema,
    appliedPosition: async () => {
      const record = await lastRecord(clickhouse, source);
      return record ? behindPageHeader(parseLsn(record.position_to)) : 0n;
    },
    signal: activity.cancellationSignal,
    onProgress: ({ checked }) => activity.heartbeat(`${tableName(schema)}: ${checked} rows`),
    share,
    ...goesOn,
    onReached: async (after, found) => {
      if (Date.now() - noted < noteEvery) return;
      noted = Date.now();
      await storeVerification(clickhouse, verification, { table: schema.asset_id, after, found });
    },
    ...(repair ? { repair: repairer(run, table, schema) } : {}),
  };
}

/** Reads rows again; why it could not is an answer, unless it passes by itself. */
function repairer(
  { context, connected, verification, activity, numbers }: Run,
  table: CapturedTable,
  schema: TableSchema,
) {
  const repair = new Repair({
    context,
    connected,
    table: schema,
    generation: table.generation,
    verification: verification.id,
    workflow: {
      id: activity.info.workflowExecution?.workflowId ?? '',
      runId: activity.info.workflowExecution?.runId ?? '',
      attempt: activity.info.attempt,
    },
    numbers,
    signal: activity.cancellationSignal,
  });
  return async (keys: string[][]): Promise<string | null> => {
    try {
      return await repair.run(keys);
    } catch (error) {
      if (error instanceof SluiceError && !error.transient) return error.message;
      throw error;
    }
  };
}

/** Too many rows differ for each to be read again, or one cannot be, without a key: the copy is made anew. */
async function mend(run: Run, { schema }: Wanted, found: TableVerification): Promise<TableVerification> {
  const anew = found.at_least || (isMultiset(schema) && found.missing + found.extra > 0);
  if (!anew || !run.request.repair) return found;
  await run.context.resync(run.request.source, `${schema.schema}.${schema.table}`);
  return { ...found, resynced: true };
}

async function stateOf({ context, request }: Run, { table }: Wanted): Promise<CapturedTable | undefined> {
  const { tables } = await context.status(request.source);
  return tables.find((known) => known.asset_id === table.asset_id);
}
