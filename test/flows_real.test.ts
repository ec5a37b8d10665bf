/** Flows, worker and activities together on real parts: PostgreSQL, ClickHouse engine, Temporal, a worker process. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Client, WithStartWorkflowOperation } from '@temporalio/client';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { type ConnectAnswer, captureWorkflowId, catalogWorkflowId, flowNames } from '../model/messages.ts';
import type { CaptureStatus, ConnectRequest } from '../model/source.ts';
import { nodeArguments } from '../workers/child.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { projectFolder } from '../workers/settings.ts';
import { askFlow, connectTemporal, updateFlow, updateWithStart } from '../workers/temporal_client.ts';

const taskQueue = 'flows-real';
let parts: StartedParts<'postgres' | 'clickhouse' | 'temporal'>;
let client: Client;
let database: pg.Client;
let clickhouse: ClickHouse;
let worker: WorkerProcess;

/** The worker as the stack runs it. */
class WorkerProcess {
  readonly child: ChildProcess;
  readonly log: string[] = [];
  readonly ready: Promise<void>;
  readonly gone: Promise<unknown>;

  constructor() {
    this.child = spawn(process.execPath, nodeArguments('workers/worker.ts'), {
      cwd: projectFolder,
      env: {
        ...process.env,
        SLUICE_HOME: parts.home,
        TEMPORAL_ADDRESS: parts.temporal.url,
        TEMPORAL_TASK_QUEUE: taskQueue,
        CLICKHOUSE_URL: parts.clickhouse.url,
        REAL_DATABASE_URL: parts.postgres.url,
        SLUICE_SECRET_KEY: 'test',
      },
      stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
    });
    this.gone = new Promise((resolve) => this.child.once('exit', resolve));
    createInterface({ input: this.child.stderr! }).on('line', (line) => this.log.push(line));
    this.ready = new Promise((resolve, reject) => {
      createInterface({ input: this.child.stdout! }).on('line', () => resolve());
      setTimeout(() => reject(new Error(`the worker is not ready: ${this.log.join('\n')}`)), 30_000).unref();
    });
    this.ready.catch(() => {});
  }

  async kill(): Promise<void> {
    this.child.kill('SIGKILL');
    await this.gone;
  }
}

beforeAll(async () => {
  parts = await startParts(['postgres', 'clickhouse', 'temporal']);
  client = await connectTemporal({ temporalAddress: parts.temporal.url, temporalNamespace: 'default' });
  database = new pg.Client({ connectionString: parts.postgres.url });
  await database.connect();
  clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'read' });
  worker = new WorkerProcess();
  await worker.ready;
}, 120_000);

afterAll(async () => {
  await worker?.kill();
  await database?.end();
  await clickhouse?.close();
  await client?.connection.close();
  await parts?.[Symbol.asyncDispose]();
}, 60_000);

async function connect(id: string, ...tables: string[]): Promise<string> {
  const request: ConnectRequest = {
    id,
    type: 'postgresql',
    connection_string: '${REAL_DATABASE_URL}',
    config: { tables, poll_interval: 0.2, mode: 'copy', exclude_columns: {}, options: {} },
  };
  const flow = captureWorkflowId(id);
  const start = new WithStartWorkflowOperation(flowNames.captureSource, {
    workflowId: flow,
    taskQueue,
    args: [request],
    workflowIdConflictPolicy: 'USE_EXISTING',
  });
  const answer = await updateWithStart<ConnectAnswer>(client, start, 'connect', request);
  expect(answer.outcome, JSON.stringify(answer)).toBe('created');
  return flow;
}

const statusOf = (flow: string) => askFlow<CaptureStatus>(client, flow, 'status');

async function until(what: string, look: () => Promise<boolean>, seconds = 60): Promise<void> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const found = await look().catch((error: Error) => error);
    if (found === true) return;
    if (Date.now() > end) throw new Error(`not ${what} in ${seconds} s: ${found}\n${worker.log.slice(-20).join('\n')}`);
    await sleep(100);
  }
}

const untilStreaming = (flow: string) => until('streaming', async () => (await statusOf(flow)).status === 'streaming');

