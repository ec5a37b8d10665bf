/** Rules of type aggregate: one value of several fields of a row. NULL is skipped; of nothing but NULL only a count is known. */
import { SluiceError } from '../../model/errors.ts';
import type { RuleInput } from '../../model/rules.ts';
import { inferType } from './clickhouse_types.ts';
import { typeOfSource } from './decode.ts';
import type { Computation, ExpressionColumn } from './expression.ts';
import { Duration } from './jinja/dates.ts';
import { beginEvaluation, failure } from './jinja/limits.ts';
import { isNumber } from './jinja/numbers.ts';
import { add, divide, order } from './jinja/operators.ts';
import { binaryType, eitherType, type Kind, ofKind, type StaticType } from './jinja/static_type.ts';
import type { Value } from './jinja/values.ts';

type Aggregate = NonNullable<NonNullable<RuleInput['parameters']>['type']>;

/** What is made of the values that are not NULL; at least one. */
const aggregates: Record<Exclude<Aggregate, 'count'>, (values: readonly Value[]) => Value> = {
  sum: summed,
  avg: (values) => divide(summed(values), values.length),
  min: (values) => values.reduce((least, value) => (order(value, least) < 0 ? value : least)),
  max: (values) => values.reduce((most, value) => (order(value, most) > 0 ? value : most)),
};

/** A text alone would be its own sum. */
function summed(values: readonly Value[]): Value {
  const sum = values.reduce(add);
  if (isNumber(sum) || sum instanceof Duration) return sum;
  throw failure('only numbers and durations have a sum');
}

/** Kinds of which no value has a sum. */
const withoutSum = new Set<Kind>(['text', 'list', 'tuple', 'dict', 'date', 'datetime']);

/**
 * Computes an aggregate of the source fields, which are among the columns. Fails for values that have no sum or order. Throws
 * SluiceError `configuration` for fields whose type has no sum.
 */
export function compileAggregate(rule: RuleInput, columns: readonly ExpressionColumn[]): Computation {
  const aggregate = rule.parameters!.type!;
  const usedColumns = rule.source_fields!.map((field) => columns.findIndex((column) => column.name === field));
  const types = usedColumns.map((index) => staticType(columns[index]!));
  const type = typeOf(aggregate, types);
  const wrong = types.findIndex(({ kind }) => withoutSum.has(kind));
  if ((aggregate === 'sum' || aggregate === 'avg') && wrong >= 0) throw noSum(rule, wrong, types[wrong]!.kind);
  const combine = aggregate === 'count' ? undefined : aggregates[aggregate];
  return {
    usedColumns,
    type,
    inferType: () => inferType(type),
    evaluate: (row) => {
      const values = usedColumns.map((index) => row[index]!).filter((value) => value !== null);
      if (combine === undefined) return values.length;
      beginEvaluation();
      return values.length === 0 ? null : combine(values);
    },
  };
}

function noSum({ rule_id, source_fields, parameters }: RuleInput, index: number, kind: Kind): SluiceError {
  const reason = `source_fields names ${source_fields![index]}, a ${kind}, which has no ${parameters!.type}`;
  return new SluiceError('configuration', `rule ${rule_id}: ${reason}`, 'Name numbers; or use min, max or count.');
}

function staticType({ type }: ExpressionColumn): StaticType {
  return typeof type === 'string' ? typeOfSource(type) : type;
}

function typeOf(aggregate: Aggregate, types: StaticType[]): StaticType {
  if (aggregate === 'count') return { kind: 'int', digits: 3 };
  if (aggregate === 'min' || aggregate === 'max') return types.reduce(eitherType);
  const sum = types.reduce((a, b) => binaryType('+', a, b));
  return aggregate === 'sum' ? sum : binaryType('/', sum, ofKind('int'));
}
