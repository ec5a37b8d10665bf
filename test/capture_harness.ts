/**
 * Capture on real parts without a Temporal server: the activities themselves, a PostgreSQL and a ClickHouse engine. For
 * tests that stop a lease at a chosen step, or kill a part under it. Compares the copy with the source by itself, and
 * shares no code with what writes or verifies copies.
 */
import { MockActivityEnvironment } from '@temporalio/testing';
import { DefaultLogger } from '@temporalio/worker';
import pg from 'pg';
import { CaptureContext } from '../activities/capture/context.ts';
import type { PreparedSource, TableRef } from '../activities/capture/contract.ts';
import { Leases } from '../activities/capture/lease.ts';
import { durablePosition } from '../activities/capture/postgresql/durable.ts';
import { prepareSource } from '../activities/capture/prepare.ts';
import { copyChunk, finishSnapshot, planSnapshot, recordComplete } from '../activities/capture/snapshots.ts';
import { lastRecord, loadSchemas, readRecords } from '../activities/load/batches.ts';
import { tableAssetId } from '../model/asset.ts';
import { behindPageHeader, formatLsn, parseLsn } from '../model/position.ts';
import type { ConnectRequest, LeaseSummary } from '../model/source.ts';
import { isBeside } from '../model/table.ts';
import { recordedEnd } from './oracle/compare.ts';

export interface HarnessOptions {
  postgres: string;
  clickhouse: string;
  source: string;
  tables: string[];
  /** In ClickHouse; default: one of the source's own. */
  database?: string;
  /** Of all tables; public when nothing is said. */
  schema?: string;
  bufferSize?: number;
  /** Milliseconds between two looks at the catalog. */
  lookEvery?: number;
  /** `config.options` of the source. */
  sourceOptions?: Record<string, unknown>;
  excludeColumns?: Record<string, string[]>;
}

export class CaptureHarness {
  readonly options: HarnessOptions;
  readonly context: CaptureContext;
  readonly leases: Leases;
  readonly request: ConnectRequest;
  #tables: TableRef[];
  #lease = 0;
  /** The last lease that said how it ended. */
  #told = 0;
  #running: { environment: MockActivityEnvironment; ended: Promise<LeaseSummary>; over: unknown } | undefined;

  constructor(options: HarnessOptions) {
    this.options = options;
    process.env.SLUICE_TEST_DATABASE_URL = options.postgres;
    this.context = new CaptureContext(
      {
        clickhouseUrl: options.clickhouse,
        clickhouseDatabase: options.database ?? `copy_${options.source}`,
        secretKey: 'test',
        bufferSize: options.bufferSize ?? 100_000,
        lookEvery: options.lookEvery ?? 1_000,
      },
      undefined as never,
    );
    this.leases = new Leases(this.context);
    this.request = {
      id: options.source,
      type: 'postgresql',
      connection_string: '${SLUICE_TEST_DATABASE_URL}',
      config: {
        tables: options.schema ? options.tables.map((table) => `${options.schema}.${table}`) : options.tables,
        poll_interval: 1,
        mode: 'copy',
        exclude_columns: options.excludeColumns ?? {},
        // Tests that look at the catalog at a chosen moment want nobody to say that it is time.
        options: { ddl_trigger: false, ...options.sourceOptions },
      },
    };
    this.#tables = options.tables.map((table) => this.#ref(table));
  }

