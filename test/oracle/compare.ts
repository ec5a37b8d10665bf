/** Source and copy, row by row, and what the records must say. Shares no code with what writes or verifies copies. */
import pg from 'pg';
import type { ClickHouse } from '../../activities/load/clickhouse.ts';
import { parseLsn } from '../../model/position.ts';
import type { OracleTable } from './oracle_table.ts';

/** Values as the server writes them: no parser in between, and no cast, which may write another text. */
const raw = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;
const byteaOid = 17;

/** Ends a session whose server may be gone, and then never says goodbye. */
export async function endClient(client: pg.Client | undefined): Promise<void> {
  if (!client) return;
  const ended = client.end().catch(() => {});
  await Promise.race([ended, new Promise((resolve) => setTimeout(resolve, 1_000).unref())]);
}

export async function readClient(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 5_000, query_timeout: 60_000 });
  client.on('error', () => {});
  await client.connect();
  await client.query(
    "SET timezone = 'UTC'; SET bytea_output = 'hex'; SET datestyle = 'ISO'; SET intervalstyle = 'postgres'; SET extra_float_digits = 1",
  );
  return client;
}

export interface Difference {
  table: string;
  /** In the source and not, or otherwise, in the copy. */
  missing: string[];
  /** The other way round. */
  extra: string[];
  /** Rows that cannot be copied and are not among the rejects either. */
  forgotten: string[];
  rows: number;
}

