/** The shapes that people and programs send and get: one zod schema each, for REST, its OpenAPI page and the YAML files. */
import { z } from 'zod';
import { idPattern } from '../../model/asset.ts';
import { type ErrorKind, errorTable } from '../../model/errors.ts';
import { parseSize } from '../../model/log.ts';
import { schemaPolicies } from '../../model/source.ts';
import { readVerify } from '../../model/verify.ts';

const name63 = z.string().min(1).max(63);

export const sourceId = z
  .string()
  .regex(idPattern, 'an id starts with a lower-case letter and has up to 40 of a-z, 0-9 and _')
  .describe('Id of a source; sources and deployments share one namespace');

const tableName = z.string().min(1).max(200).describe('A name, schema.name, or a glob such as sales_*');
export const tableNames = z.array(tableName).max(10_000);

export const postgresqlOptions = z
  .strictObject({
    publication: name63.optional().describe('Publication to use; default sluice_{id}'),
    slot: z
      .string()
      .regex(/^[a-z0-9_]{1,63}$/, 'a slot has up to 63 of a-z, 0-9 and _')
      .optional()
      .describe('Replication slot to use; default sluice_{id}'),
    asset_ids: z
      .record(z.string(), z.string().min(1).max(200))
      .optional()
      .describe('Asset id by table, where two would collide'),
    schema_changes: z
      .enum(schemaPolicies)
      .optional()
      .describe(
        'When a table is altered: evolve (default), the copy follows · approve, it waits for sources approve · ignore, new columns are left out · stop, it waits for a re-sync',
      ),
    failover: z.boolean().optional().describe('Standbys keep the slot too (PostgreSQL 17 or later)'),
    ddl_trigger: z
      .boolean()
      .optional()
      .describe('Where the role may, an event trigger tells of altered tables at once (default); false: none is made'),
    verify: z
      .unknown()
      .superRefine((option, context) => {
        const read = readVerify(option);
        if (read !== null && 'mistake' in read) context.addIssue({ code: 'custom', message: read.mistake });
      })
      .optional()
      .describe(
        'How copies are compared with the source by themselves: off, or e.g. { interval: 1h, share: 0.1, repair: true }',
      ),
    log_budget: z
      .string()
      .refine((text) => parseSize(text) !== undefined, 'write a size, e.g. 20GB')
      .optional()
      .describe('Log that the source’s disk has room for: it is told in time when that will be reached'),
  })
  .describe('Options by type');

/** What to capture and how; the same keys as a source in cdc.yaml. */
export const captureConfig = z
  .strictObject({
    tables: tableNames.min(1).optional().describe('Default: every table of public with a usable key'),
    poll_interval: z.number().min(0.01).max(3600).default(1).describe('Seconds that a batch may wait at most'),
    mode: z.enum(['copy', 'log', 'both']).default('copy'),
    exclude_columns: z
      .record(z.string(), z.array(z.string().min(1)).min(1))
      .default({})
      .describe('By table: columns that are stored nowhere'),
    options: postgresqlOptions.default({}),
  })
  .describe('What to capture and how');

/** A connection string, or a reference to a variable of the worker’s environment. */
export const connectionString = z
  .string()
  .max(4096)
  .regex(
    /^(postgres(ql)?:\/\/\S+|\$\{[A-Za-z_][A-Za-z0-9_]*\})$/,
    'write postgresql://user:password@host:5432/database, or a reference such as ${DATABASE_URL}',
  )
  .describe('postgresql://… (sealed at once, never shown again) or ${VARIABLE} of the worker’s environment');

export const sourceType = z.enum(['postgresql']);

export const connectBody = z.strictObject({
  id: sourceId,
  type: sourceType,
  connection_string: connectionString,
  config: captureConfig.default({ poll_interval: 1, mode: 'copy', exclude_columns: {}, options: {} }),
});
export type ConnectBody = z.infer<typeof connectBody>;

const finding = z.object({
  code: z.string(),
  blocking: z.boolean(),
  table: z.string().optional(),
  detail: z.string(),
  remedy: z.string(),
});
/** Of a GET: what is secret has no place in an address, so the connection string can only be a reference. */
export const discoverQuery = z.strictObject({
  id: sourceId.default('discovered'),
  type: sourceType.default('postgresql'),
  connection_string: z
    .string()
    .regex(/^\$\{[A-Z_][A-Z0-9_]*\}$/, 'must be a reference such as ${DATABASE_URL}; send others by POST')
    .default('${DATABASE_URL}'),
  tables: z
    .string()
    .max(10_000)
    .optional()
    .describe('Names or globs with commas between; default every table of public'),
});
export const discoverAnswer = z.object({
  tables: z.array(z.object({ asset_id: z.string(), table: z.string() })).describe('Those that can be copied'),
  findings: z.array(finding),
});
export type DiscoverAnswer = z.infer<typeof discoverAnswer>;

