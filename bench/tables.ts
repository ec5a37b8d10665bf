/**
 * `sluice bench tables`: many tables that each change a little. Every second one row of each is updated; told are how
 * long the snapshots took, how far the copies lag, and how many parts ClickHouse has for a table ("too many parts" is
 * what ends systems that write a part for every change). At the end every copy is compared with its table.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import type pg from 'pg';
import { durablePosition } from '../activities/capture/postgresql/durable.ts';
import { lastRecord } from '../activities/load/batches.ts';
import type { ClickHouse } from '../activities/load/clickhouse.ts';
import { getSource } from '../api/control/sources.ts';
import { behindPageHeader, compareLsn, formatLsn, parseLsn } from '../model/position.ts';
import { machine, peakMemory, round, withCpu } from './measure/processes.ts';
import { connectTables, type Product, startAndWait, startProduct } from './measure/product.ts';

const usage = 'sluice bench tables [--tables 1000] [--seconds 60]';
const source = 'bench';
/** Rows of each table. */
const rows = 10;
/** How long the copies may take to catch up in the end. */
const patience = 120_000;

/** Runs the benchmark; answers the exit code: 1 when a copy is not identical. */
export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      tables: { type: 'string', default: '1000' },
      seconds: { type: 'string', default: '60' },
      help: { type: 'boolean', default: false },
    },
  });
  const [tables, seconds] = [Number(values.tables), Number(values.seconds)];
  if (values.help || !(tables > 0) || !(seconds > 0)) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  const before = machine();
  await using product = await startProduct();
  const { client, control } = product;
  await makeTables(client, tables);
  await connectTables(control, source, ['t_*']);
  const snapshot = await withCpu(product.pids, () => startAndWait(control, source, tables));
  const changing = await withCpu(product.pids, () => change(product, tables, seconds));
  const different = await differences(client, control.clickhouse, tables);
  const figures = {
    snapshot: { seconds: round(snapshot.seconds, 1), cpu_seconds: snapshot.cpu },
    changes: { ...changing.result, cpu_seconds: changing.cpu },
    worker_peak_memory_bytes: peakMemory(product.worker.pid),
    identical_copies: tables - different,
  };
  console.log(JSON.stringify({ benchmark: 'tables', machine: before, tables, seconds, ...figures }, null, 2));
  return different === 0 ? 0 : 1;
}

const nameOf = (table: number) => `t_${String(table).padStart(4, '0')}`;

async function makeTables(client: pg.Client, tables: number): Promise<void> {
  for (let table = 1; table <= tables; table++) {
    const name = nameOf(table);
    await client.query(
      `CREATE TABLE public.${name} (id int PRIMARY KEY, n bigint NOT NULL, note text);
       INSERT INTO public.${name} SELECT i, 0, 'row ' || i FROM generate_series(1, ${rows}) i`,
    );
  }
}

/** One change of each table a second, each a transaction of its own; then waits until all are in the copies. */
async function change({ client, control }: Product, tables: number, seconds: number) {
  const { clickhouse } = control;
  const lags: number[] = [];
  let parts = 0;
  const begun = performance.now();
  let done = 0;
  for (; done < tables * seconds; done++) {
    const ahead = (done / tables) * 1000 - (performance.now() - begun);
    if (ahead > 0) await sleep(ahead);
    const name = nameOf(1 + (done % tables));
    await client.query(`UPDATE public.${name} SET n = n + 1 WHERE id = ${1 + (Math.floor(done / tables) % rows)}`);
    if (done % (tables * 5) === tables * 5 - 1) {
      lags.push((await getSource(control, source)).lag_seconds ?? 0);
      parts = Math.max(parts, await mostParts(clickhouse));
    }
  }
  const written = performance.now();
  const end = await durablePosition(client);
  while (!(await reached(clickhouse, end))) {
    if (performance.now() - written > patience) throw new Error(`the copies are not there after ${patience / 1000} s`);
    await sleep(100);
  }
  parts = Math.max(parts, await mostParts(clickhouse));
  return {
    changes: done,
    changes_per_second: Math.round(done / ((written - begun) / 1000)),
    lag_seconds: lags.map((lag) => round(lag, 1)),
    caught_up_after_seconds: round((performance.now() - written) / 1000, 1),
    most_parts_of_a_table: parts,
  };
}

async function reached(clickhouse: ClickHouse, end: string): Promise<boolean> {
  const record = await lastRecord(clickhouse, source);
  return record !== undefined && compareLsn(formatLsn(behindPageHeader(parseLsn(record.position_to))), end) >= 0;
}

async function mostParts(clickhouse: ClickHouse): Promise<number> {
  const [row] = await clickhouse.rows<{ parts: string }>(
    `SELECT max(parts) AS parts FROM
       (SELECT table, count() AS parts FROM system.parts WHERE database = {database:String} AND active GROUP BY table)`,
    { params: { database: clickhouse.database } },
  );
  return Number(row?.parts ?? 0);
}

/** How many copies do not hold what their tables hold. */
async function differences(client: pg.Client, clickhouse: ClickHouse, tables: number): Promise<number> {
  let different = 0;
  for (let table = 1; table <= tables; table++) {
    const name = nameOf(table);
    const { rows: there } = await client.query(
      `SELECT t.id::text, t.n::text, t.note FROM public.${name} t ORDER BY t.id`,
    );
    const copy = await clickhouse.rows<Record<string, string | number>>(
      `SELECT toString(t.id) AS id, toString(t.n) AS n, t.note FROM ${clickhouse.name(`${source}_${name}`)} AS t FINAL ORDER BY t.id`,
    );
    if (JSON.stringify(there) !== JSON.stringify(copy)) different++;
  }
  return different;
}
