/** What the oracle knows of a table. */
import type { Random } from '../../workers/demo/random.ts';

export interface OracleTable {
  name: string;
  /** Statements that make it. */
  create: string[];
  /** None: rows that are alike are counted. */
  key: string[];
  /** One random statement that changes it; it may fail (a key that is taken), which is part of the game. */
  change(random: Random): string;
  /** SQL condition for rows that ClickHouse cannot hold: they must be among the rejects instead. */
  unrepresentable?: string;
  /** Of a partitioned table: statements, to be run together, that change which partitions it has. */
  repartition?(random: Random): string[];
}
