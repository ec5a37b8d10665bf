/**
 * Runs the oracle for a while, seed after seed: `node --import tsx test/oracle/run.ts --seconds 600 [--seed 7]
 * [--round 6] [--faults kill,postgres] [--tables moving,large] [--verbose]`. Prints one JSON object a seed; exits 0
 * when all were right.
 */
import { parseArgs } from 'node:util';
import { type FaultName, type OracleResult, runOracle, startOracleParts } from './oracle.ts';

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    seed: { type: 'string' },
    round: { type: 'string', default: '6' },
    comparisons: { type: 'string', default: '2' },
    faults: { type: 'string' },
    tables: { type: 'string' },
    verbose: { type: 'boolean', default: false },
  },
});

const first = Number(values.seed ?? process.env.ORACLE_SEED ?? Math.floor(Math.random() * 1e6));
let failed = 0;
let parts = await startOracleParts();
const end = Date.now() + Number(values.seconds) * 1000;
for (let seed = first; Date.now() < end; seed++) {
  const result: OracleResult = await runOracle(parts, {
    seed: String(seed),
    seconds: Number(values.round),
    comparisons: Number(values.comparisons),
    faults: values.faults?.split(',') as FaultName[] | undefined,
    tables: values.tables?.split(','),
    log: values.verbose ? (line) => console.error(`${new Date().toISOString().slice(17, 23)} ${line}`) : undefined,
  });
  console.log(JSON.stringify(result));
  if (result.ok) continue;
  failed++;
  await parts[Symbol.asyncDispose]();
  parts = await startOracleParts();
}
await parts[Symbol.asyncDispose]();
process.exit(failed > 0 ? 1 : 0);
