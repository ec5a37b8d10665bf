/**
 * The activities of rules and checks, as the catalog sees them. The catalog calls one at a time; each may run again after a crash,
 * and changes nothing then.
 */
import type { SettleAnswer, SettleRequest } from '../../model/rejects.ts';
import type { DeclaredRules } from '../../model/rules.ts';
import type { ShapeIssue } from '../../model/shape_error.ts';

export interface RuleActivities {
  /** The newest set that was stored; version 0 when there is none. */
  readDeclaredRules(): Promise<DeclaredRules>;

  /**
   * Compiles a set against the copies that are known, and stores it when nothing is wrong with it. Answers what is wrong, with
   * pointers into the set. Errors: `conflict` when the version is there with other content.
   */
  declareRules(input: { set: DeclaredRules; by: string; change: string }): Promise<ShapeIssue[]>;

  /** What `declareRules` would find wrong with a set; nothing is stored. */
  checkRules(input: { set: DeclaredRules }): Promise<ShapeIssue[]>;

  /** Releases or discards open rejects of an asset. What is released is a batch record of kind `release`. */
  settleRejects(input: SettleRequest): Promise<SettleAnswer>;
}
