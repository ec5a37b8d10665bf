/**
 * What another definition of a table means for its copy. Columns are told apart by attnum, which outlives renames. The
 * stream announces definitions as of their time, by name; the catalog shows those of now, which may be ahead. What both
 * together do not explain without a doubt, and what changes values without sending rows, needs a copy made anew.
 */
import type { Column, Encoding, FormerColumn, LeftOut, Partition, TableSchema } from '../../../model/table.ts';
import { isMultiset, tableName } from '../../../model/table.ts';
import { Block } from '../../load/block.ts';
import type { TableChange } from '../source.ts';
import { isCapturable, leafFault, type Seen, type TableDetails } from './catalog.ts';
import { quoteTable } from './connection.ts';
import { RowEncoder } from './encode.ts';
import { compareLeaves } from './partitions.ts';
import type { RelationMessage } from './pgoutput.ts';
import { reservedNames } from './table_checks.ts';

export interface CompareOptions {
  source: string;
  /** New columns are left out. */
  ignoreNew: boolean;
  /** Announced by the stream; without it the catalog alone speaks, of a moment that the stream has passed. */
  relation?: RelationMessage;
}

/** What has to be done to the copy for it to equal the table as it is defined now, or was announced. */
export function compareTable(known: TableSchema, seen: Seen, options: CompareOptions): TableChange {
  const { named: now } = seen;
  if (!now) return missing(known, seen, options.source);
  if (now.oid !== known.oid)
    return { do: 'resync', reason: 'another table bears its name: it was dropped and made again, or swapped' };
  if (!isCapturable(now)) return missing(known, seen, options.source);
  try {
    return new Comparison(known, now, options).run();
  } catch (error) {
    if (error instanceof Verdict) return error.change;
    throw error;
  }
}

function missing(known: TableSchema, { named, movedTo }: Seen, source: string): TableChange {
  const name = tableName(known);
  const follow =
    movedTo === undefined
      ? `Make it again, and it is copied by itself; or take it out: sluice sources remove-tables ${source} ${name}`
      : `Rename it back; or go on under its new name: sluice sources add-tables ${source} ${movedTo}, and remove-tables ${source} ${name}`;
  const fault = named && leafFault(named);
  const [reason, remedy] = fault
    ? [fault.reason, `${fault.remedy} Then it is copied by itself.`]
    : named
      ? [
          'UPDATE and DELETE do not say any more which of its rows they mean',
          `Give it a primary key, or run ALTER TABLE ${quoteTable(known)} REPLICA IDENTITY FULL; and it is copied by itself. Until then PostgreSQL may refuse its UPDATE and DELETE, since it is in a publication; to take it out of that: sluice sources remove-tables ${source} ${name}`,
        ]
      : [movedTo === undefined ? 'it is gone' : `it is called ${movedTo} now`, follow];
  return { do: 'stop', report: { kind: 'table_missing', reason: `the table ${name} is missing: ${reason}`, remedy } };
}

/** Ends a comparison early. */
class Verdict extends Error {
  readonly change: TableChange;
  constructor(change: TableChange) {
    super('decided');
    this.change = change;
  }
}

/** Encodings that refuse no value. */
const holdsAll: Encoding[] = ['plain', 'text', 'bytea'];

const resync = (reason: string) => new Verdict({ do: 'resync', reason });

/** A column of the announced, or of the present, definition: where it goes in the copy. */
interface Place {
  attnum: number;
  name: string;
  typeOid: number;
  typmod: number;
  key: boolean;
}

class Comparison {
  readonly #known: TableSchema;
  readonly #now: TableDetails;
  readonly #options: CompareOptions;
  readonly #columnsNow: Map<number, Column>;
  readonly #leftOutNow: Map<number, LeftOut>;
  /** What people are told. */
  readonly #what: string[] = [];

  constructor(known: TableSchema, now: TableDetails, options: CompareOptions) {
    this.#known = known;
    this.#now = now;
    this.#options = options;
    this.#columnsNow = new Map(now.columns.map((column) => [column.attnum, column]));
    this.#leftOutNow = new Map(now.leftOut.map((column) => [column.attnum, column]));
  }