async function makeTable(name: string, rows: number): Promise<void> {
  await database.query(`CREATE TABLE ${name} (id bigint PRIMARY KEY, value text NOT NULL)`);
  await database.query(`INSERT INTO ${name} SELECT i, repeat('x', 100) || i FROM generate_series(1, ${rows}) AS i`);
}

/** Both sides as the same text: count and sum of ids, and the values' own sum. */
async function sides(source: string, table: string): Promise<[string, string]> {
  const { rows } = await database.query(
    `SELECT count(*) || '/' || coalesce(sum(id), 0) || '/' || coalesce(sum(length(value)), 0) AS sum FROM ${table}`,
  );
  const copy = clickhouse.name(`${source}_${table}`);
  const [found] = await clickhouse.rows<{ sum: string }>(
    `SELECT concat(toString(count()), '/', toString(sum(id)), '/', toString(sum(length(value)))) AS sum FROM ${copy} FINAL`,
  );
  return [rows[0].sum, found!.sum];
}

const untilEqual = (source: string, table: string) =>
  until('equal', async () => {
    const [left, right] = await sides(source, table);
    if (left !== right) throw new Error(`${left} in the source, ${right} in the copy`);
    return true;
  });

/** Changes for as long as the test needs them. */
function keepChanging(table: string): { stop(): Promise<void> } {
  let going = true;
  const ended = (async () => {
    for (let turn = 1; going; turn += 1) {
      await database.query(`INSERT INTO ${table} VALUES ($1, 'new') ON CONFLICT DO NOTHING`, [1_000_000 + turn]);
      await database.query(`UPDATE ${table} SET value = value || '.' WHERE id = $1`, [1 + (turn % 50)]);
      await database.query(`DELETE FROM ${table} WHERE id = $1`, [1_000_000 + turn - 20]);
      await sleep(10);
    }
  })();
  return {
    async stop() {
      going = false;
      await ended;
    },
  };
}

/** What readers of a copy see as its number of rows, until they stop looking. */
function watchCopy(asset: string): { stop(): Promise<string[]> } {
  const counts = new Set<string>();
  let going = true;
  const ended = (async () => {
    while (going) {
      const sql = `SELECT toString(count()) AS count FROM ${clickhouse.name(asset)} FINAL`;
      counts.add((await clickhouse.rows<{ count: string }>(sql))[0]!.count);
      await sleep(5);
    }
  })();
  return {
    async stop() {
      going = false;
      await ended;
      return [...counts];
    },
  };
}

const recordsOf = async (source: string) => {
  const sql = `SELECT count() AS count FROM ${clickhouse.name('_batches')} FINAL WHERE source = '${source}'`;
  return Number((await clickhouse.rows<{ count: string }>(sql))[0]!.count);
};

