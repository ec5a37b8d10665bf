/** Commands that run processes: `sluice up`, `worker` and `bench`, and orders to all sources. */
import { spawn } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import path from 'node:path';
import type { Command } from 'commander';
import { pipelineStatus, startPipeline, stopPipeline } from '../api/control/pipeline.ts';
import { SluiceError } from '../model/errors.ts';
import { nodeArguments } from '../workers/child.ts';
import { projectFolder } from '../workers/settings.ts';
import { importProgram } from './compiled.js';
import { print, printJson, wantsJson, withControl } from './print.ts';

type Done = (status: number) => void;

export function addProcesses(program: Command, done: Done): void {
  program
    .command('up')
    .description(
      'the whole stack on this machine: Temporal, PostgreSQL, ClickHouse, worker and API, with simulated data',
    )
    .option('--for <time>', 'stop by itself after 90, 60s or 5m, then verify')
    .option('--no-demo', 'all parts, but no simulated data, source or deployment')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice up\n  $ npx sluice up --for 60s\n  $ SLUICE_CONFIG_DIR=config npx sluice up --no-demo',
    )
    .action(async (options: { for?: string; demo: boolean }) => {
      const { up } = await import('./up.ts');
      done(await up(options));
    });
  program
    .command('worker')
    .description('a worker that runs flows and activities, until Ctrl-C')
    .action(async () => done(await runWorker()));
  program
    .command('bench <name> [args...]')
    .description('measure on this machine, e.g. `sluice bench capture`; prints JSON')
    .allowUnknownOption()
    .helpOption(false)
    .action(async (name: string, args: string[]) => done(await runBench(name, args)));
  addPipeline(program, done);
}

function addPipeline(program: Command, done: Done): void {
  const pipeline = program.command('pipeline').description('orders to all sources and deployments').helpCommand(false);
  for (const [name, description, run] of [
    ['start', 'start all sources and deployments; what people paused stays paused', startPipeline],
    ['stop', 'stop all sources and deployments; slots and positions are kept', stopPipeline],
  ] as const) {
    const command = pipeline.command(name).description(description).option('--json', 'print JSON');
    command.action(async () => {
      const answer = await withControl(run);
      if (wantsJson(command)) printJson(answer);
      else
        print(
          [
            `pipeline ${answer.status}: ${[...answer.sources, ...answer.deployments].join(', ') || 'nothing to do'}`,
            ...answer.failed.map((one) => `! ${one.id}: ${one.reason}`),
          ].join('\n'),
        );
      done(answer.failed.length > 0 ? 1 : 0);
    });
  }
  const status = pipeline.command('status').description('running, stopped or degraded').option('--json', 'print JSON');
  status.action(async () => {
    const answer = await withControl(pipelineStatus);
    if (wantsJson(status)) printJson(answer);
    else print(answer.status);
    done(0);
  });
}

/** Runs the worker as its own process, so that it handles its signals itself. */
async function runWorker(): Promise<number> {
  const file = path.join(projectFolder, 'workers', 'worker.ts');
  const child = spawn(process.execPath, nodeArguments(file), {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    cwd: projectFolder,
  });
  // A terminal sends Ctrl-C to both; a plain kill reaches only this process.
  const pass = (signal: NodeJS.Signals) => child.kill(signal);
  process.on('SIGTERM', pass);
  process.on('SIGINT', pass);
  return await new Promise((resolve, reject) => {
    child.once('error', reject);
    child.once('exit', (code) => resolve(code ?? 1));
  });
}

async function runBench(name: string, args: string[]): Promise<number> {
  const folder = path.join(projectFolder, 'bench');
  const file = path.join(folder, `${name}.ts`);
  if (!/^[a-z][a-z0-9_-]*$/.test(name) || !existsSync(file)) {
    const known = readdirSync(folder)
      .filter((entry) => entry.endsWith('.ts'))
      .map((entry) => entry.slice(0, -3));
    throw new SluiceError(
      'configuration',
      `there is no benchmark ${name}`,
      `There are: ${known.join(', ') || 'none'}.`,
    );
  }
  // Compiled by itself: as a part of this program all benchmarks' packages would be loaded by each command.
  const bench: { run?: (args: string[]) => Promise<number> } = await importProgram(file);
  if (!bench.run) throw new SluiceError('configuration', `${name} is not a benchmark`, 'It exports no run().');
  try {
    return await bench.run(args);
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : '';
    if (!code.startsWith('ERR_PARSE_ARGS')) throw error;
    throw new SluiceError('configuration', (error as Error).message, `See: npx sluice bench ${name} --help`);
  }
}
