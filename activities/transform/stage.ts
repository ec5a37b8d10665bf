/**
 * The stage between reading and writing: rules and checks of one table, over blocks of rows as they go into its copy. Rows
 * come with all their values, also those that the source did not send. Only the fields that rules and checks use are
 * decoded; all others are copied as bytes.
 *
 * A row that a filter does not let through becomes a tombstone of its key, so that it leaves the copy; one that is held back
 * is left out, and told with its reason. Tombstones pass as they are: neither filters nor rejects may swallow one.
 */
import type { RuleCounts } from '../../model/batch.ts';
import { type Column, copiedColumns, type TableSchema } from '../../model/table.ts';
import type { Reject } from '../capture/stream.ts';
import { type CheckCounts, type CompiledChecks, compileChecks } from '../check/row_checks.ts';
import { Block } from '../load/block.ts';
import { ownColumns } from '../load/tables.ts';
import type { Decoder } from './decode.ts';
import { EvaluationError } from './jinja/limits.ts';
import type { Value } from './jinja/values.ts';
import type { Join, LookUp } from './join.ts';
import { compileRules, type Rejection, type RuleSet } from './rules.ts';
import { fieldDecoder, isNull, sourceTextOf } from './tsv_field.ts';
import { Turns } from './turns.ts';

const tab = 0x09;
const newline = 0x0a;

/** What is done with rows that a filter does not let through: their keys leave the copy, or are not in it anyway. */
export type Filtered = 'tombstone' | 'nothing';

/** What became of the rows of a block that are not written. */
export interface Staged {
  /** Left out by a filter, without a trace in the copy. */
  filtered: number;
  rejected: number;
}

/** What rules and checks did to rows. */
export interface StageCounts {
  /** By the id of the rule or check. */
  counts: Map<string, RuleCounts>;
  /** Rows that were checked, and those that failed any check. */
  rows: CheckCounts;
  /** By the id of the check. */
  checks: Map<string, CheckCounts>;
}

/** A used column of the table: where its values go in the row, and where they come from. */
interface Used {
  index: number;
  /** Its place among the fields that come; -1 where they lack it. */
  field: number;
  decode: Decoder;
  /** Its value in rows that lack it. */
  initial: Value;
}

export class TableStage {
  readonly #columns: readonly Column[];
  readonly #rules: RuleSet;
  readonly #checks: CompiledChecks;
  readonly #used: Used[];
  /** For each field that goes out: the field that it is copied from, or ~ the target that it is. */
  readonly #plan: Int32Array;
  /** Places of the columns in the order of the table, for people. */
  readonly #shown: number[];
  readonly #row: Value[];
  /** Where the fields of the row under way begin, and one past its last byte. */
  readonly #starts: Int32Array;
  /** Rows are written here, and then change places with those of the block. */
  readonly #out = new Block();

