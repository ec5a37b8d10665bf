/** The flows on a real Temporal server, with activities by script: what runs when, and what people are answered. */

import { type Client, WithStartWorkflowOperation } from '@temporalio/client';
import { type ApplicationFailure, RawValue } from '@temporalio/common';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { type ErrorKind, SluiceError } from '../model/errors.ts';
import {
  type ConnectAnswer,
  captureWorkflowId,
  flowNames,
  type LogLook,
  logWorkflowId,
  type SourcePlan,
} from '../model/messages.ts';
import type { CaptureConfig, CaptureStatus, ConnectRequest } from '../model/source.ts';
import { createLog } from '../workers/log.ts';
import { readSettings } from '../workers/settings.ts';
import { askFlow, connectTemporal, updateFlow, updateWithStart } from '../workers/temporal_client.ts';
import { runWorker } from '../workers/worker.ts';
import { recordHistory } from './histories.ts';
import { newScript, type Script, ScriptedCapture } from './scripted_capture.ts';
import { startTemporal, type TemporalServer } from './temporal_server.ts';

const taskQueue = 'flows-test';
const capture = new ScriptedCapture();
const ending = new AbortController();
let server: TemporalServer;
let client: Client;
let worker: Promise<void>;

beforeAll(async () => {
  server = await startTemporal();
  const settings = {
    ...readSettings({ SLUICE_HOME: server.folder, TEMPORAL_ADDRESS: server.address }),
    taskQueue,
  };
  client = await connectTemporal(settings);
  await new Promise<void>((ready, failed) => {
    const log = createLog('worker', process.env.LOG_LEVEL ?? 'error');
    worker = runWorker({ settings, log, activities: () => capture, signal: ending.signal, ready });
    worker.catch(failed);
  });
}, 60_000);

/** Flows whose histories are kept for test/replay.test.ts when RECORD_HISTORIES is set, by file name. */
const recorded = new Map<string, string>();

afterAll(async () => {
  expect(capture.broken).toEqual([]);
  if (process.env.RECORD_HISTORIES) {
    for (const [name, flow] of recorded) await recordHistory(server, flow, name);
  }
  ending.abort();
  await worker;
  await client?.connection.close();
  await server?.stop();
}, 30_000);

let sources = 0;

/** A source of its own for each test. */
function newSource(tables = ['accounts', 'orders']): { id: string; script: Script; flow: string } {
  sources += 1;
  const id = `source_${sources}`;
  const script = newScript(tables);
  capture.scripts.set(id, script);
  return { id, script, flow: captureWorkflowId(id) };
}

function requestOf(id: string, config: Partial<CaptureConfig> = {}): ConnectRequest {
  const usual: CaptureConfig = { poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} };
  return { id, type: 'postgresql', connection_string: '${DATABASE_URL}', config: { ...usual, ...config } };
}

/** Connects as the API does: start and update in one call. */
function connect(request: ConnectRequest, limits: object = {}): Promise<ConnectAnswer> {
  const start = new WithStartWorkflowOperation(flowNames.captureSource, {
    workflowId: captureWorkflowId(request.id),
    taskQueue,
    args: [request, { limits }],
    workflowIdConflictPolicy: 'USE_EXISTING',
  });
  return updateWithStart<ConnectAnswer>(client, start, 'connect', request);
}

const update = (flow: string, name: string, input?: unknown) => updateFlow<CaptureStatus>(client, flow, name, input);

/** The state of a source. A machine that is busy with other things may answer late: that is no failure of the flow. */
async function statusOf(flow: string): Promise<CaptureStatus> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await askFlow<CaptureStatus>(client, flow, 'status');
    } catch (error) {
      if (attempt >= 10 || !(error instanceof SluiceError) || error.kind !== 'no_worker') throw error;
    }
  }
}

async function until<T>(
  what: string,
  look: () => Promise<T> | T,
  right: (value: T) => boolean,
  seconds = 30,
): Promise<T> {
  const end = Date.now() + seconds * 1000;
  for (;;) {
    const value = await look();
    if (right(value)) return value;
    if (Date.now() > end) throw new Error(`not ${what} within ${seconds} s: ${JSON.stringify(value)}`);
    await new Promise((resolve) => setTimeout(resolve, 150));
  }
}

const untilStatus = (flow: string, status: string, seconds = 30) =>
  until(
    status,
    () => statusOf(flow),
    (value) => value.status === status,
    seconds,
  );

const untilLease = (id: string, lease: number) =>
  until(
    `lease ${lease}`,
    () => capture.running(id, 'captureLease'),
    (calls) => calls.some((it) => it.lease! >= lease),
    30,
  );

async function streamingSource(tables?: string[]): Promise<ReturnType<typeof newSource>> {
  const source = newSource(tables);
  await connect(requestOf(source.id));
  await update(source.flow, 'start');
  await untilStatus(source.flow, 'streaming');
  return source;
}

const tablesOf = (status: CaptureStatus) => status.tables.map((t) => [t.table, t.status, t.generation]);

async function refusal(promise: Promise<unknown>): Promise<{ kind: ErrorKind; text: string }> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof SluiceError) return { kind: error.kind, text: `${error.message} ${error.remedy}` };
    throw error;
  }
  throw new Error('it was not refused');
}

