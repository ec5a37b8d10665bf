import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { firsts, type Happening, happeningsOf, stretchesOf } from './happenings.ts';

const run = { workflow_id: 'capture/shop', run_id: 'r1' };
const at = (second: number) => new Date(second * 1000).toISOString();

function happening(second: number, kind: Happening['kind'], more: Partial<Happening> = {}): Happening {
  const told = { told_workflow: run.workflow_id, told_run: run.run_id };
  return { owner: 'shop', asset: 'shop_a', kind, mark: '', definition: '', at: at(second), ...run, ...told, ...more };
}

const begun = (second: number, generation: number) => happening(second, 'begun', { mark: String(generation) });
const defined = (second: number, definition: string) =>
  happening(second, 'defined', { mark: String(second), definition });
const streams = (second: number, ...assets: string[]) =>
  happening(second, 'streams', { asset: '*', definition: JSON.stringify(assets) });
const short = (all: Happening[]) =>
  stretchesOf(all).map(({ definition, version, generation, since, until }) => {
    return [
      definition,
      version,
      generation,
      Date.parse(since) / 1000,
      until === null ? null : Date.parse(until) / 1000,
    ];
  });

describe('stretches', () => {
  it('begin with the table, change with its definition, and end with its capture', () => {
    const life = [begun(1, 1), defined(2, 'x'), defined(5, 'y'), begun(7, 2), happening(9, 'ended'), begun(12, 3)];
    expect(short(life)).toEqual([
      ['x', 1, 1, 1, 5],
      ['y', 2, 1, 5, 7],
      ['y', 2, 2, 7, 9],
      ['y', 2, 3, 12, null],
    ]);
  });

  it('end where a table was prepared, and taken away before any lease streamed it; not where it failed later', () => {
    const life = [begun(1, 1), defined(1, 'x'), streams(3, 'other')];
    expect(short(life)).toEqual([['x', 1, 1, 1, 3]]);
    expect(short([...life, begun(5, 2), streams(6, 'other', 'shop_a'), streams(8, 'other')])).toEqual([
      ['x', 1, 1, 1, 3],
      ['x', 1, 2, 5, null],
    ]);
    expect(firsts([streams(1, 'a'), streams(2, 'a'), streams(3, 'b'), streams(4, 'a')])).toHaveLength(3);
    expect(short([streams(1, 'b'), begun(2, 1), defined(2, 'x'), streams(4, 'b')])).toEqual([['x', 1, 1, 2, 4]]);
  });

  it('end with the source', () => {
    expect(short([begun(1, 1), defined(1, 'x'), happening(4, 'ended', { asset: '*' })])).toEqual([['x', 1, 1, 1, 4]]);
    expect(short([begun(1, 1), defined(1, 'x'), happening(4, 'ended', { asset: '*', owner: 'other' })])).toHaveLength(
      1,
    );
  });

  it('do not change when the same is told again later, or in another order', () => {
    const kinds = fc.array(fc.tuple(fc.constantFrom('begun', 'defined', 'ended'), fc.constantFrom('x', 'y')), {
      maxLength: 8,
    });
    fc.assert(
      fc.property(kinds, fc.array(fc.nat(20)), fc.infiniteStream(fc.nat(99)), (life, again, places) => {
        const all = life.map(([kind, digest], i) =>
          kind === 'begun'
            ? begun(i * 10, i)
            : kind === 'defined'
              ? defined(i * 10, digest)
              : happening(i * 10, 'ended'),
        );
        const repeated = again.flatMap((index, i) => {
          const one = all[index % Math.max(1, all.length)];
          return one && one.kind !== 'ended' ? { ...one, at: at(1000 + i) } : [];
        });
        const mixed = [...repeated, ...all]
          .map((one) => ({ one, place: places.next().value }))
          .sort((a, b) => a.place - b.place)
          .map(({ one }) => one);
        expect(stretchesOf(mixed)).toEqual(stretchesOf(all));
        expect(firsts(mixed)).toHaveLength(firsts(all).length);
        const open = stretchesOf(all).filter((stretch) => stretch.until === null);
        expect(open.length).toBeLessThanOrEqual(1);
      }),
    );
  });
});

describe('activities', () => {
  const request = { id: 'shop' };
  const tables = [{ asset_id: 'shop_a', generation: 2 }];
  const tell = (name: string, input: unknown, result: unknown) => happeningsOf({ name, input, result, at: 1000, run });

  it('tell what begins, is defined and ends', () => {
    expect(tell('prepareSource', { request }, { tables })).toEqual([{ ...begun(1, 2) }]);
    expect(tell('captureLease', { request, tables }, undefined)).toEqual([begun(1, 2), streams(1, 'shop_a')]);
    expect(tell('releaseTables', { request, tables }, null)).toEqual([happening(1, 'ended')]);
    expect(tell('removeSource', { request }, null)).toEqual([happening(1, 'ended', { asset: '*' })]);
    const workflow = { workflow_id: 'capture/x', run_id: 'r9' };
    const registered = tell('registerTables', { source: 'shop', id: 7, workflow }, { definitions: { shop_a: 'd' } });
    expect(registered).toEqual([happening(1, 'defined', { mark: '7', definition: 'd', ...workflow })]);
  });

  it('tell nothing before they have ended well, nor when they are others', () => {
    expect(tell('prepareSource', { request }, undefined)).toEqual([]);
    expect(tell('registerTables', { source: 'shop', id: 7 }, { last_id: 7, subjects: {} })).toEqual([]);
    expect(tell('copyChunk', { request, table: tables[0] }, { rows: 1 })).toEqual([]);
    expect(tell('extractFile', { request: { deployment: 'd' }, number: 2 }, {})).toEqual([]);
  });
});
