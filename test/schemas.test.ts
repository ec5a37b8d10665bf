/** The registry of schemas through the REST API and the command line, on a real Temporal and ClickHouse. */
import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { writeSubjects } from '../activities/load/subjects.ts';
import { createSchemaActivities } from '../activities/schemas/activities.ts';
import type {
  CheckAnswer,
  MigrateAnswer,
  RegisteredAnswer,
  SubjectAnswer,
  VersionAnswer,
} from '../api/control/schema_shapes.ts';
import type { Problem } from '../api/problems.ts';
import { main } from '../cli/main.ts';
import { catalogMessages, catalogWorkflowId } from '../model/messages.ts';
import { readSchema } from '../model/schema.ts';
import type { SubjectState } from '../model/subject.ts';
import { findTemporal } from '../workers/embedded/temporal_binary.ts';
import { readSettings } from '../workers/settings.ts';
import { askFlow, connectTemporal } from '../workers/temporal_client.ts';
import { type ControlStack, startControlStack } from './control_stack.ts';
import { recordHistory } from './histories.ts';

let stack: ControlStack;
let clickhouse: ClickHouse;
let client: Awaited<ReturnType<typeof connectTemporal>>;

beforeAll(async () => {
  stack = await startControlStack();
  clickhouse = new ClickHouse({ url: stack.parts.clickhouse.url, database: 'sluice', role: 'write' });
  client = await connectTemporal({ temporalAddress: stack.parts.temporal.url, temporalNamespace: 'default' });
}, 120_000);

afterAll(async () => {
  await client?.connection.close();
  await clickhouse?.close();
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

async function call<Body>(method: string, url: string, body?: unknown): Promise<{ status: number; body: Body }> {
  const answer = await fetch(`${stack.api}/api/v1/schema${url}`, {
    method,
    ...(body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) }),
  });
  return { status: answer.status, body: (await answer.json()) as Body };
}

type Registered = RegisteredAnswer & Omit<Problem, 'mode'>;
const register = (subject: string, fields: object[], more: object = {}) =>
  call<Registered>('POST', '/register', { subject, schema: { fields }, ...more });
const check = (body: object) => call<CheckAnswer>('POST', '/check-compatibility', body);
const versions = async (subject: string) =>
  (await call<VersionAnswer[]>('GET', `/${encodeURIComponent(subject)}/versions`)).body;

/** The `temporal` command on this stack's server. */
async function cli(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  const temporal = await findTemporal(() => {});
  const command = [...args, '--address', stack.parts.temporal.url];
  return { ...(await promisify(execFile)(temporal, command, { maxBuffer: 64 << 20 })), code: 0 };
}

const id = { name: 'id', type: 'long' };
const name = { name: 'name', type: 'string' };

describe('before anything is registered', () => {
  it('there are no subjects', async () => {
    expect(await call('GET', '')).toEqual({ status: 200, body: [] });
    expect((await call('GET', '/orders/versions')).status).toBe(404);
    expect((await check({ subject: 'orders', schema: { fields: [id] } })).status).toBe(404);
  });
});

