/**
 * Rules of type join: fields of a row of another copy, found by key. Rows are looked up once for all rows of a batch. A row
 * takes what the other copy has when it is written: later changes there reach it with its own next change.
 *
 * A key that the other copy does not have is a failure of the rule: with on_error reject the row waits among the rejects, and
 * comes into the copy when the other row has come (late_rows.ts); with on_error null its fields stay NULL.
 */
import { tableAssetOf } from '../../model/asset.ts';
import type { JoinedTypes, RuleInput } from '../../model/rules.ts';
import { longestKey } from '../load/key_lists.ts';
import { unescapeField } from '../load/tsv.ts';
import { bareType, parseClickhouseType, typeOfTarget } from './clickhouse_types.ts';
import { type Encoder, encoderFor } from './encode.ts';
import type { Computation, ExpressionColumn } from './expression.ts';
import { EvaluationError, failure } from './jinja/limits.ts';
import type { Value } from './jinja/values.ts';
import { fieldDecoder } from './tsv_field.ts';

/** What is looked up in another copy. */
export interface LookedUp {
  /** The table's asset. */
  asset: string;
  /** Columns that it is looked up by, and those that are wanted. */
  keys: string[];
  fields: string[];
}

/** The rows of another copy with these keys (each as TSV fields), by `keyId`: their wanted fields as TSV. */
export type LookUp = (what: LookedUp, keys: string[][]) => Promise<Map<string, string[]>>;

/** How a key is told from others, however its text was escaped. */
export function keyId(key: readonly string[]): string {
  return key.map(oneText).join('\t');
}

/** What TSV always escapes: a text without these may still stand there with a backslash before a quote. */
const escapedAlways = /[\0\b\t\n\f\r\\]/;

/** Most fields are their own text. */
function oneText(field: string): string {
  if (!field.includes('\\')) return field;
  const text = unescapeField(Buffer.from(field).toString('latin1')).toString();
  return escapedAlways.test(text) ? JSON.stringify(text) : text;
}

/** A row of the other copy that was found. A field is decoded when a row takes it: one that cannot be is a failure of that row. */
interface Counterpart {
  fields: string[];
  /** Those that were decoded already. */
  values: Value[];
}

export class Join {
  readonly what: LookedUp;
  readonly #on: { index: number; encode: Encoder }[];
  readonly #decoders: ((field: string) => Value)[];
  readonly #wanted = new Map<string, string[]>();
  #found = new Map<string, Counterpart>();
  /** Of the row whose fields are being taken: its counterpart, or null where it has no key. */
  #current: Counterpart | null | undefined;

  constructor(what: LookedUp, on: { index: number; encode: Encoder }[], decoders: ((field: string) => Value)[]) {
    this.what = what;
    this.#on = on;
    this.#decoders = decoders;
  }

  get usedColumns(): number[] {
    return this.#on.map(({ index }) => index);
  }

  /** Notes the key of a row that will be asked for. */
  want(row: readonly Value[]): void {
    try {
      const key = this.#keyOf(row);
      if (key) this.#wanted.set(keyId(key), key);
    } catch (error) {
      // It fails again, with its reason, when the rule runs.
      if (!(error instanceof EvaluationError)) throw error;
    }
  }

  /** Looks up all keys that were wanted since the last time. */
  async lookUp(lookUp: LookUp): Promise<void> {
    const keys = [...this.#wanted.values()];
    this.#wanted.clear();
    this.#found = new Map();
    if (keys.length === 0) return;
    for (const [id, fields] of await lookUp(this.what, keys)) this.#found.set(id, { fields, values: [] });
  }

  /**
   * A field of the row's counterpart; NULL where the row has no key. The fields of a row are taken one after the other, from
   * the first on. Throws EvaluationError where there is no counterpart, or its field is nothing to compute with.
   */
  value(row: readonly Value[], field: number): Value {
    if (field === 0) {
      this.#current = undefined;
      const key = this.#keyOf(row);
      this.#current = key ? this.#found.get(keyId(key)) : null;
    }
    const current = this.#current;
    if (current === null) return null;
    if (!current) throw failure(`${this.what.asset} has no row of this key`);
    current.values[field] ??= this.#decoders[field]!(current.fields[field]!);
    return current.values[field];
  }

  #keyOf(row: readonly Value[]): string[] | undefined {
    const key: string[] = [];
    let letters = 0;
    for (const { index, encode } of this.#on) {
      const value = row[index]!;
      if (value === null) return undefined;
      key.push(encode(value));
      letters += key.at(-1)!.length;
    }
    if (letters > longestKey) throw failure(`a key of ${this.what.asset} has ${longestKey} characters at most`);
    return key;
  }
}

