/** ClickHouse as a sink: statements of tables.ts and batches.ts over one connection, behind the interface of sink.ts. */
import type { BatchRecord } from '../../model/batch.ts';
import { SluiceError } from '../../model/errors.ts';
import { copyName, isBeside, type TableSchema } from '../../model/table.ts';
import type { Reject } from '../capture/stream.ts';
import { createOwnTables, lastRecord, newestLease, supersedeRejects, writeRecord, writeRejects } from './batches.ts';
import type { Block } from './block.ts';
import { type ClickHouse, queryIdOf } from './clickhouse.ts';
import { completeReading, type Reading } from './multiset.ts';
import { newestRows } from './newest_rows.ts';
import type { RowsInsert } from './rows_insert.ts';
import type { NewestRow, Sink } from './sink.ts';
import {
  alterCopy,
  copyColumns,
  createCopy,
  dropCopy,
  dropSideCopies,
  hasCopy,
  highestSideCopy,
  placedCopies,
  replaceCopy,
  sweepBelow,
  tablesOfOthers,
} from './tables.ts';

export class ClickHouseSink implements Sink {
  readonly clickhouse: ClickHouse;

  /** @param clickhouse of role `write` or `snapshot`: its statements run in order of arrival in the embedded engine. */
  constructor(clickhouse: ClickHouse) {
    this.clickhouse = clickhouse;
  }

  createOwnTables(): Promise<void> {
    return createOwnTables(this.clickhouse);
  }

  createCopy(table: TableSchema): Promise<void> {
    return createCopy(this.clickhouse, table);
  }

  hasCopy(assetId: string): Promise<boolean> {
    return hasCopy(this.clickhouse, assetId);
  }

  tablesOfOthers(source: string): Promise<Map<string, string>> {
    return tablesOfOthers(this.clickhouse, source);
  }

  alterCopy(table: TableSchema): Promise<void> {
    return alterCopy(this.clickhouse, table);
  }

  async replaceCopy(table: TableSchema): Promise<void> {
    const { asset_id, copy } = table;
    if (!copy || !isBeside(table)) return;
    await replaceCopy(this.clickhouse, { ...table, copy: { ...copy, name: asset_id } }, copy.name);
    copy.name = asset_id;
  }

  placedCopies(tables: TableSchema[]): Promise<Set<string>> {
    return placedCopies(this.clickhouse, tables);
  }

  highestSideCopy(assetId: string): Promise<number> {
    return highestSideCopy(this.clickhouse, assetId);
  }

  dropCopy(assetId: string): Promise<void> {
    return dropCopy(this.clickhouse, assetId);
  }

  dropSideCopies(assetId: string, below?: number): Promise<void> {
    return dropSideCopies(this.clickhouse, assetId, below);
  }

  async endInserts(prefixes: string[], below?: number): Promise<void> {
    const older = below === undefined ? '' : ` AND toUInt64OrNull(splitByChar('/', query_id)[2]) < {below:UInt64}`;
    try {
      const began = 'arrayExists(prefix -> startsWith(query_id, prefix), {prefixes:Array(String)})';
      await this.clickhouse.command(`KILL QUERY WHERE ${began}${older} SYNC`, {
        params: { prefixes: prefixes.map(queryIdOf), below: below ?? 0 },
      });
    } catch (error) {
      // Without the right to kill, versions still keep the copy right; only the fence is weaker.
      if (!(error instanceof SluiceError) || error.transient) throw error;
    }
  }

  async checkDamage(source: string, assetIds: string[]): Promise<void> {
    const rows = await this.clickhouse.rows<{ name: string; parts: string }>(
      `SELECT table AS name, count() AS parts FROM system.detached_parts
       WHERE database = {database:String} AND table IN {tables:Array(String)} AND startsWith(reason, 'broken') GROUP BY table`,
      { params: { database: this.clickhouse.database, tables: ['_batches', ...assetIds] } },
    );
    const damaged = rows[0];
    if (!damaged) return;
    throw new SluiceError(
      'sink_damaged',
      `ClickHouse detached ${damaged.parts} broken parts of ${damaged.name}`,
      `Drop the detached parts (ALTER TABLE … DROP DETACHED PART), then: sluice sources resync ${source}`,
      { source, table: damaged.name },
    );
  }

  write(table: TableSchema, block: Block, id: string): Promise<number> {
    return this.clickhouse.insertTsv(copyName(table), copyColumns(table), [block.content()], id);
  }

  openInsert(table: TableSchema, columns: string[], id: string): RowsInsert {
    return this.clickhouse.openInsert(copyName(table), columns, id);
  }

  sweepBelow(table: TableSchema, version: string, committedAt: string, id: string, xid?: number): Promise<void> {
    return sweepBelow(this.clickhouse, table, version, committedAt, id, xid);
  }

  completeReading(table: TableSchema, reading: Reading, committedAt: string, id: string): Promise<void> {
    return completeReading(this.clickhouse, table, reading, { committedAt, queryId: id });
  }

  newestRows(table: TableSchema, keys: string[]): Promise<Map<string, NewestRow>> {
    return newestRows(this.clickhouse, table, keys);
  }

  reject(assetId: string, rejects: Reject[], batch: string): Promise<void> {
    return writeRejects(this.clickhouse, assetId, batch, rejects);
  }

  supersedeRejects(assetId: string, version: string): Promise<void> {
    return supersedeRejects(this.clickhouse, assetId, version);
  }

  record(record: BatchRecord): Promise<void> {
    return writeRecord(this.clickhouse, record);
  }

  lastRecord(source: string): Promise<BatchRecord | undefined> {
    return lastRecord(this.clickhouse, source);
  }

  newestLease(source: string): Promise<number> {
    return newestLease(this.clickhouse, source);
  }
}
