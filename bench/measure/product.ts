/** The whole product for benchmarks: servers, worker, and the control module that people's commands use. */
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { connect } from '../../activities/capture/postgresql/connection.ts';
import { type Control, openControl } from '../../api/control/control.ts';
import { connectSource, orderSource } from '../../api/control/sources.ts';
import { query } from '../../api/control/temporal.ts';
import { SluiceError } from '../../model/errors.ts';
import { captureMessages, captureWorkflowId } from '../../model/messages.ts';
import type { CaptureStatus } from '../../model/source.ts';
import type { GuardedProcess } from '../../workers/embedded/guarded_process.ts';
import { startNodePart } from '../../workers/embedded/node_part.ts';
import { type StartedParts, startParts } from '../../workers/embedded/start_parts.ts';
import { readSettings } from '../../workers/settings.ts';

export interface Product {
  parts: StartedParts<'postgres' | 'clickhouse' | 'temporal'>;
  worker: GuardedProcess;
  control: Control;
  /** A session of the benchmark's own. */
  client: pg.Client;
  /** Processes whose time is counted. */
  pids: Record<'postgres' | 'clickhouse' | 'worker', number>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Starts a worker on parts that run, and what people's commands stand on. Both are the caller's to end. */
export async function startWorker(
  parts: StartedParts<'clickhouse' | 'temporal'>,
  postgresUrl: string,
): Promise<{ worker: GuardedProcess; control: Control }> {
  const environment = {
    ...process.env,
    SLUICE_HOME: parts.home,
    CLICKHOUSE_URL: parts.clickhouse.url,
    TEMPORAL_ADDRESS: parts.temporal.url,
    DATABASE_URL: postgresUrl,
    SLUICE_SECRET_KEY: 'bench',
  };
  const worker = await startNodePart({
    name: 'worker',
    file: 'workers/worker.ts',
    env: environment,
    logFile: path.join(parts.home, 'worker.log'),
  });
  return { worker, control: openControl(readSettings(environment)) };
}

/** Starts everything in a folder that goes away. */
export async function startProduct(): Promise<Product> {
  const parts = await startParts(['postgres', 'clickhouse', 'temporal']);
  const { worker, control } = await startWorker(parts, parts.postgres.url);
  const client = await connect({ connectionString: parts.postgres.url, applicationName: 'sluice bench' });
  return {
    parts,
    worker,
    control,
    client,
    pids: { postgres: parts.postgres.pid, clickhouse: parts.clickhouse.pid, worker: worker.pid },
    async [Symbol.asyncDispose]() {
      await client.end();
      await control[Symbol.asyncDispose]();
      await worker.stop('SIGTERM', 5000);
      await parts[Symbol.asyncDispose]();
    },
  };
}

/** Connects the benchmark's PostgreSQL as a source. */
export async function connectTables(control: Control, id: string, tables: string[]): Promise<void> {
  await connectSource(control, {
    id,
    type: 'postgresql',
    connection_string: '${DATABASE_URL}',
    config: { tables },
  } as Parameters<typeof connectSource>[1]);
}

/**
 * Starts the source and returns when all of its tables stream. Looks at their records, which costs next to nothing, and
 * only now and then at the source. Errors: whatever stopped it.
 */
export async function startAndWait(control: Control, id: string, tables = 1): Promise<void> {
  await orderSource(control, id, 'start');
  for (let look = 1; (await completeTables(control, id)) < tables; look++) {
    await sleep(200);
    if (look % 10 > 0) continue;
    const status = await query<CaptureStatus>(control, captureWorkflowId(id), captureMessages.status);
    const failed = status.last_error ?? status.tables.find((table) => table.error)?.error;
    if (failed) throw new SluiceError('unexpected', failed.reason, failed.remedy, { source: id });
  }
}

async function completeTables({ clickhouse }: Control, id: string): Promise<number> {
  const [found] = await clickhouse
    .rows<{ tables: string }>(
      `SELECT uniqExact(id) AS tables FROM ${clickhouse.name('_batches')} WHERE source = {id:String} AND kind = 'complete'`,
      { params: { id } },
    )
    // The table is made by the start.
    .catch(() => []);
  return Number(found?.tables ?? 0);
}
