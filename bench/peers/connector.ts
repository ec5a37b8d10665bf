/** A Debezium connector for PostgreSQL in Kafka Connect, over Connect's REST interface. */
import { SluiceError } from '../../model/errors.ts';
import { waitUntil } from './wait_until.ts';

/**
 * What is set beside the defaults. `usual` is what the connector's documentation shows. `tuned` is the best of what was
 * tried here, for rate and latency at once.
 */
export const tunings = {
  usual: {},
  tuned: {
    'max.batch.size': '16384',
    'max.queue.size': '65536',
    'poll.interval.ms': '5',
    'producer.override.linger.ms': '0',
    'producer.override.batch.size': '524288',
    'producer.override.buffer.memory': '67108864',
    'producer.override.compression.type': 'none',
  },
} as const satisfies Record<string, Record<string, string>>;

export type Tuning = keyof typeof tunings;

/** The connector's configuration: reads `public.bench` from now on, no snapshot. */
export function connectorConfig(name: string, postgresUrl: string, tuning: Tuning): Record<string, string> {
  const url = new URL(postgresUrl);
  return {
    'connector.class': 'io.debezium.connector.postgresql.PostgresConnector',
    'tasks.max': '1',
    'plugin.name': 'pgoutput',
    'database.hostname': url.hostname,
    'database.port': url.port,
    'database.user': decodeURIComponent(url.username),
    'database.password': decodeURIComponent(url.password),
    'database.dbname': decodeURIComponent(url.pathname.slice(1)),
    'topic.prefix': name,
    'table.include.list': 'public.bench',
    'slot.name': name,
    'publication.name': name,
    'publication.autocreate.mode': 'filtered',
    'snapshot.mode': 'no_data',
    // One message a change, not two for a delete.
    'tombstones.on.delete': 'false',
    // Without a schema in each message, the default's bytes lose their scale.
    'decimal.handling.mode': 'string',
    ...tunings[tuning],
  };
}

/** The topic to which the connector writes the changes. */
export function topicOf(name: string): string {
  return `${name}.public.bench`;
}

interface Status {
  connector: { state: string };
  tasks: { state: string; trace?: string }[];
}

export class Connector {
  readonly #url: string;

  constructor(connectUrl: string, name: string) {
    this.#url = `${connectUrl}/connectors/${encodeURIComponent(name)}`;
  }

  /** Makes the connector and waits until its task runs. */
  async create(config: Record<string, string>): Promise<void> {
    await this.#send('PUT', '/config', config);
    await this.#reach('RUNNING', 1);
  }

  /** Ends its task, which keeps its place, and waits until it has ended. */
  async stop(): Promise<void> {
    await this.#send('PUT', '/stop');
    await this.#reach('STOPPED', 0);
  }

  /** Orders it to run again; does not wait. */
  async resume(): Promise<void> {
    await this.#send('PUT', '/resume');
  }

  async delete(): Promise<void> {
    await this.#send('DELETE', '');
  }

  async #reach(state: string, tasks: number): Promise<void> {
    await waitUntil(`a connector that is ${state}`, async () => {
      const answer = await fetch(`${this.#url}/status`, { signal: AbortSignal.timeout(10_000) });
      if (!answer.ok) return undefined;
      const status = (await answer.json()) as Status;
      const failed = status.tasks.find((task) => task.state === 'FAILED');
      if (failed !== undefined) throw refused(failed.trace?.split('\n', 1)[0] ?? 'its task failed');
      const there = status.tasks.length === tasks && status.tasks.every((task) => task.state === state);
      return (status.connector.state === state && there) || undefined;
    });
  }

  async #send(method: string, path: string, body?: unknown): Promise<void> {
    // Connect answers 409 while its workers agree on who does what.
    await waitUntil('Kafka Connect', async () => {
      const answer = await fetch(`${this.#url}${path}`, {
        method,
        headers: { 'content-type': 'application/json' },
        body: body === undefined ? undefined : JSON.stringify(body),
        signal: AbortSignal.timeout(30_000),
      });
      const text = await answer.text();
      if (answer.ok) return true;
      if (answer.status === 409) return undefined;
      throw refused(`${answer.status} ${text.slice(0, 300)}`);
    });
  }
}

function refused(reason: string): SluiceError {
  return new SluiceError(
    'unexpected',
    `Debezium: ${reason}`,
    'See that the versions in bench/peers/maven_parts.ts fit.',
  );
}