/** Which tables: a bare array, or an object. */
export const someTables = z.union([tableNames.min(1), z.strictObject({ tables: tableNames.min(1) })]);
export const maybeTables = z.union([tableNames, z.strictObject({ tables: tableNames.optional() })]).nullish();

/** The names in either spelling; undefined = all. */
export function namesIn(body: z.infer<typeof maybeTables>): string[] | undefined {
  const names = Array.isArray(body) ? body : body?.tables;
  return names && names.length > 0 ? names : undefined;
}

export const errorReport = z.object({
  kind: z.enum(Object.keys(errorTable) as [ErrorKind, ...ErrorKind[]]),
  reason: z.string(),
  remedy: z.string(),
});

export const workflowRef = z.object({ id: z.string(), run_id: z.string().nullable(), url: z.string() });

const sourceTable = z.object({
  asset_id: z.string(),
  table: z.string(),
  status: z.enum(['pending', 'snapshotting', 'streaming', 'failed']),
  rows: z.number().nullable().describe('Rows of the copy, at most some seconds old; null when not counted yet'),
  rejected: z.number().describe('Rejects that are open: rows that are held back now'),
  progress: z.number().min(0).max(1),
  notice: z.string().nullable().describe('Why it is copied anew without anybody having asked for it'),
  error: errorReport.nullable(),
  affects: z
    .array(z.string())
    .optional()
    .describe('While somebody has to agree with a change of the table: what is made from it, at most 20 assets'),
});

const logFigures = z.object({
  retained_bytes: z.number(),
  limit_bytes: z
    .number()
    .nullable()
    .describe('The source gives up at so much, or its disk is full; null = no limit known'),
  growth_bytes_per_second: z.number().nullable(),
  limit_in_seconds: z.number().nullable().describe('When the limit is reached at this growth'),
  warning: errorReport.nullable(),
});

export const sourceAnswer = z
  .object({
    id: sourceId,
    type: sourceType,
    status: z.enum(['connected', 'snapshotting', 'streaming', 'paused', 'stopped', 'failed']),
    tables: z.array(sourceTable),
    config: z.looseObject({}),
    position: z.string().describe('Up to here everything is stored in ClickHouse'),
    lag_bytes: z.number().nullable().describe('Log of the source not yet stored; null while nothing reads it'),
    lag_seconds: z.number().nullable(),
    changes_total: z.number().nullable().describe('Changes recorded as written; null when ClickHouse cannot be asked'),
    last_batch_at: z.string().nullable(),
    last_error: errorReport.nullable(),
    warning: z.string().nullable(),
    left_out: z
      .array(z.object({ table: z.string(), reason: z.string(), remedy: z.string() }))
      .describe('Tables that the globs mean, that came later, and that cannot be copied as they are'),
    log: logFigures.nullable().describe('Log that the source keeps for us; null when that is not known'),
    alarms: z.array(errorReport).describe('What wants to be looked at, though the source may well move'),
    workflow: workflowRef,
  })
  .describe('A source and its tables');
export type SourceAnswer = z.infer<typeof sourceAnswer>;

const part = z.enum(['ok', 'down']);
export const healthAnswer = z.object({
  status: z.enum(['ok', 'degraded', 'down']),
  checks: z.object({
    temporal: part,
    clickhouse: part,
    worker: part,
    sources: z.record(z.string(), z.string()),
    transform: part,
    memory: z.object({ rss_bytes: z.number() }),
    cpu: z.object({ load: z.number() }),
  }),
  problems: z.array(z.object({ check: z.string(), ...errorReport.shape })).describe('What is wrong, and the next step'),
});
export type HealthAnswer = z.infer<typeof healthAnswer>;

export const queryBody = z.strictObject({
  sql: z.string().min(1).max(100_000).describe('One statement that reads'),
  wait_for: z
    .string()
    .min(1)
    .max(200)
    .optional()
    .describe('Answer only when the copies hold all that the source had: `now`, or at a position of its log'),
  source: sourceId.optional().describe('Whose position it is; default: the source of the tables in the statement'),
  timeout: z.number().positive().max(600).default(30).describe('Seconds to wait at most'),
});
export type QueryBody = z.input<typeof queryBody>;
export const queryAnswer = z.object({
  columns: z.array(z.object({ name: z.string(), type: z.string() })),
  rows: z.array(z.array(z.unknown())),
  row_count: z.number(),
  truncated: z.boolean(),
  reached: z
    .array(z.object({ source: z.string(), position: z.string(), waited_ms: z.number() }))
    .optional()
    .describe('With wait_for: up to where the copies were complete before the statement ran'),
});
export type QueryAnswer = z.infer<typeof queryAnswer>;

