/** What a statement has to wait for: the copies that it reads, of the sources that they belong to. */
import { SluiceError } from '../../model/errors.ts';
import { captureMessages, captureWorkflowId } from '../../model/messages.ts';
import type { CaptureStatus } from '../../model/source.ts';
import type { Control } from './control.ts';
import { type Reached, waitForCut } from './cuts.ts';
import type { QueryBody } from './shapes.ts';
import { registered, registeredSource } from './sources.ts';
import { query } from './temporal.ts';

/** A source, and which of its assets are read; undefined = perhaps any. */
interface Reading {
  source: string;
  assets: string[] | undefined;
}

const defaultTimeout = 30;

/** Waits for all sources that the statement reads. Errors: as `waitForCut`; `configuration` when they cannot be told. */
export async function waitForTables(control: Control, body: QueryBody, tables: string[]): Promise<Reached[]> {
  const position = body.wait_for ?? 'now';
  const readings = await readingsOf(
    control,
    body.source,
    tables.map((name) => bare(control, name)),
  );
  if (position !== 'now' && readings.length > 1) {
    const names = readings.map((reading) => reading.source).join(', ');
    const reason = `the statement reads copies of ${names}, and a position belongs to one source`;
    throw new SluiceError('configuration', reason, 'Wait for now, or name the source that the position is of.');
  }
  const timeout = body.timeout ?? defaultTimeout;
  return await Promise.all(
    readings.map(({ source, assets }) => waitForCut(control, { source, assets, position, timeout })),
  );
}

/** The name without the database that statements run in. */
function bare(control: Control, name: string): string {
  const own = `${control.settings.clickhouseDatabase}.`;
  return name.startsWith(own) ? name.slice(own.length) : name;
}

async function readingsOf(control: Control, named: string | undefined, tables: string[]): Promise<Reading[]> {
  const ids = named === undefined ? (await registered(control)).map(({ id }) => id) : [named];
  if (named !== undefined) await registeredSource(control, named);
  const sources = await Promise.all(ids.map(async (id) => ({ id, assets: await assetsOf(control, id) })));
  const owned = new Set(sources.flatMap(({ assets }) => [...assets.keys()]));
  // A table that is no copy may be a view over copies: then any may be read. Other names are those of WITH.
  const open = await anyIsThere(
    control,
    tables.filter((name) => !owned.has(name) && !name.startsWith('system.')),
  );
  const readings = sources.flatMap(({ id, assets }) => {
    const read = tables.flatMap((name) => assets.get(name) ?? []);
    return read.length > 0 ? [{ source: id, assets: [...new Set(read)] }] : [];
  });
  if (readings.length > 0) return open ? ids.map((source) => ({ source, assets: undefined })) : readings;
  const [only] = sources;
  if (only && sources.length === 1) return [{ source: only.id, assets: undefined }];
  const remedy = ids.length > 0 ? `Name one: ${ids.join(', ')} (--source, or source in the request).` : 'Connect one.';
  throw new SluiceError('configuration', 'it cannot be told from the statement which source to wait for', remedy);
}

/** True when one of these names is a table of the database, or of another one. */
async function anyIsThere(control: Control, names: string[]): Promise<boolean> {
  if (names.length === 0) return false;
  const found = await control.clickhouse.rows(
    `SELECT 1 FROM system.tables WHERE name IN {names:Array(String)} AND database = {database:String}
       OR concat(database, '.', name) IN {names:Array(String)} LIMIT 1`,
    { params: { names, database: control.settings.clickhouseDatabase } },
  );
  return found.length > 0;
}

/** The assets of a source by all names that a statement may read them under. */
async function assetsOf(control: Control, source: string): Promise<Map<string, string>> {
  const status = await query<CaptureStatus>(control, captureWorkflowId(source), captureMessages.status).catch(
    (error: unknown) => {
      // A source whose flow is lost is told of where somebody waits for it.
      if (error instanceof SluiceError && error.kind === 'not_found') return undefined;
      throw error;
    },
  );
  const names = (asset: string): [string, string][] =>
    ['', '_current', '_log'].map((suffix) => [asset + suffix, asset]);
  return new Map((status?.tables ?? []).flatMap(({ asset_id }) => names(asset_id)));
}
