/**
 * Process: the embedded ClickHouse engine behind ClickHouse's HTTP interface. Started as
 * `clickhouse_engine.ts <data folder> <port> [host]`; ends on SIGTERM.
 */
import { randomUUID } from 'node:crypto';
import { mkdirSync } from 'node:fs';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { promisify } from 'node:util';
import { brotliDecompress, gunzip, gzip, inflate } from 'node:zlib';
import {
  ClickHouseDatabase,
  type EngineAnswer,
  EngineError,
  type EngineRequest,
  isRole,
} from './clickhouse_database.ts';
import { readStatement } from './clickhouse_statement.ts';

/** Largest request body, after decompression. */
const bodyBound = 64 * 1024 * 1024;
/** All bodies that are held at once. */
const heldBound = 512 * 1024 * 1024;
/** Largest statement without the data of an INSERT. */
const sqlBound = 1024 * 1024;

/** URL parameters that are no settings. */
const notSettings = new Set(
  `query database default_format query_id user password quota_key role compress decompress stacktrace buffer_size
  enable_http_compression http_zlib_compression_level wait_end_of_query client_protocol_version`.split(/\s+/),
);

const decompress: Record<string, (bytes: Buffer, options: { maxOutputLength: number }) => Promise<Buffer>> = {
  gzip: promisify(gunzip) as never,
  deflate: promisify(inflate) as never,
  br: promisify(brotliDecompress) as never,
};

let held = 0;

/** Waits for a request's body. EngineError when it is too large or damaged; any other error when the client is gone. */
async function readBody(request: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  try {
    for await (const chunk of request as AsyncIterable<Buffer>) {
      size += chunk.length;
      held += chunk.length;
      if (size > bodyBound) throw tooLarge();
      if (held > heldBound) throw new EngineError(241, 'MEMORY_LIMIT_EXCEEDED', 'Too many large requests at once.');
      chunks.push(chunk);
    }
  } finally {
    held -= size;
  }
  const whole = chunks.length === 1 && chunks[0] ? chunks[0] : Buffer.concat(chunks);
  const encoding = request.headers['content-encoding'];
  if (encoding === undefined || encoding === 'identity' || whole.length === 0) return whole;
  const method = decompress[encoding];
  if (method === undefined) {
    throw new EngineError(89, 'UNKNOWN_COMPRESSION_METHOD', `Unknown compression method: ${encoding}`);
  }
  try {
    return await method(whole, { maxOutputLength: bodyBound });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ERR_BUFFER_TOO_LARGE') throw tooLarge();
    throw new EngineError(271, 'CANNOT_DECOMPRESS', `The request body is no ${encoding}.`);
  }
}

function tooLarge(): EngineError {
  return new EngineError(307, 'TOO_MANY_BYTES', `The request body is larger than ${bodyBound} bytes.`);
}

/** All that a request asks of the engine. Throws EngineError. */
function readRequest(request: IncomingMessage, url: URL, body: Buffer): EngineRequest {
  const query = Buffer.from(url.searchParams.get('query') ?? '');
  const [all, statement] = split(query, body);
  if (statement.kind === 'refused') throw new EngineError(statement.code, statement.name, statement.reason);
  const dataStart = statement.kind === 'insert' ? statement.dataStart : all.length;
  if (dataStart > sqlBound) throw new EngineError(62, 'SYNTAX_ERROR', `Max query size exceeded (${sqlBound} bytes)`);
  // Where the statement came in the URL, the whole body is data, and is not copied.
  const data = statement.kind !== 'insert' ? Buffer.alloc(0) : all === query ? body : all.subarray(dataStart);

  const settings: Record<string, string> = {};
  const params: Record<string, string> = {};
  for (const [name, value] of url.searchParams) {
    if (!/^\w+$/.test(name))
      throw new EngineError(115, 'UNKNOWN_SETTING', `Setting ${name} is neither known nor well formed`);
    if (name.startsWith('session_'))
      throw new EngineError(48, 'NOT_IMPLEMENTED', 'HTTP sessions are not supported here.');
    if (name.startsWith('param_')) params[name.slice('param_'.length)] = value;
    else if (!notSettings.has(name)) settings[name] = value;
  }
  // As in ClickHouse, GET reads only, whatever it says.
  if (request.method === 'GET') settings.readonly ??= '2';
  const role = request.headers['x-sluice-role'];
  const own = statement.kind === 'other' ? statement.format : undefined;
  const wanted = url.searchParams.get('default_format') || request.headers['x-clickhouse-format'];
  return {
    role: isRole(role) ? role : 'read',
    queryId: url.searchParams.get('query_id') || randomUUID(),
    sql: all.subarray(0, dataStart).toString('utf8'),
    statement,
    data,
    format: own ?? (typeof wanted === 'string' && wanted !== '' ? wanted : 'TabSeparated'),
    database: url.searchParams.get('database') || String(request.headers['x-clickhouse-database'] ?? '') || undefined,
    settings,
    params,
  };
}

