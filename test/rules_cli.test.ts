/** Rules and checks from files and by the command line: each command of docs/rules.md, on the example files of config/. */
import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import type { ApplyAnswer } from '../api/control/apply.ts';
import type { QualityAnswer } from '../api/control/rule_shapes.ts';
import type { SourceAnswer } from '../api/control/shapes.ts';
import type { Rule } from '../model/rules.ts';
import { nodeArguments } from '../workers/child.ts';
import { readDeclared } from '../workers/config.ts';
import { createTables } from '../workers/demo/tables.ts';
import { projectFolder } from '../workers/settings.ts';
import { type ControlStack, endChild, startControlStack, until } from './control_stack.ts';

const guide = readFileSync(path.join(projectFolder, 'docs', 'rules.md'), 'utf8');
const blocks = (language: string) =>
  [...guide.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, 'g'))].map((block) => block[1]!);
const commands = blocks('sh')
  .flatMap((block) => block.split('\n'))
  .map((line) => line.replace(/\s+#.*$/, '').trim())
  .filter(Boolean);

const folder = mkdtempSync(path.join(tmpdir(), 'sluice-rules-'));
let stack: ControlStack;

beforeAll(async () => {
  stack = await startControlStack();
  await sql((client) => createTables(client));
  // Keys from 17 on: the guide names some.
  await sql((client) =>
    client.query(`INSERT INTO public.currencies VALUES ('EUR', 'Euro', 978, 2, '€', 1, 0, true, '{}', now());
    INSERT INTO public.accounts (id, external_id, holder, email, iban, kind, currency, balance, frozen, tags, limits,
      opened_on, created_at, updated_at)
    SELECT i, gen_random_uuid(), 'h', CASE WHEN i = 30 THEN 'nobody' ELSE 'user' || i || '@example.org' END, 'GB1', 'personal', 'EUR', 1,
      false, '{}', '{}', CASE WHEN i IN (17, 18) THEN date 'infinity' ELSE date '2024-01-01' END, now(), now()
    FROM generate_series(17, 40) i;
    INSERT INTO public.transactions (reference, account_id, amount, currency, status, exchange_rate, value_date, created_at, updated_at)
    SELECT gen_random_uuid(), 20, i, 'EUR', 'booked', 1.5, '2024-01-01', now(), now() FROM generate_series(1, 10) i`),
  );
}, 180_000);

afterAll(async () => {
  rmSync(folder, { recursive: true, force: true });
  await stack?.[Symbol.asyncDispose]();
}, 60_000);

function sql(use: Parameters<typeof withConnection>[1]): Promise<unknown> {
  return withConnection({ connectionString: stack.parts.postgres.url, applicationName: 'test' }, use);
}

function sluice(...args: string[]): Promise<{ code: number | null; out: string; err: string }> {
  const file = path.join(projectFolder, 'cli', 'main.ts');
  const options = { cwd: projectFolder, env: stack.environment };
  const child = spawn(process.execPath, nodeArguments(file, ...args), options);
  const ran = { out: '', err: '' };
  child.stdout.on('data', (bytes) => (ran.out += bytes));
  child.stderr.on('data', (bytes) => (ran.err += bytes));
  return new Promise((resolve) => child.once('close', (code) => resolve({ ...ran, code })));
}

async function get<Body>(url: string): Promise<Body> {
  return (await (await fetch(`${stack.api}/api/v1${url}`)).json()) as Body;
}

const streaming = () =>
  until(
    () => get<SourceAnswer>('/sources/postgres_main'),
    (source) => source.status === 'streaming',
    90,
  );

describe('the guide', () => {
  it('has examples that are right', () => {
    for (const [i, text] of blocks('yaml').entries())
      writeFileSync(path.join(folder, ['transformations.yaml', 'quality.yaml'][i]!), text);
    const { transformations, quality } = readDeclared(folder);
    expect([transformations?.length, quality?.length]).toEqual([2, 3]);
  });
});

describe('sluice apply', () => {
  it('says what it would do, does it, and has nothing to do then', async () => {
    const plan = await sluice('apply', '--dry-run');
    expect(plan).toMatchObject({ code: 0, err: '' });
    expect(plan.out).toMatch(/^would create {2}source postgres_main\nwould create {2}rule mask_email\n/);
    expect(plan.out).toMatch(/\nnothing was changed \(--dry-run\)\n$/);
    expect(await get('/transformations')).toEqual([]);
    const made = await sluice('apply');
    expect(made).toMatchObject({ code: 0, err: '' });
    expect(made.out).toContain('created  rule mask_email\n');
    expect((await get<Rule[]>('/transformations')).map(({ rule_id }) => rule_id)).toEqual(['mask_email', 'amount_eur']);
    await streaming();
    const again = await sluice('apply', '--json');
    const answer = JSON.parse(again.out) as ApplyAnswer;
    expect(answer.changes.map(({ action }) => action)).toEqual(answer.changes.map(() => 'unchanged'));
    expect(answer).toMatchObject({ dry_run: false, rules_version: 1 });
  });

  it('shows what is another, keeps what is not in the files, and takes it away with --prune', async () => {
    const other = { rule_id: 'other', rule_type: 'filter', assets: ['nowhere'], expression: '{{ x }}' };
    const headers = { 'content-type': 'application/json' };
    await fetch(`${stack.api}/api/v1/transformations`, { method: 'POST', headers, body: JSON.stringify(other) });
    writeFileSync(
      path.join(folder, 'transformations.yaml'),
      readFileSync(path.join(projectFolder, 'config', 'transformations.yaml'), 'utf8').replace('[:3]', '[:2]'),
    );
    rmSync(path.join(folder, 'quality.yaml'), { force: true });
    const plan = (await sluice('apply', '--dir', folder, '--dry-run')).out;
    expect(plan).toContain('would update      rule mask_email\n    expression: {{ email.split("@")[0][:3] }}***@');
    expect(plan).toContain('not in the files  rule other  kept; --prune takes it away');
    expect(plan).toContain('unchanged         check email_shape');
    const pruned = await sluice('apply', '--dir', folder, '--prune');
    expect(pruned.out).toContain('\ndeleted    rule other\n');
    expect(pruned.out).toMatch(/\nrules are version 3\n$/);
    expect((await get<Rule[]>('/transformations')).map(({ version }) => version)).toEqual([2, 1]);
    expect((await sluice('apply')).code).toBe(0);
    await streaming();
  });

  it('tells mistakes with file and line, and changes nothing', async () => {
    const text = readFileSync(path.join(projectFolder, 'config', 'transformations.yaml'), 'utf8');
    const write = (changed: string) => writeFileSync(path.join(folder, 'transformations.yaml'), changed);
    write(text.replace('target_field: masked_email', 'taget_field: masked_email'));
    const unknown = await sluice('apply', '--dir', folder);
    expect(unknown).toMatchObject({ code: 2, out: '' });
    expect(unknown.err).toMatch(
      /transformations\.yaml:9: rules\.0\.taget_field: unknown key; known are .*target_field/,
    );
    write(text.replace('email.split("@")[1]', 'emial'));
    const wrong = await sluice('apply', '--dir', folder);
    expect(wrong).toMatchObject({ code: 2, out: '' });
    expect(wrong.err).toMatch(
      /transformations\.yaml:\d+: rule mask_email, expression: for postgres_main_accounts: line 1, column \d+: there is no column "emial"/,
    );
    expect((await sluice('apply', '--dry-run')).out).toContain('nothing to change');
  });
});

describe('each command of the guide', () => {
  it.each(commands)('runs: %s', async (command) => {
    const [npx, program, ...args] = command.split(/\s+/);
    expect([npx, program]).toEqual(['npx', 'sluice']);
    // Rows are rejected until they are released or discarded.
    if (args[1] === 'list' && args[2])
      await until(
        () => sluice(...args),
        ({ out }) => JSON.parse(out).items.length === 2,
      );
    const ran = await sluice(...args);
    expect(ran.err).toBe('');
    if (args[0] === 'quality' && args[1] === 'postgres_main_accounts') {
      expect(ran.code).toBe(1);
      expect(ran.out).toMatch(/email_shape: .*"email":"nobody"/);
      const answer = JSON.parse((await sluice(...args, '--json')).out) as QualityAnswer;
      expect(answer).toMatchObject({ checked: 22, failed: 1 });
    } else if (args[1] === 'release') {
      expect([ran.code, ran.out]).toEqual([1, expect.stringContaining('2 are not right by now either')]);
    } else expect(ran.code).toBe(0);
    if (args[1] === 'discard') expect(ran.out).toBe('postgres_main_accounts: 2 discarded\n');
    if (args.includes('--scores')) expect(ran.out).toContain('email_shape');
  });

  it('wrong use is status 2', async () => {
    expect(await sluice('rejects', 'discard', 'postgres_main_accounts')).toMatchObject({ code: 2 });
    expect(await sluice('rejects', 'discard', 'postgres_main_accounts', '17')).toMatchObject({ code: 1 });
    expect(await sluice('quality', 'nowhere')).toMatchObject({ code: 1 });
  });
});

describe('sluice rules', () => {
  const file = (name: string, text: string) => {
    writeFileSync(path.join(folder, name), text);
    return path.join(folder, name);
  };
  const rule = {
    rule_id: 'holder_upper',
    rule_type: 'map',
    assets: ['postgres_main_accounts'],
    source_fields: ['holder'],
    target_field: 'holder_upper',
    expression: '{{ holder | upper }}',
  };

  it('lists, shows and tells who changed what', async () => {
    const list = await sluice('rules', 'list');
    expect(list.out).toMatch(/^mask_email +map +postgres_main_\* +email +masked_email +\d+$/m);
    expect(JSON.parse((await sluice('rules', 'list', '--json')).out)).toEqual(await get('/transformations'));
    expect((await sluice('rules', 'show', 'mask_email')).out).toMatch(/^rule mask_email, version \d+\n {2}/);
    const check = JSON.parse((await sluice('rules', 'show', 'email_shape', '--json')).out);
    expect(check).toEqual(await get('/quality/rules/email_shape'));
    const history = JSON.parse((await sluice('rules', 'history', '--json')).out);
    expect(history.at(-1)).toMatchObject({
      version: 1,
      by: expect.stringMatching(/^cli: /),
      change: expect.any(String),
    });
    expect(JSON.parse((await sluice('rules', 'history', '--limit', '1', '--json')).out)).toEqual([history[0]]);
    expect(await sluice('rules', 'show', 'nothing')).toMatchObject({ code: 1, out: '' });
  });

  it('tries a rule on copies, and on rows', async () => {
    const made = file('rule.yaml', `${JSON.stringify(rule)}\n`);
    const tried = await sluice('rules', 'preview', '--file', made, '--last', '5');
    expect(tried).toMatchObject({ code: 0, err: '' });
    expect(tried.out).toMatch(/^postgres_main_accounts: of 5 rows \(from the copy\) 5 would be changed, 0 added/);
    const whole = JSON.parse((await sluice('rules', 'preview', 'mask_email', '--json')).out);
    expect(whole).toMatchObject([{ asset_id: 'postgres_main_accounts', differences: { changed: 0 } }]);
    const rows = file('rows.json', '{"holder": "a"}\n{"holder": 5}\n');
    const given = JSON.parse((await sluice('rules', 'preview', '--file', made, '--rows', rows, '--json')).out);
    expect(given.rows[0]).toEqual({ holder: 'a', holder_upper: 'A' });
    expect((await sluice('rules', 'preview', '--file', made, '--rows', rows)).out).toContain('"holder_upper":"A"');
    const list = file('rules.yaml', JSON.stringify({ rules: [rule, { ...rule, rule_id: 'two', expression: '{{ x' }] }));
    expect(await sluice('rules', 'preview', '--file', list)).toMatchObject({ code: 2 });
    expect(await sluice('rules', 'preview', 'holder_upper', '--file', list, '--last', '1')).toMatchObject({ code: 0 });
    expect(await sluice('rules', 'preview', 'two', '--file', list)).toMatchObject({ code: 2, out: '' });
    expect(await sluice('rules', 'preview')).toMatchObject({ code: 2 });
    expect(await sluice('rules', 'preview', 'mask_email', '--last', '0')).toMatchObject({ code: 2 });
    const nowhere = file('nowhere.yaml', JSON.stringify({ ...rule, assets: ['nowhere'] }));
    expect(await sluice('rules', 'preview', '--file', nowhere)).toMatchObject({ code: 1 });
  }, 120_000);

  it('takes rules and checks away', async () => {
    const headers = { 'content-type': 'application/json' };
    const post = (url: string, body: object) =>
      fetch(`${stack.api}/api/v1${url}`, { method: 'POST', headers, body: JSON.stringify(body) });
    await post('/transformations', { ...rule, assets: ['nowhere'] });
    await post('/quality/add-rule', {
      rule_id: 'rows',
      asset: 'nowhere',
      rule_type: 'row_count',
      parameters: { min: 1 },
    });
    expect(await sluice('rules', 'remove', 'holder_upper')).toMatchObject({
      code: 0,
      out: 'rule holder_upper is taken away\n',
    });
    expect(JSON.parse((await sluice('rules', 'remove', 'rows', '--json')).out)).toEqual({
      removed: 'rows',
      what: 'check',
    });
    expect(await sluice('rules', 'remove', 'rows')).toMatchObject({ code: 1 });
  });
});

describe('sluice lineage and schemas', () => {
  it('show the whole graph without an asset', async () => {
    const flow = JSON.parse((await sluice('lineage', '--json')).out);
    expect(flow).toEqual(await get('/lineage/flow'));
    expect((await sluice('lineage')).out).toMatch(/^clickhouse_postgres_main_accounts +/m);
    expect((await sluice('lineage', '--dot')).out).toMatch(/^digraph/);
    expect((await sluice('lineage', '--mermaid')).out).toMatch(/^(flowchart|graph)/);
    expect(await sluice('lineage', '--upstream')).toMatchObject({ code: 2 });
  });

  it('set the mode of a subject', async () => {
    const set = await sluice('schemas', 'compatibility', 'postgres_main_accounts', 'FULL');
    expect(set).toMatchObject({ code: 0, out: 'postgres_main_accounts: FULL\n' });
    expect(await get('/schema/postgres_main_accounts/compatibility')).toMatchObject({ compatibility: 'FULL' });
    expect(await sluice('schemas', 'compatibility', 'postgres_main_accounts', 'SOME')).toMatchObject({ code: 2 });
    expect(await sluice('schemas', 'compatibility', 'nowhere', 'NONE')).toMatchObject({ code: 1 });
  });
});

describe('the API', () => {
  it('declares the files of its configuration when it starts, and keeps what else there is', async () => {
    writeFileSync(
      path.join(folder, 'transformations.yaml'),
      'rules:\n  - { rule_id: late, rule_type: filter, assets: [nowhere], expression: "{{ x }}" }\n',
    );
    const { child } = await stack.startApi({ SLUICE_CONFIG_DIR: folder });
    await until(
      () => get<Rule[]>('/transformations'),
      (rules) => rules.map(({ rule_id }) => rule_id).join() === 'late,mask_email,amount_eur',
    );
    await endChild(child);
  });
});
