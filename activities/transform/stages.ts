/** The stages of all tables that a lease streams, each made when its first rows come. */
import { type AppliedRules, addCounts } from '../../model/batch.ts';
import { type ErrorReport, SluiceError } from '../../model/errors.ts';
import type { TableSchema } from '../../model/table.ts';
import type { TableChanges } from '../capture/stream.ts';
import type { LookUp } from './join.ts';
import { type StageCounts, TableStage } from './stage.ts';

/** What rules and checks did to the rows of a batch. */
export interface StagedBatch {
  /** The highest version of rules among its tables; 0 = none has any. */
  version: number;
  applied: AppliedRules;
  /** What checks found; partitions of several shapes come one by one. */
  checked: ({ asset: string } & Omit<StageCounts, 'counts'>)[];
  /** Tables that stop, since a rule or check says so. */
  failed: Record<string, ErrorReport>;
}

export class Stages {
  readonly #definition: (asset: string) => TableSchema | undefined;
  readonly #lookUp: LookUp;
  /** By the form in which rows come: those of before an alteration have their own. */
  readonly #stages = new WeakMap<TableSchema, { definition: TableSchema; stage: TableStage }>();

  /**
   * @param definition what a copy is made from now.
   * @param lookUp finds rows of other copies, for joins.
   */
  constructor(definition: (asset: string) => TableSchema | undefined, lookUp: LookUp) {
    this.#definition = definition;
    this.#lookUp = lookUp;
  }

  /** Puts rows of a batch through the rules and checks of their tables, in place. */
  async apply(tables: TableChanges[]): Promise<StagedBatch> {
    const staged: StagedBatch = { version: 0, applied: {}, checked: [], failed: {} };
    for (const changes of tables) {
      const { asset_id: asset, rules } = changes.table;
      if (!rules || asset in staged.failed) continue;
      try {
        const { definition, stage } = this.#stageOf(changes.table);
        await stage.lookUp([changes.block], this.#lookUp);
        const { rejected } = await stage.apply(changes.block, changes.rejects, 'tombstone');
        changes.effects.rejected += rejected;
        // Rows that came before the rules were exchanged in place are written as these have made them.
        const { rules: ruled, targets, joined } = definition;
        if (definition !== changes.table) changes.table = { ...changes.table, rules: ruled, targets, joined };
        staged.version = Math.max(staged.version, rules.version);
        staged.applied[asset] ??= {};
        const { counts, ...checked } = stage.takeCounts();
        addCounts(staged.applied[asset], counts);
        if (checked.rows.checked > 0) staged.checked.push({ asset, ...checked });
      } catch (error) {
        if (!(error instanceof SluiceError) || error.transient) throw error;
        staged.failed[asset] = error.report();
        delete staged.applied[asset];
      }
    }
    return staged;
  }

  #stageOf(form: TableSchema): { definition: TableSchema; stage: TableStage } {
    const definition = this.#definition(form.asset_id) ?? form;
    const known = this.#stages.get(form);
    if (known?.definition === definition) return known;
    const made = { definition, stage: new TableStage(definition, form.columns) };
    this.#stages.set(form, made);
    return made;
  }
}
