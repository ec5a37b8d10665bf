/**
 * What the records of a source sum up to. They are never taken away, so summing all of them anew would take longer every day: of
 * leases that have ended the sums are kept, and whoever asks adds the records since. Each lease keeps those of the leases before it.
 */
import { type AssetEffects, attemptsLimit, type BatchKind, type RuleCounts } from '../../model/batch.ts';
import type { ClickHouse } from './clickhouse.ts';
import { durable } from './tables.ts';

/** Bounds of the buckets in which `seconds` counts, in seconds. */
export const batchBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10] as const;

const effectNames = [
  'inserts',
  'updates',
  'deletes',
  'truncates',
  'rejected',
] as const satisfies (keyof AssetEffects)[];
const countNames = ['in', 'out', 'errors'] as const satisfies (keyof RuleCounts)[];

export interface Sums {
  /** Of the stream. */
  changes: number;
  /** Where the stream stands; '' before its first record. */
  position: string;
  /** When rows were recorded last; ClickHouse's text, '' before. */
  last: string;
  /** How long batches of the stream took; `buckets` count those that took at most as long as `batchBuckets` say. */
  seconds: { count: number; sum: number; buckets: number[] };
  /** By asset: changes of the stream; rejects of snapshots too. */
  assets: Record<string, Record<(typeof effectNames)[number], number>>;
  /** By rule and check, over all tables. */
  rules: Record<string, RuleCounts>;
}

/** A lease of a source, and what the records of those before it sum up to. */
interface KeptSums {
  lease: number;
  sums: Sums;
}

/** One row a source counts: that of the highest lease. */
const definition = `(
  source LowCardinality(String), lease UInt64, body String, recorded_at DateTime64(6, 'UTC') DEFAULT now64(6, 'UTC')
) ENGINE = ReplacingMergeTree(lease) ORDER BY source`;

/** Makes `_sums` when it is not there. */
export async function createSums(clickhouse: ClickHouse): Promise<void> {
  await clickhouse.command(`CREATE TABLE IF NOT EXISTS ${clickhouse.name('_sums')} ${definition} SETTINGS ${durable}`);
}

/** What the records of all sources sum up to, by source; none when nothing was recorded. */
export async function readSums(clickhouse: ClickHouse, signal?: AbortSignal): Promise<Map<string, Sums>> {
  const kept = await readKept(clickhouse, signal);
  // Snapshots record beside leases, and behind: theirs are few, and found by their kind.
  const parts = await Promise.all([
    sumUp(clickhouse, since(kept), streamed, signal),
    sumUp(clickhouse, { where: 'true', params: {} }, aside, signal),
  ]);
  const all = new Map([...kept].map(([source, { sums }]) => [source, sums]));
  for (const part of parts) for (const [source, sums] of part) all.set(source, add(all.get(source) ?? noSums(), sums));
  return all;
}

/** How many numbers of leases are summed up at once: some 300,000 records of a source that is never idle. */
const leasesAtOnce = 20 * attemptsLimit;

/**
 * Keeps what the records of a source sum up to below a lease: that lease has begun, so those before it record nothing any more.
 * Ends early, with what is done kept, when `signal` is aborted.
 */
export async function keepSums(
  clickhouse: ClickHouse,
  source: string,
  lease: number,
  signal?: AbortSignal,
): Promise<void> {
  let { lease: from, sums } = (await readKept(clickhouse, signal, source)).get(source) ?? { lease: 0, sums: noSums() };
  while (from < lease && !signal?.aborted) {
    const params = { source, from, to: lease };
    const ofSource = 'source = {source:String} AND lease >= {from:UInt64} AND lease < {to:UInt64}';
    const [next] = await clickhouse.rows<{ first: string }>(
      `SELECT min(lease) AS first FROM ${clickhouse.name('_batches')} WHERE ${ofSource}`,
      { params, signal },
    );
    const to = Number(next!.first) === 0 ? lease : Math.min(lease, Number(next!.first) + leasesAtOnce);
    const part = await sumUp(clickhouse, { where: ofSource, params: { ...params, to } }, streamed, signal);
    sums = add(sums, part.get(source) ?? noSums());
    await clickhouse.insertObjects('_sums', [{ source, lease: to, body: JSON.stringify(sums) }]);
    from = to;
  }
}

async function readKept(
  clickhouse: ClickHouse,
  signal: AbortSignal | undefined,
  source?: string,
): Promise<Map<string, KeptSums>> {
  const rows = await clickhouse.rows<{ source: string; lease: string; body: string }>(
    `SELECT source, lease, body FROM ${clickhouse.name('_sums')} FINAL ${source === undefined ? '' : 'WHERE source = {source:String}'}`,
    { params: source === undefined ? {} : { source }, signal },
  );
  return new Map(rows.map((row) => [row.source, { lease: Number(row.lease), sums: JSON.parse(row.body) as Sums }]));
}

interface Condition {
  /** Trusted SQL with parameters. */
  where: string;
  params: Record<string, unknown>;
}

