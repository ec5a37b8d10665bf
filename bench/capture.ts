/**
 * `sluice bench capture`: how many changes a second go through the whole product into ClickHouse, beside what the source
 * itself can send. Both sides drain the same changes from slots made at the same place, in one run, one after the other:
 *
 *   (a) limit    pg_recvlogical where it is installed, and a reader of ours that only counts frames
 *   (b) product  a paused source is resumed: flow, worker, capture loop, inserts, records
 *   (c) rules    with --rules: as (b), the rows going through two rules and two checks
 *
 * Prints JSON with the rates, their ratios and the worker's peak memory.
 */
import { execFile, spawn } from 'node:child_process';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs, promisify } from 'node:util';
import type pg from 'pg';
import { connect } from '../activities/capture/postgresql/connection.ts';
import { durablePosition } from '../activities/capture/postgresql/durable.ts';
import { message } from '../activities/capture/postgresql/pgoutput.ts';
import { frameType, RawSession } from '../activities/capture/postgresql/wire.ts';
import { lastRecord } from '../activities/load/batches.ts';
import type { Control } from '../api/control/control.ts';
import { applyDeclared } from '../api/control/declared_rules.ts';
import { getSource, orderSource } from '../api/control/sources.ts';
import type { CheckInput } from '../model/checks.ts';
import { behindPageHeader, compareLsn, formatLsn, parseLsn } from '../model/position.ts';
import type { RuleInput } from '../model/rules.ts';
import { forgetPeak, machine, peakMemory, round, withCpu } from './measure/processes.ts';
import { connectTables, type Product, startProduct } from './measure/product.ts';

const usage =
  'sluice bench capture [--changes 1000000] [--per-transaction 1000 (0 = all in one)] [--rounds 1] [--rules]';
/** The source's id. */
export const source = 'bench';

/** The table that benchmarks write to: 8 columns of mixed types. */
export const benchTable =
  'CREATE TABLE public.bench (id bigint PRIMARY KEY, n integer, note text, at timestamptz, amount numeric(18,4), rate double precision, ok boolean, ref uuid)';

/** The SELECT of the rows with the keys from `from` to `to`: the same values at every run. */
export function benchRows(from: number, to: number): string {
  return `SELECT i, i % 1000, 'a note of some length on row ' || i, timestamptz '2026-01-01 00:00:00Z' + i * interval '1.000001 s', i * 1.25, i / 3.0, i % 2 = 0, md5(i::text)::uuid FROM generate_series(${from}, ${to}) i`;
}

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      changes: { type: 'string', default: '1000000' },
      'per-transaction': { type: 'string', default: '1000' },
      rounds: { type: 'string', default: '1' },
      rules: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    console.log(usage);
    return 0;
  }
  const changes = Number(values.changes);
  const perTransaction = Number(values['per-transaction']) || changes;
  await using product = await startProduct();
  await product.client.query(benchTable);
  await startSource(product.control);
  const rounds = [];
  for (let i = 0; i < Number(values.rounds); i++) rounds.push(await measure(product, { changes, perTransaction }));
  const best = rounds.reduce((a, b) => (b.product.changes_per_second > a.product.changes_per_second ? b : a));
  const rules = values.rules ? await measureRules(product, { changes, perTransaction }, best.product) : undefined;
  const figures = { changes, per_transaction: perTransaction, ...best, ...(rules && { rules }), rounds: rounds.length };
  console.log(JSON.stringify({ benchmark: 'capture', machine: machine(), ...figures }, null, 2));
  return 0;
}

/** Connects the source of the benchmark, starts it and pauses it again. */
export async function startSource(control: Control): Promise<void> {
  await connectTables(control, source, ['bench']);
  await orderSource(control, source, 'start');
  while ((await getSource(control, source)).status !== 'streaming') await sleep(100);
  await orderSource(control, source, 'pause');
}

