/**
 * `sluice bench snapshot`: how fast a table that is there already is copied, beside what the parts can do alone. All in
 * one run, on the same rows, one after the other; chunks several at once, as the flow copies them:
 *
 *   (a) copy_to_stdout   PostgreSQL's COPY of the table, drained and thrown away
 *   (b) encode           chunks read and encoded as TSV, kept in memory: nothing is written
 *   (c) engine_insert    that TSV inserted into a table like the copy, as it is
 *   (d) product          a source is started: flow, worker, chunks, records
 *
 * Prints JSON with rates, the processor time of each process, the ratios, and the worker's peak memory.
 */
import { parseArgs } from 'node:util';
import { connect } from '../activities/capture/postgresql/connection.ts';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import { frameType, RawSession } from '../activities/capture/postgresql/wire.ts';
import type { Chunk, ChunkTarget } from '../activities/capture/source.ts';
import { loadSchemas, readRecords } from '../activities/load/batches.ts';
import { ClickHouse } from '../activities/load/clickhouse.ts';
import { insertBytes } from '../activities/load/rows_insert.ts';
import { ownColumns } from '../activities/load/tables.ts';
import { usualLimits } from '../flows/captureState.ts';
import type { ConnectRequest } from '../model/source.ts';
import type { TableSchema } from '../model/table.ts';
import { type CpuSeconds, machine, peakMemory, round, withCpu } from './measure/processes.ts';
import { connectTables, type Product, startAndWait, startProduct } from './measure/product.ts';
import { type BenchTable, benchTables, makeTable } from './measure/tables.ts';

const usage = 'sluice bench snapshot [--rows 1000000] [--table narrow|wide|both]';
const source = 'bench';
/** Chunks that the flow copies at once. */
const lanes = usualLimits.chunks;

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      rows: { type: 'string', default: '1000000' },
      table: { type: 'string', default: 'both' },
      help: { type: 'boolean', default: false },
    },
  });
  const known = Object.keys(benchTables) as BenchTable[];
  const tables = known.filter((table) => values.table === 'both' || values.table === table);
  if (values.help || tables.length === 0) {
    console.log(usage);
    return values.help ? 0 : 2;
  }
  const rows = Number(values.rows);
  const before = machine();
  const measured: Record<string, unknown> = {};
  for (const table of tables) measured[table] = await measure(table, rows);
  console.log(
    JSON.stringify({ benchmark: 'snapshot', machine: before, rows, chunks_at_once: lanes, tables: measured }, null, 2),
  );
  return 0;
}

async function measure(table: BenchTable, rows: number) {
  await using product = await startProduct();
  await makeTable(product.client, table, rows);
  await connectTables(product.control, source, ['bench']);
  const snapshot = await takeSnapshot(product, rows);
  const peak = peakMemory(product.worker.pid);
  const limits = await measureParts(product, rows);
  const ratio = (limit: Figures) => round(snapshot.rows_per_second / limit.rows_per_second, 3);
  return {
    ...limits,
    product: snapshot,
    ratios: {
      of_copy_to_stdout: ratio(limits.copy_to_stdout),
      of_encode: ratio(limits.encode),
      of_engine_insert: ratio(limits.engine_insert),
    },
    worker_peak_memory_bytes: peak,
  };
}

interface Figures {
  rows_per_second: number;
  seconds: number;
  cpu_seconds: CpuSeconds<string> | null;
}

function figures(rows: number, seconds: number, cpu: CpuSeconds<string> | null): Figures {
  return { rows_per_second: Math.round(rows / seconds), seconds: round(seconds, 2), cpu_seconds: cpu };
}

/** From the order to start until the stream has passed the snapshot; and from the first chunk to the last. */
async function takeSnapshot(product: Product, rows: number) {
  const measured = await withCpu(product.pids, () => startAndWait(product.control, source));
  const { clickhouse } = product.control;
  const chunks = await readRecords(clickhouse, `source = {source:String} AND kind = 'chunk'`, { source });
  const copied = chunks.reduce((sum, chunk) => sum + chunk.changes, 0);
  if (copied !== rows) throw new Error(`${copied} rows were copied of ${rows}`);
  const ends = chunks.map((chunk) => Date.parse(chunk.recorded_at));
  const begins = chunks.map((chunk, i) => ends[i]! - chunk.durations.write);
  const seconds = (Math.max(...ends) - Math.min(...begins)) / 1000;
  return { ...figures(rows, seconds, measured.cpu), seconds_until_streaming: round(measured.seconds, 2) };
}