describe('registering', () => {
  it('makes version 1, and the same schema again is that version', async () => {
    const first = await register('orders', [id, { name: 'note', type: 'varchar(20)', nullable: true }]);
    expect(first.status).toBe(201);
    expect(first.body).toEqual({ subject: 'orders', version: 1, id: expect.any(Number), compatibility: 'BACKWARD' });
    const again = await call<Registered>('POST', '/register', {
      schema: {
        fields: [
          { type: 'bigint', name: 'id' },
          { default: null, nullable: true, type: 'text', name: 'note' },
        ],
      },
      subject: 'orders',
    });
    expect(again).toEqual({ status: 200, body: first.body });
  });

  it('makes the next version when it goes with the one before', async () => {
    const next = await register('orders', [id, { name: 'total', type: 'numeric(12,2)', default: 0 }]);
    expect([next.status, next.body.version]).toEqual([201, 2]);
    const { status, body } = await call<VersionAnswer>('GET', '/orders/versions/2');
    expect(status).toBe(200);
    expect(body).toEqual({
      subject: 'orders',
      version: 2,
      id: next.body.id,
      registered_at: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
      schema: {
        fields: [
          { name: 'id', type: 'long', nullable: false },
          { name: 'total', type: 'decimal(12,2)', nullable: false, default: '0.00' },
        ],
      },
    });
    expect((await versions('orders')).map(({ version }) => version)).toEqual([1, 2]);
    expect((await call<VersionAnswer>('GET', '/orders/versions/latest')).body).toEqual(body);
    expect((await call('GET', '/orders/versions/3')).status).toBe(404);
    expect((await call('GET', '/orders/versions/x')).status).toBe(404);
  });

  it('is refused with reasons when it does not, and changes nothing', async () => {
    const { status, body } = await register('orders', [id, { name: 'country', type: 'string' }], {
      compatibility: 'FULL',
    });
    expect(status).toBe(409);
    expect(body).toMatchObject({
      kind: 'conflict',
      mode: 'FULL',
      errors: [{ pointer: '/schema/fields/1', code: 'missing_default', detail: expect.stringContaining('`country`') }],
      reasons: [{ code: 'missing_default', field: 'country', direction: 'backward', version: 2 }],
    });
    expect(await call('GET', '/orders/compatibility')).toEqual({
      status: 200,
      body: { subject: 'orders', compatibility: 'BACKWARD' },
    });
    expect(await versions('orders')).toHaveLength(2);
  });

  it('of what is none tells each mistake with its place', async () => {
    const bad = (body: object) => call<Problem>('POST', '/register', body);
    const pointers = ({ status, body }: { status: number; body: Problem }) => [
      status,
      body.errors?.map(({ pointer }) => pointer),
    ];
    const type = await bad({ subject: 's', schema: { fields: [id, { name: 'a', type: 'strin' }] } });
    expect(pointers(type)).toEqual([422, ['/schema/fields/1/type']]);
    expect(type.body.errors![0]!.detail).toMatch(/did you mean string\?.*allowed are null, boolean/);
    const value = await bad({
      subject: 's',
      schema: {
        fields: [
          { ...id, default: 'x' },
          { name: 'a', type: 'int', default: null },
        ],
      },
    });
    expect(pointers(value)).toEqual([422, ['/schema/fields/0/default', '/schema/fields/1/default']]);
    expect(pointers(await bad({ subject: 's', schema: { fields: [{ ...id, size: 3 }] } }))).toEqual([
      422,
      ['/schema/fields/0/size'],
    ]);
    const union = await bad({ subject: 's', schema: { fields: [{ name: 'a', type: ['null', 'int'] }] } });
    expect(pointers(union)).toEqual([422, ['/schema/fields/0/type']]);
    expect(union.body.errors![0]!.detail).toContain('"nullable": true');
    expect(pointers(await bad({ subject: 's', schema: { fields: [] } }))).toEqual([422, ['/schema/fields']]);
    expect(pointers(await bad({ subject: 's\n', schema: { fields: [id] } }))).toEqual([422, ['/subject']]);
    expect(pointers(await bad({ subject: 's', schema: { fields: [id] }, compatibility: 'SOME' }))).toEqual([
      422,
      ['/compatibility'],
    ]);
    expect((await call('GET', '/s/versions')).status).toBe(404);
  });

  it('takes subjects with any name', async () => {
    for (const subject of ['main_Sales.Orders/2026 ü', '__proto__', 'constructor']) {
      expect((await register(subject, [id])).status).toBe(201);
      expect((await register(subject, [id])).status).toBe(200);
      expect((await versions(subject)).map((one) => [one.subject, one.version])).toEqual([[subject, 1]]);
    }
  });
});