async function measure(product: Product, { changes, perTransaction }: { changes: number; perTransaction: number }) {
  const { client, control, parts, worker, pids } = product;
  const { url } = parts.postgres;
  await client.query("SELECT pg_catalog.pg_create_logical_replication_slot('bench_frames', 'pgoutput')");
  await client.query("SELECT pg_catalog.pg_create_logical_replication_slot('bench_tool', 'pgoutput')");
  await makeChanges(client, changes, perTransaction);
  await client.query('CHECKPOINT');
  const end = await durablePosition(client);
  // pg_recvlogical ends at the first record behind.
  await client.query("SELECT pg_catalog.pg_logical_emit_message(true, 'bench', 'end')");
  const frames = await drainFrames(url, changes);
  const tool = await drainTool(url, end);
  forgetPeak(worker.pid);
  const { result: seconds, cpu } = await withCpu(pids, () => drainProduct(control, end));
  await client.query(
    "SELECT pg_catalog.pg_drop_replication_slot('bench_frames'), pg_catalog.pg_drop_replication_slot('bench_tool')",
  );
  const rate = (seconds: number) => Math.round(changes / seconds);
  const limit = Math.max(rate(frames), tool === undefined ? 0 : rate(tool));
  return {
    limit: {
      frames_per_second: rate(frames),
      pg_recvlogical_per_second: tool === undefined ? null : rate(tool),
    },
    product: { changes_per_second: rate(seconds), seconds: round(seconds, 2), cpu_seconds: cpu },
    ratio: round(rate(seconds) / limit, 3),
    worker_peak_memory_bytes: peakMemory(worker.pid),
  };
}

/** Two rules and two checks: a new column of a text, one of numbers, a pattern and a range. */
const benchRules: { rules: RuleInput[]; checks: Omit<CheckInput, 'asset'>[] } = {
  rules: [
    {
      rule_id: 'loud',
      rule_type: 'map',
      source_fields: ['note'],
      target_field: 'loud',
      expression: '{{ note.upper() }}',
    },
    {
      rule_id: 'gross',
      rule_type: 'map',
      source_fields: ['amount'],
      target_field: 'gross',
      expression: '{{ amount * 2 }}',
    },
  ],
  checks: [
    { rule_id: 'positive', field: 'amount', rule_type: 'range', parameters: { min: 0 }, severity: 'reject' },
    { rule_id: 'noted', field: 'note', rule_type: 'length', parameters: { max: 200 }, severity: 'warn' },
  ],
};

/** The same changes once more, by a copy that is made under rules. */
async function measureRules(
  product: Product,
  { changes, perTransaction }: { changes: number; perTransaction: number },
  plain: { changes_per_second: number },
) {
  const { client, control, pids } = product;
  const checks = benchRules.checks.map((check) => ({ ...check, asset: `${source}_bench` }));
  await applyDeclared(control, { ...benchRules, checks });
  await orderSource(control, source, 'resume');
  for (;;) {
    await sleep(200);
    const [table] = (await getSource(control, source)).tables;
    const named = await control.clickhouse.rows(
      `SELECT 1 FROM system.columns WHERE database = '${control.clickhouse.database}' AND table = '${source}_bench' AND name = 'gross'`,
    );
    if (table?.status === 'streaming' && named.length > 0) break;
  }
  await orderSource(control, source, 'pause');
  await makeChanges(client, changes, perTransaction);
  const end = await durablePosition(client);
  const { result: seconds, cpu } = await withCpu(pids, () => drainProduct(control, end));
  const rate = Math.round(changes / seconds);
  return {
    changes_per_second: rate,
    seconds: round(seconds, 2),
    cpu_seconds: cpu,
    ratio_to_plain: round(rate / plain.changes_per_second, 3),
  };
}

async function makeChanges(client: pg.Client, changes: number, perTransaction: number): Promise<void> {
  const statements = changeStatements(changes, perTransaction);
  await client.query('TRUNCATE public.bench');
  if (perTransaction >= changes) await client.query(`BEGIN; ${statements.join('; ')}; COMMIT`);
  else for (const statement of statements) await client.query(statement);
}