/** What each part of the way does alone. */
async function measureParts({ parts, control, pids }: Product, rows: number) {
  const { clickhouse, settings } = control;
  const table = (await loadSchemas(clickhouse, source)).get(`${source}_bench`)!;
  const chunks = await planned(clickhouse);

  const drained = await withCpu(pids, () => drainCopy(parts.postgres.url, rows));
  const inserts: Encoded[] = [];
  const encoded = await withCpu(pids, () => encodeChunks(parts.postgres.url, table, chunks, inserts));

  const sink = new ClickHouse({ url: settings.clickhouseUrl, database: settings.clickhouseDatabase, role: 'snapshot' });
  await sink.command(`CREATE TABLE ${sink.name('bench_alone')} AS ${sink.name(table.asset_id)}`);
  const inserted = await withCpu(pids, async () => {
    const next = inserts.entries();
    const lane = async () => {
      for (const [i, { columns, pieces }] of next)
        await sink.insertTsv('bench_alone', columns, pieces, `bench/alone/${i}`);
    };
    await Promise.all(Array.from({ length: lanes }, lane));
  });
  await sink.close();
  return {
    bytes_per_row: Math.round(inserts.reduce((sum, insert) => sum + insert.bytes, 0) / rows),
    copy_to_stdout: figures(rows, drained.seconds, drained.cpu),
    encode: figures(rows, encoded.seconds, encoded.cpu),
    engine_insert: figures(rows, inserted.seconds, inserted.cpu),
  };
}

function planned(clickhouse: ClickHouse): Promise<Chunk[]> {
  return clickhouse.rows<Chunk>(`SELECT lower, upper FROM ${clickhouse.name('_chunks')} FINAL ORDER BY chunk`);
}

/** COPY of the whole table, in as many sessions at once as the flow copies chunks. */
async function drainCopy(url: string, rows: number): Promise<void> {
  await Promise.all(
    Array.from({ length: lanes }, async (_, lane) => {
      const low = Math.floor((rows * lane) / lanes);
      const high = Math.floor((rows * (lane + 1)) / lanes);
      const session = await connect({ connectionString: url, applicationName: 'sluice bench', bulk: true });
      await new Promise<void>((resolve, reject) => {
        const raw = new RawSession(
          session,
          (type) => {
            if (type === frameType.ready) {
              raw.close();
              resolve();
            }
            return true;
          },
          reject,
        );
        raw.query(`COPY (SELECT * FROM ONLY public.bench WHERE id > ${low} AND id <= ${high}) TO STDOUT`);
      });
    }),
  );
}

/** What one insert of a snapshot holds. */
interface Encoded {
  columns: string[];
  pieces: Buffer[];
  bytes: number;
}

/** The real reader and encoder of chunks, with somebody who only keeps what it writes. */
async function encodeChunks(url: string, table: TableSchema, chunks: Chunk[], inserts: Encoded[]): Promise<void> {
  const postgres = new PostgresSource();
  const request: ConnectRequest = {
    id: source,
    type: 'postgresql',
    connection_string: '',
    config: { tables: ['bench'], poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} },
  };
  const next = chunks.values();
  const lane = async () => {
    for (const chunk of next) {
      await postgres.copyChunk(
        { request, connectionString: url },
        {
          table,
          chunk,
          startPosition: '0/1',
          epoch: 1,
          readAt: 0,
          signal: new AbortController().signal,
          progress: () => {},
          target: (columns) => keep([...columns, ...ownColumns], inserts),
        },
      );
    }
  };
  await Promise.all(Array.from({ length: lanes }, lane));
}

/** Keeps pieces as inserts of the size that the product makes. */
function keep(columns: string[], inserts: Encoded[]): ChunkTarget {
  let open: Encoded | undefined;
  return {
    write: async (block) => {
      if (!open || open.bytes >= insertBytes) {
        open = { columns, pieces: [], bytes: 0 };
        inserts.push(open);
      }
      open.pieces.push(Buffer.from(block.content()));
      open.bytes += block.length;
    },
    end: async () => {},
    cancel: () => {},
  };
}
