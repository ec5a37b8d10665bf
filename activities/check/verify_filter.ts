/**
 * Which rows of a table its copy is meant to have, where rules filter: found by the same rules, over what the source shows. A
 * database cannot say that by itself, so every row of such a table comes here.
 */
import type { Rule } from '../../model/rules.ts';
import type { TableSchema } from '../../model/table.ts';
import { filledBy, readBy } from '../lineage/rule_edges.ts';
import { type Decoder, decoderFor } from '../transform/decode.ts';
import { EvaluationError } from '../transform/jinja/limits.ts';
import { ofKind } from '../transform/jinja/static_type.ts';
import type { Value } from '../transform/jinja/values.ts';
import type { LookUp } from '../transform/join.ts';
import { compileRules, type RuleSet } from '../transform/rules.ts';
import { Turns } from '../transform/turns.ts';

type Row = Record<string, string | null>;

/**
 * Why it is not certain whether the copy has a row: the filter came later (`apply_to: new`), or reads what another table shows at
 * the time. `gone`: it does not pass now, and may have passed before; `here`: the other way round.
 */
export type Doubt = 'gone' | 'here';

export interface RowFilter {
  /** What is selected beside the row, with these aliases. */
  select(name: (column: TableSchema['columns'][number]) => string): string;
  /** The rows that the copy is meant to have, or may have; values are the source's own texts. */
  judge<Answer extends Row>(rows: Answer[]): Promise<{ row: Answer; doubt: Doubt | undefined }[]>;
}

/** Undefined for a table whose copy has all rows. */
export function filterOf(table: TableSchema, lookUp: LookUp): RowFilter | undefined {
  const rules = table.rules?.rules ?? [];
  if (!rules.some((rule) => rule.rule_type === 'filter')) return undefined;
  const all = new Filtering(table, rules, lookUp);
  const moody = unsettledFilters(rules, table);
  const settled =
    moody.size > 0
      ? new Filtering(
          table,
          rules.filter((rule) => !moody.has(rule)),
          lookUp,
        )
      : undefined;
  const byJoin = [...moody.values()].includes('join');
  // What joins have found is for the rows that asked: so one part after the other.
  let last: Promise<unknown> = Promise.resolve();
  const judge = async <Answer extends Row>(rows: Answer[]) => {
    const passing = await all.passing(rows);
    const perhaps = settled ? await settled.passing(rows) : passing;
    return rows
      .filter((row) => passing.has(row) || perhaps.has(row))
      .map((row) => ({ row, doubt: passing.has(row) ? (byJoin ? ('here' as const) : undefined) : ('gone' as const) }));
  };
  return {
    select: (name) => all.used.map((index) => `, ${name(table.columns[index]!)} AS _f${index}`).join(''),
    judge: async (rows) => {
      const judged = last.then(() => judge(rows));
      last = judged.catch(() => {});
      return await judged;
    },
  };
}

/** Filters whose answer for a row depends on when it was asked, each with why. */
function unsettledFilters(rules: Rule[], table: TableSchema): Map<Rule, 'new' | 'join'> {
  /** Names whose values depend on that, too. */
  const moody = new Map<string, 'new' | 'join'>();
  const found = new Map<Rule, 'new' | 'join'>();
  const known = table.columns.map(({ name }) => ({ name, type: ofKind('any') }));
  for (const rule of rules) {
    const reads = readBy(rule, known).flatMap((name) => moody.get(name) ?? []);
    const why =
      rule.rule_type === 'join' || reads.includes('join')
        ? 'join'
        : rule.apply_to === 'new' || reads.length > 0
          ? 'new'
          : undefined;
    for (const name of filledBy(rule)) {
      known.push({ name, type: ofKind('any') });
      if (why) moody.set(name, why);
      else moody.delete(name);
    }
    if (rule.rule_type === 'filter' && why) found.set(rule, why);
  }
  return found;
}

/** Rules over rows of the source. */
class Filtering {
  readonly #compiled: RuleSet;
  readonly #decoders: { index: number; decode: Decoder }[];
  readonly #lookUp: LookUp;

  constructor(table: TableSchema, rules: Rule[], lookUp: LookUp) {
    this.#lookUp = lookUp;
    // A rule that says stop has stopped the table by itself.
    this.#compiled = compileRules(
      rules.map((rule) => ({ ...rule, ...(rule.on_error === 'stop' && { on_error: 'reject' as const }) })),
      table.columns,
      table.joined,
    );
    this.#decoders = this.used.map((index) => ({ index, decode: decoderFor(table.columns[index]!.type) }));
  }

  /** Columns that are read, by their index. */
  get used(): readonly number[] {
    return this.#compiled.uses;
  }

  async passing<Answer extends Row>(rows: Answer[]): Promise<Set<Answer>> {
    const turns = new Turns();
    for (const join of this.#compiled.joins) {
      for (const row of rows) {
        const values = this.#valuesOf(row);
        if (values) this.#compiled.want(join, values);
        if (turns.over) await turns.pass();
      }
      await join.lookUp(this.#lookUp);
    }
    const passing = new Set<Answer>();
    for (const row of rows) {
      const values = this.#valuesOf(row);
      if (!values || this.#compiled.apply(values) !== 'filtered') passing.add(row);
      if (turns.over) await turns.pass();
    }
    return passing;
  }

  /** Undefined for a row that is held back, and told as such. */
  #valuesOf(row: Row): Value[] | undefined {
    const values: Value[] = new Array<Value>(this.#compiled.columns.length).fill(null);
    try {
      for (const { index, decode } of this.#decoders) {
        const text = row[`_f${index}`];
        const bytes = text == null ? undefined : Buffer.from(text);
        if (bytes) values[index] = decode(bytes, 0, bytes.length);
      }
      return values;
    } catch (error) {
      if (error instanceof EvaluationError) return undefined;
      throw error;
    }
  }
}
