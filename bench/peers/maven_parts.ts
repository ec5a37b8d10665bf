/** Kafka, Kafka Connect and Debezium as Maven has them, kept in a folder of this user for all later runs. */
import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { SluiceError } from '../../model/errors.ts';
import { GuardedProcess } from '../../workers/embedded/guarded_process.ts';
import type { Ending } from './ending.ts';
import { say } from './say.ts';

export const kafkaVersion = '4.3.1';
export const debeziumVersion = '3.5.0.Final';
const log4jVersion = '2.25.4';

/** Where the parts are; all of them are there. */
export interface MavenParts {
  /** Folder of the jars of Kafka and Kafka Connect. */
  libraries: string;
  /** Folder with one folder for each plugin of Kafka Connect. */
  plugins: string;
}

/** Where parts that Maven got are kept. */
export function peersFolder(environment: NodeJS.ProcessEnv = process.env): string {
  return path.join(environment.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'sluice', 'peers');
}

/** The parts, got by Maven where they are not there yet (about 80 MB). Errors: `missing_part`. */
export async function findMavenParts(ending: Ending, folder = peersFolder()): Promise<MavenParts> {
  await requirePrograms();
  const libraries = path.join(folder, `kafka-${kafkaVersion}`);
  const plugins = path.join(folder, `debezium-${debeziumVersion}`);
  await getOnce(libraries, `Kafka ${kafkaVersion} with Kafka Connect`, (work, result) =>
    maven(ending, work, ['dependency:copy-dependencies', '-DincludeScope=runtime', `-DoutputDirectory=${result}`]),
  );
  await getOnce(plugins, `Debezium ${debeziumVersion}`, (work, result) => {
    const plugin = `io.debezium:debezium-connector-postgres:${debeziumVersion}:tar.gz:plugin`;
    return maven(ending, work, ['dependency:unpack', `-Dartifact=${plugin}`, `-DoutputDirectory=${result}`]);
  });
  return { libraries, plugins };
}

/** What Maven reads: the parts that Kafka and Connect are made of, and a log that shows their warnings. */
function projectFile(): string {
  const parts = [
    ['org.apache.kafka', 'kafka_2.13', kafkaVersion],
    ['org.apache.kafka', 'connect-runtime', kafkaVersion],
    ['org.apache.logging.log4j', 'log4j-slf4j-impl', log4jVersion],
  ];
  const dependencies = parts.map(
    ([group, name, version]) =>
      `<dependency><groupId>${group}</groupId><artifactId>${name}</artifactId><version>${version}</version></dependency>`,
  );
  return `<project><modelVersion>4.0.0</modelVersion><groupId>sluice</groupId><artifactId>peers</artifactId><version>1</version>
<dependencies>${dependencies.join('\n')}</dependencies></project>
`;
}

/** Fills another folder first and renames it, so that half of one is never used. */
async function getOnce(folder: string, what: string, fill: (work: string, result: string) => Promise<void>) {
  if (existsSync(folder)) return;
  say(`${what} is not here yet: Maven gets it, once, into ${folder}`);
  const work = `${folder}.${process.pid}`;
  rmSync(work, { recursive: true, force: true });
  mkdirSync(work, { recursive: true });
  try {
    writeFileSync(path.join(work, 'pom.xml'), projectFile());
    await fill(work, path.join(work, 'result'));
    if (!existsSync(folder)) renameSync(path.join(work, 'result'), folder);
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

async function maven(ending: Ending, folder: string, args: string[]): Promise<void> {
  const logFile = path.join(path.dirname(folder), 'maven.log');
  const child = await GuardedProcess.start({
    name: 'Maven',
    command: 'mvn',
    args: ['--batch-mode', '--quiet', ...args],
    cwd: folder,
    logFile,
  });
  ending.add(() => child.stop('SIGTERM', 3000));
  const { code } = await child.exited;
  if (code === 0) return;
  throw new SluiceError(
    'missing_part',
    `Maven ended with code ${code}`,
    `See ${logFile}; without a network it can get nothing.`,
    { file: logFile },
  );
}

async function requirePrograms(): Promise<void> {
  const run = promisify(execFile);
  for (const [program, argument, what] of [
    ['java', '-version', 'Java 17 or newer'],
    ['mvn', '--version', 'Maven'],
  ] as const) {
    await run(program, [argument]).catch((error) => {
      const remedy = `Install ${what} so that \`${program}\` is on the PATH.`;
      throw new SluiceError('missing_part', `\`${program}\` does not run`, remedy, {}, error);
    });
  }
}
