/** The Kafka topic of a connector: one partition, stamped by the broker when it takes a message. */
import { randomUUID } from 'node:crypto';
import type { KafkaMessage } from 'kafkajs';
import { SluiceError } from '../../model/errors.ts';
import type { KafkaStack } from './kafka_stack.ts';
import { waitUntil } from './wait_until.ts';

/** A change as Debezium writes it, as far as it is looked at here. */
export interface Envelope {
  op: 'c' | 'u' | 'd' | 'r' | 't';
  before: { id: number } | null;
  after: { id: number } | null;
}

/** A message of the topic. */
export interface Arrived {
  envelope: Envelope;
  /** When the broker took it: milliseconds since 1970. */
  at: number;
}

export class Topic {
  readonly name: string;
  readonly #stack: KafkaStack;

  private constructor(name: string, stack: KafkaStack) {
    this.name = name;
    this.#stack = stack;
  }

  static async create(name: string, stack: KafkaStack): Promise<Topic> {
    const configEntries = [{ name: 'message.timestamp.type', value: 'LogAppendTime' }];
    await stack.admin.createTopics({
      topics: [{ topic: name, numPartitions: 1, replicationFactor: 1, configEntries }],
    });
    return new Topic(name, stack);
  }

  /** How many messages it has. */
  async end(): Promise<number> {
    const [partition] = await this.#stack.admin.fetchTopicOffsets(this.name);
    return Number(partition?.high ?? 0);
  }

  async waitForEnd(end: number, withinMs: number): Promise<void> {
    const reached = async () => {
      this.#stack.requireRunning();
      return (await this.end()) >= end || undefined;
    };
    await waitUntil(`${end} messages in ${this.name}`, reached, { withinMs, everyMs: 100 });
  }

  /** The one message at this place. */
  async at(offset: number): Promise<Arrived> {
    const [message] = await this.read(offset, offset + 1, () => true);
    if (message !== undefined) return message;
    throw new SluiceError('unexpected', `no message ${offset} in ${this.name}`, 'See the log of Kafka.');
  }

  /** The messages from `from` to before `to` that `wanted` takes. */
  async read(from: number, to: number, wanted: (envelope: Envelope) => boolean): Promise<Arrived[]> {
    const consumer = this.#stack.kafka.consumer({ groupId: `bench-${randomUUID()}`, maxWaitTimeInMs: 100 });
    const found: Arrived[] = [];
    let next = from;
    let failure: Error | undefined;
    const take = (message: KafkaMessage) => {
      if (Number(message.offset) !== next || next >= to) return;
      next++;
      if (message.value === null) return;
      const envelope = JSON.parse(message.value.toString('utf8')) as Envelope;
      if (wanted(envelope)) found.push({ envelope, at: Number(message.timestamp) });
    };
    consumer.on(consumer.events.CRASH, ({ payload }) => {
      failure = payload.error;
    });
    try {
      await consumer.connect();
      await consumer.subscribe({ topics: [this.name], fromBeginning: true });
      await consumer.run({ autoCommit: false, eachBatch: async ({ batch }) => batch.messages.forEach(take) });
      consumer.seek({ topic: this.name, partition: 0, offset: String(from) });
      await waitUntil(`messages of ${this.name}`, async () => {
        if (failure !== undefined) throw failure;
        return next >= to || undefined;
      });
      return found;
    } finally {
      await consumer.disconnect();
    }
  }
}
