/**
 * Checks: what must be true of rows, or of a whole copy. Those of rows are looked at for each row on its way into the copy;
 * those of copies with each comparison by schedule, and when somebody asks. NULL passes every check but `not_null`, as with SQL's CHECK.
 */
import { parseDuration } from './duration.ts';
import { readType, typeText } from './field_type.ts';
import { RuleIssues, ruleLimits, withoutGaps } from './rule_input.ts';
import { ShapeError } from './shape_error.ts';

/** Checks that one row passes or fails by itself. */
export const rowCheckTypes = [
  'not_null', 'type', 'range', 'pattern', 'length', 'accepted_values', 'expression',
] as const; // biome-ignore format: a list
/** Checks that need the whole copy. */
export const copyCheckTypes = ['unique', 'relationships', 'row_count', 'freshness'] as const;
export const checkTypes = [...rowCheckTypes, ...copyCheckTypes] as const;
export type CheckType = (typeof checkTypes)[number];

/**
 * What happens to a row that fails: `warn` counts it, `reject` holds it back with its reason, `stop` stops the table.
 */
export const severities = ['warn', 'reject', 'stop'] as const;
export type Severity = (typeof severities)[number];

/** A bound as people write it: a number, or a text for exact decimals, large integers and times. */
export type Bound = number | string;

/** Parameters of all types; each type has those that it names in `parametersOf`. */
export interface CheckParameters {
  min?: Bound;
  max?: Bound;
  regex?: string;
  values?: (string | number | boolean)[];
  /** Canonical text of a type of fields, e.g. `long`. */
  type?: string;
  fields?: string[];
  /** Of relationships: the asset whose field has all values. */
  asset?: string;
  field?: string;
  /** A duration such as `1h`. */
  max_age?: string;
  expression?: string;
}

/** A check as quality.yaml and the API have it. */
export interface CheckInput {
  rule_id: string;
  name?: string;
  /** The id of the asset that it is for. */
  asset: string;
  field?: string;
  rule_type: CheckType;
  parameters: CheckParameters;
  severity: Severity;
}

/** A check that is in force; `version` rises by one when it is replaced. */
export interface Check extends CheckInput {
  version: number;
}

/** Parameters that each type of check has. */
export const parametersOf: Record<CheckType, readonly (keyof CheckParameters)[]> = {
  not_null: [],
  type: ['type'],
  range: ['min', 'max'],
  pattern: ['regex'],
  length: ['min', 'max'],
  accepted_values: ['values'],
  unique: ['fields'],
  relationships: ['asset', 'field'],
  row_count: ['min', 'max'],
  freshness: ['max_age'],
  expression: ['expression'],
};

export const checkKeys = ['rule_id', 'name', 'asset', 'field', 'rule_type', 'parameters', 'severity'] as const;

/** Types that look at no single field. */
const withoutField: readonly CheckType[] = ['expression', 'row_count', 'freshness', 'unique'];

const remedy =
  'Right is e.g. {"rule_id": "amount_positive", "asset": "postgres_main_transactions", "field": "amount", ' +
  '"rule_type": "range", "parameters": {"min": 0}, "severity": "reject"}.';

/** True for a check that one row passes or fails by itself. */
export function isRowCheck(check: Pick<CheckInput, 'rule_type'>): boolean {
  return rowCheckTypes.some((type) => type === check.rule_type);
}

/** A check in its one form. `pointer`: where the input stands. Throws ShapeError. */
export function readCheck(input: unknown, pointer = ''): CheckInput {
  const issues = new RuleIssues(pointer);
  const check = readParts(input, issues);
  if (check !== undefined && issues.found.length === 0) return check;
  throw new ShapeError('the check is not as it should be', issues.found, remedy);
}

