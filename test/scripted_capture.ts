/**
 * Activities of capturing by script, to test what flows decide: which activity runs when, with what, and what follows
 * from its answer. They watch over what the flow promises: one lease at a time, and none beside a change of the source.
 */
import { setTimeout as pause } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { CancelledFailure, Context } from '@temporalio/activity';
import type { CaptureActivities, KnownTables, TableRef } from '../activities/capture/contract.ts';
import type { BatchGlance } from '../model/batch.ts';
import type { ErrorReport } from '../model/errors.ts';
import { SluiceError } from '../model/errors.ts';
import type { CaptureConfig, ConnectRequest, Finding, LeaseSummary, LeftOutTable } from '../model/source.ts';

export interface Call {
  name: keyof CaptureActivities;
  source: string;
  attempt: number;
  /** Milliseconds of the clock. */
  began: number;
  ended?: number;
  lease?: number;
  tables?: string[];
  /** Of `tables` those that nobody asked to have copied anew. */
  automatic?: string[];
  renew?: boolean;
  absent?: string[];
  known?: KnownTables;
  chunk?: number;
  connection?: string;
  config?: CaptureConfig;
}

/** What one source does; tests change it while flows run. */
export interface Script {
  /** Tables of the source: names in `public`. */
  tables: string[];
  findings: Finding[];
  /** Thrown by the next call of an activity, once each. */
  failures: Partial<Record<keyof CaptureActivities, SluiceError[]>>;
  /** Reported by the running lease, once: asset id → error. */
  failTables: Record<string, ErrorReport>;
  /** Asset ids of absent tables that the running lease finds again, once. */
  returned: string[];
  /** Names of new tables that the running lease finds, once; and those that it finds and has to leave out. */
  found: string[];
  leftOut: LeftOutTable[];
  chunks: number;
  chunkMilliseconds: number;
  /** A chunk waits for somebody's lock for so long, and hears nobody meanwhile. */
  deafMilliseconds?: number;
  /** The stream does not come to the ends of snapshots. */
  streamStands?: boolean;
  prepareMilliseconds: number;
  snapshotDone: string[];
  lastLease: number;
  start: string;
  /** Bytes of log that the source keeps. */
  retained: number;
  /** The slot was made anew: every table starts from `start` again. */
  newSlot: boolean;
}

export function newScript(tables: string[]): Script {
  return {
    tables,
    findings: [],
    failures: {},
    failTables: {},
    returned: [],
    found: [],
    leftOut: [],
    chunks: 3,
    chunkMilliseconds: 20,
    prepareMilliseconds: 30,
    snapshotDone: [],
    lastLease: 0,
    start: '0/100',
    retained: 1000,
    newSlot: false,
  };
}

export class ScriptedCapture implements CaptureActivities {
  readonly scripts = new Map<string, Script>();
  readonly calls: Call[] = [];
  /** What must not happen, and did. */
  readonly broken: string[] = [];
  readonly #tell: (call: Call) => void;

  /** `tell` hears of each call when it begins and when it ends. */
  constructor(tell: (call: Call) => void = () => {}) {
    this.#tell = tell;
  }

  script(source: string): Script {
    const script = this.scripts.get(source);
    if (!script) throw new SluiceError('source_unreachable', `no such source ${source}`, 'Name a source of the test.');
    return script;
  }

  callsOf(source: string, name?: keyof CaptureActivities): Call[] {
    return this.calls.filter((call) => call.source === source && (name === undefined || call.name === name));
  }

  running(source: string, name: keyof CaptureActivities): Call[] {
    return this.callsOf(source, name).filter((call) => call.ended === undefined);
  }

