/** The options of a PostgreSQL source: names of slot and publication, and asset ids that differ from the usual ones. */
import { SluiceError } from '../../../model/errors.ts';
import { isGlob } from '../../../model/glob.ts';
import { parseSize } from '../../../model/log.ts';
import { schemaPolicies } from '../../../model/source.ts';
import { readVerify } from '../../../model/verify.ts';

export interface PostgresqlOptions {
  publication: string;
  slot: string;
  /** By table name as people write it (`accounts`, `sales.orders`). */
  assetIds: Record<string, string>;
  /** Bytes of log that the source's disk has room for; null = not known. */
  logBudget: number | null;
  /** The slot is kept through a failover of the source. */
  failover: boolean;
  /** Where the role may, the source is made to tell the log when tables are altered. */
  ddlTrigger: boolean;
}

const allowed = [
  'publication',
  'slot',
  'asset_ids',
  'schema_changes',
  'failover',
  'log_budget',
  'verify',
  'ddl_trigger',
];
const slotPattern = /^[a-z0-9_]{1,63}$/;
const assetPattern = /^[A-Za-z0-9_.$-]{1,128}$/;

/** Reads `config.options`, with `sluice_{source}` for both names where nothing is said. Errors: `configuration`. */
export function readOptions(source: string, options: Record<string, unknown>): PostgresqlOptions {
  const refuse = (reason: string, remedy: string): never => {
    throw new SluiceError('configuration', reason, remedy, { source });
  };
  for (const key of Object.keys(options)) {
    if (!allowed.includes(key)) refuse(`unknown option ${JSON.stringify(key)}`, `Options are ${allowed.join(', ')}.`);
  }
  const { publication = `sluice_${source}`, slot = `sluice_${source}`, asset_ids: assetIds = {} } = options;
  const { schema_changes: policy = 'evolve' } = options;
  if (!schemaPolicies.some((known) => known === policy))
    return refuse('options.schema_changes is no policy', `Policies are ${schemaPolicies.join(', ')}.`);
  if (
    typeof publication !== 'string' ||
    !publication ||
    publication.includes('\0') ||
    Buffer.byteLength(publication) > 63
  )
    return refuse('options.publication is not a name', 'Write a name of 1 to 63 bytes, e.g. sluice.');
  if (typeof slot !== 'string' || !slotPattern.test(slot))
    return refuse('options.slot is not a slot name', 'Write 1 to 63 of the characters a-z, 0-9 and _, e.g. sluice.');
  if (typeof assetIds !== 'object' || assetIds === null || Array.isArray(assetIds))
    return refuse('options.asset_ids is not a map', 'Write asset_ids: { "sales.orders": my_orders }.');
  for (const [table, id] of Object.entries(assetIds)) {
    if (isGlob(table))
      refuse(`options.asset_ids names ${table}`, 'Name one table for each asset id: globs are not taken.');
    // With the prefix it meets none of Sluice's own tables.
    if (typeof id !== 'string' || !id.startsWith(`${source}_`) || !assetPattern.test(id))
      refuse(
        `options.asset_ids gives ${table} no usable id`,
        `An asset id begins with ${source}_ and goes on with letters, digits or any of _ . $ -, 128 in all.`,
      );
  }
  const verify = readVerify(options.verify);
  if (verify !== null && 'mistake' in verify)
    return refuse(`options.verify: ${verify.mistake}`, 'Write e.g. verify: { interval: 1h }, or verify: off.');
  const { failover = false, log_budget: budget = null, ddl_trigger: ddlTrigger = true } = options;
  if (typeof failover !== 'boolean')
    return refuse('options.failover is neither true nor false', 'Write failover: true.');
  if (typeof ddlTrigger !== 'boolean')
    return refuse('options.ddl_trigger is neither true nor false', 'Write ddl_trigger: false.');
  const logBudget = typeof budget === 'string' ? parseSize(budget) : budget === null ? null : undefined;
  if (logBudget === undefined) return refuse('options.log_budget is no size', 'Write e.g. log_budget: 20GB.');
  return { publication, slot, assetIds: assetIds as Record<string, string>, logBudget, failover, ddlTrigger };
}
