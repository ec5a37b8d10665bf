/** The shapes of rules and checks, for REST and its OpenAPI page. What they mean is checked by model/rules.ts and model/checks.ts. */
import { z } from 'zod';
import { checkTypes, parametersOf, severities } from '../../model/checks.ts';
import { ruleIdPattern, ruleLimits } from '../../model/rule_input.ts';
import { aggregateTypes, errorChoices, ruleTypes } from '../../model/rules.ts';
import { errorReport } from './shapes.ts';

const ruleId = z
  .string()
  .regex(ruleIdPattern, 'must be a letter, then up to 99 letters, digits or any of _ . -')
  .describe('Id of a rule or check; both share one namespace');
const name = z.string().min(1).max(ruleLimits.name);
const names = z.array(name).min(1).max(ruleLimits.list);

const ruleParameters = z
  .strictObject({
    type: z.enum(aggregateTypes).optional().describe('Of aggregate'),
    asset: name.optional().describe('Of join'),
    on: z.record(z.string(), z.string()).optional().describe('Of join: field of the row to key field of the asset'),
    fields: names.optional().describe('Of join: what is taken'),
    function: name.optional().describe('Of custom'),
  })
  .describe('By type');

/** A rule as people write it; the same keys as in transformations.yaml. */
export const ruleBody = z.strictObject({
  rule_id: ruleId,
  name: name.optional(),
  rule_type: z.enum(ruleTypes),
  assets: names.optional().describe('Ids or globs; default: every asset that has all source_fields'),
  source_fields: names.optional(),
  target_field: name.optional().describe('The column that a map fills'),
  target_type: name.optional().describe('Its type in ClickHouse; default: inferred'),
  expression: z.string().min(1).max(ruleLimits.expression).optional().describe('Jinja2; see docs/expressions.md'),
  on_error: z
    .enum(errorChoices)
    .optional()
    .describe(
      'What happens to a row on which it fails; default reject. Where rules of its table read an excluded column, such a row cannot be released',
    ),
  parameters: ruleParameters.optional(),
  apply_to: z.enum(['new']).optional().describe('Rows that are there already stay as they are'),
});
export type RuleBody = z.infer<typeof ruleBody>;

/** The same for PUT: the id stands in the path. */
export const rulePut = ruleBody.extend({ rule_id: ruleId.optional() });

const version = z.int().min(1).describe('Rises by one when it is replaced');
export const ruleAnswer = ruleBody.extend({ version }).describe('A rule that is in force');
export type RuleAnswer = z.infer<typeof ruleAnswer>;

const bound = z.union([z.number(), z.string()]);
const checkParameters = z
  .strictObject({
    min: bound.optional().describe('Of range, length, row_count'),
    max: bound.optional(),
    regex: z.string().optional().describe('Of pattern: found anywhere in the value; RE2'),
    values: z
      .array(z.union([z.string(), z.number(), z.boolean()]))
      .optional()
      .describe('Of accepted_values'),
    type: z.string().optional().describe('Of type, e.g. long or decimal(12,2)'),
    fields: names.optional().describe('Of unique'),
    asset: name.optional().describe('Of relationships: where each value must be'),
    field: name.optional(),
    max_age: z.union([z.string(), z.number()]).optional().describe('Of freshness, e.g. 1h'),
    expression: z.string().optional().describe('Of expression: true for a right row'),
  })
  .describe(
    `By type: ${Object.entries(parametersOf)
      .map(([type, keys]) => `${type} {${keys.join(', ')}}`)
      .join(', ')}`,
  );

/** A check as people write it; the same keys as in quality.yaml. */
export const checkBody = z.strictObject({
  rule_id: ruleId,
  name: name.optional(),
  asset: name.describe('Id of an asset, or of its copy'),
  field: name.optional(),
  rule_type: z.enum(checkTypes),
  parameters: checkParameters.optional(),
  severity: z
    .enum(severities)
    .optional()
    .describe(
      'warn counts, reject holds the row back (it cannot be released where rules read an excluded column), stop stops the table',
    ),
});
export type CheckBody = z.infer<typeof checkBody>;
export const checkPut = checkBody.extend({ rule_id: ruleId.optional() });
export const checkAnswer = checkBody.extend({ version }).describe('A check that is in force');
export type CheckAnswer = z.infer<typeof checkAnswer>;

const jsonRows = z.array(z.record(z.string(), z.unknown())).max(10_000);

export const previewBody = z
  .strictObject({
    rule: ruleBody,
    rows: jsonRows.optional().describe('Rows to run it on'),
    asset_id: name.optional().describe('Asset whose columns the rows have; without rows: whose copy it is run on'),
    last: z.int().min(1).max(10_000).optional().describe('Without rows: so many of the newest; default 1000'),
  })
  .refine((body) => body.rows !== undefined || body.asset_id !== undefined, { error: 'name rows, or an asset_id' });
export type PreviewBody = z.infer<typeof previewBody>;

