/** Leases over a sink that fails by script: before it has done anything, or after it has done it all. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { ClickHouse } from '../activities/load/clickhouse.ts';
import { ClickHouseSink } from '../activities/load/clickhouse_sink.ts';
import { SluiceError } from '../model/errors.ts';
import { type Random, seededRandom } from '../workers/demo/random.ts';
import { type StartedParts, startParts } from '../workers/embedded/start_parts.ts';
import { CaptureHarness, openClient } from './capture_harness.ts';

let parts: StartedParts<'postgres' | 'clickhouse'>;
beforeAll(async () => {
  parts = await startParts(['postgres', 'clickhouse']);
}, 60_000);
afterAll(() => parts[Symbol.asyncDispose]());

/** What happened to all sinks of a test. */
interface FaultLog {
  calls: Map<string, number>;
  faults: Set<string>;
}

/** These calls fail in every run; all others by chance. */
const certain: Record<string, number> = { 'write 2': 0, 'write 4': 0.1, 'record 3': 0, 'record 6': 0.1 };

/** Each call may fail before or after it is done; what was done stays done. */
class FaultySink extends ClickHouseSink {
  readonly #random: Random;
  readonly #log: FaultLog;

  constructor(clickhouse: ClickHouse, random: Random, log: FaultLog) {
    super(clickhouse);
    this.#random = random;
    this.#log = log;
  }

  async #faulty<T>(name: string, run: () => Promise<T>): Promise<T> {
    const fail = (when: string): never => {
      this.#log.faults.add(`${name} ${when}`);
      throw new SluiceError('sink_unreachable', `scripted: ${name} ${when}`, 'It is tried again.');
    };
    const call = (this.#log.calls.get(name) ?? 0) + 1;
    this.#log.calls.set(name, call);
    const fate = certain[`${name} ${call}`] ?? this.#random.next();
    if (fate < 0.08) fail('not done');
    const done = await run();
    return fate < 0.2 ? fail('done, then reported failed') : done;
  }

  override write(...args: Parameters<ClickHouseSink['write']>) {
    return this.#faulty('write', () => super.write(...args));
  }
  override sweepBelow(...args: Parameters<ClickHouseSink['sweepBelow']>) {
    return this.#faulty('sweep', () => super.sweepBelow(...args));
  }
  override record(...args: Parameters<ClickHouseSink['record']>) {
    return this.#faulty('record', () => super.record(...args));
  }
  override newestRows(...args: Parameters<ClickHouseSink['newestRows']>) {
    return this.#faulty('look up', () => super.newestRows(...args));
  }
}

it.each([1, 2])(
  'ends with an identical copy whatever call fails, before or after it is done (seed %i)',
  async (seed) => {
    const random = seededRandom(`sink faults ${seed}`);
    const client = await openClient(parts.postgres.url);
    const table = `f${seed}`;
    await client.query(
      `CREATE TABLE ${table} (id int PRIMARY KEY, n int, large text); ALTER TABLE ${table} ALTER large SET STORAGE EXTERNAL`,
    );
    const harness = new CaptureHarness({
      postgres: parts.postgres.url,
      clickhouse: parts.clickhouse.url,
      source: `faults${seed}`,
      tables: [table],
      bufferSize: 40,
    });
    await harness.prepare();
    await harness.snapshot(table);
    const log: FaultLog = { calls: new Map(), faults: new Set() };
    harness.context.sink = (role) => new FaultySink(harness.context.clickhouse(role), random, log);

    let running = true;
    let attempt = 0;
    const leases = (async () => {
      while (running) {
        harness.startLease(600, ++attempt);
        await harness.leaseEnd().catch((error: unknown) => expect(error).toMatchObject({ transient: true }));
      }
    })();
    for (let i = 0; i < 150; i++) {
      const id = random.between(1, 60);
      const statement = random.pick([
        `INSERT INTO ${table} SELECT i, ${i}, repeat('${random.hex(4)}', 600) FROM generate_series(${id}, ${id + random.between(0, 80)}) i ON CONFLICT (id) DO UPDATE SET n = excluded.n`,
        `UPDATE ${table} SET n = n + 1 WHERE id % 7 = ${id % 7}`,
        `UPDATE ${table} SET large = repeat('${random.hex(4)}', 700) WHERE id = ${id}`,
        `DELETE FROM ${table} WHERE id = ${id}`,
        `UPDATE ${table} SET id = id + 1000 + ${i} WHERE id = ${id} AND NOT EXISTS (SELECT FROM ${table} WHERE id = ${id + 1000 + i})`,
        random.chance(0.1) ? `TRUNCATE ${table}` : 'SELECT 1',
      ]);
      await client.query(statement);
      if (random.chance(0.2)) await new Promise((resolve) => setTimeout(resolve, random.between(1, 60)));
    }
    await harness.drain(client, 90_000);
    running = false;
    await harness.stop().catch(() => {});
    await leases;

    for (const name of ['write', 'record']) {
      expect(log.faults, `seed ${seed}`).toContain(`${name} not done`);
      expect(log.faults, `seed ${seed}`).toContain(`${name} done, then reported failed`);
    }
    const { source, copy } = await harness.bothSides(client, table);
    expect(copy, `seed ${seed}`).toEqual(source);
    await harness.close();
    await client.end();
  },
  180_000,
);
