/** What the source did to a row, and whether a rule kept it out of the copy: as far as the counts of its batch tell. */
import type { BatchRecord } from '../../model/batch.ts';

export interface RowChange {
  /** Null where a batch did several things, and does not tell which of them to this row. */
  source_op: 'insert' | 'update' | 'delete' | null;
  /** Rules by which a row left the copy, or never came into it; null where it may be so, and nothing tells. */
  filtered_by: string[] | null;
}

/** Of a version that a batch wrote; `gone`: the copy has no row since. */
export function changeOf(batch: BatchRecord | undefined, asset: string, gone: boolean): RowChange {
  const effects = batch?.kind === 'rows' ? batch.assets[asset] : undefined;
  if (!effects) return { source_op: null, filtered_by: gone ? null : [] };
  const { inserts, updates, deletes } = effects;
  // A change of key takes the row of the old one away.
  const moves = effects.effects > inserts + updates + deletes;
  const written = inserts > 0 && updates > 0 ? null : inserts > 0 ? 'insert' : 'update';
  if (!gone) return { source_op: written, filtered_by: [] };
  const keptOut = keptOutBy(batch!, asset);
  if (deletes === 0 && !moves) return { source_op: written, filtered_by: keptOut };
  if (keptOut.length > 0) return { source_op: null, filtered_by: null };
  return { source_op: deletes === 0 ? 'update' : moves ? null : 'delete', filtered_by: [] };
}

/** Rules that let fewer rows on than came to them. Those that failed for a row hold it back, and it does not leave. */
function keptOutBy({ applied }: BatchRecord, asset: string): string[] {
  const fewer = Object.entries(applied?.[asset] ?? {}).filter(([, { in: came, out }]) => out < came);
  const surely = fewer.filter(([, { in: came, out, errors }]) => came - out > errors);
  return (surely.length > 0 ? surely : fewer).map(([id]) => id);
}