function split(query: Buffer, body: Buffer): [Buffer, ReturnType<typeof readStatement>] {
  if (query.length > 0) {
    const statement = readStatement(query);
    const allData = statement.kind === 'insert' && statement.dataStart === query.length;
    if (allData || body.length === 0) return [query, statement];
  }
  const all = query.length > 0 ? Buffer.concat([query, Buffer.from('\n'), body]) : body;
  return [all, readStatement(all.subarray(0, sqlBound + 1))];
}

/** ClickHouse's own table of HTTP codes; what is not in it is 500. */
const statusOf = new Map<number, number>();
for (const [status, codes] of [
  [400, [6, 8, 15, 25, 26, 27, 36, 38, 41, 43, 44, 53, 62, 72, 117, 167, 168, 321, 376, 427, 441, 456, 457, 467]],
  [404, [46, 47, 50, 56, 60, 63, 73, 78, 81, 98, 115, 336]],
  [413, [307]],
  [501, [48]],
  [503, [76, 439]],
] as const) {
  for (const code of codes) statusOf.set(code, status);
}

const contentTypes: [RegExp, string][] = [
  [/^JSON.*EachRow/i, 'application/x-ndjson; charset=UTF-8'],
  [/^JSON/i, 'application/json; charset=UTF-8'],
  [/^(TSV|TabSeparated)/i, 'text/tab-separated-values; charset=UTF-8'],
  [/^CSV/i, 'text/csv; charset=UTF-8; header=absent'],
  [/^(Null|Values|Pretty|Vertical|Markdown|SQLInsert|XML)/i, 'text/plain; charset=UTF-8'],
];

function sendError(response: ServerResponse, error: EngineError, version: string): void {
  if (response.destroyed || response.headersSent) return;
  const text = `Code: ${error.code}. DB::Exception: ${error.message} (${error.type}) (version ${version} (embedded))\n`;
  response.writeHead(statusOf.get(error.code) ?? 500, {
    'Content-Type': 'text/plain; charset=UTF-8',
    'X-ClickHouse-Exception-Code': String(error.code),
    'Content-Length': Buffer.byteLength(text),
    ...(error.code === 307 ? { Connection: 'close' } : {}),
  });
  response.end(text);
}

async function sendAnswer(
  response: ServerResponse,
  request: EngineRequest,
  answer: EngineAnswer,
  compress: boolean,
): Promise<void> {
  const { readRows, readBytes, writtenRows, writtenBytes } = answer;
  const figures = {
    read_rows: readRows,
    read_bytes: readBytes,
    written_rows: writtenRows,
    written_bytes: writtenBytes,
  };
  const more = { total_rows_to_read: 0, result_rows: readRows, result_bytes: answer.bytes.length };
  const elapsed = { elapsed_ns: Math.round(answer.elapsed * 1e9) };
  const summary = Object.entries({ ...figures, ...more, ...elapsed }).map(([name, value]) => [name, String(value)]);
  const gzipped = compress && answer.bytes.length > 1024;
  const bytes = gzipped ? await (promisify(gzip) as (b: Uint8Array) => Promise<Buffer>)(answer.bytes) : answer.bytes;
  const type = contentTypes.find(([pattern]) => pattern.test(request.format))?.[1] ?? 'application/octet-stream';
  response.writeHead(200, {
    'Content-Type': type,
    'Content-Length': bytes.length,
    'X-ClickHouse-Query-Id': request.queryId,
    'X-ClickHouse-Format': request.format,
    'X-ClickHouse-Summary': JSON.stringify(Object.fromEntries(summary)),
    'X-ClickHouse-Server-Display-Name': 'sluice-embedded',
    'X-ClickHouse-Timezone': 'UTC',
    ...(gzipped ? { 'Content-Encoding': 'gzip' } : {}),
  });
  response.end(bytes);
}

