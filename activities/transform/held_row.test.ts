import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SluiceError } from '../../model/errors.ts';
import type { Column, TableSchema } from '../../model/table.ts';
import { RowEncoder, rowBound } from '../capture/postgresql/encode.ts';
import type { Reject } from '../capture/stream.ts';
import { Block } from '../load/block.ts';
import { type HeldRow, restage } from './held_row.ts';
import { keyId } from './join.ts';
import { TableStage } from './stage.ts';

const column = (name: string, type: string, more: Partial<Column>): Column => ({
  attnum: 0,
  name,
  type,
  typeOid: 0,
  typmod: -1,
  notNull: false,
  key: false,
  encoding: 'plain',
  clickhouse: 'Nullable(String)',
  ...more,
});

const columns: Column[] = [
  column('id', 'integer', { key: true, clickhouse: 'Int32' }),
  column('name', 'text', { encoding: 'text' }),
  column('raw', 'bytea', { encoding: 'bytea' }),
  column('at', 'timestamp with time zone', { encoding: 'timestamptz' }),
  column('tags', 'text[]', { encoding: 'array', element: 'text', clickhouse: 'Array(Nullable(String))' }),
  column('flags', 'boolean[]', { encoding: 'array', element: 'plain', clickhouse: 'Array(Nullable(Bool))' }),
  column('times', 'timestamp with time zone[]', {
    encoding: 'array',
    element: 'timestamptz',
    clickhouse: 'Array(Nullable(DateTime64(6)))',
  }),
].map((one, place) => ({ ...one, attnum: place + 1 }));

const table: TableSchema = {
  asset_id: 's_t',
  schema: 'public',
  table: 't',
  oid: 1,
  relfilenode: 1,
  identity: 'default',
  columns,
};
const refusing = (severity: 'reject' | 'stop'): TableSchema => ({
  ...table,
  rules: {
    version: 1,
    rules: [],
    checks: [
      {
        rule_id: 'none',
        asset: 's_t',
        rule_type: 'expression',
        parameters: { expression: 'false' },
        severity,
        version: 1,
      },
    ],
  },
});

/** PostgreSQL's text of an array. */
const arrayText = (items: (string | null)[]) =>
  `{${items.map((item) => (item === null ? 'NULL' : `"${item.replace(/["\\]/g, '\\$&')}"`)).join(',')}}`;

function encoded(texts: (string | null)[], block = new Block(4096)): Block {
  const encoder = new RowEncoder(table);
  block.beginRow();
  for (const [index, text] of texts.entries()) {
    const bytes = Buffer.from(text ?? '');
    block.reserve(rowBound(bytes.length, 1) + 100);
    expect(text === null ? encoder.missing(block, index) : encoder.value(block, index, bytes, 0, bytes.length)).toBe(
      true,
    );
  }
  block.length += block.bytes.write('123456\t0\t2024-01-01 00:00:00.000000\n', block.length);
  block.rows++;
  return block;
}

const anyText = fc.string({ unit: 'binary' }).map((text) => text.replaceAll('\0', '').toWellFormed());
const moment = fc.date({ min: new Date('1000-01-01'), max: new Date('9000-01-01'), noInvalidDate: true });
const time = moment.map((date) => `${date.toISOString().slice(0, 19).replace('T', ' ')}+00`);
const nullable = fc.option;
const rows = fc.tuple(
  fc.integer({ min: -1000, max: 1000 }).map(String),
  nullable(anyText),
  nullable(fc.uint8Array().map((bytes) => `\\x${Buffer.from(bytes).toString('hex')}`)),
  nullable(time),
  fc.array(nullable(anyText)).map(arrayText),
  fc.array(nullable(fc.constantFrom('t', 'f'))).map(arrayText),
  fc.array(nullable(time)).map(arrayText),
);

/** What becomes of a row; throws where a rule stops its table. */
async function one(table: TableSchema, held: HeldRow): Promise<Block | Reject> {
  const [row] = await restage(table, [held], async () => new Map());
  if (row instanceof SluiceError) throw row;
  return row!;
}

describe('many rows', () => {
  it('are put through rules in turns with what else is to be done', async () => {
    const slow = refusing('reject');
    const expression = '{% for i in range(60000) %}{% set x = (i ~ "") | upper %}{% endfor %}{{ false }}';
    slow.rules!.checks![0]!.parameters = { expression };
    const block = new Block(4096);
    for (let i = 0; i < 50; i++) encoded(['1', null, null, null, '{}', '{}', '{}'], block);
    let turns = 0;
    const others = setInterval(() => turns++, 1);
    await new TableStage(slow).apply(block, [], 'tombstone');
    clearInterval(others);
    expect(turns).toBeGreaterThan(3);
  });
});

