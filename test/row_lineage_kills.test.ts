/**
 * `GET /lineage/row` after workers were killed at every step of their work, compared with accounts that share nothing with
 * it: what went over the wire to ClickHouse and when, what the source says of its transactions (by a slot of its own), and
 * which activities Temporal's histories hold.
 */
import type { ChildProcess } from 'node:child_process';
import type { WorkflowHandle } from '@temporalio/client';
import type pg from 'pg';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { durablePosition } from '../activities/capture/postgresql/durable.ts';
import { readRecords } from '../activities/load/batches.ts';
import { type Control, openControl } from '../api/control/control.ts';
import type { RowLineage } from '../api/control/lineage_shapes.ts';
import { connectSource, getSource, orderSource } from '../api/control/sources.ts';
import { behindPageHeader, formatLsn, parseLsn } from '../model/position.ts';
import { seededRandom } from '../workers/demo/random.ts';
import { readSettings } from '../workers/settings.ts';
import { openClient } from './capture_harness.ts';
import { type ControlStack, startControlStack, until } from './control_stack.ts';
import { recordedEnd } from './oracle/compare.ts';
import { ClickHouseProxy, type Insert, type Verdict } from './oracle/proxy.ts';

const seed = process.env.LINEAGE_SEED ?? String(Math.floor(Math.random() * 1e9));
const random = seededRandom(`${seed}/kills`);
const keys = 1_500;
/** LINEAGE_ROWS=1000 takes two minutes. */
const traced = Number(process.env.LINEAGE_ROWS ?? 120);
/** Kills while changes are streamed. */
const rounds = traced > 500 ? 4 : 2;

let stack: ControlStack;
let control: Control;
let client: pg.Client;
let proxy: ClickHouseProxy;
let worker: ChildProcess;

/** Where the worker dies, as it sends rows or the record of what it has sent; what it sends is carried out, or is lost. */
interface Death {
  sends: 'chunk' | 'chunk record' | 'rows' | 'record';
  verdict: Verdict;
}
let death: Death | undefined;
let revived: Promise<unknown> = Promise.resolve();
let kills = 0;

/** What was sent of a version of a row, by id and version. */
const sent = new Map<string, { queryId: string; at: number }[]>();
/** The transaction that changed a row last, by its id. */
const last = new Map<number, { xid: number; deleted: boolean }>();

beforeAll(async () => {
  console.log(`LINEAGE_SEED=${seed}`);
  stack = await startControlStack({}, async ({ clickhouse }) => {
    proxy = await ClickHouseProxy.start(clickhouse.url, see);
    return { CLICKHOUSE_URL: proxy.url, BUFFER_SIZE: '60' };
  });
  worker = stack.worker;
  control = openControl(readSettings(stack.environment));
  client = await openClient(stack.parts.postgres.url);
}, 60_000);

afterAll(async () => {
  await client?.end().catch(() => {});
  await proxy?.close();
  await control?.[Symbol.asyncDispose]();
  await stack?.[Symbol.asyncDispose]();
}, 30_000);

/** Sees every insert of the worker. */
function see(insert: Insert): Verdict {
  const step = stepOf(insert);
  const dies = step !== undefined && step === death?.sends;
  const verdict = dies ? death!.verdict : 'passed';
  if (verdict !== 'lost' && (step === 'rows' || step === 'chunk')) note(insert);
  if (!dies) return 'passed';
  death = undefined;
  kills++;
  worker.kill('SIGKILL');
  revived = stack.startWorker().then((another) => {
    worker = another;
  });
  return verdict;
}

function stepOf({ query, queryId, body }: Insert): Death['sends'] | undefined {
  if (query.includes('`kil_killed`')) return queryId.includes('/snapshot/') ? 'chunk' : 'rows';
  if (!query.includes('`_batches`')) return undefined;
  const [, kind] = /"kind":"(rows|chunk)"/.exec(body.toString('utf8')) ?? [];
  return kind === 'rows' ? 'record' : kind === 'chunk' ? 'chunk record' : undefined;
}