  /**
   * @param table as its copy is made.
   * @param columns those of the table that rows come with, in their order; rows of before an alteration lack some.
   * Throws SluiceError `rule_failed` when rules or checks do not go with the table.
   */
  constructor(table: TableSchema, columns: readonly Column[] = table.columns) {
    const { rules = [], checks = [] } = table.rules ?? {};
    this.#columns = columns;
    this.#rules = compileRules(rules, table.columns, table.joined);
    this.#checks = compileChecks(checks, this.#rules.columns);
    const used = new Set([...this.#rules.uses, ...this.#checks.uses.filter((index) => index < table.columns.length)]);
    this.#used = [...used].map((index) => usedColumn(table.columns[index]!, index, columns));
    this.#plan = planOf(columns, this.#rules);
    // What is excluded is stored nowhere, not among rejects either.
    this.#shown = [...columns.keys()]
      .filter((i) => !columns[i]!.hidden)
      .sort((a, b) => columns[a]!.attnum - columns[b]!.attnum);
    this.#row = new Array<Value>(this.#rules.columns.length).fill(null);
    this.#starts = new Int32Array(columns.length + ownColumns.length + 1);
  }

  /** Names of the columns that rows go out with; Sluice's own stand behind them. */
  get names(): string[] {
    const { targets } = this.#rules;
    return copiedColumns({ columns: [...this.#columns], targets: [...targets] }).map((column) => column.name);
  }

  /** What rules and checks did since the last call. */
  takeCounts(): StageCounts {
    const counts = this.#rules.takeCounts();
    const { rows } = this.#checks;
    const checks = this.#checks.takeCounts();
    for (const [check, { checked, failed }] of checks)
      counts.set(check, { in: checked, out: checked - failed, errors: failed });
    return { counts, rows, checks };
  }

  /** Looks up, for all rows of these blocks at once, what joins will ask for. Before `apply`. */
  async lookUp(blocks: readonly Block[], lookUp: LookUp): Promise<void> {
    const turns = new Turns();
    for (const join of this.#rules.joins) {
      for (const block of blocks) await this.#want(join, block, turns);
      await join.lookUp(lookUp);
    }
  }

  async #want(join: Join, block: Block, turns: Turns): Promise<void> {
    for (let row = 0; row < block.rows; row++) {
      this.#findFields(block, row);
      if (!this.#isTombstone(block.bytes) && this.#decode(block.bytes) === undefined) this.#rules.want(join, this.#row);
      if (turns.over) await turns.pass();
    }
  }

  /**
   * Puts a block's rows through rules and checks, in place, and lets others take turns: what each row may cost is more than a
   * process can go without its heartbeat for all of them. Those held back go to `rejects`. Throws SluiceError `rule_failed`
   * where a rule or check says so; then the block is as it was.
   */
  async apply(block: Block, rejects: Reject[], filtered: Filtered): Promise<Staged> {
    const out = this.#out;
    out.length = out.rows = 0;
    const staged: Staged = { filtered: 0, rejected: 0 };
    const held: Reject[] = [];
    const turns = new Turns();
    for (let row = 0; row < block.rows; row++) {
      this.#findFields(block, row);
      if (this.#isTombstone(block.bytes)) this.#writeTombstone(block.bytes);
      else {
        const outcome = this.#evaluate(block.bytes);
        if (outcome === 'kept') this.#write(block.bytes);
        else if (outcome === 'filtered' && filtered === 'tombstone') this.#writeTombstone(block.bytes);
        else if (outcome === 'filtered') staged.filtered++;
        else held.push(this.#rejectOf(block.bytes, outcome));
      }
      if (turns.over) await turns.pass();
    }
    staged.rejected = held.length;
    rejects.push(...held);
    exchange(block, out);
    return staged;
  }

  #findFields({ bytes, starts: rows, rows: count, length }: Block, row: number): void {
    const starts = this.#starts;
    const start = rows[row]!;
    const end = row + 1 < count ? rows[row + 1]! : length;
    let field = 0;
    starts[field++] = start;
    for (let at = start; at < end; at++) if (bytes[at] === tab) starts[field++] = at + 1;
    starts[field] = end;
  }

  /** One past the last byte of a field. */
  #end(field: number): number {
    return this.#starts[field + 1]! - 1;
  }

  #isTombstone(bytes: Buffer): boolean {
    return bytes[this.#starts[this.#columns.length + 1]!] === 0x31;
  }

  #evaluate(bytes: Buffer): 'kept' | 'filtered' | Rejection {
    const row = this.#row;
    const undecoded = this.#decode(bytes);
    if (undecoded) return undecoded;
    const outcome = this.#rules.apply(row);
    if (outcome === 'rejected') return this.#rules.rejection;
    if (outcome === 'filtered') return outcome;
    return this.#checks.apply(row) ?? 'kept';
  }

  /** Decodes what rules and checks use of the row; answers what could not be. */
  #decode(bytes: Buffer): Rejection | undefined {
    const row = this.#row;
    for (const { index, field, decode, initial } of this.#used) {
      if (field < 0) row[index] = initial;
      else {
        const [start, end] = [this.#starts[field]!, this.#end(field)];
        try {
          row[index] = isNull(bytes, start, end) ? null : decode(bytes, start, end);
        } catch (error) {
          if (!(error instanceof EvaluationError)) throw error;
          const column = this.#columns[field]!.name;
          return { rule_id: 'type', field: column, reason: error.message };
        }
      }
    }
    return undefined;
  }

  /** The row with its targets. */
  #write(bytes: Buffer): void {
    const out = this.#out;
    const { fields } = this.#rules;
    const starts = this.#starts;
    let size = starts[starts.length - 1]! - starts[0]! + 16;
    for (const text of fields) size += text.length * 3 + 1;
    out.reserve(size);
    out.beginRow();
    const plan = this.#plan;
    for (let i = 0; i < plan.length; i++) {
      const from = plan[i]!;
      if (from < 0) {
        out.length = writeText(out.bytes, out.length, fields[~from]!);
        out.bytes[out.length++] = tab;
        continue;
      }
      // Fields that stand side by side on both sides are one piece.
      while (i + 1 < plan.length && plan[i + 1] === plan[i]! + 1) i++;
      this.#copy(bytes, starts[from]!, starts[plan[i]! + 1]!);
    }
    this.#copyOwn(bytes);
  }

  /** A tombstone of the row's key at its version. */
  #writeTombstone(bytes: Buffer): void {
    const out = this.#out;
    const starts = this.#starts;
    const columns = this.#columns.length;
    out.reserve(starts[starts.length - 1]! - starts[0]! + this.#plan.length * 3 + 16);
    out.beginRow();
    for (const from of this.#plan) {
      if (from >= 0 && this.#columns[from]!.key) this.#copy(bytes, starts[from]!, starts[from + 1]!);
      else {
        const type = from >= 0 ? this.#columns[from]!.clickhouse : this.#rules.targets[~from]!.clickhouse;
        const nothing = type.startsWith('Array(') ? '[]' : '\\N';
        out.length += out.bytes.write(nothing, out.length, 'latin1');
        out.bytes[out.length++] = tab;
      }
    }
    const deleted = out.length + starts[columns + 1]! - starts[columns]!;
    this.#copyOwn(bytes);
    out.bytes[deleted] = 0x31;
  }

  #copyOwn(bytes: Buffer): void {
    const starts = this.#starts;
    this.#copy(bytes, starts[this.#columns.length]!, starts[starts.length - 1]!);
    this.#out.bytes[this.#out.length - 1] = newline;
    this.#out.rows++;
  }

  #copy(bytes: Buffer, start: number, end: number): void {
    const out = this.#out;
    const target = out.bytes;
    let to = out.length;
    if (end - start > 64) bytes.copy(target, to, start, end);
    else for (let at = start; at < end; at++) target[to++] = bytes[at]!;
    out.length += end - start;
  }

  #rejectOf(bytes: Buffer, { rule_id, field, reason }: Rejection): Reject {
    const row: Record<string, string | null> = Object.create(null);
    const key: Record<string, string | null> = Object.create(null);
    for (const i of this.#shown) {
      const column = this.#columns[i]!;
      const text = sourceTextOf(column, bytes, this.#starts[i]!, this.#end(i));
      row[column.name] = text;
      if (column.key) key[column.name] = text;
    }
    const own = this.#columns.length;
    const text = (place: number, end: number) => bytes.toString('latin1', this.#starts[own + place], end);
    return {
      key: JSON.stringify(key),
      version: text(0, this.#end(own)),
      check: rule_id,
      column: field ?? '',
      reason,
      row: JSON.stringify(row),
      committed_at: text(2, this.#starts[own + ownColumns.length]! - 1),
    };
  }
}

function usedColumn(column: Column, index: number, columns: readonly Column[]): Used {
  const decode = fieldDecoder(column);
  const field = columns.findIndex((there) => there.attnum === column.attnum);
  if (field >= 0 || column.initial === undefined) return { index, field, decode, initial: null };
  const bytes = Buffer.from(column.initial, 'latin1');
  return { index, field, decode, initial: decode(bytes, 0, bytes.length) };
}

function planOf(columns: readonly Column[], { targets }: RuleSet): Int32Array {
  const names = copiedColumns({ columns: [...columns], targets: [...targets] }).map((column) => column.name);
  const fields = names.map((name) => {
    const target = targets.findIndex((one) => one.name === name);
    return target >= 0 ? ~target : columns.findIndex((column) => column.name === name);
  });
  return Int32Array.from(fields);
}

/** Writes text as UTF-8, plain letters without the cost of a call. Returns the end. */
function writeText(target: Buffer, to: number, text: string): number {
  if (text.length > 64) return to + target.write(text, to, 'utf8');
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code > 0x7f) return to + target.write(text, to, 'utf8');
    target[to + i] = code;
  }
  return to + text.length;
}

/** The block has the rows that were written, and what it had can be written to. */
function exchange(block: Block, out: Block): void {
  const { bytes, view, starts, length, rows } = out;
  out.bytes = block.bytes;
  out.view = block.view;
  out.starts = block.starts;
  Object.assign(block, { bytes, view, starts, length, rows });
}
