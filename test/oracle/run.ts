/**
 * Runs the oracle for a while, seed after seed: `node --import tsx test/oracle/run.ts --seconds 600 [--seed 7]
 * [--round 6] [--faults kill,postgres] [--tables moving,large] [--log test/oracle/seeds.txt] [--verbose]`. Prints one
 * JSON object a seed, and keeps a line of it in the log; exits 0 when all were right.
 */
import { execFileSync } from 'node:child_process';
import { appendFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { type FaultName, type OracleOptions, type OracleResult, runOracle, startOracleParts } from './oracle.ts';

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
    verbose: { type: 'boolean', default: false },
  },
});

const first = Number(values.seed ?? process.env.ORACLE_SEED ?? Math.floor(Math.random() * 1e6));
const commit = execFileSync('git', ['rev-parse', '--short', 'HEAD'], { encoding: 'utf8' }).trim();

/** One line a seed: day, commit, seed, whether all was right, and how much was done to it. */
function keep(log: string, { seed, ok, transactions, rows, faults, seconds }: OracleResult): void {
  const broken = Object.values(faults).reduce((sum, times) => sum + times, 0);
  const done = `transactions=${transactions} rows=${rows} faults=${broken} seconds=${seconds}`;
  appendFileSync(
    log,
    `${new Date().toISOString().slice(0, 10)} ${commit} seed=${seed} ${ok ? 'ok' : 'FAILED'} ${done}\n`,
  );
}

/** What was done last: a seed that stands still cannot say anything else. */
const lately: string[] = [];

function log(line: string): void {
  lately.push(`${new Date().toISOString().slice(17, 23)} ${line}`);
  if (lately.length > 20) lately.shift();
  if (values.verbose) console.error(lately.at(-1));
}

async function runOne(options: OracleOptions): Promise<OracleResult> {
  const watch = setTimeout(() => {
    console.error(`seed ${options.seed} stands still. Lately:\n${lately.join('\n')}`);
    console.error(`It waits for ${process.getActiveResourcesInfo().join(', ')}`);
    process.exit(1);
  }, longest);
  try {
    return await runOracle(parts, options);
  } finally {
    clearTimeout(watch);
  }
}

let failed = 0;
let parts = await startOracleParts();
const end = Date.now() + Number(values.seconds) * 1000;
for (let seed = first; Date.now() < end; seed++) {
  const result: OracleResult = await runOne({
    seed: String(seed),
    seconds: Number(values.round),
    comparisons: Number(values.comparisons),
    faults: values.faults?.split(',') as FaultName[] | undefined,
    tables: values.tables?.split(','),
    log,
  });
  console.log(JSON.stringify(result));
  if (values.log) keep(values.log, result);
  if (result.ok) continue;
  failed++;
  await parts[Symbol.asyncDispose]();
  parts = await startOracleParts();
}
await parts[Symbol.asyncDispose]();
process.exit(failed > 0 ? 1 : 0);
