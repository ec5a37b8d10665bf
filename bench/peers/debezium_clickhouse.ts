/** PostgreSQL → Debezium → Kafka → ClickHouse, whose Kafka engine reads the topic: a copy of the same form as Sluice's. */
import type pg from 'pg';
import { ClickHouse, quoteText } from '../../activities/load/clickhouse.ts';
import type { StartedPart } from '../../workers/embedded/start_parts.ts';
import { DebeziumKafka } from './debezium_kafka.ts';
import type { KafkaStack } from './kafka_stack.ts';
import type { Drained, Side, Waiting, Watch } from './side.ts';
import { watchTable } from './visible_rows.ts';
import { waitUntil } from './wait_until.ts';

/** Settings of the Kafka engine for rows that are soon there; its defaults wait up to 7.5 s. */
const engineSettings = { kafka_flush_interval_ms: 50, kafka_poll_timeout_ms: 20, kafka_consumer_reschedule_ms: 10 };

export class DebeziumClickhouse implements Side {
  readonly pids: Record<string, number>;
  readonly #kafka: DebeziumKafka;
  readonly #clickhouse: ClickHouse;

  private constructor(kafka: DebeziumKafka, clickhouse: ClickHouse, engine: number) {
    this.#kafka = kafka;
    this.#clickhouse = clickhouse;
    this.pids = { ...kafka.pids, clickhouse: engine };
  }

  static async start(
    name: string,
    at: { client: pg.Client; postgresUrl: string; stack: KafkaStack; engine: StartedPart },
  ): Promise<DebeziumClickhouse> {
    const kafka = await DebeziumKafka.start(name, 'tuned', at);
    const clickhouse = new ClickHouse({ url: at.engine.url, database: 'peers', role: 'read' });
    for (const statement of tables(at.stack.brokers, kafka.topic.name)) await clickhouse.command(statement);
    return new DebeziumClickhouse(kafka, clickhouse, at.engine.pid);
  }

  async drain(waiting: Waiting): Promise<Drained> {
    const from = await this.#kafka.topic.end();
    const ordered = Date.now();
    const [, last] = await Promise.all([this.#kafka.drain(waiting), this.#deleted(waiting.lastId)]);
    const first = await this.#kafka.topic.at(from);
    return { seconds: (last - ordered) / 1000, secondsFromFirst: (last - first.at) / 1000 };
  }

  async empty(): Promise<void> {
    await this.#clickhouse.command('TRUNCATE TABLE peers.bench');
  }

  async resume(): Promise<void> {
    await this.#kafka.resume();
  }

  async stop(): Promise<void> {
    await this.#kafka.stop();
  }

  async watch(): Promise<Watch> {
    return watchTable(this.#clickhouse, 'peers.bench');
  }

  async remove(): Promise<void> {
    await this.#kafka.remove();
    await this.#clickhouse.close();
  }

  /** When the row's deletion could be seen. */
  async #deleted(id: number): Promise<number> {
    const sql = `SELECT count() AS n FROM peers.bench WHERE id = ${id} AND _deleted = 1`;
    const seen = async () => {
      const rows = await this.#clickhouse.rows<{ n: string }>(sql);
      return Number(rows[0]?.n) > 0 ? Date.now() : undefined;
    };
    return await waitUntil('the last change in ClickHouse', seen, { withinMs: 300_000 });
  }
}

/** The copy, the topic as a table, and the view that pours one into the other. */
function tables(brokers: string, topic: string): string[] {
  const columns = `n Nullable(Int32), note Nullable(String), at Nullable(DateTime64(6, 'UTC')), amount Nullable(Decimal(18, 4)),
    rate Nullable(Float64), ok Nullable(Bool), ref Nullable(UUID)`;
  const settings = Object.entries(engineSettings).map(([name, value]) => `${name} = ${value}`);
  return [
    'CREATE DATABASE peers',
    `CREATE TABLE peers.bench (id Int64, ${columns}, _version UInt64, _deleted UInt8)
      ENGINE = ReplacingMergeTree(_version, _deleted) ORDER BY id`,
    `CREATE TABLE peers.queue (op String, before Tuple(id Int64), after Tuple(id Int64, ${columns}), source Tuple(lsn UInt64))
      ENGINE = Kafka SETTINGS kafka_broker_list = ${quoteText(brokers)}, kafka_topic_list = ${quoteText(topic)},
      kafka_group_name = 'clickhouse', kafka_format = 'JSONEachRow', date_time_input_format = 'best_effort',
      ${settings.join(', ')}`,
    `CREATE MATERIALIZED VIEW peers.pour TO peers.bench AS SELECT if(op = 'd', before.id, after.id) AS id, after.n AS n,
      after.note AS note, after.at AS at, after.amount AS amount, after.rate AS rate, after.ok AS ok, after.ref AS ref,
      source.lsn AS _version, op = 'd' AS _deleted FROM peers.queue`,
  ];
}