const shownRow = z.record(z.string(), z.unknown());
export const previewAnswer = z.object({
  rows: z.array(shownRow).describe('Rows that the rule lets through, with its target; of a copy those that it changes'),
  rejected: z.array(z.object({ row: z.int(), reason: z.string() })).describe('By number from 0'),
  rows_per_second: z.number(),
  differences: z
    .object({
      rows_from: z
        .enum(['copy', 'source'])
        .describe('source: rules in force have put other values, or nothing, in the place of what this one reads'),
      checked: z.int(),
      changed: z.int(),
      added: z.int().describe('Rows that the copy would get'),
      filtered: z.int().describe('Rows that would leave it'),
      rejected: z.int(),
      samples: z.array(
        z.object({
          row: shownRow.describe('Its key'),
          outcome: z.enum(['changed', 'added', 'filtered', 'rejected']),
          before: shownRow.nullable(),
          after: shownRow.nullable(),
          reason: z.string().optional(),
        }),
      ),
    })
    .optional()
    .describe('Of a copy: what would be another than it is now'),
});
export type PreviewAnswer = z.infer<typeof previewAnswer>;

export const qualityBody = z.strictObject({
  asset_id: name.describe('Id of an asset, or of its copy'),
  rows: jsonRows.optional().describe('Default: all rows of the copy'),
});
export type QualityBody = z.infer<typeof qualityBody>;

export const qualityAnswer = z.object({
  asset_id: z.string(),
  score: z.number().min(0).max(1).describe('Rows that pass all checks / rows checked; 1 when none'),
  checked: z.int(),
  passed: z.int(),
  failed: z.int(),
  rules: z.array(
    z.object({
      rule_id: z.string(),
      checked: z.int(),
      failed: z.int(),
      score: z.number().min(0).max(1),
      samples: z.array(shownRow).max(5).describe('Rows that fail'),
      notice: z.string().optional().describe('Why fewer rows than there are were looked at'),
      error: errorReport
        .optional()
        .describe('Why it could not run: its score is 0, and that of the asset is without it'),
    }),
  ),
});
export type QualityAnswer = z.infer<typeof qualityAnswer>;

const page = {
  limit: z.coerce.number().int().min(1).max(1000).default(100),
  cursor: z.string().max(2000).optional().describe('next_cursor of the page before'),
};
const timeText = z
  .string()
  .max(40)
  .refine((text) => !Number.isNaN(Date.parse(text)), 'write a time, e.g. 2026-01-31T12:00:00Z');

export const scoresQuery = z.object({
  asset: name.optional().describe('Of this asset, or its copy'),
  since: timeText.optional(),
  ...page,
});
export type ScoresQuery = z.input<typeof scoresQuery> & { limit?: number };
export const scoresAnswer = z.object({
  items: z.array(
    z.object({
      asset_id: z.string(),
      rule_id: z.string().nullable().describe('Null: all checks of the asset together'),
      at: z.string(),
      batch_id: z.string(),
      checked: z.int(),
      failed: z.int(),
      score: z.number(),
    }),
  ),
  next_cursor: z.string().nullable(),
});
export type ScoresAnswer = z.infer<typeof scoresAnswer>;

export const rejectStates = ['open', 'released', 'discarded', 'superseded'] as const;
export const rejectsQuery = z.object({
  asset: name.optional().describe('Of this asset, or its copy'),
  rule: z.string().max(200).optional().describe('Held back by this rule or check'),
  state: z
    .enum(rejectStates)
    .default('open')
    .describe('superseded: a later change of the row is in the copy, or the table was truncated or copied anew'),
  ...page,
});
export type RejectsQuery = Partial<z.input<typeof rejectsQuery>> & { limit?: number };
export const rejectAnswer = z.object({
  asset_id: z.string(),
  key: z.record(z.string(), z.unknown()),
  version: z.string(),
  check: z.string().describe('Id of the rule or check; `type` when the copy cannot hold a value'),
  column: z.string(),
  reason: z.string(),
  row: z.record(z.string(), z.unknown()).describe('As the source printed it'),
  state: z.enum(rejectStates),
  batch_id: z.string(),
  committed_at: z.string(),
  changed_at: z.string(),
});
export const rejectsAnswer = z.object({ items: z.array(rejectAnswer), next_cursor: z.string().nullable() });
export type RejectsAnswer = z.infer<typeof rejectsAnswer>;

export const settleBody = z.strictObject({
  asset_id: name.describe('Id of an asset, or of its copy'),
  keys: z
    .array(z.union([z.string(), z.number(), z.record(z.string(), z.unknown())]))
    .min(1)
    .max(1000)
    .optional()
    .describe('Keys of the rows: plain for a key of one column, an object for any; default: all that are open'),
  rule: z.string().max(200).optional().describe('Only those that this rule or check held back'),
});
export type SettleBody = z.infer<typeof settleBody>;

export const settleAnswer = z.object({
  asset_id: z.string(),
  released: z.int(),
  discarded: z.int(),
  still_open: z.int().describe('Not right by now either, with a new reason'),
  superseded: z.int().describe('Of the past: a later change of the row, or of the table, is in the copy'),
});
