/** Rows of a source for a rule that is tried. They are read here and not by a flow, so that no row is kept in its history. */
import { open } from '../../activities/secrets.ts';
import { readSourceRows, type SourceRows, type WantedRows } from '../../activities/transform/source_rows.ts';
import { asSluiceError, SluiceError } from '../../model/errors.ts';
import { tableName } from '../../model/table.ts';
import { readEndpoints } from '../../workers/settings.ts';
import type { Control } from './control.ts';
import { registeredSource } from './sources.ts';

/**
 * Reads rows of the source of a copy. Errors, each saying what the rows are wanted for: `configuration` where the connection string cannot
 * be opened in this process, those of reaching the source, `table_changed`.
 */
export async function readPreviewRows(control: Control, wanted: WantedRows): Promise<SourceRows> {
  const request = await registeredSource(control, await sourceOf(control, wanted.table.asset_id));
  try {
    const connectionString = open(request.connection_string, control.settings.secretKey, environmentOf(control));
    return await readSourceRows({ request, connectionString }, wanted);
  } catch (error) {
    const { kind, message, remedy } = asSluiceError(error);
    const why = `the copy does not have ${tableName(wanted.table)} as this rule would see it, and the source ${request.id} cannot be read from here`;
    const otherwise = remedy.replace('where the worker runs', 'where this runs, too');
    const place = { source: request.id };
    throw new SluiceError(
      kind,
      `${why}: ${message}`,
      `${otherwise} Or try the rule on rows that you send.`,
      place,
      error,
    );
  }
}

/** The source that an asset is of. Errors: `not_found`. */
async function sourceOf({ clickhouse }: Control, asset: string): Promise<string> {
  const [row] = await clickhouse.rows<{ source: string }>(
    `SELECT source FROM ${clickhouse.name('_schemas')} FINAL WHERE asset = {asset:String} ORDER BY generation DESC LIMIT 1`,
    { params: { asset } },
  );
  if (row) return row.source;
  throw new SluiceError('not_found', `there is no copy ${asset}`, 'See what there is: `sluice status`.');
}

/** As the worker of an embedded stack has it, which runs beside. */
function environmentOf({ settings }: Control): NodeJS.ProcessEnv {
  const postgres = readEndpoints(settings.home)?.postgres;
  // The one of somebody's own database is written without its password.
  return { ...(postgres && !postgres.includes('***@') && { DATABASE_URL: postgres }), ...process.env };
}
