/**
 * `sluice bench csv`: how fast a file of assets gets into its copy, beside the engine alone. All in one run, on the same
 * file, one after the other:
 *
 *   (a) engine   its bytes, inserted as CSV into a table like the copy, in the largest requests that the engine takes
 *   (b) whole    the file as it is: what happens when every row is right
 *   (c) rows     row by row by csv-parse: what happens when a row is not
 *
 * Prints JSON with rates, ratios to (a), and this process's peak memory.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { performance } from 'node:perf_hooks';
import { parseArgs } from 'node:util';
import { assetTable, assetVersion, loadedColumns, makeAssetCopy } from '../activities/extract/asset_copy.ts';
import { csvLine, fieldsOf } from '../activities/extract/asset_row.ts';
import { CsvFile, type CsvSummary } from '../activities/extract/csv_file.ts';
import { loadCsv } from '../activities/extract/load_csv.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { ClickHouseSink } from '../activities/load/clickhouse_sink.ts';
import { startParts } from '../workers/embedded/start_parts.ts';
import { machine, peakMemory, round } from './measure/processes.ts';

/** What the embedded engine takes at once. */
const largestBody = 64 * 1024 * 1024;

const usage = 'sluice bench csv [--rows 1000000]';

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const options = { rows: { type: 'string', default: '1000000' }, help: { type: 'boolean', default: false } } as const;
  const { values } = parseArgs({ args, options });
  const rows = Number(values.rows);
  if (values.help || !(rows > 0)) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  const before = machine();
  await using parts = await startParts(['clickhouse']);
  const folder = mkdtempSync(path.join(os.tmpdir(), 'sluice-bench-csv-'));
  const clickhouse = new ClickHouse({ url: parts.clickhouse.url, database: 'sluice', role: 'snapshot' });
  const sink = new ClickHouseSink(clickhouse);
  const file = await CsvFile.create(folder, 'assets_1.csv', 'bench');
  try {
    await sink.createOwnTables();
    const summary = await fill(file, rows);
    const engine = await timed(rows, () => insertAlone(sink, file, parts.clickhouse.url));
    const whole = await timed(rows, () => load(sink, 'whole', file, summary));
    const peakWhole = peakMemory(process.pid);
    const byRows = await timed(rows, () => load(sink, 'by_rows', file, { ...summary, faulty: 1 }));
    const ratios = { whole: ratio(whole, engine), rows: ratio(byRows, engine) };
    const memory = { after_whole: peakWhole, after_rows: peakMemory(process.pid) };
    const result = { benchmark: 'csv', machine: before, rows, bytes: summary.bytes, engine, whole, by_rows: byRows };
    console.log(JSON.stringify({ ...result, ratios, peak_memory_bytes: memory }, null, 2));
    return 0;
  } finally {
    await file.close();
    await clickhouse.close();
    rmSync(folder, { recursive: true, force: true });
  }
}

interface Figures {
  rows_per_second: number;
  seconds: number;
}

async function timed(rows: number, work: () => Promise<void>): Promise<Figures> {
  const begun = performance.now();
  await work();
  const seconds = (performance.now() - begun) / 1000;
  return { rows_per_second: Math.round(rows / seconds), seconds: round(seconds, 2) };
}

function ratio(one: Figures, limit: Figures): number {
  return round(one.rows_per_second / limit.rows_per_second, 3);
}

async function fill(file: CsvFile, rows: number): Promise<CsvSummary> {
  const begin = BigInt(Date.UTC(2026, 0, 1)) * 1_000_000n;
  for (let row = 0; row < rows; row++) {
    const at = begin + BigInt(row) * 1_234_567n;
    const item = {
      id: `AST${String(row).padStart(9, '0')}`,
      name: row % 50 === 0 ? `The "Quoted", ${row}` : `Northern Holdings ${row}`,
      kind: ['equity', 'bond', 'fund', 'cash'][row % 4],
      value: row % 100 === 0 ? null : (row % 1_000_000) / 100,
      updated_at: null,
      deleted: row % 40 === 0,
    };
    await file.writeRow(csvLine(fieldsOf({ item, at }, assetVersion(at, 0, row))), false);
  }
  return await file.finish();
}

/** The file's rows as one body of a request, or as few as the engine takes, by nothing of the product. */
async function insertAlone(sink: ClickHouseSink, file: CsvFile, url: string): Promise<void> {
  await makeAssetCopy(sink, assetTable('alone'));
  const query = `INSERT INTO sluice.alone (${loadedColumns.join(', ')}) FORMAT CSV`;
  const settings = { date_time_input_format: 'best_effort', format_csv_null_representation: '\\N' };
  let bodies: Buffer[] = [];
  let size = 0;
  const send = async () => {
    const body = Buffer.concat(bodies);
    const answer = await fetch(`${url}/?${new URLSearchParams({ query, ...settings })}`, {
      method: 'POST',
      body: body as unknown as string,
      headers: { 'X-Sluice-Role': 'snapshot' },
    });
    if (!answer.ok) throw new Error(await answer.text());
    bodies = [];
    size = 0;
  };
  for (const part of file.parts) {
    const bytes = await file.read(part);
    if (size + bytes.length > largestBody) await send();
    bodies.push(bytes);
    size += bytes.length;
  }
  await send();
}

async function load(sink: ClickHouseSink, name: string, file: CsvFile, summary: CsvSummary): Promise<void> {
  const table = assetTable(name);
  await makeAssetCopy(sink, table);
  const effects = await loadCsv({ sink, table, file, summary, id: `bench/${name}` });
  if (effects.written !== summary.rows) throw new Error(`${effects.written} rows were loaded of ${summary.rows}`);
}
