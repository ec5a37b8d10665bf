/** Rejects that are settled: what the API and the flow `settleRejects` tell each other. */

/** Rejects that are settled at once. */
export const settleLimit = 10_000;

/** One at a time for each asset. */
export const rejectsWorkflowId = (asset: string): string => `rejects/${asset}`;

/** Input of `settleRejects`. Keys and rows do not travel through Temporal: a version says which row is meant. */
export interface SettleRequest {
  asset: string;
  action: 'release' | 'discard';
  /** Decimal texts. */
  versions: string[];
}

/** What became of rejects. */
export interface SettleAnswer {
  asset_id: string;
  released: number;
  discarded: number;
  /** Those that are not right by now, with their new reasons in `_rejects`. */
  still_open: number;
  /** Those that are of the past: a later change of their row, or of the table, is in the copy. */
  superseded: number;
}
