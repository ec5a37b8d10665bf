/** Whether values of rows are of a type of the registry of schemas. */
import type { FieldType } from '../../model/field_type.ts';
import { readValue } from '../../model/field_value.ts';
import { DateTime, PlainDate } from '../transform/jinja/dates.ts';
import { Decimal, decimalText } from '../transform/jinja/decimal.ts';
import { parseJson } from '../transform/jinja/json_text.ts';
import { Dict, Float, type Value } from '../transform/jinja/values.ts';

/** From where to where; a bigint and a number compare by their values. */
const bounds = { int: [-(2 ** 31), 2 ** 31 - 1], long: [-(2n ** 63n), 2n ** 63n - 1n] } as const;

/** True for a value of the type; a text is one of any type that it can be read as. NULL is one of every type. */
export function fitsType(value: Value, type: FieldType): boolean {
  if (value === null) return true;
  switch (typeof value) {
    case 'string':
      return textFits(value, type);
    case 'number':
    case 'bigint':
      return wholeFits(value, type);
    case 'boolean':
      return type.kind === 'boolean';
    default:
      return objectFits(value, type);
  }
}

function textFits(text: string, type: FieldType): boolean {
  if (type.kind === 'string' || type.kind === 'bytes') return true;
  if (type.kind === 'boolean') return /^(?:true|false)$/i.test(text);
  if (type.kind === 'json' || type.kind === 'array') return jsonFits(parseJson(text), type);
  if (type.kind !== 'float' && type.kind !== 'double') return !('problem' in readValue(text, type));
  return /^[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?$/i.test(text) || !('problem' in readValue(text, type));
}

function jsonFits(value: Value | undefined, type: FieldType): boolean {
  return value !== undefined && (type.kind === 'json' || (Array.isArray(value) && fitsType(value, type)));
}

function wholeFits(value: number | bigint, type: FieldType): boolean {
  switch (type.kind) {
    case 'int':
    case 'long':
      return value >= bounds[type.kind][0] && value <= bounds[type.kind][1];
    case 'float':
    case 'double':
    case 'json':
      return true;
    case 'decimal':
      return !('problem' in readValue(String(value), type));
    default:
      return false;
  }
}

function objectFits(value: object, type: FieldType): boolean {
  if (value instanceof Decimal) return decimalFits(value, type);
  if (value instanceof Float)
    return type.kind === 'float' || type.kind === 'double' || wholeFloatFits(value.number, type);
  if (value instanceof PlainDate) return type.kind === 'date';
  if (value instanceof DateTime) return type.kind === 'timestamp';
  if (type.kind === 'json') return Array.isArray(value) || value instanceof Dict;
  return type.kind === 'array' && Array.isArray(value) && value.every((item: Value) => fitsType(item, type.items));
}

function decimalFits(value: Decimal, type: FieldType): boolean {
  if (type.kind === 'float' || type.kind === 'double' || type.kind === 'json') return true;
  if (type.kind === 'decimal') return !('problem' in readValue(decimalText(value), type));
  // 5.00 is a whole number.
  return (
    (type.kind === 'int' || type.kind === 'long') && !('problem' in readValue(wholeText(decimalText(value)), type))
  );
}

function wholeFloatFits(number: number, type: FieldType): boolean {
  return Number.isSafeInteger(number) && wholeFits(number, type);
}

function wholeText(text: string): string {
  return text.replace(/\.0*$/, '');
}