const name = (text: string) => `"${text.replaceAll('"', '""')}"`;
const copyName = (text: string) => `\`${text.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;

interface SourceRow {
  key: string;
  text: string;
  held: boolean;
}

/** Compares a table with its copy; undefined when they are equal. */
export async function compareTable(
  client: pg.Client,
  clickhouse: ClickHouse,
  asset: string,
  table: OracleTable,
): Promise<Difference> {
  const described = await clickhouse.rows<{ name: string; type: string }>(
    'SELECT name, type FROM system.columns WHERE database = {database:String} AND table = {asset:String} ORDER BY position',
    { params: { database: clickhouse.database, asset } },
  );
  const columns = described.filter((column) => !column.name.startsWith('_'));
  const source = await readSource(client, table, columns);
  const counted = table.key.length === 0;
  const copied = await clickhouse.table(
    `SELECT ${columns.map(asText).join(', ')} FROM ${counted ? clickhouse.name(`${asset}_current`) : `${clickhouse.name(asset)} FINAL`}`,
  );
  const keyAt = columns.flatMap((column, at) => (table.key.includes(column.name) ? [at] : []));
  const copy = copied.rows.map((row) => {
    const values = row.map((value, i) => fromCopy(value as string | null, columns[i]!.type));
    return { key: JSON.stringify(keyAt.map((at) => values[at])), text: JSON.stringify(values) };
  });
  if (counted) return compareCounts(clickhouse, asset, table, { columns, source, copy: copy.map((row) => row.text) });
  const held = new Set(source.filter((row) => row.held).map((row) => row.key));
  const rejected = held.size > 0 ? await openRejects(clickhouse, asset, columns, keyAt) : new Set<string>();
  const inCopy = new Set(copy.filter((row) => !held.has(row.key)).map((row) => row.text));
  const inSource = new Set(source.filter((row) => !row.held).map((row) => row.text));
  return {
    table: table.name,
    missing: [...inSource].filter((text) => !inCopy.has(text)),
    extra: [...inCopy].filter((text) => !inSource.has(text)),
    forgotten: [...held].filter((key) => !rejected.has(key)),
    rows: source.length,
  };
}

/** Rows without a key: each must be in the copy as often as in the source, or among the rejects. */
async function compareCounts(
  clickhouse: ClickHouse,
  asset: string,
  table: OracleTable,
  sides: { columns: { name: string; type: string }[]; source: SourceRow[]; copy: string[] },
): Promise<Difference> {
  const { columns, source, copy } = sides;
  // Columns that came or went since stand in rejects as they were then.
  const kept = columns.map(({ name }) => !name.startsWith('extra'));
  const withoutExtras = ({ text }: SourceRow) =>
    JSON.stringify((JSON.parse(text) as unknown[]).filter((_, i) => kept[i]));
  const held = source.filter((row) => row.held).map(withoutExtras);
  const rejected =
    held.length > 0
      ? await rejectedRows(
          clickhouse,
          asset,
          columns.filter((_, i) => kept[i]),
        )
      : new Set<string>();
  const wanted = source.filter((row) => !row.held).map((row) => row.text);
  return {
    table: table.name,
    missing: withoutThese(wanted, copy),
    extra: withoutThese(copy, wanted),
    forgotten: held.filter((text) => !rejected.has(text)),
    rows: source.length,
  };
}

/** What is left of a list when each text of another one is taken away once. */
function withoutThese(texts: string[], others: string[]): string[] {
  const counts = new Map<string, number>();
  for (const text of others) counts.set(text, (counts.get(text) ?? 0) + 1);
  return texts.filter((text) => {
    const count = counts.get(text) ?? 0;
    counts.set(text, count - 1);
    return count <= 0;
  });
}

/** Rows that were held back, in these columns, written as the source's rows are. */
async function rejectedRows(
  clickhouse: ClickHouse,
  asset: string,
  columns: { name: string; type: string }[],
): Promise<Set<string>> {
  const rows = await clickhouse.rows<{ row: string }>(
    `SELECT DISTINCT row FROM ${clickhouse.name('_rejects')} FINAL WHERE asset = {asset:String} AND state = 'open'`,
    { params: { asset } },
  );
  return new Set(
    rows.map(({ row }) => {
      const values = JSON.parse(row) as Record<string, string | null>;
      return JSON.stringify(columns.map(({ name, type }) => fromSource(values[name] ?? null, type, 0)));
    }),
  );
}

/** What is wrong with the columns of a copy: names that are missing, or are too many. */
export async function compareColumns(
  client: pg.Client,
  clickhouse: ClickHouse,
  asset: string,
  table: OracleTable,
): Promise<string[]> {
  const found = await clickhouse.rows<{ name: string }>(
    `SELECT name FROM system.columns WHERE database = {database:String} AND table = {asset:String} AND NOT startsWith(name, '_')`,
    { params: { database: clickhouse.database, asset } },
  );
  const { rows } = await client.query<{ name: string }>(
    `SELECT attname AS name FROM pg_attribute WHERE attrelid = $1::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = ''`,
    [name(table.name)],
  );
  const [copy, source] = [found, rows].map((list) => list.map((column) => column.name).sort());
  const same = JSON.stringify(copy) === JSON.stringify(source);
  return same ? [] : [`${table.name} has columns ${source!.join(', ')}, and its copy ${copy!.join(', ')}`];
}

async function readSource(
  client: pg.Client,
  table: OracleTable,
  columns: { name: string; type: string }[],
): Promise<SourceRow[]> {
  const condition = table.unrepresentable ?? 'false';
  const { rows, fields } = await client.query({
    text: `SELECT ${columns.map((column) => name(column.name)).join(', ')}, coalesce(${condition}, false) FROM ${table.repartition ? '' : 'ONLY '}${name(table.name)}`,
    rowMode: 'array',
    types: raw,
  });
  const keyAt = columns.flatMap((column, at) => (table.key.includes(column.name) ? [at] : []));
  return (rows as (string | null)[][]).map((row) => {
    const values = columns.map(({ type }, i) => fromSource(row[i] ?? null, type, fields[i]!.dataTypeID));
    return {
      key: JSON.stringify(keyAt.map((at) => values[at])),
      text: JSON.stringify(values),
      held: row.at(-1) === 't',
    };
  });
}

/** Keys with open rejects, written as the source's keys are. */
async function openRejects(
  clickhouse: ClickHouse,
  asset: string,
  columns: { name: string; type: string }[],
  keyAt: number[],
): Promise<Set<string>> {
  const rows = await clickhouse.rows<{ key: string }>(
    `SELECT DISTINCT key FROM ${clickhouse.name('_rejects')} FINAL WHERE asset = {asset:String} AND state = 'open'`,
    { params: { asset } },
  );
  return new Set(
    rows.map(({ key }) => {
      const values = JSON.parse(key) as Record<string, string>;
      return JSON.stringify(keyAt.map((at) => fromSource(values[columns[at]!.name] ?? null, columns[at]!.type, 0)));
    }),
  );
}

const isText = (type: string) => /^(Nullable\(|LowCardinality\(|LowCardinality\(Nullable\()?String/.test(type);

/** Strings come as hexadecimal digits: they may hold any bytes. */
function asText({ name: column, type }: { name: string; type: string }): string {
  return isText(type) ? `hex(toString(${copyName(column)}))` : `toString(${copyName(column)})`;
}

function fromSource(value: string | null, type: string, oid: number): string | null {
  if (value === null) return null;
  if (oid === byteaOid) return value.slice(2).toUpperCase();
  if (type.includes('Array')) return value;
  if (isText(type)) return Buffer.from(value).toString('hex').toUpperCase();
  if (type.includes('Decimal')) return withoutZeros(value);
  if (type.includes('Float')) return String(Number(value));
  if (type.includes('DateTime64')) return withoutZeros(value.replace(/\+00$/, ''));
  return value;
}

function fromCopy(value: string | null, type: string): string | null {
  if (value === null) return null;
  if (type.includes('Array')) return value.replace('[', '{').replace(']', '}');
  if (isText(type)) return value;
  if (type.includes('Bool')) return value === 'true' ? 't' : 'f';
  if (type.includes('Decimal') || type.includes('DateTime64')) return withoutZeros(value);
  if (type.includes('Float')) return String(Number(value.replace('inf', 'Infinity').replace('nan', 'NaN')));
  return value;
}

function withoutZeros(text: string): string {
  return text.includes('.') ? text.replace(/0+$/, '').replace(/\.$/, '') : text;
}

interface RecordRow {
  id: string;
  lease: string;
  seq: string;
  kind: string;
  position_from: string;
  position_to: string;
  inner: string;
  assets: string;
  hash: string;
  previous_hash: string;
  recorded_at: string;
}

/** What is wrong with the records of a source: gaps, steps back, broken chains, rows that were not accounted for. */
export async function checkRecords(clickhouse: ClickHouse, source: string): Promise<string[]> {
  const rows = await clickhouse.rows<RecordRow>(
    `SELECT id, lease, seq, kind, position_from, position_to, inner, assets, hash, previous_hash, recorded_at
     FROM ${clickhouse.name('_batches')} FINAL WHERE source = {source:String} ORDER BY lease, seq`,
    { params: { source } },
  );
  const faults: string[] = [];
  for (const row of rows) for (const fault of accountFaults(row)) faults.push(fault);
  const stream = rows.filter((row) => ['begin', 'rows', 'truncate', 'schema', 'idle'].includes(row.kind));
  const reached = new Set<string>();
  let before: RecordRow | undefined;
  let head = '';
  const heads = new Set(['']);
  let begun = 0n;
  for (const row of stream) {
    const [from, to] = [parseLsn(row.position_from), parseLsn(row.position_to)];
    if (to < from) faults.push(`${row.id} goes back from ${row.position_from} to ${row.position_to}`);
    if (row.inner !== '' && !/^[0-9A-F]{1,8}\/[0-9A-F]{1,8}$/.test(row.inner))
      faults.push(`${row.id} ends inside of a transaction at ${row.inner}`);
    if (before?.lease === row.lease) {
      if (row.position_from !== before.position_to)
        faults.push(
          `gap: ${row.id} (${row.kind}) begins at ${row.position_from}, ${before.id} ended at ${before.position_to}`,
        );
    } else {
      if (row.kind !== 'begin') faults.push(`${row.id} (${row.kind}) is the first record of its lease`);
      if (before && !reached.has(row.position_from))
        faults.push(`${row.id} begins where no record ended: ${row.position_from}`);
      if (from < begun) faults.push(`${row.id} begins at ${row.position_from}, before its predecessor`);
      begun = from;
      // A lease goes on from a record of the one before: not always from its last, if that one wrote on beside it.
      if (!heads.has(row.previous_hash) || (before && row.previous_hash === ''))
        faults.push(`${row.id} does not follow from a record of an earlier lease`);
      head = row.previous_hash;
    }
    // Idle records replace each other, and stand outside of the chain.
    if (row.previous_hash !== head) faults.push(`${row.id} does not follow from the record before it`);
    if (row.kind !== 'idle') head = row.hash;
    heads.add(head);
    reached.add(row.position_to);
    before = row;
  }
  return faults;
}

function accountFaults(row: RecordRow): string[] {
  const faults: string[] = [];
  for (const [asset, account] of Object.entries(JSON.parse(row.assets) as Record<string, Record<string, number>>)) {
    const {
      effects = 0,
      truncates = 0,
      written = 0,
      compacted = 0,
      superseded = 0,
      rejected = 0,
      filtered = 0,
    } = account;
    if (effects - truncates !== written + compacted + superseded + rejected + filtered)
      faults.push(`${row.id} does not account for all of ${asset}: ${JSON.stringify(account)}`);
  }
  return faults;
}

/** All positions that records reach. */
export async function recordedPositions(clickhouse: ClickHouse, source: string): Promise<bigint[]> {
  const rows = await clickhouse.rows<{ position_to: string }>(
    `SELECT DISTINCT position_to FROM ${clickhouse.name('_batches')} WHERE source = {source:String} AND kind IN ('begin', 'rows', 'truncate', 'schema', 'idle')`,
    { params: { source } },
  );
  return rows.map((row) => parseLsn(row.position_to));
}

/** The position that the last record of the stream reaches. One column only: this is asked often, on a machine that has more to do. */
export async function recordedEnd(clickhouse: ClickHouse, source: string): Promise<bigint | undefined> {
  const [last] = await clickhouse.rows<{ position: string }>(
    `SELECT argMax(position_to, (lease, seq, recorded_at)) AS position FROM ${clickhouse.name('_batches')}
     WHERE source = {source:String} AND kind IN ('begin', 'rows', 'truncate', 'schema', 'idle')`,
    { params: { source } },
  );
  return last!.position === '' ? undefined : parseLsn(last!.position);
}