/** The rows of an insert of TSV. */
function note({ query, queryId, body }: Insert): void {
  const [, list] = /\(([^)]*)\)/.exec(query)!;
  const names = list!.split(', ').map((name) => name.replaceAll('`', ''));
  const [id, version] = [names.indexOf('id'), names.indexOf('_version')] as const;
  for (const line of body.toString().split('\n').filter(Boolean)) {
    const fields = line.split('\t');
    const row = `${fields[id]} ${fields[version]}`;
    sent.set(row, [...(sent.get(row) ?? []), { queryId, at: Date.now() }]);
  }
}

/** Changes some rows in one transaction, or deletes them. */
async function change(deleted = false): Promise<void> {
  const from = random.between(1, keys);
  const ids = Array.from({ length: random.pick([5, 40, 200]) }, (_, i) => from + i).filter((id) => id <= keys);
  await client.query('BEGIN');
  const now = await client.query<{ xid: string }>('SELECT (pg_current_xact_id()::text::bigint & 4294967295) AS xid');
  const xid = Number(now.rows[0]!.xid);
  const { rows } = deleted
    ? await client.query<{ id: number }>('DELETE FROM killed WHERE id = ANY($1::int[]) RETURNING id', [ids])
    : await client.query<{ id: number }>(
        `INSERT INTO killed SELECT i, 'by ${xid}' FROM unnest($1::int[]) i
         ON CONFLICT (id) DO UPDATE SET note = excluded.note RETURNING id`,
        [ids],
      );
  await client.query('COMMIT');
  for (const { id } of rows) last.set(id, { xid, deleted });
}

/** All that is committed is recorded. */
async function drain(): Promise<void> {
  const target = parseLsn(await durablePosition(client));
  const end = () => recordedEnd(control.clickhouse, 'kil');
  await until(end, (recorded) => recorded !== undefined && behindPageHeader(recorded) >= target, 60);
}

/** Position and time of each commit by the transaction's id, as the source tells them to another reader. */
async function readCommits(): Promise<Map<number, { position: string; at: string }>> {
  const { rows } = await client.query<{ data: Buffer }>(
    `SELECT data FROM pg_logical_slot_get_binary_changes('witness', NULL, NULL, 'proto_version', '1', 'publication_names', 'witness')`,
  );
  const begins = rows.map(({ data }) => data).filter((data) => data[0] === 0x42);
  return new Map(
    begins.map((data) => {
      const micros = data.readBigInt64BE(9) + 946_684_800_000_000n;
      const at = new Date(Number(micros / 1000n)).toISOString().slice(0, -1);
      const position = formatLsn(data.readBigUInt64BE(1));
      return [data.readUInt32BE(17), { position, at: `${at}${String(micros % 1000n).padStart(3, '0')}Z` }];
    }),
  );
}

/** What an activity is, and from when to when it was there: by run and number of its event. */
async function activityAt(id: string, run: string, event: number): Promise<{ type: string; from: number; to: number }> {
  const name = `${id}/${run}`;
  if (!histories.has(name)) histories.set(name, control.temporal.workflow.getHandle(id, run).fetchHistory());
  const events = (await histories.get(name)!).events ?? [];
  const time = (one: (typeof events)[number] | undefined) =>
    one ? Number(one.eventTime!.seconds) * 1000 + Number(one.eventTime!.nanos ?? 0) / 1e6 : Number.POSITIVE_INFINITY;
  const scheduled = events.find((one) => Number(one.eventId) === event);
  const ended = events.find((one) => {
    const end =
      one.activityTaskCompletedEventAttributes ??
      one.activityTaskFailedEventAttributes ??
      one.activityTaskCanceledEventAttributes ??
      one.activityTaskTimedOutEventAttributes;
    return end && Number(end.scheduledEventId) === event;
  });
  const type = scheduled?.activityTaskScheduledEventAttributes?.activityType?.name ?? 'no activity';
  return { type, from: time(scheduled), to: time(ended) };
}
const histories = new Map<string, ReturnType<WorkflowHandle['fetchHistory']>>();

