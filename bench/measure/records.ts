/** What a source leaves that has run for long: records as its leases write them, and the questions that are asked of them. */
import { PostgresSource } from '../../activities/capture/postgresql/source.ts';
import { recordedChunk } from '../../activities/capture/snapshots.ts';
import { batchOf } from '../../activities/lineage/row_versions.ts';
import { lastRecord, newestLease, saveSchema } from '../../activities/load/batches.ts';
import { type ClickHouse, quoteName } from '../../activities/load/clickhouse.ts';
import { readSourceCut, readTableCuts } from '../../activities/load/cuts.ts';
import { listAudit } from '../../api/control/audit.ts';
import type { Control } from '../../api/control/control.ts';
import { assetFigures, batchSeconds, ruleFigures, sourceFigures } from '../../api/control/figures.ts';
import { attemptsLimit } from '../../model/batch.ts';
import type { Column, TableSchema } from '../../model/table.ts';
import { snapshotVersion, streamVersion } from '../../model/version.ts';

export const source = 'bench';
/** Batches of a lease of ten minutes, 25 a second. */
const perLease = 15_000;
/** Two batches are this far apart, in milliseconds. */
const apart = 40;
/** When the last is recorded, in milliseconds. */
const newest = Date.now();
/** Of the log. */
const firstPosition = 0x1000000;

/** The lease that writes the last of so many records. */
export function lastLease(records: number): number {
  return (Math.floor((records - 1) / perLease) + 1) * attemptsLimit;
}

const assetOf = (table: number) => `${source}_t${table}`;

function schemaOf(table: number): TableSchema {
  const id = { name: 'id', attnum: 1, type: 'bigint', typeOid: 20, typmod: -1, key: true, encoding: 'plain' };
  const columns = [{ ...id, clickhouse: 'Int64' } as Column];
  return { asset_id: assetOf(table), schema: 'public', table: `t${table}`, columns } as TableSchema;
}

const effects = JSON.stringify({
  ...{ inserts: 10, updates: 20, deletes: 10, truncates: 0, effects: 40 },
  ...{ written: 40, compacted: 0, superseded: 0, rejected: 0, bytes: 4000 },
});

/**
 * Makes the records of a source that is never idle, until now: its tables' snapshots first, then of two tables a batch. In SQL,
 * since there are millions.
 */
export async function makeRecords(
  clickhouse: ClickHouse,
  { records, tables }: { records: number; tables: number },
): Promise<void> {
  for (let table = 0; table < tables; table++) await saveSchema(clickhouse, source, schemaOf(table), 1);
  const columns = recordColumns(records, tables);
  const insert = (values: Record<string, string>, from: number, count: number) =>
    clickhouse.command(
      `INSERT INTO ${clickhouse.name('_batches')} (${Object.keys(values).map(quoteName).join(', ')})
       SELECT ${Object.values(values).join(', ')} FROM numbers(${from}, ${count})`,
    );
  const atOnce = 500_000;
  for (let from = 0; from < records; from += atOnce) await insert(columns, from, Math.min(atOnce, records - from));
  const ends = { chunk: '/0', snapshot: '', complete: '/complete' };
  for (const [kind, end] of Object.entries(ends))
    await insert({ ...columns, ...snapshotColumns(kind, end) }, 0, tables);
}

