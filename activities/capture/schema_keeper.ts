/**
 * What copies are made from while a lease runs, and what happens when their tables are defined otherwise. There are two
 * witnesses. The stream announces a table anew before the first row of another shape: then the change travels alone, in its
 * place. The catalog is looked at before each lease and every few seconds: it also shows what sends no rows. What it
 * shows is done only when the stream has passed that moment, so that no row of before comes after.
 *
 * A change is stored first, then done to the copy, then recorded: whoever dies between is made up for by the next lease.
 */
import { performance } from 'node:perf_hooks';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import { schemaPolicy, schemaRemedy } from '../../model/source.ts';
import { isBeside, type TableSchema, tableName } from '../../model/table.ts';
import { loadSaved, readRecords, saveSchema } from '../load/batches.ts';
import type { ClickHouseSink } from '../load/clickhouse_sink.ts';
import { rulesVersion } from '../transform/rule_store.ts';
import { compareRules, type RulesInForce, rulesInForce } from '../transform/table_rules.ts';
import type { TableRef } from './contract.ts';
import type { Connected, Look, Source, TableChange } from './source.ts';
import type { Alteration, ChangeStream, Doubt } from './stream.ts';

/** Milliseconds between two looks for other rules: people wait for them. */
const askRulesEvery = 2_000;
/** Milliseconds between two looks for snapshots that are done. */
const replaceEvery = 1_000;
/** Milliseconds between two looks at the catalog that are asked for: some alter tables all the time. */
const soonest = 400;

export interface KeeperOptions {
  source: Source;
  connected: Connected;
  sink: ClickHouseSink;
  tables: TableRef[];
  /** Tables that are gone, and may come back. */
  absent: TableRef[];
  /** Milliseconds between two looks at the catalog; half as many when the stream announced a table again without a difference, few when it tells of one that was altered. */
  lookEvery: number;
  /** Called when another definition of a table was stored. */
  defined: () => void;
  /** False for a copy that was begun only just: what was looked at because somebody asked does not make it anew at once. */
  settled: (asset: string) => boolean;
}

/** What became of a change. */
export interface Outcome {
  /** By asset, what was altered, for people. */
  altered: Record<string, string[]>;
  failed: Record<string, ErrorReport>;
}

/** What a look at the catalog led to. */
export interface Observation extends Outcome {
  /** Assets whose tables were gone and are there again. */
  returned: string[];
}

/** A look at the catalog, with the rules that were in force then. */
interface Seen {
  look: Look;
  /** The source had told that tables were altered. */
  asked: boolean;
  declared: RulesInForce;
}

export class SchemaKeeper {
  readonly #options: KeeperOptions;
  readonly #tables = new Map<string, TableSchema>();
  readonly #generations = new Map<string, number>();
  #looking = false;
  #lookedAt = performance.now();
  #doubt: Doubt = 'none';
  /** When the source told of altered tables last. */
  #toldAt = 0;
  /** When a look began last that nobody had asked for, and how long the last one took. */
  #unaskedAt = performance.now();
  #took = 0;
  /** Version of the rules that were looked at last. */
  #rules = 0;
  #askedAt = performance.now();
  /** The newest look, until it is judged. */
  #fresh: Seen | undefined;
  /** The oldest look that the stream has not passed yet. */
  #waiting: Seen | undefined;
  /** Counts changes that were announced: what was seen before one says nothing of what is behind it. */
  #announced = 0;
  #replacedAt = 0;

  private constructor(options: KeeperOptions) {
    this.#options = options;
  }

  /** Loads what the copies are made from, and compares it with the catalog. Errors: as those of the source. */
  static async open(options: KeeperOptions): Promise<{ keeper: SchemaKeeper; found: Observation }> {
    const keeper = new SchemaKeeper(options);
    const { sink, connected, tables } = options;
    const saved = await loadSaved(sink.clickhouse, connected.request.id);
    const found: Observation = { altered: {}, failed: {}, returned: [] };
    for (const { asset_id, table } of tables) {
      const known = saved.get(asset_id);
      if (!known) found.failed[asset_id] = keeper.#changed(table, 'what its copy was made from is not stored');
      else {
        keeper.#tables.set(asset_id, known.schema);
        keeper.#generations.set(asset_id, known.generation);
      }
    }
    const seen = await keeper.#look(false);
    keeper.#judge(seen, found);
    keeper.#waiting = seen;
    return { keeper, found };
  }