describe('a row that was held back', () => {
  it('goes into the copy as it would have gone then', async () => {
    await fc.assert(
      fc.asyncProperty(rows, async (texts) => {
        const direct = Buffer.from(encoded(texts).content());
        const rejects: Reject[] = [];
        const block = encoded(texts);
        await new TableStage(refusing('reject')).apply(block, rejects, 'tombstone');
        expect([block.rows, rejects.length]).toEqual([0, 1]);
        const again = await one(table, rejects[0]!);
        expect(again instanceof Block && again.content().toString('hex')).toBe(direct.toString('hex'));
      }),
      { numRuns: 500 },
    );
  });

  it('says why it is still held back, and stops where a check says so', async () => {
    const held = { key: '{"id":"1"}', version: '7', row: '{"id":"1","name":"a"}', committed_at: '2024-01-01 00:00:00' };
    expect(await one(table, held)).toMatchObject({
      column: 'raw',
      reason: expect.stringContaining('did not send'),
    });
    const whole = {
      ...held,
      row: JSON.stringify({ id: '1', name: 'a', raw: null, at: null, tags: '{}', flags: '{}', times: '{}' }),
    };
    expect(await one(refusing('reject'), whole)).toMatchObject({ check: 'none', version: '7' });
    await expect(one(refusing('stop'), whole)).rejects.toThrow(/none/);
    const late = { ...whole, row: whole.row.replace('"at":null', '"at":"infinity"') };
    expect(await one(table, late)).toMatchObject({
      column: 'at',
      reason: expect.stringContaining('timestamp'),
    });
  });

  it('has what rows of before show in columns that came later, and never that in place of what was not sent', async () => {
    const more = [
      column('note', 'text', { attnum: 8, encoding: 'text' }),
      column('level', 'integer', { attnum: 9, clickhouse: 'Nullable(Int32)', initial: '7' }),
      column('marks', 'integer[]', {
        attnum: 10,
        encoding: 'array',
        element: 'plain',
        clickhouse: 'Array(Nullable(Int32))',
      }),
    ];
    const former = [{ attnum: 2, name: 'title', typeOid: 25, typmod: -1 }];
    const grown: TableSchema = { ...table, columns: [...columns, ...more], former };
    const row = { id: '1', title: 'a', raw: null, at: null, tags: '{}', flags: '{}', times: '{}' };
    const held = { key: '{"id":"1"}', version: '7', committed_at: '2024-01-01 00:00:00' };
    const of = async (row: object, unsent?: string[]) => {
      const again = await one(grown, { ...held, row: JSON.stringify(row), ...(unsent && { unsent }) });
      return again instanceof Block ? again.content().toString() : `${again.column}: ${again.reason}`;
    };
    expect(await of(row, [])).toBe('1\ta\t\\N\t\\N\t[]\t[]\t[]\t\\N\t7\t[]\t7\t0\t2024-01-01 00:00:00\n');
    const { title: _, ...lacking } = row;
    expect(await of(lacking, ['title'])).toMatch(/^name: the source did not send/);
    expect(await of({ ...row, note: 'n' }, ['level'])).toMatch(/^level: the source did not send/);
    expect(await of(row)).toMatch(/^note: the source did not send/);
  });

  it('says that a value which is stored nowhere cannot be had again', async () => {
    const secret = column('secret', 'text', { attnum: 8, encoding: 'text', hidden: true });
    const row = JSON.stringify({ id: '1', name: 'a', raw: null, at: null, tags: '{}', flags: '{}', times: '{}' });
    const held = { key: '{"id":"1"}', version: '7', row, unsent: [], committed_at: '2024-01-01 00:00:00' };
    expect(await one({ ...table, columns: [...columns, secret] }, held)).toMatchObject({
      column: 'secret',
      reason: 'secret is excluded, and stored nowhere: change the row in the source, or re-sync the table',
    });
  });

  it('is looked up with all others at once, and stops for none of them', async () => {
    const joining: TableSchema = {
      ...table,
      joined: { s_names: { id: 'Int32', title: 'String' } },
      rules: {
        version: 1,
        rules: [
          {
            rule_id: 'title',
            rule_type: 'join',
            parameters: { asset: 's_names', on: { id: 'id' }, fields: ['title'] },
            version: 1,
          },
          {
            rule_id: 'no_b',
            rule_type: 'map',
            target_field: 'n',
            expression: '{{ 1 // (0 if name == "b" else 1) }}',
            on_error: 'stop',
            version: 1,
          },
        ],
        checks: [],
      },
    };
    const row = { raw: null, at: null, tags: '{}', flags: '{}', times: '{}' };
    const held = ['a', 'b', 'c', 'd'].map((name, id) => ({
      key: `{"id":"${id}"}`,
      version: String(id),
      row: JSON.stringify({ id: String(id), name, ...row }),
      committed_at: '2024-01-01 00:00:00',
    }));
    const asked: string[][][] = [];
    const rows = await restage(joining, held, async (_, keys) => {
      asked.push(keys);
      return new Map(keys.filter(([id]) => id !== '2').map((key) => [keyId(key), [`title ${key}`]]));
    });
    expect(asked).toEqual([[['0'], ['1'], ['2'], ['3']]]);
    const outcomes = rows.map((one) => (one instanceof Block ? 'written' : 'kind' in one ? one.kind : one.check));
    expect(outcomes).toEqual(['written', 'rule_failed', 'title', 'written']);
    expect((rows[3] as Block).content().toString()).toContain('title 3');
  });
});