/** Of record `number`, by column, as SQL. */
function recordColumns(records: number, tables: number): Record<string, string> {
  const asset = (n: string) => `'"${source}_t', toString((${n}) % ${tables}), '":${effects}'`;
  const all = JSON.stringify(
    Object.fromEntries(Array.from({ length: tables }, (_, table) => [assetOf(table), { inserts: 0 }])),
  );
  const counts = { in: 10, out: 10, errors: 0 };
  const at = `fromUnixTimestamp64Milli(toInt64(${newest} + (number - ${records}) * ${apart}), 'UTC')`;
  const lease = `(intDiv(number, ${perLease}) + 1) * ${attemptsLimit} + 1`;
  const seq = `number % ${perLease}`;
  const begins = `${seq} = 0`;
  const position = (n: string) => `concat('0/', hex(toUInt32(${firstPosition} + ${n})))`;
  return {
    source: `'${source}'`,
    lease,
    seq,
    id: `concat('${source}/', toString(${lease}), '/', toString(${seq}))`,
    kind: `if(${begins}, 'begin', 'rows')`,
    position_from: position('number'),
    position_to: position('number + 1'),
    cluster: "'7412345678901234567'",
    epoch: '1',
    committed_first: at,
    committed_last: at,
    changes: `if(${begins}, 0, 80)`,
    assets: `if(${begins}, '${all}', concat('{', ${asset('number')}, ',', ${asset('number + 1')}, '}'))`,
    truncated: "'{}'",
    failed: "'{}'",
    applied: `if(number % 10 = 1, '${JSON.stringify({ [assetOf(1)]: { 'rule/a': counts } })}', '')`,
    fill_ms: '40',
    write_ms: '16',
    workflow_id: `'sluice-capture-${source}'`,
    run_id: `toString(reinterpretAsUUID(toUInt128(cityHash64(intDiv(number, ${perLease})))))`,
    attempt: '1',
    previous_hash: 'lower(hex(SHA256(toString(number))))',
    hash: 'lower(hex(SHA256(toString(number + 1))))',
    recorded_at: at,
  };
}

/** What is another way in records of the snapshot of table `number`. */
function snapshotColumns(kind: string, end: string): Record<string, string> {
  return {
    lease: String(attemptsLimit + 1),
    seq: '0',
    id: `concat('${source}/snapshot/${source}_t', toString(number), '/1${end}')`,
    kind: `'${kind}'`,
    changes: '0',
    position_from: `'0/${firstPosition.toString(16).toUpperCase()}'`,
    assets: `concat('{"${source}_t', toString(number), '":${effects}}')`,
    applied: "''",
  };
}

/** What flows, the API and the command line ask again and again, by name. */
export function questions(records: number): Record<string, (control: Control) => Promise<unknown>> {
  const middle = Math.floor(records / 2);
  const lsn = BigInt(firstPosition + middle);
  const table = { asset_id: assetOf(1), start_position: '0/1000000' };
  return {
    last_record: ({ clickhouse }) => lastRecord(clickhouse, source),
    newest_lease: ({ clickhouse }) => newestLease(clickhouse, source),
    recorded_chunk: ({ clickhouse }) =>
      recordedChunk(clickhouse, source, `${source}/snapshot/${assetOf(1)}/1/0`, table),
    table_cuts: ({ clickhouse }) => readTableCuts(clickhouse, source),
    source_cut: ({ clickhouse }) => readSourceCut(clickhouse, source),
    source_figures: sourceFigures,
    asset_figures: assetFigures,
    rule_figures: ruleFigures,
    batch_seconds: batchSeconds,
    audit: (control) => listAudit(control, { limit: 100 }),
    audit_of_asset: (control) => listAudit(control, { source, asset: assetOf(1), limit: 100 }),
    row_of_stream: ({ clickhouse }) => batchOfRow(clickhouse, streamVersion(1, lsn, lsn - 1n, 0), records - middle),
    row_of_snapshot: ({ clickhouse }) => batchOfRow(clickhouse, snapshotVersion(1, BigInt(firstPosition)), records),
  };
}

/** The batch of a row whose record is so many behind the newest. */
function batchOfRow(clickhouse: ClickHouse, version: bigint, behind: number): Promise<unknown> {
  const committed_at = new Date(newest - behind * apart).toISOString();
  const row = { key: '1', version: String(version), deleted: false, committed_at };
  return batchOf(clickhouse, { id: source, reader: new PostgresSource() }, schemaOf(1), row);
}
