/**
 * `sluice bench latency`: from commit in PostgreSQL to queryable in ClickHouse, through the whole product.
 *
 * A writer commits a thousand transactions a second, each of rate/1000 inserts, and notes when each commit was answered.
 * A reader asks ClickHouse `SELECT max(id) … FINAL WHERE id > the last` without a pause, and notes what each answer showed: a transaction is
 * queryable at the first answer that shows it, so the reader's own time counts in full. Prints JSON.
 */
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type pg from 'pg';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { machine, round, withCpu } from './measure/processes.ts';
import { connectTables, startAndWait, startProduct } from './measure/product.ts';

const usage = 'sluice bench latency [--rates 1000,5000] [--seconds 20]';
const source = 'bench';
const transactionsPerSecond = 1000;
/** Left out of the figures: until plans and caches are warm. */
const warmUp = 2;
/** How long the last transactions may take to show. */
const patience = 30_000;

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      rates: { type: 'string', default: '1000,5000' },
      seconds: { type: 'string', default: '20' },
      help: { type: 'boolean', default: false },
    },
  });
  const rates = values.rates.split(',').map(Number);
  const seconds = Number(values.seconds);
  if (values.help || !rates.every((rate) => rate >= transactionsPerSecond) || !(seconds > 0)) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  const before = machine();
  await using product = await startProduct();
  await product.client.query('CREATE TABLE public.bench (id bigint PRIMARY KEY, amount numeric(18,4), note text)');
  await connectTables(product.control, source, ['bench']);
  await startAndWait(product.control, source);
  const { clickhouseUrl: url, clickhouseDatabase: database } = product.control.settings;
  const reader = new ClickHouse({ url, database, role: 'read' });
  const measured: Record<string, unknown> = {};
  let first = 1;
  for (const rate of rates) {
    const load = { rate, seconds: seconds + warmUp, first };
    const since = Date.now();
    const { result, cpu } = await withCpu(product.pids, () => measure(product.client, reader, load));
    const { figures, last } = result;
    measured[rate] = { ...figures, batches: await batchesSince(reader, since), cpu_seconds: cpu };
    first = last + 1;
  }
  await reader.close();
  console.log(JSON.stringify({ benchmark: 'latency', machine: before, seconds, rates: measured }, null, 2));
  return 0;
}

/** How the loop went: batches a second, and the medians of a batch's milliseconds. */
async function batchesSince(reader: ClickHouse, since: number) {
  const [row] = await reader.rows<{ count: string; seconds: number; fill: number; write: number }>(
    `SELECT count() AS count, date_diff('millisecond', min(recorded_at), max(recorded_at)) / 1000 AS seconds,
       quantileExact(0.5)(fill_ms) AS fill, quantileExact(0.5)(write_ms) AS write
     FROM ${reader.name('_batches')} FINAL
     WHERE source = {source:String} AND kind = 'rows' AND recorded_at >= fromUnixTimestamp64Milli({since:Int64})`,
    { params: { source, since } },
  );
  const { count, seconds, fill, write } = row!;
  return { per_second: round(Number(count) / seconds, 1), fill_ms: round(fill, 1), write_ms: round(write, 1) };
}

interface Load {
  /** Changes a second. */
  rate: number;
  seconds: number;
  /** Id of the first row. */
  first: number;
}

async function measure(client: pg.Client, reader: ClickHouse, load: Load) {
  const commits: { last: number; at: number }[] = [];
  const answers: { shown: number; at: number }[] = [];
  const writing = write(client, load, commits);
  let written = false;
  const done = writing.finally(() => {
    written = true;
  });
  const begun = performance.now();
  const reading = (async () => {
    for (let until = Number.POSITIVE_INFINITY; performance.now() < until; ) {
      answers.push(await look(reader, answers.at(-1)?.shown ?? load.first - 1));
      if (!written) continue;
      if (until === Number.POSITIVE_INFINITY) until = performance.now() + patience;
      if (answers.at(-1)!.shown >= (commits.at(-1)?.last ?? 0)) break;
    }
  })();
  await Promise.all([done, reading]);
  const last = commits.at(-1)?.last ?? load.first;
  return { figures: figuresOf(commits, answers, begun + warmUp * 1000, load), last };
}

async function write(client: pg.Client, { rate, seconds, first }: Load, commits: { last: number; at: number }[]) {
  const rows = Math.round(rate / transactionsPerSecond);
  const sql = 'INSERT INTO public.bench SELECT i, i % 500, $3 FROM generate_series($1::bigint, $2::bigint) i';
  const begun = performance.now();
  for (let id = first; performance.now() - begun < seconds * 1000; ) {
    const due = Math.floor(((performance.now() - begun) / 1000) * transactionsPerSecond);
    if (commits.length >= due) {
      await sleep(1);
      continue;
    }
    const last = id + rows - 1;
    await client.query({ name: 'bench', text: sql, values: [id, last, 'a change of a benchmark'] });
    commits.push({ last, at: performance.now() });
    id = last + 1;
  }
}

/** The last row that a query shows. Only rows behind the one before are read: the reader shares the cores with the rest. */
async function look(reader: ClickHouse, before: number): Promise<{ shown: number; at: number }> {
  const [row] = await reader.rows<{ shown: string }>(
    `SELECT max(id) AS shown FROM ${reader.name(`${source}_bench`)} FINAL WHERE id > {before:Int64}`,
    { params: { before } },
  );
  return { shown: Math.max(before, Number(row?.shown ?? 0)), at: performance.now() };
}

function figuresOf(
  commits: { last: number; at: number }[],
  answers: { shown: number; at: number }[],
  from: number,
  load: Load,
) {
  const latencies: number[] = [];
  let answer = 0;
  for (const commit of commits) {
    while (answer < answers.length && answers[answer]!.shown < commit.last) answer++;
    const shown = answers[answer];
    if (!shown) throw new Error(`row ${commit.last} was not shown in ${patience / 1000} s`);
    if (commit.at >= from) latencies.push(Math.max(0, shown.at - commit.at));
  }
  latencies.sort((a, b) => a - b);
  const at = (share: number) =>
    round(latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))]!, 1);
  const time = commits.at(-1)!.at - commits[0]!.at;
  const rows = Math.round(load.rate / transactionsPerSecond);
  return {
    changes_per_second: Math.round((rows * commits.length) / (time / 1000)),
    rows_a_transaction: rows,
    transactions: latencies.length,
    looks_per_second: Math.round(answers.length / (time / 1000)),
    milliseconds: { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: at(1) },
  };
}
