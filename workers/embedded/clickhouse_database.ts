/**
 * The ClickHouse engine (chDB) on one data folder. Each request gets a connection of its own (0.2 ms), so that settings,
 * parameters, database and read-only mode end with it. Requests of one role wait for each other, those of other roles
 * never: a long read does not delay an insert.
 */
import { createRequire } from 'node:module';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Queued, WorkQueue } from './clickhouse_queue.ts';
import type { Statement } from './clickhouse_statement.ts';

type Connection = { readonly native: unique symbol };

/** chDB's native part. Its JavaScript layer refuses column names other than [A-Za-z0-9_], and hides rows written. */
interface Native {
  CreateConnection(folder: string, args?: string[]): Connection;
  CloseConnection(connection: Connection): void;
  QueryAsyncConnection(connection: Connection, sql: string, format: string): Promise<NativeRead>;
  InsertRawAsyncConnection(connection: Connection, prefix: string, data: Buffer, count: boolean): Promise<NativeWrite>;
}

interface NativeRead {
  bytes: Uint8Array;
  elapsed: number;
  rowsRead: number;
  bytesRead: number;
}

interface NativeWrite {
  rowsWritten: number;
  bytesWritten: number;
  elapsed: number;
}

const roles = ['write', 'snapshot', 'read', 'verify'] as const;
export type EngineRole = (typeof roles)[number];

export function isRole(text: unknown): text is EngineRole {
  return roles.includes(text as EngineRole);
}

/** How many requests of a role run at once. Writes keep their order of arrival, which is a fence. */
const atOnce: Record<EngineRole, number> = { write: 1, snapshot: 1, read: 4, verify: 2 };

/** An answer of the engine that is an error; `code` and `type` are ClickHouse's. */
export class EngineError extends Error {
  readonly code: number;
  readonly type: string;

  constructor(code: number, type: string, message: string) {
    super(message);
    this.name = 'EngineError';
    this.code = code;
    this.type = type;
  }
}

/** A request whose data are still on their way. */
export interface Receiving {
  queryId: string;
  /** What of the statement came before its data. */
  sql: string;
  begun: number;
  abort(): void;
}

export interface EngineRequest {
  role: EngineRole;
  queryId: string;
  /** All of the statement but an INSERT's data. */
  sql: string;
  statement: Statement;
  /** An INSERT's data. */
  data: Buffer;
  /** Format of the answer where the statement names none. */
  format: string;
  database: string | undefined;
  settings: Record<string, string>;
  params: Record<string, string>;
}

/**
 * The engine reads an INSERT's data as SQL tokens before it reads them as rows, which is up to two thirds of its work (of
 * 2.5 µs for a row of 200 bytes 0.9 stay without). An opening quote before them, in a line that the format skips, makes
 * them one token, which ends nowhere; of all quotes this one is searched for the fastest.
 */
const quoteLine = '\n“';
const skippedLines: Record<string, string> = {
  TABSEPARATED: 'input_format_tsv_skip_first_lines',
  TSV: 'input_format_tsv_skip_first_lines',
  CSV: 'input_format_csv_skip_first_lines',
};

/** The request with its data behind such a line, where the format has one. */
function behindQuote(request: EngineRequest): EngineRequest {
  const { statement, settings } = request;
  if (statement.kind !== 'insert' || request.data.length === 0) return request;
  const setting = skippedLines[statement.format.toUpperCase()];
  // What the statement sets itself would count from the wrong line.
  if (setting === undefined || statement.prefix.includes(setting)) return request;
  return {
    ...request,
    statement: { ...statement, prefix: statement.prefix + quoteLine },
    settings: { ...settings, [setting]: String(Number(settings[setting] ?? 0) + 1) },
  };
}

export interface EngineAnswer {
  bytes: Uint8Array;
  readRows: number;
  readBytes: number;
  writtenRows: number;
  writtenBytes: number;
  /** Seconds in the engine. */
  elapsed: number;
}

interface Running {
  request: EngineRequest;
  queued: Queued<EngineAnswer>;
  begun: number;
  /** Asked to end before it was told to the engine. */
  cancelled: boolean;
}

/**
 * What holds where a request sets nothing else. The whole answer is held in memory: one that is larger is an error. Threads that
 * only write an answer down, or read the rows of a small insert, cost more than they spare (a sixth of small statements).
 */
const defaults = {
  max_result_bytes: '268435456',
  result_overflow_mode: 'throw',
  output_format_parallel_formatting: '0',
};

