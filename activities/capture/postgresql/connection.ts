/** Sessions with a PostgreSQL source: one set of session settings, one translation of errors. */
import { Socket } from 'node:net';
import { CancelledFailure } from '@temporalio/common';
import pg from 'pg';
import { SluiceError } from '../../../model/errors.ts';
import { redact } from '../../secrets.ts';
import { ReceivingSocket } from './receiving_socket.ts';

/**
 * Pinned in every session that reads values, the walsender's too: settings of the role or the database otherwise
 * change the text that is copied (a date written day first, floats cut to 15 digits, bytes as octal).
 */
export const sessionSettings: Record<string, string> = {
  datestyle: 'ISO, YMD',
  intervalstyle: 'postgres',
  extra_float_digits: '1',
  timezone: 'UTC',
  bytea_output: 'hex',
  lc_monetary: 'C',
  client_encoding: 'UTF8',
  row_security: 'off',
  search_path: '',
  statement_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  lock_timeout: '0',
};

/** PostgreSQL 17 and later end a transaction by this one, however much of it is still to be read. */
const longTransactions = `CASE WHEN pg_catalog.current_setting('server_version_num')::pg_catalog.int4 >= 170000
  THEN pg_catalog.set_config('transaction_timeout', '0', false) END`;

/** Quotes an identifier for PostgreSQL. */
export function quoteName(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}

/** Quotes `schema.table` for PostgreSQL. */
export function quoteTable(table: { schema: string; table: string }): string {
  return `${quoteName(table.schema)}.${quoteName(table.table)}`;
}

/** A string literal for PostgreSQL (standard_conforming_strings or not). */
export function quoteText(text: string): string {
  const quoted = `'${text.replaceAll("'", "''")}'`;
  return text.includes('\\') ? ` E${quoted.replaceAll('\\', '\\\\')}` : quoted;
}

export interface ConnectOptions {
  connectionString: string;
  /** Shown in pg_stat_activity. */
  applicationName: string;
  /** Opens a walsender that takes START_REPLICATION beside SQL. */
  replication?: boolean;
  /** A RawSession will take it over, and read much. */
  bulk?: boolean;
  /** A statement that it begins with. */
  first?: string;
}

/** Opens a session with pinned settings. Errors: `source_unreachable`, `source_refused`, `configuration`. */
export async function connect(options: ConnectOptions): Promise<pg.Client> {
  checkScheme(options.connectionString);
  const client = new pg.Client({
    connectionString: options.connectionString,
    application_name: options.applicationName,
    connectionTimeoutMillis: 10_000,
    // A server that is gone without a word is noticed within half a minute: the system's own patience is two hours.
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
    ...(options.replication ? { replication: 'database' } : {}),
    // TLS reads from the socket in its own way.
    ...(options.bulk ? { stream: ({ ssl }: { ssl?: unknown }) => (ssl ? new Socket() : new ReceivingSocket()) } : {}),
  } as pg.ClientConfig);
  // A cut connection shows itself at the next call; without a listener it would end the process.
  client.on('error', () => {});
  try {
    await client.connect();
    const settings = Object.entries(sessionSettings).map(
      ([name, value]) => `pg_catalog.set_config(${quoteText(name)}, ${quoteText(value)}, false)`,
    );
    await client.query(`SELECT ${settings.join(', ')}, ${longTransactions}`);
    if (options.first) await client.query(options.first);
    return client;
  } catch (error) {
    // Not `end`: what is at the other end may be no PostgreSQL, and never say goodbye.
    (client as unknown as { connection: { stream: Socket } }).connection.stream.destroy();
    throw sourceError(error);
  }
}

function checkScheme(connectionString: string): void {
  if (/^postgres(ql)?:\/\//i.test(connectionString)) return;
  throw new SluiceError(
    'configuration',
    'the connection string does not begin with postgresql://',
    'Write postgresql://user:password@host:port/database, with ?sslmode=require where the server asks for TLS.',
  );
}

/** Runs `use` with a session and ends the session whatever happens. */
export async function withConnection<T>(options: ConnectOptions, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = await connect(options);
  try {
    return await use(client);
  } catch (error) {
    throw error instanceof CancelledFailure ? error : sourceError(error);
  } finally {
    await client.end().catch(() => {});
  }
}

/** SQLSTATE classes that pass by themselves: connection, resources, operator intervention, serialization, lock timeout. */
const passing = /^(08|53|57|40|55P03)/;

/** What the server says when somebody drops or alters a table while another statement looks at the catalog. */
const underWay = /could not open relation with OID|cache lookup failed for|tuple concurrently (updated|deleted)/;

/** A schema, table, column or operator that is not there, or a literal that is none of its type any more. */
const gone = new Set(['3F000', '42P01', '42703', '42704', '42804', '42883', '22P02']);

/** True for the error of a statement over a table that was altered since its definition was read. */
export function wasAltered(error: unknown): boolean {
  return gone.has(sqlState(error));
}

/** True for an error of a statement over one table that says nothing of others: no privilege, or a damaged row or index. */
export function isOfTable(error: unknown): boolean {
  return ['42501', 'XX001', 'XX002'].includes(sqlState(error));
}

/** The code of an error of the server, also of one that was translated. */
export function sqlState(error: unknown): string {
  const { code, cause } = error as { code?: unknown; cause?: { code?: unknown } };
  return String(code ?? cause?.code);
}

/** Any error of a PostgreSQL session as a SluiceError; never contains the connection string. */
export function sourceError(error: unknown): SluiceError {
  if (error instanceof SluiceError) return error;
  const code = (error as { code?: unknown } | null)?.code;
  const reason = redact(error instanceof Error ? error.message : String(error));
  // Five letters from the operating system (EPIPE) look like a SQLSTATE, none of which begins with E.
  if (typeof code === 'string' && /^(?!E)[0-9A-Z]{5}$/.test(code)) {
    if (code === '55006') return new SluiceError('slot_in_use', reason, 'It is tried again.', {}, error);
    if (passing.test(code) || (code === 'XX000' && underWay.test(reason)))
      return new SluiceError('source_unreachable', `PostgreSQL: ${reason} (${code})`, 'It is tried again.', {}, error);
    if (code.startsWith('28') || code === '42501' || code === '3D000') {
      const remedy =
        'Check user, password, database, the privileges that preflight lists, and pg_hba.conf: does it ask for TLS (?sslmode=require)?';
      return new SluiceError('source_refused', `PostgreSQL: ${reason} (${code})`, remedy, {}, error);
    }
    return new SluiceError(
      'unexpected',
      `PostgreSQL: ${reason} (${code})`,
      'Look at the source’s log; report it if Sluice is at fault.',
      {},
      error,
    );
  }
  const remedy = 'See that the source runs, and that host, port and TLS in the connection string are right.';
  return new SluiceError(
    'source_unreachable',
    `PostgreSQL: ${reason || String(code ?? 'no answer')}`,
    remedy,
    {},
    error,
  );
}

/** Leaves values as the server's text. */
export const sourceTexts = { getTypeParser: () => (text: string) => text } as unknown as pg.CustomTypesConfig;
