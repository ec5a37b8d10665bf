/** The command `sluice`: reads arguments; each command does its work over the same control module as the REST API. */
import { Command, CommanderError } from 'commander';
import { redact } from '../activities/secrets.ts';
import { asSluiceError, describeError, SluiceError } from '../model/errors.ts';
import { isEntryPoint } from '../workers/child.ts';
import { addApply } from './apply.ts';
import { addAudit } from './audit.ts';
import { addDeployments } from './deployments.ts';
import { addDoctor } from './doctor.ts';
import { addLineage } from './lineage.ts';
import { printProblem } from './print.ts';
import { addProcesses } from './processes.ts';
import { addQuality, addRejects } from './quality.ts';
import { addQueries } from './queries.ts';
import { addReset } from './reset.ts';
import { addRules } from './rules.ts';
import { addRuns } from './runs.ts';
import { addSchemas } from './schemas.ts';
import { addSources } from './sources.ts';
import { addStatus } from './status.ts';
import { addTail } from './tail.ts';

const examples = `
Examples:
  $ npx sluice up                                          everything on this machine, with simulated data
  $ npx sluice status --watch                              what moves, once a second
  $ npx sluice sources connect postgres_main --connection-string '\${DATABASE_URL}' --tables accounts,transactions --start
  $ npx sluice deploy                                      schedules in Temporal, from the files of deployments/
  $ npx sluice apply --dry-run                             sources, rules and checks, from the files of config/
  $ npx sluice run assets                                  a deployment, once, now
  $ npx sluice verify postgres_main                        is the copy identical?
  $ npx sluice query 'SELECT count() FROM postgres_main_transactions'
  $ npx sluice doctor                                      what is missing, and what to do about it

Exit status: 0 done, 1 failed, 2 wrong usage. --json prints JSON for programs.`;

/** The whole program; `done` is told the exit status of each command. */
export function buildProgram(done: (status: number) => void): Command {
  const program = new Command('sluice')
    .description('Keeps copies of operational data true: captures every change of PostgreSQL into ClickHouse.')
    .option('--json', 'print JSON')
    .helpCommand(false)
    .showHelpAfterError('(see --help)')
    .showSuggestionAfterError()
    .addHelpText('after', examples)
    .exitOverride();
  addProcesses(program, done);
  addStatus(program, done);
  addSources(program, done);
  addDeployments(program, done);
  addRuns(program, done);
  addApply(program, done);
  addRules(program, done);
  addQuality(program, done);
  addRejects(program, done);
  addQueries(program, done);
  addSchemas(program, done);
  addAudit(program, done);
  addLineage(program, done);
  addTail(program, done);
  addDoctor(program, done);
  addReset(program, done);
  for (const command of allCommands(program)) command.exitOverride().showHelpAfterError('(see --help)');
  return program;
}

function allCommands(command: Command): Command[] {
  return command.commands.flatMap((inner) => [inner, ...allCommands(inner)]);
}

/** What commander says of wrong usage, as any other error: its first line is the reason, a suggestion the remedy. */
function usageError({ code, message }: CommanderError): SluiceError {
  const help = 'What is right is printed by --help behind the command.';
  if (code === 'commander.help') return new SluiceError('configuration', 'no command is named', help);
  const [reason = '', ...more] = message.replace(/^error: /, '').split('\n');
  const hints = more.map((line) => line.replace(/^\((.*)\)$/, '$1'));
  return new SluiceError('configuration', reason, [...hints, help].join(' '));
}

/** Runs the program on arguments as in process.argv. Answers the exit status; prints no stack. */
export async function main(argv: string[]): Promise<number> {
  let status = 0;
  const json = argv.includes('--json');
  const program = buildProgram((result) => {
    status = result;
  });
  // Programs are told of wrong usage below.
  if (json) for (const command of [program, ...allCommands(program)]) command.configureOutput({ writeErr: () => {} });
  try {
    await program.parseAsync(argv);
    return status;
  } catch (error) {
    if (error instanceof CommanderError) {
      // Its status for help is 0, for usage 1. People have read its own words already.
      if (error.exitCode === 0) return 0;
      if (json) printProblem(usageError(error));
      return 2;
    }
    const known = asSluiceError(error);
    if (json) printProblem(known);
    else process.stderr.write(`${redact(describeError(known))}\n`);
    if (process.env.SLUICE_DEBUG) process.stderr.write(`${redact(known.stack ?? '')}\n`);
    return known.kind === 'configuration' ? 2 : 1;
  }
}

if (isEntryPoint(import.meta.url)) process.exitCode = await main(process.argv);