  async preflightSource({ request, current }: { request: ConnectRequest; current?: ConnectRequest }) {
    return this.#call('preflightSource', request.id, {}, async (script) => {
      const names = request.config.tables ?? script.tables;
      const missing = names.filter((name) => !script.tables.includes(name));
      const findings = missing.map((table) => ({
        code: 'table_missing',
        blocking: true,
        table,
        detail: 'there is no such table',
        remedy: 'Make it, or name another.',
      }));
      const found = names.filter((name) => script.tables.includes(name));
      return {
        findings: [...script.findings, ...findings],
        tables: found.map((table) => ({ asset_id: `${request.id}_${table}`, schema: 'public', table })),
        same: current === undefined || isDeepStrictEqual(current.config, request.config),
      };
    });
  }

  async prepareSource({ request, tables, renew }: Parameters<CaptureActivities['prepareSource']>[0]) {
    const automatic = names(tables.filter((table) => table.automatic));
    return this.#call('prepareSource', request.id, { tables: names(tables), automatic, renew }, async (script) => {
      this.#expectNoLease(request.id, 'prepareSource');
      await pause(script.prepareMilliseconds);
      return {
        position: script.start,
        last_lease: script.lastLease,
        tables: tables.map((table) => ({
          ...table,
          start_position: script.newSlot ? script.start : table.start_position || script.start,
          snapshot_done: !script.newSlot && script.snapshotDone.includes(`${table.asset_id}/${table.generation}`),
        })),
      };
    });
  }

  async captureLease(input: {
    request: ConnectRequest;
    lease: number;
    tables: TableRef[];
    absent?: TableRef[];
    known?: KnownTables;
    seconds: number;
  }): Promise<LeaseSummary> {
    const { lease, tables, absent = [], known, seconds, request } = input;
    return this.#call(
      'captureLease',
      request.id,
      {
        lease,
        tables: names(tables),
        absent: names(absent),
        known,
        connection: request.connection_string,
        config: request.config,
      },
      async (script, call) => {
        const other = this.running(request.id, 'captureLease').find((running) => running !== call);
        if (other) this.broken.push(`lease ${lease} beside lease ${other.lease}`);
        const context = Context.current();
        const end = Date.now() + seconds * 1000;
        let ended: LeaseSummary['ended'] = 'time';
        let failed: Record<string, ErrorReport> = {};
        while (Date.now() < end) {
          context.heartbeat({ position: '0/200', changes: 1, batches: 1 });
          this.#throwScripted(script, 'captureLease');
          if (context.cancellationSignal.aborted) {
            ended = 'cancelled';
            // The batch that is being written ends first.
            await pause(100);
            break;
          }
          const poisoned = Object.entries(script.failTables).filter(([id]) => tables.some((t) => t.asset_id === id));
          if (poisoned.length > 0) {
            for (const [id] of poisoned) delete script.failTables[id];
            failed = Object.fromEntries(poisoned);
            ended = 'table_failed';
            break;
          }
          const returned = absent.map((table) => table.asset_id).filter((id) => script.returned.includes(id));
          if (returned.length > 0) {
            script.returned = [];
            return { ...summary(lease, 'table_returned', {}), returned };
          }
          const news = script.found.length > 0 || !isDeepStrictEqual(script.leftOut, known?.left_out ?? []);
          if (known && news) {
            const found = script.found.splice(0);
            script.tables.push(...found);
            const named = found.map((table) => ({ asset_id: `${request.id}_${table}`, schema: 'public', table }));
            return { ...summary(lease, 'tables_found', {}), found: named, left_out: script.leftOut };
          }
          await pause(50);
        }
        return summary(lease, ended, failed);
      },
    );
  }

  async planSnapshot({ request, table }: { request: ConnectRequest; table: TableRef }) {
    return this.#call('planSnapshot', request.id, { tables: names([table]) }, async (script) => {
      return { chunks: script.chunks, estimated_rows: 10 * script.chunks };
    });
  }

  async copyChunk({ request, table, chunk }: { request: ConnectRequest; table: TableRef; chunk: number }) {
    return this.#call('copyChunk', request.id, { tables: names([table]), chunk }, async (script) => {
      if (script.deafMilliseconds) await pause(script.deafMilliseconds);
      await this.#takeTime(script.chunkMilliseconds);
      return { rows: 10, bytes: 100 };
    });
  }

  async finishSnapshot({ request, table }: { request: ConnectRequest; table: TableRef }) {
    return this.#call('finishSnapshot', request.id, { tables: names([table]) }, async (script) => {
      script.snapshotDone.push(`${table.asset_id}/${table.generation}`);
      return { complete_at: '0/180', rows: 10 * script.chunks };
    });
  }

  async awaitPosition({ source }: { source: string; position: string }) {
    return this.#call('awaitPosition', source, {}, async (script) => {
      do await this.#takeTime(100);
      while (script.streamStands);
      return [batchOf(source)];
    });
  }

  async releaseTables({ request, tables }: { request: ConnectRequest; tables: TableRef[] }) {
    return this.#call('releaseTables', request.id, { tables: names(tables) }, async () => {
      this.#expectNoLease(request.id, 'releaseTables');
    });
  }

  async removeSource({ request, tables }: { request: ConnectRequest; tables: TableRef[] }) {
    return this.#call('removeSource', request.id, { tables: names(tables) }, async () => {
      this.#expectNoLease(request.id, 'removeSource');
    });
  }

  async verifySource({ source }: { source: string; table?: string }) {
    return this.#call('verifySource', source, {}, async () => ({ identical: true, tables: 2, id: 'v1', found: [] }));
  }

  async lookAtLog({ source }: { source: string }) {
    return this.#call('lookAtLog', source, {}, async ({ retained }) => {
      const at = new Date().toISOString();
      await pause(250);
      const kept = { retained_bytes: retained, limit_bytes: null, danger: null };
      return { at, position: '0/300', acknowledged: '0/200', ...kept };
    });
  }

  async recentBatches({ source }: { source: string; limit: number }) {
    return this.#call('recentBatches', source, {}, async () => [batchOf(source)]);
  }

  async #call<T>(
    name: Call['name'],
    source: string,
    what: Partial<Call>,
    run: (script: Script, call: Call) => Promise<T>,
  ): Promise<T> {
    const call: Call = { name, source, attempt: Context.current().info.attempt, began: Date.now(), ...what };
    this.calls.push(call);
    this.#tell(call);
    try {
      const script = this.script(source);
      this.#throwScripted(script, name);
      return await run(script, call);
    } finally {
      call.ended = Date.now();
      this.#tell(call);
    }
  }

  #throwScripted(script: Script, name: Call['name']): void {
    const failure = script.failures[name]?.shift();
    if (failure) throw failure;
  }

  #expectNoLease(source: string, name: string): void {
    if (this.running(source, 'captureLease').length > 0) this.broken.push(`${name} beside a lease`);
  }

  async #takeTime(milliseconds: number): Promise<void> {
    const signal = Context.current().cancellationSignal;
    await pause(milliseconds, undefined, { signal }).catch(() => {
      throw new CancelledFailure('asked to end');
    });
  }
}

function batchOf(source: string): BatchGlance {
  const at = { committed_last: '2026-01-01T00:00:00Z', recorded_at: '2026-01-01T00:00:00.25Z' };
  return { id: `${source}/1/1`, kind: 'rows', position_to: '0/200', changes: 3, rows: 3, ...at };
}

function names(tables: TableRef[]): string[] {
  return tables.map((table) => table.table);
}

function summary(lease: number, ended: LeaseSummary['ended'], failed: Record<string, ErrorReport>): LeaseSummary {
  return {
    ended,
    lease,
    position_from: '0/100',
    position_to: '0/200',
    batches: 1,
    changes: 1,
    assets: {},
    first: null,
    last: null,
    hash: 'h',
    failed,
    log: null,
  };
}
