/** Apache Avro itself, as a process that judges pairs of schemas; see avro/Judge.java. Needs Java and Maven. */
import { execFile, spawn } from 'node:child_process';
import { mkdir, readdir, rename, rm, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { type FieldType, type SimpleType, typeOf } from '../model/field_type.ts';
import type { Field, Schema } from '../model/schema.ts';

const version = '1.12.0';
const run = promisify(execFile);

/** Where the reader cannot read, and why in Avro's words; or that Avro found the pair ambiguous. */
export type Verdict = { index: number; kind: string }[] | 'ambiguous';

export interface Judge extends AsyncDisposable {
  /** What Avro says of reading with one schema what another one wrote. */
  read(reader: Schema, writer: Schema): Promise<Verdict>;
}

/** Starts the judge; libraries are fetched once into the user's cache. A text says what is missing for it. */
export async function startJudge(): Promise<Judge | string> {
  for (const program of ['java', 'mvn']) {
    try {
      await run(program, ['-version']);
    } catch {
      return `there is no ${program} to ask Apache Avro itself`;
    }
  }
  try {
    return await openJudge(await libraries());
  } catch (error) {
    return `Apache Avro could not be fetched: ${error instanceof Error ? error.message.split('\n', 1)[0] : error}`;
  }
}

async function openJudge(folder: string): Promise<Judge> {
  const source = path.join(import.meta.dirname, 'avro', 'Judge.java');
  const child = spawn('java', ['-Xmx256m', '-cp', path.join(folder, '*'), source], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  const first = await lines.next();
  if (first.value !== 'ready') throw new Error('the judge did not start');
  return {
    async read(reader, writer) {
      child.stdin.write(`${avroText(reader)}\t${avroText(writer)}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error('the judge has ended');
      return verdict(value);
    },
    async [Symbol.asyncDispose]() {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.stdin.end();
      await gone;
    },
  };
}

function verdict(line: string): Verdict {
  if (line.startsWith('!')) {
    if (line.includes('matches multiple fields')) return 'ambiguous';
    throw new Error(`Avro: ${line}`);
  }
  if (line === '') return [];
  return line.split(';').map((one) => {
    const [, index, kind] = /^\/fields\/(\d+)\S* (\w+)$/.exec(one) ?? [];
    if (index === undefined || kind === undefined) throw new Error(`not understood: ${one}`);
    return { index: Number(index), kind };
  });
}

/** The folder with Avro's libraries. */
async function libraries(): Promise<string> {
  const folder = path.join(os.homedir(), '.cache', 'sluice', `avro-${version}`);
  const found = await readdir(folder).catch(() => []);
  if (found.length > 0) return folder;
  const making = `${folder}.${process.pid}`;
  await mkdir(making, { recursive: true });
  try {
    const pom = path.join(making, 'pom.xml');
    await writeFile(pom, project);
    const target = path.join(making, 'libraries');
    const goal = 'org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies';
    await run('mvn', ['-q', '-B', '-f', pom, goal, `-DoutputDirectory=${target}`], { timeout: 120_000 });
    // Another test may have been first.
    await rename(target, folder).catch(() => {});
  } finally {
    await rm(making, { recursive: true, force: true });
  }
  return folder;
}

const project = `<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>sluice</groupId><artifactId>judge</artifactId><version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.avro</groupId><artifactId>avro</artifactId><version>${version}</version></dependency>
  </dependencies>
</project>`;

/** A schema in Avro's own words. */
function avroText(schema: Schema): string {
  return JSON.stringify({ type: 'record', name: 'row', fields: schema.fields.map(avroField) });
}

function avroField({ name, type, nullable, default: value, aliases }: Field): object {
  const own = avroType(typeOf(type));
  // Avro's default of a union is a value of its first branch.
  const union = value === null || value === undefined ? ['null', own] : [own, 'null'];
  return { name, type: nullable && own !== 'null' ? union : own, default: value, aliases };
}

function avroType(type: FieldType): unknown {
  if (type.kind === 'array') return { type: 'array', items: ['null', avroType(type.items)] };
  if (type.kind === 'decimal')
    return { type: 'bytes', logicalType: 'decimal', precision: type.precision, scale: type.scale };
  return logical[type.kind] ?? type.kind;
}

const logical: Partial<Record<SimpleType, unknown>> = {
  date: { type: 'int', logicalType: 'date' },
  timestamp: { type: 'long', logicalType: 'timestamp-micros' },
  uuid: { type: 'string', logicalType: 'uuid' },
  json: 'string',
};