  /** What the copies are made from; tables that failed are not among them. */
  get tables(): TableSchema[] {
    return [...this.#tables.values()];
  }

  /** What the copy of an asset is made from now. */
  table(asset: string): TableSchema | undefined {
    return this.#tables.get(asset);
  }

  /**
   * Makes good what a lease that died left half done: its last change of a copy, or the exchange of one. Answers tables
   * where that is not possible.
   */
  async mend(): Promise<Record<string, ErrorReport>> {
    const outcome: Outcome = { altered: {}, failed: {} };
    const mend = async (table: TableSchema, how: () => Promise<void>) => {
      try {
        await how();
      } catch (error) {
        if (!(error instanceof SluiceError) || error.transient) throw error;
        this.#fail(table, this.#changed(tableName(table), `its copy could not be mended: ${error.message}`), outcome);
      }
    };
    await this.#checkPlaces((table) => mend(table, () => this.#replace(table)));
    for (const table of this.tables)
      if (wasAltered(table)) await mend(table, () => this.#options.sink.alterCopy(table));
    return outcome.failed;
  }

  /** Does what an announced change asks for, and lets the stream go on. `fence` throws when another lease has taken over. */
  async decide(alteration: Alteration, fence: () => Promise<void>): Promise<Outcome> {
    this.#announced++;
    this.#fresh = this.#waiting = undefined;
    if (this.#doubt === 'none') this.#doubt = 'announced';
    const { asset } = alteration;
    const known = this.#tables.get(asset);
    if (!known) {
      alteration.settle(undefined);
      return { altered: {}, failed: {} };
    }
    const change = await alteration.resolve(known);
    const outcome: Outcome = { altered: {}, failed: {} };
    await this.#carryOut(known, change, outcome, fence);
    const next = this.#tables.get(asset);
    if (!alteration.settle(next) && next) {
      this.#fail(next, this.#changed(tableName(next), 'it is announced otherwise than its definition says'), outcome);
      alteration.settle(undefined);
    }
    return outcome;
  }

  /**
   * Looks at the catalog when it is time, and does what a look that the stream has passed asks for. `doubt`: what the stream
   * gives cause for; `position`: everything up to it is recorded. Undefined when there is nothing to tell.
   */
  async observe(
    stream: ChangeStream,
    doubt: Doubt,
    position: string,
    fence: () => Promise<void>,
  ): Promise<Observation | undefined> {
    if (doubt === 'altered') this.#toldAt = performance.now();
    if (this.#doubt !== 'altered' && doubt !== 'none') this.#doubt = doubt;
    this.#lookWhenDue();
    const found: Observation = { altered: {}, failed: {}, returned: [] };
    const { source } = this.#options;
    if (this.#fresh) this.#judge(this.#fresh, found);
    this.#fresh = undefined;
    const seen = this.#waiting;
    if (seen && source.passed(position, seen.look.position)) {
      this.#waiting = undefined;
      await this.#follow(seen, stream, found, fence);
    }
    return isEmpty(found) ? undefined : found;
  }

  /** Puts copies whose snapshots are complete at `position` in the place of the old ones. */
  async replaceComplete(position: string, fence: () => Promise<void>): Promise<void> {
    if (!this.tables.some(isBeside) || performance.now() - this.#replacedAt < replaceEvery) return;
    this.#replacedAt = performance.now();
    const { connected, sink, source, tables } = this.#options;
    const where = `source = {source:String} AND kind = 'snapshot' AND position_from IN {starts:Array(String)}`;
    const starts = tables.map((table) => table.start_position);
    const records = await readRecords(sink.clickhouse, where, { source: connected.request.id, starts });
    for (const ref of tables) {
      const table = this.#tables.get(ref.asset_id);
      const done = records.find(
        (record) => ref.asset_id in record.assets && record.position_from === ref.start_position,
      );
      if (!table || !isBeside(table) || !done || !source.passed(position, done.position_to)) continue;
      await fence();
      await this.#replace(table);
    }
  }

  /**
   * Sees that rows which were just written went into the copies that they were meant for. A predecessor that nobody
   * believes alive may have put a copy in its place meanwhile: then its former name is the old copy's.
   */
  async confirmPlaces(): Promise<void> {
    await this.#checkPlaces((table) => {
      const reason = `the copy ${table.asset_id} has been put in its place by another lease`;
      throw new SluiceError('slot_in_use', reason, 'It is tried again.', { source: this.#id });
    });
  }

  /** True when another lease has stored another definition of the table. */
  async isOutdated(asset: string): Promise<boolean> {
    const saved = await loadSaved(this.#options.sink.clickhouse, this.#id, asset);
    return JSON.stringify(saved.get(asset)?.schema) !== JSON.stringify(this.#tables.get(asset));
  }

  /** Why a table failed whose definition is another one, with what to do. */
  changed(asset: string, reason: string): ErrorReport {
    const table = this.#tables.get(asset);
    return this.#changed(table ? tableName(table) : asset, reason);
  }

  get #id(): string {
    return this.#options.connected.request.id;
  }

  #lookWhenDue(): void {
    void this.#askForRules();
    const now = performance.now();
    if (this.#looking || !this.#isDue(now)) return;
    const told = this.#doubt === 'altered';
    const asked = told && now - this.#unaskedAt < this.#options.lookEvery;
    if (!asked) this.#unaskedAt = now;
    this.#doubt = 'none';
    this.#looking = true;
    const announced = this.#announced;
    this.#look(asked)
      .then((seen) => {
        if (announced !== this.#announced) return false;
        this.#fresh = seen;
        this.#waiting ??= seen;
        return this.#waiting === seen;
      })
      // The stream itself will say what is wrong with the source.
      .catch(() => false)
      .then((follows) => {
        // What nobody follows was not seen yet.
        if (told && !follows) this.#doubt = 'altered';
        this.#looking = false;
        this.#lookedAt = performance.now();
        this.#took = this.#lookedAt - now;
      });
  }

  /**
   * What the source told of is looked at a moment later, when its transaction is visible, and while the stream has come to
   * the last look; where tables are altered all the time, for a part of the time only.
   */
  #isDue(now: number): boolean {
    const { lookEvery } = this.#options;
    const told = this.#doubt === 'altered' && !this.#waiting;
    if (told && now - this.#toldAt >= soonest && now - this.#lookedAt >= Math.max(soonest, 5 * this.#took)) return true;
    return now - this.#lookedAt >= (this.#doubt === 'none' ? lookEvery : lookEvery / 2);
  }

  /** Has the next look come at once when other rules are in force. */
  async #askForRules(): Promise<void> {
    if (performance.now() - this.#askedAt < askRulesEvery) return;
    this.#askedAt = performance.now();
    const version = await rulesVersion(this.#options.sink.clickhouse).catch(() => this.#rules);
    if (version !== this.#rules) this.#lookedAt = 0;
  }

  async #look(asked: boolean): Promise<Seen> {
    const { source, connected, absent, sink } = this.#options;
    const look = source.look(connected, [...this.tables, ...absent]);
    const [seen, declared] = await Promise.all([look, rulesInForce(sink.clickhouse)]);
    this.#rules = declared.rules.version;
    return { look: seen, declared, asked };
  }

  /** A look that was asked for makes no copy anew that was begun only just: a later one will. */
  #compare(table: TableSchema, { look, asked }: Seen): TableChange {
    const change = look.compare(table);
    return change.do === 'resync' && asked && !this.#options.settled(table.asset_id) ? { do: 'nothing' } : change;
  }

  /** What needs no waiting for the stream: tables that are gone, are back, or whose copies do not fit whatever comes. */
  #judge(seen: Seen, found: Observation): void {
    const { look, declared } = seen;
    for (const table of this.tables) {
      const change = this.#compare(table, seen);
      if (change.do === 'resync') this.#fail(table, this.#changed(tableName(table), change.reason), found);
      else if (change.do === 'stop') this.#fail(table, change.report, found);
      else {
        const other = this.#otherRules(table, declared);
        if (other.do === 'stop') this.#fail(table, other.report, found);
      }
    }
    for (const { asset_id } of this.#options.absent) if (look.usable(asset_id)) found.returned.push(asset_id);
  }

  async #follow(seen: Seen, stream: ChangeStream, found: Observation, fence: () => Promise<void>): Promise<void> {
    for (const table of this.tables) {
      const change = this.#compare(table, seen);
      if (change.do !== 'nothing') await this.#carryOut(table, change, found, fence);
      const known = this.#tables.get(table.asset_id);
      const other = known && this.#otherRules(known, seen.declared);
      if (other?.do === 'stop') this.#fail(known!, other.report, found);
      if (other?.do === 'alter') await this.#alter(other, found, fence);
      const next = this.#tables.get(table.asset_id);
      if (next && next !== table) stream.redefine(next);
    }
  }

  /** What follows from rules that are others than those of the copy. */
  #otherRules(
    table: TableSchema,
    { rules, joined }: RulesInForce,
  ): Extract<TableChange, { do: 'nothing' | 'alter' | 'stop' }> {
    try {
      const change = compareRules(table, rules, joined);
      if (change.do !== 'resync') return change;
      const reason = `the copy ${table.asset_id} is made anew: ${change.reason}`;
      const remedy = 'Nothing is to be done: it is copied anew by itself.';
      return { do: 'stop', report: { kind: 'rules_changed', reason, remedy } };
    } catch (error) {
      if (!(error instanceof SluiceError) || error.kind !== 'rule_failed') throw error;
      return { do: 'stop', report: error.report() };
    }
  }

  async #carryOut(
    known: TableSchema,
    change: TableChange,
    outcome: Outcome,
    fence: () => Promise<void>,
  ): Promise<void> {
    const name = tableName(known);
    if (change.do === 'stop') return this.#fail(known, change.report, outcome);
    if (change.do === 'resync') return this.#fail(known, this.#changed(name, change.reason), outcome);
    if (change.do === 'nothing') return;
    const policy = schemaPolicy(this.#options.connected.request.config);
    const follows = policy === 'evolve' || policy === 'ignore' || change.what.length === 0;
    if (!follows) return this.#fail(known, this.#changed(name, inWords(change.what)), outcome);
    const ruled = await this.#otherwiseRuled(change.next);
    if (ruled) return this.#fail(known, ruled, outcome);
    await this.#alter(change, outcome, fence);
  }

  /**
   * Why a table cannot go on under its rules when it is defined so; undefined when it can. All rules count, not those alone
   * that it had: a column that comes may be one that a rule masks, and no row of it may pass before that is seen.
   */
  async #otherwiseRuled(next: TableSchema): Promise<ErrorReport | undefined> {
    const other = this.#otherRules(next, await rulesInForce(this.#options.sink.clickhouse));
    if (other.do === 'nothing') return undefined;
    return other.do === 'stop' ? other.report : this.#changed(tableName(next), 'its rules fill other columns now');
  }

  /** Has a copy made from another definition from here on. */
  async #alter(
    { next, what }: { next: TableSchema; what: string[] },
    outcome: Outcome,
    fence: () => Promise<void>,
  ): Promise<void> {
    await fence();
    await saveSchema(this.#options.sink.clickhouse, this.#id, next, this.#generations.get(next.asset_id)!);
    this.#options.defined();
    this.#tables.set(next.asset_id, next);
    try {
      if (what.length > 0) await this.#options.sink.alterCopy(next);
    } catch (error) {
      if (!(error instanceof SluiceError) || error.transient) throw error;
      const reason = `${inWords(what)}, and its copy could not follow: ${error.message}`;
      return this.#fail(next, this.#changed(tableName(next), reason), outcome);
    }
    if (what.length > 0) outcome.altered[next.asset_id] = what;
  }

  #fail(table: TableSchema, report: ErrorReport, outcome: Outcome): void {
    this.#tables.delete(table.asset_id);
    outcome.failed[table.asset_id] = report;
  }

  #changed(name: string, reason: string): ErrorReport {
    const remedy = schemaRemedy(this.#options.connected.request.config, this.#id, name);
    return { kind: 'table_changed', reason: `the table ${name} was changed in the source: ${reason}`, remedy };
  }

  async #replace(table: TableSchema): Promise<void> {
    await this.#options.sink.replaceCopy(table);
    await saveSchema(this.#options.sink.clickhouse, this.#id, table, this.#generations.get(table.asset_id)!);
  }

  /** Calls `moved` for each copy that is not beside the old one any more, but in its place. */
  async #checkPlaces(moved: (table: TableSchema) => Promise<void> | void): Promise<void> {
    const beside = this.tables.filter(isBeside);
    if (beside.length === 0) return;
    const placed = await this.#options.sink.placedCopies(beside);
    for (const table of beside) if (placed.has(table.asset_id)) await moved(table);
  }
}

/** Some of a long list tell enough. */
function inWords(what: string[]): string {
  const most = 8;
  return what.length <= most ? what.join(', ') : `${what.slice(0, most).join(', ')} and ${what.length - most} more`;
}

function wasAltered(table: TableSchema): boolean {
  return (
    table.alteredAt !== undefined ||
    table.former !== undefined ||
    table.targets !== undefined ||
    table.columns.some((column) => column.initial !== undefined)
  );
}

function isEmpty({ altered, failed, returned }: Observation): boolean {
  return Object.keys(altered).length + Object.keys(failed).length + returned.length === 0;
}
