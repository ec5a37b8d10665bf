/**
 * `sluice bench history`: how long a source's questions take when it has run for long. Records of a source that wrote 25
 * batches a second all the time are made in ClickHouse (two million are a day of that), then each question is asked as the
 * flows, the API and the command line ask it. Prints JSON: milliseconds, the quickest of three.
 */
import { parseArgs } from 'node:util';
import { createOwnTables } from '../activities/load/batches.ts';
import { keepSums } from '../activities/load/sums.ts';
import { openControl } from '../api/control/control.ts';
import { startParts } from '../workers/embedded/start_parts.ts';
import { readSettings } from '../workers/settings.ts';
import { machine, round } from './measure/processes.ts';
import { quickest } from './measure/quickest.ts';
import { lastLease, makeRecords, questions, source } from './measure/records.ts';

const usage = 'sluice bench history [--records 2000000] [--tables 20]';

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      records: { type: 'string', default: '2000000' },
      tables: { type: 'string', default: '20' },
      help: { type: 'boolean', default: false },
    },
  });
  const [records, tables] = [Number(values.records), Number(values.tables)];
  if (values.help || !(records > 0) || !(tables > 0)) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  const before = machine();
  await using parts = await startParts(['clickhouse']);
  await using control = openControl({ ...readSettings(), clickhouseUrl: parts.clickhouse.url });
  await createOwnTables(control.clickhouse);
  await makeRecords(control.clickhouse, { records, tables });
  // All at once here; leases keep those of the one before them.
  const kept = await quickest(1, 0, () => keepSums(control.clickhouse, source, lastLease(records)));
  const asked: Record<string, number> = {};
  // Figures are kept for a moment by whom they were asked for: each time somebody else asks.
  for (const [name, ask] of Object.entries(questions(records)))
    asked[name] = round(await quickest(3, 0, () => ask({ ...control })), 1);
  const figures = { records, tables, keep_sums_ms: round(kept, 1), questions_ms: asked };
  console.log(JSON.stringify({ benchmark: 'history', machine: before, ...figures }, null, 2));
  return 0;
}