describe.concurrent('connect', () => {
  it('creates a source that waits to be started, knows it again, and refuses another under its name', async () => {
    const { id } = newSource();
    const first = await connect(requestOf(id));
    expect(first.outcome).toBe('created');
    expect(first.status).toMatchObject({ status: 'connected', lease: 0 });
    expect(first.status?.tables.map((table) => [table.asset_id, table.status])).toEqual([
      [`${id}_accounts`, 'pending'],
      [`${id}_orders`, 'pending'],
    ]);
    expect(JSON.stringify(first)).not.toContain('DATABASE_URL');
    expect((await connect(requestOf(id))).outcome).toBe('same');
    expect((await connect(requestOf(id, { tables: ['orders', 'accounts'] }))).outcome).toBe('same');
    expect((await connect(requestOf(id, { poll_interval: 2 }))).outcome).toBe('conflict');
    expect((await connect(requestOf(id, { tables: ['accounts'] }))).outcome).toBe('conflict');
    expect(capture.callsOf(id, 'prepareSource')).toEqual([]);
  });

  it('is refused with findings when the source is not ready, and leaves no flow behind', async () => {
    const { id, flow, script } = newSource();
    script.findings = [
      { code: 'wal_level', blocking: true, detail: 'wal_level is replica', remedy: 'Set it to logical.' },
    ];
    const answer = await connect(requestOf(id));
    expect(answer).toMatchObject({ outcome: 'refused', findings: script.findings, status: null });
    await until(
      'closed',
      () => client.workflow.getHandle(flow).describe(),
      (it) => it.status.name === 'COMPLETED',
    );
    script.findings = [
      { code: 'slots', blocking: false, detail: 'one slot is left', remedy: 'Raise max_replication_slots.' },
    ];
    expect(await connect(requestOf(id))).toMatchObject({ outcome: 'created', findings: script.findings });
  });

  it('says so when the source does not answer', async () => {
    const { id, script } = newSource();
    const away = () => new SluiceError('source_unreachable', 'PostgreSQL: refused', 'See that the source runs.');
    script.failures.preflightSource = [away(), away(), away()];
    const answer = await connect(requestOf(id));
    expect(answer.outcome).toBe('refused');
    expect(answer.findings).toMatchObject([
      { code: 'source_unreachable', blocking: true, detail: 'PostgreSQL: refused' },
    ]);
  });

  it('is refused when its state would grow too large', async () => {
    const tables = Array.from({ length: 3000 }, (_, index) => `a_table_with_quite_a_long_name_${index}`);
    const { id, script } = newSource(tables);
    const answer = await connect(requestOf(id));
    expect(answer).toMatchObject({ outcome: 'refused', findings: [{ code: 'too_many_tables' }] });
    script.tables = tables.slice(0, 100);
    expect((await connect(requestOf(id))).outcome).toBe('created');
    script.tables = tables;
    const more = { tables: tables.slice(100) };
    expect(await refusal(update(captureWorkflowId(id), 'addTables', more))).toMatchObject({ kind: 'configuration' });
  });

  it('takes a new connection string of the same source', async () => {
    const { id, flow } = newSource();
    await connect(requestOf(id));
    const renewed = { ...requestOf(id), connection_string: 'sealed:v1:bmV3' };
    expect((await connect(renewed)).outcome).toBe('same');
    await update(flow, 'start');
    await untilStatus(flow, 'streaming');
    expect(capture.callsOf(id, 'captureLease').map((call) => call.connection)).toEqual(['sealed:v1:bmV3']);
  });
});

describe.concurrent('started from the temporal CLI', () => {
  const start = (type: string, workflow: string, input: unknown) =>
    server.cli(
      'workflow',
      'execute',
      '--type',
      type,
      '--workflow-id',
      workflow,
      '--task-queue',
      taskQueue,
      '--input',
      JSON.stringify(input),
    );

  it('runs preflight by itself, and is known to the catalog', async () => {
    const { id, flow } = newSource();
    const request = { id, type: 'postgresql', connection_string: '${DATABASE_URL}' };
    await server.cli(
      'workflow',
      'start',
      '--type',
      'captureSource',
      '--workflow-id',
      flow,
      '--task-queue',
      taskQueue,
      '--input',
      JSON.stringify(request),
    );
    await untilStatus(flow, 'connected');
    const known = () => askFlow<ConnectRequest | null>(client, 'catalog', 'source', id);
    const kept = await until('in the catalog', known, (it) => it !== null);
    expect(kept).toEqual(requestOf(id));
    expect((await connect(requestOf(id))).outcome).toBe('same');
    const started = await server.cli('workflow', 'update', 'execute', '--workflow-id', flow, '--name', 'start');
    expect(started.stdout + started.stderr).toContain('snapshotting');
    await untilStatus(flow, 'streaming');
  });

  it('fails with the findings when the source is not ready', async () => {
    const { id, flow, script } = newSource();
    script.findings = [
      { code: 'wal_level', blocking: true, detail: 'wal_level is replica', remedy: 'Set it to logical.' },
    ];
    const { stdout, stderr, code } = await start('captureSource', flow, requestOf(id));
    expect(code).not.toBe(0);
    expect(stdout + stderr).toContain('wal_level is replica → Set it to logical.');
  });

  it.each([
    ['captureSource', 'capture/wrong_1', {}, '`id` must be a small letter'],
    ['captureSource', 'capture/wrong_2', [], 'not a connect request'],
    ['captureSource', 'capture/wrong_3', { ...requestOf('wrong'), typ: 1 }, 'unknown key `typ`'],
    [
      'captureSource',
      'capture/wrong_4',
      requestOf('wrong', { poll_interval: 0 }),
      '`config.poll_interval` must be seconds',
    ],
    ['verifyCopy', 'verify/wrong', { sauce: 'x' }, '{"source": "postgres_main", "table": "accounts"}'],
  ])('refuses wrong input of %s at once and shows right input (%s %j)', async (type, workflow, input, text) => {
    const { stdout, stderr, code } = await start(type, workflow, input);
    expect(code).not.toBe(0);
    expect(stdout + stderr).toContain(text);
    expect(stdout + stderr).toContain('Right is e.g. {');
  });

  it('refuses a plain connection string without repeating it', async () => {
    const request = { ...requestOf('plain'), connection_string: 'postgresql://u:hunter2@localhost/db' };
    const { stdout, stderr, code } = await start('captureSource', 'capture/plain', request);
    expect(code).not.toBe(0);
    expect(stdout + stderr).toContain('plain text');
    const failed = await client.workflow.getHandle('capture/plain').fetchHistory();
    const end = JSON.stringify(failed.events?.at(-1)?.workflowExecutionFailedEventAttributes);
    expect(end).toContain('If it held a password, change that.');
    expect(end).not.toContain('hunter2');
  });

  it('says at once which flows there are when there is none of that name', async () => {
    const { stdout, stderr, code } = await start('extractAsset', 'assets/typo', { deployment: 'assets' });
    expect(code).not.toBe(0);
    const text = stdout + stderr;
    expect(text).toContain('there is no flow extractAsset (configuration). Did you mean extractAssets?');
    for (const name of Object.values(flowNames)) expect(text).toContain(name);
    expect(text).toContain('docs/temporal-ui.md');
  });

  it('refuses another workflow id than that of its source', async () => {
    const { id } = newSource();
    const { stdout, stderr } = await start('captureSource', 'mine', requestOf(id));
    expect(stdout + stderr).toContain(`--workflow-id capture/${id}`);
  });

  it('compares a source with its copy', async () => {
    const { id } = newSource();
    const { stdout, code } = await start('verifyCopy', `verify/${id}`, { source: id });
    expect(code).toBe(0);
    expect(stdout).toContain('"identical":true');
    recorded.set('verify', `verify/${id}`);
  });
});