/** Bytes of an INSERT from which on the engine may read them by several threads. */
const manyBytes = 1024 * 1024;

export class ClickHouseDatabase {
  readonly #native: Native;
  readonly #folder: string;
  /** Keeps the engine open between requests. */
  readonly #base: Connection;
  readonly #queues = new Map(roles.map((role) => [role, new WorkQueue(atOnce[role])]));
  /** KILL, which must never wait behind what it kills. */
  readonly #control = new WorkQueue(2);
  readonly #receiving = new Set<Receiving>();
  readonly #running = new Map<string, Running>();
  #version = '';

  /** Opens the folder; throws when another process has it open. */
  constructor(folder: string) {
    this.#native = loadNative();
    this.#folder = path.resolve(folder);
    this.#base = this.#native.CreateConnection(this.#folder);
  }

  get version(): string {
    return this.#version;
  }

  /** Loads all tables and learns the engine's version; the first statement of all. */
  async open(): Promise<void> {
    const read = await this.#native.QueryAsyncConnection(this.#base, 'SELECT version()', 'TabSeparated');
    this.#version = Buffer.from(read.bytes).toString().trim();
  }

  /** Waits for a request's data; killed meanwhile, it ends, and is never carried out. */
  async receive<T>(receiving: Receiving, read: () => Promise<T>): Promise<T> {
    this.#receiving.add(receiving);
    try {
      return await read();
    } finally {
      this.#receiving.delete(receiving);
    }
  }

