/** Messages of pgoutput (protocol version 1, text values), as PostgreSQL documents them under "Logical Replication Message Formats". */
import type { TableSchema } from '../../../model/table.ts';

export const message = {
  begin: 0x42, // B
  commit: 0x43, // C
  relation: 0x52, // R
  insert: 0x49, // I
  update: 0x55, // U
  delete: 0x44, // D
  truncate: 0x54, // T
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
 * For each column of a Relation message, its index among the columns that are copied, or -1 for one that is left out.
 * Answers what differs as text when the relation is not the table that the copy was made from.
 */
export function matchColumns(
  relation: RelationMessage,
  table: TableSchema,
  excluded: Set<string>,
): Int32Array | string {
  if (relation.identity !== table.identity)
    return `its replica identity was ${table.identity} and is ${relation.identity}`;
  const indexes = new Int32Array(relation.columns.length).fill(-1);
  const byName = new Map(table.columns.map((column, index) => [column.name, index]));
  for (const [i, column] of relation.columns.entries()) {
    if (excluded.has(column.name)) continue;
    const index = byName.get(column.name);
    if (index === undefined) return `column ${column.name} is new, or was renamed`;
    const known = table.columns[index]!;
    if (known.typeOid !== column.typeOid || known.typmod !== column.typmod)
      return `column ${column.name} was ${known.type} and is another type now`;
    if (relation.identity !== 'full' && column.key !== known.key)
      return `its replica identity has other columns (${column.name})`;
    indexes[i] = index;
    byName.delete(column.name);
  }
  for (const name of byName.keys()) return `column ${name} is gone, or was renamed`;
  return indexes;
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
