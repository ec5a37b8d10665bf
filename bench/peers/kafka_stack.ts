/** Kafka (one node, KRaft) and Kafka Connect in distributed mode, on loopback, in a folder that goes away. */
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { type Admin, Kafka, logLevel } from 'kafkajs';
import { SluiceError } from '../../model/errors.ts';
import { freePort } from '../../workers/embedded/free_port.ts';
import { GuardedProcess, waitReady } from '../../workers/embedded/guarded_process.ts';
import type { Ending } from './ending.ts';
import type { MavenParts } from './maven_parts.ts';

/** Heap of each of the two. */
export const heap = { kafka: '-Xmx512M', connect: '-Xmx1G' } as const;

/** What Kafka's own start scripts give both. */
const collector = ['-server', '-XX:+UseG1GC', '-XX:MaxGCPauseMillis=20', '-XX:InitiatingHeapOccupancyPercent=35'];

export interface KafkaStack {
  kafka: Kafka;
  admin: Admin;
  /** host:port of the broker. */
  brokers: string;
  /** Base URL of Connect's REST interface. */
  connectUrl: string;
  /** Process ids by name. */
  pids: { kafka: number; connect: number };
  /** Throws when one of the two has ended. Error: `missing_part`. */
  requireRunning(): void;
}

/** Starts both and returns when they answer. Errors: `missing_part`. */
export async function startKafkaStack(parts: MavenParts, ending: Ending): Promise<KafkaStack> {
  const home = mkdtempSync(path.join(tmpdir(), 'sluice-peers-'));
  ending.add(() => rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 }));
  const java = new Java(home, path.join(parts.libraries, '*'), ending);
  const broker = await startBroker(home, java);
  const connect = await startConnect(home, java, broker.address, parts.plugins);
  const kafka = new Kafka({ brokers: [broker.address], clientId: 'sluice-bench', logLevel: logLevel.NOTHING });
  const admin = kafka.admin();
  await admin.connect();
  ending.add(() => admin.disconnect());
  const pids = { kafka: broker.child.pid, connect: connect.child.pid };
  const requireRunning = () => {
    for (const child of [broker.child, connect.child]) {
      if (child.ended)
        throw new SluiceError('missing_part', `${child.name} has ended`, 'See that there is memory for both.');
    }
  };
  return { kafka, admin, brokers: broker.address, connectUrl: connect.url, pids, requireRunning };
}

async function startBroker(home: string, java: Java): Promise<{ child: GuardedProcess; address: string }> {
  const address = `127.0.0.1:${await freePort()}`;
  const controller = `127.0.0.1:${await freePort()}`;
  const file = writeProperties(path.join(home, 'kafka.properties'), brokerProperties(address, controller, home));
  const cluster = randomBytes(16).toString('base64url');
  const format = await java.start('Kafka’s format', ['-Xmx128M'], 'kafka.tools.StorageTool', [
    ...['format', '-t', cluster, '-c', file],
  ]);
  const { code } = await format.exited;
  if (code !== 0)
    throw new SluiceError('missing_part', 'Kafka could not format its folder', `See ${format.logFile}.`, {
      file: format.logFile,
    });
  const child = await java.start('Kafka', [heap.kafka, ...collector], 'kafka.Kafka', [file]);
  await waitReady(child, () => answers(address), 90_000);
  return { child, address };
}

async function answers(address: string): Promise<boolean> {
  const kafka = new Kafka({
    brokers: [address],
    clientId: 'sluice-bench',
    logLevel: logLevel.NOTHING,
    connectionTimeout: 1000,
    retry: { retries: 0 },
  });
  const admin = kafka.admin();
  try {
    await admin.connect();
    return (await admin.describeCluster()).brokers.length > 0;
  } finally {
    await admin.disconnect();
  }
}

/** Settings of one node that is broker and controller; what is not here is Kafka’s default. */
function brokerProperties(address: string, controller: string, home: string): Record<string, string | number> {
  return {
    'process.roles': 'broker,controller',
    'node.id': 1,
    listeners: `PLAINTEXT://${address},CONTROLLER://${controller}`,
    'controller.listener.names': 'CONTROLLER',
    'controller.quorum.voters': `1@${controller}`,
    'log.dirs': path.join(home, 'kafka'),
    'offsets.topic.replication.factor': 1,
    'offsets.topic.num.partitions': 1,
    'transaction.state.log.replication.factor': 1,
    'transaction.state.log.min.isr': 1,
    'group.initial.rebalance.delay.ms': 0,
  };
}

async function startConnect(home: string, java: Java, brokers: string, plugins: string) {
  const url = `http://127.0.0.1:${await freePort()}`;
  const file = writeProperties(path.join(home, 'connect.properties'), connectProperties(brokers, url, plugins));
  const child = await java.start(
    'Kafka Connect',
    ['-Xms256M', heap.connect, ...collector],
    'org.apache.kafka.connect.cli.ConnectDistributed',
    [file],
  );
  // The list of connectors answers when the group of workers stands.
  const ready = async () => (await fetch(`${url}/connectors`, { signal: AbortSignal.timeout(2000) })).ok;
  await waitReady(child, ready, 90_000);
  return { child, url };
}

/** One worker; JSON without schemas, as most who read topics by other means than Connect have it. */
function connectProperties(brokers: string, url: string, plugins: string): Record<string, string | number> {
  const topics = Object.fromEntries(
    ['config', 'offset', 'status'].flatMap((name) => [
      [`${name}.storage.topic`, `connect-${name}`],
      [`${name}.storage.replication.factor`, 1],
      ...(name === 'config' ? [] : [[`${name}.storage.partitions`, 1]]),
    ]),
  );
  return {
    'bootstrap.servers': brokers,
    'group.id': 'connect',
    'key.converter': 'org.apache.kafka.connect.json.JsonConverter',
    'key.converter.schemas.enable': 'false',
    'value.converter': 'org.apache.kafka.connect.json.JsonConverter',
    'value.converter.schemas.enable': 'false',
    ...topics,
    listeners: url,
    'rest.advertised.host.name': '127.0.0.1',
    'plugin.path': plugins,
    'plugin.discovery': 'service_load',
  };
}

function writeProperties(file: string, properties: Record<string, string | number>): string {
  const lines = Object.entries(properties).map(([name, value]) => `${name}=${value}`);
  writeFileSync(file, `${lines.join('\n')}\n`, { mode: 0o600 });
  return file;
}

/** Starts Java programs of one class path, each as a guarded process with a log of its own. */
class Java {
  readonly #home: string;
  readonly #classPath: string;
  readonly #ending: Ending;

  constructor(home: string, classPath: string, ending: Ending) {
    this.#home = home;
    this.#classPath = classPath;
    this.#ending = ending;
    mkdirSync(path.join(home, 'logs'));
    writeFileSync(this.#logSettings, logSettings);
  }

  get #logSettings(): string {
    return path.join(this.#home, 'log4j2.properties');
  }

  async start(name: string, options: string[], main: string, args: string[]): Promise<GuardedProcess> {
    const child = await GuardedProcess.start({
      name,
      command: 'java',
      args: [...options, `-Dlog4j2.configurationFile=${this.#logSettings}`, '-cp', this.#classPath, main, ...args],
      cwd: this.#home,
      logFile: path.join(this.#home, 'logs', `${main}.log`),
    });
    this.#ending.add(() => child.stop('SIGTERM', 5000));
    return child;
  }
}

const logSettings = `status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c{1} %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
`;
