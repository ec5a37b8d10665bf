/** PostgreSQL → Debezium in Kafka Connect → a Kafka topic. */
import type pg from 'pg';
import { SluiceError } from '../../model/errors.ts';
import { Connector, connectorConfig, type Tuning, topicOf } from './connector.ts';
import type { KafkaStack } from './kafka_stack.ts';
import type { Drained, Side, Waiting, Watch } from './side.ts';
import { type Arrived, Topic } from './topic.ts';
import { waitUntil } from './wait_until.ts';

/** The longest that changes may take to a topic. */
const patienceMs = 300_000;

export class DebeziumKafka implements Side {
  readonly pids: Record<string, number>;
  readonly topic: Topic;
  readonly #name: string;
  readonly #client: pg.Client;
  readonly #connector: Connector;

  private constructor(name: string, client: pg.Client, stack: KafkaStack, topic: Topic) {
    this.#name = name;
    this.#client = client;
    this.#connector = new Connector(stack.connectUrl, name);
    this.pids = stack.pids;
    this.topic = topic;
  }

  /** Makes topic and connector, which has its slot then and is stopped. */
  static async start(
    name: string,
    tuning: Tuning,
    { client, postgresUrl, stack }: { client: pg.Client; postgresUrl: string; stack: KafkaStack },
  ): Promise<DebeziumKafka> {
    const topic = await Topic.create(topicOf(name), stack);
    const side = new DebeziumKafka(name, client, stack, topic);
    await side.#connector.create(connectorConfig(name, postgresUrl, tuning));
    await side.#slotBecomes('active');
    await side.stop();
    return side;
  }

  async drain({ changes, lastId }: Waiting): Promise<Drained> {
    const from = await this.topic.end();
    const ordered = Date.now();
    await this.resume();
    await this.topic.waitForEnd(from + changes, patienceMs);
    await this.stop();
    const [first, last] = [await this.topic.at(from), await this.topic.at(from + changes - 1)];
    requireLast(last, lastId);
    return { seconds: (last.at - ordered) / 1000, secondsFromFirst: (last.at - first.at) / 1000 };
  }

  /** A truncate is no message. */
  async empty(): Promise<void> {}

  async resume(): Promise<void> {
    await this.#connector.resume();
    await this.#slotBecomes('active');
  }

  async stop(): Promise<void> {
    await this.#connector.stop();
    await this.#slotBecomes('free');
  }

  async watch(): Promise<Watch> {
    const from = await this.topic.end();
    return {
      arrivals: async (ids, changes) => {
        await this.topic.waitForEnd(from + changes, patienceMs);
        const wanted = new Set(ids);
        const inserts = await this.topic.read(
          from,
          from + changes,
          ({ op, after }) => op === 'c' && wanted.has(after!.id),
        );
        return new Map(inserts.map(({ envelope, at }) => [envelope.after!.id, at]));
      },
    };
  }

  async remove(): Promise<void> {
    await this.#connector.delete();
    await this.#slotBecomes('free');
    await this.#client.query('SELECT pg_catalog.pg_drop_replication_slot($1)', [this.#name]);
    await this.#client.query(`DROP PUBLICATION ${this.#client.escapeIdentifier(this.#name)}`);
  }

  async #slotBecomes(wanted: 'active' | 'free'): Promise<void> {
    await waitUntil(`the slot ${this.#name} ${wanted}`, async () => {
      const { rows } = await this.#client.query<{ active: boolean }>(
        'SELECT active FROM pg_catalog.pg_replication_slots WHERE slot_name = $1',
        [this.#name],
      );
      return (rows[0]?.active ?? false) === (wanted === 'active') || undefined;
    });
  }
}

/** Fails when messages are missing, or some came twice. */
function requireLast({ envelope }: Arrived, lastId: number): void {
  if (envelope.op === 'd' && envelope.before?.id === lastId) return;
  throw new SluiceError('unexpected', 'the last message is not of the last change', 'Run it again.');
}
