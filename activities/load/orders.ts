/** Orders that bear a key, in ClickHouse: what was sent with it first, and where nothing else keeps that, the answer. */
import type { ClickHouse } from './clickhouse.ts';
import { durable } from './tables.ts';

/** Longer than anybody sends an order again because its answer was lost. */
const days = 7;

/** The server's clock says who came first. */
const definition = `(
  key String, at DateTime64(6, 'UTC') DEFAULT now64(6), digest String, answer String
) ENGINE = MergeTree ORDER BY (key, at) TTL toDateTime(at) + INTERVAL ${days} DAY`;

/** Makes `_orders` when it is not there. */
export async function createOrders(clickhouse: ClickHouse): Promise<void> {
  await clickhouse.command(
    `CREATE TABLE IF NOT EXISTS ${clickhouse.name('_orders')} ${definition} SETTINGS ${durable}`,
  );
}

/** What was sent first with a key. */
export interface Order {
  digest: string;
  /** JSON; empty where there is none. */
  answer: string;
}

/** The order that a key stands for; undefined when it is new. */
export async function readOrder(clickhouse: ClickHouse, key: string): Promise<Order | undefined> {
  const [row] = await clickhouse.rows<Order & { count: string }>(
    `SELECT count() AS count, argMin(digest, at) AS digest, max(answer) AS answer FROM ${clickhouse.name('_orders')}
     WHERE key = {key:String} AND at > now64(6) - INTERVAL ${days} DAY`,
    { params: { key } },
  );
  return Number(row!.count) > 0 ? { digest: row!.digest, answer: row!.answer } : undefined;
}

/** Keeps what was sent with a key, or later its answer; `readOrder` tells whether somebody was first. */
export async function writeOrder(clickhouse: ClickHouse, key: string, order: Order): Promise<void> {
  await clickhouse.insertObjects('_orders', [{ key, ...order }]);
}
