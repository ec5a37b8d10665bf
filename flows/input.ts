/**
 * Reads what people and programs send to flows. Anything may arrive from Temporal UI or the `temporal` CLI, so that
 * each reader throws at once, and shows input that is right.
 */
import { idPattern } from '../model/asset.ts';
import type { BackfillRequest } from '../model/deployment.ts';
import { type ExtractRequest, readExtractParameters } from '../model/extract.ts';
import { formatInstant, parseInstant } from '../model/instant.ts';
import type { VerifyRequest } from '../model/messages.ts';
import type { CaptureConfig, ConnectRequest } from '../model/source.ts';
import { refuse } from './refuse.ts';
import { Unreadable } from './unreadable.ts';

/** Where a flow's state would grow too large to be carried on: 512 KB of JSON. */
export const stateLimit = 512 * 1024;

const connectExample =
  'Right is e.g. {"id": "postgres_main", "type": "postgresql", "connection_string": "${DATABASE_URL}", ' +
  '"config": {"tables": ["accounts", "transactions"], "poll_interval": 1}}.';
const verifyExample = 'Right is e.g. {"source": "postgres_main"} or {"source": "postgres_main", "table": "accounts"}.';
const tablesExample = 'Right is e.g. {"tables": ["accounts", "sales.orders"]}.';
const someTablesExample = 'Right is e.g. {"tables": ["accounts", "sales.orders"]}, or no input for all.';

const extractExample =
  'Right is e.g. {"deployment": "assets", "api_url": "${ASSET_API_URL}", "page_size": 500}, and for one interval also ' +
  '"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z".';
const backfillExample =
  'Right is e.g. {"deployment": "assets", "from": "2026-01-01", "to": "2026-02-01", "only_missing": true}, or ' +
  '{"source": "postgres_main", "tables": ["accounts"]}.';

const configKeys = ['tables', 'poll_interval', 'mode', 'exclude_columns', 'options'];
const requestKeys = ['id', 'type', 'connection_string', 'config'];
const modes = ['copy', 'log', 'both'];

/** A ConnectRequest with its defaults. Its connection string must be sealed or a reference; else it is not repeated. */
export function readConnectRequest(input: unknown): ConnectRequest {
  const bad = refusalOf(input, connectExample);
  if (!isObject(input)) throw bad('the input is not a connect request');
  expectKeys(input, requestKeys, bad);
  const { id, type, connection_string: connection } = input;
  if (typeof id !== 'string' || !idPattern.test(id)) {
    throw bad('`id` must be a small letter, then up to 39 small letters, digits or underscores');
  }
  if (type !== 'postgresql') throw bad('`type` must be "postgresql"');
  if (typeof connection !== 'string' || connection === '') throw bad('`connection_string` is missing');
  if (!isSealed(connection)) throw plainSecret();
  return { id, type, connection_string: connection, config: readConfig(input.config, bad) };
}

/** True for what may stand in a flow: sealed, or an environment reference such as `${DATABASE_URL}`. */
function isSealed(text: string): boolean {
  return /^sealed:v1:[A-Za-z0-9_-]+$/.test(text) || /^\$\{[A-Za-z_][A-Za-z0-9_]*\}$/.test(text);
}

function plainSecret(): Error {
  return refuse(
    'configuration',
    '`connection_string` is plain text, and what is sent to Temporal is kept in its history',
    'Write a reference to an environment variable of the worker, e.g. "${DATABASE_URL}", or connect by ' +
      '`sluice sources connect` or POST /api/v1/sources/connect, which seal it. If it held a password, change that.',
  );
}

function readConfig(input: unknown, bad: (reason: string) => Error): CaptureConfig {
  const config = input ?? {};
  if (!isObject(config)) throw bad('`config` is not an object');
  expectKeys(config, configKeys, bad);
  const { poll_interval: interval = 1, mode = 'copy', exclude_columns: excluded = {}, options = {} } = config;
  if (typeof interval !== 'number' || !(interval > 0 && interval <= 3600)) {
    throw bad('`config.poll_interval` must be seconds, above 0 and up to 3600');
  }
  if (typeof mode !== 'string' || !modes.includes(mode)) throw bad('`config.mode` must be "copy", "log" or "both"');
  if (!isObject(excluded) || !Object.values(excluded).every(isNames)) {
    throw bad('`config.exclude_columns` must name columns by table, e.g. {"accounts": ["password_hash"]}');
  }
  if (!isObject(options)) throw bad('`config.options` is not an object');
  if (config.tables !== undefined && !isNames(config.tables)) throw bad('`config.tables` must be a list of names');
  return {
    ...(config.tables === undefined ? {} : { tables: config.tables as string[] }),
    poll_interval: interval,
    mode: mode as CaptureConfig['mode'],
    exclude_columns: excluded as Record<string, string[]>,
    options,
  };
}

/** A VerifyRequest. */
export function readVerifyRequest(input: unknown): VerifyRequest {
  const bad = refusalOf(input, verifyExample);
  if (!isObject(input)) throw bad('the input is not a verify request');
  expectKeys(input, ['source', 'table', 'repair', 'share', 'scheduled'], bad);
  const { source, table, ...how } = input;
  if (typeof source !== 'string' || !idPattern.test(source)) throw bad('`source` must be the id of a source');
  if (table !== undefined && (typeof table !== 'string' || table === '')) throw bad('`table` must be a name');
  const { share, repair, scheduled } = how;
  if (share !== undefined && !(typeof share === 'number' && share > 0 && share <= 1))
    throw bad('`share` must be a number above 0, up to 1');
  if (![repair, scheduled].every((flag) => flag === undefined || typeof flag === 'boolean'))
    throw bad('`repair` and `scheduled` must be true or false');
  return { source, ...(table === undefined ? {} : { table }), ...(how as Pick<VerifyRequest, 'share'>) };
}

