/**
 * Which rows of a table its copy is meant to have, where rules filter: found by the same rules, over what the source shows. A
 * database cannot say that by itself, so every row of such a table comes here.
 */
import type { TableSchema } from '../../model/table.ts';
import { decoderFor } from '../transform/decode.ts';
import { EvaluationError } from '../transform/jinja/limits.ts';
import type { Value } from '../transform/jinja/values.ts';
import type { LookUp } from '../transform/join.ts';
import { compileRules } from '../transform/rules.ts';
import { Turns } from '../transform/turns.ts';

type Row = Record<string, string | null>;

export interface RowFilter {
  /** What is selected beside the row, with these aliases. */
  select(name: (column: TableSchema['columns'][number]) => string): string;
  /** The rows that the copy is meant to have; values are the source's own texts. */
  passing<Answer extends Row>(rows: Answer[]): Promise<Answer[]>;
}

/** Undefined for a table whose copy has all rows. */
export function filterOf(table: TableSchema, lookUp: LookUp): RowFilter | undefined {
  const rules = table.rules?.rules ?? [];
  if (!rules.some((rule) => rule.rule_type === 'filter')) return undefined;
  // A rule that says stop has stopped the table by itself.
  const compiled = compileRules(
    rules.map((rule) => ({ ...rule, ...(rule.on_error === 'stop' && { on_error: 'reject' as const }) })),
    table.columns,
    table.joined,
  );
  const used = compiled.uses.map((index) => ({ index, decode: decoderFor(table.columns[index]!.type) }));
  const valuesOf = (row: Row): Value[] | undefined => {
    const values: Value[] = new Array<Value>(compiled.columns.length).fill(null);
    try {
      for (const { index, decode } of used) {
        const text = row[`_f${index}`];
        const bytes = text == null ? undefined : Buffer.from(text);
        if (bytes) values[index] = decode(bytes, 0, bytes.length);
      }
      return values;
    } catch (error) {
      // It is held back, and told as such.
      if (error instanceof EvaluationError) return undefined;
      throw error;
    }
  };
  const pass = async <Answer extends Row>(rows: Answer[]): Promise<Answer[]> => {
    const turns = new Turns();
    for (const join of compiled.joins) {
      for (const row of rows) {
        const values = valuesOf(row);
        if (values) compiled.want(join, values);
        if (turns.over) await turns.pass();
      }
      await join.lookUp(lookUp);
    }
    const passing: Answer[] = [];
    for (const row of rows) {
      const values = valuesOf(row);
      if (!values || compiled.apply(values) !== 'filtered') passing.push(row);
      if (turns.over) await turns.pass();
    }
    return passing;
  };
  // What joins have found is for the rows that asked: so one part after the other.
  let last: Promise<unknown> = Promise.resolve();
  return {
    select: (name) => used.map(({ index }) => `, ${name(table.columns[index]!)} AS _f${index}`).join(''),
    passing: async (rows) => {
      const passed = last.then(() => pass(rows));
      last = passed.catch(() => {});
      return await passed;
    },
  };
}
