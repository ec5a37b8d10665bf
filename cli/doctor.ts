/** `sluice doctor`: looks at everything that Sluice needs, and says what to do about what is missing. */
import { accessSync, constants, existsSync, mkdirSync } from 'node:fs';
import { createServer } from 'node:net';
import type { Command } from 'commander';
import type { Control } from '../api/control/control.ts';
import { listSources } from '../api/control/sources.ts';
import { requireWorker } from '../api/control/temporal.ts';
import { asSluiceError, SluiceError } from '../model/errors.ts';
import { readConfig } from '../workers/config.ts';
import { installedTemporals } from '../workers/embedded/temporal_binary.ts';
import { readEndpoints, readPort, type Settings } from '../workers/settings.ts';
import { print, printJson, wantsJson, withControl } from './print.ts';

export interface Check {
  name: string;
  state: 'ok' | 'note' | 'problem';
  detail: string;
  remedy: string;
}

export function addDoctor(program: Command, done: (status: number) => void): void {
  program
    .command('doctor')
    .description('what is there, what is missing, and what to do about it; exit status 1 when there is a problem')
    .option('--json', 'print JSON')
    .action(async (_options: object, command: Command) => {
      const checks = await withControl(examine);
      if (wantsJson(command)) printJson(checks);
      else print(checks.map(checkText).join('\n'));
      done(checks.some((check) => check.state === 'problem') ? 1 : 0);
    });
}

function checkText({ name, state, detail, remedy }: Check): string {
  const mark = { ok: '✓', note: '·', problem: '✗' }[state];
  return `${mark} ${name}: ${detail}${remedy ? `\n    ${remedy}` : ''}`;
}

/** All checks, in the order in which things are needed. */
export async function examine(control: Control): Promise<Check[]> {
  const { settings } = control;
  const running = readEndpoints(settings.home) !== undefined;
  const checks = [
    nodeCheck(),
    folderCheck(settings),
    temporalProgramCheck(settings),
    secretCheck(settings),
    configCheck(settings),
  ];
  if (running) checks.push({ name: 'stack', state: 'ok', detail: `runs (home ${settings.home})`, remedy: '' });
  else checks.push(...(await portChecks()));
  checks.push(await clickhouseCheck(control), ...(await temporalChecks(control)));
  return checks;
}

function nodeCheck(): Check {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const good = major > 20 || (major === 20 && minor >= 19);
  return {
    name: 'Node.js',
    state: good ? 'ok' : 'problem',
    detail: process.version,
    remedy: good ? '' : 'Install Node.js 20.19 or newer.',
  };
}

function folderCheck({ home }: Settings): Check {
  try {
    mkdirSync(home, { recursive: true });
    accessSync(home, constants.W_OK);
    return { name: 'state folder', state: 'ok', detail: home, remedy: '' };
  } catch {
    return {
      name: 'state folder',
      state: 'problem',
      detail: `${home} cannot be written`,
      remedy: 'Set SLUICE_HOME to a folder of yours.',
    };
  }
}

/** Where `npm start` looks for the program, apart from installing it. */
function temporalProgramCheck({ temporalAddress }: Settings): Check {
  const name = 'temporal program';
  if (process.env.TEMPORAL_ADDRESS) {
    return { name, state: 'ok', detail: `not needed: TEMPORAL_ADDRESS is ${temporalAddress}`, remedy: '' };
  }
  const named = process.env.SLUICE_TEMPORAL_BIN;
  if (named && !existsSync(named)) {
    return {
      name,
      state: 'problem',
      detail: `SLUICE_TEMPORAL_BIN: there is no ${named}`,
      remedy: 'Correct it, or unset it.',
    };
  }
  const [found] = installedTemporals();
  if (found) return { name, state: 'ok', detail: found[1], remedy: '' };
  return {
    name,
    state: 'note',
    detail: 'not on this machine yet',
    remedy: '`npm start` fetches it; or install it, or set SLUICE_TEMPORAL_BIN.',
  };
}

function secretCheck({ secretKey }: Settings): Check {
  const name = 'secret key';
  if (secretKey) return { name, state: 'ok', detail: 'known', remedy: '' };
  const remedy =
    '`npm start` makes one; else set SLUICE_SECRET_KEY here and where workers run. References such as ${DATABASE_URL} need none.';
  return { name, state: 'note', detail: 'not set: connection strings cannot be sealed', remedy };
}

