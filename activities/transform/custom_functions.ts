/**
 * Functions of people's own, for rules of type custom: modules of TypeScript in one folder, loaded once when a process
 * starts. They are code of whoever runs Sluice, as its configuration is; nothing from data or the network gets here.
 */
import { readdir } from 'node:fs/promises';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import { SluiceError } from '../../model/errors.ts';
import { nearest } from '../../model/nearest_word.ts';
import type { RuleInput } from '../../model/rules.ts';
import { typeOfTarget } from './clickhouse_types.ts';
import type { Computation, ExpressionColumn } from './expression.ts';
import { clockText, DateTime, dayText, PlainDate } from './jinja/dates.ts';
import { Decimal, decimalText } from './jinja/decimal.ts';
import { compactJson, toJson } from './jinja/json_text.ts';
import { failure } from './jinja/limits.ts';
import { Dict, Float, integer, type Value } from './jinja/values.ts';

/** Values of a row: decimals, dates and times are texts, so that none of them loses anything. */
export type CustomValue = null | boolean | number | bigint | string | CustomValue[] | { [name: string]: CustomValue };

/** What a module of the folder exports, under the name that rules call it by. */
export interface CustomFunction {
  /** ClickHouse's type of the results; a rule's target_type goes before it. */
  type: string;
  /** Gets the rule's source fields. What it throws is the failure of that row. Must answer the same for the same row. */
  run(row: Readonly<Record<string, CustomValue>>): CustomValue;
}

const functions = new Map<string, CustomFunction>();

/**
 * Loads all modules of a folder; without one there are no functions. Answers their names, and what is wrong with modules that
 * are left out.
 */
export async function loadFunctions(folder: string): Promise<{ names: string[]; errors: SluiceError[] }> {
  functions.clear();
  const errors: SluiceError[] = [];
  const files = await readdir(folder).catch(() => [] as string[]);
  for (const file of files.filter((name) => /(?<!\.test|\.d)\.[mc]?[jt]s$/.test(name)).sort()) {
    try {
      for (const [name, made] of Object.entries(await loadModule(path.join(folder, file)))) functions.set(name, made);
    } catch (error) {
      errors.push(error as SluiceError);
    }
  }
  return { names: [...functions.keys()], errors };
}

/** Errors: `configuration`, with the file. */
async function loadModule(file: string): Promise<Record<string, CustomFunction>> {
  const wrong = (reason: string, remedy: string, cause?: unknown) =>
    new SluiceError('configuration', reason, remedy, { file }, cause);
  let loaded: Record<string, unknown>;
  try {
    const { tsImport } = await import('tsx/esm/api');
    const all = await tsImport(pathToFileURL(file).href, import.meta.url);
    // Where no package.json says that it is a module, all that it exports comes once more, as `default`.
    const { default: whole, ...named } = all;
    loaded = Object.keys(named).length > 0 && !isFunction(whole) ? named : all;
  } catch (error) {
    throw wrong(`it cannot be loaded: ${(error as Error).message}`, 'Mend the module, then start again.', error);
  }
  const other = Object.entries(loaded).find(([, made]) => !isFunction(made));
  if (other)
    throw wrong(`${other[0]} is no function for rules`, 'Export objects {type: "String", run: (row) => …} alone.');
  return loaded as Record<string, CustomFunction>;
}

function isFunction(made: unknown): made is CustomFunction {
  return typeof made === 'object' && made !== null && 'run' in made && typeof made.run === 'function' && 'type' in made;
}

/** What of the rules in force can be run here, to try `rule`: without those whose functions are elsewhere, unless it reads from them. */
export function runnableBeside<Rule extends RuleInput>(rule: RuleInput, inForce: readonly Rule[]): Rule[] {
  return inForce.filter(({ rule_id, rule_type, parameters, target_field: target }) => {
    const isThere = rule_type !== 'custom' || functions.has(parameters?.function ?? '');
    return isThere || rule_id === rule.rule_id || (target !== undefined && rule.source_fields?.includes(target));
  });
}

/** Computes a rule's value with the function that it names. Errors: `configuration`, when there is none of that name. */
export function compileCustom(rule: RuleInput, columns: readonly ExpressionColumn[]): Computation {
  const name = rule.parameters!.function!;
  const custom = functions.get(name);
  if (!custom) {
    const meant = nearest(name, [...functions.keys()]);
    const known = [...functions.keys()].join(', ') || 'none';
    throw new SluiceError(
      'configuration',
      `there is no function ${name}`,
      meant === undefined
        ? `Known are: ${known}. They are loaded when a worker or the API starts, from functions/ in its SLUICE_CONFIG_DIR (else config/).`
        : `Did you mean ${meant}?`,
    );
  }
  const fields = rule.source_fields ?? [];
  const usedColumns = fields.map((field) => columns.findIndex((column) => column.name === field));
  return {
    usedColumns,
    type: typeOfTarget(rule.target_type ?? custom.type),
    inferType: () => custom.type,
    evaluate: (row) => {
      const given: Record<string, CustomValue> = Object.create(null);
      for (const [i, field] of fields.entries()) given[field] = toCustom(row[usedColumns[i]!]!);
      return fromCustom(run(custom, given));
    },
  };
}

function run(custom: CustomFunction, row: Record<string, CustomValue>): CustomValue {
  try {
    return custom.run(row);
  } catch (error) {
    // Its message may hold values of the row.
    throw failure(`the function threw ${error instanceof Error ? error.name : typeof error}`);
  }
}

function toCustom(value: Value): CustomValue {
  if (value === null || typeof value !== 'object') return value;
  if (value instanceof Float) return value.number;
  if (value instanceof Decimal) return decimalText(value);
  if (value instanceof PlainDate) return dayText(value.days);
  if (value instanceof DateTime)
    return `${dayText(value.days)}T${clockText(value.microseconds)}${value.utc ? 'Z' : ''}`;
  return JSON.parse(toJson(value, compactJson)) as CustomValue;
}

function fromCustom(value: unknown): Value {
  if (value === null || value === undefined) return null;
  if (typeof value === 'string' || typeof value === 'boolean') return value;
  if (typeof value === 'bigint') return integer(value);
  if (typeof value === 'number') return Number.isSafeInteger(value) ? value : new Float(value);
  if (typeof value !== 'object') throw failure(`the function answered a ${typeof value}`);
  if (Array.isArray(value)) return value.map(fromCustom);
  const dict = new Dict();
  for (const [key, item] of Object.entries(value)) dict.set(key, fromCustom(item));
  return dict;
}
