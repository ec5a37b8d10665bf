/** Finds the `temporal` program, or gets it: each way is tried in its order, and says so. */
import { execFile, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import { SluiceError } from '../../model/errors.ts';
import { projectFolder } from '../settings.ts';

const run = promisify(execFile);

/** The version that is built where none is found; the newest that `go install` takes. */
export const temporalVersion = 'v1.5.1';
const goModule = `github.com/temporalio/cli/cmd/temporal@${temporalVersion}`;
/** Older servers lack what flows use. */
const leastServer = [1, 26] as const;

/** Told what happens: whole lines, without line end. */
export type Say = (line: string) => void;

/** Where programs that Sluice got for itself are kept, for all checkouts of this user. */
export function cacheFolder(environment: NodeJS.ProcessEnv = process.env): string {
  return path.join(environment.XDG_CACHE_HOME || path.join(homedir(), '.cache'), 'sluice', 'temporal');
}

/** The `temporal` programs that are on this machine: where each was found, and its path; the first is used if it runs. */
export function installedTemporals(environment: NodeJS.ProcessEnv = process.env): [where: string, file: string][] {
  const cache = cacheFolder(environment);
  const candidates: [string, string | undefined][] = [
    ['SLUICE_TEMPORAL_BIN', environment.SLUICE_TEMPORAL_BIN || undefined],
    ['PATH', onPath('temporal', environment)],
    ['cache', existing(path.join(cache, temporalVersion, 'temporal'))],
    ['cache', existing(path.join(cache, 'sdk', 'temporal'))],
  ];
  return candidates.filter((candidate): candidate is [string, string] => candidate[1] !== undefined);
}

/**
 * The path of a `temporal` program that runs. Order: SLUICE_TEMPORAL_BIN, PATH, the cache, the Temporal SDK's download,
 * `go install` (some minutes). A way that fails is told and the next one tried. Error: `missing_part`.
 */
export async function findTemporal(say: Say, environment: NodeJS.ProcessEnv = process.env): Promise<string> {
  const cache = cacheFolder(environment);
  for (const [where, file] of installedTemporals(environment)) {
    const fault = await faultOf(file);
    if (fault === undefined) return file;
    say(`temporal from ${where} (${file}) is not used: ${fault}`);
  }
  for (const [way, get] of [
    ['the Temporal SDK’s download', download],
    [`go install ${goModule}`, build],
  ] as const) {
    try {
      say(`temporal is not here yet: getting it by ${way}`);
      return await get(cache, say, environment);
    } catch (error) {
      say(`${way} did not work: ${firstLine(error)}`);
    }
  }
  throw new SluiceError(
    'missing_part',
    'the program `temporal` was not found and could not be installed',
    'Install the Temporal CLI (https://docs.temporal.io/cli), or set SLUICE_TEMPORAL_BIN to it, or TEMPORAL_ADDRESS to a server.',
  );
}

function onPath(name: string, environment: NodeJS.ProcessEnv): string | undefined {
  const folders = (environment.PATH ?? '').split(path.delimiter).filter(Boolean);
  return folders.map((folder) => path.join(folder, name)).find((file) => existing(file));
}

function existing(file: string): string | undefined {
  return existsSync(file) ? file : undefined;
}

/** Why the program cannot be used; undefined when it can. */
async function faultOf(file: string): Promise<string | undefined> {
  try {
    const { stdout } = await run(file, ['--version'], { timeout: 20_000 });
    const [, major, minor] = /Server (\d+)\.(\d+)/.exec(stdout) ?? [];
    if (major === undefined) return 'it is not the Temporal CLI';
    const older =
      Number(major) < leastServer[0] || (Number(major) === leastServer[0] && Number(minor) < leastServer[1]);
    return older ? `its server ${major}.${minor} is older than ${leastServer.join('.')}` : undefined;
  } catch (error) {
    return firstLine(error);
  }
}

/** Lets the SDK start a dev server for a moment, which downloads one, and keeps that. */
async function download(cache: string, _say: Say, environment: NodeJS.ProcessEnv): Promise<string> {
  const folder = path.join(cache, `download-${process.pid}`);
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  // In a process of its own: the SDK's native runtime has no place in this one, and can be given up on.
  const script = `
    const { TestWorkflowEnvironment } = await import('@temporalio/testing');
    const executable = { type: 'cached-download', downloadDir: process.env.SLUICE_DOWNLOAD };
    try {
      const server = await TestWorkflowEnvironment.createLocal({ server: { executable } });
      await server.teardown();
      process.exit(0);
    } catch (error) {
      process.stderr.write('REASON ' + error.message);
      process.exit(1);
    }`;
  try {
    await run(process.execPath, ['--input-type=module', '--eval', script], {
      cwd: projectFolder,
      env: { ...environment, SLUICE_DOWNLOAD: folder },
      timeout: 180_000,
      killSignal: 'SIGKILL',
    }).catch((error: unknown) => {
      throw new Error(reasonIn(String((error as { stderr?: string }).stderr ?? '')) ?? firstLine(error));
    });
    const file = largestFile(folder);
    if (file === undefined) throw new Error('nothing was downloaded');
    return keep(file, path.join(cache, 'sdk', 'temporal'));
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Builds it with Go into a folder of its own, and moves it to its place when it is whole. */
async function build(cache: string, say: Say, environment: NodeJS.ProcessEnv): Promise<string> {
  const go = onPath('go', environment) ?? existing('/usr/local/go/bin/go');
  if (go === undefined) throw new Error('Go is not installed');
  const folder = path.join(cache, `build-${process.pid}`);
  mkdirSync(folder, { recursive: true });
  const begun = Date.now();
  const elapsed = () => `${Math.round((Date.now() - begun) / 1000)} s`;
  const ticker = setInterval(() => say(`  still building temporal, ${elapsed()} (about 3 minutes in all)`), 15_000);
  try {
    await finish(go, ['install', goModule], { ...environment, GOBIN: folder });
    const file = keep(path.join(folder, 'temporal'), path.join(cache, temporalVersion, 'temporal'));
    say(`temporal ${temporalVersion} was built in ${elapsed()}`);
    return file;
  } finally {
    clearInterval(ticker);
    rmSync(folder, { recursive: true, force: true });
  }
}

/** Moves a program to its place: nobody ever sees half of it. */
function keep(file: string, place: string): string {
  mkdirSync(path.dirname(place), { recursive: true });
  renameSync(file, place);
  return place;
}

function finish(command: string, args: string[], environment: NodeJS.ProcessEnv): Promise<void> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { env: environment, stdio: ['ignore', 'ignore', 'pipe'] });
    let tail = '';
    child.stderr.on('data', (chunk: Buffer) => {
      tail = (tail + chunk.toString()).slice(-2000);
    });
    const end = () => child.kill();
    process.once('exit', end);
    child.once('error', reject);
    child.once('close', (code) => {
      process.off('exit', end);
      if (code === 0) resolve();
      else reject(new Error(tail.trim().split('\n').at(-1) ?? `it ended with code ${code}`));
    });
  });
}

function largestFile(folder: string): string | undefined {
  const files = readdirSync(folder, { recursive: true, encoding: 'utf8' }).map((name) => path.join(folder, name));
  const sized = files.map((file) => ({ file, stat: statSync(file) })).filter(({ stat }) => stat.isFile());
  return sized.sort((a, b) => b.stat.size - a.stat.size)[0]?.file;
}

function reasonIn(stderr: string): string | undefined {
  return /REASON (.*)/.exec(stderr)?.[1]?.slice(0, 150);
}

function firstLine(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error);
  return (text.split('\n', 1)[0] ?? '').slice(0, 300);
}
