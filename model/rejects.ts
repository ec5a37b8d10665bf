/** Rejects that are settled: what the API and the flow `settleRejects` tell each other. */

/** Rejects that are settled at once. */
export const settleLimit = 10_000;

/** One at a time for each asset. */
export const rejectsWorkflowId = (asset: string): string => `rejects/${asset}`;

/** Input of `settleRejects`. Keys and rows do not travel through Temporal: versions and marks say which rows are meant. */
export interface SettleRequest {
  asset: string;
  action: 'release' | 'discard';
  /** Decimal texts. All rows of a snapshot bear one. */
  versions: string[];
  /** What `rowMark` makes of the rows; absent = all with these versions. */
  rows?: string[];
  /** Only what this rule or check holds back is discarded. A row that is released comes whole. */
  rule?: string;
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