describe.concurrent('input that cannot be read', () => {
  const bytes = (text: string) => new TextEncoder().encode(text);
  /** What a form or a program sends that encodes otherwise than we do. */
  const payload = (encoding: string, data: string) =>
    RawValue.fromPayload({ metadata: { encoding: bytes(encoding) }, data: bytes(data) });

  it.each([
    ['captureSource', 'capture/unread_1', payload('json/protobuf', '{}'), 'json/protobuf', '"id": "postgres_main"'],
    [
      'extractAssets',
      'unread/2',
      payload('json/plain', '{"deployment": "hunter2"'),
      'no JSON',
      '"deployment": "assets"',
    ],
    ['backfill', 'unread/3', payload('binary/encrypted', 'hunter2'), 'binary/encrypted', '"only_missing": true'],
    ['verifyCopy', 'unread/4', payload('json/plain', ''), 'no JSON', '"source": "postgres_main"'],
  ])('is refused by %s as wrong input is', async (type, workflowId, input, reason, right) => {
    const handle = await client.workflow.start(type, { workflowId, taskQueue, args: [input] });
    const { cause } = (await handle.result().catch((error: unknown) => error)) as { cause: ApplicationFailure };
    expect(cause).toMatchObject({ type: 'configuration', message: expect.stringContaining(reason) });
    expect(cause.message).toContain(`Right is e.g. {`);
    expect(cause.message).toContain(right);
    expect(cause.message).not.toContain('hunter2');
  });

  it('does not hold up a flow that runs', async () => {
    const { flow } = await streamingSource();
    const handle = client.workflow.getHandle(flow);
    const wrong = [payload('json/protobuf', '{"tables": ["accounts"]}'), payload('json/plain', '{'), {}, null];
    for (const input of wrong) await handle.signal('snapshotProgress', input);
    for (const name of ['resync', 'pause', 'connect', 'remove']) {
      const sent = handle.executeUpdate(name, { args: [wrong[0]] });
      await expect(sent).rejects.toMatchObject({ cause: { type: 'configuration' } });
    }
    const told = await refusal(update(flow, 'addTables', wrong[1]));
    expect(told).toMatchObject({
      kind: 'configuration',
      text: expect.stringContaining('cannot be read: it is no JSON'),
    });
    expect((await statusOf(flow)).status).toBe('streaming');
  });
});

describe('pause', () => {
  it('answers a pause when its lease has ended, within 1.5 s, and goes on without a snapshot', async () => {
    const { id, flow } = await streamingSource();
    const times: number[] = [];
    for (let round = 1; round <= 3; round += 1) {
      const asked = Date.now();
      const paused = await update(flow, 'pause');
      times.push(Date.now() - asked);
      expect(capture.running(id, 'captureLease')).toEqual([]);
      expect(paused.status).toBe('paused');
      expect(paused.position).toBe('0/200');
      expect(paused.warning).toMatch(/keeps the log from position 0\/200/);
      const chunks = capture.callsOf(id, 'copyChunk').length;
      const resumed = await update(flow, 'resume');
      expect(resumed).toMatchObject({ status: 'streaming', warning: null });
      await untilLease(id, round + 1);
      expect(capture.callsOf(id, 'copyChunk').length).toBe(chunks);
    }
    // The quickest: a busy machine may delay the others.
    expect(Math.min(...times), `pauses took ${times.join(', ')} ms`).toBeLessThan(1500);
    recorded.set('pause', flow);
  });
});

