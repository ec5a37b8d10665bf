/** What must hold of a source and its copies, whatever has happened: every row, every record, and what the slot was told. */
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { PostgresSource } from '../../activities/capture/postgresql/source.ts';
import { auditSource } from '../../activities/lineage/audit.ts';
import { loadSchemas } from '../../activities/load/batches.ts';
import type { ClickHouse } from '../../activities/load/clickhouse.ts';
import { behindPageHeader, parseLsn } from '../../model/position.ts';
import { isBeside } from '../../model/table.ts';
import {
  checkRecords,
  compareColumns,
  compareTable,
  type Difference,
  endClient,
  readClient,
  recordedEnd,
  recordedPositions,
} from './compare.ts';
import type { OracleTable } from './oracle_table.ts';
import type { Told } from './proxy.ts';

/** A table that is copied: as the source calls it, and where its copy is. */
export interface Copied {
  table: string;
  asset_id: string;
}

export interface JudgeOptions {
  seed: string;
  source: string;
  /** The source, asked at each connect: the server may have been started anew. */
  url: () => string;
  clickhouse: ClickHouse;
  tables: OracleTable[];
  /** Statements that ClickHouse was given, for those who look into a difference. */
  told: () => readonly Told[];
}

/** Tries again what fails while servers are down. */
export async function persist<T>(attempt: () => Promise<T>): Promise<T> {
  for (let tries = 0; ; tries++) {
    try {
      return await attempt();
    } catch (error) {
      if (tries > 300) throw error;
      await sleep(100);
    }
  }
}

export class Judge {
  readonly #options: JudgeOptions;
  /** When what was broken, for those who look into a difference. */
  readonly faultTimes: string[] = [];
  /** Bytes of the log that the slot has not been confirmed past. */
  lag = 0;
  #watching = true;

  constructor(options: JudgeOptions) {
    this.#options = options;
  }

  noteFault(fault: string): void {
    this.faultTimes.push(`${new Date().toISOString().slice(11, 23)} ${fault}`);
  }

  tableOf({ table }: Copied): OracleTable {
    return this.#options.tables.find((known) => known.name === table)!;
  }

