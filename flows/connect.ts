/** How a source comes to be: preflight, and the answers of the update `connect`. */
import { allHandlersFinished, condition } from '@temporalio/workflow';
import type { PreflightAnswer } from '../activities/capture/contract.ts';
import type { ConnectAnswer } from '../model/messages.ts';
import { sameJson } from '../model/same_json.ts';
import type { ConnectRequest, Finding } from '../model/source.ts';
import { activities, askOptions } from './activities.ts';
import { type FlowState, newTable, statusOf } from './captureState.ts';
import { stateLimit } from './input.ts';
import { readFailure, refuse } from './refuse.ts';

export class Connection {
  readonly #state: FlowState;
  /** Undefined until preflight has answered. */
  #outcome: 'established' | 'refused' | undefined;
  #findings: Finding[] = [];
  #asked = false;
  #creatorKnown = false;

  constructor(state: FlowState, established: boolean) {
    this.#state = state;
    if (established) this.#outcome = 'established';
  }

  get established(): boolean {
    return this.#outcome === 'established';
  }

  /**
   * Runs preflight for a fresh flow and takes in its tables. Answers false when there are blockers and an update has
   * told them to somebody; fails with them when the flow was started without one.
   */
  async establish(): Promise<boolean> {
    const answer = await this.#preflight();
    this.#findings = answer.findings;
    for (const found of answer.tables) this.#state.tables.push(newTable(found, false));
    if (JSON.stringify(this.#state).length > stateLimit) this.#findings.push(tooManyTables(answer.tables.length));
    const blockers = this.#findings.filter((finding) => finding.blocking);
    this.#outcome = blockers.length === 0 ? 'established' : 'refused';
    if (this.established) return true;
    await condition(allHandlersFinished);
    if (!this.#asked) throw blocked(blockers);
    return false;
  }

  /** Answers the update `connect`. */
  async connect(request: ConnectRequest): Promise<ConnectAnswer> {
    this.#asked = true;
    const own = sameJson(request, this.#state.request);
    const creator = own && this.#outcome === undefined && !this.#creatorKnown;
    if (creator) this.#creatorKnown = true;
    await condition(() => this.#outcome !== undefined);
    if (this.#outcome === 'refused') {
      if (own) return { outcome: 'refused', findings: this.#findings, status: null };
      throw refuse('conflict', 'another connect request of this source was refused just now', 'Connect again.');
    }
    if (creator) return this.#answer('created');
    if (own) return this.#answer('same');
    return this.#compare(request);
  }

  #answer(outcome: ConnectAnswer['outcome']): ConnectAnswer {
    return { outcome, findings: this.#findings, status: statusOf(this.#state) };
  }

  /** Only an activity can open two sealed connection strings; which tables are captured only the flow knows. */
  async #compare(request: ConnectRequest): Promise<ConnectAnswer> {
    const state = this.#state;
    if (request.id !== state.request.id)
      throw refuse('conflict', `this is source ${state.request.id}`, 'Connect to its own flow.');
    const { tables: _, ...config } = state.request.config;
    const { tables } = request.config;
    const current = { ...state.request, config: tables === undefined ? config : { tables, ...config } };
    const answer = await askPreflight(request, { current });
    const captured = new Set(state.tables.map((table) => table.asset_id));
    const sameTables =
      sameJson(request.config.tables, state.request.config.tables) ||
      (answer.tables.length === captured.size && answer.tables.every((table) => captured.has(table.asset_id)));
    if (!answer.same || !sameTables) return this.#answer('conflict');
    // The same database under the same name, perhaps with a new password or key: from now on with that one.
    state.request = { ...state.request, connection_string: request.connection_string };
    return this.#answer('same');
  }

  async #preflight(): Promise<PreflightAnswer> {
    try {
      return await askPreflight(this.#state.request);
    } catch (error) {
      const { report } = readFailure(error);
      const finding = { code: report.kind, blocking: true, detail: report.reason, remedy: report.remedy };
      return { findings: [finding], tables: [], same: true };
    }
  }
}

/** Preflight, for somebody who waits. Throws `preflight`'s own errors as they are. */
export async function askPreflight(
  request: ConnectRequest,
  more: { current?: ConnectRequest; beside?: string[] } = {},
): Promise<PreflightAnswer> {
  const options = { ...askOptions, summary: `look at the source of ${request.id}` };
  return activities.preflightSource.executeWithOptions(options, [{ request, ...more }]);
}

/** What a flow or an update fails with when preflight found blockers; the findings are in its details. */
export function blocked(blockers: Finding[]): Error {
  const lines = blockers.slice(0, 20).map((finding) => {
    const place = finding.table === undefined ? '' : `${finding.table}: `;
    return `${place}${finding.detail} → ${finding.remedy}`;
  });
  return refuse(
    'preflight',
    `the source is not ready: ${lines.join(' | ')}`.slice(0, 4000),
    'Do what stands behind each arrow, then try again.',
    blockers.slice(0, 50),
  );
}

function tooManyTables(count: number): Finding {
  return {
    code: 'too_many_tables',
    blocking: true,
    detail: `${count} tables make the state of one source larger than 512 KB`,
    remedy: 'Split them over several sources, each with its own slot and publication.',
  };
}
