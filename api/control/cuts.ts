/** Up to where copies are complete, and waiting for them to be. */
import { setTimeout as sleep } from 'node:timers/promises';
import { openSource } from '../../activities/capture/source.ts';
import { lastRecord } from '../../activities/load/batches.ts';
import { readSourceCut, readTableCuts, type TableCut } from '../../activities/load/cuts.ts';
import { SluiceError } from '../../model/errors.ts';
import { captureMessages, captureWorkflowId } from '../../model/messages.ts';
import type { CapturedTable, CaptureStatus } from '../../model/source.ts';
import { tableName } from '../../model/table.ts';
import type { Control } from './control.ts';
import { ifThere } from './figures.ts';
import { lookAtLog } from './log.ts';
import type { CutAnswer } from './shapes.ts';
import { registeredSource } from './sources.ts';
import { query } from './temporal.ts';

/** Up to where all tables of a source are complete, and each of them. Errors: `not_found`, `no_worker`. */
export async function getCut(control: Control, source: string): Promise<CutAnswer> {
  await registeredSource(control, source);
  const status = await statusOf(control, source);
  const [cut, tables] = await Promise.all([
    ifThere(() => readSourceCut(control.clickhouse, source)),
    tableCuts(control, source),
  ]);
  const known = new Map(tables.map((table) => [table.asset, table]));
  const shown = status.tables.map((table) => showTable(table, known.get(table.asset_id)));
  // What the flow knows and no record does yet has never been complete.
  const whole = shown.filter(isWanted).every((table) => table.position !== null) && shown.some(isWanted);
  return {
    source,
    status: status.status,
    position: whole ? (cut?.position ?? null) : null,
    committed_at: whole ? (cut?.committed_at ?? null) : null,
    recorded_at: whole ? (cut?.recorded_at ?? null) : null,
    complete: whole && shown.filter(isWanted).every((table) => table.complete),
    tables: shown,
  };
}

type ShownTable = CutAnswer['tables'][number];

function showTable(table: CapturedTable, cut: TableCut | undefined): ShownTable {
  const failed = table.status === 'failed';
  return {
    asset_id: table.asset_id,
    table: tableName(table),
    status: table.status,
    complete: cut?.state === 'complete' && !failed,
    position: cut?.position ?? null,
    recorded_at: cut?.recorded_at ?? null,
  };
}

/** A table that was connected, but never started, is nobody's lack. */
function isWanted(table: ShownTable): boolean {
  return table.status !== 'pending' || table.position !== null;
}

export interface WaitOptions {
  source: string;
  /** A position of the source's log, or `now`: where that stands when the call is made. */
  position: string;
  /** Assets that have to be complete up to there; undefined = all of the source. */
  assets?: string[];
  /** Seconds. */
  timeout: number;
}

/** What a wait has ended with. */
export interface Reached {
  source: string;
  /** The copies hold everything up to here. */
  position: string;
  waited_ms: number;
}

/** Milliseconds between two looks at the records, and between two at the flow. */
const lookEvery = 50;
const askEvery = 1_000;

/**
 * Returns when the copies hold everything that the source had at a position. Errors: `configuration` (no position),
 * `conflict` when that cannot come to be (paused, a table failed), `timeout` saying how far the copies are.
 */
export async function waitForCut(control: Control, options: WaitOptions): Promise<Reached> {
  const began = Date.now();
  const wait = new Wait(control, options, (await registeredSource(control, options.source)).type);
  await wait.expectMoving();
  const target = await wait.target();
  let asked = Date.now();
  while (!(await wait.reached(target))) {
    if (Date.now() - began > options.timeout * 1000) throw await wait.late(target);
    if (Date.now() - asked > askEvery) {
      await wait.expectMoving();
      asked = Date.now();
    }
    await sleep(lookEvery);
  }
  return { source: options.source, position: target, waited_ms: Date.now() - began };
}

class Wait {
  readonly #control: Control;
  readonly #options: WaitOptions;
  readonly #type: CaptureStatus['type'];
  #passed: (position: string, target: string) => boolean = () => false;
  #status: CaptureStatus | undefined;

