/**
 * A source that has run for long: what is asked of its records all the time must not take longer every day. And what their
 * kept sums say, compared with a model that adds up the records themselves.
 */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { createOwnTables, writeRecord } from '../activities/load/batches.ts';
import type { ClickHouse } from '../activities/load/clickhouse.ts';
import { keepSums, readSums } from '../activities/load/sums.ts';
import { type Control, openControl } from '../api/control/control.ts';
import { lastLease, makeRecords, questions, source } from '../bench/measure/records.ts';
import {
  type AssetEffects,
  attemptsLimit,
  type BatchKind,
  type BatchRecord,
  noEffects,
  type RuleCounts,
} from '../model/batch.ts';
import { seededRandom } from '../workers/demo/random.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { readSettings } from '../workers/settings.ts';

const seed = process.env.SUMS_SEED ?? String(Math.floor(Math.random() * 1e9));
const random = seededRandom(seed);
let parts: StartedParts<'clickhouse'>;
let control: Control;

beforeAll(async () => {
  parts = await startParts(['clickhouse']);
  control = openControl({ ...readSettings(), clickhouseUrl: parts.clickhouse.url });
  await createOwnTables(control.clickhouse);
});

afterAll(async () => {
  await control?.[Symbol.asyncDispose]();
  await parts?.[Symbol.asyncDispose]();
});

/** Rows that were read from tables so far. */
async function selected(): Promise<number> {
  const sql = "SELECT toString(sum(value)) AS rows FROM system.events WHERE event = 'SelectedRows'";
  return Number((await control.clickhouse.rows<{ rows: string }>(sql))[0]!.rows);
}

it('is asked in the time that it took on the first day', async () => {
  const records = 600_000;
  await makeRecords(control.clickhouse, { records, tables: 5 });
  await keepSums(control.clickhouse, source, lastLease(records));
  await control.clickhouse.command(`OPTIMIZE TABLE ${control.clickhouse.name('_batches')} FINAL`);
  const read: Record<string, number> = {};
  for (const [name, ask] of Object.entries(questions(records))) {
    const before = await selected();
    // Figures are kept for a moment by whom they were asked for.
    await ask({ ...control });
    read[name] = (await selected()) - before;
  }
  console.log(read);
  const { audit, audit_of_asset, table_cuts, source_cut, ...others } = read;
  // An hour of records, which are a page; and those around the beginning of each lease, by several ways.
  expect([audit! < 150_000, audit_of_asset! < 150_000]).toEqual([true, true]);
  expect([table_cuts! < records / 3, source_cut! < records / 3]).toEqual([true, true]);
  expect(Object.entries(others).filter(([, rows]) => rows > records / 10)).toEqual([]);
}, 120_000);

/** What a record adds to the sums of its source, as its kind says. */
function addTo(model: Model, record: BatchRecord): void {
  const { changes, durations, kind, position_to } = record;
  const isDone = kind === 'rows' || kind === 'truncate';
  model[record.source] ??= { changes: 0, position: '', count: 0, assets: {}, rules: {} };
  const one = model[record.source]!;
  if (isDone) {
    one.changes += changes;
    if (durations.fill + durations.resolve + durations.write <= 100) one.count++;
  }
  if (['begin', 'rows', 'truncate', 'idle'].includes(kind)) one.position = position_to;
  for (const [asset, effects] of isDone || kind === 'chunk' ? Object.entries(record.assets) : []) {
    one.assets[asset] ??= { inserts: 0, rejected: 0 };
    const known = one.assets[asset]!;
    known.inserts += isDone ? effects.inserts : 0;
    known.rejected += effects.rejected;
  }
  for (const rules of Object.values(record.applied ?? {}))
    for (const [rule, counts] of Object.entries(rules)) {
      one.rules[rule] ??= { in: 0, out: 0, errors: 0 };
      const known = one.rules[rule]!;
      for (const name of ['in', 'out', 'errors'] as const) known[name] += counts[name];
    }
}

type Model = Record<
  string,
  {
    changes: number;
    position: string;
    /** Batches that took at most a tenth of a second. */
    count: number;
    assets: Record<string, Pick<AssetEffects, 'inserts' | 'rejected'>>;
    rules: Record<string, RuleCounts>;
  }
>;

async function sumsAsModel(): Promise<Model> {
  const sums = [...(await readSums(control.clickhouse))].filter(([name]) => name !== source);
  return Object.fromEntries(
    sums.map(([name, { changes, position, seconds, assets, rules }]) => [
      name,
      {
        changes,
        position,
        count: seconds.buckets[4]!,
        assets: Object.fromEntries(
          Object.entries(assets).map(([asset, { inserts, rejected }]) => [asset, { inserts, rejected }]),
        ),
        rules,
      },
    ]),
  );
}