/** Web pages can reach loopback: a request of a page, or for another host's name, is none of ours. */
function isForeign(request: IncomingMessage, host: string): boolean {
  if (request.headers.origin !== undefined) return true;
  const name = (request.headers.host ?? '').replace(/:\d+$/, '');
  return !(['127.0.0.1', 'localhost', '[::1]', host].includes(name) || host === '0.0.0.0');
}

async function handle(database: ClickHouseDatabase, host: string, request: IncomingMessage, response: ServerResponse) {
  const url = new URL(request.url ?? '/', 'http://engine');
  if (isForeign(request, host)) {
    response.writeHead(403, { 'Content-Type': 'text/plain' }).end('Requests of web pages are refused.\n');
    return;
  }
  if (url.pathname === '/ping') {
    response.writeHead(200, { 'Content-Type': 'text/plain; charset=UTF-8' }).end('Ok.\n');
    return;
  }
  if (url.pathname !== '/') {
    response.writeHead(404, { 'Content-Type': 'text/plain; charset=UTF-8' }).end('There is no handle here.\n');
    return;
  }
  const receiving = {
    queryId: url.searchParams.get('query_id') ?? '',
    sql: url.searchParams.get('query') ?? '',
    begun: performance.now(),
    abort: () => request.destroy(),
  };
  const body = await database.receive(receiving, () => readBody(request));
  if (body.length === 0 && !url.searchParams.has('query')) {
    response.writeHead(200, { 'Content-Type': 'text/plain; charset=UTF-8' }).end('Ok.\n');
    return;
  }
  const wanted = readRequest(request, url, body);
  // A reader that has gone frees its place; a write that has arrived whole is carried out.
  response.once('close', () => {
    if (response.writableFinished || wanted.statement.kind !== 'other' || !wanted.statement.reads) return;
    void database.cancel(wanted.queryId);
  });
  const answer = await database.run(wanted);
  const accepts = /\bgzip\b/.test(String(request.headers['accept-encoding'] ?? ''));
  await sendAnswer(response, wanted, answer, accepts && url.searchParams.get('enable_http_compression') === '1');
}

async function main(folder: string, port: number, host: string): Promise<void> {
  mkdirSync(folder, { recursive: true });
  const database = new ClickHouseDatabase(folder);
  await database.open();
  const server = createServer({ maxHeaderSize: 1024 * 1024, keepAliveTimeout: 30_000, requestTimeout: 600_000 });
  server.on('request', (request, response) => {
    handle(database, host, request, response).catch((error: unknown) => {
      // A client that went away while it sent: nothing of it was carried out.
      if (request.destroyed && !request.complete && !(error instanceof EngineError)) return;
      const known = error instanceof EngineError ? error : new EngineError(1002, 'STD_EXCEPTION', String(error));
      sendError(response, known, database.version);
    });
  });
  server.on('clientError', (_error, socket) => socket.destroy());
  server.listen(port, host, () => console.log(`ClickHouse engine ${database.version} on http://${host}:${port}`));
  const stop = async () => {
    server.close();
    server.closeIdleConnections();
    await database.close(5000);
    process.exit(0);
  };
  process.once('SIGTERM', stop);
  process.once('SIGINT', stop);
}

const [folder, port, host] = process.argv.slice(2);
if (folder === undefined || port === undefined) {
  console.error('usage: clickhouse_engine.ts <data folder> <port> [host]');
  process.exit(2);
}
await main(folder, Number(port), host ?? '127.0.0.1');