/** Statements of `perTransaction` changes each on an empty table: half inserts, then updates and deletes of these rows. */
export function changeStatements(changes: number, perTransaction: number): string[] {
  const rows = Math.floor(changes / 2);
  const deleted = Math.floor(rows / 5);
  const step = Math.min(perTransaction, rows);
  const statements: string[] = [];
  for (let from = 0; from < rows; from += step) {
    statements.push(`INSERT INTO public.bench ${benchRows(from + 1, Math.min(from + step, rows))}`);
  }
  for (let from = 0; from < rows - deleted; from += step) {
    const to = Math.min(from + step, rows - deleted);
    statements.push(
      `UPDATE public.bench SET n = n + 1, note = note || '!', at = at + interval '1 hour' WHERE id > ${from} AND id <= ${to}`,
    );
  }
  for (let from = rows - deleted; from < rows; from += step) {
    statements.push(`DELETE FROM public.bench WHERE id > ${from} AND id <= ${Math.min(from + step, rows)}`);
  }
  return statements;
}

/** Seconds in which the source sends all changes to a reader that only looks at each frame's kind. */
async function drainFrames(url: string, changes: number): Promise<number> {
  const client = await connect({ connectionString: url, applicationName: 'sluice bench', replication: true });
  const started = performance.now();
  let seen = 0;
  await new Promise<void>((resolve, reject) => {
    const session = new RawSession(
      client,
      (type, bytes, start) => {
        if (type !== frameType.copyData || bytes[start] !== 0x77) return true;
        const kind = bytes[start + 25];
        if (kind === message.insert || kind === message.update || kind === message.delete) seen++;
        if (seen < changes) return true;
        session.close();
        resolve();
        return true;
      },
      reject,
    );
    session.query(
      `START_REPLICATION SLOT bench_frames LOGICAL 0/0 (proto_version '1', publication_names '"sluice_${source}"')`,
    );
  });
  return (performance.now() - started) / 1000;
}

/** The same by PostgreSQL's own tool; undefined where it is not installed. */
async function drainTool(url: string, end: string): Promise<number | undefined> {
  const tool = await findTool();
  if (tool === undefined) return undefined;
  const started = performance.now();
  const options = ['-o', 'proto_version=1', '-o', `publication_names="sluice_${source}"`];
  const child = spawn(
    tool,
    ['-d', url, '--slot', 'bench_tool', '--start', '--endpos', end, '--no-loop', '-f', '/dev/null', ...options],
    {
      stdio: 'ignore',
    },
  );
  const code = await new Promise((resolve) => child.on('exit', resolve).on('error', () => resolve(-1)));
  return code === 0 ? (performance.now() - started) / 1000 : undefined;
}

async function findTool(): Promise<string | undefined> {
  const run = promisify(execFile);
  for (const tool of [
    'pg_recvlogical',
    ...[18, 17, 16, 15, 14].map((major) => `/usr/lib/postgresql/${major}/bin/pg_recvlogical`),
  ]) {
    const found = await run(tool, ['--version']).then(
      () => true,
      () => false,
    );
    if (found) return tool;
  }
  return undefined;
}

/** Seconds from resume until everything up to `end` is recorded, by the record that says so; the source is paused then. */
export async function drainProduct(control: Control, end: string): Promise<number> {
  const started = Date.now();
  await orderSource(control, source, 'resume');
  for (;;) {
    await sleep(200);
    const record = await lastRecord(control.clickhouse, source);
    if (!record || compareLsn(formatLsn(behindPageHeader(parseLsn(record.position_to))), end) < 0) continue;
    const reached = await recordedAt(control, record.id);
    await orderSource(control, source, 'pause');
    return (reached - started) / 1000;
  }
}

/** When a record was written, in milliseconds since 1970. */
async function recordedAt({ clickhouse }: Control, id: string): Promise<number> {
  const [found] = await clickhouse.rows<{ at: string }>(
    `SELECT toUnixTimestamp64Milli(recorded_at) AS at FROM ${clickhouse.name('_batches')} WHERE id = {id:String}`,
    { params: { id } },
  );
  return Number(found!.at);
}