describe('at the same time', () => {
  it('two registrations get two versions, and the same one gets the same', async () => {
    const field = (index: number) => ({ name: `f${index}`, type: 'int', nullable: true });
    const many = Array.from({ length: 12 }, (_, index) => register('busy', [id, field(index)]));
    const answers = await Promise.all(many);
    expect(answers.map(({ status }) => status)).toEqual(Array(12).fill(201));
    expect(answers.map(({ body }) => body.version).sort((a, b) => a - b)).toEqual(
      Array.from({ length: 12 }, (_, i) => i + 1),
    );
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(12);
    const stored = await versions('busy');
    for (const [index, { body }] of answers.entries()) {
      expect(stored[body.version - 1]!.schema.fields[1]!.name).toBe(`f${index}`);
    }
    const same = await Promise.all(Array.from({ length: 6 }, () => register('calm', [id])));
    expect(same.map(({ status }) => status).sort()).toEqual([200, 200, 200, 200, 200, 201]);
    expect(await versions('calm')).toHaveLength(1);
  });

  it('a registration whose answer got lost is the same when it is tried again', async () => {
    const settings = { ...readSettings({ CLICKHOUSE_URL: stack.parts.clickhouse.url, SLUICE_SECRET_KEY: 'x' }) };
    const activities = createSchemaActivities({ settings, client });
    const schema = readSchema({ fields: [id] });
    const [first, again] = [
      await activities.registerSchema({ subject: 'tried', schema, id: 9_000_000 }),
      await activities.registerSchema({ subject: 'tried', schema, id: 9_000_000 }),
    ];
    expect(first).toMatchObject({ outcome: 'created', version: 1, id: 9_000_000 });
    expect(again).toEqual(first);
    expect(await activities.registerSchema({ subject: 'tried', schema, id: 9_000_001 })).toMatchObject({
      outcome: 'same',
      id: 9_000_000,
    });
    expect(await versions('tried')).toHaveLength(1);
  });

  it('a registration that was given up and is written late overtakes nothing', async () => {
    const before = await versions('busy');
    const last = before.at(-1)!;
    const schema = { fields: [{ name: 'late', type: 'int', nullable: false }] };
    const row = { subject: 'busy', version: last.version, id: last.id - 1, compatibility: 'NONE' as const, schema };
    await writeSubjects(clickhouse, [row]);
    expect(await versions('busy')).toEqual(before);
  });
});

describe('compatibility', () => {
  it('is checked against a subject or another schema, and nothing is stored', async () => {
    const wide = { fields: [{ name: 'id', type: 'double' }] };
    const old = { fields: [id] };
    expect((await check({ old_schema: old, schema: wide })).body).toEqual({
      compatible: true,
      mode: 'BACKWARD',
      reasons: [],
    });
    const forward = await check({ old_schema: old, schema: wide, mode: 'FORWARD' });
    expect(forward.status).toBe(200);
    expect(forward.body).toMatchObject({
      compatible: false,
      mode: 'FORWARD',
      reasons: [{ code: 'type_mismatch', field: 'id' }],
    });
    const subject = await check({ subject: 'orders', schema: { fields: [id, { name: 'x', type: 'int' }] } });
    expect(subject.body).toMatchObject({ compatible: false, mode: 'BACKWARD', reasons: [{ field: 'x', version: 2 }] });
    const transitive = { subject: 'orders', schema: { fields: [id, { name: 'note', type: 'int', default: 1 }] } };
    expect((await check(transitive)).body.compatible).toBe(true);
    expect((await check({ ...transitive, mode: 'BACKWARD_TRANSITIVE' })).body).toMatchObject({
      compatible: false,
      reasons: [{ code: 'null_mismatch', field: 'note', version: 1 }],
    });
    expect((await check({ ...transitive, mode: 'NONE' })).body.compatible).toBe(true);
    expect(await versions('orders')).toHaveLength(2);
    expect((await check({ subject: 'orders', old_schema: old, schema: old })).status).toBe(422);
    expect((await check({ schema: old })).status).toBe(422);
    const bad = await call<Problem>('POST', '/check-compatibility', {
      old_schema: { fields: [{ name: 'a', type: 'x' }] },
      schema: old,
    });
    expect([bad.status, bad.body.errors![0]!.pointer]).toEqual([422, '/old_schema/fields/0/type']);
  });

  it('is a subject’s own, and can be set', async () => {
    expect((await register('modes', [id, name], { compatibility: 'FULL' })).body.compatibility).toBe('FULL');
    expect((await register('modes', [id])).status).toBe(409);
    const put = (mode: unknown, subject = 'modes') => call('PUT', `/${subject}/compatibility`, { compatibility: mode });
    expect(await put('FORWARD')).toEqual({ status: 200, body: { subject: 'modes', compatibility: 'FORWARD' } });
    expect((await register('modes', [id])).status).toBe(409);
    expect((await put('NONE')).status).toBe(200);
    expect((await register('modes', [id])).body.version).toBe(2);
    expect((await put('SOME')).status).toBe(422);
    expect((await put('NONE', 'nobody')).status).toBe(404);
    expect((await register('modes', [id], { compatibility: 'BACKWARD_TRANSITIVE' })).status).toBe(200);
    expect((await call<SubjectAnswer>('GET', '/modes')).body).toMatchObject({
      version: 2,
      compatibility: 'BACKWARD_TRANSITIVE',
    });
  });
});

