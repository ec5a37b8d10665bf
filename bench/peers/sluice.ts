/** PostgreSQL → Sluice → ClickHouse, where the changes can be queried and are on disk. */
import type pg from 'pg';
import { durablePosition } from '../../activities/capture/postgresql/durable.ts';
import type { Control } from '../../api/control/control.ts';
import { deleteSource, orderSource } from '../../api/control/sources.ts';
import type { GuardedProcess } from '../../workers/embedded/guarded_process.ts';
import type { StartedParts } from '../../workers/embedded/start_parts.ts';
import { drainProduct, source, startSource } from '../capture.ts';
import { startWorker } from '../measure/product.ts';
import type { Ending } from './ending.ts';
import type { Drained, Side, Watch } from './side.ts';
import { watchTable } from './visible_rows.ts';

type Parts = StartedParts<'clickhouse' | 'temporal'>;

export class Sluice implements Side {
  readonly pids: Record<string, number>;
  readonly #client: pg.Client;
  readonly #control: Control;

  private constructor(client: pg.Client, control: Control, parts: Parts, worker: GuardedProcess) {
    this.#client = client;
    this.#control = control;
    this.pids = { worker: worker.pid, clickhouse: parts.clickhouse.pid, temporal: parts.temporal.pid };
  }

  /** Starts a worker and connects the source, which is paused then. */
  static async start(client: pg.Client, postgresUrl: string, parts: Parts, ending: Ending): Promise<Sluice> {
    const { worker, control } = await startWorker(parts, postgresUrl);
    ending.add(() => worker.stop('SIGTERM', 5000));
    ending.add(() => control[Symbol.asyncDispose]());
    await startSource(control);
    return new Sluice(client, control, parts, worker);
  }

  async drain(): Promise<Drained> {
    const end = await durablePosition(this.#client);
    return { seconds: await drainProduct(this.#control, end) };
  }

  async empty(): Promise<void> {
    await this.drain();
  }

  async resume(): Promise<void> {
    await orderSource(this.#control, source, 'resume');
  }

  async stop(): Promise<void> {
    await orderSource(this.#control, source, 'pause');
  }

  async watch(): Promise<Watch> {
    return watchTable(this.#control.clickhouse, this.#control.clickhouse.name(`${source}_bench`));
  }

  async remove(): Promise<void> {
    await deleteSource(this.#control, source, { dropCopies: true, force: false });
  }
}
