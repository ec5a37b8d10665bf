/** Waiting for a copy to hold what its source has shown. */
import { setTimeout as sleep } from 'node:timers/promises';
import type pg from 'pg';
import { SluiceError } from '../../model/errors.ts';
import { behindPageHeader, formatLsn, parseLsn } from '../../model/position.ts';
import { type TableSchema, tableName } from '../../model/table.ts';
import { sourceError } from '../capture/postgresql/connection.ts';
import { durablePosition } from '../capture/postgresql/durable.ts';
import type { VerifyOptions } from './verify.ts';

export class Pace {
  readonly #client: pg.ClientBase;
  readonly #options: VerifyOptions;
  #applied = 0n;

  constructor(client: pg.ClientBase, options: VerifyOptions) {
    this.#client = client;
    this.#options = options;
  }

  /** The position that a copy must have applied to hold all that was visible before. */
  async position(): Promise<bigint> {
    try {
      return parseLsn(await durablePosition(this.#client));
    } catch (error) {
      throw sourceError(error);
    }
  }

  /** Returns when the copy holds everything up to `position`; that may take long, but the copy must not stand still. */
  async caughtUp(position: bigint): Promise<void> {
    const { appliedPosition, signal, table } = this.#options;
    const patience = (this.#options.patience ?? 60) * 1000;
    let moved = performance.now();
    for (let pause = 10; this.#applied < position; pause = Math.min(pause * 1.5, 500)) {
      signal?.throwIfAborted();
      const applied = behindPageHeader(await appliedPosition());
      if (applied > this.#applied) moved = performance.now();
      this.#applied = applied;
      if (applied >= position) return;
      if (performance.now() - moved > patience) throw new NotCaughtUp(table, applied, position);
      await sleep(pause, undefined, { signal });
    }
  }

  /** Returns when the copy holds everything that the source has now. */
  async caughtUpNow(): Promise<void> {
    await this.caughtUp(await this.position());
  }
}

export class NotCaughtUp extends SluiceError {
  constructor(table: TableSchema, applied: bigint, position: bigint) {
    super(
      'conflict',
      `the copy has not caught up: it stands at ${formatLsn(applied)}, and the source was read at ${formatLsn(position)}`,
      'Start or resume the source, see that its lag shrinks, and verify again.',
      { table: tableName(table) },
    );
  }
}