  /** Compares every table with its copy, and looks through the records. Answers what is wrong, and the number of rows. */
  async compare(copies: Copied[]): Promise<{ rows: number; problems: string[] }> {
    const { clickhouse, source, url } = this.#options;
    const problems: string[] = [];
    let rows = 0;
    const client = await persist(() => readClient(url()));
    try {
      for (const copied of copies) {
        const table = this.tableOf(copied);
        const difference = await compareTable(client, clickhouse, copied.asset_id, table);
        problems.push(...(await compareColumns(client, clickhouse, copied.asset_id, table)));
        rows += difference.rows;
        if (difference.missing.length + difference.extra.length + difference.forgotten.length > 0)
          problems.push(await this.#describe(copied.asset_id, difference));
      }
      problems.push(...(await checkRecords(clickhouse, source)).slice(0, 5), ...(await this.#audit()));
      return { rows, problems };
    } finally {
      await endClient(client);
    }
  }

  /** The audit must find nothing wrong, whatever has happened. */
  async #audit(): Promise<string[]> {
    const source = new PostgresSource();
    const passed = (position: string, target: string) => source.passed(position, target);
    const { faults } = await auditSource(this.#options.clickhouse, this.#options.source, passed);
    return faults.slice(0, 5).map(({ fault, batch, detail }) => `audit: ${fault} ${batch}: ${detail}`);
  }

  /** A position that the log reaches, behind all that is committed now. */
  async endOfLog(client: pg.Client): Promise<bigint> {
    await client.query("SELECT pg_logical_emit_message(true, 'oracle', 'end')");
    const { rows } = await client.query<{ lsn: string }>('SELECT pg_current_wal_flush_lsn()::text AS lsn');
    await client.query("SELECT pg_logical_emit_message(true, 'oracle', 'end')");
    return parseLsn(rows[0]!.lsn);
  }

  /** The position that the last record reaches. */
  recordedEnd(): Promise<bigint | undefined> {
    return recordedEnd(this.#options.clickhouse, this.#options.source);
  }

  /** True once all of these positions are recorded, false when that does not happen in time. */
  async recordedWithin(targets: bigint[], milliseconds: number): Promise<boolean> {
    const until = Date.now() + milliseconds;
    while (Date.now() < until) {
      const record = await this.recordedEnd();
      if (record !== undefined && targets.every((target) => behindPageHeader(record) >= target)) return true;
      await sleep(300);
    }
    return false;
  }

  /** True when all copies have the columns of their tables, and none is still made beside an old one. */
  async copiesFollowed(client: pg.Client, copies: Copied[]): Promise<boolean> {
    const { clickhouse, source } = this.#options;
    const schemas = await loadSchemas(clickhouse, source);
    for (const copied of copies) {
      const schema = schemas.get(copied.asset_id);
      if (!schema || isBeside(schema)) return false;
      if ((await compareColumns(client, clickhouse, copied.asset_id, this.tableOf(copied))).length > 0) return false;
    }
    return true;
  }

  /** What sessions and slots of the source do, for people. */
  async whereabouts(client: pg.Client): Promise<string> {
    const { rows: sessions } = await client.query(
      "SELECT pid, application_name, state, wait_event, left(query, 80) AS query FROM pg_stat_activity WHERE application_name LIKE 'sluice %'",
    );
    const { rows: slots } = await client.query(
      'SELECT slot_name, active_pid, confirmed_flush_lsn FROM pg_replication_slots',
    );
    return JSON.stringify({ sessions, slots });
  }

  /** Until `endWatch`: the slot must never have been confirmed past what is recorded. Answers what is wrong. */
  async watchSlot(): Promise<string[]> {
    const { clickhouse, source, url } = this.#options;
    let client: pg.Client | undefined;
    let before = '';
    while (this.#watching) {
      await sleep(200);
      try {
        client ??= await readClient(url());
        const { rows } = await client.query<{ confirmed: string; lag: string }>(
          `SELECT confirmed_flush_lsn::text AS confirmed, pg_current_wal_lsn() - confirmed_flush_lsn AS lag
           FROM pg_replication_slots WHERE slot_name = $1`,
          [`sluice_${source}`],
        );
        const confirmed = rows[0]?.confirmed;
        this.lag = Number(rows[0]?.lag ?? 0);
        if (confirmed === undefined || confirmed === before) continue;
        const recorded = await recordedPositions(clickhouse, source);
        if (recorded.length > 0 && recorded.every((position) => parseLsn(confirmed) > position)) {
          await endClient(client);
          return [`the slot was confirmed to ${confirmed}, which is past all of ${recorded.length} records`];
        }
        before = confirmed;
      } catch {
        await endClient(client);
        client = undefined;
      }
    }
    await endClient(client);
    return [];
  }

  endWatch(): void {
    this.#watching = false;
  }

  /** The difference, and the name of a file with all that the copy holds and the records say: the parts go away. */
  async #describe(asset: string, { table, missing, extra, forgotten }: Difference): Promise<string> {
    const { clickhouse, seed } = this.#options;
    const short = (rows: string[]) => rows.slice(0, 3).map((row) => (row.length > 400 ? `${row.slice(0, 400)}…` : row));
    const evidence: Record<string, unknown> = { missing, extra, forgotten };
    const read = { rows: asset, records: '_batches', chunks: '_chunks', schemas: '_schemas', rejects: '_rejects' };
    for (const [name, from] of Object.entries(read)) {
      const parts = name === 'rows' ? ', _part, _part_offset' : '';
      evidence[name] = await clickhouse.rows(`SELECT *${parts} FROM ${clickhouse.name(from)}`).catch(String);
    }
    const parts = `SELECT * FROM system.parts WHERE database = {database:String} AND position(table, {asset:String}) > 0`;
    evidence.parts = await clickhouse.rows(parts, { params: { database: clickhouse.database, asset } }).catch(String);
    evidence.statements = this.#options
      .told()
      .filter((told) => JSON.stringify(told).includes(asset) || told.query.startsWith('KILL'));
    evidence.faults = this.faultTimes;
    const file = path.join(tmpdir(), `oracle-${seed}-${table}.json`);
    writeFileSync(file, JSON.stringify(evidence, undefined, 1));
    return (
      `${table} differs: ${missing.length} missing ${short(missing).join(' ')}, ${extra.length} extra ${short(extra).join(' ')}, ` +
      `${forgotten.length} forgotten ${short(forgotten).join(' ')}; evidence: ${file}`
    );
  }
}