  constructor(control: Control, options: WaitOptions, type: CaptureStatus['type']) {
    this.#control = control;
    this.#options = options;
    this.#type = type;
  }

  /** The position to wait for. Only the source's own code reads positions. */
  async target(): Promise<string> {
    const { source: id, position } = this.#options;
    const source = await openSource(this.#type);
    this.#passed = (one, target) => source.passed(one, target);
    if (position === 'now') return (await lookAtLog(this.#control, id)).state.position;
    try {
      source.passed(position, position);
      return position;
    } catch {
      const remedy = 'Write now, or a position as the source prints it, e.g. 0/16B3748.';
      throw new SluiceError('configuration', `${position.slice(0, 60)} is no position of ${id}`, remedy, {
        source: id,
      });
    }
  }

  /** Throws `conflict` when no wait would help. */
  async expectMoving(): Promise<void> {
    const { source } = this.#options;
    const status = await statusOf(this.#control, source);
    this.#status = status;
    if (status.status === 'streaming' || status.status === 'snapshotting') {
      const failed = status.tables.find((table) => table.status === 'failed' && this.#isNeeded(table.asset_id));
      if (!failed) return;
      const reason = `the table ${tableName(failed)} has failed, so its copy does not follow: ${failed.error?.reason ?? ''}`;
      throw new SluiceError('conflict', reason, failed.error?.remedy ?? '', { source, table: tableName(failed) });
    }
    const because = status.last_error ? `: ${status.last_error.reason}` : '';
    const remedy = status.last_error?.remedy ?? `Let it go on: sluice sources start ${source}`;
    throw new SluiceError(
      'conflict',
      `the source ${source} is ${status.status}, so its copies do not follow${because}`,
      remedy,
      {
        source,
      },
    );
  }

  async reached(target: string): Promise<boolean> {
    const { clickhouse } = this.#control;
    const { source } = this.#options;
    // The cheap question first: most looks end here.
    const record = await ifThere(() => lastRecord(clickhouse, source));
    if (!record || !this.#passed(record.position_to, target)) return false;
    const cuts = new Map((await tableCuts(this.#control, source)).map((cut) => [cut.asset, cut]));
    return this.#needed(cuts).every((asset) => {
      const position = cuts.get(asset)?.position;
      return typeof position === 'string' && this.#passed(position, target);
    });
  }

  #isNeeded(asset: string): boolean {
    return this.#options.assets?.includes(asset) ?? true;
  }

  /** Tables that have to be complete: the named ones, or all that were begun. */
  #needed(cuts: Map<string, TableCut>): string[] {
    const begun =
      this.#status?.tables.filter((table) => table.status !== 'pending').map((table) => table.asset_id) ?? [];
    return this.#options.assets ?? [...new Set([...begun, ...cuts.keys()])];
  }

  /** Says how far the copies are. */
  async late(target: string): Promise<SluiceError> {
    const { source, timeout } = this.#options;
    const record = await ifThere(() => lastRecord(this.#control.clickhouse, source));
    const cuts = new Map((await tableCuts(this.#control, source)).map((cut) => [cut.asset, cut]));
    const behind = this.#needed(cuts).flatMap((asset) => {
      const position = cuts.get(asset)?.position ?? null;
      if (position !== null && this.#passed(position, target)) return [];
      return [`${asset} ${position === null ? 'is not complete yet' : `is complete up to ${position}`}`];
    });
    const shown = behind.length > 5 ? [...behind.slice(0, 5), `${behind.length - 5} more`] : behind;
    const reason = `${source} was waited for ${timeout} s to reach ${target}; its stream stands at ${record?.position_to ?? 'its beginning'}, and ${shown.join(', ')}`;
    const remedy = `See its lag (sluice status), and give it more time: --timeout, or timeout in the request.`;
    return new SluiceError('timeout', reason, remedy, { source, position: target });
  }
}

function statusOf(control: Control, source: string): Promise<CaptureStatus> {
  return query<CaptureStatus>(control, captureWorkflowId(source), captureMessages.status);
}

async function tableCuts(control: Control, source: string): Promise<TableCut[]> {
  return (await ifThere(() => readTableCuts(control.clickhouse, source))) ?? [];
}