const instant = z.string().nullable();
const positionText = z.string().nullable().describe('A position of the source’s log; null while never complete');
export const cutAnswer = z
  .object({
    source: z.string(),
    status: sourceAnswer.shape.status,
    position: positionText.describe('Up to here every table is complete; null while there is no such position'),
    committed_at: instant.describe('Commit time of the last change up to there'),
    recorded_at: instant.describe('When that position was recorded'),
    complete: z.boolean().describe('Every table is complete up to the last record of the stream'),
    tables: z.array(
      z.object({
        asset_id: z.string(),
        table: z.string(),
        status: sourceTable.shape.status,
        complete: z.boolean().describe('Up to the last record of the stream'),
        position: positionText,
        recorded_at: instant,
      }),
    ),
  })
  .describe('Up to where the copies of a source are complete');
export type CutAnswer = z.infer<typeof cutAnswer>;

const timeText = z
  .string()
  .max(40)
  .refine((text) => !Number.isNaN(Date.parse(text)), 'write a time, e.g. 2026-01-31T12:00:00Z');
export const auditQuery = z.object({
  source: z.string().min(1).max(40).optional().describe('Of this source or deployment'),
  asset: z.string().min(1).max(300).optional().describe('That did something to this asset, or its copy'),
  from: timeText.optional().describe('Recorded at this time or later'),
  to: timeText.optional().describe('Recorded before this time'),
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(1000).optional().describe('next_cursor of the page before'),
});
export type AuditQuery = z.input<typeof auditQuery> & { limit?: number };

const effects = z.object({
  inserts: z.number(),
  updates: z.number(),
  deletes: z.number(),
  truncates: z.number(),
  effects: z.number().describe('Read: = written + compacted + superseded + rejected + filtered + truncates'),
  written: z.number(),
  compacted: z.number(),
  superseded: z.number(),
  rejected: z.number(),
  filtered: z.number().optional().describe('Rows of a snapshot that a filter did not let through'),
  bytes: z.number(),
});
const counts = z.object({ in: z.number(), out: z.number(), errors: z.number() });
const batchRecord = z.looseObject({
  id: z.string(),
  source: z.string(),
  kind: z.string(),
  lease: z.number(),
  seq: z.number(),
  position_from: z.string(),
  position_to: z.string(),
  committed_first: z.string().nullable(),
  committed_last: z.string().nullable(),
  changes: z.number(),
  assets: z.record(z.string(), effects),
  rules: z.number().describe('Version of the rules that were applied; 0 = none'),
  applied: z
    .record(z.string(), z.record(z.string(), counts))
    .optional()
    .describe('By asset, what each of its rules and checks did'),
  previous_hash: z.string(),
  hash: z.string(),
  recorded_at: z.string(),
  workflow: z.object({ id: z.string(), run_id: z.string(), url: z.string() }).nullable(),
});
export const auditAnswer = z.object({ items: z.array(batchRecord), next_cursor: z.string().nullable() });
export type AuditAnswer = z.infer<typeof auditAnswer>;

export const verifyBody = z
  .strictObject({
    table: z.string().min(1).optional().describe('Asset id, id of the copy, or table name; none = all'),
    repair: z.boolean().optional().describe('Read rows that differ again from the source'),
  })
  .nullish();

const verifiedTable = z.looseObject({
  asset_id: z.string(),
  identical: z.boolean(),
  source_rows: z.number(),
  copy_rows: z.number(),
  missing: z.number(),
  extra: z.number(),
  different: z.number(),
  rejected: z.number(),
  keys: z.array(z.unknown()).describe('At most 100 keys that differ'),
});
export const verifyAnswer = z.looseObject({
  source: z.string(),
  status: z.string().describe('running, finished or failed; while it runs, tables are those done so far'),
  identical: z.boolean().nullable(),
  tables: z.array(verifiedTable),
});
export type VerifyAnswer = z.infer<typeof verifyAnswer>;

export const problemAnswer = z
  .object({
    type: z.string(),
    title: z.string(),
    status: z.number(),
    detail: z.string(),
    kind: z.string(),
    remedy: z.string(),
    instance: z.string().optional(),
    errors: z
      .array(
        z.object({
          pointer: z.string(),
          detail: z.string(),
          code: z.string().optional(),
          remedy: z.string().optional(),
          line: z.number().optional().describe('Of an expression: where in it, from 1'),
          column: z.number().optional(),
        }),
      )
      .optional(),
  })
  .describe('RFC 9457 problem details');