function readParts(input: unknown, issues: RuleIssues): CheckInput | undefined {
  if (!issues.object(input, '', checkKeys)) return undefined;
  const rule_id = issues.id(input.rule_id, '/rule_id');
  const asset = issues.name(input.asset ?? null, '/asset');
  const type = issues.word(input.rule_type ?? null, '/rule_type', checkTypes);
  const field = issues.name(input.field, '/field');
  const severity = issues.word(input.severity, '/severity', severities) ?? 'warn';
  if (type === undefined || asset === undefined) return undefined;
  if (!withoutField.includes(type)) issues.needed(input.field, '/field', `a check of type ${type} looks at one`);
  if (severity !== 'warn' && !isRowCheck({ rule_type: type }))
    issues.add('/severity', `must be warn: a check of type ${type} looks at the whole copy, and holds back no row`);
  const parameters = readParameters(input.parameters ?? {}, type, issues);
  if (type === 'unique' && field === undefined)
    issues.needed(parameters.fields, '/parameters/fields', 'name them there, or one in field');
  return withoutGaps({
    rule_id,
    name: issues.name(input.name, '/name'),
    asset,
    field,
    rule_type: type,
    parameters,
    severity,
  });
}

function readParameters(input: unknown, type: CheckType, issues: RuleIssues): CheckParameters {
  const at = '/parameters';
  if (!issues.object(input, at, parametersOf[type])) return {};
  switch (type) {
    case 'range':
      return readBounds(input, issues, isBound, 'a number, or a text for exact decimals and times');
    case 'length':
    case 'row_count':
      return readBounds(input, issues, isCount, 'a whole number, 0 or more');
    case 'pattern':
      return { regex: required(issues.name(input.regex ?? null, `${at}/regex`, 1000)) };
    case 'accepted_values':
      return { values: readValues(input.values, issues) };
    case 'type':
      return { type: readTypeName(input.type, issues) };
    case 'unique':
      return withoutGaps({ fields: issues.names(input.fields, `${at}/fields`) });
    case 'relationships':
      return {
        asset: required(issues.name(input.asset ?? null, `${at}/asset`)),
        field: required(issues.name(input.field ?? null, `${at}/field`)),
      };
    case 'freshness':
      return { max_age: readAge(input.max_age, issues) };
    case 'expression':
      return { expression: required(issues.expression(input.expression ?? null, `${at}/expression`)) };
    case 'not_null':
      return {};
  }
}

/** What was complained about when it is missing. */
function required(text: string | undefined): string {
  return text ?? '';
}

const isBound = (value: unknown) =>
  (typeof value === 'number' && Number.isFinite(value)) ||
  (typeof value === 'string' && value.trim() !== '' && value.length <= 100);
const isCount = (value: unknown) => typeof value === 'number' && Number.isSafeInteger(value) && value >= 0;

function readBounds(
  { min, max }: Record<string, unknown>,
  issues: RuleIssues,
  valid: (value: unknown) => boolean,
  what: string,
): CheckParameters {
  if (min === undefined && max === undefined) issues.add('/parameters', 'must have min, max or both');
  if (min !== undefined && !valid(min)) issues.add('/parameters/min', `must be ${what}`);
  if (max !== undefined && !valid(max)) issues.add('/parameters/max', `must be ${what}`);
  if (typeof min === 'number' && typeof max === 'number' && min > max)
    issues.add('/parameters/max', 'is below min: no row would pass');
  return withoutGaps({ min: min as Bound | undefined, max: max as Bound | undefined });
}

function readValues(input: unknown, issues: RuleIssues): CheckParameters['values'] {
  const isValue = (value: unknown) =>
    typeof value === 'string' || typeof value === 'boolean' || (typeof value === 'number' && Number.isFinite(value));
  if (Array.isArray(input) && input.length > 0 && input.length <= ruleLimits.values && input.every(isValue))
    return input;
  issues.add('/parameters/values', `must be a list of 1 to ${ruleLimits.values} texts, numbers, true or false`);
  return [];
}

function readTypeName(input: unknown, issues: RuleIssues): string {
  const type = typeof input === 'string' ? readType(input) : 'must be the name of a type, e.g. long or decimal(12,2)';
  if (typeof type !== 'string') return typeText(type);
  issues.add('/parameters/type', type);
  return '';
}

function readAge(input: unknown, issues: RuleIssues): string {
  const text = typeof input === 'number' && Number.isInteger(input) ? `${input}s` : input;
  if (typeof text === 'string' && (parseDuration(text) ?? 0) > 0) return text;
  issues.add('/parameters/max_age', 'must be a duration such as 90s, 15m, 1h30m or 1d');
  return '';
}