describe.concurrent('a source that runs', () => {
  it('snapshots beside its leases, then streams, and shows itself to people', async () => {
    const { id, flow } = newSource();
    await connect(requestOf(id));
    const started = await update(flow, 'start');
    expect(started.status).toBe('snapshotting');
    const streaming = await untilStatus(flow, 'streaming');
    expect(streaming.tables.map((t) => [t.status, t.snapshot_rows, t.chunks_done, t.generation])).toEqual([
      ['streaming', 30, 3, 1],
      ['streaming', 30, 3, 1],
    ]);
    expect(streaming.lease).toBe(1);
    const { stdout } = await server.cli('workflow', 'metadata', '--workflow-id', flow, '-o', 'json');
    const { currentDetails, definition } = JSON.parse(stdout).queryResult[0];
    expect(currentDetails).toMatch(/^\*\*streaming\*\* · 2 tables\n/);
    expect(currentDetails).toContain('- `accounts` · **streaming** · 30 rows by snapshot 1');
    const described: { name: string; description?: string }[] = [
      ...definition.updateDefinitions,
      ...definition.queryDefinitions,
      ...definition.signalDefinitions,
    ];
    const named = [
      'connect',
      'start',
      'pause',
      'resume',
      'stop',
      'addTables',
      'removeTables',
      'resync',
      'approveSchema',
      'configure',
      'plan',
      'remove',
      'status',
      'snapshotProgress',
    ];
    for (const name of named) {
      expect(described.find((it) => it.name === name)?.description, name).toMatch(/\w/);
    }
    const { searchAttributes } = await client.workflow.getHandle(flow).describe();
    expect(searchAttributes).toMatchObject({
      SluiceSource: [id],
      SluiceFlow: ['captureSource'],
      SluicePhase: ['streaming'],
    });
    recorded.set('snapshot', flow);
    recorded.set('snapshot_child', `snapshot/${id}/${id}_accounts/1`);
  });

  it('goes on from the records when its flow was lost, without a snapshot', async () => {
    const { id, flow, script } = newSource();
    script.snapshotDone = [`${id}_accounts/1`, `${id}_orders/1`];
    script.lastLease = 7;
    await connect(requestOf(id));
    await update(flow, 'start');
    expect((await untilStatus(flow, 'streaming')).lease).toBe(8);
    expect(capture.callsOf(id, 'planSnapshot')).toEqual([]);
  });

  it('tries a lease again that failed for a passing reason', async () => {
    const { id, flow, script } = await streamingSource();
    script.failures.captureLease = [new SluiceError('source_unreachable', 'cut off', 'It is tried again.')];
    const attempts = () => capture.callsOf(id, 'captureLease').map((call) => [call.lease, call.attempt]);
    await until('tried again', attempts, (calls) => calls.length === 2);
    expect(attempts()).toEqual([
      [1, 1],
      [1, 2],
    ]);
    expect((await statusOf(flow)).status).toBe('streaming');
  });

  it('stops for an error that does not pass, says what to do, and tries again when told to', async () => {
    const { id, flow, script } = await streamingSource();
    script.failures.captureLease = [new SluiceError('slot_lost', 'the slot is gone', 'Re-sync the source.')];
    const failed = await untilStatus(flow, 'failed');
    expect(failed.last_error).toEqual({ kind: 'slot_lost', reason: 'the slot is gone', remedy: 'Re-sync the source.' });
    script.failures.prepareSource = [new SluiceError('source_refused', 'no right to', 'Grant it.')];
    await update(flow, 'start');
    const again = await until(
      'failed again',
      () => statusOf(flow),
      (it) => it.last_error?.kind === 'source_refused',
    );
    expect(again.status).toBe('failed');
    expect((await update(flow, 'resume')).last_error).toBeNull();
    await untilLease(id, 2);
    expect((await statusOf(flow)).status).toBe('streaming');
    recorded.set('failures', flow);
  });

  it('copies anew when the slot is new', async () => {
    const { id, flow, script } = await streamingSource();
    script.failures.captureLease = [new SluiceError('slot_lost', 'the slot is gone', 'Start again.')];
    await untilStatus(flow, 'failed');
    script.start = '0/300';
    script.newSlot = true;
    await update(flow, 'start');
    await until(
      'prepared',
      () => statusOf(flow),
      (it) => it.tables[0]?.generation === 2,
    );
    const status = await untilStatus(flow, 'streaming');
    expect(status.tables.map((t) => [t.start_position, t.generation])).toEqual([
      ['0/300', 2],
      ['0/300', 2],
    ]);
    expect(capture.callsOf(id, 'copyChunk').length).toBe(12);
  });

  it('has a lost slot made anew when all is re-synced, however whole it looks', async () => {
    const { id, flow, script } = await streamingSource();
    script.failures.captureLease = [new SluiceError('slot_lost', 'could not map filenumber', 'Re-sync the source.')];
    await untilStatus(flow, 'failed');
    script.failures.prepareSource = [new SluiceError('source_unreachable', 'not yet', 'It is tried again.')];
    await update(flow, 'resync');
    await untilStatus(flow, 'streaming');
    await update(flow, 'resync');
    await untilLease(id, 3);
    expect(capture.callsOf(id, 'prepareSource').map((call) => call.renew)).toEqual([undefined, true, true, undefined]);
  });

  it('lets a poisoned table stop alone, until it is re-synced', async () => {
    const { id, flow, script } = await streamingSource();
    script.failTables[`${id}_orders`] = { kind: 'rows_refused', reason: 'spoiled', remedy: 'Re-sync it.' };
    await untilLease(id, 2);
    const status = await statusOf(flow);
    expect(status.status).toBe('streaming');
    expect(status.tables.map((t) => t.status)).toEqual(['streaming', 'failed']);
    expect(status.tables[1]?.error).toMatchObject({ kind: 'rows_refused', reason: 'spoiled' });
    expect(capture.running(id, 'captureLease').map((call) => call.tables)).toEqual([['accounts']]);
    await update(flow, 'resync', { tables: ['orders'] });
    const healed = await untilStatus(flow, 'streaming');
    expect(healed.tables.map((t) => [t.status, t.generation, t.error])).toEqual([
      ['streaming', 1, null],
      ['streaming', 2, null],
    ]);
    recorded.set('poisoned_table', flow);
  });

  it('is failed when all of its tables are', async () => {
    const { id, flow, script } = await streamingSource();
    for (const table of ['accounts', 'orders']) {
      script.failTables[`${id}_${table}`] = {
        kind: 'rows_refused',
        reason: `${table} spoiled`,
        remedy: 'Re-sync it.',
      };
    }
    expect((await untilStatus(flow, 'failed')).last_error?.reason).toBe('accounts spoiled');
    expect(capture.running(id, 'captureLease')).toEqual([]);
    await update(flow, 'resync');
    await untilStatus(flow, 'streaming');
  });

  it('lets a table fail whose chunk fails for good, and ends its other chunks', async () => {
    const { id, flow, script } = newSource();
    script.chunks = 20;
    script.failures.copyChunk = [new SluiceError('rows_refused', 'spoiled', 'Re-sync it.')];
    await connect(requestOf(id));
    await update(flow, 'start');
    const status = await untilStatus(flow, 'streaming');
    expect(status.tables.map((t) => t.status).sort()).toEqual(['failed', 'streaming']);
    const { length } = capture.callsOf(id, 'copyChunk');
    expect(length).toBeLessThan(26);
    const failed = status.tables.find((t) => t.status === 'failed')!;
    expect(failed.error).toEqual({ kind: 'rows_refused', reason: 'spoiled', remedy: 'Re-sync it.' });
    const left = status.tables.filter((t) => t !== failed).map((t) => t.table);
    const leases = () => capture.running(id, 'captureLease').map((call) => call.tables);
    await until('left out', leases, (tables) => tables.length === 1 && String(tables[0]) === String(left));
  });

  it('pauses during a snapshot and goes on with the chunks that are missing', async () => {
    const { id, flow, script } = newSource(['accounts']);
    script.chunks = 60;
    script.chunkMilliseconds = 1_000;
    await connect(requestOf(id));
    await update(flow, 'start');
    await until(
      'some chunks',
      () => capture.callsOf(id, 'copyChunk').length,
      (count) => count >= 3,
    );
    const asked = Date.now();
    const paused = await update(flow, 'pause');
    // The other chunks would take longer.
    expect(Date.now() - asked).toBeLessThan(10_000);
    expect(paused.tables[0]?.status).toBe('snapshotting');
    expect([...capture.running(id, 'copyChunk'), ...capture.running(id, 'captureLease')]).toEqual([]);
    const before = capture.callsOf(id, 'copyChunk').length;
    await new Promise((resolve) => setTimeout(resolve, 500));
    expect(capture.callsOf(id, 'copyChunk').length).toBe(before);
    script.chunkMilliseconds = 1;
    await update(flow, 'resume');
    await untilStatus(flow, 'streaming');
    expect(capture.callsOf(id, 'planSnapshot').length).toBe(1);
    expect(capture.callsOf(id, 'finishSnapshot').length).toBe(1);
    const chunks = new Set(capture.callsOf(id, 'copyChunk').map((call) => call.chunk));
    expect(chunks.size).toBe(60);
    recorded.set('pause_snapshot', flow);
  });

  it('takes more tables between two leases, and refuses those that are not there', async () => {
    const { id, flow, script } = await streamingSource();
    expect(await refusal(update(flow, 'addTables', { tables: ['nowhere'] }))).toMatchObject({ kind: 'preflight' });
    expect(capture.running(id, 'captureLease').length).toBe(1);
    script.tables.push('invoices');
    await update(flow, 'addTables', { tables: ['invoices', 'accounts'] });
    const status = await untilStatus(flow, 'streaming');
    expect(status.tables.map((t) => [t.table, t.status])).toContainEqual(['invoices', 'streaming']);
    expect(capture.callsOf(id, 'captureLease').map((call) => call.tables)).toEqual([
      ['accounts', 'orders'],
      ['accounts', 'orders', 'invoices'],
    ]);
    expect(capture.callsOf(id, 'planSnapshot').length).toBe(3);
    expect((await connect(requestOf(id))).outcome).toBe('same');
    recorded.set('more_tables', flow);
  });

  it('takes other settings and more tables with the next lease, without a new beginning', async () => {
    const { id, flow, script } = await streamingSource();
    script.tables.push('invoices');
    const { config } = requestOf(id, { poll_interval: 3, tables: ['accounts', 'invoices'] });
    const planned = await updateFlow<SourcePlan>(client, flow, 'plan', { config });
    expect(planned).toEqual({
      changed: ['poll_interval', 'tables'],
      fixed: [],
      added: [{ asset_id: `${id}_invoices`, schema: 'public', table: 'invoices' }],
      extra: [{ asset_id: `${id}_orders`, schema: 'public', table: 'orders' }],
    });
    expect(capture.callsOf(id, 'captureLease').length).toBe(1);
    expect((await statusOf(flow)).config.poll_interval).toBe(1);
    await update(flow, 'configure', { config });
    await untilLease(id, 2);
    const { tables } = await untilStatus(flow, 'streaming');
    expect(tables.map((t) => [t.table, t.generation])).toEqual([
      ['accounts', 1],
      ['orders', 1],
      ['invoices', 1],
    ]);
    expect(capture.callsOf(id, 'planSnapshot').length).toBe(3);
    expect(capture.callsOf(id, 'captureLease').at(-1)?.config).toEqual(config);
    expect((await connect({ ...requestOf(id), config })).outcome).toBe('same');
    const other = { ...config, options: { slot: 'other' } };
    const fixed = await refusal(update(flow, 'configure', { config: other }));
    expect(fixed).toMatchObject({ kind: 'conflict', text: expect.stringMatching(/^options\.slot cannot change/) });
    const nowhere = { ...config, tables: ['nowhere'] };
    expect(await refusal(update(flow, 'configure', { config: nowhere }))).toMatchObject({ kind: 'preflight' });
    for (const wrong of [undefined, {}, { config: { poll_interval: 'often' } }, { config, tables: [] }])
      expect(await refusal(update(flow, 'configure', wrong))).toMatchObject({ kind: 'configuration' });
    expect((await statusOf(flow)).config).toEqual(config);
    recorded.set('settings', flow);
  });

  it('lets go of tables, but not of the last one', async () => {
    const { id, flow } = await streamingSource();
    await update(flow, 'removeTables', { tables: ['orders'] });
    await untilLease(id, 2);
    expect(capture.callsOf(id, 'releaseTables').map((call) => call.tables)).toEqual([['orders']]);
    expect(capture.running(id, 'captureLease').map((call) => call.tables)).toEqual([['accounts']]);
    const last = await refusal(update(flow, 'removeTables', { tables: ['accounts'] }));
    expect(last).toMatchObject({ kind: 'conflict', text: expect.stringContaining('no table would be left') });
    const gone = await refusal(update(flow, 'removeTables', { tables: ['orders'] }));
    expect(gone).toMatchObject({ kind: 'not_found', text: expect.stringContaining('Known are accounts.') });
    recorded.set('fewer_tables', flow);
  });

  it('lets go of a table that is on its way into the publication', async () => {
    const { id, flow, script } = await streamingSource();
    script.tables.push('invoices');
    script.prepareMilliseconds = 3000;
    await update(flow, 'addTables', { tables: ['invoices'] });
    await until(
      'it is prepared',
      async () => capture.running(id, 'prepareSource'),
      (calls) => calls.length === 1,
    );
    script.prepareMilliseconds = 30;
    await update(flow, 'removeTables', { tables: ['invoices'] });
    await untilLease(id, 2);
    expect(capture.callsOf(id, 'releaseTables').map((call) => call.tables)).toEqual([['invoices']]);
  });

  it('starts some tables alone, and the others later', async () => {
    const { id, flow } = newSource();
    await connect(requestOf(id));
    await update(flow, 'start', { tables: ['orders'] });
    const some = await untilStatus(flow, 'streaming');
    expect(some.tables.map((t) => t.status)).toEqual(['pending', 'streaming']);
    await update(flow, 'start');
    await until(
      'both',
      () => statusOf(flow),
      (it) => it.tables.every((t) => t.status === 'streaming'),
    );
    expect(capture.callsOf(id, 'captureLease').map((call) => call.tables)).toEqual([
      ['orders'],
      ['accounts', 'orders'],
    ]);
  });

  it('says clearly what its state forbids', async () => {
    const { id, flow } = newSource();
    await connect(requestOf(id));
    for (const name of ['pause', 'resume', 'resync']) {
      expect(await refusal(update(flow, name)), name).toMatchObject({ kind: 'conflict' });
    }
    expect(await refusal(update(flow, 'addTables', { tables: [] }))).toMatchObject({ kind: 'configuration' });
    expect(await refusal(update(flow, 'start', { tables: 'accounts' }))).toMatchObject({ kind: 'configuration' });
    // What means a part must not be done to the whole.
    for (const name of ['pause', 'resume', 'stop']) {
      const some = update(flow, name, { tables: ['accounts'] });
      const text = expect.stringMatching(/takes no input.*Right is no input at all, or \{\}/s);
      expect(await refusal(some), name).toMatchObject({ kind: 'configuration', text });
    }
    for (const name of ['start', 'resync']) {
      const text = expect.stringMatching(/unknown key `table`.*Right is e\.g\. \{"tables": \[/s);
      const misspelt = update(flow, name, { table: 'accounts' });
      expect(await refusal(misspelt), name).toMatchObject({ kind: 'configuration', text });
    }
    const plain = { ...requestOf(id), connection_string: 'postgresql://u:hunter2@h/d' };
    const refused = await refusal(update(flow, 'connect', plain));
    expect(refused).toMatchObject({ kind: 'configuration', text: expect.not.stringContaining('hunter2') });
    const history = await client.workflow.getHandle(flow).fetchHistory();
    expect(JSON.stringify(history)).not.toContain(Buffer.from('hunter2').toString('base64').slice(0, 8));
    expect(await refusal(update('capture/nobody', 'start'))).toMatchObject({ kind: 'not_found' });
  });

  it('is removed with its slot, and forgotten', async () => {
    const { id, flow, script } = await streamingSource();
    script.failures.removeSource = [1, 2].map(() => new SluiceError('source_unreachable', 'away', 'Start it.'));
    const refused = await refusal(update(flow, 'remove', {}));
    expect(refused).toMatchObject({ kind: 'source_unreachable', text: expect.stringContaining('force') });
    expect(await statusOf(flow)).toMatchObject({ status: 'stopped' });
    await update(flow, 'resume');
    await untilLease(id, 2);
    await update(flow, 'remove', { drop_copies: true });
    expect(capture.running(id, 'captureLease')).toEqual([]);
    await until(
      'closed',
      () => client.workflow.getHandle(flow).describe(),
      (it) => it.status.name === 'COMPLETED',
    );
    recorded.set('removed', flow);
    const known = () => askFlow<ConnectRequest | null>(client, 'catalog', 'source', id);
    await until('forgotten', known, (it) => it === null);
    if (process.env.RECORD_HISTORIES) return;
    expect((await connect(requestOf(id))).outcome).toBe('created');
  });

  it('ends by cancellation of its flow after its last batch', async () => {
    const { id, flow } = await streamingSource();
    await client.workflow.getHandle(flow).cancel();
    await until(
      'closed',
      () => client.workflow.getHandle(flow).describe(),
      (it) => it.status.name === 'CANCELLED',
    );
    expect(capture.running(id, 'captureLease')).toEqual([]);
    recorded.set('cancelled', flow);
  });
});

describe.concurrent('changed definitions', () => {
  const changed = { kind: 'table_changed', reason: 'column n is bigint', remedy: 'Nothing is to be done.' } as const;

  it('have a table copied anew by itself, with the reason shown, while its neighbours go on', async () => {
    const { id, flow, script } = await streamingSource();
    script.chunks = 6;
    script.chunkMilliseconds = 2000;
    script.failTables[`${id}_orders`] = { ...changed };
    const again = await until(
      'copied anew',
      () => statusOf(flow),
      (it) => it.tables[1]?.status === 'snapshotting',
    );
    expect(again.status).toBe('snapshotting');
    expect(again.last_error).toBeNull();
    expect(again.tables[1]).toMatchObject({ generation: 2, error: null, notice: changed.reason });
    expect(again.tables[0]).toMatchObject({ status: 'streaming', notice: null });
    const { stdout } = await server.cli('workflow', 'metadata', '--workflow-id', flow, '-o', 'json');
    expect(JSON.parse(stdout).queryResult[0].currentDetails).toContain(`copied anew: ${changed.reason}`);
    await untilLease(id, 2);
    expect(capture.callsOf(id, 'captureLease').map((call) => call.tables)).toEqual([
      ['accounts', 'orders'],
      ['accounts', 'orders'],
    ]);
    const healed = await untilStatus(flow, 'streaming');
    expect(healed.tables[1]).toMatchObject({ status: 'streaming', generation: 2, error: null, notice: null });
    expect(capture.callsOf(id, 'prepareSource').at(-1)?.automatic).toEqual(['orders']);
    recorded.set('healed', flow);
  });

  it('found by a chunk have the snapshot begun again', async () => {
    const { id, flow, script } = newSource(['accounts']);
    script.failures.copyChunk = [new SluiceError('table_changed', 'rewritten', 'Re-sync it.')];
    await connect(requestOf(id));
    await update(flow, 'start');
    const status = await untilStatus(flow, 'streaming');
    expect(tablesOf(status)).toEqual([['accounts', 'streaming', 2]]);
  });

  it('that do not come to rest stop the table', async () => {
    const { id, flow, script } = await streamingSource(['accounts']);
    const asset = `${id}_accounts`;
    for (let round = 1; round <= 6; round += 1) {
      script.failTables[asset] = { ...changed };
      await until(
        `generation ${round + 1}`,
        () => statusOf(flow),
        (it) => it.tables[0]?.generation === round + 1,
      );
    }
    script.failTables[asset] = { ...changed };
    const failed = await untilStatus(flow, 'failed');
    expect(failed.tables[0]?.error).toMatchObject({ kind: 'table_changed', reason: changed.reason });
    expect(failed.tables[0]?.error?.remedy).toContain(`sluice sources resync ${id} accounts`);
    await update(flow, 'resync', { tables: ['accounts'] });
    await untilStatus(flow, 'streaming');
  });

  it('wait for somebody to agree under policy approve, and nobody else waits', async () => {
    const { id, flow, script } = newSource();
    await connect(requestOf(id, { options: { schema_changes: 'approve' } }));
    await update(flow, 'start');
    await untilStatus(flow, 'streaming');
    expect(await refusal(update(flow, 'approveSchema'))).toMatchObject({ kind: 'conflict' });
    script.failTables[`${id}_orders`] = { ...changed };
    await untilLease(id, 2);
    const waiting = await statusOf(flow);
    expect(tablesOf(waiting)).toEqual([
      ['accounts', 'streaming', 1],
      ['orders', 'failed', 1],
    ]);
    expect(waiting.tables[1]?.error?.remedy).toContain(`sluice sources approve ${id} orders`);
    expect(await refusal(update(flow, 'approveSchema', { tables: ['accounts'] }))).toMatchObject({ kind: 'conflict' });
    await update(flow, 'approveSchema', { tables: ['orders'] });
    const agreed = await untilStatus(flow, 'streaming');
    expect(tablesOf(agreed)).toEqual([
      ['accounts', 'streaming', 1],
      ['orders', 'streaming', 2],
    ]);
    expect(capture.callsOf(id, 'prepareSource').at(-1)?.automatic).toEqual([]);
    recorded.set('approved', flow);
  });

  it('stop the table under policy stop', async () => {
    const { id, flow, script } = newSource();
    await connect(requestOf(id, { options: { schema_changes: 'stop' } }));
    await update(flow, 'start');
    await untilStatus(flow, 'streaming');
    script.failTables[`${id}_orders`] = { ...changed };
    await untilLease(id, 2);
    expect((await statusOf(flow)).tables[1]).toMatchObject({ status: 'failed', error: { kind: 'table_changed' } });
  });

  it('bring a table back that was gone, also when it was the only one', async () => {
    const { id, flow, script } = await streamingSource(['accounts']);
    script.failTables[`${id}_accounts`] = { kind: 'table_missing', reason: 'it is gone', remedy: 'Make it again.' };
    const gone = await untilStatus(flow, 'failed');
    expect(gone.last_error).toMatchObject({ kind: 'table_missing' });
    await untilLease(id, 2);
    expect(capture.running(id, 'captureLease').map((call) => [call.tables, call.absent])).toEqual([[[], ['accounts']]]);
    script.returned.push(`${id}_accounts`);
    const back = await untilStatus(flow, 'streaming');
    expect(tablesOf(back)).toEqual([['accounts', 'streaming', 2]]);
    recorded.set('returned', flow);
  });
});

describe('globs', () => {
  const keyless = { table: 'keyless', reason: 'keyless has no primary key', remedy: 'Give it one.' };

  it('take in tables that come, tell of those that cannot be copied, and leave alone what people took out', async () => {
    const { id, flow, script } = newSource(['accounts', 'orders']);
    await connect(requestOf(id));
    await update(flow, 'start');
    await untilStatus(flow, 'streaming');
    await update(flow, 'removeTables', { tables: ['orders'] });
    await untilLease(id, 2);
    script.found.push('invoices', 'orders');
    script.leftOut = [keyless];
    await untilLease(id, 3);
    const status = await untilStatus(flow, 'streaming');
    expect(status.left_out).toEqual([keyless]);
    expect(tablesOf(status)).toEqual([
      ['accounts', 'streaming', 1],
      ['invoices', 'streaming', 1],
    ]);
    const taken_out = [{ asset_id: `${id}_orders`, schema: 'public', table: 'orders' }];
    const leases = capture.callsOf(id, 'captureLease');
    expect(leases.map(({ tables, known }) => [tables, known])).toEqual([
      [['accounts', 'orders'], { others: [], left_out: [] }],
      [['accounts'], { others: taken_out, left_out: [] }],
      [['accounts', 'invoices'], { others: taken_out, left_out: [keyless] }],
    ]);
    expect(capture.callsOf(id, 'preflightSource').length).toBe(1);
    // What people ask for themselves comes back.
    await update(flow, 'addTables', { tables: ['orders'] });
    await untilLease(id, 4);
    expect(capture.callsOf(id, 'captureLease').at(-1)?.known?.others).toEqual([]);
    recorded.set('new_tables', flow);
  });

  it('leave new tables waiting where somebody has chosen among them', async () => {
    const { id, flow, script } = newSource(['accounts', 'orders']);
    await connect(requestOf(id));
    await update(flow, 'start', { tables: ['accounts'] });
    await untilStatus(flow, 'streaming');
    script.found.push('invoices');
    await untilLease(id, 2);
    expect(tablesOf(await statusOf(flow))).toEqual([
      ['accounts', 'streaming', 1],
      ['orders', 'pending', 1],
      ['invoices', 'pending', 1],
    ]);
    await update(flow, 'start');
    await until(
      'all streaming',
      () => statusOf(flow),
      ({ tables }) => tables.every((table) => table.status === 'streaming'),
    );
  });

  it('are not looked for where only names were connected', async () => {
    const { id, flow, script } = newSource(['accounts']);
    await connect(requestOf(id, { tables: ['accounts'] }), { lease_seconds: 1 });
    await update(flow, 'start');
    script.found.push('invoices');
    await untilLease(id, 3);
    expect(tablesOf(await statusOf(flow))).toEqual([['accounts', 'streaming', 1]]);
    expect(capture.callsOf(id, 'captureLease').filter((call) => call.known)).toEqual([]);
  });
});

describe('continue as new', () => {
  it('goes on in the midst of everything', async () => {
    const { id, flow, script } = newSource(['accounts', 'orders', 'invoices']);
    script.chunks = 15;
    script.chunkMilliseconds = 200;
    await connect(requestOf(id), { lease_seconds: 1, leases_per_run: 2 });
    await update(flow, 'start', { tables: ['accounts', 'orders'] });
    const first = (await client.workflow.getHandle(flow).describe()).runId;
    await untilLease(id, 3);
    expect((await client.workflow.getHandle(flow).describe()).runId).not.toBe(first);
    await update(flow, 'addTables', { tables: ['invoices'] });
    await update(flow, 'pause');
    await update(flow, 'resume');
    const status = await until(
      'streaming',
      () => statusOf(flow),
      (it) => it.status === 'streaming',
      40,
    );
    expect(status.tables.map((t) => [t.table, t.status, t.snapshot_rows])).toEqual([
      ['accounts', 'streaming', 150],
      ['orders', 'streaming', 150],
      ['invoices', 'streaming', 150],
    ]);
    expect(capture.callsOf(id, 'finishSnapshot').length).toBe(3);
    const leases = capture.callsOf(id, 'captureLease').map((call) => call.lease);
    expect(leases).toEqual([...leases].sort((a, b) => a! - b!));
    expect(new Set(leases).size).toBe(leases.length);
    await update(flow, 'stop');
    recorded.set('continued', flow);
  });
});

describe('snapshots', () => {
  const underWay = (id: string, name: 'copyChunk' | 'awaitPosition') =>
    capture.callsOf(id, name).filter((call) => call.ended === undefined).length;

  it('that hear nobody hold up no new run: streaming goes on', async () => {
    const { id, flow, script } = newSource(['accounts', 'orders']);
    script.chunkMilliseconds = 10;
    await connect(requestOf(id), { lease_seconds: 1, leases_per_run: 2 });
    await update(flow, 'start', { tables: ['accounts'] });
    await untilLease(id, 1);
    script.deafMilliseconds = 25_000;
    await update(flow, 'addTables', { tables: ['orders'] });
    await until(
      'a chunk that hears nobody',
      () => underWay(id, 'copyChunk'),
      (deaf) => deaf > 0,
    );
    const { lease } = await statusOf(flow);
    const asked = Date.now();
    await untilLease(id, lease + 3);
    expect(Date.now() - asked).toBeLessThan(24_000);
    script.deafMilliseconds = 0;
    await untilStatus(flow, 'streaming', 60);
    await update(flow, 'stop');
  }, 120_000);

  it('wait for the stream a hundred at a time: the lease that they wait for needs a place, too', async () => {
    const { id, flow, script } = newSource(Array.from({ length: 130 }, (_, number) => `t${number}`));
    script.chunks = 1;
    script.chunkMilliseconds = 1;
    script.streamStands = true;
    await connect(requestOf(id));
    await update(flow, 'start');
    const waiting = () => underWay(id, 'awaitPosition');
    await until('many waiting', waiting, (count) => count >= 100, 60);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    expect(waiting()).toBeLessThan(115);
    script.streamStands = false;
    await untilStatus(flow, 'streaming', 60);
    await update(flow, 'stop');
  }, 150_000);
});

describe('the log of a source', () => {
  it('is looked at after each question, by few looks for many questions', async () => {
    const { id, script } = newSource();
    const flow = logWorkflowId(id);
    const start = () =>
      new WithStartWorkflowOperation(flowNames.watchLog, {
        workflowId: flow,
        taskQueue,
        args: [{ source: id }],
        workflowIdConflictPolicy: 'USE_EXISTING',
      });
    const look = async () => {
      const asked = Date.now();
      const answer = await updateWithStart<LogLook>(client, start(), 'look', undefined);
      expect(Date.parse(answer.state.at)).toBeGreaterThanOrEqual(asked);
      return answer;
    };
    expect((await look()).state).toMatchObject({ position: '0/300', retained_bytes: 1000 });
    await Promise.all(Array.from({ length: 30 }, look));
    expect(capture.callsOf(id, 'lookAtLog').length).toBeLessThan(20);
    script.failures.lookAtLog = [1, 2].map(() => new SluiceError('source_unreachable', 'away', 'Start it.'));
    expect(await refusal(look())).toMatchObject({ kind: 'source_unreachable' });
    script.retained = 5000;
    const last = await look();
    expect(last.state.retained_bytes).toBe(5000);
    expect(last.samples.at(-1)).toEqual({ at: Date.parse(last.state.at), retained: 5000 });
    recorded.set('watch_log', flow);
    const wrong = client.workflow.execute(flowNames.watchLog, {
      workflowId: 'log/other',
      taskQueue,
      args: [{ source: id }],
    });
    await expect(wrong).rejects.toMatchObject({ cause: { message: expect.stringContaining(`--workflow-id ${flow}`) } });
  });
});

describe('catalog', () => {
  it('keeps sources by id, and refuses what is not one', async () => {
    const request = requestOf('kept_one', { tables: ['accounts'] });
    await updateFlow(client, 'catalog', 'registerSource', request);
    await updateFlow(client, 'catalog', 'registerSource', { ...request, connection_string: 'sealed:v1:b3RoZXI' });
    const all = await askFlow<ConnectRequest[]>(client, 'catalog', 'sources');
    expect(all.filter((it) => it.id === 'kept_one')).toMatchObject([{ connection_string: 'sealed:v1:b3RoZXI' }]);
    const plain = { ...request, connection_string: 'postgresql://u:hunter2@h/d' };
    expect(await refusal(updateFlow(client, 'catalog', 'registerSource', plain))).toMatchObject({
      kind: 'configuration',
    });
    expect(await updateFlow(client, 'catalog', 'removeSource', { id: 'kept_one' })).toBe(true);
    expect(await updateFlow(client, 'catalog', 'removeSource', { id: 'kept_one' })).toBe(false);
    expect(await askFlow(client, 'catalog', 'source', 'kept_one')).toBeNull();
    recorded.set('catalog', 'catalog');
  });
});
