/** What a check of one field asks of its value, compiled once for the type of the field. */
import { type Bound, type CheckInput, type CheckParameters, parametersOf } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import { typeOf } from '../../model/field_type.ts';
import { ShapeError, type ShapeIssue } from '../../model/shape_error.ts';
import { storedText } from '../transform/encode.ts';
import { parseIso } from '../transform/jinja/date_format.ts';
import { DateTime, PlainDate } from '../transform/jinja/dates.ts';
import { type Decimal, decimalToNumber } from '../transform/jinja/decimal.ts';
import { beginEvaluation, EvaluationError } from '../transform/jinja/limits.ts';
import { parseDecimalText } from '../transform/jinja/number_text.ts';
import { lengthOf, order } from '../transform/jinja/operators.ts';
import { compilePattern, isFound } from '../transform/jinja/regular_expressions.ts';
import type { Kind } from '../transform/jinja/static_type.ts';
import { Float, keyId, type Value } from '../transform/jinja/values.ts';
import { fitsType } from './value_fits.ts';

/** True for a value that passes. Never asked about NULL, which passes. May throw EvaluationError: it does not pass then. */
export type ValueTest = (value: Exclude<Value, null>) => boolean;

/** A test, and what a value must be: the reason of a row that fails. Holds no value of a row. */
export interface FieldTest {
  passes: ValueTest;
  must: string;
}

/** Compiles a check of one field for values of this kind. Throws ShapeError for parameters that do not go with it. */
export function compileTest(check: CheckInput, kind: Kind): FieldTest {
  const { parameters, field } = check;
  switch (check.rule_type) {
    case 'range':
      return rangeTest(check, kind);
    case 'pattern':
      return patternTest(check);
    case 'length':
      return lengthTest(check, kind);
    case 'accepted_values':
      return acceptedTest(check, kind);
    case 'type': {
      const type = typeOf(parameters.type!);
      return { passes: (value) => fitsType(value, type), must: `${field} must be of type ${parameters.type}` };
    }
    default:
      return { passes: () => true, must: `${field} must not be NULL` };
  }
}

/** Complains about a parameter of a check. */
export function wrongParameter(check: CheckInput, parameter: keyof CheckParameters, detail: string): ShapeError {
  const issue: ShapeIssue = { pointer: `/parameters/${parameter}`, detail };
  const known = parametersOf[check.rule_type].join(', ');
  return new ShapeError(`check ${check.rule_id}`, [issue], `Parameters of ${check.rule_type}: ${known}.`);
}

function rangeTest(check: CheckInput, kind: Kind): FieldTest {
  const { field, parameters } = check;
  const { min, max } = parameters;
  const asNumber = kind === 'text' && [min, max].every((bound) => bound === undefined || typeof bound === 'number');
  const low = min === undefined ? undefined : boundValue(check, 'min', min, kind, asNumber);
  const high = max === undefined ? undefined : boundValue(check, 'max', max, kind, asNumber);
  const inside = (value: Value) =>
    (low === undefined || compare(value, low) >= 0) && (high === undefined || compare(value, high) <= 0);
  const passes: ValueTest = asNumber ? (value) => inside(numberIn(value)) : inside;
  return { passes, must: `${field} must be ${between(min, max)}` };
}

/** A column's moments are all in UTC, or all without a zone: then those of a bound count as theirs. */
function compare(value: Value, bound: Value): number {
  if (!(value instanceof DateTime && bound instanceof DateTime)) return order(value, bound);
  return value.days - bound.days || value.microseconds - bound.microseconds;
}

function between(min: Bound | undefined, max: Bound | undefined): string {
  if (max === undefined) return `at least ${min}`;
  return min === undefined ? `at most ${max}` : `between ${min} and ${max}`;
}

/** A text as a number; one that is none is outside of every range. */
function numberIn(value: Value): Value {
  return typeof value === 'string' ? (parseDecimalText(value) ?? notANumber) : value;
}

const notANumber = new Float(Number.NaN);