  run(): TableChange {
    const known = this.#known;
    const { relation } = this.#options;
    const partitions = this.#partitions();
    const identity = this.#identity();
    const places = relation ? this.#places(relation) : this.#now.columns.map((column) => ({ ...column }));
    const columns = this.#columns(places);
    this.#checkValues();
    const next: TableSchema = {
      ...known,
      identity,
      relfilenode: this.#now.relfilenode,
      columns,
      leftOut: this.#leftOut(),
      ...(partitions && { partitions }),
      ...(!relation && this.#now.keyConstraint !== undefined && { keyConstraint: this.#now.keyConstraint }),
      lastAttnum: relation ? Math.max(lastAttnum(known), ...places.map((place) => place.attnum)) : this.#now.lastAttnum,
    };
    const former = this.#former(columns);
    if (former.length > 0) next.former = former;
    if (this.#what.length === 0 && JSON.stringify(next) === JSON.stringify(known)) return { do: 'nothing' };
    return { do: 'alter', next, what: this.#what };
  }

  /** The table's partitions; those that came or went, but for the announced one, are followed when the catalog is asked. */
  #partitions(): Partition[] | undefined {
    const { partitions } = this.#known;
    if (!partitions) return undefined;
    const change = compareLeaves(partitions, this.#now.leaves ?? [], this.#options.relation?.oid);
    if (change.do === 'resync') throw resync(change.reason);
    return change.partitions;
  }

  /** A partition announces itself, under its own name and identity. */
  get #ofLeaf(): boolean {
    return this.#options.relation !== undefined && this.#options.relation.oid !== this.#known.oid;
  }

  /** Values that are others now, though no row was sent. */
  #checkValues(): void {
    for (const column of this.#known.columns) {
      const now = this.#columnsNow.get(column.attnum);
      if (!now) continue;
      // VACUUM FULL and TRUNCATE rewrite too, but leave definitions alone (all but those of columns that were added with a
      // default); ALTER COLUMN … TYPE … USING changes both.
      const sameType = now.typeOid === column.typeOid && now.typmod === column.typmod;
      const redefined = sameType && column.changedBy !== undefined && now.changedBy !== column.changedBy;
      if (redefined && this.#rewritten) throw resync(`it was rewritten after column ${column.name} was altered`);
      if (column.labels?.some((label) => !now.labels?.includes(label)))
        throw resync(`values of the type of column ${column.name} are called otherwise`);
      if (column.encoding === 'array' && now.encoding !== 'array')
        throw resync(`arrays of column ${column.name} may be NULL, or of more dimensions, now`);
    }
  }

  get #rewritten(): boolean {
    if (this.#now.relfilenode !== this.#known.relfilenode) return true;
    const files = new Map(this.#now.leaves?.map((leaf) => [leaf.oid, leaf.relfilenode]));
    return this.#known.partitions?.some((leaf) => files.get(leaf.oid) !== leaf.relfilenode) ?? false;
  }

  /** The replica identity may change in place when the key stays the same. */
  #identity(): TableSchema['identity'] {
    const { relation } = this.#options;
    const known = this.#known;
    const identity = this.#ofLeaf ? this.#now.identity : (relation?.identity ?? this.#now.identity);
    if (identity === 'nothing' || relation?.identity === 'nothing') throw resync('its replica identity is nothing');
    const changed = identity !== known.identity;
    if (changed && identity !== this.#now.identity) throw resync('its replica identity has changed more than once');
    const keys = (columns: Column[]) => columns.flatMap((column) => (column.key ? [column.attnum] : [])).join();
    if ((changed || !relation) && keys(this.#now.columns) !== keys(known.columns)) throw resync('its key is another');
    if (known.keyConstraint !== undefined && (this.#now.keyConstraint ?? known.keyConstraint) !== known.keyConstraint)
      throw resync('its key was dropped and made again');
    if (changed) this.#what.push(`its replica identity is ${identity}`);
    return identity;
  }

  /** The announced columns with their attnums; those that are left out are not among them. */
  #places(relation: RelationMessage): Place[] {
    const places: Place[] = [];
    let before = 0;
    for (const column of this.#inOrder(relation.columns)) {
      const attnum = this.#attnumOf(column.name);
      if (attnum <= before) throw resync(`its columns have changed more than once (${column.name})`);
      before = attnum;
      if (this.#isCopied(attnum)) places.push({ ...column, attnum });
      else if (column.key && relation.identity !== 'full') throw resync(`its key is another (${column.name})`);
    }
    this.#checkOrder(places);
    return places;
  }

  /** A partition's columns may stand in another order than those of its table. */
  #inOrder(columns: RelationMessage['columns']): RelationMessage['columns'] {
    if (!this.#ofLeaf) return columns;
    return columns.toSorted((a, b) => this.#attnumOf(a.name) - this.#attnumOf(b.name));
  }

  /** A name that two columns bear or bore says nothing. */
  #attnumOf(name: string): number {
    const known = this.#known;
    const all = [known.columns, known.leftOut ?? [], known.former ?? [], this.#now.columns, this.#now.leftOut];
    const attnums = new Set(all.flat().flatMap((column) => (column.name === name ? [column.attnum] : [])));
    const [attnum] = attnums;
    if (attnum === undefined) throw resync(`its columns have changed more than once (${name})`);
    if (attnums.size > 1) throw resync(`the name ${name} is used again for another column`);
    return attnum;
  }

  #isCopied(attnum: number): boolean {
    const isIt = (column: { attnum: number }) => column.attnum === attnum;
    if (this.#known.columns.some(isIt)) return !this.#leftOutNow.has(attnum);
    if (this.#known.leftOut?.some(isIt)) return this.#isTakenIn(attnum);
    if (this.#known.former?.some(isIt)) throw resync('a column that was dropped is announced again');
    return !this.#leftOutNow.has(attnum);
  }

  /** A column that was left out stays so; one that it was not meant to be any more has values that nobody has copied. */
  #isTakenIn(attnum: number): boolean {
    const before = this.#known.leftOut!.find((column) => column.attnum === attnum)!;
    const now = this.#columnsNow.get(attnum);
    if (!now || before.why === 'ignored') return false;
    if (before.why === 'generated') throw resync(`column ${now.name} is not computed any more`);
    const { source } = this.#options;
    const name = tableName(this.#known);
    const reason = `column ${before.name}, which is not to be copied, is called ${now.name}`;
    const remedy = `Name ${now.name} in exclude_columns; or, to copy it: sluice sources resync ${source} ${name}`;
    throw new Verdict({
      do: 'stop',
      report: { kind: 'table_unusable', reason: `the table ${name}: ${reason}`, remedy },
    });
  }

  /** Columns come in the order of their attnums: where one is announced, all older ones that live on are. */
  #checkOrder(places: Place[]): void {
    const announced = new Set(places.map((place) => place.attnum));
    const highest = places.at(-1)?.attnum ?? 0;
    const last = lastAttnum(this.#known);
    for (const column of this.#now.columns) {
      if (announced.has(column.attnum) || this.#isLeftOut(column.attnum)) continue;
      const isNew = column.attnum > last;
      if (isNew && column.attnum > highest) continue;
      throw resync(`the stream does not carry column ${column.name}`);
    }
    // Between those that are known and a new one, one came and went: the new one's name may have been its own.
    if (highest <= last) return;
    for (let attnum = last + 1; attnum <= this.#now.lastAttnum; attnum++) {
      if (!this.#columnsNow.has(attnum) && !this.#leftOutNow.has(attnum))
        throw resync('its columns have changed more than once (one came and went)');
    }
  }

  #isLeftOut(attnum: number): boolean {
    return this.#known.leftOut?.some((column) => column.attnum === attnum) ?? false;
  }

  #columns(places: Place[]): Column[] {
    const known = new Map(this.#known.columns.map((column) => [column.attnum, column]));
    const columns: Column[] = [];
    for (const place of places) {
      const before = known.get(place.attnum);
      if (before) columns.push(this.#kept(before, place));
      else if (this.#isTaken(place)) columns.push(this.#added(place));
      known.delete(place.attnum);
    }
    for (const column of known.values()) {
      if (column.key) throw resync(`its key is another (${column.name} is gone)`);
      // A row that was held back for this value is one that could be copied now.
      if (isMultiset(this.#known) && !holdsAll.includes(column.encoding))
        throw resync(`column ${column.name} was dropped, and rows may have been held back for it`);
      this.#what.push(`column ${column.name} was dropped`);
    }
    return columns;
  }

  /** True for a column that joins the copy. */
  #isTaken(place: Place): boolean {
    // The catalog's own columns were not asked about yet.
    if (this.#isLeftOut(place.attnum)) return this.#isTakenIn(place.attnum);
    return !this.#options.ignoreNew;
  }

  #kept(before: Column, place: Place): Column {
    const { relation } = this.#options;
    const now = this.#columnsNow.get(place.attnum);
    if (relation && relation.identity !== 'full' && place.key !== before.key)
      throw resync(`its key is another (${before.name})`);
    if (place.name !== before.name) this.#rename(before, place);
    const sameType = place.typeOid === before.typeOid && place.typmod === before.typmod;
    const asNow = now !== undefined && now.typeOid === place.typeOid && now.typmod === place.typmod;
    if (!sameType && !(asNow && this.#isWider(before, now)))
      throw resync(`column ${before.name} was ${before.type} and is ${now?.type ?? 'another type'}`);
    if (!sameType) this.#what.push(`column ${place.name} is ${now!.type} instead of ${before.type}`);
    const kept: Column = { ...before, name: place.name, typeOid: place.typeOid, typmod: place.typmod };
    if (asNow) kept.type = now.type;
    if (!sameType) kept.clickhouse = now!.clickhouse;
    if (now?.changedBy !== undefined) kept.changedBy = now.changedBy;
    if (now?.labels) kept.labels = now.labels;
    return kept;
  }

  #rename(before: Column, place: Place): void {
    if (before.key) throw resync(`key column ${before.name} is called ${place.name}`);
    this.#checkName(place);
    this.#what.push(`column ${before.name} is called ${place.name}`);
  }

  /** A wider type whose values are written alike, in a table that was not rewritten for it. */
  #isWider(before: Column, now: Column): boolean {
    if (this.#rewritten) return false;
    const texts = [25, 1043]; // text, varchar
    if (before.typeOid !== now.typeOid && !(texts.includes(before.typeOid) && texts.includes(now.typeOid)))
      return false;
    if (before.clickhouse === now.clickhouse) return before.encoding === now.encoding;
    const digits = (type: string) => /^Nullable\(Decimal\((\d+), (\d+)\)\)$/.exec(type)?.slice(1).map(Number);
    const [from, to] = [digits(before.clickhouse), digits(now.clickhouse)];
    return from !== undefined && to !== undefined && from[1] === to[1] && from[0]! < to[0]!;
  }

  #added(place: Place): Column {
    const now = this.#columnsNow.get(place.attnum);
    if (!now) throw resync(`column ${place.name} came and went`);
    if (place.attnum <= lastAttnum(this.#known)) throw resync(`column ${place.name} was not copied before`);
    if (now.typeOid !== place.typeOid || now.typmod !== place.typmod || now.name !== place.name)
      throw resync(`column ${place.name} is new, and was altered since`);
    // What rows from before show is known only while the table still lacks the column's value in them.
    if (this.#rewritten) throw resync(`column ${place.name} is new, and the table was rewritten`);
    if (now.key) throw resync(`its key is another (${place.name})`);
    this.#checkName(place);
    this.#what.push(`column ${place.name} was added`);
    const text = this.#now.initial.get(place.attnum);
    if (text === null) throw resync(`column ${place.name} is new, and rows from before differ by partition`);
    return text === undefined ? now : { ...now, initial: this.#encode(now, text) };
  }

  /** A name that the copy had for something else: a late row of before would put its value there. */
  #checkName({ attnum, name }: Place): void {
    if (reservedNames(this.#known).includes(name)) {
      const reason = `the table ${tableName(this.#known)} has a column ${name} now, a name that the copy needs itself`;
      const remedy = 'Rename the column, or name it in exclude_columns; then re-sync the table.';
      throw new Verdict({ do: 'stop', report: { kind: 'table_unusable', reason, remedy } });
    }
    const others = [...this.#known.columns, ...(this.#known.former ?? [])];
    if (others.some((column) => column.name === name && column.attnum !== attnum))
      throw resync(`the name ${name} is used again for another column`);
  }

  /** The value as a TSV field. */
  #encode(column: Column, text: string): string {
    const columns = [...this.#known.columns, column];
    const encoder = new RowEncoder({ ...this.#known, columns });
    const block = new Block();
    block.beginRow();
    if (!encoder.text(block, columns.length - 1, text))
      throw resync(`column ${column.name} is new, and its rows from before hold ${encoder.refused.reason}`);
    return block.bytes.toString('latin1', 0, block.length - 1);
  }

  #leftOut(): LeftOut[] {
    const last = this.#known.lastAttnum;
    const isIgnored = ({ attnum }: Column) =>
      this.#known.leftOut?.some((column) => column.attnum === attnum && column.why === 'ignored') ||
      (this.#options.ignoreNew && last !== undefined && attnum > last);
    const ignored = this.#now.columns
      .filter(isIgnored)
      .map(({ attnum, name }) => ({ attnum, name, why: 'ignored' as const }));
    return [...this.#now.leftOut, ...ignored].sort((a, b) => a.attnum - b.attnum);
  }

  /** How columns were before, where that is not how they are: rows of before may come again. */
  #former(columns: Column[]): FormerColumn[] {
    const untyped = (column: LeftOut) => ({ ...column, typeOid: -1, typmod: -1 });
    const now = new Set([...columns, ...this.#leftOut().map(untyped)].map(shape));
    const { former = [], columns: before, leftOut = [] } = this.#known;
    const gone = new Map<string, FormerColumn>();
    for (const { attnum, name, typeOid, typmod } of [...former, ...before, ...leftOut.map(untyped)]) {
      const column = { attnum, name, typeOid, typmod };
      if (!now.has(shape(column))) gone.set(shape(column), column);
    }
    return [...gone.values()];
  }
}

function shape({ attnum, name, typeOid, typmod }: FormerColumn): string {
  return JSON.stringify([attnum, name, typeOid, typmod]);
}

function lastAttnum(table: TableSchema): number {
  return table.lastAttnum ?? Math.max(0, ...table.columns.map((column) => column.attnum));
}
