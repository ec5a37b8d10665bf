/**
 * What most files about capturing begin with: importing this starts a PostgreSQL and a ClickHouse engine for all tests of
 * the file, opens a session with the source, and ends what a test has made when the test ends.
 */
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, expect } from 'vitest';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { CaptureHarness, type HarnessOptions, openClient } from './capture_harness.ts';
import { ClickHouseProxy, type Insert, type Verdict } from './oracle/proxy.ts';

export let parts: StartedParts<'postgres' | 'clickhouse'>;
/** A session with the source. */
export let client: pg.Client;
/** Those of the running test. */
export const proxies: ClickHouseProxy[] = [];
const harnesses: CaptureHarness[] = [];
let captures = 0;

beforeAll(async () => {
  parts = await startParts(['postgres', 'clickhouse'], { postgresSettings: ['max_prepared_transactions=10'] });
  client = await openClient(parts.postgres.url);
});

afterEach(async () => {
  await client.query('ROLLBACK').catch(() => {});
  for (const harness of harnesses.splice(0)) await harness.close();
  for (const proxy of proxies.splice(0)) await proxy.close();
});

afterAll(async () => {
  await client?.end().catch(() => {});
  await parts?.[Symbol.asyncDispose]();
});

/** Opens the session anew: the server was started again. */
export async function reconnect(): Promise<void> {
  client = await openClient(parts.postgres.url);
}

/** A source of its own for these tables, nothing captured yet. */
export function capture(tables: string[], more: Partial<HarnessOptions> = {}): CaptureHarness {
  const harness = captureForAll(tables, more);
  harnesses.push(harness);
  return harness;
}

/** One that outlives the test: whoever asks for it closes it. */
export function captureForAll(tables: string[], more: Partial<HarnessOptions> = {}): CaptureHarness {
  const { postgres, clickhouse } = parts;
  const place = { postgres: postgres.url, clickhouse: clickhouse.url, database: 'copies' };
  return new CaptureHarness({ ...place, source: `s${++captures}`, tables, ...more });
}

/** Another process for the same source: what it has in memory it shares with nobody. */
export function anotherWorker(harness: CaptureHarness, more: Partial<HarnessOptions> = {}): CaptureHarness {
  const other = capture(harness.options.tables, { ...harness.options, ...more });
  other.takeOver(harness);
  return other;
}

/** Takes the snapshot of a table beside a running lease, to its end. */
export async function copied(harness: CaptureHarness, table: string): Promise<void> {
  await harness.snapshot(table);
  await harness.complete(client, table);
}

/** ClickHouse behind a proxy that spoils the inserts which `decide` names. */
export async function spoiled(decide: (insert: Insert) => Verdict): Promise<string> {
  const proxy = await ClickHouseProxy.start(parts.clickhouse.url, decide);
  proxies.push(proxy);
  return proxy.url;
}

/** The slot of a source whose lease has ended, once the server has noticed. */
export async function unreadSlot({ options }: CaptureHarness): Promise<string> {
  const slot = `sluice_${options.source}`;
  const isActive = 'SELECT active FROM pg_replication_slots WHERE slot_name = $1';
  await expect.poll(async () => (await client.query(isActive, [slot])).rows[0].active).toBe(false);
  return slot;
}

/** Statements in the source, one after the other. */
export async function sql(...statements: string[]): Promise<void> {
  for (const statement of statements) await client.query(statement);
}

/** All that is committed has arrived, and these copies (all, when none is named) hold what their tables hold. */
export async function expectEqual(harness: CaptureHarness, ...tables: string[]): Promise<void> {
  await harness.drain(client);
  for (const table of tables.length > 0 ? tables : harness.options.tables) {
    const { source, copy } = await harness.bothSides(client, table);
    expect(copy, table).toEqual(source);
  }
}
