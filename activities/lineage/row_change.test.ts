import { describe, expect, it } from 'vitest';
import { type BatchRecord, noEffects } from '../../model/batch.ts';
import { changeOf } from './row_change.ts';

/** A batch of one asset; every change is one effect, but for `moved` ones. */
function batch(counts: { inserts?: number; updates?: number; deletes?: number }, dropped = 0, moved = 0) {
  const effects = { ...noEffects(), ...counts };
  effects.effects = effects.inserts + effects.updates + effects.deletes + moved;
  const applied = { a: { upper: { in: 3, out: 3, errors: 0 }, small: { in: 3, out: 3 - dropped, errors: 0 } } };
  return { kind: 'rows', assets: { a: effects }, applied } as unknown as BatchRecord;
}

describe('the change of a row', () => {
  it('is told with the rule that took the row out', () => {
    expect(changeOf(batch({ updates: 2 }, 1), 'a', true)).toEqual({ source_op: 'update', filtered_by: ['small'] });
    expect(changeOf(batch({ inserts: 1 }, 1), 'a', true)).toEqual({ source_op: 'insert', filtered_by: ['small'] });
    expect(changeOf(batch({ inserts: 1, updates: 1 }, 1), 'a', true)).toEqual({
      source_op: null,
      filtered_by: ['small'],
    });
  });

  it('is the source’s own delete, or change of key', () => {
    expect(changeOf(batch({ deletes: 1, updates: 5 }), 'a', true)).toEqual({ source_op: 'delete', filtered_by: [] });
    expect(changeOf(batch({ updates: 1 }, 0, 1), 'a', true)).toEqual({ source_op: 'update', filtered_by: [] });
  });

  it('is left open where counts say too little', () => {
    const open = { source_op: null, filtered_by: null };
    expect(changeOf(batch({ deletes: 1, updates: 1 }, 1), 'a', true)).toEqual(open);
    expect(changeOf(undefined, 'a', true)).toEqual(open);
    expect(changeOf({ ...batch({}), kind: 'snapshot' }, 'a', true)).toEqual(open);
  });

  it('of a row that is there is what wrote it', () => {
    expect(changeOf(batch({ updates: 1, deletes: 1 }), 'a', false)).toEqual({ source_op: 'update', filtered_by: [] });
    expect(changeOf(batch({ updates: 1, inserts: 1 }), 'a', false)).toEqual({ source_op: null, filtered_by: [] });
  });
});
