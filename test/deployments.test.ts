/** Deployments on a real Temporal: files become schedules, schedules make runs, and people's changes are seen and mended. */
import { execFile, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { Client, Connection } from '@temporalio/client';
import { DefaultLogger, makeTelemetryFilterString, NativeConnection, Runtime, Worker } from '@temporalio/worker';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import { type Control, openControl } from '../api/control/control.ts';
import { type DeployOptions, deploy } from '../api/control/deploy.ts';
import type { DeploymentAnswer, StartedAnswer } from '../api/control/deployment_shapes.ts';
import { getDeployment, listDeployments } from '../api/control/deployments.ts';
import type { PipelineAnswer, PipelineOrder } from '../api/control/pipeline_shapes.ts';
import type { Problem } from '../api/problems.ts';
import { SluiceError } from '../model/errors.ts';
import { nodeArguments } from '../workers/child.ts';
import { readDeployments } from '../workers/deployment_files.ts';
import { findTemporal } from '../workers/embedded/temporal_binary.ts';
import { projectFolder, readSettings } from '../workers/settings.ts';
import { firstPause } from '../workers/temporal_client.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';

let stack: ControlStack;
let control: Control;
let program: string;
let worker: { end(): Promise<void> };
const folders: string[] = [];

beforeAll(async () => {
  stack = await startControlStack();
  control = openControl(readSettings(stack.environment));
  program = await findTemporal(() => {});
  worker = await startFlowWorker();
}, 120_000);

afterAll(async () => {
  await worker?.end();
  await control?.[Symbol.asyncDispose]();
  await stack?.[Symbol.asyncDispose]();
  for (const folder of folders) rmSync(folder, { recursive: true });
}, 60_000);

/** Polls the queue `own` with the flow of deployments_flow.ts. */
async function startFlowWorker() {
  const filter = makeTelemetryFilterString({ core: 'ERROR' });
  Runtime.install({ logger: new DefaultLogger('ERROR'), telemetryOptions: { logging: { filter, forward: {} } } });
  const connection = await NativeConnection.connect({ address: stack.parts.temporal.url });
  const made = await Worker.create({
    connection,
    taskQueue: 'own',
    workflowsPath: path.join(projectFolder, 'test', 'deployments_flow.ts'),
    maxConcurrentWorkflowTaskExecutions: 10,
  });
  const running = made.run();
  return {
    async end() {
      made.shutdown();
      await running;
      await connection.close();
    },
  };
}

/** Files of a folder by name; each is a deployment of the stand-in unless it says otherwise. */
function folderOf(files: Record<string, string>): string {
  const folder = mkdtempSync(path.join(tmpdir(), 'sluice-deploy-'));
  folders.push(folder);
  for (const [name, text] of Object.entries(files)) {
    const whole = text.includes('flow:') ? text : `flow: extractAssets\n${parameters}task_queue: own\n${text}`;
    writeFileSync(path.join(folder, `${name}.yaml`), text.includes('name:') ? whole : `name: ${name}\n${whole}`);
  }
  return folder;
}

const parameters = 'parameters: { api_url: "${ASSET_API_URL}", page_size: 7 }\n';

async function deployed(files: Record<string, string>, options: DeployOptions = {}) {
  const answer = await deploy(control, readDeployments(folderOf(files)), options);
  expect(answer.changes.filter((change) => change.error !== null)).toEqual([]);
  return answer.changes.map(({ name, action, differences }) => {
    return [name, action, ...differences.map(({ field, from, to }) => `${field}: ${from} → ${to}`)].join(' | ');
  });
}

/** `kind: message | remedy` of what deploying throws. */
async function refusal(files: Record<string, string>): Promise<string> {
  try {
    await deploy(control, readDeployments(folderOf(files)));
  } catch (error) {
    if (!(error instanceof SluiceError)) throw error;
    return `${error.kind} ${path.basename(error.place.file ?? '')}:${error.place.line}: ${error.message} | ${error.remedy}`;
  }
  throw new Error('it was deployed');
}

const names = async () => (await listDeployments(control)).map((one) => one.name);

async function temporal(...args: string[]): Promise<string> {
  const { stdout } = await promisify(execFile)(program, [...args, '--address', stack.parts.temporal.url]);
  return stdout;
}

/** What a command that waits writes to stderr when all goes well: nothing, or on a busy machine how far it is. */
const progressAlone = expect.stringMatching(/^(\S+ \d+ s · .*\n)*$/);

interface Ran {
  code: number | null;
  out: string;
  err: string;
}

function sluice(...args: string[]): Promise<Ran> {
  const file = path.join(projectFolder, 'cli', 'main.ts');
  const options = { cwd: projectFolder, env: stack.environment };
  const child = spawn(process.execPath, nodeArguments(file, ...args), options);
  const ran: Ran = { code: null, out: '', err: '' };
  child.stdout.on('data', (bytes) => {
    ran.out += bytes;
  });
  child.stderr.on('data', (bytes) => {
    ran.err += bytes;
  });
  return new Promise((resolve) => child.once('close', (code) => resolve({ ...ran, code })));
}

async function rest<Body = DeploymentAnswer>(method: string, route: string, body?: unknown) {
  const send =
    body === undefined ? {} : { body: JSON.stringify(body), headers: { 'content-type': 'application/json' } };
  const answer = await fetch(`${stack.api}/api/v1${route}`, { method, ...send });
  const text = await answer.text();
  return { status: answer.status, body: (text === '' ? null : JSON.parse(text)) as Body };
}

/** What the runs of a deployment that went well have answered, by nominal time. */
async function results(name: string): Promise<Record<string, unknown>> {
  const { last_runs: runs } = await getDeployment(control, name);
  const done = runs.filter((run) => run.status === 'completed');
  const entries = done.map(async ({ workflow, nominal }) => {
    return [nominal, await control.temporal.workflow.getHandle(workflow.id).result()];
  });
  return Object.fromEntries(await Promise.all(entries));
}

describe('deploying', () => {
  it('makes schedules equal to files, and changes nothing when they are', async () => {
    const files = { fast: 'schedule: { interval: 1h }\ntags: [one, two]\ndescription: Quick', slow: '' };
    const created = ['fast | create', 'slow | create'];
    expect(await deployed(files, { dryRun: true })).toEqual(created);
    expect(await names()).toEqual([]);
    expect(await deployed(files)).toEqual(created);
    expect(await deployed(files)).toEqual(['fast | unchanged', 'slow | unchanged']);
    const [fast, slow] = await listDeployments(control);
    expect(fast).toMatchObject({
      name: 'fast',
      flow: 'extractAssets',
      schedule: [{ interval: '1h' }],
      parameters: { api_url: '${ASSET_API_URL}', page_size: 7 },
      tags: ['one', 'two'],
      task_queue: 'own',
      overlap: 'buffer_all',
      catchup_window: '1h',
      status: 'active',
      paused: false,
      running: [],
      last_runs: [],
      last_error: null,
      missed: { catchup_window: 0, buffer: 0, overlap: 0, command: null },
      drift: [],
      position: null,
    });
    const due = fast?.next_runs.map((time) => Date.parse(time)) ?? [];
    expect(due).toHaveLength(5);
    expect(due.every((time, index) => time % 3_600_000 === 0 && time - due[0]! === index * 3_600_000)).toBe(true);
    // Temporal forgets a schedule without times unless it is paused.
    expect(slow).toMatchObject({ status: 'manual', paused: true, next_runs: [], drift: [] });
  });

  it('says each field that differs, and leaves alone what people paused', async () => {
    await control.temporal.schedule.getHandle('fast').pause('we look at it');
    const files = {
      fast: 'schedule: [{ cron: "*/5 8-17 * * mon-fri", timezone: Europe/Berlin }]\noverlap: skip\ncatchup_window: 10m\ntags: [one]',
      slow: 'schedule: { interval: 1h }',
    };
    const changes = [
      'fast | update | schedule: every 1h → cron */5 8-17 * * 1-5 Europe/Berlin | overlap: buffer_all → skip' +
        ' | catchup_window: 1h → 10m | tags: one,two → one | schedule.tags: one,two → one' +
        ' | summary: fast: Quick → fast: extractAssets',
      'slow | update | schedule: none → every 1h | paused: true → false',
    ];
    expect(await deployed(files, { dryRun: true })).toEqual(changes);
    expect(await deployed(files)).toEqual(changes);
    expect(await deployed(files)).toEqual(['fast | unchanged', 'slow | unchanged']);
    expect(await getDeployment(control, 'fast')).toMatchObject({
      status: 'paused',
      note: 'we look at it',
      schedule: [{ cron: '*/5 8-17 * * mon-fri', timezone: 'Europe/Berlin' }],
      next_runs: [],
    });
    const described = await control.temporal.schedule.getHandle('fast').describe();
    expect(described.policies).toEqual({ overlap: 'SKIP', catchupWindow: 600_000, pauseOnFailure: false });
    expect(described.spec.jitter ?? 0).toBe(0);
    expect((await getDeployment(control, 'slow')).status).toBe('active');
    // What Temporal itself understood of the cron text.
    await control.temporal.schedule.getHandle('fast').unpause('on');
    for (const time of (await getDeployment(control, 'fast')).next_runs) {
      const local = new Date(time).toLocaleString('en-GB', {
        timeZone: 'Europe/Berlin',
        weekday: 'short',
        hour: '2-digit',
        minute: '2-digit',
      });
      expect(local).toMatch(/^(Mon|Tue|Wed|Thu|Fri)\D+(0[89]|1[0-7]):\d[05]$/);
    }
  });

  it('pauses and resumes as the file says, if it says something', async () => {
    const paused = (word: string) => ({ slow: `schedule: { interval: 1h }\n${word}` });
    expect((await deployed(paused('paused: true')))[0]).toBe('slow | update | paused: false → true');
    expect(await getDeployment(control, 'slow')).toMatchObject({ paused: true, note: 'Paused by its file' });
    await control.temporal.schedule.getHandle('slow').unpause('a person');
    expect((await getDeployment(control, 'slow')).drift).toEqual([{ field: 'paused', from: false, to: true }]);
    expect((await deployed(paused('paused: true')))[0]).toBe('slow | update | paused: false → true');
    expect((await deployed(paused('paused: false')))[0]).toBe('slow | update | paused: true → false');
    expect((await deployed(paused('')))[0]).toMatch(/^slow \| update \| paused: false → null$/);
    expect((await getDeployment(control, 'slow')).paused).toBe(false);
  });

  it('sees and mends what somebody changed in Temporal', async () => {
    const files = { slow: 'schedule: { interval: 1h }' };
    const handle = control.temporal.schedule.getHandle('slow');
    await handle.update((now) => ({ ...now, spec: { intervals: [{ every: '30m', offset: '10m' }] } }));
    const drift = [{ field: 'schedule', from: 'every 30m and 10m', to: 'every 1h' }];
    expect((await getDeployment(control, 'slow')).drift).toEqual(drift);
    expect((await sluice('deployments', 'list')).out).toMatch(/! slow: changed by hand in Temporal: schedule\. /);
    expect(await deployed(files)).toContain('slow | update | schedule: every 30m and 10m → every 1h');
    // The temporal program writes a schedule anew, and with that takes out what was deployed.
    await temporal(
      ...['schedule', 'update', '--schedule-id', 'slow', '--cron', '30 2 * * 1', '--overlap-policy', 'Skip'],
      ...['--workflow-id', 'other', '--type', 'verifyCopy', '--task-queue', 'sluice', '--input', '{"source":"x"}'],
      ...['--pause-on-failure', '--remaining-actions', '3', '--notes', 'tried something'],
    );
    expect(await getDeployment(control, 'slow')).toMatchObject({
      flow: 'verifyCopy',
      schedule: [{ cron: '30 2 * * 1', timezone: 'UTC' }],
      parameters: { source: 'x' },
      overlap: 'skip',
      drift: [{ field: 'definition', from: null, to: 'as in its file' }],
    });
    const [mended = ''] = await deployed(files);
    const fields = mended.split(' | ').map((text) => text.split(':', 1)[0]);
    for (const field of ['flow', 'schedule', 'overlap', 'task_queue', 'workflow_id', 'pause_on_failure', 'summary'])
      expect(fields).toContain(field);
    expect(mended).toContain('remaining_actions: 3 → null');
    expect(mended).toContain('parameters.source: x → null');
    expect(mended).toContain('search_attributes.SluiceDeployment: null → slow');
    expect(await deployed(files)).toContain('slow | unchanged');
    expect((await getDeployment(control, 'slow')).drift).toEqual([]);
  });

  it('deletes what has no file only when told so, and never what is not Sluice’s', async () => {
    await temporal(
      'schedule',
      'create',
      '--schedule-id',
      'theirs',
      '--interval',
      '1h',
      '--workflow-id',
      'x',
      '--type',
      'x',
      '--task-queue',
      'x',
    );
    const files = { slow: 'schedule: { interval: 1h }' };
    expect(await deployed(files)).toEqual(['slow | unchanged', 'fast | extra']);
    expect(await deployed(files, { prune: true, dryRun: true })).toEqual(['slow | unchanged', 'fast | delete']);
    expect(await names()).toEqual(['fast', 'slow']);
    expect(await deployed(files, { prune: true })).toEqual(['slow | unchanged', 'fast | delete']);
    expect(await names()).toEqual(['slow']);
    expect(await temporal('schedule', 'describe', '--schedule-id', 'theirs')).toContain('theirs');
    expect(await refusal({ theirs: '' })).toMatch(/^conflict theirs\.yaml:1: there is a schedule theirs that Sluice/);
    expect((await rest<Problem>('POST', '/deployments/theirs/pause')).status).toBe(404);
  });

  it('changes nothing when anything is wrong', async () => {
    const right = { aaa: 'schedule: { interval: 1h }', slow: 'schedule: { interval: 2h }' };
    const wrong = async (text: string) => await refusal({ ...right, wrong: text });
    expect(await wrong('schedule: { cron: "0 25 * * *" }')).toMatch(/^configuration wrong\.yaml:5: hour `25`/);
    // Node knows this name; Temporal, which will follow it, does not.
    expect(await wrong('schedule: { cron: "0 0 * * *", timezone: PST }')).toMatch(
      /^configuration wrong\.yaml:5: Temporal refuses it: unknown time zone PST/,
    );
    expect(await wrong('flow: extractAssets\nparameters: { api_url: nowhere }')).toMatch(
      /^configuration wrong\.yaml:3: `api_url` must be/,
    );
    expect(await wrong('name: aaa\n')).toMatch(
      /^configuration wrong\.yaml:\d: the deployment aaa is also in .*aaa\.yaml/,
    );
    expect(await names()).toEqual(['slow']);
    expect((await getDeployment(control, 'slow')).schedule).toEqual([{ interval: '1h' }]);
  });
});

describe('ids', () => {
  it('of sources and deployments share one namespace', async () => {
    const options = { connectionString: stack.parts.postgres.url, applicationName: 'test' };
    await withConnection(options, (client) => client.query('CREATE TABLE public.t (id int PRIMARY KEY)'));
    const connect = (id: string) =>
      rest<Problem>('POST', '/sources/connect', {
        id,
        type: 'postgresql',
        connection_string: stack.parts.postgres.url,
      });
    const refused = await connect('slow');
    expect([refused.status, refused.body.kind]).toEqual([409, 'conflict']);
    expect(refused.body.detail).toBe('there is a deployment slow (extractAssets)');
    expect((await connect('shop')).status).toBe(201);
    expect(await refusal({ shop: '' })).toMatch(/^conflict shop\.yaml:1: shop is the id of a connected source \| /);
    expect(await names()).toEqual(['slow']);
  });
});

describe('runs', () => {
  it('by hand get the parameters that were asked for, and are waited for', async () => {
    const { status, body } = await rest<StartedAnswer>('POST', '/deployments/slow/run', {
      parameters: { page_size: 9 },
    });
    expect(status).toBe(202);
    expect(body).toMatchObject({ deployment: 'slow', flow: 'extractAssets', status: 'running' });
    expect(body.workflow.id).toMatch(/^slow\/\d{4}-\d\d-\d\dT[\d:.]+Z$/);
    const input = { deployment: 'slow', api_url: '${ASSET_API_URL}', page_size: 9 };
    expect(await control.temporal.workflow.getHandle(body.workflow.id).result()).toEqual({ input, nominal: '' });
    const ran = await sluice('run', 'slow', '--param', 'page_size=8', '--json');
    expect([ran.code, ran.err]).toEqual([0, progressAlone]);
    expect(JSON.parse(ran.out)).toMatchObject({ status: 'completed', answer: { input: { ...input, page_size: 8 } } });
    const seen = await until(
      () => getDeployment(control, 'slow'),
      (one) => one.last_runs.length === 2 && one.running.length === 0,
    );
    expect(seen.last_runs.map((run) => run.status)).toEqual(['completed', 'completed']);
    expect(seen.last_runs[1]).toMatchObject({ nominal: body.workflow.id.slice(5), workflow: { id: body.workflow.id } });
  });

  it('with a key are made once, however often they are asked for', async () => {
    const run = async (key: string, page_size = 9, route = 'run', more: object = { parameters: { page_size } }) => {
      const headers = { 'content-type': 'application/json', 'idempotency-key': key };
      const url = `${stack.api}/api/v1/deployments/slow/${route}`;
      const answer = await fetch(url, { method: 'POST', headers, body: JSON.stringify(more) });
      return { status: answer.status, body: (await answer.json()) as StartedAnswer & Pick<Problem, 'errors'> };
    };
    const [first, beside] = await Promise.all([run('order/2024-#1'), run('order/2024-#1')]);
    expect([first.status, beside.body]).toEqual([202, first.body]);
    expect(first.body.workflow.id).toBe('slow/key/order/2024-#1');
    await control.temporal.workflow.getHandle(first.body.workflow.id).result();
    // It has ended, and is still the answer.
    expect((await run('order/2024-#1')).body).toEqual(first.body);
    const other = await run('order/2024-#2');
    expect(other.body.workflow.run_id).not.toBe(first.body.workflow.run_id);
    await control.temporal.workflow.getHandle(other.body.workflow.id).result();
    const seen = await until(
      () => getDeployment(control, 'slow'),
      (one) => one.last_runs.filter(({ workflow }) => workflow.id.includes('/key/')).length === 2,
    );
    expect(seen.last_runs.find(({ workflow }) => workflow.id === first.body.workflow.id)!.nominal).toBeNull();
    for (const wrong of ['two words', 'é', 'x'.repeat(201), '']) {
      const { status, body } = await run(wrong);
      expect([status, body.errors?.[0]?.pointer]).toEqual([422, '/idempotency-key']);
    }
    const stretch = { from: '2020-01-01T00:00:00Z', to: '2020-01-01T01:00:00Z' };
    const backfill = (key: string) => run(key, 9, 'backfill', stretch);
    const made = (await backfill('b1')).body.workflow;
    await control.temporal.workflow.getHandle(made.id).result();
    expect((await backfill('b1')).body.workflow).toEqual(made);
    const again = (await backfill('b2')).body.workflow;
    expect([again.id, again.run_id === made.run_id]).toEqual([made.id, false]);
    await control.temporal.workflow.getHandle(made.id).result();
  });

  it('that fail say why, there and in the state of the pipeline', async () => {
    const failed = await sluice('run', 'slow', '--param', 'page_size=13');
    expect(failed.code).toBe(1);
    expect(failed.err).toBe('no thirteen (source_refused). Take another number.\n');
    const last_error = { kind: 'source_refused', reason: 'no thirteen', remedy: 'Take another number.' };
    await until(
      () => getDeployment(control, 'slow'),
      (one) => one.last_error !== null,
    );
    const pipeline = (await rest<PipelineAnswer>('GET', '/pipeline/status')).body;
    expect(pipeline).toMatchObject({ status: 'degraded', deployments: [{ name: 'slow', last_error }] });
    const health = await (await fetch(`${stack.api}/health`)).json();
    expect(health).toMatchObject({ status: 'degraded', problems: [{ check: 'deployments.slow', ...last_error }] });
    expect((await sluice('status')).out).toMatch(/! slow: no thirteen\. Take another number\./);
    expect((await rest('POST', '/deployments/slow/run')).status).toBe(202);
    await until(
      () => getDeployment(control, 'slow'),
      (one) => one.last_error === null,
    );
  });

  it('that cannot be are refused at once', async () => {
    const status = async (route: string, body?: unknown) => {
      const answer = await rest<Problem>('POST', `/deployments/${route}`, body);
      return [answer.status, answer.body.kind];
    };
    expect(await status('nobody/run')).toEqual([404, 'not_found']);
    expect(await status('slow/run', { parameters: { pages: 1 } })).toEqual([422, 'configuration']);
    expect(await status('slow/run', { pages: 1 })).toEqual([422, 'configuration']);
    await deployed({
      slow: 'schedule: { interval: 1h }',
      idle: 'task_queue: nobody'.replace(
        'task_queue',
        'flow: extractAssets\nparameters: { api_url: "${X}" }\ntask_queue',
      ),
    });
    const began = Date.now();
    const idle = await rest<Problem>('POST', '/deployments/idle/run');
    expect(Date.now() - began).toBeLessThan(10_000);
    expect(idle.body).toMatchObject({
      status: 503,
      kind: 'no_worker',
      remedy: expect.stringContaining('TEMPORAL_TASK_QUEUE=nobody npx sluice worker'),
    });
    expect(await status('idle/trigger')).toEqual([503, 'no_worker']);
    expect(await status('idle/resume')).toEqual([409, 'conflict']);
    expect((await rest('DELETE', '/deployments/idle')).status).toBe(204);
    expect(await status('idle/pause')).toEqual([404, 'not_found']);
  });

  it('are made by the schedule, also when the temporal program asks for them: right input, nominal time', async () => {
    await temporal('schedule', 'trigger', '--schedule-id', 'slow');
    const stretch = ['--start-time', '2026-01-01T00:00:00Z', '--end-time', '2026-01-01T02:00:00Z'];
    await temporal('schedule', 'backfill', '--schedule-id', 'slow', '--overlap-policy', 'BufferAll', ...stretch);
    const nominals = ['2026-01-01T00:00:00.000Z', '2026-01-01T01:00:00.000Z', '2026-01-01T02:00:00.000Z'];
    await until(
      () => getDeployment(control, 'slow'),
      (one) =>
        nominals.every((time) => one.last_runs.some((run) => run.nominal === time && run.status === 'completed')),
    );
    const input = { deployment: 'slow', api_url: '${ASSET_API_URL}', page_size: 7 };
    const answers = await results('slow');
    for (const nominal of nominals) expect(answers[nominal]).toEqual({ input, nominal });
    const runs = (await getDeployment(control, 'slow')).last_runs;
    const scheduled = runs.filter((run) => run.workflow.id.startsWith('slow/-'));
    // Three of the backfill, one of the trigger, whose nominal time is now.
    expect(scheduled).toHaveLength(4);
    const triggered = scheduled.find((run) => !nominals.includes(run.nominal ?? ''));
    expect(Math.abs(Date.now() - Date.parse(triggered?.nominal ?? ''))).toBeLessThan(60_000);
    const { id } = runs.find((run) => run.nominal === nominals[0])!.workflow;
    expect(id).toBe('slow/-2026-01-01T00:00:00Z');
    const described = await control.temporal.workflow.getHandle(id).describe();
    expect(described.memo).toMatchObject({ sluice_deployment: { name: 'slow', schedule: [{ interval: '1h' }] } });
    expect(described.searchAttributes).toMatchObject({ SluiceDeployment: ['slow'], SluiceFlow: ['extractAssets'] });

    const start = ['--type', 'extractAssets', '--task-queue', 'own', '--workflow-id', 'by-hand'];
    await temporal('workflow', 'start', ...start, '--input', '{"deployment":"slow"}');
    expect(await control.temporal.workflow.getHandle('by-hand').result()).toMatchObject({
      input: { deployment: 'slow' },
    });
  });

  it('by trigger keep to the overlap policy of the deployment', async () => {
    await deployed({
      waits: `flow: extractAssets\nparameters: { api_url: "\${X}", page_size: 14 }\ntask_queue: own\noverlap: skip`,
    });
    expect((await rest('POST', '/deployments/waits/trigger')).status).toBe(202);
    const running = await until(
      () => getDeployment(control, 'waits'),
      (one) => one.running.length === 1,
    );
    await rest('POST', '/deployments/waits/trigger');
    await until(
      () => getDeployment(control, 'waits'),
      (one) => one.missed.overlap === 1,
    );
    await control.temporal.workflow.getHandle(running.running[0]!.workflow.id).terminate('enough');
    await rest('DELETE', '/deployments/waits');
  });
});

describe('many looks at once', () => {
  it('at a schedule with work to do do not wait for each other', async () => {
    const connection = await Connection.connect({ address: stack.parts.temporal.url, interceptors: [] });
    const plain = new Client({ connection }).schedule.getHandle('slow');
    /** What Temporal itself says to a client that does not try again: the first refusal of some rounds. */
    const refusal = async () => {
      for (let round = 0; round < 50; round++) {
        await plain.unpause(`round ${round}`);
        const looks = await Promise.allSettled(Array.from({ length: 6 }, () => plain.describe()));
        const refused = looks.find((look) => look.status === 'rejected');
        if (refused) return refused.reason.cause as { code: number; details: string };
      }
    };
    const refused = await refusal();
    await connection.close();
    expect(refused?.code).toBe(8);
    expect(firstPause(refused!)).toBeLessThan(50);
    expect(firstPause({ code: 8, details: 'namespace rate limit exceeded' })).toBe(1_000);
    const looks = await Promise.all(Array.from({ length: 20 }, () => getDeployment(control, 'slow')));
    expect(new Set(looks.map((one) => one.note)).size).toBe(1);
  });
});

describe('backfills', () => {
  it('are checked first, and one stretch has one flow', async () => {
    const backfill = (name: string, body: object) =>
      rest<StartedAnswer & Pick<Problem, 'errors' | 'kind'>>('POST', `/deployments/${name}/backfill`, body);
    const stretch = { from: '2026-01-01', to: '2026-01-01T02:00:00+01:00' };
    await deployed({ past: 'schedule: { interval: 1h }', daily: 'flow: verifyCopy\nparameters: { source: shop }' });
    expect((await backfill('past', { ...stretch, to: '2026-01-01' })).status).toBe(422);
    expect((await backfill('past', { ...stretch, to: 'soon' })).body.errors?.[0]?.pointer).toBe('/to');
    const ahead = new Date(Date.now() + 3_600_000).toISOString();
    expect((await backfill('past', { ...stretch, to: ahead })).body).toMatchObject({
      status: 422,
      kind: 'configuration',
      detail: `\`to\` lies in the future: ${ahead}`,
    });
    expect((await backfill('nobody', stretch)).status).toBe(404);
    expect((await backfill('daily', stretch)).body).toMatchObject({ status: 422, kind: 'configuration' });
    await rest('DELETE', '/deployments/daily');
    const both = await Promise.all([backfill('past', stretch), backfill('past', stretch)]);
    const id = 'backfill/past/2026-01-01T00:00:00.000Z_2026-01-01T01:00:00.000Z';
    expect(both.map((one) => one.status)).toEqual([202, 202]);
    expect(both[0]?.body.workflow).toEqual({ ...both[1]?.body.workflow, id });
    const input = { deployment: 'past', from: '2026-01-01T00:00:00.000Z', to: '2026-01-01T01:00:00.000Z' };
    expect(both[0]?.body.input).toEqual({ ...input, only_missing: false });
    const missing = await sluice(
      'backfill',
      'past',
      '--from',
      '2026-01-01',
      '--to',
      '2026-01-02',
      '--only-missing',
      '--json',
    );
    expect([missing.code, missing.err]).toEqual([0, progressAlone]);
    const answer = { input: { ...input, to: '2026-01-02T00:00:00.000Z', only_missing: true } };
    expect(JSON.parse(missing.out)).toMatchObject({ flow: 'backfill', status: 'completed', answer });
    await rest('DELETE', '/deployments/past');
    expect((await sluice('backfill', 'shop', '--table', 'nothing')).err).toMatch(
      /the source shop has no table nothing/,
    );
  });

  it('of a source copy its tables again', async () => {
    expect((await sluice('backfill', 'shop', '--table', 't')).err).toMatch(/the source shop is connected/);
    await rest('POST', '/sources/shop/start');
    const table = async () =>
      (await rest<{ tables: { status: string; rows: number }[] }>('GET', '/sources/shop')).body.tables[0];
    await until(table, (one) => one?.status === 'streaming');
    const done = await sluice('backfill', 'shop', '--table', 't', '--json');
    expect([done.code, done.err]).toEqual([0, progressAlone]);
    expect(JSON.parse(done.out)).toMatchObject({ status: 'completed', answer: { tables: 1 } });
    expect((await table())?.status).toBe('streaming');
  });
});

describe('the pipeline', () => {
  it('stops and starts deployments, and leaves alone what people paused', async () => {
    await deployed({ slow: 'schedule: { interval: 1h }', other: 'schedule: { interval: 1h }' });
    expect((await sluice('deployments', 'pause', 'other', '--note', 'mine')).out).toContain('other: mine');
    const stopped = (await rest<PipelineOrder>('POST', '/pipeline/stop')).body;
    expect(stopped).toMatchObject({ status: 'stopped', deployments: ['slow'], failed: [] });
    const states = async () => (await listDeployments(control)).map((one) => `${one.name} ${one.status}`);
    expect(await states()).toEqual(['other paused', 'slow paused']);
    const started = (await rest<PipelineOrder>('POST', '/pipeline/start')).body;
    expect(started).toMatchObject({ status: 'running', deployments: ['slow'], failed: [] });
    expect(await states()).toEqual(['other paused', 'slow active']);
    // Stopped with the pipeline, then paused by a person: it is the person's.
    await rest('POST', '/pipeline/stop');
    await rest('POST', '/deployments/slow/pause');
    expect((await rest<PipelineOrder>('POST', '/pipeline/start')).body.deployments).toEqual([]);
    expect((await rest('POST', '/deployments/slow/resume')).body).toMatchObject({ status: 'active', paused: false });
    expect(await states()).toEqual(['other paused', 'slow active']);
  });
});

describe('the command line', () => {
  it('shows, deploys and refuses with its exit status', async () => {
    const wrong = await sluice('deploy', '--dir', folderOf({ bad: 'overlapp: skip' }));
    expect([wrong.code, wrong.out]).toEqual([2, '']);
    expect(wrong.err).toMatch(/bad\.yaml:5: unknown key overlapp \(configuration\)\. Did you mean overlap\?/);
    const folder = folderOf({ slow: 'schedule: { interval: 3h }' });
    const dry = await sluice('deploy', '--dir', folder, '--dry-run');
    expect(dry.out).toMatch(/^would update {2}slow .*\n {4}schedule: every 1h → every 3h\n/);
    expect(dry.out).toMatch(/no file +other {2}kept; --prune deletes it\nnothing was changed \(--dry-run\)\n$/);
    const done = await sluice('deploy', '--dir', folder, '--prune', '--json');
    expect(JSON.parse(done.out).changes).toMatchObject([
      { name: 'slow', action: 'update', differences: [{ field: 'schedule', from: 'every 1h', to: 'every 3h' }] },
      { name: 'other', action: 'delete', error: null },
    ]);
    const list = await sluice('deployments', 'list');
    expect(list.out).toMatch(
      /^deployment +state +flow +schedule +next run +last run\nslow +active +extractAssets +every 3h/,
    );
    const wrongs = [
      ['run', 'slow', '--param', 'x'],
      ['backfill', 'slow', '--from', '2026-01-01'],
      ['run', 'nobody'],
    ];
    const codes = await Promise.all(wrongs.map(async (args) => (await sluice(...args)).code));
    expect(codes).toEqual([2, 2, 1]);
  });
});

describe('a schedule that was late', () => {
  it('makes up for what lies in its catch-up window, and tells the rest with the command for it', async () => {
    await deployed({ late: 'schedule: { interval: 2s }\ncatchup_window: 10s\noverlap: allow_all' }, { prune: true });
    const look = () => getDeployment(control, 'late');
    await until(look, (one) => one.last_runs.length >= 2);
    await stack.parts.temporal.kill();
    await sleep(13_000);
    await stack.parts.temporal.restart();
    /** True when the command names the very runs that are not there: as many as Temporal has counted. */
    const isExact = (one: DeploymentAnswer | undefined) => {
      const { catchup_window: count = 0, command = '' } = one?.missed ?? {};
      const [, from, to] =
        /^npx sluice backfill late --from (\S+) --to (\S+) --only-missing$/.exec(command ?? '') ?? [];
      if (one === undefined || from === undefined || to === undefined) return false;
      const made = one.last_runs.map((run) => Date.parse(run.nominal ?? ''));
      const missing = [];
      for (let due = Date.parse(from) + 2000; due <= Date.parse(to); due += 2000) missing.push(due);
      const whole = made.includes(Date.parse(from)) && made.includes(Date.parse(to) + 2000);
      return whole && missing.length === count && !missing.some((due) => made.includes(due));
    };
    await until(() => look().catch(() => undefined), isExact);
    expect((await sluice('deployments', 'list')).out).toMatch(
      /! late: \d runs were missed\. Make up for them: npx sluice/,
    );
  }, 120_000);
});
