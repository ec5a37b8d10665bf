/** Messages of pgoutput (protocol version 1, text values), as PostgreSQL documents them under "Logical Replication Message Formats". */
import { type Column, isMultiset, type TableSchema } from '../../../model/table.ts';

export const message = {
  begin: 0x42, // B
  commit: 0x43, // C
  relation: 0x52, // R
  insert: 0x49, // I
  update: 0x55, // U
  delete: 0x44, // D
  truncate: 0x54, // T
  logical: 0x4d, // M
} as const;

/** Kinds of a tuple: `N` new row, `K` key of the old row, `O` whole old row. */
export const tuple = { new: 0x4e, key: 0x4b, old: 0x4f } as const;

/** Kinds of a value in a tuple: `n` NULL, `u` unchanged and not sent, `t` text. */
export const value = { null: 0x6e, unchanged: 0x75, text: 0x74 } as const;

export interface RelationMessage {
  oid: number;
  schema: string;
  table: string;
  /** pg_class.relreplident: what UPDATE and DELETE carry of the old row. */
  identity: 'default' | 'index' | 'full' | 'nothing';
  /** `key`: part of the replica identity. */
  columns: { name: string; key: boolean; typeOid: number; typmod: number }[];
}

const identities: Record<string, RelationMessage['identity']> = { d: 'default', i: 'index', f: 'full', n: 'nothing' };

/** Reads a Relation message whose type byte is at `at`. */
export function readRelation(bytes: Buffer, at: number): RelationMessage {
  const oid = bytes.readUInt32BE(at + 1);
  let next = at + 5;
  const text = (): string => {
    const end = bytes.indexOf(0, next);
    const read = bytes.toString('utf8', next, end);
    next = end + 1;
    return read;
  };
  // pgoutput leaves the name of pg_catalog out.
  const schema = text() || 'pg_catalog';
  const table = text();
  const identity = identities[String.fromCharCode(bytes[next++]!)] ?? 'nothing';
  const count = bytes.readUInt16BE(next);
  next += 2;
  const columns = [];
  for (let i = 0; i < count; i++) {
    const key = (bytes[next++]! & 1) === 1;
    const name = text();
    columns.push({ name, key, typeOid: bytes.readUInt32BE(next), typmod: bytes.readInt32BE(next + 4) });
    next += 8;
  }
  return { oid, schema, table, identity, columns };
}

/**
 * Reads a message of this prefix that somebody emitted (pg_logical_emit_message), whose type byte is at `at`. Undefined for one of
 * another prefix, and for one that is too large to be ours: anybody may emit any.
 */
export function readLogicalMessage(bytes: Buffer, at: number, prefix: string): string | undefined {
  // Behind flags and position.
  const end = bytes.indexOf(0, at + 10);
  if (bytes.toString('utf8', at + 10, Math.min(end, at + 10 + 64)) !== prefix) return undefined;
  const length = bytes.readUInt32BE(end + 1);
  return length > longestMessage ? undefined : bytes.toString('utf8', end + 5, end + 5 + length);
}

const longestMessage = 16_000_000;

/** Where an announced table's values go. */
export interface Match {
  /** By column of the relation its index among the columns of `table`; -1 is left out. */
  columns: Int32Array;
  /** The table with those of its columns that are announced. */
  table: TableSchema;
}

/**
 * Matches a Relation message with what a table's copy is made from. `again`: it belongs to a transaction that came before
 * the copy was altered, and may announce the table as it was then. Undefined when the table is another one.
 */
export function matchRelation(relation: RelationMessage, table: TableSchema, again: boolean): Match | undefined {
  // Without a key, nothing but the whole old row says which one is meant.
  if (isMultiset(table) && relation.identity !== 'full') return undefined;
  const exact = relation.oid === table.oid ? matchExactly(relation, table) : matchPartition(relation, table);
  return exact ?? (again ? matchFormer(relation, table) : undefined);
}

function matchExactly(relation: RelationMessage, table: TableSchema): Match | undefined {
  if (relation.schema !== table.schema || relation.table !== table.table || relation.identity !== table.identity)
    return undefined;
  const leftOut = new Set(table.leftOut?.map((column) => column.name));
  const indexes = new Int32Array(relation.columns.length).fill(-1);
  let next = 0;
  for (const [i, column] of relation.columns.entries()) {
    if (leftOut.has(column.name)) continue;
    const known = table.columns[next];
    if (known?.name !== column.name || known.typeOid !== column.typeOid || known.typmod !== column.typmod)
      return undefined;
    if (relation.identity !== 'full' && column.key !== known.key) return undefined;
    indexes[i] = next++;
  }
  return next === table.columns.length ? { columns: indexes, table } : undefined;
}

