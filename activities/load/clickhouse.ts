/** The one way to ClickHouse: statements, reads and TSV inserts, with the settings that keep copies exact. */
import { Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import {
  type ClickHouseClient,
  ClickHouseError,
  ClickHouseLogLevel,
  type ClickHouseSettings,
  createClient,
} from '@clickhouse/client';
import { SluiceError } from '../../model/errors.ts';
import { RowsInsert } from './rows_insert.ts';

/**
 * What a connection is for. The embedded engine serialises statements per role, so that reads never hold up writes; a
 * ClickHouse server ignores it.
 */
export type Role = 'write' | 'snapshot' | 'read' | 'verify';

/** Sent with every insert: durable before it answers, exact, and an error instead of any silent change of a value. */
const insertSettings = {
  async_insert: 0,
  insert_deduplicate: 0,
  date_time_overflow_behavior: 'throw',
  date_time_input_format: 'basic',
  input_format_null_as_default: 0,
  precise_float_parsing: 1,
  input_format_tsv_empty_as_default: 0,
  input_format_tsv_enum_as_number: 0,
  input_format_with_names_use_header: 0,
  optimize_on_insert: 1,
} as const;

/** Texts as they are, and NULL only where an unquoted \\N says so. */
const csvSettings = {
  date_time_input_format: 'best_effort',
  input_format_csv_empty_as_default: 0,
  input_format_csv_trim_whitespaces: 0,
  format_csv_null_representation: '\\N',
} as const;

const usualPatience = 120_000;
/**
 * A statement that rewrites a whole copy says nothing before it has ended: given up before and begun again, it would never end.
 * (Headers of progress are no way out: they come behind the status 200, and an error that follows is taken for success.) A
 * machine that is gone is noticed by the system's keepalive.
 */
export const greatestPatience = 12 * 3_600_000;

export interface ClickHouseOptions {
  /** e.g. `http://127.0.0.1:8123`; user and password may be in it. */
  url: string;
  database: string;
  role: Role;
  /** Milliseconds after which a statement without an answer is given up; default two minutes. */
  patience?: number | undefined;
}

/** A query's id travels as a header, while it may hold the name of any table. What one begins with, so does the other. */
export function queryIdOf(text: string): string {
  return text.replace(/[^!-$&-~]/gu, encodeURIComponent);
}

/** Quotes an identifier for ClickHouse. */
export function quoteName(name: string): string {
  return `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
}

/** A string literal for ClickHouse; prefer query parameters where they are possible. */
export function quoteText(text: string): string {
  return `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`;
}

/** The setting for a statement that may be longer than ClickHouse reads without being told (256 KiB). */
export function lengthOf(sql: string): { max_query_size: string } {
  return { max_query_size: String(Buffer.byteLength(sql) + 1024 * 1024) };
}

/** What a statement is sent with. */
interface SelectOptions {
  params?: Record<string, unknown>;
  signal?: AbortSignal;
  settings?: Record<string, string | number>;
}

export class ClickHouse {
  readonly database: string;
  readonly #client: ClickHouseClient;
  /** For statements that may take hours. */
  readonly #patient: ClickHouseClient;

  constructor(options: ClickHouseOptions) {
    this.database = options.database;
    this.#client = ClickHouse.#connect(options, options.patience ?? usualPatience);
    this.#patient = ClickHouse.#connect(options, greatestPatience);
  }

  static #connect(options: ClickHouseOptions, patience: number): ClickHouseClient {
    return createClient({
      url: options.url,
      // Statements name the database themselves: it may not exist yet when the client is made.
      request_timeout: patience,
      max_open_connections: 8,
      // Its own lines would quote statements, and with them values; errors are told by whoever gets them.
      log: { level: ClickHouseLogLevel.OFF },
      http_headers: { 'X-Sluice-Role': options.role },
      clickhouse_settings: { async_insert: 0, date_time_overflow_behavior: 'throw' },
    });
  }

  /** `database`.`table`, quoted. */
  name(table: string): string {
    return `${quoteName(this.database)}.${quoteName(table)}`;
  }

  /** Runs a statement that answers nothing; `long`: it may take hours. Errors: `sink_unreachable`, `sink_refused`. */
  async command(
    sql: string,
    options: Omit<SelectOptions, 'signal'> & { queryId?: string; long?: boolean } = {},
  ): Promise<void> {
    try {
      await (options.long ? this.#patient : this.#client).command({
        query: sql,
        query_params: options.params,
        query_id: options.queryId && queryIdOf(options.queryId),
        clickhouse_settings: options.settings,
      });
    } catch (error) {
      throw sinkError(error);
    }
  }

  /** Rows of a SELECT as objects; 64-bit integers and decimals come as strings. */
  async rows<Row>(sql: string, options: SelectOptions = {}): Promise<Row[]> {
    try {
      const answer = await this.#client.query({
        query: sql,
        format: 'JSONEachRow',
        query_params: options.params,
        abort_signal: options.signal,
        clickhouse_settings: {
          output_format_json_quote_64bit_integers: 1,
          output_format_json_quote_decimals: 1,
          ...options.settings,
        },
      });
      return await answer.json<Row>();
    } catch (error) {
      throw sinkError(error);
    }
  }

  /** A SELECT's answer as raw TSV: bytes, since a String column may hold any. */
  async tsv(sql: string, options: SelectOptions = {}): Promise<Buffer> {
    try {
      const answer = await this.#client.exec({
        query: `${sql} FORMAT TabSeparated`,
        query_params: options.params,
        abort_signal: options.signal,
        clickhouse_settings: { ...options.settings },
      });
      return await buffer(answer.stream);
    } catch (error) {
      throw sinkError(error);
    }
  }

  /** A SELECT's answer with its columns' types; rows are arrays in column order, exact as `rows` has them. */
  async table(
    sql: string,
    options: Omit<SelectOptions, 'params'> = {},
  ): Promise<{ columns: { name: string; type: string }[]; rows: unknown[][] }> {
    try {
      const answer = await this.#client.query({
        query: sql,
        format: 'JSONCompact',
        abort_signal: options.signal,
        clickhouse_settings: {
          output_format_json_quote_64bit_integers: 1,
          output_format_json_quote_decimals: 1,
          output_format_json_quote_denormals: 1,
          ...options.settings,
        },
      });
      const { meta, data } = await answer.json<unknown[]>();
      return { columns: meta ?? [], rows: data };
    } catch (error) {
      throw sinkError(error);
    }
  }

  /** A statement's answer as the server writes it by default (TSV), its text sent untouched. */
  async text(sql: string, options: Omit<SelectOptions, 'params'> = {}): Promise<string> {
    try {
      const answer = await this.#client.exec({
        query: sql,
        abort_signal: options.signal,
        clickhouse_settings: { ...options.settings },
      });
      return await text(answer.stream);
    } catch (error) {
      throw sinkError(error);
    }
  }

  /**
   * Inserts TSV and returns when it is durable. Answers the number of rows that ClickHouse says it wrote (rows of
   * attached views are counted there too). The bytes must not change until it returns.
   */
  insertTsv(table: string, columns: string[], bytes: Buffer[], queryId: string): Promise<number> {
    return this.#insertRaw('TabSeparated', { table, columns, queryId }, Readable.from(bytes, { objectMode: false }));
  }

  /** Begins an insert of TSV that comes in pieces, each key once. Its `end` answers as `insertTsv`. */
  openInsert(table: string, columns: string[], queryId: string): RowsInsert {
    // There is nothing to collapse in it, and looking for that would cost a tenth of the insert.
    const settings = { optimize_on_insert: 0 } as const;
    return new RowsInsert((values) => this.#insertRaw('TabSeparated', { table, columns, queryId }, values, settings));
  }

  /** Begins an insert of CSV without header, columns in this order, that comes in pieces. Its `end` answers as `insertTsv`. */
  openCsv(table: string, columns: readonly string[], queryId: string): RowsInsert {
    return new RowsInsert((values) => this.#insertRaw('CSV', { table, columns, queryId }, values, csvSettings));
  }

  async #insertRaw(
    format: 'TabSeparated' | 'CSV',
    { table, columns, queryId }: { table: string; columns: readonly string[]; queryId: string },
    values: Readable,
    settings: ClickHouseSettings = {},
  ): Promise<number> {
    const names = columns.map(quoteName) as [string, ...string[]];
    try {
      const answer = await this.#client.insert({
        table: this.name(table),
        columns: names,
        values,
        format,
        query_id: queryId && queryIdOf(queryId),
        clickhouse_settings: { ...insertSettings, ...settings },
      });
      return Number(answer.summary?.written_rows ?? Number.NaN);
    } catch (error) {
      throw sinkError(error, `INSERT INTO ${this.name(table)} (${names.join(', ')}) FORMAT ${format}`.slice(0, 200));
    }
  }

  /** Inserts objects, for the small tables of Sluice's own. */
  async insertObjects(table: string, rows: Record<string, unknown>[], queryId?: string): Promise<void> {
    try {
      await this.#client.insert({
        table: this.name(table),
        values: rows,
        format: 'JSONEachRow',
        query_id: queryId && queryIdOf(queryId),
        clickhouse_settings: {
          ...insertSettings,
          date_time_input_format: 'best_effort',
          // Records come one by one: merges index them.
          materialize_skip_indexes_on_insert: '0',
        },
      });
    } catch (error) {
      throw sinkError(error);
    }
  }

  async ping(): Promise<boolean> {
    const answer = await this.#client.ping();
    return answer.success;
  }

  async close(): Promise<void> {
    await Promise.all([this.#client.close(), this.#patient.close()]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }
}

/**
 * Codes of ClickHouse that mean "not now": files and memory (74 to 76, 173, 241, 243), names and connections (198, 203, 209, 210,
 * 279), timeouts and too much at once (159, 202, 252, 439, 473), read-only tables, replicas and keeper (164, 225, 242, 285, 286,
 * 319, 384, 517, 529, 999), object storage (499), a server that shuts down (236), an earlier try that still runs (216), and a
 * statement that a successor killed (394), which says nothing against its rows; 425 is an error of the system.
 */
const passing = new Set(
  `74 75 76 159 164 173 198 202 203 209 210 216 225 236 241 242 243 252 279 285 286 319 384 394 425 439 473 499 517 529
  999`.split(/\s+/),
);

/** Codes that speak of the rows or of the one table: parse errors, ranges, constraints, columns that are not there. */
const aboutRows = new Set('6 10 16 20 26 27 33 38 41 53 60 69 70 72 117 131 349 376 407 441 469 676'.split(' '));

function sinkError(error: unknown, statement?: string): SluiceError {
  if (error instanceof ClickHouseError) {
    const reason = `ClickHouse answered ${error.code} ${error.type ?? ''}: ${firstLine(error.message)}`;
    if (passing.has(error.code)) return new SluiceError('sink_unreachable', reason, 'It is tried again.', {}, error);
    if (statement && aboutRows.has(error.code)) {
      const remedy = 'Compare the table with its copy: was one of them altered?';
      return new SluiceError('rows_refused', reason, remedy, {}, error);
    }
    const remedy = statement ? `The statement was: ${statement}` : 'Look at the statement in ClickHouse’s log.';
    return new SluiceError('sink_refused', reason, remedy, {}, error);
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new SluiceError(
    'sink_unreachable',
    `ClickHouse: ${reason}`,
    'See that ClickHouse runs and CLICKHOUSE_URL is right.',
    {},
    error,
  );
}

/** The "it took too long" of `refusalCode`. */
export const tookTooLong = '159';

/** The number by which ClickHouse refused a statement; undefined when it gave no answer, or something else failed. */
export function refusalCode(error: unknown): string | undefined {
  return error instanceof SluiceError && error.cause instanceof ClickHouseError ? error.cause.code : undefined;
}

/** Parse errors quote the row's values, behind `before:` and in later lines: they stay out. */
function firstLine(message: string): string {
  const quoted = message.indexOf(" before: '");
  return ((quoted < 0 ? message : message.slice(0, quoted)).split('\n', 1)[0] ?? '').slice(0, 500);
}
