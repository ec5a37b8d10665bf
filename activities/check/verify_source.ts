/** Comparing all tables of a source with their copies: the activity behind `verifyCopy`. */
import { randomUUID } from 'node:crypto';
import { Context } from '@temporalio/activity';
import { copyAssetId } from '../../model/asset.ts';
import { asSluiceError, type ErrorReport, SluiceError } from '../../model/errors.ts';
import type { VerifyRequest } from '../../model/messages.ts';
import { behindPageHeader, parseLsn } from '../../model/position.ts';
import { isBeside, type TableSchema, tableName } from '../../model/table.ts';
import { activityError, type CaptureContext } from '../capture/context.ts';
import type { VerifySum } from '../capture/contract.ts';
import { wasAltered } from '../capture/postgresql/connection.ts';
import { createOwnTables, lastRecord, loadSchemas } from '../load/batches.ts';
import { nothingFound, type TableVerification, verifySum, verifyTable } from './verify.ts';
import { createVerificationTable, storeVerification, type Verification } from './verify_store.ts';

/** Compares, stores each table's result as it comes, and answers the sum. See CaptureActivities.verifySource. */
export async function verifySource(context: CaptureContext, { source, table }: VerifyRequest): Promise<VerifySum> {
  const clickhouse = context.clickhouse('verify');
  const connectionString = context.connectionString(await context.request(source));
  await createOwnTables(clickhouse);
  await createVerificationTable(clickhouse);
  const verification: Verification = {
    id: randomUUID(),
    source,
    started_at: new Date().toISOString(),
    finished_at: null,
    status: 'running',
    identical: false,
    tables: [],
    error: null,
  };
  try {
    for (const schema of await wanted(context, source, table)) {
      verification.tables.push(await compare(context, source, schema, connectionString));
      await storeVerification(clickhouse, verification);
    }
    const identical = verification.tables.every((result) => result.identical);
    await storeVerification(clickhouse, {
      ...verification,
      status: 'finished',
      finished_at: new Date().toISOString(),
      identical,
    });
    return verifySum(verification.tables, verification.id);
  } catch (error) {
    const report = activityError(error, { source });
    const shown =
      report instanceof SluiceError
        ? report.report()
        : { kind: 'unexpected' as const, reason: 'it was cancelled', remedy: 'Start it again.' };
    await storeVerification(clickhouse, {
      ...verification,
      status: 'failed',
      finished_at: new Date().toISOString(),
      error: shown,
    }).catch(() => {});
    throw report;
  }
}

/** The captured tables that the request means. Errors: `not_found`. */
async function wanted(context: CaptureContext, source: string, name: string | undefined): Promise<TableSchema[]> {
  const { tables } = await context.status(source);
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
  return meant.map((table) => {
    const schema = schemas.get(table.asset_id);
    if (schema) return schema;
    throw new SluiceError('not_found', `${tableName(table)} has no copy yet`, 'Wait until its snapshot has begun.', {
      source,
    });
  });
}

/** Seconds in which the copy of a table that is being altered has to follow. */
const patience = 30;

/** Compares one table. While it is altered its copy may have other columns for a moment: then it is begun again. */
async function compare(
  context: CaptureContext,
  source: string,
  schema: TableSchema,
  connectionString: string,
): Promise<TableVerification> {
  for (let waited = 0; ; waited++) {
    if (isBeside(schema)) return notComparable(schema, 'its copy is made anew beside the old one');
    try {
      return await compareOnce(context, source, schema, connectionString);
    } catch (error) {
      if (error instanceof SluiceError && error.kind === 'table_missing') return unfinished(schema, error.report());
      if (!wasAltered(error) && !copyWasAltered(error)) throw error;
      if (waited === patience) return notComparable(schema, 'it is defined otherwise than its copy is made from');
    }
    Context.current().heartbeat(`${tableName(schema)}: its copy has yet to follow`);
    await Context.current().sleep('1s');
    schema = (await loadSchemas(context.clickhouse('verify'), source)).get(schema.asset_id) ?? schema;
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

async function compareOnce(
  context: CaptureContext,
  source: string,
  schema: TableSchema,
  connectionString: string,
): Promise<TableVerification> {
  const activity = Context.current();
  try {
    return await verifyTable({
      connectionString,
      clickhouse: context.clickhouse('verify'),
      table: schema,
      appliedPosition: async () => {
        const record = await lastRecord(context.clickhouse('verify'), source);
        return record ? behindPageHeader(parseLsn(record.position_to)) : 0n;
      },
      signal: activity.cancellationSignal,
      onProgress: ({ checked }) => activity.heartbeat(`${tableName(schema)}: ${checked} rows`),
    });
  } catch (error) {
    throw activityError(asSluiceError(error), { source, table: tableName(schema) });
  }
}
