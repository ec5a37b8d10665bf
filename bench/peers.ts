/**
 * `sluice bench peers`: Sluice beside Debezium with Kafka Connect and Kafka, on the same PostgreSQL, table and changes, one
 * after the other, each alone:
 *
 *   sluice                   PostgreSQL → Sluice → ClickHouse, until a change can be queried
 *   debezium_kafka_tuned     PostgreSQL → Debezium → Kafka, until a change is in the topic; the best settings that were found
 *   debezium_kafka           the same with the settings of Debezium's documentation
 *   debezium_clickhouse      the tuned one, and ClickHouse reads the topic, until a change can be queried
 *
 * Prints JSON with rates, latencies, processor time and memory of each, and the ratios.
 */
import { parseArgs } from 'node:util';
import { connect } from '../activities/capture/postgresql/connection.ts';
import { SluiceError } from '../model/errors.ts';
import { startParts } from '../workers/embedded/start_parts.ts';
import { benchTable } from './capture.ts';
import { machine } from './measure/processes.ts';
import { tunings } from './peers/connector.ts';
import { DebeziumClickhouse } from './peers/debezium_clickhouse.ts';
import { DebeziumKafka } from './peers/debezium_kafka.ts';
import { Ending } from './peers/ending.ts';
import { startKafkaStack } from './peers/kafka_stack.ts';
import { debeziumVersion, findMavenParts, kafkaVersion } from './peers/maven_parts.ts';
import { measureSide, type SideFigures, type Sizes } from './peers/measure.ts';
import { compareSides, type PeerFigures } from './peers/ratios.ts';
import { say } from './peers/say.ts';
import type { Side } from './peers/side.ts';
import { Sluice } from './peers/sluice.ts';

const usage = `sluice bench peers [--changes 1000000] [--warmup 1000000] [--per-transaction 1000] [--rates 1000,5000] [--seconds 10]
    [--only sluice,debezium_kafka_tuned,debezium_kafka,debezium_clickhouse]
A short run: sluice bench peers --changes 20000 (then it warms up and measures latency shorter, too)`;

/** Runs the benchmark; answers the exit code. */
export async function run(args: string[]): Promise<number> {
  const sizes = readSizes(args);
  if (sizes === undefined) {
    console.log(usage);
    return 0;
  }
  const ending = new Ending();
  const interrupt = (signal: NodeJS.Signals) => {
    say('ending all parts');
    void ending.end().then(() => process.exit(signal === 'SIGINT' ? 130 : 143));
  };
  process.once('SIGINT', interrupt);
  process.once('SIGTERM', interrupt);
  try {
    const before = machine();
    const figures = await measureAll(sizes, ending);
    const versions = { kafka: kafkaVersion, debezium: debeziumVersion };
    const head = { benchmark: 'peers', machine: before, ...sizes, versions, tuned: tunings.tuned };
    console.log(JSON.stringify({ ...head, ...figures, ratios: compareSides(figures) }, null, 2));
    return 0;
  } finally {
    process.off('SIGINT', interrupt);
    process.off('SIGTERM', interrupt);
    await ending.end();
  }
}

const names = ['sluice', 'debezium_kafka_tuned', 'debezium_kafka', 'debezium_clickhouse'] as const;

/** Undefined when only help is wanted. Error: `configuration`. */
function readSizes(args: string[]): (Sizes & { only: string[] }) | undefined {
  const { values } = parseArgs({
    args,
    options: {
      changes: { type: 'string', default: '1000000' },
      warmup: { type: 'string' },
      'per-transaction': { type: 'string', default: '1000' },
      rates: { type: 'string', default: '1000,5000' },
      seconds: { type: 'string' },
      only: { type: 'string', default: names.join(',') },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) return undefined;
  const only = values.only.split(',');
  const unknown = only.find((name) => !(names as readonly string[]).includes(name));
  if (unknown !== undefined)
    throw new SluiceError('configuration', `--only ${unknown} is no side`, `There are: ${names.join(', ')}.`);
  const changes = even(count(values.changes, '--changes', 1000));
  const shorter = Math.min(10, Math.max(3, Math.round(changes / 30_000)));
  return {
    changes,
    warmup: even(values.warmup === undefined ? changes : count(values.warmup, '--warmup', 0)),
    perTransaction: count(values['per-transaction'], '--per-transaction', 1),
    rates: values.rates === '' ? [] : values.rates.split(',').map((rate) => count(rate, '--rates', 10)),
    seconds: values.seconds === undefined ? shorter : count(values.seconds, '--seconds', 1),
    only,
  };
}

function count(text: string, flag: string, least: number): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= least) return value;
  throw new SluiceError('configuration', `${flag} ${text} is no whole number from ${least}`, usage);
}

/** Half of the changes are inserts. */
function even(value: number): number {
  return value - (value % 2);
}

async function measureAll(sizes: Sizes & { only: string[] }, ending: Ending): Promise<PeerFigures> {
  const wanted = (name: (typeof names)[number]) => sizes.only.includes(name);
  const peers = names.slice(1).some(wanted) ? await findMavenParts(ending) : undefined;
  const postgres = await startParts(['postgres'], {
    postgresSettings: ['track_commit_timestamp=on', 'autovacuum=off'],
  });
  ending.add(() => postgres[Symbol.asyncDispose]());
  const postgresUrl = postgres.postgres.url;
  const client = await connect({ connectionString: postgresUrl, applicationName: 'sluice bench' });
  ending.add(() => client.end());
  await client.query(benchTable);

  const measure = async (name: string, side: Side): Promise<SideFigures> => {
    const figures = await measureSide(name, side, { client, pid: postgres.postgres.pid }, sizes);
    await side.remove();
    return figures;
  };
  const figures: PeerFigures = {};
  if (wanted('sluice')) {
    figures.sluice = await ending.within(async (own) => {
      const parts = await startParts(['clickhouse', 'temporal']);
      own.add(() => parts[Symbol.asyncDispose]());
      return await measure('sluice', await Sluice.start(client, postgresUrl, parts, own));
    });
  }
  if (peers === undefined) return figures;
  await ending.within(async (own) => {
    const stack = await startKafkaStack(peers, own);
    const at = { client, postgresUrl, stack };
    for (const [name, tuning] of [
      ['debezium_kafka_tuned', 'tuned'],
      ['debezium_kafka', 'usual'],
    ] as const) {
      if (wanted(name)) figures[name] = await measure(name, await DebeziumKafka.start(name, tuning, at));
    }
    if (!wanted('debezium_clickhouse')) return;
    const parts = await startParts(['clickhouse']);
    own.add(() => parts[Symbol.asyncDispose]());
    const side = await DebeziumClickhouse.start('debezium_clickhouse', { ...at, engine: parts.clickhouse });
    figures.debezium_clickhouse = await measure('debezium_clickhouse', side);
  });
  return figures;
}
