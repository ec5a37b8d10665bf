/** `sluice run` and `sluice backfill`. */
import { type Command, InvalidArgumentError } from 'commander';
import { redact } from '../activities/secrets.ts';
import type { Control } from '../api/control/control.ts';
import { backfillDeployment, backfillSource, runDeployment } from '../api/control/deployment_runs.ts';
import type { StartedAnswer } from '../api/control/deployment_shapes.ts';
import { asSluiceError, describeError, SluiceError } from '../model/errors.ts';
import { print, printJson, printProblem, wantsJson, withControl } from './print.ts';
import { waitForFlow } from './progress.ts';

type Done = (status: number) => void;

export function addRuns(program: Command, done: Done): void {
  program
    .command('run <deployment>')
    .description('run a deployment once, now, and wait for its answer')
    .option('--param <key=value>', 'another value for a parameter; as JSON where it is JSON', collectParameter, {})
    .option('--no-wait', 'only start it')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice run assets\n  $ npx sluice run assets --param page_size=100\n  $ npx sluice run assets --no-wait --json',
    )
    .action(async (name: string, options: { param: Record<string, unknown>; wait: boolean }, command: Command) =>
      done(await follow(command, options.wait, (control) => runDeployment(control, name, options.param))),
    );
  program
    .command('backfill <name>')
    .description('run intervals of a deployment again, or copy tables of a source again; waits until it is done')
    .option('--from <time>', 'of a deployment: the first moment, a date or an instant with its zone')
    .option('--to <time>', 'of a deployment: the end, not in the future; this moment itself does not belong to it')
    .option('--only-missing', 'leave out intervals that a finished run has pulled')
    .option('--table <name>', 'of a source: a table; more by giving it again', collect, [])
    .option('--no-wait', 'only start it')
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      '\nExamples:\n  $ npx sluice backfill assets --from 2026-01-01 --to 2026-01-02 --only-missing\n  $ npx sluice backfill postgres_main --table accounts --table transactions',
    )
    .action(async (name: string, options: BackfillFlags, command: Command) => {
      const start = backfillOf(name, options);
      done(await follow(command, options.wait, start));
    });
}

interface BackfillFlags {
  from?: string;
  to?: string;
  onlyMissing?: boolean;
  table: string[];
  wait: boolean;
}

function backfillOf(name: string, { from, to, onlyMissing, table }: BackfillFlags) {
  const ofDeployment = from !== undefined || to !== undefined || onlyMissing !== undefined;
  if (table.length > 0 && !ofDeployment) return (control: Control) => backfillSource(control, name, table);
  if (from !== undefined && to !== undefined && table.length === 0) {
    const body = { from, to, only_missing: Boolean(onlyMissing) };
    return (control: Control) => backfillDeployment(control, name, body);
  }
  const remedy = `Write \`sluice backfill ${name} --from 2026-01-01 --to 2026-01-02\` for a deployment, or \`--table accounts\` for a source.`;
  throw new SluiceError('configuration', 'a backfill needs --from and --to, or --table', remedy);
}

/** Starts a flow, waits for it unless told otherwise, prints its answer. Answers the exit status. */
async function follow(
  command: Command,
  wait: boolean,
  start: (control: Control) => Promise<StartedAnswer>,
): Promise<number> {
  const json = wantsJson(command);
  return await withControl(async (control) => {
    const started = await start(control);
    if (!json) print(`${started.flow} of ${started.deployment} is started: ${started.workflow.url}`);
    if (!wait) {
      if (json) printJson(started);
      return 0;
    }
    const began = Date.now();
    try {
      const answer = await waitForFlow(control, started);
      if (json) printJson({ ...started, status: 'completed', answer });
      else print(`done in ${((Date.now() - began) / 1000).toFixed(1)} s${answerText(answer)}`);
      return 0;
    } catch (error) {
      // What the run stopped at is its failure, not wrong usage of this command.
      const known = asSluiceError(error);
      if (json) printProblem(known);
      else process.stderr.write(`${redact(describeError(known))}\n`);
      return 1;
    }
  });
}

/** A flow's answer in one line: `: rows 1,200 · files 1`. */
function answerText(answer: unknown): string {
  if (typeof answer !== 'object' || answer === null) return answer === undefined ? '' : `: ${String(answer)}`;
  const parts = Object.entries(answer).map(([key, value]) => {
    const text =
      typeof value === 'number'
        ? value.toLocaleString('en-GB')
        : typeof value === 'string'
          ? value
          : JSON.stringify(value);
    return `${key} ${text === '' ? '–' : text}`;
  });
  return parts.length > 0 ? `: ${parts.join(' · ')}` : '';
}

/** `page_size=100` is a number, `name=x` a text. */
function collectParameter(text: string, before: Record<string, unknown>): Record<string, unknown> {
  const [, key, value] = /^([A-Za-z_][A-Za-z0-9_]*)=(.*)$/s.exec(text) ?? [];
  if (key === undefined || value === undefined) throw new InvalidArgumentError('write key=value');
  return { ...before, [key]: jsonOr(value) };
}

function jsonOr(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return text;
  }
}

function collect(text: string, before: string[]): string[] {
  return [...before, text];
}