  /** Runs a request in its role's order. Throws EngineError. */
  async run(request: EngineRequest): Promise<EngineAnswer> {
    if (this.#running.has(request.queryId)) {
      const reason = `Query with id = ${request.queryId} is already running.`;
      throw new EngineError(216, 'QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING', reason);
    }
    const control = request.statement.kind === 'kill';
    const queue = control ? this.#control : (this.#queues.get(request.role) ?? this.#control);
    const queued = queue.add(() => this.#execute(request));
    this.#running.set(request.queryId, { request, queued, begun: performance.now(), cancelled: false });
    try {
      return await queued.result;
    } finally {
      this.#running.delete(request.queryId);
    }
  }

  /** Cancels a request, waiting or running, and resolves when it has ended. */
  async cancel(queryId: string): Promise<void> {
    for (const receiving of this.#receiving) if (receiving.queryId === queryId) receiving.abort();
    const running = this.#running.get(queryId);
    if (running === undefined) return;
    if (running.queued.takeBack(cancelled())) return;
    running.cancelled = true;
    let ended = false;
    const end = running.queued.result
      .catch(() => {})
      .finally(() => {
        ended = true;
      });
    const sql = `KILL QUERY WHERE Settings['log_comment'] = ${quote(queryId)} ASYNC`;
    // SYNC never returns in this engine, and a statement that is only about to begin is not found: so ask until it ends.
    while (!ended) {
      await this.#onConnection((connection) => this.#native.QueryAsyncConnection(connection, sql, 'Null'));
      await Promise.race([end, sleep(100)]);
    }
  }

  /** Waits for what runs, at most `graceMs`, and closes the folder. */
  async close(graceMs: number): Promise<void> {
    const all = [...this.#running.values()].map((running) => running.queued.result.catch(() => {}));
    const timer = new Promise((resolve) => setTimeout(resolve, graceMs));
    await Promise.race([Promise.all(all), timer]);
    if (this.#running.size === 0) this.#native.CloseConnection(this.#base);
  }

  async #execute(request: EngineRequest): Promise<EngineAnswer> {
    const executed = behindQuote(request);
    try {
      return await this.#onConnection(async (connection) => {
        await this.#prepare(connection, executed);
        if (this.#running.get(request.queryId)?.cancelled) throw cancelled();
        return await this.#dispatch(connection, executed);
      });
    } catch (error) {
      throw engineError(error);
    }
  }

  async #onConnection<T>(use: (connection: Connection) => Promise<T>): Promise<T> {
    const connection = this.#native.CreateConnection(this.#folder);
    try {
      return await use(connection);
    } finally {
      this.#native.CloseConnection(connection);
    }
  }

  /** Database first, settings together (so that `readonly` forbids none of them), parameters last. */
  async #prepare(connection: Connection, request: EngineRequest): Promise<void> {
    const parsing = request.data.length < manyBytes ? { input_format_parallel_parsing: '0' } : {};
    const settings = { ...defaults, ...parsing, ...request.settings, log_comment: request.queryId };
    const { readonly, ...others } = settings as Record<string, string>;
    const assignments = Object.entries(others).map(([name, value]) => `${name} = ${quote(value)}`);
    for (const [name, value] of Object.entries(request.params)) assignments.push(`param_${name} = ${quote(value)}`);
    const statements = [`SET ${assignments.join(', ')}`];
    if (request.database) statements.unshift(`USE \`${request.database.replace(/[\\`]/g, '\\$&')}\``);
    if (readonly !== undefined) statements.push(`SET readonly = ${quote(readonly)}`);
    await this.#native.QueryAsyncConnection(connection, statements.join('; '), 'Null');
  }

  async #dispatch(connection: Connection, request: EngineRequest): Promise<EngineAnswer> {
    const { statement } = request;
    if (statement.kind === 'insert') {
      if (request.data.length === 0) return written({ rowsWritten: 0, bytesWritten: 0, elapsed: 0 });
      const write = this.#native.InsertRawAsyncConnection(connection, statement.prefix, request.data, false);
      return written(await write);
    }
    if (statement.kind === 'insertSelect') {
      return written(await this.#native.InsertRawAsyncConnection(connection, request.sql, Buffer.alloc(0), false));
    }
    const sql = statement.kind === 'kill' ? await this.#kill(connection, statement.condition, request) : request.sql;
    const read = await this.#native.QueryAsyncConnection(connection, sql, request.format);
    const { rowsRead, bytesRead, elapsed } = read;
    // For statements without an answer the engine leaves the figures of the one before.
    const bytes = read.bytes;
    return { bytes, readRows: rowsRead, readBytes: bytesRead, writtenRows: 0, writtenBytes: 0, elapsed };
  }

  /** Cancels what the condition (over query_id, user, query, elapsed) chooses; answers the SELECT that lists it. */
  async #kill(connection: Connection, condition: string, request: EngineRequest): Promise<string> {
    const running = [...this.#running.values()].map(({ request: { queryId, sql }, begun }) => ({
      queryId,
      sql,
      begun,
    }));
    const rows = [...running, ...this.#receiving]
      .filter(({ queryId }) => queryId !== request.queryId)
      .map(({ queryId, sql, begun }) => {
        const elapsed = ((performance.now() - begun) / 1000).toFixed(3);
        return `(${quote(queryId)}, 'default', ${quote(sql.slice(0, 1000))}, ${elapsed})`;
      });
    const structure = "'query_id String, user String, query String, elapsed Float64'";
    const from = rows.length > 0 ? `values(${structure}, ${rows.join(', ')})` : `null(${structure})`;
    const chosen = `SELECT query_id FROM ${from} WHERE ${condition}`;
    const read = await this.#native.QueryAsyncConnection(connection, chosen, 'JSONCompactColumns');
    const ids = (JSON.parse(Buffer.from(read.bytes).toString() || '[[]]') as string[][])[0] ?? [];
    await Promise.all(ids.map((id) => this.cancel(id)));
    return `SELECT 'finished' AS kill_status, query_id, user, query FROM ${from} WHERE ${condition}`;
  }
}

function written(write: NativeWrite): EngineAnswer {
  return {
    bytes: Buffer.alloc(0),
    readRows: write.rowsWritten,
    readBytes: write.bytesWritten,
    writtenRows: write.rowsWritten,
    writtenBytes: write.bytesWritten,
    elapsed: write.elapsed,
  };
}

function cancelled(): EngineError {
  return new EngineError(394, 'QUERY_WAS_CANCELLED', 'Query was cancelled.');
}

function quote(text: string): string {
  return `'${text.replace(/[\\']/g, '\\$&')}'`;
}

function engineError(error: unknown): EngineError {
  if (error instanceof EngineError) return error;
  const text = error instanceof Error ? error.message : String(error);
  const [, code, message, type] = /^Code: (\d+)\. DB::Exception: ([\s\S]*) \(([A-Z][A-Z0-9_]+)\)\s*$/.exec(text) ?? [];
  if (code === undefined || message === undefined || type === undefined) {
    return new EngineError(1002, 'UNKNOWN_EXCEPTION', text);
  }
  return new EngineError(Number(code), type, message);
}

function loadNative(): Native {
  const require = createRequire(import.meta.url);
  const loader = path.join(path.dirname(require.resolve('chdb')), 'dist', 'loader.js');
  return (require(loader) as { loadNative(): Native }).loadNative();
}