/** The source that an input such as {"source": "postgres_main"} names. */
export function readSourceName(input: unknown): string {
  const bad = refusalOf(input, 'Right is e.g. {"source": "postgres_main"}.');
  if (!isObject(input)) throw bad('the input names no source');
  expectKeys(input, ['source'], bad);
  if (typeof input.source !== 'string' || !idPattern.test(input.source))
    throw bad('`source` must be the id of a source');
  return input.source;
}

/** An ExtractRequest with its defaults. */
export function readExtractRequest(input: unknown): ExtractRequest {
  const bad = refusalOf(input, extractExample);
  if (!isObject(input)) throw bad('the input is not an extract request');
  const { deployment, from, to, ...parameters } = input;
  if (typeof deployment !== 'string' || !idPattern.test(deployment)) {
    throw bad('`deployment` must be a small letter, then up to 39 small letters, digits or underscores');
  }
  const wrong = (reason: string, remedy: string) => refuse('configuration', reason, remedy);
  const read = { deployment, ...readExtractParameters(parameters, wrong, extractExample) };
  return from === undefined && to === undefined ? read : { ...read, ...readStretch(from, to, bad) };
}

/** A BackfillRequest. */
export function readBackfillRequest(input: unknown): BackfillRequest {
  const bad = refusalOf(input, backfillExample);
  if (!isObject(input)) throw bad('the input is not a backfill request');
  if (input.source !== undefined) {
    expectKeys(input, ['source', 'tables'], bad);
    const { source, tables } = input;
    if (typeof source !== 'string' || !idPattern.test(source)) throw bad('`source` must be the id of a source');
    if (tables !== undefined && !isNames(tables)) throw bad('`tables` must be a list of names');
    return tables === undefined ? { source } : { source, tables };
  }
  expectKeys(input, ['deployment', 'from', 'to', 'only_missing'], bad);
  const { deployment, from, to, only_missing: onlyMissing = false } = input;
  if (typeof deployment !== 'string' || !idPattern.test(deployment)) {
    throw bad('`deployment` must be the name of a deployment');
  }
  if (typeof onlyMissing !== 'boolean') throw bad('`only_missing` must be true or false');
  return { deployment, ...readStretch(from, to, bad), only_missing: onlyMissing };
}

/** A half-open stretch of time [from, to), as ISO texts in UTC. */
function readStretch(from: unknown, to: unknown, bad: (reason: string) => Error): { from: string; to: string } {
  const begin = typeof from === 'string' ? parseInstant(from) : undefined;
  const end = typeof to === 'string' ? parseInstant(to) : undefined;
  if (begin === undefined || end === undefined) throw bad('`from` and `to` must be dates, or instants with a zone');
  if (begin >= end) throw bad('`from` must be before `to`');
  return { from: formatInstant(begin), to: formatInstant(end) };
}

/** The table names of an update; undefined when it names none and need not. */
export function readTables(input: unknown, required: boolean): string[] | undefined {
  const bad = refusalOf(input, required ? tablesExample : someTablesExample);
  // A key that is wrong must not mean all tables.
  if (isObject(input)) expectKeys(input, ['tables'], bad);
  const tables = Array.isArray(input) ? input : isObject(input) ? input.tables : input;
  if (tables === undefined || tables === null) {
    if (required) throw bad('no tables are named');
    return undefined;
  }
  if (!isNames(tables)) throw bad('`tables` must be a list of names');
  if (tables.length === 0 && required) throw bad('no tables are named');
  return tables.length === 0 ? undefined : [...new Set(tables)];
}

/** Refuses input to an update that takes none, and means the whole source: nothing, null and {} are right. */
export function expectNoInput(input: unknown, update: string): void {
  if (input === undefined || input === null || (isObject(input) && Object.keys(input).length === 0)) return;
  const bad = refusalOf(
    input,
    'Right is no input at all, or {}. For some tables there are `addTables`, `removeTables` and `resync`.',
  );
  throw bad(`\`${update}\` is for the whole source, and takes no input`);
}

/** The options of the update `remove`. */
export function readRemoval(input: unknown): { drop_copies: boolean; force: boolean } {
  const bad = refusalOf(input, 'Right is e.g. {"drop_copies": false, "force": false}.');
  const options = input ?? {};
  if (!isObject(options)) throw bad('the input is not an object');
  expectKeys(options, ['drop_copies', 'force'], bad);
  const { drop_copies: dropCopies = false, force = false } = options;
  if (typeof dropCopies !== 'boolean' || typeof force !== 'boolean') throw bad('both must be true or false');
  return { drop_copies: dropCopies, force };
}

/** Makes the refusals of an input: they show `right`. That one could not be decoded goes before any other reason. */
export function refusalOf(input: unknown, right: string): (reason: string) => Error {
  return (reason) => refuse('configuration', input instanceof Unreadable ? input.reason : reason, right);
}

export function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !(value instanceof Unreadable);
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((name) => typeof name === 'string' && name !== '' && name.length <= 300);
}

/** Refuses keys that nobody reads. */
export function expectKeys(value: Record<string, unknown>, allowed: string[], bad: (reason: string) => Error): void {
  const unknown = Object.keys(value).find((key) => !allowed.includes(key));
  if (unknown !== undefined) throw bad(`unknown key \`${unknown.slice(0, 40)}\`; known are ${allowed.join(', ')}`);
}