/** Types whose values have one text only, so that keys can be compared by it. */
const keyTypes = ['Int', 'String', 'FixedString', 'UUID', 'Date', 'Bool'];

/**
 * The join of a rule, and what fills each of its targets. Throws plain errors (message and remedy) for what does not go: the
 * caller says of which rule.
 */
export function compileJoin(
  rule: RuleInput,
  columns: readonly ExpressionColumn[],
  joined: JoinedTypes,
  wrong: (reason: string, remedy: string) => Error,
): { join: Join; targets: { name: string; computation: Computation }[] } {
  const { asset: named, on: pairs, fields } = rule.parameters ?? {};
  if (!named || !pairs || !fields?.length)
    throw wrong(
      'a join needs parameters.asset, on and fields',
      'E.g. { asset: shop_users, on: { user_id: id }, fields: [name] }.',
    );
  const asset = tableAssetOf(named);
  const types = joined[asset];
  if (!types) throw wrong(`there is no copy ${asset} to join with`, 'Capture it first, or name another asset.');
  const typeOf = (name: string) => {
    const type = types[name];
    if (type !== undefined) return type;
    throw wrong(`${asset} has no column ${name}`, `Its columns are ${Object.keys(types).slice(0, 100).join(', ')}.`);
  };
  const on = Object.entries(pairs).map(([field, key]) => {
    const index = columns.findIndex((column) => column.name === field);
    if (index < 0) throw wrong(`on names ${field}, which is no column`, 'Name a column of the table.');
    const { type } = parseClickhouseType(typeOf(key));
    if (!keyTypes.includes(type.name))
      throw wrong(`${key} is ${types[key]}, by which rows cannot be looked up`, `Use ${keyTypes.join(', ')}.`);
    return { index, encode: encoderFor(bareType(types[key]!)) };
  });
  const what = { asset, keys: Object.values(pairs), fields };
  const join = new Join(
    what,
    on,
    fields.map((field) => decoderOf(typeOf(field))),
  );
  const targets = fields.map((field, i) => ({
    name: targetName(rule, field),
    computation: computed(join, i, typeOf(field)),
  }));
  return { join, targets };
}

/** One field goes to the rule's target; of several each to its own name, with the target's before it. */
export function targetName({ target_field: target, parameters }: RuleInput, field: string): string {
  if (target === undefined) return field;
  return parameters!.fields!.length === 1 ? target : `${target}_${field}`;
}

function computed(join: Join, field: number, clickhouse: string): Computation {
  return {
    usedColumns: join.usedColumns,
    type: typeOfTarget(clickhouse),
    inferType: () => bareType(clickhouse),
    evaluate: (row) => join.value(row, field),
  };
}

/** Types of PostgreSQL whose texts are those of a type of ClickHouse. */
const sourceTypes: Record<string, string> = {
  Float: 'double precision',
  Decimal: 'numeric',
  Bool: 'boolean',
  Date: 'date',
  DateTime: 'timestamp with time zone',
};

function decoderOf(clickhouse: string): (field: string) => Value {
  const { type } = parseClickhouseType(clickhouse);
  const element = type.name === 'Array' ? type.element.type.name : type.name;
  const source = element === 'Int' ? 'bigint' : (sourceTypes[element] ?? 'text');
  const decode =
    type.name === 'Array'
      ? fieldDecoder({ type: `${source}[]`, encoding: 'array' })
      : fieldDecoder({ type: source, encoding: 'text' });
  return (field) => {
    if (field === '\\N') return null;
    const bytes = Buffer.from(field);
    return decode(bytes, 0, bytes.length);
  };
}
