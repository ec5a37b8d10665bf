/**
 * The batch that made a row, compared with what is known otherwise: the records that appeared while the row was
 * changed, how many rows each of them wrote, and the key range of the chunk. Leases end and die in between.
 */
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { PostgresSource } from '../activities/capture/postgresql/source.ts';
import { batchOf, rowVersions } from '../activities/lineage/row_versions.ts';
import { loadSchemas } from '../activities/load/batches.ts';
import { seededRandom } from '../workers/demo/random.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { CaptureHarness, openClient } from './capture_harness.ts';
import { ClickHouseProxy } from './oracle/proxy.ts';

const seed = process.env.LINEAGE_SEED ?? String(Math.floor(Math.random() * 1e9));
const random = seededRandom(seed);
const reader = new PostgresSource();
let parts: StartedParts<'postgres' | 'clickhouse'>;
let client: pg.Client;
let proxy: ClickHouseProxy;
let spoil = false;

beforeAll(async () => {
  console.log(`LINEAGE_SEED=${seed}`);
  parts = await startParts(['postgres', 'clickhouse']);
  client = await openClient(parts.postgres.url);
  // Rows are written, and their records are not: the lease dies between the two.
  proxy = await ClickHouseProxy.start(parts.clickhouse.url, ({ query }) =>
    spoil && query.includes('_batches') ? 'lost' : 'passed',
  );
}, 60_000);

afterAll(async () => {
  await client?.end().catch(() => {});
  await proxy?.close();
  await parts?.[Symbol.asyncDispose]();
});

it('is the batch that the row came with: of the snapshot, of large transactions, after leases that ended and died', async () => {
  await client.query(`CREATE TABLE traced (id int PRIMARY KEY, note text);
    INSERT INTO traced SELECT i, 'first' FROM generate_series(1, 300) i`);
  const options = {
    postgres: parts.postgres.url,
    clickhouse: proxy.url,
    source: 'lin',
    tables: ['traced'],
    bufferSize: 40,
  };
  const harness = new CaptureHarness(options);
  const clickhouse = harness.context.clickhouse('read');
  await harness.prepare();
  harness.startLease();
  await harness.plan('traced', [['100'], ['200']]);
  for (const chunk of [1, 0, 2]) await harness.copyChunk('traced', chunk);
  await harness.finish('traced');
  await harness.drain(client);
  const table = (await loadSchemas(clickhouse, 'lin')).get('lin_traced')!;
  const trace = async (id: number) => {
    const [newest] = await rowVersions(clickhouse, table, String(id));
    const batch = newest && (await batchOf(clickhouse, { id: 'lin', reader }, table, newest));
    return { newest, batch };
  };

  for (let id = 1; id <= 300; id += 3) {
    const { batch } = await trace(id);
    expect([id, batch?.kind, batch?.seq]).toEqual([id, 'chunk', Math.floor((id - 1) / 100)]);
  }

  let traced = 0;
  for (let step = 0; step < 5; step++) {
    const before = new Set((await harness.records()).map((record) => record.id));
    const changed = await change(step);
    await harness.drain(client);
    const written = (await harness.records()).filter((record) => !before.has(record.id) && record.changes > 0);
    const rows = new Map<string, number>();
    const traces = await Promise.all(
      [...changed].map(async ([id, deleted]) => ({ id, deleted, ...(await trace(id)) })),
    );
    for (const { id, deleted, newest, batch } of traces) {
      const isHere = written.some((record) => record.id === batch?.id);
      expect([seed, id, newest?.deleted, isHere]).toEqual([seed, id, deleted, true]);
      rows.set(batch!.id, (rows.get(batch!.id) ?? 0) + 1);
      traced++;
    }
    // Each key was changed once, so that every record wrote as many rows as are traced to it.
    const counted = written
      .filter((record) => record.assets.lin_traced)
      .map((record) => [record.id, record.assets.lin_traced!.written]);
    expect([seed, step, Object.fromEntries(rows)]).toEqual([seed, step, Object.fromEntries(counted)]);
    if (step === 2) await die(harness);
    else if (step === 3) {
      await harness.stop();
      harness.startLease();
    }
  }
  console.log(`${traced} rows traced`);
  expect(traced).toBeGreaterThan(100);
  await harness.stop();
  await harness.close();
}, 170_000);

it('is the last part of a transaction that was cut behind its very last change', async () => {
  await client.query('CREATE TABLE cut_late (id int PRIMARY KEY)');
  const place = { postgres: parts.postgres.url, clickhouse: proxy.url };
  const harness = new CaptureHarness({ ...place, source: 'cut', tables: ['cut_late'], bufferSize: 40 });
  await harness.begin();
  await harness.drain(client);
  const written = async () => (await harness.records()).filter((record) => record.changes > 0);
  // How many changes fill a batch, a large transaction tells.
  await client.query('INSERT INTO cut_late SELECT i FROM generate_series(1, 1000) i');
  await harness.drain(client);
  const [full] = await written();
  const before = (await written()).length;
  await client.query(`INSERT INTO cut_late SELECT i FROM generate_series(2001, ${2000 + full!.changes}) i`);
  await harness.drain(client);
  const [batch, ...more] = (await written()).slice(before);
  expect([more.length, batch?.changes, batch?.inner]).toEqual([0, full!.changes, expect.stringMatching(/./)]);
  const clickhouse = harness.context.clickhouse('read');
  const table = (await loadSchemas(clickhouse, 'cut')).get('cut_cut_late')!;
  for (const id of [2001, 2000 + full!.changes]) {
    const [newest] = await rowVersions(clickhouse, table, String(id));
    expect([id, (await batchOf(clickhouse, { id: 'cut', reader }, table, newest!))?.id]).toEqual([id, batch!.id]);
  }
  await harness.stop();
  await harness.close();
}, 60_000);

/** Changes keys, each once, in a few transactions, some of them larger than a batch; true for those that are deleted. */
async function change(step: number): Promise<Map<number, boolean>> {
  const changed = new Map<number, boolean>();
  // The longest is one of each step.
  for (const length of [...Array.from({ length: random.between(0, 3) }, () => random.pick([0, 3, 20])), 60]) {
    const from = random.between(1, 900);
    const to = from + length;
    const ids = Array.from({ length: to - from + 1 }, (_, i) => from + i).filter((id) => !changed.has(id));
    if (ids.length === 0) continue;
    const list = ids.join(', ');
    const deleting = length < 60 && random.chance(0.2);
    const { rows } = deleting
      ? await client.query<{ id: number }>(`DELETE FROM traced WHERE id IN (${list}) RETURNING id`)
      : await client.query<{ id: number }>(
          `INSERT INTO traced SELECT i, 'step ${step}' FROM unnest(ARRAY[${list}]) i ON CONFLICT (id) DO UPDATE SET note = excluded.note RETURNING id`,
        );
    for (const { id } of rows) changed.set(id, deleting);
  }
  return changed;
}

/** The lease dies after its rows were written and before that is recorded; the next attempt writes them again. */
async function die(harness: CaptureHarness): Promise<void> {
  spoil = true;
  await client.query(`INSERT INTO traced VALUES (100000, 'dies') ON CONFLICT (id) DO UPDATE SET note = 'dies again'`);
  await expect(harness.leaseEnd()).rejects.toThrow();
  spoil = false;
  harness.startLease(600, 2);
  await harness.drain(client);
}
