/** Rules and checks from files and by the command line: each command of docs/rules.md, on the example files of config/. */
import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { withConnection } from '../activities/capture/postgresql/connection.ts';
import type { ApplyAnswer } from '../api/control/apply.ts';
import type { RowLineage } from '../api/control/lineage_shapes.ts';
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

describe('sluice apply, for a source that is there,', () => {
  const files = mkdtempSync(path.join(tmpdir(), 'sluice-sources-'));
  afterAll(() => rmSync(files, { recursive: true }));
  const declare = (tables: string, more = '') =>
    writeFileSync(
      path.join(files, 'cdc.yaml'),
      `sources:\n  - { id: shop, type: postgresql, connection_string: \${DATABASE_URL}, tables: ${tables}${more} }\n`,
    );
  const apply = (...flags: string[]) => sluice('apply', '--dir', files, ...flags);
  const shop = (...tables: string[]) =>
    until(
      () => get<SourceAnswer>('/sources/shop'),
      (source) => source.status === 'streaming' && source.tables.map(({ table }) => table).join() === tables.join(),
      90,
    );
  /** How often each table was copied from its beginning. */
  const copied = async () => {
    const { items } = await get<{ items: { id: string; kind: string }[] }>('/lineage/audit?source=shop&limit=1000');
    const times = (asset: string) =>
      items.filter(({ id, kind }) => kind === 'snapshot' && id.includes(`/${asset}/`)).length;
    return ['shop_shop_a', 'shop_shop_b'].map(times);
  };

  it('changes settings and adds tables in place, as it says before', async () => {
    await sql((client) =>
      client.query(`CREATE TABLE public.shop_a (id int PRIMARY KEY); INSERT INTO public.shop_a VALUES (1);
        CREATE TABLE public.shop_b (id int PRIMARY KEY, secret text); INSERT INTO public.shop_b VALUES (1, 's'), (2, 's')`),
    );
    declare('[shop_a]');
    expect((await apply()).out).toMatch(/^created +source shop\n/);
    await shop('shop_a');
    const more = ', poll_interval: 2, exclude_columns: { shop_b: [secret] }, options: { verify: off, failover: true }';
    declare('["shop_*"]', more);
    const said = [
      'poll_interval: 1 → 2',
      'tables: \\["shop_a"\\] → \\["shop_\\*"\\]',
      'options.failover: \\(none\\) → true',
    ];
    const planned = await apply('--dry-run');
    expect(planned).toMatchObject({ code: 0, err: '' });
    for (const line of said) expect(planned.out).toMatch(new RegExp(`^    ${line}$`, 'm'));
    expect(planned.out).toMatch(/^would update {2}source shop\n/);
    expect(planned.out).toMatch(/^would create {2}table shop_shop_b$/m);
    expect((await get<SourceAnswer>('/sources/shop')).config.poll_interval).toBe(1);
    const made = await apply();
    expect(made).toMatchObject({ code: 0, err: '' });
    const past = (text: string) =>
      text
        .replace(/would (crea|upda)te /g, '$1ted ')
        .replace(/ {2,}/g, ' ')
        .split('\n')
        .slice(0, -2);
    expect(past(made.out)).toEqual(past(planned.out));
    const { config } = await shop('shop_a', 'shop_b');
    expect(config).toMatchObject({ poll_interval: 2, tables: ['shop_*'], options: { verify: 'off' } });
    // Figures may be those of a moment ago.
    await until(
      () => get<SourceAnswer>('/sources/shop'),
      ({ tables }) => tables.map(({ rows }) => rows).join() === '1,2',
    );
    expect(await copied()).toEqual([1, 1]);
    const slot = (await sql((client) =>
      client.query(`SELECT failover FROM pg_replication_slots WHERE slot_name = 'sluice_shop'`),
    )) as { rows: object[] };
    expect(slot.rows).toEqual([{ failover: true }]);
    const again = await apply();
    expect([again.code, again.out]).toEqual([0, expect.stringContaining('unchanged  source shop\n')]);
    expect(again.out).toMatch(/\nnothing to change\n$/);
  });

  it('keeps tables that are not in the files, until --prune', async () => {
    const more = ', poll_interval: 2, exclude_columns: { shop_b: [secret] }, options: { verify: off, failover: true }';
    declare('[shop_b]', more);
    expect((await apply()).out).toMatch(/^not in the files {2}table shop_shop_a {2}kept; --prune takes it away$/m);
    await shop('shop_a', 'shop_b');
    expect((await apply('--prune', '--dry-run')).out).toMatch(/^would delete {2}table shop_shop_a$/m);
    await shop('shop_a', 'shop_b');
    expect((await apply('--prune')).out).toMatch(/^deleted {4}table shop_shop_a$/m);
    await shop('shop_b');
    declare('[shop_b, shop_a]', more);
    expect((await apply()).code).toBe(0);
    await shop('shop_b', 'shop_a');
    expect(await copied()).toEqual([2, 1]);
  });

  it('says what only another source can have, and what cannot be copied', async () => {
    declare('[shop_a, shop_b]', ', options: { slot: other }');
    for (const flags of [['--dry-run'], []]) {
      const refused = await apply(...flags);
      expect(refused.code).toBe(1);
      expect(refused.out).toMatch(/^conflict +source shop\n/);
      expect(refused.out).toContain('options.slot: (none) → other\n');
      expect(refused.out).toContain(
        '! exclude_columns, options.slot cannot change in place: npx sluice sources delete shop',
      );
    }
    declare('[shop_a, shop_b, shop_c]', ', exclude_columns: { shop_b: [secret] }');
    for (const flags of [['--dry-run'], []]) {
      const refused = await apply(...flags);
      expect([refused.code, refused.out]).toEqual([1, expect.stringMatching(/^FAILED +source shop\n.*shop_c/s)]);
    }
    expect((await get<SourceAnswer>('/sources/shop')).config.poll_interval).toBe(2);
    const headers = { 'content-type': 'application/json' };
    await fetch(`${stack.api}/api/v1/sources/shop`, { method: 'DELETE', headers });
  });
});