/** A partition bears a name of its own, and may have a replica identity and an order of columns of its own. */
function matchPartition(relation: RelationMessage, table: TableSchema): Match | undefined {
  if (relation.identity === 'nothing') return undefined;
  const leftOut = new Set(table.leftOut?.map((column) => column.name));
  const places = new Map(table.columns.map((column, place) => [column.name, place]));
  const columns = new Int32Array(relation.columns.length).fill(-1);
  const order: number[] = [];
  for (const [i, column] of relation.columns.entries()) {
    if (leftOut.has(column.name)) continue;
    const place = places.get(column.name);
    const known = place === undefined ? undefined : table.columns[place]!;
    if (place === undefined || known?.typeOid !== column.typeOid || known.typmod !== column.typmod) return undefined;
    if (relation.identity !== 'full' && column.key !== known.key) return undefined;
    columns[i] = order.push(place) - 1;
  }
  if (order.length !== table.columns.length) return undefined;
  const asTable = relation.identity === table.identity && order.every((place, i) => place === i);
  const ordered = () => ({
    ...table,
    identity: relation.identity as TableSchema['identity'],
    columns: order.map((place) => table.columns[place]!),
  });
  return { columns, table: asTable ? table : ordered() };
}

/** Columns that came later are missing; those that are gone are left out; names and types may be former ones. */
function matchFormer(relation: RelationMessage, table: TableSchema): Match | undefined {
  if (relation.identity === 'nothing') return undefined;
  const shape = (column: { name: string; typeOid: number; typmod: number }) =>
    JSON.stringify([column.name, column.typeOid, column.typmod]);
  const attnums = new Map([...(table.former ?? []), ...table.columns].map((column) => [shape(column), column.attnum]));
  const formerlyLeftOut = (table.former ?? []).filter((column) => column.typeOid === -1);
  const leftOut = new Set([...(table.leftOut ?? []), ...formerlyLeftOut].map((column) => column.name));
  const kept = new Map(table.columns.map((column) => [column.attnum, column]));
  const columns: Column[] = [];
  const indexes = new Int32Array(relation.columns.length).fill(-1);
  for (const [i, column] of relation.columns.entries()) {
    const attnum = attnums.get(shape(column));
    const target = attnum === undefined ? undefined : kept.get(attnum);
    if (attnum === undefined && !leftOut.has(column.name)) return undefined;
    if (!target) continue;
    if (relation.oid === table.oid && target.attnum <= (columns.at(-1)?.attnum ?? 0)) return undefined;
    if (columns.includes(target)) return undefined;
    if (relation.identity !== 'full' && column.key !== target.key) return undefined;
    indexes[i] = columns.push(target) - 1;
  }
  if (table.columns.some((column) => column.key && !columns.includes(column))) return undefined;
  return { columns: indexes, table: { ...table, identity: relation.identity, columns } };
}

/** Places of a tuple's values: per column start and end of its text, or -1 for NULL, -2 for unchanged. */
export class Tuple {
  starts = new Int32Array(64);
  ends = new Int32Array(64);
  count = 0;

  /** Reads the tuple whose column count is at `at`; returns its end. */
  read(bytes: Buffer, at: number): number {
    const count = bytes.readUInt16BE(at);
    if (count > this.starts.length) {
      this.starts = new Int32Array(count * 2);
      this.ends = new Int32Array(count * 2);
    }
    this.count = count;
    const { starts, ends } = this;
    at += 2;
    for (let i = 0; i < count; i++) {
      const kind = bytes[at++]!;
      if (kind === value.text) {
        const length = (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!;
        at += 4;
        starts[i] = at;
        at += length;
        ends[i] = at;
      } else if (kind === value.null) starts[i] = -1;
      else if (kind === value.unchanged) starts[i] = -2;
      else throw new Error(`a value of kind ${String.fromCharCode(kind)} in a tuple`);
    }
    return at;
  }
}

/** Where the new tuple of an UPDATE begins, behind the old one whose column count is at `at`. */
export function newTupleAt(bytes: Buffer, at: number): number {
  const count = bytes.readUInt16BE(at);
  let next = at + 2;
  for (let i = 0; i < count; i++) {
    if (bytes[next++] === value.text) next += 4 + bytes.readInt32BE(next);
  }
  return next + 1;
}