/** Records that no kept sums cover. */
function since(kept: ReadonlyMap<string, KeptSums>): Condition {
  if (kept.size === 0) return { where: 'true', params: {} };
  const params: Record<string, unknown> = { kept: [...kept.keys()] };
  const one = ([source, { lease }]: [string, KeptSums], index: number) => {
    Object.assign(params, { [`source${index}`]: source, [`lease${index}`]: lease });
    return `source = {source${index}:String} AND lease >= {lease${index}:UInt64}`;
  };
  const ranges = [...kept].map(one).map((range) => `(${range})`);
  return { where: ['source NOT IN {kept:Array(String)}', ...ranges].join(' OR '), params };
}

const list = (kinds: BatchKind[]): string => `(${kinds.map((kind) => `'${kind}'`).join(', ')})`;

/** Which records are summed up, and what counts of them. */
interface Counted {
  kinds: string;
  /** Of the stream's own. */
  isStream: boolean;
}
const streamed: Counted = { kinds: list(['begin', 'rows', 'truncate', 'idle']), isStream: true };
const aside: Counted = { kinds: list(['chunk', 'release']), isStream: false };

/** Sums by source over records; those of rules and assets are read from JSON in ClickHouse. */
async function sumUp(
  clickhouse: ClickHouse,
  { where, params }: Condition,
  { kinds, isStream }: Counted,
  signal: AbortSignal | undefined,
): Promise<Map<string, Sums>> {
  const counted = batchBuckets.map((bucket) => `toFloat64(countIf(took <= ${bucket} AND done))`).join(', ');
  const sumsOf = (names: readonly string[], of: string) =>
    `[${names.map((name) => `toFloat64(sum(JSONExtractUInt(${of}, '${name}')))`).join(', ')}]`;
  const records = `(SELECT *, (fill_ms + resolve_ms + write_ms) / 1000 AS took, kind IN ('rows', 'truncate') AS done
    FROM ${clickhouse.name('_batches')} FINAL WHERE (${where}) AND kind IN ${kinds})`;
  // What only tells a time or a position bears it as text.
  const rows = await clickhouse.rows<{ what: string; source: string; name: string; text: string; numbers: number[] }>(
    `SELECT 'source' AS what, source, toString(maxOrNullIf(recorded_at, kind IN ('rows', 'truncate', 'chunk'))) AS name,
       ${isStream ? 'argMax(position_to, (lease, seq))' : "''"} AS text,
       [toFloat64(sumIf(changes, done)), toFloat64(countIf(done)), sumIf(took, done), ${counted}] AS numbers
     FROM ${records} GROUP BY source
     UNION ALL
     SELECT 'asset', source, pair.1, '', ${sumsOf(effectNames, 'pair.2')}
     FROM ${records} ARRAY JOIN JSONExtractKeysAndValuesRaw(assets) AS pair
     WHERE ${isStream ? 'done' : "kind = 'chunk'"} GROUP BY source, pair.1
     UNION ALL
     SELECT 'rule', source, one.1, '', ${sumsOf(countNames, 'one.2')}
     FROM (SELECT source, arrayJoin(JSONExtractKeysAndValuesRaw(applied)) AS table FROM ${records} WHERE applied != '')
     ARRAY JOIN JSONExtractKeysAndValuesRaw(table.2) AS one GROUP BY source, one.1`,
    { params, signal },
  );
  const all = new Map<string, Sums>();
  for (const { what, source, name, text, numbers } of rows) {
    const sums = all.get(source) ?? noSums();
    all.set(source, sums);
    const named = <Name extends string>(names: readonly Name[]) =>
      Object.fromEntries(names.map((one, index) => [one, numbers[index]])) as Record<Name, number>;
    if (what === 'rule') sums.rules[name] = named(countNames);
    else if (what === 'source') {
      const [changes = 0, count = 0, sum = 0, ...buckets] = numbers;
      Object.assign(sums, { changes, position: text, last: name ?? '', seconds: { count, sum, buckets } });
    } else {
      const effects = named(effectNames);
      // Rows of a snapshot are no changes.
      sums.assets[name] = isStream ? effects : { ...noEffects(), rejected: effects.rejected };
    }
  }
  return all;
}

const noEffects = (): Sums['assets'][string] => ({ inserts: 0, updates: 0, deletes: 0, truncates: 0, rejected: 0 });

function noSums(): Sums {
  const seconds = { count: 0, sum: 0, buckets: batchBuckets.map(() => 0) };
  return { changes: 0, position: '', last: '', seconds, assets: {}, rules: {} };
}

/** Of two parts, the later second. */
function add(a: Sums, b: Sums): Sums {
  return {
    changes: a.changes + b.changes,
    position: b.position || a.position,
    last: [a.last, b.last].sort()[1]!,
    seconds: {
      count: a.seconds.count + b.seconds.count,
      sum: a.seconds.sum + b.seconds.sum,
      buckets: a.seconds.buckets.map((count, index) => count + b.seconds.buckets[index]!),
    },
    assets: addEach(a.assets, b.assets),
    rules: addEach(a.rules, b.rules),
  };
}

function addEach<Names extends string>(
  a: Record<string, Record<Names, number>>,
  b: Record<string, Record<Names, number>>,
): Record<string, Record<Names, number>> {
  const sums = { ...a };
  for (const [key, more] of Object.entries(b)) {
    const known = sums[key];
    const names = Object.keys(more) as Names[];
    sums[key] = known
      ? (Object.fromEntries(names.map((name) => [name, known[name] + more[name]])) as Record<Names, number>)
      : more;
  }
  return sums;
}