describe('sluice apply, of a function that workers do not have,', () => {
  it('says the same with --dry-run, and where', async () => {
    const files = mkdtempSync(path.join(tmpdir(), 'sluice-functions-'));
    mkdirSync(path.join(files, 'functions'));
    writeFileSync(
      path.join(files, 'functions', 'risk.ts'),
      "export const risk = { type: 'String', run: () => 'low' };\n",
    );
    const rule = `  - { rule_id: risk, rule_type: custom, assets: [nowhere], source_fields: [id], target_field: risk,
      parameters: { function: risk } }\n`;
    writeFileSync(path.join(files, 'transformations.yaml'), `# mine\nrules:\n${rule}`);
    const [plan, real] = [await sluice('apply', '--dir', files, '--dry-run'), await sluice('apply', '--dir', files)];
    expect(plan).toMatchObject({ code: 2, out: '' });
    expect(plan.err).toMatch(
      /transformations\.yaml:3: rule risk: there is no function risk\. .*loaded when a worker or the API starts/,
    );
    expect(real).toEqual(plan);
    rmSync(files, { recursive: true });
  });
});

describe('a row that a filter took out', () => {
  it('is told with what the source did, and the rules', async () => {
    const files = mkdtempSync(path.join(tmpdir(), 'sluice-filtered-'));
    const cdc = 'sources: [{ id: left, type: postgresql, connection_string: ${DATABASE_URL}, tables: [left_rows] }]\n';
    const rule = '{ rule_id: small, rule_type: filter, assets: [left_left_rows], expression: "{{ n < 10 }}" }';
    writeFileSync(path.join(files, 'cdc.yaml'), cdc);
    writeFileSync(path.join(files, 'transformations.yaml'), `rules: [${rule}]\n`);
    await sql((client) =>
      client.query(
        `CREATE TABLE public.left_rows (id int PRIMARY KEY, n int); INSERT INTO public.left_rows VALUES (1, 1), (2, 2)`,
      ),
    );
    expect((await sluice('apply', '--dir', files)).err).toBe('');
    const rowOf = (key: number) => get<RowLineage>(`/lineage/row/left_left_rows?key=${key}`);
    await until(
      () => get<SourceAnswer>('/sources/left'),
      ({ status }) => status === 'streaming',
      90,
    );
    await until(
      () => rowOf(2),
      ({ versions }) => (versions[0]?.rules_version ?? 0) > 0,
      60,
    );
    const lost = async (key: number, statement: string) => {
      await sql((client) => client.query(statement));
      return (
        await until(
          () => rowOf(key),
          ({ versions }) => versions[0]?.op === 'delete' && versions[0].batch_id !== null,
        )
      ).versions[0];
    };
    expect(await lost(2, 'UPDATE public.left_rows SET n = 20 WHERE id = 2')).toMatchObject({
      source_op: 'update',
      filtered_by: ['small'],
    });
    expect(await lost(1, 'DELETE FROM public.left_rows WHERE id = 1')).toMatchObject({
      source_op: 'delete',
      filtered_by: [],
    });
    const { out } = await sluice('lineage', 'left_left_rows', '--row', '2');
    expect(out).toMatch(/^committed \(UTC\) +change +position +batch +rules$/m);
    expect(out).toMatch(/ update, kept out by small +\S+ +\S+ +[1-9]\d*$/m);
    expect((await sluice('rules', 'remove', 'small')).code).toBe(0);
    expect((await sluice('sources', 'delete', 'left')).code).toBe(0);
    rmSync(files, { recursive: true });
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
