import { type ChildProcess, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { nodeArguments } from '../workers/child.ts';
import { type GeneratorOptions, type GeneratorTotals, runGenerator } from '../workers/demo/generator.ts';
import { type SourceServer, startSource } from './source_server.ts';

vi.setConfig({ testTimeout: 60_000, hookTimeout: 60_000 });

let server: SourceServer;
let databases = 0;
const children: ChildProcess[] = [];

beforeAll(async () => {
  server = await startSource();
});
afterAll(() => server.stop());
afterEach(() => {
  for (const child of children.splice(0)) child.kill('SIGKILL');
});

/** An empty database of its own for one test. */
async function database(): Promise<string> {
  const name = `bank_${++databases}`;
  await server.run(`create database ${name}`);
  return name;
}

const small = { accounts: 60, transactions: 300, rate: 20_000, seed: '7' };

function run(name: string, options: Partial<GeneratorOptions> = {}, signal?: AbortSignal): Promise<GeneratorTotals> {
  const databaseUrl = server.url('postgres', name);
  return runGenerator({ databaseUrl, ...small, ...options }, signal ?? new AbortController().signal);
}

async function value(sql: string, name: string): Promise<unknown> {
  return Object.values((await server.run(sql, name)).rows[0])[0];
}

async function rowCount(name: string): Promise<number> {
  const counts = ['currencies', 'accounts', 'transactions'].map((table) => `(select count(*) from public.${table})`);
  return Number(await value(`select ${counts.join(' + ')}`, name));
}

async function until(done: () => boolean | Promise<boolean>): Promise<void> {
  for (const begun = Date.now(); !(await done()); ) {
    if (Date.now() - begun > 20_000) throw new Error('it never happened');
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

describe('the generator', () => {
  it('reports exactly the changes that the log shows', async () => {
    const name = await database();
    await run(name, { changes: 1 });
    await server.run('create publication p for all tables', name);
    await server.run(`select pg_create_logical_replication_slot('counts', 'pgoutput')`, name);
    const totals = await run(name, { changes: 8_000, rate: 100_000 });
    const { rows } = await server.run(
      `select chr(get_byte(data, 0)) as kind, count(*)::int as n from pg_logical_slot_get_binary_changes(
         'counts', null, null, 'proto_version', '1', 'publication_names', 'p') group by 1`,
      name,
    );
    await server.run(`select pg_drop_replication_slot('counts')`, name);
    const seen = Object.fromEntries(rows.map((row) => [row.kind, row.n]));
    expect({ I: totals.inserts, U: totals.updates, D: totals.deletes, C: totals.committed }).toEqual({
      I: seen.I,
      U: seen.U,
      D: seen.D,
      C: seen.C,
    });
    expect(Math.min(seen.I, seen.U, seen.D, totals.rolledBack)).toBeGreaterThan(0);
  });

  it('makes awkward values and values out of line', async () => {
    const name = await database();
    await run(name, { changes: 6_000, rate: 4_000 });
    for (const condition of [
      `description = ''`,
      `description is null`,
      `description like E'%\\t%'`,
      `description like E'%\\n%'`,
      `description = E'\\\\N'`,
      `details is null`,
      `details->>'exact' = '9007199254740991'`,
      `labels @> array['back\\slash']`,
      `signature = '\\x'`,
      `pg_column_toast_chunk_id(memo) is not null and updated_at > created_at`,
      `created_at < now() - interval '5 seconds'`,
      `status = 'reversed'`,
    ]) {
      const found = await value(`select count(*) from public.transactions where ${condition}`, name);
      expect([condition, Number(found) > 0]).toEqual([condition, true]);
    }
  });

  it('goes on where it ended, without the same rows again', async () => {
    const name = await database();
    const first = await run(name, { changes: 500 });
    const second = await run(name, { changes: 500 });
    expect(first.inserts).toBeGreaterThan(390);
    expect(await rowCount(name)).toBe(first.inserts - first.deletes + second.inserts - second.deletes);
    expect(await value('select count(*) - count(distinct reference) from public.transactions', name)).toBe('0');
  });

  it('makes the same rows from the same seed, and others from another', async () => {
    const content = async (seed: string): Promise<unknown> => {
      const name = await database();
      await run(name, { changes: 2_000, seed });
      const columns = 'id, reference, account_id, amount, status, description, details, labels, signature, memo';
      return value(
        `select md5(string_agg(t::text, ' ' order by id)) from (select ${columns} from public.transactions) t`,
        name,
      );
    };
    const one = await content('one');
    expect(await content('one')).toBe(one);
    expect(await content('two')).not.toBe(one);
  });

  it('keeps its rate and stays within its bound', async () => {
    const name = await database();
    const begun = Date.now();
    const totals = await run(name, { rate: 1_000, changes: 3_000, most: 400 });
    const seconds = (Date.now() - begun) / 1_000;
    expect(seconds).toBeGreaterThan(1.8);
    expect(totals.inserts + totals.updates + totals.deletes).toBeGreaterThan(3_000);
    expect(Number(await value('select count(*) from public.transactions', name))).toBeLessThan(1_000);
  });

  it('finishes its transaction at the signal', async () => {
    const name = await database();
    const ended = new AbortController();
    setTimeout(() => ended.abort(), 700);
    const totals = await run(name, {}, ended.signal);
    expect(await rowCount(name)).toBe(totals.inserts - totals.deletes);
    await until(
      async () => (await value(`select count(*) from pg_stat_activity where datname = '${name}'`, 'postgres')) === '0',
    );
  });

  it('finds rows anew that somebody else took away', async () => {
    const name = await database();
    const ended = new AbortController();
    const lines: string[] = [];
    const running = run(name, { rate: 2_000, log: (line) => lines.push(line) }, ended.signal);
    await until(() => lines.length > 0);
    // It takes one lock after the other, as the generator does: whoever is told of a deadlock tries again.
    const truncate = () => server.run('truncate public.accounts, public.transactions', name);
    await truncate().catch(truncate).catch(truncate);
    await until(() => lines.some((line) => line.includes('trying again')));
    await until(async () => (await rowCount(name)) > 350);
    ended.abort();
    await running;
  });

  it('writes into no table that is not its own', async () => {
    const name = await database();
    await server.run('create table public.accounts (id int primary key)', name);
    await expect(run(name)).rejects.toMatchObject({ kind: 'conflict', place: { table: 'public.accounts' } });
    expect(await value(`select count(*) from pg_class where relname in ('transactions', 'currencies')`, name)).toBe(
      '0',
    );
  });

  it('survives a restart of PostgreSQL', async () => {
    const name = await database();
    const ended = new AbortController();
    const lines: string[] = [];
    const running = run(name, { log: (line) => lines.push(line) }, ended.signal);
    await until(() => lines.length > 0);
    await server.restart();
    await until(() => lines.some((line) => line.includes('trying again')));
    const before = await value('select max(id) from public.transactions', name);
    await until(async () => (await value('select max(id) from public.transactions', name)) !== before);
    ended.abort();
    await running;
    expect(await value('select count(*) - count(distinct reference) from public.transactions', name)).toBe('0');
  });
});

describe('its process', () => {
  const file = fileURLToPath(new URL('../workers/demo/generator.ts', import.meta.url));
  const start = (args: string[], environment: Record<string, string>) => {
    const child = spawn(process.execPath, nodeArguments(file, ...args), {
      env: { ...process.env, ...environment },
      stdio: 'pipe',
    });
    children.push(child);
    const output = { stdout: '', stderr: '' };
    child.stdout.on('data', (chunk) => {
      output.stdout += chunk;
    });
    child.stderr.on('data', (chunk) => {
      output.stderr += chunk;
    });
    const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
    return { child, output, ended };
  };

  it('says when it is ready, and ends with its parent or at SIGTERM', async () => {
    const name = await database();
    const args = ['--accounts', '50', '--transactions', '50', '--rate', '500'];
    for (const end of [(child: ChildProcess) => child.stdin!.end(), (child: ChildProcess) => child.kill('SIGTERM')]) {
      const { child, output, ended } = start(args, { SLUICE_DEMO_DATABASE_URL: server.url('postgres', name) });
      await until(() => output.stdout !== '');
      end(child);
      expect(await ended).toBe(0);
      expect(output.stdout).toBe('{"ready":true}\n');
      expect(output.stderr).toContain('done: ');
      expect(output.stderr).not.toContain('postgres:postgres');
    }
  });

  it('never takes DATABASE_URL, and refuses bad flags', async () => {
    const name = await database();
    const without = start([], { DATABASE_URL: server.url('postgres', name), SLUICE_DEMO_DATABASE_URL: '' });
    expect([await without.ended, without.output.stdout]).toEqual([1, '']);
    expect(without.output.stderr).toContain('SLUICE_DEMO_DATABASE_URL');
    expect(await value(`select count(*) from pg_class where relname = 'accounts'`, name)).toBe('0');
    const bad = start(['--rate', 'fast'], { SLUICE_DEMO_DATABASE_URL: server.url('postgres', name) });
    expect(await bad.ended).toBe(1);
    expect(bad.output.stderr).toContain('--rate fast');
  });
});
