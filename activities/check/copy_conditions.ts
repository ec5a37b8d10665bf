/** Checks as conditions of ClickHouse over the rows of a copy: true for a row that passes. */

import { tableAssetOf } from '../../model/asset.ts';
import type { Bound, CheckInput } from '../../model/checks.ts';
import { SluiceError } from '../../model/errors.ts';
import type { TableSchema } from '../../model/table.ts';
import { type ClickHouse, quoteName } from '../load/clickhouse.ts';
import { bareType } from '../transform/clickhouse_types.ts';
import { typeOfSource } from '../transform/decode.ts';
import { parseDecimalText } from '../transform/jinja/number_text.ts';
import type { Kind } from '../transform/jinja/static_type.ts';
import type { CheckedColumn } from './copy_columns.ts';
import { heldNumber } from './held_number.ts';

/** Values of a statement, put into it by ClickHouse: no text of a check becomes SQL. */
export class Parameters {
  readonly values: Record<string, string> = {};

  /** The place of a text in the statement. */
  text(value: string): string {
    const name = `p${Object.keys(this.values).length}`;
    this.values[name] = value;
    return `{${name}:String}`;
  }
}

/** The copy that is checked. */
export interface CheckedCopy {
  clickhouse: ClickHouse;
  asset: string;
  columns: readonly CheckedColumn[];
  /** Where its rows are, behind FROM: each once, without those that are gone. */
  rows: string;
  /** Puts the newest rows first, where they bear versions. */
  newest: 'ORDER BY _version DESC' | '';
  /** What it is made from; undefined of a table that is not known as a copy. */
  table?: TableSchema | undefined;
}

/**
 * The condition of a check; undefined for those that ClickHouse cannot decide alone: `type` and `expression`, and those that no
 * single row passes or fails.
 */
export function conditionOf(check: CheckInput, copy: CheckedCopy, parameters: Parameters): string | undefined {
  switch (check.rule_type) {
    case 'type':
    case 'expression':
    case 'row_count':
    case 'freshness':
      return undefined;
    case 'unique':
      return uniqueCondition(check, copy);
    case 'not_null':
      return `isNotNull(${quoteName(columnOf(check, check.field!, copy).name)})`;
    default: {
      const column = columnOf(check, check.field!, copy);
      const name = quoteName(column.name);
      // What ClickHouse cannot compare, as NaN, does not pass; NULL does.
      return `(isNull(${name}) OR ifNull(${fieldCondition(check, column, copy, parameters)}, 0))`;
    }
  }
}

/** A column that a check names. Errors: `configuration`. */
export function columnOf({ rule_id }: CheckInput, name: string, { asset, columns }: CheckedCopy): CheckedColumn {
  const found = columns.find((column) => column.name === name);
  if (found) return found;
  const known = columns.map((column) => column.name).slice(0, 100);
  throw new SluiceError(
    'configuration',
    `check ${rule_id}: ${asset} has no column ${name}`,
    `Its columns are ${known.join(', ')}.`,
  );
}

function fieldCondition(check: CheckInput, column: CheckedColumn, copy: CheckedCopy, parameters: Parameters): string {
  const name = quoteName(column.name);
  const { min, max, regex, values = [], asset, field } = check.parameters;
  switch (check.rule_type) {
    case 'range': {
      const asNumber = [min, max].every((bound) => typeof bound !== 'string');
      const side = (operator: '>=' | '<=', bound: Bound | undefined) =>
        bound === undefined ? [] : [comparison(column, operator, String(bound), asNumber, parameters)];
      return `(${[...side('>=', min), ...side('<=', max)].join(' AND ')})`;
    }
    case 'length': {
      const length = column.clickhouse.startsWith('Array(') ? `length(${name})` : `lengthUTF8(${name})`;
      const sides = [
        min === undefined ? [] : `${length} >= ${Number(min)}`,
        max === undefined ? [] : `${length} <= ${Number(max)}`,
      ];
      return `(${sides.flat().join(' AND ')})`;
    }
    case 'pattern':
      // Elsewhere a dot is no line feed; here it would be one.
      return `match(toString(${name}), ${parameters.text(`(?-s)${regex}`)})`;
    case 'accepted_values':
      return `(${values.map((value) => comparison(column, '=', String(value), false, parameters)).join(' OR ')})`;
    case 'relationships': {
      const other = copy.clickhouse.name(`${tableAssetOf(asset!)}_current`);
      return `toString(${name}) IN (SELECT toString(${quoteName(field!)}) FROM ${other} WHERE isNotNull(${quoteName(field!)}))`;
    }
    default:
      throw new SluiceError('unexpected', `no condition for ${check.rule_type}`, 'Please report it.');
  }
}

/** NULL is equal to nothing, so that rows with one are unique. */
function uniqueCondition(check: CheckInput, copy: CheckedCopy): string {
  const fields = (check.parameters.fields ?? [check.field!]).map((name) => quoteName(columnOf(check, name, copy).name));
  const list = fields.join(', ');
  const anyNull = fields.map((field) => `isNull(${field})`).join(' OR ');
  const twice = `SELECT ${list} FROM ${copy.rows} GROUP BY ${list} HAVING count() > 1`;
  return `(${anyNull} OR (${list}) NOT IN (${twice}))`;
}

/** Digits behind the point of texts that are compared as numbers. */
const textScale = 30;

/**
 * A column compared with a text of a check, exactly. The text is of the column's own type where it is a number: ClickHouse makes one
 * IN of several comparisons, and that knows no other type.
 */
function comparison(
  { name, type, clickhouse }: CheckedColumn,
  operator: '=' | '>=' | '<=',
  text: string,
  asNumber: boolean,
  parameters: Parameters,
): string {
  const column = quoteName(name);
  const compared = (right: string) => `${column} ${operator} ${right}`;
  const kind: Kind = clickhouse.includes('String') ? 'text' : typeOfSource(type).kind;
  switch (kind) {
    case 'int':
    case 'decimal':
      return numberComparison(column, bareType(clickhouse), operator, text, parameters);
    case 'float':
      return compared(`CAST(${parameters.text(text)}, '${bareType(clickhouse)}')`);
    case 'bool':
      return compared(text === 'true' ? 'true' : 'false');
    case 'date':
      return compared(`toDate32(${parameters.text(text.slice(0, 10))})`);
    case 'datetime':
      return compared(`parseDateTime64BestEffort(${parameters.text(text)}, 6, 'UTC')`);
    default: {
      if (!asNumber) return `toString(${column}) ${operator} ${parameters.text(text)}`;
      const read = `toDecimal256OrNull(${column}, ${textScale})`;
      return numberComparison(read, `Decimal(76, ${textScale})`, operator, text, parameters);
    }
  }
}

/** `left` is of this type, and compared with what of it is next to the number: with nothing where it holds nothing on that side. */
function numberComparison(
  left: string,
  type: string,
  operator: '=' | '>=' | '<=',
  text: string,
  parameters: Parameters,
): string {
  const decimal = parseDecimalText(text);
  // Nobody gets here: checks are compiled for their columns before.
  if (!decimal)
    throw new SluiceError('configuration', 'a number is compared with a text that is none', 'Mend the check.');
  const { below, above } = heldNumber(type, decimal);
  const held = operator === '<=' ? below : above;
  if (held === 'none' || (operator === '=' && below !== above)) return 'false';
  return `${left} ${operator} CAST(${parameters.text(held)}, '${type}')`;
}