describe('capture on real parts', () => {
  it('answers a pause within 1.5 s when the lease has ended, goes on, and outlives a killed worker', async () => {
    await makeTable('accounts', 5_000);
    const flow = await connect('pausing', 'accounts');
    await updateFlow(client, flow, 'start');
    await untilStreaming(flow);
    const changes = keepChanging('accounts');
    await sleep(1_000);
    const times: number[] = [];
    for (let round = 0; round < 3; round += 1) {
      const asked = Date.now();
      const paused = await updateFlow<CaptureStatus>(client, flow, 'pause');
      times.push(Date.now() - asked);
      expect(paused.status).toBe('paused');
      const { rows } = await database.query(
        "SELECT 1 FROM pg_replication_slots WHERE active AND slot_type = 'logical'",
      );
      const records = await recordsOf('pausing');
      await sleep(1_000);
      expect(await recordsOf('pausing')).toBe(records);
      expect(rows).toEqual([]);
      await updateFlow(client, flow, 'resume');
      await until('another record', async () => (await recordsOf('pausing')) > records + 1);
    }
    // The quickest: a busy machine may delay the others.
    expect(Math.min(...times), `pauses took ${times.join(', ')} ms`).toBeLessThan(1_500);

    const { lease } = await statusOf(flow);
    await worker.kill();
    const killed = Date.now();
    worker = new WorkerProcess();
    await worker.ready;
    const records = await recordsOf('pausing');
    await until('the next attempt', async () => (await recordsOf('pausing')) > records);
    // Heartbeat timeout 10 s, then the first retry after 1 s.
    expect(Date.now() - killed).toBeLessThan(30_000);
    await changes.stop();
    await untilEqual('pausing', 'accounts');
    expect(await statusOf(flow)).toMatchObject({ status: 'streaming', lease, last_error: null });
    await updateFlow(client, flow, 'remove', { drop_copies: true });
  });

  it('goes on behind its last record when its flow is set back to an earlier moment', async () => {
    await makeTable('set_back', 1_000);
    const flow = await connect('set_back', 'set_back');
    await updateFlow(client, flow, 'start');
    await untilStreaming(flow);
    const handle = client.workflow.getHandle(flow);
    const { events } = await handle.fetchHistory();
    for (let round = 0; round < 2; round += 1) {
      await updateFlow(client, flow, 'pause');
      await updateFlow(client, flow, 'resume');
      const records = await recordsOf('set_back');
      await database.query("UPDATE set_back SET value = value || '!' WHERE id <= 10");
      await until('another record', async () => (await recordsOf('set_back')) > records + 1);
    }
    const { lease } = await statusOf(flow);
    const changes = keepChanging('set_back');
    const { runId } = await handle.describe();
    // As the button in Temporal UI does; what was sent since is sent again.
    await client.workflowService.resetWorkflowExecution({
      namespace: 'default',
      workflowExecution: { workflowId: flow, runId },
      workflowTaskFinishEventId: events!.findLast((event) => event.workflowTaskCompletedEventAttributes)!.eventId!,
      reason: 'test',
      requestId: 'set-back',
    });
    await until('a later lease', async () => (await statusOf(flow)).lease > lease);
    await untilStreaming(flow);
    await changes.stop();
    await untilEqual('set_back', 'set_back');
    expect(await statusOf(flow)).toMatchObject({ status: 'streaming', last_error: null });
  });

  it('loses no row when its flow is lost in the midst of a snapshot', async () => {
    await makeTable('orders', 400_000);
    const flow = await connect('losing', 'orders');
    await updateFlow(client, flow, 'start');
    const chunks = `SELECT count() AS count FROM ${clickhouse.name('_batches')} FINAL WHERE source = 'losing' AND kind = 'chunk'`;
    await until('some chunks', async () => Number((await clickhouse.rows<{ count: string }>(chunks))[0]!.count) >= 2);
    await client.workflow.getHandle(flow).terminate('lost');
    await database.query('DELETE FROM orders WHERE id % 7 = 0');
    await database.query("UPDATE orders SET value = 'after' WHERE id % 11 = 0");
    await connect('losing', 'orders');
    await updateFlow(client, flow, 'start');
    await untilStreaming(flow);
    await untilEqual('losing', 'orders');
  });

  it('needs no catalog, which somebody has deleted', async () => {
    await makeTable('unlisted', 1_000);
    const flow = await connect('uncatalogued', 'unlisted');
    const catalog = { workflowId: catalogWorkflowId };
    await client.workflowService.deleteWorkflowExecution({ namespace: 'default', workflowExecution: catalog });
    await until('deleted', () =>
      client.workflow
        .getHandle(catalogWorkflowId)
        .describe()
        .then(
          () => false,
          () => true,
        ),
    );
    await updateFlow(client, flow, 'start');
    await untilStreaming(flow);
    await untilEqual('uncatalogued', 'unlisted');
    await updateFlow(client, flow, 'remove', { drop_copies: true });
  });

  it('copies a table anew by itself when its definition asks for it, while its neighbour streams on', async () => {
    await makeTable('widened', 30_000);
    await makeTable('beside_it', 100);
    const flow = await connect('healing', 'widened', 'beside_it');
    const widened = async () => (await statusOf(flow)).tables.find((table) => table.table === 'widened')!;
    await updateFlow(client, flow, 'start');
    await untilStreaming(flow);
    const changes = keepChanging('beside_it');
    const seen = watchCopy('healing_widened');
    // In place first: nothing stands still for it.
    await database.query('ALTER TABLE widened ADD COLUMN note text DEFAULT $$none$$');
    await database.query("UPDATE widened SET note = 'set' WHERE id = 1");
    await until('the new column', async () => {
      const rows = await clickhouse.rows<{ note: string }>(
        `SELECT DISTINCT note FROM ${clickhouse.name('healing_widened')} FINAL ORDER BY note`,
      );
      return rows.map((row) => row.note).join() === 'none,set';
    });
    expect(await widened()).toMatchObject({ status: 'streaming', generation: 1 });
    // Then a rewrite.
    await database.query('ALTER TABLE widened ALTER COLUMN value TYPE varchar(200) USING repeat($$y$$, 10)');
    await database.query("UPDATE widened SET value = 'after' WHERE id = 2");
    await until('copied anew', async () => (await widened()).notice !== null);
    const during = await statusOf(flow);
    expect(during).toMatchObject({ status: 'snapshotting', last_error: null });
    expect(during.tables).toMatchObject([
      { table: 'beside_it', status: 'streaming', notice: null },
      {
        table: 'widened',
        error: null,
        notice: expect.stringContaining('value was text and is character varying(200)'),
      },
    ]);
    await untilStreaming(flow);
    expect(await widened()).toMatchObject({ generation: 2, notice: null, error: null });
    await untilEqual('healing', 'widened');
    const counts = await seen.stop();
    // The old copy, with a row more or less as changes come; the new one; never anything between.
    expect(counts).toEqual(['30000']);
    await changes.stop();
    await untilEqual('healing', 'beside_it');

    // It goes, and comes back under its name.
    await database.query('DROP TABLE widened');
    await until('gone', async () => (await widened()).error?.kind === 'table_missing');
    expect(await statusOf(flow)).toMatchObject({ status: 'streaming', last_error: null });
    await makeTable('widened', 50);
    await until('back', async () => (await widened()).status === 'streaming');
    await untilEqual('healing', 'widened');
    await updateFlow(client, flow, 'remove', { drop_copies: true });
    const left = await clickhouse.rows(
      `SELECT name FROM system.tables WHERE database = 'sluice' AND name LIKE '%widened%'`,
    );
    expect(left).toEqual([]);
  });

  it('fails with a remedy when its slot is dropped, which heals it; one table is copied anew while the other streams', async () => {
    await makeTable('lost', 2_000);
    await makeTable('kept', 2_000);
    const flow = await connect('slotless', 'lost', 'kept');
    await updateFlow(client, flow, 'start');
    await untilStreaming(flow);
    const changes = keepChanging('kept');
    await database.query(
      `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = 'sluice_slotless'`,
    );
    await database.query(`SELECT pg_drop_replication_slot('sluice_slotless')`);
    await until('failed', async () => (await statusOf(flow)).status === 'failed');
    expect((await statusOf(flow)).last_error).toMatchObject({
      kind: 'slot_lost',
      reason: expect.stringContaining('is gone'),
      remedy: expect.stringContaining('sluice sources resync slotless'),
    });
    await database.query('DELETE FROM lost WHERE id <= 1000');
    await updateFlow(client, flow, 'resync');
    await untilStreaming(flow);
    await untilEqual('slotless', 'lost');
    const state = async (name: string) => (await statusOf(flow)).tables.find((table) => table.table === name)!;
    expect(await state('kept')).toMatchObject({ status: 'streaming', generation: 2 });

    await updateFlow(client, flow, 'resync', { tables: ['lost'] });
    expect(await state('kept')).toMatchObject({ status: 'streaming', generation: 2 });
    await untilStreaming(flow);
    expect(await state('lost')).toMatchObject({ generation: 3, error: null });
    expect(await state('kept')).toMatchObject({ status: 'streaming', generation: 2 });
    await changes.stop();
    for (const table of ['lost', 'kept']) await untilEqual('slotless', table);
    await updateFlow(client, flow, 'remove', { drop_copies: true });
  });
});
