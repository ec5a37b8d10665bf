/**
 * `sluice bench flame`: where the worker's JavaScript spends its time while it captures, or copies a snapshot, as a
 * flame graph (SVG). Prints JSON with the functions that took most by themselves.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { durablePosition } from '../activities/capture/postgresql/durable.ts';
import { benchTable, changeStatements, drainProduct, startSource } from './capture.ts';
import { drawFlameGraph, type Profile } from './measure/flame_graph.ts';
import { machine, round } from './measure/processes.ts';
import { connectTables, type Product, startAndWait, startProduct } from './measure/product.ts';
import { makeTable } from './measure/tables.ts';

const usage = 'sluice bench flame [--of capture|snapshot] [--rows 2000000] [--out flame.svg]';
/** Functions that are listed. */
const listed = 15;

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      of: { type: 'string', default: 'capture' },
      rows: { type: 'string', default: '2000000' },
      out: { type: 'string', default: 'flame.svg' },
      help: { type: 'boolean', default: false },
    },
  });
  const work = { capture, snapshot }[values.of];
  if (values.help || !work) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  const before = machine();
  const file = `${path.resolve(values.out)}.profile`;
  process.env.SLUICE_PROFILE = file;
  process.env.NODE_OPTIONS = `--import ${pathToFileURL(path.join(import.meta.dirname, 'measure', 'profiled.mjs'))}`;
  await using product = await startProduct();
  const rate = await work(product, Number(values.rows));
  product.worker.signal('SIGUSR2');
  for (let waited = 0; !existsSync(file); waited += 100) {
    if (waited > 60_000) throw new Error(`the worker wrote no profile to ${file}`);
    await sleep(100);
  }
  const profile = JSON.parse(readFileSync(file, 'utf8')) as Profile;
  const title = `${values.of}: ${Number(values.rows).toLocaleString('en')} rows, the worker’s main thread (idle left out)`;
  writeFileSync(values.out, drawFlameGraph(profile, title));
  const figures = { machine: before, of: values.of, rows_per_second: rate, own_time: ownTimes(profile) };
  console.log(JSON.stringify({ benchmark: 'flame', ...figures, written: values.out }, null, 2));
  return 0;
}

async function capture({ client, control, worker }: Product, rows: number): Promise<number> {
  await client.query(benchTable);
  await startSource(control);
  for (const statement of changeStatements(rows, 1000)) await client.query(statement);
  const end = await durablePosition(client);
  worker.signal('SIGUSR2');
  return Math.round(rows / (await drainProduct(control, end)));
}

async function snapshot({ client, control, worker }: Product, rows: number): Promise<number> {
  await makeTable(client, 'narrow', rows);
  await connectTables(control, 'bench', ['bench']);
  worker.signal('SIGUSR2');
  const started = performance.now();
  await startAndWait(control, 'bench');
  return Math.round(rows / ((performance.now() - started) / 1000));
}

/** Share of the busy time that functions take by themselves. */
function ownTimes(profile: Profile): Record<string, string> {
  const times = new Map<string, number>();
  const nodes = new Map(profile.nodes.map((node) => [node.id, node.callFrame]));
  let busy = 0;
  for (const [i, sample] of profile.samples.entries()) {
    const { functionName, url, lineNumber } = nodes.get(sample)!;
    if (functionName === '(idle)' || functionName === '(root)') continue;
    const time = profile.timeDeltas[i] ?? 0;
    const name = `${functionName || 'anonymous'} ${url.split('/').slice(-2).join('/')}:${lineNumber + 1}`;
    times.set(name, (times.get(name) ?? 0) + time);
    busy += time;
  }
  const most = [...times].sort(([, a], [, b]) => b - a).slice(0, listed);
  return Object.fromEntries(most.map(([name, time]) => [name, `${round((time / busy) * 100, 1)} %`]));
}