describe('rows', () => {
  it('move between versions', async () => {
    await register('people', [
      { name: 'id', type: 'int' },
      { name: 'mail', type: 'string' },
      { name: 'fax', type: 'string' },
    ]);
    await register('people', [
      { name: 'id', type: 'long' },
      { name: 'email', type: 'string', aliases: ['mail'] },
      { name: 'country', type: 'string', default: 'DE' },
    ]);
    const rows = [
      { id: 1, mail: 'a@b.c', fax: '-' },
      { id: 2, mail: 'd@e.f', fax: '' },
    ];
    const moved = await call<MigrateAnswer>('POST', '/people/migrate', { rows, from: 1, to: 2 });
    expect(moved).toEqual({
      status: 200,
      body: {
        subject: 'people',
        from: 1,
        to: 2,
        rows: [
          { id: 1, email: 'a@b.c', country: 'DE' },
          { id: 2, email: 'd@e.f', country: 'DE' },
        ],
      },
    });
    expect((await call<MigrateAnswer>('POST', '/people/migrate', { rows, from: 1 })).body.rows).toEqual(
      moved.body.rows,
    );
  });

  it('that do not fit are told with pointers', async () => {
    const wrong = await call<Problem>('POST', '/people/migrate', {
      rows: [
        { id: 1, mail: 'a', fax: '' },
        { id: 'x', mail: 5 },
      ],
      from: 1,
      to: 2,
    });
    expect(wrong.status).toBe(422);
    expect(wrong.body.errors!.map(({ pointer }) => pointer)).toEqual(['/rows/1/id', '/rows/1/mail', '/rows/1/fax']);
    expect((await call('POST', '/people/migrate', { rows: [], from: 1, to: 9 })).status).toBe(404);
    expect((await call('POST', '/nobody/migrate', { rows: [], from: 1, to: 2 })).status).toBe(404);
    expect((await call('POST', '/people/migrate', { rows: {}, from: 1, to: 2 })).status).toBe(422);
  });
});

