/** What is decided from the stream's announcement and the catalog, above all where the two leave a doubt. */
import { describe, expect, it } from 'vitest';
import type { Column, LeftOut, TableSchema } from '../../../model/table.ts';
import { schemaOf, type TableDetails } from './catalog.ts';
import { matchRelation, type RelationMessage } from './pgoutput.ts';
import { type CompareOptions, compareTable } from './table_change.ts';

const int = { type: 'integer', typeOid: 23, typmod: -1, encoding: 'plain', clickhouse: 'Nullable(Int32)' } as const;
const text = { type: 'text', typeOid: 25, typmod: -1, encoding: 'text', clickhouse: 'Nullable(String)' } as const;

function column(attnum: number, name: string, more: Partial<Column> = {}): Column {
  return { attnum, name, notNull: false, key: false, changedBy: '1', ...text, ...more };
}

const id = column(1, 'id', { ...int, key: true, notNull: true, clickhouse: 'Int32' });

/** The catalog's view of a table with these columns. */
function details(columns: Column[], more: Partial<TableDetails> = {}): TableDetails {
  return {
    asset_id: 's_t',
    schema: 'public',
    table: 't',
    oid: 9,
    relfilenode: 1,
    identity: 'default',
    replicaIdentity: 'default',
    columns,
    kind: 'r',
    persistence: 'p',
    keyDeferrable: false,
    unsentKeyColumns: [],
    columnNames: columns.map((one) => one.name),
    leftOut: [],
    lastAttnum: Math.max(...columns.map((one) => one.attnum)),
    initial: new Map(),
    ...more,
  };
}

const known = (columns: Column[], more: Partial<TableDetails> = {}): TableSchema => schemaOf(details(columns, more));

/** The announcement of these columns. */
function announced(columns: Column[], more: Partial<RelationMessage> = {}): RelationMessage {
  const sent = columns.map(({ name, key, typeOid, typmod }) => ({ name, key, typeOid, typmod }));
  return { oid: 9, schema: 'public', table: 't', identity: 'default', columns: sent, ...more };
}

function compare(before: TableSchema, now: TableDetails | undefined, options: Partial<CompareOptions> = {}) {
  return compareTable(before, { named: now, movedTo: undefined }, { source: 's', ignoreNew: false, ...options });
}

const [a, b, c] = [column(2, 'a'), column(3, 'b'), column(4, 'c')];

describe('the stream alone', () => {
  const before = known([id, a, b]);

  it('is matched by names, types and key, in the order of the table', () => {
    expect(matchRelation(announced([id, a, b]), before, false)?.columns).toEqual(Int32Array.of(0, 1, 2));
    for (const other of [
      [id, a],
      [id, b, a],
      [id, a, b, c],
      [id, a, { ...b, name: 'x' }],
      [id, a, { ...b, typmod: 9 }],
      [{ ...id, key: false }, { ...a, key: true }, b],
    ])
      expect(matchRelation(announced(other), before, false)).toBeUndefined();
    expect(matchRelation(announced([id, a, b], { identity: 'full' }), before, false)).toBeUndefined();
    expect(matchRelation(announced([id, a, b], { table: 'u' }), before, false)).toBeUndefined();
  });

  it('passes over columns that are left out', () => {
    const leftOut: LeftOut[] = [{ attnum: 4, name: 'c', why: 'excluded' }];
    const table = known([id, a, b], { leftOut });
    expect(matchRelation(announced([id, a, b, c]), table, false)?.columns).toEqual(Int32Array.of(0, 1, 2, -1));
  });

  it('may announce a former shape, but only of rows of before', () => {
    // b was dropped, a was called x, and c is new.
    const former = [
      { attnum: 2, name: 'x', typeOid: 25, typmod: -1 },
      { attnum: 3, name: 'b', typeOid: 25, typmod: -1 },
    ];
    const now: TableSchema = { ...known([id, a, c]), former };
    const old = announced([id, { ...a, name: 'x' }, b]);
    expect(matchRelation(old, now, false)).toBeUndefined();
    const match = matchRelation(old, now, true)!;
    expect(match.columns).toEqual(Int32Array.of(0, 1, -1));
    expect(match.table.columns.map((one) => one.name)).toEqual(['id', 'a']);
    // Another type under a former name is no former shape: its values would be lost, or wrapped.
    expect(matchRelation(announced([id, { ...a, name: 'x', ...int }, b]), now, true)).toBeUndefined();
    expect(matchRelation(announced([id, column(9, 'new')]), now, true)).toBeUndefined();
    expect(matchRelation(announced([a, b]), now, true)).toBeUndefined();
  });
});

