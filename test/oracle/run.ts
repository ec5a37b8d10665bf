/**
 * Runs the oracle for a while, seed after seed: `node --import tsx test/oracle/run.ts --seconds 600 [--seed 7]
 * [--round 6] [--faults kill,postgres] [--tables moving,large] [--log test/oracle/seeds.txt] [--verbose]`; with `--whole`
 * over the whole system (whole.ts, `--round`: seconds). Prints one JSON object a seed, and keeps a line of it in the log; exits 0 when all were right.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type FaultName, runOracle, startOracleParts } from './oracle.ts';
import type { RunResult } from './run_result.ts';
import { runWhole, startWholeParts } from './whole.ts';

/** Milliseconds after which a seed has come to a standstill. */
const longest = 600_000;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    round: { type: 'string', default: '6' },
    comparisons: { type: 'string', default: '2' },
    faults: { type: 'string' },
    tables: { type: 'string' },
    log: { type: 'string' },
    whole: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
  },
});

const first = Number(values.seed ?? process.env.ORACLE_SEED ?? Math.floor(Math.random() * 1e6));
const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();

/** One line a seed: day, commit, seed, whether all was right, and how much was done to it. */
function keep(log: string, { seed, ok, transactions, rows, faults, seconds }: RunResult): void {
  const broken = Object.values(faults).reduce((sum, times) => sum + times, 0);
  const done = `transactions=${transactions} rows=${rows} faults=${broken} seconds=${seconds}`;
  appendFileSync(
    log,
    `${new Date().toISOString().slice(0, 10)} ${commit} ${values.whole ? 'whole ' : ''}seed=${seed} ${ok ? 'ok' : 'FAILED'} ${done}\n`,
  );
}

/** What was done last: a seed that stands still cannot say anything else. */
const lately: string[] = [];

function log(line: string): void {
  lately.push(`${new Date().toISOString().slice(17, 23)} ${line}`);
  if (lately.length > 20) lately.shift();
  if (values.verbose) console.error(lately.at(-1));
}

/** Parts, and what runs a seed on them. */
interface Runner extends AsyncDisposable {
  run: (seed: string) => Promise<RunResult>;
}

async function startRunner(): Promise<Runner> {
  const seconds = Number(values.round);
  if (values.whole) {
    const parts = await startWholeParts();
    return {
      run: (seed) => runWhole(parts, { seed, seconds, log }),
      [Symbol.asyncDispose]: parts[Symbol.asyncDispose],
    };
  }
  const parts = await startOracleParts();
  const faults = values.faults?.split(',') as FaultName[] | undefined;
  const options = { seconds, comparisons: Number(values.comparisons), faults, tables: values.tables?.split(','), log };
  return { run: (seed) => runOracle(parts, { seed, ...options }), [Symbol.asyncDispose]: parts[Symbol.asyncDispose] };
}

async function runOne(seed: string): Promise<RunResult> {
  const watch = setTimeout(() => {
    console.error(`seed ${seed} stands still. Lately:\n${lately.join('\n')}`);
    console.error(`It waits for ${process.getActiveResourcesInfo().join(', ')}`);
    process.exit(1);
  }, longest);
  try {
    return await runner.run(seed);
  } finally {
    clearTimeout(watch);
  }
}

let failed = 0;
let runner = await startRunner();
const end = Date.now() + Number(values.seconds) * 1000;
for (let seed = first; Date.now() < end; seed++) {
  const result = await runOne(String(seed));
  console.log(JSON.stringify(result));
  if (values.log) keep(values.log, result);
  if (result.ok) continue;
  failed++;
  await runner[Symbol.asyncDispose]();
  runner = await startRunner();
}
await runner[Symbol.asyncDispose]();
process.exit(failed > 0 ? 1 : 0);