function configCheck({ configFolder }: Settings): Check {
  const name = 'configuration';
  if (!configFolder) return { name, state: 'ok', detail: 'no SLUICE_CONFIG_DIR: nothing is read', remedy: '' };
  try {
    const { sources, transformations = [], quality = [] } = readConfig(configFolder);
    const counts = `${sources.length} sources, ${transformations.length} rules, ${quality.length} checks`;
    return { name, state: 'ok', detail: `${configFolder}: ${counts}`, remedy: '' };
  } catch (error) {
    return problem(name, error);
  }
}

const ports = {
  SLUICE_API_PORT: 8000,
  SLUICE_TEMPORAL_PORT: 7233,
  SLUICE_TEMPORAL_UI_PORT: 8233,
  SLUICE_CLICKHOUSE_PORT: 8123,
  SLUICE_POSTGRES_PORT: 5433,
  SLUICE_ASSET_API_PORT: 8088,
};

/** Ports that `npm start` would take. */
async function portChecks(): Promise<Check[]> {
  return await Promise.all(
    Object.entries(ports).map(async ([variable, usual]): Promise<Check> => {
      const name = `port ${variable.slice('SLUICE_'.length, -'_PORT'.length).toLowerCase().replace('_', ' ')}`;
      try {
        const port = readPort(process.env, variable, usual);
        if (port === 0 || (await isFree(port)))
          return { name, state: 'ok', detail: port === 0 ? 'any' : `${port} is free`, remedy: '' };
        return {
          name,
          state: 'note',
          detail: `${port} is taken`,
          remedy: `To run \`npm start\`, end what uses it, or set ${variable}.`,
        };
      } catch (error) {
        return problem(name, error);
      }
    }),
  );
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer();
    server.once('error', () => resolve(false));
    server.listen({ port, host: '127.0.0.1', exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** The last microsecond that a copy of a timestamp may hold. */
const latestTime = '9999-12-31 23:59:59.999999';

async function clickhouseCheck(control: Control): Promise<Check> {
  const name = 'ClickHouse';
  const { clickhouseUrl } = control.settings;
  try {
    const [row] = await control.clickhouse.rows<{ version: string; latest: string }>(
      `SELECT version() AS version, toString(t) AS latest FROM format(TSV, 't DateTime64(6, \\'UTC\\')', '${latestTime}')`,
      { signal: AbortSignal.timeout(3_000) },
    );
    const detail = `${row?.version} at ${new URL(clickhouseUrl).host}`;
    if (row?.latest === latestTime) return { name, state: 'ok', detail, remedy: '' };
    // Earlier versions move times outside of 1900 to 2299 into that range, and say nothing.
    return {
      name,
      state: 'problem',
      detail: `${detail} keeps ${latestTime} as ${row?.latest}`,
      remedy: 'Use ClickHouse 26.7 or later: copies of such times would be wrong.',
    };
  } catch (error) {
    return problem(name, error);
  }
}

async function temporalChecks(control: Control): Promise<Check[]> {
  try {
    await requireWorker(control);
  } catch (error) {
    const away = error instanceof SluiceError && error.kind === 'temporal_unreachable';
    if (away) return [problem('Temporal', error)];
    return [reachable(control), problem('worker', error)];
  }
  const checks: Check[] = [reachable(control), { name: 'worker', state: 'ok', detail: 'answers', remedy: '' }];
  const sources = await listSources(control);
  for (const source of sources) {
    const errors = [source.last_error, ...source.tables.map((table) => table.error)].filter((error) => error !== null);
    const [first] = errors;
    const name = `source ${source.id}`;
    if (first)
      checks.push({ name, state: 'problem', detail: `${source.status}; ${first.reason}`, remedy: first.remedy });
    else
      checks.push({
        name,
        state: 'ok',
        detail: `${source.status}, ${source.tables.length} tables`,
        remedy: source.warning ?? '',
      });
  }
  return checks;
}

function reachable({ settings }: Control): Check {
  return { name: 'Temporal', state: 'ok', detail: `at ${settings.temporalAddress}`, remedy: '' };
}

function problem(name: string, error: unknown): Check {
  const known = asSluiceError(error);
  const { file, line } = known.place;
  const where = file ? `${file}${line ? `:${line}` : ''}: ` : '';
  return { name, state: 'problem', detail: `${where}${known.message}`, remedy: known.remedy };
}
