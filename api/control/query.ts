/** Statements of people against ClickHouse: read-only, bounded, exact. */
import { makeDatabase } from '../../activities/load/batches.ts';
import { refusalCode, tookTooLong } from '../../activities/load/clickhouse.ts';
import { SluiceError } from '../../model/errors.ts';
import type { Control } from './control.ts';
import type { QueryAnswer, QueryBody } from './shapes.ts';
import { askedAfter, checkStatement, singleStatement, tablesRead } from './statement.ts';
import { waitForTables } from './wait.ts';

const maxRows = 10_000;
const maxSeconds = 10;

const limits = {
  readonly: 1,
  final: 1,
  max_execution_time: maxSeconds,
  max_result_rows: String(maxRows + 1),
  result_overflow_mode: 'break',
  max_result_bytes: String(64 << 20),
  max_memory_usage: String(1 << 30),
};

/** What a server knows. */
interface Server {
  /** The names of all table functions: what is not known as harmless is refused. */
  tableFunctions: string[];
  /** That no SELECT is understood where none is written, sent to servers that could. */
  explicit: { implicit_select?: 0 };
}

const servers = new WeakMap<Control, Promise<Server>>();

/**
 * Answers one reading statement with at most 10,000 rows. Integers within ±2^53 are numbers, larger ones and decimals
 * texts. With `wait_for` it is answered when the copies that it reads hold all that the source had there. Errors:
 * `configuration` (not allowed, or ClickHouse refuses it), `timeout`, `conflict` (see `waitForCut`), `sink_unreachable`.
 */
export async function runQuery(control: Control, body: QueryBody): Promise<QueryAnswer> {
  const statement = singleStatement(body.sql);
  const server = await bounded((signal) => serverOf(control, signal));
  const settings = { ...limits, ...server.explicit, database: control.settings.clickhouseDatabase };
  const tree = await bounded((signal) => checkedTree(control, statement, { server, settings, signal }));
  const reached = body.wait_for === undefined ? undefined : await waitForTables(control, body, tablesRead(tree));
  const answer = await bounded((signal) => control.clickhouse.table(`${statement}\n`, { signal, settings }));
  return { ...shape(answer.columns, answer.rows), ...(reached ? { reached } : {}) };
}

/** What a statement is asked with. */
interface Asking {
  server: Server;
  settings: Record<string, string | number>;
  signal: AbortSignal;
}

/** How ClickHouse reads the statement, when it is one of those that are allowed. All of it or an error, never a part. */
async function checkedTree(control: Control, statement: string, { server, settings, signal }: Asking): Promise<string> {
  const whole = { ...settings, result_overflow_mode: 'throw' };
  const tree = await control.clickhouse.text(askedAfter(statement), { signal, settings: whole });
  checkStatement(tree, server.tableFunctions, control.settings.clickhouseDatabase);
  return tree;
}

async function bounded<Answer>(ask: (signal: AbortSignal) => Promise<Answer>): Promise<Answer> {
  const signal = AbortSignal.timeout((maxSeconds + 1) * 1000);
  try {
    return await ask(signal);
  } catch (error) {
    throw queryError(error, signal);
  }
}

function shape(columns: { name: string; type: string }[], all: unknown[][]): QueryAnswer {
  const readers = columns.map((column) => readerOf(column.type));
  const rows = all.slice(0, maxRows).map((row) => row.map((value, index) => readers[index]?.(value)));
  const names = columns.map(({ name, type }) => ({ name, type }));
  return { columns: names, rows, row_count: rows.length, truncated: all.length > maxRows };
}

/** How a value of a ClickHouse type is shown: 64-bit integers come quoted and become numbers where that is exact. */
export function readerOf(type: string): (value: unknown) => unknown {
  const inner = /^(?:Nullable|LowCardinality)\((.*)\)$/s.exec(type)?.[1];
  if (inner !== undefined) return readerOf(inner);
  const element = /^Array\((.*)\)$/s.exec(type)?.[1];
  if (element !== undefined) {
    const read = readerOf(element);
    return (value) => (Array.isArray(value) ? value.map(read) : value);
  }
  if (!/^U?Int\d+$/.test(type)) return (value) => value;
  return (value) => (typeof value === 'string' && Number.isSafeInteger(Number(value)) ? Number(value) : value);
}

/** What the server knows, asked once; there is a database then. */
async function serverOf(control: Control, signal: AbortSignal): Promise<Server> {
  let known = servers.get(control);
  if (!known) {
    known = askServer(control, signal);
    known.catch(() => servers.delete(control));
    servers.set(control, known);
  }
  return await known;
}

async function askServer({ clickhouse }: Control, signal: AbortSignal): Promise<Server> {
  const params = { database: clickhouse.database };
  const names = async (table: string, where = '1') => {
    const sql = `SELECT name FROM system.${table} WHERE ${where}`;
    return (await clickhouse.rows<{ name: string }>(sql, { params, signal })).map(({ name }) => name);
  };
  const [tableFunctions, implicit, databases] = await Promise.all([
    names('table_functions'),
    names('settings', "name = 'implicit_select'"),
    names('databases', 'name = {database:String}'),
  ]);
  // Before the first source there is none, and a statement that names it would not be answered.
  if (databases.length === 0) await makeDatabase(clickhouse);
  return { tableFunctions, explicit: implicit.length > 0 ? { implicit_select: 0 } : {} };
}

/** What passes by itself for who tries again and is a mistake for who asks: limits of the statement, and writing. */
const mistakes: { code: string; told?: RegExp; remedy: string }[] = [
  {
    code: '164',
    remedy: 'Leave SETTINGS out, and of table functions use numbers(), values(), generateSeries() or view().',
  },
  {
    code: '241',
    told: /Query memory limit|\(for query\)/,
    remedy: 'It may take 1 GiB: read fewer columns or rows, shorter texts, or group by fewer keys.',
  },
];

function queryError(error: unknown, signal: AbortSignal): unknown {
  const code = refusalCode(error);
  if (signal.aborted || code === tookTooLong) {
    const remedy = 'Read fewer rows: add a WHERE, or a LIMIT on an unsorted read.';
    return new SluiceError('timeout', `the statement took longer than ${maxSeconds} s and was ended`, remedy);
  }
  if (!(error instanceof SluiceError)) return error;
  const mistake = mistakes.find((one) => one.code === code && (one.told?.test(error.message) ?? true));
  if (mistake) return new SluiceError('configuration', error.message, mistake.remedy, {}, error);
  if (error.kind === 'sink_refused')
    return new SluiceError('configuration', error.message, 'Correct the statement.', {}, error);
  if (error.kind === 'sink_unreachable' && code !== undefined)
    return new SluiceError('sink_unreachable', error.message, 'Ask again in a moment.', {}, error);
  return error;
}