function makeRecord(name: string, kind: BatchKind, lease: number, seq: number): BatchRecord {
  const effects = { ...noEffects(), inserts: random.between(0, 9), rejected: random.between(0, 2) };
  const asset = `${name}_${random.pick(['a', 'b', "it's", '__proto__x'])}`;
  const counts = { in: random.between(5, 9), out: random.between(1, 4), errors: random.between(0, 1) };
  const isSnapshot = kind === 'chunk';
  const applied = random.chance(0.5) && { applied: { [asset]: { [random.pick(['rule/x', 'check/y'])]: counts } } };
  return {
    id: isSnapshot ? `${name}/snapshot/${asset}/1/${seq}` : `${name}/${lease}/${seq}`,
    source: name,
    kind,
    lease,
    seq,
    position_from: '',
    position_to: `0/${random.between(1, 1e6)}`,
    inner: '',
    cluster: '1',
    epoch: 1,
    committed_first: null,
    committed_last: null,
    changes: isSnapshot ? 7 : random.between(0, 20),
    assets: kind === 'begin' || kind === 'idle' ? {} : { [asset]: effects },
    truncated: {},
    failed: {},
    rules: 0,
    ...((kind === 'rows' || isSnapshot) && applied),
    durations: { fill: random.between(0, 90), resolve: 0, write: random.between(0, 30) },
    workflow_id: '',
    run_id: '',
    attempt: 1,
    previous_hash: '',
    hash: '',
  };
}

/** Keeps sums, and ends after so many steps, or in the midst of the first. */
async function keepUntil(name: string, lease: number, steps: number): Promise<void> {
  const end = new AbortController();
  let left = steps;
  const insertObjects: ClickHouse['insertObjects'] = async (...insert) => {
    if (left === 0) throw new Error('it ends here');
    await control.clickhouse.insertObjects(...insert);
    left--;
    if (left === 0) end.abort();
  };
  const clickhouse = new Proxy(control.clickhouse, {
    get: (target, name) => {
      const member: unknown = name === 'insertObjects' ? insertObjects : Reflect.get(target, name, target);
      return typeof member === 'function' ? member.bind(target) : member;
    },
  });
  await keepSums(clickhouse, name, lease, end.signal).catch((error: unknown) => {
    if (!String(error).includes('it ends here')) throw error;
  });
}

it('sums up to what its records say, kept or not', async () => {
  console.log(`SUMS_SEED=${seed}`);
  const model: Model = {};
  const write = async (record: BatchRecord, counts = true) => {
    // A record whose answer was lost is written again, and is one.
    for (let times = random.chance(0.1) ? 2 : 1; times > 0; times--) await writeRecord(control.clickhouse, record);
    if (counts) addTo(model, record);
  };
  for (let lease = 1; lease <= 40; lease++) {
    const name = random.pick(['one', 'two', "th'ree"]);
    // Far apart, so that what is kept is summed up in several steps.
    const number = lease * 7 * attemptsLimit + random.between(1, 2);
    await write(makeRecord(name, 'begin', number, 0));
    const count = random.between(0, 5);
    for (let seq = 1; seq <= count; seq++) {
      const kind = random.pick<BatchKind>(['rows', 'rows', 'truncate', 'idle']);
      // Idle ones replace each other.
      if (kind === 'idle') await write(makeRecord(name, kind, number, seq), false);
      await write(makeRecord(name, kind, number, seq));
      // Chunks may be recorded behind leases that have begun since.
      if (random.chance(0.3))
        await write(makeRecord(name, 'chunk', random.between(1, lease * 7) * attemptsLimit, 1000 + lease * 10 + seq));
    }
    if (random.chance(0.5)) {
      const keep = () => keepUntil(name, lease * 7 * attemptsLimit, random.pick([0, 1, 1, 2, 100]));
      await Promise.all(random.chance(0.3) ? [keep(), keep()] : [keep()]);
    }
    if (lease % 10 === 0) expect([seed, await sumsAsModel()]).toEqual([seed, model]);
  }
}, 120_000);

it('is not read again for what is kept', async () => {
  const record = makeRecord('kept', 'rows', attemptsLimit, 1);
  await writeRecord(control.clickhouse, record);
  await keepSums(control.clickhouse, 'kept', 2 * attemptsLimit);
  await writeRecord(control.clickhouse, { ...record, changes: 1_000_000 });
  expect((await readSums(control.clickhouse)).get('kept')?.changes).toBe(record.changes);
});