/** A bound as a value that those of the field can be compared with, without conversions for each row. */
function boundValue(check: CheckInput, at: 'min' | 'max', bound: Bound, kind: Kind, asNumber: boolean): Value {
  switch (kind) {
    case 'date':
    case 'datetime':
      return momentBound(check, at, String(bound), kind);
    case 'text':
      return asNumber ? decimalBound(check, at, bound) : String(bound);
    case 'int':
      return typeof bound === 'number' && Number.isSafeInteger(bound) ? bound : decimalBound(check, at, bound);
    case 'float':
      return new Float(decimalToNumber(decimalBound(check, at, bound)));
    case 'decimal':
    case 'any':
      return decimalBound(check, at, bound);
    default:
      throw wrongParameter(check, at, `${check.field} is of a type that has no order`);
  }
}

function decimalBound(check: CheckInput, at: 'min' | 'max', bound: Bound): Decimal {
  const decimal = parseDecimalText(String(bound));
  if (decimal === undefined) throw wrongParameter(check, at, `must be a number, as ${check.field} is one`);
  return decimal;
}

function momentBound(check: CheckInput, at: 'min' | 'max', text: string, kind: 'date' | 'datetime'): Value {
  const moment = momentOf(text, kind);
  if (moment === undefined) throw wrongParameter(check, at, `must be a date of ISO 8601, as ${check.field} is one`);
  return moment;
}

function momentOf(text: string, kind: 'date' | 'datetime'): DateTime | PlainDate | undefined {
  try {
    const moment = parseIso(text);
    return kind === 'date' ? new PlainDate(moment.days) : moment;
  } catch (error) {
    if (error instanceof EvaluationError) return undefined;
    throw error;
  }
}

function patternTest(check: CheckInput): FieldTest {
  try {
    beginEvaluation();
    const pattern = compilePattern(check.parameters.regex!, false, false);
    const passes: ValueTest = (value) => {
      beginEvaluation();
      return isFound(pattern, typeof value === 'string' ? value : storedText(value), false);
    };
    return { passes, must: `${check.field} must match the pattern` };
  } catch (error) {
    if (!(error instanceof EvaluationError)) throw error;
    throw wrongParameter(check, 'regex', error.message);
  }
}

function lengthTest({ rule_id, field, parameters }: CheckInput, kind: Kind): FieldTest {
  if (!['text', 'list', 'dict', 'tuple', 'any'].includes(kind))
    throw new SluiceError(
      'configuration',
      `check ${rule_id}: ${field} has no length`,
      'Use range for numbers and dates.',
    );
  const min = (parameters.min ?? 0) as number;
  const max = (parameters.max ?? Number.POSITIVE_INFINITY) as number;
  const passes: ValueTest = (value) => {
    const length = lengthOf(value);
    return length >= min && length <= max;
  };
  return { passes, must: `the length of ${field} must be ${between(parameters.min, parameters.max)}` };
}

function acceptedTest(check: CheckInput, kind: Kind): FieldTest {
  const accepted = new Set(check.parameters.values!.flatMap((value) => acceptedValues(check, value, kind)).map(keyId));
  return { passes: (value) => accepted.has(keyId(value)), must: `${check.field} must be one of the accepted values` };
}

/** A value of JSON as values of the field are. */
function acceptedValues(check: CheckInput, value: string | number | boolean, kind: Kind): Value[] {
  const found = acceptedValue(value, kind);
  if (found === undefined) throw wrongParameter(check, 'values', `has a value that ${check.field} cannot have`);
  // A moment without a zone is the same moment in UTC.
  return found instanceof DateTime
    ? [true, false].map((utc) => new DateTime(found.days, found.microseconds, utc))
    : [found];
}

function acceptedValue(value: string | number | boolean, kind: Kind): Value | undefined {
  const decimal = typeof value === 'boolean' ? undefined : parseDecimalText(String(value));
  switch (kind) {
    case 'text':
      return String(value);
    case 'bool':
      return typeof value === 'boolean' ? value : undefined;
    case 'int':
    case 'decimal':
      return decimal;
    case 'float':
      return decimal && new Float(decimalToNumber(decimal));
    case 'date':
    case 'datetime':
      return momentOf(String(value), kind);
    default:
      return typeof value === 'number' ? decimal : value;
  }
}