describe('a catalog that is lost', () => {
  const known = () => askFlow<Record<string, SubjectState>>(client, catalogWorkflowId, catalogMessages.subjects);

  it('is made again from ClickHouse, and numbers go on', async () => {
    if (process.env.RECORD_HISTORIES) await recordHistory({ cli }, catalogWorkflowId, 'schemas');
    const before = await call<SubjectAnswer[]>('GET', '');
    const through = before.body.map(({ subject }) => subject).filter((subject) => subject !== 'tried');
    expect(Object.keys(await known()).sort()).toEqual(through.sort());
    await client.workflow.getHandle(catalogWorkflowId).terminate('lost');
    const next = await register('calm', [id, { ...name, nullable: true }]);
    expect([next.status, next.body.version]).toEqual([201, 2]);
    expect(next.body.id).toBeGreaterThan(Math.max(...before.body.map((one) => one.id)));
    expect((await register('modes', [id, { name: 'x', type: 'int' }])).status).toBe(409);
    const after = await call<SubjectAnswer[]>('GET', '');
    expect(after.body.filter(({ subject }) => subject !== 'calm')).toEqual(
      before.body.filter(({ subject }) => subject !== 'calm'),
    );
    const states = Object.fromEntries(
      after.body.map(({ subject, version, id, compatibility }) => [subject, { version, id, compatibility }]),
    );
    expect(await known()).toEqual(states);
  });
});

describe('the command line', () => {
  /** Runs in this process: eleven others would take longer than all the rest. */
  async function sluice(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
    const told = { stdout: '', stderr: '' };
    const spies = (['stdout', 'stderr'] as const).map((stream) =>
      vi.spyOn(process[stream], 'write').mockImplementation((text) => {
        told[stream] += String(text);
        return true;
      }),
    );
    for (const [name, value] of Object.entries(stack.environment)) vi.stubEnv(name, value);
    try {
      const code = await main(['node', 'sluice', 'schemas', ...args]);
      return { code, ...told };
    } finally {
      for (const spy of spies) spy.mockRestore();
      vi.unstubAllEnvs();
    }
  }

  async function file(name: string, content: unknown): Promise<string> {
    const place = path.join(stack.parts.home, name);
    await writeFile(place, typeof content === 'string' ? content : JSON.stringify(content));
    return place;
  }

  it('registers, checks, shows and migrates', async () => {
    const first = await file('first.json', { fields: [id, name] });
    const second = await file('second.json', {
      fields: [id, { ...name, nullable: true }, { name: 'n', type: 'int', default: 0 }],
    });
    const third = await file('third.json', { fields: [{ name: 'n', type: 'strin' }] });
    const rows = await file('rows.jsonl', '{"id": 1, "name": "a"}\n{"id": 2, "name": "b"}\n');
    expect(await sluice('register', 'shell', first)).toMatchObject({
      code: 0,
      stdout: 'shell: registered as version 1\n',
    });
    expect(await sluice('register', 'shell', first)).toMatchObject({
      code: 0,
      stdout: 'shell: is version 1 already\n',
    });
    expect(await sluice('check', 'shell', second)).toMatchObject({ code: 0, stdout: 'compatible by BACKWARD\n' });
    const refused = await sluice('check', 'shell', second, '--mode', 'FULL');
    expect(refused.code).toBe(1);
    expect(refused.stdout).toMatch(/not compatible by FULL\n.*name.*null_mismatch.*version 1 reads/s);
    const registered = await sluice('register', 'shell', second, '--json');
    expect(JSON.parse(registered.stdout)).toMatchObject({ subject: 'shell', version: 2 });
    expect((await sluice('list')).stdout).toMatch(/shell +2 +[\d,]+ +BACKWARD/);
    expect((await sluice('show', 'shell')).stdout).toMatch(/shell, version 2.*id +long.*name +string +yes +null/s);
    expect((await sluice('show', 'shell', '--version', '1')).stdout).toMatch(/version 1/);
    const migrated = await sluice('migrate', 'shell', rows, '--from', '1');
    expect(migrated.stdout).toBe('{"id":1,"name":"a","n":0}\n{"id":2,"name":"b","n":0}\n');
    expect(await sluice('register', 'shell', third)).toMatchObject({
      code: 2,
      stderr: expect.stringContaining('did you mean string'),
    });
    expect((await sluice('show', 'nothing')).code).toBe(1);
    expect((await sluice('check', 'shell', path.join(stack.parts.home, 'none.json'))).code).toBe(2);
  });
});