it(`is right for ${traced} rows`, { timeout: 170_000 }, async () => {
  await client.query(`CREATE TABLE killed (id int PRIMARY KEY, note text);
    INSERT INTO killed SELECT i, 'first' FROM generate_series(1, 1000) i;
    CREATE PUBLICATION witness FOR TABLE killed`);
  await client.query(`SELECT pg_create_logical_replication_slot('witness', 'pgoutput')`);
  death = { sends: random.pick(['chunk', 'chunk record']), verdict: random.pick(['lost', 'unanswered']) };
  const config = { tables: ['killed'], poll_interval: 1, mode: 'copy' as const, exclude_columns: {}, options: {} };
  const request = { id: 'kil', type: 'postgresql' as const, connection_string: '${DATABASE_URL}', config };
  await connectSource(control, request);
  await orderSource(control, 'kil', 'start');
  await until(
    () => getSource(control, 'kil'),
    ({ tables }) => tables.every((table) => table.status === 'streaming'),
    60,
  );
  for (const sends of ['rows', 'record', 'rows', 'record'].slice(0, rounds) as Death['sends'][]) {
    for (let left = 4; left > 0; left--) await change();
    death = { sends, verdict: random.pick(['lost', 'unanswered']) };
    for (let left = 4; left > 0; left--) await change(left % 2 === 1);
    // The last ones may have met no row.
    while (![...last.values()].some((done) => done.deleted)) await change(true);
    await drain();
    await revived;
  }
  expect(kills).toBe(1 + rounds);
  const commits = await readCommits();
  const batches = new Set((await readRecords(control.clickhouse, `source = 'kil'`, {})).map(({ id }) => id));
  const ids = Array.from({ length: keys }, (_, i) => ({ id: i + 1, order: random.between(0, 1e9) }));
  ids.sort((a, b) => a.order - b.order);
  // Some that were deleted are among them, however few there are.
  const deleted = ids.filter(({ id }) => last.get(id)?.deleted).slice(0, 20);
  const chosen = [...deleted, ...ids.filter((one) => !deleted.includes(one))].slice(0, traced);
  const seen = { snapshot: 0, upsert: 0, delete: 0, none: 0 };
  const lane = async () => {
    for (let one = chosen.pop(); one; one = chosen.pop()) seen[await trace(one.id, batches, commits)]++;
  };
  await Promise.all(Array.from({ length: 4 }, lane));
  console.log(`${JSON.stringify(seen)} traced after ${kills} kills`);
  for (const op of ['snapshot', 'upsert', 'delete'] as const) expect(seen[op]).toBeGreaterThan(0);
});

/** Compares what is told of a row with the accounts. Answers what was done to it last. */
async function trace(
  id: number,
  batches: Set<string>,
  commits: Awaited<ReturnType<typeof readCommits>>,
): Promise<'snapshot' | 'upsert' | 'delete' | 'none'> {
  const answer = await fetch(`${stack.api}/api/v1/lineage/row/kil_killed?key=${id}`);
  const { versions } = (await answer.json()) as RowLineage;
  const done = last.get(id);
  if (id > 1000 && !done) {
    expect([seed, id, versions]).toEqual([seed, id, []]);
    return 'none';
  }
  const newest = versions[0]!;
  const commit = done && commits.get(done.xid);
  // Who wrote each version: of all who sent it, the one whose record is there, in one attempt or more.
  for (const version of versions) {
    const all = sent.get(`${id} ${version.version}`) ?? [];
    const times = all.filter(({ queryId }) => queryId.startsWith(`${version.batch_id}/`)).map(({ at }) => at);
    expect([seed, id, version.batch_id, batches.has(version.batch_id!), times.length > 0]).toEqual([
      seed,
      id,
      version.batch_id,
      true,
      true,
    ]);
    const { id: flow, run_id: run, event_id: event } = version.workflow!;
    const { type, from, to } = await activityAt(flow, run, event!);
    expect([seed, id, type]).toEqual([seed, id, version.op === 'snapshot' ? 'copyChunk' : 'captureLease']);
    expect([seed, id, from, to, times.every((at) => from <= at + 1 && at <= to + 1)]).toEqual([
      seed,
      id,
      from,
      to,
      true,
    ]);
  }
  const said = { op: newest.op, position: newest.position, at: newest.committed_at };
  if (!commit) expect([seed, id, said.op]).toEqual([seed, id, 'snapshot']);
  else expect([seed, id, said]).toEqual([seed, id, { op: done.deleted ? 'delete' : 'upsert', ...commit }]);
  return newest.op;
}