  get #schema(): string {
    return this.options.schema ?? 'public';
  }

  #ref(table: string): TableRef {
    return {
      asset_id: tableAssetId(this.options.source, this.#schema, table),
      schema: this.#schema,
      table,
      start_position: '',
      generation: 1,
    };
  }

  get tables(): TableRef[] {
    return this.#tables;
  }

  /** Copies, publication, slot and start positions, as the flow asks for them. */
  async prepare(renew = false): Promise<PreparedSource> {
    const prepared = await prepareSource(this.context, { request: this.request, tables: this.#tables, renew });
    this.#tables = prepared.tables;
    this.#lease = Math.max(this.#lease, prepared.last_lease);
    return prepared;
  }

  /** Adds a table, or starts one over; no lease may run. `automatic`: nobody asked for it. */
  async addTable(table: string, generation = 1, automatic = false): Promise<void> {
    this.#tables = this.#tables.filter((known) => known.table !== table);
    this.#tables.push({ ...this.#ref(table), generation, ...(automatic && { automatic }) });
    await this.prepare();
  }

  /** A re-sync of the whole source, as people ask for it: every table is copied from its beginning again. */
  async resyncAll(renew = false): Promise<void> {
    this.#tables = this.#tables.map(({ table, generation }) => ({ ...this.#ref(table), generation: generation + 1 }));
    await this.begin(renew);
  }

  /** A re-sync as the flow does it by itself, once a lease has ended because of this table; the next lease then runs. */
  async resync(table: string, automatic = true): Promise<void> {
    const { generation } = this.#tables.find((known) => known.table === table) ?? { generation: 1 };
    await this.addTable(table, generation + 1, automatic);
    this.startLease();
    await this.snapshot(table);
  }

  #input(table: string): { request: ConnectRequest; table: TableRef } {
    return { request: this.request, table: this.#tables.find((known) => known.table === table)! };
  }

  /** Plans the snapshot of a table; `cuts` (keys as texts, ascending) replace the stored plan's bounds. */
  async plan(table: string, cuts: string[][] = []): Promise<number> {
    const input = this.#input(table);
    const { chunks } = await run(() => planSnapshot(this.context, input));
    if (cuts.length === 0) return chunks;
    const bounds = ['', ...cuts.map((cut) => JSON.stringify(cut)), ''];
    const { asset_id: asset, generation, start_position: start } = input.table;
    // The first plan for a start counts: this one was there before all.
    const plan = { source: this.options.source, asset, generation, start, plan: 'test', planned_at: '1970-01-01' };
    await this.context.clickhouse('snapshot').insertObjects(
      '_chunks',
      bounds.slice(1).map((upper, chunk) => ({ ...plan, chunk, lower: bounds[chunk], upper })),
    );
    return cuts.length + 1;
  }

  /** Copies one chunk; `environment` cancels it. */
  copyChunk(table: string, chunk: number, environment = new MockActivityEnvironment()): Promise<{ rows: number }> {
    const input = { ...this.#input(table), chunk };
    return environment.run(() => copyChunk(this.context, input)) as Promise<{ rows: number }>;
  }

  finish(table: string): Promise<{ complete_at: string; rows: number }> {
    const input = this.#input(table);
    return run(() => finishSnapshot(this.context, input));
  }

  /** The next lease leaves this table out. */
  dropTable(table: string): void {
    this.#tables = this.#tables.filter((known) => known.table !== table);
  }

  /** Takes the whole snapshot of one table. */
  async snapshot(table: string): Promise<{ complete_at: string; rows: number }> {
    const chunks = await this.plan(table);
    for (let chunk = 0; chunk < chunks; chunk++) await this.copyChunk(table, chunk);
    return this.finish(table);
  }

  /** What the flow does when a snapshot is finished: waits for the stream, then records that the copy is complete. */
  async complete(client: pg.Client, table: string): Promise<void> {
    await this.drain(client);
    const clickhouse = this.context.clickhouse('snapshot');
    const record = await lastRecord(clickhouse, this.options.source);
    await recordComplete(clickhouse, this.options.source, this.#input(table).table, record!);
  }

  /** Copies, slot and all snapshots, with a lease running beside them. */
  async begin(renew = false): Promise<void> {
    await this.prepare(renew);
    this.startLease();
    for (const { table } of this.#tables) await this.snapshot(table);
  }

  /** Records of the stream in the order of leases. */
  records(): ReturnType<typeof readRecords> {
    const where = `source = {source:String} AND kind IN ('begin', 'rows', 'truncate', 'schema', 'idle')`;
    return readRecords(this.context.clickhouse('read'), where, { source: this.options.source }, 'lease, seq');
  }

  /** Goes on where another worker was: knows its tables and its last lease. */
  takeOver(other: CaptureHarness): void {
    this.#tables = other.#tables;
    this.#lease = other.#lease;
    this.#told = other.#told;
  }

  /** Starts the next lease; `stop` ends it as a pause does. */
  startLease(seconds = 600, attempt = 1, absent: string[] = []): void {
    if (attempt === 1) this.#lease++;
    const environment = new MockActivityEnvironment({ attempt }, { logger: new DefaultLogger('ERROR') });
    const refs = absent.map((table) => this.#ref(table));
    const common = { request: this.request, tables: this.#tables, absent: refs, seconds };
    const input = { ...common, lease: this.#lease, told: this.#told };
    const ended = environment.run(() => this.leases.run(input)) as Promise<LeaseSummary>;
    const running = { environment, ended, over: undefined as unknown };
    // Whoever waits for the copy learns that nobody writes it any more.
    ended.then(
      (summary) => {
        this.#told = Math.max(this.#told, input.lease);
        running.over = new Error(`the lease has ended: ${JSON.stringify(summary)}`);
      },
      (error) => (running.over = error),
    );
    this.#running = running;
  }

  /** Waits for the running lease to end by itself. */
  async leaseEnd(): Promise<LeaseSummary> {
    const running = this.#running!;
    try {
      return await running.ended;
    } finally {
      if (this.#running === running) this.#running = undefined;
    }
  }

  async stop(): Promise<LeaseSummary | undefined> {
    this.#running?.environment.cancel();
    return this.#running ? this.leaseEnd() : undefined;
  }

  /** Returns when everything that the source has committed until now is recorded. */
  async drain(client: pg.Client, milliseconds = 60_000): Promise<void> {
    const wanted = await durablePosition(client);
    const target = parseLsn(wanted);
    const until = Date.now() + milliseconds;
    for (;;) {
      const recorded = await recordedEnd(this.context.clickhouse('read'), this.options.source);
      const passed = recorded !== undefined && behindPageHeader(recorded) >= target;
      if (passed && !(await this.#hasSideCopies())) return;
      if (this.#running?.over) throw this.#running.over;
      if (Date.now() > until) throw new Error(`stuck at ${formatLsn(recorded ?? 0n)}, wanted ${wanted}`);
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
  }

  /** True while the lease has a new copy to put in the place of an old one. */
  async #hasSideCopies(): Promise<boolean> {
    const schemas = await loadSchemas(this.context.clickhouse('read'), this.options.source);
    return this.#tables.some((table) => {
      const schema = schemas.get(table.asset_id);
      return schema !== undefined && isBeside(schema);
    });
  }

  async close(): Promise<void> {
    await this.stop().catch(() => {});
    this.leases.close();
    for (const role of ['write', 'snapshot', 'read'] as const) await this.context.clickhouse(role).close();
  }

  /** All rows of source and copy as comparable texts, sorted. */
  async bothSides(client: pg.Client, table: string): Promise<{ source: string[]; copy: string[] }> {
    const asset = tableAssetId(this.options.source, this.#schema, table);
    const clickhouse = this.context.clickhouse('read');
    const described = await clickhouse.rows<{ name: string; type: string }>(
      `SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {table:String} ORDER BY position`,
      { params: { database: clickhouse.database, table: asset } },
    );
    // A copy without a key holds what happened; its rows are what its view shows.
    const counted = described.some((column) => column.name === '_sign');
    const own = ['_version', '_deleted', '_committed_at', ...(counted ? ['_origin', '_sign', '_row'] : [])];
    const columns = described.filter((column) => !own.includes(column.name));
    const quoted = columns.map((column) => `"${column.name.replaceAll('"', '""')}"`);
    const name = [this.#schema, table].map((part) => `"${part.replaceAll('"', '""')}"`).join('.');
    const kind = await client.query<{ relkind: string }>('SELECT relkind FROM pg_class WHERE oid = $1::regclass', [
      name,
    ]);
    const { rows, fields } = await client.query({
      text: `SELECT ${quoted.join(', ')} FROM ${kind.rows[0]!.relkind === 'p' ? '' : 'ONLY '}${name}`,
      rowMode: 'array',
      types: serverText,
    });
    const source = (rows as (string | null)[][]).map((row) =>
      JSON.stringify(row.map((value, i) => fromSource(value, columns[i]!.type, fields[i]!.dataTypeID))),
    );
    const copied = await clickhouse.table(
      `SELECT ${columns.map((column) => hexed(column)).join(', ')} FROM ${counted ? clickhouse.name(`${asset}_current`) : `${clickhouse.name(asset)} FINAL`}`,
    );
    const copy = copied.rows.map((row) => JSON.stringify(row.map((value, i) => fromCopy(value, columns[i]!.type))));
    return { source: source.sort(), copy: copy.sort() };
  }
}

/** A session for tests: text as the copy's session has it. */
export async function openClient(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  await client.query(
    "SET timezone = 'UTC'; SET bytea_output = 'hex'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1",
  );
  return client;
}

/** Values as the server writes them: no parser in between, and no cast, which may write another text. */
const serverText = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;

function run<T>(activity: () => Promise<T>): Promise<T> {
  return new MockActivityEnvironment().run(activity) as Promise<T>;
}

/** Strings come as hexadecimal digits: they may hold any bytes. */
function hexed({ name, type }: { name: string; type: string }): string {
  const quoted = `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
  return /^(Nullable\(|LowCardinality\(|LowCardinality\(Nullable\()?String/.test(type)
    ? `hex(toString(${quoted}))`
    : `toString(${quoted})`;
}

const byteaOid = 17;

function fromSource(value: string | null, type: string, oid: number): string | null {
  if (value === null) return null;
  if (oid === byteaOid) return value.slice(2).toUpperCase();
  if (type.includes('Array')) return value;
  if (/String/.test(type)) return Buffer.from(value).toString('hex').toUpperCase();
  if (type.includes('Bool')) return value === 't' ? 'true' : 'false';
  if (type.includes('Decimal')) return trimZeros(value);
  if (type.includes('Float')) return value === '-0' ? value : String(Number(value));
  if (type.includes('DateTime64')) return trimZeros(value.replace(/\+00$/, ''));
  return value;
}

function fromCopy(value: unknown, type: string): string | null {
  if (value === null) return null;
  const text = String(value);
  if (type.includes('Array')) return arrayAsSource(text);
  if (type.includes('Decimal')) return trimZeros(text);
  if (type.includes('Float'))
    return text === '-0' ? text : String(Number(text.replace('inf', 'Infinity').replace('nan', 'NaN')));
  if (type.includes('DateTime64')) return trimZeros(text);
  return text;
}

function trimZeros(text: string): string {
  return text.includes('.') ? text.replace(/0+$/, '').replace(/\.$/, '') : text;
}

/** Arrays of numbers and simple words only: what these tests use. */
function arrayAsSource(text: string): string {
  return text.replace('[', '{').replace(']', '}').replaceAll("'", '');
}