describe('with the catalog', () => {
  it('nothing follows from nothing, and only book-keeping from a rewrite that changed no definition', () => {
    const before = known([id, a, b]);
    expect(compare(before, details([id, a, b]))).toEqual({ do: 'nothing' });
    const rewritten = compare(before, details([id, a, b], { relfilenode: 2 }));
    expect(rewritten).toMatchObject({ do: 'alter', what: [], next: { relfilenode: 2 } });
    const retouched = { ...b, changedBy: '2' };
    expect(compare(before, details([id, a, retouched]))).toMatchObject({ do: 'alter', what: [] });
    expect(compare(before, details([id, a, retouched], { relfilenode: 2 }))).toMatchObject({ do: 'resync' });
  });

  it('a step that the stream has announced is taken alone, though the catalog is ahead', () => {
    const before = known([id, a, b]);
    // Now: a is called z, b is gone, c is new.
    const now = details([id, { ...a, name: 'z' }, c], { initial: new Map([[4, 'fro\tzen']]) });
    const first = compare(before, now, { relation: announced([id, { ...a, name: 'z' }, b]) });
    expect(first).toMatchObject({ do: 'alter', what: ['column a is called z'], next: { lastAttnum: 3 } });
    const next = (first as { next: TableSchema }).next;
    expect(next.former).toEqual([{ attnum: 2, name: 'a', typeOid: 25, typmod: -1 }]);
    const second = compare(next, now, { relation: announced([id, { ...a, name: 'z' }, b, c]) });
    expect(second).toMatchObject({ do: 'alter', what: ['column c was added'], next: { lastAttnum: 4 } });
    const wide = (second as { next: TableSchema }).next;
    expect(wide.columns[3]).toMatchObject({ name: 'c', initial: 'fro\\tzen' });
    const third = compare(wide, now);
    expect(third).toMatchObject({ do: 'alter', what: ['column b was dropped'] });
    expect(compare((third as { next: TableSchema }).next, now)).toEqual({ do: 'nothing' });
  });

  const doubts: Record<string, [TableSchema, TableDetails, Column[]]> = {
    'a name that nobody knows': [known([id, a]), details([id, { ...a, name: 'z' }]), [id, { ...a, name: 'y' }]],
    'a name that another column bears now': [known([id, a]), details([id, column(3, 'a')]), [id, a]],
    'two names exchanged': [
      known([id, a, b]),
      details([id, { ...a, name: 'b' }, { ...b, name: 'a' }]),
      [id, { ...a, name: 'b' }, { ...b, name: 'a' }],
    ],
    'a new column after one that came and went': [
      known([id, a]),
      details([id, a, column(4, 'c')], { lastAttnum: 4 }),
      [id, a, column(4, 'c')],
    ],
    'a new column in a table that was rewritten': [known([id, a]), details([id, a, b], { relfilenode: 2 }), [id, a, b]],
    'a new column that was altered since': [known([id, a]), details([id, a, { ...b, ...int }]), [id, a, b]],
    'a type that is none any more': [
      known([id, a]),
      details([id, { ...a, typeOid: 1043, typmod: 9 }]),
      [id, { ...a, ...int }],
    ],
    'a column that is there and is not announced': [known([id, a, b]), details([id, a, b]), [id, a]],
    'a key that is another': [
      known([id, a]),
      details([
        { ...id, key: false },
        { ...a, key: true },
      ]),
      [
        { ...id, key: false },
        { ...a, key: true },
      ],
    ],
  };
  it.each(Object.entries(doubts))('%s needs a copy made anew', (_what, [before, now, sent]) => {
    expect(compare(before, now, { relation: announced(sent) })).toMatchObject({ do: 'resync' });
  });

  it('a name that was borne once in this copy goes to no other column', () => {
    const former = [{ attnum: 2, name: 'a', typeOid: 25, typmod: -1 }];
    const before: TableSchema = { ...known([id, b]), former };
    expect(compare(before, details([id, b, column(4, 'a')]))).toMatchObject({ do: 'resync' });
    expect(compare(before, details([id, { ...b, name: 'a' }]))).toMatchObject({ do: 'resync' });
  });

  it('new columns are left out under policy ignore, whatever becomes of them', () => {
    const first = compare(known([id, a]), details([id, a, b]), { ignoreNew: true, relation: announced([id, a, b]) });
    expect(first).toMatchObject({
      do: 'alter',
      what: [],
      next: { leftOut: [{ attnum: 3, name: 'b', why: 'ignored' }] },
    });
    const { next } = first as { next: TableSchema };
    expect(next.columns.map((one) => one.name)).toEqual(['id', 'a']);
    const renamed = compare(next, details([id, a, { ...b, name: 'z' }]), { ignoreNew: true });
    expect(renamed).toMatchObject({ do: 'alter', what: [], next: { leftOut: [{ name: 'z', why: 'ignored' }] } });
    // Also when the policy is another one later.
    expect(compare(next, details([id, a, b]))).toMatchObject({ do: 'nothing' });
  });

  it('an excluded column that is renamed is not copied before somebody says so', () => {
    const before = known([id, a], { leftOut: [{ attnum: 3, name: 'b', why: 'excluded' }], lastAttnum: 3 });
    const change = compare(before, details([id, a, { ...b, name: 'open' }]));
    expect(change).toMatchObject({ do: 'stop', report: { kind: 'table_unusable' } });
  });

  it('a table that is gone, without a key, or another one', () => {
    const before = known([id, a]);
    expect(compare(before, undefined)).toMatchObject({ do: 'stop', report: { kind: 'table_missing' } });
    const keyless = details([{ ...id, key: false }, a]);
    expect(compare(before, keyless)).toMatchObject({ do: 'stop', report: { kind: 'table_missing' } });
    expect(compare(before, details([id, a], { oid: 10 }))).toMatchObject({ do: 'resync' });
    const moved = compareTable(before, { named: undefined, movedTo: 'u' }, { source: 's', ignoreNew: false });
    expect((moved as { report: { reason: string } }).report.reason).toContain('it is called u now');
  });

  it('wider types only where values are written alike and nothing was rewritten', () => {
    const numeric = (precision: number, scale: number) => ({
      type: `numeric(${precision},${scale})`,
      typeOid: 1700,
      typmod: ((precision << 16) | scale) + 4,
      encoding: 'numeric' as const,
      clickhouse: `Nullable(Decimal(${precision}, ${scale}))`,
    });
    const pairs: [Partial<Column>, Partial<Column>, 'alter' | 'resync'][] = [
      [numeric(8, 2), numeric(12, 2), 'alter'],
      [numeric(12, 2), numeric(8, 2), 'resync'],
      [numeric(8, 2), numeric(12, 4), 'resync'],
      [{ ...text, typeOid: 1043, typmod: 14 }, text, 'alter'],
      [{ ...text, typeOid: 869 }, { ...text, typeOid: 650 }, 'resync'],
      [int, { ...int, typeOid: 20, clickhouse: 'Nullable(Int64)' }, 'resync'],
    ];
    for (const [from, to, what] of pairs) {
      const before = known([id, column(2, 'a', from)]);
      const sent = [id, column(2, 'a', to)];
      expect(compare(before, details(sent), { relation: announced(sent) }).do, JSON.stringify(to)).toBe(what);
      expect(compare(before, details(sent)).do).toBe(what);
      expect(compare(before, details(sent, { relfilenode: 2 })).do).toBe('resync');
    }
  });
});
